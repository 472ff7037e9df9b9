//! A task's events in words, one line each.

use std::collections::BTreeMap;

use serde_json::Value;

use super::super::client::{list, number, text};
use super::super::plain;

/// Characters of what models, tools and people wrote in one line.
const MOST: usize = 110;

/// Tells events. It remembers the names that later events only point at.
#[derive(Debug, Default)]
pub(super) struct Teller {
    began_ms: Option<i64>,
    /// What each call to a model is for, by its number.
    calls: BTreeMap<i64, String>,
    /// Tool and step of each act.
    effects: BTreeMap<String, (String, String)>,
}

impl Teller {
    /// The event in words, with the seconds since the task began before them.
    pub(super) fn line(&mut self, event: &Value) -> String {
        let at_ms = number(event, "/at_ms");
        let began_ms = *self.began_ms.get_or_insert(at_ms);
        let tenths = at_ms.saturating_sub(began_ms) / 100;
        let words = self.words(event);
        format!("{:>4}.{} s  {words}", tenths / 10, tenths % 10)
    }

    fn words(&mut self, event: &Value) -> String {
        let kind = text(event, "/type").to_owned();
        let data = event.get("data").unwrap_or(&Value::Null);
        let family = kind.split('.').next().unwrap_or_default();
        let words = match family {
            "task" => of_task(&kind, data, text(event, "/actor")),
            "plan" | "node" => of_plan(&kind, data),
            "model" => self.of_model(&kind, data),
            "effect" => self.of_effect(&kind, data),
            "approval" | "input" => of_request(&kind, data),
            _ => of_rest(&kind, data),
        };
        words.unwrap_or(kind)
    }

    fn of_model(&mut self, kind: &str, data: &Value) -> Option<String> {
        let call = number(data, "/call");
        if kind == "model.requested" {
            let purpose = match text(data, "/for") {
                "node" => text(data, "/node").to_owned(),
                "judge" => format!("judge of {}", text(data, "/check")),
                "compact" => format!("notes of {}", text(data, "/node")),
                other => other.to_owned(),
            };
            let words = format!("{purpose}: asks {}", text(data, "/asked"));
            self.calls.insert(call, purpose);
            return Some(words);
        }
        let purpose = self.calls.get(&call).map_or("?", String::as_str);
        Some(match kind {
            "model.completed" => {
                let uses = list(data, "/uses");
                let names: Vec<&str> = uses.iter().map(|it| text(it, "/name")).collect();
                let says = if names.is_empty() {
                    format!("says {}", plain::line(text(data, "/text"), 60))
                } else {
                    format!("wants {}", plain::line(&names.join(", "), 60))
                };
                format!(
                    "{purpose}: {} ({}) {says}  [{} in, {} out, {} USD]",
                    text(data, "/model"),
                    text(data, "/tier"),
                    number(data, "/input_tokens"),
                    number(data, "/output_tokens"),
                    text(data, "/cost"),
                )
            }
            "model.failed" => format!(
                "{purpose}: the call failed: {}",
                plain::line(text(data, "/why"), MOST)
            ),
            "model.lost" => format!(
                "{purpose}: nobody saw the end of the call; {} USD stay spent",
                text(data, "/cost")
            ),
            _ => return None,
        })
    }

    fn of_effect(&mut self, kind: &str, data: &Value) -> Option<String> {
        let effect = text(data, "/effect").to_owned();
        if kind == "effect.intent" {
            let named = (
                text(data, "/node").to_owned(),
                text(data, "/tool").to_owned(),
            );
            let arguments = data.get("arguments").map(Value::to_string);
            let arguments = plain::line(&arguments.unwrap_or_default(), MOST);
            let gate = match text(data, "/gate") {
                "ask" => "  must be approved".to_owned(),
                "denied" => format!("  denied: {}", plain::line(text(data, "/why"), MOST)),
                _ => String::new(),
            };
            let words = format!("{}: calls {} {arguments}{gate}", named.0, named.1);
            self.effects.insert(effect, named);
            return Some(words);
        }
        let (node, tool) = self.effects.get(&effect)?;
        let told = || plain::line(text(data, "/result/shown"), MOST);
        let why = || plain::line(text(data, "/why"), MOST);
        let words = match kind {
            "effect.committed" if number(data, "/attempt") > 1 => {
                format!("is called, attempt {}", number(data, "/attempt"))
            }
            "effect.committed" => "is called".to_owned(),
            "effect.succeeded" => format!("gave {}", told()),
            "effect.failed" => format!("failed: {}", told()),
            "effect.not_sent" => format!("was not reached: {}", why()),
            "effect.lost" => format!("may have acted, its end was not seen: {}", why()),
            "effect.unknown" => format!("may have acted, and nobody here can tell: {}", why()),
            "effect.reconciled" => {
                let happened = data.get("happened") == Some(&Value::Bool(true));
                let word = if happened {
                    "had acted"
                } else {
                    "had not acted"
                };
                format!("{word}: {}", plain::line(text(data, "/how"), MOST))
            }
            "effect.denied" => format!("was denied: {}", why()),
            _ => return None,
        };
        Some(format!("{node}: {tool} {words}"))
    }
}

