//! Proves over real sockets that a play answers whole conversations in all three dialects, streamed or
//! not, and that it is read from files at the start.

use serde_json::{Value, json};

use super::super::tests::{
    CHAT, DIALECTS, MESSAGES, ask, post, start, streamed_text, text_of, with,
};
use super::Play;
use crate::upstream::{Script, Upstream};

async fn playing(play: Value) -> Upstream {
    let upstream = Upstream::start(Script::default()).await.unwrap();
    upstream.perform(Play::parse(&play.to_string()).unwrap());
    upstream
}

fn tool(path: &str, name: &str) -> Value {
    let schema = json!({ "type": "object" });
    match path {
        CHAT => json!([{ "type": "function", "function": { "name": name, "parameters": schema } }]),
        MESSAGES => json!([{ "name": name, "input_schema": schema }]),
        _ => json!([{ "type": "function", "name": name, "parameters": schema }]),
    }
}

/// Name and arguments of the calls of a whole reply.
fn calls_of(path: &str, reply: &Value) -> Vec<(String, Value)> {
    let parsed = |text: &Value| serde_json::from_str(text.as_str().unwrap()).unwrap();
    let named = |call: &Value| call["name"].as_str().unwrap().to_owned();
    let list = match path {
        CHAT => &reply["choices"][0]["message"]["tool_calls"],
        MESSAGES => &reply["content"],
        _ => &reply["output"],
    };
    let mut found = Vec::new();
    for call in list.as_array().into_iter().flatten() {
        match call["type"].as_str().unwrap() {
            "function" => found.push((
                named(&call["function"]),
                parsed(&call["function"]["arguments"]),
            )),
            "tool_use" => found.push((named(call), call["input"].clone())),
            "function_call" => found.push((named(call), parsed(&call["arguments"]))),
            _ => {}
        }
    }
    found
}

/// A conversation in the dialect of `path`: a system text, the user's, and results of one tool.
fn conversation(path: &str, system: &str, user: &str, results: &[&str]) -> Value {
    let mut body = ask(path, user);
    let mut turns = vec![json!({ "role": "user", "content": user })];
    match path {
        CHAT => turns.insert(0, json!({ "role": "system", "content": system })),
        MESSAGES => body["system"] = json!([{ "type": "text", "text": system }]),
        _ => body["instructions"] = Value::from(system),
    }
    for (place, result) in results.iter().enumerate() {
        let id = format!("call_{place}");
        match path {
            CHAT => turns.extend([
                json!({ "role": "assistant", "content": null, "tool_calls": [
                    { "id": id, "type": "function", "function": { "name": "find", "arguments": "{}" } }] }),
                json!({ "role": "tool", "tool_call_id": id, "content": result }),
            ]),
            MESSAGES => turns.extend([
                json!({ "role": "assistant", "content": [
                    { "type": "tool_use", "id": id, "name": "find", "input": {} }] }),
                json!({ "role": "user", "content": [
                    { "type": "tool_result", "tool_use_id": id, "content": result }] }),
            ]),
            _ => turns.extend([
                json!({ "type": "function_call", "call_id": id, "name": "find", "arguments": "{}" }),
                json!({ "type": "function_call_output", "call_id": id, "output": result }),
            ]),
        }
    }
    let field = if path == CHAT || path == MESSAGES {
        "messages"
    } else {
        "input"
    };
    with(body, field, Value::from(turns))
}

fn three_steps() -> Value {
    json!({ "scenes": [
        { "when": ["You plan a task.", "books"], "say": { "nodes": [{ "id": "n1" }] } },
        { "when": ["Step n1: ", "books"], "results": 0,
          "call": { "name": "find", "arguments": { "word": "books", "most": 2 } } },
        { "when": ["Step n1: "], "results": 1,
          "call": [{ "name": "find", "arguments": { "id": "{{result:0:/id}}", "n": "{{result:0:/n}}" } }] },
        { "when": ["Step n1: "], "results": 2, "thinking": "so ",
          "say": "first {{result:0:/id}}, last {{result:-1:/id}}" },
    ] })
}

#[tokio::test]
async fn a_play_answers_a_whole_conversation_in_every_dialect() {
    for path in DIALECTS {
        let upstream = playing(three_steps()).await;
        let told = |system: &str, results: &[&str]| {
            let body = conversation(path, system, "about books", results);
            with(body, "tools", tool(path, "find"))
        };
        let plan = post(&upstream, path, &told("You plan a task.", &[])).await;
        assert_eq!(text_of(path, &plan.json()), "{\"nodes\":[{\"id\":\"n1\"}]}");
        let first = post(&upstream, path, &told("Step n1: look", &[])).await;
        let wanted = ("find".to_owned(), json!({ "word": "books", "most": 2 }));
        assert_eq!(calls_of(path, &first.json()), [wanted], "{path}");
        let one = "{\"id\":\"b7\",\"n\":3}";
        let second = post(&upstream, path, &told("Step n1: look", &[one])).await;
        let wanted = ("find".to_owned(), json!({ "id": "b7", "n": 3 }));
        assert_eq!(calls_of(path, &second.json()), [wanted], "{path}");
        let both = told("Step n1: look", &[one, "{\"id\":\"b9\"}"]);
        let last = post(&upstream, path, &both).await;
        assert_eq!(text_of(path, &last.json()), "first b7, last b9", "{path}");
        let streamed = post(&upstream, path, &with(both, "stream", json!(true))).await;
        assert_eq!(streamed_text(path, &streamed.events()), "first b7, last b9");
    }
}

