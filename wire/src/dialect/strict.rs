//! What a call must be before it is written anew for a server of another dialect: roles and content that can
//! be told, and known fields of their kind. Where a call goes out as it came, its vendor judges; here what
//! is not understood would be left out or guessed, and a wrong call answered as if it were right.

use serde_json::Value;

use super::DecodeError;
use super::fields::text;

/// Kinds of values, as refusals name them. `null` stands for a field that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Number,
    Text,
    /// A text, or a list of texts.
    Texts,
    /// A list of objects.
    List,
    /// A text, or a list of objects.
    Parts,
    Object,
    /// A word, or an object.
    Choice,
}

impl Shape {
    const fn named(self) -> &'static str {
        match self {
            Self::Number => "a number",
            Self::Text => "a text",
            Self::Texts => "a text, or a list of texts",
            Self::List => "a list of objects",
            Self::Parts => "a text, or a list of objects",
            Self::Object => "an object",
            Self::Choice => "a word, or an object",
        }
    }

    fn fits(self, value: &Value) -> bool {
        let all = |is: fn(&Value) -> bool| {
            let items = value.as_array();
            items.is_some_and(|items| items.iter().all(is))
        };
        match self {
            Self::Number => value.is_number(),
            Self::Text => value.is_string(),
            Self::Texts => value.is_string() || all(Value::is_string),
            Self::List => all(Value::is_object),
            Self::Parts => value.is_string() || all(Value::is_object),
            Self::Object => value.is_object(),
            Self::Choice => value.is_string() || value.is_object(),
        }
    }
}

/// Holds that the fields of `whole` that are there have their shape.
pub(super) fn fields(whole: &Value, shapes: &[(&str, Shape)]) -> Result<(), DecodeError> {
    for (name, shape) in shapes {
        let value = whole.get(name).filter(|value| !value.is_null());
        if value.is_some_and(|value| !shape.fits(value)) {
            let told = format!("`{name}` must be {}", shape.named());
            return Err(DecodeError::Field(told));
        }
    }
    Ok(())
}

/// Holds that a message of `list` has one of `roles`, and content. Only one of `silent` may have none.
pub(super) fn message(
    message: &Value,
    list: &str,
    roles: &[&str],
    silent: &[&str],
) -> Result<(), DecodeError> {
    let role = text(message, "role");
    if !roles.contains(&role) {
        let told = format!(
            "each `role` in `{list}` must be one of {}",
            roles.join(", ")
        );
        return Err(DecodeError::Field(told));
    }
    match message.get("content") {
        None | Some(Value::Null) if silent.contains(&role) => Ok(()),
        Some(Value::String(_)) => Ok(()),
        Some(Value::Array(parts)) if parts.iter().all(is_part) => Ok(()),
        _ => Err(DecodeError::Field(format!(
            "each `content` in `{list}` must be a text, or a list of parts"
        ))),
    }
}

/// Whether a part is an object, and one of text has its text.
fn is_part(part: &Value) -> bool {
    let of_text = matches!(text(part, "type"), "text" | "input_text" | "output_text");
    part.is_object() && (!of_text || part.get("text").is_some_and(Value::is_string))
}

/// Holds that a function has a name: without one no answer could call it.
pub(super) fn named(function: Option<&Value>) -> Result<(), DecodeError> {
    if function.is_some_and(|function| !text(function, "name").is_empty()) {
        return Ok(());
    }
    let told = "each function in `tools` must have a name";
    Err(DecodeError::Field(told.to_owned()))
}
