//! Proves over real sockets what each dialect answers: text, calls, reasoning, schemas, what arrived,
//! faults, and what is billed for it. The plainest stream is held to the byte.

mod faults;

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

use super::{Fault, Script, Upstream};

pub(super) const CHAT: &str = "/v1/chat/completions";
pub(super) const MESSAGES: &str = "/v1/messages";
const RESPONSES: &str = "/v1/responses";
pub(super) const DIALECTS: [&str; 3] = [CHAT, MESSAGES, RESPONSES];

pub(super) struct Reply {
    pub(super) status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
    /// The body broke off.
    broken: bool,
}

impl Reply {
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{}", self.text()))
    }

    /// The data of the events, but for the word at the end of chat completions.
    pub(super) fn events(&self) -> Vec<Value> {
        let text = self.text();
        let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
        let json = data.filter(|data| *data != "[DONE]");
        json.map(|data| serde_json::from_str(data).unwrap())
            .collect()
    }
}

pub(super) async fn start(script: Value) -> Upstream {
    let script: Script = serde_json::from_value(script).unwrap();
    Upstream::start(script).await.unwrap()
}

pub(super) async fn post(upstream: &Upstream, path: &str, body: &Value) -> Reply {
    let request = Request::post(format!("http://{}{path}", upstream.address));
    send(request.body(Full::from(body.to_string())).unwrap()).await
}

async fn send(request: Request<Full<Bytes>>) -> Reply {
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let (head, mut body) = client.request(request).await.unwrap().into_parts();
    let mut reply = Reply {
        status: head.status.as_u16(),
        headers: head.headers,
        body: Vec::new(),
        broken: false,
    };
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => reply.body.extend(frame.into_data().unwrap_or_default()),
            Err(_) => reply.broken = true,
        }
    }
    reply
}

/// A request in the dialect of `path` with one text of the user.
pub(super) fn ask(path: &str, text: &str) -> Value {
    let messages = json!([{ "role": "user", "content": text }]);
    match path {
        CHAT => json!({ "model": "m", "messages": messages }),
        MESSAGES => json!({ "model": "m", "max_tokens": 4096, "messages": messages }),
        _ => json!({ "model": "m", "input": text }),
    }
}

pub(super) fn with(mut body: Value, field: &str, value: Value) -> Value {
    body[field] = value;
    body
}

fn scripted(script: &Value) -> String {
    format!("Hi <<script{script}>>")
}

fn schema() -> Value {
    json!({ "type": "object", "properties": { "city": { "type": "string" } }, "required": ["city"] })
}

fn tools(path: &str) -> Value {
    let name = "get_weather";
    match path {
        CHAT => {
            json!([{ "type": "function", "function": { "name": name, "parameters": schema() } }])
        }
        MESSAGES => json!([{ "name": name, "input_schema": schema() }]),
        _ => json!([{ "type": "namespace", "name": "world", "tools": [
            { "type": "function", "name": name, "parameters": schema() }] }]),
    }
}

/// The visible text of a whole reply.
pub(super) fn text_of(path: &str, reply: &Value) -> String {
    let texts = |list: &Value, kind: &str| -> String {
        let parts = list.as_array().into_iter().flatten();
        let parts = parts.filter(|part| part["type"] == kind);
        parts.filter_map(|part| part["text"].as_str()).collect()
    };
    match path {
        CHAT => {
            let content = &reply["choices"][0]["message"]["content"];
            content.as_str().unwrap_or_default().to_owned()
        }
        MESSAGES => texts(&reply["content"], "text"),
        _ => {
            let items = reply["output"].as_array().unwrap().iter();
            items
                .map(|item| texts(&item["content"], "output_text"))
                .collect()
        }
    }
}

/// The same out of the deltas of a stream.
pub(super) fn streamed_text(path: &str, events: &[Value]) -> String {
    let delta = |event: &Value| {
        let text = match path {
            CHAT => &event["choices"][0]["delta"]["content"],
            MESSAGES => &event["delta"]["text"],
            _ if event["type"] == "response.output_text.delta" => &event["delta"],
            _ => &Value::Null,
        };
        text.as_str().unwrap_or_default().to_owned()
    };
    events.iter().map(delta).collect()
}

