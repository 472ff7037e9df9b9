//! What one pass over a request body yields: the fields the gateway acts on, and where they stand.

pub(crate) mod schema;
pub(crate) mod trail;

use std::ops::Range;

use self::trail::{Told, Trail};
use crate::dialect::ThinkingForm;
use crate::json::{self, JsonError, Kind, Scanner, Str};
use crate::splice::Edit;

/// Structure of a request, in counts. Text is looked at apart from this; see [`Scan::prompt`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of the call, none a state"
)]
pub struct Shape {
    /// Messages of all roles.
    pub messages: u32,
    /// Messages with role `user` that carry text (tool results are not turns).
    pub user_turns: u32,
    /// Bytes of system and developer text.
    pub system_bytes: u32,
    /// Bytes of the last user text.
    pub prompt_bytes: u32,
    /// Bytes of all message text.
    pub text_bytes: u32,
    /// Tools offered.
    pub tools: u32,
    /// Bytes of their definitions.
    pub tool_bytes: u32,
    /// Parameters that they require, over all tools.
    pub tool_required: u32,
    /// The most objects inside one another in a tool's parameters.
    pub tool_depth: u32,
    /// Values of the enumerations in tools' parameters.
    pub tool_enums: u32,
    /// Tools whose calls must follow their schema to the letter.
    pub tool_strict: u32,
    /// Tool calls the assistant made so far.
    pub tool_calls: u32,
    /// Tool results so far.
    pub tool_results: u32,
    /// Tool results that are errors: flagged, or in a dialect without a flag by how they read.
    pub tool_errors: u32,
    /// The last message is a tool result: the model is asked to go on, not to begin.
    pub after_tool: bool,
    /// Words of the user's stand beside these results, in one message.
    pub words_beside: bool,
    /// Turns of the assistant's in all.
    pub assistant_turns: u32,
    /// Turns of the assistant's since the user last spoke.
    pub depth: u32,
    /// Bytes of text and of results since the user last spoke, these words included.
    pub loop_bytes: u32,
    /// Tool results since the user last spoke.
    pub loop_results: u32,
    /// Tool results since the assistant last spoke, their bytes, and the errors among them.
    pub last_results: u32,
    pub result_bytes: u32,
    pub result_errors: u32,
    /// Failed tool results in a row at the end, since the user last spoke.
    pub failures: u32,
    /// How often the last turn of the assistant's made the very calls of the one before it.
    pub repeats: u32,
    /// Hunks of diffs, files that they change, and fenced blocks in the last user text and result.
    pub diff_hunks: u32,
    pub diff_files: u32,
    pub code_fences: u32,
    /// Images and audio clips.
    pub images: u32,
    /// Documents and files, whose length in tokens their bytes do not bound.
    pub files: u32,
    /// Tools that the provider runs itself, at fees and with results nobody here sees before.
    pub server_tools: u32,
    /// A response schema or JSON mode is asked for.
    pub schema: bool,
    /// Properties of that schema on all levels, values of its enumerations, and the most objects inside
    /// one another.
    pub schema_properties: u32,
    pub schema_enums: u32,
    pub schema_depth: u32,
    /// Reasoning or thinking is asked for.
    pub thinking: bool,
}

/// The fields the gateway acts on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch of the call, none a state"
)]
pub struct Scan {
    /// The requested model, unescaped.
    pub model: String,
    /// Byte range of the `model` value, quotes included.
    pub model_at: Range<usize>,
    pub stream: bool,
    /// The smallest output cap the caller set, in tokens.
    pub max_output: Option<u64>,
    /// Where the caps stand.
    pub caps: Vec<Range<usize>>,
    /// How many answers are asked for (`n`), at least 1.
    pub answers: u64,
    /// The edit that switches usage on inside the stream options the caller wrote, if any.
    pub usage_edit: Option<Edit>,
    /// The caller asks for usage in the stream.
    pub include_usage: bool,
    /// The service lane asked for (`service_tier`); empty where none is.
    pub lane: String,
    /// Offset just behind the opening brace, where new fields can be put.
    pub head_at: usize,
    /// The object has no field at all.
    pub empty: bool,
    /// Byte ranges of the strings (without quotes, still escaped) that make up the last user text.
    pub prompt_at: Vec<Range<usize>>,
    /// Byte ranges of the turns of the transcript, in order.
    pub turns_at: Vec<Range<usize>>,
    /// Byte ranges of signatures and sealed content that came with the transcript.
    pub seals_at: Vec<Range<usize>>,
    /// What the client itself calls its session; empty where it says nothing.
    pub session: String,
    /// The earlier response that this call goes on from; empty where there is none.
    pub previous: String,
    /// The kept conversation that it belongs to; empty where there is none.
    pub conversation: String,
    /// Items of the transcript are given by reference.
    pub has_references: bool,
    /// The answer is fetched later.
    pub background: bool,
    /// The answer is not to be kept.
    pub is_unstored: bool,
    /// How thinking is asked for, in a dialect that knows several ways.
    pub thinking: Option<ThinkingForm>,
    /// A word for effort stands beside it.
    pub has_effort: bool,
    /// Reasoning is asked for in a dialect that knows but one way.
    pub reasons: bool,
    /// Where the first system text begins and ends, escaped and with what stands between its parts.
    pub system_at: Range<usize>,
    /// What the caller says of the step in the body.
    pub hint: Option<Hint>,
    /// How the present tool loop began.
    pub(crate) looping: Looping,
    /// How it has gone on.
    trail: Trail,
    /// Where the last result of a tool stands.
    last_result: Range<usize>,
    pub shape: Shape,
}

