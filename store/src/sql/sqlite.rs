//! SQLite: one connection writes, others read beside it. WAL with `synchronous=FULL`: what was
//! committed survives power loss.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::{Act, Engine, Field, Insert, Kind, Row, Sql, SqlError, Value};

/// How long a statement waits for another process that writes.
pub(crate) const BUSY: Duration = Duration::from_secs(10);
/// How large a file's pages are when it is made; one that is there keeps those it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pages {
    /// For transactions of a few rows.
    Small,
    /// For thousands of rows at a time, near a kilobyte each: pages that hold a dozen take a quarter off
    /// what a row costs to write.
    Large,
}

/// What a writer of large pages keeps in memory: those of a large group, which need not go out before its
/// commit.
const CACHE_KIB: i64 = 8_192;
/// Readers kept open; more are opened when needed and closed again.
const READERS: usize = 4;
/// Prepared statements kept by each connection.
const STATEMENTS: usize = 64;
/// Up to so many rows at a time, a writer lets others have the processor after each few: a thread that calls wait
/// for does not wait for all of them, each some microseconds. Where there are more the calls leave no time
/// anyway, and whoever gives way then is not asked back soon.
const UNHURRIED: usize = 500;
const A_FEW: usize = 8;

/// The database of one file.
#[derive(Debug)]
pub struct Sqlite {
    path: PathBuf,
    /// The one writer of this process; other processes wait for it by SQLite's own lock.
    writer: Mutex<Connection>,
    readers: Mutex<Vec<Connection>>,
}

impl Sqlite {
    /// Opens or makes the file at `path`.
    ///
    /// # Errors
    /// When it can not be opened or is no database.
    pub fn open(path: &Path, pages: Pages) -> rusqlite::Result<Self> {
        let writer = Connection::open(path)?;
        writer.busy_timeout(BUSY)?;
        if pages == Pages::Large {
            writer.pragma_update(None, "page_size", 16_384)?;
            writer.pragma_update(None, "cache_size", -CACHE_KIB)?;
        }
        writer.pragma_update(None, "journal_mode", "WAL")?;
        writer.pragma_update(None, "synchronous", "FULL")?;
        writer.set_prepared_statement_cache_capacity(STATEMENTS);
        Ok(Self {
            path: path.to_owned(),
            writer: Mutex::new(writer),
            readers: Mutex::new(Vec::new()),
        })
    }

    /// The version that the schema had before versions were kept in a table.
    pub(crate) fn adopt_version(&self) -> rusqlite::Result<()> {
        let writer = lock(&self.writer);
        let old: i64 = writer.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        if old > 0 {
            writer.execute_batch(&format!(
                "BEGIN IMMEDIATE;
                 CREATE TABLE IF NOT EXISTS schema_version (version BIGINT NOT NULL);
                 DELETE FROM schema_version;
                 INSERT INTO schema_version VALUES ({old});
                 PRAGMA user_version = 0;
                 COMMIT;"
            ))?;
        }
        Ok(())
    }

    fn reader(&self) -> rusqlite::Result<Connection> {
        let connection = Connection::open_with_flags(&self.path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        connection.busy_timeout(BUSY)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        Ok(connection)
    }
}

impl Engine for Sqlite {
    fn read(&self, act: Act<'_>) -> Result<(), SqlError> {
        let idle = lock(&self.readers).pop();
        let connection = idle.map_or_else(|| self.reader(), Ok).map_err(failed)?;
        let answer = act(&mut Open(&connection));
        let mut readers = lock(&self.readers);
        if readers.len() < READERS {
            readers.push(connection);
        }
        answer
    }

    fn write(&self, act: Act<'_>) -> Result<(), SqlError> {
        let mut writer = lock(&self.writer);
        let transaction = writer
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(failed)?;
        act(&mut Open(&transaction))?;
        transaction.commit().map_err(failed)
    }

    fn clock(&self) -> Result<Option<i64>, SqlError> {
        Ok(None)
    }
}

struct Open<'a>(&'a Connection);

impl Open<'_> {
    /// Runs `sql` with each row of so many columns, and tells how many rows each time has changed.
    fn each(
        &self,
        sql: &str,
        columns: usize,
        rows: &[Field<'_>],
        mut tell: impl FnMut(usize),
    ) -> Result<(), SqlError> {
        if rows.is_empty() {
            return Ok(());
        }
        let mut statement = self.0.prepare_cached(sql).map_err(failed)?;
        let columns = columns.max(1);
        let gives_way = rows.len() <= UNHURRIED * columns;
        for (number, row) in rows.chunks(columns).enumerate() {
            if gives_way && number % A_FEW == A_FEW - 1 {
                std::thread::yield_now();
            }
            bind(&mut statement, row.iter().copied()).map_err(failed)?;
            tell(statement.raw_execute().map_err(failed)?);
        }
        Ok(())
    }
}

