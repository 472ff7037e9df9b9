//! One SQL for two engines: values, rows and the few acts that statements need. Statements are written
//! once, with places `$1`, `$2` and casts that both engines take; what differs is in the two files below.

pub mod postgres;
pub mod sqlite;

use meter::LedgerError;

/// What a column holds.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Value {
    Null,
    Int(i64),
    Text(String),
    Blob(Vec<u8>),
}

impl From<i64> for Value {
    fn from(int: i64) -> Self {
        Self::Int(int)
    }
}

impl From<Option<i64>> for Value {
    fn from(int: Option<i64>) -> Self {
        int.map_or(Self::Null, Self::Int)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&[u8]> for Value {
    fn from(bytes: &[u8]) -> Self {
        Self::Blob(bytes.to_vec())
    }
}

/// What goes into a column of one of many rows, without a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Field<'a> {
    Null,
    Int(i64),
    Text(&'a str),
    Blob(&'a [u8]),
}

impl<'a> From<&'a Value> for Field<'a> {
    fn from(value: &'a Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Int(int) => Self::Int(*int),
            Value::Text(text) => Self::Text(text),
            Value::Blob(bytes) => Self::Blob(bytes),
        }
    }
}

impl From<i64> for Field<'_> {
    fn from(int: i64) -> Self {
        Self::Int(int)
    }
}

impl From<Option<i64>> for Field<'_> {
    fn from(int: Option<i64>) -> Self {
        int.map_or(Self::Null, Self::Int)
    }
}

impl<'a> From<&'a str> for Field<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a [u8]> for Field<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Blob(bytes)
    }
}

/// Rows one behind the other, as [`Sql::insert`] takes them.
pub(crate) fn flat(rows: &[Vec<Value>]) -> Vec<Field<'_>> {
    rows.iter().flatten().map(Field::from).collect()
}

/// A count as a column: ledgers' integers are signed, and counts never come near the sign.
pub fn count(count: u64) -> Value {
    Value::Int(signed(count))
}

/// The same as a number.
pub(crate) fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// One row of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row(pub Vec<Value>);

impl Row {
    /// The integer at `place`; 0 for null, because sums over nothing are null.
    pub fn int(&self, place: usize) -> i64 {
        match self.0.get(place) {
            Some(Value::Int(int)) => *int,
            _ => 0,
        }
    }

    /// The integer at `place`, where there is one.
    pub fn maybe_int(&self, place: usize) -> Option<i64> {
        match self.0.get(place) {
            Some(Value::Int(int)) => Some(*int),
            _ => None,
        }
    }

    /// The count at `place`; 0 for null or less.
    pub fn count(&self, place: usize) -> u64 {
        u64::try_from(self.int(place)).unwrap_or(0)
    }

    /// The text at `place`; empty for null.
    pub fn text(&self, place: usize) -> &str {
        match self.0.get(place) {
            Some(Value::Text(text)) => text,
            _ => "",
        }
    }

    /// The bytes at `place`; empty for null.
    pub fn bytes(&self, place: usize) -> &[u8] {
        match self.0.get(place) {
            Some(Value::Blob(bytes)) => bytes,
            _ => &[],
        }
    }

    /// The JSON document at `place`.
    ///
    /// # Errors
    /// When it is of another format.
    pub fn json<T: serde::de::DeserializeOwned>(&self, place: usize) -> Result<T, SqlError> {
        serde_json::from_str(self.text(place)).map_err(|error| SqlError(error.to_string()))
    }
}

/// A statement failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SqlError(pub String);

impl SqlError {
    /// As the port says it: `what` was being done.
    pub fn during(self, what: &'static str) -> LedgerError {
        LedgerError {
            what,
            cause: self.0,
        }
    }
}

/// The kind of a column that many rows are written to at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Int,
    Text,
    Blob,
}

/// Rows for a table, written in one statement where the engine can.
#[derive(Debug, Clone, Copy)]
pub struct Insert<'a> {
    pub table: &'a str,
    pub columns: &'a [(&'a str, Kind)],
    /// What stands behind the rows: `ON CONFLICT ...`.
    pub rest: &'a str,
}

/// A connection, inside or outside a transaction.
pub trait Sql {
    /// Rows that `sql` answers.
    ///
    /// # Errors
    /// When the statement fails or the engine can not be reached.
    fn query(&mut self, sql: &str, values: &[Value]) -> Result<Vec<Row>, SqlError>;

    /// How many rows `sql` changed.
    ///
    /// # Errors
    /// As [`Sql::query`].
    fn execute(&mut self, sql: &str, values: &[Value]) -> Result<u64, SqlError>;

