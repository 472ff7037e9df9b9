//! Proves that what is sent is taken: rules of the vendors by which a whole call is refused, and
//! figures of theirs that are easily counted twice or not at all.

#![expect(clippy::unwrap_used, reason = "a test stops where traffic must not")]

use serde_json::{Value, json};
use wire::call::{Kind, Part, Seal, Thinking};
use wire::dialect::{
    ANTHROPIC_MESSAGES as MESSAGES, Change, OPENAI_CHAT as CHAT, OPENAI_RESPONSES as RESPONSES,
    ThinkingForm, carry,
};
use wire::{Call, Dialect, Losses, Usage};

/// What an upstream of `to` gets of a call, and what was lost.
fn encoded(call: &Call, to: &dyn Dialect, change: &Change<'_>) -> (Value, String) {
    let (mut call, mut losses) = (call.clone(), Losses::default());
    call.withhold(to.name(), "there", &mut losses);
    if change.thinking == Some(ThinkingForm::None) {
        call.forget_reasoning(&mut losses);
    }
    let body = to.encode(&call, change, &mut losses);
    (body, losses.header())
}

/// The same for a call as its caller wrote it.
fn sent(from: &dyn Dialect, to: &dyn Dialect, body: &Value) -> (Value, String) {
    let call = from.decode(body.to_string().as_bytes()).unwrap();
    encoded(&call, to, &Change::default())
}

fn roles(messages: &Value) -> Vec<&str> {
    let messages = messages.as_array().unwrap().iter();
    messages.map(|it| it["role"].as_str().unwrap()).collect()
}

fn streamed_usage(events: &[Value]) -> Usage {
    let mut watch = MESSAGES.watch();
    for event in events {
        let name = event["type"].as_str().unwrap();
        watch.event(format!("event: {name}\ndata: {event}\n\n").as_bytes());
    }
    watch.facts().usage.unwrap()
}

#[test]
fn cache_writes_of_an_hour_are_counted_once() {
    let usage = streamed_usage(&[
        json!({ "type": "message_start", "message": { "usage": { "input_tokens": 10, "output_tokens": 1,
            "cache_creation_input_tokens": 1_500, "cache_creation":
                { "ephemeral_5m_input_tokens": 500, "ephemeral_1h_input_tokens": 1_000 } } } }),
        json!({ "type": "message_delta", "delta": { "stop_reason": "end_turn" }, "usage": {
            "input_tokens": 10, "cache_creation_input_tokens": 1_500, "output_tokens": 5 } }),
        json!({ "type": "message_stop" }),
    ]);
    let counted = (usage.cache_write_5m, usage.cache_write_1h, usage.prompt());
    assert_eq!(counted, (500, 1_000, 1_510));
}

#[test]
fn thinking_is_a_part_of_the_output() {
    let answer = json!({ "type": "message", "usage": { "input_tokens": 1, "output_tokens": 50,
        "output_tokens_details": { "thinking_tokens": 40 } } });
    let usage = MESSAGES.usage(answer.to_string().as_bytes()).unwrap();
    assert_eq!(
        (usage.output, usage.reasoning, usage.answer()),
        (10, 40, 50)
    );
}

#[test]
fn searches_of_responses_are_counted() {
    let search = |kind: &str| json!({ "type": "web_search_call", "action": { "type": kind } });
    let output =
        json!([search("search"), search("open_page"), { "type": "message" }, search("search")]);
    let answer = json!({ "object": "response", "output": output,
        "usage": { "input_tokens": 1, "output_tokens": 2 } });
    let whole = RESPONSES.usage(answer.to_string().as_bytes()).unwrap();
    assert_eq!(whole.web_searches, 2);
    let mut watch = RESPONSES.watch();
    let last = json!({ "type": "response.completed", "response": answer });
    watch.event(format!("event: response.completed\ndata: {last}\n\n").as_bytes());
    assert_eq!(watch.facts().usage, Some(whole));
}

