//! Orderly ends and starts: SIGTERM lets acts end and gives tasks back, what a killed program was at goes on
//! with its next start, and of two nodes one fires a schedule.

use std::path::PathBuf;

use bench::upstream::Upstream;
use orchestrator::TaskLog as _;
use orchestrator::log::{Change, Expected, Kind, To};
use serde_json::{Value, json};
use store::SqlTaskLog;
use tests::{Client, Process};
use tokio_util::sync::CancellationToken;

use crate::kill::Random;
use crate::tasks_compare::{Books, Counts, account, compare, entries_of_file, verify};
use crate::tasks_kill::{bill, gone};
use crate::tasks_nodes::Pair;
use crate::tasks_person::Person;
use crate::tasks_stage::{create, endpoints, open, recorded, recorder, task, until};
use crate::{PROGRAM, caller, key};

const ERRANDS: usize = 6;
const SCHEDULES: usize = 4;
/// Due times of each that have been missed.
const MISSED: usize = 5;
/// Due times are years apart, so that none falls into the test.
const DECADE_MS: i64 = 10 * 365 * 24 * 3_600_000;

/// A gateway that is ended while tasks are under way. Its leases outlast every test.
struct Run {
    folder: tempfile::TempDir,
    config: PathBuf,
    log: PathBuf,
    key: String,
    person: Person,
    ids: Vec<String>,
}

impl Run {
    fn prepare(upstreams: &[Upstream; 2]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("recorded.jsonl");
        let tail = format!("[orchestrator]\nlease_s = 3600\n{}", recorder(&log, 150));
        let config = crate::config(folder.path(), &upstreams[0], &upstreams[1], &tail);
        Self {
            key: key(&config, "acme"),
            config,
            person: Person::new(log.clone(), 7),
            log,
            ids: Vec::new(),
            folder,
        }
    }

    /// Starts, begins all errands and waits until a tool is at work.
    async fn until_acting(&mut self) -> Process {
        let process = Process::start(PROGRAM, &self.config).await;
        let client = caller(&process, &self.key);
        for n in 0..ERRANDS {
            let reply = create(&client, n).await;
            assert_eq!(reply.status, 201, "{}", reply.text());
            self.ids
                .push(reply.json()["id"].as_str().unwrap().to_owned());
        }
        let ids = self.ids.clone();
        let acting = async || {
            for id in &ids {
                if task(&client, id).await["activity"] == "acting" {
                    return Some(());
                }
            }
            None
        };
        until("a tool at work", acting).await;
        process
    }

    /// Starts again, carries all to the end and compares.
    async fn to_the_end(&self, upstreams: &[Upstream; 2]) -> Counts {
        let process = Process::start(PROGRAM, &self.config).await;
        let client = caller(&process, &self.key);
        let stop = CancellationToken::new();
        let doors = [client.clone()];
        let ending = async {
            let ended = async || open(&client, &self.ids).await.is_empty().then_some(());
            until("the end of all tasks", ended).await;
            stop.cancel();
        };
        tokio::join!(self.person.sit(&doors, Random(7), stop.clone()), ending);
        let mut accounts = Vec::new();
        for id in &self.ids {
            accounts.push(account(&client, id).await);
        }
        verify(&client).await;
        self.end(process).await;
        let books = Books {
            accounts: &accounts,
            recorded: &recorded(&self.log),
            entries: &entries_of_file(&self.folder.path().join("data/ledger.sqlite3")),
            bill: &bill(upstreams).await,
            one_node: true,
        };
        compare(&books, &self.person)
    }

    async fn end(&self, process: Process) {
        process.signal("TERM");
        let mut child = process.child;
        assert!(child.wait().await.unwrap().success());
        gone(&self.log).await;
    }

