//! Follows a task until its end: tells its events, shows how it stands, and asks the person in front of it
//! what the task asks.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, sleep, sleep_until};

use super::super::client::{AskError, Client, Happened, list, number, text};
use super::super::plain;
use super::asked::{self, Move};
use super::picture;
use super::screen::{Screen, keyboard, width};
use super::stop::Stop;
use super::teller::Teller;

/// Between two looks at how the task stands, while much happens.
const REST: Duration = Duration::from_millis(80);
/// Tries of a gateway that has gone away, and the pause before each.
const TRIES: u32 = 60;
const PAUSE: Duration = Duration::from_secs(1);

/// Who answers what the task asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answers {
    /// The person at the terminal; somebody elsewhere where there is none.
    Person,
    /// Approvals are given.
    Yes,
    /// Approvals are refused.
    No,
    /// Nobody here.
    Nobody,
}

/// How a task is followed.
#[derive(Debug, Clone)]
pub(super) struct How {
    pub(super) answers: Answers,
    /// Events up to this one are known already.
    pub(super) after: u64,
    /// What other commands must be told to find the same gateway.
    pub(super) place: String,
}

/// Why following has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The task has come to its end.
    Ended,
    /// The person has gone.
    Left,
}

/// What is talked about at the prompt.
enum Talk {
    /// The request that was shown.
    Request(Value),
    /// A rule that would cover it.
    Rule { request: Value, rule: Value },
}

impl Talk {
    fn request(&self) -> &Value {
        match self {
            Self::Request(request) | Self::Rule { request, .. } => request,
        }
    }
}

struct Follower<'a> {
    client: &'a Client,
    id: &'a str,
    how: How,
    screen: &'a mut Screen,
    teller: Teller,
    /// The last event that was told.
    after: u64,
    is_over: bool,
    task: Value,
    last: String,
    /// Requests that have been answered here, or left to others.
    done: BTreeSet<String>,
    talk: Option<Talk>,
    /// Lines that came while somebody was being asked.
    held: Vec<String>,
    /// When to look at the task again.
    look: Option<Instant>,
}

/// Follows a task to its end, or until `stop`.
pub(super) async fn follow(
    client: &Client,
    id: &str,
    how: How,
    screen: &mut Screen,
    stop: &mut Stop,
) -> anyhow::Result<End> {
    let asks = how.answers == Answers::Person && screen.is_terminal();
    let mut typed = asks.then(keyboard);
    let mut follower = Follower {
        client,
        id,
        after: how.after,
        how,
        screen,
        teller: Teller::default(),
        is_over: false,
        task: Value::Null,
        last: String::new(),
        done: BTreeSet::new(),
        talk: None,
        held: Vec::new(),
        look: Some(Instant::now()),
    };
    let end = loop {
        match follower.listen(&mut typed, stop).await? {
            Some(end) => break end,
            None => {
                if stop.within(sleep(PAUSE)).await.is_none() {
                    break End::Left;
                }
            }
        }
    };
    follower.screen.clear();
    Ok(end)
}

