//! The scripted endpoint's fast sister: the same answer to every call, plain or streamed, whole or at a
//! pace, each piece with the time at which it was sent. A load of 100,000 calls a second must not wait
//! for it, so it builds nothing: no JSON is read, and an answer is bytes made before.

mod answers;
mod worker;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;

use anyhow::Context;

use crate::load::Ask;

/// What is answered where a call does not ask for anything itself, see [`Ask`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fixed {
    /// Length of a plain answer's body, about.
    pub answer_bytes: u32,
    /// Length of a stream's event.
    pub chunk_bytes: u32,
    pub chunks: u32,
    pub gap_us: u64,
    pub first_us: u64,
}

impl Default for Fixed {
    fn default() -> Self {
        Self {
            answer_bytes: 1_200,
            chunk_bytes: 277,
            chunks: 100,
            gap_us: 0,
            first_us: 0,
        }
    }
}

impl Fixed {
    /// The same, but for what a call asks for.
    fn asked(mut self, ask: Ask) -> Self {
        self.chunks = ask.chunks.unwrap_or(self.chunks);
        self.gap_us = ask.gap_us.unwrap_or(self.gap_us);
        self.first_us = ask.first_us.unwrap_or(self.first_us);
        self.answer_bytes = ask.bytes.unwrap_or(self.answer_bytes);
        self.chunk_bytes = ask.bytes.unwrap_or(self.chunk_bytes);
        self
    }
}

/// A running endpoint; it stops when dropped.
#[derive(Debug)]
pub struct Endpoint {
    pub address: SocketAddr,
    stop: Arc<AtomicBool>,
    wakers: Vec<Arc<mio::Waker>>,
    threads: Vec<JoinHandle<()>>,
    open: Arc<AtomicUsize>,
}

impl Endpoint {
    /// Starts an endpoint with so many threads.
    ///
    /// # Errors
    /// The address is taken.
    pub fn start(address: SocketAddr, fixed: Fixed, threads: usize) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(address).with_context(|| format!("at {address}"))?;
        let address = listener.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let open = Arc::new(AtomicUsize::new(0));
        let (mut all, mut wakers, mut doors) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..threads.max(1) {
            let (door, arrivals) = mpsc::channel();
            let counted = Arc::clone(&open);
            let worker = worker::Worker::new(fixed, arrivals, Arc::clone(&stop), counted)?;
            let waker = worker.waker();
            doors.push((door, Arc::clone(&waker)));
            wakers.push(waker);
            all.push(std::thread::spawn(move || worker.run()));
        }
        let stopped = Arc::clone(&stop);
        all.push(std::thread::spawn(move || {
            accept(&listener, &doors, &stopped);
        }));
        Ok(Self {
            address,
            stop,
            wakers,
            threads: all,
            open,
        })
    }

    /// The base address to configure as an endpoint.
    pub fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Connections that are open.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // A last connection ends the wait for one.
        drop(TcpStream::connect(self.address));
        for waker in &self.wakers {
            // One that is gone needs no waking.
            let _woken = waker.wake();
        }
        for thread in self.threads.drain(..) {
            let _ended = thread.join();
        }
    }
}

type Door = (mpsc::Sender<TcpStream>, Arc<mio::Waker>);

/// Hands new connections to the workers in turns.
fn accept(listener: &TcpListener, doors: &[Door], stop: &AtomicBool) {
    for (number, stream) in listener.incoming().enumerate() {
        if stop.load(Ordering::Acquire) {
            return;
        }
        let Ok(stream) = stream else {
            // Out of files, most likely: the others go on.
            std::thread::sleep(std::time::Duration::from_millis(5));
            continue;
        };
        let (door, waker) = &doors[number % doors.len()];
        if door.send(stream).is_ok() {
            let _woken = waker.wake();
        }
    }
}
