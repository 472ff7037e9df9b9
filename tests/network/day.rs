//! One seed's day: hosts, what befalls them, and what must hold at every step and in the end.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use meter::ledger::KeyRow;
use meter::{Ledger, Outcome, Unit};
use proxy::Config;
use proxy::machine::{Connecting, Machine, Stream, play};
use proxy::played::{Node, Ports};
use store::{SqlLedger, SqliteArchive};
use tests::weather::Chance;
use turmoil::net::{TcpListener, TcpStream};
use turmoil::{Builder, Sim};
use wire::UsageSource;

use crate::caller::{self, End, Heard};
use crate::disk::{Death, Disk};
use crate::endpoint::{self, Log, Served};

const ENDPOINTS: [&str; 3] = ["near", "other", "far"];
const CALLERS: u64 = 5;
const CALLS: u64 = 6;
/// How long things happen, and how long it is calm afterwards: longer than anything that is waited for.
const STORM: Duration = Duration::from_millis(2_500);
const CALM: Duration = Duration::from_millis(4_000);
/// The longest that a call may still be waited for then: connections whose pieces were lost say nothing more.
const PATIENCE: Duration = Duration::from_secs(20);
const EPOCH_MS: i64 = 1_795_000_000_000;

thread_local! {
    static NOW_MS: Cell<i64> = const { Cell::new(0) };
    static LUCK: RefCell<Chance> = RefCell::new(Chance::new(0, 0));
}

/// What came of a day.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    pub crashes: u64,
    pub faults: u64,
    pub reached: u64,
    pub whole: u64,
    pub broken: u64,
    pub refused: u64,
    pub left: u64,
    pub orphaned: u64,
    pub lost: u64,
    /// Steps at which a hard budget had no room for one more call.
    pub tight: u64,
}

impl Told {
    pub fn add(&mut self, other: &Self) {
        self.crashes += other.crashes;
        self.faults += other.faults;
        self.reached += other.reached;
        self.whole += other.whole;
        self.broken += other.broken;
        self.refused += other.refused;
        self.left += other.left;
        self.orphaned += other.orphaned;
        self.lost += other.lost;
        self.tight += other.tight;
    }
}

/// A day with all that is looked at.
struct Day {
    disk: Arc<Disk>,
    node: Arc<Mutex<Option<Node>>>,
    log: Log,
    heard: Heard,
    chance: Chance,
    /// When the gateway is to start again.
    back_at: Option<Duration>,
    told: Told,
    /// What happened, to be told with what failed.
    story: Vec<String>,
}

