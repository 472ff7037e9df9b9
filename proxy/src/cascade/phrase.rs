//! How models decline and doubt in so many words, as far as that can be told from how a text begins
//! and how it ends. Anchored and bounded: a phrase in the middle says nothing about the answer.

/// Bytes at the beginning and the end of a text that are looked at.
const LOOKED_AT: usize = 160;

/// What is said before a model declines, or doubts.
const EXCUSES: &[&str] = &[
    "i'm sorry",
    "i am sorry",
    "sorry",
    "i apologize",
    "my apologies",
    "unfortunately",
    "i'm afraid",
];

/// Behind an excuse, this declines.
const INABILITIES: &[&str] = &[
    "i can't",
    "i cannot",
    "i can not",
    "i won't",
    "i'm unable",
    "i am unable",
    "i'm not able",
    "i am not able",
    "i'm not allowed",
    "that's not something i can",
];

/// This declines wherever a text begins with it.
const REFUSALS: &[&str] = &[
    "i can't assist",
    "i can't help",
    "i can't provide",
    "i can't comply",
    "i can't fulfill",
    "i can't answer",
    "i can't do that",
    "i cannot assist",
    "i cannot help",
    "i cannot provide",
    "i cannot comply",
    "i cannot fulfill",
    "i cannot answer",
    "i'm unable to",
    "i am unable to",
    "i'm not able to",
    "i am not able to",
    "i must decline",
    "i have to decline",
    "i won't be able to",
    "es tut mir leid, aber ich kann",
    "je suis désolé, mais je ne peux",
    "lo siento, pero no puedo",
];

/// A sentence that begins so doubts itself.
const DOUBTS: &[&str] = &[
    "i'm not sure",
    "i am not sure",
    "i'm not certain",
    "i am not certain",
    "i'm not entirely sure",
    "i'm not completely sure",
    "i don't know",
    "i do not know",
    "i don't have enough",
    "i do not have enough",
    "i don't have sufficient",
    "there is not enough information",
    "there isn't enough information",
    "as an ai ",
    "as an ai,",
    "as an ai-",
    "i may be wrong",
    "i might be wrong",
    "i could be wrong",
    "i may be mistaken",
    "i might be mistaken",
    "i can't be sure",
    "i cannot be sure",
];

/// Whether a text begins as refusals do.
pub(crate) fn declines(text: &str) -> bool {
    let text = beginning(text);
    starts(&text, REFUSALS) || after_excuse(&text).is_some_and(|rest| starts(rest, INABILITIES))
}

/// Whether a text begins with a doubt about itself.
pub(crate) fn doubts(text: &str) -> bool {
    let text = beginning(text);
    starts(&text, DOUBTS) || after_excuse(&text).is_some_and(|rest| starts(rest, DOUBTS))
}

/// Whether the last sentence of a text is one.
pub(crate) fn ends_in_doubt(text: &str) -> bool {
    let text = text.trim_end();
    let from =
        (text.len().saturating_sub(LOOKED_AT)..=text.len()).find(|at| text.is_char_boundary(*at));
    let tail = text.get(from.unwrap_or(0)..).unwrap_or_default();
    let body = tail.trim_end_matches(['.', '!', '?', '"', ')']);
    let breaks = body.rfind(['.', '!', '?', '\n']);
    let last = breaks.and_then(|at| body.get(at + 1..)).unwrap_or(body);
    // Where no sentence ends in sight, only a text that is seen whole has its last one there.
    (breaks.is_some() || tail.len() == text.len()) && doubts(last)
}

fn starts(text: &str, phrases: &[&str]) -> bool {
    phrases.iter().any(|phrase| text.starts_with(phrase))
}

/// What follows an excuse, without the words that join it to that.
fn after_excuse(text: &str) -> Option<&str> {
    let rest = EXCUSES
        .iter()
        .find_map(|excuse| text.strip_prefix(excuse))?;
    let rest = rest.trim_start_matches([',', '.', '!', ':', ' ', '-', '—']);
    let rest = rest.strip_prefix("but").unwrap_or(rest);
    Some(rest.trim_start_matches([',', ' ']))
}

/// The beginning in small letters, with one kind of apostrophe and without marks before it.
fn beginning(text: &str) -> String {
    let text = text.trim_start_matches(|c: char| c.is_whitespace() || "*\"#>_".contains(c));
    let end = (0..=LOOKED_AT.min(text.len()))
        .rev()
        .find(|at| text.is_char_boundary(*at));
    let head = text.get(..end.unwrap_or(0)).unwrap_or_default();
    head.to_lowercase().replace('’', "'")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_declines_by_how_it_begins() {
        for text in [
            "I'm sorry, but I can't help with that.",
            "I’m sorry, I can’t assist with that request.",
            "Sorry - I cannot do this.",
            "  **I cannot assist** with this.",
            "Unfortunately, I'm not able to open links.",
            "I apologize, but I won't write that.",
            "Es tut mir leid, aber ich kann dabei nicht helfen.",
        ] {
            assert!(declines(text), "{text}");
        }
        for text in [
            "I'm sorry to hear that your dog is ill. Here is what helps.",
            "Sorry for the delay; the sum is 12.",
            "I can't wait to see it! Here is the plan.",
            "He said: I'm sorry, but I can't.",
            "Unfortunately the theorem fails for n = 3.",
            "",
        ] {
            assert!(!declines(text), "{text}");
        }
    }

    #[test]
    fn a_text_doubts_in_its_first_or_last_sentence() {
        assert!(doubts("I'm not sure, but it may be Paris."));
        assert!(doubts("As an AI, I have no opinion."));
        assert!(doubts(
            "I'm sorry, but I don't have enough information to say."
        ));
        assert!(!doubts("It is not sure that the series converges."));
        assert!(ends_in_doubt("The answer is 12. I might be wrong."));
        assert!(ends_in_doubt("It is 12.\nI'm not certain about this"));
        assert!(!ends_in_doubt(
            "I might be wrong in part one. The answer is 12."
        ));
        assert!(!ends_in_doubt(&"Grüße ".repeat(100)));
    }
}