#[tokio::test]
async fn a_call_is_streamed_as_it_is_told_whole() {
    let upstream = playing(three_steps()).await;
    let body = conversation(CHAT, "Step n1: look", "books", &[]);
    let body = with(
        with(body, "tools", tool(CHAT, "find")),
        "stream",
        json!(true),
    );
    let events = post(&upstream, CHAT, &body).await.events();
    let calls = events.iter().filter_map(|event| {
        event["choices"][0]["delta"]["tool_calls"][0]["function"]["arguments"].as_str()
    });
    let arguments: Value = serde_json::from_str(&calls.collect::<String>()).unwrap();
    assert_eq!(arguments, json!({ "word": "books", "most": 2 }));
}

#[tokio::test]
async fn only_offered_tools_are_called_and_only_what_came_is_handed_on() {
    let upstream = playing(three_steps()).await;
    let body = conversation(CHAT, "Step n1: look", "books", &[]);
    let reply = post(&upstream, CHAT, &with(body, "tools", tool(CHAT, "other"))).await;
    assert_eq!(text_of(CHAT, &reply.json()), "tool find is not offered");
    assert!(calls_of(CHAT, &reply.json()).is_empty());
    let body = conversation(CHAT, "Step n1: look", "books", &["nothing found"]);
    let reply = post(&upstream, CHAT, &with(body, "tools", tool(CHAT, "find"))).await;
    assert_eq!(
        text_of(CHAT, &reply.json()),
        "the play finds no result 0:/id"
    );
}

#[tokio::test]
async fn scenes_are_tried_in_order_and_end_after_their_times() {
    let upstream = playing(json!({ "scenes": [
        { "when": ["Hi"], "once": true, "say": "one" },
        { "when": ["Hi"], "times": 2, "say": "two",
          "usage": { "prompt_tokens": 900, "cached_tokens": 400, "reasoning_tokens": 5 } },
    ] }))
    .await;
    let mut said = Vec::new();
    for _ in 0..4 {
        let reply = post(&upstream, CHAT, &ask(CHAT, "Hi")).await;
        said.push(text_of(CHAT, &reply.json()));
    }
    assert_eq!(said[..3], ["one", "two", "two"]);
    assert_eq!(
        said[3].split_whitespace().count(),
        20,
        "made-up words as before"
    );
    let bill = upstream.bill();
    let second = &bill[1];
    assert_eq!(
        (
            second.prompt_tokens,
            second.cached_tokens,
            second.output_tokens
        ),
        (900, 400, 6)
    );
    // What the model said itself is nothing that a scene waits for.
    let own = json!({ "model": "m", "messages": [{ "role": "user", "content": "a" },
        { "role": "assistant", "content": "Hi" }, { "role": "user", "content": "b" }] });
    upstream.perform(Play::parse("{\"scenes\":[{\"when\":[\"Hi\"],\"say\":\"x\"}]}").unwrap());
    let reply = post(&upstream, CHAT, &own).await;
    assert_ne!(text_of(CHAT, &reply.json()), "x");
}

#[tokio::test]
async fn a_play_is_read_from_files_at_the_start_and_errors_name_the_scene() {
    let folder = tempfile::tempdir().unwrap();
    let scene = |word: &str| json!({ "scenes": [{ "when": [word], "say": word }] }).to_string();
    for (name, word) in [
        ("b.play.json", "bee"),
        ("a.play.json", "ant"),
        ("c.json", "cow"),
    ] {
        std::fs::write(folder.path().join(name), scene(word)).unwrap();
    }
    let upstream = start(json!({ "play": folder.path() })).await;
    for (word, heard) in [("bee", true), ("ant", true), ("cow", false)] {
        let reply = post(&upstream, CHAT, &ask(CHAT, &format!("a {word}"))).await;
        assert_eq!(text_of(CHAT, &reply.json()) == word, heard, "{word}");
    }
    let reply = post(&upstream, CHAT, &ask(CHAT, "bee, then ant")).await;
    assert_eq!(
        text_of(CHAT, &reply.json()),
        "ant",
        "the first file goes first"
    );
    for wrong in [
        "{\"scenes\":[{\"when\":[]}]}",
        "{\"scenes\":[{\"say\":\"{{result:x}}\"}]}",
        "{\"scenes\":[{\"say\":\"a\",\"calls\":[]}]}",
        "{\"scene\":[]}",
    ] {
        assert!(Play::parse(wrong).is_err(), "{wrong}");
    }
    let error = Play::parse("{\"scenes\":[{\"say\":\"a\"},{\"once\":true}]}").unwrap_err();
    assert!(format!("{error:#}").contains("scene 1"), "{error:#}");
    let missing = json!({ "play": folder.path().join("none.json") });
    let script: Script = serde_json::from_value(missing).unwrap();
    assert!(Upstream::start(script).await.is_err());
}

#[tokio::test]
async fn pace_of_a_scene_holds_for_it_alone() {
    let scenes = json!([{ "when": ["slow"], "say": "x", "first_ms": 3_600_000 }]);
    let upstream = playing(json!({ "scenes": scenes })).await;
    let (slow, quick) = (ask(CHAT, "slow"), ask(CHAT, "quick"));
    let slow = post(&upstream, CHAT, &slow);
    let quick = async {
        // Both are under way before the quick one counts.
        while upstream.calls() == 0 {
            tokio::task::yield_now().await;
        }
        post(&upstream, CHAT, &quick).await
    };
    tokio::select! {
        reply = slow => panic!("an hour is over: {}", reply.text()),
        reply = quick => assert_eq!(reply.status, 200),
    }
}