fn machine() -> Machine {
    fn connect(host: &str, port: u16) -> Connecting {
        let place = (host.to_owned(), port);
        Box::pin(async move {
            let stream = TcpStream::connect((place.0.as_str(), place.1)).await?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    }
    Machine {
        now_ms: || {
            let inside = turmoil::sim_elapsed().map(|it| i64::try_from(it.as_millis()).unwrap());
            EPOCH_MS + inside.unwrap_or(NOW_MS.get())
        },
        luck: || LUCK.with_borrow_mut(|chance| chance.below(u64::MAX)),
        connect,
    }
}

fn config(dir: &str, chance: &mut Chance, waits: bool) -> Config {
    // Calls that wait for each other's holds are woken in an order that no seed makes: every third day has them.
    let wait_ms = if waits { 400 } else { 0 };
    // From a few calls to all of them.
    let limit = ["0.0009", "0.0025", "0.02"][usize::try_from(chance.below(3)).unwrap()];
    let mut text = format!(
        "[store]\ndir = \"{dir}\"\n[keys]\npepper = \"a pepper for the simulation\"\n\
         [upstream]\nconnect_timeout_ms = 200\nfirst_byte_timeout_ms = 500\nreply_timeout_ms = 500\nidle_timeout_ms = 300\n\
         [limits]\nbody_timeout_ms = 500\nwrite_timeout_ms = 500\n[upstream.breaker]\nrest_ms = 300\n[meter]\nhold_wait_ms = {wait_ms}\ndefault_max_output = 60\n"
    );
    for name in ENDPOINTS {
        text += &format!(
            "[[endpoint]]\nname = \"{name}\"\ndialect = \"openai_chat\"\nurl = \"http://{name}:80/v1\"\n"
        );
    }
    text += &format!(
        "[[model]]\nname = \"small\"\ntier = \"fast\"\nendpoint = [\"near\", \"other\"]\nprice = \"sim/small\"\n\
         [[model]]\nname = \"large\"\ntier = \"deep\"\nendpoint = \"far\"\nprice = \"sim/large\"\n\
         [[price]]\nid = \"sim/small\"\ninput = \"0.10\"\noutput = \"0.40\"\n\
         [[price]]\nid = \"sim/large\"\ninput = \"1.00\"\noutput = \"4.00\"\n\
         [[budget]]\ntenant = \"acme\"\nlimit_usd = \"{limit}\"\nwindow = \"total\"\n\
         [[budget]]\ntenant = \"acme\"\nuser = \"*\"\nlimit_usd = \"0.015\"\nwindow = \"hour\"\n"
    );
    Config::parse(&text).unwrap_or_else(|problems| panic!("{problems:?}"))
}

/// The key that all callers have, and its row.
fn key(config: &Config) -> (String, KeyRow) {
    let owner = proxy::identify::Owner {
        tenant: "acme".to_owned(),
        ..proxy::identify::Owner::default()
    };
    let pepper = proxy::assemble::pepper(config).unwrap();
    let created = proxy::identify::create(owner, &pepper).unwrap();
    (created.key.expose().to_owned(), created.row)
}

/// Lives through a seed; the second part is what happened.
pub fn live(seed: u64) -> (Told, Vec<String>) {
    let waits = seed % 3 == 2;
    // Neighbours would have the same luck.
    let seed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17) << 1;
    let memory = std::path::Path::new("/dev/shm");
    let folder = if memory.is_dir() {
        tempfile::tempdir_in(memory)
    } else {
        tempfile::tempdir()
    }
    .unwrap();
    LUCK.set(Chance::new(seed, 1));
    NOW_MS.set(0);
    play(machine());
    let mut chance = Chance::new(seed, 2);
    let config = config(&folder.path().display().to_string(), &mut chance, waits);
    let ledger = SqlLedger::open_file(&folder.path().join("ledger.sqlite3")).unwrap();
    let (key, row) = key(&config);
    ledger.add_key(&row).unwrap();
    let mut day = Day {
        disk: Disk::new(ledger),
        node: Arc::default(),
        log: Arc::default(),
        heard: Arc::default(),
        chance,
        back_at: None,
        told: Told::default(),
        story: Vec::new(),
    };
    let mut sim = Builder::new()
        .rng_seed(seed)
        .tick_duration(Duration::from_millis(1))
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(8))
        .simulation_duration(Duration::from_secs(60))
        .tcp_capacity(1 << 14)
        .enable_random_order()
        .build();
    day.hosts(&mut sim, seed, &config, folder.path(), &key);
    day.storm(&mut sim);
    day.calm(&mut sim);
    day.reckon();
    (day.told, day.story)
}

impl Day {
    fn hosts(
        &self,
        sim: &mut Sim<'_>,
        seed: u64,
        config: &Config,
        dir: &std::path::Path,
        key: &str,
    ) {
        for (number, name) in (10..).zip(ENDPOINTS) {
            let log = Arc::clone(&self.log);
            sim.host(name, move || {
                let log = Arc::clone(&log);
                async move {
                    let mut chance = Chance::new(seed, number);
                    let listener =
                        TcpListener::bind((IpAddr::V4(Ipv4Addr::UNSPECIFIED), 80)).await?;
                    loop {
                        let (stream, _) = listener.accept().await?;
                        let luck = Chance::new(chance.below(u64::MAX), number);
                        tokio::spawn(endpoint::serve(stream, Arc::clone(&log), luck));
                    }
                }
            });
        }
        let (disk, place) = (Arc::clone(&self.disk), Arc::clone(&self.node));
        let (config, dir, lives) = (config.clone(), dir.to_owned(), Arc::new(Mutex::new(0)));
        sim.host("gateway", move || {
            let (disk, place) = (Arc::clone(&disk), Arc::clone(&place));
            let (config, dir, lives) = (config.clone(), dir.clone(), Arc::clone(&lives));
            async move {
                let life = {
                    let mut lives = lives.lock().unwrap();
                    *lives += 1;
                    *lives
                };
                let journal = disk.open();
                let ports = Ports {
                    journal: Arc::clone(&journal) as _,
                    ledger: Arc::clone(&disk.ledger) as _,
                    verdicts: Arc::clone(&disk.ledger) as _,
                    archive: Arc::new(SqliteArchive::open(&dir.join(format!("{life}.sqlite3")))?),
                };
                // What an earlier process has written is in the ledger before it is asked for open holds.
                disk.flush();
                let flush = || {
                    disk.flush();
                    Ok(())
                };
                let node = Node::start(&config, ports, flush)?;
                *place.lock().unwrap() = Some(node.clone());
                tokio::spawn(Arc::clone(&journal).sync(Chance::new(seed, 100 + life)));
                tokio::spawn(Arc::clone(&journal).follow(Chance::new(seed, 200 + life)));
                let listener = TcpListener::bind((IpAddr::V4(Ipv4Addr::UNSPECIFIED), 80)).await?;
                loop {
                    let (stream, _) = listener.accept().await?;
                    let node = node.clone();
                    tokio::spawn(async move { node.serve(Box::new(stream)).await });
                }
            }
        });
        for number in 0..CALLERS {
            let (heard, key) = (Arc::clone(&self.heard), key.to_owned());
            sim.client(format!("caller-{number}"), async move {
                caller::run(&key, CALLS, heard, Chance::new(seed, 20 + number)).await;
                Ok(())
            });
        }
    }

