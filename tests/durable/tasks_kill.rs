//! `kill -9` at random moments while tasks are under way: between an act and its being written down, under
//! the hands of whoever approves, in the middle of a start. What the recorder did is the oracle.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bench::upstream::Upstream;
use tests::{Client, Process};
use tokio_util::sync::CancellationToken;

use crate::kill::{Random, seed};
use crate::tasks_compare::{Books, account, compare, entries_of_file, verify};
use crate::tasks_person::Person;
use crate::tasks_stage::{create, endpoints, open, recorded, recorder, running, until};
use crate::{PROGRAM, caller, key};

/// Rounds of starting, working and killing; `PARETO_TASK_KILLS` says otherwise.
const ROUNDS: &str = "200";
/// Tasks that are begun on the way.
const ERRANDS: usize = 40;
/// The longest that a process lives, in milliseconds.
const LIFE_MS: u64 = 900;
/// How long models take to answer, and tools to act and then to tell, so that most kills find something
/// under way.
const PACE_MS: u64 = 60;

/// One run of the test.
struct Run {
    folder: tempfile::TempDir,
    config: PathBuf,
    log: PathBuf,
    key: String,
    random: Random,
    person: Person,
    /// The tasks by their errands, as soon as their ids were told.
    tasks: Vec<Option<String>>,
    kills: usize,
    /// Recorders of the process that was killed last, and their guards.
    left: Vec<PathBuf>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_random_moments_tasks_repeat_no_effect_and_lose_none() {
    let rounds: usize = std::env::var("PARETO_TASK_KILLS")
        .as_deref()
        .unwrap_or(ROUNDS)
        .parse()
        .unwrap();
    let upstreams = endpoints(ERRANDS, PACE_MS).await;
    let mut run = Run::prepare(&upstreams);
    for round in 0..rounds {
        // The first nine tenths of the rounds begin all tasks.
        let begun = (round + 1) * ERRANDS * 10 / (rounds * 9);
        run.round(begun.min(ERRANDS)).await;
    }
    let process = Process::start(PROGRAM, &run.config).await;
    let client = caller(&process, &run.key);
    run.begin(&client, ERRANDS).await;
    let ids: Vec<String> = run.tasks.iter().flatten().cloned().collect();
    assert_eq!(ids.len(), ERRANDS, "every errand is a task");
    let stop = CancellationToken::new();
    let doors = [client.clone()];
    let sitting = run
        .person
        .sit(&doors, Random(run.random.below(1 << 40) | 1), stop.clone());
    let ending = async {
        until("the end of all tasks", async || {
            open(&client, &ids).await.is_empty().then_some(())
        })
        .await;
        stop.cancel();
    };
    tokio::join!(sitting, ending);
    let mut accounts = Vec::new();
    for id in &ids {
        accounts.push(account(&client, id).await);
    }
    verify(&client).await;
    process.signal("TERM");
    let mut child = process.child;
    assert!(child.wait().await.unwrap().success());
    gone(&run.log).await;
    let bill = bill(&upstreams).await;
    let counts = compare(
        &Books {
            accounts: &accounts,
            recorded: &recorded(&run.log),
            entries: &entries_of_file(&run.folder.path().join("data/ledger.sqlite3")),
            bill: &bill,
            one_node: true,
        },
        &run.person,
    );
    println!("{} kills: {counts:?}", run.kills);
    assert!(
        counts.completed * 2 > counts.tasks,
        "most of them come to a good end: {counts:?}"
    );
    if rounds >= 100 {
        let hit = counts
            .in_doubt
            .min(counts.unknown)
            .min(counts.probed)
            .min(counts.lost_calls);
        assert!(hit > 0, "the kills found nothing under way: {counts:?}");
    }
}

impl Run {
    fn prepare(upstreams: &[Upstream; 2]) -> Self {
        let seed = seed();
        println!("PARETO_SEED={seed}");
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("recorded.jsonl");
        let tail = format!(
            "[orchestrator]\nlease_s = 1\nlimits.stalled_calls = 500\n{}",
            recorder(&log, PACE_MS)
        );
        let config = crate::config(folder.path(), &upstreams[0], &upstreams[1], &tail);
        Self {
            key: key(&config, "acme"),
            config,
            person: Person::new(log.clone(), seed),
            log,
            random: Random(seed),
            tasks: vec![None; ERRANDS],
            kills: 0,
            left: Vec::new(),
            folder,
        }
    }

