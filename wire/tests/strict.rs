//! Proves what is refused before a call is written anew, and what is not. Each line of a table is what the
//! refusal names, or the losses that are told instead, and a piece of a call, which stands for `$` in a frame.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test stops where traffic must not"
)]

use serde_json::{Value, json};
use wire::dialect::{
    ANTHROPIC_MESSAGES as MESSAGES, Change, OPENAI_CHAT as CHAT, OPENAI_RESPONSES as RESPONSES,
};
use wire::{Dialect, Losses};

/// A good call of `dialect` with the fields of `fragment` in it, to the letter.
fn body(dialect: &dyn Dialect, fragment: &str) -> String {
    let list = ["messages", "input"][usize::from(dialect.name() == "openai_responses")];
    let parsed: Value = serde_json::from_str(fragment).expect(fragment);
    let fields = fragment.trim().strip_prefix('{').unwrap();
    if parsed.get(list).is_some() {
        return format!("{{\"model\":\"m\",{fields}");
    }
    format!("{{\"model\":\"m\",\"{list}\":[{{\"role\":\"user\",\"content\":\"Hi\"}}],{fields}")
}

/// The lines of a table: what is told, and the fields.
fn rows<'a>(frame: &str, table: &'a str) -> Vec<(&'a str, String)> {
    let lines = table.lines().map(str::trim).filter(|line| !line.is_empty());
    let rows = lines.map(|line| line.split_once(" | ").expect(line));
    rows.map(|(told, piece)| (told.trim(), frame.replace('$', piece.trim())))
        .collect()
}

/// Holds that each row is refused in words that name what is wrong with it.
fn refused(dialect: &dyn Dialect, frame: &str, table: &str) {
    for (named, fragment) in rows(frame, table) {
        let decoded = dialect.decode(body(dialect, &fragment).as_bytes());
        let Err(why) = decoded else {
            panic!("{} takes {fragment}", dialect.name());
        };
        assert!(
            why.to_string().contains(&format!("`{named}`")),
            "{fragment}: {why}"
        );
    }
}

/// Holds that each row is taken, and what is lost of it on the way to `to`; `-` where nothing is.
fn taken(dialect: &dyn Dialect, to: &dyn Dialect, frame: &str, table: &str) {
    for (lost, fragment) in rows(frame, table) {
        let call = dialect.decode(body(dialect, &fragment).as_bytes());
        let mut call = call.unwrap_or_else(|why| panic!("{fragment}: {why}"));
        let mut losses = Losses::default();
        call.withhold(to.name(), "there", &mut losses);
        let sent = to.encode(&call, &Change::default(), &mut losses);
        assert_eq!(
            losses.header(),
            lost.trim_matches('-'),
            "{fragment}: {sent}"
        );
        assert!(to.decode(sent.to_string().as_bytes()).is_ok(), "{sent}");
    }
}

/// Holds that each field is refused with each of the values in its list.
fn fields(dialect: &dyn Dialect, table: &str) {
    for (name, values) in rows("$", table) {
        let values: Vec<Value> = serde_json::from_str(&values).expect(&values);
        for value in values {
            refused(dialect, "{$}", &format!("{name} | \"{name}\":{value}"));
        }
        // What is not there may be written as `null`.
        let absent = body(dialect, &format!("{{\"{name}\":null}}"));
        assert!(dialect.decode(absent.as_bytes()).is_ok(), "{name}");
    }
}

#[test]
fn known_fields_are_of_their_kind() {
    fields(
        CHAT,
        r#"
        parallel_tool_calls   | ["x", 5, {}]
        logprobs              | ["x", 5, {}]
        store                 | ["x", 5, {}]
        seed                  | ["x", 1.5, 18446744073709551615]
        n                     | [0, -1, 1.5, "x"]
        max_tokens            | ["x", -1, 1.5, true]
        max_completion_tokens | ["x", -1, 1.5, true]
        top_logprobs          | ["x", -1, 1.5, true]
        service_tier          | [5, true, {}, ["x"]]
        verbosity             | [5, true, {}, ["x"]]
        prompt_cache_key      | [5, true, {}, ["x"]]
        safety_identifier     | [5, true, {}, ["x"]]
        logit_bias            | [5, "x", []]
        "#,
    );
    fields(
        RESPONSES,
        r#"
        parallel_tool_calls | ["x", 5, {}]
        include             | ["x", 5, {}, [5]]
        top_logprobs        | ["x", -1, 1.5, true]
        max_output_tokens   | ["x", -1, 1.5, true]
        instructions        | [5, true, {}, ["x"], [{}]]
        truncation          | [5, true, {}, ["x"]]
        service_tier        | [5, true, {}, ["x"]]
        user                | [5, true, {}, ["x"]]
        safety_identifier   | [5, true, {}, ["x"]]
        prompt_cache_key    | [5, true, {}, ["x"]]
        "#,
    );
    fields(
        MESSAGES,
        r#"
        max_tokens    | ["x", -1, 1.5, true]
        top_k         | ["x", -1, 1.5, true]
        service_tier  | [5, true, {}, ["x"]]
        output_config | [5, "x", []]
        output_format | [5, "x", []]
        "#,
    );
}

