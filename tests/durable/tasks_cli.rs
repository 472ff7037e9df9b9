//! Tasks from the command line, as a person runs them: `pareto task run` with models that play a part and
//! a real server of tools, killed and taken up again, watched and answered from elsewhere, and audited.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use meter::NanoUsd;
use serde_json::Value;
use tests::office::Desk;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::PROGRAM;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

/// A folder with a brief of the office, its play, and the tools that belong to it.
struct Scene {
    folder: tempfile::TempDir,
}

/// A command that has come to its end.
struct Done {
    ok: bool,
    out: String,
    error: String,
}

impl Scene {
    fn of(brief: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let briefs = root().join("tests/office/briefs");
        for suffix in ["json", "play.json"] {
            std::fs::copy(
                briefs.join(format!("{brief}.{suffix}")),
                folder.path().join(format!("brief.{suffix}")),
            )
            .unwrap();
        }
        let tools = std::fs::read_to_string(root().join("tests/office/office.toml")).unwrap();
        let tools = tools
            .replace("{command}", env!("CARGO_BIN_EXE_office-server"))
            .replace("{dir}", folder.path().join("office").to_str().unwrap());
        std::fs::write(folder.path().join("tasks.toml"), tools).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn office(&self) -> Desk {
        Desk::open(&self.path("office")).unwrap()
    }

    /// The program in the folder, with nobody at its keyboard.
    fn program(&self, words: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command
            .args(words)
            .current_dir(self.folder.path())
            .env_remove("PARETO_ADDRESS")
            .env_remove("PARETO_KEY")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Runs a command to its end.
    async fn run(&self, words: &[&str]) -> Done {
        let output = self.program(words).output().await.unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Done {
            ok: output.status.success(),
            out: text(&output.stdout),
            error: text(&output.stderr),
        }
    }

    /// `task run` of the brief, to its end.
    async fn carry_out(&self, more: &[&str]) -> Done {
        let words = ["task", "run", "brief.json", "--pace", "0"];
        self.run(&[&words, more].concat()).await
    }

    /// `task run` of the brief, under way.
    fn begin(&self, more: &[&str]) -> Under {
        let words = ["task", "run", "brief.json", "--pace", "40"];
        Under::way(self.program(&[&words, more].concat()))
    }

    /// What the ledger has spent in all; there is one task in it.
    fn ledger(&self) -> NanoUsd {
        let path = self.path("pareto-tasks/ledger.sqlite3");
        let ledger = rusqlite::Connection::open(path).unwrap();
        let sum = "SELECT SUM(cost_nano) FROM usage_event";
        NanoUsd(ledger.query_row(sum, [], |row| row.get(0)).unwrap())
    }
}

/// A command under way, of which lines are read.
struct Under {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    seen: Vec<String>,
}

impl Under {
    fn way(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self {
            child,
            lines,
            seen: Vec::new(),
        }
    }

    /// Waits for a line with these words.
    async fn says(&mut self, words: &str) -> String {
        loop {
            let Some(line) = self.lines.next_line().await.unwrap() else {
                panic!("it never said `{words}`:\n{}", self.seen.join("\n"));
            };
            self.seen.push(line.clone());
            if line.contains(words) {
                return line;
            }
        }
    }

    /// Kills it, as a crash would.
    async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Reads to its end; gives all lines and whether it succeeded.
    async fn end(mut self) -> (Vec<String>, bool) {
        while let Some(line) = self.lines.next_line().await.unwrap() {
            self.seen.push(line);
        }
        (self.seen, self.child.wait().await.unwrap().success())
    }
}

/// The id of the task that a command tells of first.
fn task_of(text: &str) -> String {
    let at = text.find("task_").unwrap_or_else(|| panic!("{text}"));
    let id = text[at..].split_whitespace().next().unwrap();
    id.trim_end_matches(':').to_owned()
}

/// The sum at the foot of the table of costs.
fn total(out: &str) -> NanoUsd {
    let line = out.lines().find(|line| line.starts_with("| total"));
    let line = line.unwrap_or_else(|| panic!("{out}"));
    let cells: Vec<&str> = line.split('|').map(str::trim).collect();
    NanoUsd::from_usd(cells[cells.len() - 2]).unwrap()
}

/// How often the office was asked for a tool.
fn asked(office: &Desk, tool: &str) -> usize {
    office.log().iter().filter(|it| it["asked"] == tool).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_brief_is_carried_out_and_costs_what_the_ledger_says() {
    let scene = Scene::of("reply-send");
    let done = scene.carry_out(&["--yes"]).await;
    assert!(done.ok, "{}{}", done.out, done.error);
    for words in [
        "completed  all checks passed",
        "goes to: dr-1",
        "WARNING",
        "equal to the models'",
    ] {
        assert!(done.out.contains(words), "{words}\n{}", done.out);
    }
    let office = scene.office();
    assert_eq!((office.list("drafts").len(), office.sent().len()), (1, 1));
    assert!(scene.ledger() > NanoUsd::ZERO);
    assert_eq!(total(&done.out), scene.ledger(), "{}", done.out);
    // The same brief is the same task: nothing is done again.
    let again = scene.carry_out(&["--yes", "--json"]).await;
    assert!(again.ok, "{}", again.error);
    let task: Value = serde_json::from_str(&again.out).unwrap();
    assert_eq!(task["id"], task_of(&done.out));
    assert_eq!(task["status"], "completed");
    assert_eq!(asked(&scene.office(), "send_draft"), 1);
    // Unless another is wanted.
    let other = scene.carry_out(&["--yes", "--new"]).await;
    assert!(other.ok, "{}{}", other.out, other.error);
    assert_ne!(task_of(&other.out), task_of(&done.out));
    let known = scene.run(&["task", "list"]).await;
    assert!(
        !known.ok && known.error.contains("--address"),
        "{}",
        known.error
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_killed_comes_back_to_the_same_task_and_nothing_is_done_twice() {
    let scene = Scene::of("reply-send");
    let mut ids = Vec::new();
    for moment in [
        "plan 1 with",
        "office__create_draft is called",
        "n3: done",
        "office__send_draft gave",
    ] {
        let mut run = scene.begin(&["--yes"]);
        ids.push(task_of(&run.says("task_").await));
        run.says(moment).await;
        run.kill().await;
    }
    let done = scene.carry_out(&["--yes"]).await;
    assert!(done.ok, "{}{}", done.out, done.error);
    ids.push(task_of(&done.out));
    ids.dedup();
    assert_eq!(ids.len(), 1, "{ids:?}");
    let office = scene.office();
    assert_eq!(office.list("drafts").len(), 1, "{}", done.out);
    assert_eq!(office.sent().len(), 1);
    assert_eq!(asked(&office, "send_draft"), 1, "it was sent once");
    let (total, ledger) = (total(&done.out), scene.ledger());
    if done.out.contains("nobody saw the end of the call") {
        // A call in flight at a kill stays spent at what was reserved, which is never less.
        assert!(total >= ledger, "{}", done.out);
    } else {
        assert_eq!(total, ledger, "{}", done.out);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_begins_again_does_not_do_again_what_it_has_done() {
    let scene = Scene::of("reply-send");
    let path = scene.path("brief.play.json");
    let mut play: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    let scenes = play["scenes"].as_array_mut().unwrap();
    let at = scenes
        .iter()
        .position(|it| it["about"] == "n3, 1 results")
        .unwrap();
    // After its draft the model says nothing that fits, until the step is begun again.
    let mut told = scenes[at].clone();
    told["when"]
        .as_array_mut()
        .unwrap()
        .push("has done just that".into());
    scenes[at]["say"] = "There it is.".into();
    scenes.insert(at, told);
    std::fs::write(&path, play.to_string()).unwrap();
    let done = scene.carry_out(&["--yes"]).await;
    assert!(done.ok, "{}{}", done.out, done.error);
    assert!(done.out.contains("n3: begins, attempt 2"), "{}", done.out);
    let office = scene.office();
    assert_eq!((office.list("drafts").len(), office.sent().len()), (1, 1));
    assert_eq!(asked(&office, "create_draft"), 1, "{}", done.out);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_denied_does_not_happen_and_the_task_ends_without_it() {
    let scene = Scene::of("reply-send");
    let done = scene.carry_out(&["--no"]).await;
    assert!(!done.ok, "{}", done.out);
    assert!(done.out.contains(": incomplete"), "{}", done.out);
    assert!(done.out.contains("d2    | NOT passed"), "{}", done.out);
    let office = scene.office();
    assert_eq!((office.list("drafts").len(), office.sent().len()), (1, 0));
    assert_eq!(asked(&office, "send_draft"), 0);
    assert_eq!(total(&done.out), scene.ledger());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_is_watched_and_answered_from_elsewhere() {
    let scene = Scene::of("reply-send");
    let mut run = scene.begin(&[]);
    let id = task_of(&run.says("task_").await);
    let mut watch = Under::way(scene.program(&["task", "watch", &id]));
    // Nobody sits at either: both tell how somebody can answer.
    let how = run.says("pareto task approve").await;
    watch.says("pareto task approve").await;
    let shown = scene.run(&["task", "show", &id]).await;
    assert!(shown.out.contains("requires_action"), "{}", shown.out);
    let inbox = scene.run(&["task", "approve"]).await;
    assert!(inbox.out.contains("goes to: dr-1"), "{}", inbox.out);
    let steered = scene.run(&["task", "steer", &id, "be brief"]).await;
    assert!(steered.ok, "{}", steered.error);
    // The command that was told is the one that works.
    let request = how.split_whitespace().find(|word| word.contains(".req-"));
    let request = request.unwrap_or_else(|| panic!("{how}"));
    let yes = scene
        .run(&["task", "approve", request, "--reason", "good"])
        .await;
    assert!(
        yes.ok && yes.out.contains(": approved"),
        "{}{}",
        yes.out,
        yes.error
    );
    let (run, watch) = tokio::join!(run.end(), watch.end());
    assert!(run.1, "{}", run.0.join("\n"));
    let events = |lines: &[String]| {
        let events = lines.iter().filter(|line| line.contains(" s  "));
        events.cloned().collect::<Vec<_>>()
    };
    let told = events(&run.0);
    assert!(
        told.iter().any(|line| line.contains("be brief")),
        "{told:?}"
    );
    assert_eq!(told, events(&watch.0));
    let late = scene.run(&["task", "approve", request]).await;
    assert!(!late.ok, "{}", late.out);
    assert_eq!(scene.office().sent().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_is_left_can_be_taken_up_again() {
    let scene = Scene::of("reply-send");
    let mut run = scene.begin(&[]);
    let id = task_of(&run.says("task_").await);
    run.says("pareto task approve").await;
    let number = run.child.id().unwrap().to_string();
    let sent = std::process::Command::new("kill")
        .args(["-s", "INT", &number])
        .status();
    assert!(sent.unwrap().success());
    let (lines, ok) = run.end().await;
    assert!(!ok);
    let last = lines.last().unwrap();
    assert!(last.contains("the same command goes on with it"), "{last}");
    let done = scene.carry_out(&["--yes"]).await;
    assert!(done.ok, "{}{}", done.out, done.error);
    assert!(done.out.contains(&format!("{id} goes on")), "{}", done.out);
    assert_eq!(scene.office().sent().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_audit_finds_the_event_that_was_changed() {
    let scene = Scene::of("focus-auto");
    let done = scene.carry_out(&["--yes"]).await;
    let id = task_of(&done.out);
    let audit = ["audit", "verify", "--config", "pareto-tasks/pareto.toml"];
    let good = scene.run(&audit).await;
    assert!(good.ok, "{}{}", good.out, good.error);
    let head = good.out.lines().next().unwrap();
    let head = head.rsplit(' ').next().unwrap().to_owned();
    let kept = scene.run(&[&audit[..], &["--head", &head]].concat()).await;
    assert!(kept.ok, "{}{}", kept.out, kept.error);
    let other = head.replace(|letter: char| letter != '0', "1");
    let lost = scene.run(&[&audit[..], &["--head", &other]].concat()).await;
    assert!(
        !lost.ok && lost.out.contains("no chain has the link"),
        "{}",
        lost.out
    );
    // One letter of one event, as somebody would change it who wants to hide something.
    let log = rusqlite::Connection::open(scene.path("pareto-tasks/tasks.sqlite3")).unwrap();
    let changed = log
        .execute(
            "UPDATE task_event SET payload = replace(payload, '\"attempt\":1', '\"attempt\":2')
             WHERE seq = (SELECT min(seq) FROM task_event WHERE kind = 'node.started')",
            [],
        )
        .unwrap();
    let seq: i64 = log
        .query_row(
            "SELECT min(seq) FROM task_event WHERE kind = 'node.started'",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(changed, 1);
    drop(log);
    let bad = scene.run(&audit).await;
    assert!(!bad.ok, "{}", bad.out);
    assert!(
        bad.out.contains(&format!("task {id}, event {seq}, ")),
        "{}",
        bad.out
    );
    assert!(bad.out.contains("NOT what was written"), "{}", bad.out);
}

/// The servers come from npm: where PARETO_TOOLS_KIT names a folder they are installed in, from there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_review_of_suppliers_is_carried_out_with_its_real_servers() {
    if std::env::var("PARETO_SKIP").is_ok_and(|skip| skip.contains("npm")) {
        println!("skipped by PARETO_SKIP");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let examples = folder.path().join("examples");
    tests::copy_folder(&root().join("config/examples"), &examples);
    let tools = std::fs::read_to_string(examples.join("tasks.toml")).unwrap();
    let memory = folder.path().join("memory.json");
    let mut tools: toml::Table = tools.parse().unwrap();
    for server in tools["mcp"].as_array_mut().unwrap() {
        if let Some(env) = server.get_mut("env") {
            env["MEMORY_FILE_PATH"] = memory.to_str().unwrap().into();
        }
        if let Ok(kit) = std::env::var("PARETO_TOOLS_KIT") {
            installed(server, Path::new(&kit));
        }
    }
    std::fs::write(
        examples.join("tasks.toml"),
        toml::to_string(&tools).unwrap(),
    )
    .unwrap();
    let scene = Scene { folder };
    // From elsewhere: what belongs to a brief is found beside it.
    let words = [
        "task",
        "run",
        "examples/supplier-review.json",
        "--pace",
        "0",
        "--yes",
        "--out",
        "out",
    ];
    let done = scene.run(&words).await;
    assert!(done.ok, "{}{}", done.out, done.error);
    assert_eq!(total(&done.out), scene.ledger());
    assert_eq!(
        done.out.matches("must be approved").count(),
        1,
        "{}",
        done.out
    );
    for (step, tier) in [("n3", "fast"), ("n5", "deep"), ("planning", "deep")] {
        let line = done
            .out
            .lines()
            .find(|it| it.starts_with(&format!("| {step} ")));
        assert!(
            line.is_some_and(|it| it.contains(tier)),
            "{step}\n{}",
            done.out
        );
    }
    // Two steps at a time: the second begins before the first is done.
    let at = |words: &str| done.out.find(words).unwrap_or_else(|| panic!("{words}"));
    assert!(at("n2: begins") < at("n1: done") && at("n1: begins") < at("n2: done"));
    let mut made: Vec<String> = std::fs::read_dir(scene.path("out"))
        .unwrap()
        .map(|it| it.unwrap().file_name().into_string().unwrap())
        .collect();
    made.sort();
    assert_eq!(
        made,
        [
            "review.docx",
            "summary.md",
            "suppliers.json",
            "suppliers.xlsx"
        ]
    );
    let read = |name: &str| std::fs::read_to_string(scene.path(name)).unwrap();
    assert_eq!(
        read("examples/supplier-review/shared/supplier-review.md"),
        read("out/summary.md")
    );
    assert_eq!(read("memory.json").lines().count(), 4);
}

/// Takes a server from the folder where it is installed, in the place of `npx`.
fn installed(server: &mut toml::Value, kit: &Path) {
    let command = server["command"].as_array_mut().unwrap();
    let package = command[2].as_str().unwrap();
    let package = package.rsplit_once('@').unwrap().0;
    let program = kit.join("node_modules").join(package).join("dist/index.js");
    let program = program.to_str().unwrap().to_owned();
    command.splice(..3, ["node".into(), program.into()]);
}
