//! Where the parts meet: the only file of the gateway that names the store, the orchestrator and the pages.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use anyhow::{Context, ensure};
use arc_swap::ArcSwap;
use dashmap::DashMap;
use meter::books::Books;
use meter::price::Listing;
use meter::routing::Appraiser;
use meter::{Finance, Journal, Ledger, LedgerError, Meter, Verdicts};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;
use wire::archive::Archive;

use crate::admission::Admission;
use crate::books::Desk;
use crate::books::prices::Prices;
use crate::chores;
use crate::clock::{self, now_ms};
use crate::config::{self, Config, Secret};
use crate::context::Memory;
use crate::economy::CacheHits;
use crate::gateway::Shared;
use crate::guessing::Guesses;
use crate::handover::{Estate, MovingJournal};
use crate::idempotency::Once;
use crate::identify::{Keys, Pepper};
use crate::kept;
use crate::learning::{self, Learned};
use crate::leasing;
use crate::pages::{self, Shown};
use crate::played::Ports;
use crate::routing::Splits;
use crate::runtime::Runtime;
use crate::telemetry;
use crate::worth::Appraisal;

use crate::tasks::assemble::{self as tasks, Tasks};

pub(crate) use orchestrator::outbound;
/// Guards a server of tools; see there.
pub(crate) use orchestrator::tool::guard::run as guard;

/// The parts, put together.
#[derive(Debug)]
pub struct Parts {
    pub shared: Arc<Shared>,
    pub store: Arc<store::Store>,
    /// The store's folder.
    dir: PathBuf,
    pub admin_token: ArcSwap<Secret>,
    pub(crate) desk: ArcSwap<Desk>,
    pub(crate) webhooks: watch::Sender<Told>,
    /// Reads pages, use and metrics, and changes nothing.
    pub finance_token: ArcSwap<Secret>,
    pages: dashboards::Desk,
    appraisal: Appraisal,
    /// Delegated work; none where the configuration says so.
    pub tasks: Option<Tasks>,
    /// How the ledger compares with what providers bill, by endpoint; empty until somebody has looked.
    pub reconciled: Arc<ArcSwap<Vec<telemetry::Reconciled>>>,
}

/// Who is told of what happens, and how patiently.
pub(crate) type Told = Arc<(Vec<config::Webhook>, config::Upstream)>;

fn told(config: &Config) -> Told {
    Arc::new((config.webhooks.clone(), config.upstream.clone()))
}

/// Opens the store, settles what an earlier process left open, and builds the rest upon it.
///
/// `guard` is a program that guards servers of tools.
/// `runtime` is what `config` turns into. With an `estate`, the process that has left it still serves calls.
pub(crate) fn parts(
    config: &Config,
    runtime: Runtime,
    guard: Option<PathBuf>,
    estate: Option<&Estate>,
) -> anyhow::Result<Parts> {
    kept::make_folder(&config.store.dir)?;
    let store = Arc::new(store::open(&config.store).context("opening the store")?);
    let file = Arc::clone(&store.journal) as Arc<dyn Journal>;
    let journal = Arc::new(MovingJournal::new(Arc::clone(&file)));
    let ledger: Arc<dyn Ledger> = Arc::clone(&store.ledger) as Arc<dyn Ledger>;
    let own = Own {
        meter: metered(config, &store, Arc::clone(&journal), estate)?,
        journal,
        is_alone: estate.is_none(),
    };
    let ports = Ports {
        journal: file,
        ledger,
        verdicts: Arc::clone(&store.ledger) as Arc<dyn Verdicts>,
        archive: archive_of(config)?,
    };
    let shared = shared(config, runtime, own, ports)?;
    if shared.meter.is_shared() {
        leasing::round(&shared, Duration::from_secs(1))?;
    }
    let [admin_token, finance_token] = kept::tokens(&config.admin, &config.store.dir)?;
    let desk = Desk {
        books: Arc::clone(&store.ledger) as Arc<dyn Books>,
        prices: Arc::new(Prices::of(config)?),
    };
    let appraisal = Appraisal {
        finance: Arc::clone(&store.ledger) as Arc<dyn Finance>,
        verdicts: Arc::clone(&store.ledger) as Arc<dyn Verdicts>,
        ledger: Arc::clone(&store.ledger) as Arc<dyn Ledger>,
    };
    let tasks = tasks::tasks(config, &shared, guard, estate.is_none())?;
    Ok(Parts {
        shared,
        tasks,
        store,
        dir: config.store.dir.clone(),
        admin_token: ArcSwap::from_pointee(admin_token),
        desk: ArcSwap::from_pointee(desk),
        webhooks: watch::Sender::new(told(config)),
        finance_token: ArcSwap::from_pointee(finance_token),
        pages: dashboards::Desk::default(),
        appraisal,
        reconciled: Arc::default(),
    })
}

