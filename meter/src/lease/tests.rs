//! Proves that no order of holds, posts, voids, drops, rounds, crashes, late and repeated deliveries,
//! outages and clock jumps lets nodes that share budgets spend more than a limit, or lose a call. The
//! reference is what the endpoints bill; the ledger is a naive one in memory.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use proptest::prelude::*;
use wire::{RequestId, Tier, Usage, UsageSource};

use super::*;
use crate::NanoUsd;
use crate::config::{BudgetConfig, LimitConfig, PriceConfig};
use crate::entry::{Held, Outcome, Record, Subject};
use crate::hold::{Estimate, Hold, Settlement};
use crate::ledger::{Journal, JournalError, Known, LedgerError, Past, Position, Spent, Synced};
use crate::price::{PriceBook, Rates, STANDARD};
use crate::window::{Period, Window};

const NOW: i64 = 1_795_000_000_000;
const NODES: usize = 3;

/// A journal that outlives its process, which can not write to it once it is dead.
#[derive(Debug, Default)]
struct File {
    records: Mutex<Vec<Record>>,
    is_closed: AtomicBool,
}

impl File {
    fn records(&self) -> Vec<Record> {
        let records = self.records.lock();
        records.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// One process's hand on the file.
#[derive(Debug)]
struct Open(Arc<File>, AtomicBool);

impl Journal for Open {
    fn append(&self, record: &Record) -> Result<Position, JournalError> {
        if self.1.load(Ordering::Acquire) || self.0.is_closed.load(Ordering::Acquire) {
            return Err(JournalError {
                path: String::new(),
                what: "the process is dead".to_owned(),
            });
        }
        let mut records = self.0.records.lock().expect("no panic");
        records.push(record.clone());
        Ok(Position(u64::try_from(records.len()).expect("small")))
    }

    fn synced(&self, _: Position) -> Synced<'_> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// A node's part of a window: budget, start, node.
type Part = (Arc<str>, i64, Arc<str>);

/// The shared ledger: what the real one does, row by row.
#[derive(Debug, Default)]
struct Book {
    windows: BTreeMap<Part, (i64, i64)>,
    entries: HashMap<(RequestId, u16), i64>,
    holds: HashMap<(RequestId, u16), (Arc<str>, Held)>,
    /// Nodes that wait for a part of a budget.
    waiting: BTreeSet<(Arc<str>, Arc<str>)>,
}

impl Book {
    fn apply(&mut self, node: &Arc<str>, record: &Record) {
        match record {
            Record::Hold(held) => {
                let at = (held.request, held.attempt);
                if !self.entries.contains_key(&at) {
                    self.holds
                        .entry(at)
                        .or_insert_with(|| (Arc::clone(node), Held::clone(held)));
                }
            }
            Record::Settle(entry) => {
                let at = (entry.held.request, entry.held.attempt);
                self.holds.remove(&at);
                if self.entries.insert(at, entry.cost.0).is_some() {
                    return;
                }
                for charge in &entry.held.charges {
                    let key = (
                        Arc::clone(&charge.budget),
                        charge.start_ms,
                        Arc::clone(node),
                    );
                    self.windows.entry(key).or_default().1 += entry.cost.0 + entry.suspense.0;
                }
            }
        }
    }

    fn lease(&mut self, node: &str, wants: &[Want]) -> Vec<Grant> {
        let mut grants = Vec::new();
        for want in wants {
            let slices: Vec<Slice> = self
                .windows
                .iter()
                .filter(|((budget, start, _), _)| *budget == want.budget && *start >= want.from_ms)
                .map(|((_, start_ms, node), (granted, settled))| Slice {
                    start_ms: *start_ms,
                    node: Arc::clone(node),
                    granted: *granted,
                    settled: *settled,
                })
                .collect();
            let others_wait = self
                .waiting
                .iter()
                .any(|(budget, who)| *budget == want.budget && **who != *node);
            let grant = decide(want, node, &slices, others_wait, 3);
            let waits = (Arc::clone(&want.budget), Arc::from(node));
            if grant.granted < want.need {
                self.waiting.insert(waits);
            } else {
                self.waiting.remove(&waits);
            }
            let key = (Arc::clone(&want.budget), want.start_ms, Arc::from(node));
            self.windows.entry(key).or_default().0 = grant.granted;
            grants.push(grant);
        }
        grants
    }
}

impl Past for Book {
    fn windows(&self, from_ms: i64) -> Result<Vec<Known>, LedgerError> {
        let rows = self
            .windows
            .iter()
            .filter(|((_, start, _), _)| *start >= from_ms || *start == 0);
        Ok(rows
            .map(|((budget, start_ms, node), (granted, settled))| Known {
                budget: Arc::clone(budget),
                start_ms: *start_ms,
                node: Arc::clone(node),
                tenant: Arc::from("acme"),
                granted: *granted,
                settled: *settled,
            })
            .collect())
    }

    fn spent(&self, _: i64) -> Result<Vec<Spent>, LedgerError> {
        Ok(Vec::new())
    }

    fn begin_windows(&self, _: &[Known]) -> Result<(), LedgerError> {
        Ok(())
    }
}

struct Node {
    name: Arc<str>,
    file: Arc<File>,
    /// The process, and its hand on the journal.
    process: Option<(Arc<Meter>, Arc<Open>)>,
    /// Calls under way, with what their endpoint bills.
    open: Vec<(Hold, u64)>,
    ahead_ms: i64,
}

/// What an endpoint bills for a call that it saw.
#[derive(Debug, Clone)]
struct Bill {
    at_ms: i64,
    user: String,
    nano: i64,
}

struct World {
    nodes: Vec<Node>,
    book: Book,
    bills: HashMap<RequestId, Bill>,
    now_ms: i64,
    calls: AtomicU64,
    rates: Arc<Rates>,
    shared: bool,
}

fn budgets() -> Vec<BudgetConfig> {
    let of = |limit: &str, period: Period| BudgetConfig::of_tenant("acme", limit, period);
    vec![
        of("0.000200", Period::Day),
        of("0.000150", Period::Rolling(3_600_000)),
        BudgetConfig {
            user: Some("*".to_owned()),
            ..of("0.000090", Period::Total)
        },
    ]
}

impl World {
    fn new(shared: bool) -> Self {
        let own = PriceConfig::flat("x", "1", "1");
        let book = PriceBook::default()
            .with_overrides(&[own])
            .expect("good amounts");
        let count = if shared { NODES } else { 1 };
        let mut world = Self {
            nodes: Vec::new(),
            book: Book::default(),
            bills: HashMap::new(),
            now_ms: NOW,
            calls: AtomicU64::new(1),
            rates: book.rates("x", STANDARD, NOW).expect("priced"),
            shared,
        };
        for n in 0..count {
            world.nodes.push(Node {
                name: Arc::from(format!("node-{n}")),
                file: Arc::default(),
                process: None,
                open: Vec::new(),
                ahead_ms: 0,
            });
            world.start(n);
        }
        world
    }

    /// Starts a process: what an earlier one left is applied, and its open holds are charged.
    fn start(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        if node.process.is_some() {
            return;
        }
        node.ahead_ms = 0;
        let open = Arc::new(Open(Arc::clone(&node.file), AtomicBool::new(false)));
        let journal = Arc::clone(&open) as Arc<dyn Journal>;
        let meter = Arc::new(if self.shared {
            Meter::shared(journal)
        } else {
            Meter::new(journal)
        });
        for record in node.file.records() {
            self.book.apply(&node.name, &record);
        }
        let left: Vec<Held> = self
            .book
            .holds
            .values()
            .filter(|(owner, _)| *owner == node.name)
            .map(|(_, held)| held.clone())
            .collect();
        meter.recover(left, self.now_ms).expect("it is alive");
        for record in node.file.records() {
            self.book.apply(&node.name, &record);
        }
        let none: [LimitConfig; 0] = [];
        meter
            .configure(&budgets(), &none, &node.name, self.now_ms, &self.book)
            .expect("good budgets");
        let latest = self.bills.values().map(|bill| bill.at_ms).max();
        meter.saw(latest.unwrap_or(self.now_ms));
        node.process = Some((meter, open));
        self.round(n, true);
    }

    fn crash(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        if let Some((_, open)) = node.process.take() {
            // What is dropped from here on can write nothing down.
            open.1.store(true, Ordering::Release);
            node.open.clear();
        }
    }

    fn hold(&mut self, n: usize, tokens: u64, user: u64) {
        let now = self.now_ms + self.nodes[n].ahead_ms;
        let id = self.calls.fetch_add(1, Ordering::Relaxed);
        let request = RequestId::new(
            u64::try_from(now).expect("after 1970"),
            [&[0, 0][..], &id.to_be_bytes()]
                .concat()
                .try_into()
                .expect("ten"),
        );
        let estimate = estimate(&self.rates, request, tokens, user);
        let node = &mut self.nodes[n];
        let Some((meter, _)) = &node.process else {
            return;
        };
        let Ok(mut hold) = meter.hold(estimate, now) else {
            return;
        };
        hold.sent(now);
        let actual = tokens - tokens.min(id % 5);
        let bill = Bill {
            at_ms: now,
            user: format!("user-{user}"),
            nano: i64::try_from(actual * 1_000).expect("small"),
        };
        self.bills.insert(request, bill);
        node.open.push((hold, actual));
    }

    fn end(&mut self, n: usize, pick: usize, how: u8) {
        let now = self.now_ms + self.nodes[n].ahead_ms;
        let node = &mut self.nodes[n];
        if node.open.is_empty() {
            return;
        }
        let (hold, actual) = node.open.swap_remove(pick % node.open.len());
        let request = hold.held().expect("it is open").request;
        let settlement = |outcome, input, source| Settlement {
            outcome,
            status: 200,
            usage: Usage {
                input,
                ..Usage::default()
            },
            source,
            upper: None,
            first_byte_ms: None,
            now_ms: now,
        };
        match how {
            0 => drop(hold.post(&settlement(
                Outcome::Completed,
                actual,
                UsageSource::Provider,
            ))),
            1 => {
                // The endpoint refused: it bills nothing.
                self.bills.remove(&request);
                drop(hold.post(&settlement(Outcome::Failed, 0, UsageSource::Provider)));
            }
            2 => {
                // Nobody told: less was counted than is billed, and the rest is in suspense.
                let counted =
                    settlement(Outcome::Completed, actual.div_ceil(2), UsageSource::Counted);
                let upper = hold.held().map(|held| held.bound_usage);
                drop(hold.post(&Settlement { upper, ..counted }));
            }
            _ => drop(hold),
        }
    }

    /// A round of leasing, which the ledger may not answer.
    fn round(&mut self, n: usize, is_up: bool) {
        let node = &mut self.nodes[n];
        let (Some((meter, _)), true) = (&node.process, self.shared) else {
            return;
        };
        let wants = meter.wants(self.now_ms + node.ahead_ms, 200);
        if is_up {
            // The ledger's clock is everybody's, from the end of the round on.
            let grants = self.book.lease(&node.name, &wants);
            node.ahead_ms = 0;
            meter.trust(self.now_ms);
            meter.took(&grants, self.now_ms);
        }
    }

    /// Delivers part of a journal: again, late, and in any order.
    fn deliver(&mut self, n: usize, from: usize, count: usize) {
        let node = &self.nodes[n];
        let records = node.file.records();
        let some = records.iter().skip(from % (records.len() + 1)).take(count);
        for record in some.rev() {
            self.book.apply(&node.name, record);
        }
    }

    /// By the endpoints' own bills, no limit is passed in any window.
    fn judge(&self) {
        for config in budgets() {
            let limit = NanoUsd::from_usd(&config.limit_usd).expect("an amount").0;
            let window = Window::utc(config.window);
            let mut sums: HashMap<(i64, &str), i64> = HashMap::new();
            let bills: Vec<&Bill> = self.bills.values().collect();
            for bill in &bills {
                let who = if config.user.is_some() {
                    bill.user.as_str()
                } else {
                    ""
                };
                if let Period::Rolling(length) = config.window {
                    let sum: i64 = bills
                        .iter()
                        .filter(|it| it.at_ms <= bill.at_ms && it.at_ms > bill.at_ms - length)
                        .map(|it| it.nano)
                        .sum();
                    assert!(sum <= limit, "{sum} of {limit} in the last hour");
                } else {
                    *sums
                        .entry((window.at(bill.at_ms).start_ms, who))
                        .or_default() += bill.nano;
                }
            }
            for (at, sum) in sums {
                assert!(sum <= limit, "{sum} of {limit}, {at:?}");
            }
        }
    }

    /// Once all is taken up, each call that was billed is in the ledger once.
    fn settle(&mut self) {
        for n in 0..self.nodes.len() {
            self.crash(n);
            self.start(n);
        }
        assert!(self.book.holds.is_empty(), "nothing is open");
        for request in self.bills.keys() {
            assert!(
                self.book.entries.contains_key(&(*request, 0)),
                "{request} is billed and not in the ledger"
            );
        }
    }
}

fn estimate(rates: &Arc<Rates>, request: RequestId, tokens: u64, user: u64) -> Estimate {
    let mut subject = Subject::of_key("acme", "", "", "k");
    subject.user = Arc::from(format!("user-{user}"));
    Estimate {
        held: Held {
            request,
            attempt: 0,
            subject,
            dialect: Arc::from("openai_chat"),
            requested: Arc::from("auto"),
            model: Arc::from("x"),
            endpoint: Arc::from("e"),
            tier: Tier::Fast,
            reason: Arc::from("auto"),
            score_milli: None,
            stream: false,
            held_at_ms: 0,
            bound: NanoUsd::ZERO,
            bound_usage: Usage {
                input: tokens,
                ..Usage::default()
            },
            price: Arc::from(""),
            losses: Arc::from(""),
            session: 0,
            lane: Arc::from(STANDARD),
            book: Arc::from(""),
            escalated: std::sync::Arc::default(),
            charges: Vec::new(),
            routing: None,
        },
        rates: Some(Arc::clone(rates)),
        baseline: None,
        sell: Arc::default(),
        admits_unpriced: false,
    }
}

/// One act: what, by which node, and two numbers for its details.
type Act = (u8, usize, u64, usize);

fn run(shared: bool, acts: &[Act]) {
    let mut world = World::new(shared);
    for &(act, node, number, pick) in acts {
        let n = node % world.nodes.len();
        match act {
            0..=8 => world.hold(n, number % 40, number % 3),
            9..=11 => world.end(n, pick, 0),
            12 => world.end(n, pick, 1),
            13 => world.end(n, pick, 2),
            14 => world.end(n, pick, 3),
            15..=18 => world.round(n, true),
            19 => world.round(n, false),
            20 => world.crash(n),
            21 | 22 => world.start(n),
            23 => world.deliver(n, pick, usize::try_from(number).expect("small")),
            24 => world.now_ms += i64::try_from(number * number).expect("small") * 5_000,
            // Up to two days ahead, or behind.
            _ => {
                let jump = i64::try_from(number).expect("small") * 1_728_000;
                world.nodes[n].ahead_ms = if pick % 2 == 0 { jump } else { -jump };
            }
        }
        world.judge();
    }
    world.settle();
    world.judge();
}

proptest! {
    #[test]
    fn nodes_never_spend_more_than_a_limit(
        acts in prop::collection::vec((0_u8..26, 0..NODES, 0_u64..100, 0_usize..64), 1..120),
    ) {
        run(true, &acts);
    }

    #[test]
    fn one_process_never_spends_more_than_a_limit(
        acts in prop::collection::vec((0_u8..26, 0..1_usize, 0_u64..100, 0_usize..64), 1..120),
    ) {
        run(false, &acts);
    }
}

#[test]
fn what_a_node_does_not_use_comes_back_to_who_waits() {
    let mut world = World::new(true);
    // The first node takes what it can, and is idle from then on.
    world.hold(0, 40, 0);
    world.round(0, true);
    world.hold(0, 40, 0);
    world.end(0, 0, 0);
    for user in [0, 1, 2, 0, 1, 2] {
        world.hold(1, 25, user);
        for n in [1, 0, 1] {
            world.now_ms += 150;
            world.round(n, true);
        }
        world.hold(1, 25, user);
    }
    let spent: i64 = world.bills.values().map(|bill| bill.nano).sum();
    assert!(spent > 120_000, "{spent} of the rolling budget's 150,000");
    world.judge();
}

#[test]
fn a_window_that_ends_during_an_outage_keeps_what_was_held_in_it() {
    for shared in [true, false] {
        let mut world = World::new(shared);
        // Where budgets are shared, the first try only asks for a slice.
        while world.bills.is_empty() {
            world.hold(0, 40, 0);
            world.round(0, true);
        }
        // The process dies, the day ends, and it starts again while the ledger is away.
        world.crash(0);
        world.now_ms += 86_400_000;
        world.start(0);
        world.round(0, false);
        let day = Window::utc(Period::Day);
        let settled = |world: &World, at_ms: i64| -> i64 {
            let start = day.at(at_ms).start_ms;
            let rows = world.book.windows.iter();
            rows.filter(|((budget, at, _), _)| &**budget == "acme/day" && *at == start)
                .map(|(_, (_, settled))| *settled)
                .sum()
        };
        assert_eq!(
            settled(&world, NOW),
            40_000,
            "it is charged to the day it began in"
        );
        assert_eq!(settled(&world, world.now_ms), 0);
        while world.bills.len() < 2 {
            world.hold(0, 40, 1);
            world.round(0, true);
        }
        world.end(0, 0, 0);
        assert!(
            settled(&world, NOW) == 40_000,
            "and the new day has a budget of its own"
        );
        world.settle();
        world.judge();
    }
}
