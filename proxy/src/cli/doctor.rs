//! `pareto doctor`: whether this machine is fit to run a configuration, and what to do where it is not.

mod look;

use std::process::ExitCode;

use clap::Args;
use comfy_table::Table;
use serde::Serialize;

use super::{File, quiet, say};
use crate::config::Config;

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Warn,
    Fail,
}

impl Verdict {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
        }
    }
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Finding {
    check: String,
    verdict: Verdict,
    found: String,
    /// What to do; empty where all is well.
    remedy: String,
}

impl Finding {
    fn ok(check: impl Into<String>, found: impl Into<String>) -> Self {
        Self {
            check: check.into(),
            verdict: Verdict::Ok,
            found: found.into(),
            remedy: String::new(),
        }
    }

    fn warn(check: impl Into<String>, found: impl Into<String>, remedy: &str) -> Self {
        Self {
            verdict: Verdict::Warn,
            remedy: remedy.to_owned(),
            ..Self::ok(check, found)
        }
    }

    fn fail(check: impl Into<String>, found: impl Into<String>, remedy: &str) -> Self {
        Self {
            verdict: Verdict::Fail,
            remedy: remedy.to_owned(),
            ..Self::ok(check, found)
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct Doctor {
    #[command(flatten)]
    file: File,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Doctor {
    /// Fails where a check does; what only warns is no failure.
    pub(super) fn run(&self) -> anyhow::Result<ExitCode> {
        quiet();
        let path = &self.file.config;
        let findings = match Config::load(path) {
            Ok(config) => look::all(path, &config)?,
            Err(invalid) => vec![Finding::fail(
                "configuration",
                invalid.to_string(),
                "correct the file; `pareto check` reads it again",
            )],
        };
        let worst = findings.iter().any(|it| it.verdict == Verdict::Fail);
        if self.json {
            say(&serde_json::to_string_pretty(&findings)?)?;
        } else {
            let mut table = Table::new();
            table.set_header(["check", "", "found", "what to do"]);
            for finding in findings {
                table.add_row([
                    finding.check.as_str(),
                    finding.verdict.as_str(),
                    finding.found.as_str(),
                    finding.remedy.as_str(),
                ]);
            }
            say(&table.to_string())?;
        }
        Ok(if worst {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        })
    }
}