/// A word of the caller's to the gateway alone; no upstream gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hint {
    pub word: String,
    /// What is cut out of the body so that nothing of it is left.
    pub at: Range<usize>,
}

/// The name of that word in a call's metadata.
const HINT: &str = "pareto_step";

/// The body can not be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScanError {
    #[error("the body is not valid JSON: {0}")]
    Json(#[from] JsonError),
    #[error("the body is not a JSON object")]
    NotAnObject,
    #[error("`{0}` stands twice in the body; send it once")]
    Duplicate(String),
    #[error("`{0}` differs from `{1}` only in case; write `{1}`")]
    Case(String, &'static str),
    #[error("`{0}` is missing")]
    Missing(&'static str),
    #[error("`{0}` must be {1}")]
    Wrong(&'static str, &'static str),
}

impl Scan {
    /// Whether a model takes what the call says of thinking; `form` where it takes that in but one form.
    pub fn can_think(&self, form: Option<ThinkingForm>) -> bool {
        // With a fixed budget, a tool loop must have begun with thinking.
        if self.looping.unthought && self.thinking == Some(ThinkingForm::Budget) {
            return false;
        }
        let Some(form) = form else {
            return true;
        };
        let shows = self.reasons || !self.seals_at.is_empty();
        form.takes(self.thinking, self.has_effort) && !(form == ThinkingForm::None && shows)
    }

    /// The last user text, unescaped into `buffer` as far as it fits on a character boundary; the
    /// parts of a multi-part message are joined by line breaks.
    pub fn prompt<'b>(&self, body: &[u8], buffer: &'b mut [u8]) -> &'b str {
        let mut filled = 0;
        for (index, at) in self.prompt_at.iter().enumerate() {
            let room = buffer.get_mut(filled..).unwrap_or_default();
            let (room, line) = match room.split_first_mut() {
                Some((first, rest)) if index > 0 => {
                    *first = b'\n';
                    (rest, 1)
                }
                _ => (room, 0),
            };
            let raw = body.get(at.clone()).unwrap_or_default();
            let (written, whole) = json::unescape_into(raw, room);
            filled += line + written;
            if !whole {
                break;
            }
        }
        let text = buffer.get(..filled).unwrap_or_default();
        std::str::from_utf8(text).unwrap_or_default()
    }
}

/// Scans a body: an object whose fields `acted` are taken by `field`, called with the scanner before
/// the value and the field's name, `""` for one that is only forwarded.
pub(crate) fn body(
    text: &[u8],
    acted: &'static [&'static str],
    needed: &'static [&'static str],
    mut field: impl FnMut(&mut Scanner<'_>, &'static str, &mut Scan) -> Result<(), ScanError>,
) -> Result<Scan, ScanError> {
    let mut scanner = Scanner::new(text)?;
    if scanner.peek()? != Kind::Object {
        scanner.skip()?;
        scanner.end()?;
        return Err(ScanError::NotAnObject);
    }
    let head_at = scanner.offset() + 1;
    let mut scan = Scan {
        answers: 1,
        head_at,
        empty: true,
        ..Scan::default()
    };
    let mut acted = Acted::new(acted);
    scanner.object(|scanner, key| {
        scan.empty = false;
        field(scanner, acted.name(key)?, &mut scan)
    })?;
    scanner.end()?;
    trail::mark(&mut scan, text);
    if scan.model.is_empty() {
        return Err(ScanError::Missing("model"));
    }
    match needed.first() {
        Some(first) if !needed.iter().any(|name| acted.has(name)) => Err(ScanError::Missing(first)),
        _ => Ok(scan),
    }
}

/// The fields of one object that the gateway acts on. What is authorised must be what is sent, so
/// each may stand once, and in no other case: some servers match names whatever their case.
#[derive(Debug)]
pub(crate) struct Acted {
    names: &'static [&'static str],
    seen: u32,
}

