//! Reading through one buffer for each thread: connections that wait hold no memory, and what came is
//! copied once, into as much as it needs.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

/// More than a socket has at hand, most of the time: one read then empties it.
const SIZE: usize = 64 << 10;

thread_local! {
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
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
    let mut scratch = SCRATCH.take();
    scratch.resize(SIZE, 0);
    let mut buffer = ReadBuf::new(&mut scratch);
    let read = Pin::new(from).poll_read(context, &mut buffer);
    let taken = match read {
        Poll::Ready(Ok(())) => Poll::Ready(Ok(take(buffer.filled_mut()))),
        Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
        Poll::Pending => Poll::Pending,
    };
    SCRATCH.set(scratch);
    Poll::Ready(ready!(taken))
}
