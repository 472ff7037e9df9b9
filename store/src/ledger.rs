//! The ledger over either engine: what the port asks for, each statement written once.

pub(crate) mod apply;
pub(crate) mod ask;
pub(crate) mod sums;
mod windows;

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, Weak};

use meter::hold::Decision;
use meter::lease::{Leased, Want};
use meter::ledger::{KeyRow, Known, Node, Spent, Tell, UsageQuery, UsageRow};
use meter::{Entry, Held, Ledger, LedgerError, Override, Past, Position, Record, point};
use wire::RequestId;

use apply::Group;

use crate::journal;
use crate::record::{self, DecodeError};
use crate::recorder::Follower;
use crate::sql::postgres::Postgres;
use crate::sql::sqlite::{Pages, Sqlite};
use crate::sql::{self, Engine, SqlError, Value};

/// Numbered changes of the schema, applied in order; one that was released is never changed.
const SQLITE: &[&str] = &[
    include_str!("../migrations/sqlite/0001_ledger.sql"),
    include_str!("../migrations/sqlite/0002_finance.sql"),
    include_str!("../migrations/sqlite/0003_books.sql"),
    include_str!("../migrations/sqlite/0004_pages.sql"),
    include_str!("../migrations/sqlite/0005_routing.sql"),
    include_str!("../migrations/sqlite/0006_tasks.sql"),
    include_str!("../migrations/sqlite/0007_packed.sql"),
];
const POSTGRES: &[&str] = &[
    include_str!("../migrations/postgres/0001_ledger.sql"),
    include_str!("../migrations/postgres/0002_books.sql"),
    include_str!("../migrations/postgres/0003_pages.sql"),
    include_str!("../migrations/postgres/0004_routing.sql"),
    include_str!("../migrations/postgres/0005_tasks.sql"),
    include_str!("../migrations/postgres/0006_packed.sql"),
];
/// The table that says how many of them were applied.
const VERSIONS: &str = "schema_version";
pub(crate) const HOUR_MS: i64 = 3_600_000;
pub(crate) const DAY_MS: i64 = 24 * HOUR_MS;
/// The name of this node in a ledger that is not shared.
pub const ALONE: &str = "local";

/// A ledger, as the node that this process is.
#[derive(Debug)]
pub struct SqlLedger {
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) node: String,
    /// Whoever applies this process's journal to it.
    follower: OnceLock<Weak<Follower>>,
}

/// The ledger can not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenLedgerError {
    #[error(
        "ledger {path}: {error}; check that the folder can be written and the file is no other's"
    )]
    File { path: PathBuf, error: String },
    #[error(
        "conversations kept in {path}: {error}; check that the folder can be written; where the file is damaged, \
         move it away, and conversations begin anew"
    )]
    Archive { path: PathBuf, error: String },
    #[error("shared ledger: {0}; check store.postgres and that its server runs")]
    Server(SqlError),
}

impl OpenLedgerError {
    pub(crate) fn file(path: &Path, error: &impl ToString) -> Self {
        Self::File {
            path: path.to_owned(),
            error: error.to_string(),
        }
    }
}

impl SqlLedger {
    /// Opens or makes the ledger in the file at `path` and brings its schema up to date.
    ///
    /// # Errors
    /// When the file can not be written or is no ledger.
    pub fn open_file(path: &Path) -> Result<Self, OpenLedgerError> {
        let wrap = |error: rusqlite::Error| OpenLedgerError::file(path, &error);
        let engine = Sqlite::open(path, Pages::Large).map_err(wrap)?;
        engine.adopt_version().map_err(wrap)?;
        sql::migrate(&engine, VERSIONS, SQLITE)
            .map_err(|error| OpenLedgerError::file(path, &error))?;
        Ok(Self {
            engine: Arc::new(engine),
            node: ALONE.to_owned(),
            follower: OnceLock::new(),
        })
    }

    /// Opens the shared ledger at `url` as `node`, and brings its schema up to date.
    ///
    /// # Errors
    /// When the server can not be reached or refuses.
    pub fn open_server(url: &str, node: &str) -> Result<Self, OpenLedgerError> {
        let engine = Postgres::new(url).map_err(OpenLedgerError::Server)?;
        sql::migrate(&engine, VERSIONS, POSTGRES).map_err(OpenLedgerError::Server)?;
        engine
            .write(&mut |sql| windows::revive(sql, node))
            .map_err(OpenLedgerError::Server)?;
        Ok(Self {
            engine: Arc::new(engine),
            node: node.to_owned(),
            follower: OnceLock::new(),
        })
    }

    /// Applies `records` and remembers that the journal is applied up to `cursor`, all or nothing.
    ///
    /// # Errors
    /// When the ledger does not take them; nothing has changed then.
    pub fn apply(&self, records: &[Record], cursor: Position) -> Result<(), LedgerError> {
        let payloads = encoded(records);
        self.apply_payloads(&mut payloads.iter().map(Vec::as_slice), cursor)
    }

