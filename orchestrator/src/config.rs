//! `[orchestrator]`: how tasks are worked on here, and what none of them may do.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::next;
use crate::tool::builtin::FetchConfig;
use crate::tool::config::Secret;

/// The section.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Whether this node takes and works on tasks.
    pub enabled: bool,
    /// Tasks that are worked on at a time.
    pub workers: usize,
    /// Seconds after which the tasks of a node that gave no sign of life are another's.
    pub lease_s: u64,
    /// Seconds that one call of a tool may take.
    pub tool_call_s: u64,
    /// The most autonomy that a brief may ask for, 0 to 3.
    pub autonomy: u8,
    /// Patterns of tools that no task may call.
    pub denied_tools: Vec<String>,
    /// Texts that no act may carry out: planted ones, or secrets.
    pub canaries: Vec<Secret>,
    /// From which idempotency keys of acts are made. Without one, it is made at the first start.
    pub secret: Option<Secret>,
    /// The folder of the tasks' workspaces; `work` in the store's folder where absent.
    pub workspace: Option<PathBuf>,
    /// Folders of skills besides those that are built in.
    pub skills: Vec<PathBuf>,
    /// `[orchestrator.fetch]`: which pages tasks may read.
    pub fetch: FetchConfig,
    pub limits: Limits,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: true,
            workers: 16,
            lease_s: 30,
            tool_call_s: 600,
            autonomy: 3,
            denied_tools: Vec::new(),
            canaries: Vec::new(),
            secret: None,
            workspace: None,
            skills: Vec::new(),
            fetch: FetchConfig::default(),
            limits: Limits::default(),
        }
    }
}

/// `[orchestrator.limits]`: bounds against tasks that never end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Turns of one step.
    pub turns: usize,
    /// Tools that one turn may call.
    pub uses: usize,
    /// Calls of models without any progress of the task.
    pub stalled_calls: u64,
    /// Refused acts after which a task stops.
    pub denials: u32,
    /// Revisions of a plan.
    pub replans: u32,
    /// Bytes of a step's transcript from which it is shortened.
    pub transcript_bytes: usize,
    /// Bytes of a result that models see at once.
    pub result_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        let limits = next::Limits::default();
        Self {
            turns: limits.turns,
            uses: limits.uses,
            stalled_calls: limits.stalled_calls,
            denials: limits.denials,
            replans: limits.replans,
            transcript_bytes: limits.transcript_bytes,
            result_bytes: limits.result_bytes,
        }
    }
}

impl Config {
    /// What is wrong with it: keys and messages.
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let mut found = Vec::new();
        let mut within = |key: &'static str, value: u64, least: u64, most: u64| {
            if !(least..=most).contains(&value) {
                found.push((key, format!("{value} must be {least} to {most}")));
            }
        };
        let wide = |value: usize| u64::try_from(value).unwrap_or(u64::MAX);
        within("workers", wide(self.workers), 1, 10_000);
        within("lease_s", self.lease_s, 1, 3_600);
        within("tool_call_s", self.tool_call_s, 1, 86_400);
        within("autonomy", u64::from(self.autonomy), 0, 3);
        within("limits.turns", wide(self.limits.turns), 1, 10_000);
        within("limits.uses", wide(self.limits.uses), 1, 1_000);
        within(
            "limits.transcript_bytes",
            wide(self.limits.transcript_bytes),
            4_096,
            64 << 20,
        );
        within(
            "limits.result_bytes",
            wide(self.limits.result_bytes),
            256,
            16 << 20,
        );
        if self.canaries.iter().any(|canary| canary.expose().len() < 6) {
            let message = "a text of less than 6 bytes would be found in everything";
            found.push(("canaries", message.to_owned()));
        }
        found
    }

    /// What is in force for all tasks, with the names of the gateway's sensitivity labels, least first.
    pub fn policy(&self, labels: &[String]) -> next::Policy {
        let limits = next::Limits {
            turns: self.limits.turns,
            uses: self.limits.uses,
            stalled_calls: self.limits.stalled_calls,
            denials: self.limits.denials,
            replans: self.limits.replans,
            transcript_bytes: self.limits.transcript_bytes,
            result_bytes: self.limits.result_bytes,
            ..next::Limits::default()
        };
        let canaries: Vec<String> = self
            .canaries
            .iter()
            .map(|it| it.expose().to_owned())
            .collect();
        // What decides over acts; limits on length do not take approvals back.
        let version = crate::Digest::of_value(&serde_json::json!([
            self.autonomy,
            self.denied_tools,
            canaries,
            labels,
        ]));
        next::Policy {
            version: version.short(),
            denied: self.denied_tools.clone(),
            autonomy: self.autonomy,
            canaries,
            labels: labels.to_vec(),
            limits,
        }
    }

    /// How long a lease lasts without a heartbeat.
    pub fn lease(&self) -> Duration {
        Duration::from_secs(self.lease_s)
    }
}
