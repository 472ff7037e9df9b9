//! The canonical conversation: what a call says, whatever dialect it was written in. Built only where
//! a call changes dialect, origin or window; a call that stays at home is spliced and never decoded.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::dialect::shortened;

/// A call to a model.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Call {
    /// The dialect that `own` and every `raw` below are written in.
    pub dialect: &'static str,
    pub model: String,
    /// The transcript, system text included, in its order.
    pub turns: Vec<Turn>,
    pub tools: Vec<Tool>,
    pub choice: Option<Choice>,
    /// Whether several tools may be called at once; `None` leaves it to the model.
    pub parallel: Option<bool>,
    pub format: Format,
    /// `low`, `medium` or `high`: how long answers should be.
    pub verbosity: Option<String>,
    pub reasoning: Reasoning,
    pub sampling: Sampling,
    /// Answer tokens at most, reasoning included.
    pub max_output: Option<u64>,
    pub stream: bool,
    pub include_usage: bool,
    /// The service lane, in OpenAI's words: `auto`, `default`, `flex`, `priority`.
    pub lane: Option<String>,
    /// Who the end user is.
    pub user: Option<String>,
    pub metadata: Map<String, Value>,
    /// What keeps calls with one prefix on one cache.
    pub cache_key: Option<String>,
    /// Every field as the caller wrote it.
    pub own: Map<String, Value>,
    /// Fields that only the caller's dialect has, as paths.
    pub only_own: Vec<String>,
    /// What holds numbers that are not those the caller wrote, as paths: they had too many digits.
    pub changed_numbers: Vec<&'static str>,
}

/// One turn of the transcript.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Turn {
    pub role: Role,
    pub parts: Vec<Part>,
    /// The messages or items it was read from; empty once it was changed.
    #[serde(skip)]
    pub raw: Vec<Value>,
}

/// Whose turn it is. Tool results are part of the user's turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// System or developer text, at the head or in the middle.
    System,
    User,
    Assistant,
}

/// A piece of a turn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Part {
    pub kind: Kind,
    /// A prompt-cache mark behind this piece; Anthropic's alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<Value>,
    /// The block or item it was read from.
    #[serde(skip)]
    pub raw: Option<Box<Value>>,
}

/// What a piece is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Text(Text),
    Image(Media),
    Audio(Media),
    File(Media),
    ToolCall(ToolCall),
    ToolResult(ToolResult),
    Thinking(Thinking),
    Refusal(String),
    /// A block that only one dialect has.
    Own(Own),
}

/// Visible text.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Text {
    pub text: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub citations: Vec<Citation>,
}

/// Where a statement comes from.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Citation {
    pub url: String,
    pub title: String,
    /// The words cited.
    pub quote: String,
    /// The stretch of the answer that rests on it, in characters.
    pub span: Option<(u64, u64)>,
}

/// An image, a clip or a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Media {
    pub source: Source,
    pub name: Option<String>,
    /// `low`, `high` or `auto`: how closely an image is looked at.
    pub detail: Option<String>,
}

/// Where its bytes are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    Url(String),
    /// Base64 data of a media type.
    Inline {
        mime: String,
        data: String,
    },
    /// Plain text of a document.
    Plain(String),
    /// A file kept by the provider that gave it this id.
    Id(String),
}

/// The model asks for a tool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCall {
    pub id: String,
    pub name: String,
    /// JSON text of an object; for a free-form tool its input as it is. Cut by a token limit, it may
    /// be incomplete.
    pub arguments: String,
    /// A free-form tool, whose input is text and not JSON.
    pub custom: bool,
}

/// What a tool gave back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolResult {
    pub id: String,
    pub parts: Vec<Part>,
    pub is_error: bool,
    pub custom: bool,
}

/// Reasoning before an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Thinking {
    /// What of it may be shown; empty where it is hidden or redacted.
    pub text: String,
    pub seal: Option<Seal>,
}

/// The form in which only the origin can read a piece: signed, encrypted or redacted. It goes back to
/// its origin as it came, and to nobody else.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Seal {
    pub dialect: String,
    /// Who made it; `None` for one that a caller brought and nobody here has seen before.
    pub origin: Option<String>,
    /// The block or item, verbatim.
    pub value: Value,
}

/// A block that only `dialect` has, verbatim.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Own {
    pub dialect: String,
    /// The word that losses are reported under.
    pub name: String,
    pub value: Value,
}

/// A tool that is offered.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tool {
    /// Unique in the call; a tool of a group is called `group__name`.
    pub name: String,
    /// The namespace it stands in.
    pub group: Option<String>,
    pub description: Option<String>,
    /// The JSON schema of its arguments; for a free-form tool the grammar of its input.
    pub schema: Option<Value>,
    pub strict: Option<bool>,
    /// Takes text instead of JSON.
    pub custom: bool,
    pub cache: Option<Value>,
    /// A tool that the provider runs, or any other that only the caller's dialect knows.
    pub own: Option<Value>,
}

/// Which tool must be called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    Auto,
    None,
    /// Some tool.
    Required,
    /// The tool of this name.
    Tool(String),
}

