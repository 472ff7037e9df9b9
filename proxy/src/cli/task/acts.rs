//! The small commands of tasks: each asks the gateway once and prints what it says.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};
use comfy_table::Table;
use serde_json::{Value, json};

use super::super::client::{Client, Place, list, number, segment, text};
use super::super::{plain, say};
use super::asked::{self, Move};
use super::follow::{Answers, End, How, follow};
use super::outcome::{self, Outcome};
use super::screen::Screen;
use super::stop::Stop;
use super::teller::Teller;
use super::{picture, run};

/// Events that are asked for at a time.
const PAGE: usize = 200;

#[derive(Debug, Args)]
pub(super) struct List {
    /// Only those that stand so: queued, in_progress, requires_action, paused, completed and so on.
    #[arg(long)]
    status: Option<String>,
    /// How many, at most 200.
    #[arg(long, default_value_t = 50)]
    limit: u32,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

impl List {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let client = Client::of(&self.place)?;
        let status = self.status.as_deref().map(segment).unwrap_or_default();
        let path = format!("/v1/tasks?limit={}&status={status}", self.limit);
        let tasks = client.get(&path).await?;
        if self.json {
            return print(&tasks);
        }
        let mut table = Table::new();
        table.set_header([
            "task",
            "made (UTC)",
            "status",
            "steps",
            "checks",
            "cost, USD",
            "objective",
        ]);
        for task in list(&tasks, "/data") {
            let waiting = text(task, "/waiting_on");
            let mut status = text(task, "/status").to_owned();
            if !waiting.is_empty() {
                status = format!("{status} ({waiting})");
            }
            let progress =
                |done: &str, all: &str| format!("{}/{}", number(task, done), number(task, all));
            table.add_row([
                text(task, "/id").to_owned(),
                moment(number(task, "/created_at_ms")),
                status,
                progress("/progress/nodes_done", "/progress/nodes_total"),
                progress("/progress/checks_passed", "/progress/checks_total"),
                text(task, "/usage/cost_usd").to_owned(),
                plain::line(text(task, "/objective"), 50),
            ]);
        }
        say(&table.to_string())
    }
}

/// A moment in UTC, to the second.
fn moment(ms: i64) -> String {
    let at = jiff::Timestamp::from_millisecond(ms).ok();
    at.map_or_else(String::new, |at| {
        at.strftime("%Y-%m-%d %H:%M:%S").to_string()
    })
}

fn print(value: &Value) -> anyhow::Result<()> {
    say(&serde_json::to_string_pretty(value)?)
}

/// One task.
#[derive(Debug, Args)]
pub(super) struct One {
    /// The task's id.
    id: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

impl One {
    async fn ask(&self, part: &str) -> anyhow::Result<Value> {
        let client = Client::of(&self.place)?;
        let path = format!("/v1/tasks/{}/{part}", segment(&self.id));
        Ok(client.get(&path).await?)
    }

    pub(super) async fn plan(self) -> anyhow::Result<()> {
        let plan = self.ask("plan").await?;
        if self.json {
            return print(&plan);
        }
        say(&picture::plan_table(&plan))
    }

    pub(super) async fn effects(self) -> anyhow::Result<()> {
        let effects = self.ask("effects").await?;
        if self.json {
            return print(&effects);
        }
        let mut table = Table::new();
        table.set_header([
            "effect",
            "step",
            "tool",
            "status",
            "tries",
            "decision",
            "arguments",
            "result",
        ]);
        for effect in list(&effects, "/data") {
            let arguments = effect.get("arguments").map(Value::to_string);
            let decision = ["/decision/by", "/decision/why"].map(|at| text(effect, at));
            table.add_row([
                text(effect, "/id").to_owned(),
                text(effect, "/node").to_owned(),
                text(effect, "/tool").to_owned(),
                text(effect, "/status").to_owned(),
                number(effect, "/attempts").to_string(),
                plain::line(
                    &format!("{} {}", text(effect, "/decision/gate"), decision.concat()),
                    40,
                ),
                plain::line(&arguments.unwrap_or_default(), 60),
                plain::line(text(effect, "/result/text"), 60),
            ]);
        }
        say(&table.to_string())
    }

