//! Proves the finance pages in a real browser: every figure on every page, in light and dark, equals an
//! independent sum over the ledger's entries; nothing is asked of another host; nothing breaks the
//! content policy; axe finds nothing; pages work without scripts and by keyboard; and the finance token
//! reads and changes nothing.
//!
//! `tests/run` installs what drives the browser and sets `PARETO_BROWSER_KIT` to its folder. Without it
//! the tests in the browser fail, unless `PARETO_SKIP` names `browser`. `PARETO_SCREENSHOTS` names a
//! folder for pictures of all pages.

mod events;
mod large;
mod roles;
mod sums;
mod tasks;

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use bench::upstream::Upstream;
use meter::Position;
use meter::books::statement::Month;
use proxy::boot::{self, Running};
use proxy::config::Config;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use store::SqlLedger;
use tempfile::TempDir;
use tests::fill::{Fill, TENANTS, fill};
use tests::world::{DEEP, FAST, script};

/// Pages with the states that matter.
const PATHS: &[&str] = &[
    "/",
    "/?period=28d&zone=America/New_York&by=model",
    "/?view=sell&tenant=acme&period=last-month",
    "/?view=margin&by=tier&period=7d",
    "/explore",
    "/explore?by=model&then=tenant&period=28d",
    "/explore?by=provider&measure=prompt&tenant=delta+%26+sons",
    "/explore?by=tenant&measure=percentiles&period=28d&chart=lines",
    "/explore?by=team&then=workflow&measure=calls&team=(none)&zone=Asia/Kolkata",
    "/budgets",
    "/budgets/acme/month",
    "/budgets/acme%2Fmonth?limit=1&zone=Europe/Berlin",
    "/budgets/acme/user:%2A/month/bob",
    "/?period=fiscal-year&fiscal_start=10&tenant=acme",
    "/units?period=28d",
    "/units?period=quarter&workflow=agent&tenant=acme",
    "/savings",
    "/savings?period=quarter&model=gpt-5.4",
    "/routing?period=28d",
    "/chargeback?period=quarter",
    "/chargeback?period=quarter&zone=Europe/Berlin&bill=ember",
    "/quality",
    "/prices?period=quarter",
    "/live",
];
/// What is walked on PostgreSQL.
const SOME_PATHS: &[&str] = &[
    "/?period=28d&zone=Europe/Berlin",
    "/explore?by=model&then=tenant&period=28d",
    "/units?period=28d",
    "/chargeback?period=quarter",
    "/prices?period=28d",
];

/// A gateway whose ledger was filled before it began.
pub struct Filled {
    pub running: Running,
    folder: TempDir,
    _upstreams: [Upstream; 2],
}

impl Filled {
    /// Fills `rows` of 100 days; the ledger is on the server at `url`, or a file.
    pub async fn start(rows: u64, url: Option<&str>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        std::fs::create_dir_all(&data).unwrap();
        let (path, server) = (data.join("ledger.sqlite3"), url.map(str::to_owned));
        tokio::task::spawn_blocking(move || {
            let ledger = match &server {
                Some(url) => SqlLedger::open_server(url, "filler").unwrap(),
                None => SqlLedger::open_file(&path).unwrap(),
            };
            let until_ms = proxy::clock::now_ms() - 30_000;
            fill(
                &ledger,
                Fill {
                    rows,
                    days: 100,
                    until_ms,
                },
            );
            events::happen(&ledger, until_ms);
            // The journal of the gateway is new, and so is its place in it.
            if server.is_none() {
                ledger.apply(&[], Position(0)).unwrap();
            }
            sums::end_tasks(&path, server.as_deref());
        })
        .await
        .unwrap();
        let fast = Upstream::start(script(FAST)).await.unwrap();
        let deep = Upstream::start(script(DEEP)).await.unwrap();
        let mut head =
            "log.level = \"warn\"\nadmin.finance_token = \"finance-secret\"\n".to_owned();
        if let Some(url) = url {
            writeln!(head, "store.postgres = \"{url}\"").unwrap();
        }
        let mut tail = String::new();
        for (place, (tenant, share)) in TENANTS.iter().enumerate() {
            let limit = rows * share / 26_000 + 1;
            write!(tail, "[[budget]]\ntenant = \"{tenant}\"\nlimit_usd = \"{limit}\"\nwindow = \"month\"\nhard = true\n").unwrap();
            if place < 2 {
                for (team, part) in [("search", 2), ("support", 3)] {
                    write!(tail, "[[budget]]\ntenant = \"{tenant}\"\nteam = \"{team}\"\nlimit_usd = \"{}\"\nwindow = \"month\"\nhard = false\n", limit / part + 1).unwrap();
                }
            }
        }
        // Named as those that a pattern makes: with slashes, a colon and a star.
        tail.push_str("[[budget]]\ntenant = \"acme\"\nproject = \"lab\"\nname = \"user:*/month/bob\"\nlimit_usd = \"9\"\nwindow = \"week\"\nhard = false\n");
        let text = tests::world::config(folder.path(), &head, &fast, &deep, &tail);
        let config = Config::parse(&text).unwrap_or_else(|problems| panic!("{problems:?}\n{text}"));
        let running = boot::start(config, None).await.unwrap();
        Self {
            running,
            folder,
            _upstreams: [fast, deep],
        }
    }

    pub fn file(&self) -> PathBuf {
        self.folder.path().join("data/ledger.sqlite3")
    }
}