/// The form of the answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Format {
    #[default]
    Text,
    /// Any JSON object.
    Json,
    Schema {
        name: String,
        schema: Value,
        strict: Option<bool>,
        description: Option<String>,
    },
}

/// How much to think first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reasoning {
    /// Asked for or switched off in so many words.
    pub enabled: Option<bool>,
    pub effort: Option<Effort>,
    /// Tokens at most.
    pub budget: Option<u64>,
    /// What is shown of it: `auto`, `concise`, `detailed`, `summarized`, `omitted`.
    pub summary: Option<String>,
}

/// Effort, least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Effort {
    None,
    Minimal,
    Low,
    Medium,
    High,
    XHigh,
    Max,
}

impl Effort {
    const ALL: [(Self, &'static str); 7] = [
        (Self::None, "none"),
        (Self::Minimal, "minimal"),
        (Self::Low, "low"),
        (Self::Medium, "medium"),
        (Self::High, "high"),
        (Self::XHigh, "xhigh"),
        (Self::Max, "max"),
    ];

    /// The effort that both vendors call `word`.
    pub fn parse(word: &str) -> Option<Self> {
        let found = Self::ALL.iter().find(|(_, name)| *name == word);
        found.map(|(effort, _)| *effort)
    }

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        let found = Self::ALL.iter().find(|(effort, _)| *effort == self);
        found.map_or("", |(_, name)| name)
    }

    /// Thinking tokens that stand for it where only a budget can be given. The steps are those that
    /// gateways have settled on, doubled where Anthropic's own least budget (1,024) asks for it.
    pub fn budget(self) -> u64 {
        match self {
            Self::None => 0,
            Self::Minimal | Self::Low => 1_024,
            Self::Medium => 4_096,
            Self::High => 16_384,
            Self::XHigh | Self::Max => 32_768,
        }
    }

    /// The effort nearest to a budget of thinking tokens.
    pub fn of_budget(tokens: u64) -> Self {
        match tokens {
            0..=2_048 => Self::Low,
            2_049..=8_192 => Self::Medium,
            _ => Self::High,
        }
    }
}

/// How tokens are drawn.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sampling {
    pub temperature: Option<f64>,
    pub top_p: Option<f64>,
    pub top_k: Option<u64>,
    pub seed: Option<i64>,
    pub presence_penalty: Option<f64>,
    pub frequency_penalty: Option<f64>,
    pub logit_bias: Option<Value>,
    /// Log probabilities are wanted, with this many alternatives for each token.
    pub logprobs: Option<u64>,
    /// How many answers.
    pub answers: Option<u64>,
    pub stop: Vec<String>,
}

impl Part {
    /// A piece without marks.
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            cache: None,
            raw: None,
        }
    }

    /// Plain text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::new(Kind::Text(Text {
            text: text.into(),
            citations: Vec::new(),
        }))
    }

    /// The text of a text piece.
    pub fn as_text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Text(text) => Some(&text.text),
            _ => None,
        }
    }
}

impl Turn {
    /// A turn of these parts.
    pub fn new(role: Role, parts: Vec<Part>) -> Self {
        Self {
            role,
            parts,
            raw: Vec::new(),
        }
    }

    /// Whether any part is a tool call.
    pub fn calls_tools(&self) -> bool {
        let call = |part: &Part| matches!(part.kind, Kind::ToolCall(_));
        self.parts.iter().any(call)
    }

    /// Whether any part answers a tool call.
    pub fn answers_tools(&self) -> bool {
        let result = |part: &Part| matches!(part.kind, Kind::ToolResult(_));
        self.parts.iter().any(result)
    }

    /// Whether it consists of answers to tool calls.
    fn only_answers_tools(&self) -> bool {
        let result = |part: &Part| matches!(part.kind, Kind::ToolResult(_));
        self.parts.iter().all(result)
    }

    /// All its text joined by line breaks, tool results included.
    pub fn plain_text(&self) -> String {
        let mut text = String::new();
        collect_text(&self.parts, &mut text);
        text
    }
}

/// The transcript with each result right behind the turn that called its tool: one dialect lets
/// other turns stand between them, the others refuse that.
pub(crate) fn paired(turns: &[Turn]) -> Cow<'_, [Turn]> {
    let late = late_results(turns);
    if late.is_empty() {
        return Cow::Borrowed(turns);
    }
    let mut turns = turns.to_vec();
    let mut moved: BTreeMap<usize, Vec<Part>> = BTreeMap::new();
    // From the back, so that the places of the parts still to be moved stay right.
    for Late { turn, part, call } in late.into_iter().rev() {
        if let Some(turn) = turns.get_mut(turn) {
            turn.raw.clear();
            let moved = moved.entry(call).or_default();
            moved.push(turn.parts.remove(part));
        }
    }
    let mut paired = Vec::with_capacity(turns.len() + moved.len());
    let mut waiting = None;
    for (number, turn) in turns.into_iter().enumerate() {
        if !turn.only_answers_tools() {
            // Behind the results that stood in their place.
            paired.extend(waiting.take());
        }
        if !turn.parts.is_empty() || !turn.raw.is_empty() {
            paired.push(turn);
        }
        if let Some(mut parts) = moved.remove(&number) {
            parts.reverse();
            waiting = Some(Turn::new(Role::User, parts));
        }
    }
    paired.extend(waiting);
    Cow::Owned(paired)
}

