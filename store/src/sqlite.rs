//! The ledger in SQLite: one connection writes, group by group; others read beside it.
//! WAL with `synchronous=FULL`: a group that was applied survives power loss.

mod apply;
mod ask;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use meter::ledger::{KeyRow, Spent, UsageQuery, UsageRow};
use meter::{Entry, Held, Ledger, LedgerError, Position, Record};
use rusqlite::{Connection, OpenFlags, TransactionBehavior, params};
use wire::RequestId;

/// Numbered changes of the schema, applied in order inside a transaction each.
const MIGRATIONS: &[&str] = &[include_str!("../migrations/sqlite/0001_ledger.sql")];
const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;
/// How long a statement waits for another process that writes.
pub(crate) const BUSY: Duration = Duration::from_secs(10);
/// Readers kept open; more are opened when needed and closed again.
const READERS: usize = 4;
/// The name of this node in a ledger that is not shared.
const NODE: &str = "local";

/// The ledger of one file.
#[derive(Debug)]
pub struct SqliteLedger {
    path: PathBuf,
    /// The one writer of this process; other processes wait for it by SQLite's own lock.
    writer: Mutex<Connection>,
    readers: Mutex<Vec<Connection>>,
    watcher: Mutex<Connection>,
}

/// The ledger can not be opened.
#[derive(Debug, thiserror::Error)]
#[error("ledger {path}: {error}; check that the folder can be written and the file is no other's")]
pub struct OpenLedgerError {
    path: PathBuf,
    error: rusqlite::Error,
}

impl OpenLedgerError {
    pub(crate) fn new(path: &Path, error: rusqlite::Error) -> Self {
        Self {
            path: path.to_owned(),
            error,
        }
    }
}

impl SqliteLedger {
    /// Opens or makes the ledger at `path` and brings its schema up to date.
    pub fn open(path: &Path) -> Result<Self, OpenLedgerError> {
        let wrap = |error| OpenLedgerError::new(path, error);
        let mut writer = Connection::open(path).map_err(wrap)?;
        writer.busy_timeout(BUSY).map_err(wrap)?;
        writer
            .pragma_update(None, "journal_mode", "WAL")
            .map_err(wrap)?;
        writer
            .pragma_update(None, "synchronous", "FULL")
            .map_err(wrap)?;
        writer.set_prepared_statement_cache_capacity(32);
        migrate(&mut writer, MIGRATIONS).map_err(wrap)?;
        let watcher = reader(path).map_err(wrap)?;
        Ok(Self {
            path: path.to_owned(),
            writer: Mutex::new(writer),
            readers: Mutex::new(Vec::new()),
            watcher: Mutex::new(watcher),
        })
    }

    /// Applies `records` and remembers that the journal is applied up to `cursor`, all or nothing.
    pub fn apply(&self, records: &[Record], cursor: Position) -> Result<(), LedgerError> {
        let mut writer = lock(&self.writer);
        let transaction = writer
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(|error| failed("begin a group", &error))?;
        apply::records(&transaction, records).map_err(|error| failed("append entries", &error))?;
        transaction
            .prepare_cached(
                "INSERT INTO journal_cursor (node, position) VALUES (?1, ?2)
                 ON CONFLICT (node) DO UPDATE SET position = excluded.position",
            )
            .and_then(|mut s| s.execute(params![NODE, signed(cursor.0)]))
            .map_err(|error| failed("move the journal cursor", &error))?;
        transaction
            .commit()
            .map_err(|error| failed("commit a group", &error))
    }

    /// How far the journal has been applied.
    pub fn cursor(&self) -> Result<Position, LedgerError> {
        self.read("read the journal cursor", |connection| {
            let sql = "SELECT COALESCE(MAX(position), 0) FROM journal_cursor WHERE node = ?1";
            connection
                .query_row(sql, [NODE], |row| row.get(0))
                .map(|at: i64| Position(unsigned(at)))
        })
    }

    /// A number that changes when another connection, of any process, has written.
    pub fn version(&self) -> Result<u64, LedgerError> {
        lock(&self.watcher)
            .query_row("PRAGMA data_version", [], |row| row.get::<_, i64>(0))
            .map(unsigned)
            .map_err(|error| failed("ask for changes", &error))
    }

