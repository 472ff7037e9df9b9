//! Proves what a collector of OpenTelemetry is told: each call a span and each attempt one within it, sums that
//! are the ledger's, the request log beside them, nothing of what was said; and that nothing the collector does
//! is felt by calls. The collector reads the bytes with the protocol's own messages.

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::time::Duration;

use bench::upstream::{Fault, Script};
use http::Method;
use meter::Outcome;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use tests::World;
use tests::collector::{Collector, attributes, hex};
use tests::talk::{Talk, Tongue};
use tests::world::{FAST, chat, script};

use crate::tasks::{begin, status};
use crate::tasks_api::{talking, talks};

/// A trace that a caller is in.
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// A configuration that tells `collector` at once, and what else it says.
fn telling(collector: &Collector, rest: &str) -> String {
    format!(
        "otlp.url = {:?}\notlp.interval_ms = 20\notlp.metrics_interval_ms = 20\n{rest}\n\
         upstream.retries.percent = 100\nupstream.retries.per_second = 100\n",
        collector.url()
    )
}

/// Waits, with patience, until `done`.
async fn until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..6_000 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never came: {what}");
}

async fn ask(world: &World, model: &str, rest: &str) -> tests::Reply {
    let body = chat(model, "Tell me about rivers.", rest);
    world.client.post("/v1/chat/completions", body).await
}

/// Waits for so many spans; more are wrong as well.
async fn spans(collector: &Collector, count: usize) -> Vec<Span> {
    until("spans", || collector.spans().len() >= count).await;
    let spans = collector.spans();
    assert_eq!(spans.len(), count, "{spans:#?}");
    spans
}

fn of_kind(spans: &[Span], kind: SpanKind) -> Vec<&Span> {
    let kind = i32::from(kind);
    spans.iter().filter(|it| it.kind == kind).collect()
}

fn failed(span: &Span) -> bool {
    span.status.as_ref().unwrap().code == i32::from(StatusCode::Error)
}

#[tokio::test]
async fn each_dialect_streamed_and_not_is_a_span_of_the_call_and_one_of_its_attempt() {
    let collector = Collector::start();
    let world = World::start(&telling(&collector, ""), "").await;
    for (tongue, model) in Tongue::ALL
        .into_iter()
        .zip(["chat", "responses", "messages"])
    {
        for stream in [false, true] {
            let mut talk = Talk::plain(tongue, "Be brief.");
            talk.say("user", "Tell me about rivers.");
            let mut body = talk.body(&format!("fast-{model}"));
            body["stream"] = stream.into();
            let reply = world.client.post(tongue.path(), body.to_string()).await;
            assert_eq!(
                (reply.status, reply.broken),
                (200, false),
                "{}",
                reply.text()
            );
        }
    }
    let entries = world.entries().await;
    assert_eq!(entries.len(), 6);
    let spans = spans(&collector, 12).await;
    let by_request = |kind| -> BTreeMap<String, &Span> {
        let spans = of_kind(&spans, kind).into_iter();
        let named = spans.map(|it| {
            let told = attributes(&it.attributes);
            (told["pareto.request_id"].clone(), it)
        });
        named.collect()
    };
    let (servers, clients) = (by_request(SpanKind::Server), by_request(SpanKind::Client));
    let host = world.fast.url();
    let (_, address) = host.split_once("//").unwrap();
    let (host, port) = address.split('/').next().unwrap().split_once(':').unwrap();
    for entry in &entries {
        let request = entry.held.request.to_string();
        let (server, client) = (servers[&request], clients[&request]);
        assert_eq!(format!("req_{}", hex(&server.trace_id)), request);
        assert_eq!(client.trace_id, server.trace_id);
        assert_eq!(client.parent_span_id, server.span_id);
        assert!(server.parent_span_id.is_empty());
        assert_eq!((server.span_id.len(), client.span_id.len()), (8, 8));
        assert!(server.start_time_unix_nano <= client.start_time_unix_nano);
        assert!(client.start_time_unix_nano < client.end_time_unix_nano);
        assert!(client.end_time_unix_nano <= server.end_time_unix_nano);
        assert!(!failed(server) && !failed(client));
        assert_eq!(client.name, format!("chat {}", entry.held.model));
        assert_eq!(server.name, format!("chat {}", entry.held.requested));
        let provider = match &*entry.held.dialect {
            "anthropic_messages" => "anthropic",
            _ => "openai",
        };
        let finish = match &*entry.held.dialect {
            "anthropic_messages" => "end_turn",
            "openai_chat" => "stop",
            _ => "completed",
        };
        let both = [
            ("gen_ai.operation.name", "chat".to_owned()),
            ("gen_ai.provider.name", provider.to_owned()),
            ("gen_ai.request.model", entry.held.requested.to_string()),
            ("gen_ai.response.model", entry.held.model.to_string()),
            (
                "gen_ai.usage.input_tokens",
                entry.usage.prompt().to_string(),
            ),
            (
                "gen_ai.usage.output_tokens",
                entry.usage.answer().to_string(),
            ),
            ("gen_ai.response.finish_reasons", format!("[{finish:?}]")),
            ("http.response.status_code", "200".to_owned()),
            ("pareto.tenant", "acme".to_owned()),
            ("pareto.tier", "fast".to_owned()),
            ("pareto.route", entry.held.reason.to_string()),
            ("pareto.stream", entry.held.stream.to_string()),
            ("pareto.cost_nano_usd", entry.cost.0.to_string()),
        ];
        for span in [server, client] {
            let told = attributes(&span.attributes);
            for (name, value) in &both {
                assert_eq!(told.get(*name), Some(value), "{name} in {told:#?}");
            }
            assert!(!told.contains_key("error.type"));
        }
        let told = attributes(&client.attributes);
        assert_eq!(
            (&*told["server.address"], &*told["server.port"]),
            (host, port)
        );
        assert_eq!(told["pareto.upstream_model"], "scripted-fast");
        assert_eq!(told["pareto.endpoint"], *entry.held.endpoint);
    }
    let wrapped = collector
        .traces()
        .swap_remove(0)
        .resource_spans
        .swap_remove(0);
    let resource = attributes(&wrapped.resource.unwrap().attributes);
    assert_eq!(resource["service.name"], "pareto");
    assert!(
        wrapped
            .schema_url
            .starts_with("https://opentelemetry.io/schemas/")
    );
}

