//! Proves what each check finds in a whole answer and in its beginning, and what it leaves alone.

use serde_json::json;
use wire::call::{Part, Tool};

use super::*;

fn said(text: &str) -> Reply {
    Reply {
        parts: vec![Part::text(text)],
        stop: Some(Stop::End),
        ..Reply::default()
    }
}

fn called(name: &str, arguments: &str) -> Reply {
    let call = ToolCall {
        id: "c1".to_owned(),
        name: name.to_owned(),
        arguments: arguments.to_owned(),
        custom: false,
    };
    Reply {
        parts: vec![Part::new(Kind::ToolCall(call))],
        stop: Some(Stop::Tools),
        ..Reply::default()
    }
}

fn checks(format: Format) -> Checks {
    let schema = json!({ "type": "object", "required": ["city"], "properties": { "city": { "type": "string" } } });
    let tool = |name: &str, custom: bool| Tool {
        name: name.to_owned(),
        schema: Some(schema.clone()),
        custom,
        ..Tool::default()
    };
    let call = Call {
        tools: vec![
            tool("look", false),
            tool("draw", true),
            tool(&"long".repeat(40), false),
        ],
        format,
        ..Call::default()
    };
    Checks {
        on: Cascade {
            logprob: true,
            ..Cascade::default()
        },
        call: Some(Arc::new(call)),
        is_uncapped: true,
    }
}

fn whole(format: Format, reply: &Reply) -> Option<Cause> {
    checks(format).cause(reply, Extent::Whole)
}

#[test]
fn a_refusal_is_told_by_marks_and_by_how_a_short_text_begins() {
    let marked = Reply {
        parts: vec![Part::new(Kind::Refusal("No.".to_owned()))],
        ..said("")
    };
    let filtered = Reply {
        stop: Some(Stop::Filter),
        ..said("The way to")
    };
    let declined = said("I'm sorry, but I can't help with that.");
    for reply in [&marked, &filtered, &declined] {
        assert_eq!(
            whole(Format::Text, reply),
            Some(Cause::Refusal),
            "{reply:?}"
        );
    }
    let long = said(&format!(
        "I'm sorry, but I can't do it all. {}",
        "But this. ".repeat(200)
    ));
    assert_eq!(whole(Format::Text, &long), None);
    let begun = checks(Format::Text).cause(&declined, Extent::Beginning);
    assert_eq!(begun, Some(Cause::Refusal));
}

#[test]
fn a_cut_is_held_against_an_answer_only_where_the_caller_did_not_ask_for_it() {
    let cut = Reply {
        stop: Some(Stop::Length),
        ..said("{\"city\": \"Pa")
    };
    assert_eq!(whole(Format::Text, &cut), Some(Cause::Truncated));
    let capped = Checks {
        is_uncapped: false,
        ..checks(Format::Json)
    };
    assert_eq!(capped.cause(&cut, Extent::Whole), None, "nor is its JSON");
    assert_eq!(whole(Format::Text, &said(" \n")), Some(Cause::Truncated));
    let sound = wire::Usage {
        audio_output: 9,
        ..wire::Usage::default()
    };
    let spoken = Reply {
        usage: Some(sound),
        ..said("")
    };
    assert_eq!(whole(Format::Text, &spoken), None);
    for stop in [Stop::Sequence(None), Stop::Tools] {
        let stopped = Reply {
            stop: Some(stop),
            ..said("")
        };
        assert_eq!(whole(Format::Text, &stopped), None);
    }
}

#[test]
fn json_must_be_what_was_asked_for() {
    let schema = || Format::Schema {
        name: "place".to_owned(),
        schema: json!({ "type": "object", "required": ["city"] }),
        strict: None,
        description: None,
    };
    assert_eq!(whole(schema(), &said("{\"city\":\"Paris\"}")), None);
    assert_eq!(whole(schema(), &said("{\"town\":1}")), Some(Cause::Schema));
    assert_eq!(whole(Format::Json, &said("[1]")), Some(Cause::Schema));
    assert_eq!(whole(Format::Json, &said("Paris")), Some(Cause::Schema));
    assert_eq!(
        whole(schema(), &called("look", "{\"city\":\"Paris\"}")),
        None
    );
    let begun = checks(schema()).cause(&said("{\"ci"), Extent::Beginning);
    assert_eq!(begun, None, "the rest is still to come");
}

#[test]
fn tools_must_be_called_as_they_are_offered() {
    let wrong = Some(Cause::ToolArguments);
    assert_eq!(
        whole(Format::Text, &called("look", "{\"city\":\"Paris\"}")),
        None
    );
    assert_eq!(whole(Format::Text, &called("look", "{\"city\":1}")), wrong);
    assert_eq!(whole(Format::Text, &called("look", "{\"city\":")), wrong);
    assert_eq!(whole(Format::Text, &called("look", "")), wrong);
    assert_eq!(whole(Format::Text, &called("hear", "{}")), wrong);
    assert_eq!(whole(Format::Text, &called("draw", "a line")), None);
    let mut vendors = checks(Format::Text);
    vendors.call = Some(Arc::new(Call {
        tools: vec![Tool {
            own: Some(json!({})),
            ..Tool::default()
        }],
        ..Call::default()
    }));
    assert_eq!(
        vendors.cause(&called("computer", "{}"), Extent::Whole),
        None
    );
}

#[test]
fn improbable_beginnings_are_told_by_enough_tokens() {
    let with = |count: usize, logprob: f64| Reply {
        logprobs: vec![json!({ "token": "a", "logprob": logprob }); count],
        ..said("The sum is 12.")
    };
    let begun = |reply: &Reply| checks(Format::Text).cause(reply, Extent::Beginning);
    assert_eq!(begun(&with(20, -2.0)), Some(Cause::Logprob));
    assert_eq!(begun(&with(3, -2.0)), None);
    assert_eq!(whole(Format::Text, &with(3, -2.0)), Some(Cause::Logprob));
    assert_eq!(whole(Format::Text, &with(20, -0.5)), None);
    assert_eq!(
        whole(Format::Text, &said("I don't know.")),
        Some(Cause::Doubt)
    );
}
