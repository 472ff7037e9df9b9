//! The archive in SQLite: documents by place, in a file of its own.

use std::path::Path;
use std::sync::Mutex;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use wire::archive::{Archive, ArchiveError, Place, Shelf};

use crate::ledger::OpenLedgerError;
use crate::sql::sqlite::{BUSY, lock};

const MIGRATIONS: &[&str] = &[
    include_str!("../migrations/sqlite/archive_0001.sql"),
    include_str!("../migrations/sqlite/archive_0002.sql"),
];

/// The archive of one file.
#[derive(Debug)]
pub struct SqliteArchive {
    connection: Mutex<Connection>,
}

impl SqliteArchive {
    /// Opens or makes the archive at `path`.
    pub fn open(path: &Path) -> Result<Self, OpenLedgerError> {
        let open = || {
            let mut connection = Connection::open(path)?;
            connection.busy_timeout(BUSY)?;
            connection.pragma_update(None, "journal_mode", "WAL")?;
            // The last moments may be lost with the machine, never with the process.
            connection.pragma_update(None, "synchronous", "NORMAL")?;
            migrate(&mut connection, MIGRATIONS)?;
            Ok(connection)
        };
        let connection = open().map_err(|error: rusqlite::Error| OpenLedgerError::Archive {
            path: path.to_owned(),
            error: error.to_string(),
        })?;
        Ok(Self {
            connection: Mutex::new(connection),
        })
    }
}

fn migrate(connection: &mut Connection, migrations: &[&str]) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let done: i64 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let done = usize::try_from(done).unwrap_or(0);
    for migration in migrations.iter().skip(done) {
        transaction.execute_batch(migration)?;
    }
    let now = i64::try_from(migrations.len()).unwrap_or(0);
    transaction.pragma_update(None, "user_version", now)?;
    transaction.commit()
}

impl Archive for SqliteArchive {
    fn put(&self, changes: &[(Place, Option<String>)], at_ms: i64) -> Result<(), ArchiveError> {
        let mut connection = lock(&self.connection);
        let mut put = || {
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            for (place, value) in changes {
                let (shelf, tenant, id) = (place.shelf.as_str(), &place.tenant, &place.id);
                match value {
                    Some(value) => transaction
                        .prepare_cached(
                            "INSERT INTO document (shelf, tenant, id, at_ms, value) VALUES (?1, ?2, ?3, ?4, ?5)
                             ON CONFLICT (shelf, tenant, id) DO UPDATE SET value = excluded.value, at_ms = excluded.at_ms",
                        )?
                        .execute(params![shelf, tenant, id, at_ms, value])?,
                    None => transaction
                        .prepare_cached("DELETE FROM document WHERE shelf = ?1 AND tenant = ?2 AND id = ?3")?
                        .execute(params![shelf, tenant, id])?,
                };
            }
            transaction.commit()
        };
        said(put(), "put documents")
    }

    fn get(&self, place: &Place) -> Result<Option<String>, ArchiveError> {
        let connection = lock(&self.connection);
        let sql = "SELECT value FROM document WHERE shelf = ?1 AND tenant = ?2 AND id = ?3";
        let found = connection.prepare_cached(sql).and_then(|mut statement| {
            let key = params![place.shelf.as_str(), place.tenant, place.id];
            statement.query_row(key, |row| row.get(0)).optional()
        });
        said(found, "read a document")
    }

    fn latest(&self, shelf: Shelf, limit: u32) -> Result<Vec<(Place, String)>, ArchiveError> {
        let connection = lock(&self.connection);
        let sql =
            "SELECT tenant, id, value FROM document WHERE shelf = ?1 ORDER BY at_ms DESC LIMIT ?2";
        let found = connection.prepare_cached(sql).and_then(|mut statement| {
            let rows = statement.query_map(params![shelf.as_str(), limit], |row| {
                let place = Place {
                    shelf,
                    tenant: row.get(0)?,
                    id: row.get(1)?,
                };
                Ok((place, row.get(2)?))
            })?;
            rows.collect()
        });
        said(found, "read the latest documents")
    }

    fn prune(&self, before_ms: i64) -> Result<u64, ArchiveError> {
        let connection = lock(&self.connection);
        let sql = "DELETE FROM document WHERE shelf = ?1 AND at_ms < ?2";
        let mut gone = 0;
        for shelf in Shelf::ALL {
            let pruned = connection
                .prepare_cached(sql)
                .and_then(|mut statement| statement.execute(params![shelf.as_str(), before_ms]));
            gone += u64::try_from(said(pruned, "prune documents")?).unwrap_or(0);
        }
        Ok(gone)
    }

    fn bytes(&self) -> Result<u64, ArchiveError> {
        let connection = lock(&self.connection);
        let kept = connection.prepare_cached("SELECT coalesce(sum(bytes), 0) FROM kept");
        let kept = kept.and_then(|mut statement| statement.query_row([], |row| row.get(0)));
        let kept: i64 = said(kept, "measure the archive")?;
        Ok(u64::try_from(kept).unwrap_or(0))
    }