    fn storm(&mut self, sim: &mut Sim<'_>) {
        while sim.elapsed() < STORM {
            self.befall(sim);
            self.step(sim);
        }
    }

    /// Heals everything, waits until nothing is under way, and has the gateway die and start a last time.
    fn calm(&mut self, sim: &mut Sim<'_>) {
        let hosts: Vec<String> = ENDPOINTS.iter().map(|it| (*it).to_owned()).collect();
        let callers = (0..CALLERS).map(|number| format!("caller-{number}"));
        for host in hosts.into_iter().chain(callers) {
            sim.repair("gateway", host.as_str());
            sim.release("gateway", host.as_str());
        }
        self.start(sim);
        let (least, most) = (sim.elapsed() + CALM, sim.elapsed() + PATIENCE);
        let open = |day: &Self| day.node.lock().unwrap().as_ref().map(Node::open_holds);
        let calls = usize::try_from(CALLERS * CALLS).unwrap();
        let waits = |day: &Self| open(day) != Some(0) || day.heard.lock().unwrap().len() < calls;
        while sim.elapsed() < least || (waits(self) && sim.elapsed() < most) {
            self.step(sim);
        }
        assert_eq!(
            open(self),
            Some(0),
            "something stays held: {:?}",
            self.story
        );
        self.crash(sim, Death::Process);
        self.start(sim);
        for _ in 0..20 {
            self.step(sim);
        }
        assert!(self.node.lock().unwrap().is_some(), "it starts again");
        self.disk.flush();
    }

    fn step(&mut self, sim: &mut Sim<'_>) {
        NOW_MS.set(i64::try_from(sim.elapsed().as_millis()).unwrap());
        sim.step()
            .unwrap_or_else(|error| panic!("{error}; {:?}", self.story));
        let node = self.node.lock().unwrap().clone();
        for budget in node.iter().flat_map(Node::standings) {
            if budget.hard && budget.unit == Unit::Usd {
                let all = budget.settled + budget.held;
                assert!(
                    all <= budget.limit,
                    "{budget:?} is overspent: {:?}",
                    self.story
                );
                self.told.tight += u64::from(budget.limit - all < 100_000);
            }
        }
        if self.back_at.is_some_and(|at| sim.elapsed() >= at) {
            self.start(sim);
        }
    }

    fn tell(&mut self, sim: &Sim<'_>, what: &str) {
        self.story
            .push(format!("{} ms: {what}", sim.elapsed().as_millis()));
    }

    /// Something may happen between two steps.
    fn befall(&mut self, sim: &mut Sim<'_>) {
        if self.chance.once_in(600) && self.back_at.is_none() {
            let death = [Death::Process, Death::Machine][usize::from(self.chance.once_in(2))];
            self.crash(sim, death);
            self.back_at = Some(sim.elapsed() + Duration::from_millis(5 + self.chance.below(200)));
        }
        if !self.chance.once_in(60) {
            return;
        }
        let number = usize::try_from(self.chance.below(ENDPOINTS.len() as u64 + CALLERS)).unwrap();
        let host = ENDPOINTS.get(number).map_or_else(
            || format!("caller-{}", number - ENDPOINTS.len()),
            |it| (*it).to_owned(),
        );
        let host = host.as_str();
        let what = match self.chance.below(9) {
            0 => {
                sim.partition("gateway", host);
                "apart from"
            }
            1 => {
                sim.partition_oneway("gateway", host);
                "not heard by"
            }
            2 => {
                sim.partition_oneway(host, "gateway");
                "deaf to"
            }
            3 => {
                sim.hold("gateway", host);
                "held before"
            }
            4 => {
                let late = Duration::from_millis(20 + self.chance.below(150));
                sim.set_link_max_message_latency("gateway", host, late);
                "late for"
            }
            _ => {
                sim.repair("gateway", host);
                sim.release("gateway", host);
                sim.set_link_max_message_latency("gateway", host, Duration::from_millis(8));
                "well with"
            }
        };
        self.told.faults += 1;
        self.tell(sim, &format!("{what} {host}"));
    }

