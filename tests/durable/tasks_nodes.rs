//! Two gateways on one PostgreSQL server, each with a recorder of its own that writes into one log. One is
//! frozen with acts under way and thawed when the other has long gone on: nothing more of those tasks may
//! leave it, and nothing happens twice.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use bench::upstream::Upstream;
use serde_json::Value;
use tests::{Client, Process};
use tokio_util::sync::CancellationToken;

use crate::kill::{Random, seed};
use crate::tasks_compare::{Account, Books, account, compare, entries_of_server, verify};
use crate::tasks_kill::{bill, gone};
use crate::tasks_person::Person;
use crate::tasks_stage::{create, endpoints, open, recorded, recorder, running, task, until};
use crate::{PROGRAM, caller, key};

/// Freezes; `PARETO_TASK_FREEZES` says otherwise.
const FREEZES: &str = "6";
/// Errands begun before each freeze, and behind each.
const BEFORE: usize = 6;
const BEHIND: usize = 2;
/// Requests that are decided at one node while the other holds their task.
const ACROSS: usize = 3;
const ERRANDS: usize = 200;
/// How long a recorder on a busy machine may take to read what has been sent, in milliseconds; a freeze
/// lasts longer behind the end of a lease.
const READING_MS: i64 = 150;
/// What the database server knows the nodes by.
const NAMES: [&str; 2] = ["a", "b"];

/// What stands in the database that both nodes share.
pub(crate) struct Board(Mutex<Option<postgres::Client>>);

/// A task that a node holds.
#[derive(Debug, Clone)]
struct Held {
    id: String,
    epoch: i64,
    seq: i64,
    activity: String,
    ended: bool,
    leased_by: String,
}

impl Board {
    pub(crate) fn at(url: &str) -> Self {
        let connected =
            tokio::task::block_in_place(|| postgres::Client::connect(url, postgres::NoTls));
        Self(Mutex::new(Some(connected.unwrap())))
    }

    fn ask(
        &self,
        sql: &str,
        values: &[&(dyn postgres::types::ToSql + Sync)],
    ) -> Vec<postgres::Row> {
        let mut client = self.0.lock().unwrap();
        tokio::task::block_in_place(|| client.as_mut().unwrap().query(sql, values)).unwrap()
    }

    fn tasks(&self, rest: &str, node: &str) -> Vec<Held> {
        let sql = format!(
            "SELECT encode(id, 'hex'), epoch, head_seq, summary, ended, leased_by FROM task_row WHERE {rest}"
        );
        let rows = self.ask(&sql, &[&node]);
        let read = |row: &postgres::Row| {
            let summary: Value = serde_json::from_str(row.get(3)).unwrap();
            Held {
                id: format!("task_{}", row.get::<_, String>(0)),
                epoch: row.get(1),
                seq: row.get(2),
                activity: summary["activity"].as_str().unwrap().to_owned(),
                ended: row.get::<_, i64>(4) == 1,
                leased_by: row.get(5),
            }
        };
        rows.iter().map(read).collect()
    }

    /// What a node holds.
    fn held(&self, node: &str) -> Vec<Held> {
        self.tasks("ended = 0 AND leased_by = $1", node)
    }

    /// Whether the server waits for a node in the middle of a transaction that holds a task.
    fn is_in_transaction(&self, which: usize) -> bool {
        let sql = "SELECT 1 FROM pg_stat_activity a JOIN pg_locks l USING (pid)
                   WHERE a.application_name = $1 AND a.state = 'idle in transaction'
                   AND l.relation = 'task_row'::regclass AND l.mode = 'RowExclusiveLock'";
        !self.ask(sql, &[&NAMES[which]]).is_empty()
    }

    /// A task as it is now.
    fn now(&self, id: &str) -> Held {
        self.tasks("encode(id, 'hex') = $1", &id["task_".len()..])
            .remove(0)
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        let client = self.0.lock().unwrap().take();
        tokio::task::block_in_place(|| drop(client));
    }
}

/// One gateway.
pub(crate) struct Node {
    pub(crate) process: Process,
    pub(crate) client: Client,
    name: String,
}

