//! Proves how upstreams are cared for: who fails is left alone and tried again by one call at a time, who asks
//! for a pause gets it, a key that is refused or spent gives way to another, and retries are a share of calls.

use std::sync::{Arc, Mutex};

use bench::upstream::{Fault, Script};
use meter::{NanoUsd, Outcome};
use tests::bytes::{Endpoint, Message, answer};
use tests::world::{FAST, World, chat, script};

const STREAM: &str = ",\"stream\":true,\"max_tokens\":50";
const LONG_REST: &str = "upstream.breaker.rest_ms = 300000";

/// A world in which `fast-chat` is the only model of its tier.
async fn world(head: &str) -> World {
    let world = World::start(head, "").await;
    world.configure(|text| {
        let at = |name: &str, tier: &str| format!("name = \"fast-{name}\"\ntier = \"{tier}\"");
        ["responses", "messages"].iter().fold(text, |text, name| {
            text.replace(&at(name, "fast"), &at(name, "deep"))
        })
    });
    world
}

fn fails(world: &World, fault: Fault) {
    world.fast.set_script(Script {
        fault: Some(fault),
        ..script(FAST)
    });
}

async fn ask(world: &World, model: &str) -> tests::Reply {
    let body = chat(model, "Hello", "");
    world.client.post("/v1/chat/completions", body).await
}

/// An endpoint that answers as it is told, from the request and its number.
async fn told(
    answers: impl Fn(&Message, usize) -> Vec<u8> + Send + Sync + 'static,
) -> (Endpoint, Arc<Mutex<Vec<String>>>) {
    let keys = Arc::new(Mutex::new(Vec::new()));
    let (seen, answers) = (Arc::clone(&keys), Arc::new(answers));
    let endpoint = Endpoint::with(move |mut line| {
        let (seen, answers) = (Arc::clone(&seen), Arc::clone(&answers));
        async move {
            while let Some(asked) = line.message(true).await {
                let number = {
                    let mut seen = seen.lock().unwrap();
                    seen.push(asked.field("authorization"));
                    seen.len()
                };
                line.say(answers(&asked, number)).await;
            }
        }
    })
    .await;
    (endpoint, keys)
}

fn turned_away(status: u16, fields: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} No\r\ncontent-type: application/json\r\ncontent-length: 2\r\n{fields}\r\n{{}}")
        .into_bytes()
}

#[tokio::test]
async fn a_model_that_fails_is_left_alone_after_five_failures() {
    for fault in [
        Fault::Status(500, None),
        Fault::Status(529, None),
        Fault::Refuse,
        Fault::CutAfter(0),
    ] {
        let world = world(LONG_REST).await;
        fails(&world, fault.clone());
        for _ in 0..15 {
            let body = chat("fast", "Hello", STREAM);
            let reply = world.client.post("/v1/chat/completions", body).await;
            assert_eq!(reply.status, 200, "{fault:?}: {}", reply.text());
            assert_eq!(reply.header("x-pareto-tier"), "deep", "{fault:?}");
        }
        assert_eq!(world.fast.calls(), 5, "{fault:?}");
        if fault != Fault::Status(500, None) {
            // A process has one recorder, which the first gateway renders.
            continue;
        }
        let metrics = world.admin().get("/metrics").await.text();
        let labels = "{model=\"fast-chat\",endpoint=\"fast-chat\"}";
        for told in [
            format!("pareto_upstream_rests_total{labels} 1"),
            format!("pareto_upstream_usable{labels} 0"),
        ] {
            assert!(metrics.contains(&told), "{fault:?}: {told}\n{metrics}");
        }
    }
}

/// What the caller has seen of them can not be made good, but the next caller is spared.
#[tokio::test]
async fn streams_that_break_count_as_failures() {
    let world = world(LONG_REST).await;
    fails(&world, Fault::CutAfter(3));
    for turn in 0..10 {
        let body = chat("fast", "Hello", STREAM);
        let reply = world.client.post("/v1/chat/completions", body).await;
        assert_eq!(reply.broken, turn < 5, "{turn}");
    }
    assert_eq!(world.fast.calls(), 5);
}

