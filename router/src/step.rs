//! Which step of an agent's work a call is, and which tier such steps lean to. Structure decides first
//! (results, failures, repeats, tools, schema), words second; nothing is allocated.
//!
//! The priors are defaults that nobody has measured: no public data has the outcomes of both tiers for the
//! steps of agents. They are small beside what a text can say, an operator can set them
//! (`[routing] step`), and a prompt that stands alone, on which the classifier was trained, has none.

use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, AhoCorasickKind, Match, MatchKind, packed};
use memchr::memmem::Finder;
use serde::{Deserialize, Serialize};
use wire::Shape;

use crate::features::Features;
use crate::score::Score;

/// Bytes at the head and at the end of a text in which words are looked for: what is to be done stands
/// before the material or behind it.
const HEAD: usize = 640;
const END: usize = 256;
/// The longest system text whose words count. A helper's says one thing; an agent's speaks of everything.
const SHORT_SYSTEM: usize = 4_096;
/// Results up to this many bytes acknowledge; longer ones must be read.
const BRIEF: u32 = 512;
/// So many tools are an agent's; fewer are functions of an application.
const MANY_TOOLS: u32 = 8;
/// A task that so many bytes or more describe is begun with a plan.
const TASK: u32 = 240;

/// A step of an agent's work.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// No agent: somebody asks something.
    #[default]
    Chat,
    /// A task is begun, or a plan is asked for.
    Plan,
    /// The next call of a tool is to be chosen.
    Act,
    /// What tools or documents say is to be read.
    Digest,
    /// A conversation is to be made shorter, or named.
    Summarise,
    /// Something made before is to be judged.
    Verify,
    /// What was tried has failed, or goes round in circles.
    Repair,
}

impl Step {
    /// Every step.
    pub const ALL: [Self; 7] = [
        Self::Chat,
        Self::Plan,
        Self::Act,
        Self::Digest,
        Self::Summarise,
        Self::Verify,
        Self::Repair,
    ];
    /// Their words, for messages.
    pub const WORDS: &'static str = "chat, plan, act, digest, summarise, verify, repair";

    /// The word used in headers, metadata and answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Plan => "plan",
            Self::Act => "act",
            Self::Digest => "digest",
            Self::Summarise => "summarise",
            Self::Verify => "verify",
            Self::Repair => "repair",
        }
    }

    /// The step that `word` names.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|step| step.as_str() == word)
    }

    /// The step that a call is. `system` is its first system text; escapes in it do not matter.
    pub fn of(features: &Features<'_>, system: &str) -> Self {
        let (shape, text) = (features.shape, features.text);
        let told = shape.after_tool && !shape.words_beside;
        if told {
            return after_tools(shape, text);
        }
        let has_job = shape.tools == 0 && system.len() <= SHORT_SYSTEM;
        if let Some(step) = has_job.then(|| said(system, Said::Known)).flatten() {
            return step;
        }
        let alone = is_alone(shape);
        // What a client puts beside results is a reminder, unless it is known to end the loop.
        let heard = if alone || shape.after_tool {
            said(text, Said::Known)
        } else {
            said(text, Said::Any)
        };
        match heard {
            Some(step) => step,
            None if shape.after_tool => after_tools(shape, text),
            None if shape.tools == 0 && shape.schema && !alone => Self::Digest,
            None if shape.tools == 0 => Self::Chat,
            None if shape.tools >= MANY_TOOLS
                && shape.assistant_turns == 0
                && own_words(shape, text) >= TASK =>
            {
                Self::Plan
            }
            None => Self::Act,
        }
    }
}

/// Bytes of what the user says, without the reminders that a client puts before it.
fn own_words(shape: &Shape, text: &str) -> u32 {
    let reminded = u32::try_from(behind_reminders(text.as_bytes())).unwrap_or(u32::MAX);
    shape.prompt_bytes.saturating_sub(reminded)
}

/// The model goes on with what tools have told.
fn after_tools(shape: &Shape, text: &str) -> Step {
    if conflicts(shape) && said(text, Said::Any) == Some(Step::Verify) {
        return Step::Verify;
    }
    if shape.result_errors > 0 || shape.repeats > 1 {
        return Step::Repair;
    }
    if shape.tools > 0 && shape.depth > 1 && shape.result_bytes <= BRIEF {
        return Step::Act;
    }
    Step::Digest
}

