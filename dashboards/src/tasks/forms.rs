//! What the forms on pages of tasks mean to the API: a path, a body, and where one comes back to.

use serde_json::{Map, Value, json};

use crate::ask;

use super::is_name;

/// Something that the API is to do.
#[derive(Debug, Clone, PartialEq)]
pub struct Act {
    /// To be posted to.
    pub path: String,
    pub body: Value,
    /// The page on which it shows.
    pub back: String,
}

/// What a form that was sent to `path` means; `None` where no form is sent there, or what was sent is
/// none of it. Whether it may be done is the API's to say.
pub fn act(path: &str, form: &str) -> Option<Act> {
    let said = Said(ask::decode(form));
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    match parts.as_slice() {
        ["tasks", task, verb] if is_name(task) => steered(task, verb, &said),
        ["approvals", request] if is_name(request) => decided(request, &said),
        _ => None,
    }
}

/// The fields of a form.
struct Said(Vec<(String, String)>);

impl Said {
    fn field(&self, name: &str) -> Option<&str> {
        ask::param(&self.0, name).map(str::trim)
    }

    /// The fields of these names that say something.
    fn object(&self, names: &[&str]) -> Map<String, Value> {
        let said = names.iter().filter_map(|name| {
            let value = self.field(name).filter(|value| !value.is_empty())?;
            Some(((*name).to_owned(), Value::from(value)))
        });
        said.collect()
    }
}

fn steered(task: &str, verb: &str, said: &Said) -> Option<Act> {
    let names: &[&str] = match verb {
        "pause" | "cancel" => &["reason"],
        "resume" => &[],
        "steer" => &["text"],
        "raise" => &["usd"],
        _ => return None,
    };
    Some(Act {
        path: format!("/v1/tasks/{task}/{verb}"),
        body: said.object(names).into(),
        back: format!("/tasks/{task}"),
    })
}

fn decided(request: &str, said: &Said) -> Option<Act> {
    let task = said.field("task").filter(|task| is_name(task));
    let back = task.map_or("/approvals".to_owned(), |task| format!("/tasks/{task}"));
    let choice = said.field("choice")?;
    if choice == "answer" {
        return Some(Act {
            path: format!("/v1/inputs/{request}"),
            body: json!({ "answer": said.field("answer").unwrap_or_default() }),
            back,
        });
    }
    let mut body = said.object(&["digest", "reason"]);
    let more = match choice {
        "once" => json!({ "approve": true, "scope": "once" }),
        "task" => json!({ "approve": true, "scope": "task" }),
        "deny" => json!({ "approve": false }),
        "stop" => json!({ "approve": false, "stop": true }),
        "happened" | "again" | "give_up" => json!({ "approve": true, "settle": choice }),
        "more" => {
            json!({ "approve": true, "more_usd": said.field("more_usd").unwrap_or_default() })
        }
        _ => return None,
    };
    if let Value::Object(more) = more {
        body.extend(more);
    }
    Some(Act {
        path: format!("/v1/approvals/{request}/decision"),
        body: body.into(),
        back,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(path: &str, form: &str) -> Option<(String, Value, String)> {
        act(path, form).map(|act| (act.path, act.body, act.back))
    }

    #[test]
    fn forms_say_what_their_buttons_say() {
        let decision = "/v1/approvals/ab.req-1/decision".to_owned();
        let inbox = "/approvals".to_owned();
        assert_eq!(
            said(
                "/approvals/ab.req-1",
                "digest=d1&reason=&choice=once&task=task_1"
            ),
            Some((
                decision.clone(),
                json!({ "digest": "d1", "approve": true, "scope": "once" }),
                "/tasks/task_1".to_owned()
            ))
        );
        assert_eq!(
            said(
                "/approvals/ab.req-1",
                "digest=d1&reason=not+so%21&choice=stop"
            ),
            Some((
                decision.clone(),
                json!({ "digest": "d1", "reason": "not so!", "approve": false, "stop": true }),
                inbox.clone()
            ))
        );
        assert_eq!(
            said("/approvals/ab.req-1", "digest=d1&choice=again"),
            Some((
                decision,
                json!({ "digest": "d1", "approve": true, "settle": "again" }),
                inbox.clone()
            ))
        );
        assert_eq!(
            said(
                "/approvals/ab.req-1",
                "choice=answer&answer=the+%3Cfirst%3E"
            ),
            Some((
                "/v1/inputs/ab.req-1".to_owned(),
                json!({ "answer": "the <first>" }),
                inbox
            ))
        );
        assert_eq!(
            said("/tasks/task_1/pause", "reason=lunch"),
            Some((
                "/v1/tasks/task_1/pause".to_owned(),
                json!({ "reason": "lunch" }),
                "/tasks/task_1".to_owned()
            ))
        );
    }

    #[test]
    fn nothing_else_reaches_the_api() {
        for path in [
            "/tasks/task_1/erase",
            "/tasks/../pause",
            "/tasks/a%2Fb/pause",
            "/tasks/task_1/pause/more",
            "/approvals/",
            "/approvals/a/decision",
            "/keys/x",
        ] {
            assert_eq!(act(path, "choice=once&digest=d"), None, "{path}");
        }
        assert_eq!(act("/approvals/ab.r", "choice=other"), None);
        assert_eq!(act("/approvals/ab.r", ""), None);
        let led = act("/approvals/ab.r", "choice=deny&task=//evil.example");
        assert_eq!(led.map(|act| act.back), Some("/approvals".to_owned()));
    }
}