#[tokio::test]
async fn neither_the_callers_mistakes_nor_their_leaving_count() {
    let world = world(LONG_REST).await;
    fails(&world, Fault::Status(400, None));
    for _ in 0..10 {
        assert_eq!(ask(&world, "fast").await.status, 400);
    }
    world.fast.set_script(Script {
        output_tokens: 10_000,
        token_gap_us: 1_000,
        ..script(FAST)
    });
    for _ in 0..10 {
        let body = chat("fast", "Hello", ",\"stream\":true");
        world
            .client
            .leave_after("/v1/chat/completions", body, 2)
            .await;
    }
    assert_eq!(world.fast.calls(), 20);
    world.fast.set_script(script(FAST));
    let reply = ask(&world, "fast").await;
    assert_eq!(reply.header("x-pareto-tier"), "fast");
}

#[tokio::test]
async fn one_call_at_a_time_tries_a_model_that_has_rested() {
    let world = Arc::new(world("upstream.breaker.rest_ms = 1").await);
    fails(&world, Fault::Status(500, None));
    // Its rest is over soon after each failure, so that it is asked again and again.
    for _ in 0..5 {
        ask(&world, "fast").await;
    }
    fails(&world, Fault::HangBeforeHeaders);
    let asking = Arc::clone(&world);
    let before = world.fast.calls();
    let trying = tokio::spawn(async move { ask(&asking, "fast").await });
    world
        .until("the model is tried", |it| it.fast.calls() > before)
        .await;
    for _ in 0..10 {
        assert_eq!(ask(&world, "fast").await.header("x-pareto-tier"), "deep");
    }
    assert_eq!(world.fast.calls(), before + 1, "one at a time");
    // Its caller leaves. Another may try then, and after three that end well all may go.
    world.fast.set_script(script(FAST));
    trying.abort();
    assert!(trying.await.is_err());
    let mut turns = 0;
    while world.fast.bill().len() < 13 {
        turns += 1;
        assert!(turns < 1_000, "it never came back");
        assert_eq!(ask(&world, "fast").await.status, 200);
    }
}

#[tokio::test]
async fn where_all_rest_somebody_is_asked_all_the_same() {
    let world = world(LONG_REST).await;
    fails(&world, Fault::Status(400, None));
    fails(&world, Fault::Status(500, None));
    for _ in 0..5 {
        assert_eq!(ask(&world, "fast-chat").await.status, 500);
    }
    world.fast.set_script(script(FAST));
    for _ in 0..3 {
        assert_eq!(ask(&world, "fast-chat").await.status, 200);
    }
    // Three successes show that it is well again.
    assert_eq!(ask(&world, "fast").await.header("x-pareto-tier"), "fast");
}

#[tokio::test]
async fn where_there_is_no_other_the_same_model_is_asked_again() {
    for first in [
        turned_away(500, ""),
        turned_away(503, "retry-after-ms: 20\r\n"),
        turned_away(429, "retry-after-ms: 20\r\n"),
        turned_away(429, "retry-after: 0.01\r\n"),
    ] {
        let (endpoint, _) = told(move |_, number| match number {
            1 => first.clone(),
            _ => answer("Fine", ""),
        })
        .await;
        let world = World::start("", &endpoint.tables()).await;
        let reply = ask(&world, "raw").await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        let entries = world.entries().await;
        let outcomes: Vec<_> = entries.iter().map(|it| it.outcome).collect();
        assert_eq!(outcomes, [Outcome::Failed, Outcome::Completed]);
        assert_eq!(entries[0].cost, NanoUsd::ZERO);
    }
}

/// Clients try again by themselves; what they do is not multiplied.
#[tokio::test]
async fn a_call_that_its_client_makes_again_is_not_made_again_here() {
    let (endpoint, seen) = told(|_, _| turned_away(500, "")).await;
    let world = World::start("", &endpoint.tables()).await;
    for (count, asked) in [("0", 3), ("1", 4)] {
        let headers = [("x-stainless-retry-count", count)];
        let body = chat("raw", "Hello", "");
        let path = "/v1/chat/completions";
        let reply = world
            .client
            .send(http::Method::POST, path, &headers, body)
            .await;
        assert_eq!(reply.status, 500);
        assert_eq!(seen.lock().unwrap().len(), asked);
    }
}