    /// One life of the program.
    async fn round(&mut self, begun: usize) {
        self.kills += 1;
        if self.random.below(12) == 0 {
            // It dies while it takes up what the last one left; dropped, it is killed.
            let life = Duration::from_millis(self.random.below(400));
            let starting = Process::start(PROGRAM, &self.config);
            drop(tokio::time::timeout(life, starting).await);
            gone(&self.config).await;
            return;
        }
        let process = Process::start(PROGRAM, &self.config).await;
        let left = std::mem::take(&mut self.left);
        until("the end of the killed one's tool servers", async || {
            let now = running(&self.log);
            (!left.iter().any(|it| now.contains(it))).then_some(())
        })
        .await;
        let client = caller(&process, &self.key);
        self.still_open(&client).await;
        let life = Duration::from_millis(self.random.below(LIFE_MS));
        let random = Random(self.random.below(1 << 40) | 1);
        let stop = CancellationToken::new();
        let doors = [client.clone()];
        let person = &self.person;
        let sitting = person.sit(&doors, random, stop.clone());
        let tasks = &mut self.tasks;
        let again = usize::try_from(self.random.below(begun as u64 + 1)).unwrap();
        let beginning = async {
            for (n, task) in tasks.iter_mut().enumerate().take(begun) {
                // One that is known is asked for again, and is the same.
                if task.is_none() || n == again {
                    remember(&client, n, task).await;
                }
            }
        };
        let killing = async {
            tokio::time::sleep(life).await;
            process.kill().await;
        };
        tokio::join!(sitting, beginning, killing);
        self.left = running(&self.log);
    }

    /// Begins what is not known to have begun.
    async fn begin(&mut self, client: &Client, errands: usize) {
        for n in 0..errands {
            remember(client, n, &mut self.tasks[n]).await;
        }
    }

    /// What was open and undecided before the last kill is so still, word for word.
    async fn still_open(&self, client: &Client) {
        for (id, digest) in self.person.notes().open {
            let request = client.get(&format!("/v1/approvals/{id}")).await;
            assert_eq!(request.status, 200, "{}", request.text());
            let request = request.json();
            assert_eq!(request["digest"], digest, "{request:#}");
            if request["open"] != true {
                assert_eq!(request["outcome"], "the task has ended", "{request:#}");
            }
        }
    }
}

/// Begins an errand, and holds that it is the task that it was before.
async fn remember(client: &Client, n: usize, known: &mut Option<String>) {
    let reply = create(client, n).await;
    if reply.status == 0 || reply.broken {
        return;
    }
    assert!(
        matches!(reply.status, 200 | 201),
        "{} {}",
        reply.status,
        reply.text()
    );
    let id = reply.json()["id"].as_str().unwrap().to_owned();
    if let Some(before) = known.replace(id.clone()) {
        assert_eq!((before, reply.status), (id, 200), "one key, one task");
    }
}

/// Waits until no process is left that has `word` on its command line.
pub(crate) async fn gone(word: &Path) {
    until("the end of all processes", async || {
        running(word).is_empty().then_some(())
    })
    .await;
}

/// What the endpoints bill, once they have billed all that arrived.
pub(crate) async fn bill(upstreams: &[Upstream; 2]) -> Vec<bench::upstream::Billed> {
    let arrived: u64 = upstreams.iter().map(Upstream::calls).sum();
    until("the whole bill", async || {
        let bill: Vec<_> = upstreams.iter().flat_map(Upstream::bill).collect();
        (bill.len() as u64 == arrived).then_some(bill)
    })
    .await
}
