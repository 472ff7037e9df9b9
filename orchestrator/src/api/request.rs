//! A request about tasks, read: who asks, for what, with which words.

use std::collections::BTreeSet;

use http::{HeaderMap, Method, Request};
use http_body_util::BodyExt;
use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;
use serde_json::Value;
use wire::json::{JsonError, Kind, Scanner};

use crate::desk::{self, Problem};
use crate::event::Caller;
use crate::id::TaskId;
use crate::model::Body;

/// The longest body, in bytes.
const MOST_BODY: usize = 1 << 20;
/// Entries of a list, unless the caller says otherwise; and at most.
const PAGE: u32 = 50;
const LONGEST_PAGE: u32 = 200;

/// A request.
#[derive(Debug, Clone)]
pub(super) struct Question {
    pub(super) caller: Caller,
    pub(super) method: Method,
    /// The segments of the path, without their escapes.
    pub(super) path: Vec<String>,
    pub(super) headers: HeaderMap,
    query: Vec<(String, String)>,
    /// Null where there was none.
    pub(super) body: Value,
}

impl Question {
    /// Reads a request whole.
    pub(super) async fn read(request: Request<Body>, caller: Caller) -> Result<Self, Problem> {
        let (head, body) = request.into_parts();
        let path = head.uri.path();
        let path = path.strip_prefix("/api").unwrap_or(path);
        let path = path.split('/').filter(|it| !it.is_empty()).map(decoded);
        let query = head.uri.query().unwrap_or_default().split('&');
        let query = query.filter(|it| !it.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok::<_, Problem>((
                decoded(&name.replace('+', " "))?,
                decoded(&value.replace('+', " "))?,
            ))
        });
        Ok(Self {
            path: path.collect::<Result<_, _>>()?,
            query: query.collect::<Result<_, _>>()?,
            body: json(&bytes(body).await?)?,
            caller,
            method: head.method,
            headers: head.headers,
        })
    }

    /// Holds that the method is one of `allowed`.
    pub(super) fn only(&self, allowed: &[Method]) -> Result<(), Problem> {
        if allowed.contains(&self.method) {
            return Ok(());
        }
        let allowed: Vec<&str> = allowed.iter().map(Method::as_str).collect();
        let told = format!("this takes {}", allowed.join(" or "));
        Err(Problem {
            allow: Some(allowed.join(", ")),
            ..Problem::new(405, "method_not_allowed", told)
        })
    }

    /// There is nothing at this path.
    pub(super) fn no_such_path(&self) -> Problem {
        let path: String = self.path.join("/").chars().take(120).collect();
        Problem::new(404, "not_found", format!("there is nothing at /{path}"))
    }

    /// The last value of a parameter of the query.
    pub(super) fn asked(&self, name: &str) -> Option<&str> {
        let mut found = self.query.iter().rev();
        let found = found.find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Whether a parameter says yes.
    pub(super) fn says(&self, name: &str) -> bool {
        matches!(self.asked(name), Some("true" | "1" | ""))
    }

    /// A parameter that is a number.
    pub(super) fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, Problem> {
        let parsed = self.asked(name).map(str::parse::<T>).transpose();
        parsed.map_err(|_| Problem::field(name, "must be a whole number"))
    }

    /// How many entries a list is to have.
    pub(super) fn limit(&self) -> Result<u32, Problem> {
        let limit = self.number::<u32>("limit")?.unwrap_or(PAGE);
        if (1..=LONGEST_PAGE).contains(&limit) {
            Ok(limit)
        } else {
            Err(Problem::field("limit", format!("is 1 to {LONGEST_PAGE}")))
        }
    }

    /// A parameter that is a list of words.
    pub(super) fn words(&self, name: &str) -> Vec<String> {
        let words = self.asked(name).unwrap_or_default().split(',');
        let words = words.map(str::trim).filter(|word| !word.is_empty());
        words.map(str::to_owned).collect()
    }

    /// A header's text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Whether the answer is wanted as a media type.
    pub(super) fn accepts(&self, kind: &str) -> bool {
        self.header("accept").is_some_and(|it| it.contains(kind))
    }

    /// The body, as what it must be. No body is an empty object.
    pub(super) fn said<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        match &self.body {
            Value::Null => desk::read(&Value::Object(serde_json::Map::new())),
            body => desk::read(body),
        }
    }

    /// A time in milliseconds since 1970 or in RFC 3339.
    pub(super) fn time(&self, name: &str) -> Result<Option<i64>, Problem> {
        let Some(text) = self.asked(name) else {
            return Ok(None);
        };
        if let Ok(ms) = text.parse::<i64>() {
            return Ok(Some(ms));
        }
        let time = text.parse::<jiff::Timestamp>().map_err(|_| {
            Problem::field(
                name,
                "is no time; write 2026-11-30T17:00:00Z or milliseconds",
            )
        })?;
        Ok(Some(time.as_millisecond()))
    }
}