#[test]
fn calls_and_results_of_chat_say_what_they_are() {
    let made = r#"{"messages":[{"role":"user","content":"Hi"},{"role":"assistant","content":null,"tool_calls":$}]}"#;
    refused(
        CHAT,
        made,
        r#"
        messages.tool_calls                    | "zz"
        messages.tool_calls                    | ["zz", 5]
        messages.tool_calls.id                 | [{"type":"function","function":{"name":"f","arguments":"{}"}}]
        messages.tool_calls.id                 | [{"id":"","function":{"name":"f","arguments":"{}"}}]
        messages.tool_calls.id                 | [{"id":5,"function":{"name":"f","arguments":"{}"}}]
        messages.tool_calls.function.name      | [{"id":"a"}]
        messages.tool_calls.function.name      | [{"id":"a","function":{"arguments":"{}"}}]
        messages.tool_calls.function.name      | [{"id":"a","function":{"name":"","arguments":"{}"}}]
        messages.tool_calls.function.arguments | [{"id":"a","function":{"name":"f"}}]
        messages.tool_calls.function.arguments | [{"id":"a","function":{"name":"f","arguments":5}}]
        messages.tool_calls.custom.name        | [{"id":"a","type":"custom","custom":{"input":"x"}}]
        messages.tool_calls.custom.input       | [{"id":"a","type":"custom","custom":{"name":"f"}}]
        "#,
    );
    taken(
        CHAT,
        MESSAGES,
        made,
        r#"
        -                             | null
        -                             | []
        approximated:messages.prefill | [{"id":"a","function":{"name":"f","arguments":{"a":1}}}]
        "#,
    );
    let told = r#"{"messages":[{"role":"user","content":"Hi"},$]}"#;
    refused(
        CHAT,
        told,
        r#"
        messages.function_call           | {"role":"assistant","content":null,"function_call":"f"}
        messages.function_call.name      | {"role":"assistant","content":null,"function_call":{"arguments":"{}"}}
        messages.function_call.arguments | {"role":"assistant","content":null,"function_call":{"name":"f"}}
        messages.tool_call_id            | {"role":"tool","content":"x"}
        messages.tool_call_id            | {"role":"tool","tool_call_id":5,"content":"x"}
        messages.name                    | {"role":"function","content":"x"}
        "#,
    );
    taken(
        CHAT,
        MESSAGES,
        told,
        r#"
        - | {"role":"assistant","function_call":{"name":"f","arguments":""}},{"role":"function","name":"f","content":null}
        - | {"role":"assistant","content":"x","tool_calls":null,"function_call":null,"refusal":null},{"role":"user","content":""},{"role":"user","content":"y"}
        "#,
    );
}

#[test]
fn parts_and_tools_of_chat_say_what_they_are() {
    let part = r#"{"messages":[{"role":"user","content":[{"type":"text","text":"Hi"},$]}]}"#;
    refused(
        CHAT,
        part,
        r#"
        messages.content                  | {"text":"x"}
        messages.content                  | {"type":5,"text":"x"}
        messages.content                  | "x"
        messages.content.text             | {"type":"text"}
        messages.content.image_url.url    | {"type":"image_url"}
        messages.content.image_url.url    | {"type":"image_url","image_url":{}}
        messages.content.image_url.url    | {"type":"image_url","image_url":{"url":""}}
        messages.content.image_url.url    | {"type":"image_url","image_url":{"url":5}}
        messages.content.input_audio.data | {"type":"input_audio","input_audio":{"format":"wav"}}
        "#,
    );
    taken(
        CHAT,
        RESPONSES,
        part,
        r#"
        -                      | {"type":"image_url","image_url":"https://x.example/a.png"}
        -                      | {"type":"image_url","image_url":{"url":"https://x.example/a.png","detail":null}}
        -                      | {"type":"text","text":""}
        dropped:messages.video | {"type":"video","video":5}
        "#,
    );
    refused(
        CHAT,
        "{$}",
        r#"
        tools.type                         | "tools":[{"function":{"name":"f"}}]
        tools                              | "tools":[{"type":"function"}]
        tools                              | "tools":[{"type":"custom","custom":{}}]
        tools.parameters                   | "tools":[{"type":"function","function":{"name":"f","parameters":"x"}}]
        tools.parameters                   | "tools":[{"type":"function","function":{"name":"f","parameters":[]}}]
        response_format.type               | "response_format":{}
        response_format.type               | "response_format":{"a":1}
        response_format.json_schema.schema | "response_format":{"type":"json_schema"}
        response_format.json_schema.schema | "response_format":{"type":"json_schema","json_schema":{"schema":[]}}
        "#,
    );
    taken(
        CHAT,
        RESPONSES,
        "{$}",
        r#"
        -                       | "tools":[{"type":"function","function":{"name":"f","parameters":null}}]
        -                       | "response_format":{"type":"json_schema","json_schema":{"schema":{}}}
        dropped:response_format | "response_format":{"type":"grammar"}
        dropped:seed            | "n":1,"seed":-1,"store":false,"logprobs":false,"max_tokens":90
        "#,
    );
}

