//! The machine under the gateway: its clock, its luck and its connections. A simulation plays them for the thread
//! that it runs on; a release build has nothing but the machine.

use std::fmt::Debug;
use std::future::Future;
use std::io;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};

/// A connection.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send + Debug {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + Debug> Stream for T {}

/// A connection that is being made.
pub type Connecting = Pin<Box<dyn Future<Output = io::Result<Box<dyn Stream>>> + Send>>;

/// A machine that is played.
#[derive(Debug, Clone, Copy)]
pub struct Machine {
    /// Milliseconds since 1970.
    pub now_ms: fn() -> i64,
    /// Bits that nobody can foresee but by the seed.
    pub luck: fn() -> u64,
    /// A connection to a host at a port.
    pub connect: fn(&str, u16) -> Connecting,
}

#[cfg(debug_assertions)]
thread_local! {
    static PLAYED: std::cell::Cell<Option<Machine>> = const { std::cell::Cell::new(None) };
}

/// Plays `machine` on this thread from here on. Nothing looks at it in a release build.
pub fn play(machine: Machine) {
    #[cfg(debug_assertions)]
    PLAYED.set(Some(machine));
    #[cfg(not(debug_assertions))]
    let _nobody = machine;
}

/// The machine that is played on this thread.
#[inline]
pub(crate) fn played() -> Option<Machine> {
    #[cfg(debug_assertions)]
    return PLAYED.get();
    #[cfg(not(debug_assertions))]
    None
}

/// Fills `bytes` at random.
///
/// # Errors
/// When the system has no randomness; they stay as they are.
pub(crate) fn random(bytes: &mut [u8]) -> Result<(), getrandom::Error> {
    let Some(machine) = played() else {
        return getrandom::fill(bytes);
    };
    for bytes in bytes.chunks_mut(8) {
        for (to, from) in bytes.iter_mut().zip((machine.luck)().to_le_bytes()) {
            *to = from;
        }
    }
    Ok(())
}
