//! Proves that the task log's schema is brought up to date by itself: from nothing, once more, beside a
//! ledger in the same database in either order, and not by a program that is too old for it.

use orchestrator::TaskLog as _;
use store::config::{Address, Config};
use store::tasks::{system_clock, tasks_path};
use store::{SqlLedger, SqlTaskLog, open_task_log};

use super::{begin, look};

fn versions(url: &str) -> Vec<i64> {
    let url = url.to_owned();
    let ask = std::thread::spawn(move || {
        let mut client = postgres::Client::connect(&url, postgres::NoTls).unwrap();
        let tables = ["schema_version", "task_schema_version"];
        let version = |table: &str| {
            let row = client.query_one(&format!("SELECT version FROM {table}"), &[]);
            row.unwrap().get(0)
        };
        tables.map(version).to_vec()
    });
    ask.join().unwrap()
}

#[test]
fn ledger_and_task_log_share_a_database_and_count_for_themselves() {
    let (first, _server) = tests::postgres::database();
    let (second, _other) = tests::postgres::database();
    drop(SqlLedger::open_server(&first, "one").unwrap());
    let config = Config {
        postgres: Some(Address(first.clone())),
        ..Config::default()
    };
    let log = open_task_log(&config).unwrap();
    let task = begin(&log, 1, 0);
    drop(SqlTaskLog::open_server(&second).unwrap());
    drop(SqlLedger::open_server(&second, "one").unwrap());
    assert_eq!(versions(&first), versions(&second));
    assert!(versions(&first).iter().all(|version| *version > 0));
    drop(SqlLedger::open_server(&first, "one").unwrap());
    let again = open_task_log(&config).unwrap();
    assert_eq!(look(&again, task), look(&log, task));
}

#[test]
fn many_nodes_may_open_an_empty_database_at_once() {
    let (url, _server) = tests::postgres::database();
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| SqlTaskLog::open_server(&url).unwrap().now_ms().unwrap());
        }
    });
}

#[test]
fn a_file_is_made_in_the_folder_and_a_newer_one_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config {
        dir: folder.path().join("not/yet"),
        ..Config::default()
    };
    let log = open_task_log(&config).unwrap();
    let task = begin(&log, 1, 0);
    drop(log);
    let path = tasks_path(&config.dir);
    assert_eq!(look(&open_task_log(&config).unwrap(), task).id, task);
    let newer = rusqlite::Connection::open(&path).unwrap();
    newer
        .execute("UPDATE task_schema_version SET version = 99", [])
        .unwrap();
    let refused = SqlTaskLog::open_file(&path, system_clock()).unwrap_err();
    assert!(refused.to_string().contains("run a newer one"), "{refused}");
    std::fs::write(
        folder.path().join("text"),
        "not a database, but long enough",
    )
    .unwrap();
    let wrong = SqlTaskLog::open_file(&folder.path().join("text"), system_clock());
    assert!(wrong.unwrap_err().to_string().contains("task log"));
}