fn inserting(insert: &Insert<'_>, rest: &str) -> String {
    let columns: Vec<&str> = insert.columns.iter().map(|(name, _)| *name).collect();
    let places: Vec<String> = (1..=columns.len()).map(|n| format!("?{n}")).collect();
    format!(
        "INSERT INTO {} ({}) VALUES ({}) {rest}",
        insert.table,
        columns.join(", "),
        places.join(", "),
    )
}

impl Sql for Open<'_> {
    fn query(&mut self, sql: &str, values: &[Value]) -> Result<Vec<Row>, SqlError> {
        let mut statement = self.0.prepare_cached(&placed(sql)).map_err(failed)?;
        let columns = statement.column_count();
        bind(&mut statement, values.iter().map(Field::from)).map_err(failed)?;
        let mut rows = statement.raw_query();
        let mut found = Vec::new();
        while let Some(row) = rows.next().map_err(failed)? {
            let mut values = Vec::with_capacity(columns);
            for place in 0..columns {
                values.push(value(row.get_ref(place).map_err(failed)?));
            }
            found.push(Row(values));
        }
        Ok(found)
    }

    fn execute(&mut self, sql: &str, values: &[Value]) -> Result<u64, SqlError> {
        let mut statement = self.0.prepare_cached(&placed(sql)).map_err(failed)?;
        bind(&mut statement, values.iter().map(Field::from)).map_err(failed)?;
        let changed = statement.raw_execute().map_err(failed)?;
        Ok(u64::try_from(changed).unwrap_or(0))
    }

    fn insert(&mut self, insert: &Insert<'_>, rows: &[Field<'_>]) -> Result<(), SqlError> {
        let sql = inserting(insert, insert.rest);
        self.each(&sql, insert.columns.len(), rows, |_| ())
    }

    fn insert_new(
        &mut self,
        insert: &Insert<'_>,
        rows: &[Field<'_>],
    ) -> Result<Vec<bool>, SqlError> {
        let sql = inserting(insert, "ON CONFLICT DO NOTHING");
        let mut new = Vec::with_capacity(rows.len() / insert.columns.len().max(1));
        self.each(&sql, insert.columns.len(), rows, |changed| {
            new.push(changed > 0);
        })?;
        Ok(new)
    }

    fn delete(
        &mut self,
        table: &str,
        columns: &[(&str, Kind)],
        rows: &[Field<'_>],
    ) -> Result<(), SqlError> {
        let are: Vec<String> = (1..)
            .zip(columns)
            .map(|(n, (name, _))| format!("{name} = ?{n}"))
            .collect();
        let sql = format!("DELETE FROM {table} WHERE {}", are.join(" AND "));
        self.each(&sql, columns.len(), rows, |_| ())
    }

    fn batch(&mut self, sql: &str) -> Result<(), SqlError> {
        self.0.execute_batch(sql).map_err(failed)
    }

    fn partitions(&mut self, _: &mut dyn Iterator<Item = i64>) -> Result<(), SqlError> {
        Ok(())
    }

    fn lock(&mut self, _: &str) -> Result<(), SqlError> {
        // A transaction that writes has the whole file to itself.
        Ok(())
    }

    fn skipping_picked(&self) -> &'static str {
        ""
    }
}

/// SQLite's numbered places are `?1` where PostgreSQL's are `$1`.
fn placed(sql: &str) -> String {
    sql.replace('$', "?")
}

fn bind<'a>(
    statement: &mut rusqlite::Statement<'_>,
    fields: impl Iterator<Item = Field<'a>>,
) -> rusqlite::Result<()> {
    for (place, field) in (1..).zip(fields) {
        match field {
            Field::Null => statement.raw_bind_parameter(place, rusqlite::types::Null)?,
            Field::Int(int) => statement.raw_bind_parameter(place, int)?,
            Field::Text(text) => statement.raw_bind_parameter(place, text)?,
            Field::Blob(bytes) => statement.raw_bind_parameter(place, bytes)?,
        }
    }
    Ok(())
}

fn value(column: ValueRef<'_>) -> Value {
    match column {
        // Nothing here stores floating point; were it there, it would be no amount.
        ValueRef::Null | ValueRef::Real(_) => Value::Null,
        ValueRef::Integer(int) => Value::Int(int),
        ValueRef::Text(text) => Value::Text(String::from_utf8_lossy(text).into_owned()),
        ValueRef::Blob(bytes) => Value::Blob(bytes.to_vec()),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is handed to map_err")]
fn failed(error: rusqlite::Error) -> SqlError {
    SqlError(error.to_string())
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A transaction that a panic interrupted was rolled back when it was dropped.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