impl Acted {
    pub(crate) fn new(names: &'static [&'static str]) -> Self {
        debug_assert!(names.len() <= 32, "one bit a name");
        Self { names, seen: 0 }
    }

    /// Whether the field `name` stood there.
    fn has(&self, name: &str) -> bool {
        let index = self.names.iter().position(|it| *it == name);
        index.is_some_and(|index| self.seen & (1 << index) != 0)
    }

    /// The name that `key` is, or `""` for a field the gateway only forwards.
    pub(crate) fn name(&mut self, key: &Str<'_>) -> Result<&'static str, ScanError> {
        let text = key.text();
        let Some(index) = self
            .names
            .iter()
            .position(|name| name.eq_ignore_ascii_case(&text))
        else {
            return Ok("");
        };
        let name = self.names.get(index).copied().unwrap_or_default();
        if name != text {
            return Err(ScanError::Case(text.into_owned(), name));
        }
        let bit = 1_u32 << index;
        if self.seen & bit != 0 {
            return Err(ScanError::Duplicate(text.into_owned()));
        }
        self.seen |= bit;
        Ok(name)
    }
}

/// A count where one is expected; `null` counts as absent.
pub(crate) fn count(
    scanner: &mut Scanner<'_>,
    name: &'static str,
) -> Result<Option<u64>, ScanError> {
    match scanner.peek()? {
        Kind::Null => scanner.skip().map(|_| None).map_err(ScanError::from),
        Kind::Number => {
            let text = scanner.number()?;
            text.parse()
                .map(Some)
                .map_err(|_| ScanError::Wrong(name, "a whole number"))
        }
        _ => Err(ScanError::Wrong(name, "a whole number")),
    }
}

/// A flag where one is expected; `null` counts as `false`.
pub(crate) fn flag(scanner: &mut Scanner<'_>, name: &'static str) -> Result<bool, ScanError> {
    match scanner.peek()? {
        Kind::Null => scanner.skip().map(|_| false).map_err(ScanError::from),
        Kind::Bool => Ok(scanner.boolean()?),
        _ => Err(ScanError::Wrong(name, "true or false")),
    }
}

/// A word where one is expected; `None` for another kind of value, which is passed over.
pub(crate) fn word<'a>(scanner: &mut Scanner<'a>) -> Result<Option<Str<'a>>, JsonError> {
    if scanner.peek()? == Kind::String {
        scanner.string().map(Some)
    } else {
        Ok(None)
    }
}

/// Takes the value of `model`.
pub(crate) fn model(scanner: &mut Scanner<'_>, scan: &mut Scan) -> Result<(), ScanError> {
    let Some(model) = word(scanner)? else {
        return Err(ScanError::Wrong("model", "a string"));
    };
    scan.model_at = model.at.start - 1..model.at.end + 1;
    scan.model = model.text().into_owned();
    Ok(())
}

/// Takes the value of `service_tier`.
pub(crate) fn lane(scanner: &mut Scanner<'_>, scan: &mut Scan) -> Result<(), JsonError> {
    let lane = word(scanner)?.map(|lane| lane.text().into_owned());
    scan.lane = lane.unwrap_or_default();
    Ok(())
}

