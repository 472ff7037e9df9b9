//! `pareto tools` and `pareto skills`: what tasks may use.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};
use comfy_table::Table;
use serde_json::{Value, json};

use super::client::{Client, Place, list, segment, text};
use super::{plain, quiet, say};
use crate::boot;
use crate::tasks::assemble;

#[derive(Debug, Args)]
pub(super) struct Tools {
    #[command(subcommand)]
    act: ToolAct,
}

#[derive(Debug, Subcommand)]
enum ToolAct {
    /// List tools, what they may do, and whether they are as they were accepted.
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: Place,
    },
    /// Accept the definition of a tool as its server has it now, as the operator.
    Accept {
        /// The tool's whole name, server__tool.
        name: String,
        #[command(flatten)]
        place: Place,
    },
}

impl Tools {
    pub(super) fn run(self) -> anyhow::Result<()> {
        quiet();
        boot::runtime()?.block_on(async {
            match self.act {
                ToolAct::List { json, place } => {
                    let tools = Client::of(&place)?.get("/v1/tools").await?;
                    if json {
                        return say(&serde_json::to_string_pretty(&tools)?);
                    }
                    say(&tool_table(list(&tools, "/data")).to_string())
                }
                ToolAct::Accept { name, mut place } => {
                    place.operator = true;
                    accept(&Client::of(&place)?, &name).await
                }
            }
        })
    }
}

fn tool_table(tools: &[Value]) -> Table {
    let mut table = Table::new();
    table.set_header(["tool", "state", "verb", "class", "changed", "description"]);
    for tool in tools {
        let changed = list(tool, "/changed").iter().filter_map(Value::as_str);
        table.add_row([
            text(tool, "/tool").to_owned(),
            text(tool, "/state").to_owned(),
            text(tool, "/verb").to_owned(),
            text(tool, "/class").to_owned(),
            plain::line(&changed.collect::<Vec<_>>().join(", "), 60),
            plain::line(text(tool, "/definition/description"), 60),
        ]);
    }
    table
}

/// Shows a tool's definition whole, and accepts exactly that.
async fn accept(client: &Client, name: &str) -> anyhow::Result<()> {
    let tools = client.get("/v1/tools").await?;
    let found = list(&tools, "/data")
        .iter()
        .find(|it| text(it, "/tool") == name);
    let tool = found.with_context(|| {
        format!(
            "no server has a tool `{name}` that was ever asked for; `pareto tools list` shows them"
        )
    })?;
    let definition = tool.get("definition").unwrap_or(&Value::Null);
    say(&plain::text(&serde_json::to_string_pretty(definition)?))?;
    let path = format!("/v1/tools/{}/accept", segment(name));
    client
        .post(&path, &json!({ "pin": text(tool, "/pin") }))
        .await?;
    say(&format!("{name} is accepted as {}", text(tool, "/pin")))
}

#[derive(Debug, Args)]
pub(super) struct Skills {
    #[command(subcommand)]
    act: SkillAct,
}

#[derive(Debug, Subcommand)]
enum SkillAct {
    /// List the skills that briefs may name.
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: Place,
    },
    /// Check the skills in a folder, as a gateway would take them.
    Check {
        /// A folder of folders with a SKILL.md each.
        dir: PathBuf,
    },
}

impl Skills {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        quiet();
        match self.act {
            SkillAct::List { json, place } => {
                let asked = async { Ok(Client::of(&place)?.get("/v1/skills").await?) };
                let skills: anyhow::Result<Value> = boot::runtime()?.block_on(asked);
                let skills = skills?;
                if json {
                    say(&serde_json::to_string_pretty(&skills)?)?;
                } else {
                    say(&skill_table(list(&skills, "/data")).to_string())?;
                }
                Ok(ExitCode::SUCCESS)
            }
            SkillAct::Check { dir } => check(dir),
        }
    }
}

fn skill_table(skills: &[Value]) -> Table {
    let mut table = Table::new();
    table.set_header(["skill", "layer", "trusted", "description"]);
    for skill in skills {
        let trusted = skill.get("trusted") == Some(&Value::Bool(true));
        table.add_row([
            text(skill, "/name").to_owned(),
            text(skill, "/layer").to_owned(),
            if trusted { "yes" } else { "no" }.to_owned(),
            plain::line(text(skill, "/description"), 80),
        ]);
    }
    table
}

fn check(dir: PathBuf) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(dir.is_dir(), "{} is no folder", dir.display());
    let checked = assemble::check_skills(dir);
    for name in &checked.taken {
        say(&format!("{name}: good"))?;
    }
    for problem in &checked.problems {
        say(&plain::text(problem))?;
    }
    if checked.taken.is_empty() && checked.problems.is_empty() {
        say("there is no SKILL.md in it")?;
    }
    let is_good = checked.problems.is_empty() && !checked.taken.is_empty();
    Ok(if is_good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
