//! PostgreSQL: a small pool of connections, batches as `unnest` of arrays, partitions by month.

use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use jiff::Timestamp;
use jiff::ToSpan;
use jiff::tz::TimeZone;
use postgres::types::{IsNull, ToSql, Type};
use postgres::{Client, Config, NoTls, Statement};

use super::{Act, Engine, Field, Insert, Kind, Row, Sql, SqlError, Value};

/// How long a server may take to be reached, and a statement to end.
const CONNECT: Duration = Duration::from_secs(3);
const STATEMENT_MS: u32 = 30_000;
/// How long the server waits for us in the middle of a transaction. Ours never wait for anything but the
/// server, so whoever takes longer is frozen or cut off, and holds locks that other nodes need.
const IDLE_IN_TRANSACTION_MS: u32 = 5_000;
/// Connections kept open; more are opened when needed and closed again.
const IDLE: usize = 8;

/// A database on a server.
pub struct Postgres {
    config: Config,
    tls: Option<rustls::ClientConfig>,
    idle: Mutex<Vec<Connection>>,
    /// How long a statement waits for a lock, in milliseconds; 0 for as long as it may take.
    lock_ms: u32,
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres")
            .field("hosts", &self.config.get_hosts())
            .finish_non_exhaustive()
    }
}

struct Connection {
    client: Client,
    statements: HashMap<String, Statement>,
    /// Months whose partitions are known to be there.
    months: HashSet<i64>,
}

impl Postgres {
    /// A pool for the database at `url`, a URL or key-value string as libpq takes it.
    ///
    /// # Errors
    /// When the text is no such address.
    pub fn new(url: &str) -> Result<Self, SqlError> {
        let mut config: Config = url.parse().map_err(|error: postgres::Error| {
            SqlError(format!(
                "the address of PostgreSQL can not be read: {error}"
            ))
        })?;
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT);
        }
        if config.get_application_name().is_none() {
            config.application_name("pareto");
        }
        config.keepalives_idle(Duration::from_secs(15));
        let wants_tls = config.get_ssl_mode() != postgres::config::SslMode::Disable;
        Ok(Self {
            config,
            tls: wants_tls.then(tls).flatten(),
            idle: Mutex::new(Vec::new()),
            lock_ms: 0,
        })
    }

    /// The same, whose statements give up a lock that they have not got for a while. That is shorter than
    /// the server waits for us: of many that a frozen node had waiting for one lock, none gets it after the
    /// other only to keep it.
    #[must_use]
    pub fn gives_up_locks(mut self) -> Self {
        self.lock_ms = IDLE_IN_TRANSACTION_MS - 1_000;
        self
    }

    fn connect(&self) -> Result<Connection, SqlError> {
        let connected = match &self.tls {
            Some(tls) => self
                .config
                .connect(tokio_postgres_rustls::MakeRustlsConnect::new(tls.clone())),
            None => self.config.connect(NoTls),
        };
        let mut client = connected.map_err(|error| failed(&error))?;
        client
            .batch_execute(&format!(
                "SET statement_timeout = {STATEMENT_MS}; SET client_min_messages = warning;
                 SET idle_in_transaction_session_timeout = {IDLE_IN_TRANSACTION_MS};
                 SET lock_timeout = {}",
                self.lock_ms
            ))
            .map_err(|error| failed(&error))?;
        Ok(Connection {
            client,
            statements: HashMap::new(),
            months: HashSet::new(),
        })
    }

    /// Runs `act` on a connection; a kept one that the server has closed is replaced, once, before
    /// anything was done with it.
    fn with<T>(
        &self,
        act: impl FnOnce(&mut Connection) -> Result<T, SqlError>,
    ) -> Result<T, SqlError> {
        let mut kept = None;
        while let Some(mut idle) = self.lock().pop() {
            if !idle.client.is_closed() && idle.client.is_valid(CONNECT).is_ok() {
                kept = Some(idle);
                break;
            }
        }
        let mut connection = kept.map_or_else(|| self.connect(), Ok)?;
        let answer = act(&mut connection);
        let mut idle = self.lock();
        if idle.len() < IDLE && !connection.client.is_closed() {
            idle.push(connection);
        }
        answer
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let idle = std::mem::take(&mut *self.lock());
        // Each client has a small runtime of its own, which must not be dropped inside another.
        if let Ok(thread) = std::thread::Builder::new().spawn(move || drop(idle)) {
            let _ended = thread.join();
        }
    }
}

/// TLS with the roots that browsers trust.
fn tls() -> Option<rustls::ClientConfig> {
    let roots = rustls::RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .ok()?;
    Some(builder.with_root_certificates(roots).with_no_client_auth())
}

impl Engine for Postgres {
    fn read(&self, act: Act<'_>) -> Result<(), SqlError> {
        self.with(|connection| {
            let Connection {
                client,
                statements,
                months,
            } = connection;
            act(&mut Open {
                on: client,
                statements,
                months,
            })
        })
    }

