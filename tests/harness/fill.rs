//! Fills a ledger with months of use, the same for the same numbers, through the ledger's own door.

use std::sync::Arc;

use meter::books::statement::Month;
use meter::entry::Charge;
use meter::{Entry, Held, NanoUsd, Outcome, Position, Record, Subject};
use store::SqlLedger;
use wire::{RequestId, Tier, Usage, UsageSource};

/// How much, and when.
#[derive(Debug, Clone, Copy)]
pub struct Fill {
    pub rows: u64,
    pub days: u64,
    /// The end, in milliseconds since 1970.
    pub until_ms: i64,
}

/// Tenants, with the share of calls of each in percent.
pub const TENANTS: [(&str, u64); 6] = [
    ("acme", 34),
    ("borealis", 24),
    ("cumulus", 18),
    ("delta & sons", 12),
    ("ember", 8),
    ("fjord", 4),
];
const TEAMS: [&str; 3] = ["search", "support", ""];
const PROJECTS: [&str; 2] = ["core", "lab"];
const WORKFLOWS: [&str; 5] = ["", "triage", "summarise", "extract", "agent"];
/// Name, endpoint, tier, and pico-USD for a token of input and of output.
const MODELS: [(&str, &str, Tier, i64, i64); 4] = [
    ("gpt-5-mini", "openai", Tier::Fast, 250_000, 2_000_000),
    (
        "claude-haiku-4-5",
        "anthropic",
        Tier::Fast,
        1_000_000,
        5_000_000,
    ),
    ("gpt-5.4", "openai", Tier::Deep, 2_500_000, 15_000_000),
    (
        "claude-opus-4-5",
        "anthropic",
        Tier::Deep,
        5_000_000,
        25_000_000,
    ),
];
const DAY_MS: i64 = 86_400_000;
/// Entries in one transaction.
const GROUP: usize = 8_000;

/// SplitMix64: a seed gives a sequence.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn one_in(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }
}

/// Applies the rows, oldest first.
pub fn fill(ledger: &SqlLedger, how: Fill) {
    let mut random = Random(how.rows ^ 7_307);
    let mut group = Vec::with_capacity(GROUP);
    for n in 0..how.rows {
        group.push(Record::Settle(Box::new(entry(n, how, &mut random))));
        if group.len() == GROUP || n + 1 == how.rows {
            ledger.apply(&group, Position(n + 1)).unwrap();
            group.clear();
        }
    }
}

/// When call `n` came: growing by a half over the time, fewer at weekends and at night.
fn moment(n: u64, how: Fill, random: &mut Random) -> i64 {
    let days = how.days as i64;
    let first = how.until_ms.div_euclid(DAY_MS) * DAY_MS - (days - 1) * DAY_MS;
    let span = how.until_ms - first;
    let even = i64::try_from(n * 1_000_000 / how.rows.max(1)).unwrap();
    // x + x(1 - x)/4 rises fast at first and slower later, so that later days get more.
    let at = even - even * (1_000_000 - even) / 4_000_000;
    let mut at = first + (i128::from(span) * i128::from(at) / 1_000_000) as i64;
    let day = at.div_euclid(DAY_MS);
    // 1970 began on a Thursday.
    let weekend = matches!((day + 3).rem_euclid(7), 5 | 6);
    if weekend && random.below(10) < 6 && at + 3 * DAY_MS < how.until_ms {
        at += (2 + i64::from((day + 3).rem_euclid(7) == 5) - 1) * DAY_MS;
    }
    at.clamp(first, how.until_ms - 1)
}

