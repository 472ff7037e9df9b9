//! The round that shares budgets between nodes: asks the ledger for slices, gives back what is not
//! used, and takes over the ledger's clock.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::gateway::Shared;
use crate::telemetry;

/// The time between rounds, and the least time when calls wait for slices.
const EVERY: Duration = Duration::from_millis(200);
const AT_LEAST: Duration = Duration::from_millis(5);
/// The pause after a round that failed.
const AFTER_FAILURE: Duration = Duration::from_millis(250);

/// Runs rounds until `stop`.
pub(crate) async fn rounds(shared: Arc<Shared>, stop: CancellationToken) {
    let mut last = Instant::now();
    let mut is_down = false;
    loop {
        let hungry = tokio::time::timeout(EVERY, shared.meter.hunger());
        if stop.run_until_cancelled(hungry).await.is_none() {
            return;
        }
        tokio::time::sleep(AT_LEAST.saturating_sub(last.elapsed())).await;
        let elapsed = last.elapsed();
        last = Instant::now();
        let for_round = Arc::clone(&shared);
        let began = Instant::now();
        let done = tokio::task::spawn_blocking(move || {
            for_round.if_leading(|| Some(round(&for_round, elapsed)))
        });
        let Ok(done) = done.await else { return };
        // Another process leases for this node now.
        let Some(done) = done else { continue };
        telemetry::leased(done.is_ok(), began.elapsed());
        match done {
            Ok(()) => {
                if is_down {
                    tracing::info!("the shared ledger answers again");
                }
                is_down = false;
            }
            Err(error) => {
                if !is_down {
                    tracing::error!(%error, "no slices can be leased; hard budgets close when theirs are spent");
                }
                is_down = true;
                tokio::time::sleep(AFTER_FAILURE).await;
            }
        }
    }
}

/// One round.
///
/// # Errors
/// When the ledger does not answer; the slices stay what they were.
pub(crate) fn round(shared: &Shared, elapsed: Duration) -> Result<(), meter::LedgerError> {
    let began = Instant::now();
    let elapsed_ms = i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX);
    let (now, asked_ms) = (clock::now_ms(), clock::machine_ms());
    let wants = shared.meter.wants(now, elapsed_ms);
    let leased = shared.ledger.lease(&wants, now)?;
    if let Some(ledgers) = leased.now_ms {
        clock::follow(ledgers, asked_ms);
        shared.meter.trust(clock::now_ms());
    }
    let took_ms = i64::try_from(began.elapsed().as_millis()).unwrap_or(i64::MAX);
    shared.meter.took(&leased.grants, clock::now_ms() - took_ms);
    Ok(())
}
