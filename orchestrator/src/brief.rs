//! What is asked for: the brief of a task, as a caller writes it.

use std::collections::BTreeMap;

use jiff::{Span, SpanRelativeTo, Timestamp, Unit};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::id::TaskId;
use crate::money::Usd;
use crate::tool::Verb;

/// The longest objective, in bytes.
const LONGEST_TEXT: usize = 32_768;
/// Constraints, checks, tools and the like at most.
const MOST: usize = 100;

/// A brief. Only `objective` and `definition_of_done` are required, the latter not in mode `explore`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Brief {
    pub objective: String,
    #[serde(default)]
    pub constraints: Vec<String>,
    #[serde(default)]
    pub sources_of_truth: Vec<Source>,
    #[serde(default)]
    pub definition_of_done: Vec<Check>,
    /// Patterns of tools besides the built-ins of the workspace; `*` stands for any text.
    #[serde(default)]
    pub allowed_tools: Vec<String>,
    /// 0: plans only; 1: retrieves and drafts; 2: asks before it acts; 3: acts within thresholds.
    #[serde(default = "Brief::asks")]
    pub autonomy: u8,
    #[serde(default)]
    pub approval: ApprovalRules,
    #[serde(default)]
    pub budget: Budget,
    #[serde(default)]
    pub routing: Routing,
    #[serde(default)]
    pub owner: Option<String>,
    #[serde(default)]
    pub on_behalf_of: Option<String>,
    #[serde(default)]
    pub cost_centre: Option<String>,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub skills: Vec<String>,
    /// When it is too late, in RFC 3339.
    #[serde(default)]
    pub deadline: Option<Timestamp>,
    #[serde(default)]
    pub notify: Vec<Notify>,
    /// Where results go; today every result is an artefact of the task.
    #[serde(default)]
    pub deliver_to: Vec<Value>,
    #[serde(default)]
    pub parent: Option<TaskId>,
    #[serde(default)]
    pub mode: Mode,
    #[serde(default)]
    pub idempotency_key: Option<String>,
}

/// Where the truth stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    #[serde(rename = "ref")]
    pub reference: String,
    #[serde(default)]
    pub canonical: bool,
    #[serde(default)]
    pub max_age: Option<String>,
}

/// What must hold in the end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Check {
    pub id: String,
    #[serde(flatten)]
    pub what: What,
}

/// A kind of check. All but the last are decided by code.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "check", rename_all = "snake_case")]
pub enum What {
    /// The workspace has a file of this name that is not empty.
    ArtifactExists { name: String },
    /// An artefact is JSON that a schema admits.
    JsonSchema { artifact: String, schema: Value },
    /// A pattern is found in an artefact.
    Regex { artifact: String, pattern: String },
    /// So many artefacts have names that fit a pattern.
    Count {
        artifacts: String,
        #[serde(default = "What::one")]
        at_least: u32,
    },
    /// A tool has acted.
    EffectDone {
        tool: String,
        #[serde(default = "What::one")]
        at_least: u32,
    },
    /// A model that wrote none of it judges.
    Judge {
        criterion: String,
        #[serde(default)]
        artifact: Option<String>,
        #[serde(default)]
        min_sources: u32,
    },
}

impl What {
    fn one() -> u32 {
        1
    }
}

/// When and by whom acts are approved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ApprovalRules {
    pub thresholds: Thresholds,
    /// Who may approve: `user:<name>`, `key:<id>`, `operator`; empty: whoever the tenant's keys belong to.
    pub approvers: Vec<String>,
    /// So many of them.
    pub quorum: u32,
    /// Whether who asked for the task may approve its acts.
    pub requester_may_approve: bool,
    /// How long a request stands, in ISO 8601.
    pub expires_in: String,
    pub on_expiry: OnExpiry,
}

impl Default for ApprovalRules {
    fn default() -> Self {
        Self {
            thresholds: Thresholds::default(),
            approvers: Vec::new(),
            quorum: 1,
            requester_may_approve: true,
            expires_in: "PT8H".to_owned(),
            on_expiry: OnExpiry::FailNode,
        }
    }
}