/// What the browser saw.
#[derive(Debug, Deserialize)]
struct Seen {
    figures: Vec<Figure>,
    violations: Vec<String>,
    foreign: Vec<String>,
    errors: Vec<String>,
    weights: Vec<Weight>,
    unreached: Vec<String>,
    scriptless: Vec<Scriptless>,
    swapped: Swapped,
}

#[derive(Debug, Deserialize)]
struct Figure {
    path: String,
    /// What it sums; none where it is worked out from sums.
    sum: Option<String>,
    value: String,
    text: String,
    money: bool,
}

#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "the path is printed with the rest")]
struct Weight {
    path: String,
    bytes: usize,
}

#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "the path is printed with the rest")]
struct Scriptless {
    path: String,
    count: usize,
    svg: usize,
}

#[derive(Debug, Deserialize)]
struct Swapped {
    same: bool,
    url: String,
    period: String,
    plots: usize,
}

/// Walks `paths`; nothing where the browser is to be skipped.
async fn walk(filled: &Filled, paths: &[&str]) -> Option<Seen> {
    let paths = serde_json::to_string(paths).unwrap();
    let more = [
        ("PARETO_TOKEN", "finance-secret"),
        ("PARETO_PATHS", &*paths),
    ];
    play("walk.mjs", &filled.running, &more).await
}

/// Plays a script of this folder in a browser, and reads what it saw; nothing where the browser is to be
/// skipped.
async fn play<S: DeserializeOwned>(
    script: &str,
    running: &Running,
    more: &[(&str, &str)],
) -> Option<S> {
    if std::env::var("PARETO_SKIP").is_ok_and(|skip| skip.contains("browser")) {
        println!("skipped by PARETO_SKIP");
        return None;
    }
    let kit =
        std::env::var("PARETO_BROWSER_KIT").expect("PARETO_BROWSER_KIT is not set; run tests/run");
    let pages = Path::new(env!("CARGO_MANIFEST_DIR")).join("pages");
    let output = tokio::process::Command::new("node")
        .arg(pages.join(script))
        .env("PARETO_BASE", format!("http://{}", running.admin_address))
        .env("PARETO_BROWSER_KIT", kit)
        .envs(more.iter().copied())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

/// Compares every figure that has a name with the sum over the entries; returns how many there were.
fn compare(figures: &[Figure], book: &mut sums::Book) -> usize {
    let (mut compared, mut wrong) = (0, Vec::new());
    for figure in figures {
        assert!(!figure.text.is_empty(), "{figure:?}");
        assert!(!figure.money || figure.text.contains('$'), "{figure:?}");
        let Some(sum) = &figure.sum else { continue };
        compared += 1;
        let expected = book.sum(sum);
        if figure.value.parse() != Ok(expected) {
            wrong.push(format!(
                "{} {sum}: {} on the page, {expected} in the entries",
                figure.path, figure.value
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {compared}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    compared
}

#[tokio::test(flavor = "multi_thread")]
async fn every_figure_on_every_page_is_the_sum_of_its_entries() {
    let filled = Filled::start(24_000, None).await;
    // A month that was closed, with a credit and notes.
    let closed = Month::of(Month::of(proxy::clock::now_ms()).start_ms() - 1);
    let closed = format!("/chargeback?period=year&bill=acme&month={closed}");
    let mut paths = PATHS.to_vec();
    paths.push(&closed);
    let Some(seen) = walk(&filled, &paths).await else {
        return;
    };
    assert_eq!(seen.foreign, Vec::<String>::new(), "asked of other hosts");
    assert_eq!(seen.errors, Vec::<String>::new(), "errors in the console");
    assert!(seen.violations.is_empty(), "{}", seen.violations.join("\n"));
    assert_eq!(
        seen.unreached,
        Vec::<String>::new(),
        "not reached by keyboard"
    );
    for page in &seen.scriptless {
        assert!(
            page.svg > 0 || page.count > 10,
            "{page:?} is empty without scripts"
        );
    }
    let Swapped {
        same,
        url,
        period,
        plots,
    } = &seen.swapped;
    assert!(
        *same && url.contains("period=28d") && *plots > 0,
        "{:?} {period}",
        seen.swapped
    );
    for weight in &seen.weights {
        // Uncompressed, with all files, of which the browser keeps three quarters.
        assert!(weight.bytes < 400_000, "{weight:?}");
    }
    let money = seen.figures.iter().filter(|figure| figure.money).count();
    let mut book = sums::Book::file(&filled.file());
    let compared = compare(&seen.figures, &mut book);
    println!(
        "{compared} figures compared, {} seen, {money} of money; {:?}",
        seen.figures.len(),
        seen.weights
    );
    assert!(compared > 5_000, "{compared}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_holds_on_postgresql() {
    let (url, _server) = tokio::task::spawn_blocking(tests::postgres::database)
        .await
        .unwrap();
    let filled = Filled::start(4_000, Some(&url)).await;
    let Some(seen) = walk(&filled, SOME_PATHS).await else {
        return;
    };
    assert_eq!(seen.errors, Vec::<String>::new());
    let compared =
        tokio::task::spawn_blocking(move || compare(&seen.figures, &mut sums::Book::server(&url)));
    let compared = compared.await.unwrap();
    println!("{compared} figures compared");
    assert!(compared > 1_000, "{compared}");
}