impl Follower<'_> {
    /// Listens to one stream of events. `None` where it broke off and the task goes on.
    async fn listen(
        &mut self,
        typed: &mut Option<UnboundedReceiver<String>>,
        stop: &mut Stop,
    ) -> anyhow::Result<Option<End>> {
        let Some(connected) = stop.within(self.connect()).await else {
            return Ok(Some(End::Left));
        };
        let mut events = connected?;
        loop {
            let due = self.look.unwrap_or_else(Instant::now);
            tokio::select! {
                biased;
                () = stop.asked() => return Ok(Some(End::Left)),
                line = line_of(typed), if self.talk.is_some() => self.typed(line).await?,
                happened = events.next() => match happened {
                    Some(happened) => self.take(&happened),
                    None if self.is_over => {
                        self.look().await?;
                        return Ok(Some(End::Ended));
                    }
                    None => return Ok(None),
                },
                () = sleep_until(due), if self.look.is_some() => self.look().await?,
            }
        }
    }

    /// A stream behind the last event that was told. A gateway that restarts is waited for.
    async fn connect(&mut self) -> Result<super::super::client::Events, AskError> {
        let mut tries = 0;
        loop {
            match self.client.events(self.id, self.after).await {
                Err(AskError::Unreachable { .. }) if tries < TRIES => {
                    if tries == 0 {
                        self.screen
                            .say("the gateway does not answer; waiting for it");
                    }
                    tries += 1;
                    sleep(PAUSE).await;
                }
                other => return other,
            }
        }
    }

    /// Takes in what came on the stream.
    fn take(&mut self, happened: &Happened) {
        if happened.kind == "snapshot" {
            self.task = happened.data.clone();
            self.is_over |= !text(&self.task, "/result/outcome").is_empty();
        } else {
            let seq = u64::try_from(number(&happened.data, "/seq")).unwrap_or(self.after);
            self.after = self.after.max(seq);
            self.is_over |= happened.kind == "task.ended";
            let line = self.teller.line(&happened.data);
            let first = line.lines().next().unwrap_or_default();
            first.trim().clone_into(&mut self.last);
            self.tell(line);
        }
        self.look.get_or_insert_with(|| Instant::now() + REST);
    }

    fn tell(&mut self, line: String) {
        if self.talk.is_some() {
            self.held.push(line);
        } else {
            self.screen.say(&line);
        }
    }

    /// Looks at how the task stands, shows it, and turns to what it asks.
    async fn look(&mut self) -> anyhow::Result<()> {
        self.look = None;
        match self.client.get(&format!("/v1/tasks/{}", self.id)).await {
            Ok(task) => self.task = task,
            // The stream notices, and waits for the gateway.
            Err(AskError::Unreachable { .. }) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        let open: Vec<Value> = list(&self.task, "/required_actions").to_vec();
        let talked = self
            .talk
            .as_ref()
            .map(|it| text(it.request(), "/id").to_owned());
        if talked.is_some_and(|id| !open.iter().any(|it| text(it, "/id") == id)) {
            self.screen.say("\nthis needs no answer any more");
            self.end_talk();
        }
        for request in &open {
            if self.talk.is_none() && !self.done.contains(text(request, "/id")) {
                self.turn_to(request).await;
            }
        }
        if self.talk.is_none() {
            let picture = picture::panel(
                &self.task,
                &format!("now: {}", self.last),
                width().saturating_sub(3),
            );
            self.screen.draw(picture);
        }
        Ok(())
    }

    /// Answers a request, asks the person, or tells how somebody else can answer it.
    async fn turn_to(&mut self, request: &Value) {
        let id = text(request, "/id").to_owned();
        let by_itself = match self.how.answers {
            Answers::Yes => asked::by_itself(request, true),
            Answers::No => asked::by_itself(request, false),
            Answers::Person | Answers::Nobody => None,
        };
        self.screen.clear();
        self.screen.say(&asked::shown(request));
        if let Some(chosen) = by_itself {
            self.carry_out(request, &chosen).await;
        } else if self.how.answers == Answers::Person && self.screen.is_terminal() {
            self.screen.prompt(&asked::prompt(request));
            self.talk = Some(Talk::Request(request.clone()));
        } else {
            self.screen.say(&asked::how_to(request, &self.how.place));
            self.done.insert(id);
        }
    }

    /// Carries out what was decided. A refusal is told; the request is left to others then.
    async fn carry_out(&mut self, request: &Value, chosen: &Move) {
        self.done.insert(text(request, "/id").to_owned());
        if let Err(error) = asked::carry_out(self.client, request, chosen).await {
            self.screen.say(&format!(
                "not done: {}",
                plain::line(&error.to_string(), 300)
            ));
        }
        self.look = Some(Instant::now());
    }

    /// Takes a line that was typed; `None` where nothing more will be.
    async fn typed(&mut self, line: Option<String>) -> anyhow::Result<()> {
        let Some(talk) = self.talk.take() else {
            return Ok(());
        };
        // Who has no keyboard leaves everything to others.
        let line = line.unwrap_or_else(|| "q".to_owned());
        match talk {
            Talk::Request(request) => match asked::read(&request, &line) {
                Move::Unclear(words) => self.ask_again(request, &words),
                Move::Whole => {
                    self.screen.say(&asked::whole(&request));
                    let words = asked::prompt(&request);
                    self.ask_again(request, &words);
                }
                Move::Rule => self.show_rule(request).await,
                Move::Leave => {
                    self.screen.say(&asked::how_to(&request, &self.how.place));
                    self.done.insert(text(&request, "/id").to_owned());
                    self.end_talk();
                }
                chosen => {
                    self.carry_out(&request, &chosen).await;
                    self.end_talk();
                }
            },
            Talk::Rule { request, rule } => {
                if line.trim() == "y" {
                    let decision = serde_json::json!({ "approve": true, "standing": rule });
                    self.carry_out(&request, &Move::Decide(decision)).await;
                    self.end_talk();
                } else {
                    let words = asked::prompt(&request);
                    self.ask_again(request, &words);
                }
            }
        }
        Ok(())
    }

    fn ask_again(&mut self, request: Value, words: &str) {
        self.screen.prompt(words);
        self.talk = Some(Talk::Request(request));
    }

    /// Shows the rule that would cover a request, as the gateway would keep it.
    async fn show_rule(&mut self, request: Value) {
        let rule = asked::rule(&request).unwrap_or_default();
        let tried = self
            .client
            .post("/v1/standing-approvals?dry_run=true", &rule)
            .await;
        match tried {
            Ok(tried) => {
                self.screen.prompt(&asked::rule_shown(&rule, &tried));
                self.talk = Some(Talk::Rule { request, rule });
            }
            Err(error) => {
                self.screen
                    .say(&format!("no such rule can be kept: {error}"));
                let words = asked::prompt(&request);
                self.ask_again(request, &words);
            }
        }
    }

    fn end_talk(&mut self) {
        self.talk = None;
        for line in std::mem::take(&mut self.held) {
            self.screen.say(&line);
        }
        self.look = Some(Instant::now());
    }
}

/// The next line that is typed; never, where nobody is asked.
async fn line_of(typed: &mut Option<UnboundedReceiver<String>>) -> Option<String> {
    match typed {
        Some(lines) => lines.recv().await,
        None => std::future::pending().await,
    }
}
