//! Counting tokens: exactly for models whose tokenizer is known, with a learned safety factor for the
//! rest. Used where a bound by bytes is too wide, for windows, and where an upstream reports nothing.

use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};

use wire::call::{Call, Kind, Media, Part, Source, Tool, Turn};

/// Tokens that an image may cost in a window; OpenAI's and Anthropic's formulas stay near it.
const IMAGE: u64 = 1_600;
/// Tokens around a message: role and separators.
const MESSAGE: u64 = 4;
/// Base64 letters of a document for one token of it: a page of PDF has about 3 KB and 500 tokens.
const LETTERS_A_TOKEN: u64 = 6;

/// A way of counting.
pub struct Tokenizer(Inner);

enum Inner {
    /// OpenAI's byte pair encodings, in linear time; read when first used.
    Bpe(fn() -> &'static bpe_openai::Tokenizer),
    /// A model's own `tokenizer.json`.
    Own(Box<tokenizers::Tokenizer>),
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Inner::Bpe(_) => "Tokenizer(bpe)",
            Inner::Own(_) => "Tokenizer(own)",
        })
    }
}

/// The text is no `tokenizer.json`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it is no tokenizer.json: {0}")]
pub struct ReadTokenizerError(String);

impl Tokenizer {
    /// The encoding of OpenAI's models since GPT-4o.
    pub fn o200k() -> Self {
        Self(Inner::Bpe(bpe_openai::o200k_base))
    }

    /// The encoding that goes by `name`: `o200k_base` or `cl100k_base`.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "o200k_base" => Some(Self::o200k()),
            "cl100k_base" => Some(Self(Inner::Bpe(bpe_openai::cl100k_base))),
            _ => None,
        }
    }

    /// A model's own tokenizer, from the bytes of its `tokenizer.json`.
    pub fn read(json: &[u8]) -> Result<Self, ReadTokenizerError> {
        let failed = |error: tokenizers::Error| ReadTokenizerError(error.to_string());
        let mut tokenizer = tokenizers::Tokenizer::from_bytes(json).map_err(failed)?;
        // `<|endoftext|>` in a user's text is text, as the vendors' own encoders have it.
        tokenizer.set_encode_special_tokens(true);
        Ok(Self(Inner::Own(Box::new(tokenizer))))
    }

    /// How many tokens `text` has.
    pub fn count(&self, text: &str) -> u64 {
        let tokens = match &self.0 {
            Inner::Bpe(bpe) => bpe().count(text),
            // A text it can not encode has at most a token for each byte.
            Inner::Own(own) => own
                .encode_fast(text, false)
                .map_or(text.len(), |coded| coded.len()),
        };
        u64::try_from(tokens).unwrap_or(u64::MAX)
    }

    /// Whether `text` has more than `limit` tokens; microseconds where the answer is soon known.
    pub fn is_over(&self, text: &str, limit: u64) -> bool {
        let bytes = u64::try_from(text.len()).unwrap_or(u64::MAX);
        if bytes <= limit {
            return false;
        }
        match &self.0 {
            Inner::Bpe(bpe) => {
                let (bpe, limit) = (bpe(), usize::try_from(limit).unwrap_or(usize::MAX));
                bpe.count_till_limit(&bpe.normalize(text), limit).is_none()
            }
            Inner::Own(_) => self.count(text) > limit,
        }
    }

    /// The tokens of a call's prompt: its transcript and its tools.
    pub fn count_call(&self, call: &Call) -> u64 {
        let turns = sum(call.turns.iter().map(|turn| self.count_turn(turn)));
        turns.saturating_add(sum(call.tools.iter().map(|tool| self.count_tool(tool))))
    }

    /// The tokens of one turn.
    pub fn count_turn(&self, turn: &Turn) -> u64 {
        MESSAGE.saturating_add(self.count_parts(&turn.parts))
    }

    fn count_parts(&self, parts: &[Part]) -> u64 {
        sum(parts.iter().map(|part| self.count_part(part)))
    }

    fn count_part(&self, part: &Part) -> u64 {
        match &part.kind {
            Kind::Text(text) => self.count(&text.text),
            Kind::Refusal(text) => self.count(text),
            Kind::Thinking(thinking) => self.count(&thinking.text),
            Kind::ToolCall(call) => {
                sum([MESSAGE, self.count(&call.name), self.count(&call.arguments)])
            }
            Kind::ToolResult(result) => MESSAGE.saturating_add(self.count_parts(&result.parts)),
            Kind::Image(_) => IMAGE,
            Kind::Audio(media) | Kind::File(media) => self.count_media(media),
            Kind::Own(own) => self.count(&own.value.to_string()),
        }
    }

    fn count_media(&self, media: &Media) -> u64 {
        match &media.source {
            Source::Plain(text) => self.count(text),
            Source::Inline { data, .. } => u64::try_from(data.len())
                .unwrap_or(u64::MAX)
                .div_ceil(LETTERS_A_TOKEN),
            Source::Url(_) | Source::Id(_) => IMAGE,
        }
    }

    fn count_tool(&self, tool: &Tool) -> u64 {
        let schema = tool
            .own
            .as_ref()
            .or(tool.schema.as_ref())
            .map(ToString::to_string);
        let text = tool.description.as_deref().unwrap_or_default();
        let schema = self.count(&schema.unwrap_or_default());
        sum([MESSAGE, self.count(&tool.name), self.count(text), schema])
    }
}

fn sum(counts: impl IntoIterator<Item = u64>) -> u64 {
    counts.into_iter().fold(0, u64::saturating_add)
}