    /// The same for frames of the journal.
    pub(crate) fn apply_frames(&self, frames: &[u8], cursor: Position) -> Result<(), LedgerError> {
        self.apply_payloads(&mut journal::payloads(frames), cursor)
    }

    fn apply_payloads(
        &self,
        payloads: &mut dyn Iterator<Item = &[u8]>,
        cursor: Position,
    ) -> Result<(), LedgerError> {
        let what = "append entries";
        let group = Group::of(payloads).map_err(|error| SqlError::from(error).during(what))?;
        self.write(what, |sql| {
            apply::group(sql, &group, &self.node)?;
            point::at("ledger.rows");
            sql.execute(
                "INSERT INTO journal_cursor (node, position) VALUES ($1, $2)
                 ON CONFLICT (node) DO UPDATE SET position = excluded.position",
                &[self.node.as_str().into(), sql::count(cursor.0)],
            )
            .map(|_| point::at("ledger.cursor"))
        })
    }

    /// How far this node's journal has been applied.
    ///
    /// # Errors
    /// When the ledger does not answer.
    pub fn cursor(&self) -> Result<Position, LedgerError> {
        self.read("read the journal cursor", |sql| {
            let rows = sql.query(
                "SELECT position FROM journal_cursor WHERE node = $1",
                &[self.node.as_str().into()],
            )?;
            Ok(Position(rows.first().map_or(0, |row| row.count(0))))
        })
    }

    /// Lets questions wait for what `follower` has yet to apply.
    pub(crate) fn follow(&self, follower: &Arc<Follower>) {
        // A ledger has one journal.
        let _first = self.follower.set(Arc::downgrade(follower));
    }

    /// Brings in what was written before now, so that an answer has it; where that takes long, it is given
    /// without.
    pub(crate) fn catch_up(&self) {
        if let Some(follower) = self.follower.get().and_then(Weak::upgrade) {
            follower.catch_up();
        }
    }

    /// Asks something that calls just ended have a part in.
    pub(crate) fn ask<T>(
        &self,
        what: &'static str,
        ask: impl FnMut(&mut dyn sql::Sql) -> Result<T, SqlError>,
    ) -> Result<T, LedgerError> {
        self.catch_up();
        self.read(what, ask)
    }

    pub(crate) fn read<T>(
        &self,
        what: &'static str,
        ask: impl FnMut(&mut dyn sql::Sql) -> Result<T, SqlError>,
    ) -> Result<T, LedgerError> {
        sql::read(&*self.engine, what, ask)
    }

    pub(crate) fn write<T>(
        &self,
        what: &'static str,
        act: impl FnMut(&mut dyn sql::Sql) -> Result<T, SqlError>,
    ) -> Result<T, LedgerError> {
        sql::write(&*self.engine, what, act)
    }
}

/// Each record in the journal's words.
pub(crate) fn encoded(records: &[Record]) -> Vec<Vec<u8>> {
    let encode = |it: &Record| {
        let mut payload = Vec::new();
        record::encode(it, &mut payload);
        payload
    };
    records.iter().map(encode).collect()
}

impl From<DecodeError> for SqlError {
    fn from(error: DecodeError) -> Self {
        Self(error.to_string())
    }
}

/// Tells other processes that keys have changed.
pub(crate) fn bump(sql: &mut dyn sql::Sql, name: &str) -> Result<(), SqlError> {
    sql.execute(
        "INSERT INTO counter (name, value) VALUES ($1, 1)
         ON CONFLICT (name) DO UPDATE SET value = counter.value + 1",
        &[name.into()],
    )
    .map(|_| ())
}

impl Past for SqlLedger {
    fn spent(&self, from_ms: i64) -> Result<Vec<Spent>, LedgerError> {
        self.ask("sum what was spent", |sql| ask::spent(sql, from_ms))
    }

    fn windows(&self, from_ms: i64) -> Result<Vec<Known>, LedgerError> {
        self.ask("read budget windows", |sql| windows::known(sql, from_ms))
    }

    fn begin_windows(&self, begun: &[Known]) -> Result<(), LedgerError> {
        self.write("begin budget windows", |sql| windows::begin(sql, begun))
    }
}

impl Ledger for SqlLedger {
    fn open_holds(&self) -> Result<Vec<Held>, LedgerError> {
        self.ask("read open holds", |sql| ask::open_holds(sql, &self.node))
    }

    fn usage(&self, query: &UsageQuery) -> Result<Vec<UsageRow>, LedgerError> {
        self.ask("read usage", |sql| ask::usage(sql, query))
    }

    fn call(&self, request: RequestId) -> Result<(Vec<Entry>, Vec<Held>), LedgerError> {
        self.ask("read a call", |sql| ask::call(sql, request))
    }

    fn latest(&self, limit: u32) -> Result<Vec<Entry>, LedgerError> {
        self.ask("read the latest entries", |sql| ask::latest(sql, limit))
    }

