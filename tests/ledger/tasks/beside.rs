//! Proves the rules of what stands beside the events of tasks: records that change only from what was
//! expected, all of a transaction or nothing, the audit chain of a tenant, blobs, and erasure.

use std::sync::Arc;

use orchestrator::digest::Digest;
use orchestrator::id::TaskId;
use orchestrator::log::{AppendError, Change, Expected, Head, Kind, Note, Record, To};

use super::{Tested, append, begin, id, look, new, on_all, row};
use crate::NOW;

on_all!(
    a_record_changes_only_from_what_was_expected,
    of_those_who_change_a_version_at_once_one_does,
    records_are_paged_and_the_longest_due_come_first,
    one_change_that_is_refused_undoes_the_whole_append,
    the_audit_chain_has_no_gaps_under_many_writers,
    what_people_change_is_noted_with_it_or_not_at_all,
    an_erased_log_can_still_be_checked,
    blobs_are_kept_once_for_each_task,
);

fn change(kind: Kind, tenant: &str, id: &str, expected: Expected, to: Option<To>) -> Change {
    Change {
        kind,
        tenant: tenant.to_owned(),
        id: id.to_owned(),
        expected,
        to,
    }
}

fn to(body: &str, due_at_ms: Option<i64>) -> Option<To> {
    Some(To {
        task: Some(id(1)),
        due_at_ms,
        body: body.to_owned(),
    })
}

fn request(expected: Expected, to: Option<To>) -> Change {
    change(Kind::Request, "acme", "r1", expected, to)
}

fn a_record_changes_only_from_what_was_expected(at: Tested) {
    let (log, other) = (&*at.log, at.other());
    let (absent, any, version) = (Expected::Absent, Expected::Any, Expected::Version);
    let body = || to(r#"{"a":"ü"}"#, Some(7));
    let refused = |expected, to| {
        let before = log.record(Kind::Request, "acme", "r1").unwrap();
        let done = other.change(&[request(expected, to)]);
        assert!(
            matches!(&done, Err(AppendError::Changed(Kind::Request, id)) if id == "r1"),
            "{done:?}"
        );
        assert_eq!(log.record(Kind::Request, "acme", "r1").unwrap(), before);
    };
    let done = |expected, to, version| {
        log.change(&[request(expected, to)]).unwrap();
        let found = other.record(Kind::Request, "acme", "r1").unwrap();
        assert_eq!(found.map_or(0, |it| it.version), version);
    };
    refused(version(1), body());
    refused(version(1), None);
    done(absent, None, 0);
    done(any, None, 0);
    done(absent, body(), 1);
    let expected = Record {
        kind: Kind::Request,
        tenant: "acme".to_owned(),
        id: "r1".to_owned(),
        version: 1,
        task: Some(id(1)),
        due_at_ms: Some(7),
        body: r#"{"a":"ü"}"#.to_owned(),
    };
    assert_eq!(
        log.record(Kind::Request, "acme", "r1").unwrap(),
        Some(expected)
    );
    refused(absent, body());
    refused(absent, None);
    refused(version(2), body());
    done(version(1), to("{}", None), 2);
    done(any, body(), 3);
    refused(version(2), None);
    done(version(3), None, 0);
    done(any, body(), 1);
    done(any, None, 0);
    assert_eq!(log.record(Kind::Pin, "acme", "r1").unwrap(), None);
}

fn of_those_who_change_a_version_at_once_one_does(at: Tested) {
    at.log
        .change(&[request(Expected::Absent, to("{}", None))])
        .unwrap();
    let logs = [Arc::clone(&at.log), at.other()];
    for round in 1..=5 {
        let done: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|n| {
                    let log = &logs[n % 2];
                    let mine = request(Expected::Version(round), to("{}", None));
                    scope.spawn(move || match log.change(&[mine]) {
                        Ok(()) => 1,
                        Err(AppendError::Changed(..)) => 0,
                        Err(other) => panic!("{other}"),
                    })
                })
                .collect();
            threads.into_iter().map(|it| it.join().unwrap()).sum()
        });
        assert_eq!(done, 1);
    }
}

