//! Proves the rules of the task log's port on the log in memory that the simulation runs on, on SQLite
//! and on a real PostgreSQL server, by the same code: the chain, what is compared before an append, leases,
//! beginning a task, and what a reopened log still knows.

mod agree;
mod beside;
mod schema;

use std::sync::Arc;

use orchestrator::digest::Digest;
use orchestrator::id::TaskId;
use orchestrator::log::{
    Append, AppendError, Change, Created, Expected, Filter, Head, Kind, NewTask, Recorded,
    RowChange, TaskLog, TaskRow, To,
};
use store::SqlTaskLog;
use store::tasks::system_clock;
use tempfile::TempDir;
use tests::{MemoryLog, Postgres};

use crate::NOW;

/// Long enough that no lease of it runs out while a test runs.
const LONG_MS: i64 = 3_600_000;
/// So short that it has run out as soon as it is given.
const OVER_MS: i64 = 0;

/// A task log under test, and where it is, to open it once more.
pub struct Tested {
    pub log: Arc<dyn TaskLog>,
    at: Place,
}

enum Place {
    Memory,
    File(TempDir),
    Server {
        url: String,
        _server: Option<Postgres>,
    },
}

impl Tested {
    fn memory() -> Self {
        Self {
            log: Arc::new(MemoryLog::new(NOW)),
            at: Place::Memory,
        }
    }

    fn sqlite() -> Self {
        Self::at(Place::File(tempfile::tempdir().unwrap()))
    }

    fn postgres() -> Self {
        let (url, _server) = tests::postgres::database();
        Self::at(Place::Server { url, _server })
    }

    fn at(at: Place) -> Self {
        let log = at.open().unwrap();
        Self { log, at }
    }

    /// The same log as another process sees it.
    fn other(&self) -> Arc<dyn TaskLog> {
        self.at.open().unwrap_or_else(|| Arc::clone(&self.log))
    }

    /// Opens it anew as after a crash: what had it open before is never closed.
    fn reopened(&mut self) {
        if let Some(log) = self.at.open() {
            std::mem::forget(std::mem::replace(&mut self.log, log));
        }
    }
}

impl Place {
    fn open(&self) -> Option<Arc<dyn TaskLog>> {
        match self {
            Self::Memory => None,
            Self::File(folder) => {
                let path = folder.path().join("tasks.sqlite3");
                Some(Arc::new(
                    SqlTaskLog::open_file(&path, system_clock()).unwrap(),
                ))
            }
            Self::Server { url, .. } => Some(Arc::new(SqlTaskLog::open_server(url).unwrap())),
        }
    }
}