    pub(super) async fn explain(self) -> anyhow::Result<()> {
        let explained = self.ask("explain").await?;
        if self.json {
            return print(&explained);
        }
        let mut calls = Table::new();
        calls.set_header([
            "call",
            "for",
            "asked",
            "model",
            "tier",
            "route",
            "cost, USD",
            "ms",
            "request",
            "problem",
        ]);
        for call in list(&explained, "/calls") {
            let about = ["/purpose/node", "/purpose/check"]
                .map(|at| text(call, at))
                .concat();
            calls.add_row([
                number(call, "/call").to_string(),
                format!("{} {about}", text(call, "/purpose/for")),
                text(call, "/asked").to_owned(),
                text(call, "/model").to_owned(),
                text(call, "/tier").to_owned(),
                text(call, "/route").to_owned(),
                text(call, "/cost_usd").to_owned(),
                number(call, "/ms").to_string(),
                text(call, "/request").to_owned(),
                plain::line(text(call, "/problem"), 60),
            ]);
        }
        let mut acts = Table::new();
        acts.set_header(["effect", "tool", "decision", "why", "status"]);
        for act in list(&explained, "/effects") {
            let row = ["/effect", "/tool", "/decision", "/why", "/status"];
            acts.add_row(row.map(|at| plain::line(text(act, at), 70)));
        }
        say(&format!("{calls}\n{acts}"))
    }

    /// Tells a task something that has no words.
    pub(super) async fn tell(self, verb: &str) -> anyhow::Result<()> {
        tell(&self.place, &self.id, verb, &json!({})).await
    }
}

async fn tell(place: &Place, id: &str, verb: &str, said: &Value) -> anyhow::Result<()> {
    let client = Client::of(place)?;
    let path = format!("/v1/tasks/{}/{verb}", segment(id));
    let task = client.post(&path, said).await?;
    say(&format!(
        "{}: {}",
        text(&task, "/id"),
        text(&task, "/status")
    ))
}

#[derive(Debug, Args)]
pub(super) struct Show {
    #[command(flatten)]
    one: One,
}

impl Show {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let client = Client::of(&self.one.place)?;
        let outcome = Outcome::read(&client, &self.one.id).await?;
        let task = &outcome.task;
        if self.one.json {
            return print(task);
        }
        say(&picture::panel(
            task,
            &format!("owner {}", text(task, "/owner")),
            160,
        ))?;
        for request in list(task, "/required_actions") {
            say(&asked::shown(request))?;
            say(&asked::how_to(request, &self.one.place.words(None)))?;
        }
        say(&outcome.report())
    }
}

#[derive(Debug, Args)]
pub(super) struct Watch {
    /// The task's id.
    id: String,
    /// Ask nothing: only look.
    #[arg(long)]
    quiet: bool,
    #[command(flatten)]
    place: Place,
}

impl Watch {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let mut stop = Stop::listen()?;
        let client = Client::of(&self.place)?;
        let mut screen = Screen::find(false);
        let how = How {
            answers: if self.quiet {
                Answers::Nobody
            } else {
                Answers::Person
            },
            after: 0,
            place: self.place.words(None),
        };
        let end = follow(&client, &self.id, how, &mut screen, &mut stop).await?;
        if end == End::Ended {
            let outcome = Outcome::read(&client, &self.id).await?;
            say(&outcome.report())?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

#[derive(Debug, Args)]
pub(super) struct Events {
    #[command(flatten)]
    one: One,
    /// Behind this event.
    #[arg(long, default_value_t = 0)]
    after: i64,
    /// Only these, as patterns with commas between them: effect.*,approval.*
    #[arg(long, default_value = "")]
    types: String,
}

impl Events {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let client = Client::of(&self.one.place)?;
        let (id, types) = (segment(&self.one.id), segment(&self.types));
        let (mut after, mut teller) = (self.after.to_string(), Teller::default());
        loop {
            let path = format!("/v1/tasks/{id}/events?after={after}&limit={PAGE}&types={types}");
            let page = client.get(&path).await?;
            for event in list(&page, "/data") {
                let line = if self.one.json {
                    event.to_string()
                } else {
                    let (seq, kind) = (number(event, "/seq"), text(event, "/type"));
                    format!("{seq:>4} {kind:<20} {}", teller.line(event))
                };
                say(&line)?;
            }
            match text(&page, "/next") {
                "" => return Ok(()),
                next => next.clone_into(&mut after),
            }
        }
    }
}

/// How far an approval reaches.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Reach {
    /// This act alone.
    Once,
    /// The same tool with the same destinations, in this task.
    Task,
}

/// What became of an act whose end nobody saw.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Became {
    Happened,
    Again,
    #[value(name = "give_up")]
    GiveUp,
}

#[derive(Debug, Args)]
pub(super) struct Approve {
    /// The request; or a task, where it waits for one thing. All that waits is listed where this is absent.
    id: Option<String>,
    /// Say no.
    #[arg(long)]
    deny: bool,
    /// With a no: cancel the task as well.
    #[arg(long, requires = "deny")]
    stop: bool,
    /// How far a yes reaches.
    #[arg(long, value_enum)]
    scope: Option<Reach>,
    /// What became of an act whose end nobody saw.
    #[arg(long, value_enum)]
    settle: Option<Became>,
    /// How much more may be spent, in USD.
    #[arg(long)]
    more: Option<String>,
    /// Why, for the record.
    #[arg(long, default_value = "")]
    reason: String,
    #[command(flatten)]
    place: Place,
}

