//! The judge of transcripts: what the vendor of a dialect would refuse is refused here, and the rule
//! that is broken named.

mod chat;
mod messages;
mod responses;
#[cfg(test)]
mod tests;

use serde_json::Value;

use super::request::Dialect;

/// What the rules depend on besides the request.
pub(super) struct Rules<'a> {
    /// Whose marks reasoning must carry.
    pub(super) origin: &'a str,
    /// Chat completions may carry `reasoning_content`.
    pub(super) takes_reasoning: bool,
    /// Tokens are only counted, so that no cap is needed.
    pub(super) counts_only: bool,
    /// This endpoint made the item of this id, and keeps it.
    pub(super) kept: &'a dyn Fn(&str) -> bool,
}

/// Whether a rule is kept; otherwise where it is broken, and how.
type Verdict = Result<(), String>;

/// Whether `request` keeps all rules; otherwise the first one it breaks.
pub(super) fn check(dialect: Dialect, request: &Value, rules: &Rules<'_>) -> Verdict {
    match dialect {
        Dialect::Chat => chat::check(request, rules.takes_reasoning),
        Dialect::Messages => messages::check(request, rules.origin, rules.counts_only),
        Dialect::Responses => responses::check(request, rules.origin, rules.kept),
    }
}

/// Whether the vendor of the dialect called `dialect` would take `request`, all reasoning in which must
/// come from `origin`; otherwise the first rule it breaks.
pub fn judge(dialect: &str, request: &Value, origin: &str) -> Result<(), String> {
    let all = [Dialect::Chat, Dialect::Messages, Dialect::Responses];
    let found = all.into_iter().find(|known| known.name() == dialect);
    let rules = Rules {
        origin,
        takes_reasoning: true,
        counts_only: false,
        kept: &|_| false,
    };
    check(found.ok_or("this dialect has no rules")?, request, &rules)
}

/// `holds`, or else this is wrong with what is at `place`.
fn require(holds: bool, place: &str, wrong: &str) -> Verdict {
    if holds {
        return Ok(());
    }
    Err(format!("{place}: {wrong}"))
}

/// `value` is an object with no field but these.
fn known_fields(value: &Value, known: &[&str], place: &str) -> Verdict {
    let Some(fields) = value.as_object() else {
        return Err(format!("{place}: it is not an object"));
    };
    let unknown = fields.keys().find(|name| !known.contains(&name.as_str()));
    match unknown {
        Some(name) => Err(format!("{place}: unknown field `{name}`")),
        None => Ok(()),
    }
}

/// The list `name` of `value`, which must not be empty.
fn list<'a>(value: &'a Value, name: &str, place: &str) -> Result<&'a [Value], String> {
    let list = value[name].as_array().filter(|list| !list.is_empty());
    list.map(Vec::as_slice)
        .ok_or_else(|| format!("{place}: `{name}` is not a list with something in it"))
}

/// The string `name` of `value`, which must not be empty.
fn text<'a>(value: &'a Value, name: &str, place: &str) -> Result<&'a str, String> {
    let text = value[name].as_str().filter(|text| !text.is_empty());
    text.ok_or_else(|| format!("{place}: `{name}` is not a string with something in it"))
}

fn is_object(text: &str) -> bool {
    serde_json::from_str::<Value>(text).is_ok_and(|value| value.is_object())
}