#[tokio::test]
async fn a_call_that_went_on_to_another_model_has_a_span_for_each_attempt() {
    let collector = Collector::start();
    let world = World::start(&telling(&collector, ""), "").await;
    world.fast.set_script(Script {
        fault: Some(Fault::Status(503, None)),
        ..script(FAST)
    });
    assert_eq!(ask(&world, "fast", "").await.status, 200);
    let entries = world.entries().await;
    assert!(entries.len() > 1);
    let spans = spans(&collector, entries.len() + 1).await;
    let servers = of_kind(&spans, SpanKind::Server);
    let [server] = servers.as_slice() else {
        panic!("{servers:#?}");
    };
    assert!(!failed(server));
    let told = attributes(&server.attributes);
    assert_eq!(told["pareto.attempts"], entries.len().to_string());
    assert_eq!(told["pareto.tier"], "deep");
    let cost: i64 = entries.iter().map(|it| it.cost.0).sum();
    assert_eq!(told["pareto.cost_nano_usd"], cost.to_string());
    let clients = of_kind(&spans, SpanKind::Client);
    let ids: BTreeSet<_> = spans.iter().map(|it| it.span_id.clone()).collect();
    assert_eq!(ids.len(), spans.len());
    for entry in &entries {
        let number = entry.held.attempt.to_string();
        let is_its = |it: &&&Span| attributes(&it.attributes)["pareto.attempt"] == number;
        let span = clients.iter().find(is_its).unwrap();
        let told = attributes(&span.attributes);
        assert_eq!(span.parent_span_id, server.span_id);
        let is_failed = entry.outcome == Outcome::Failed;
        assert_eq!(failed(span), is_failed, "{told:?}");
        let error = is_failed.then_some("503");
        assert_eq!(told.get("error.type").map(String::as_str), error);
        assert_eq!(told.contains_key("gen_ai.response.model"), !is_failed);
        assert_eq!(told["gen_ai.request.model"], *entry.held.model);
    }
}