/// Takes an object of metadata: our own word in it becomes `scan.hint`, the rest is for `field`.
pub(crate) fn metadata(
    scanner: &mut Scanner<'_>,
    scan: &mut Scan,
    mut field: impl FnMut(&mut Scanner<'_>, &str, &mut Scan) -> Result<(), JsonError>,
) -> Result<(), ScanError> {
    let start = scanner.key_at();
    let mut acted = Acted::new(&[HINT]);
    let (mut others, mut found) = (0, None);
    scanner.object(|scanner, key| {
        if acted.name(key)? != HINT {
            others += 1;
            return Ok(field(scanner, key.text().as_ref(), scan)?);
        }
        let Some(word) = word(scanner)? else {
            return Err(ScanError::Wrong("metadata.pareto_step", "a word"));
        };
        found = Some((word.text().into_owned(), key.at.start - 1..scanner.offset()));
        Ok(())
    })?;
    scan.hint = found.map(|(word, at)| Hint {
        word,
        at: if others == 0 {
            start..scanner.offset()
        } else {
            at
        },
    });
    Ok(())
}

/// Takes the list `name` of messages: roles here, every other field of a message by `field`.
pub(crate) fn messages(
    scanner: &mut Scanner<'_>,
    scan: &mut Scan,
    name: &'static str,
    field: impl Fn(&mut Scanner<'_>, &str, &mut Message, &mut Scan) -> Result<(), JsonError>,
) -> Result<(), ScanError> {
    if scanner.peek()? != Kind::Array {
        return Err(ScanError::Wrong(name, "a list of messages"));
    }
    let mut message = Message::default();
    scanner.array(|scanner| {
        if scanner.peek()? != Kind::Object {
            return Err(ScanError::Wrong(name, "a list of objects"));
        }
        let start = scanner.offset();
        scanner.object(|scanner, key| match key.text().as_ref() {
            "role" => {
                let role = word(scanner)?;
                message.role = role.map_or(Role::Other, |role| Role::read(&role.text()));
                Ok(())
            }
            name => field(scanner, name, &mut message, scan),
        })?;
        scan.turns_at.push(start..scanner.offset());
        message.count_into(scan);
        Ok(())
    })?;
    // The items of a response may stand before what it goes on with; messages are all there is.
    if name == "messages" && scan.turns_at.is_empty() {
        return Err(ScanError::Wrong(name, "a list of at least one message"));
    }
    Ok(())
}

/// A length as a count that fits the shape.
pub(crate) fn len32(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// What one message holds, collected before its role is known: `role` may stand last.
#[derive(Debug, Default)]
pub(crate) struct Message {
    pub(crate) role: Role,
    pub(crate) texts: Vec<Range<usize>>,
    pub(crate) results: u32,
    /// Calls of tools, and how many blocks there are, where a dialect has them as blocks.
    pub(crate) calls: u32,
    pub(crate) blocks: u32,
    /// The first block is thinking.
    pub(crate) thinks_first: bool,
    /// A sum over the calls of tools in it, in any dialect; see [`trail::call`].
    pub(crate) made: u64,
    /// It is itself a call, where a dialect has calls as messages of their own.
    pub(crate) is_call: bool,
    /// Its first text reads as a failure, should it be a tool's.
    pub(crate) reads_badly: bool,
    /// The results in it.
    pub(crate) told: Told,
}

/// A tool loop, as far as the transcript has gone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Looping {
    /// The model has spoken since the user's last prompt.
    begun: bool,
    /// What it said first were calls without thinking before them.
    unthought: bool,
    /// Results have been told and the model has not spoken since.
    told: bool,
}

impl Looping {
    fn take(&mut self, message: &Message) {
        match message.role {
            Role::User if message.results > 0 => self.told = true,
            // Beside results, the user's words belong to the loop.
            Role::User if !self.told => *self = Self::default(),
            Role::Assistant => {
                if !self.begun {
                    self.unthought = message.calls > 0 && !message.thinks_first;
                }
                (self.begun, self.told) = (true, false);
            }
            _ => {}
        }
    }
}

/// Whose message it is.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    System,
    User,
    Assistant,
    Tool,
    #[default]
    Other,
}

impl Role {
    pub(crate) fn read(word: &str) -> Self {
        match word {
            "system" | "developer" => Self::System,
            "user" => Self::User,
            "assistant" => Self::Assistant,
            "tool" | "function" => Self::Tool,
            _ => Self::Other,
        }
    }
}

impl Message {
    /// Takes a text in. The first tells how a tool fared, should the message turn out to be its result:
    /// `role` may still come.
    pub(crate) fn text(&mut self, text: &Str<'_>) {
        if self.texts.is_empty() && matches!(self.role, Role::Tool | Role::Other) {
            self.reads_badly = trail::failed(text.raw);
        }
        self.texts.push(text.at.clone());
    }

    /// Counts the message into `scan` and makes it empty again.
    pub(crate) fn count_into(&mut self, scan: &mut Scan) {
        let bytes = len32(self.texts.iter().map(ExactSizeIterator::len).sum());
        if self.role == Role::Tool {
            self.told.result(bytes, self.reads_badly);
            trail::last(self.texts.first(), scan);
        }
        scan.looping.take(self);
        scan.trail.take(self, bytes, &mut scan.shape);
        let shape = &mut scan.shape;
        shape.messages += 1;
        shape.text_bytes = shape.text_bytes.saturating_add(bytes);
        shape.tool_results += self.results;
        // A system text may stand anywhere, even behind the whole transcript.
        if self.role != Role::System {
            shape.after_tool = self.results > 0;
        }
        match self.role {
            Role::System => {
                shape.system_bytes = shape.system_bytes.saturating_add(bytes);
                if scan.system_at.is_empty()
                    && let (Some(first), Some(last)) = (self.texts.first(), self.texts.last())
                {
                    scan.system_at = first.start..last.end;
                }
            }
            Role::User if bytes > 0 => {
                shape.user_turns += 1;
                shape.prompt_bytes = bytes;
                std::mem::swap(&mut scan.prompt_at, &mut self.texts);
            }
            Role::Tool => {
                shape.tool_results += 1;
                shape.after_tool = true;
            }
            Role::User | Role::Assistant | Role::Other => {}
        }
        self.texts.clear();
        (self.role, self.results, self.told) = (Role::default(), 0, Told::default());
        (self.calls, self.blocks, self.thinks_first) = (0, 0, false);
        (self.made, self.is_call, self.reads_badly) = (0, false, false);
    }
}
