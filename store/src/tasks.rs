//! The log of tasks over either engine: what the port asks for, each statement written once. In a file
//! of its own, so that appends do not wait for the ledger's writer, or in the ledger's shared database.

mod ask;
mod lease;
mod record;
mod write;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use orchestrator::digest::Digest;
use orchestrator::id::TaskId;
use orchestrator::log::{
    Append, AppendError, Change, Claim, Created, Filter, Kind, Link, NewTask, Note, Record,
    Recorded, Renewed, TaskLog, TaskLogError, TaskRow,
};

use crate::config::Config;
use crate::recorder::OpenError;
use crate::sql::postgres::Postgres;
use crate::sql::sqlite::{Pages, Sqlite};
use crate::sql::{self, Engine, Row, Sql, SqlError, Value};

/// Numbered changes of the schema, applied in order; one that was released is never changed.
const SQLITE: &[&str] = &[include_str!("../migrations/sqlite/tasks_0001.sql")];
const POSTGRES: &[&str] = &[include_str!("../migrations/postgres/tasks_0001.sql")];
/// The table that says how many of them were applied; the ledger has another in the same database.
const VERSIONS: &str = "task_schema_version";

/// What tells the time where the engine does not: milliseconds since 1970.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// A log of tasks. Cheap to share behind an `Arc`; every method blocks.
pub struct SqlTaskLog {
    engine: Box<dyn Engine>,
    clock: Clock,
}

/// The log of tasks can not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenTaskLogError {
    #[error(
        "task log {path}: {error}; check that the folder can be written and the file is no other's"
    )]
    File { path: PathBuf, error: String },
    #[error("shared task log: {0}; check store.postgres and that its server runs")]
    Server(SqlError),
}

/// The log's file in the store's folder.
pub fn tasks_path(dir: &Path) -> PathBuf {
    dir.join("tasks.sqlite3")
}

/// The log of tasks that `config` asks for: in the shared database where a server is named, else in the
/// store's folder, which is made.
///
/// # Errors
/// When the folder or the file can not be made, or the server can not be reached or refuses.
pub fn open_task_log(config: &Config) -> Result<SqlTaskLog, OpenError> {
    if let Some(url) = &config.postgres {
        return Ok(SqlTaskLog::open_server(&url.0)?);
    }
    std::fs::create_dir_all(&config.dir).map_err(|error| OpenError::Folder {
        path: config.dir.display().to_string(),
        error,
    })?;
    let path = tasks_path(&config.dir);
    Ok(SqlTaskLog::open_file(&path, system_clock())?)
}

/// The clock of this machine.
pub fn system_clock() -> Clock {
    Arc::new(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        i64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(i64::MAX)
    })
}

impl SqlTaskLog {
    /// Opens or makes the log in the file at `path` and brings its schema up to date. A file has no
    /// clock: leases go by `clock`.
    ///
    /// # Errors
    /// When the file can not be written or is no log.
    pub fn open_file(path: &Path, clock: Clock) -> Result<Self, OpenTaskLogError> {
        let told = |error: String| OpenTaskLogError::File {
            path: path.to_owned(),
            error,
        };
        let engine = Sqlite::open(path, Pages::Small).map_err(|error| told(error.to_string()))?;
        sql::migrate(&engine, VERSIONS, SQLITE).map_err(|error| told(error.0))?;
        Ok(Self {
            engine: Box::new(engine),
            clock,
        })
    }

    /// Opens the shared log at `url` and brings its schema up to date. Leases go by the server's clock.
    ///
    /// # Errors
    /// When the server can not be reached or refuses.
    pub fn open_server(url: &str) -> Result<Self, OpenTaskLogError> {
        let engine = Postgres::new(url).map_err(OpenTaskLogError::Server)?;
        // Nodes that start together wait for whoever is first, however long that takes.
        sql::migrate(&engine, VERSIONS, POSTGRES).map_err(OpenTaskLogError::Server)?;
        let engine = Postgres::new(url).map_err(OpenTaskLogError::Server)?;
        Ok(Self {
            engine: Box::new(engine.gives_up_locks()),
            clock: system_clock(),
        })
    }

    /// Gives back the leases that an earlier process of `node` died with, so that whoever is free goes on at
    /// once; tells how many there were. Only for the node itself, when it starts: its folder is locked by
    /// then, so that process is no more.
    ///
    /// # Errors
    /// When the log does not answer.
    pub fn take_back(&self, node: &str) -> Result<u64, TaskLogError> {
        self.write("give back leases", |sql| lease::release_all(sql, node))
    }

    fn read<T>(
        &self,
        what: &'static str,
        ask: impl FnMut(&mut dyn Sql) -> Result<T, SqlError>,
    ) -> Result<T, TaskLogError> {
        sql::read(&*self.engine, what, ask).map_err(|error| TaskLogError {
            what: error.what,
            cause: error.cause,
        })
    }

    fn write<T>(
        &self,
        what: &'static str,
        act: impl FnMut(&mut dyn Sql) -> Result<T, SqlError>,
    ) -> Result<T, TaskLogError> {
        sql::write(&*self.engine, what, act).map_err(|error| TaskLogError {
            what: error.what,
            cause: error.cause,
        })
    }

    /// Writes what may be refused: a refusal undoes all of it.
    fn attempt<T>(
        &self,
        what: &'static str,
        mut act: impl FnMut(&mut dyn Sql) -> Result<T, Refused>,
    ) -> Result<T, AppendError> {
        let mut refused = None;
        let done = self.write(what, |sql| {
            act(sql).map_err(|error| match error {
                Refused::Sql(error) => error,
                Refused::Rule(error) => {
                    refused = Some(error);
                    SqlError("refused".to_owned())
                }
            })
        });
        match refused {
            Some(error) => Err(error),
            None => Ok(done?),
        }
    }
}

