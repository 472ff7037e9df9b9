//! Three gateways on one PostgreSQL server: killed at random, their server stopped in between, callers
//! leaving, endpoints failing or saying nothing of usage. The endpoints' own bills are the oracle: no
//! hard budget is passed by what they bill, and no call they bill is missing.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bench::upstream::{Billed, Script, Upstream};
use tests::world::{DEEP, FAST, chat, script};
use tests::{Client, Postgres, Process};

use crate::kill::{Random, seed};
use crate::{PROGRAM, command, key};

const NODES: usize = 3;
const CALLERS: usize = 200;
/// Seconds of load; `PARETO_SOAK_S` says otherwise.
const SECONDS: &str = "110";

/// Tenants, and what limits them: the column of the ledger whose sum the limit is on, and the limit.
const BUDGETS: [(&str, &str, &str); 6] = [
    ("whole", "tenant", "0.25"),
    ("tree", "tenant", "0.30"),
    ("tree", "project", "0.20"),
    ("users", "user_id", "0.04"),
    ("rolling", "tenant", "0.20"),
    ("berlin", "tenant", "0.22"),
];

fn budgets() -> String {
    let mut text = String::new();
    for (tenant, level, limit) in BUDGETS {
        let more = match (tenant, level) {
            (_, "project") => "project = \"*\"\nwindow = \"total\"\n",
            (_, "user_id") => "user = \"*\"\nwindow = \"total\"\n",
            ("rolling", _) => "window = \"rolling 1h\"\n",
            ("berlin", _) => "window = \"year\"\nzone = \"Europe/Berlin\"\n",
            _ => "window = \"total\"\n",
        };
        text.push_str(&format!(
            "[[budget]]\ntenant = \"{tenant}\"\nlimit_usd = \"{limit}\"\n{more}"
        ));
    }
    text.push_str("[[rate_limit]]\ntenant = \"free\"\nrequests_per_minute = 100000\n");
    text
}

/// A new key of a project.
fn project_key(config: &Path, tenant: &str) -> String {
    let args = ["keys", "create", "--tenant", tenant, "--project", "p1"];
    let (ok, key, error) = command(&args, config);
    assert!(ok, "{error}");
    key.trim().to_owned()
}

/// A configuration of one node in a folder of its own.
pub(crate) fn node(folder: &Path, url: &str, upstreams: [&Upstream; 2], tail: &str) -> PathBuf {
    std::fs::create_dir_all(folder).unwrap();
    let head = format!(
        "log.level = \"info,pareto=warn\"\nlog.format = \"json\"\nkeys.pepper = \"shared\"\n\
         store.postgres = \"{url}\"\nserver.drain_s = 5"
    );
    let text = tests::world::config(folder, &head, upstreams[0], upstreams[1], tail);
    let path = folder.join("pareto.toml");
    std::fs::write(&path, text).unwrap();
    path
}

