//! Proves that the ledger is the endpoint's log whatever the network does between them, and between callers
//! and the gateway: late, cut, reset, half-open, silent or changed. Each seed is another day; `PARETO_SEEDS`
//! says how many, and a failing one is printed.

use std::collections::HashMap;
use std::time::Duration;

use bench::upstream::{Billed, Script, Upstream};
use futures_util::future::join_all;
use meter::{Entry, Outcome};
use tests::talk::Tongue;
use tests::weather::{Chance, Network, Weather};
use tests::wicked;
use tests::world::{FAST, World, chat, script};
use tests::{Client, Reply};
use wire::UsageSource;

const SEEDS: &str = "8";
const CALLERS: u64 = 6;
const CALLS: u64 = 6;
const LIMIT: &str = "0.02";
const HEAD: &str = "upstream.connect_timeout_ms = 500\nupstream.first_byte_timeout_ms = 500\nupstream.reply_timeout_ms = 500\n\
                    upstream.idle_timeout_ms = 500\nlimits.head_timeout_ms = 1000\nlimits.body_timeout_ms = 1000";

/// What falls between gateway and endpoint, and between caller and gateway.
fn storm(seed: u64) -> (Weather, Weather) {
    let each = Weather {
        delay_us: 2_000,
        crumbs: 3,
        ..Weather::default()
    };
    let upstream = match seed % 4 {
        0 => Weather { reset: 3, ..each },
        1 => Weather {
            blackhole: 4,
            ..each
        },
        2 => Weather {
            half_open: 3,
            refuse: 6,
            ..each
        },
        _ => Weather {
            reset: 8,
            blackhole: 8,
            half_open: 8,
            refuse: 8,
            ..each
        },
    };
    let callers = match seed / 4 % 3 {
        0 => each,
        1 => Weather { reset: 4, ..each },
        _ => Weather {
            half_open: 5,
            reset: 6,
            ..each
        },
    };
    (upstream, callers)
}

/// A day: the endpoint's log, the ledger, and what callers heard.
struct Day {
    bill: Vec<Billed>,
    entries: Vec<Entry>,
    heard: Vec<Reply>,
    /// Calls that the endpoint has read.
    arrived: u64,
    spoilt: usize,
}

