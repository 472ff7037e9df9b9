//! What a tool is to a task: its definition as the server gives it, its manifest as the operator gives
//! it, a call, and what can come of one. [`host`] is where they come from.

pub mod config;
pub mod guard;
pub mod host;
mod mcp;
pub mod pins;

pub mod builtin;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::check::Files;
use crate::digest::Digest;
use crate::id::TaskId;
use crate::next::Skill;

pub use host::Host;

/// What a call of a tool does, by how bad it is to do it by mistake. Permissions are separate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// Looks something up.
    Retrieve,
    /// Prepares something that nobody but its owner sees.
    Draft,
    /// Acts on the world.
    Execute,
}

/// What a crash between the commit of a call and its result means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Nothing: it is run again.
    Read,
    /// It only touches the task's own workspace, where the same call does the same: run again.
    Workspace,
    /// The remote takes an idempotency key: run again under the same key.
    Keyed,
    /// What it made can be looked for: found, its result is taken; not found, it is run again.
    Probeable,
    /// Nobody knows: it is never run again by itself; a person decides.
    Unkeyed,
}

/// A tool as its server describes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Definition {
    /// How models call it: `server__tool`, or the name of a built-in such as `fs_read`.
    pub name: String,
    /// The server's name in the configuration; empty for built-ins.
    pub server: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    pub description: String,
    pub input_schema: Value,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_schema: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<Value>,
}

impl Definition {
    /// The digest of all of it: a tool that changes anything about itself has another.
    pub fn pin(&self) -> Digest {
        Digest::of_value(&json!([
            self.name,
            self.title,
            self.description,
            self.input_schema,
            self.output_schema,
            self.annotations,
        ]))
    }
}

/// What the operator says of a tool. The server's own word never makes it less than this.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// A pattern of the tool's name at its server; `*` stands for any text. The first that fits counts.
    pub name: String,
    #[serde(default = "Manifest::worst_verb")]
    pub verb: Verb,
    #[serde(default = "Manifest::worst_class")]
    pub class: Class,
    /// Arguments that say where something goes: recipients, addresses, paths, accounts.
    #[serde(default)]
    pub destinations: Vec<String>,
    /// The argument that takes the idempotency key; `_meta` alone where it is absent.
    #[serde(default)]
    pub key_argument: Option<String>,
    /// How long the remote remembers a key, in seconds.
    #[serde(default = "Manifest::day")]
    pub key_kept_s: u64,
    /// How what it made is looked for.
    #[serde(default)]
    pub probe: Option<Probe>,
    /// What one call costs, in decimal USD.
    #[serde(default)]
    pub cost_usd: Option<String>,
    /// Arguments that a preview shows first, such as `to` and `subject`.
    #[serde(default)]
    pub preview: Vec<String>,
    /// Always asks, whatever autonomy says.
    #[serde(default)]
    pub always_ask: bool,
    /// Its results may steer destinations: they come from the owner's own records, not from outside.
    #[serde(default)]
    pub trusted: bool,
}

impl Manifest {
    fn worst_verb() -> Verb {
        Verb::Execute
    }

    fn worst_class() -> Class {
        Class::Unkeyed
    }

    fn day() -> u64 {
        86_400
    }

    /// What holds for a tool that the operator says nothing about.
    pub fn unknown() -> Self {
        Self {
            name: "*".to_owned(),
            verb: Self::worst_verb(),
            class: Self::worst_class(),
            destinations: Vec::new(),
            key_argument: None,
            key_kept_s: Self::day(),
            probe: None,
            cost_usd: None,
            preview: Vec::new(),
            always_ask: false,
            trusted: false,
        }
    }
}

/// How what a call made is looked for after a crash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// A tool of the same server that only reads.
    pub tool: String,
    /// Its arguments: text values may contain `{key}` (the idempotency key) and `{<argument>}`.
    pub arguments: Value,
    /// It is there when the result's text contains this, in which `{key}` and arguments stand likewise.
    pub found: String,
    /// Milliseconds after the call until `not found` counts.
    #[serde(default)]
    pub settle_ms: u64,
}

/// What is said of a call that came too late to leave.
pub(crate) const LATE: &str = "the lease on its task ran out before it was sent";

/// Until when a call may leave. Afterwards another node may have its task, and may look for what it did or
/// do it again, so that not a byte of it may go out any more.
#[derive(Clone)]
pub struct Until {
    /// Milliseconds since 1970.
    clock: Arc<dyn Fn() -> i64 + Send + Sync>,
    /// Moved on while the lease is kept.
    at_ms: Arc<AtomicI64>,
}

impl Until {
    /// Until `clock` says what stands in `at_ms` then.
    pub fn new(clock: Arc<dyn Fn() -> i64 + Send + Sync>, at_ms: Arc<AtomicI64>) -> Self {
        Self { clock, at_ms }
    }