    fn crash(&mut self, sim: &mut Sim<'_>, death: Death) {
        self.tell(sim, &format!("the gateway dies: {death:?}"));
        self.told.crashes += 1;
        self.disk.die(death, &mut self.chance);
        *self.node.lock().unwrap() = None;
        sim.crash("gateway");
    }

    fn start(&mut self, sim: &mut Sim<'_>) {
        if self.back_at.take().is_some() || !sim.is_host_running("gateway") {
            sim.bounce("gateway");
        }
    }

    /// What callers saw, what endpoints served and what the ledger has must be the same calls.
    fn reckon(&mut self) {
        let log = self.log.lock().unwrap().clone();
        let lost: BTreeSet<String> = self.disk.lost().into_iter().collect();
        let mut entries = BTreeMap::new();
        for entry in self.disk.ledger.latest(10_000).unwrap() {
            let id = format!("{}/{}", entry.held.request, entry.held.attempt);
            self.told.orphaned += u64::from(entry.outcome == Outcome::Orphaned);
            assert!(
                entries.insert(id.clone(), entry).is_none(),
                "{id} is in the ledger twice"
            );
        }
        assert!(
            self.disk.ledger.open_holds().unwrap().is_empty(),
            "something stays held"
        );
        let mut reached = BTreeSet::new();
        for served in &log {
            assert!(reached.insert(&served.id), "{} was sent twice", served.id);
            match entries.get(&served.id) {
                Some(entry) => self.fits(served, entry),
                None => assert!(
                    lost.contains(&served.id),
                    "{} is not in the ledger: {:?}",
                    served.id,
                    self.story
                ),
            }
        }
        self.told.reached += log.len() as u64;
        self.told.lost += lost.len() as u64;
        let heard = self.heard.lock().unwrap().clone();
        assert_eq!(
            heard.len() as u64,
            CALLERS * CALLS,
            "every caller came to its end"
        );
        for seen in &heard {
            let in_ledger = entries
                .keys()
                .any(|id| id.starts_with(&format!("{}/", seen.request)));
            assert!(
                !seen.content || in_ledger,
                "{seen:?} was answered and is not in the ledger"
            );
            if let End::Whole(text) = &seen.end {
                let said = |it: &&Served| it.id.starts_with(&format!("{}/", seen.request));
                let mut made = log.iter().filter(said);
                assert!(
                    made.any(|it| endpoint::words(it.output) == *text),
                    "{seen:?} is not what was said"
                );
            }
            let count = match seen.end {
                End::Whole(_) => &mut self.told.whole,
                End::Refused => &mut self.told.refused,
                End::Broken | End::Nothing => &mut self.told.broken,
                End::Left => &mut self.told.left,
            };
            *count += 1;
        }
        for (number, served) in log.iter().enumerate() {
            self.story.push(format!(
                "call {number}: {} {} {}",
                served.model, served.input, served.output
            ));
        }
        for seen in heard {
            self.story.push(format!("{} {:?}", seen.status, seen.end));
        }
        for entry in entries.values() {
            self.story.push(format!(
                "{} {:?} {}",
                entry.held.model, entry.outcome, entry.cost
            ));
        }
    }

    /// An entry has the price of its model, and what the endpoint says where that came through.
    fn fits(&self, served: &Served, entry: &meter::Entry) {
        let (held, story) = (&entry.held, &self.story);
        assert_eq!(*held.model, *served.model, "another model: {entry:?}");
        assert!(
            held.price.starts_with(&format!("sim/{}", served.model)),
            "{entry:?}"
        );
        let (input, output) = if served.model == "small" {
            (100, 400)
        } else {
            (1_000, 4_000)
        };
        let cost = i64::try_from(served.input * input + served.output * output).unwrap();
        assert!(
            cost <= held.bound.0,
            "the bound is none: {served:?} {entry:?}"
        );
        match (entry.outcome, entry.source) {
            (Outcome::Completed, UsageSource::Provider) => {
                assert_eq!(entry.cost.0, cost, "{entry:?}")
            }
            (Outcome::Completed, _) => {
                panic!("it was complete, and is not rated by its usage: {entry:?}; {story:?}")
            }
            // A stream that was not begun is not billed; of any other answer nobody knows how much was.
            (Outcome::Failed, _) => assert!(
                !served.bills || served.stream,
                "{served:?} {entry:?}; {story:?}"
            ),
            (Outcome::Orphaned, _) => assert_eq!(entry.cost, held.bound),
            (Outcome::Interrupted | Outcome::Disconnected, _) => {
                assert!(entry.cost + entry.suspense <= held.bound, "{entry:?}");
            }
        }
    }
}
