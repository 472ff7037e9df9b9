//! Embeddings: vectors that depend on the text alone, as numbers or as base64.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::request::{Part, Turn};
use super::seal::hash;

/// Dimensions where the caller names none, and the most it may name.
const DIMENSIONS: u64 = 8;
const MOST: u64 = 8_192;

/// The inputs of a request: one, or a list. A list of numbers is one text, in tokens.
fn inputs(request: &Value) -> Vec<&Value> {
    match &request["input"] {
        Value::Array(list) if !list.iter().any(Value::is_number) => list.iter().collect(),
        one => vec![one],
    }
}

/// The tokens of the input: four bytes of text each, or as many as the caller counted.
pub(super) fn tokens(request: &Value) -> u64 {
    let tokens = inputs(request).into_iter().map(|input| match input {
        Value::String(text) => text.len().div_ceil(4),
        Value::Array(tokens) => tokens.len(),
        _ => 0,
    });
    u64::try_from(tokens.sum::<usize>()).unwrap_or(0)
}

/// The texts as a turn, so that a script in them is found.
pub(super) fn turns(request: &Value) -> Vec<Turn<'_>> {
    let texts = inputs(request).into_iter().filter_map(Value::as_str);
    vec![Turn {
        role: "user",
        parts: texts.map(Part::Text).collect(),
    }]
}

/// The reply to a request whose input has `tokens`.
pub(super) fn reply(request: &Value, tokens: u64) -> String {
    let wanted = request["dimensions"].as_u64().unwrap_or(DIMENSIONS);
    let base64 = request["encoding_format"] == "base64";
    let data = inputs(request)
        .into_iter()
        .enumerate()
        .map(|(index, input)| {
            let vector = vector(&input.to_string(), wanted.clamp(1, MOST));
            let embedding = if base64 {
                let bytes: Vec<u8> = vector.iter().flat_map(|part| part.to_le_bytes()).collect();
                Value::from(STANDARD.encode(bytes))
            } else {
                Value::from(vector)
            };
            json!({ "object": "embedding", "index": index, "embedding": embedding })
        });
    json!({
        "object": "list", "data": data.collect::<Vec<_>>(), "model": request["model"],
        "usage": { "prompt_tokens": tokens, "total_tokens": tokens },
    })
    .to_string()
}

/// A vector of length one.
fn vector(text: &str, dimensions: u64) -> Vec<f32> {
    let part = |place: u64| {
        let bytes = hash(format!("{place} {text}").as_bytes()).to_le_bytes();
        // The upper bytes mix best.
        f32::from(i16::from_le_bytes([bytes[6], bytes[7]])) + 0.5
    };
    let parts: Vec<f32> = (0..dimensions).map(part).collect();
    let length = parts.iter().map(|part| part * part).sum::<f32>().sqrt();
    parts.iter().map(|part| part / length).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(request: &Value) -> Value {
        serde_json::from_str(&reply(request, tokens(request))).unwrap()
    }

    #[test]
    fn numbers_and_base64_say_the_same() {
        let mut request = json!({ "model": "m", "input": ["a", "b"], "dimensions": 5 });
        let numbers = read(&request);
        request["encoding_format"] = json!("base64");
        let coded = read(&request);
        for place in 0..2 {
            let bytes = STANDARD
                .decode(coded["data"][place]["embedding"].as_str().unwrap())
                .unwrap();
            let decoded: Vec<f32> = bytes
                .chunks(4)
                .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
                .collect();
            assert_eq!(json!(decoded), numbers["data"][place]["embedding"]);
            assert_eq!(decoded.len(), 5);
        }
        assert_ne!(
            numbers["data"][0]["embedding"],
            numbers["data"][1]["embedding"]
        );
        assert_eq!(
            numbers["usage"],
            json!({ "prompt_tokens": 2, "total_tokens": 2 })
        );
    }

    #[test]
    fn one_text_and_one_list_of_tokens_are_one_input() {
        assert_eq!(
            read(&json!({ "input": "hello" }))["data"]
                .as_array()
                .unwrap()
                .len(),
            1
        );
        let tokens = read(&json!({ "input": [1, 2, 3] }));
        assert_eq!(tokens["data"].as_array().unwrap().len(), 1);
        assert_eq!(tokens["usage"]["prompt_tokens"], 3);
    }
}
