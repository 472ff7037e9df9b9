//! How long the pages of a ledger with a million entries take, from request to HTML:
//! `cargo bench -p tests --bench pages`. `PARETO_ROWS` asks for another number; the ledger is made once,
//! and kept where `PARETO_LEDGER` says, if it does.

#[expect(dead_code, reason = "the tests of the pages use the rest")]
#[path = "large.rs"]
mod large;

use std::hint::black_box;
use std::path::PathBuf;
use std::time::Instant;

use criterion::Criterion;
use dashboards::{Asked, Desk, Sources};
use large::Large;
use store::SqlLedger;
use tests::fill::{Fill, fill};

/// 21 November 2026, 14:00 in UTC.
const NOW_MS: i64 = 1_795_269_600_000;

fn main() {
    let rows = std::env::var("PARETO_ROWS").map_or(1_000_000, |rows| rows.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let path = std::env::var("PARETO_LEDGER")
        .map_or_else(|_| folder.path().join("ledger.sqlite3"), PathBuf::from);
    let made = path.exists();
    let ledger = SqlLedger::open_file(&path).unwrap();
    if !made {
        let began = Instant::now();
        fill(
            &ledger,
            Fill {
                rows,
                days: 100,
                until_ms: NOW_MS - 60_000,
            },
        );
        println!("{rows} entries in {:.1} s", began.elapsed().as_secs_f64());
    }
    let desk = Desk::default();
    let mut criterion = Criterion::default().configure_from_args().sample_size(20);
    for (name, path, query) in [
        ("overview", "/", ""),
        ("overview_28d_by_model", "/", "period=28d&by=model"),
        ("overview_in_berlin", "/", "zone=Europe/Berlin"),
        ("explore", "/explore", ""),
        ("explore_pivot", "/explore", "by=model&then=tenant"),
        ("units", "/units", ""),
        ("savings", "/savings", ""),
        ("routing", "/routing", ""),
        ("chargeback", "/chargeback", ""),
        ("quality", "/quality", ""),
        ("prices", "/prices", ""),
        ("live", "/live", ""),
    ] {
        criterion.bench_function(name, |bencher| {
            bencher.iter(|| {
                let asked = Asked {
                    path,
                    query,
                    now_ms: NOW_MS,
                    is_operator: false,
                };
                let sources = Sources {
                    finance: &ledger,
                    budgets: &[],
                    prices: &meter::price::Listing::default(),
                    worth: &Sums(&ledger),
                    in_flight: 0,
                };
                black_box(desk.answer(asked, sources).unwrap().unwrap().body.len())
            });
        });
    }
    let task = Large::new();
    for (name, query) in [
        ("task_of_500_acts", ""),
        ("task_of_500_acts_renewed", "part=now"),
    ] {
        criterion.bench_function(name, |bencher| {
            bencher.iter(|| black_box(task.page(query).len()));
        });
    }
    criterion.final_summary();
}

/// The sums of routing, without the estimates that the gateway adds.
#[derive(Debug)]
struct Sums<'a>(&'a store::SqlLedger);

impl meter::routing::Appraiser for Sums<'_> {
    fn worth(&self, filter: &meter::finance::Filter) -> Result<meter::Worth, meter::LedgerError> {
        Ok(meter::Worth {
            routes: meter::Finance::routes(self.0, filter)?,
            ..meter::Worth::default()
        })
    }
}