#[tokio::test]
async fn the_text_is_what_the_script_says_streamed_or_not() {
    let upstream = start(json!({})).await;
    for path in DIALECTS {
        let body = ask(
            path,
            &scripted(&json!({ "say": "Grüße 🙂 an alle ", "repeat": 2 })),
        );
        let whole = post(&upstream, path, &body).await.json();
        assert_eq!(text_of(path, &whole), "Grüße 🙂 an alle Grüße 🙂 an alle ");
        let stream = post(&upstream, path, &with(body, "stream", json!(true))).await;
        assert_eq!(streamed_text(path, &stream.events()), text_of(path, &whole));
    }
    let dialects: Vec<_> = upstream
        .bill()
        .iter()
        .map(|b| (b.dialect, b.output_tokens))
        .collect();
    let names = ["openai_chat", "anthropic_messages", "openai_responses"];
    let wanted: Vec<_> = names.iter().flat_map(|name| [(*name, 8); 2]).collect();
    assert_eq!(dialects, wanted);
}

/// The calls in a whole reply: ids, names and arguments.
fn calls_of(path: &str, reply: &Value) -> Vec<(String, String, Value)> {
    let list = match path {
        CHAT => &reply["choices"][0]["message"]["tool_calls"],
        MESSAGES => &reply["content"],
        _ => &reply["output"],
    };
    let mut calls = Vec::new();
    for call in list.as_array().unwrap() {
        let parsed = |text: &Value| serde_json::from_str(text.as_str().unwrap()).unwrap();
        let string = |value: &Value| value.as_str().unwrap().to_owned();
        match call["type"].as_str().unwrap() {
            "function" => {
                let function = &call["function"];
                let arguments = parsed(&function["arguments"]);
                calls.push((string(&call["id"]), string(&function["name"]), arguments));
            }
            "tool_use" => {
                calls.push((
                    string(&call["id"]),
                    string(&call["name"]),
                    call["input"].clone(),
                ));
            }
            "function_call" => {
                assert_eq!(call["namespace"], "world");
                let arguments = parsed(&call["arguments"]);
                calls.push((string(&call["call_id"]), string(&call["name"]), arguments));
            }
            _ => {}
        }
    }
    calls
}

/// The request that follows on `reply`, with a result for each of its calls.
fn followed(path: &str, body: &Value, reply: &Value) -> Value {
    let mut body = body.clone();
    let calls = calls_of(path, reply);
    let result = |(id, _, _): &(String, String, Value)| match path {
        CHAT => json!({ "role": "tool", "tool_call_id": id, "content": "sunny" }),
        MESSAGES => json!({ "type": "tool_result", "tool_use_id": id, "content": "sunny" }),
        _ => json!({ "type": "function_call_output", "call_id": id, "output": "sunny" }),
    };
    let results: Vec<_> = calls.iter().map(result).collect();
    match path {
        CHAT => {
            let messages = body["messages"].as_array_mut().unwrap();
            messages.push(reply["choices"][0]["message"].clone());
            messages.extend(results);
        }
        MESSAGES => {
            let messages = body["messages"].as_array_mut().unwrap();
            messages.push(json!({ "role": "assistant", "content": reply["content"] }));
            messages.push(json!({ "role": "user", "content": results }));
        }
        _ => {
            let mut input = vec![json!({ "role": "user", "content": body["input"] })];
            input.extend(reply["output"].as_array().unwrap().iter().cloned());
            input.extend(results);
            body["input"] = json!(input);
        }
    }
    body
}

#[tokio::test]
async fn a_strict_endpoint_takes_back_what_it_said() {
    let upstream = start(json!({ "strict": true, "takes_reasoning": true, "origin": "x" })).await;
    let city = |city: &str| json!({ "name": "get_weather", "arguments": { "city": city } });
    let other = json!({ "name": "not_offered" });
    let script = json!({ "say": "Let me look.", "thinking": "I should look.",
        "call": [city("Paris"), other, city("Tōkyō")] });
    for path in DIALECTS {
        let body = with(ask(path, &scripted(&script)), "tools", tools(path));
        let first = post(&upstream, path, &body).await.json();
        assert_eq!(text_of(path, &first), "Let me look.", "{first}");
        let calls = calls_of(path, &first);
        let said: Vec<_> = calls
            .iter()
            .map(|call| (call.1.as_str(), &call.2["city"]))
            .collect();
        let city = |city: &str| json!(city);
        let (paris, tokyo) = (city("Paris"), city("Tōkyō"));
        assert_eq!(said, [("get_weather", &paris), ("get_weather", &tokyo)]);
        assert_ne!(calls[0].0, calls[1].0);
        let second = followed(path, &body, &first);
        let reply = post(&upstream, path, &second).await;
        assert_eq!(text_of(path, &reply.json()), "The tool said: sunny | sunny");
        let again = post(&upstream, path, &body).await.json();
        assert_ne!(
            calls_of(path, &again)[0].0,
            calls[0].0,
            "ids are new in each call"
        );
    }
}