impl fmt::Debug for SqlTaskLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlTaskLog")
            .field("engine", &self.engine)
            .finish_non_exhaustive()
    }
}

/// Why a transaction is undone: a statement failed, or a rule of the port says no.
enum Refused {
    Sql(SqlError),
    Rule(AppendError),
}

impl From<SqlError> for Refused {
    fn from(error: SqlError) -> Self {
        Self::Sql(error)
    }
}

impl From<AppendError> for Refused {
    fn from(error: AppendError) -> Self {
        Self::Rule(error)
    }
}

impl TaskLog for SqlTaskLog {
    fn now_ms(&self) -> Result<i64, TaskLogError> {
        let told = self.engine.clock().map_err(|error| TaskLogError {
            what: "read the clock",
            cause: error.0,
        })?;
        Ok(told.unwrap_or_else(|| (self.clock)()))
    }

    fn create(&self, new: &NewTask, changes: &[Change]) -> Result<Created, AppendError> {
        self.attempt("create a task", |sql| write::create(sql, new, changes))
    }

    fn append(&self, append: &Append<'_>) -> Result<(), AppendError> {
        self.attempt("append events", |sql| write::append(sql, append))
    }

    fn events(&self, task: TaskId, after: u64, limit: u32) -> Result<Vec<Recorded>, TaskLogError> {
        self.read("read events", |sql| ask::events(sql, task, after, limit))
    }

    fn task(&self, task: TaskId) -> Result<Option<TaskRow>, TaskLogError> {
        self.read("read a task", |sql| ask::task(sql, task))
    }

    fn list(&self, filter: &Filter) -> Result<Vec<TaskRow>, TaskLogError> {
        self.read("list tasks", |sql| ask::list(sql, filter))
    }

    fn counts(&self, tenant: Option<&str>) -> Result<Vec<(String, u64)>, TaskLogError> {
        self.read("count tasks", |sql| ask::counts(sql, tenant))
    }

    fn claim(&self, node: &str, lease_ms: i64, limit: u32) -> Result<Vec<Claim>, TaskLogError> {
        let now = self.now_ms()?;
        let until = now.saturating_add(lease_ms);
        self.write("claim tasks", |sql| {
            lease::claim(sql, node, now, until, limit)
        })
    }

    fn renew(
        &self,
        node: &str,
        held: &[(TaskId, u64)],
        lease_ms: i64,
    ) -> Result<Vec<Renewed>, TaskLogError> {
        let until = self.now_ms()?.saturating_add(lease_ms);
        self.write("renew leases", |sql| lease::renew(sql, node, held, until))
    }

    fn release(&self, task: TaskId, epoch: u64) -> Result<(), TaskLogError> {
        self.write("release a task", |sql| lease::release(sql, task, epoch))
    }

    fn erase(&self, task: TaskId) -> Result<bool, TaskLogError> {
        self.write("erase a task", |sql| write::erase(sql, task))
    }

    fn put_blob(&self, task: TaskId, bytes: &[u8]) -> Result<Digest, TaskLogError> {
        let digest = Digest::of(bytes);
        self.write("keep a blob", |sql| {
            write::put_blob(sql, task, digest, bytes)
        })?;
        Ok(digest)
    }

    fn blob(&self, task: TaskId, digest: Digest) -> Result<Option<Vec<u8>>, TaskLogError> {
        self.read("read a blob", |sql| ask::blob(sql, task, digest))
    }

    fn record(&self, kind: Kind, tenant: &str, id: &str) -> Result<Option<Record>, TaskLogError> {
        self.read("read a record", |sql| record::one(sql, kind, tenant, id))
    }

    fn records(
        &self,
        kind: Kind,
        tenant: Option<&str>,
        after: &str,
        limit: u32,
    ) -> Result<Vec<Record>, TaskLogError> {
        self.read("read records", |sql| {
            record::behind(sql, kind, tenant, after, limit)
        })
    }

    fn due(&self, kind: Kind, now_ms: i64, limit: u32) -> Result<Vec<Record>, TaskLogError> {
        self.read("read due records", |sql| {
            record::due(sql, kind, now_ms, limit)
        })
    }

    fn note(&self, note: &Note, changes: &[Change]) -> Result<(), AppendError> {
        self.attempt("note a change", |sql| write::note(sql, note, changes))
    }

    fn change(&self, changes: &[Change]) -> Result<(), AppendError> {
        self.attempt("change records", |sql| record::change(sql, changes))
    }

    fn links(&self, tenant: &str, after: u64, limit: u32) -> Result<Vec<Link>, TaskLogError> {
        self.read("read audit links", |sql| {
            ask::links(sql, tenant, after, limit)
        })
    }

    fn tenants(&self) -> Result<Vec<String>, TaskLogError> {
        self.read("read the tenants of tasks", ask::tenants)
    }
}

fn id_value(id: TaskId) -> Value {
    Value::from(id.bytes().as_slice())
}

fn digest_value(digest: Digest) -> Value {
    Value::from(digest.bytes().as_slice())
}

fn id_at(row: &Row, place: usize) -> Result<TaskId, SqlError> {
    let bytes = row.bytes(place).try_into();
    bytes
        .map(TaskId::from_bytes)
        .map_err(|_| SqlError("a task's id has not 16 bytes".to_owned()))
}

fn digest_at(row: &Row, place: usize) -> Result<Digest, SqlError> {
    let bytes: Result<[u8; 32], _> = row.bytes(place).try_into();
    bytes
        .map(Digest::from)
        .map_err(|_| SqlError("a digest has not 32 bytes".to_owned()))
}
