//! What a call must be before it is written anew for a server of another dialect: roles and content that can
//! be told, and known fields of their kind. Where a call goes out as it came, its vendor judges; here what
//! is not understood would be left out or guessed, and a wrong call answered as if it were right.

use serde_json::Value;

use super::DecodeError;
use super::fields::text;
use crate::call::{Call, Choice, Kind, Part, Tool, Turn};

/// Kinds of values, as refusals name them. `null` stands for a field that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Flag,
    /// A whole number that is not negative.
    Count,
    /// A count that is not zero.
    Positive,
    /// A whole number of 64 bits.
    Whole,
    Number,
    Text,
    /// A list of texts.
    Words,
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
            Self::Flag => "true or false",
            Self::Count => "a whole number from 0",
            Self::Positive => "a whole number from 1",
            Self::Whole => "a whole number of 64 bits",
            Self::Number => "a number",
            Self::Text => "a text",
            Self::Words => "a list of texts",
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
            Self::Flag => value.is_boolean(),
            Self::Count => value.is_u64(),
            Self::Positive => value.as_u64().is_some_and(|count| count > 0),
            Self::Whole => value.is_i64(),
            Self::Number => value.is_number(),
            Self::Text => value.is_string(),
            Self::Words => all(Value::is_string),
            Self::Texts => value.is_string() || all(Value::is_string),
            Self::List => all(Value::is_object),
            Self::Parts => value.is_string() || all(Value::is_object),
            Self::Object => value.is_object(),
            Self::Choice => value.is_string() || value.is_object(),
        }
    }
}

/// What refuses a call, in these words.
pub(super) fn wrong(told: impl Into<String>) -> DecodeError {
    DecodeError::Field(told.into())
}

/// Holds that the fields of `whole` that are there have their shape.
pub(super) fn fields(whole: &Value, shapes: &[(&str, Shape)]) -> Result<(), DecodeError> {
    fields_at(whole, "", shapes)
}

/// The same for an object whose fields are called by paths that begin with `place`.
pub(super) fn fields_at(
    object: &Value,
    place: &str,
    shapes: &[(&str, Shape)],
) -> Result<(), DecodeError> {
    for (name, shape) in shapes {
        let value = object.get(name).filter(|value| !value.is_null());
        if value.is_some_and(|value| !shape.fits(value)) {
            return Err(wrong(format!("`{place}{name}` must be {}", shape.named())));
        }
    }
    Ok(())
}

/// Holds that each of `names` is there, as a text that is not empty: what calls and results are joined by, and
/// what is called, can not be made up.
pub(super) fn filled(object: &Value, place: &str, names: &[&str]) -> Result<(), DecodeError> {
    match names.iter().find(|name| text(object, name).is_empty()) {
        Some(name) => Err(wrong(format!(
            "`{place}{name}` must be a text that is not empty"
        ))),
        None => Ok(()),
    }
}

/// Holds that the text `name` is there, be it empty.
pub(super) fn has_text(object: &Value, place: &str, name: &str) -> Result<(), DecodeError> {
    if object.get(name).is_some_and(Value::is_string) {
        return Ok(());
    }
    Err(wrong(format!("`{place}{name}` must be a text")))
}

/// Holds that a call of a function says what it calls and with what. One vendor takes the arguments without
/// quotes around them, too.
pub(super) fn function_call(call: &Value, place: &str) -> Result<(), DecodeError> {
    filled(call, place, &["name"])?;
    if call.get("arguments").is_some_and(Value::is_object) {
        return Ok(());
    }
    has_text(call, place, "arguments")
}

/// Holds that a call of a free-form tool says what it calls and with what.
pub(super) fn custom_call(call: &Value, place: &str) -> Result<(), DecodeError> {
    filled(call, place, &["name"])?;
    has_text(call, place, "input")
}

/// A type of part, and what it can not be without: one of these texts, by their pointers, which is not empty.
pub(super) type Needs = (&'static str, &'static [&'static str]);

/// Who may speak in a list of messages, and what about.
pub(super) struct Rules {
    /// The list.
    pub(super) name: &'static str,
    pub(super) roles: &'static [&'static str],
    /// The roles that may have no content.
    pub(super) silent: &'static [&'static str],
    pub(super) needs: &'static [Needs],
}