#[test]
fn a_cap_is_no_higher_than_the_model_takes() {
    let change = Change {
        most_output: Some(8_192),
        ..Change::default()
    };
    let hello = json!([{ "role": "user", "content": "Hello" }]);
    let chat = json!({ "model": "m", "max_completion_tokens": 64_000, "messages": hello });
    let messages = json!({ "model": "m", "max_tokens": 64_000, "messages": hello });
    for (from, to, body, field) in [
        (MESSAGES, CHAT, &messages, "max_completion_tokens"),
        (MESSAGES, RESPONSES, &messages, "max_output_tokens"),
        (CHAT, MESSAGES, &chat, "max_tokens"),
        (CHAT, CHAT, &chat, "max_completion_tokens"),
    ] {
        let call = from.decode(body.to_string().as_bytes()).unwrap();
        let (sent, lost) = encoded(&call, to, &change);
        assert_eq!(sent[field], 8_192, "{}", to.name());
        assert_eq!(lost, "approximated:max_output_tokens", "{}", to.name());
    }
    let scan = CHAT.scan(chat.to_string().as_bytes()).unwrap();
    let change = Change {
        model: "m",
        ..change
    };
    let edits = CHAT.edits(&scan, &change);
    assert_eq!(edits.len(), 1);
    assert_eq!(&*edits[0].with, b"8192");
}

#[test]
fn half_of_the_cap_is_left_for_the_answer() {
    let body = json!({ "model": "m", "reasoning_effort": "high", "max_tokens": 8_000,
        "messages": [{ "role": "user", "content": "Hello" }] });
    let (sent, lost) = sent(CHAT, MESSAGES, &body);
    assert_eq!(sent["thinking"]["budget_tokens"], 4_000);
    assert_eq!(
        lost,
        "approximated:reasoning.effort, approximated:reasoning"
    );
}

#[test]
fn system_text_in_mid_conversation_is_the_users_for_anthropic() {
    let say = |role: &str, text: &str| json!({ "role": role, "content": text });
    let body = json!({ "model": "m", "messages": [say("system", "A"), say("user", "hi"),
        say("assistant", "hello"), say("system", "B"), say("developer", "C"), say("user", "go")] });
    let (sent, lost) = sent(CHAT, MESSAGES, &body);
    assert_eq!(sent["system"], json!([{ "type": "text", "text": "A" }]));
    assert_eq!(roles(&sent["messages"]), ["user", "assistant", "user"]);
    let text = |text: &str| json!({ "type": "text", "text": text });
    let reminder = |said: &str| text(&format!("<system-reminder>\n{said}\n</system-reminder>"));
    assert_eq!(
        sent["messages"][2]["content"],
        json!([reminder("B"), reminder("C"), text("go")])
    );
    assert_eq!(lost, "approximated:messages.system");
}