    /// Writes `rows`, one behind the other, each with a field for each column.
    ///
    /// # Errors
    /// As [`Sql::query`].
    fn insert(&mut self, insert: &Insert<'_>, rows: &[Field<'_>]) -> Result<(), SqlError>;

    /// Writes those of `rows` that conflict with none that is there, and tells of each whether it was
    /// new. The first two columns, bytes and a number, tell these rows apart; `rest` is not looked at.
    ///
    /// # Errors
    /// As [`Sql::query`].
    fn insert_new(
        &mut self,
        insert: &Insert<'_>,
        rows: &[Field<'_>],
    ) -> Result<Vec<bool>, SqlError>;

    /// Removes the rows of `table` that have these values in `columns`.
    ///
    /// # Errors
    /// As [`Sql::query`].
    fn delete(
        &mut self,
        table: &str,
        columns: &[(&str, Kind)],
        rows: &[Field<'_>],
    ) -> Result<(), SqlError>;

    /// Runs statements without values, for migrations.
    ///
    /// # Errors
    /// As [`Sql::query`].
    fn batch(&mut self, sql: &str) -> Result<(), SqlError>;

    /// Makes the months' partitions in which these moments lie, where the engine has partitions.
    ///
    /// # Errors
    /// As [`Sql::query`].
    fn partitions(&mut self, at_ms: &mut dyn Iterator<Item = i64>) -> Result<(), SqlError>;

    /// Waits for, and holds to the transaction's end, the lock of this name.
    ///
    /// # Errors
    /// As [`Sql::query`].
    fn lock(&mut self, name: &str) -> Result<(), SqlError>;

    /// What a `SELECT` ends in that picks rows for this transaction alone and passes over those that
    /// another has picked; empty where a transaction has the database to itself.
    fn skipping_picked(&self) -> &'static str;
}

/// What a transaction or a look does with a connection.
pub type Act<'a> = &'a mut dyn FnMut(&mut dyn Sql) -> Result<(), SqlError>;

/// A database.
pub trait Engine: Send + Sync + std::fmt::Debug {
    /// Runs `act` on a connection that only reads.
    ///
    /// # Errors
    /// Those of `act`, or when no connection can be had.
    fn read(&self, act: Act<'_>) -> Result<(), SqlError>;

    /// Runs `act` in a transaction: all of it is committed, or nothing is.
    ///
    /// # Errors
    /// Those of `act` and of the commit.
    fn write(&self, act: Act<'_>) -> Result<(), SqlError>;

    /// The engine's clock, in milliseconds since 1970; `None` where it has none of its own.
    ///
    /// # Errors
    /// When the engine can not be reached.
    fn clock(&self) -> Result<Option<i64>, SqlError>;
}

/// Reads through `engine` and hands out what `ask` found.
pub(crate) fn read<T>(
    engine: &dyn Engine,
    what: &'static str,
    mut ask: impl FnMut(&mut dyn Sql) -> Result<T, SqlError>,
) -> Result<T, LedgerError> {
    let mut found = None;
    engine
        .read(&mut |sql| {
            found = Some(ask(sql)?);
            Ok(())
        })
        .map_err(|error| error.during(what))?;
    found.ok_or(LedgerError {
        what,
        cause: "no answer".to_owned(),
    })
}

/// Writes through `engine` in one transaction and hands out what `act` made.
pub(crate) fn write<T>(
    engine: &dyn Engine,
    what: &'static str,
    mut act: impl FnMut(&mut dyn Sql) -> Result<T, SqlError>,
) -> Result<T, LedgerError> {
    let mut made = None;
    engine
        .write(&mut |sql| {
            made = Some(act(sql)?);
            Ok(())
        })
        .map_err(|error| error.during(what))?;
    made.ok_or(LedgerError {
        what,
        cause: "no answer".to_owned(),
    })
}

/// Brings the schema up to date: applies those of `migrations` that are not, in order. Parts that share
/// a database count in tables of their own: `versions` is this part's.
pub(crate) fn migrate(
    engine: &dyn Engine,
    versions: &str,
    migrations: &[&str],
) -> Result<(), SqlError> {
    engine.write(&mut |sql| {
        sql.lock("migrate")?;
        sql.batch(&format!(
            "CREATE TABLE IF NOT EXISTS {versions} (version BIGINT NOT NULL)"
        ))?;
        let rows = sql.query(&format!("SELECT version FROM {versions}"), &[])?;
        let done = rows.first().map_or(0, |row| row.count(0));
        let done = usize::try_from(done).unwrap_or(usize::MAX);
        if done > migrations.len() {
            return Err(SqlError(format!(
                "its schema is of version {done}, and this program knows {}; run a newer one",
                migrations.len()
            )));
        }
        for migration in migrations.iter().skip(done) {
            sql.batch(migration)?;
        }
        sql.execute(&format!("DELETE FROM {versions}"), &[])?;
        let version = Value::Int(i64::try_from(migrations.len()).unwrap_or(0));
        sql.execute(
            &format!("INSERT INTO {versions} (version) VALUES ($1)"),
            &[version],
        )?;
        Ok(())
    })
}
