//! Reading through one buffer for each thread: connections that wait hold no memory, and what came is
//! copied once, into as much as it needs.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

/// More than a socket has at hand, most of the time: one read then empties it.
const SIZE: usize = 64 << 10;

thread_local! {
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

fn with<T>(use_it: impl FnOnce(&mut [u8]) -> T) -> T {
    let mut scratch = SCRATCH.take();
    scratch.resize(SIZE, 0);
    let used = use_it(&mut scratch);
    SCRATCH.set(scratch);
    used
}

/// Puts pieces together, as far as they fit, and has `give` see them as one.
pub(super) fn joined<T>(pieces: &[IoSlice<'_>], give: impl FnOnce(&[u8]) -> T) -> T {
    with(|scratch| {
        let mut length = 0;
        for piece in pieces {
            let Some(place) = scratch.get_mut(length..length + piece.len()) else {
                break;
            };
            place.copy_from_slice(piece);
            length += piece.len();
        }
        give(scratch.get(..length).unwrap_or_default())
    })
}

/// Reads once and has `take` look at what came: nothing, at the end of the stream.
pub(crate) fn poll_read<S, T>(
    from: &mut S,
    context: &mut Context<'_>,
    take: impl FnOnce(&mut [u8]) -> T,
) -> Poll<io::Result<T>>
where
    S: AsyncRead + Unpin,
{
    poll_read_up_to(SIZE, from, context, take)
}

/// The same with at most `most` bytes.
pub(super) fn poll_read_up_to<S, T>(
    most: usize,
    from: &mut S,
    context: &mut Context<'_>,
    take: impl FnOnce(&mut [u8]) -> T,
) -> Poll<io::Result<T>>
where
    S: AsyncRead + Unpin,
{
    with(|scratch| {
        let mut buffer = ReadBuf::new(scratch.get_mut(..most).unwrap_or_default());
        ready!(Pin::new(from).poll_read(context, &mut buffer))?;
        Poll::Ready(Ok(take(buffer.filled_mut())))
    })
}
