//! What a fast answer is held against: pure functions over a canonical answer, each with a word for
//! what it finds. None of them proves an answer right; they find those that are plainly of no use.

use std::sync::Arc;

use router::Cascade;
use serde_json::Value;
use wire::call::{Format, Kind, ToolCall};
use wire::reply::Stop;
use wire::{Call, Reply, schema};

use super::phrase;

/// Tokens whose log probabilities are looked at.
const FIRST_TOKENS: usize = 32;
/// Tokens from which on they say something about an answer that goes on.
const LEAST_TOKENS: usize = 12;
/// A longer text is an answer, whatever it begins with.
const SHORT_BYTES: usize = 1_000;
/// A longer answer is not held against a schema: that would take milliseconds.
const CHECKED_BYTES: usize = 256 << 10;

/// The check that an answer failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    Refusal,
    Truncated,
    Schema,
    ToolArguments,
    Doubt,
    Logprob,
}

impl Cause {
    /// The word used in headers, labels and the ledger.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Refusal => "refusal",
            Self::Truncated => "truncated",
            Self::Schema => "schema",
            Self::ToolArguments => "tool_arguments",
            Self::Doubt => "doubt",
            Self::Logprob => "logprob",
        }
    }
}

/// How much of an answer is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// All of it.
    Whole,
    /// Its beginning.
    Beginning,
}

/// The checks for the answers to one call.
#[derive(Debug, Clone)]
pub(crate) struct Checks {
    pub(crate) on: Cascade,
    /// The call, where its tools or the form of its answer are checked.
    pub(crate) call: Option<Arc<Call>>,
    /// The caller set no limit on the answer, or the gateway set a smaller one.
    pub(crate) is_uncapped: bool,
}

impl Checks {
    /// The first check that `reply` fails.
    pub(crate) fn cause(&self, reply: &Reply, extent: Extent) -> Option<Cause> {
        let on = &self.on;
        let is_whole = extent == Extent::Whole;
        let text = visible(reply);
        // What the caller's own limit cut is not held against what only the rest can show.
        let cut = matches!(reply.stop, Some(Stop::Length | Stop::Window));
        let failed = |is_on: bool, cause: Cause, fails: &dyn Fn() -> bool| {
            (is_on && fails()).then_some(cause)
        };
        failed(on.refusal, Cause::Refusal, &|| {
            refuses(reply, &text, extent)
        })
        .or_else(|| {
            failed(on.truncation && is_whole, Cause::Truncated, &|| {
                (cut && self.is_uncapped) || is_empty(reply, &text)
            })
        })
        .or_else(|| {
            failed(on.tool_arguments && !cut, Cause::ToolArguments, &|| {
                is_whole && self.miscalls(reply)
            })
        })
        .or_else(|| {
            failed(on.schema && is_whole && !cut, Cause::Schema, &|| {
                self.misshapes(reply, &text)
            })
        })
        .or_else(|| {
            failed(on.doubt, Cause::Doubt, &|| {
                phrase::doubts(&text) || (is_whole && phrase::ends_in_doubt(&text))
            })
        })
        .or_else(|| {
            failed(on.logprob, Cause::Logprob, &|| {
                let tell = is_whole || reply.logprobs.len() >= LEAST_TOKENS;
                let mean = reply.mean_logprob(FIRST_TOKENS).filter(|_| tell);
                mean.is_some_and(|mean| mean * 1_000.0 < f64::from(on.logprob_threshold_milli))
            })
        })
    }

    /// Whether the answer must be seen whole: it calls tools, or is JSON that was asked for.
    pub(crate) fn wants_whole(&self, reply: &Reply) -> bool {
        let calls = || calls_of(reply).next().is_some();
        (self.on.schema && self.wants_json()) || (self.on.tool_arguments && calls())
    }

    fn wants_json(&self) -> bool {
        let format = self.call.as_ref().map(|call| &call.format);
        format.is_some_and(|format| *format != Format::Text)
    }

    /// It calls a tool that does not exist, or in a way that the tool does not take.
    fn miscalls(&self, reply: &Reply) -> bool {
        let Some(call) = &self.call else {
            return false;
        };
        calls_of(reply).any(|called| misfits(call, called))
    }

    /// It is not the JSON that was asked for. An answer that calls tools owes none yet.
    fn misshapes(&self, reply: &Reply, text: &str) -> bool {
        let Some(call) = &self.call else {
            return false;
        };
        if !self.wants_json() || calls_of(reply).next().is_some() || text.len() > CHECKED_BYTES {
            return false;
        }
        let Ok(value) = serde_json::from_str::<Value>(text) else {
            return true;
        };
        match &call.format {
            Format::Schema { schema, .. } => !schema::admits(schema, &value),
            Format::Json => !value.is_object(),
            Format::Text => false,
        }
    }
}

fn misfits(call: &Call, called: &ToolCall) -> bool {
    let Some(tool) = call.offered(&called.name) else {
        // Tools that only the vendor knows may go by names that are not in the call.
        return call.tools.iter().all(|tool| tool.own.is_none());
    };
    if tool.custom || called.custom || called.arguments.len() > CHECKED_BYTES {
        return false;
    }
    let text = match called.arguments.trim() {
        "" => "{}",
        text => text,
    };
    match serde_json::from_str::<Value>(text) {
        Ok(value) => {
            let schema = tool.schema.as_ref();
            !value.is_object() || schema.is_some_and(|schema| !schema::admits(schema, &value))
        }
        Err(_) => true,
    }
}

fn calls_of(reply: &Reply) -> impl Iterator<Item = &ToolCall> {
    reply.parts.iter().filter_map(|part| match &part.kind {
        Kind::ToolCall(call) => Some(call),
        _ => None,
    })
}

fn visible(reply: &Reply) -> String {
    reply
        .parts
        .iter()
        .filter_map(wire::call::Part::as_text)
        .collect()
}

fn refuses(reply: &Reply, text: &str, extent: Extent) -> bool {
    let marked = |part: &wire::call::Part| matches!(part.kind, Kind::Refusal(_));
    let stopped = matches!(reply.stop, Some(Stop::Refusal | Stop::Filter));
    let is_short = extent == Extent::Beginning || text.len() <= SHORT_BYTES;
    let calls = || calls_of(reply).next().is_some();
    stopped || reply.parts.iter().any(marked) || (is_short && !calls() && phrase::declines(text))
}

/// Nothing that anybody can use; thoughts are no answer.
fn is_empty(reply: &Reply, text: &str) -> bool {
    let says = |part: &wire::call::Part| match &part.kind {
        Kind::Text(_) | Kind::Thinking(_) => false,
        Kind::Refusal(said) => !said.is_empty(),
        _ => true,
    };
    // Sound is not among the parts, and neither are calls in a form that nobody sends any more.
    let sounds = reply.usage.is_some_and(|usage| usage.audio_output > 0);
    let ended = matches!(reply.stop, None | Some(Stop::End)) && !sounds;
    ended && text.trim().is_empty() && !reply.parts.iter().any(says)
}

#[cfg(test)]
mod tests;