#[test]
fn items_of_responses_say_what_they_are() {
    let item = r#"{"input":[{"role":"user","content":"Hi"},$]}"#;
    refused(
        RESPONSES,
        item,
        r#"
        input.type      | {"type":5,"role":"user","content":"x"}
        input.call_id   | {"type":"function_call","name":"f","arguments":"{}"}
        input.name      | {"type":"function_call","call_id":"a","arguments":"{}"}
        input.arguments | {"type":"function_call","call_id":"a","name":"f"}
        input.call_id   | {"type":"custom_tool_call","name":"f","input":"x"}
        input.input     | {"type":"custom_tool_call","call_id":"a","name":"f"}
        input.call_id   | {"type":"function_call_output","output":"x"}
        input.call_id   | {"type":"function_call_output","call_id":"","output":"x"}
        input.output    | {"type":"function_call_output","call_id":"a"}
        input.output    | {"type":"function_call_output","call_id":"a","output":null}
        input.output    | {"type":"function_call_output","call_id":"a","output":[5,"x"]}
        input.output    | {"type":"custom_tool_call_output","call_id":"a"}
        input.content   | {"role":"user","content":[{"text":"x"}]}
        input.content.image_url | {"role":"user","content":[{"type":"input_image"}]}
        input.content.image_url | {"role":"user","content":[{"type":"input_image","image_url":{"url":"x"}}]}
        "#,
    );
    taken(
        RESPONSES,
        CHAT,
        item,
        "dropped:input.hologram | {\"type\":\"hologram\"}",
    );
    refused(
        RESPONSES,
        "{$}",
        r#"
        tools.type         | "tools":[{"name":"f"}]
        tools              | "tools":[{"type":"function"}]
        tools              | "tools":[{"type":"custom"}]
        tools              | "tools":[{"type":"namespace","name":"n","tools":[{"type":"function"}]}]
        tools.parameters   | "tools":[{"type":"function","name":"f","parameters":"x"}]
        text.format        | "text":{"format":5}
        text.format.type   | "text":{"format":{}}
        text.format.schema | "text":{"format":{"type":"json_schema","name":"x"}}
        text.verbosity     | "text":{"verbosity":5}
        "#,
    );
    taken(
        RESPONSES,
        CHAT,
        "{$}",
        r#"
        - | "tools":[{"type":"function","name":"f","parameters":null,"strict":null}]
        - | "text":{"format":null},"include":[],"truncation":"auto","store":true
        "#,
    );
}

