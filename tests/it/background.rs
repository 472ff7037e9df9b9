//! Proves that a response made in the background is made whoever listens: its stream can be left and
//! taken up again, stopped, and deleted with every copy of it.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tests::World;

use crate::corners::answering;

/// The events of a stream, as their data.
fn events(text: &str) -> Vec<Value> {
    let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
    data.map(|data| serde_json::from_str(data).unwrap())
        .collect()
}

fn asked(model: &str, script: &str) -> String {
    let input = format!("Tell me. <<script {script}>>");
    json!({ "model": model, "background": true, "stream": true, "input": input }).to_string()
}

/// A response once nobody works on it any more.
pub(crate) async fn done(world: &World, id: &str) -> Value {
    for _ in 0..400 {
        let got = world.client.get(&format!("/v1/responses/{id}")).await;
        let got = got.json();
        if !matches!(got["status"].as_str(), Some("queued" | "in_progress")) {
            return got;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("never done")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_goes_on_without_its_caller_and_can_be_taken_up_again() {
    let world = World::start("", "").await;
    for model in ["fast-chat", "fast-responses", "fast-messages"] {
        let said = "One and two and three and four and five.";
        let body = asked(model, &format!("{{\"say\":\"{said}\",\"gap_us\":20000}}"));
        let heard = world.client.leave_after("/v1/responses", body, 4).await;
        let first = &events(&heard)[0];
        let id = first["response"]["id"].as_str().unwrap().to_owned();
        let path = format!("/v1/responses/{id}");
        // While it is made as well as when it is whole.
        for _ in 0..2 {
            let whole = world.client.get(&format!("{path}?stream=true")).await;
            assert_eq!((whole.status, whole.broken), (200, false));
            assert_eq!(whole.header("content-type"), "text/event-stream");
            assert!(whole.text().starts_with(&heard), "{model}");
            let all = events(&whole.text());
            for (number, event) in all.iter().enumerate() {
                assert_eq!(event["sequence_number"], number, "{model}");
                let named = event["response"]["id"].as_str();
                assert!(named.is_none_or(|named| named == id), "{model}: {named:?}");
                let background = event["response"].get("background");
                assert!(background.is_none_or(|it| it == true), "{model}: {event}");
            }
            let deltas = all.iter().filter_map(|event| event["delta"].as_str());
            assert_eq!(deltas.collect::<String>(), said, "{model}");
            assert_eq!(all.last().unwrap()["type"], "response.completed", "{model}");
            let rest = format!("{path}?stream=true&starting_after=2");
            let rest = world.client.get(&rest).await;
            assert_eq!(events(&rest.text()), all[3..], "{model}");
        }
        let kept = done(&world, &id).await;
        assert_eq!(
            (&kept["status"], &kept["id"]),
            (&json!("completed"), &json!(id))
        );
        let goes_on = json!({ "model": model, "previous_response_id": id, "input": "And?" });
        let reply = world
            .client
            .post("/v1/responses", goes_on.to_string())
            .await;
        assert_eq!(reply.status, 200, "{model}: {}", reply.text());
    }
    assert_eq!(world.fast.calls(), 6, "nothing was made twice");
}

#[tokio::test]
async fn what_never_began_is_told_at_once_and_not_kept() {
    let world = World::start("", "").await;
    let reply = world
        .client
        .post("/v1/responses", asked("nobody", "{}"))
        .await;
    assert_eq!(
        (reply.status, &reply.json()["error"]["code"]),
        (404, &json!("model_not_found"))
    );
    let body = asked("fast-responses", "{\"fault\":\"status:500\"}");
    assert_eq!(world.client.post("/v1/responses", body).await.status, 500);
}

#[tokio::test]
async fn a_stream_that_breaks_is_a_failed_response() {
    for model in ["fast-responses", "fast-chat"] {
        breaks(model).await;
    }
}

async fn breaks(model: &str) {
    let world = World::start("", "").await;
    let body = asked(model, "{\"fault\":\"cut_after:3\",\"output_tokens\":50}");
    let reply = world.client.post("/v1/responses", body).await;
    assert!(reply.broken, "{}", reply.text());
    let all = events(&reply.text());
    let (last, before) = all.split_last().unwrap();
    let number = |event: &Value| event["sequence_number"].as_u64().unwrap();
    assert_eq!(last["type"], "error");
    assert_eq!(number(last), number(&before[before.len() - 1]) + 1);
    let id = all[0]["response"]["id"].as_str().unwrap();
    let kept = done(&world, id).await;
    assert_eq!(kept["status"], "failed");
    assert_eq!(kept["error"]["code"], "upstream_interrupted");
    let goes_on = json!({ "model": "fast-chat", "previous_response_id": id, "input": "And?" });
    let reply = world
        .client
        .post("/v1/responses", goes_on.to_string())
        .await;
    assert_eq!(reply.status, 400, "{}", reply.text());
    assert!(reply.text().contains("which is failed"), "{}", reply.text());
    let again = format!("/v1/responses/{id}?stream=true");
    assert!(world.client.get(&again).await.broken);
}

#[tokio::test]
async fn a_stopped_stream_ends_for_all_who_listen() {
    let world = World::start("", "").await;
    let body = asked("fast-responses", "{\"output_tokens\":500,\"gap_us\":50000}");
    let heard = world.client.leave_after("/v1/responses", body, 4).await;
    let id = events(&heard)[0]["response"]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let path = format!("/v1/responses/{id}");
    let listened = format!("{path}?stream=true");
    let (heard, cancelled) = tokio::join!(world.client.get(&listened), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        world.client.post(&format!("{path}/cancel"), "").await
    });
    assert_eq!(cancelled.json()["status"], "cancelled");
    let all = events(&heard.text());
    assert_eq!(all.last().unwrap()["code"], "cancelled");
    assert_eq!(done(&world, &id).await["status"], "cancelled");
}

#[tokio::test]
async fn only_what_was_asked_for_as_a_stream_is_one() {
    let world = World::start("", "").await;
    let body = json!({ "model": "fast", "background": true, "input": "Hello" }).to_string();
    let queued = world.client.post("/v1/responses", body).await.json();
    let path = format!(
        "/v1/responses/{}?stream=true",
        queued["id"].as_str().unwrap()
    );
    let reply = world.client.get(&path).await;
    assert_eq!(reply.status, 400, "{}", reply.text());
    let wrong = format!("{path}&starting_after=x");
    assert_eq!(world.client.get(&wrong).await.status, 400);
}

#[tokio::test]
async fn what_is_made_at_once_can_not_be_cancelled() {
    let world = World::start("", "").await;
    let made = json!({ "model": "fast-chat", "input": "Hello" }).to_string();
    let made = world.client.post("/v1/responses", made).await.json();
    let path = format!("/v1/responses/{}", made["id"].as_str().unwrap());
    let reply = world.client.post(&format!("{path}/cancel"), "").await;
    assert_eq!(reply.status, 400, "{}", reply.text());
    assert_eq!(world.client.get(&path).await.json(), made);
    let head = world.client.send(Method::HEAD, &path, &[], "").await;
    assert_eq!((head.status, head.body.len()), (200, 0));
}

#[tokio::test]
async fn a_deleted_response_is_deleted_everywhere() {
    let world = World::start("", "").await;
    for stored in [
        json!({ "model": "fast-responses", "input": "Hello" }),
        json!({ "model": "fast-responses", "input": "Hello", "background": true }),
        json!({ "model": "fast-chat", "input": "Hello" }),
    ] {
        let made = world.client.post("/v1/responses", stored.to_string()).await;
        let id = made.json()["id"].as_str().unwrap().to_owned();
        let whole = done(&world, &id).await;
        let at_origin = usize::from(stored["model"] == "fast-responses");
        assert_eq!(world.fast.kept(), at_origin, "{stored}");
        let item = whole["output"][0]["id"].as_str().unwrap();
        let named = json!({ "model": "fast", "input": [{ "type": "item_reference", "id": item }] });
        let path = format!("/v1/responses/{id}");
        let deleted = world.client.send(Method::DELETE, &path, &[], "").await;
        assert_eq!(deleted.status, 200, "{}", deleted.text());
        assert_eq!(world.fast.kept(), 0, "{stored}");
        assert_eq!(world.client.get(&path).await.status, 404);
        let reply = world.client.post("/v1/responses", named.to_string()).await;
        assert_eq!(reply.status, 400, "{}", reply.text());
    }
}

#[tokio::test]
async fn what_is_not_to_be_kept_is_not_made_in_the_background() {
    let world = World::start("", "").await;
    let body = json!({ "model": "fast", "background": true, "store": false, "input": "Hello" });
    let reply = world.client.post("/v1/responses", body.to_string()).await;
    assert_eq!(reply.status, 400, "{}", reply.text());
    assert_eq!(world.fast.calls(), 0);
}

fn answer(status: &str, kind: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n{body}")
}

fn model(name: &str, url: &str) -> String {
    format!(
        "[[endpoint]]\nname = \"{name}\"\ndialect = \"openai_responses\"\nurl = \"{url}\"\nkey = \"key-{name}\"\n\
         [[model]]\nname = \"{name}\"\ntier = \"deep\"\nendpoint = \"{name}\"\nprice = \"test/deep\"\n"
    )
}

/// A response as an upstream tells it that calls it `resp_there`.
fn made_there() -> Value {
    let text = json!({ "type": "output_text", "text": "One two", "annotations": [] });
    let message =
        json!({ "id": "msg_1", "type": "message", "role": "assistant", "content": [text] });
    json!({ "id": "resp_there", "object": "response", "status": "completed", "model": "m",
        "output": [message], "usage": { "input_tokens": 1, "output_tokens": 1, "total_tokens": 2 } })
}

#[tokio::test]
async fn what_could_not_be_deleted_there_can_be_asked_for_again() {
    let world = World::start("", "").await;
    let (url, mut heard) = answering(|asked| match asked {
        asked if !asked.starts_with("DELETE") => {
            answer("200 OK", "application/json", &made_there().to_string())
        }
        // Only one of the two accounts knows it, and fails.
        asked if asked.contains("key-second") => answer("500 No", "application/json", "{}"),
        _ => answer("404 Not Found", "application/json", "{}"),
    })
    .await;
    world.configure(|text| text + &model("first", &url) + &model("second", &url));
    let body = json!({ "model": "second", "background": true, "input": "Hello" }).to_string();
    let queued = world.client.post("/v1/responses", body).await.json();
    let id = queued["id"].as_str().unwrap();
    assert_eq!(done(&world, id).await["status"], "completed");
    let path = format!("/v1/responses/{id}");
    for _ in 0..2 {
        let reply = world.client.send(Method::DELETE, &path, &[], "").await;
        assert_eq!(reply.status, 502, "{}", reply.text());
        assert!(reply.text().contains(id), "{}", reply.text());
    }
    assert_eq!(world.client.get(&path).await.status, 200);
    let mut asked = Vec::new();
    while let Ok(request) = heard.try_recv() {
        asked.extend(request.starts_with("DELETE").then_some(request));
    }
    assert_eq!(asked.len(), 4, "each key is tried: {asked:?}");
}

#[tokio::test]
async fn a_stream_is_taken_up_by_the_numbers_of_its_events() {
    let world = World::start("", "").await;
    let (url, _heard) = answering(|_| {
        let mut begun = made_there();
        begun["status"] = "in_progress".into();
        let mut events = vec![json!({ "type": "response.created", "response": begun })];
        for word in ["One", " two"] {
            events.push(
                json!({ "type": "response.output_text.delta", "item_id": "msg_1", "output_index": 0,
                "content_index": 0, "delta": word }),
            );
        }
        events.push(json!({ "type": "response.completed", "response": made_there() }));
        let told = events.iter_mut().zip(1..).map(|(event, number)| {
            event["sequence_number"] = number.into();
            format!(
                ": still here\n\nevent: {}\ndata: {event}\n\n",
                event["type"].as_str().unwrap()
            )
        });
        answer("200 OK", "text/event-stream", &told.collect::<String>())
    })
    .await;
    world.configure(|text| text + &model("own", &url));
    let all = world.client.post("/v1/responses", asked("own", "{}")).await;
    let id = events(&all.text())[0]["response"]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let path = format!("/v1/responses/{id}?stream=true&starting_after=2");
    let rest = events(&world.client.get(&path).await.text());
    let numbers: Vec<u64> = rest
        .iter()
        .map(|event| event["sequence_number"].as_u64().unwrap())
        .collect();
    assert_eq!(
        numbers,
        [3, 4],
        "neither comments nor a count from one matter"
    );
}
