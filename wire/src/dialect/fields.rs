//! Reading JSON values whose shape is a caller's or an upstream's word: what is missing or of another
//! kind reads as empty, because unknown shapes are passed over and never a reason to fail.

use serde_json::{Map, Value};

/// The string at `key`; empty where there is none.
pub(super) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// The string at `key` as one's own.
pub(super) fn owned(value: &Value, key: &str) -> String {
    text(value, key).to_owned()
}

/// The JSON text at `key`: as a string, or, where a server spares itself the quotes, as the value.
pub(super) fn json_text(value: &Value, key: &str) -> String {
    match value.get(key) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// The string at `key`, if it is one and not empty.
pub(super) fn maybe(value: &Value, key: &str) -> Option<String> {
    Some(text(value, key))
        .filter(|text| !text.is_empty())
        .map(str::to_owned)
}

/// The items of the array at `key`.
pub(super) fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value
        .get(key)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// The flag at `key`.
pub(super) fn flag(value: &Value, key: &str) -> bool {
    value.get(key).and_then(Value::as_bool).unwrap_or(false)
}

/// The strings of an array, or the one string that stands in its place.
pub(super) fn words(value: Option<&Value>) -> Vec<String> {
    match value {
        Some(Value::String(word)) => vec![word.clone()],
        Some(Value::Array(items)) => items
            .iter()
            .filter_map(|item| item.as_str().map(str::to_owned))
            .collect(),
        _ => Vec::new(),
    }
}

/// Sets `key` where there is a value for it.
pub(super) fn put<T: Into<Value>>(map: &mut Map<String, Value>, key: &str, value: Option<T>) {
    if let Some(value) = value {
        map.insert(key.to_owned(), value.into());
    }
}

/// Names of `fields` that are not in `known` and not null.
pub(super) fn others(fields: &Map<String, Value>, known: &[&str]) -> Vec<String> {
    let other =
        |(name, value): &(&String, &Value)| !known.contains(&name.as_str()) && !value.is_null();
    fields
        .iter()
        .filter(other)
        .map(|(name, _)| name.clone())
        .collect()
}

/// The JSON text of an object as a value; text that is no object becomes one with `name` alone.
pub(super) fn object(text: &str, name: &str) -> Value {
    if is_none(text) {
        return Value::Object(Map::new());
    }
    match serde_json::from_str(text) {
        Ok(value @ Value::Object(_)) => value,
        Ok(other) => Value::Object(Map::from_iter([(name.to_owned(), other)])),
        Err(_) => Value::Object(Map::from_iter([(name.to_owned(), Value::from(text))])),
    }
}

/// Whether the text is a JSON object; none at all stands for an empty one.
pub(super) fn is_object(text: &str) -> bool {
    is_none(text) || serde_json::from_str::<Map<String, Value>>(text).is_ok()
}

/// Whether the text stands for no arguments: some servers send nothing or `null` where `{}` is due.
fn is_none(text: &str) -> bool {
    matches!(text.trim(), "" | "null")
}

/// An id that a stricter dialect takes: letters, digits, `-` and `_`, at most `longest` of them. The
/// same id always becomes the same one, so that calls and results stay together.
pub(super) fn id(id: &str, longest: usize) -> String {
    let sound = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !id.is_empty() && id.len() <= longest && id.chars().all(sound) {
        return id.to_owned();
    }
    // FNV-1a: enough to tell ids of one transcript apart.
    let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, mix);
    let kept: String = id
        .chars()
        .filter(|c| sound(*c))
        .take(longest.saturating_sub(17))
        .collect();
    format!("{kept}_{hash:016x}")
}

/// Splits a `data:` address into media type, without its parameters, and base64 data.
pub(super) fn data_url(url: &str) -> Option<(String, String)> {
    let (head, data) = url.strip_prefix("data:")?.split_once(',')?;
    let mime = head.strip_suffix(";base64")?;
    let mime = mime.split(';').next().unwrap_or_default();
    Some((mime.to_owned(), data.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_made_to_fit_and_stay_apart() {
        assert_eq!(id("call_1", 40), "call_1");
        let long = "x".repeat(80);
        assert_eq!(id(&long, 40).len(), 40);
        assert_ne!(id(&long, 40), id(&format!("{long}y"), 40));
        assert_eq!(id("a.b", 40), id("a.b", 40));
        assert_ne!(id("a.b", 40), id("a:b", 40));
    }

    #[test]
    fn arguments_become_an_object_whatever_they_are() {
        assert_eq!(object("", "x"), serde_json::json!({}));
        assert_eq!(object("null", "x"), serde_json::json!({}));
        assert_eq!(object("{\"a\":1}", "x"), serde_json::json!({ "a": 1 }));
        assert_eq!(object("[1]", "x"), serde_json::json!({ "x": [1] }));
        assert_eq!(
            object("{\"a\":", "x"),
            serde_json::json!({ "x": "{\"a\":" })
        );
    }
}