#[tokio::test]
async fn a_pause_that_an_endpoint_asks_for_is_kept_without_asking_it_again() {
    for (first, refused) in [
        (turned_away(429, "retry-after: 30\r\n"), true),
        (
            turned_away(
                429,
                "x-ratelimit-remaining-tokens: 0\r\nx-ratelimit-reset-tokens: 29.5s\r\n",
            ),
            true,
        ),
        // An answer tells as well that it was the last one for now.
        (
            answer(
                "Fine",
                "x-ratelimit-remaining-requests: 0\r\nx-ratelimit-reset-requests: 30s\r\n",
            ),
            false,
        ),
    ] {
        let (endpoint, seen) = told(move |_, _| first.clone()).await;
        let world = World::start("", &endpoint.tables()).await;
        let reply = ask(&world, "raw").await;
        assert_eq!(reply.status == 429, refused, "{}", reply.text());
        for _ in 0..3 {
            let reply = ask(&world, "raw").await;
            assert_eq!(reply.status, 429, "{}", reply.text());
            let wait: u64 = reply.header("retry-after").parse().unwrap();
            assert!((20..=30).contains(&wait), "{wait}");
            assert_eq!(reply.json()["error"]["code"], "upstream_rate_limited");
        }
        assert_eq!(seen.lock().unwrap().len(), 1, "it was asked once");
        // Another model of the tier is not concerned.
        assert_eq!(ask(&world, "fast").await.status, 200);
    }
}

#[tokio::test]
async fn calls_go_on_with_another_key_where_one_is_refused_or_at_its_limit() {
    for status in [401, 403, 429] {
        let (endpoint, seen) = told(move |asked, _| {
            if asked.field("authorization") == "Bearer up-raw" {
                turned_away(status, "retry-after: 30\r\n")
            } else {
                answer("Fine", "")
            }
        })
        .await;
        let world = World::start("", &endpoint.tables()).await;
        world.configure(|text| {
            let key = "key = \"up-raw\"\n";
            text.replace(key, &format!("{key}keys = [\"up-two\"]\n"))
        });
        for _ in 0..5 {
            let reply = ask(&world, "raw").await;
            assert_eq!(reply.status, 200, "{status}: {}", reply.text());
        }
        let seen = seen.lock().unwrap().clone();
        let first = seen.iter().filter(|key| *key == "Bearer up-raw").count();
        assert_eq!((first, seen.len()), (1, 6), "{status}: {seen:?}");
        if status == 401 {
            let metrics = world.admin().get("/metrics").await.text();
            let told = "pareto_upstream_keys_refused_total{endpoint=\"raw\"} 1";
            assert!(metrics.contains(told), "{metrics}");
        }
    }
}

#[tokio::test]
async fn of_two_keys_the_one_with_fewer_calls_is_taken() {
    let endpoint = Endpoint::with(|mut line| async move {
        while let Some(asked) = line.message(true).await {
            if asked.text().contains("Wait") {
                std::future::pending::<()>().await;
            }
            line.say(answer(&asked.field("authorization"), "")).await;
        }
    })
    .await;
    let world = Arc::new(World::start("", &endpoint.tables()).await);
    world.configure(|text| {
        let key = "key = \"up-raw\"\n";
        text.replace(key, &format!("{key}keys = [\"up-two\"]\n"))
    });
    let asking = Arc::clone(&world);
    let waiting = tokio::spawn(async move {
        let body = chat("raw", "Wait", "");
        asking.client.post("/v1/chat/completions", body).await
    });
    world
        .until("a call waits", |_| endpoint.connections() > 0)
        .await;
    for _ in 0..5 {
        let reply = ask(&world, "raw").await.text();
        assert!(reply.contains("up-two"), "{reply}");
    }
    waiting.abort();
}

