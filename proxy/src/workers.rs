//! Threads that serve callers, each with a runtime of its own: a call stays on the thread that its
//! connection came to, with the connection to its endpoint, and nothing on its way is shared.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{Builder, JoinHandle};

use tokio::runtime::{self, Handle};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

thread_local! {
    static SEAT: Cell<usize> = const { Cell::new(0) };
}

/// The number of the worker that this is, from 1; 0 on any other thread.
pub(crate) fn seat() -> usize {
    SEAT.get()
}

/// The workers. They end when this is dropped, and all that runs on them is dropped with them.
#[derive(Debug)]
pub(crate) struct Workers {
    seats: Vec<Worker>,
    threads: Vec<JoinHandle<()>>,
    stop: CancellationToken,
}

#[derive(Debug)]
struct Worker {
    handle: Handle,
    load: Arc<AtomicUsize>,
}

/// Counts towards the load of a worker for as long as it is kept.
#[derive(Debug)]
struct Load(Arc<AtomicUsize>);

impl Drop for Load {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Workers {
    /// Starts `count` workers; as many as there are cores for 0.
    pub(crate) fn start(count: usize) -> io::Result<Self> {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let count = if count == 0 { cores() } else { count };
        let mut workers = Self {
            seats: Vec::with_capacity(count),
            threads: Vec::with_capacity(count),
            stop: CancellationToken::new(),
        };
        for seat in 1..=count {
            let runtime = runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            workers.seats.push(Worker {
                handle: runtime.handle().clone(),
                load: Arc::default(),
            });
            let stop = workers.stop.clone();
            let thread = Builder::new().name(format!("worker-{seat}"));
            workers.threads.push(thread.spawn(move || {
                SEAT.set(seat);
                runtime.block_on(stop.cancelled());
                // What still runs is dropped here, on its own thread; what blocks is not waited for.
                runtime.shutdown_background();
            })?);
        }
        Ok(workers)
    }

    /// Runs `task` on the worker that has the least to do.
    pub(crate) fn spawn(
        &self,
        tasks: &TaskTracker,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let least = self
            .seats
            .iter()
            .min_by_key(|it| it.load.load(Ordering::Relaxed));
        let Some(worker) = least else { return };
        worker.load.fetch_add(1, Ordering::Relaxed);
        let load = Load(Arc::clone(&worker.load));
        let task = async move {
            task.await;
            drop(load);
        };
        tasks.spawn_on(task, &worker.handle);
    }

    /// Runs a task on each worker, made by `task` from its number.
    pub(crate) fn on_each<T>(&self, tasks: &TaskTracker, task: impl Fn(usize) -> T)
    where
        T: Future<Output = ()> + Send + 'static,
    {
        for (seat, worker) in (1..).zip(&self.seats) {
            tasks.spawn_on(task(seat), &worker.handle);
        }
    }

    /// Ends them, and waits until they have. Blocks.
    pub(crate) fn end(&self) {
        self.stop.cancel();
        while !self.threads.iter().all(JoinHandle::is_finished) {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