    /// Tasks that somebody holds, by the file of their log.
    fn held(&self) -> i64 {
        let log =
            rusqlite::Connection::open(self.folder.path().join("data/tasks.sqlite3")).unwrap();
        let sql = "SELECT COUNT(*) FROM task_row WHERE leased_by <> '' OR leased_until_ms > 0";
        log.query_row(sql, [], |row| row.get(0)).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_lets_acts_end_and_gives_tasks_back() {
    let upstreams = endpoints(ERRANDS, 6).await;
    let mut run = Run::prepare(&upstreams);
    let process = run.until_acting().await;
    run.end(process).await;
    assert_eq!(run.held(), 0, "all leases are given back");
    let counts = run.to_the_end(&upstreams).await;
    println!("{counts:?}");
    assert_eq!(
        (counts.in_doubt, counts.unknown, counts.lost_calls),
        (0, 0, 0),
        "{counts:?}"
    );
    assert_eq!(
        (counts.tasks, counts.completed),
        (ERRANDS, ERRANDS),
        "{counts:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_program_was_at_goes_on_with_its_next_start() {
    let upstreams = endpoints(ERRANDS, 6).await;
    let mut run = Run::prepare(&upstreams);
    let process = run.until_acting().await;
    process.kill().await;
    gone(&run.log).await;
    assert!(run.held() > 0, "it died with leases");
    let counts = run.to_the_end(&upstreams).await;
    println!("{counts:?}");
    assert!(counts.in_doubt > 0, "{counts:?}");
    assert_eq!(
        (counts.tasks, counts.completed),
        (ERRANDS, ERRANDS),
        "{counts:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schedule_that_is_due_on_two_nodes_fires_once() {
    let (url, _server) = tests::postgres::database();
    let upstreams = endpoints(SCHEDULES, 6).await;
    let pair = Pair::start(&url, &upstreams).await;
    let client = &pair.nodes[0].client;
    for n in 0..SCHEDULES {
        let body = json!({
            "id": format!("s{n}"), "cron": "0 0 1 1 *", "missed": { "all": { "most": MISSED } }, "overlap": "queue",
            "brief": { "objective": format!("Errand k{n}. Only plan it."), "mode": "plan_only" },
        });
        let made = client.post("/v1/schedules", body.to_string()).await;
        assert_eq!(made.status, 201, "{}", made.text());
    }
    tokio::task::spawn_blocking(move || were_missed(&url))
        .await
        .unwrap();
    let wanted = SCHEDULES * MISSED;
    let fired = async || {
        let tasks = tasks(client).await;
        let ended = tasks.iter().filter(|it| it["phase"] == "ended").count();
        (ended >= wanted && idle(client).await).then_some(tasks)
    };
    let tasks = until("all that is due", fired).await;
    let mut by_schedule = [0; SCHEDULES];
    for task in &tasks {
        assert_eq!(task["status"], "completed", "{task:#}");
        let schedule = task["schedule"].as_str().unwrap();
        by_schedule[schedule[1..].parse::<usize>().unwrap()] += 1;
    }
    assert_eq!(
        by_schedule, [MISSED; SCHEDULES],
        "each due time is one task"
    );
    verify(client).await;
    pair.stop().await;
}

async fn tasks(client: &Client) -> Vec<Value> {
    let tasks = client.get("/v1/tasks?limit=200").await.json();
    tasks["data"].as_array().unwrap().clone()
}

/// Whether nothing of any schedule waits to be begun.
async fn idle(client: &Client) -> bool {
    let schedules = client.get("/v1/schedules?limit=200").await.json();
    let mut schedules = schedules["data"].as_array().unwrap().iter();
    schedules.all(|it| it["queued"].as_array().is_none_or(Vec::is_empty))
}

/// Sets all schedules back, so that both nodes find the same due times in their next round.
fn were_missed(url: &str) {
    let log = SqlTaskLog::open_server(url).unwrap();
    let now_ms = log.now_ms().unwrap();
    let records = log.records(Kind::Schedule, Some("acme"), "", 100).unwrap();
    assert_eq!(records.len(), SCHEDULES);
    let changes = records.into_iter().map(|record| {
        let mut body: Value = serde_json::from_str(&record.body).unwrap();
        // Longer ago than all that is made up for.
        body["schedule"]["last_due_ms"] = (now_ms - DECADE_MS).into();
        Change {
            kind: Kind::Schedule,
            tenant: record.tenant,
            id: record.id,
            expected: Expected::Version(record.version),
            to: Some(To {
                task: None,
                due_at_ms: Some(now_ms),
                body: body.to_string(),
            }),
        }
    });
    log.change(&changes.collect::<Vec<_>>()).unwrap();
}