fn records_are_paged_and_the_longest_due_come_first(at: Tested) {
    let log = &*at.log;
    let put = |kind, tenant: &str, id: &str, due| {
        let change = change(kind, tenant, id, Expected::Absent, to("{}", due));
        log.change(&[change]).unwrap();
    };
    put(Kind::Schedule, "acme", "b", Some(NOW + 3));
    put(Kind::Schedule, "acme", "B", Some(NOW + 1));
    put(Kind::Schedule, "beta", "é", Some(NOW + 2));
    put(Kind::Schedule, "beta", "a-1", None);
    put(Kind::Schedule, "", "a1", Some(NOW + 9));
    put(Kind::Notice, "acme", "n", Some(NOW));
    let ids = |found: Vec<Record>| -> Vec<String> { found.into_iter().map(|it| it.id).collect() };
    let page = |tenant, after, limit| {
        let found = log.records(Kind::Schedule, tenant, after, limit);
        ids(found.unwrap())
    };
    assert_eq!(
        page(None, "", 99),
        ["B", "a-1", "a1", "b", "é"],
        "by their bytes"
    );
    assert_eq!(page(None, "a-1", 2), ["a1", "b"]);
    assert_eq!(page(Some("acme"), "", 99), ["B", "b"]);
    assert_eq!(page(Some(""), "", 99), ["a1"]);
    let due = |at, limit| ids(log.due(Kind::Schedule, at, limit).unwrap());
    assert_eq!(due(NOW + 3, 99), ["B", "é", "b"]);
    assert_eq!(due(NOW + 3, 2), ["B", "é"]);
    assert_eq!(due(NOW, 99), Vec::<String>::new());
}

fn one_change_that_is_refused_undoes_the_whole_append(at: Tested) {
    let log = &*at.log;
    let task = begin(log, 1, 0);
    let before = (
        look(log, task),
        log.events(task, 0, 99).unwrap(),
        log.links("acme", 0, 99).unwrap(),
    );
    let standing =
        |id: &str, expected| change(Kind::Standing, "acme", id, expected, to("{}", None));
    log.change(&[standing("z", Expected::Absent)]).unwrap();
    let changes = [
        standing("a", Expected::Absent),
        standing("z", Expected::Version(2)),
        standing("m", Expected::Any),
    ];
    for refused in [
        append(log, task, None, &row("completed", None), &changes).map(|_| ()),
        log.change(&changes),
    ] {
        assert!(
            matches!(&refused, Err(AppendError::Changed(Kind::Standing, id)) if id == "z"),
            "{refused:?}"
        );
    }
    let after = (
        look(log, task),
        log.events(task, 0, 99).unwrap(),
        log.links("acme", 0, 99).unwrap(),
    );
    assert_eq!(after, before);
    let left = log.records(Kind::Standing, None, "", 99).unwrap();
    let left: Vec<_> = left.iter().map(|it| (it.id.as_str(), it.version)).collect();
    assert_eq!(left, [("z", 1)]);
    append(log, task, None, &row("completed", None), &changes[..1]).unwrap();
    assert!(log.record(Kind::Standing, "acme", "a").unwrap().is_some());
}

fn the_audit_chain_has_no_gaps_under_many_writers(at: Tested) {
    const WRITERS: u8 = 8;
    const EACH: usize = 15;
    for n in 0..WRITERS {
        begin(&*at.log, n, 0);
    }
    let stranger = new(99, "beta", row("queued", None));
    at.log.create(&stranger, &[]).unwrap();
    let logs = [Arc::clone(&at.log), at.other()];
    std::thread::scope(|scope| {
        for n in 0..WRITERS {
            let log = &logs[usize::from(n) % 2];
            scope.spawn(move || {
                for round in 0..EACH {
                    // Records that several of them write must not lock them up.
                    let shared =
                        |id: &str| change(Kind::Pin, "acme", id, Expected::Any, to("{}", None));
                    let mut both = vec![shared("x"), shared("y")];
                    if (usize::from(n) + round) % 2 == 0 {
                        both.reverse();
                    }
                    if round % 3 == 2 {
                        log.note(&noted(round), &both).unwrap();
                    } else {
                        append(&**log, id(n), None, &row("in_progress", None), &both).unwrap();
                    }
                }
            });
        }
    });
    let mut links = Vec::new();
    loop {
        let page = at.log.links("acme", links.len() as u64, 50).unwrap();
        if page.is_empty() {
            break;
        }
        links.extend(page);
    }
    assert_eq!(links.len(), usize::from(WRITERS) * (EACH + 1));
    let mut before = Digest::default();
    let mut heads = std::collections::BTreeMap::<TaskId, Head>::new();
    for (n, link) in (1..).zip(&links) {
        assert_eq!((link.n, link.hash), (n, link.chained(before)));
        before = link.hash;
        let last = heads.insert(link.task, link.head).unwrap_or_default();
        assert_eq!(link.head.seq, last.seq + 1, "in the order of commits");
        let event = &at.log.events(link.task, last.seq, 1).unwrap()[0];
        assert_eq!((event.hash, event.at_ms), (link.head.hash, link.at_ms));
    }
    assert_eq!(at.log.links("beta", 0, 9).unwrap().len(), 1);
    assert_eq!(at.log.tenants().unwrap(), ["acme", "beta"]);
}

fn noted(n: usize) -> Note {
    Note {
        tenant: "acme".into(),
        actor: "user:ana".into(),
        kind: "standing.granted".into(),
        at_ms: NOW + 7 - n as i64,
        payload: format!("{{\"n\":{n}}}"),
    }
}