/// Holds that a message has one of the roles, and content.
pub(super) fn message(message: &Value, rules: &Rules) -> Result<(), DecodeError> {
    let Rules {
        name,
        roles,
        silent,
        needs,
    } = rules;
    let role = text(message, "role");
    if !roles.contains(&role) {
        let told = format!("`{name}.role` must be one of {}", roles.join(", "));
        return Err(wrong(told));
    }
    match message.get("content") {
        None | Some(Value::Null) if silent.contains(&role) => Ok(()),
        content => parts(content, &format!("{name}.content"), needs),
    }
}

/// Holds that `content` is a text or a list of parts.
pub(super) fn parts(
    content: Option<&Value>,
    place: &str,
    needs: &[Needs],
) -> Result<(), DecodeError> {
    match content {
        Some(Value::String(_)) => Ok(()),
        Some(Value::Array(parts)) => parts.iter().try_for_each(|it| part(it, place, needs)),
        _ => Err(wrong(format!(
            "`{place}` must be a text, or a list of parts"
        ))),
    }
}

/// Holds that a part has a type, and what goes with it.
fn part(part: &Value, place: &str, needs: &[Needs]) -> Result<(), DecodeError> {
    let kind = text(part, "type");
    if kind.is_empty() {
        return Err(wrong(format!(
            "each part of `{place}` must be an object with a `type`"
        )));
    }
    if matches!(kind, "text" | "input_text" | "output_text" | "summary_text") {
        return has_text(part, &format!("{place}."), "text");
    }
    let Some((_, needed)) = needs.iter().find(|(it, _)| *it == kind) else {
        return Ok(());
    };
    let said = |at: &&str| part.pointer(at).and_then(Value::as_str);
    if needed.iter().filter_map(said).any(|said| !said.is_empty()) {
        return Ok(());
    }
    let names: Vec<String> = needed.iter().map(|at| at.replace('/', ".")).collect();
    let names: Vec<String> = names.iter().map(|it| format!("`{place}{it}`")).collect();
    let names = names.join(" or ");
    Err(wrong(format!("{names} must be a text that is not empty")))
}

/// Holds that each of `tools` has a type.
pub(super) fn typed(tools: &[Value]) -> Result<(), DecodeError> {
    let mut tools = tools.iter();
    tools.try_for_each(|tool| filled(tool, "tools.", &["type"]))
}

/// Holds that a tool has a name, without which no answer could call it, and that its `schema`, where there is
/// one, is an object.
pub(super) fn tool(tool: Option<&Value>, schema: &str) -> Result<(), DecodeError> {
    let Some(tool) = tool.filter(|tool| !text(tool, "name").is_empty()) else {
        return Err(wrong("each function in `tools` must have a name"));
    };
    fields_at(tool, "tools.", &[(schema, Shape::Object)])
}

/// Holds that the form of the answer, at `place`, has the schema that it must follow.
pub(super) fn answer_schema(form: Option<&Value>, place: &str) -> Result<(), DecodeError> {
    let schema = form.and_then(|form| form.get("schema"));
    if schema.is_some_and(Value::is_object) {
        return Ok(());
    }
    Err(wrong(format!("`{place}.schema` must be an object")))
}

/// Holds that what must be called is there to be called, or no answer would be what was asked for. `asked` says
/// whether there is a choice; one that could not be read is none.
pub(super) fn choice(call: &Call, asked: bool) -> Result<(), DecodeError> {
    // What a provider's own sets of tools hold is not known here.
    let is_set = |own: &Value| text(own, "type").starts_with("mcp");
    let is_set = |tool: &Tool| tool.own.as_ref().is_some_and(is_set);
    let told = match &call.choice {
        None if asked => "`tool_choice` is none that is known",
        Some(Choice::Required) if call.tools.is_empty() => {
            "`tool_choice` asks for a tool, and there are no `tools`"
        }
        Some(Choice::Tool(name)) if call.tool(name).is_none() && !call.tools.iter().any(is_set) => {
            "`tool_choice` must name one of `tools`"
        }
        _ => return Ok(()),
    };
    Err(wrong(told))
}

/// Holds that anything is said, shown or told in `turns`, which stand at `place`: some servers demand a
/// prompt, and one that is made up would be answered.
pub(super) fn spoken(turns: &[Turn], place: &str) -> Result<(), DecodeError> {
    let is_blank = |part: &Part| match &part.kind {
        Kind::Text(it) => it.text.trim().is_empty(),
        Kind::Refusal(text) => text.trim().is_empty(),
        _ => false,
    };
    if turns.iter().flat_map(|turn| &turn.parts).all(is_blank) {
        return Err(wrong(format!("`{place}` holds nothing to answer")));
    }
    Ok(())
}
