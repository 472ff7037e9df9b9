//! Proves what holds for a log that several desks share: a schedule fires once, whatever was missed or
//! overlaps; and an audit finds whatever was changed behind its back.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use orchestrator::actor::{self, Ports, Threads};
use orchestrator::commit::commit;
use orchestrator::desk::{self, About, Asked, Desk, NewSchedule};
use orchestrator::event::{Purpose, Status};
use orchestrator::log::{Change, Expected, Filter, Kind, TaskRow, To};
use orchestrator::model::Body;
use orchestrator::news::News;
use orchestrator::next::Policy;
use orchestrator::skill::Library;
use orchestrator::tool::builtin::{Builtins, FetchConfig, Limits};
use orchestrator::tool::host::{Host, Parts};
use orchestrator::worker::{Settings, Worker};
use orchestrator::{
    Caller, Digest, Event, TaskId, TaskLog, Toolbox, Usd, audit, notices, schedules,
};
use serde_json::{Value, json};
use store::SqlTaskLog;
use tokio_util::task::TaskTracker;
use tower::util::BoxCloneSyncService;

/// Noon of a Monday.
const NOON: i64 = 1_795_435_200_000;
const MINUTE: i64 = 60_000;

/// A clock that the test sets.
#[derive(Debug, Clone)]
struct Clock(Arc<AtomicI64>);

impl Clock {
    fn at(ms: i64) -> Self {
        Self(Arc::new(AtomicI64::new(ms)))
    }

    fn ms(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }

    fn set(&self, ms: i64) {
        self.0.store(ms, Ordering::SeqCst);
    }

    fn advance(&self, ms: i64) {
        self.0.fetch_add(ms, Ordering::SeqCst);
    }
}

fn open(folder: &Path, name: &str, clock: &Clock) -> Arc<SqlTaskLog> {
    let clock = clock.clone();
    let path = folder.join(name);
    Arc::new(SqlTaskLog::open_file(&path, Arc::new(move || clock.ms())).unwrap())
}

/// A desk of its own over the log in `folder`; nobody works on its tasks.
fn desk_over(folder: &Path, clock: &Clock) -> Arc<Desk> {
    let log: Arc<dyn TaskLog> = open(folder, "tasks.sqlite3", clock);
    let outbound = || proxy::outbound::any(&proxy::config::Upstream::default()).unwrap();
    let host = Host::new(
        Vec::new(),
        Parts {
            log: Arc::clone(&log),
            outbound: outbound(),
            tracker: TaskTracker::new(),
            guard: None,
        },
    );
    let builtins = Builtins::new(
        folder.join("work"),
        Limits::default(),
        FetchConfig::default(),
        outbound(),
    );
    let toolbox = Arc::new(Toolbox::new(Arc::new(host), builtins, Library::default()));
    let now = clock.clone();
    let nobody = tower::service_fn(|_: Request<Body>| async {
        let body = Full::default().map_err(|never: std::convert::Infallible| match never {});
        Ok(Response::new(body.boxed_unsync()))
    });
    let ports = Arc::new(Ports {
        log,
        tools: Arc::clone(&toolbox) as Arc<dyn orchestrator::Tools>,
        models: BoxCloneSyncService::new(nobody),
        settled: Arc::new(|_| Box::pin(async { None })),
        clock: Arc::new(move || now.ms()),
        random: Arc::new(|| {
            let mut random = [0; 10];
            getrandom(&mut random);
            random
        }),
        policy: Arc::new(Policy::default),
        secret: b"secret".to_vec(),
        threads: Threads::Pool,
        call_within: Duration::from_secs(1),
    });
    let settings = Settings {
        node: "n".into(),
        tasks: 1,
        lease: Duration::from_secs(30),
        poll: Duration::from_secs(1),
    };
    Desk::new(
        Worker::new(ports, settings),
        toolbox,
        News::default(),
        desk::Settings::default(),
    )
}

/// Ids that nobody else has, without a dependency of its own.
fn getrandom(bytes: &mut [u8; 10]) {
    static NEXT: AtomicI64 = AtomicI64::new(1);
    let next = NEXT.fetch_add(1, Ordering::SeqCst).to_be_bytes();
    bytes[2..].copy_from_slice(&next);
}

fn ana() -> Caller {
    Caller {
        tenant: "acme".into(),
        key: "k1".into(),
        ..Caller::default()
    }
}

fn brief() -> Value {
    json!({ "objective": "Look around.", "mode": "explore" })
}

/// A schedule of every minute.
fn minutely(change: &Value) -> NewSchedule {
    let mut new = json!({ "id": "tick", "cron": "* * * * *", "brief": brief() });
    new.as_object_mut()
        .unwrap()
        .extend(change.as_object().unwrap().clone());
    serde_json::from_value(new).unwrap()
}