#[test]
fn results_stand_first_in_a_message_whatever_is_said_between() {
    let calls =
        json!([{ "id": "a", "type": "function", "function": { "name": "f", "arguments": "{}" } }]);
    let body = json!({ "model": "m", "messages": [{ "role": "user", "content": "hi" },
        { "role": "assistant", "content": null, "tool_calls": calls },
        { "role": "system", "content": "Hurry." },
        { "role": "tool", "tool_call_id": "a", "content": "done" }] });
    let (sent, _) = sent(CHAT, MESSAGES, &body);
    let kinds = sent["messages"][2]["content"].as_array().unwrap().iter();
    let kinds: Vec<&str> = kinds.map(|it| it["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["tool_result", "text"]);
}

#[test]
fn a_user_is_made_to_speak_only_before_a_first_answer() {
    let say = |role: &str, text: &str| json!({ "role": role, "content": text });
    let body = json!({ "model": "m", "messages": [say("assistant", "hello"), say("user", "hi")] });
    let (sent_, lost) = sent(CHAT, MESSAGES, &body);
    assert_eq!(sent_["messages"][0], say("user", "Go on."));
    assert_eq!(lost, "approximated:messages.order");
    let body = json!({ "model": "m", "messages": [say("system", "A"), say("developer", "B")] });
    let (sent, lost) = sent(CHAT, MESSAGES, &body);
    let text = |text: &str| json!([{ "type": "text", "text": text }]);
    assert_eq!(sent["system"], text("A"));
    assert_eq!(
        sent["messages"],
        json!([{ "role": "user", "content": text("B") }])
    );
    assert_eq!(lost, "approximated:messages.system");
}

/// What is in the way of asking each dialect what a call of `from` asks; empty where it can be asked.
fn untold(from: &dyn Dialect, body: &Value) -> [String; 3] {
    let call = from.decode(body.to_string().as_bytes()).unwrap();
    [CHAT, RESPONSES, MESSAGES].map(|to| carry::untold(&call, to).unwrap_or_default())
}

#[test]
fn what_is_asked_can_be_told_or_is_not_answered() {
    let user = |content: Value| json!({ "role": "user", "content": content });
    let answer = |text: &str| json!({ "role": "assistant", "content": text });
    let audio =
        json!({ "type": "input_audio", "input_audio": { "data": "AAAA", "format": "wav" } });
    let odd = json!({ "type": "odd", "x": 1 });
    let file = json!({ "type": "file", "file": { "file_id": "file-1" } });
    let tiff =
        json!({ "type": "image_url", "image_url": { "url": "data:image/tiff;base64,AAAA" } });
    let said = json!({ "type": "text", "text": "Look:" });
    let blank = json!({ "type": "text", "text": " " });
    for (messages, lost) in [
        (
            json!([user(json!([audio]))]),
            ["", "input_audio", "input_audio"],
        ),
        (
            json!([user(json!([odd]))]),
            ["", "messages.odd", "messages.odd"],
        ),
        (
            json!([user(json!([file]))]),
            ["", "file.file_id", "file.file_id"],
        ),
        (json!([user(json!([tiff]))]), ["", "", "image.media_type"]),
        (
            json!([user(json!([tiff, blank]))]),
            ["", "", "image.media_type"],
        ),
        (json!([user(json!([file, said]))]), ["", "", ""]),
        (
            json!([user(json!([said])), user(json!([file]))]),
            ["", "", ""],
        ),
        (
            json!([user(json!("Hi")), answer("Yes?"), user(json!([file]))]),
            ["", "file.file_id", "file.file_id"],
        ),
        (
            json!([user(json!([file])), answer("Yes?"), user(json!("Go"))]),
            ["", "", ""],
        ),
        (
            json!([user(json!([file])), answer("{")]),
            ["", "file.file_id", "file.file_id"],
        ),
        (
            json!([user(json!("Hi")), answer("Yes?"), user(json!(" "))]),
            ["", "", "white space"],
        ),
        (
            json!([user(json!("Hi")), answer("Yes?"), user(json!(""))]),
            ["white space"; 3],
        ),
        (json!([{ "role": "system", "content": "Hi" }]), ["", "", ""]),
        (json!([answer("Well,")]), ["", "", ""]),
    ] {
        let [_, responses, anthropic] =
            untold(CHAT, &json!({ "model": "m", "messages": messages }));
        assert_eq!([&responses, &anthropic], [lost[1], lost[2]], "{messages}");
    }
}

#[test]
fn items_that_ask_can_be_told_or_are_not_answered() {
    let user = |content: Value| json!({ "role": "user", "content": content });
    let image = json!({ "type": "input_image", "file_id": "file-1" });
    let document = json!({ "type": "input_file", "filename": "a.docx",
        "file_data": "data:application/vnd.openxmlformats;base64,AAAA" });
    for (fields, lost) in [
        (json!({ "prompt": { "id": "pmpt_1" } }), ["prompt"; 3]),
        (
            json!({ "prompt": { "id": "pmpt_1" }, "instructions": "Be brief." }),
            ["prompt"; 3],
        ),
        (
            json!({ "prompt": { "id": "pmpt_1" }, "input": "Hi" }),
            [""; 3],
        ),
        (
            json!({ "instructions": "Be brief.", "input": [user(json!([image]))] }),
            ["image.file_id"; 3],
        ),
        (
            json!({ "input": [user(json!([document]))] }),
            ["", "", "file.media_type"],
        ),
        (json!({ "input": [{ "type": "odd" }] }), ["input.odd"; 3]),
    ] {
        let [chat, _, anthropic] = untold(RESPONSES, &fields);
        assert_eq!([&chat, &anthropic], [lost[0], lost[2]], "{fields}");
    }
}

#[test]
fn blocks_that_ask_can_be_told_or_are_not_answered() {
    let user = |content: Value| json!({ "role": "user", "content": content });
    let picture = |source: Value| json!({ "type": "image", "source": source });
    let id = picture(json!({ "type": "file", "file_id": "f" }));
    let result = json!({ "type": "tool_result", "tool_use_id": "a", "content": [id] });
    let used = json!({ "type": "tool_use", "id": "a", "name": "f", "input": {} });
    for (messages, lost) in [
        (json!([user(json!([id]))]), "image.file_id"),
        (
            json!([user(json!("Hi")), { "role": "assistant", "content": [used] }, user(json!([result]))]),
            "",
        ),
    ] {
        let call = json!({ "model": "m", "max_tokens": 9, "messages": messages });
        let [chat, responses, _] = untold(MESSAGES, &call);
        assert_eq!([&*chat, &*responses], [lost; 2], "{messages}");
    }
}

#[test]
fn a_caller_of_messages_says_how_long_an_answer_may_be() {
    let body = json!({ "model": "m", "messages": [{ "role": "user", "content": "hi" }] });
    let whole = |from: &dyn Dialect, body: &Value| {
        carry::whole(&from.decode(body.to_string().as_bytes()).unwrap())
    };
    let told = whole(MESSAGES, &body).unwrap_err().to_string();
    assert_eq!(told, "`max_tokens` is missing");
    assert!(whole(CHAT, &body).is_ok());
}

#[test]
fn reasoning_that_nobody_kept_is_not_sent_back() {
    let body = json!({ "model": "m", "messages": [{ "role": "user", "content": "hi" },
        { "role": "assistant", "content": "Hello" }, { "role": "user", "content": "and?" }] });
    let mut call = CHAT.decode(body.to_string().as_bytes()).unwrap();
    let kept = |item: Value| {
        let seal = Seal {
            dialect: "openai_responses".into(),
            origin: Some("there".into()),
            value: item,
        };
        let text = String::new();
        Part::new(Kind::Thinking(Thinking {
            text,
            seal: Some(seal),
        }))
    };
    let bare = json!({ "type": "reasoning", "id": "rs_1", "summary": [] });
    let sealed =
        json!({ "type": "reasoning", "id": "rs_2", "summary": [], "encrypted_content": "E" });
    call.turns[1].parts.insert(0, kept(sealed.clone()));
    call.turns[1].parts.insert(0, kept(bare));
    let (sent, lost) = encoded(&call, RESPONSES, &Change::default());
    assert_eq!(sent["input"][1], sealed);
    assert!(!sent.to_string().contains("rs_1"), "{sent}");
    assert_eq!(lost, "withheld:thinking");
}

#[test]
fn a_loop_that_began_without_thinking_goes_on_without_it() {
    let asks = json!({ "role": "assistant", "content": [{ "type": "tool_use", "id": "a", "name": "f", "input": {} }] });
    let told = json!({ "role": "user", "content": [{ "type": "tool_result", "tool_use_id": "a", "content": "ok" },
        { "type": "text", "text": "Be quick." }] });
    let thought = json!({ "type": "thinking", "thinking": "Hm.", "signature": "S" });
    let mut begun = asks.clone();
    begun["content"].as_array_mut().unwrap().insert(0, thought);
    let cases = [
        (vec![asks.clone(), told.clone()], false),
        (vec![begun.clone(), told.clone()], true),
        (
            vec![begun.clone(), told.clone(), asks.clone(), told.clone()],
            true,
        ),
        (vec![asks.clone(), told.clone(), begun, told.clone()], false),
        (
            vec![
                asks,
                told,
                json!({ "role": "assistant", "content": "Done." }),
                json!({ "role": "user", "content": "Next" }),
            ],
            true,
        ),
    ];
    for (turns, thinks) in cases {
        let mut messages = vec![json!({ "role": "user", "content": "hi" })];
        messages.extend(turns);
        let body = json!({ "model": "m", "max_tokens": 4_000, "messages": messages,
            "thinking": { "type": "enabled", "budget_tokens": 2_000 } });
        let scan = MESSAGES.scan(body.to_string().as_bytes()).unwrap();
        assert_eq!(scan.can_think(None), thinks, "{body}");
        let (sent, _) = sent(MESSAGES, MESSAGES, &body);
        assert_eq!(sent["thinking"]["type"] == "enabled", thinks, "{body}");
    }
}

#[test]
fn a_model_that_does_not_reason_is_not_asked_to() {
    let change = Change {
        model: "m",
        thinking: Some(ThinkingForm::None),
        ..Change::default()
    };
    let hello = json!([{ "role": "user", "content": "Hello" }]);
    let claude = json!({ "model": "m", "max_tokens": 9_000, "messages": hello,
        "thinking": { "type": "adaptive" }, "output_config": { "effort": "medium" } });
    let chat = json!({ "model": "m", "messages": hello, "reasoning_effort": "low" });
    let codex = json!({ "model": "m", "store": false, "reasoning": { "effort": "low", "summary": "auto" },
        "include": ["reasoning.encrypted_content"], "input": [
            { "type": "message", "role": "user", "content": "Hello" },
            { "type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "E" },
            { "type": "message", "role": "assistant", "content": [{ "type": "output_text", "text": "Hi" }] },
            { "type": "message", "role": "user", "content": "Go on" }] });
    for (from, body) in [(MESSAGES, &claude), (CHAT, &chat), (RESPONSES, &codex)] {
        let scan = from.scan(body.to_string().as_bytes()).unwrap();
        assert!(!scan.can_think(change.thinking), "{body}");
        for to in [MESSAGES, CHAT, RESPONSES] {
            let call = from.decode(body.to_string().as_bytes()).unwrap();
            let (sent, lost) = encoded(&call, to, &change);
            let text = sent.to_string();
            let asks = ["thinking", "effort", "reasoning"]
                .iter()
                .any(|it| text.contains(it));
            assert!(!asks, "{} to {}: {sent}", from.name(), to.name());
            assert!(lost.contains("dropped:reasoning"), "{lost}");
        }
    }
}

#[test]
fn pictures_are_of_a_type_that_is_taken() {
    let image = |url: &str| json!({ "type": "image_url", "image_url": { "url": url } });
    let body = json!({ "model": "m", "messages": [{ "role": "user", "content": [{ "type": "text", "text": "See" },
        image("data:image/jpg;base64,/9j/4AA="), image("data:image/svg+xml;base64,PHN2Zz4=")] }] });
    let (sent, lost) = sent(CHAT, MESSAGES, &body);
    let content = sent["messages"][0]["content"].as_array().unwrap();
    assert_eq!(content.len(), 2);
    assert_eq!(content[1]["source"]["media_type"], "image/jpeg");
    assert_eq!(lost, "dropped:image.media_type");
}

#[test]
fn end_users_are_no_addresses() {
    for user in ["alice@example.com", "+49 (30) 123-4567", &"x".repeat(300)] {
        let body = json!({ "model": "m", "user": user, "messages": [{ "role": "user", "content": "hi" }] });
        let (sent, lost) = sent(CHAT, MESSAGES, &body);
        assert_eq!(
            (sent.get("metadata"), lost.as_str()),
            (None, "withheld:user"),
            "{user}"
        );
    }
    let body = json!({ "model": "m", "user": "user-17", "messages": [{ "role": "user", "content": "hi" }] });
    assert_eq!(
        sent(CHAT, MESSAGES, &body).0["metadata"]["user_id"],
        "user-17"
    );
}

#[test]
fn schemas_are_such_as_the_vendor_takes() {
    let hello = json!([{ "role": "user", "content": "Hello" }]);
    let one_of = json!({ "type": "object", "additionalProperties": false, "required": ["a"],
        "properties": { "a": { "oneOf": [{ "type": "string" }, { "type": "integer" }] } } });
    let body = json!({ "model": "m", "messages": hello, "response_format":
        { "type": "json_schema", "json_schema": { "name": "x", "schema": one_of } } });
    let (to_anthropic, lost) = sent(CHAT, MESSAGES, &body);
    let schema = &to_anthropic["output_config"]["format"]["schema"];
    assert_eq!(
        schema["properties"]["a"],
        json!({ "anyOf": [{ "type": "string" }, { "type": "integer" }] })
    );
    assert_eq!(lost, "approximated:response_format.schema");

    let tool = |parameters: Value| {
        json!({ "model": "m", "messages": hello,
        "tools": [{ "type": "function", "function": { "name": "f", "parameters": parameters } }] })
    };
    let either = tool(json!({ "anyOf": [
        { "type": "object", "properties": { "a": { "type": "string" } }, "required": ["a"] },
        { "type": "object", "properties": { "b": { "type": "string" } } }] }));
    let (to_anthropic, lost) = sent(CHAT, MESSAGES, &either);
    let schema = &to_anthropic["tools"][0]["input_schema"];
    let merged = json!({ "type": "object", "properties": { "a": { "type": "string" }, "b": { "type": "string" } } });
    assert_eq!(
        (schema, lost.as_str()),
        (&merged, "approximated:tools.schema")
    );
    let all = tool(
        json!({ "type": "object", "properties": { "c": {} }, "allOf": [
        { "type": "object", "properties": { "a": { "type": "string" } }, "required": ["a"] }] }),
    );
    let (to_anthropic, _) = sent(CHAT, MESSAGES, &all);
    let merged = json!({ "type": "object", "properties": { "c": {}, "a": { "type": "string" } }, "required": ["a"] });
    assert_eq!(to_anthropic["tools"][0]["input_schema"], merged);

    let list = json!({ "model": "m", "max_tokens": 9, "messages": hello, "tools": [{ "name": "f",
        "input_schema": { "type": "object", "properties": { "tags": { "type": "array" } } } }] });
    for to in [CHAT, RESPONSES] {
        let (to_openai, _) = sent(MESSAGES, to, &list);
        let tags = json!({ "type": "array", "items": {} });
        assert!(
            to_openai.to_string().contains(&tags.to_string()),
            "{to_openai}"
        );
    }
    let all_of = json!({ "model": "m", "max_tokens": 9, "messages": hello, "output_config": { "format": {
        "type": "json_schema", "schema": { "type": "object", "additionalProperties": false,
            "required": ["a"], "properties": { "a": { "allOf": [{ "type": "string" }] } } } } } });
    let (to_openai, lost) = sent(MESSAGES, CHAT, &all_of);
    assert_eq!(to_openai["response_format"]["json_schema"]["strict"], false);
    assert_eq!(lost, "approximated:strict");
}

#[test]
fn ids_of_calls_are_told_apart_for_anthropic() {
    let call = |name: &str| {
        json!({ "role": "assistant", "content": null, "tool_calls": [
        { "id": "call_0", "type": "function", "function": { "name": name, "arguments": "{}" } }] })
    };
    let told = |text: &str| json!({ "role": "tool", "tool_call_id": "call_0", "content": text });
    let body = json!({ "model": "m", "messages": [{ "role": "user", "content": "hi" },
        call("f"), told("1"), call("g"), told("2"), { "role": "user", "content": "go" }] });
    let (sent, _) = sent(CHAT, MESSAGES, &body);
    let said = |turn: usize| &sent["messages"][turn]["content"][0];
    assert_eq!(said(1)["id"], "call_0");
    assert_ne!(said(3)["id"], "call_0");
    assert_eq!(said(2)["tool_use_id"], said(1)["id"]);
    assert_eq!(said(4)["tool_use_id"], said(3)["id"]);
}

#[test]
fn a_file_by_address_has_no_name_beside_it() {
    let body = json!({ "model": "m", "max_tokens": 99, "messages": [{ "role": "user", "content": [
        { "type": "document", "title": "Report", "source": { "type": "url", "url": "https://x.example/r.pdf" } }] }] });
    let (sent, lost) = sent(MESSAGES, RESPONSES, &body);
    let file = json!({ "type": "input_file", "file_url": "https://x.example/r.pdf" });
    assert_eq!(
        (&sent["input"][0]["content"][0], lost.as_str()),
        (&file, "dropped:file.name")
    );
}

#[test]
fn tool_messages_follow_their_calls_without_pictures_between() {
    let image = json!({ "type": "image", "source": { "type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo=" } });
    let asks = |id: &str| json!({ "type": "tool_use", "id": id, "name": "f", "input": {} });
    let tells = |id: &str, content: Value| {
        json!({ "role": "user", "content": [
        { "type": "tool_result", "tool_use_id": id, "content": content }] })
    };
    let body = json!({ "model": "m", "max_tokens": 9, "messages": [{ "role": "user", "content": "hi" },
        { "role": "assistant", "content": [asks("a"), asks("b")] },
        tells("a", json!([image])), tells("b", "ok".into()), { "role": "user", "content": "go" }] });
    let (sent, _) = sent(MESSAGES, CHAT, &body);
    assert_eq!(
        roles(&sent["messages"]),
        ["user", "assistant", "tool", "tool", "user", "user"]
    );
}

#[test]
fn cache_marks_of_chat_callers_reach_anthropic() {
    let mark = json!({ "type": "ephemeral" });
    let body = json!({ "model": "m", "messages": [{ "role": "user", "content": "hi", "cache_control": mark }],
        "tools": [{ "type": "function", "cache_control": mark, "function": { "name": "f" } }] });
    let (sent, _) = sent(CHAT, MESSAGES, &body);
    assert_eq!(sent["messages"][0]["content"][0]["cache_control"], mark);
    assert_eq!(sent["tools"][0]["cache_control"], mark);
}