    fn shrink(&self, most: u64) -> Result<u64, ArchiveError> {
        const AT_A_TIME: u32 = 256;
        let mut gone = 0;
        while self.bytes()? > most {
            let connection = lock(&self.connection);
            // Whoever keeps the most makes room: nobody can push another's documents out.
            let sql = "DELETE FROM document WHERE (shelf, tenant, id) IN
                (SELECT shelf, tenant, id FROM document
                 WHERE tenant = (SELECT tenant FROM kept ORDER BY bytes DESC LIMIT 1)
                 ORDER BY at_ms LIMIT ?1)";
            let statement = connection.prepare_cached(sql);
            let removed = statement.and_then(|mut statement| statement.execute([AT_A_TIME]));
            let removed = u64::try_from(said(removed, "shrink the archive")?).unwrap_or(0);
            if removed == 0 {
                break;
            }
            gone += removed;
        }
        Ok(gone)
    }
}

fn said<T>(answer: rusqlite::Result<T>, what: &'static str) -> Result<T, ArchiveError> {
    answer.map_err(|error| ArchiveError {
        what,
        cause: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_keeps_the_most_makes_room() {
        let folder = tempfile::tempdir().expect("a folder");
        let archive = SqliteArchive::open(&folder.path().join("a.sqlite3")).expect("an archive");
        let put = |tenant: &str, id: String, at_ms| {
            let change = (place(tenant, &id), Some("x".repeat(1_000)));
            archive.put(&[change], at_ms).expect("it is put");
        };
        put("small", "1".into(), 0);
        for at in 1..2_000 {
            put("large", at.to_string(), at);
        }
        assert!(archive.shrink(1_000_000).expect("it shrinks") > 0);
        let kept = archive.get(&place("small", "1")).expect("an answer");
        assert!(kept.is_some(), "the oldest of all, but not of the largest");
    }

    #[test]
    fn the_oldest_go_where_there_are_too_many() {
        let folder = tempfile::tempdir().expect("a folder");
        let archive = SqliteArchive::open(&folder.path().join("a.sqlite3")).expect("an archive");
        let value = "x".repeat(1_000);
        for at in 0..4_000 {
            // Not in the order of their names.
            let id = format!("{:04}", at * 7 % 4_000);
            let change = (place("a", &id), Some(value.clone()));
            archive.put(&[change], at).expect("it is put");
        }
        let before = archive.bytes().expect("a size");
        // A thousand bytes, and what a row and its indexes take.
        let each = 1_000 + 3 * (8 + 1 + 4) + 40;
        assert_eq!(before, 4_000 * each);
        assert_eq!(archive.shrink(before).expect("it fits"), 0);
        let gone = archive.shrink(1_000_000).expect("it shrinks");
        let left = archive.bytes().expect("a size");
        assert_eq!(left, (4_000 - gone) * each);
        assert!(
            (700_000..=1_000_000).contains(&left),
            "no more goes than must: {left}"
        );
        let left = archive.latest(Shelf::Response, 4_000).expect("an answer");
        let ids: std::collections::HashSet<_> =
            left.into_iter().map(|(place, _)| place.id).collect();
        let kept = |at: u64| ids.contains(&format!("{:04}", at * 7 % 4_000));
        assert!((0..gone).all(|at| !kept(at)) && (gone..4_000).all(kept));
    }

    fn place(tenant: &str, id: &str) -> Place {
        Place {
            shelf: Shelf::Response,
            tenant: tenant.into(),
            id: id.into(),
        }
    }

    #[test]
    fn documents_are_kept_by_tenant_replaced_removed_and_pruned() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("context.sqlite3");
        let archive = SqliteArchive::open(&path).expect("an archive");
        let put = |tenant: &str, id: &str, value: Option<&str>, at_ms| {
            let change = (place(tenant, id), value.map(str::to_owned));
            archive.put(&[change], at_ms).expect("it is put");
        };
        put("a", "1", Some("x"), 10);
        put("a", "1", Some("y"), 20);
        put("a", "2", Some("z"), 30);
        assert_eq!(archive.get(&place("b", "1")).expect("an answer"), None);
        assert_eq!(
            archive.get(&place("a", "1")).expect("an answer").as_deref(),
            Some("y")
        );
        let latest = archive.latest(Shelf::Response, 1).expect("an answer");
        assert_eq!(latest, vec![(place("a", "2"), "z".to_owned())]);
        drop(archive);
        let archive = SqliteArchive::open(&path).expect("it opens again");
        assert_eq!(archive.prune(25).expect("it prunes"), 1);
        archive
            .put(&[(place("a", "2"), None)], 40)
            .expect("it is removed");
        assert_eq!(
            archive.latest(Shelf::Response, 9).expect("an answer"),
            vec![]
        );
    }
}
