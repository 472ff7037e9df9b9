//! Proves what is read from chat calls, replies and streams, and that edits touch only their bytes.

use super::*;
use crate::splice;

fn scan(body: &str) -> Result<Scan, ScanError> {
    OpenAiChat.scan(body.as_bytes())
}

fn edited(body: &str, change: &Change<'_>) -> String {
    let scan = scan(body).expect("a good body");
    let pieces = splice::apply(
        &Bytes::copy_from_slice(body.as_bytes()),
        OpenAiChat.edits(&scan, change),
    );
    String::from_utf8(pieces.concat()).expect("utf-8")
}

#[test]
fn the_shape_of_a_call_is_counted() {
    let body = r#"{"messages":[{"content":"Be terse.","role":"system"},{"role":"user","content":"Hi"},
        {"role":"assistant","tool_calls":[{},{}],"content":null},{"role":"tool","content":"42"},
        {"role":"user","content":[{"type":"text","text":"caf\u00e9?"},{"type":"image_url","image_url":{}},
        {"type":"text","text":"now"}]}],"model":"auto","n":2,"max_tokens":9,"max_completion_tokens":7,
        "tools":[{},{}],"response_format":{"type":"json_schema"},"x":[1,{"model":"no"}]}"#;
    let scan = scan(body).expect("a good body");
    assert_eq!(
        (scan.model.as_str(), scan.answers, scan.max_output),
        ("auto", 2, Some(7))
    );
    assert_eq!(scan.caps.len(), 2);
    let shape = scan.shape;
    assert_eq!(
        (shape.messages, shape.user_turns, shape.tool_calls),
        (5, 2, 2)
    );
    assert_eq!(
        (shape.tool_results, shape.after_tool, shape.images),
        (1, false, 1)
    );
    assert_eq!((shape.tools, shape.schema), (2, true));
    let mut buffer = [0; 64];
    assert_eq!(scan.prompt(body.as_bytes(), &mut buffer), "café?\nnow");
    assert_eq!(
        scan.prompt(body.as_bytes(), &mut [0; 4]),
        "caf",
        "no half character"
    );
}