    fn read<T>(
        &self,
        what: &'static str,
        ask: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, LedgerError> {
        let idle = lock(&self.readers).pop();
        let connection = idle.map_or_else(|| reader(&self.path), Ok);
        let connection = connection.map_err(|error| failed(what, &error))?;
        let answer = ask(&connection).map_err(|error| failed(what, &error));
        let mut readers = lock(&self.readers);
        if readers.len() < READERS {
            readers.push(connection);
        }
        answer
    }

    fn write<T>(
        &self,
        what: &'static str,
        act: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, LedgerError> {
        act(&lock(&self.writer)).map_err(|error| failed(what, &error))
    }
}

impl Ledger for SqliteLedger {
    fn spent(&self, from_ms: i64) -> Result<Vec<Spent>, LedgerError> {
        self.read("sum what was spent", |connection| {
            ask::spent(connection, from_ms)
        })
    }

    fn open_holds(&self) -> Result<Vec<Held>, LedgerError> {
        self.read("read open holds", ask::open_holds)
    }

    fn usage(&self, query: &UsageQuery) -> Result<Vec<UsageRow>, LedgerError> {
        self.read("read usage", |connection| ask::usage(connection, query))
    }

    fn call(&self, request: RequestId) -> Result<(Vec<Entry>, Vec<Held>), LedgerError> {
        self.read("read a call", |connection| ask::call(connection, request))
    }

    fn latest(&self, limit: u32) -> Result<Vec<Entry>, LedgerError> {
        self.read("read the latest entries", |connection| {
            ask::latest(connection, limit)
        })
    }

    fn add_key(&self, key: &KeyRow) -> Result<(), LedgerError> {
        self.write("add a key", |connection| {
            connection.execute(
                "INSERT INTO api_key (id, hmac, tenant, team, project, label, created_at_ms, revoked_at_ms)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                params![
                    key.id,
                    key.hmac,
                    key.tenant,
                    key.team,
                    key.project,
                    key.label,
                    key.created_at_ms,
                    key.revoked_at_ms
                ],
            )
        })
        .map(|_| ())
    }

    fn revoke_key(&self, id: &str, at_ms: i64) -> Result<bool, LedgerError> {
        self.write("revoke a key", |connection| {
            connection.execute(
                "UPDATE api_key SET revoked_at_ms = ?2 WHERE id = ?1 AND revoked_at_ms IS NULL",
                params![id, at_ms],
            )
        })
        .map(|changed| changed > 0)
    }

    fn keys(&self) -> Result<Vec<KeyRow>, LedgerError> {
        self.read("read keys", ask::keys)
    }

    fn state(&self) -> Result<Vec<(String, String)>, LedgerError> {
        self.read("read state", |connection| {
            let mut statement = connection.prepare_cached("SELECT name, value FROM state")?;
            statement
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect()
        })
    }

    fn save_state(&self, state: &[(String, String)]) -> Result<(), LedgerError> {
        let mut writer = lock(&self.writer);
        let what = "save state";
        let transaction = writer
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(|error| failed(what, &error))?;
        for (name, value) in state {
            transaction
                .prepare_cached(
                    "INSERT INTO state (name, value) VALUES (?1, ?2)
                     ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                )
                .and_then(|mut statement| statement.execute(params![name, value]))
                .map_err(|error| failed(what, &error))?;
        }
        transaction.commit().map_err(|error| failed(what, &error))
    }
}

fn reader(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.busy_timeout(BUSY)?;
    Ok(connection)
}

pub(crate) fn migrate(connection: &mut Connection, migrations: &[&str]) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let done: i64 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let done = usize::try_from(done).unwrap_or(0);
    for migration in migrations.iter().skip(done) {
        transaction.execute_batch(migration)?;
    }
    transaction.pragma_update(
        None,
        "user_version",
        i64::try_from(migrations.len()).unwrap_or(0),
    )?;
    transaction.commit()
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A transaction that a panic interrupted was rolled back when it was dropped.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn failed(what: &'static str, error: &rusqlite::Error) -> LedgerError {
    LedgerError {
        what,
        cause: error.to_string(),
    }
}

/// SQLite's integers are signed; counts here never come near the sign.
fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn unsigned(count: i64) -> u64 {
    u64::try_from(count).unwrap_or(0)
}

#[cfg(test)]
mod tests;