#[test]
fn blocks_of_messages_say_what_they_are() {
    let block = r#"{"messages":[{"role":"user","content":"Hi"},$]}"#;
    refused(
        MESSAGES,
        block,
        r#"
        messages.content.id          | {"role":"assistant","content":[{"type":"tool_use","name":"f","input":{}}]}
        messages.content.name        | {"role":"assistant","content":[{"type":"tool_use","id":"a","name":5,"input":{}}]}
        messages.content.input       | {"role":"assistant","content":[{"type":"tool_use","id":"a","name":"f","input":"{}"}]}
        messages.content.input       | {"role":"assistant","content":[{"type":"tool_use","id":"a","name":"f"}]}
        tool_use                     | {"role":"user","content":[{"type":"tool_use","id":"a","name":"f","input":{}}]}
        tool_result                  | {"role":"assistant","content":[{"type":"tool_result","tool_use_id":"a"}]}
        messages.content.tool_use_id | {"role":"user","content":[{"type":"tool_result"}]}
        messages.content.content     | {"role":"user","content":[{"type":"tool_result","tool_use_id":"a","content":5}]}
        messages.content.content     | {"role":"user","content":[{"type":"tool_result","tool_use_id":"a","content":[5,"x"]}]}
        tool_result                  | {"role":"user","content":[{"type":"tool_result","tool_use_id":"a","content":[{"type":"tool_result"}]}]}
        messages.content.is_error    | {"role":"user","content":[{"type":"tool_result","tool_use_id":"a","is_error":"yes"}]}
        messages.content             | {"role":"user","content":[{"text":"x"}]}
        messages.content.source.type | {"role":"user","content":[{"type":"image"}]}
        messages.content.source.url  | {"role":"user","content":[{"type":"image","source":{"type":"url","url":""}}]}
        messages.content.source.data | {"role":"user","content":[{"type":"image","source":{"type":"base64","media_type":"image/png"}}]}
        "#,
    );
    let result = r#"{"messages":[{"role":"user","content":"Hi"},{"role":"assistant","content":[{"type":"tool_use","id":"a",
        "name":"f","input":{}}]},{"role":"user","content":[{"type":"tool_result","tool_use_id":"a"$}]}]}"#;
    taken(
        MESSAGES,
        CHAT,
        result,
        r#"
        - | ,"x":5
        - | ,"content":null,"is_error":null
        - | ,"content":[]
        - | ,"content":"x","is_error":false
        "#,
    );
    refused(
        MESSAGES,
        "{$}",
        r#"
        system.text                 | "system":[{"type":"text"}]
        system                      | "system":[{"text":"x"}]
        tools.input_schema          | "tools":[{"name":"f","input_schema":"x"}]
        tools.type                  | "tools":[{"type":5,"name":"f"}]
        thinking.type               | "thinking":{}
        output_config.effort        | "output_config":{"effort":5}
        output_config.format.schema | "output_config":{"format":{"type":"json_schema"}}
        output_format.schema        | "output_format":{"type":"json_schema","schema":5}
        "#,
    );
    taken(
        MESSAGES,
        CHAT,
        "{$}",
        r#"
        -                | "tools":[{"name":"f"},{"type":"custom","name":"g"}]
        dropped:thinking | "thinking":{"type":"utmost"}
        "#,
    );
}

#[test]
fn a_choice_of_no_tool_is_none() {
    refused(
        CHAT,
        r#"{"tools":[{"type":"function","function":{"name":"f"}}],$}"#,
        r#"
        tool_choice | "tool_choice":"bogus"
        tool_choice | "tool_choice":{}
        tool_choice | "tool_choice":{"type":"function","function":{"name":"g"}}
        tool_choice | "tool_choice":{"type":"allowed_tools","allowed_tools":{"mode":"bogus"}}
        tool_choice | "tool_choice":"required","tools":[]
        "#,
    );
    refused(
        RESPONSES,
        r#"{"tools":[{"type":"function","name":"f"}],$}"#,
        r#"
        tool_choice | "tool_choice":"bogus"
        tool_choice | "tool_choice":{}
        tool_choice | "tool_choice":{"type":"function"}
        tool_choice | "tool_choice":{"type":"function","name":"g"}
        "#,
    );
    refused(
        MESSAGES,
        r#"{"tools":[{"name":"f"}],$}"#,
        r#"
        tool_choice | "tool_choice":{}
        tool_choice | "tool_choice":{"type":"bogus"}
        tool_choice | "tool_choice":{"type":"tool"}
        tool_choice | "tool_choice":{"type":"tool","name":"g"}
        tool_choice | "tool_choice":{"type":"any"},"tools":null
        "#,
    );
    taken(
        CHAT,
        MESSAGES,
        r#"{"tools":[{"type":"function","function":{"name":"f"}}],$}"#,
        r#"
        -                         | "tool_choice":"any"
        -                         | "tool_choice":"auto","tools":null
        -                         | "tool_choice":"none","tools":[]
        dropped:tool_choice.tools | "tool_choice":{"type":"allowed_tools","allowed_tools":{"mode":"required","tools":[]}}
        "#,
    );
    let own =
        "dropped:tools.web_search, dropped:tool_choice | \"tool_choice\":{\"type\":\"web_search\"}";
    let tools = r#"{"tools":[{"type":"function","name":"f"},{"type":"web_search"}],$}"#;
    taken(RESPONSES, MESSAGES, tools, own);
}

