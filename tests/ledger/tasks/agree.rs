//! Proves that the log in memory, on which the simulation runs, answers as SQLite does: the same random
//! operations on both, under one clock, give the same answers and leave the same log.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use orchestrator::TaskId;
use orchestrator::log::{
    Append, AppendError, Change, Expected, Filter, Head, Kind, Note, TaskLog, To,
};
use proptest::prelude::*;
use store::SqlTaskLog;
use tests::MemoryLog;

use super::{id, new, next, row};
use crate::NOW;

const TENANTS: [&str; 2] = ["acme", "beta"];
const STATUSES: [&str; 3] = ["queued", "in_progress", "completed"];
const TASKS: u8 = 4;

/// Something to do with a log. Numbers are taken modulo what there is.
#[derive(Debug, Clone)]
enum Act {
    Create {
        task: u8,
        key: Option<u8>,
        asked: u8,
        status: usize,
        wake: Option<i64>,
        changes: Vec<Edit>,
    },
    Append {
        task: u8,
        behind: bool,
        epoch: Option<u64>,
        events: u64,
        status: usize,
        wake: Option<i64>,
        changes: Vec<Edit>,
        release: bool,
    },
    Change(Vec<Edit>),
    Note(usize, Vec<Edit>),
    Claim {
        node: u8,
        lease_ms: i64,
        limit: u32,
    },
    Renew {
        node: u8,
        held: Vec<(u8, u64)>,
        lease_ms: i64,
    },
    Release {
        task: u8,
        epoch: u64,
    },
    Erase(u8),
    Blob(u8, u8),
    Pass(i64),
    Look {
        task: u8,
        tenant: Option<usize>,
        limit: u32,
    },
}

/// A change of one of four records.
#[derive(Debug, Clone)]
struct Edit {
    record: u8,
    expected: Option<u64>,
    due: Option<i64>,
    stays: bool,
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let expected = prop_oneof![2 => Just(Some(0)), 2 => (1..4_u64).prop_map(Some), 3 => Just(None)];
    let edit = (0..4_u8, expected, option(0..50), prop::bool::weighted(0.8));
    let edit = edit.prop_map(|(record, expected, due, stays)| Edit {
        record,
        expected,
        due,
        stays,
    });
    prop::collection::vec(edit, 0..3)
}

fn option(range: std::ops::Range<i64>) -> impl Strategy<Value = Option<i64>> {
    prop::option::weighted(0.8, range)
}

fn acts() -> impl Strategy<Value = Act> {
    let lease = -5..40_i64;
    prop_oneof![
        3 => (0..TASKS, prop::option::of(0..2_u8), 0..2_u8, 0..3_usize, option(0..60), edits()).prop_map(
            |(task, key, asked, status, wake, changes)| Act::Create { task, key, asked, status, wake, changes }),
        8 => (0..TASKS, prop::bool::weighted(0.1), prop::option::of(0..4_u64), 0..3_u64, 0..3_usize, option(0..60), edits(), any::<bool>()).prop_map(
            |(task, behind, epoch, events, status, wake, changes, release)| Act::Append { task, behind, epoch, events, status, wake, changes, release }),
        2 => edits().prop_map(Act::Change),
        2 => (0..2_usize, edits()).prop_map(|(tenant, edits)| Act::Note(tenant, edits)),
        4 => (0..2_u8, lease.clone(), 0..3_u32).prop_map(|(node, lease_ms, limit)| Act::Claim { node, lease_ms, limit }),
        3 => (0..2_u8, prop::collection::vec((0..TASKS + 1, 0..4_u64), 0..4), lease).prop_map(
            |(node, held, lease_ms)| Act::Renew { node, held, lease_ms }),
        2 => (0..TASKS, 0..4_u64).prop_map(|(task, epoch)| Act::Release { task, epoch }),
        1 => (0..TASKS).prop_map(Act::Erase),
        1 => (0..TASKS, 0..3_u8).prop_map(|(task, byte)| Act::Blob(task, byte)),
        3 => (0..20_i64).prop_map(Act::Pass),
        2 => (0..TASKS, prop::option::of(0..2_usize), 0..6_u32).prop_map(|(task, tenant, limit)| Act::Look { task, tenant, limit }),
    ]
}