fn of_task(kind: &str, data: &Value, actor: &str) -> Option<String> {
    let why = || plain::line(text(data, "/why"), MOST);
    Some(match kind {
        "task.created" => {
            let objective = plain::line(text(data, "/brief/objective"), MOST);
            format!("{} for {actor}: {objective}", text(data, "/task"))
        }
        "task.taken" => "is worked on".to_owned(),
        "task.paused" => format!("paused: {}", why()),
        "task.resumed" => "resumed".to_owned(),
        "task.steered" => format!("{actor} says: {}", plain::line(text(data, "/text"), MOST)),
        "task.cancel_requested" => format!("to be cancelled: {}", why()),
        "task.ended" => format!("ended: {} ({})", text(data, "/status"), why()),
        "task.summarised" => format!("sums up: {}", plain::line(text(data, "/text"), MOST)),
        _ => return None,
    })
}

fn of_plan(kind: &str, data: &Value) -> Option<String> {
    let node = text(data, "/node");
    let why = || plain::line(text(data, "/why"), MOST);
    Some(match kind {
        "plan.proposed" | "plan.revised" => {
            let steps = list(data, "/plan/nodes");
            let first = format!(
                "plan {} with {} steps, up to {} at once",
                number(data, "/plan/rev"),
                steps.len(),
                number(data, "/plan/max_parallel"),
            );
            let steps = steps.iter().map(|step| {
                let before: Vec<&str> = list(step, "/depends_on")
                    .iter()
                    .filter_map(Value::as_str)
                    .collect();
                let before = if before.is_empty() {
                    String::new()
                } else {
                    format!(" (after {})", before.join(", "))
                };
                format!(
                    "\n          {} {}: {}{before}",
                    text(step, "/id"),
                    text(step, "/kind"),
                    plain::line(text(step, "/title"), 60),
                )
            });
            first + &steps.collect::<String>()
        }
        "plan.refused" => {
            let problems: Vec<&str> = list(data, "/problems")
                .iter()
                .filter_map(Value::as_str)
                .collect();
            format!(
                "the plan is refused: {}",
                plain::line(&problems.join("; "), MOST)
            )
        }
        "node.started" if number(data, "/attempt") > 1 => {
            format!("{node}: begins, attempt {}", number(data, "/attempt"))
        }
        "node.started" => format!("{node}: begins"),
        "node.succeeded" => format!("{node}: done"),
        "node.refused" => format!(
            "{node}: its output is refused: {}",
            plain::line(text(data, "/problem"), MOST)
        ),
        "node.failed" => format!("{node}: failed: {}", why()),
        "node.skipped" => format!("{node}: skipped: {}", why()),
        _ => return None,
    })
}

fn of_request(kind: &str, data: &Value) -> Option<String> {
    let why = || plain::line(text(data, "/why"), MOST);
    Some(match kind {
        "approval.requested" => {
            let tools: Vec<&str> = list(data, "/items")
                .iter()
                .map(|item| text(item, "/tool"))
                .collect();
            let about = match text(data, "/asking") {
                "budget" => "more money".to_owned(),
                "unknown" => format!("what became of {}", tools.join(", ")),
                _ => tools.join(", "),
            };
            format!("waits for a person over {about}: {}", why())
        }
        "approval.decided" => {
            let yes = data.get("approve") == Some(&Value::Bool(true));
            let by = text(data, "/by");
            let reason = plain::line(text(data, "/reason"), MOST);
            match (yes, text(data, "/settle")) {
                (_, "happened" | "again" | "give_up") => {
                    format!("{by} settles it: {}", text(data, "/settle"))
                }
                (true, _) => format!("{by} approves ({})", text(data, "/scope")),
                (false, _) => format!("{by} denies: {reason}"),
            }
        }
        "approval.expired" => "nobody decided in time".to_owned(),
        "approval.invalidated" => format!("what was asked for holds no more: {}", why()),
        "input.requested" => {
            format!("asks: {}", plain::line(text(data, "/question"), MOST))
        }
        "input.received" => format!("is answered: {}", plain::line(text(data, "/answer"), MOST)),
        _ => return None,
    })
}

fn of_rest(kind: &str, data: &Value) -> Option<String> {
    let why = || plain::line(text(data, "/why"), MOST);
    Some(match kind {
        "budget.notice" => plain::line(text(data, "/text"), MOST),
        "budget.exhausted" => format!("ran out of {}", text(data, "/what")),
        "context.compacted" => format!("{}: older turns became notes", text(data, "/node")),
        "artifact.written" => format!(
            "{} has {} bytes",
            plain::line(text(data, "/name"), MOST),
            number(data, "/bytes")
        ),
        "check.passed" => format!(
            "check {} passed: {}",
            text(data, "/check"),
            plain::line(text(data, "/evidence"), MOST)
        ),
        "check.failed" => format!("check {} failed: {}", text(data, "/check"), why()),
        "loop.warned" => format!("{}: goes in circles: {}", text(data, "/node"), why()),
        _ => return None,
    })
}