/// The id of a task in a path.
pub(super) fn task(text: &str) -> Result<TaskId, Problem> {
    text.parse().map_err(|_| Problem::missing("task", text))
}

fn decoded(text: &str) -> Result<String, Problem> {
    let text = percent_decode_str(text).decode_utf8();
    let text = text.map_err(|_| Problem::new(400, "bad_path", "the address is no UTF-8"))?;
    Ok(text.into_owned())
}

async fn bytes(mut body: Body) -> Result<Vec<u8>, Problem> {
    let mut read = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Problem::new(400, "broken_body", "the body broke off"))?;
        if let Some(data) = frame.data_ref() {
            read.extend_from_slice(data);
        }
        if read.len() > MOST_BODY {
            return Err(Problem::new(
                413,
                "body_too_long",
                format!("the body is longer than {MOST_BODY} bytes"),
            ));
        }
    }
    Ok(read)
}

/// Why a body is not taken.
enum NotTaken {
    Json(JsonError),
    Twice(String),
}

impl From<JsonError> for NotTaken {
    fn from(error: JsonError) -> Self {
        Self::Json(error)
    }
}

/// Reads JSON that says everything once and has nothing behind it.
fn json(bytes: &[u8]) -> Result<Value, Problem> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(Value::Null);
    }
    let invalid = |message: String| Problem::new(400, "invalid_json", message);
    let checked = Scanner::new(bytes)
        .map_err(NotTaken::from)
        .and_then(|mut scanner| {
            once(&mut scanner)?;
            Ok(scanner.end()?)
        });
    match checked {
        Ok(()) => {}
        Err(NotTaken::Json(error)) => {
            return Err(invalid(format!("the body is not valid JSON: {error}")));
        }
        Err(NotTaken::Twice(name)) => {
            return Err(Problem {
                field: Some(name.clone()),
                ..invalid(format!("`{name}` stands twice in the body; send it once"))
            });
        }
    }
    let value: Value = serde_json::from_slice(bytes)
        .map_err(|error| invalid(format!("the body is not valid JSON: {error}")))?;
    if !crate::next::gate_of::is_shallow(&value) {
        return Err(invalid("the body is nested too deeply".to_owned()));
    }
    Ok(value)
}

/// Walks a value and holds that no object names a member twice.
fn once(scanner: &mut Scanner<'_>) -> Result<(), NotTaken> {
    match scanner.peek()? {
        Kind::Object => {
            let mut seen = BTreeSet::new();
            scanner.object(|scanner, key| {
                let name = key.text().into_owned();
                if seen.contains(&name) {
                    return Err(NotTaken::Twice(name));
                }
                seen.insert(name);
                once(scanner)
            })
        }
        Kind::Array => scanner.array(once),
        Kind::String | Kind::Number | Kind::Bool | Kind::Null => {
            scanner.skip()?;
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_says_everything_once_and_nothing_behind_it() {
        for (text, code) in [
            ("{\"a\":1,\"a\":2}", "`a` stands twice"),
            ("{\"b\":[{\"c\":1,\"\\u0063\":2}]}", "`c` stands twice"),
            ("{} {}", "behind the value"),
            ("{\"a\":", "ends in the middle"),
            ("{\"a\":nul}", "not valid JSON"),
        ] {
            let told = json(text.as_bytes()).expect_err(text);
            assert_eq!(told.status, 400);
            assert!(told.message.contains(code), "{text}: {}", told.message);
        }
        assert_eq!(json(b" ").expect("nothing"), Value::Null);
        assert_eq!(
            json(b"{\"a\":{\"a\":1}}").expect("an object")["a"]["a"],
            Value::from(1)
        );
    }
}
