//! Takes tasks that want to be worked on, keeps the leases on them, and gives them back.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::actor::{self, Lease, Ports, Stopped};
use crate::id::TaskId;
use crate::log::Claim;

/// How a node works.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The name of this node, one of its own among all that share a log.
    pub node: String,
    /// Tasks at once.
    pub tasks: usize,
    /// How long a lease lasts without a heartbeat.
    pub lease: Duration,
    /// How often tasks are looked for that nobody told of.
    pub poll: Duration,
}

/// A node at work.
#[derive(Debug)]
pub struct Worker {
    ports: Arc<Ports>,
    settings: Settings,
    held: Mutex<BTreeMap<TaskId, Held>>,
    /// There may be something to claim.
    news: Notify,
}

/// A task that this node works on.
#[derive(Debug, Clone)]
struct Held {
    lease: Lease,
    /// The end of its log, as the last heartbeat saw it.
    seen: u64,
}

impl Worker {
    /// A worker that has not begun.
    pub fn new(ports: Arc<Ports>, settings: Settings) -> Arc<Self> {
        Arc::new(Self {
            ports,
            settings,
            held: Mutex::default(),
            news: Notify::new(),
        })
    }

    /// What its tasks reach.
    pub fn ports(&self) -> &Arc<Ports> {
        &self.ports
    }

    /// Begins to claim, to work and to keep leases, until `stop`. Actors then end what they have under way
    /// and give their leases back; whoever waits for `tracker` waits for them.
    pub fn start(self: &Arc<Self>, tracker: &TaskTracker, stop: &CancellationToken) {
        let (worker, stopping, actors) = (Arc::clone(self), stop.clone(), tracker.clone());
        tracker.spawn(async move {
            while !stopping.is_cancelled() {
                if let Err(error) = worker.claim(&actors, &stopping).await {
                    tracing::warn!(%error, "tasks could not be claimed");
                }
                let nap = tokio::time::sleep(worker.settings.poll);
                tokio::select! {
                    () = stopping.cancelled() => {}
                    () = worker.news.notified() => {}
                    () = nap => {}
                }
            }
        });
        let (worker, stop) = (Arc::clone(self), stop.clone());
        let beat = worker.settings.lease / 6;
        // Leases are kept while actors come to their ends, too.
        tracker.spawn(async move {
            loop {
                if stop.is_cancelled() && worker.is_idle() {
                    return;
                }
                tokio::time::sleep(if stop.is_cancelled() {
                    Duration::from_millis(50)
                } else {
                    beat
                })
                .await;
                worker.beat().await;
            }
        });
    }

    /// Something came from outside for a task: its actor here reads it, or somebody claims it.
    pub fn nudge(&self, task: TaskId) {
        match self.lock().get(&task) {
            Some(held) => held.lease.news.notify_one(),
            None => self.news.notify_one(),
        }
    }

    /// Tasks that this node works on now.
    pub fn working(&self) -> usize {
        self.lock().len()
    }

    fn is_idle(&self) -> bool {
        self.lock().is_empty()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<TaskId, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lease_ms(&self) -> i64 {
        i64::try_from(self.settings.lease.as_millis()).unwrap_or(30_000)
    }

    async fn claim(
        self: &Arc<Self>,
        actors: &TaskTracker,
        stop: &CancellationToken,
    ) -> Result<(), crate::log::TaskLogError> {
        let free = self.settings.tasks.saturating_sub(self.working());
        if free == 0 {
            return Ok(());
        }
        let (node, lease_ms) = (self.settings.node.clone(), self.lease_ms());
        let limit = u32::try_from(free).unwrap_or(u32::MAX);
        // The lease runs from before the question, by a clock of ours: never longer than the log says.
        let asked_ms = (self.ports.clock)();
        let claims = self
            .ports
            .ask(move |log| log.claim(&node, lease_ms, limit))
            .await??;
        for claim in claims {
            self.begin(claim, asked_ms + lease_ms, actors, stop);
        }
        Ok(())
    }

    fn begin(
        self: &Arc<Self>,
        claim: Claim,
        until_ms: i64,
        actors: &TaskTracker,
        stop: &CancellationToken,
    ) {
        let lease = Lease {
            epoch: claim.epoch,
            until_ms: Arc::new(AtomicI64::new(until_ms)),
            news: Arc::new(Notify::new()),
            stop: stop.child_token(),
        };
        let held = Held {
            lease: lease.clone(),
            seen: 0,
        };
        self.lock().insert(claim.task, held);
        let (worker, task) = (Arc::clone(self), claim.task);
        actors.spawn(async move {
            let (ports, node) = (Arc::clone(&worker.ports), worker.settings.node.clone());
            let epoch = lease.epoch;
            let working = AssertUnwindSafe(actor::run(ports, node, task, lease)).catch_unwind();
            let stopped = working.await.unwrap_or_else(|_| {
                tracing::error!(%task, "an actor fell; its task is taken up again when the lease ends");
                Stopped::Broken("it fell".to_owned())
            });
            let mut held = worker.lock();
            if held.get(&task).is_some_and(|it| it.lease.epoch == epoch) {
                held.remove(&task);
            }
            drop(held);
            tracing::debug!(%task, ?stopped, "a task was put down");
            if stopped != Stopped::Fenced {
                // There is room for another.
                worker.news.notify_one();
            }
        });
    }

    /// Prolongs the leases, and tells actors what came from outside on other nodes.
    async fn beat(&self) {
        let held: Vec<(TaskId, u64)> = {
            let held = self.lock();
            held.iter()
                .map(|(task, it)| (*task, it.lease.epoch))
                .collect()
        };
        if held.is_empty() {
            return;
        }
        let (node, lease_ms) = (self.settings.node.clone(), self.lease_ms());
        let asked_ms = (self.ports.clock)();
        let renewed = self
            .ports
            .ask(move |log| log.renew(&node, &held, lease_ms))
            .await;
        let renewed = match renewed {
            Ok(Ok(renewed)) => renewed,
            Ok(Err(error)) | Err(error) => {
                tracing::warn!(%error, "leases on tasks could not be prolonged");
                return;
            }
        };
        let mut held = self.lock();
        for one in renewed {
            let Some(it) = held.get_mut(&one.task) else {
                continue;
            };
            if one.until_ms.is_some() {
                it.lease
                    .until_ms
                    .store(asked_ms + lease_ms, Ordering::Relaxed);
            } else {
                // Lost: no byte leaves any more under it, and its next append is refused.
                it.lease.until_ms.store(0, Ordering::Relaxed);
                it.lease.news.notify_one();
            }
            if one.head.seq > it.seen {
                it.seen = one.head.seq;
                it.lease.news.notify_one();
            }
        }
    }
}
