//! What tasks reach of the world, and how their logs are read.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::event::Event;
use crate::id::TaskId;
use crate::log::{Recorded, TaskLogError};
use crate::model::Models;
use crate::money::Usd;
use crate::next::Policy;
use crate::state::{Impossible, State};
use crate::{TaskLog, Tools};

/// Events that are read at once.
const PAGE: u32 = 500;
/// Where the log is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Threads {
    /// On threads for what blocks.
    Pool,
    /// Right here, for logs that never block.
    Here,
}

/// Tells what a call cost, where that is known for good.
pub type Settled = Arc<dyn Fn(String) -> BoxFuture<'static, Option<Usd>> + Send + Sync>;

/// What tasks reach of the world.
pub struct Ports {
    pub log: Arc<dyn TaskLog>,
    pub tools: Arc<dyn Tools>,
    pub models: Models,
    /// What a call cost that an earlier life of this node has made, by its request id.
    pub settled: Settled,
    /// Milliseconds since 1970.
    pub clock: Arc<dyn Fn() -> i64 + Send + Sync>,
    pub random: Arc<dyn Fn() -> [u8; 10] + Send + Sync>,
    /// What an operator sets, as it is in force.
    pub policy: Arc<dyn Fn() -> Policy + Send + Sync>,
    /// From which idempotency keys are made.
    pub secret: Vec<u8>,
    pub threads: Threads,
    /// How long one call of a tool may take.
    pub call_within: Duration,
}

impl std::fmt::Debug for Ports {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ports")
            .field("log", &self.log)
            .finish_non_exhaustive()
    }
}

impl Ports {
    /// Asks the log, off the reactor where it blocks.
    pub async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&dyn TaskLog) -> T + Send + 'static,
    ) -> Result<T, TaskLogError> {
        let log = Arc::clone(&self.log);
        match self.threads {
            Threads::Here => Ok(question(&*log)),
            Threads::Pool => tokio::task::spawn_blocking(move || question(&*log))
                .await
                .map_err(|error| TaskLogError {
                    what: "ask the log",
                    cause: error.to_string(),
                }),
        }
    }

    /// A call whose end nobody saw costs what the ledger has of it, where `node` made it in an earlier life:
    /// its journal is then read to the end. Of another node's call more may still come, so that it keeps
    /// what was reserved.
    pub(super) async fn set_right(
        &self,
        state: &State,
        node: &str,
        mut record: Vec<Event>,
    ) -> Vec<Event> {
        for event in &mut record {
            let Event::ModelLost { call, cost } = event else {
                continue;
            };
            let own = state.calls.get(call).filter(|it| it.node == node);
            let Some(request) = own.map(|it| it.request.clone()) else {
                continue;
            };
            if let Some(known) = (self.settled)(request).await {
                *cost = known;
            }
        }
        record
    }

    /// The task as its log tells it; `None` where there is none.
    pub async fn load(&self, task: TaskId) -> Result<Option<State>, LoadError> {
        let events = self.ask(move |log| read_from(log, task, 0)).await??;
        if events.is_empty() {
            return Ok(None);
        }
        Ok(Some(State::fold(&events)?))
    }
}

/// A task can not be read.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error(transparent)]
    Log(#[from] TaskLogError),
    #[error(transparent)]
    Wrong(#[from] Impossible),
}

/// All events of a task behind `after`.
pub fn read_from(
    log: &dyn TaskLog,
    task: TaskId,
    after: u64,
) -> Result<Vec<Recorded>, TaskLogError> {
    let mut events: Vec<Recorded> = Vec::new();
    loop {
        let from = events.last().map_or(after, |event| event.seq);
        let page = log.events(task, from, PAGE)?;
        let is_last = page.len() < usize::try_from(PAGE).unwrap_or(usize::MAX);
        events.extend(page);
        if is_last {
            return Ok(events);
        }
    }
}
