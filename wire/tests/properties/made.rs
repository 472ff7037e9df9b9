//! Calls and answers made up at random, such as a client or a model may well make them.

use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use wire::call::{
    Choice, Citation, Effort, Format, Kind, Media, Part, Reasoning, Role, Sampling, Seal, Source,
    Text, Thinking, Tool, ToolCall, ToolResult, Turn,
};
use wire::reply::{Reply, Stop};
use wire::{Call, Usage};

use crate::support::ORIGIN;

/// Something that most calls lack, so that enough of them lose nothing anywhere.
fn rarely<T: std::fmt::Debug>(what: impl Strategy<Value = T>) -> impl Strategy<Value = Option<T>> {
    proptest::option::weighted(0.04, what)
}

/// A text that is not blank and does not end in white space.
pub(crate) fn text() -> impl Strategy<Value = String> {
    "[a-zäß🙂\"\\\\{}]([ -~äß🙂\n]{0,8}[a-z.🙂])?"
}

/// A call with up to six rounds, each of a question, an answer and the results of its tools.
pub(crate) fn call() -> impl Strategy<Value = Call> {
    let tools = vec(tool(), 0..4).prop_map(|tools| {
        let numbered = tools.into_iter().enumerate();
        numbered
            .map(|(number, tool)| Tool {
                name: format!("tool_{number}"),
                ..tool
            })
            .collect::<Vec<_>>()
    });
    let heads = vec(text(), 0..3);
    (heads, vec(round(), 1..6), tools, asked_for(), sampling()).prop_map(
        |(heads, rounds, tools, (mut call, choice, parallel), sampling)| {
            let head = |text| Turn::new(Role::System, vec![Part::text(text)]);
            call.turns = heads.into_iter().map(head).collect();
            for (number, round) in rounds.into_iter().enumerate() {
                call.turns.extend(round.turns(number));
            }
            call.turns
                .push(Turn::new(Role::User, vec![Part::text("And now?")]));
            let mut tools = tools;
            if tools.is_empty() && call.turns.iter().any(Turn::calls_tools) {
                tools.push(Tool {
                    name: "tool_0".to_owned(),
                    ..Tool::default()
                });
            }
            if let Some(first) = tools.first() {
                call.choice = choice.map(|choice| match choice {
                    Choice::Tool(_) => Choice::Tool(first.name.clone()),
                    choice => choice,
                });
                call.parallel = parallel;
            }
            call.tools = tools;
            call.sampling = sampling;
            call
        },
    )
}

/// What a call asks for, but for its turns and tools.
fn asked_for() -> impl Strategy<Value = (Call, Option<Choice>, Option<bool>)> {
    let choice = prop_oneof![
        Just(Choice::Auto),
        Just(Choice::None),
        Just(Choice::Required),
        Just(Choice::Tool(String::new())),
    ];
    let lane = prop_oneof![8 => Just("auto"), 8 => Just("default"), 1 => Just("flex")];
    let who = (
        of("[a-z]{1,9}"),
        rarely("[a-z]{1,9}"),
        rarely(Just("low".to_owned())),
    );
    let how = (format(), reasoning(), 16_u64..40_000, any::<bool>());
    (
        of(choice),
        of(any::<bool>()),
        of(lane),
        who,
        how,
        rarely(Just(())),
    )
        .prop_map(
            |(choice, parallel, lane, (user, cache_key, verbosity), how, has_metadata)| {
                let (format, reasoning, cap, stream) = how;
                let metadata = [("team".to_owned(), Value::from("red"))];
                let call = Call {
                    model: "model".to_owned(),
                    format,
                    verbosity,
                    reasoning,
                    max_output: Some(cap),
                    stream,
                    lane: lane.map(str::to_owned),
                    user,
                    metadata: metadata
                        .into_iter()
                        .filter(|_| has_metadata.is_some())
                        .collect(),
                    cache_key,
                    ..Call::default()
                };
                (call, choice, parallel)
            },
        )
}

fn schema() -> Value {
    json!({ "type": "object", "properties": { "a": { "type": "string" } }, "required": ["a"],
        "additionalProperties": false })
}