async fn rows(desk: &Desk) -> Vec<TaskRow> {
    let filter = Filter {
        limit: 1_000,
        ..Filter::default()
    };
    let mut rows = desk.ask(move |log| log.list(&filter)).await.unwrap();
    rows.reverse();
    rows
}

/// Writes events of a task as whoever works on it would.
async fn write(desk: &Desk, task: TaskId, events: &[Event]) {
    let state = desk.state(&ana(), task).await.unwrap();
    let made = commit(&state, events, "task", desk.now_ms(), None).unwrap();
    let after = state.head;
    let appended = desk
        .ports()
        .ask(move |log| actor::append(log, task, after, None, &made))
        .await;
    appended.unwrap().unwrap();
}

async fn end(desk: &Desk, task: TaskId, status: Status) {
    let why = "the test says so".to_owned();
    write(desk, task, &[Event::Ended { status, why }]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_fires_once_on_two_nodes_that_look_at_the_same_time() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), Clock::at(NOON));
    let (one, other) = (
        desk_over(folder.path(), &clock),
        desk_over(folder.path(), &clock),
    );
    one.schedule(
        &ana(),
        minutely(&json!({ "overlap": "replace", "jitter_s": 20 })),
    )
    .await
    .unwrap();
    for minute in 1..=10 {
        // Jitter may put it off by twenty seconds, and never to the next minute.
        clock.set(NOON + minute * MINUTE + 25_000);
        let (mine, theirs) = tokio::join!(schedules::round(&one), schedules::round(&other));
        mine.unwrap();
        theirs.unwrap();
        let fired = rows(&one).await;
        assert_eq!(fired.len(), usize::try_from(minute).unwrap());
        assert_eq!(fired.last().unwrap().created_at_ms, clock.ms());
    }
    schedules::round(&other).await.unwrap();
    let all = rows(&other).await;
    assert_eq!(all.len(), 10, "nothing is made up for");
    let summary: Value = serde_json::from_str(&all[0].summary).unwrap();
    assert_eq!(
        (&summary["schedule"], &summary["key"]),
        (&json!("tick"), &json!("k1"))
    );
    let events = one
        .ask(move |log| log.events(all[0].id, 0, 10))
        .await
        .unwrap();
    assert_eq!(events[0].actor, "schedule:tick");
    assert!(
        events
            .iter()
            .any(|event| event.kind == "task.cancel_requested"),
        "replaced"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_missed_is_made_up_for_as_the_schedule_says() {
    for (missed, expected) in [
        (json!("skip"), 1),
        (json!("once"), 1),
        (json!({ "all": { "most": 3 } }), 4),
    ] {
        let (folder, clock) = (tempfile::tempdir().unwrap(), Clock::at(NOON));
        let desk = desk_over(folder.path(), &clock);
        let new = minutely(&json!({ "missed": missed, "overlap": "replace" }));
        desk.schedule(&ana(), new).await.unwrap();
        // Ten minutes without anybody; the last one is on time.
        clock.set(NOON + 10 * MINUTE + 30_000);
        for _ in 0..3 {
            schedules::round(&desk).await.unwrap();
        }
        assert_eq!(rows(&desk).await.len(), expected, "{missed}");
        // An hour later, and nothing is on time: the pattern comes at the full minute.
        let hourly =
            json!({ "id": "hour", "cron": "0 * * * *", "missed": missed, "overlap": "replace" });
        desk.schedule(&ana(), minutely(&hourly)).await.unwrap();
        desk.unschedule(&ana(), "tick").await.unwrap();
        clock.advance(3 * 60 * MINUTE + 20 * MINUTE);
        for _ in 0..3 {
            schedules::round(&desk).await.unwrap();
        }
        let late = match expected {
            4 => 3,
            _ if missed == "skip" => 0,
            _ => 1,
        };
        assert_eq!(rows(&desk).await.len(), expected + late, "{missed}");
        let (_, kept) = desk.scheduled(&ana(), "hour").await.unwrap();
        assert!(
            kept.due_at_ms(clock.ms()).unwrap() > clock.ms(),
            "{missed}: it looks ahead"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_overlaps_is_skipped_queued_or_takes_the_place_of_the_last() {
    for (overlap, at_once, behind) in [("skip", 1, 1), ("queue", 1, 3), ("replace", 3, 3)] {
        let (folder, clock) = (tempfile::tempdir().unwrap(), Clock::at(NOON));
        let desk = desk_over(folder.path(), &clock);
        desk.schedule(&ana(), minutely(&json!({ "overlap": overlap })))
            .await
            .unwrap();
        for _ in 0..3 {
            clock.advance(MINUTE);
            schedules::round(&desk).await.unwrap();
        }
        let begun = rows(&desk).await;
        assert_eq!(begun.len(), at_once, "{overlap}");
        let (_, kept) = desk.scheduled(&ana(), "tick").await.unwrap();
        assert_eq!(
            kept.held_back.is_some(),
            overlap == "skip",
            "{overlap}: {kept:?}"
        );
        assert_eq!(kept.queued.len(), if overlap == "queue" { 2 } else { 0 });
        // Whatever waits begins as the one before it ends.
        for _ in 0..3 {
            for row in rows(&desk).await.iter().filter(|row| !row.ended) {
                end(&desk, row.id, Status::Completed).await;
            }
            clock.advance(3_000);
            schedules::round(&desk).await.unwrap();
        }
        assert_eq!(rows(&desk).await.len(), behind, "{overlap}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_stops_at_its_spending_and_after_too_many_failures() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), Clock::at(NOON));
    let desk = desk_over(folder.path(), &clock);
    let new = minutely(&json!({
        "spend_per_period_usd": "0.05", "period": "day", "pause_after_failures": 2,
    }));
    desk.schedule(&ana(), new).await.unwrap();
    for cost in ["0.03", "0.03"] {
        clock.advance(MINUTE);
        schedules::round(&desk).await.unwrap();
        let task = rows(&desk).await.last().unwrap().id;
        let call = |cost: &str| {
            let requested = Event::ModelRequested {
                call: 1,
                purpose: Purpose::Plan,
                asked: "deep".into(),
                request: "req".into(),
                reserved: Usd::ZERO,
                prompt: Digest::default(),
            };
            let completed = Event::ModelCompleted {
                call: 1,
                text: String::new(),
                uses: Vec::new(),
                cut: false,
                model: "m".into(),
                tier: "deep".into(),
                route: "auto".into(),
                cost: Usd::parse(cost).unwrap(),
                input_tokens: 1,
                output_tokens: 1,
            };
            [requested, completed]
        };
        write(&desk, task, &call(cost)).await;
        end(&desk, task, Status::Completed).await;
    }
    for _ in 0..3 {
        clock.advance(MINUTE);
        schedules::round(&desk).await.unwrap();
    }
    assert_eq!(rows(&desk).await.len(), 2);
    let (_, kept) = desk.scheduled(&ana(), "tick").await.unwrap();
    assert_eq!(kept.spent, Usd::parse("0.06").unwrap());
    assert!(kept.held_back.unwrap().contains("0.06 of 0.05 USD"));
    // Another day is another period. Two that fail, one after the other, are enough.
    clock.set(NOON + 24 * 60 * MINUTE + 5_000);
    for status in [Status::Failed, Status::Incomplete] {
        clock.advance(MINUTE);
        schedules::round(&desk).await.unwrap();
        let task = rows(&desk).await.last().unwrap().id;
        end(&desk, task, status).await;
        clock.advance(3_000);
        schedules::round(&desk).await.unwrap();
    }
    clock.advance(10 * MINUTE);
    schedules::round(&desk).await.unwrap();
    assert_eq!(rows(&desk).await.len(), 4);
    let (_, kept) = desk.scheduled(&ana(), "tick").await.unwrap();
    assert!(!kept.schedule.enabled && kept.paused_why.unwrap().contains("2 tasks in a row"));
    // Switched on again it goes on from now, with a clean sheet.
    desk.reschedule(&ana(), "tick", &json!({ "enabled": true }))
        .await
        .unwrap();
    clock.advance(MINUTE);
    schedules::round(&desk).await.unwrap();
    assert_eq!(rows(&desk).await.len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notice_is_one_listeners_at_a_time_is_tried_for_three_days_and_kept_when_nobody_took_it()
{
    let (folder, clock) = (tempfile::tempdir().unwrap(), Clock::at(NOON));
    let log = open(folder.path(), "tasks.sqlite3", &clock);
    let body = json!({ "type": "task.ended", "webhook": "desk", "created_at_ms": NOON, "attempts": 0, "data": {} });
    let put = |id: &str| Change {
        kind: Kind::Notice,
        tenant: "acme".into(),
        id: id.into(),
        expected: Expected::Absent,
        to: Some(To {
            task: None,
            due_at_ms: Some(NOON),
            body: body.to_string(),
        }),
    };
    log.change(&[put("good"), put("bad")]).unwrap();
    let due = |log: &SqlTaskLog| notices::due(log, clock.ms(), 30_000, 10).unwrap();
    let (one, other) = (
        due(&log),
        due(&open(folder.path(), "tasks.sqlite3", &clock)),
    );
    assert_eq!((one.len(), other.len()), (2, 0), "leased");
    let bad = |all: &[notices::Notice]| all.iter().find(|it| it.id == "bad").unwrap().clone();
    let good = one.iter().find(|it| it.id == "good").unwrap();
    notices::told(&*log, good, Ok(()), clock.ms()).unwrap();
    notices::told(&*log, &bad(&one), Err("it is down"), clock.ms()).unwrap();
    let mut tries = 1;
    // Each wait is twice the one before, up to an hour, for three days.
    while clock.ms() < NOON + 80 * 60 * MINUTE {
        clock.advance(MINUTE);
        for notice in due(&log) {
            assert_eq!(notice.id, "bad", "what was taken does not come again");
            notices::told(&*log, &notice, Err("it is down"), clock.ms()).unwrap();
            tries += 1;
        }
    }
    assert!((78..90).contains(&tries), "{tries}");
    let record = log.record(Kind::Notice, "acme", "bad").unwrap().unwrap();
    let kept: Value = serde_json::from_str(&record.body).unwrap();
    assert!(
        notices::is_dead(&record) && kept["dead"] == true && kept["last_error"] == "it is down"
    );
    // Who lost the lease changes nothing.
    notices::told(&*log, &bad(&one), Ok(()), clock.ms()).unwrap();
    assert!(log.record(Kind::Notice, "acme", "bad").unwrap().is_some());
    assert!(log.record(Kind::Notice, "acme", "good").unwrap().is_none());
}

/// A log with some tasks in it.
async fn filled(folder: &Path, clock: &Clock) -> Vec<TaskId> {
    let desk = desk_over(folder, clock);
    let mut tasks = Vec::new();
    for n in 0..3 {
        let begun = desk.create(Asked::new(ana(), brief())).await.unwrap();
        let task = begun.state.id;
        clock.advance(1_000);
        desk.pause(&ana(), About::task(task), "wait").await.unwrap();
        desk.steer(&ana(), About::task(task), &format!("Number {n}."))
            .await
            .unwrap();
        desk.resume(&ana(), About::task(task)).await.unwrap();
        end(&desk, task, Status::Completed).await;
        tasks.push(task);
    }
    tasks
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_finds_whatever_was_changed_behind_the_logs_back() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), Clock::at(NOON));
    let tasks = filled(folder.path(), &clock).await;
    let whole = open(folder.path(), "tasks.sqlite3", &clock);
    let report = audit::verify(&*whole, "acme").unwrap();
    assert!(report.ok, "{report:?}");
    assert_eq!((report.tasks, report.events, report.links), (3, 15, 15));
    let before = report.head;
    let second = "(SELECT id FROM task_row ORDER BY id LIMIT 1 OFFSET 1)";
    for (n, (what, sql)) in [
        ("link 5 is missing", "DELETE FROM task_link WHERE n = 5".to_owned()),
        ("the link does not follow", "UPDATE task_link SET at_ms = at_ms + 1 WHERE n = 5".to_owned()),
        ("the event is not the one", format!("UPDATE task_event SET payload = replace(payload, 'Number', 'Numbed') WHERE task_id = {second} AND seq = 3")),
        ("the event is not the one", format!("UPDATE task_event SET actor = 'operator' WHERE task_id = {second} AND seq = 2")),
        ("the event is not the one", format!("DELETE FROM task_event WHERE task_id = {second} AND seq = 3")),
        ("is not there", format!("DELETE FROM task_event WHERE task_id = {second} AND seq = 5")),
        ("is not there", format!("DELETE FROM task_event WHERE task_id = {second}")),
        ("the task's row is gone", format!("DELETE FROM task_row WHERE id = {second}")),
        ("the task's row does not fit", format!("UPDATE task_row SET head_hash = zeroblob(32) WHERE id = {second}")),
        ("no link of the chain points", "DELETE FROM task_link WHERE n > 10".to_owned()),
        ("no link points at", "DELETE FROM task_link WHERE n = 15".to_owned()),
    ].into_iter().enumerate() {
        let name = format!("copy{n}.sqlite3");
        let copy = folder.path().join(&name);
        let source = rusqlite::Connection::open(folder.path().join("tasks.sqlite3")).unwrap();
        source.execute("VACUUM INTO ?1", [copy.to_str().unwrap()]).unwrap();
        let connection = rusqlite::Connection::open(&copy).unwrap();
        let changed = connection.execute(&sql, []).unwrap();
        assert!(changed > 0, "{sql}");
        drop(connection);
        let tampered = open(folder.path(), &name, &clock);
        let report = audit::verify(&*tampered, "acme").unwrap();
        assert!(!report.ok && report.found > 0, "{sql}");
        let told: Vec<&str> = report.findings.iter().map(|it| it.what.as_str()).collect();
        assert!(told.iter().any(|it| it.contains(what)), "{sql}: {told:?}");
    }
    // Forgetting what was said is no change of what was written.
    assert!(whole.erase(tasks[1]).unwrap());
    let report = audit::verify(&*whole, "acme").unwrap();
    assert!(
        report.ok && report.erased == 5 && report.head == before,
        "{report:?}"
    );
    assert!(audit::verify(&*whole, "nobody").unwrap().ok);
}