/// Runs each rule on all three.
macro_rules! on_all {
    ($($rule:ident),* $(,)?) => {
        mod memory {
            $(#[test] fn $rule() { super::$rule(crate::tasks::Tested::memory()); })*
        }
        mod sqlite {
            $(#[test] fn $rule() { super::$rule(crate::tasks::Tested::sqlite()); })*
        }
        mod postgres {
            $(#[test] fn $rule() { super::$rule(crate::tasks::Tested::postgres()); })*
        }
    };
}
use on_all;

on_all!(
    a_log_is_a_chain_and_takes_nothing_that_breaks_it,
    of_appends_at_one_place_one_happens,
    who_has_lost_the_lease_can_not_append,
    claimers_at_once_get_different_tasks,
    only_what_wants_to_be_worked_on_is_claimed_the_longest_waiting_first,
    a_lease_that_ran_out_is_taken_over,
    leases_are_prolonged_while_they_are_held,
    a_lease_given_back_is_free_at_once,
    a_task_is_begun_once_under_a_key,
    of_those_who_begin_at_once_under_a_key_one_does,
    lists_go_from_the_newest_as_filtered,
    what_was_answered_is_there_after_a_crash,
);

pub fn id(n: u8) -> TaskId {
    TaskId::new(NOW + i64::from(n), [n; 10])
}

pub fn row(status: &str, wake_at_ms: Option<i64>) -> RowChange {
    RowChange {
        status: status.to_owned(),
        ended: status == "completed",
        wake_at_ms,
        summary: format!(r#"{{"status":"{status}"}}"#),
    }
}

/// `count` events that follow `after`, and where the log ends behind them.
pub fn next(after: Head, epoch: u64, count: u64) -> (Vec<Recorded>, Head) {
    let mut head = after;
    let mut events = Vec::new();
    for n in 1..=count {
        let payload = format!(r#"{{"n":{n},"text":"Zürich \u0000 \"{epoch}\""}}"#);
        let mut event = Recorded {
            seq: after.seq + n,
            at_ms: NOW + 1_000 * i64::try_from(after.seq + n).unwrap(),
            epoch,
            actor: "user:kim".to_owned(),
            kind: "tool.result".to_owned(),
            v: 3,
            payload_hash: Digest::of(payload.as_bytes()),
            payload: Some(payload),
            hash: Digest::default(),
        };
        event.hash = event.chained(head.hash);
        head = Head {
            seq: event.seq,
            hash: event.hash,
        };
        events.push(event);
    }
    (events, head)
}

pub fn new(n: u8, tenant: &str, row: RowChange) -> NewTask {
    NewTask {
        id: id(n),
        tenant: tenant.to_owned(),
        idempotency: None,
        created_at_ms: NOW,
        events: next(Head::default(), 0, 1).0,
        row,
    }
}

/// Begins task `n` of the tenant `acme`, which wants to be worked on since `waiting_ms`.
pub fn begin(log: &dyn TaskLog, n: u8, waiting_ms: i64) -> TaskId {
    let wake = log.now_ms().unwrap() - waiting_ms;
    let task = new(n, "acme", row("queued", Some(wake)));
    assert_eq!(log.create(&task, &[]).unwrap(), Created::New);
    task.id
}

pub fn look(log: &dyn TaskLog, task: TaskId) -> TaskRow {
    log.task(task).unwrap().unwrap()
}

/// Appends one event at the end of the log, with changes.
pub fn append(
    log: &dyn TaskLog,
    task: TaskId,
    epoch: Option<u64>,
    to: &RowChange,
    changes: &[Change],
) -> Result<Head, AppendError> {
    let after = look(log, task).head;
    let (events, head) = next(after, epoch.unwrap_or(0), 1);
    log.append(&Append {
        task,
        after,
        epoch,
        events: &events,
        row: to,
        changes,
        release: false,
    })?;
    Ok(head)
}

fn a_log_is_a_chain_and_takes_nothing_that_breaks_it(at: Tested) {
    let log = &*at.log;
    let task = begin(log, 1, 0);
    let first = look(log, task).head;
    let (events, head) = next(first, 0, 5);
    let plain = Append {
        task,
        after: first,
        epoch: None,
        events: &events,
        row: &row("in_progress", None),
        changes: &[],
        release: false,
    };
    let mut broken: Vec<Vec<Recorded>> = vec![events.clone(); 4];
    broken[0][0].seq = 7;
    broken[1][2].hash = Digest::default();
    broken[2][4].payload = Some("{}".to_owned());
    broken[3][1].actor = "user:mallory".to_owned();
    for events in &broken {
        let refused = log.append(&Append { events, ..plain }).unwrap_err();
        assert!(matches!(refused, AppendError::Failed(_)), "{refused:?}");
    }
    assert_eq!(look(log, task).head, first, "nothing of them happened");
    log.append(&plain).unwrap();
    let now = look(log, task);
    assert_eq!((now.head, now.status.as_str()), (head, "in_progress"));
    assert_eq!(now.updated_at_ms, events[4].at_ms);
    assert_eq!(now.created_at_ms, NOW);
    assert_eq!(now.summary, r#"{"status":"in_progress"}"#);
    let mut read = log.events(task, 0, 4).unwrap();
    read.extend(log.events(task, 4, 100).unwrap());
    assert_eq!(Head::default().behind(&read), Ok(head));
    assert_eq!(read[1..], events, "as they were given");
    assert!(log.events(id(9), 0, 9).unwrap().is_empty());
    let nowhere = log.append(&Append {
        task: id(9),
        ..plain
    });
    assert!(matches!(nowhere, Err(AppendError::Failed(_))));
}

fn of_appends_at_one_place_one_happens(at: Tested) {
    let task = begin(&*at.log, 1, 0);
    let after = look(&*at.log, task).head;
    let logs = [Arc::clone(&at.log), at.other()];
    let done: Vec<bool> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|n| {
                let log = &logs[n % 2];
                scope.spawn(move || {
                    let (events, _) = next(after, 0, 1 + n as u64);
                    let done = log.append(&Append {
                        task,
                        after,
                        epoch: None,
                        events: &events,
                        row: &row("in_progress", None),
                        changes: &[],
                        release: false,
                    });
                    assert!(
                        matches!(done, Ok(()) | Err(AppendError::Behind)),
                        "{done:?}"
                    );
                    done.is_ok()
                })
            })
            .collect();
        threads.into_iter().map(|it| it.join().unwrap()).collect()
    });
    assert_eq!(done.iter().filter(|done| **done).count(), 1, "{done:?}");
    // The end of a task is not the end of its log: a notice may follow.
    append(&*at.log, task, None, &row("completed", None), &[]).unwrap();
    append(&*at.log, task, None, &row("completed", None), &[]).unwrap();
    let read = at.log.events(task, 0, 100).unwrap();
    assert_eq!(Head::default().behind(&read), Ok(look(&*at.log, task).head));
}

fn who_has_lost_the_lease_can_not_append(at: Tested) {
    let (log, other) = (&*at.log, at.other());
    let task = begin(log, 1, 0);
    let old = log.claim("one", OVER_MS, 9).unwrap()[0].epoch;
    let as_old = |after: Head| {
        let (events, _) = next(after, old, 1);
        log.append(&Append {
            task,
            after,
            epoch: Some(old),
            events: &events,
            row: &row("in_progress", Some(0)),
            changes: &[],
            release: false,
        })
    };
    as_old(look(log, task).head).expect("nobody else has claimed it");
    let claimed = other.claim("two", LONG_MS, 9).unwrap();
    assert_eq!((claimed[0].task, claimed[0].epoch), (task, old + 1));
    let before = look(log, task);
    assert!(matches!(as_old(before.head), Err(AppendError::Fenced)));
    let stale = as_old(Head::default());
    assert!(
        matches!(stale, Err(AppendError::Fenced)),
        "fenced counts before behind: {stale:?}"
    );
    assert_eq!(look(log, task), before);
    append(&*other, task, Some(old + 1), &row("in_progress", None), &[]).unwrap();
    append(log, task, None, &row("paused", None), &[])
        .expect("what comes from outside has no lease");
    assert_eq!(look(log, task).leased_by, "two", "and takes none away");
}

fn claimers_at_once_get_different_tasks(at: Tested) {
    for n in 0..64 {
        begin(&*at.log, n, 1_000);
    }
    let logs = [Arc::clone(&at.log), at.other()];
    let mut claimed: Vec<TaskId> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..16)
            .map(|n| {
                let log = &logs[n % 2];
                scope.spawn(move || {
                    let mut mine = Vec::new();
                    loop {
                        let claims = log.claim(&format!("node-{n}"), LONG_MS, 3).unwrap();
                        assert!(claims.len() <= 3 && claims.iter().all(|it| it.epoch == 1));
                        if claims.is_empty() {
                            return mine;
                        }
                        mine.extend(claims.into_iter().map(|claim| claim.task));
                    }
                })
            })
            .collect();
        let mine = threads.into_iter().flat_map(|it| it.join().unwrap());
        mine.collect()
    });
    claimed.sort();
    let all: Vec<TaskId> = (0..64).map(id).collect();
    assert_eq!(claimed, all, "each once, and none is left");
}