/// The transcript with an id of its own for each call: some servers number the calls of every answer
/// anew. A result belongs to the last turn before it with a call of its id, and there to the first that has none yet.
pub(crate) fn told_apart(turns: Cow<'_, [Turn]>) -> Cow<'_, [Turn]> {
    let parts = turns.iter().flat_map(|turn| &turn.parts);
    let ids = parts.filter_map(|part| match &part.kind {
        Kind::ToolCall(call) => Some(call.id.as_str()),
        _ => None,
    });
    let (mut ids, mut seen) = (ids, HashSet::new());
    if ids.all(|id| seen.insert(id.to_owned())) {
        return turns;
    }
    let mut turns = turns.into_owned();
    let mut times: HashMap<String, Times> = HashMap::new();
    for (turn, part) in (0..).zip(&mut turns).flat_map(|(number, turn)| {
        let parts = turn.parts.iter_mut();
        parts.map(move |part| (number, part))
    }) {
        let (id, time) = match &mut part.kind {
            Kind::ToolCall(call) => {
                let times = times.entry(call.id.clone()).or_default();
                (&mut call.id, times.called(turn))
            }
            Kind::ToolResult(result) => {
                let times = times.get_mut(&result.id);
                (&mut result.id, times.map_or(0, Times::answered))
            }
            _ => continue,
        };
        if time > 1 {
            *id = format!("{id}_{time}");
            part.raw = None;
        }
    }
    Cow::Owned(turns)
}

/// The calls of one id.
#[derive(Debug, Default)]
struct Times {
    count: usize,
    /// The turn of the last, and those there that have no result yet.
    turn: usize,
    open: VecDeque<usize>,
}

impl Times {
    /// The number of one more, in this turn.
    fn called(&mut self, turn: usize) -> usize {
        if self.turn != turn {
            self.turn = turn;
            self.open.clear();
        }
        self.count += 1;
        self.open.push_back(self.count);
        self.count
    }

    /// The number of the one that a result belongs to.
    fn answered(&mut self) -> usize {
        self.open.pop_front().unwrap_or(self.count)
    }
}

/// A result with another turn between it and its call.
struct Late {
    turn: usize,
    part: usize,
    /// The turn of its call.
    call: usize,
}

fn late_results(turns: &[Turn]) -> Vec<Late> {
    let mut called: HashMap<&str, usize> = HashMap::new();
    let mut late = Vec::new();
    // The last turn that holds something else than results.
    let mut other = 0;
    for (number, turn) in turns.iter().enumerate() {
        for (place, part) in turn.parts.iter().enumerate() {
            match &part.kind {
                Kind::ToolCall(call) => {
                    called.insert(&call.id, number);
                }
                Kind::ToolResult(result) => {
                    let call = called.get(result.id.as_str()).copied();
                    late.extend(call.filter(|call| *call < other).map(|call| Late {
                        turn: number,
                        part: place,
                        call,
                    }));
                }
                _ => {}
            }
        }
        if !turn.only_answers_tools() {
            other = number;
        }
    }
    late
}

fn collect_text(parts: &[Part], text: &mut String) {
    for part in parts {
        let piece = match &part.kind {
            Kind::Text(piece) => piece.text.as_str(),
            Kind::Refusal(piece) => piece.as_str(),
            Kind::ToolCall(call) => call.arguments.as_str(),
            Kind::ToolResult(result) => {
                collect_text(&result.parts, text);
                continue;
            }
            _ => continue,
        };
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(piece);
    }
}

impl Call {
    /// Every sealed piece of the transcript.
    pub fn seals_mut(&mut self) -> impl Iterator<Item = &mut Seal> {
        let parts = self.turns.iter_mut().flat_map(|turn| &mut turn.parts);
        parts.filter_map(|part| match &mut part.kind {
            Kind::Thinking(thinking) => thinking.seal.as_mut(),
            _ => None,
        })
    }

    /// Whether it ends with an answer's beginning. One dialect goes on with it word by word, the others
    /// begin a new answer.
    pub(crate) fn ends_with_answer(&self) -> bool {
        let last = self.turns.last();
        last.is_some_and(|turn| turn.role == Role::Assistant)
    }

    /// The tool called `name`.
    pub fn tool(&self, name: &str) -> Option<&Tool> {
        self.tools.iter().find(|tool| tool.name == name)
    }

    /// The tool that an upstream calls `name`, to which it may have gone under a shortened one.
    pub fn offered(&self, name: &str) -> Option<&Tool> {
        let goes_by = |tool: &&Tool| shortened(&tool.name).any(|short| short == name);
        self.tool(name).or_else(|| self.tools.iter().find(goes_by))
    }
}