async fn day(seed: u64, (upstream, callers): (Weather, Weather)) -> Day {
    let endpoint = Upstream::start(Script {
        output_tokens: 12,
        token_gap_us: 300,
        key: Some("up-far".into()),
        ..script(FAST)
    })
    .await
    .unwrap();
    let target = endpoint.url();
    let target = target
        .trim_start_matches("http://")
        .split('/')
        .next()
        .unwrap();
    let near = Network::start(target.parse().unwrap(), upstream, seed).await;
    let tables = wicked::tables("far", Tongue::Chat, &wicked::url(near.address))
        + &format!("[[budget]]\ntenant = \"acme\"\nlimit_usd = \"{LIMIT}\"\nwindow = \"total\"\n");
    let world = World::start(HEAD, &tables).await;
    let far = Network::start(world.running.address, callers, !seed).await;
    let key = &world.client.key;
    let calling = (0..CALLERS).map(|caller| {
        let client = Client::new(far.address, key);
        async move {
            let mut chance = Chance::new(seed, 1_000 + caller);
            let mut heard = Vec::new();
            for _ in 0..CALLS {
                let rest = [",\"max_tokens\":20", ",\"max_tokens\":20,\"stream\":true"]
                    [usize::from(chance.once_in(2))];
                let body = chat("far", "What is a river?", rest);
                if chance.once_in(5) {
                    let frames = usize::try_from(chance.below(4)).unwrap();
                    client
                        .begin_and_leave("/v1/chat/completions", &[], body, frames)
                        .await;
                } else {
                    let calling = client.post("/v1/chat/completions", body);
                    heard.extend(tokio::time::timeout(Duration::from_secs(5), calling).await);
                }
            }
            heard
        }
    });
    let heard = join_all(calling).await.into_iter().flatten().collect();
    world.quiet().await;
    let mut bill = Vec::new();
    for _ in 0..500 {
        bill = endpoint.bill();
        if u64::try_from(bill.len()).unwrap() == endpoint.calls() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Day {
        bill,
        arrived: endpoint.calls(),
        entries: world.entries().await,
        heard,
        spoilt: near.spoilt.load(std::sync::atomic::Ordering::Relaxed)
            + far.spoilt.load(std::sync::atomic::Ordering::Relaxed),
    }
}

fn seeds() -> std::ops::Range<u64> {
    let count = std::env::var("PARETO_SEEDS").unwrap_or_else(|_| SEEDS.to_owned());
    let first: u64 = std::env::var("PARETO_SEED").map_or(1, |seed| seed.parse().unwrap());
    first..first + count.parse::<u64>().unwrap()
}

/// Rows by request and attempt, each once.
fn by_id(seed: u64, entries: &[Entry]) -> HashMap<String, &Entry> {
    let mut rows = HashMap::new();
    for entry in entries {
        let id = format!("{}/{}", entry.held.request, entry.held.attempt);
        assert!(
            rows.insert(id, entry).is_none(),
            "seed {seed}: two rows for one attempt"
        );
    }
    rows
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_any_weather_the_ledger_is_the_endpoints_log() {
    let (mut calls, mut spoilt, mut whole, mut headless) = (0, 0, 0, 0);
    for seed in seeds() {
        let day = day(seed, storm(seed)).await;
        assert_eq!(
            u64::try_from(day.bill.len()).unwrap(),
            day.arrived,
            "seed {seed}: a call hangs upstream"
        );
        let rows = by_id(seed, &day.entries);
        let told: HashMap<String, &Reply> = day
            .heard
            .iter()
            .map(|reply| (reply.header("x-request-id"), reply))
            .collect();
        for billed in &day.bill {
            let id = format!("{}/{}", billed.request, billed.attempt);
            let row = rows
                .get(&id)
                .unwrap_or_else(|| panic!("seed {seed}: {id} is billed and not in the ledger"));
            let cost = i64::try_from(billed.cost_pico / 1_000).unwrap();
            // An endpoint that streams would have begun to answer before it worked: no head, no cost.
            if row.outcome == Outcome::Failed && row.status == 0 && row.held.stream {
                headless += 1;
                continue;
            }
            let most = row.cost.0 + row.suspense.0;
            assert!(
                most >= cost,
                "seed {seed}: {id} cost {cost}, the ledger says {most}: {row:?}"
            );
            if row.source == UsageSource::Provider && row.outcome != Outcome::Failed {
                assert_eq!(row.cost.0, cost, "seed {seed}: {id}");
            }
            let heard = told
                .get(&billed.request)
                .filter(|reply| reply.status == 200 && !reply.broken);
            if heard.is_some() && row.outcome == Outcome::Completed {
                whole += 1;
                assert_eq!(row.cost.0, cost, "seed {seed}: {id} was given whole");
            }
        }
        let limit = meter::NanoUsd::from_usd(LIMIT).unwrap().0;
        let spent: i64 = day
            .bill
            .iter()
            .map(|billed| i64::try_from(billed.cost_pico / 1_000).unwrap())
            .sum();
        assert!(spent <= limit, "seed {seed}: {spent} of {limit}");
        calls += day.bill.len();
        spoilt += day.spoilt;
    }
    assert!(
        spoilt > 20 && whole > 20,
        "{spoilt} connections spoilt, {whole} of {calls} calls whole"
    );
    tests::figure(
        "5",
        &format!(
            "{calls} calls at the endpoint, {whole} of them given whole, {spoilt} connections spoilt, {headless} streams without a head"
        ),
    );
}

/// Bits that turn can change any figure, so that only what holds of any call is asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn turned_bits_end_in_answers_or_errors_and_in_one_row_each() {
    let mut spoilt = 0;
    for seed in seeds() {
        let weather = Weather {
            flip: 2,
            crumbs: 3,
            ..Weather::default()
        };
        let day = day(seed, (weather, weather)).await;
        let rows = by_id(seed, &day.entries);
        for row in rows.values() {
            assert!(row.cost.0 >= 0, "seed {seed}: {row:?}");
        }
        for reply in &day.heard {
            let known = matches!(reply.status, 0 | 200 | 400..=599);
            assert!(
                known && reply.status != 500,
                "seed {seed}: {} {}",
                reply.status,
                reply.text()
            );
        }
        spoilt += day.spoilt;
    }
    assert!(spoilt > 20, "{spoilt} connections spoilt");
}