/// Two nodes on one database, and what they share.
pub(crate) struct Pair {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) log: PathBuf,
    pub(crate) nodes: [Node; 2],
}

impl Pair {
    pub(crate) async fn start(url: &str, upstreams: &[Upstream; 2]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("recorded.jsonl");
        let tail = format!(
            "[orchestrator]\nlease_s = 1\nsecret = \"shared\"\n{}",
            recorder(&log, 8)
        );
        let [fast, deep] = upstreams;
        let configs = NAMES.map(|name| {
            let place = folder.path().join(name);
            let url = format!("{url}?application_name={name}");
            (crate::nodes::node(&place, &url, [fast, deep], &tail), place)
        });
        let key = key(&configs[0].0, "acme");
        let start = async |(config, place): &(PathBuf, PathBuf)| {
            let process = Process::start(PROGRAM, config).await;
            Node {
                client: caller(&process, &key),
                process,
                name: std::fs::read_to_string(place.join("data/node.id"))
                    .unwrap()
                    .trim()
                    .to_owned(),
            }
        };
        let nodes = [start(&configs[0]).await, start(&configs[1]).await];
        Self { folder, log, nodes }
    }

    /// Ends both in order, and waits until nothing of them is left.
    pub(crate) async fn stop(self) -> (tempfile::TempDir, PathBuf) {
        for node in self.nodes {
            node.process.signal("TERM");
            let mut child = node.process.child;
            assert!(child.wait().await.unwrap().success());
        }
        gone(&self.log).await;
        (self.folder, self.log)
    }
}

/// One run of the test.
struct Run {
    board: Board,
    random: Random,
    person: Person,
    ids: Vec<String>,
    /// The recorders that were seen, and whose each was.
    servers: BTreeMap<u64, String>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_node_is_fenced_and_its_work_goes_on_elsewhere() {
    let freezes: usize = std::env::var("PARETO_TASK_FREEZES")
        .as_deref()
        .unwrap_or(FREEZES)
        .parse()
        .unwrap();
    let seed = seed();
    println!("PARETO_SEED={seed}");
    let (url, _server) = tests::postgres::database();
    let upstreams = endpoints(ERRANDS, 6).await;
    let pair = Pair::start(&url, &upstreams).await;
    let mut run = Run {
        board: Board::at(&url),
        random: Random(seed),
        person: Person::new(pair.log.clone(), seed),
        ids: Vec::new(),
        servers: BTreeMap::new(),
    };
    let mut taken_over = 0;
    for freeze in 0..freezes {
        let at = [Moment::Any, Moment::Any, Moment::Writing, Moment::Writing][freeze % 4];
        taken_over += run.freeze(&pair, freeze % 2, at).await;
    }
    run.across(&pair).await;
    run.carry_on(&pair).await;
    let [one, other] = [&pair.nodes[0].client, &pair.nodes[1].client];
    let mut accounts = Vec::new();
    for id in &run.ids {
        accounts.push(account(one, id).await);
    }
    verify(one).await;
    verify(other).await;
    run.look_at_servers(&pair);
    let (_folder, log) = pair.stop().await;
    let bill = bill(&upstreams).await;
    let lines = recorded(&log);
    let entries = tokio::task::spawn_blocking(move || entries_of_server(&url))
        .await
        .unwrap();
    let books = Books {
        accounts: &accounts,
        recorded: &lines,
        entries: &entries,
        bill: &bill,
        one_node: false,
    };
    let counts = compare(&books, &run.person);
    for account in &accounts {
        fenced(account, &lines, &run.servers);
    }
    println!("{freezes} freezes, {taken_over} tasks taken over: {counts:?}");
    assert!(counts.completed * 2 > counts.tasks, "{counts:?}");
    assert!(
        taken_over >= freezes && counts.in_doubt > 0,
        "nothing was under way: {counts:?}"
    );
}

impl Run {
    /// Begins errands at these doors by turns.
    async fn begin(&mut self, doors: &[&Client], many: usize) {
        for _ in 0..many {
            let n = self.ids.len();
            assert!(n < ERRANDS, "the play is too short");
            // A node that was frozen closes connections that were idle for too long, under our hands.
            let reply = until("an answer", async || {
                let reply = create(doors[n % doors.len()], n).await;
                (reply.status != 0).then_some(reply)
            })
            .await;
            assert!(matches!(reply.status, 200 | 201), "{}", reply.text());
            self.ids
                .push(reply.json()["id"].as_str().unwrap().to_owned());
        }
    }