#[tokio::test]
async fn a_custom_tool_is_called_with_text() {
    let upstream = start(json!({ "strict": true })).await;
    let script = json!({ "call": { "name": "patch", "arguments": "*** Begin\n" } });
    let body = ask(RESPONSES, &scripted(&script));
    let body = with(
        body,
        "tools",
        json!([{ "type": "custom", "name": "patch" }]),
    );
    let reply = post(&upstream, RESPONSES, &body).await.json();
    let call = &reply["output"][0];
    assert_eq!(
        (&call["type"], &call["input"]),
        (&json!("custom_tool_call"), &json!("*** Begin\n"))
    );
    let done =
        json!({ "type": "custom_tool_call_output", "call_id": call["call_id"], "output": "ok" });
    let next = with(body.clone(), "input", json!([done]));
    let next = with(next, "previous_response_id", reply["id"].clone());
    let said = post(&upstream, RESPONSES, &next).await.json();
    assert_eq!(text_of(RESPONSES, &said), "The tool said: ok");
    let stream = post(&upstream, RESPONSES, &with(body, "stream", json!(true)))
        .await
        .text();
    assert!(stream.contains("event: response.custom_tool_call_input.done"));
}

#[tokio::test]
async fn a_strict_endpoint_names_the_rule_in_its_dialect() {
    let upstream = start(json!({ "strict": true })).await;
    for path in DIALECTS {
        let reply = post(&upstream, path, &with(ask(path, "Hi"), "made_up", json!(1))).await;
        assert_eq!(reply.status, 400);
        let error = &reply.json()["error"];
        assert_eq!(error["message"], "strict: request: unknown field `made_up`");
        assert_eq!(error["type"], "invalid_request_error");
        assert_eq!(error.get("param").is_some(), path != MESSAGES);
    }
    let lenient = start(json!({})).await;
    let text = scripted(&json!({ "strict": true }));
    let reply = post(&lenient, CHAT, &with(ask(CHAT, &text), "made_up", json!(1))).await;
    assert_eq!(reply.status, 400, "a call can ask for it");
}

#[tokio::test]
async fn responses_streams_tell_all_and_end_with_the_whole() {
    let upstream = start(json!({})).await;
    let script = json!({ "say": "a b", "thinking": "c d", "call": { "name": "get_weather" } });
    let body = with(
        ask(RESPONSES, &scripted(&script)),
        "tools",
        tools(RESPONSES),
    );
    let body = with(body, "metadata", json!({ "k": "v" }));
    let reply = post(&upstream, RESPONSES, &with(body, "stream", json!(true))).await;
    let events = reply.events();
    let text = reply.text();
    let names: Vec<_> = text
        .lines()
        .filter_map(|l| l.strip_prefix("event: "))
        .collect();
    let item = |name: &str| format!("response.{name}");
    let wanted: Vec<String> = [
        "created",
        "in_progress",
        "output_item.added",
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]
    .map(item)
    .to_vec();
    assert_eq!(names, wanted);
    for (number, event) in events.iter().enumerate() {
        assert_eq!(event["sequence_number"], number);
        assert_eq!(event["type"], names[number]);
    }
    let response = &events.last().unwrap()["response"];
    let done = events
        .iter()
        .filter(|e| e["type"] == "response.output_item.done");
    let items: Vec<_> = done.map(|event| event["item"].clone()).collect();
    assert_eq!(response["output"], json!(items));
    assert_eq!(response["metadata"], json!({ "k": "v" }));
    assert_eq!(response["tools"], tools(RESPONSES));
    let usage = json!({ "input_tokens": upstream.bill()[0].prompt_tokens,
        "input_tokens_details": { "cached_tokens": 0 }, "output_tokens": 12,
        "output_tokens_details": { "reasoning_tokens": 2 },
        "total_tokens": upstream.bill()[0].prompt_tokens + 12 });
    assert_eq!(response["usage"], usage);
    assert_eq!(upstream.bill()[0].output_tokens, 12);
}

