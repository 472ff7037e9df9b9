//! A line of a file of calls: a prompt, a whole body in any conversation's dialect, or a line of a batch.

use std::borrow::Cow;
use std::ops::Range;

use memchr::memmem;

use super::{ANTHROPIC_MESSAGES, Dialect, OPENAI_CHAT, OPENAI_RESPONSES, of_path, plain_path};
use crate::json::{JsonError, Kind, Scanner};
use crate::scan::word;

/// A call as it stands in a line.
#[derive(Debug)]
pub struct Line<'a> {
    /// Its id, as JSON: from `id` or `custom_id`.
    pub id: Option<&'a str>,
    pub dialect: &'static dyn Dialect,
    /// The body: the line's own bytes, where it has one that names a model.
    pub body: Cow<'a, [u8]>,
}

/// The line is no call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    #[error("it is not valid JSON: {0}")]
    Json(#[from] JsonError),
    #[error(
        "there is no call in it; write an object with `prompt`, or a whole body with `messages` or `input`, or a \
         line of a batch with `body` or `params`"
    )]
    NoCall,
    #[error("`{0}` must be {1}")]
    Wrong(&'static str, &'static str),
    #[error(
        "nothing is known of `{0}`; write the path of a conversation, such as /v1/chat/completions"
    )]
    Url(String),
}

/// Where the fields of a line stand that say what it is.
#[derive(Debug, Default)]
struct Fields {
    id: Option<Range<usize>>,
    custom_id: Option<Range<usize>>,
    url: Option<String>,
    /// Without its quotes.
    prompt: Option<Range<usize>>,
    tools: Option<Range<usize>>,
    messages: Option<Range<usize>>,
    /// The body of a batch's line, and whether it is Anthropic's kind.
    inner: Option<(Range<usize>, bool)>,
    has_input: bool,
    has_model: bool,
    /// A field that only Anthropic's bodies have.
    anthropic: bool,
    /// Where the object begins.
    start: usize,
}

/// Reads a line; `told` is the dialect of its body, where that is known, or else it is recognised.
pub fn read<'a>(line: &'a [u8], told: Option<&'static dyn Dialect>) -> Result<Line<'a>, LineError> {
    let fields = Fields::read(line)?;
    let id = fields.id.clone().or_else(|| fields.custom_id.clone());
    let id = id.and_then(|at| std::str::from_utf8(line.get(at)?).ok());
    if fields.messages.is_some() || fields.has_input {
        let dialect = told.unwrap_or_else(|| fields.dialect(line));
        let body = fields.body(line);
        return Ok(Line { id, dialect, body });
    }
    if let Some((at, anthropic)) = &fields.inner {
        let inner = line.get(at.clone()).unwrap_or_default();
        let fields_inside = Fields::read(inner)?;
        let dialect = match (told, &fields.url) {
            (Some(told), _) => told,
            (None, Some(url)) => of_path(&plain_path(url))
                .filter(|dialect| dialect.converses())
                .ok_or_else(|| LineError::Url(url.clone()))?,
            (None, None) if *anthropic => ANTHROPIC_MESSAGES,
            (None, None) => fields_inside.dialect(inner),
        };
        let body = fields_inside.body(inner);
        return Ok(Line { id, dialect, body });
    }
    let prompt = fields.prompt.ok_or(LineError::NoCall)?;
    let prompt = line.get(prompt).unwrap_or_default();
    let tools = fields.tools.and_then(|at| line.get(at));
    Ok(Line {
        id,
        dialect: OPENAI_CHAT,
        body: Cow::Owned(chat(prompt, tools)?),
    })
}

impl Fields {
    fn read(text: &[u8]) -> Result<Self, LineError> {
        let mut fields = Self::default();
        let mut scanner = Scanner::new(text)?;
        if scanner.peek()? != Kind::Object {
            return Err(LineError::NoCall);
        }
        fields.start = scanner.offset();
        scanner.object(|scanner, key| {
            let kind = scanner.peek()?;
            match (key.raw, kind) {
                ("id", Kind::String | Kind::Number) => fields.id = Some(scanner.skip()?),
                ("custom_id", Kind::String) => fields.custom_id = Some(scanner.skip()?),
                ("url", _) => fields.url = word(scanner)?.map(|url| url.text().into_owned()),
                ("prompt", Kind::String) => fields.prompt = Some(scanner.string()?.at),
                ("tools", Kind::Array) => fields.tools = Some(scanner.skip()?),
                ("messages", _) => fields.messages = Some(scanner.skip()?),
                ("body", Kind::Object) => fields.inner = Some((scanner.skip()?, false)),
                ("params", Kind::Object) => fields.inner = Some((scanner.skip()?, true)),
                ("input", _) => fields.has_input = true,
                ("model", _) => fields.has_model = true,
                ("system" | "stop_sequences" | "thinking" | "output_config", _) => {
                    fields.anthropic = true;
                }
                ("tools", Kind::Null) => {}
                ("tools", _) => return Err(LineError::Wrong("tools", "a list of tools")),
                _ => {}
            }
            Ok(())
        })?;
        scanner.end()?;
        Ok(fields)
    }