    /// For calls that are nobody else's.
    pub fn always() -> Self {
        Self::new(Arc::new(|| 0), Arc::new(AtomicI64::new(i64::MAX)))
    }

    /// Whether it is too late.
    pub fn is_over(&self) -> bool {
        (self.clock)() >= self.at_ms.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Until {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Until").field(&self.at_ms).finish()
    }
}

/// A call to make.
#[derive(Debug, Clone)]
pub struct ToolCall {
    pub task: TaskId,
    pub tenant: String,
    /// As models call it.
    pub tool: String,
    /// The definition that was looked at when the call was decided; another one is not called.
    pub pin: Digest,
    /// An object.
    pub arguments: Value,
    /// The same for every attempt at this effect.
    pub key: String,
    /// Gives up after that.
    pub within: Duration,
    pub until: Until,
}

/// A piece of a result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Content {
    Text {
        text: String,
    },
    /// Anything that is not text: base64 data of a media type.
    Data {
        mime: String,
        data: String,
    },
    /// A resource that the server points at.
    Link {
        uri: String,
        name: String,
    },
}

/// What a tool gave back.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ToolResult {
    pub content: Vec<Content>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub structured: Option<Value>,
    /// The tool ran and says that it failed.
    #[serde(default)]
    pub is_error: bool,
}

impl ToolResult {
    /// A result of text.
    pub fn text(text: impl Into<String>) -> Self {
        Self {
            content: vec![Content::Text { text: text.into() }],
            ..Self::default()
        }
    }

    /// A failure in words.
    pub fn error(text: impl Into<String>) -> Self {
        Self {
            is_error: true,
            ..Self::text(text)
        }
    }

    /// All of its text.
    pub fn plain(&self) -> String {
        let pieces = self.content.iter().map(|content| match content {
            Content::Text { text } => text.clone(),
            Content::Data { mime, data } => format!("[{mime}, {} bytes of base64]", data.len()),
            Content::Link { uri, name } => format!("[{name}: {uri}]"),
        });
        let text = pieces.collect::<Vec<_>>().join("\n");
        match &self.structured {
            Some(value) if text.is_empty() => value.to_string(),
            _ => text,
        }
    }
}

/// What came of a call.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    Done(ToolResult),
    /// It certainly did not reach the tool: try again or give up, but nothing has happened.
    NotSent(String),
    /// Its definition is another than the one it was decided by; nothing has happened.
    Drifted(String),
    /// It may have happened or not.
    Lost(String),
    /// The server asks its user something (MCP elicitation) before it goes on.
    Asks {
        message: String,
        schema: Value,
    },
}

/// A tool that is offered, with what the operator says of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Offered {
    pub definition: Definition,
    pub manifest: Manifest,
    pub pin: Digest,
}

/// A tool that is held back because it is not what was accepted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Withheld {
    pub tool: String,
    pub accepted: Digest,
    pub now: Digest,
    /// What changed, in words: `description`, `input_schema`.
    pub changed: Vec<String>,
}

/// Everything that can be offered now.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Offer {
    /// In the order of their names.
    pub tools: Vec<Offered>,
    pub withheld: Vec<Withheld>,
    /// Servers that can not be reached, and why.
    pub down: Vec<(String, String)>,
}

/// Tools of all kinds: the host of servers and built-ins in the product, a model of the world in the
/// simulation.
pub trait Tools: Send + Sync + fmt::Debug {
    /// What may be offered to a tenant's task. Servers that are slow or down are left out after their
    /// start deadline.
    fn offer(&self, tenant: &str) -> BoxFuture<'_, Offer>;

    /// Makes a call. Never longer than its deadline.
    fn call(&self, call: ToolCall) -> BoxFuture<'_, Outcome>;

    /// The files in a task's workspace.
    fn files(&self, _tenant: &str, _task: TaskId) -> BoxFuture<'_, Files> {
        Box::pin(std::future::ready(Files::new()))
    }

    /// A file of a task's workspace, whole; `None` where there is none.
    fn artifact(
        &self,
        _tenant: &str,
        _task: TaskId,
        _name: &str,
    ) -> BoxFuture<'_, Option<Vec<u8>>> {
        Box::pin(std::future::ready(None))
    }

    /// A skill's text, or a file of it; `None` where there is none.
    fn skill(&self, _tenant: &str, _name: &str, _file: Option<&str>) -> Option<String> {
        None
    }

    /// What a task's brief may know of the skills it names, and the digests they have now.
    fn skills(&self, _tenant: &str, _named: &[String]) -> Vec<(Skill, Digest)> {
        Vec::new()
    }
}