#[tokio::test]
async fn a_cap_cuts_in_every_dialect() {
    let upstream = start(json!({})).await;
    for path in DIALECTS {
        let cap = if path == RESPONSES {
            "max_output_tokens"
        } else {
            "max_tokens"
        };
        let script = scripted(&json!({ "thinking": "a b ", "say": "c d e f" }));
        let body = with(ask(path, &script), cap, json!(4));
        let reply = post(&upstream, path, &body).await.json();
        assert_eq!(text_of(path, &reply), "c d ");
        let reason = match path {
            CHAT => &reply["choices"][0]["finish_reason"],
            MESSAGES => &reply["stop_reason"],
            _ => &reply["incomplete_details"]["reason"],
        };
        let reasons = ["length", "max_tokens", "max_output_tokens"];
        assert!(reasons.contains(&reason.as_str().unwrap()), "{reply}");
        let stream = post(&upstream, path, &with(body, "stream", json!(true))).await;
        assert_eq!(streamed_text(path, &stream.events()), "c d ");
        let incomplete = stream.text().contains("event: response.incomplete");
        assert_eq!(incomplete, path == RESPONSES);
    }
    assert!(
        upstream
            .bill()
            .iter()
            .all(|billed| billed.output_tokens == 4)
    );
}

#[tokio::test]
async fn later_calls_can_name_a_response_and_its_items() {
    let upstream = start(json!({ "strict": true })).await;
    let script = scripted(&json!({ "thinking": "hm", "say": "Hello." }));
    let first = post(&upstream, RESPONSES, &ask(RESPONSES, &script))
        .await
        .json();
    let see = scripted(&json!({ "see": true }));
    let next = with(
        ask(RESPONSES, &see),
        "previous_response_id",
        first["id"].clone(),
    );
    let seen = post(&upstream, RESPONSES, &next).await.json();
    assert_eq!(seen["previous_response_id"], first["id"]);
    let seen: Value = serde_json::from_str(&text_of(RESPONSES, &seen)).unwrap();
    assert_eq!(
        seen["roles"],
        json!(["user", "reasoning", "assistant", "user"])
    );
    let named = |place: usize| {
        let id = &first["output"][place]["id"];
        json!({ "type": "item_reference", "id": id })
    };
    let input = json!([{ "role": "user", "content": script }, named(0), named(1),
        { "role": "user", "content": see }]);
    let reply = post(
        &upstream,
        RESPONSES,
        &json!({ "model": "m", "input": input }),
    )
    .await
    .json();
    let seen_too: Value = serde_json::from_str(&text_of(RESPONSES, &reply)).unwrap();
    assert_eq!(seen_too["roles"], seen["roles"]);
    let unkept = with(ask(RESPONSES, "Hi"), "store", json!(false));
    let unkept = post(&upstream, RESPONSES, &unkept).await.json();
    let next = with(
        ask(RESPONSES, "Hi"),
        "previous_response_id",
        unkept["id"].clone(),
    );
    assert_eq!(post(&upstream, RESPONSES, &next).await.status, 400);
}

#[tokio::test]
async fn an_answer_fits_the_schema_that_is_asked_for() {
    let upstream = start(json!({})).await;
    for path in DIALECTS {
        let body = ask(path, "Where is the weather good?");
        let body = match path {
            CHAT => with(
                body,
                "response_format",
                json!({ "type": "json_schema",
                "json_schema": { "name": "a", "schema": schema() } }),
            ),
            MESSAGES => with(
                body,
                "output_config",
                json!({ "format": { "type": "json_schema",
                "schema": schema() } }),
            ),
            _ => with(
                body,
                "text",
                json!({ "format": { "type": "json_schema", "name": "a",
                "schema": schema() } }),
            ),
        };
        let reply = post(&upstream, path, &body).await.json();
        assert_eq!(text_of(path, &reply), "{\"city\":\"Paris\"}");
    }
}

