//! What runs beside the calls: keys looked up, state saved, alarms told, conversations written down.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use meter::LedgerError;
use meter::books::Books;
use meter::hold::Decision;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::assemble::Parts;
use crate::background;
use crate::clock::now_ms;
use crate::gateway::Shared;
use crate::learning;
use crate::leasing;
use crate::tasks::assemble::Tasks;
use crate::telemetry;
use crate::webhook::Webhooks;

/// How often keys made or revoked by another process are looked for.
pub(crate) const KEYS_EVERY: Duration = Duration::from_millis(250);
/// How often the splits are saved; a crash loses what is younger.
const SPLITS_EVERY: Duration = Duration::from_secs(5);
/// How often old conversations are looked for.
const PRUNE_EVERY: Duration = Duration::from_hours(1);
/// How often what budgets decided is written down.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// How often verdicts are learned from.
const LEARN_EVERY: Duration = Duration::from_secs(2);
/// How often the ledger is asked what providers' caches have saved.
const CACHES_EVERY: Duration = Duration::from_mins(1);
const DAY_MS: i64 = 86_400_000;

impl Parts {
    /// Starts what runs beside the calls.
    pub(crate) fn start_chores(&self, tasks: &TaskTracker, stop: &CancellationToken) {
        let (shared, stop_keys) = (Arc::clone(&self.shared), stop.clone());
        tasks.spawn(async move {
            let mut seen = 0;
            while stop_keys
                .run_until_cancelled(tokio::time::sleep(KEYS_EVERY))
                .await
                .is_some()
            {
                background::forget_told(&shared);
                let kept_s = shared.runtime.load().limits.idempotency_s;
                shared.once.forget(Duration::from_secs(kept_s));
                let shared = Arc::clone(&shared);
                let known = seen;
                let looked = tokio::task::spawn_blocking(move || refresh_keys(&shared, known));
                match looked.await {
                    Ok(Ok(version)) => seen = version,
                    Ok(Err(error)) => tracing::warn!(%error, "keys could not be looked up"),
                    Err(_) => return,
                }
            }
        });
        every(SPLITS_EVERY, &self.shared, tasks, stop, save_state);
        every(LEARN_EVERY, &self.shared, tasks, stop, |shared| {
            let runtime = shared.runtime.load();
            Ok(shared.learned.study(&*shared.verdicts, &runtime.routing)?)
        });
        every(CACHES_EVERY, &self.shared, tasks, stop, |shared| {
            Ok(shared.cache_hits.refresh(&*shared.ledger, now_ms())?)
        });
        if let Some(outcomes) = self.tasks.as_ref().map(Tasks::outcomes) {
            every(TELL_EVERY, &self.shared, tasks, stop, move |shared| {
                outcomes.tell(&*shared.ledger)
            });
        }
        if self.shared.meter.is_shared() {
            let shared = Arc::clone(&self.shared);
            tasks.spawn(leasing::rounds(shared, stop.clone()));
        }
        self.start_telling(tasks, stop);
        self.start_archiving(tasks, stop);
        self.start_webhooks(tasks, stop);
        // An encoding takes some 50 ms to read: before the first call that counts, not during it.
        let runtime = self.shared.runtime.load_full();
        tasks.spawn_blocking(move || {
            for target in &runtime.targets {
                target.tokenizer.count("");
            }
        });
    }

