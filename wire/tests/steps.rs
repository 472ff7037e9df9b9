//! Proves what one scan tells of an agent's steps, alike in three dialects: results, failures, repeats,
//! schemas, marks of code, and the caller's own word.

#![expect(clippy::expect_used, reason = "a test stops where traffic must not")]

use serde_json::{Value, json};
use wire::{Shape, dialect};

/// A call and the result of it, as one of the dialects writes them.
type Turn<'a> = (&'a str, Value, &'a str, bool);

const DIALECTS: [&str; 3] = ["openai_chat", "openai_responses", "anthropic_messages"];

fn scanned(dialect: &str, body: &Value) -> wire::Scan {
    let dialect = dialect::named(dialect).expect("a dialect");
    dialect.scan(body.to_string().as_bytes()).expect("a scan")
}

/// A prompt and turns of calls behind it, in each dialect.
fn shapes(prompt: &str, turns: &[Turn<'_>]) -> [Shape; 3] {
    let mut messages = [
        vec![json!({"role": "user", "content": prompt})],
        vec![json!({"role": "user", "content": prompt})],
        vec![json!({"role": "user", "content": prompt})],
    ];
    for (id, (name, arguments, result, failed)) in turns.iter().enumerate() {
        let id = format!("call_{id}");
        let text = arguments.to_string();
        messages[0].push(json!({"role": "assistant", "tool_calls": [
            {"id": id, "type": "function", "function": {"arguments": text, "name": name}}]}));
        messages[0].push(json!({"content": result, "role": "tool", "tool_call_id": id}));
        messages[1]
            .push(json!({"type": "function_call", "call_id": id, "name": name, "arguments": text}));
        messages[1].push(json!({"output": result, "type": "function_call_output", "call_id": id}));
        messages[2].push(json!({"role": "assistant", "content": [
            {"type": "tool_use", "id": id, "name": name, "input": arguments}]}));
        messages[2].push(json!({"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": id, "content": result, "is_error": failed}]}));
    }
    let [chat, items, blocks] = messages;
    [
        scanned(DIALECTS[0], &json!({"model": "m", "messages": chat})).shape,
        scanned(DIALECTS[1], &json!({"model": "m", "input": items})).shape,
        scanned(
            DIALECTS[2],
            &json!({"model": "m", "messages": blocks, "max_tokens": 9, "system": "s"}),
        )
        .shape,
    ]
}

/// What a test compares.
fn facts(shape: &Shape) -> [u32; 9] {
    [
        shape.depth,
        shape.assistant_turns,
        shape.loop_results,
        shape.last_results,
        shape.result_bytes,
        shape.result_errors,
        shape.tool_errors,
        shape.failures,
        shape.repeats,
    ]
}