fn format() -> impl Strategy<Value = Format> {
    let schema = Format::Schema {
        name: "answer".to_owned(),
        schema: schema(),
        strict: Some(true),
        description: None,
    };
    prop_oneof![30 => Just(Format::Text), 1 => Just(Format::Json), 9 => Just(schema)]
}

fn reasoning() -> impl Strategy<Value = Reasoning> {
    let effort = prop_oneof![
        Just(Effort::None),
        Just(Effort::Minimal),
        Just(Effort::Low),
        Just(Effort::High),
        Just(Effort::XHigh),
        Just(Effort::Max),
    ];
    let by_effort = effort.prop_map(|effort| Reasoning {
        effort: Some(effort),
        ..Reasoning::default()
    });
    let by_budget = (1_u64..50_000).prop_map(|budget| Reasoning {
        enabled: Some(true),
        budget: Some(budget),
        ..Reasoning::default()
    });
    prop_oneof![16 => Just(Reasoning::default()), 1 => by_effort, 1 => by_budget]
}

fn sampling() -> impl Strategy<Value = Sampling> {
    let tenth = || {
        let tenths = 1_u8..12;
        proptest::option::weighted(0.2, tenths.prop_map(|tenths| f64::from(tenths) / 10.0))
    };
    let rare = || rarely(1_u64..5);
    let stop = prop_oneof![12 => Just(Vec::new()), 1 => vec(text(), 0..6)];
    (
        tenth(),
        tenth(),
        rare(),
        rare(),
        rare(),
        rare(),
        rare(),
        stop,
    )
        .prop_map(
            |(temperature, top_p, top_k, seed, penalty, logprobs, answers, stop)| Sampling {
                temperature,
                top_p: top_p.map(|top_p| top_p / 2.0),
                top_k,
                seed: seed.map(u64::cast_signed),
                presence_penalty: penalty.map(|_| 0.5),
                frequency_penalty: penalty.map(|_| -0.5),
                logit_bias: seed.map(|_| json!({ "7": -100 })),
                logprobs,
                answers: answers.map(|answers| answers + 1),
                stop,
            },
        )
}

fn tool() -> impl Strategy<Value = Tool> {
    let cache = of(Just(json!({ "type": "ephemeral" })));
    (of(text()), 0..60, of(Just(true)), cache).prop_map(|(description, kind, strict, cache)| Tool {
        description,
        schema: match kind {
            0 => None,
            1 => Some(json!({ "type": "grammar", "syntax": "lark", "definition": "start: \"x\"" })),
            _ => Some(schema()),
        },
        custom: kind == 1,
        strict: strict.filter(|_| kind > 1),
        cache: cache.filter(|_| kind == 2),
        ..Tool::default()
    })
}

/// A question, and what came of it.
#[derive(Debug, Clone)]
struct Round {
    system: Option<String>,
    question: Vec<Part>,
    thinking: Option<(u8, String)>,
    answer: Vec<Part>,
    calls: Vec<(Value, Vec<Part>, bool)>,
    remark: Option<String>,
}

fn round() -> impl Strategy<Value = Round> {
    let answer = vec(said(), 1..3);
    let result = vec(
        prop_oneof![60 => text().prop_map(Part::text), 1 => image()],
        0..3,
    );
    let call = (arguments(), result, proptest::bool::weighted(0.01));
    let thinking = rarely((0..4_u8, text()));
    let rest = (vec(call, 0..4), of(text()));
    (
        proptest::option::weighted(0.2, text()),
        question(),
        thinking,
        answer,
        rest,
    )
        .prop_map(
            |(system, question, thinking, answer, (calls, remark))| Round {
                system,
                question,
                thinking,
                answer,
                calls,
                remark,
            },
        )
}