fn changes(edits: &[Edit]) -> Vec<Change> {
    let change = |edit: &Edit| Change {
        kind: Kind::ALL[usize::from(edit.record) % 2],
        tenant: TENANTS[usize::from(edit.record) / 2].to_owned(),
        id: format!("r{}", edit.record),
        expected: match edit.expected {
            None => Expected::Any,
            Some(0) => Expected::Absent,
            Some(version) => Expected::Version(version),
        },
        to: edit.stays.then(|| To {
            task: Some(id(edit.record)),
            due_at_ms: edit.due.map(|due| NOW + due),
            body: format!(r#"{{"due":{:?}}}"#, edit.due),
        }),
    };
    edits.iter().map(change).collect()
}

/// What came of it, without the words of failures, which are each log's own.
fn told<T: std::fmt::Debug>(answer: Result<T, AppendError>) -> String {
    match answer {
        Err(AppendError::Failed(_)) => "failed".to_owned(),
        other => format!("{other:?}"),
    }
}

/// Does it and tells all that was answered.
fn act(log: &dyn TaskLog, act: &Act) -> String {
    match act {
        Act::Create {
            task,
            key,
            asked,
            status,
            wake,
            changes: edits,
        } => {
            let mut new = new(
                *task,
                TENANTS[usize::from(*task) % 2],
                row(STATUSES[*status], wake.map(|at| NOW + at)),
            );
            let digest = orchestrator::Digest::of(&[*asked]);
            new.idempotency = key.map(|key| (format!("key-{key}"), digest));
            told(log.create(&new, &changes(edits)))
        }
        Act::Append {
            task,
            behind,
            epoch,
            events,
            status,
            wake,
            changes: edits,
            release,
        } => {
            let head = log
                .task(id(*task))
                .unwrap()
                .map(|row| row.head)
                .unwrap_or_default();
            let after = if *behind { Head::default() } else { head };
            let (events, _) = next(after, epoch.unwrap_or(0), *events);
            told(log.append(&Append {
                task: id(*task),
                after,
                epoch: *epoch,
                events: &events,
                row: &row(STATUSES[*status], wake.map(|at| NOW + at)),
                changes: &changes(edits),
                release: *release,
            }))
        }
        Act::Change(edits) => told(log.change(&changes(edits))),
        Act::Note(tenant, edits) => {
            let note = Note {
                tenant: TENANTS[*tenant].to_owned(),
                actor: "operator".to_owned(),
                kind: "standing.granted".to_owned(),
                at_ms: log.now_ms().unwrap(),
                payload: format!("{{\"edits\":{}}}", edits.len()),
            };
            told(log.note(&note, &changes(edits)))
        }
        Act::Claim {
            node,
            lease_ms,
            limit,
        } => {
            format!(
                "{:?}",
                log.claim(&format!("node-{node}"), *lease_ms, *limit)
                    .unwrap()
            )
        }
        Act::Renew {
            node,
            held,
            lease_ms,
        } => {
            let held: Vec<_> = held
                .iter()
                .map(|(task, epoch)| (id(*task), *epoch))
                .collect();
            format!(
                "{:?}",
                log.renew(&format!("node-{node}"), &held, *lease_ms)
                    .unwrap()
            )
        }
        Act::Release { task, epoch } => format!("{:?}", log.release(id(*task), *epoch).unwrap()),
        Act::Erase(task) => format!("{:?}", log.erase(id(*task)).unwrap()),
        Act::Blob(task, byte) => format!("{:?}", log.put_blob(id(*task), &[*byte]).unwrap()),
        Act::Pass(_) => format!("{:?}", log.now_ms().unwrap()),
        Act::Look {
            task,
            tenant,
            limit,
        } => {
            let filter = Filter {
                tenant: tenant.map(|it| TENANTS[it].to_owned()),
                statuses: vec![STATUSES[0].to_owned(), STATUSES[1].to_owned()],
                before: Some(id(*task)),
                limit: *limit,
            };
            format!(
                "{:?} {:?} {:?}",
                log.list(&filter).unwrap(),
                log.due(Kind::Standing, NOW + i64::from(*limit) * 9, *limit)
                    .unwrap(),
                log.events(id(*task), 1, *limit).unwrap(),
            )
        }
    }
}

/// All that is in a log.
fn all(log: &dyn TaskLog) -> String {
    let all = Filter {
        limit: 99,
        ..Filter::default()
    };
    let mut text = format!("{:#?}", log.list(&all).unwrap());
    let registers = TENANTS.map(TaskId::of_register);
    for task in (0..TASKS).map(id).chain(registers) {
        text += &format!("{:#?}", log.events(task, 0, 999).unwrap());
        for byte in 0..3_u8 {
            let blob = log.blob(task, orchestrator::Digest::of(&[byte]));
            text += &format!("{:?}", blob.unwrap());
        }
    }
    for kind in Kind::ALL {
        text += &format!("{:#?}", log.records(kind, None, "", 99).unwrap());
        text += &format!("{:#?}", log.records(kind, Some("acme"), "r0", 99).unwrap());
        text += &format!("{:#?}", log.due(kind, NOW + 25, 99).unwrap());
    }
    for tenant in log.tenants().unwrap() {
        text += &format!("{:#?}", log.links(&tenant, 0, 999).unwrap());
    }
    text
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn memory_and_sqlite_give_equal_answers(acts in prop::collection::vec(acts(), 1..120)) {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(AtomicI64::new(NOW));
        let shown = Arc::clone(&clock);
        let file = SqlTaskLog::open_file(
            &folder.path().join("tasks.sqlite3"),
            Arc::new(move || shown.load(Ordering::SeqCst)),
        ).unwrap();
        let memory = MemoryLog::new(NOW);
        for (n, one) in acts.iter().enumerate() {
            if let Act::Pass(ms) = one {
                clock.store(memory.advance_ms(*ms), Ordering::SeqCst);
            }
            let (expected, found) = (act(&memory, one), act(&file, one));
            prop_assert_eq!(found, expected, "act {}: {:?}", n, one);
        }
        prop_assert_eq!(all(&file), all(&memory));
    }
}
