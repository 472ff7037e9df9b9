//! Proves that it does not matter where the process dies: at each place next to money it is ended, from
//! within, the first time it comes by and later, under load and while it recovers. The endpoints' bills are
//! the oracle.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bench::upstream::Upstream;
use tests::Process;
use tests::world::chat;

use crate::{PROGRAM, caller, config, endpoints, key};

/// Calls of each caller within which a place must be reached. The places behind the calls come by with time
/// and not with calls, so this is many more than a quick machine makes in the longest round, of about a second.
const ENOUGH: usize = 10_000;
const LIMIT: &str = "0.05";

/// Calls until the process is gone. Notes ids of answers that came whole.
async fn load(process: &Process, keys: &[String; 2], whole: &Arc<Mutex<HashSet<String>>>) {
    let callers = (0..6).map(|n: usize| {
        let (client, whole) = (caller(process, &keys[n % 2]), Arc::clone(whole));
        tokio::task::spawn(async move {
            for call in 0..ENOUGH {
                let rest = [",\"max_tokens\":40", ",\"max_tokens\":40,\"stream\":true"][call % 2];
                let path = ["/v1/chat/completions", "/v1/messages"][n / 2 % 2];
                let reply = client
                    .post(path, chat("auto", "What is a river?", rest))
                    .await;
                match reply.status {
                    0 => break,
                    200 if !reply.broken => {
                        whole.lock().unwrap().insert(reply.header("x-request-id"));
                    }
                    429 => tokio::time::sleep(Duration::from_millis(5)).await,
                    _ => {}
                }
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wherever_it_dies_the_ledger_is_the_endpoints_log() {
    let folder = tempfile::tempdir().unwrap();
    let [fast, deep] = endpoints(10).await;
    let tail =
        format!("[[budget]]\ntenant = \"short\"\nlimit_usd = \"{LIMIT}\"\nwindow = \"total\"\n");
    let config = config(folder.path(), &fast, &deep, &tail);
    let text = std::fs::read_to_string(&config).unwrap();
    let small = format!("store.journal_segment_bytes = 65536\n{text}");
    std::fs::write(&config, small).unwrap();
    let keys = [key(&config, "short"), key(&config, "long")];
    let whole = Arc::new(Mutex::new(HashSet::new()));
    // Which calls came in which round, to name the place that loses one.
    let mut rounds: Vec<(String, usize)> = Vec::new();
    for place in meter::point::ALL {
        for times in [1, 2, 9] {
            let plan = format!("{place}:{times}");
            let with = [("PARETO_DIE_AT", plan.as_str())];
            if let Some(mut process) = Process::try_start(PROGRAM, &config, &with).await {
                load(&process, &keys, &whole).await;
                let ended =
                    tokio::time::timeout(Duration::from_secs(20), process.child.wait()).await;
                let ended = ended
                    .unwrap_or_else(|_| panic!("{plan} was never reached"))
                    .unwrap();
                assert!(!ended.success(), "{plan}");
            }
            rounds.push((plan, fast.bill().len() + deep.bill().len()));
        }
    }
    let process = Process::start(PROGRAM, &config).await;
    process.signal("TERM");
    let mut child = process.child;
    assert!(child.wait().await.unwrap().success());
    let whole = whole.lock().unwrap().clone();
    let told = compare(folder.path(), &fast, &deep, &whole, &rounds).await;
    tests::figure("C2", &format!("{} deaths, {told}", rounds.len()));
}

/// Holds the ledger of a program that has ended against what the endpoints have billed; `whole` are the calls
/// whose answers came whole, and `rounds` names what was done until so many calls were billed. Returns a line
/// about it.
pub(crate) async fn compare(
    folder: &std::path::Path,
    fast: &Upstream,
    deep: &Upstream,
    whole: &HashSet<String>,
    rounds: &[(String, usize)],
) -> String {
    let arrived = fast.calls() + deep.calls();
    let mut bill = Vec::new();
    for _ in 0..500 {
        bill = fast.bill();
        bill.extend(deep.bill());
        if u64::try_from(bill.len()).unwrap() == arrived {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(u64::try_from(bill.len()).unwrap(), arrived);
    let ledger = rusqlite::Connection::open(folder.join("data/ledger.sqlite3")).unwrap();
    let rows = crate::kill::read(&ledger);
    let (mut wrong, mut exact, mut short) = (Vec::new(), 0, 0);
    for billed in &bill {
        let id = format!("{}/{}", billed.request, billed.attempt);
        let cost = i64::try_from(billed.cost_pico / 1_000).unwrap();
        let Some(row) = rows.get(&id) else {
            wrong.push(format!("{id} is billed and not in the ledger"));
            continue;
        };
        let is_whole = whole.contains(&billed.request);
        if row.count != 1 || row.cost < cost || (is_whole && row.cost != cost) {
            wrong.push(format!(
                "{id}: {} rows, {} for {cost}, whole {is_whole}",
                row.count, row.cost
            ));
        }
        exact += usize::from(row.cost == cost);
        short += if row.tenant == "short" { cost } else { 0 };
    }
    assert!(wrong.is_empty(), "{}\nrounds: {rounds:?}", wrong.join("\n"));
    let limit = meter::NanoUsd::from_usd(LIMIT).unwrap().0;
    assert!(short <= limit, "{short} of {limit}");
    let open: i64 = ledger
        .query_row("SELECT COUNT(*) FROM hold", [], |row| row.get(0))
        .unwrap();
    assert_eq!(open, 0, "no orphan is left");
    let (sum, rolled): (i64, i64) = ledger
        .query_row(
            "SELECT (SELECT SUM(cost_nano) FROM usage_event), (SELECT SUM(cost_nano) FROM brief_day)",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .unwrap();
    assert_eq!(sum, rolled, "rollups are the sum of the rows");
    format!("{} calls, {exact} of them billed exactly", bill.len())
}