#[test]
fn a_loop_is_told_alike_in_each_dialect() {
    let list = || ("ls", json!({"path": "."}));
    let turns = |calls: &[(&str, Value, &'static str, bool)]| shapes("Do it.", calls);
    let (name, path) = list();
    let ran = |result: &'static str, failed: bool| (name, path.clone(), result, failed);
    let cases = [
        (turns(&[]), [0; 9]),
        (turns(&[ran("a b", false)]), [1, 1, 1, 1, 3, 0, 0, 0, 0]),
        (
            turns(&[ran("Error: no", true), ran("fatal: no", true)]),
            [2, 2, 2, 1, 9, 1, 2, 2, 1],
        ),
        (
            turns(&[
                ran("Error: no", true),
                ran("a b", false),
                ran("exit code 12", true),
                (
                    "ls",
                    json!({"path": ".."}),
                    "Traceback (most recent call last)",
                    true,
                ),
            ]),
            [4, 4, 4, 1, 33, 1, 3, 2, 0],
        ),
    ];
    for (shapes, wanted) in &cases {
        for (shape, dialect) in shapes.iter().zip(DIALECTS) {
            assert_eq!(facts(shape), *wanted, "{dialect}");
            assert_eq!(shape.after_tool, wanted[3] > 0, "{dialect}");
        }
    }
}

#[test]
fn a_result_is_a_failure_by_how_it_reads() {
    for (result, failed) in [
        ("error: it broke", true),
        ("ERROR\nit broke", true),
        ("\n\n  Error: it broke", true),
        ("{\"error\":{\"code\":5}}", true),
        ("{\"error\": \"gone\"}", true),
        ("Exit code: 1\nWall time: 2s", true),
        ("exit status 127", true),
        ("Wall time: 2s\nProcess exited with code 3\nOutput:", true),
        ("{\"output\":\"x\",\"metadata\":{\"exit_code\":1}}", true),
        ("Command failed: git push", true),
        ("fatal: not a git repository", true),
        ("npm ERR! missing script", true),
        ("error[E0425]: cannot find value", true),
        ("", false),
        ("n", false),
        ("{\"error\":null,\"ok\":true}", false),
        ("{\"error\": false}", false),
        ("{\"errors\":[]}", false),
        ("Errors: 0", false),
        ("Exit code: 0\nfailed tests: none", false),
        (
            "Wall time: 2s\nProcess exited with code 0\nOutput: error",
            false,
        ),
        ("{\"output\":\"x\",\"metadata\":{\"exit_code\":0}}", false),
        ("Nothing failed.", false),
        ("failure-free for 40 days", false),
        ("The error was mended.", false),
    ] {
        let [chat, responses, _] = shapes("Do it.", &[("f", json!({}), result, false)]);
        assert_eq!(chat.result_errors == 1, failed, "{result}");
        assert_eq!(responses.result_errors == 1, failed, "{result}");
    }
}

#[test]
fn schemas_are_counted_alike() {
    let schema = json!({
        "type": "object",
        "properties": {
            "required": {"type": "string", "enum": ["a", "b"]},
            "list": {"type": "array", "items": {
                "type": "object", "required": ["x"],
                "properties": {"x": {"enum": [1, 2, 3]}},
            }},
        },
        "required": ["required", "list"],
    });
    let hi = json!([{"role": "user", "content": "Hi"}]);
    let bodies = [
        json!({"model": "m", "messages": hi,
            "tools": [{"type": "function", "function": {"name": "f", "strict": true, "parameters": schema}}],
            "response_format": {"type": "json_schema", "json_schema": {"name": "r", "schema": schema}}}),
        json!({"model": "m", "input": hi,
            "tools": [{"type": "function", "name": "f", "strict": true, "parameters": schema}],
            "text": {"format": {"type": "json_schema", "name": "r", "schema": schema}}}),
        json!({"model": "m", "messages": hi, "max_tokens": 9,
            "tools": [{"name": "f", "strict": true, "input_schema": schema}],
            "output_config": {"format": {"type": "json_schema", "schema": schema}}}),
    ];
    for (body, dialect) in bodies.iter().zip(DIALECTS) {
        let shape = scanned(dialect, body).shape;
        let tools = [
            shape.tools,
            shape.tool_required,
            shape.tool_depth,
            shape.tool_enums,
            shape.tool_strict,
        ];
        assert_eq!(tools, [1, 2, 2, 5, 1], "{dialect}");
        let answer = [
            shape.schema_properties,
            shape.schema_enums,
            shape.schema_depth,
        ];
        assert_eq!((shape.schema, answer), (true, [3, 5, 2]), "{dialect}");
    }
}

#[test]
fn marks_of_code_are_counted_in_the_last_texts() {
    let diff = "--- a/x\n+++ b/x\n@@ -1,2 +1,2 @@ fn x\n-a\n+b\n@@ -9 +9 @@\n-c\n+d\n--- a/y\n+++ b/y\n@@ -1 +1 @@\n";
    let told = format!("Look:\n{diff}```rust\nfn x() {{}}\n```\nuser@@example");
    for shape in shapes(&told, &[]) {
        let marks = (shape.diff_hunks, shape.diff_files, shape.code_fences);
        assert_eq!(marks, (3, 2, 1));
    }
    for shape in shapes("Look.", &[("diff", json!({}), diff, false)]) {
        assert_eq!((shape.diff_hunks, shape.diff_files), (3, 2));
    }
}

#[test]
fn a_system_text_behind_the_transcript_hides_no_result() {
    let body = json!({"model": "m", "max_tokens": 9, "messages": [
        {"role": "user", "content": "Do it."},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "ok"},
            {"type": "text", "text": "and now stop"}]},
    ], "system": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]});
    let scan = scanned("anthropic_messages", &body);
    assert!(scan.shape.after_tool && scan.shape.words_beside);
    let text = body.to_string();
    let system = text.get(scan.system_at).expect("a text");
    assert!(
        system.starts_with("one") && system.ends_with("two"),
        "{system}"
    );
}

#[test]
fn a_word_for_the_gateway_stands_once_and_is_a_word() {
    let dialect = dialect::named("openai_chat").expect("a dialect");
    let scan = |metadata: &str| {
        let body = format!("{{\"model\":\"m\",\"metadata\":{metadata},\"messages\":[{{}}]}}");
        dialect
            .scan(body.as_bytes())
            .map(|scan| scan.hint.map(|hint| hint.word))
    };
    assert_eq!(scan("{\"a\":\"b\"}"), Ok(None));
    assert_eq!(scan("null"), Ok(None));
    assert_eq!(
        scan("{\"pareto_step\":\"plan\"}"),
        Ok(Some("plan".to_owned()))
    );
    for wrong in [
        "{\"pareto_step\":1}",
        "{\"Pareto_Step\":\"plan\"}",
        "{\"pareto_step\":\"plan\",\"pareto_step\":\"act\"}",
    ] {
        assert!(scan(wrong).is_err(), "{wrong}");
    }
}