/// What is made of a journal before anything else.
#[derive(Debug)]
pub(crate) struct Own {
    pub(crate) meter: Arc<Meter>,
    pub(crate) journal: Arc<MovingJournal>,
    /// No other process still serves calls.
    pub(crate) is_alone: bool,
}

/// What all calls share, over `ports`.
pub(crate) fn shared(
    config: &Config,
    runtime: Runtime,
    own: Own,
    ports: Ports,
) -> anyhow::Result<Arc<Shared>> {
    telemetry::models(runtime.everywhere());
    let ledger = ports.ledger;
    let splits = splits(&*ledger, &runtime)?;
    let keys = Keys::new(kept::pepper(config, || Ok(ledger.keys()?))?);
    keys.load(ledger.keys()?);
    let memory = Memory::open(ports.archive, own.is_alone).context("reading the archive")?;
    let shared = Arc::new(Shared {
        runtime: ArcSwap::from_pointee(runtime),
        meter: own.meter,
        journal: own.journal,
        leads: Mutex::new(true),
        learned: learned(&*ledger)?,
        ledger,
        verdicts: ports.verdicts,
        keys,
        guesses: Guesses::default(),
        splits,
        admission: Arc::new(Admission::new(config)),
        cut: Arc::default(),
        memory: Arc::new(memory),
        cache_hits: CacheHits::default(),
        sessions: Arc::default(),
        tasks: TaskTracker::new(),
        otlp: crate::otlp::Otlp::default(),
        background: DashMap::new(),
        once: Once::default(),
        api: OnceLock::new(),
    });
    learn(&shared.runtime.load(), &shared.ledger.state()?);
    Ok(shared)
}

/// A meter that knows the budgets of `config`, with what an earlier process has spent and left open.
fn metered(
    config: &Config,
    store: &store::Store,
    journal: Arc<MovingJournal>,
    estate: Option<&Estate>,
) -> anyhow::Result<Arc<Meter>> {
    let journal = journal as Arc<dyn Journal>;
    let ledger = &*store.ledger;
    let meter = match estate {
        None => recovered(config, store, journal)?,
        Some(_) => empty(config, journal),
    };
    configure(&meter, ledger, config)?;
    meter.saw(ledger.latest_ms()?);
    if let Some(estate) = estate {
        for held in ledger.open_holds()? {
            meter.carry(held, now_ms());
        }
        meter.take_rates(&estate.rates);
    }
    Ok(Arc::new(meter))
}

/// A meter that knows nothing yet.
fn empty(config: &Config, journal: Arc<dyn Journal>) -> Meter {
    if config.store.postgres.is_some() {
        Meter::shared(journal)
    } else {
        Meter::new(journal)
    }
}

