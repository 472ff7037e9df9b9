//! A plan: steps that depend on one another, made by a model and checked by code.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::brief::{Brief, fits};
use crate::tool::{Offered, Verb};

/// Steps at most.
const MOST_NODES: usize = 40;

/// A plan.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// From 1; counted here, whatever the planner writes.
    #[serde(default)]
    pub rev: u32,
    pub nodes: Vec<Node>,
    #[serde(default = "Plan::four")]
    pub max_parallel: usize,
}

/// A step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Node {
    pub id: String,
    pub kind: NodeKind,
    pub title: String,
    #[serde(default)]
    pub instructions: String,
    #[serde(default)]
    pub depends_on: Vec<String>,
    /// The schema of its output, where that is JSON.
    #[serde(default)]
    pub output_schema: Option<Value>,
    /// Checks of the brief that it works for.
    #[serde(default)]
    pub accept: Vec<String>,
    /// Names or patterns of tools.
    #[serde(default)]
    pub tools: Vec<String>,
    #[serde(default)]
    pub verb_ceiling: Option<Verb>,
    /// What it changes, such as `file:review.docx`; steps that change the same do not run together.
    #[serde(default)]
    pub writes: Vec<String>,
    /// The share of the budget that it may use.
    #[serde(default)]
    pub budget_share: Option<f64>,
    #[serde(default = "Node::two")]
    pub max_attempts: u32,
    #[serde(default)]
    pub on_fail: OnFail,
    /// Acts that are known already: they can be approved with the plan.
    #[serde(default)]
    pub acts: Vec<PlannedAct>,
}

/// An act that is known when the plan is made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedAct {
    pub tool: String,
    pub arguments: Value,
}

/// What a step does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeKind {
    Retrieve,
    Classify,
    Extract,
    Rename,
    Format,
    Summarise,
    Synthesise,
    Analyse,
    Code,
    Draft,
    Act,
    Verify,
}

impl NodeKind {
    /// The words of all kinds of calls, for messages.
    pub const WORDS: &'static str = "plan, retrieve, classify, extract, rename, format, summarise, synthesise, analyse, code, draft, act, verify, judge, compact, wrap_up";

    /// Whether `word` names a kind of call.
    pub fn is_word(word: &str) -> bool {
        Self::WORDS.split(", ").any(|known| known == word)
    }

    /// The word it goes by.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Retrieve => "retrieve",
            Self::Classify => "classify",
            Self::Extract => "extract",
            Self::Rename => "rename",
            Self::Format => "format",
            Self::Summarise => "summarise",
            Self::Synthesise => "synthesise",
            Self::Analyse => "analyse",
            Self::Code => "code",
            Self::Draft => "draft",
            Self::Act => "act",
            Self::Verify => "verify",
        }
    }

    /// What its calls ask the gateway for, unless the brief says otherwise: steps with large leverage go
    /// deep, steps that a schema or a later check holds go fast, and the rest is the router's choice.
    pub const fn wants(self) -> &'static str {
        match self {
            Self::Synthesise | Self::Analyse | Self::Verify => "deep",
            Self::Retrieve
            | Self::Classify
            | Self::Extract
            | Self::Rename
            | Self::Format
            | Self::Draft => "fast",
            Self::Summarise | Self::Code | Self::Act => "auto",
        }
    }

    /// The step of an agent's work that it is to the router.
    pub const fn step(self) -> &'static str {
        match self {
            Self::Retrieve | Self::Act | Self::Code => "act",
            Self::Classify | Self::Extract | Self::Rename | Self::Format => "digest",
            Self::Summarise => "summarise",
            Self::Synthesise | Self::Analyse | Self::Draft => "chat",
            Self::Verify => "verify",
        }
    }
}

/// What follows when a step fails for good.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFail {
    #[default]
    Replan,
    Skip,
    Stop,
}

impl Plan {
    fn four() -> usize {
        4
    }

    /// The plan of a task that needs none: one step with all tools.
    pub fn single(brief: &Brief) -> Self {
        Self {
            rev: 1,
            nodes: vec![Node {
                id: "n1".to_owned(),
                kind: NodeKind::Act,
                title: "Do what is asked".to_owned(),
                instructions: String::new(),
                depends_on: Vec::new(),
                output_schema: None,
                accept: brief
                    .definition_of_done
                    .iter()
                    .map(|it| it.id.clone())
                    .collect(),
                tools: vec!["*".to_owned()],
                verb_ceiling: None,
                writes: Vec::new(),
                budget_share: None,
                max_attempts: 2,
                on_fail: OnFail::Stop,
                acts: Vec::new(),
            }],
            max_parallel: 1,
        }
    }

    /// Reads a planner's answer: the first JSON object in it.
    ///
    /// # Errors
    /// In words that the planner can mend it by.
    pub fn read(text: &str) -> Result<Self, String> {
        let object = first_object(text).ok_or("the answer has no JSON object")?;
        let value: Value = serde_json::from_str(object)
            .map_err(|error| format!("the plan can not be read: {error}"))?;
        if !crate::next::gate_of::is_shallow(&value) {
            return Err("the plan is nested too deeply".to_owned());
        }
        serde_json::from_value(value).map_err(|error| format!("the plan can not be read: {error}"))
    }