#[tokio::test]
async fn a_refusal_is_a_span_and_a_log_record_of_one_trace() {
    let collector = Collector::start();
    let world = World::start(&telling(&collector, "otlp.logs = true"), "").await;
    assert_eq!(ask(&world, "no-such-model", "").await.status, 404);
    let stranger = world.caller("sk-par-00000000-nobody");
    let body = chat("fast", "Hello", "");
    let reply = stranger.post("/v1/chat/completions", body).await;
    assert_eq!(reply.status, 401);
    // What is no call of a model is none here either.
    assert_eq!(world.client.get("/v1/models").await.status, 200);
    let spans = spans(&collector, 2).await;
    until("logs", || collector.logs().len() == 2).await;
    let logs = collector.logs();
    for (status, tenant) in [("404", Some("acme")), ("401", None)] {
        let is_it = |it: &&Span| attributes(&it.attributes)["http.response.status_code"] == status;
        let span = spans.iter().find(is_it).unwrap();
        let told = attributes(&span.attributes);
        assert_eq!(span.kind, i32::from(SpanKind::Server));
        assert!(!failed(span), "the caller's own mistake");
        assert_eq!(told.get("pareto.tenant").map(String::as_str), tenant);
        assert_eq!(span.name, "chat");
        let record = logs.iter().find(|it| it.span_id == span.span_id).unwrap();
        assert_eq!(record.trace_id, span.trace_id);
        assert_eq!(record.event_name, "pareto.refusal");
        let line = attributes(&record.attributes);
        assert_eq!(line["error.type"], told["error.type"]);
        assert_eq!(line["pareto.request_id"], told["pareto.request_id"]);
    }
}

#[tokio::test]
async fn a_callers_trace_is_continued_as_it_says_and_others_are_left_out_by_the_ratio() {
    let collector = Collector::start();
    let world = World::start(&telling(&collector, "otlp.sample_ratio = 0.0"), "").await;
    assert_eq!(ask(&world, "fast-chat", "").await.status, 200);
    for flags in ["00", "01"] {
        let parent = format!("00-{TRACE}-{PARENT}-{flags}");
        let headers = [("traceparent", &*parent), ("tracestate", "rojo=1,congo=2")];
        let body = chat("fast-chat", "Hello", "");
        let send = world
            .client
            .send(Method::POST, "/v1/chat/completions", &headers, body);
        assert_eq!(send.await.status, 200);
    }
    let entries = world.entries().await;
    // What the ledger has is counted, whether or not its spans are sent.
    until("metrics", || {
        let points = collector.points("gen_ai.client.operation.duration");
        points.iter().map(|it| it.count).sum::<u64>() == 3
    })
    .await;
    world.running.shut_down(pending()).await;
    let spans = collector.spans();
    assert_eq!(spans.len(), 2, "{spans:#?}");
    let server = of_kind(&spans, SpanKind::Server)[0];
    assert_eq!(hex(&server.parent_span_id), PARENT);
    for span in &spans {
        assert_eq!(hex(&span.trace_id), TRACE);
        assert_eq!(span.trace_state, "rojo=1,congo=2");
        assert_eq!(span.flags & 1, 1);
        let told = attributes(&span.attributes);
        assert_eq!(
            told["pareto.request_id"],
            entries[2].held.request.to_string()
        );
    }
}

#[tokio::test]
async fn an_endpoint_is_told_of_the_trace_only_where_it_is_configured_so() {
    let collector = Collector::start();
    let world = World::start(&telling(&collector, ""), "").await;
    let parent = format!("00-{TRACE}-{PARENT}-01");
    let headers = [("traceparent", &*parent), ("tracestate", "rojo=1")];
    let call = async || {
        let body = chat("fast-chat", "Hello", "");
        let path = "/v1/chat/completions";
        let reply = world.client.send(Method::POST, path, &headers, body).await;
        assert_eq!(reply.status, 200);
        let headers = world.fast.bill().pop().unwrap().headers;
        assert!(!headers.contains_key("tracestate"));
        let told = headers.get("traceparent");
        told.map(|it| it.to_str().unwrap().to_owned())
    };
    assert_eq!(call().await, None);
    world.configure(|text| {
        let name = "name = \"fast-chat\"\ndialect";
        text.replace(name, &format!("traceparent = true\n{name}"))
    });
    let told = call().await.unwrap();
    let spans = spans(&collector, 4).await;
    let clients = of_kind(&spans, SpanKind::Client);
    let own = |span: &&Span| format!("00-{TRACE}-{}-01", hex(&span.span_id));
    assert_eq!(told, own(clients.last().unwrap()));
    // Where no spans are sent, the endpoint's parent is the caller's own span.
    world.configure(|text| format!("otlp.traces = false\n{text}"));
    assert_eq!(call().await, Some(parent.clone()));
}