    /// Writes down what budgets decided, and what they have to tell.
    fn start_telling(&self, tasks: &TaskTracker, stop: &CancellationToken) {
        let (shared, stop) = (Arc::clone(&self.shared), stop.clone());
        let (books, reconciled) = (
            Arc::clone(&self.desk.load().books),
            Arc::clone(&self.reconciled),
        );
        tasks.spawn(async move {
            let mut untold = Vec::new();
            while stop
                .run_until_cancelled(tokio::time::sleep(TELL_EVERY))
                .await
                .is_some()
            {
                let (shared, books) = (Arc::clone(&shared), Arc::clone(&books));
                let reconciled = Arc::clone(&reconciled);
                let mut decisions = std::mem::take(&mut untold);
                let told = tokio::task::spawn_blocking(move || {
                    let told = tell(&shared, &mut decisions)
                        .and_then(|()| look_at_bills(&*books, &reconciled));
                    (told, decisions)
                });
                let Ok((told, rest)) = told.await else { return };
                untold = rest;
                if let Err(error) = told {
                    tracing::warn!(%error, "what budgets have to tell could not be written down");
                }
            }
        });
    }

    /// Writes what is to be kept of conversations as it comes, and forgets what is too old.
    fn start_archiving(&self, tasks: &TaskTracker, stop: &CancellationToken) {
        let (shared, stop) = (Arc::clone(&self.shared), stop.clone());
        tasks.spawn(async move {
            let mut pruned = None;
            while stop
                .run_until_cancelled(tokio::time::timeout(PRUNE_EVERY, shared.memory.wanted()))
                .await
                .is_some()
            {
                let due = pruned.is_none_or(|at: tokio::time::Instant| at.elapsed() >= PRUNE_EVERY);
                if due {
                    pruned = Some(tokio::time::Instant::now());
                }
                let writer = Arc::clone(&shared);
                let written = tokio::task::spawn_blocking(move || archive(&writer, due)).await;
                if let Ok(Err(error)) = written {
                    tracing::error!(%error, "conversations could not be written down; trying again");
                    tokio::time::sleep(KEYS_EVERY).await;
                    shared.memory.wake();
                }
            }
        });
    }

    /// Tells those who want to know of budgets and entries, as long as this process leads.
    fn start_webhooks(&self, tasks: &TaskTracker, stop: &CancellationToken) {
        let books = Arc::clone(&self.desk.load().books);
        let notices = self.tasks.as_ref().map(Tasks::notices);
        let (stop, shared) = (stop.clone(), Arc::clone(&self.shared));
        let mut told = self.webhooks.subscribe();
        tasks.spawn(async move {
            loop {
                let (hooks, patience) = &*Arc::clone(&told.borrow_and_update());
                let leads = shared.if_leading(|| true);
                let (books, notices) = (Arc::clone(&books), notices.clone());
                let built = (leads && !hooks.is_empty())
                    .then(|| Webhooks::build(books, notices, hooks, patience));
                let telling = async {
                    match built {
                        Some(Ok(webhooks)) => return webhooks.run(stop.clone()).await,
                        Some(Err(error)) => tracing::error!(error, "webhooks can not be called"),
                        None => {}
                    }
                    stop.cancelled().await;
                };
                tokio::select! {
                    () = telling => return,
                    changed = told.changed() => if changed.is_err() { return },
                }
            }
        });
    }

    /// Learns from all verdicts so far, and saves what was learned. Blocks.
    pub(crate) fn study(&self) -> anyhow::Result<()> {
        let runtime = self.shared.runtime.load();
        let verdicts = &*self.shared.verdicts;
        self.shared.learned.study(verdicts, &runtime.routing)?;
        save_state(&self.shared)
    }

    /// Writes the rest down and closes the store.
    pub(crate) fn close(&self) {
        let saved = self.shared.if_leading(|| Some(save_state(&self.shared)));
        if let Some(Err(error)) = saved {
            tracing::warn!(%error, "the routers' state could not be saved");
        }
        self.shared.meter.write_again();
        self.shared.journal.told();
        if let Err(error) = self.shared.memory.write() {
            tracing::error!(%error, "the last of the conversations could not be written down");
        }
        self.store.close();
    }
}