fn what_people_change_is_noted_with_it_or_not_at_all(at: Tested) {
    let log = &*at.log;
    let task = begin(log, 1, 0);
    let makes = |id: &str| {
        let expected = Expected::Absent;
        change(Kind::Standing, "acme", id, expected, to("{}", None))
    };
    log.note(&noted(0), &[makes("a")]).unwrap();
    let refused = log.note(&noted(1), &[makes("b"), makes("a")]);
    assert!(matches!(refused, Err(AppendError::Changed(Kind::Standing, id)) if id == "a"));
    append(log, task, None, &row("in_progress", None), &[]).unwrap();
    at.other().note(&noted(2), &[makes("c")]).unwrap();
    let register = TaskId::of_register("acme");
    let events = at.other().events(register, 0, 9).unwrap();
    let told: Vec<_> = events
        .iter()
        .map(|it| (it.seq, &*it.actor, it.payload.as_deref().unwrap()))
        .collect();
    assert_eq!(
        told,
        [(1, "user:ana", "{\"n\":0}"), (2, "user:ana", "{\"n\":2}")]
    );
    assert!(events[0].at_ms <= events[1].at_ms, "time never goes back");
    let left = log.records(Kind::Standing, Some("acme"), "", 9).unwrap();
    let left: Vec<_> = left.iter().map(|it| &*it.id).collect();
    assert_eq!(left, ["a", "c"]);
    let links = log.links("acme", 0, 9).unwrap();
    let tasks: Vec<_> = links.iter().map(|it| it.task).collect();
    assert_eq!(tasks, [task, register, task, register]);
    assert!(log.task(register).unwrap().is_none(), "it is no task");
    let report = orchestrator::audit::verify(log, "acme").unwrap();
    assert!(report.ok && report.links == 4, "{report:?}");
    assert_eq!((report.tasks, report.events), (1, 4));
}

fn an_erased_log_can_still_be_checked(at: Tested) {
    let log = &*at.log;
    let (task, bystander) = (begin(log, 1, 0), begin(log, 2, 0));
    let digest = log.put_blob(task, b"a letter").unwrap();
    log.put_blob(bystander, b"a letter").unwrap();
    assert!(!log.erase(task).unwrap(), "it has not ended");
    assert!(!log.erase(id(9)).unwrap(), "there is none");
    let head = append(log, task, None, &row("completed", None), &[]).unwrap();
    let before = log.events(task, 0, 99).unwrap();
    let chain = log.links("acme", 0, 99).unwrap();
    let beside = |of: TaskId, kind: Kind| Change {
        kind,
        tenant: "acme".into(),
        id: format!("{of}-{}", kind.as_str()),
        expected: Expected::Absent,
        to: Some(To {
            task: Some(of),
            due_at_ms: None,
            body: "{\"said\":\"a letter\"}".into(),
        }),
    };
    let kinds = [Kind::Request, Kind::Notice, Kind::Response, Kind::Outcome];
    for of in [task, bystander] {
        log.change(&kinds.map(|kind| beside(of, kind))).unwrap();
    }
    assert!(log.erase(task).unwrap());
    assert!(log.erase(task).unwrap(), "twice is once");
    let left = |of: TaskId| {
        kinds.map(|kind| {
            let id = format!("{of}-{}", kind.as_str());
            at.other().record(kind, "acme", &id).unwrap().is_some()
        })
    };
    assert_eq!(left(task), [false, false, false, true]);
    assert_eq!(left(bystander), [true; 4]);
    let after = at.other().events(task, 0, 99).unwrap();
    assert!(after.iter().all(|event| event.payload.is_none()));
    assert_eq!(Head::default().behind(&after), Ok(head));
    let hashes = |events: &[orchestrator::log::Recorded]| -> Vec<_> {
        events.iter().map(|it| (it.payload_hash, it.hash)).collect()
    };
    assert_eq!(hashes(&after), hashes(&before));
    assert_eq!(log.links("acme", 0, 99).unwrap(), chain);
    assert_eq!(log.blob(task, digest).unwrap(), None);
    assert!(log.blob(bystander, digest).unwrap().is_some());
    assert!(log.events(bystander, 0, 9).unwrap()[0].payload.is_some());
}

fn blobs_are_kept_once_for_each_task(at: Tested) {
    let (log, other) = (&*at.log, at.other());
    let (one, two) = (begin(log, 1, 0), begin(log, 2, 0));
    let bytes: Vec<u8> = (0..200_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    let digest = log.put_blob(one, &bytes).unwrap();
    assert_eq!(digest, Digest::of(&bytes));
    assert_eq!(other.put_blob(one, &bytes).unwrap(), digest);
    assert_eq!(other.blob(one, digest).unwrap(), Some(bytes));
    assert_eq!(log.blob(two, digest).unwrap(), None, "another task's");
    assert_eq!(log.blob(one, Digest::of(b"else")).unwrap(), None);
    let empty = log.put_blob(two, b"").unwrap();
    assert_eq!(log.blob(two, empty).unwrap(), Some(Vec::new()));
}