/// Up to what a task at autonomy 3 acts by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Thresholds {
    /// An act costs at most that.
    pub cost_usd: Option<Usd>,
    /// It has at most so many destinations.
    pub recipients: Option<u32>,
    /// The sensitivity from which it always asks.
    pub label: Option<String>,
}

/// What happens when nobody decides.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnExpiry {
    /// The act is denied; the step goes on without it or fails.
    #[default]
    FailNode,
    /// The task ends with what it has.
    Stop,
}

/// How much a task may use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Budget {
    /// Model calls and tools together.
    pub cost_usd: Option<Usd>,
    /// From its creation on, waiting included, in ISO 8601.
    pub wall: Option<String>,
    pub model_calls: u32,
    pub tool_calls: u32,
    /// Acts on the world.
    pub effects: u32,
    /// The share that is kept for the last calls.
    pub wrap_up_reserve_pct: u8,
    pub on_exhausted: OnExhausted,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            cost_usd: None,
            wall: None,
            model_calls: 200,
            tool_calls: 400,
            effects: 50,
            wrap_up_reserve_pct: 10,
            on_exhausted: OnExhausted::Incomplete,
        }
    }
}

/// What happens when it is used up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnExhausted {
    #[default]
    Incomplete,
    /// It asks for more.
    Ask,
}

/// Which models.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Routing {
    /// `auto`, `fast`, `deep` or a model's name for every call that no override names.
    pub mode: Option<String>,
    /// The same by the kind of step: `plan`, `verify`, `extract`, ...
    pub overrides: BTreeMap<String, String>,
    /// Regions of endpoints, the only ones that the task's calls may go to; empty: any.
    pub residency: Vec<String>,
    /// How sensitive the task's calls are.
    pub max_label: Option<String>,
}

/// Who is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Notify {
    /// The name of a webhook of the configuration.
    pub webhook: String,
    /// `requires_action`, `ended`; empty: both.
    #[serde(default)]
    pub events: Vec<String>,
}

/// What is done with the brief.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    #[default]
    Run,
    /// The plan is the result.
    PlanOnly,
    /// Without a definition of done.
    Explore,
}

/// A brief is not good.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {what}")]
pub struct BadBrief {
    /// The field.
    pub at: String,
    pub what: String,
}

fn bad(at: &str, what: impl Into<String>) -> BadBrief {
    BadBrief {
        at: at.to_owned(),
        what: what.into(),
    }
}

/// A length of time in ISO 8601, in milliseconds; days have 24 hours.
///
/// # Errors
/// When it is none, or not positive.
pub fn duration_ms(at: &str, text: &str) -> Result<i64, BadBrief> {
    let span: Span = text.parse().map_err(|_| {
        bad(
            at,
            format!("`{text}` is no duration; write one such as PT8H or P7D"),
        )
    })?;
    let days = SpanRelativeTo::days_are_24_hours();
    let ms = span.total((Unit::Millisecond, days)).unwrap_or(0.0);
    // A span of whole units comes out whole, and far below 2^53.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "milliseconds of a span, checked next"
    )]
    let ms = ms as i64;
    if (1..=366 * 86_400_000).contains(&ms) {
        Ok(ms)
    } else {
        Err(bad(
            at,
            format!("`{text}` must be more than nothing and at most a year"),
        ))
    }
}

impl Brief {
    fn asks() -> u8 {
        2
    }