fn only_what_wants_to_be_worked_on_is_claimed_the_longest_waiting_first(at: Tested) {
    let log = &*at.log;
    let now = log.now_ms().unwrap();
    begin(log, 1, 10_000);
    begin(log, 2, 30_000);
    begin(log, 3, 20_000);
    for (n, to) in [
        (4, row("requires_action", None)),
        (5, row("queued", Some(now + LONG_MS))),
        (6, row("completed", Some(now))),
    ] {
        log.create(&new(n, "acme", to), &[]).unwrap();
    }
    let of = |limit| -> Vec<TaskId> {
        let claims = log.claim("one", LONG_MS, limit).unwrap();
        claims.into_iter().map(|claim| claim.task).collect()
    };
    assert_eq!(of(2), [id(2), id(3)]);
    assert_eq!(of(9), [id(1)]);
    assert_eq!(of(9), []);
    // An append may ask for it to be worked on at once.
    append(log, id(4), None, &row("in_progress", Some(now)), &[]).unwrap();
    assert_eq!(of(9), [id(4)]);
}

fn a_lease_that_ran_out_is_taken_over(at: Tested) {
    let (log, other) = (&*at.log, at.other());
    let (short, long) = (begin(log, 1, 0), begin(log, 2, -50_000));
    let before = log.now_ms().unwrap();
    let first = log.claim("one", OVER_MS, 9).unwrap();
    assert_eq!(
        first.len(),
        1,
        "the other does not want to be worked on yet"
    );
    assert!((before..=log.now_ms().unwrap()).contains(&first[0].until_ms));
    append(log, long, None, &row("queued", Some(before)), &[]).unwrap();
    let second = other.claim("two", LONG_MS, 1).unwrap();
    assert_eq!(second.len(), 1);
    let third = other.claim("two", LONG_MS, 9).unwrap();
    let mut both: Vec<_> = second.iter().chain(&third).map(|it| it.task).collect();
    both.sort();
    assert_eq!(both, [short, long]);
    assert!(log.claim("one", LONG_MS, 9).unwrap().is_empty());
    let now = look(log, short);
    assert_eq!((now.epoch, now.leased_by.as_str()), (2, "two"));
    assert!(now.leased_until_ms > before + LONG_MS / 2);
}