    /// The person sits at these doors while something goes on.
    async fn while_sitting<T>(
        &mut self,
        doors: &[&Client],
        going_on: impl Future<Output = T>,
    ) -> T {
        let doors: Vec<Client> = doors.iter().map(|door| (*door).clone()).collect();
        let random = Random(self.random.below(1 << 40) | 1);
        let stop = CancellationToken::new();
        let sitting = self.person.sit(&doors, random, stop.clone());
        let going_on = async {
            let came = going_on.await;
            stop.cancel();
            came
        };
        tokio::join!(sitting, going_on).1
    }

    /// Notes whose recorders are running.
    fn look_at_servers(&mut self, pair: &Pair) {
        let owners = pair
            .nodes
            .each_ref()
            .map(|node| (u64::from(node.process.child.id().unwrap()), &node.name));
        for path in running(&pair.log) {
            let id = |path: &Path| {
                path.file_name()
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .parse::<u64>()
                    .ok()
            };
            let (guard, server) = (parent(&path), id(&path));
            let owner = guard.and_then(|guard| parent(&PathBuf::from(format!("/proc/{guard}"))));
            if let (Some(server), Some((_, name))) =
                (server, owners.iter().find(|it| Some(it.0) == owner))
            {
                self.servers.insert(server, (*name).clone());
            }
        }
    }

    /// Freezes one node with acts under way, until the other has gone on with all that it held. Tells how
    /// many tasks those were.
    async fn freeze(&mut self, pair: &Pair, which: usize, at: Moment) -> usize {
        let (victim, other) = (&pair.nodes[which], &pair.nodes[1 - which]);
        self.begin(&[&victim.client, &victim.client, &other.client], BEFORE)
            .await;
        // The person stops before the freeze, so that no word hangs at a closed door.
        let pause = Duration::from_millis(self.random.below(30));
        self.while_sitting(&[&victim.client, &other.client], tokio::time::sleep(pause))
            .await;
        self.stop(pair, which, at).await;
        self.look_at_servers(pair);
        let held = self.board.held(&victim.name);
        let taken = async || {
            let mut now = held.iter().map(|it| (it, self.board.now(&it.id)));
            now.all(|(then, now)| now.ended || (now.epoch > then.epoch && now.seq > then.seq))
                .then_some(())
        };
        until("the other node's taking over", taken).await;
        self.while_sitting(
            &[&other.client],
            tokio::time::sleep(Duration::from_millis(300)),
        )
        .await;
        victim.process.signal("CONT");
        self.begin(&[&victim.client], BEHIND).await;
        let doors = [&victim.client, &other.client];
        // The other node may be quicker with any of them; in the end one goes to the thawed node.
        for round in 0.. {
            let newest: Vec<String> = self.ids.iter().rev().take(BEHIND).cloned().collect();
            let goes_on = async || {
                for id in &newest {
                    let told = account(&other.client, id).await;
                    let mut events = told.events.iter();
                    if events.any(|it| it["data"]["node"] == victim.name.as_str()) {
                        return Some(());
                    }
                }
                None
            };
            let waiting = until("new work of the thawed node", goes_on);
            let waiting = tokio::time::timeout(Duration::from_secs(4), waiting);
            let mut went = false;
            self.while_sitting(&doors, async { went = waiting.await.is_ok() })
                .await;
            if went {
                break;
            }
            assert!(round < 10, "the thawed node takes no work");
            self.begin(&[&victim.client], BEHIND).await;
        }
        held.len()
    }