    fn write(&self, act: Act<'_>) -> Result<(), SqlError> {
        self.with(|connection| {
            let Connection {
                client,
                statements,
                months,
            } = connection;
            let known = months.clone();
            let mut transaction = client.transaction().map_err(|error| failed(&error))?;
            let done = act(&mut Open {
                on: &mut transaction,
                statements,
                months,
            });
            let committed =
                done.and_then(|()| transaction.commit().map_err(|error| failed(&error)));
            if committed.is_err() {
                // A partition that was made in it is not there.
                *months = known;
            }
            committed
        })
    }

    fn clock(&self) -> Result<Option<i64>, SqlError> {
        self.with(|connection| {
            let sql = "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)";
            let row = connection.client.query_one(sql, &[]);
            row.map(|row| Some(row.get(0)))
                .map_err(|error| failed(&error))
        })
    }
}

/// A client or a transaction of it.
struct Open<'a, C> {
    on: &'a mut C,
    statements: &'a mut HashMap<String, Statement>,
    months: &'a mut HashSet<i64>,
}

impl<C: postgres::GenericClient> Open<'_, C> {
    fn prepared(&mut self, sql: &str) -> Result<Statement, SqlError> {
        if let Some(known) = self.statements.get(sql) {
            return Ok(known.clone());
        }
        let statement = self.on.prepare(sql).map_err(|error| failed(&error))?;
        self.statements.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }

    fn asked(&mut self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, SqlError> {
        let statement = self.prepared(sql)?;
        let rows = self
            .on
            .query(&statement, values)
            .map_err(|error| failed(&error))?;
        rows.iter().map(row).collect()
    }
}

impl<C: postgres::GenericClient> Open<'_, C> {
    /// Runs `sql` once, with an array for each column of `rows`.
    fn unnested(
        &mut self,
        sql: &str,
        columns: usize,
        rows: &[Field<'_>],
    ) -> Result<Vec<Row>, SqlError> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let arrays: Vec<Vec<Field<'_>>> = (0..columns)
            .map(|place| rows.iter().copied().skip(place).step_by(columns).collect())
            .collect();
        let values: Vec<&(dyn ToSql + Sync)> = arrays
            .iter()
            .map(|column| column as &(dyn ToSql + Sync))
            .collect();
        self.asked(sql, &values)
    }
}

fn inserting(insert: &Insert<'_>) -> String {
    let names: Vec<&str> = insert.columns.iter().map(|(name, _)| *name).collect();
    format!(
        "INSERT INTO {} ({}) SELECT * FROM unnest({})",
        insert.table,
        names.join(", "),
        arrays(insert.columns)
    )
}

fn arrays(columns: &[(&str, Kind)]) -> String {
    let arrays: Vec<String> = (1..)
        .zip(columns)
        .map(|(n, (_, kind))| format!("${n}::{}[]", kind_name(*kind)))
        .collect();
    arrays.join(", ")
}

impl<C: postgres::GenericClient> Sql for Open<'_, C> {
    fn query(&mut self, sql: &str, values: &[Value]) -> Result<Vec<Row>, SqlError> {
        self.asked(sql, &places(values))
    }

    fn execute(&mut self, sql: &str, values: &[Value]) -> Result<u64, SqlError> {
        let statement = self.prepared(sql)?;
        self.on
            .execute(&statement, &places(values))
            .map_err(|error| failed(&error))
    }

    fn insert(&mut self, insert: &Insert<'_>, rows: &[Field<'_>]) -> Result<(), SqlError> {
        let sql = format!("{} {}", inserting(insert), insert.rest);
        self.unnested(&sql, insert.columns.len(), rows).map(|_| ())
    }

    fn insert_new(
        &mut self,
        insert: &Insert<'_>,
        rows: &[Field<'_>],
    ) -> Result<Vec<bool>, SqlError> {
        let key: Vec<&str> = insert
            .columns
            .iter()
            .map(|(name, _)| *name)
            .take(2)
            .collect();
        let sql = format!(
            "{} ON CONFLICT DO NOTHING RETURNING {}",
            inserting(insert),
            key.join(", ")
        );
        let written = self.unnested(&sql, insert.columns.len(), rows)?;
        let new: HashSet<(&[u8], i64)> = written
            .iter()
            .map(|row| (row.bytes(0), row.int(1)))
            .collect();
        let is_new = |row: &[Field<'_>]| match row {
            [Field::Blob(bytes), Field::Int(int), ..] => new.contains(&(*bytes, *int)),
            _ => false,
        };
        Ok(rows
            .chunks(insert.columns.len().max(1))
            .map(is_new)
            .collect())
    }

    fn delete(
        &mut self,
        table: &str,
        columns: &[(&str, Kind)],
        rows: &[Field<'_>],
    ) -> Result<(), SqlError> {
        let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
        let are: Vec<String> = names
            .iter()
            .map(|name| format!("{table}.{name} = these.{name}"))
            .collect();
        let sql = format!(
            "DELETE FROM {table} USING unnest({}) AS these ({}) WHERE {}",
            arrays(columns),
            names.join(", "),
            are.join(" AND ")
        );
        self.unnested(&sql, columns.len(), rows).map(|_| ())
    }

    fn batch(&mut self, sql: &str) -> Result<(), SqlError> {
        self.on.batch_execute(sql).map_err(|error| failed(&error))
    }

    fn partitions(&mut self, at_ms: &mut dyn Iterator<Item = i64>) -> Result<(), SqlError> {
        for at in at_ms {
            let Some((start, end, name)) = month(at) else {
                continue;
            };
            if self.months.insert(start) {
                self.on
                    .batch_execute(&format!(
                        "CREATE TABLE IF NOT EXISTS usage_event_{name} PARTITION OF usage_event
                         FOR VALUES FROM ({start}) TO ({end})"
                    ))
                    .map_err(|error| failed(&error))?;
            }
        }
        Ok(())
    }

    fn lock(&mut self, name: &str) -> Result<(), SqlError> {
        let sql = "SELECT pg_advisory_xact_lock(hashtextextended($1, 7307))";
        let statement = self.prepared(sql)?;
        self.on
            .execute(&statement, &[&name])
            .map(|_| ())
            .map_err(|error| failed(&error))
    }

    fn skipping_picked(&self) -> &'static str {
        "FOR UPDATE SKIP LOCKED"
    }
}