    /// The dialect of a whole body.
    fn dialect(&self, text: &[u8]) -> &'static dyn Dialect {
        let has = |at: &Option<Range<usize>>, word: &str| {
            let part = at.clone().and_then(|at| text.get(at));
            part.is_some_and(|part| memmem::find(part, word.as_bytes()).is_some())
        };
        let Some(messages) = &self.messages else {
            return OPENAI_RESPONSES;
        };
        let messages = Some(messages.clone());
        // Inside a text its quotes would be escaped, so these are found only as words of the dialect.
        let anthropic = self.anthropic
            || has(&self.tools, "\"input_schema\"")
            || has(&messages, "\"tool_result\"")
            || has(&messages, "\"tool_use\"");
        if anthropic {
            ANTHROPIC_MESSAGES
        } else {
            OPENAI_CHAT
        }
    }

    /// The body with a model in it, which a scan asks for.
    fn body<'a>(&self, text: &'a [u8]) -> Cow<'a, [u8]> {
        if self.has_model {
            return Cow::Borrowed(text);
        }
        let (head, rest) = text.split_at((self.start + 1).min(text.len()));
        Cow::Owned([head, b"\"model\":\"auto\",", rest].concat())
    }
}

/// A chat of one user text, still escaped, with tools in this dialect or as bare declarations.
fn chat(prompt: &[u8], tools: Option<&[u8]>) -> Result<Vec<u8>, LineError> {
    const HEAD: &[u8] = b"{\"model\":\"auto\",\"messages\":[{\"role\":\"user\",\"content\":\"";
    let mut body =
        Vec::with_capacity(HEAD.len() + prompt.len() + tools.map_or(0, <[u8]>::len) + 64);
    body.extend_from_slice(HEAD);
    body.extend_from_slice(prompt);
    body.extend_from_slice(b"\"}]");
    if let Some(tools) = tools {
        body.extend_from_slice(b",\"tools\":");
        let mut before: &[u8] = b"[";
        let mut scanner = Scanner::new(tools)?;
        scanner.array(|scanner| {
            if scanner.peek()? != Kind::Object {
                return Err(LineError::Wrong("tools", "a list of objects"));
            }
            let start = scanner.offset();
            let mut is_whole = false;
            scanner.object(|_, key| {
                is_whole |= key.is("type") || key.is("function");
                Ok::<(), JsonError>(())
            })?;
            let tool = tools.get(start..scanner.offset()).unwrap_or_default();
            body.extend_from_slice(before);
            if is_whole {
                body.extend_from_slice(tool);
            } else {
                body.extend_from_slice(b"{\"type\":\"function\",\"function\":");
                body.extend_from_slice(tool);
                body.push(b'}');
            }
            before = b",";
            Ok(())
        })?;
        body.extend_from_slice(if before == b"[" { b"[]" } else { b"]" });
    }
    body.push(b'}');
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, id: Option<&str>, dialect: &str, body: &str) {
        let read = read(line.as_bytes(), None).expect(line);
        let seen = std::str::from_utf8(&read.body).expect("text");
        assert_eq!((read.id, read.dialect.name(), seen), (id, dialect, body));
        read.dialect.scan(&read.body).expect(line);
    }

    #[test]
    fn a_line_is_a_prompt_a_body_or_a_line_of_a_batch() {
        let hi = "[{\"role\":\"user\",\"content\":\"Hi \\\"you\\\"\"}]";
        let chat = format!("{{\"model\":\"auto\",\"messages\":{hi}}}");
        check(
            "{\"id\":7,\"prompt\":\"Hi \\\"you\\\"\"}",
            Some("7"),
            "openai_chat",
            &chat,
        );
        check(&chat, None, "openai_chat", &chat);
        let tools = "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}]";
        let with = format!("{{\"model\":\"auto\",\"messages\":{hi},{tools}}}");
        for tools in ["\"tools\":[{\"name\":\"f\"}]", tools] {
            let line = format!("{{\"id\":\"a\",\"prompt\":\"Hi \\\"you\\\"\",{tools}}}");
            check(&line, Some("\"a\""), "openai_chat", &with);
        }
        let bare = format!("{{\"messages\":{hi}}}");
        let batch =
            format!("{{\"custom_id\":\"c\",\"url\":\"/v1/chat/completions\",\"body\":{bare}}}");
        check(&batch, Some("\"c\""), "openai_chat", &chat);
        let batch = format!("{{\"custom_id\":\"c\",\"params\":{bare}}}");
        check(&batch, Some("\"c\""), "anthropic_messages", &chat);
        let input = "{\"model\":\"auto\",\"input\":\"Hi\"}";
        check(input, None, "openai_responses", input);
        for field in [
            "\"system\":\"s\"",
            "\"tools\":[{\"name\":\"f\",\"input_schema\":{}}]",
        ] {
            let line = format!("{{\"model\":\"m\",\"messages\":{hi},{field}}}");
            check(&line, None, "anthropic_messages", &line);
        }
    }

    #[test]
    fn what_is_no_call_is_told() {
        for (line, told) in [
            ("[]", "no call"),
            ("{\"id\":1}", "no call"),
            ("{\"prompt\":5}", "no call"),
            ("{\"prompt\":\"x\"", "ends in the middle"),
            ("{\"prompt\":\"x\",\"tools\":{}}", "`tools` must be"),
            ("{\"prompt\":\"x\",\"tools\":[1]}", "`tools` must be"),
            (
                "{\"url\":\"/v1/embeddings\",\"body\":{\"input\":\"x\"}}",
                "/v1/embeddings",
            ),
        ] {
            let error = read(line.as_bytes(), None).expect_err(line).to_string();
            assert!(error.contains(told), "{line}: {error}");
        }
    }
}
