//! Proves that whatever was journaled is in the ledger exactly once, whenever the process ended.

use std::sync::Arc;

use meter::ledger::{Dimension, UsageQuery};
use meter::{Entry, Held, Journal, Ledger, NanoUsd, Outcome, Record, Subject};
use wire::{RequestId, Tier, Usage, UsageSource};

use super::*;

pub(crate) const NOW: i64 = 1_795_000_000_000;

pub(crate) fn held(n: u8, bound: i64) -> Held {
    Held {
        request: RequestId::new(1, [n; 10]),
        attempt: 0,
        subject: Subject::of_key(
            if n.is_multiple_of(2) { "even" } else { "odd" },
            "t",
            "",
            "k",
        ),
        dialect: Arc::from("openai_chat"),
        requested: Arc::from("auto"),
        model: Arc::from("m"),
        endpoint: Arc::from("e"),
        tier: Tier::Fast,
        reason: Arc::from("auto"),
        score_milli: Some(412),
        stream: true,
        held_at_ms: NOW + i64::from(n) * 3_600_000,
        bound: NanoUsd(bound),
        bound_usage: Usage {
            input: 100,
            output: 50,
            ..Usage::default()
        },
        price: Arc::from("p@1"),
        losses: Arc::from(""),
        session: 0,
        lane: Arc::from("standard"),
        book: Arc::from(""),
        escalated: std::sync::Arc::default(),
        charges: Vec::new(),
        routing: None,
    }
}

pub(crate) fn settle(held: Held, cost: i64) -> Record {
    Record::Settle(Box::new(Entry {
        settled_at_ms: held.held_at_ms + 500,
        held,
        outcome: if cost == 0 {
            Outcome::Failed
        } else {
            Outcome::Completed
        },
        status: 200,
        usage: Usage {
            input: 10,
            output: 5,
            cache_read: 3,
            ..Usage::default()
        },
        source: UsageSource::Provider,
        cost: NanoUsd(cost),
        baseline: NanoUsd(cost * 5),
        list: NanoUsd(cost),
        sell: NanoUsd(cost),
        cache_saved: NanoUsd::ZERO,
        suspense: NanoUsd::ZERO,
        context_tier: 0,
        first_byte_ms: Some(7),
    }))
}

fn config(dir: &Path) -> Config {
    Config {
        dir: dir.to_owned(),
        journal_segment_bytes: 8_192,
        ..Config::default()
    }
}

fn total(ledger: &SqlLedger) -> (u64, i64) {
    let rows = ledger.usage(&UsageQuery::default()).expect("answers");
    rows.first().map_or((0, 0), |row| (row.calls, row.cost.0))
}

#[test]
fn what_was_journaled_is_applied_exactly_once_whenever_the_process_ended() {
    let dir = tempfile::tempdir().expect("a folder");
    for round in 0..5_u8 {
        let store = open(&config(dir.path())).expect("opens");
        for n in 0..20 {
            let held = held(round * 20 + n, 10);
            store
                .journal
                .append(&Record::Hold(Box::new(held.clone())))
                .expect("appends");
            if n != 7 {
                store.journal.append(&settle(held, 3)).expect("appends");
            }
        }
        if round % 2 == 0 {
            // Like a kill: nothing is flushed, what the batcher did is anyone's guess.
            store.follower.stop();
            let thread = store
                .thread
                .lock()
                .expect("no panic")
                .take()
                .expect("it runs");
            // The folder's lock is free again only when the thread has let go of the journal.
            thread.join().expect("it ends");
        } else {
            store.close();
        }
    }
    let store = open(&config(dir.path())).expect("opens");
    assert_eq!(total(&store.ledger), (95, 95 * 3));
    assert_eq!(store.ledger.open_holds().expect("answers").len(), 5);
    assert_eq!(store.lag().applied, store.lag().written);
    store.close();
}

#[test]
fn replaying_the_whole_journal_changes_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let one_file = Config {
        journal_segment_bytes: 1 << 30,
        ..config(dir.path())
    };
    let store = open(&one_file).expect("opens");
    for n in 0..30 {
        store
            .journal
            .append(&Record::Hold(Box::new(held(n, 10))))
            .expect("appends");
        store
            .journal
            .append(&settle(held(n, 10), 3))
            .expect("appends");
    }
    store.close();
    let before = total(&store.ledger);
    let all = store
        .journal
        .reader(Position(0))
        .read(store.journal.written(), 99)
        .expect("reads");
    for _ in 0..3 {
        store
            .ledger
            .apply(&all, store.journal.written())
            .expect("applies");
    }
    assert_eq!(total(&store.ledger), before);
    assert!(store.ledger.open_holds().expect("answers").is_empty());
}