    /// Stops a node while it holds tasks, at the moment that is wanted.
    async fn stop(&mut self, pair: &Pair, which: usize, at: Moment) {
        let victim = &pair.nodes[which];
        for tries in 0.. {
            if tries % 200 == 199 {
                self.begin(&[&victim.client], BEFORE).await;
            }
            let acting = self
                .board
                .held(&victim.name)
                .iter()
                .any(|it| it.activity == "acting");
            if acting {
                victim.process.signal("STOP");
                if at == Moment::Any || self.board.is_in_transaction(which) {
                    return;
                }
                victim.process.signal("CONT");
            }
            let pause = Duration::from_millis(self.random.below(5));
            self.while_sitting(&[&victim.client], tokio::time::sleep(pause))
                .await;
        }
    }

    /// What one node holds may be decided at the other.
    async fn across(&mut self, pair: &Pair) {
        let [one, other] = &pair.nodes;
        let mut decided = Vec::new();
        while decided.len() < ACROSS {
            self.begin(&[&other.client], 1).await;
            let id = self.ids.last().unwrap().clone();
            let asked = async || {
                let task = task(&one.client, &id).await;
                let ended = task["phase"] == "ended";
                let request = task["required_actions"].get(0).cloned();
                (ended || request.is_some()).then_some(request)
            };
            let Some(request) = until("a request", asked).await else {
                continue;
            };
            let name = request["id"].as_str().unwrap();
            if !self.person.agrees(name) {
                continue;
            }
            let before = self.board.now(&id);
            self.person.decide(&one.client, &request).await.unwrap();
            let after = self.board.now(&id);
            if before.epoch == after.epoch && before.leased_by == other.name {
                decided.push((id, request));
            }
        }
        for (id, request) in decided {
            let wakes = async || {
                let told = account(&one.client, &id).await;
                let items = request["items"].as_array().unwrap();
                let done = |item: &Value| {
                    let about = |it: &Value| {
                        it["type"] == "effect.committed" && it["data"]["effect"] == item["effect"]
                    };
                    item["effect"].is_null() || told.events.iter().any(about)
                };
                items.iter().all(done).then_some(())
            };
            until("what was approved at the other node", wakes).await;
        }
    }

    async fn carry_on(&mut self, pair: &Pair) {
        let [one, other] = &pair.nodes;
        let ids = self.ids.clone();
        let ended = async || open(&one.client, &ids).await.is_empty().then_some(());
        self.while_sitting(
            &[&one.client, &other.client],
            until("the end of all tasks", ended),
        )
        .await;
    }
}

/// When a node is frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// While an act is under way.
    Any,
    /// In the middle of a transaction as well, whose locks the others need.
    Writing,
}

/// The parent of a process.
fn parent(path: &Path) -> Option<u64> {
    let status = std::fs::read_to_string(path.join("status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    line.trim().parse().ok()
}

/// Holds that a node acts only under a lease of its own: whatever its recorder did, the node had committed
/// under a lease that nobody had taken over by then.
fn fenced(account: &Account, lines: &[Value], servers: &BTreeMap<u64, String>) {
    let mut lease = ("", 0);
    let mut commits: Vec<(&str, &str, i64, i64)> = Vec::new();
    for event in &account.events {
        let at_ms = event["at_ms"].as_i64().unwrap();
        let epoch = event["lease"].as_i64().unwrap();
        assert!(
            epoch >= lease.1,
            "a lease that was lost has written: {event}"
        );
        if event["type"] == "task.taken" {
            for commit in commits.iter_mut().filter(|it| it.3 == i64::MAX) {
                commit.3 = at_ms;
            }
            lease = (event["data"]["node"].as_str().unwrap(), epoch);
        }
        if event["type"] == "effect.committed" {
            commits.push((
                event["data"]["effect"].as_str().unwrap(),
                lease.0,
                at_ms,
                i64::MAX,
            ));
        }
    }
    for (id, key) in account.keys() {
        for line in lines.iter().filter(|line| line["key"] == key) {
            let node = &servers[&line["pid"].as_u64().unwrap()];
            let at_ms = line["at_ms"].as_i64().unwrap();
            let mut commits = commits.iter();
            let own = commits.any(|it| {
                let until = it.3.saturating_add(READING_MS);
                it.0 == id && it.1 == node && it.2 <= at_ms && at_ms <= until
            });
            assert!(
                own,
                "{node} acted when the task was not its own any more: {line}\n{:#?}",
                account.events
            );
        }
    }
}
