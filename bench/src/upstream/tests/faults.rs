//! Proves that each fault looks like what it is, in every dialect.

use serde_json::{Value, json};

use super::*;

#[tokio::test]
async fn faults_before_an_answer_look_like_what_they_are() {
    let upstream = start(json!({})).await;
    for path in DIALECTS {
        let fault = |fault: &str| ask(path, &scripted(&json!({ "fault": fault })));
        let page = post(&upstream, path, &fault("wrong_type")).await;
        assert_eq!(
            (page.status, &page.headers["content-type"]),
            (200, &"text/html".parse().unwrap())
        );
        let zipped = post(&upstream, path, &fault("gzip")).await;
        assert_eq!(zipped.headers["content-encoding"], "gzip");
        assert_eq!(zipped.body[..2], [0x1f, 0x8b]);
        let empty = post(&upstream, path, &fault("empty")).await;
        assert_eq!((empty.status, empty.body.len()), (200, 0));
        assert_eq!(empty.headers["content-type"], "application/json");
        let busy = post(&upstream, path, &fault("status:529:3")).await;
        assert_eq!(
            (busy.status, busy.headers["retry-after"].to_str().unwrap()),
            (529, "3")
        );
        let kind = if path == MESSAGES {
            "overloaded_error"
        } else {
            "server_error"
        };
        assert_eq!(busy.json()["error"]["type"], kind);
    }
    assert!(
        upstream
            .bill()
            .iter()
            .all(|billed| billed.cost_pico == 0 && !billed.completed)
    );
}

#[tokio::test]
async fn faults_within_a_stream_strike_where_they_should() {
    let upstream = start(json!({ "output_tokens": 5 })).await;
    for path in DIALECTS {
        let fault = |fault: &str| {
            let body = ask(path, &scripted(&json!({ "fault": fault })));
            with(body, "stream", json!(true))
        };
        let cut = post(&upstream, path, &fault("cut_in_utf8:2")).await;
        assert!(cut.broken && cut.body.ends_with(&[0xf0, 0x9f]), "{path}");
        let garbage = post(&upstream, path, &fault("garbage:2")).await.text();
        let data = garbage
            .lines()
            .filter_map(|line| line.strip_prefix("data: "));
        let broken = data.filter(|d| *d != "[DONE]" && serde_json::from_str::<Value>(d).is_err());
        assert_eq!(broken.count(), 1, "{path}");
        let last = match path {
            CHAT => "[DONE]",
            MESSAGES => "event: message_stop",
            _ => "event: response.completed",
        };
        assert_eq!(
            garbage.matches(last).count(),
            1,
            "{path}: it goes on to its end"
        );
        let twice = post(&upstream, path, &fault("duplicate_end")).await;
        assert!(!twice.broken);
        assert_eq!(twice.text().matches(last).count(), 2, "{path}");
    }
    let failed = |fault: &str| {
        let body = ask(RESPONSES, &scripted(&json!({ "fault": fault })));
        with(body, "stream", json!(true))
    };
    let error = post(&upstream, RESPONSES, &failed("error_after:1"))
        .await
        .events();
    let number = error.len() - 1;
    let wanted = json!({ "type": "error", "sequence_number": number, "code": "server_error",
        "message": "scripted", "param": null });
    assert_eq!(error.last(), Some(&wanted));
    let error = post(&upstream, RESPONSES, &failed("failed_after:1"))
        .await
        .events();
    let last = error.last().unwrap();
    assert_eq!(
        (&last["type"], &last["response"]["status"]),
        (&json!("response.failed"), &json!("failed"))
    );
}

#[tokio::test]
async fn pieces_that_cut_characters_join_to_the_same() {
    let upstream = start(json!({ "keep": true, "origin": "x" })).await;
    for path in DIALECTS {
        let script = json!({ "say": "Grüße 🙂", "split_chars": true });
        let body = with(ask(path, &scripted(&script)), "stream", json!(true));
        let reply = post(&upstream, path, &body).await;
        assert_eq!(streamed_text(path, &reply.events()), "Grüße 🙂");
        let billed = upstream.bill().pop().unwrap();
        assert!(billed.completed && billed.answer == reply.body);
    }
}

#[tokio::test]
async fn a_script_that_can_not_be_followed_is_told() {
    let upstream = start(json!({})).await;
    let reply = post(&upstream, CHAT, &ask(CHAT, "<<script{\"sya\":\"Hi\"}>>")).await;
    assert_eq!(reply.status, 400);
    assert_eq!(
        reply.json()["error"]["message"],
        "script: `sya` can not be \"Hi\""
    );
}

#[tokio::test]
async fn a_wrong_key_is_refused_in_the_dialect_of_the_call() {
    let upstream = start(json!({ "key": "right" })).await;
    upstream.set_script(Script {
        fault: Some(Fault::Refuse),
        ..Script {
            key: Some("right".to_owned()),
            ..Script::default()
        }
    });
    for path in DIALECTS {
        let reply = post(&upstream, path, &ask(path, "Hi")).await;
        assert_eq!(
            (reply.status, &reply.json()["error"]["message"]),
            (401, &json!("wrong key"))
        );
    }
}