/// A meter that has settled what an earlier process left open.
fn recovered(
    config: &Config,
    store: &store::Store,
    journal: Arc<dyn Journal>,
) -> anyhow::Result<Meter> {
    let meter = empty(config, journal);
    let orphans = meter.recover(store.ledger.open_holds()?, now_ms())?;
    telemetry::orphaned(orphans);
    if orphans > 0 {
        anyhow::ensure!(
            store.flush(Duration::from_mins(1)),
            "the ledger does not take entries"
        );
    }
    let report = store.report;
    if report.replayed > 0 || report.cut_bytes > 0 || orphans > 0 {
        tracing::info!(
            replayed = report.replayed,
            cut_bytes = report.cut_bytes,
            orphans,
            "took up what an earlier process left"
        );
    }
    Ok(meter)
}

/// The archive of conversations in the store's folder.
fn archive_of(config: &Config) -> anyhow::Result<Arc<dyn Archive>> {
    let path = config.store.dir.join("context.sqlite3");
    Ok(Arc::new(store::SqliteArchive::open(&path)?))
}

/// Takes up the splits that an earlier process saved.
fn splits(ledger: &dyn Ledger, runtime: &Runtime) -> anyhow::Result<Splits> {
    let splits = Splits::default();
    for (name, text) in ledger.state()? {
        splits
            .restore(&name, &text, &runtime.routing)
            .context("reading a saved split")?;
    }
    Ok(splits)
}

/// Takes up what an earlier process learned from verdicts.
fn learned(ledger: &dyn Ledger) -> anyhow::Result<Learned> {
    let state = ledger.state()?;
    let saved = state.iter().find(|(name, _)| name == learning::SAVED);
    Ok(saved.map_or_else(Learned::default, |(_, text)| Learned::restore(text)))
}

/// Takes the budgets and limits of `config`, with what the ledger knows of them.
pub(crate) fn configure(meter: &Meter, ledger: &dyn Ledger, config: &Config) -> anyhow::Result<()> {
    let (budgets, limits) = (&config.budgets, &config.rate_limits);
    // Read first: whoever fails has changed nothing.
    let overrides = ledger.overrides()?;
    meter.configure(budgets, limits, ledger.node(), now_ms(), ledger)?;
    meter.set_overrides(&overrides);
    Ok(())
}

impl Parts {
    /// Puts a checked configuration in force. Calls under way keep the one they began with;
    /// listeners, storage and the pepper stay as they are until a restart.
    ///
    /// # Errors
    /// When it can not be put in force; nothing has changed then.
    pub fn reload(&self, config: &Config) -> anyhow::Result<()> {
        let before = self.shared.runtime.load_full();
        let runtime = Runtime::build(config, Some(&before))?;
        // Those of the store in use: another folder is taken with the next start, and its tokens with it.
        let [admin_token, finance_token] = kept::tokens(&config.admin, &self.dir)?;
        let prices = Arc::new(Prices::of(config)?);
        let patience = Duration::from_secs(10);
        anyhow::ensure!(
            self.store.flush(patience),
            "the ledger lags behind; try again"
        );
        configure(&self.shared.meter, &*self.shared.ledger, config)?;
        if let Some(tasks) = &self.tasks {
            tasks.reload(config);
        }
        self.shared.admission.configure(config);
        self.shared.splits.retarget(&runtime.routing);
        telemetry::models(runtime.everywhere());
        self.shared.runtime.store(Arc::new(runtime));
        self.desk.store(Arc::new(Desk {
            books: Arc::clone(&self.desk.load().books),
            prices,
        }));
        self.admin_token.store(Arc::new(admin_token));
        self.finance_token.store(Arc::new(finance_token));
        self.webhooks.send_replace(told(config));
        Ok(())
    }

    /// Leaves the store to another process, with all that is known. Blocks; [`Parts::take_up`] undoes it.
    pub(crate) fn set_aside(&self) -> anyhow::Result<Estate> {
        self.shared.lead(false);
        self.shared.meter.write_again();
        self.store.set_aside(Duration::from_secs(10))?;
        chores::save_state(&self.shared)?;
        self.shared.memory.write()?;
        Ok(Estate {
            rates: self.shared.meter.rates(now_ms()),
        })
    }

