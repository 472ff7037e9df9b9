//! Proves what is read from messages calls, replies and streams.

use super::*;

#[test]
fn the_shape_of_a_call_is_counted() {
    let body = br#"{"model":"auto","max_tokens":64,"system":[{"type":"text","text":"Be terse."}],
        "messages":[{"role":"user","content":"Hi"},{"role":"assistant","content":[{"type":"tool_use","id":"1"}]},
        {"role":"user","content":[{"type":"tool_result","is_error":true,"content":[{"type":"text","text":"no"}]}]}],
        "tools":[{}],"thinking":{"type":"adaptive"}}"#;
    let scan = AnthropicMessages.scan(body).expect("a good body");
    assert_eq!((scan.model.as_str(), scan.max_output), ("auto", Some(64)));
    let shape = scan.shape;
    assert_eq!(
        (shape.messages, shape.user_turns, shape.system_bytes),
        (3, 1, 9)
    );
    assert_eq!(
        (shape.tool_calls, shape.tool_results, shape.tool_errors),
        (1, 1, 1)
    );
    assert!(shape.after_tool && shape.thinking);
    let mut buffer = [0; 64];
    assert_eq!(
        scan.prompt(body, &mut buffer),
        "Hi",
        "a tool result is not a turn of the user"
    );
}

#[test]
fn a_stream_is_followed_to_its_end() {
    let mut watch = AnthropicMessages.watch();
    let mut see =
        |name: &str, data: &str| watch.event(format!("event: {name}\ndata: {data}\n\n").as_bytes());
    let start = r#"{"type":"message_start","message":{"usage":{"input_tokens":10,"cache_read_input_tokens":5,
        "cache_creation_input_tokens":7,"cache_creation":{"ephemeral_5m_input_tokens":3,
        "ephemeral_1h_input_tokens":4},"output_tokens":1}}}"#.replace('\n', "");
    assert_eq!(see("message_start", &start), Seen::Quiet);
    assert_eq!(see("content_block_start", "{}"), Seen::Quiet);
    assert_eq!(
        see("content_block_delta", r#"{"delta":{"text":"Hello"}}"#),
        Seen::Content
    );
    assert_eq!(
        see(
            "message_delta",
            r#"{"delta":{},"usage":{"output_tokens":12}}"#
        ),
        Seen::Content
    );
    assert_eq!(see("message_stop", "{}"), Seen::End);
    let usage = watch.facts().usage.expect("usage");
    assert_eq!((usage.input, usage.cache_read, usage.output), (10, 5, 12));
    assert_eq!((usage.cache_write_5m, usage.cache_write_1h), (3, 4));
}

#[test]
fn a_stream_cut_before_its_end_reports_the_prompt_only() {
    let mut watch = AnthropicMessages.watch();
    watch.event(b"event: message_start\ndata: {\"message\":{\"usage\":{\"input_tokens\":10,\"output_tokens\":1}}}\n\n");
    watch.event(b"event: content_block_delta\ndata: {\"delta\":{\"text\":\"Hello\"}}\n\n");
    let facts = watch.facts();
    assert_eq!(
        facts.usage, None,
        "the first event's output figure is a placeholder"
    );
    assert_eq!(
        facts.prompt.map(|used| (used.input, used.output)),
        Some((10, 0))
    );
    assert_eq!(watch.event(b"event: error\ndata: {}\n\n"), Seen::Error);
    assert_eq!(
        AnthropicMessages
            .watch()
            .event(b"data: {\"type\":\"error\"}\n\n"),
        Seen::Error
    );
}

#[test]
fn usage_that_nobody_reports_is_not_taken_for_none_used() {
    let end = b"event: message_delta\ndata: {\"delta\":{\"stop_reason\":\"end_turn\"}}\n\n";
    let mut watch = AnthropicMessages.watch();
    watch.event(b"event: message_start\ndata: {\"message\":{}}\n\n");
    assert_eq!(watch.event(end), Seen::Content);
    assert_eq!((watch.facts().usage, watch.facts().prompt), (None, None));

    let mut watch = AnthropicMessages.watch();
    watch.event(b"event: message_start\ndata: {\"message\":{\"usage\":{\"input_tokens\":9,\"output_tokens\":1}}}\n\n");
    watch.event(end);
    let facts = watch.facts();
    assert_eq!(facts.usage, None, "the first output figure is no answer's");
    assert_eq!(facts.prompt.map(|used| used.input), Some(9));
}
