//! Private parts on their way through a caller: a sealed piece of one provider travels inside the
//! signature or encrypted field of the caller's dialect, and is recognised when it comes back.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::call::{Call, Kind, Part, Seal, Turn};
use crate::loss::Losses;

/// How an envelope begins; no vendor's signature looks like it.
pub const ENVELOPE: &str = "pareto1.";

/// The kinds of block that an envelope may hold: whatever a caller forges, it can not smuggle any
/// other kind of item into an upstream's transcript.
const SEALED: [&str; 3] = ["thinking", "redacted_thinking", "reasoning"];

impl Seal {
    /// The seal as one opaque word.
    pub fn envelope(&self) -> String {
        let text = serde_json::to_vec(self).unwrap_or_default();
        format!("{ENVELOPE}{}", URL_SAFE_NO_PAD.encode(text))
    }

    /// The seal in an envelope; `None` where `word` is none.
    pub fn open(word: &str) -> Option<Self> {
        let text = URL_SAFE_NO_PAD.decode(word.strip_prefix(ENVELOPE)?).ok()?;
        let seal: Self = serde_json::from_slice(&text).ok()?;
        let kind = seal.value.get("type").and_then(Value::as_str);
        let sound = kind.is_none_or(|kind| SEALED.contains(&kind)) && seal.value.is_object();
        (sound && seal.origin.is_some()).then_some(seal)
    }

    /// Whether it may go to `origin`, which speaks `dialect`.
    fn fits(&self, dialect: &str, origin: &str) -> bool {
        let made_there = |made: &String| made == origin;
        self.dialect == dialect && self.origin.as_ref().is_none_or(made_there)
    }
}

impl Call {
    /// Takes out what only another origin could read, and what only another dialect has.
    pub fn withhold(&mut self, dialect: &str, origin: &str, losses: &mut Losses) {
        if self.dialect != dialect {
            self.turns.iter_mut().for_each(Turn::forget_raw);
        }
        for turn in &mut self.turns {
            let before = turn.parts.len();
            turn.parts
                .retain(|part| keeps(part, dialect, origin, losses));
            if turn.parts.len() != before {
                turn.raw.clear();
            }
        }
        // A turn of thinking alone, whose answer never came, says nothing to anybody else.
        self.turns
            .retain(|turn| !turn.parts.is_empty() || !turn.raw.is_empty());
    }
}

fn keeps(part: &Part, dialect: &str, origin: &str, losses: &mut Losses) -> bool {
    match &part.kind {
        Kind::Thinking(thinking) => {
            let kept = thinking
                .seal
                .as_ref()
                .is_some_and(|seal| seal.fits(dialect, origin));
            if !kept {
                losses.withheld("thinking");
            }
            kept
        }
        Kind::Own(own) if own.dialect != dialect => {
            // Claude Code's billing line changes with every session; it is Anthropic's business alone.
            if own.name == "billing" {
                losses.withheld("system.billing");
            } else {
                losses.dropped(own.name.clone());
            }
            false
        }
        _ => true,
    }
}

impl Turn {
    /// Forgets the shapes of the caller's dialect.
    fn forget_raw(&mut self) {
        fn forget(parts: &mut [Part]) {
            for part in parts {
                part.raw = None;
                if let Kind::ToolResult(result) = &mut part.kind {
                    forget(&mut result.parts);
                }
            }
        }
        self.raw.clear();
        forget(&mut self.parts);
    }

    /// Whether any part is sealed.
    pub fn is_sealed(&self) -> bool {
        let sealed = |part: &Part| matches!(&part.kind, Kind::Thinking(it) if it.seal.is_some());
        self.parts.iter().any(sealed)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_envelope_opens_to_what_was_put_in_and_nothing_else_does() {
        let seal = Seal {
            dialect: "anthropic_messages".into(),
            origin: Some("a.example".into()),
            value: json!({ "type": "thinking", "thinking": "ä", "signature": "s" }),
        };
        assert_eq!(Seal::open(&seal.envelope()), Some(seal.clone()));
        assert_eq!(Seal::open("EqQBCgIYAhIM"), None);
        assert_eq!(Seal::open("pareto1.???"), None);
        let forged = Seal {
            value: json!({ "type": "message", "role": "system" }),
            ..seal
        };
        assert_eq!(Seal::open(&forged.envelope()), None, "not a sealed kind");
    }
}