/// Of the results just told some are errors and some are not.
fn conflicts(shape: &Shape) -> bool {
    shape.result_errors > 0 && shape.result_errors < shape.last_results
}

/// A prompt and nothing else, such as the classifier was trained on.
fn is_alone(shape: &Shape) -> bool {
    shape.tools == 0
        && shape.system_bytes == 0
        && shape.assistant_turns == 0
        && shape.tool_results == 0
        && !shape.schema
}

/// Which phrases count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    /// Those of clients that are known to send them, wherever they stand.
    Known,
    /// Any.
    Any,
}

/// Phrases, the step each speaks of, and whether it is a client's own. The first that stands in a text wins.
const PHRASES: [(&str, Step, bool); 40] = [
    ("summary of the conversation", Step::Summarise, true),
    ("summarize the conversation", Step::Summarise, true),
    ("summarize this conversation", Step::Summarise, true),
    ("summarizing conversations", Step::Summarise, true),
    ("summarizing the chat history", Step::Summarise, true),
    ("create a detailed summary", Step::Summarise, true),
    ("context checkpoint compaction", Step::Summarise, true),
    ("compact the conversation", Step::Summarise, true),
    ("summarize this coding conversation", Step::Summarise, true),
    ("new conversation topic", Step::Summarise, true),
    ("title generator", Step::Summarise, true),
    ("conversation title", Step::Summarise, true),
    ("generate a concise", Step::Summarise, true),
    ("generate a short title", Step::Summarise, true),
    ("plan mode is active", Step::Plan, true),
    ("plan mode is now active", Step::Plan, true),
    ("you are in plan mode", Step::Plan, true),
    ("planning agent", Step::Plan, true),
    ("impartial judge", Step::Verify, true),
    ("verification agent", Step::Verify, true),
    ("you are a code reviewer", Step::Verify, true),
    ("summarize", Step::Summarise, false),
    ("summarise", Step::Summarise, false),
    ("make a plan", Step::Plan, false),
    ("write a plan", Step::Plan, false),
    ("create a plan", Step::Plan, false),
    ("step-by-step plan", Step::Plan, false),
    ("implementation plan", Step::Plan, false),
    ("think step by step about how", Step::Plan, false),
    ("break down the task", Step::Plan, false),
    ("verify", Step::Verify, false),
    ("review", Step::Verify, false),
    ("double-check", Step::Verify, false),
    ("check whether", Step::Verify, false),
    ("check that", Step::Verify, false),
    ("still fails", Step::Repair, false),
    ("still failing", Step::Repair, false),
    ("try again", Step::Repair, false),
    ("did not pass", Step::Repair, false),
    ("traceback (most recent call last)", Step::Repair, false),
];

/// Finds phrases in small letters by vectors, on machines that have them.
static QUICK: LazyLock<Option<packed::Searcher>> = LazyLock::new(|| {
    let mut builder = packed::Config::new()
        .match_kind(packed::MatchKind::LeftmostLongest)
        .builder();
    builder.extend(PHRASES.iter().map(|(phrase, ..)| phrase));
    builder.build()
});
static SEARCH: LazyLock<Option<AhoCorasick>> = LazyLock::new(|| {
    AhoCorasick::builder()
        .ascii_case_insensitive(true)
        .match_kind(MatchKind::LeftmostLongest)
        .kind(Some(AhoCorasickKind::DFA))
        // Its candidates are everywhere in plain text.
        .prefilter(false)
        .build(PHRASES.iter().map(|(phrase, ..)| phrase))
        .ok()
});

/// The step that the first phrase in `text` speaks of.
fn said(text: &str, which: Said) -> Option<Step> {
    let text = text.as_bytes();
    let head = text.get(..HEAD.min(text.len())).unwrap_or_default();
    let end = text.get(text.len().saturating_sub(END).max(head.len())..);
    phrase(head, which).or_else(|| phrase(end.unwrap_or_default(), which))
}

fn phrase(text: &[u8], which: Said) -> Option<Step> {
    // Clients put reminders before the user's words; what they know to say counts there too.
    let own = behind_reminders(text);
    let inside = |at: Option<usize>| {
        let byte = at.and_then(|at| text.get(at));
        byte.is_some_and(u8::is_ascii_alphanumeric)
    };
    let step = |found: Match| {
        let (_, step, known) = PHRASES.get(found.pattern().as_usize())?;
        let word = !inside(found.start().checked_sub(1)) && !inside(Some(found.end()));
        let counts = *known || (which == Said::Any && found.start() >= own);
        (word && counts).then_some(*step)
    };
    let mut small = [0; HEAD];
    if let (Some(quick), Some(small)) = (&*QUICK, small.get_mut(..text.len())) {
        small.copy_from_slice(text);
        small.make_ascii_lowercase();
        return quick.find_iter(&*small).find_map(step);
    }
    SEARCH.as_ref()?.find_iter(text).find_map(step)
}