impl Round {
    fn turns(self, number: usize) -> Vec<Turn> {
        let mut turns = vec![Turn::new(Role::User, self.question)];
        // The first word is the user's; behind it, the system may speak at any time.
        turns.extend(
            self.system
                .map(|text| Turn::new(Role::System, vec![Part::text(text)])),
        );
        let thinking = self
            .thinking
            .map(|(kind, text)| Part::new(sealed(kind, text)));
        let mut parts: Vec<Part> = thinking.into_iter().collect();
        parts.extend(self.answer);
        let mut results = Vec::new();
        for (place, (arguments, result, is_error)) in self.calls.into_iter().enumerate() {
            let id = format!("call_{number}_{place}");
            parts.push(Part::new(Kind::ToolCall(ToolCall {
                id: id.clone(),
                name: "tool_0".to_owned(),
                arguments: arguments.to_string(),
                custom: false,
            })));
            results.push(Part::new(Kind::ToolResult(ToolResult {
                id,
                parts: result,
                is_error,
                custom: false,
            })));
        }
        turns.push(Turn::new(Role::Assistant, parts));
        if !results.is_empty() {
            results.extend(self.remark.map(Part::text));
            turns.push(Turn::new(Role::User, results));
        }
        turns
    }
}

fn question() -> impl Strategy<Value = Vec<Part>> {
    let marked =
        (text(), of(Just(json!({ "type": "ephemeral" })))).prop_map(|(text, cache)| Part {
            cache,
            ..Part::text(text)
        });
    let piece =
        prop_oneof![60 => text().prop_map(Part::text), 1 => marked, 6 => image(), 1 => file()];
    (text(), vec(piece, 0..3)).prop_map(|(text, mut parts)| {
        parts.insert(0, Part::text(text));
        parts
    })
}

/// A piece of a visible answer.
fn said() -> impl Strategy<Value = Part> {
    let cited = (text(), of(Just(()))).prop_map(|(text, cited)| {
        let citation = Citation {
            url: "https://example.com/a".to_owned(),
            title: "A".to_owned(),
            quote: String::new(),
            span: Some((0, 1)),
        };
        let citations = cited.map(|()| citation).into_iter().collect();
        Part::new(Kind::Text(Text { text, citations }))
    });
    let refused = text().prop_map(|text| Part::new(Kind::Refusal(text)));
    prop_oneof![90 => text().prop_map(Part::text), 1 => cited, 1 => refused]
}

fn media(source: Source, name: Option<String>, detail: Option<String>) -> Media {
    Media {
        source,
        name,
        detail,
    }
}

fn image() -> impl Strategy<Value = Part> {
    let detail = || rarely(Just("low".to_owned()));
    let inline = || Source::Inline {
        mime: "image/png".to_owned(),
        data: "iVBORw0KGgo=".to_owned(),
    };
    let source = prop_oneof![
        9 => Just(inline()),
        9 => Just(Source::Url("https://example.com/cat.png".to_owned())),
        1 => Just(Source::Id("file_1".to_owned())),
    ];
    (source, detail())
        .prop_map(|(source, detail)| Part::new(Kind::Image(media(source, None, detail))))
}

fn file() -> impl Strategy<Value = Part> {
    let pdf = Source::Inline {
        mime: "application/pdf".to_owned(),
        data: "JVBERi0xLjQK".to_owned(),
    };
    let wav = Source::Inline {
        mime: "audio/wav".to_owned(),
        data: "UklGRg==".to_owned(),
    };
    let name = || Some("a.pdf".to_owned());
    let url = Source::Url("https://example.com/a.pdf".to_owned());
    prop_oneof![
        4 => Just(Kind::File(media(pdf, name(), None))),
        2 => Just(Kind::File(media(url, name(), None))),
        1 => Just(Kind::File(media(Source::Plain("words".to_owned()), name(), None))),
        1 => Just(Kind::File(media(Source::Id("file_1".to_owned()), None, None))),
        1 => Just(Kind::Audio(media(wav, None, None))),
    ]
    .prop_map(Part::new)
}

/// The arguments of a call.
fn arguments() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    let inner = leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(Value::from),
            vec(("[a-zä\"]{1,4}", inner), 0..3)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    });
    vec(("[a-zä\"]{1,4}", inner), 0..3)
        .prop_map(|fields| Value::Object(fields.into_iter().collect::<Map<_, _>>()))
}