/// Start and end of the month around `at_ms`, in UTC, and its name: `2026_11`.
fn month(at_ms: i64) -> Option<(i64, i64, String)> {
    let at = Timestamp::from_millisecond(at_ms).ok()?;
    let first = at
        .to_zoned(TimeZone::UTC)
        .first_of_month()
        .ok()?
        .start_of_day()
        .ok()?;
    let next = first.checked_add(1.month()).ok()?;
    let name = format!("{:04}_{:02}", first.year(), first.month());
    Some((
        first.timestamp().as_millisecond(),
        next.timestamp().as_millisecond(),
        name,
    ))
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Int => "bigint",
        Kind::Text => "text",
        Kind::Blob => "bytea",
    }
}

fn places(values: &[Value]) -> Vec<&(dyn ToSql + Sync)> {
    values
        .iter()
        .map(|value| value as &(dyn ToSql + Sync))
        .collect()
}

impl ToSql for Field<'_> {
    fn to_sql(
        &self,
        kind: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match self {
            Self::Null => Ok(IsNull::Yes),
            Self::Int(int) if *kind == Type::INT4 => i32::try_from(*int)?.to_sql(kind, out),
            Self::Int(int) => int.to_sql(kind, out),
            Self::Text(text) => text.to_sql(kind, out),
            Self::Blob(bytes) => bytes.to_sql(kind, out),
        }
    }

    fn accepts(kind: &Type) -> bool {
        [
            Type::INT8,
            Type::INT4,
            Type::TEXT,
            Type::VARCHAR,
            Type::BYTEA,
        ]
        .contains(kind)
    }

    postgres::types::to_sql_checked!();
}

impl ToSql for Value {
    fn to_sql(
        &self,
        kind: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        Field::from(self).to_sql(kind, out)
    }

    fn accepts(kind: &Type) -> bool {
        <Field<'_> as ToSql>::accepts(kind)
    }

    postgres::types::to_sql_checked!();
}

fn row(row: &postgres::Row) -> Result<Row, SqlError> {
    let mut values = Vec::with_capacity(row.len());
    for (place, column) in row.columns().iter().enumerate() {
        let value = match *column.type_() {
            Type::INT8 => row.try_get(place).map(int),
            Type::INT4 => row
                .try_get(place)
                .map(|found: Option<i32>| int(found.map(i64::from))),
            Type::BYTEA => row
                .try_get(place)
                .map(|found: Option<Vec<u8>>| found.map_or(Value::Null, Value::Blob)),
            _ => row
                .try_get(place)
                .map(|found: Option<String>| found.map_or(Value::Null, Value::Text)),
        };
        values.push(value.map_err(|error| failed(&error))?);
    }
    Ok(Row(values))
}

fn int(found: Option<i64>) -> Value {
    Value::from(found)
}

/// The server's own words, which the library's error hides behind its kind.
fn failed(error: &postgres::Error) -> SqlError {
    let Some(told) = error.as_db_error() else {
        let cause = error.source().map(ToString::to_string).unwrap_or_default();
        return SqlError(format!("PostgreSQL: {error}: {cause}"));
    };
    SqlError(format!(
        "PostgreSQL: {} ({})",
        told.message(),
        told.code().code()
    ))
}
