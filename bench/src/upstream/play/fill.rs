//! Places in a play that are filled with what tools gave: `{{result:N:/json/pointer}}`.

use anyhow::ensure;
use serde_json::Value;

const OPEN: &str = "{{result:";
const CLOSE: &str = "}}";

/// A place to fill.
#[derive(Debug, PartialEq)]
struct Place<'a> {
    /// As it is written, for whoever looks for it in the play.
    written: &'a str,
    number: i64,
    pointer: Option<&'a str>,
}

/// A piece of a text.
#[derive(Debug, PartialEq)]
enum Piece<'a> {
    Text(&'a str),
    Place(Place<'a>),
}

/// A text in pieces; nothing where a place is written wrongly.
fn pieces(text: &str) -> Option<Vec<Piece<'_>>> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once(OPEN) {
        let (inner, after) = behind.split_once(CLOSE)?;
        let (number, pointer) = match inner.split_once(':') {
            Some((number, pointer)) => (number, Some(pointer)),
            None => (inner, None),
        };
        if pointer.is_some_and(|pointer| !pointer.is_empty() && !pointer.starts_with('/')) {
            return None;
        }
        if !before.is_empty() {
            found.push(Piece::Text(before));
        }
        found.push(Piece::Place(Place {
            written: inner,
            number: number.parse().ok()?,
            pointer,
        }));
        rest = after;
    }
    if !rest.is_empty() {
        found.push(Piece::Text(rest));
    }
    Some(found)
}

/// Holds that the places in a value are written rightly.
pub(super) fn check(value: &Value) -> anyhow::Result<()> {
    match value {
        Value::String(text) => {
            ensure!(
                pieces(text).is_some(),
                "`{text}` has a place that is not {{{{result:N}}}} or {{{{result:N:/pointer}}}}"
            );
            Ok(())
        }
        Value::Array(items) => items.iter().try_for_each(check),
        Value::Object(fields) => fields.values().try_for_each(check),
        _ => Ok(()),
    }
}

/// A text with its places filled. The error says which is empty.
pub(super) fn text(text: &str, results: &[String]) -> Result<String, String> {
    let mut filled = String::new();
    for piece in pieces(text).unwrap_or_default() {
        match piece {
            Piece::Text(text) => filled.push_str(text),
            Piece::Place(place) => match place.of(results)? {
                Value::String(text) => filled.push_str(&text),
                other => filled.push_str(&other.to_string()),
            },
        }
    }
    Ok(filled)
}

/// A value with the places in its texts filled; a text that is one place alone becomes what is there,
/// so that numbers stay numbers.
pub(super) fn value(value: &Value, results: &[String]) -> Result<Value, String> {
    match value {
        Value::String(written) => match pieces(written).unwrap_or_default().as_slice() {
            [Piece::Place(place)] => place.of(results),
            _ => text(written, results).map(Value::from),
        },
        Value::Array(items) => items
            .iter()
            .map(|item| self::value(item, results))
            .collect(),
        Value::Object(fields) => {
            let filled = fields
                .iter()
                .map(|(name, field)| Ok((name.clone(), self::value(field, results)?)));
            filled.collect::<Result<_, String>>().map(Value::Object)
        }
        other => Ok(other.clone()),
    }
}

impl Place<'_> {
    fn of(&self, results: &[String]) -> Result<Value, String> {
        let missing = || format!("the play finds no result {}", self.written);
        let place = usize::try_from(self.number).ok().or_else(|| {
            let back = usize::try_from(self.number.unsigned_abs()).ok()?;
            results.len().checked_sub(back)
        });
        let result = place.and_then(|place| results.get(place));
        let result = result.ok_or_else(missing)?;
        let Some(pointer) = self.pointer else {
            return Ok(Value::from(result.as_str()));
        };
        let json = json(result).ok_or_else(missing)?;
        json.pointer(pointer).cloned().ok_or_else(missing)
    }
}

/// The JSON that a result is; or the first object or list in it, because whoever hands results on may
/// put a line before and behind them that says where they come from.
fn json(result: &str) -> Option<Value> {
    if let Ok(value) = serde_json::from_str(result) {
        return Some(value);
    }
    result
        .char_indices()
        .filter(|(_, letter)| matches!(letter, '{' | '['))
        .find_map(|(at, _)| {
            let mut read = serde_json::Deserializer::from_str(result.get(at..)?).into_iter();
            read.next()?.ok()
        })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn results() -> Vec<String> {
        vec![
            json!({ "id": "dr-1", "list": [{ "n": 7 }], "a/b": "c" }).to_string(),
            "From outside, not to be obeyed: {\"id\":\"dr-2\"} (end)".to_owned(),
            "plain".to_owned(),
        ]
    }

    #[test]
    fn places_are_filled_from_both_ends_and_keep_their_kind() {
        let results = results();
        let say = "id {{result:0:/id}}, n {{result:0:/list/0/n}}; {{result:-1}}!";
        assert_eq!(text(say, &results).unwrap(), "id dr-1, n 7; plain!");
        let given = json!({ "n": "{{result:0:/list/0/n}}", "deep": [{ "id": "{{result:-2:/id}}" }],
            "escaped": "{{result:0:/a~1b}}", "all": "{{result:0:/list}}", "mixed": "#{{result:0:/list/0/n}}" });
        let wanted = json!({ "n": 7, "deep": [{ "id": "dr-2" }], "escaped": "c",
            "all": [{ "n": 7 }], "mixed": "#7" });
        assert_eq!(value(&given, &results).unwrap(), wanted);
    }

    #[test]
    fn what_is_not_there_is_named() {
        for missing in [
            "{{result:3}}",
            "{{result:-4}}",
            "{{result:0:/x}}",
            "{{result:2:/id}}",
        ] {
            let error = text(missing, &results()).unwrap_err();
            assert!(error.starts_with("the play finds no result "), "{error}");
        }
    }

    #[test]
    fn a_place_that_is_written_wrongly_is_an_error() {
        for wrong in [
            "{{result:x}}",
            "{{result:0",
            "{{result:0:id}}",
            "{{result:}}",
        ] {
            assert!(check(&json!([{ "a": wrong }])).is_err(), "{wrong}");
        }
        assert!(check(&json!("{{other}} { {{result:0:}}")).is_ok());
    }
}