fn leases_are_prolonged_while_they_are_held(at: Tested) {
    let (log, other) = (&*at.log, at.other());
    let tasks: Vec<TaskId> = (1..=3)
        .map(|n| begin(log, n, 10_000 * i64::from(n)))
        .collect();
    let claims = log.claim("one", OVER_MS, 9).unwrap();
    assert_eq!(claims.len(), 3);
    // The one that waits longest is taken over; another hears from outside.
    let taken = other.claim("two", LONG_MS, 1).unwrap()[0];
    assert_eq!(taken.task, tasks[2]);
    let head = append(&*other, tasks[0], None, &row("in_progress", Some(0)), &[]).unwrap();
    let held: Vec<(TaskId, u64)> = tasks.iter().map(|task| (*task, 1)).collect();
    let before = log.now_ms().unwrap();
    let renewed = log.renew("one", &held, LONG_MS).unwrap();
    assert_eq!(renewed.iter().map(|it| it.task).collect::<Vec<_>>(), tasks);
    let until = renewed[0].until_ms.expect("it ran out, but nobody took it");
    assert!(until >= before + LONG_MS);
    assert_eq!(
        renewed[0].head, head,
        "the holder sees what came from outside"
    );
    assert_eq!(renewed[1].until_ms, Some(until));
    assert_eq!((renewed[2].until_ms, renewed[2].head.seq), (None, 1));
    assert_eq!(look(log, tasks[0]).leased_until_ms, until);
    assert_eq!(look(log, tasks[2]).leased_until_ms, taken.until_ms);
    let mine = log
        .renew("two", &[(tasks[0], 1), (id(99), 1)], LONG_MS)
        .unwrap();
    assert_eq!(mine[0].until_ms, None, "another's");
    assert_eq!((mine[1].until_ms, mine[1].head), (None, Head::default()));
    assert!(log.claim("two", LONG_MS, 9).unwrap().is_empty());
}

