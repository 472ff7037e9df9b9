//! `kill -9` at random moments under load. The endpoints' own bills are the oracle.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bench::upstream::{Script, Upstream};
use tests::Process;
use tests::world::{DEEP, FAST, chat, script};

use crate::{PROGRAM, caller, command, config, key};

/// Rounds of starting, loading and killing; `PARETO_KILLS` says otherwise.
const ROUNDS: &str = "50";
const LIMIT: &str = "0.08";

/// A xorshift, so that a failing run can be repeated from the seed it printed.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// `PARETO_SEED`, or one of the clock.
pub(crate) fn seed() -> u64 {
    let given = std::env::var("PARETO_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    given.unwrap_or_else(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        u64::try_from(since.as_nanos() >> 8).unwrap_or(1) | 1
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_random_moments_it_loses_no_call_and_passes_no_budget() {
    let seed = seed();
    println!("PARETO_SEED={seed}");
    let mut random = Random(seed);
    let folder = tempfile::tempdir().unwrap();
    let pace = |tier| Script {
        output_tokens: 30,
        token_gap_us: 500,
        first_token_ms: 3,
        ..script(tier)
    };
    let fast = Upstream::start(pace(FAST)).await.unwrap();
    let deep = Upstream::start(pace(DEEP)).await.unwrap();
    let budget =
        format!("[[budget]]\ntenant = \"short\"\nlimit_usd = \"{LIMIT}\"\nwindow = \"total\"\n");
    let config = config(folder.path(), &fast, &deep, &budget);
    let keys = [key(&config, "short"), key(&config, "long")];
    let mut denied = 0;
    let rounds: usize = std::env::var("PARETO_KILLS")
        .as_deref()
        .unwrap_or(ROUNDS)
        .parse()
        .unwrap();
    for _ in 0..rounds {
        let process = Process::start(PROGRAM, &config).await;
        let callers: Vec<_> = (0..16)
            .map(|n: usize| {
                let client = caller(&process, &keys[n % 2]);
                tokio::task::spawn(async move {
                    let mut denied = 0;
                    for call in 0.. {
                        let rest =
                            [",\"max_tokens\":60", ",\"max_tokens\":60,\"stream\":true"][call % 2];
                        let path = ["/v1/chat/completions", "/v1/messages"][n / 2 % 2];
                        match client
                            .post(path, chat("auto", "What is a river?", rest))
                            .await
                            .status
                        {
                            0 => break,
                            429 => {
                                denied += 1;
                                tokio::time::sleep(Duration::from_millis(5)).await;
                            }
                            _ => {}
                        }
                    }
                    denied
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(5 + random.below(200))).await;
        process.kill().await;
        for caller in callers {
            denied += caller.await.unwrap();
        }
    }
    // A last start, without load, takes up what is left; its orderly end writes it all down.
    let process = Process::start(PROGRAM, &config).await;
    process.signal("TERM");
    let mut child = process.child;
    assert!(child.wait().await.unwrap().success());
    let arrived = fast.calls() + deep.calls();
    for _ in 0..500 {
        if u64::try_from(fast.bill().len() + deep.bill().len()).unwrap() == arrived {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut bill = fast.bill();
    bill.extend(deep.bill());
    assert_eq!(
        u64::try_from(bill.len()).unwrap(),
        arrived,
        "the oracle has billed all calls"
    );
    let ledger = rusqlite::Connection::open(folder.path().join("data/ledger.sqlite3")).unwrap();
    let rows = read(&ledger);
    let (mut interrupted, mut short) = (0, 0);
    for billed in &bill {
        let id = format!("{}/{}", billed.request, billed.attempt);
        let row = rows
            .get(&id)
            .unwrap_or_else(|| panic!("{id} is billed and not in the ledger"));
        assert_eq!(row.count, 1, "{id}");
        let cost = i64::try_from(billed.cost_pico / 1_000).unwrap();
        assert!(
            row.cost >= cost,
            "{id}: the ledger says {}, the endpoint {cost}",
            row.cost
        );
        interrupted += usize::from(row.cost != cost);
        short += if row.tenant == "short" { cost } else { 0 };
    }
    let limit = meter::NanoUsd::from_usd(LIMIT).unwrap().0;
    assert!(
        short <= limit,
        "{short} of {limit} by the endpoint's own bill"
    );
    let open: i64 = ledger
        .query_row("SELECT COUNT(*) FROM hold", [], |row| row.get(0))
        .unwrap();
    assert_eq!(open, 0, "no orphan is left");
    assert!(denied > 0, "the budget was reached");
    println!(
        "{rounds} kills, {} calls at upstreams, {interrupted} of them charged by estimate, {} USD of {LIMIT} spent",
        bill.len(),
        meter::NanoUsd(short)
    );
    reconciled(folder.path(), &config, &bill, &ledger);
    let by_tenant = "SELECT SUM(cost_nano) FROM usage_event";
    let raw: i64 = ledger.query_row(by_tenant, [], |row| row.get(0)).unwrap();
    let (ok, csv, error) = command(&["usage", "--by", "tenant", "--csv"], &config);
    assert!(ok, "{error}");
    assert_eq!(
        crate::commands::cost_of(&csv),
        raw,
        "SQL sums, rollups and `usage` agree"
    );
}

/// The endpoints' own bill makes every row equal to it, those charged by estimate among them.
fn reconciled(
    folder: &std::path::Path,
    config: &std::path::Path,
    bill: &[bench::upstream::Billed],
    ledger: &rusqlite::Connection,
) {
    crate::books::reconcile(folder, config, bill);
    let mut left: HashMap<String, i64> = HashMap::new();
    let sql = "SELECT request_id, attempt, SUM(cost_nano) FROM usage_event GROUP BY 1, 2";
    let mut asked = ledger.prepare(sql).unwrap();
    let rows = asked.query_map([], |row| {
        let id = wire::RequestId::from_bytes(row.get(0)?);
        Ok((format!("{id}/{}", row.get::<_, i64>(1)?), row.get(2)?))
    });
    left.extend(rows.unwrap().map(Result::unwrap));
    for billed in bill {
        let id = format!("{}/{}", billed.request, billed.attempt);
        let cost = i64::try_from(billed.cost_pico / 1_000).unwrap();
        assert_eq!(left.remove(&id), Some(cost), "{id}");
    }
    assert!(
        left.values().all(|cost| *cost == 0),
        "what is on no bill is free: {left:?}"
    );
    let waiting: i64 = ledger
        .query_row(
            "SELECT COUNT(*) FROM usage_event e WHERE kind = 'settle' AND source = 'estimated'
             AND cost_nano <> 0 AND NOT EXISTS (SELECT 1 FROM usage_event c WHERE c.kind = 'reconcile'
                 AND c.request_id = e.request_id AND c.attempt = e.attempt)",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(waiting, 0, "no estimate waits any longer");
}

pub(crate) struct Row {
    pub(crate) count: usize,
    pub(crate) cost: i64,
    pub(crate) tenant: String,
}

/// Entries by request id and attempt.
pub(crate) fn read(ledger: &rusqlite::Connection) -> HashMap<String, Row> {
    let sql = "SELECT request_id, attempt, cost_nano, tenant FROM usage_event";
    let mut statement = ledger.prepare(sql).unwrap();
    let mut found: HashMap<String, Row> = HashMap::new();
    let rows = statement
        .query_map([], |row| {
            let id = wire::RequestId::from_bytes(row.get(0)?);
            Ok((
                format!("{id}/{}", row.get::<_, i64>(1)?),
                row.get(2)?,
                row.get(3)?,
            ))
        })
        .unwrap();
    for row in rows {
        let (id, cost, tenant): (String, i64, String) = row.unwrap();
        let entry = found.entry(id).or_insert(Row {
            count: 0,
            cost,
            tenant,
        });
        entry.count += 1;
    }
    found
}
