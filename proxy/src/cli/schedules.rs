//! `pareto schedules`: tasks that begin by themselves.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand};
use comfy_table::Table;
use http::Method;
use serde_json::{Value, json};

use super::client::{Client, Place, list, number, segment, text};
use super::{plain, quiet, say};
use crate::boot;

#[derive(Debug, Args)]
pub(super) struct Schedules {
    #[command(subcommand)]
    act: Act,
}

#[derive(Debug, Subcommand)]
enum Act {
    /// List schedules and how they stand.
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: Place,
    },
    /// Add a schedule: a file of JSON with `cron`, `brief` and what else POST /v1/schedules takes.
    Add {
        /// The file.
        file: PathBuf,
        #[command(flatten)]
        place: Place,
    },
    /// Begin a task of a schedule now.
    Run(One),
    /// Let a schedule rest.
    Pause(One),
    /// Take a schedule up again.
    Resume(One),
    /// Remove a schedule. Its tasks stay.
    Remove(One),
}

#[derive(Debug, Args)]
struct One {
    /// The schedule's id.
    id: String,
    #[command(flatten)]
    place: Place,
}

impl Schedules {
    pub(super) fn run(self) -> anyhow::Result<()> {
        quiet();
        boot::runtime()?.block_on(self.act.run())
    }
}

impl Act {
    async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::List { json, place } => {
                let all = Client::of(&place)?.get("/v1/schedules?limit=200").await?;
                if json {
                    return say(&serde_json::to_string_pretty(&all)?);
                }
                say(&table(list(&all, "/data")).to_string())
            }
            Self::Add { file, place } => {
                let text = std::fs::read_to_string(&file);
                let text = text.with_context(|| format!("reading {}", file.display()))?;
                let new: Value = serde_json::from_str(&text)
                    .with_context(|| format!("{} is no JSON", file.display()))?;
                let made = Client::of(&place)?.post("/v1/schedules", &new).await?;
                say(&table(std::slice::from_ref(&made)).to_string())
            }
            Self::Run(one) => {
                let task = one.ask(Method::POST, "/run", Some(&json!({}))).await?;
                say(&format!("{} begins", text(&task, "/id")))
            }
            Self::Pause(one) => one.switch(false).await,
            Self::Resume(one) => one.switch(true).await,
            Self::Remove(one) => {
                one.ask(Method::DELETE, "", None).await?;
                say(&format!("{} is removed", one.id))
            }
        }
    }
}

impl One {
    async fn ask(&self, method: Method, rest: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let path = format!("/v1/schedules/{}{rest}", segment(&self.id));
        let client = Client::of(&self.place)?;
        Ok(client.say(method, &path, body, &[]).await?)
    }

    async fn switch(&self, enabled: bool) -> anyhow::Result<()> {
        let changed = self
            .ask(Method::PATCH, "", Some(&json!({ "enabled": enabled })))
            .await?;
        say(&table(std::slice::from_ref(&changed)).to_string())
    }
}

fn table(schedules: &[Value]) -> Table {
    let mut table = Table::new();
    table.set_header([
        "schedule",
        "when",
        "state",
        "next (UTC)",
        "last task",
        "spent, USD",
        "objective",
    ]);
    for it in schedules {
        let is_on = it.get("enabled") == Some(&Value::Bool(true));
        let stopped = ["/paused_why", "/held_back"]
            .map(|at| text(it, at))
            .concat();
        let state = match (is_on, stopped.as_str()) {
            (_, why) if !why.is_empty() => plain::line(why, 50),
            (true, _) => "on".to_owned(),
            (false, _) => "off".to_owned(),
        };
        let next = number(it, "/next_at_ms");
        let next = jiff::Timestamp::from_millisecond(next)
            .ok()
            .filter(|_| next > 0);
        table.add_row([
            text(it, "/id").to_owned(),
            format!("{} {}", text(it, "/cron"), text(it, "/zone")),
            state,
            next.map_or_else(String::new, |at| at.strftime("%Y-%m-%d %H:%M").to_string()),
            text(it, "/last_task").to_owned(),
            text(it, "/spent_usd").to_owned(),
            plain::line(text(it, "/brief/objective"), 40),
        ]);
    }
    table
}