    /// Checks what types can not say.
    ///
    /// # Errors
    /// With the first field that is not good.
    pub fn check(&self) -> Result<(), BadBrief> {
        if self.objective.trim().is_empty() || self.objective.len() > LONGEST_TEXT {
            return Err(bad(
                "objective",
                "must say in 1 to 32768 bytes what is wanted",
            ));
        }
        if self.definition_of_done.is_empty() && self.mode == Mode::Run {
            return Err(bad(
                "definition_of_done",
                "name at least one check, or write \"mode\": \"explore\"",
            ));
        }
        if self.autonomy > 3 {
            return Err(bad("autonomy", "is 0, 1, 2 or 3"));
        }
        for (name, length) in [
            ("constraints", self.constraints.len()),
            ("definition_of_done", self.definition_of_done.len()),
            ("allowed_tools", self.allowed_tools.len()),
            ("skills", self.skills.len()),
        ] {
            if length > MOST {
                return Err(bad(name, "has more than 100 entries"));
            }
        }
        self.check_checks()?;
        duration_ms("approval.expires_in", &self.approval.expires_in)?;
        if let Some(wall) = &self.budget.wall {
            duration_ms("budget.wall", wall)?;
        }
        if self.budget.wrap_up_reserve_pct > 50 {
            return Err(bad("budget.wrap_up_reserve_pct", "is at most 50"));
        }
        if self.approval.quorum == 0 || self.approval.quorum > 10 {
            return Err(bad("approval.quorum", "is 1 to 10"));
        }
        let is_region = |name: &String| {
            !name.is_empty() && name.bytes().all(|it| it.is_ascii_graphic() && it != b',')
        };
        if !self.routing.residency.iter().all(is_region) {
            let what = "names regions of endpoints, such as `eu`, without blanks and commas";
            return Err(bad("routing.residency", what));
        }
        let asked = self.routing.overrides.keys();
        match asked
            .into_iter()
            .find(|kind| !crate::plan::NodeKind::is_word(kind))
        {
            Some(kind) => Err(bad(
                "routing.overrides",
                format!(
                    "`{kind}` is no kind of step; write one of {}",
                    crate::plan::NodeKind::WORDS
                ),
            )),
            None => Ok(()),
        }
    }

    fn check_checks(&self) -> Result<(), BadBrief> {
        let mut seen = std::collections::BTreeSet::new();
        for check in &self.definition_of_done {
            let at = format!("definition_of_done.{}", check.id);
            if check.id.is_empty() || check.id.len() > 64 || !seen.insert(&check.id) {
                return Err(bad(
                    "definition_of_done",
                    "every check has an id of its own, 1 to 64 bytes",
                ));
            }
            if let What::Regex { pattern, .. } = &check.what {
                let built = regex::RegexBuilder::new(pattern)
                    .size_limit(1 << 20)
                    .build();
                built.map_err(|error| bad(&at, format!("pattern: {error}")))?;
            }
        }
        Ok(())
    }

    /// The most that a step may do: what autonomy leaves.
    pub fn verb_ceiling(&self) -> Verb {
        if self.autonomy >= 2 {
            Verb::Execute
        } else {
            Verb::Draft
        }
    }

    /// When it is too late, in milliseconds since 1970, for a task made at `created_ms`.
    pub fn deadline_ms(&self, created_ms: i64) -> Option<i64> {
        let wall = self.budget.wall.as_deref();
        let wall = wall.and_then(|wall| duration_ms("budget.wall", wall).ok());
        let wall = wall.map(|wall| created_ms.saturating_add(wall));
        let deadline = self.deadline.map(Timestamp::as_millisecond);
        [wall, deadline].into_iter().flatten().min()
    }

    /// How long a request for approval stands, in milliseconds.
    pub fn approval_ms(&self) -> i64 {
        duration_ms("approval.expires_in", &self.approval.expires_in).unwrap_or(8 * 3_600_000)
    }
}

/// Whether `pattern`, in which `*` stands for any text, fits `name`.
pub fn fits(pattern: &str, name: &str) -> bool {
    let mut pieces = pattern.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else {
        return false;
    };
    let mut pieces: Vec<&str> = pieces.collect();
    let Some(last) = pieces.pop() else {
        return rest.is_empty();
    };
    for piece in pieces {
        match rest.find(piece) {
            Some(at) => rest = rest.get(at + piece.len()..).unwrap_or_default(),
            None => return false,
        }
    }
    rest.ends_with(last)
}