    fn latest_ms(&self) -> Result<i64, LedgerError> {
        self.ask("read the latest moment", ask::latest_ms)
    }

    fn version(&self) -> Result<u64, LedgerError> {
        self.read("ask for changes", |sql| {
            let rows = sql.query("SELECT value FROM counter WHERE name = 'keys'", &[])?;
            Ok(rows.first().map_or(0, |row| row.count(0)))
        })
    }

    fn add_key(&self, key: &KeyRow) -> Result<(), LedgerError> {
        self.write("add a key", |sql| {
            sql.execute(
                "INSERT INTO api_key (id, hmac, tenant, team, project, label, created_at_ms, revoked_at_ms)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
                &[
                    key.id.as_str().into(),
                    key.hmac.as_slice().into(),
                    key.tenant.as_str().into(),
                    key.team.as_str().into(),
                    key.project.as_str().into(),
                    key.label.as_str().into(),
                    key.created_at_ms.into(),
                    key.revoked_at_ms.into(),
                ],
            )?;
            bump(sql, "keys")
        })
    }

    fn revoke_key(&self, id: &str, at_ms: i64) -> Result<bool, LedgerError> {
        self.write("revoke a key", |sql| {
            let changed = sql.execute(
                "UPDATE api_key SET revoked_at_ms = $2 WHERE id = $1 AND revoked_at_ms IS NULL",
                &[id.into(), at_ms.into()],
            )?;
            bump(sql, "keys")?;
            Ok(changed > 0)
        })
    }

    fn keys(&self) -> Result<Vec<KeyRow>, LedgerError> {
        self.read("read keys", ask::keys)
    }

    fn state(&self) -> Result<Vec<(String, String)>, LedgerError> {
        self.read("read state", |sql| {
            let own = format!("{}/", self.node);
            let rows = sql.query("SELECT name, value FROM state ORDER BY name", &[])?;
            Ok(rows
                .iter()
                .filter_map(|row| {
                    let name = row.text(0).strip_prefix(&own)?;
                    Some((name.to_owned(), row.text(1).to_owned()))
                })
                .collect())
        })
    }

    fn save_state(&self, state: &[(String, String)]) -> Result<(), LedgerError> {
        self.write("save state", |sql| {
            for (name, value) in state {
                sql.execute(
                    "INSERT INTO state (name, value) VALUES ($1, $2)
                     ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                    &[
                        Value::from(format!("{}/{name}", self.node)),
                        value.as_str().into(),
                    ],
                )?;
            }
            Ok(())
        })
    }

    fn lease(&self, wants: &[Want], now_ms: i64) -> Result<Leased, LedgerError> {
        let what = "lease slices of budgets";
        let clock = self.engine.clock().map_err(|error| error.during(what))?;
        let now = clock.unwrap_or(now_ms);
        let grants = self.write(what, |sql| windows::lease(sql, &self.node, wants, now))?;
        Ok(Leased {
            now_ms: clock,
            grants,
        })
    }

    fn forget_minutes(&self, before_ms: i64) -> Result<u64, LedgerError> {
        self.write("forget minutes of rate limits", |sql| {
            sql.execute(
                "DELETE FROM budget_window WHERE start_ms > 0 AND start_ms < $1
                     AND (budget LIKE '%/requests/minute%' OR budget LIKE '%/tokens/minute%')",
                &[before_ms.into()],
            )
        })
    }

    fn node(&self) -> &str {
        &self.node
    }

    fn overrides(&self) -> Result<Vec<Override>, LedgerError> {
        self.read("read changes of limits", windows::overrides)
    }

    fn add_override(&self, change: &Override) -> Result<(), LedgerError> {
        self.write("write a change of a limit", |sql| {
            windows::add_override(sql, change)?;
            bump(sql, "keys")
        })
    }

    fn decided(&self, decisions: &[Decision]) -> Result<(), LedgerError> {
        self.write("write what budgets decided", |sql| {
            windows::decided(sql, decisions)
        })
    }

    fn nodes(&self) -> Result<Vec<Node>, LedgerError> {
        self.read("read the nodes", windows::nodes)
    }

    fn retire(&self, node: &str, now_ms: i64) -> Result<bool, LedgerError> {
        let what = "retire a node";
        let clock = self.engine.clock().map_err(|error| error.during(what))?;
        let now = clock.unwrap_or(now_ms);
        self.write(what, |sql| windows::retire(sql, node, now))
    }

    fn end_task(&self, tenant: &str, task: &str, outcome: &str) -> Result<bool, LedgerError> {
        self.write("write how a task ended", |sql| {
            let changed = sql.execute(
                "UPDATE task SET outcome = $3 WHERE tenant = $1 AND task = $2",
                &[tenant.into(), task.into(), outcome.into()],
            )?;
            Ok(changed > 0)
        })
    }

    fn tell(&self, events: &[Tell]) -> Result<usize, LedgerError> {
        self.write("write to the outbox", |sql| windows::tell(sql, events))
    }
}