/// Does `work` again and again, off the reactor, until `stop`; what fails is told and tried again.
fn every(
    period: Duration,
    shared: &Arc<Shared>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
    work: impl Fn(&Shared) -> anyhow::Result<()> + Clone + Send + 'static,
) {
    let (shared, stop) = (Arc::clone(shared), stop.clone());
    tasks.spawn(async move {
        while stop
            .run_until_cancelled(tokio::time::sleep(period))
            .await
            .is_some()
        {
            let (shared, work) = (Arc::clone(&shared), work.clone());
            let done =
                tokio::task::spawn_blocking(move || shared.if_leading(|| Some(work(&shared))));
            if let Ok(Some(Err(error))) = done.await {
                tracing::warn!(%error, "a chore failed; trying again");
            }
        }
    });
}

/// Takes up how the ledger compares with providers' bills, once somebody has looked.
fn look_at_bills(
    books: &dyn Books,
    reconciled: &ArcSwap<Vec<telemetry::Reconciled>>,
) -> Result<(), LedgerError> {
    let captures = books.captures()?;
    if !captures.is_empty() {
        let known = captures.into_iter().map(telemetry::Reconciled::from);
        reconciled.store(Arc::new(known.collect()));
    }
    Ok(())
}

/// Writes down decisions and alarms; what the ledger does not take is told again later.
fn tell(shared: &Shared, untold: &mut Vec<Decision>) -> Result<(), meter::LedgerError> {
    let unwritten = shared.meter.write_again();
    if unwritten > 0 {
        tracing::error!(unwritten, "settlements wait for the journal");
    }
    let decisions = shared.meter.take_decisions();
    if !decisions.is_empty() {
        let budgets = shared.meter.standings_alone(now_ms());
        for decision in decisions {
            telemetry::budget_decided(&decision, &budgets);
            match untold.iter_mut().find(|it| it.is_like(&decision)) {
                Some(known) => known.calls = known.calls.saturating_add(decision.calls),
                None => untold.push(decision),
            }
        }
    }
    if !untold.is_empty() {
        shared.ledger.decided(untold)?;
        untold.clear();
    }
    let alarms = shared.meter.alarms(now_ms());
    if alarms.is_empty() {
        return Ok(());
    }
    let told = shared.ledger.tell(&alarms).map(|_| ());
    if told.is_err() {
        shared.meter.alarms_lost();
    }
    told
}

/// Reads the keys again if anybody else has written to the ledger since `known`.
fn refresh_keys(shared: &Shared, known: u64) -> anyhow::Result<u64> {
    let version = shared.ledger.version()?;
    if version != known {
        shared.keys.load(shared.ledger.keys()?);
        shared.meter.set_overrides(&shared.ledger.overrides()?);
        let longest_ms = 400 * DAY_MS;
        let windows = shared.ledger.windows(now_ms() - longest_ms)?;
        shared.meter.set_bases(&windows);
    }
    Ok(version)
}

/// Writes what waits, and at times removes what is too old.
fn archive(shared: &Shared, prune: bool) -> anyhow::Result<()> {
    shared.memory.write()?;
    let runtime = shared.runtime.load();
    let context = &runtime.context;
    if prune {
        let days = i64::from(context.keep_days);
        shared.memory.prune(now_ms() - days * DAY_MS)?;
        shared.ledger.forget_minutes(now_ms() - DAY_MS)?;
    }
    let most = context.max_mb.saturating_mul(1_000_000);
    telemetry::context_bytes(shared.memory.shrink(most)?);
    Ok(())
}

/// Saves what the routers and the token counts have learned.
pub(crate) fn save_state(shared: &Shared) -> anyhow::Result<()> {
    let mut state = Vec::new();
    for target in &shared.runtime.load().targets {
        state.push((
            format!("tokens/{}", target.name),
            target.factor.milli().to_string(),
        ));
    }
    state.extend(shared.splits.saved()?);
    let learned = shared.learned.saved()?;
    state.extend(learned.map(|text| (learning::SAVED.to_owned(), text)));
    if !state.is_empty() {
        shared.ledger.save_state(&state)?;
    }
    Ok(())
}