#[tokio::test]
async fn retries_are_a_share_of_calls_and_what_nobody_saw_is_free() {
    let none = "upstream.retries = { percent = 0, per_second = 0 }";
    let world = world(none).await;
    fails(&world, Fault::Status(500, None));
    let reply = ask(&world, "fast").await;
    assert_eq!(
        (reply.status, world.deep.calls()),
        (500, 0),
        "no retry is left"
    );
    // Nobody listens there, so nobody has seen the call.
    let (address, _nobody) = tests::bytes::nobody();
    world.configure(|text| text.replace(&world.fast.url(), &format!("http://{address}/v1")));
    let reply = ask(&world, "fast").await;
    assert_eq!(
        (reply.status, reply.header("x-pareto-tier").as_str()),
        (200, "deep"),
        "{}",
        reply.text()
    );
    let metrics = world.admin().get("/metrics").await.text();
    for (model, result) in [("deep-chat", "denied"), ("deep-chat", "free")] {
        let told = format!(
            "pareto_upstream_retries_total{{model=\"{model}\",endpoint=\"{model}\",result=\"{result}\"}} 1"
        );
        assert!(metrics.contains(&told), "{told}\n{metrics}");
    }
}

/// A connection that waited may be closed just when the next call goes out on it.
#[tokio::test]
async fn a_connection_that_was_about_to_close_costs_no_retry() {
    let endpoint = Endpoint::with(|mut line| async move {
        if line.message(true).await.is_some() {
            line.say(answer("Fine", "")).await;
            line.message(true).await;
        }
    })
    .await;
    let none = "upstream.retries = { percent = 0, per_second = 0 }";
    let world = World::start(none, &endpoint.tables()).await;
    for connections in [1, 2, 3] {
        let reply = ask(&world, "raw").await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert_eq!(reply.json()["choices"][0]["message"]["content"], "Fine");
        assert_eq!(endpoint.connections(), connections);
    }
    let entries = world.entries().await;
    let completed = |it: &&meter::Entry| it.outcome == Outcome::Completed;
    assert_eq!(
        (entries.iter().filter(completed).count(), entries.len()),
        (3, 5)
    );
}

async fn with_headers(world: &World, model: &str, headers: &[(&str, &str)]) -> tests::Reply {
    let body = chat(model, "Hello", "");
    let path = "/v1/chat/completions";
    world
        .client
        .send(http::Method::POST, path, headers, body)
        .await
}

#[tokio::test]
async fn a_deadline_ends_a_call_and_is_not_held_against_the_endpoint() {
    let world = world(LONG_REST).await;
    fails(&world, Fault::HangBeforeHeaders);
    for headers in [
        [("x-request-timeout-ms", "50")],
        [("x-stainless-timeout", "0.05")],
        [("x-stainless-read-timeout", "0.05")],
    ] {
        for _ in 0..2 {
            let reply = with_headers(&world, "fast", &headers).await;
            let told = reply.json();
            assert_eq!(
                (reply.status, &told["error"]["code"]),
                (504, &"deadline_exceeded".into())
            );
            assert_eq!(reply.header("x-should-retry"), "");
        }
    }
    assert_eq!((world.fast.calls(), world.deep.calls()), (6, 0));
    // Nobody knows what the endpoint did, so it is charged at the bound.
    let entries = world.entries().await;
    assert!(entries.iter().all(|it| it.cost > NanoUsd::ZERO));
    world.fast.set_script(script(FAST));
    assert_eq!(ask(&world, "fast").await.header("x-pareto-tier"), "fast");
    let reply = with_headers(&world, "fast", &[("x-request-timeout-ms", "soon")]).await;
    assert_eq!(reply.status, 400);
}