    /// Ends once the journal takes nothing any more.
    pub(crate) async fn journal_over(&self) {
        self.store.journal.over().await;
    }

    /// Whether the journal takes no call. What ends by itself is tried again, which may block.
    pub(crate) fn journal_refuses(&self) -> bool {
        self.store.journal.refusal().is_some()
    }

    /// Goes on with the store after all. Blocks.
    ///
    /// # Errors
    /// When another process has it, or has changed it.
    pub(crate) fn take_up(&self) -> anyhow::Result<()> {
        self.store.take_up()?;
        self.shared.lead(true);
        Ok(())
    }

    /// How everything stands that is not told when it happens.
    pub(crate) fn state(&self) -> telemetry::State {
        let (meter, runtime) = (&self.shared.meter, self.shared.runtime.load());
        let now_ms = now_ms();
        let lag = self.store.lag();
        for commit in self.store.take_commits() {
            telemetry::committed(self.store.engine, commit.rows, commit.took);
        }
        telemetry::upstreams(runtime.everywhere());
        telemetry::State {
            budgets: meter.standings_alone(now_ms),
            unapplied: lag.written.saturating_sub(lag.applied),
            unsynced: lag.written.saturating_sub(lag.synced),
            store: self.store.engine,
            committed_ms: lag.committed_ms,
            holds: meter.open_holds(),
            calls: self.shared.calls_in_flight(),
            door: self.shared.admission.standing(),
            ahead_ms: meter.is_shared().then(clock::ahead_ms),
            book: runtime.book.version().to_owned(),
            book_age_ms: runtime.book.as_of_ms().map(|at| now_ms - at),
            reconciled: self.reconciled.load_full(),
        }
    }
}

/// Takes up what an earlier process learned of the models' token counts.
fn learn(runtime: &Runtime, state: &[(String, String)]) {
    for target in &runtime.targets {
        let name = format!("tokens/{}", target.name);
        let known = state.iter().find(|(key, _)| *key == name);
        if let Some(milli) = known.and_then(|(_, value)| value.parse().ok()) {
            target.factor.set(milli);
        }
    }
}

/// The ledger alone, for commands that look at it while the gateway runs.
pub fn ledger(config: &Config) -> anyhow::Result<Arc<dyn Ledger>> {
    kept::make_folder(&config.store.dir)?;
    Ok(Arc::new(store::recorder::open_ledger(&config.store)?))
}

/// The ledger of a store that is there: who asks of one that is not has named the wrong one, and would take
/// its silence for an answer.
///
/// # Errors
/// As [`ledger`], and where there is none.
pub(crate) fn kept_ledger(config: &Config) -> anyhow::Result<Arc<dyn Ledger>> {
    is_there(config)?;
    ledger(config)
}

/// Holds that the store is there.
///
/// # Errors
/// Where it is not.
pub(crate) fn is_there(config: &Config) -> anyhow::Result<()> {
    let dir = &config.store.dir;
    ensure!(
        config.store.postgres.is_some() || store::recorder::ledger_path(dir).exists(),
        "there is no store in {}; name the configuration of the one you mean with --config, or start \
         `pareto serve` first",
        dir.display()
    );
    Ok(())
}

/// The ledger's file, where no server has it.
pub(crate) fn ledger_file(config: &Config) -> Option<PathBuf> {
    let dir = &config.store.dir;
    let is_file = config.store.postgres.is_none();
    is_file.then(|| store::recorder::ledger_path(dir))
}

/// Whether a start has made what is this node's of the store.
///
/// # Errors
/// When the store's folder can not be looked into.
pub(crate) fn is_made(config: &Config) -> std::io::Result<bool> {
    store::recorder::is_made(&config.store)
}