/// Thinking as the scripted endpoint makes it in one of the dialects, or as a stranger does.
pub(crate) fn sealed(kind: u8, text: String) -> Kind {
    let mark = |word: &str| format!("{word}:{ORIGIN}:{:016x}", hash(&text));
    let (dialect, value) = match kind {
        0 => (
            "anthropic_messages",
            json!({ "type": "thinking", "thinking": text, "signature": mark("sig") }),
        ),
        1 => (
            "openai_responses",
            json!({ "type": "reasoning", "id": "rs_1", "summary": [{ "type": "summary_text", "text": text }],
                "encrypted_content": mark("enc") }),
        ),
        _ => ("openai_chat", json!({ "reasoning_content": text })),
    };
    let origin = if kind == 3 { "elsewhere" } else { ORIGIN };
    let seal = Seal {
        dialect: dialect.to_owned(),
        origin: Some(origin.to_owned()),
        value,
    };
    Kind::Thinking(Thinking {
        text,
        seal: Some(seal),
    })
}

/// FNV-1a, which the scripted endpoint marks its reasoning with.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// An answer: thinking, texts or a refusal, calls, and an end that fits them.
pub(crate) fn reply() -> impl Strategy<Value = Reply> {
    let thinking = of((0..3_u8, text()));
    let said = vec(text(), 0..3);
    let calls = vec((arguments(), "[a-zA-Z0-9_.:-]{0,45}"), 0..4);
    let figures = vec(0_u64..1_000_000, 6);
    (thinking, said, calls, 0..6_u8, of(figures), any::<bool>()).prop_map(
        |(thinking, said, calls, end, figures, has_logprobs)| {
            let thinking = thinking.map(|(kind, text)| sealed(kind, text));
            let mut parts: Vec<Part> = thinking.map(Part::new).into_iter().collect();
            let refused = end == 4;
            parts.extend(said.into_iter().map(|text| {
                Part::new(if refused {
                    Kind::Refusal(text)
                } else {
                    Kind::Text(Text {
                        text,
                        citations: Vec::new(),
                    })
                })
            }));
            let called = parts.len();
            for (place, (arguments, id)) in calls.into_iter().enumerate().filter(|_| !refused) {
                parts.push(Part::new(Kind::ToolCall(ToolCall {
                    id: format!("{id}{place}"),
                    name: format!("tool_{place}"),
                    arguments: arguments.to_string(),
                    custom: false,
                })));
            }
            let calls = parts.len() > called;
            let stop = end_of(&mut parts, end, calls);
            let has_text = parts.iter().any(|part| part.as_text().is_some());
            let logprobs =
                json!({ "token": "a", "bytes": [97], "logprob": -0.5, "top_logprobs": [] });
            Reply {
                model: "made".to_owned(),
                stop: Some(stop),
                usage: figures.as_deref().and_then(usage),
                logprobs: Vec::from_iter(Some(logprobs).filter(|_| has_text && has_logprobs)),
                lane: None,
                parts,
            }
        },
    )
}

/// Why it ended; at the cap, the last call is cut.
fn end_of(parts: &mut [Part], end: u8, calls: bool) -> Stop {
    let has_refusal = parts
        .iter()
        .any(|part| matches!(part.kind, Kind::Refusal(_)));
    match end {
        0 => {
            if let Some(Part {
                kind: Kind::ToolCall(call),
                ..
            }) = parts.last_mut()
            {
                call.arguments.pop();
            }
            Stop::Length
        }
        1 if !calls => Stop::Filter,
        _ if calls => Stop::Tools,
        _ if has_refusal => Stop::Refusal,
        _ => Stop::End,
    }
}

fn usage(figures: &[u64]) -> Option<Usage> {
    let [input, cache_read, cache_write, audio, output, reasoning] = figures else {
        return None;
    };
    Some(Usage {
        input: *input,
        cache_read: *cache_read,
        cache_write_5m: *cache_write,
        audio_input: *audio,
        output: *output,
        reasoning: *reasoning,
        ..Usage::default()
    })
}