#[test]
fn rollups_equal_the_sums_over_the_entries() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(&config(dir.path())).expect("opens");
    for n in 0..60 {
        store
            .journal
            .append(&settle(held(n, 10), i64::from(n % 4)))
            .expect("appends");
    }
    store.close();
    let by = |by: &[Dimension]| {
        let query = UsageQuery {
            by: by.to_vec(),
            ..UsageQuery::default()
        };
        store.ledger.usage(&query).expect("answers")
    };
    let connection = rusqlite::Connection::open(ledger_path(dir.path())).expect("opens");
    for (dimension, column) in [
        (Dimension::Tenant, "tenant"),
        (
            Dimension::Day,
            "strftime('%Y-%m-%d', held_at_ms / 1000, 'unixepoch')",
        ),
        (
            Dimension::Hour,
            "strftime('%Y-%m-%dT%H', held_at_ms / 1000, 'unixepoch')",
        ),
    ] {
        let sql = format!(
            "SELECT {column}, COUNT(*), SUM(cost_nano), SUM(baseline_nano), SUM(input) FROM usage_event GROUP BY 1 ORDER BY 1"
        );
        let mut statement = connection.prepare(&sql).expect("sql");
        let raw: Vec<(String, i64, i64, i64, i64)> = statement
            .query_map([], |r| {
                Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?, r.get(4)?))
            })
            .expect("rows")
            .map(|row| row.expect("a row"))
            .collect();
        let rolled: Vec<_> = by(&[dimension])
            .into_iter()
            .map(|row| {
                let [calls, input] =
                    [row.calls, row.usage.input].map(|n| i64::try_from(n).expect("small"));
                (
                    row.group[0].clone(),
                    calls,
                    row.cost.0,
                    row.baseline.0,
                    input,
                )
            })
            .collect();
        assert_eq!(rolled, raw, "{dimension:?}");
        assert!(raw.len() > 1);
    }
    let changed = connection.execute("UPDATE usage_event SET cost_nano = 0", []);
    assert!(changed.is_err(), "entries are never changed");
}

/// A store as the program before wrote it: entries and holds as JSON in both files.
fn earlier_store(dir: &Path) {
    let ledger = rusqlite::Connection::open(ledger_path(dir)).expect("opens");
    ledger
        .execute_batch(include_str!("fixture/ledger.sql"))
        .expect("loads");
    let journal = dir.join("journal");
    std::fs::create_dir(&journal).expect("makes a folder");
    let segment = "journal-00000000000000008576.log";
    let bytes = include_bytes!("fixture/journal-00000000000000008576.log");
    std::fs::write(journal.join(segment), bytes).expect("writes");
}

#[test]
fn a_store_of_the_program_before_keeps_every_row_and_record() {
    let dir = tempfile::tempdir().expect("a folder");
    earlier_store(dir.path());
    for round in 0..2 {
        let store = open(&config(dir.path())).expect("opens");
        assert_eq!(store.report.replayed, if round == 0 { 4 } else { 0 });
        // Six calls were in the ledger, two of the journal's settlements were not.
        assert_eq!(total(&store.ledger), (8, (1 + 2 + 4 + 5 + 7 + 3 + 9) * 5));
        let entries = store.ledger.latest(99).expect("answers");
        assert_eq!(entries.len(), 8);
        for entry in &entries {
            let n = entry.held.request.bytes()[15];
            assert_eq!(entry.cost, NanoUsd(i64::from(n) * 5));
            assert_eq!(&*entry.held.losses, "top_k");
            let routing = entry.held.routing.as_ref().expect("was kept");
            assert_eq!(
                (routing.layers.as_slice(), routing.lost),
                (&[3, -4, 70_000][..], NanoUsd(-7))
            );
        }
        let mut open: Vec<_> = store
            .ledger
            .open_holds()
            .expect("answers")
            .iter()
            .map(|held| held.request.bytes()[15])
            .collect();
        open.sort_unstable();
        assert_eq!(open, [6, 8]);
        store.close();
    }
}

#[test]
fn a_batcher_that_fell_behind_goes_on_from_the_files() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(&config(dir.path())).expect("opens");
    // The ledger is taken by somebody else, and more is written than memory holds.
    let other = rusqlite::Connection::open(ledger_path(dir.path())).expect("opens");
    other.execute_batch("BEGIN IMMEDIATE").expect("takes it");
    let mut calls = 0;
    while store.lag().written < 12 << 20 {
        let mut held = held(1, 10);
        calls += 1;
        held.attempt = calls;
        held.losses = Arc::from("x".repeat(1_000));
        let hold = Record::Hold(Box::new(held.clone()));
        store.journal.append(&hold).expect("appends");
        store.journal.append(&settle(held, 2)).expect("appends");
    }
    other.execute_batch("ROLLBACK").expect("lets it go");
    assert!(store.flush(Duration::from_mins(1)));
    assert_eq!(
        total(&store.ledger),
        (u64::from(calls), i64::from(calls) * 2)
    );
    store.close();
}

#[test]
fn a_question_has_what_was_written_before_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(&config(dir.path())).expect("opens");
    for n in 0..20 {
        store
            .journal
            .append(&settle(held(n, 10), 1))
            .expect("appends");
        assert_eq!(total(&store.ledger).0, u64::from(n) + 1);
    }
    store.close();
}