/// What the callers share.
struct Load {
    addresses: Mutex<[Option<SocketAddr>; NODES]>,
    until: Instant,
    answered: AtomicU64,
    denied: AtomicU64,
    unavailable: AtomicU64,
    left: AtomicU64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_share_a_budget_never_pass_it_whatever_dies() {
    let seed = seed();
    println!("PARETO_SEED={seed}");
    let seconds: u64 = std::env::var("PARETO_SOAK_S")
        .as_deref()
        .unwrap_or(SECONDS)
        .parse()
        .unwrap();
    let server = Postgres::start();
    let folder = tempfile::tempdir().unwrap();
    let pace = |tier| Script {
        output_tokens: 30,
        token_gap_us: 300,
        first_token_ms: 10,
        ..script(tier)
    };
    let fast = Upstream::start(pace(FAST)).await.unwrap();
    let deep = Upstream::start(pace(DEEP)).await.unwrap();
    let configs: Vec<PathBuf> = (0..NODES)
        .map(|n| {
            let place = folder.path().join(format!("node-{n}"));
            node(&place, &server.url("postgres"), [&fast, &deep], &budgets())
        })
        .collect();
    let keys: Vec<String> = ["whole", "tree", "users", "rolling", "berlin", "free"]
        .map(|tenant| project_key(&configs[0], tenant))
        .into();
    let load = Arc::new(Load {
        addresses: Mutex::default(),
        until: Instant::now() + Duration::from_secs(seconds),
        answered: AtomicU64::new(0),
        denied: AtomicU64::new(0),
        unavailable: AtomicU64::new(0),
        left: AtomicU64::new(0),
    });
    let mut nodes = Vec::new();
    for config in &configs {
        nodes.push(Process::start(PROGRAM, config).await);
    }
    *load.addresses.lock().unwrap() = std::array::from_fn(|n| Some(nodes[n].address));
    let callers: Vec<_> = (0..CALLERS)
        .map(|n| {
            let client = Client::new(nodes[0].address, &keys[n % keys.len()]);
            tokio::task::spawn(caller(Arc::clone(&load), client, n, seed))
        })
        .collect();
    let kills = disturb(&load, &server, &configs, nodes, seed).await;
    for caller in callers {
        caller.await.unwrap();
    }
    let bill = settle(&configs, [&fast, &deep]).await;
    let rows = rows(&server.url("postgres")).await;
    judge(&bill, &rows);
    reconcile(folder.path(), &configs[0], &bill, &server).await;
    let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
    println!(
        "{kills} kills, {} calls at endpoints, {} answered, {} denied, {} unavailable, {} left early",
        bill.len(),
        count(&load.answered),
        count(&load.denied),
        count(&load.unavailable),
        count(&load.left),
    );
    assert!(count(&load.denied) > 0 && count(&load.left) > 0);
}

/// One caller's life: calls of every kind, at nodes taken at random.
async fn caller(load: Arc<Load>, mut client: Client, n: usize, seed: u64) {
    let mut random = Random(seed ^ (0x9E37_79B9 * (n as u64 + 1)));
    while Instant::now() < load.until {
        tokio::time::sleep(Duration::from_millis(100 + random.below(400))).await;
        let node = usize::try_from(random.below(NODES as u64)).unwrap();
        let Some(address) = load.addresses.lock().unwrap()[node] else {
            continue;
        };
        client.address = address;
        let path = ["/v1/chat/completions", "/v1/messages", "/v1/responses"]
            [usize::try_from(random.below(3)).unwrap()];
        let fault = match random.below(20) {
            0 | 1 => "<<script {\"fault\":\"no_usage\"}>>",
            2 => "<<script {\"fault\":\"cut_after:5\"}>>",
            3 => "<<script {\"fault\":\"status:500\"}>>",
            4 => "<<script {\"fault\":\"refuse\"}>>",
            _ => "",
        };
        let streams = random.below(2) == 0;
        let cap = if path == "/v1/responses" {
            "max_output_tokens"
        } else {
            "max_tokens"
        };
        let text = format!("What is a river?{fault}");
        let input = if path == "/v1/responses" {
            format!(
                "{{\"model\":\"auto\",\"store\":false,\"input\":{},\"{cap}\":60,\"stream\":{streams}}}",
                wire::json::quote(&text)
            )
        } else {
            chat(
                "auto",
                &text,
                &format!(",\"{cap}\":60,\"stream\":{streams}"),
            )
        };
        let user = format!("user-{}", n % 7);
        let project = ["x-pareto-user", user.as_str()];
        if streams && random.below(6) == 0 {
            client
                .begin_and_leave(path, &[(project[0], project[1])], input, 3)
                .await;
            load.left.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        let reply = client
            .send(http::Method::POST, path, &[(project[0], project[1])], input)
            .await;
        let counter = match reply.status {
            429 => &load.denied,
            503 => &load.unavailable,
            _ => &load.answered,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// Kills nodes and starts them again, and stops the server once, until the load ends; then kills all.
async fn disturb(
    load: &Load,
    server: &Postgres,
    configs: &[PathBuf],
    nodes: Vec<Process>,
    seed: u64,
) -> usize {
    let mut random = Random(seed);
    let mut nodes: Vec<Option<Process>> = nodes.into_iter().map(Some).collect();
    let half = Instant::now() + (load.until - Instant::now()) / 2;
    let (mut kills, mut outage) = (0, false);
    while Instant::now() < load.until {
        tokio::time::sleep(Duration::from_millis(500 + random.below(2_500))).await;
        if !outage && Instant::now() > half {
            outage = true;
            tokio::task::block_in_place(|| server.down());
            tokio::time::sleep(Duration::from_secs(5)).await;
            tokio::task::block_in_place(|| server.up());
            continue;
        }
        let n = usize::try_from(random.below(NODES as u64)).unwrap();
        load.addresses.lock().unwrap()[n] = None;
        if let Some(process) = nodes[n].take() {
            process.kill().await;
            kills += 1;
        }
        let started = Process::start(PROGRAM, &configs[n]).await;
        load.addresses.lock().unwrap()[n] = Some(started.address);
        nodes[n] = Some(started);
    }
    for node in nodes.into_iter().flatten() {
        node.kill().await;
    }
    kills
}

/// Lets each node take up what it left and write it all down; returns the endpoints' bill.
async fn settle(configs: &[PathBuf], upstreams: [&Upstream; 2]) -> Vec<Billed> {
    for config in configs {
        let process = Process::start(PROGRAM, config).await;
        process.signal("TERM");
        let mut child = process.child;
        assert!(child.wait().await.unwrap().success());
    }
    let arrived: u64 = upstreams.iter().map(|it| it.calls()).sum();
    let billed = || {
        upstreams
            .iter()
            .flat_map(|it| it.bill())
            .collect::<Vec<_>>()
    };
    for _ in 0..500 {
        if billed().len() as u64 == arrived {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(billed().len() as u64, arrived, "the oracle has billed all");
    billed()
}

/// A call as the ledger has it, all its rows summed.
#[derive(Debug, Default, Clone)]
struct Row {
    settled: usize,
    cost: i64,
    levels: HashMap<&'static str, String>,
}

async fn rows(url: &str) -> HashMap<String, Row> {
    let url = url.to_owned();
    let read = move || {
        let mut client = postgres::Client::connect(&url, postgres::NoTls).unwrap();
        let open: i64 = client
            .query_one("SELECT COUNT(*) FROM hold", &[])
            .unwrap()
            .get(0);
        assert_eq!(open, 0, "no orphan is left");
        let sql = "SELECT request_id, attempt, kind, cost_nano, tenant, project, user_id FROM usage_event";
        let mut found: HashMap<String, Row> = HashMap::new();
        for row in client.query(sql, &[]).unwrap() {
            let id: Vec<u8> = row.get(0);
            let id = wire::RequestId::from_bytes(id.try_into().unwrap());
            let entry = found
                .entry(format!("{id}/{}", row.get::<_, i64>(1)))
                .or_default();
            entry.settled += usize::from(row.get::<_, String>(2) == "settle");
            entry.cost += row.get::<_, i64>(3);
            for (place, level) in [(4, "tenant"), (5, "project"), (6, "user_id")] {
                entry.levels.insert(level, row.get(place));
            }
        }
        found
    };
    tokio::task::spawn_blocking(read).await.unwrap()
}

/// The endpoints' bill is imported and applied, after which the ledger equals it, row for row, and
/// budgets have back what was charged to them by estimate.
async fn reconcile(folder: &Path, config: &Path, bill: &[Billed], server: &Postgres) {
    tokio::task::block_in_place(|| crate::books::reconcile(folder, config, bill));
    let mut left: HashMap<String, i64> = rows(&server.url("postgres"))
        .await
        .into_iter()
        .map(|(id, row)| (id, row.cost))
        .collect();
    for billed in bill {
        let id = format!("{}/{}", billed.request, billed.attempt);
        let cost = i64::try_from(billed.cost_pico / 1_000).unwrap();
        assert_eq!(left.remove(&id), Some(cost), "{id}");
    }
    assert!(
        left.values().all(|cost| *cost == 0),
        "what is on no bill is free"
    );
    let url = server.url("postgres");
    let windows = move || {
        let mut client = postgres::Client::connect(&url, postgres::NoTls).unwrap();
        let sql = "SELECT w.sum, e.sum FROM
            (SELECT SUM(settled_nano)::BIGINT AS sum FROM budget_window WHERE budget = 'whole/total') w,
            (SELECT SUM(cost_nano)::BIGINT AS sum FROM usage_event WHERE tenant = 'whole') e";
        let row = client.query_one(sql, &[]).unwrap();
        (row.get::<_, i64>(0), row.get::<_, i64>(1))
    };
    let (window, entries) = tokio::task::spawn_blocking(windows).await.unwrap();
    assert_eq!(
        window, entries,
        "the budget has settled what was billed, and no more"
    );
    println!("after reconciliation {} rows equal the bill", bill.len());
}

/// Holds the bill against the ledger and every budget.
fn judge(bill: &[Billed], rows: &HashMap<String, Row>) {
    let mut spent: HashMap<(&str, &str, String), i64> = HashMap::new();
    for billed in bill {
        let id = format!("{}/{}", billed.request, billed.attempt);
        let row = rows
            .get(&id)
            .unwrap_or_else(|| panic!("{id} is billed and not in the ledger: {billed:?}"));
        assert_eq!(row.settled, 1, "{id}");
        let cost = i64::try_from(billed.cost_pico / 1_000).unwrap();
        for (tenant, level, _) in BUDGETS.iter().filter(|it| it.0 == row.levels["tenant"]) {
            let at = (*tenant, *level, row.levels[level].clone());
            *spent.entry(at).or_default() += cost;
        }
    }
    for (tenant, level, limit) in BUDGETS {
        let limit_nano = meter::NanoUsd::from_usd(limit).unwrap().0;
        let mut reached = 0;
        for ((_, _, name), cost) in spent
            .iter()
            .filter(|(at, _)| at.0 == tenant && at.1 == level)
        {
            assert!(
                *cost <= limit_nano,
                "{tenant}, {level} {name}: {cost} of {limit_nano} by the endpoints' own bills"
            );
            reached = reached.max(*cost);
        }
        println!(
            "{tenant} by {level}: at most {} of {limit} USD, {} %",
            meter::NanoUsd(reached),
            reached * 100 / limit_nano
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_over_three_nodes_is_served_to_the_limit() {
    const CALLS: usize = 60;
    let (url, _server) = tests::postgres::database();
    let folder = tempfile::tempdir().unwrap();
    let pace = Script {
        output_tokens: 30,
        token_gap_us: 300,
        first_token_ms: 20,
        ..script(FAST)
    };
    let fast = Upstream::start(pace).await.unwrap();
    let deep = Upstream::start(script(DEEP)).await.unwrap();
    let body = chat("fast", "What is a river?", ",\"max_tokens\":30");
    // What one call costs, by the endpoint's own bill: made under a tenant without a budget.
    let probe = node(&folder.path().join("probe"), &url, [&fast, &deep], "");
    let own = key(&probe, "probe");
    let process = Process::start(PROGRAM, &probe).await;
    let client = Client::new(process.address, &own);
    assert_eq!(
        client
            .post("/v1/chat/completions", body.clone())
            .await
            .status,
        200
    );
    let each = fast.bill()[0].cost_pico / 1_000;
    process.kill().await;
    let limit = meter::NanoUsd(i64::try_from(each).unwrap() * CALLS as i64);
    let budget = format!(
        "[[budget]]\ntenant = \"burst\"\nlimit_usd = \"{limit}\"\nwindow = \"total\"\ndegrade = {{ free = 0 }}\n"
    );
    let mut nodes = Vec::new();
    let mut made = None;
    for n in 0..NODES {
        let config = node(
            &folder.path().join(format!("{n}")),
            &url,
            [&fast, &deep],
            &budget,
        );
        made.get_or_insert_with(|| key(&config, "burst"));
        nodes.push(Process::start(PROGRAM, &config).await);
    }
    let before = fast.bill().len();
    let callers: Vec<_> = (0..CALLS * 2)
        .map(|n| {
            let client = Client::new(nodes[n % NODES].address, made.as_deref().unwrap());
            let body = body.clone();
            tokio::task::spawn(
                async move { client.post("/v1/chat/completions", body).await.status },
            )
        })
        .collect();
    let mut statuses: HashMap<u16, usize> = HashMap::new();
    for caller in callers {
        *statuses.entry(caller.await.unwrap()).or_default() += 1;
    }
    let billed: u64 = fast.bill()[before..]
        .iter()
        .map(|it| it.cost_pico / 1_000)
        .sum();
    let spent = meter::NanoUsd(i64::try_from(billed).unwrap());
    println!("{spent} of {limit} USD, {statuses:?}");
    assert!(spent <= limit, "{spent} of {limit}");
    assert!(
        spent.0 * 100 >= limit.0 * 95,
        "{spent} of {limit}: {statuses:?}"
    );
}