const REMINDED: &[u8] = b"</system-reminder>";
static REMINDER: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(REMINDED));

/// Where the user's own words begin: behind the last reminder. Most texts have none.
fn behind_reminders(text: &[u8]) -> usize {
    let ends = REMINDER.find_iter(text).last();
    ends.map_or(0, |at| at + REMINDED.len())
}

/// `[routing] step`: what a step adds to the score, in log-odds; above zero leans to deep. One is a factor
/// of 2.7 on the odds.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StepPriors {
    pub chat: f32,
    pub plan: f32,
    pub act: f32,
    pub digest: f32,
    pub summarise: f32,
    pub verify: f32,
    pub repair: f32,
    /// An action where one or two tools with at most three parameters between them are to choose from.
    pub simple_call: f32,
    /// For each failure beyond the first and each repeated call, up to three together.
    pub stuck: f32,
    /// A diff over several files is at hand.
    pub many_files: f32,
    /// Something is judged on results that do not agree.
    pub conflict: f32,
}

impl Default for StepPriors {
    fn default() -> Self {
        Self {
            chat: 0.0,
            plan: 1.0,
            act: 0.0,
            digest: -0.5,
            summarise: -1.0,
            verify: 0.25,
            repair: 1.0,
            simple_call: -0.5,
            stuck: 0.25,
            many_files: 0.5,
            conflict: 0.75,
        }
    }
}

impl StepPriors {
    /// What `step` adds to the score of a call of this shape, in log-odds.
    pub fn of(&self, step: Step, shape: &Shape) -> f32 {
        let when = |holds: bool, prior: f32| if holds { prior } else { 0.0 };
        match step {
            Step::Chat => self.chat,
            Step::Summarise => self.summarise,
            Step::Digest => self.digest,
            Step::Plan => self.plan + when(shape.diff_files > 1, self.many_files),
            Step::Act => {
                let simple = (1..=2).contains(&shape.tools) && shape.tool_required <= 3;
                self.act
                    + when(simple, self.simple_call)
                    + when(shape.diff_files > 1, self.many_files)
            }
            Step::Verify => {
                self.verify
                    + when(conflicts(shape), self.conflict)
                    + when(shape.diff_files > 1, self.many_files)
            }
            Step::Repair => {
                let again = shape
                    .failures
                    .saturating_sub(1)
                    .saturating_add(shape.repeats);
                let again = u8::try_from(again.min(3)).unwrap_or(3);
                self.repair
                    + self.stuck * f32::from(again)
                    + when(shape.diff_files > 1, self.many_files)
            }
        }
    }

    /// The name of a prior that can not be meant: no number, or more than 10 either way.
    pub fn unsound(&self) -> Option<&'static str> {
        let named = [
            ("chat", self.chat),
            ("plan", self.plan),
            ("act", self.act),
            ("digest", self.digest),
            ("summarise", self.summarise),
            ("verify", self.verify),
            ("repair", self.repair),
            ("simple_call", self.simple_call),
            ("stuck", self.stuck),
            ("many_files", self.many_files),
            ("conflict", self.conflict),
        ];
        let unsound = |prior: f32| !(-10.0..=10.0).contains(&prior);
        named
            .iter()
            .find(|(_, prior)| unsound(*prior))
            .map(|(name, _)| *name)
    }
}

/// The default prior of `step` for a call of this shape, in log-odds.
pub fn prior(step: Step, shape: &Shape) -> f32 {
    StepPriors::default().of(step, shape)
}

/// The score moved by `prior`, in log-odds. Without one it stays what it is, to the bit.
pub fn shifted(score: Score, prior: f32) -> Score {
    if prior == 0.0 {
        return score;
    }
    // p / (p + (1 - p) e^-prior) is the logistic of the sum, without its poles.
    let against = (1.0 - score.0) * (-prior).exp();
    let sum = score.0 + against;
    if sum > 0.0 {
        Score(score.0 / sum)
    } else {
        score
    }
}

#[cfg(test)]
mod tests;
