//! Proves what callers see when more comes than can be served: they wait, the less urgent are turned away
//! first, one tenant's burst is not another's, and memory for bodies has a bound.

use std::time::Duration;

use bench::upstream::Script;
use http::Method;
use tests::client::Reply;
use tests::world::{FAST, World, chat, script};
use tokio::task::JoinHandle;

const PATH: &str = "/v1/chat/completions";

async fn slow(head: &str, tail: &str) -> World {
    let world = World::start(head, tail).await;
    world.fast.set_script(Script {
        first_token_ms: 300,
        ..script(FAST)
    });
    world
}

fn call(world: &World, key: &str, priority: Option<&str>, text: &str) -> JoinHandle<Reply> {
    let client = world.caller(key);
    let headers = priority.map(|it| ("x-pareto-priority".to_owned(), it.to_owned()));
    let body = chat("fast", text, ",\"stream\":true");
    tokio::task::spawn(async move {
        let headers: Vec<_> = headers
            .iter()
            .map(|(name, value)| (&**name, &**value))
            .collect();
        client.send(Method::POST, PATH, &headers, body).await
    })
}

async fn statuses(calls: Vec<JoinHandle<Reply>>) -> Vec<u16> {
    let mut all = Vec::new();
    for call in calls {
        let reply = call.await.unwrap();
        if reply.status == 503 {
            assert_eq!(reply.json()["error"]["code"], "overloaded");
            let seconds: u64 = reply.header("retry-after").parse().unwrap();
            assert!((1..=3).contains(&seconds));
        }
        all.push(reply.status);
    }
    all
}

fn count(statuses: &[u16], status: u16) -> usize {
    statuses.iter().filter(|it| **it == status).count()
}

#[tokio::test]
async fn calls_wait_for_a_place_as_many_as_may_and_the_rest_is_turned_away() {
    let world = slow(
        "limits.in_flight = 4\noverload.queue = 3\noverload.queue_ms = 8000",
        "",
    )
    .await;
    let key = &world.client.key;
    let calls = (0..12).map(|_| call(&world, key, None, "Hi")).collect();
    let seen = statuses(calls).await;
    assert_eq!((count(&seen, 200), count(&seen, 503)), (7, 5), "{seen:?}");
    let after = world.client.post(PATH, chat("fast", "Hi", "")).await;
    assert_eq!(after.status, 200);
    assert_eq!(world.entries().await.len(), 8);
    let metrics = world.admin().get("/metrics").await.text();
    assert!(metrics.contains("pareto_shed_total{priority=\"interactive\",reason=\"places\"} 5"));
}

#[tokio::test]
async fn batch_calls_leave_places_to_those_who_wait_for_answers() {
    let world = slow(
        "limits.in_flight = 10\noverload.batch_percent = 50\noverload.queue_ms = 0",
        "[[overload.share]]\ntenant = \"nightly\"\npriority = \"batch\"\n",
    )
    .await;
    let (key, nightly) = (&world.client.key, world.key("nightly").await);
    let mut calls: Vec<_> = (0..6).map(|_| call(&world, &nightly, None, "Hi")).collect();
    calls.extend((0..2).map(|_| call(&world, key, Some("batch"), "Hi")));
    world
        .until("five are under way", |world| world.fast.calls() >= 5)
        .await;
    let urgent = (0..5).map(|_| call(&world, key, None, "Hi")).collect();
    assert_eq!(statuses(urgent).await, [200; 5]);
    let seen = statuses(calls).await;
    assert_eq!((count(&seen, 200), count(&seen, 503)), (5, 3), "{seen:?}");
    let wrong = call(&world, key, Some("urgent"), "Hi").await.unwrap();
    assert_eq!(wrong.status, 400);
    assert!(
        wrong.text().contains("x-pareto-priority"),
        "{}",
        wrong.text()
    );
}

#[tokio::test]
async fn one_tenants_burst_does_not_turn_anothers_calls_away() {
    let world = slow(
        "limits.in_flight = 4\noverload.queue = 8\noverload.queue_ms = 8000",
        "",
    )
    .await;
    let (heavy, light) = (&world.client.key, world.key("light").await);
    let burst: Vec<_> = (0..60).map(|_| call(&world, heavy, None, "Hi")).collect();
    world
        .until("the burst is there", |world| world.fast.calls() >= 4)
        .await;
    for _ in 0..3 {
        let one = call(&world, &light, None, "Hi").await.unwrap();
        assert_eq!(one.status, 200, "{}", one.text());
    }
    let seen = statuses(burst).await;
    assert!(count(&seen, 503) >= 40, "{seen:?}");
}

#[tokio::test]
async fn bodies_that_have_no_room_wait_unread_and_are_then_refused() {
    let world = slow("overload.bodies_mb = 1\noverload.queue_ms = 100", "").await;
    let key = &world.client.key;
    let long = "word ".repeat(140_000);
    let first = call(&world, key, None, &long);
    world
        .until("the first is under way", |world| world.fast.calls() >= 1)
        .await;
    let refused = call(&world, key, None, &long).await.unwrap();
    assert_eq!(
        (refused.status, &refused.json()["error"]["code"]),
        (503, &"overloaded".into())
    );
    assert_eq!(
        call(&world, key, None, "Hi").await.unwrap().status,
        200,
        "small ones go on"
    );
    assert_eq!(first.await.unwrap().status, 200);
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(call(&world, key, None, &long).await.unwrap().status, 200);
}