#[test]
fn a_call_that_says_nothing_is_not_answered() {
    for (dialect, list) in [
        (CHAT, "messages"),
        (RESPONSES, "input"),
        (MESSAGES, "messages"),
    ] {
        for blank in [
            "\"\"",
            "\" \\n\"",
            "[]",
            "[{\"type\":\"text\",\"text\":\" \"}]",
        ] {
            let turns = format!(
                "[{{\"role\":\"assistant\",\"content\":\"\"}},{{\"role\":\"user\",\"content\":{blank}}}]"
            );
            refused(dialect, "{$}", &format!("{list} | \"{list}\":{turns}"));
        }
    }
    refused(
        RESPONSES,
        "{$}",
        "input | \"input\":\"\"\ninput | \"input\":[]",
    );
    taken(
        CHAT,
        RESPONSES,
        r#"{"messages":[$]}"#,
        r#"
        - | {"role":"system","content":"Write a haiku."}
        - | {"role":"user","content":"Hi"},{"role":"user","content":""}
        - | {"role":"user","content":[{"type":"image_url","image_url":{"url":"https://x.example/a.png"}}]}
        "#,
    );
    for elsewhere in ["previous_response_id", "conversation", "prompt"] {
        let call = body(
            RESPONSES,
            &format!("{{\"input\":\"\",\"{elsewhere}\":\"x\"}}"),
        );
        assert!(
            RESPONSES.decode(call.as_bytes()).is_ok(),
            "what came before is not in it"
        );
    }
}

#[test]
fn a_response_goes_on_from_one_that_has_an_id() {
    let scan = |field: &str| RESPONSES.scan(body(RESPONSES, &format!("{{{field}}}")).as_bytes());
    for (name, values) in [
        ("previous_response_id", json!([5, true, [], {}, ""])),
        (
            "conversation",
            json!([5, true, [], ["x"], {}, "", { "id": 5 }, { "id": "" }, { "id": null }]),
        ),
        ("store", json!(["false", 1, [], {}])),
    ] {
        for value in values.as_array().unwrap() {
            let why = scan(&format!("\"{name}\":{value}"))
                .unwrap_err()
                .to_string();
            assert!(why.contains(&format!("`{name}`")), "{name} {value}: {why}");
        }
        let absent = scan(&format!("\"{name}\":null")).unwrap();
        let is_empty = absent.previous.is_empty() && absent.conversation.is_empty();
        assert!(is_empty && !absent.is_unstored, "{name}");
    }
    let both = scan(r#""previous_response_id":"resp_1","store":false"#).unwrap();
    assert_eq!((both.previous.as_str(), both.is_unstored), ("resp_1", true));
    for named in [
        "\"conv_1\"",
        "{\"id\":\"conv_1\",\"object\":\"conversation\"}",
    ] {
        let scanned = scan(&format!("\"conversation\":{named}")).unwrap();
        assert_eq!(scanned.conversation, "conv_1");
    }
}

#[test]
fn numbers_that_change_are_told_of() {
    let made = r#"{"messages":[{"role":"user","content":"Hi"},{"role":"assistant","content":null,"tool_calls":[{"id":"a",
        "type":"function","function":{"name":"f","arguments":"{\"n\":$}"}}]},{"role":"tool","tool_call_id":"a","content":"x"}]}"#;
    let table = "
        approximated:tool_call.arguments | 12345678901234567890123
        approximated:tool_call.arguments | 1234567890123456789.12
        - | 1.10
        - | 1E+2
        - | 18446744073709551615
        ";
    taken(CHAT, MESSAGES, made, table);
    taken(CHAT, RESPONSES, made, "- | 12345678901234567890123");
    let used = r#"{"messages":[{"role":"user","content":"Hi"},{"role":"assistant","content":[{"type":"tool_use","id":"a",
        "name":"f","input":{"n":[$]}}]},{"role":"user","content":[{"type":"tool_result","tool_use_id":"a","content":"x"}]}]}"#;
    taken(MESSAGES, CHAT, used, table);
    let schema = r#"{"tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object",
        "properties":{"n":{"type":"number","maximum":$}}}}}]}"#;
    let table = "approximated:tools.schema | 12345678901234567890123\n- | 1e3";
    taken(CHAT, MESSAGES, schema, table);
    taken(CHAT, RESPONSES, schema, table);
    let form = r#"{"response_format":{"type":"json_schema","json_schema":{"name":"x","schema":{"const":$}}}}"#;
    taken(
        CHAT,
        RESPONSES,
        form,
        "approximated:response_format.schema | 12345678901234567890123\n- | 1e3",
    );
}