#[tokio::test]
async fn a_collector_that_is_away_or_asks_for_a_pause_gets_everything_later_and_once() {
    let mut collector = Collector::closed();
    let world = World::start(&telling(&collector, "otlp.logs = true"), "").await;
    for _ in 0..3 {
        assert_eq!(ask(&world, "fast-chat", "").await.status, 200);
    }
    let tried = async |name: &str| {
        for _ in 0..6_000 {
            if world.metric(name).await >= 3.0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("nothing was tried again");
    };
    tried("pareto_otlp_posts_total").await;
    collector.open(|_, number| match number {
        0 => Some((503, "retry-after: 0\r\n")),
        1 => Some((429, "retry-after: 1\r\n")),
        _ => Some((200, "")),
    });
    let spans = spans(&collector, 6).await;
    let ids: BTreeSet<_> = spans.iter().map(|it| it.span_id.clone()).collect();
    assert_eq!(ids.len(), 6);
    until("logs", || collector.logs().len() == 3).await;
    assert_eq!(world.metric("pareto_otlp_dropped_total").await, 0.0);
}

#[tokio::test]
async fn what_there_is_no_room_for_is_dropped_and_counted_and_no_call_fails() {
    // The first post is never answered.
    let collector = Collector::answering(|_, _| None);
    let head = telling(&collector, "otlp.queue = 2");
    let world = World::start(&head, "").await;
    for _ in 0..20 {
        assert_eq!(ask(&world, "fast-chat", "").await.status, 200);
    }
    let mut dropped = 0.0;
    for _ in 0..6_000 {
        dropped = world.metric("pareto_otlp_dropped_total").await;
        // Of 40 spans one post has at most two, and two wait in each queue.
        if dropped >= 34.0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(dropped >= 34.0, "{dropped}");
    assert_eq!(world.entries().await.len(), 20);
    // And the end does not wait for it either.
    world.running.shut_down(pending()).await;
}

#[tokio::test]
async fn what_the_collector_refuses_is_counted_and_not_posted_again() {
    let refused = |signal: &str, number| match (signal, number) {
        ("traces", 0) => Some((400, "")),
        _ => Some((200, "")),
    };
    let collector = Collector::answering(refused);
    let world = World::start(&telling(&collector, ""), "").await;
    assert_eq!(ask(&world, "fast-chat", "").await.status, 200);
    let is_refused = || collector.posts().iter().any(|it| it.status == 400);
    until("a refusal", is_refused).await;
    let posts = collector.posts();
    let lost = posts.iter().find(|it| it.status == 400).unwrap().clone();
    // The first post may have had one span of the call or both.
    assert_eq!(ask(&world, "fast-chat", "").await.status, 200);
    until("the next", || !collector.spans().is_empty()).await;
    let same = collector
        .posts()
        .into_iter()
        .filter(|it| it.body == lost.body);
    assert_eq!(same.count(), 1);
    let dropped = world.metric("pareto_otlp_dropped_total").await;
    assert!((1.0..=2.0).contains(&dropped), "{dropped}");
}

#[tokio::test]
async fn nothing_of_what_was_said_and_no_secret_is_told() {
    let collector = Collector::start();
    let head = "otlp.logs = true\notlp.headers = { x-tenant-token = \"open sesame\" }\n\
                request_log.redact = [\"plum-[0-9]+\"]";
    let world = World::start(&telling(&collector, head), "").await;
    world.fast.set_script(Script {
        say: Some("The answer itself".into()),
        ..script(FAST)
    });
    let headers = [
        ("x-pareto-user", "jane.doe@mail.example.com"),
        ("x-pareto-task", "plum-17"),
        ("traceparent", &*format!("00-{TRACE}-{PARENT}-01")),
        ("tracestate", "my secret is not a state"),
    ];
    for stream in ["", ",\"stream\":true"] {
        let body = chat("fast-chat", "The prompt itself", stream);
        let path = "/v1/chat/completions";
        let reply = world.client.send(Method::POST, path, &headers, body).await;
        assert_eq!(reply.status, 200);
    }
    let unknown = chat("The prompt itself as a model", "Hi", "");
    let reply = world.client.post("/v1/chat/completions", unknown).await;
    assert_eq!(reply.status, 404);
    spans(&collector, 5).await;
    until("logs", || collector.logs().len() == 3).await;
    until("metrics", || !collector.metrics().is_empty()).await;
    let key = world.client.key.rsplit('-').next().unwrap().to_owned();
    for post in collector.posts() {
        assert!(post.head.contains("x-tenant-token: open sesame\r\n"));
        assert!(
            post.head
                .contains("content-type: application/x-protobuf\r\n")
        );
        let body = String::from_utf8_lossy(&post.body).into_owned();
        for told in [
            "prompt itself",
            "answer itself",
            &key,
            "up-fast",
            "sesame",
            "jane",
            "plum",
            "my secret",
        ] {
            assert!(!body.contains(told), "`{told}` in {}: {body}", post.path());
        }
    }
    let line = attributes(&collector.logs()[0].attributes);
    assert_eq!(line["pareto.user"], "[redacted]");
    assert_eq!(line["pareto.task"], "[redacted]");
}

#[tokio::test]
async fn sums_are_the_ledgers_and_buckets_those_that_the_conventions_advise() {
    let collector = Collector::start();
    let world = World::start(&telling(&collector, ""), "").await;
    for rest in ["", ",\"stream\":true", ",\"stream\":true,\"max_tokens\":7"] {
        assert_eq!(ask(&world, "fast-chat", rest).await.status, 200);
    }
    world.fast.set_script(Script {
        fault: Some(Fault::CutAfter(3)),
        ..script(FAST)
    });
    let broken = ask(&world, "fast-chat", ",\"stream\":true").await;
    assert_eq!((broken.status, broken.broken), (200, true));
    world.fast.set_script(Script {
        fault: Some(Fault::Status(500, None)),
        ..script(FAST)
    });
    assert_eq!(ask(&world, "fast", "").await.status, 200);
    let entries = world.entries().await;
    let count = |name: &str| -> u64 { collector.points(name).iter().map(|it| it.count).sum() };
    let attempts = u64::try_from(entries.len()).unwrap();
    until("all attempts", || {
        count("gen_ai.client.operation.duration") == attempts
            && count("gen_ai.server.request.duration") == 5
    })
    .await;
    let sum = |kind: &str| -> f64 {
        let points = collector.points("gen_ai.client.token.usage");
        let of_kind = points
            .iter()
            .filter(|it| attributes(&it.attributes)["gen_ai.token.type"] == kind);
        of_kind.filter_map(|it| it.sum).sum()
    };
    let prompt: u64 = entries.iter().map(|it| it.usage.prompt()).sum();
    let answer: u64 = entries.iter().map(|it| it.usage.answer()).sum();
    assert!(prompt > 0 && answer > 0);
    assert_eq!(sum("input").to_string(), prompt.to_string());
    assert_eq!(sum("output").to_string(), answer.to_string());
    assert_eq!(count("gen_ai.server.time_to_first_token"), 2);
    assert_eq!(count("gen_ai.server.time_per_output_token"), 2);
    let errors: BTreeSet<String> = collector
        .points("gen_ai.client.operation.duration")
        .iter()
        .filter_map(|it| attributes(&it.attributes).remove("error.type"))
        .collect();
    assert_eq!(
        errors,
        BTreeSet::from(["500".to_owned(), "interrupted".to_owned()])
    );
    for (name, first, last, bounds) in [
        ("gen_ai.client.token.usage", 1.0, 67_108_864.0, 14),
        ("gen_ai.client.operation.duration", 0.01, 81.92, 14),
        ("gen_ai.server.request.duration", 0.01, 81.92, 14),
        ("gen_ai.server.time_to_first_token", 0.001, 10.0, 16),
        ("gen_ai.server.time_per_output_token", 0.01, 2.5, 13),
    ] {
        for point in collector.points(name) {
            let advised = &point.explicit_bounds;
            assert_eq!(advised.len(), bounds, "{name}");
            assert_eq!((advised[0], advised[bounds - 1]), (first, last), "{name}");
            assert_eq!(point.bucket_counts.len(), bounds + 1, "{name}");
            assert_eq!(
                point.bucket_counts.iter().sum::<u64>(),
                point.count,
                "{name}"
            );
            let told = attributes(&point.attributes);
            assert!(!told.contains_key("pareto.tenant"), "tenants are no series");
        }
    }
}

#[tokio::test]
async fn a_caller_that_leaves_is_told_of_and_the_end_of_the_process_sends_the_rest() {
    let collector = Collector::start();
    let head = format!(
        "otlp.url = {:?}\notlp.interval_ms = 3600000\notlp.logs = true\n",
        collector.url()
    );
    let world = World::start(&head, "").await;
    world.fast.set_script(Script {
        token_gap_us: 20_000,
        output_tokens: 1_000,
        ..script(FAST)
    });
    let body = chat("fast-chat", "Tell me about rivers.", ",\"stream\":true");
    world
        .client
        .leave_after("/v1/chat/completions", body, 2)
        .await;
    world.quiet().await;
    assert_eq!(world.entries().await[0].outcome, Outcome::Disconnected);
    assert!(collector.posts().is_empty());
    world.running.shut_down(pending()).await;
    let spans = collector.spans();
    assert_eq!(spans.len(), 2, "{spans:#?}");
    for span in &spans {
        assert_eq!(attributes(&span.attributes)["error.type"], "disconnected");
    }
    assert_eq!(collector.logs().len(), 1);
    assert!(!collector.points("gen_ai.client.token.usage").is_empty());
}

#[tokio::test]
async fn a_reload_begins_and_ends_it() {
    let collector = Collector::start();
    let world = World::start("", "").await;
    assert_eq!(ask(&world, "fast-chat", "").await.status, 200);
    let on = telling(&collector, "");
    world.configure(|text| format!("{on}{text}"));
    assert_eq!(ask(&world, "fast-chat", "").await.status, 200);
    let told = spans(&collector, 2).await;
    world.configure(|text| text.replace(&on, ""));
    assert_eq!(ask(&world, "fast-chat", "").await.status, 200);
    let entries = world.entries().await;
    world.running.shut_down(pending()).await;
    assert_eq!(collector.spans(), told);
    let request = attributes(&told[0].attributes)["pareto.request_id"].clone();
    assert_eq!(request, entries[1].held.request.to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tasks_calls_are_told_like_any() {
    let collector = Collector::start();
    let world = World::start(&telling(&collector, ""), "").await;
    talks(&world);
    let id = begin(&world.client, &talking()).await;
    status(&world.client, &id, "completed").await;
    let entries = world.entries().await;
    let spans = spans(&collector, 2 * entries.len()).await;
    let wanted: BTreeSet<String> = entries
        .iter()
        .map(|it| it.held.request.to_string())
        .collect();
    let told = |kind| -> BTreeSet<String> {
        let spans = of_kind(&spans, kind).into_iter();
        let ids = spans.map(|it| attributes(&it.attributes)["pareto.request_id"].clone());
        ids.collect()
    };
    assert!(wanted.len() > 1);
    assert_eq!(told(SpanKind::Server), wanted);
    assert_eq!(told(SpanKind::Client), wanted);
}

#[tokio::test]
async fn what_can_not_be_configured_is_said_with_what_to_write_instead() {
    let fast = bench::upstream::Upstream::start(script(FAST))
        .await
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    for (line, told) in [
        ("url = \"collector:4318\"", "write http://127.0.0.1:4318"),
        ("url = \"http://collector:4318\"", "plain_http"),
        (
            "url = \"https://me:secret@collector\"",
            "put them into headers",
        ),
        ("url = \"https://collector?key=1\"", "goes into headers"),
        ("sample_ratio = 1.5", "write 0.0 to 1.0"),
        ("sample_ratio = nan", "write 0.0 to 1.0"),
        ("queue = 0", "must be from 1"),
        ("interval_ms = 0", "must be above 0"),
        ("service = \"\"", "must not be empty"),
        ("headers = { \"a b\" = \"x\" }", "no name of a header"),
        ("headers = { host = \"x\" }", "leave it out"),
        ("headers = { a = \"${NO_SUCH_SECRET}\" }", "NO_SUCH_SECRET"),
        ("sample = 1", "unknown key"),
    ] {
        let head = format!("otlp.{line}");
        let text = tests::world::config(folder.path(), &head, &fast, &fast, "");
        let problems = proxy::Config::parse(&text).unwrap_err();
        let said: Vec<_> = problems.iter().map(|it| it.message.as_str()).collect();
        assert!(said.iter().any(|it| it.contains(told)), "{line}: {said:?}");
        assert!(
            problems.iter().all(|it| it.line > 0),
            "{line}: {problems:?}"
        );
    }
    for line in [
        "url = \"https://collector\"",
        "url = \"http://collector\"\notlp.plain_http = true",
    ] {
        let head = format!("otlp.{line}");
        let text = tests::world::config(folder.path(), &head, &fast, &fast, "");
        proxy::Config::parse(&text).unwrap();
    }
}
