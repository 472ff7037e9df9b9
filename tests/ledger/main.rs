//! The conformance suites of the ledger's port and of the task log's: each rule is proved on SQLite and
//! on a real PostgreSQL server, by the same code.

mod books;
mod nodes;
mod port;
mod routing;
mod tasks;

use std::sync::Arc;

use meter::{Entry, Held, NanoUsd, Outcome, Record, Subject};
use store::SqlLedger;
use tempfile::TempDir;
use tests::Postgres;
use wire::{RequestId, Tier, Usage, UsageSource};

/// Some day in November 2026.
pub const NOW: i64 = 1_795_000_000_000;

/// A ledger under test, and how to open it once more, as another node.
pub struct Subjected {
    pub ledger: SqlLedger,
    url: Option<String>,
    folder: TempDir,
    _server: Option<Postgres>,
}

impl Subjected {
    pub fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ledger = SqlLedger::open_file(&folder.path().join("l.sqlite3")).unwrap();
        Self {
            ledger,
            url: None,
            folder,
            _server: None,
        }
    }

    pub fn postgres() -> Self {
        let (url, server) = tests::postgres::database();
        Self {
            ledger: SqlLedger::open_server(&url, "one").unwrap(),
            url: Some(url),
            folder: tempfile::tempdir().unwrap(),
            _server: server,
        }
    }

    /// Lets the lease of a node end now, as time would.
    pub fn end_lease(&self, node: &str) {
        let (url, node) = (self.url.clone().unwrap(), node.to_owned());
        let end = std::thread::spawn(move || {
            let mut client = postgres::Client::connect(&url, postgres::NoTls).unwrap();
            let sql = "UPDATE node SET lease_until_ms = 0 WHERE node = $1";
            client.execute(sql, &[&node]).unwrap();
        });
        end.join().unwrap();
    }

    /// The same ledger as another process sees it.
    pub fn other(&self) -> SqlLedger {
        match &self.url {
            Some(url) => SqlLedger::open_server(url, "two").unwrap(),
            None => SqlLedger::open_file(&self.folder.path().join("l.sqlite3")).unwrap(),
        }
    }
}

/// Runs each rule on both engines.
macro_rules! on_both {
    ($($rule:ident),* $(,)?) => {
        mod sqlite {
            $(#[test] fn $rule() { super::$rule(&crate::Subjected::sqlite()); })*
        }
        mod postgres {
            $(#[test] fn $rule() { super::$rule(&crate::Subjected::postgres()); })*
        }
    };
}
pub(crate) use on_both;

pub fn held(n: u8, bound: i64) -> Held {
    let at = NOW + i64::from(n) * 3_600_000;
    Held {
        request: RequestId::new(u64::try_from(at).unwrap(), [n; 10]),
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
        held_at_ms: at,
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
        book: Arc::from("0123456789ab"),
        escalated: std::sync::Arc::default(),
        charges: Vec::new(),
        routing: None,
    }
}

pub fn settle(held: Held, cost: i64) -> Record {
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