/// What a model's own counts are of ours, in thousandths: a ceiling that rises quickly and sinks
/// slowly, because a prompt that is longer than thought does more harm than one that is shorter.
#[derive(Debug)]
pub struct Factor {
    milli: AtomicU32,
    /// When the next prompt may be counted for it.
    due_ms: AtomicI64,
}

/// The factor of a model whose tokenizer is its own: what is left is what templates add.
const EXACT: u32 = 1_050;
/// The factor of a model nothing is known of yet. Claude's newer tokenizers make about a third more
/// tokens than OpenAI's of the same text.
const UNKNOWN: u32 = 1_400;
/// No factor above this is believed: a reported prompt may hold what the caller never sent.
const MOST: u32 = 4_000;
/// Prompts below this say more about templates than about text.
const LEAST_SAMPLE: u64 = 256;
/// Between two prompts that are counted to learn from: a long one takes some milliseconds, which under
/// load must stay a small share of what calls cost.
const PAUSE_MS: i64 = 1_000;

impl Factor {
    /// A factor to begin with; `exact` for a model whose tokenizer was named.
    pub fn new(exact: bool) -> Self {
        Self {
            milli: AtomicU32::new(if exact { EXACT } else { UNKNOWN }),
            due_ms: AtomicI64::new(0),
        }
    }

    /// Takes up a factor learned earlier, in thousandths.
    pub fn set(&self, milli: u32) {
        self.milli.store(milli.clamp(500, MOST), Ordering::Relaxed);
    }

    /// The factor in thousandths.
    pub fn milli(&self) -> u32 {
        self.milli.load(Ordering::Relaxed)
    }

    /// Whether a prompt that was reported as `reported` tokens is to be counted at `now_ms`, to learn
    /// from it; once a pause for all who ask.
    pub fn is_due(&self, reported: u64, now_ms: i64) -> bool {
        let due_ms = self.due_ms.load(Ordering::Relaxed);
        // A clock that was set back does not stop the learning.
        let is_due = now_ms >= due_ms || due_ms.saturating_sub(now_ms) > PAUSE_MS;
        let (set, read) = (Ordering::Relaxed, Ordering::Relaxed);
        let next = now_ms.saturating_add(PAUSE_MS);
        reported >= LEAST_SAMPLE
            && is_due
            && self
                .due_ms
                .compare_exchange(due_ms, next, set, read)
                .is_ok()
    }

    /// Learns that a prompt counted as `counted` tokens was reported as `reported`.
    pub fn learn(&self, counted: u64, reported: u64) {
        if counted < LEAST_SAMPLE {
            return;
        }
        let ratio = reported
            .saturating_mul(1_000)
            .checked_div(counted)
            .unwrap_or(0);
        let ratio = u32::try_from(ratio).unwrap_or(MOST).clamp(500, MOST);
        let before = self.milli();
        // One odd prompt must not shrink every window: it takes some to rise, and more to sink.
        let rise = ratio.saturating_sub(before).div_ceil(4);
        let fall = before.saturating_sub(ratio).div_ceil(32);
        let after = before.saturating_add(rise).saturating_sub(fall);
        self.milli.store(after, Ordering::Relaxed);
    }

    /// `counted` tokens of ours as the model may count them.
    pub fn apply(&self, counted: u64) -> u64 {
        counted
            .saturating_mul(u64::from(self.milli()))
            .div_ceil(1_000)
    }

    /// The most tokens of ours that stay within `limit` of the model's.
    pub fn unapply(&self, limit: u64) -> u64 {
        limit
            .saturating_mul(1_000)
            .checked_div(u64::from(self.milli()))
            .unwrap_or(limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_are_counted_to_learn_from_once_a_pause() {
        let factor = Factor::new(false);
        assert!(!factor.is_due(255, 5_000), "it is too short");
        assert!(factor.is_due(256, 5_000));
        assert!(!factor.is_due(256, 5_999));
        assert!(factor.is_due(256, 6_000));
        assert!(factor.is_due(256, 1_000), "the clock was set back");
    }

    #[test]
    fn text_is_counted_and_special_words_are_text() {
        let tokenizer = Tokenizer::o200k();
        assert_eq!(tokenizer.count("hello world"), 2);
        assert!(tokenizer.count("<|endoftext|>") > 1);
        let long = "the quick brown fox ".repeat(5_000);
        assert!(tokenizer.is_over(&long, 1_000) && !tokenizer.is_over(&long, 100_000));
        assert_eq!(
            tokenizer.count(&long),
            20_001,
            "four words, and the last space"
        );
    }

    #[test]
    fn a_tokenizer_file_counts_as_its_model_does() {
        let file = r#"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[
            {"id":3,"content":"<s>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}],
            "normalizer":null,"pre_tokenizer":{"type":"Whitespace"},"post_processor":null,"decoder":null,
            "model":{"type":"WordLevel","vocab":{"hello":0,"world":1,"?":2,"<s>":3},"unk_token":"?"}}"#;
        let own = Tokenizer::read(file.as_bytes()).expect("a tokenizer");
        assert_eq!(own.count("hello world"), 2);
        assert_eq!(
            own.count("<s>"),
            3,
            "a special word in a text is text: three pieces"
        );
        assert!(Tokenizer::read(b"{}").is_err());
    }

    #[test]
    fn the_factor_rises_quickly_and_sinks_slowly() {
        let factor = Factor::new(false);
        factor.learn(1_000, 2_000);
        assert_eq!(factor.milli(), 1_550);
        factor.learn(1_000, 1_000);
        assert_eq!(factor.milli(), 1_532);
        factor.learn(10, 1_000);
        assert_eq!(factor.milli(), 1_532, "short prompts say nothing");
        assert_eq!((factor.apply(100), factor.unapply(154)), (154, 100));
    }
}