#[tokio::test]
async fn see_says_the_same_of_the_same_in_every_dialect() {
    let upstream = start(json!({})).await;
    let url = "data:image/png;base64,AAAABQ==";
    let see = scripted(&json!({ "see": true }));
    let chat = json!({ "model": "m", "max_tokens": 99999, "reasoning_effort": "low", "tools": tools(CHAT),
        "messages": [ { "role": "system", "content": "Be brief." },
            { "role": "user", "content": [{ "type": "text", "text": see },
                { "type": "image_url", "image_url": { "url": url } }] } ] });
    let messages = json!({ "model": "m", "max_tokens": 99999, "output_config": { "effort": "low" },
        "tools": tools(MESSAGES), "system": [{ "type": "text", "text": "Be brief." }],
        "messages": [ { "role": "user", "content": [{ "type": "text", "text": see }, { "type": "image",
            "source": { "type": "base64", "media_type": "image/png", "data": "AAAABQ==" } }] } ] });
    let responses = json!({ "model": "m", "max_output_tokens": 99999, "reasoning": { "effort": "low" },
        "tools": tools(RESPONSES), "instructions": "Be brief.",
        "input": [ { "role": "user", "content": [{ "type": "input_text", "text": see },
            { "type": "input_image", "image_url": url }] } ] });
    let mut wanted = json!({ "roles": ["system", "user"], "images": 1, "image_types": ["image/png"],
        "image_bytes": 4, "files": 0, "tools": ["get_weather"], "tool_choice": null,
        "system": "Be brief.", "texts": 1, "tool_results": 0, "thinking": 0, "schema": false,
        "effort": "low", "max": 99999, "bytes": see.len(), "temperature": null, "stop": null });
    for (path, body) in [(CHAT, chat), (MESSAGES, messages), (RESPONSES, responses)] {
        let reply = post(&upstream, path, &body).await.json();
        let seen: Value = serde_json::from_str(&text_of(path, &reply)).unwrap();
        assert_eq!(seen, wanted, "{path}");
        wanted["roles"] = json!(["user"]);
    }
}

#[tokio::test]
async fn embeddings_are_billed_and_counting_is_not() {
    let upstream = start(json!({ "input_pico": 3 })).await;
    let body = json!({ "model": "e", "input": ["abcd", "e"] });
    let reply = post(&upstream, "/v1/embeddings", &body).await.json();
    assert_eq!(reply["data"][0]["embedding"].as_array().unwrap().len(), 8);
    let counted = ask(MESSAGES, "Hi");
    let reply = post(&upstream, "/v1/messages/count_tokens?beta=true", &counted)
        .await
        .json();
    post(&upstream, "/v1/messages?beta=true", &counted).await;
    let bill = upstream.bill();
    assert_eq!(reply, json!({ "input_tokens": bill[1].prompt_tokens }));
    assert_eq!(
        (bill[0].dialect, bill[0].cost_pico),
        ("openai_embeddings", 6)
    );
    assert_eq!((bill.len(), upstream.calls()), (2, 2));
}

#[tokio::test]
async fn each_vendor_lists_models_in_its_own_words() {
    let upstream = start(json!({})).await;
    let get = || Request::get(format!("{}/models?limit=20", upstream.url()));
    let openai = send(get().body(Full::default()).unwrap()).await.json();
    assert_eq!(openai["data"][0]["object"], "model");
    let anthropic = get().header("anthropic-version", "2023-06-01");
    let anthropic = send(anthropic.body(Full::default()).unwrap()).await.json();
    assert_eq!(anthropic["data"][0]["type"], "model");
    assert_eq!(anthropic["has_more"], false);
}

#[tokio::test]
async fn a_plain_stream_keeps_its_bytes() {
    let upstream = start(json!({ "output_tokens": 1 })).await;
    let stream = |path| with(ask(path, "Hi"), "stream", json!(true));
    let chat = post(&upstream, CHAT, &stream(CHAT)).await;
    assert_eq!(chat.headers["x-request-id"], "up-0");
    let chunk = |delta: &str, finish: &str| {
        format!(
            "data: {{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1795000000,\
             \"model\":\"m\",\"choices\":[{{\"index\":0,\"delta\":{delta},\"finish_reason\":{finish}}}]}}\n\n"
        )
    };
    let wanted = [
        chunk("{\"role\":\"assistant\",\"content\":\"\"}", "null"),
        chunk("{\"content\":\"Grüße \"}", "null"),
        chunk("{}", "\"stop\""),
        "data: [DONE]\n\n".to_owned(),
    ];
    let got = String::from_utf8(chat.body).unwrap();
    assert_eq!(got, wanted.concat());
    let messages = post(&upstream, MESSAGES, &stream(MESSAGES)).await.text();
    let names: Vec<_> = messages
        .lines()
        .filter_map(|l| l.strip_prefix("event: "))
        .collect();
    assert_eq!(
        names,
        [
            "message_start",
            "content_block_start",
            "ping",
            "content_block_delta",
            "content_block_stop",
            "message_delta",
            "message_stop"
        ]
    );
}