/// Holds that the server of a shared ledger answers, changing nothing.
///
/// # Errors
/// Where it does not.
pub(crate) fn reach_ledger(config: &Config) -> anyhow::Result<()> {
    if let Some(address) = &config.store.postgres {
        store::recorder::reach(&address.0)?;
    }
    Ok(())
}

/// What is seen of a journal from outside.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Inspected {
    /// Bytes that the ledger does not have.
    pub(crate) lag: u64,
    /// Bytes of a torn record at its end.
    pub(crate) torn: u64,
    /// Holds that nothing has settled.
    pub(crate) open: usize,
}

/// Looks at the journal, changing nothing.
pub(crate) fn inspect(config: &Config) -> anyhow::Result<Inspected> {
    let ledger = store::recorder::open_ledger(&config.store)?;
    let (applied, open) = (ledger.cursor()?.0, ledger.open_holds()?.len());
    let (end, torn) = store::journal::inspect(&config.store.dir.join("journal"))?;
    Ok(Inspected {
        lag: end.0.saturating_sub(applied),
        torn,
        open,
    })
}

/// Whether a process has the store in `dir` open.
pub(crate) fn is_running(dir: &Path) -> bool {
    store::journal::is_open(&dir.join("journal"))
}

/// A meter for commands that look at budgets: it knows what the ledger knows, and writes nothing.
pub fn offline_meter(config: &Config, ledger: &dyn Ledger) -> anyhow::Result<Meter> {
    let meter = Meter::new(Arc::new(store::journal::Nowhere));
    configure(&meter, ledger, config)?;
    Ok(meter)
}

/// The books alone, with the prices in force.
pub(crate) fn desk(config: &Config) -> anyhow::Result<Desk> {
    is_there(config)?;
    Ok(Desk {
        books: Arc::new(store::recorder::open_ledger(&config.store)?),
        prices: Arc::new(Prices::of(config)?),
    })
}

/// Who tells what routing is worth, from the ledger alone.
pub(crate) fn appraiser(config: &Config) -> anyhow::Result<Appraisal> {
    is_there(config)?;
    let ledger = Arc::new(store::recorder::open_ledger(&config.store)?);
    Ok(Appraisal {
        finance: Arc::clone(&ledger) as Arc<dyn Finance>,
        verdicts: Arc::clone(&ledger) as Arc<dyn Verdicts>,
        ledger,
    })
}

/// The pepper of key hashes, for who makes keys.
pub fn pepper(config: &Config) -> anyhow::Result<Pepper> {
    kept::pepper(config, || Ok(ledger(config)?.keys()?))
}

impl Parts {
    /// Who tells what routing is worth.
    pub fn appraiser(&self) -> &dyn Appraiser {
        &self.appraisal
    }

    /// The finance page at `path`, `None` where there is none. Asks the ledger, which blocks.
    /// The operator is led to the pages of tasks as well.
    pub(crate) fn page(
        &self,
        path: &str,
        query: &str,
        is_operator: bool,
    ) -> Result<Option<Shown>, LedgerError> {
        let now_ms = now_ms();
        let asked = dashboards::Asked {
            path,
            query,
            now_ms,
            is_operator: is_operator && self.tasks.is_some(),
        };
        let budgets = pages::allowances(self.shared.meter.standings(now_ms));
        let finance: &dyn Finance = &*self.store.ledger;
        // The whole book is looked through, so only where it is shown.
        let prices = match path {
            "/prices" => self.desk.load().prices.listing(now_ms),
            _ => Listing::default(),
        };
        let sources = dashboards::Sources {
            finance,
            prices: &prices,
            budgets: &budgets,
            worth: &self.appraisal,
            in_flight: self.shared.calls_in_flight(),
        };
        let answer = self.pages.answer(asked, sources)?;
        Ok(answer.map(Shown::from))
    }
}

/// A file that pages load: its kind and bytes.
pub(crate) fn asset(path: &str) -> Option<(&'static str, &'static [u8])> {
    dashboards::asset_at(path).map(|asset| (asset.kind, asset.bytes))
}