fn a_lease_given_back_is_free_at_once(at: Tested) {
    let (log, other) = (&*at.log, at.other());
    let task = begin(log, 1, 0);
    let claim = |epoch| {
        let claims = other.claim("two", LONG_MS, 9).unwrap();
        let epochs: Vec<u64> = claims.iter().map(|claim| claim.epoch).collect();
        assert_eq!(epochs, [epoch]);
    };
    claim(1);
    log.release(task, 7).unwrap();
    assert!(
        log.claim("one", LONG_MS, 9).unwrap().is_empty(),
        "no such lease"
    );
    log.release(task, 1).unwrap();
    let now = look(log, task);
    assert_eq!((now.leased_by.as_str(), now.leased_until_ms), ("", 0));
    assert_eq!((now.epoch, now.head.seq), (1, 1), "the row is as it was");
    claim(2);
    log.release(task, 1).unwrap();
    assert!(log.claim("one", LONG_MS, 9).unwrap().is_empty(), "of old");
    let after = look(log, task).head;
    let (events, _) = next(after, 2, 2);
    let with_the_end = Append {
        task,
        after,
        epoch: Some(2),
        events: &events,
        row: &row("in_progress", Some(0)),
        changes: &[],
        release: true,
    };
    log.append(&with_the_end).unwrap();
    claim(3);
    let lost = log.renew("two", &[(task, 2)], LONG_MS).unwrap();
    assert_eq!(lost[0].until_ms, None);
}

fn keyed(n: u8, tenant: &str, asked: &[u8]) -> NewTask {
    NewTask {
        idempotency: Some(("order-7".to_owned(), Digest::of(asked))),
        ..new(n, tenant, row("queued", None))
    }
}

fn pin(version: Expected) -> Change {
    Change {
        kind: Kind::Pin,
        tenant: "acme".to_owned(),
        id: "erp__pay".to_owned(),
        expected: version,
        to: Some(To {
            task: None,
            due_at_ms: None,
            body: "{}".to_owned(),
        }),
    }
}

fn a_task_is_begun_once_under_a_key(at: Tested) {
    let (log, other) = (&*at.log, at.other());
    let create = |log: &dyn TaskLog, new: &NewTask| log.create(new, &[pin(Expected::Any)]).unwrap();
    assert_eq!(create(log, &keyed(1, "acme", b"a")), Created::New);
    assert_eq!(
        create(&*other, &keyed(2, "acme", b"a")),
        Created::Before(id(1))
    );
    assert_eq!(create(log, &keyed(1, "acme", b"a")), Created::Before(id(1)));
    assert_eq!(
        create(log, &keyed(3, "acme", b"b")),
        Created::Conflict(id(1))
    );
    let record = log.record(Kind::Pin, "acme", "erp__pay").unwrap().unwrap();
    assert_eq!(record.version, 1, "what was not begun changed nothing");
    assert_eq!(create(log, &keyed(4, "beta", b"b")), Created::New);
    assert_eq!(log.task(id(2)).unwrap(), None);
    let taken = log.create(&new(1, "acme", row("queued", None)), &[]);
    assert!(matches!(taken, Err(AppendError::Failed(_))), "{taken:?}");
    let changed = log.create(&keyed(5, "gamma", b"c"), &[pin(Expected::Absent)]);
    assert!(
        matches!(&changed, Err(AppendError::Changed(Kind::Pin, id)) if id == "erp__pay"),
        "{changed:?}"
    );
    assert_eq!(log.task(id(5)).unwrap(), None);
    assert!(log.links("gamma", 0, 9).unwrap().is_empty());
    assert_eq!(
        create(log, &keyed(5, "gamma", b"d")),
        Created::New,
        "the key is free"
    );
    assert_eq!(log.tenants().unwrap(), ["acme", "beta", "gamma"]);
}

fn of_those_who_begin_at_once_under_a_key_one_does(at: Tested) {
    let logs = [Arc::clone(&at.log), at.other()];
    let created: Vec<Created> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..16)
            .map(|n| {
                let log = &logs[n % 2];
                scope.spawn(move || {
                    let new = keyed(u8::try_from(n).unwrap(), "acme", b"a");
                    log.create(&new, &[]).unwrap()
                })
            })
            .collect();
        threads.into_iter().map(|it| it.join().unwrap()).collect()
    });
    let all = at
        .log
        .list(&Filter {
            limit: 99,
            ..Filter::default()
        })
        .unwrap();
    assert_eq!(all.len(), 1);
    let expected = |created: &&Created| **created == Created::Before(all[0].id);
    assert_eq!(created.iter().filter(expected).count(), 15, "{created:?}");
    assert_eq!(at.log.links("acme", 0, 99).unwrap().len(), 1);
}

