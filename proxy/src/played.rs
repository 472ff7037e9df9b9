//! A gateway on a machine that is played: over ports and connections that a simulation gives it. What a call goes
//! through is all there, from the caller's bytes to the endpoint's; doors, chores and the admin API are not.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Context;
use bytes::BytesMut;
use meter::{Journal, Ledger, Meter, Standing, Verdicts};
use wire::archive::Archive;

use crate::assemble;
use crate::clock::now_ms;
use crate::config::Config;
use crate::edge;
use crate::gateway::{Shared, gateway};
use crate::handover::MovingJournal;
use crate::http1::{self, Caller};
use crate::machine::Stream;
use crate::runtime::Runtime;

/// What a gateway stands on.
#[derive(Debug, Clone)]
pub struct Ports {
    pub journal: Arc<dyn Journal>,
    pub ledger: Arc<dyn Ledger>,
    pub verdicts: Arc<dyn Verdicts>,
    pub archive: Arc<dyn Archive>,
}

/// A gateway.
#[derive(Debug, Clone)]
pub struct Node(Arc<Shared>);

impl Node {
    /// Starts as a process does: charges what an earlier one left open, has `flush` bring that into the ledger, and
    /// takes up the rest.
    ///
    /// # Errors
    /// As a start does.
    pub fn start(
        config: &Config,
        ports: Ports,
        flush: impl FnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        let runtime = Runtime::build(config, None)?;
        let journal = Arc::new(MovingJournal::new(Arc::clone(&ports.journal)));
        let meter = Arc::new(Meter::new(Arc::clone(&journal) as Arc<dyn Journal>));
        let ledger = &*ports.ledger;
        meter
            .recover(ledger.open_holds()?, now_ms())
            .context("charging what was left open")?;
        flush()?;
        assemble::configure(&meter, ledger, config)?;
        meter.saw(ledger.latest_ms()?);
        let own = assemble::Own {
            meter,
            journal,
            is_alone: true,
        };
        Ok(Self(assemble::shared(config, runtime, own, ports)?))
    }

    /// The gateway that stands already.
    pub(crate) fn of(shared: &Arc<Shared>) -> Self {
        Self(Arc::clone(shared))
    }

    /// Serves one caller's connection to its end.
    pub async fn serve(&self, stream: Box<dyn Stream>) {
        let limits = self.0.runtime.load().limits.clone();
        let caller = Caller {
            application: gateway(Arc::clone(&self.0)),
            limits: &limits,
            draining: &AtomicBool::new(false),
            closed: &AtomicBool::new(false),
            requests: limits.requests,
            refuse: edge::refuse,
        };
        http1::serve(stream, BytesMut::new(), caller).await;
    }

    /// Every budget as it stands.
    pub fn standings(&self) -> Vec<Standing> {
        self.0.meter.standings_alone(now_ms())
    }

    /// How many holds are open.
    pub fn open_holds(&self) -> u64 {
        self.0.meter.open_holds()
    }
}

impl http1::Socket for Box<dyn Stream> {
    fn spoil(&mut self) {}
}
