//! `pareto audit`: whether the log of tasks is what was written.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::ensure;
use clap::{Args, Subcommand};
use serde_json::Value;

use super::client::{Client, Place, list, number, text};
use super::{load, plain, quiet, say};
use crate::boot;
use crate::tasks::assemble;

#[derive(Debug, Args)]
pub(super) struct Audit {
    #[command(subcommand)]
    act: Act,
}

#[derive(Debug, Subcommand)]
enum Act {
    /// Walk every chain of the log, and every event it points at. Fails at the first that is not as it was
    /// written.
    Verify(Verify),
}

#[derive(Debug, Args)]
struct Verify {
    /// Look straight into the store of this configuration, beside a running gateway or without one.
    #[arg(long, conflicts_with_all = ["address", "key"])]
    config: Option<PathBuf>,
    /// A chain's last link as it was told before: it must still be in the chain.
    #[arg(long)]
    head: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

impl Audit {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        quiet();
        let Act::Verify(verify) = self.act;
        verify.run()
    }
}

impl Verify {
    fn run(self) -> anyhow::Result<ExitCode> {
        let report = match &self.config {
            Some(config) => assemble::audit(&load(config)?, self.head.as_deref())?,
            None => boot::runtime()?.block_on(self.ask())?,
        };
        let mut is_good = report.get("ok") == Some(&Value::Bool(true));
        let known = report.get("head_is_known").and_then(Value::as_bool);
        is_good &= known != Some(false);
        if self.json {
            say(&serde_json::to_string_pretty(&report)?)?;
        } else {
            for tenant in list(&report, "/tenants") {
                say(&shown(tenant))?;
            }
            if let (Some(false), Some(head)) = (known, &self.head) {
                say(&format!(
                    "no chain has the link {head} any more: what stood before it was rewritten"
                ))?;
            }
            say(if is_good {
                "the log is what was written"
            } else {
                "the log is NOT what was written"
            })?;
        }
        Ok(if is_good {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }

    async fn ask(&self) -> anyhow::Result<Value> {
        ensure!(
            self.head.is_none(),
            "--head looks into the store; give --config with it"
        );
        let client = Client::of(&self.place)?;
        Ok(client.get("/v1/audit/verify").await?)
    }
}

/// What a look through one tenant's log has shown.
fn shown(report: &Value) -> String {
    let mut lines = vec![format!(
        "{}: {} tasks, {} events ({} erased), {} links, head {}",
        plain::line(text(report, "/tenant"), 80),
        number(report, "/tasks"),
        number(report, "/events"),
        number(report, "/erased"),
        number(report, "/links"),
        text(report, "/head"),
    )];
    for finding in list(report, "/findings") {
        let place = ["link", "task", "seq"].map(|name| {
            let at = finding.get(name);
            let at = at.map(|at| at.as_str().map_or_else(|| at.to_string(), str::to_owned));
            at.map_or_else(String::new, |at| {
                format!("{} {at}, ", if name == "seq" { "event" } else { name })
            })
        });
        lines.push(format!("  {}{}", place.concat(), text(finding, "/what")));
    }
    lines.join("\n")
}