fn lists_go_from_the_newest_as_filtered(at: Tested) {
    let log = &*at.log;
    for n in 0..10 {
        let tenant = if n % 3 == 0 { "acme" } else { "beta" };
        let status = ["queued", "paused", "completed"][usize::from(n) % 2 + usize::from(n > 6)];
        log.create(&new(n, tenant, row(status, None)), &[]).unwrap();
    }
    let list =
        |tenant: Option<&str>, statuses: &[&str], before: Option<u8>, limit| -> Vec<TaskId> {
            let filter = Filter {
                tenant: tenant.map(str::to_owned),
                statuses: statuses.iter().map(|it| (*it).to_owned()).collect(),
                before: before.map(id),
                limit,
            };
            let rows = log.list(&filter).unwrap();
            rows.into_iter().map(|row| row.id).collect()
        };
    let ids = |ns: &[u8]| -> Vec<TaskId> { ns.iter().copied().map(id).collect() };
    assert_eq!(
        list(None, &[], None, 99),
        ids(&[9, 8, 7, 6, 5, 4, 3, 2, 1, 0])
    );
    assert_eq!(list(None, &[], None, 3), ids(&[9, 8, 7]));
    assert_eq!(list(None, &[], Some(7), 3), ids(&[6, 5, 4]));
    assert_eq!(list(Some("acme"), &[], None, 99), ids(&[9, 6, 3, 0]));
    assert_eq!(list(Some("acme"), &[], Some(6), 1), ids(&[3]));
    assert_eq!(list(None, &["completed"], None, 99), ids(&[9, 7]));
    assert_eq!(
        list(Some("beta"), &["completed", "queued"], Some(7), 99),
        ids(&[4, 2])
    );
    assert_eq!(list(Some("nobody"), &[], None, 99), []);
    let counted = |tenant: Option<&str>| log.counts(tenant).unwrap();
    let of = |word: &str, n: u64| (word.to_owned(), n);
    // 0 to 6 are queued and paused in turn; 7, 8, 9 go one further.
    let all = [of("completed", 2), of("paused", 4), of("queued", 4)];
    assert_eq!(counted(None), all);
    let mine = [of("completed", 1), of("paused", 1), of("queued", 2)];
    assert_eq!(counted(Some("acme")), mine);
    assert_eq!(counted(Some("nobody")), []);
}

fn what_was_answered_is_there_after_a_crash(mut at: Tested) {
    let task = begin(&*at.log, 1, 0);
    let claim = at.log.claim("one", LONG_MS, 1).unwrap()[0];
    let digest = at.log.put_blob(task, b"bytes").unwrap();
    let mut heads = vec![look(&*at.log, task).head];
    for n in 0..10 {
        let version = if n == 0 {
            Expected::Absent
        } else {
            Expected::Version(n)
        };
        let to = row("in_progress", Some(n.cast_signed()));
        let head = append(&*at.log, task, Some(claim.epoch), &to, &[pin(version)]).unwrap();
        let before = look(&*at.log, task);
        let chain = at.log.links("acme", 0, 99).unwrap();
        at.reopened();
        assert_eq!(look(&*at.log, task), before);
        assert_eq!(before.head, head);
        assert_eq!(at.log.links("acme", 0, 99).unwrap(), chain);
        let record = at
            .log
            .record(Kind::Pin, "acme", "erp__pay")
            .unwrap()
            .unwrap();
        assert_eq!(record.version, n + 1);
        heads.push(head);
    }
    let read = at.log.events(task, 0, 99).unwrap();
    let hashes: Vec<Digest> = read.iter().map(|event| event.hash).collect();
    assert_eq!(hashes, heads.iter().map(|it| it.hash).collect::<Vec<_>>());
    assert_eq!(at.log.blob(task, digest).unwrap().unwrap(), b"bytes");
    assert!(
        at.log.claim("two", LONG_MS, 9).unwrap().is_empty(),
        "the lease holds"
    );
}