impl Approve {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let client = Client::of(&self.place)?;
        let Some(id) = &self.id else {
            let inbox = client.get("/v1/approvals?limit=200").await?;
            return listed(list(&inbox, "/data"), &self.place.words(None));
        };
        let request = request(&client, id).await?;
        say(&asked::shown(&request))?;
        asked::carry_out(&client, &request, &Move::Decide(self.decision())).await?;
        let word = if self.deny { "denied" } else { "approved" };
        say(&format!("{}: {word}", text(&request, "/id")))
    }

    fn decision(&self) -> Value {
        let settled = self.settle.map(|it| match it {
            Became::Happened => "happened",
            Became::Again => "again",
            Became::GiveUp => "give_up",
        });
        let scope = self.scope.map(|it| match it {
            Reach::Once => "once",
            Reach::Task => "task",
        });
        json!({
            "approve": !self.deny, "scope": scope, "settle": settled, "more_usd": self.more,
            "reason": self.reason, "stop": self.stop,
        })
    }
}

fn listed(open: &[Value], place: &str) -> anyhow::Result<()> {
    if open.is_empty() {
        return say("nothing waits for anybody");
    }
    for request in open {
        let about = plain::line(text(request, "/objective"), 80);
        say(&format!("{}: {about}", text(request, "/task")))?;
        say(&asked::shown(request))?;
        say(&format!("{}\n", asked::how_to(request, place)))?;
    }
    Ok(())
}

/// The request of this id, or the one thing that a task of this id waits for.
async fn request(client: &Client, id: &str) -> anyhow::Result<Value> {
    if !id.starts_with("task_") {
        return Ok(client
            .get(&format!("/v1/approvals/{}", segment(id)))
            .await?);
    }
    let task = client.get(&format!("/v1/tasks/{}", segment(id))).await?;
    let open = list(&task, "/required_actions");
    ensure!(
        open.len() < 2,
        "the task waits for {} decisions; name one of {}",
        open.len(),
        open.iter()
            .map(|it| text(it, "/id"))
            .collect::<Vec<_>>()
            .join(", ")
    );
    let found = open.first().cloned();
    found.context("the task waits for nobody")
}

#[derive(Debug, Args)]
pub(super) struct Answer {
    /// The question; or a task, where it asks but one.
    id: String,
    /// The answer.
    text: String,
    #[command(flatten)]
    place: Place,
}

impl Answer {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let client = Client::of(&self.place)?;
        let request = request(&client, &self.id).await?;
        asked::carry_out(&client, &request, &Move::Answer(self.text)).await?;
        say(&format!("{}: answered", text(&request, "/id")))
    }
}

#[derive(Debug, Args)]
pub(super) struct Say {
    #[command(flatten)]
    one: One,
    /// Why, for the record.
    #[arg(long, default_value = "")]
    reason: String,
}

impl Say {
    pub(super) async fn tell(self, verb: &str) -> anyhow::Result<()> {
        let said = json!({ "reason": self.reason });
        tell(&self.one.place, &self.one.id, verb, &said).await
    }
}

#[derive(Debug, Args)]
pub(super) struct Steer {
    /// The task's id.
    id: String,
    /// What it is told.
    text: String,
    #[command(flatten)]
    place: Place,
}

impl Steer {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        tell(
            &self.place,
            &self.id,
            "steer",
            &json!({ "text": self.text }),
        )
        .await
    }
}

#[derive(Debug, Args)]
pub(super) struct Raise {
    /// The task's id.
    id: String,
    /// How much more it may spend, in USD.
    usd: String,
    #[command(flatten)]
    place: Place,
}

impl Raise {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        tell(&self.place, &self.id, "raise", &json!({ "usd": self.usd })).await
    }
}

#[derive(Debug, Args)]
pub(super) struct Artifacts {
    #[command(flatten)]
    one: One,
    /// Copy them into this folder.
    #[arg(long)]
    out: Option<PathBuf>,
}

impl Artifacts {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let client = Client::of(&self.one.place)?;
        let id = segment(&self.one.id);
        let task = client.get(&format!("/v1/tasks/{id}")).await?;
        if self.one.json {
            print(task.get("artifacts").unwrap_or(&Value::Null))?;
        } else {
            say(&outcome::artifacts(&task))?;
        }
        let Some(folder) = &self.out else {
            return Ok(());
        };
        let made = list(&task, "/artifacts");
        for artifact in made {
            outcome::save_one(&client, text(&task, "/id"), text(artifact, "/name"), folder).await?;
        }
        say(&run::told(made.len(), folder))
    }
}