    /// The step of this id.
    pub fn node(&self, id: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.id == id)
    }

    /// What is wrong with it: nothing widens what the brief allows, and everything asked for is covered.
    /// `kept` are steps that have ended and must stand unchanged in a revision.
    pub fn problems(&self, brief: &Brief, offered: &[Offered], kept: &[&Node]) -> Vec<String> {
        let mut problems = Vec::new();
        if self.nodes.is_empty() || self.nodes.len() > MOST_NODES {
            problems.push(format!("a plan has 1 to {MOST_NODES} steps"));
        }
        if !(1..=16).contains(&self.max_parallel) {
            problems.push("max_parallel is 1 to 16".to_owned());
        }
        let mut ids = BTreeSet::new();
        for node in &self.nodes {
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
            if node.id.is_empty() || node.id.len() > 32 || !node.id.chars().all(plain) {
                problems.push(format!(
                    "step `{}`: ids are 1 to 32 letters, digits, _ or -",
                    node.id
                ));
            }
            if !ids.insert(node.id.as_str()) {
                problems.push(format!("step `{}` stands twice", node.id));
            }
        }
        for node in &self.nodes {
            node.problems(brief, offered, &ids, &mut problems);
        }
        if self.has_cycle() {
            problems.push("steps depend on each other in a circle".to_owned());
        }
        self.uncovered(brief, &mut problems);
        for old in kept {
            if self.node(&old.id) != Some(old) {
                problems.push(format!(
                    "step `{}` has ended and must stay as it was",
                    old.id
                ));
            }
        }
        problems
    }

    fn uncovered(&self, brief: &Brief, problems: &mut Vec<String>) {
        let covered: BTreeSet<&String> = self.nodes.iter().flat_map(|node| &node.accept).collect();
        for check in &brief.definition_of_done {
            if !covered.contains(&check.id) {
                problems.push(format!("no step has `{}` in its accept", check.id));
            }
        }
        let most = 1.0 - f64::from(brief.budget.wrap_up_reserve_pct) / 100.0;
        let shares: f64 = self.nodes.iter().filter_map(|node| node.budget_share).sum();
        if shares > most + 1e-9 {
            problems.push(format!("budget shares sum up to more than {most}"));
        }
    }

    /// Whether steps wait for each other: Kahn's algorithm leaves some over.
    fn has_cycle(&self) -> bool {
        let mut open: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for node in &self.nodes {
            open.insert(
                &node.id,
                node.depends_on.iter().map(String::as_str).collect(),
            );
        }
        loop {
            let free = open.iter().find(|(_, before)| before.is_empty());
            let Some(free) = free.map(|(id, _)| *id) else {
                return !open.is_empty();
            };
            open.remove(free);
            for before in open.values_mut() {
                before.remove(free);
            }
        }
    }
}

impl Node {
    fn two() -> u32 {
        2
    }

    /// The most that it may do.
    pub fn ceiling(&self, brief: &Brief) -> Verb {
        let own = self.verb_ceiling.unwrap_or(Verb::Execute);
        own.min(brief.verb_ceiling())
    }

    /// Whether it may call `tool`.
    pub fn may_call(&self, brief: &Brief, tool: &Offered) -> bool {
        let name = &tool.definition.name;
        let built_in = tool.definition.server.is_empty();
        let named = self.tools.iter().any(|pattern| fits(pattern, name));
        (named || (built_in && tool.manifest.verb < Verb::Execute && !is_outside(name)))
            && allows(brief, tool)
    }

    fn problems(
        &self,
        brief: &Brief,
        offered: &[Offered],
        ids: &BTreeSet<&str>,
        problems: &mut Vec<String>,
    ) {
        let id = &self.id;
        for before in &self.depends_on {
            if !ids.contains(before.as_str()) || before == id {
                problems.push(format!(
                    "step `{id}` depends on `{before}`, which is no other step"
                ));
            }
        }
        for pattern in &self.tools {
            let mut known = offered
                .iter()
                .filter(|tool| fits(pattern, &tool.definition.name));
            if !known.any(|tool| allows(brief, tool)) {
                problems.push(format!(
                    "step `{id}`: tool `{pattern}` is not known or not allowed"
                ));
            }
        }
        if self
            .verb_ceiling
            .is_some_and(|own| own > brief.verb_ceiling())
        {
            problems.push(format!(
                "step `{id}`: its verb_ceiling is above what autonomy allows"
            ));
        }
        for accept in &self.accept {
            if !brief
                .definition_of_done
                .iter()
                .any(|check| check.id == *accept)
            {
                problems.push(format!("step `{id}`: `{accept}` is no check of the brief"));
            }
        }
        if self
            .budget_share
            .is_some_and(|share| !(0.0..=1.0).contains(&share))
        {
            problems.push(format!("step `{id}`: budget_share is 0 to 1"));
        }
        if !(1..=5).contains(&self.max_attempts) {
            problems.push(format!("step `{id}`: max_attempts is 1 to 5"));
        }
    }
}

/// Built-ins that reach outside the workspace must be named like any server's tool.
fn is_outside(name: &str) -> bool {
    name == "http_fetch"
}

/// Whether the brief allows `tool` at all.
pub fn allows(brief: &Brief, tool: &Offered) -> bool {
    let name = &tool.definition.name;
    let built_in = tool.definition.server.is_empty() && !is_outside(name);
    built_in
        || brief
            .allowed_tools
            .iter()
            .any(|pattern| fits(pattern, name))
}

/// The text from the first `{` to its partner.
pub fn first_object(text: &str) -> Option<&str> {
    let from = text.find('{')?;
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    for (at, byte) in text.bytes().enumerate().skip(from) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'{' if !quoted => depth += 1,
            b'}' if !quoted => {
                depth -= 1;
                if depth == 0 {
                    return text.get(from..=at);
                }
            }
            _ => {}
        }
    }
    None
}