#[tokio::test]
async fn what_can_not_be_answered_in_time_is_refused_at_once_or_goes_to_a_quicker_model() {
    let world = world("").await;
    world.fast.set_script(Script {
        first_token_ms: 300,
        ..script(FAST)
    });
    for _ in 0..8 {
        assert_eq!(ask(&world, "fast").await.status, 200);
    }
    let short = [("x-request-timeout-ms", "290")];
    let reply = with_headers(&world, "fast-chat", &short).await;
    let told = reply.json();
    assert_eq!(
        (reply.status, &told["error"]["code"]),
        (504, &"deadline_too_short".into())
    );
    assert_eq!(reply.header("x-should-retry"), "false");
    assert_eq!(world.fast.calls(), 8, "it was not sent");
    let reply = with_headers(&world, "fast", &short).await;
    assert_eq!(
        (reply.status, reply.header("x-pareto-tier").as_str()),
        (200, "deep")
    );
    let long = [("x-request-timeout-ms", "30000")];
    assert_eq!(with_headers(&world, "fast-chat", &long).await.status, 200);
}

#[tokio::test]
async fn an_endpoint_is_told_the_deadline_where_it_is_to_be() {
    let (endpoint, _) = told(|asked, _| {
        let left = asked.field("x-request-timeout-ms");
        answer(&left, "")
    })
    .await;
    let world = World::start("", &endpoint.tables()).await;
    let headers = [("x-request-timeout-ms", "30000")];
    let said = |reply: tests::Reply| {
        let json = reply.json();
        json["choices"][0]["message"]["content"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(said(with_headers(&world, "raw", &headers).await), "");
    world.configure(|text| {
        let key = "key = \"up-raw\"\n";
        text.replace(
            key,
            &format!("{key}deadline_header = \"x-request-timeout-ms\"\n"),
        )
    });
    let left: u64 = said(with_headers(&world, "raw", &headers).await)
        .parse()
        .unwrap();
    assert!(left > 0 && left <= 30_000, "{left}");
    assert_eq!(said(ask(&world, "raw").await), "", "nobody said one");
}

/// A caller that leaves ends the call at its endpoint, whatever it waits for: the connection there closes.
#[tokio::test]
async fn a_caller_that_leaves_closes_the_endpoints_connection() {
    for begins in [false, true] {
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        let endpoint = Endpoint::with(move |mut line| {
            let tell = tell.clone();
            async move {
                line.message(true).await;
                tell.send("asked").unwrap();
                if begins {
                    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
                    let event = "data: {\"choices\":[{\"delta\":{\"content\":\"Well\"}}]}\n\n";
                    line.say(format!("{head}{event}")).await;
                }
                assert!(line.rest().await.is_empty());
                tell.send("closed").unwrap();
            }
        })
        .await;
        let world = World::start("", &endpoint.tables()).await;
        let body = chat("raw", "Hello", ",\"stream\":true");
        let client = world.client.clone();
        if begins {
            client.leave_after("/v1/chat/completions", body, 1).await;
            assert_eq!(told.recv().await, Some("asked"));
        } else {
            let calling =
                tokio::spawn(async move { client.post("/v1/chat/completions", body).await });
            assert_eq!(told.recv().await, Some("asked"));
            calling.abort();
        }
        // Long before any of the gateway's own timeouts.
        assert_eq!(told.recv().await, Some("closed"));
    }
}

/// A model `twin` at two endpoints that say which of them they are, and wait where they are told to.
async fn twins() -> (World, [Endpoint; 2]) {
    let twin = |name: &'static str| {
        Endpoint::with(move |mut line| async move {
            while let Some(asked) = line.message(true).await {
                if asked.text().contains("Wait") {
                    std::future::pending::<()>().await;
                }
                line.say(answer(name, "")).await;
            }
        })
    };
    let both = [twin("one").await, twin("two").await];
    let mut tables = String::new();
    for (name, endpoint) in ["one", "two"].iter().zip(&both) {
        let address = endpoint.address;
        tables += &format!(
            "[[endpoint]]\nname = \"{name}\"\ndialect = \"openai_chat\"\nurl = \"http://{address}/v1\"\n"
        );
    }
    tables += "[[model]]\nname = \"twin\"\ntier = \"fast\"\nendpoint = [\"one\", \"two\"]\n\
               price = \"test/fast\"\n";
    (World::start("", &tables).await, both)
}

async fn said(world: &World, body: String) -> String {
    let reply = world.client.post("/v1/chat/completions", body).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let text = &reply.json()["choices"][0]["message"]["content"];
    text.as_str().unwrap().to_owned()
}

#[tokio::test]
async fn of_two_equal_endpoints_the_less_busy_one_gets_a_call() {
    let (world, both) = twins().await;
    let world = Arc::new(world);
    let asking = Arc::clone(&world);
    let waiting = tokio::spawn(async move {
        let body = chat("twin", "Wait", "");
        asking.client.post("/v1/chat/completions", body).await
    });
    world
        .until("a call waits", |_| {
            both.iter().any(|it| it.connections() > 0)
        })
        .await;
    let free = if both[0].connections() > 0 {
        "two"
    } else {
        "one"
    };
    for _ in 0..10 {
        assert_eq!(said(&world, chat("twin", "Hello", "")).await, free);
    }
    waiting.abort();
    let entries = world.entries().await;
    assert!(entries.iter().all(|it| *it.held.model == *"twin"));
    assert!(entries.iter().any(|it| *it.held.endpoint == *free));
}

/// What a vendor has cached of a prompt is at one of its endpoints.
#[tokio::test]
async fn a_long_conversation_stays_at_one_of_two_equal_endpoints() {
    let (world, _both) = twins().await;
    let mut homes = std::collections::BTreeSet::new();
    for conversation in 0..12 {
        let first = format!("{conversation} {}", "word ".repeat(1_000));
        let mut home = None;
        let mut turns = vec![serde_json::json!({ "role": "user", "content": first })];
        for _ in 0..3 {
            let body = serde_json::json!({ "model": "twin", "messages": turns });
            let name = said(&world, body.to_string()).await;
            assert_eq!(*home.get_or_insert(name.clone()), name, "{conversation}");
            turns.push(serde_json::json!({ "role": "assistant", "content": name }));
            turns.push(serde_json::json!({ "role": "user", "content": "And?" }));
        }
        homes.extend(home);
    }
    assert_eq!(homes.len(), 2, "they are spread");
}

#[tokio::test]
async fn a_call_that_one_of_two_equal_endpoints_fails_goes_to_the_other() {
    let (world, both) = twins().await;
    let address = both[0].address;
    let (nowhere, _nobody) = tests::bytes::nobody();
    world.configure(|text| text.replace(&address.to_string(), &nowhere.to_string()));
    for _ in 0..10 {
        assert_eq!(said(&world, chat("twin", "Hello", "")).await, "two");
    }
}

#[tokio::test]
async fn equal_endpoints_are_in_one_region() {
    let (world, _both) = twins().await;
    let text = std::fs::read_to_string(&world.file).unwrap();
    let name = "name = \"one\"\ndialect";
    let text = text.replace(name, &format!("region = \"eu\"\n{name}"));
    let problems = proxy::config::Config::parse(&text).unwrap_err();
    assert!(problems[0].message.contains("two regions"), "{problems:?}");
}

#[tokio::test]
async fn an_endpoint_gets_no_more_calls_at_once_than_it_is_to() {
    let (world, both) = twins().await;
    world.configure(|text| {
        ["one", "two"].iter().fold(text, |text, name| {
            let name = format!("name = \"{name}\"\ndialect");
            text.replace(&name, &format!("concurrency = 1\n{name}"))
        })
    });
    let world = Arc::new(world);
    let mut waiting = Vec::new();
    for busy in [1, 2] {
        let asking = Arc::clone(&world);
        waiting.push(tokio::spawn(async move {
            let body = chat("twin", "Wait", "");
            asking.client.post("/v1/chat/completions", body).await
        }));
        let at = |_: &World| both.iter().map(Endpoint::connections).sum::<usize>() == busy;
        world.until("a call waits", at).await;
    }
    assert!(both.iter().all(|it| it.connections() == 1), "one each");
    let reply = ask(&world, "twin").await;
    assert_eq!(
        (reply.status, &reply.json()["error"]["code"]),
        (503, &"upstream_full".into())
    );
    assert_eq!(reply.header("retry-after"), "1");
    // Who leaves makes room.
    for waits in waiting {
        waits.abort();
        assert!(waits.await.is_err());
    }
    let mut reply = ask(&world, "twin").await;
    for _ in 0..100 {
        if reply.status == 200 {
            break;
        }
        reply = ask(&world, "twin").await;
    }
    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn an_endpoint_that_turns_calls_away_gets_fewer_at_once() {
    let (endpoint, _) = told(|_, _| turned_away(429, "retry-after-ms: 1\r\n")).await;
    let world = World::start("", &endpoint.tables()).await;
    world.configure(|text| {
        let key = "key = \"up-raw\"\n";
        text.replace(key, &format!("{key}concurrency = \"aimd\"\n"))
    });
    assert_eq!(ask(&world, "raw").await.status, 429);
    let metrics = world.admin().get("/metrics").await.text();
    let name = "pareto_upstream_concurrency_limit{endpoint=\"raw\"} ";
    let limit = metrics.lines().find_map(|line| line.strip_prefix(name));
    let limit: u32 = limit.unwrap().parse().unwrap();
    assert!((10..20).contains(&limit), "{limit}");
    let text = std::fs::read_to_string(&world.file).unwrap();
    let text = text.replace("\"aimd\"", "\"fast\"");
    let problems = proxy::config::Config::parse(&text).unwrap_err();
    assert!(problems[0].message.contains("gradient2"), "{problems:?}");
}

/// One call in three takes long, so that the quick ones have none made beside them, and one that hangs has.
#[tokio::test]
async fn a_call_that_takes_long_is_answered_by_whoever_is_there_first() {
    for stream in [STREAM, ""] {
        let world = world("").await;
        let ask = async || {
            let body = chat("fast", "Hello", stream);
            world.client.post("/v1/chat/completions", body).await
        };
        world.fast.set_script(Script {
            first_token_ms: 400,
            ..script(FAST)
        });
        let slow = futures_util::future::join_all((0..20).map(|_| ask())).await;
        assert!(slow.iter().all(|it| it.status == 200));
        world.fast.set_script(script(FAST));
        world.configure(|text| {
            let at = "name = \"fast-chat\"\ntier = \"fast\"\n";
            let text = text.replace(at, &format!("{at}hedge = true\n"));
            // The only other one of the tier.
            let at = |tier: &str| format!("name = \"deep-chat\"\ntier = \"{tier}\"");
            text.replace(&at("deep"), &at("fast"))
        });
        for _ in 0..40 {
            assert_eq!(ask().await.status, 200);
        }
        let before = world.entries().await.len();
        let seen = world.fast.calls() + world.deep.calls();
        fails(&world, Fault::HangBeforeHeaders);
        let reply = ask().await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert_eq!(reply.header("x-pareto-model"), "deep-chat");
        assert_eq!(world.fast.calls() + world.deep.calls(), seen + 2);
        world
            .until("both are settled", |it| it.fast.calls() > 0)
            .await;
        let mut entries = world.entries().await.split_off(before);
        entries.sort_by_key(|it| it.held.attempt);
        let ended: Vec<_> = entries
            .iter()
            .map(|it| (&*it.held.model, it.held.attempt, it.outcome))
            .collect();
        let beaten = if stream.is_empty() {
            Outcome::Disconnected
        } else {
            Outcome::Interrupted
        };
        assert_eq!(
            ended,
            [
                ("fast-chat", 0, beaten),
                ("deep-chat", 1, Outcome::Completed)
            ]
        );
        assert!(entries.iter().all(|it| it.cost > NanoUsd::ZERO));
        assert_eq!(entries[0].held.request, entries[1].held.request);
        if stream == STREAM {
            let metrics = world.admin().get("/metrics").await.text();
            let told = "pareto_upstream_hedges_total{model=\"fast-chat\",endpoint=\"fast-chat\",result=\"second\"} 1";
            assert!(metrics.contains(told), "{metrics}");
        }
    }
}