#[test]
fn acted_fields_may_stand_once_and_in_one_case() {
    let twice = scan(r#"{"model":"a","mo\u0064el":"b"}"#);
    assert_eq!(twice, Err(ScanError::Duplicate("model".into())));
    assert_eq!(
        scan(r#"{"Model":"a"}"#),
        Err(ScanError::Case("Model".into(), "model"))
    );
    assert_eq!(
        scan(r#"{"messages":[{}]}"#),
        Err(ScanError::Missing("model"))
    );
    assert_eq!(scan("[]"), Err(ScanError::NotAnObject));
    assert!(scan(r#"{"model":"a","stream":"yes"}"#).is_err());
    assert!(scan(r#"{"model":"a","max_tokens":-1}"#).is_err());
    assert!(scan(r#"{"model":"a","messages":[{}],"x":1,"x":2,"max_tokens":null}"#).is_ok());
    assert_eq!(
        scan(r#"{"model":"a"}"#),
        Err(ScanError::Missing("messages"))
    );
    assert!(scan(r#"{"model":"a","messages":[]}"#).is_err());
}

#[test]
fn edits_touch_only_their_bytes() {
    let change = Change {
        model: "gpt",
        ..Change::default()
    };
    assert_eq!(
        edited(r#"{ "model" : "auto", "messages":[{}] }"#, &change),
        r#"{ "model" : "gpt", "messages":[{}] }"#
    );
    let capped = Change {
        cap: Some(50),
        ..change
    };
    assert_eq!(
        edited(r#"{"stream":true,"model":"gpt","messages":[{}]}"#, &capped),
        r#"{"max_completion_tokens":50,"stream_options":{"include_usage":true},"stream":true,"model":"gpt","messages":[{}]}"#
    );
    assert_eq!(
        edited(
            r#"{"model":"gpt","messages":[{}],"max_tokens":90}"#,
            &capped
        ),
        r#"{"model":"gpt","messages":[{}],"max_tokens":50}"#
    );
    for (options, wanted) in [
        ("null", r#"{"include_usage":true}"#),
        ("{}", r#"{"include_usage":true}"#),
        (
            r#"{"include_usage": false,"y":1}"#,
            r#"{"include_usage": true,"y":1}"#,
        ),
        (r#"{"y":1}"#, r#"{"include_usage":true,"y":1}"#),
        (r#"{"include_usage":true}"#, r#"{"include_usage":true}"#),
    ] {
        let body = format!(
            r#"{{"model":"gpt","messages":[{{}}],"stream":true,"stream_options":{options}}}"#
        );
        let wanted = format!(
            r#"{{"model":"gpt","messages":[{{}}],"stream":true,"stream_options":{wanted}}}"#
        );
        assert_eq!(edited(&body, &change), wanted);
    }
}

#[test]
fn usage_classes_do_not_overlap() {
    let reply = br#"{"choices":[],"usage":{"prompt_tokens":100,"completion_tokens":50,"total_tokens":150,
        "prompt_tokens_details":{"cached_tokens":60},"completion_tokens_details":{"reasoning_tokens":20}}}"#;
    let usage = OpenAiChat.usage(reply).expect("usage");
    assert_eq!(
        (usage.input, usage.cache_read, usage.output, usage.reasoning),
        (40, 60, 30, 20)
    );
    for hostile in ["-1", "1.5", "\"9\"", "99999999999999999999"] {
        let reply = format!(r#"{{"usage":{{"prompt_tokens":{hostile}}}}}"#);
        let usage = OpenAiChat.usage(reply.as_bytes());
        assert!(
            usage.is_none() || usage == Some(Usage::default()),
            "{hostile}"
        );
    }
}

#[test]
fn a_stream_is_followed_to_its_end() {
    let mut watch = OpenAiChat.watch();
    let mut see = |event: &str| watch.event(event.as_bytes());
    let delta = |inner: &str| {
        format!("data: {{\"choices\":[{{\"delta\":{{{inner}}}}}],\"usage\":null}}\n\n")
    };
    assert_eq!(see(": ping\n\n"), Seen::Quiet);
    assert_eq!(
        see(&delta(r#""role":"assistant","content":"""#)),
        Seen::Quiet
    );
    assert_eq!(see(&delta(r#""content":"Hello""#)), Seen::Content);
    assert_eq!(see(&delta(r#""content":" \"usage\": {1}""#)), Seen::Content);
    assert_eq!(
        see("data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}],\"usage\":null}\n\n"),
        Seen::Content
    );
    assert_eq!(
        see("data: {\"choices\":[],\"usage\": {\"prompt_tokens\":3,\"completion_tokens\":2}}\n\n"),
        Seen::UsageOnly
    );
    assert_eq!(see("data: [DONE]\n\n"), Seen::End);
    let facts = watch.facts();
    assert_eq!(facts.usage.map(|u| (u.input, u.output)), Some((3, 2)));
    assert!(facts.finished && facts.counted_output() >= 3);
    assert_eq!(
        OpenAiChat
            .watch()
            .event(b"data: {\"error\":{\"message\":\"x\"}}\n\n"),
        Seen::Error
    );
    assert_eq!(OpenAiChat.watch().event(b"data: {broken\n\n"), Seen::Broken);
}

/// What is seen of `last` behind two pieces of text, and what is known then.
fn seen_behind_content(last: &[u8], mut follower: Follower) -> (Seen, String) {
    for piece in ["Hel", "lo, wörld"] {
        let chunk = format!("data: {}\n\n", chunk_of(piece));
        assert_eq!(follower.event(chunk.as_bytes()), Seen::Content);
    }
    let event = [b"data: ", last, b"\n\n"].concat();
    let seen = follower.event(&event);
    (seen, format!("{:?}", follower.facts()))
}

fn chunk_of(piece: &str) -> String {
    format!(
        r#"{{"id":"c","choices":[{{"index":0,"delta":{{"content":"{piece}"}},"finish_reason":null}}],"usage":null}}"#
    )
}

#[test]
fn a_chunk_is_the_same_whether_it_is_known_from_the_last_one_or_read() {
    let mut chunks: Vec<Vec<u8>> = [
        chunk_of("error"),
        chunk_of(r#"\"usage\":{\"prompt_tokens\":1}"#),
        chunk_of("usage"),
        chunk_of("x").replace("null}]", r#""stop"}]"#),
        chunk_of("x").replace(
            "\"usage\":null",
            r#""usage":{"prompt_tokens":3,"completion_tokens":2}"#,
        ),
        r#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}"#.to_owned(),
        r#"{"error":{"message":"no"}}"#.to_owned(),
    ]
    .map(String::into_bytes)
    .into();
    let plain = chunk_of(r#"a\n\"b\" ü"#).into_bytes();
    for at in 0..plain.len() {
        for byte in *b"\"\\x{}[],:n0 \n\xff\xbc" {
            let mut changed = plain.clone();
            changed[at] = byte;
            chunks.push(changed.clone());
            changed[at] = plain[at];
            changed.insert(at, byte);
            chunks.push(changed);
        }
        let mut cut = plain.clone();
        cut.remove(at);
        chunks.push(cut);
    }
    let mut content = 0;
    for chunk in &chunks {
        let read = Follower {
            content: Alike::blind(),
            ..Follower::new()
        };
        let known = seen_behind_content(chunk, Follower::new());
        content += usize::from(known.0 == Seen::Content);
        let text = String::from_utf8_lossy(chunk);
        assert_eq!(known, seen_behind_content(chunk, read), "{text}");
    }
    assert!(content > 100 && content < chunks.len() / 2, "{content}");
}

#[test]
fn garbage_and_errors_in_midstream_are_never_content() {
    let mut watch = OpenAiChat.watch();
    let mut see = |event: &str| watch.event(event.as_bytes());
    let content = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n";
    assert_eq!(see(content), Seen::Content);
    assert_eq!(
        see("data: {\"choices\":[{\"delta\":{\"content\":\n\n"),
        Seen::Broken
    );
    // One vendor tells of an error in a chunk that has choices, too.
    assert_eq!(
        see(
            "data: {\"error\":{\"code\":502},\"choices\":[{\"delta\":{},\"finish_reason\":\"error\"}]}\n\n"
        ),
        Seen::Error
    );
    assert_eq!(
        see("data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"error\"}]}\n\n"),
        Seen::Error
    );
    assert_eq!(see(content), Seen::Content);
    assert!(!watch.facts().finished);
}
