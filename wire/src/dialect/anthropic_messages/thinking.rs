//! How thinking is asked for: by a budget, by effort, or not at all, as the model takes it.

use serde_json::{Map, Value, json};

use crate::call::{Call, Effort, Kind, Reasoning, Role, Turn};
use crate::dialect::ThinkingForm;
use crate::dialect::fields::{put, text};
use crate::loss::Losses;

use super::encode::DEFAULT_CAP;

/// The least thinking budget that the API takes.
const LEAST_BUDGET: u64 = 1_024;

/// Whether the present tool loop has calls that no thinking of this origin stands before, because
/// another model made them.
pub(super) fn in_foreign_loop(turns: &[Turn]) -> bool {
    let (mut spoken, mut told, mut foreign) = (false, false, false);
    for turn in turns {
        match turn.role {
            Role::User if turn.answers_tools() => told = true,
            // Beside results, the user's words belong to the loop.
            Role::User if !told => (spoken, foreign) = (false, false),
            Role::Assistant => {
                let first = turn.parts.first().map(|part| &part.kind);
                let thought = matches!(first, Some(Kind::Thinking(_)));
                // What this origin said later in a loop it may have said without thinking anew.
                let is_own = spoken && !turn.raw.is_empty();
                foreign |= turn.calls_tools() && !thought && !is_own;
                (spoken, told) = (true, false);
            }
            Role::User | Role::System => {}
        }
    }
    foreign
}

/// Says what a call of this dialect asks of thinking in the form that the model takes.
pub(super) fn fit_thinking(
    body: &mut Map<String, Value>,
    call: &Call,
    form: ThinkingForm,
    losses: &mut Losses,
) {
    let asked = body.get("thinking").map_or("", |it| text(it, "type"));
    let has_effort = body
        .get("output_config")
        .is_some_and(|config| config.get("effort").is_some());
    // A model that does not reason takes no word about it, not even that it is off.
    let is_silent = form != ThinkingForm::None || asked.is_empty();
    if is_silent && form.takes(ThinkingForm::asked(asked), has_effort) {
        return;
    }
    let cap = body.get("max_tokens").and_then(Value::as_u64);
    let cap = cap.unwrap_or(DEFAULT_CAP);
    let mut effort = None;
    if ThinkingForm::asked(asked).is_some() {
        let (thinking, word) = thinking_value(&call.reasoning, form, cap, false, losses);
        effort = word;
        match thinking {
            Some(thinking) => body.insert("thinking".to_owned(), thinking),
            None => body.shift_remove("thinking"),
        };
    } else {
        losses.dropped_if(has_effort, "output_config.effort");
    }
    if form == ThinkingForm::None {
        body.shift_remove("thinking");
    }
    let config = body.entry("output_config").or_insert_with(|| json!({}));
    if let Some(config) = config.as_object_mut() {
        config.shift_remove("effort");
        put(config, "effort", effort);
    }
    if config == &json!({}) {
        body.shift_remove("output_config");
    }
}

/// How the model is to think, and with what effort where it takes a word for that.
pub(super) fn thinking_value(
    reasoning: &Reasoning,
    form: ThinkingForm,
    cap: u64,
    forced: bool,
    losses: &mut Losses,
) -> (Option<Value>, Option<&'static str>) {
    if form == ThinkingForm::None {
        return (None, None);
    }
    let off = reasoning.enabled == Some(false) || reasoning.effort == Some(Effort::None);
    if off {
        return (Some(json!({ "type": "disabled" })), None);
    }
    if (reasoning.enabled, reasoning.effort, reasoning.budget) == (None, None, None) {
        return (None, None);
    }
    // A forced tool and thinking exclude each other, and a small cap has no room for a budget.
    if forced || (form == ThinkingForm::Budget && cap <= LEAST_BUDGET) {
        losses.dropped("reasoning");
        return (None, None);
    }
    let (mut value, effort) = if form == ThinkingForm::Adaptive {
        (json!({ "type": "adaptive" }), effort_of(reasoning, losses))
    } else {
        let budget = budget_of(reasoning, cap, losses);
        (json!({ "type": "enabled", "budget_tokens": budget }), None)
    };
    if let (Some("omitted"), Some(value)) = (reasoning.summary.as_deref(), value.as_object_mut()) {
        value.insert("display".to_owned(), "omitted".into());
    }
    (Some(value), effort)
}

/// The tokens that may be thought, at most half of `cap`.
fn budget_of(reasoning: &Reasoning, cap: u64, losses: &mut Losses) -> u64 {
    let budget = match (reasoning.budget, reasoning.effort) {
        (Some(budget), _) => budget,
        (None, Some(effort)) => {
            losses.approximated("reasoning.effort");
            effort.budget()
        }
        (None, None) => {
            losses.approximated("reasoning");
            Effort::Medium.budget()
        }
    };
    // It counts against the cap, and something must be left to say.
    let fitting = budget.clamp(LEAST_BUDGET, (cap / 2).max(LEAST_BUDGET));
    if fitting != budget {
        losses.approximated("reasoning");
    }
    fitting
}

/// The word for the effort; there is none below `low`, and `max` is the highest that all take.
fn effort_of(reasoning: &Reasoning, losses: &mut Losses) -> Option<&'static str> {
    let effort = match (reasoning.effort, reasoning.budget) {
        (Some(Effort::Minimal), _) => {
            losses.approximated("reasoning.effort");
            Effort::Low
        }
        (Some(Effort::XHigh), _) => {
            losses.approximated("reasoning.effort");
            Effort::Max
        }
        (Some(effort), _) => effort,
        (None, Some(budget)) => {
            losses.approximated("thinking.budget_tokens");
            Effort::of_budget(budget)
        }
        (None, None) => return None,
    };
    Some(effort.as_str())
}