fn entry(n: u64, how: Fill, random: &mut Random) -> Entry {
    let at = moment(n, how, random);
    // About ten calls are one task, of one tenant.
    let task = n / 30 * 3 + n % 3;
    let mut who = Random(task);
    let place = who.below(100);
    let mut sum = 0;
    let tenant = TENANTS
        .iter()
        .find(|(_, share)| {
            sum += share;
            place < sum
        })
        .unwrap()
        .0;
    let (team, project) = (
        TEAMS[who.below(3) as usize],
        PROJECTS[who.below(2) as usize],
    );
    let workflow = WORKFLOWS[who.below(5) as usize];
    let deep = random.below(100) < 20;
    let model = usize::from(deep) * 2 + random.below(2) as usize;
    let (name, endpoint, tier, input, output) = MODELS[model];
    let attempt = u16::from(random.one_in(40));
    let outcome = match random.below(200) {
        0..=2 => Outcome::Failed,
        3 => Outcome::Interrupted,
        4..=5 => Outcome::Disconnected,
        6 if random.one_in(20) => Outcome::Orphaned,
        _ => Outcome::Completed,
    };
    let source = match outcome {
        Outcome::Orphaned => UsageSource::Estimated,
        Outcome::Disconnected | Outcome::Interrupted => UsageSource::Counted,
        _ => UsageSource::Provider,
    };
    let unpriced = random.one_in(700);
    let long = random.one_in(60);
    let failed = outcome == Outcome::Failed;
    let usage = usage(failed, long, random);
    let price = |input: i64, output: i64| price(&usage, input, output);
    // A provider lowers a price in the middle of the time.
    let cheaper = how.until_ms - at < 35 * DAY_MS && name == "gpt-5.4";
    let rate = |pico: i64| if cheaper { pico * 9 / 10 } else { pico };
    let paid = !unpriced && !failed;
    let cost = if paid {
        price(rate(input), rate(output))
    } else {
        0
    };
    let (_, _, _, deep_input, deep_output) = MODELS[model | 2];
    let baseline = if deep || !paid {
        cost
    } else {
        price(deep_input, deep_output)
    };
    let task = if workflow.is_empty() {
        String::new()
    } else {
        format!("t-{task}")
    };
    let mut bytes = [0; 10];
    bytes[..8].copy_from_slice(&n.to_be_bytes());
    let day = how.until_ms.div_euclid(DAY_MS) - at.div_euclid(DAY_MS);
    Entry {
        held: Held {
            request: RequestId::new(u64::try_from(at).unwrap(), bytes),
            attempt,
            subject: Subject {
                task: Arc::from(task),
                workflow: Arc::from(workflow),
                ..Subject::of_key(
                    tenant,
                    team,
                    project,
                    &format!("k{}{}", &tenant[..2], team.len() + project.len()),
                )
            },
            dialect: Arc::from("openai_chat"),
            requested: Arc::from("auto"),
            model: Arc::from(name),
            endpoint: Arc::from(endpoint),
            tier,
            reason: Arc::from(if attempt > 0 { "fallback" } else { "auto" }),
            score_milli: Some(300),
            stream: true,
            held_at_ms: at,
            bound: NanoUsd(cost * 2 + 1),
            bound_usage: usage,
            price: Arc::from(if unpriced {
                String::new()
            } else {
                format!("{endpoint}/{name}@{}", if cheaper { "2" } else { "1" })
            }),
            losses: Arc::default(),
            session: n / 9,
            lane: Arc::from(if random.one_in(20) { "flex" } else { "" }),
            book: Arc::from("0123abcd"),
            escalated: std::sync::Arc::default(),
            routing: None,
            charges: if day < 40 {
                vec![Charge {
                    budget: Arc::from(format!("{tenant}/month")),
                    start_ms: Month::of(at).start_ms(),
                }]
            } else {
                Vec::new()
            },
        },
        outcome,
        status: if failed { 503 } else { 200 },
        settled_at_ms: at + 1_500,
        usage,
        source,
        cost: NanoUsd(cost),
        baseline: NanoUsd(baseline),
        list: NanoUsd(cost * 20 / 19),
        sell: NanoUsd(cost * 13 / 10),
        // What was counted may have cost more.
        suspense: NanoUsd(if source == UsageSource::Counted {
            cost / 5
        } else {
            0
        }),
        cache_saved: NanoUsd(if paid {
            usage.cache_read as i64 * rate(input) * 9 / 10_000
        } else {
            0
        }),
        context_tier: if long { 200_000 } else { 0 },
        first_byte_ms: Some(400),
    }
}

fn usage(failed: bool, long: bool, random: &mut Random) -> Usage {
    if failed {
        return Usage::default();
    }
    let prompt = if long {
        210_000 + random.below(40_000)
    } else {
        300 + random.below(9_000)
    };
    let cached = if random.one_in(3) { prompt * 7 / 10 } else { 0 };
    Usage {
        input: prompt - cached,
        cache_read: cached,
        cache_write_5m: if random.one_in(9) { 1_024 } else { 0 },
        output: 40 + random.below(900),
        reasoning: if random.one_in(4) {
            random.below(2_000)
        } else {
            0
        },
        ..Usage::default()
    }
}

/// Nano-USD at pico-USD for a token; caches are read for a tenth.
fn price(usage: &Usage, input: i64, output: i64) -> i64 {
    let prompt =
        (usage.input + usage.cache_write_5m) as i64 * input + usage.cache_read as i64 * input / 10;
    (prompt + (usage.output + usage.reasoning) as i64 * output) / 1_000
}
