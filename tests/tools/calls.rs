//! Calls: what is certain not to have been sent, what may have happened, what is cut, what is asked.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use orchestrator::tool::config::{Elicitation, Secret};
use orchestrator::tool::{Content, Outcome, Tools, Until};
use serde_json::{Value, json};

use crate::kit::{Kit, call, done, manifest};

#[tokio::test]
async fn a_call_carries_its_key_and_is_made_once() {
    let kit = Kit::start(|config| {
        config.tools = vec![manifest("record_put", |it| {
            it.key_argument = Some("idempotency_key".to_owned());
        })];
    });
    let arguments = json!({ "to": "ada", "text": "hello" });
    let result = done(kit.call("record_send", arguments.clone()).await);
    assert_eq!(result.plain(), "sent 1");
    let calls = kit.book().calls("record_send");
    assert_eq!(calls.len(), 1);
    assert_eq!(calls[0]["arguments"], arguments);
    assert_eq!(calls[0]["key"], "key-1");
    // The same key twice, in the argument that the manifest names: the server tells them apart.
    for _ in 0..2 {
        let result = done(
            kit.call("record_put", json!({ "id": "a", "text": "b" }))
                .await,
        );
        assert_eq!(result.plain(), "put \"a\" as 1");
    }
    let puts = kit.book().calls("record_put");
    let repeated: Vec<_> = puts.iter().map(|put| &put["duplicate"]).collect();
    assert_eq!(repeated, [false, true]);
    assert!(puts.iter().all(|put| put["key"] == "key-1"));
    kit.stop().await;
}

#[tokio::test]
async fn what_a_draft_left_can_be_found_and_what_was_put_can_be_read() {
    let kit = Kit::start(|_| {});
    let find = || kit.call("record_find", json!({ "marker": "m1" }));
    assert_eq!(done(find().await).plain(), "nothing");
    done(
        kit.call("record_draft", json!({ "marker": "m1", "text": "t" }))
            .await,
    );
    assert_eq!(done(find().await).plain(), "found \"m1\": \"t\"");
    done(
        kit.call("record_put", json!({ "id": "a", "text": "b" }))
            .await,
    );
    let read = kit.call("record_read", json!({ "id": "a" })).await;
    assert_eq!(done(read).plain(), "\"b\"");
    kit.stop().await;
}

#[tokio::test]
async fn a_failure_of_the_tool_is_a_result() {
    let kit = Kit::start(|_| {});
    let outcome = kit.call("fail", json!({ "text": "no such mailbox" })).await;
    let Outcome::Done(result) = outcome else {
        panic!("{outcome:?}")
    };
    assert!(result.is_error);
    assert_eq!(result.plain(), "no such mailbox");
    kit.stop().await;
}

#[tokio::test]
async fn a_hang_is_cut_at_its_deadline_and_the_next_call_works() {
    let kit = Kit::start(|config| config.call_ms = 300);
    let outcome = kit.call("hang", json!({})).await;
    assert!(matches!(outcome, Outcome::Lost(_)), "{outcome:?}");
    let before = kit.book().calls("hang")[0]["pid"].clone();
    done(
        kit.call("record_send", json!({ "to": "a", "text": "b" }))
            .await,
    );
    // Only the call hung, so it is the same process.
    assert_eq!(kit.book().calls("record_send")[0]["pid"], before);
    kit.stop().await;
}

#[tokio::test]
async fn a_call_is_never_longer_than_it_may_be() {
    let kit = Kit::start(|_| {});
    let pin = kit.pin("rec__hang").await;
    let mut hang = call("rec__hang", pin, json!({}));
    hang.within = Duration::from_millis(200);
    let outcome = kit.host.call(hang).await;
    assert!(matches!(outcome, Outcome::Lost(_)), "{outcome:?}");
    kit.stop().await;
}

#[tokio::test]
async fn a_process_that_does_not_answer_any_more_is_replaced() {
    let kit = Kit::start(|config| config.call_ms = 300);
    done(
        kit.call("record_send", json!({ "to": "a", "text": "b" }))
            .await,
    );
    let pid = kit.book().calls("record_send")[0]["pid"].to_string();
    let pin = kit.pin("rec__record_send").await;
    let status = std::process::Command::new("kill")
        .args(["-STOP", &pid])
        .status();
    assert!(status.unwrap().success());
    let send = call("rec__record_send", pin, json!({ "to": "c", "text": "d" }));
    let outcome = kit.host.call(send.clone()).await;
    assert!(matches!(outcome, Outcome::Lost(_)), "{outcome:?}");
    // It has to show that it lives, can not, and another one is started.
    done(kit.host.call(send).await);
    let calls = kit.book().calls("record_send");
    assert_ne!(calls.last().unwrap()["pid"].to_string(), pid);
    kit.stop().await;
}

#[tokio::test]
async fn progress_prolongs_a_call_up_to_the_hard_end() {
    let kit = Kit::start(|config| {
        config.call_ms = 1_000;
        config.hard_call_ms = 6_000;
    });
    // Each step of a twentieth is well below the limit, the whole is above it.
    let slow = |ms: u64, progress: bool| json!({ "ms": ms, "progress": progress });
    assert_eq!(
        done(kit.call("slow", slow(3_000, true)).await).plain(),
        "slept"
    );
    let silent = kit.call("slow", slow(3_000, false)).await;
    assert!(matches!(silent, Outcome::Lost(_)), "{silent:?}");
    let endless = kit.call("slow", slow(12_000, true)).await;
    assert!(matches!(endless, Outcome::Lost(_)), "{endless:?}");
    kit.stop().await;
}

#[tokio::test]
async fn a_good_result_is_returned_though_the_server_then_hangs() {
    let kit = Kit::start(|_| {});
    let result = done(kit.call("answer_then_hang", json!({})).await);
    assert_eq!(result.plain(), "answered");
    // It does not end with its input, so it is killed.
    kit.stop().await;
}

#[tokio::test]
async fn a_crash_in_flight_is_lost_and_the_server_starts_anew() {
    // Who keeps a server must see it to its end: a panic there would leave what it has started alive.
    let panics = Arc::new(AtomicUsize::new(0));
    let (seen, told) = (Arc::clone(&panics), std::panic::take_hook());
    std::panic::set_hook(Box::new(move |info| {
        seen.fetch_add(1, Ordering::Relaxed);
        told(info);
    }));
    let kit = Kit::start(|_| {});
    for tool in ["crash_before", "crash_after"] {
        let outcome = kit.call(tool, json!({})).await;
        assert!(matches!(outcome, Outcome::Lost(_)), "{tool}: {outcome:?}");
    }
    // Nobody can tell the two apart from outside; the book can.
    assert_eq!(kit.book().calls("crash_before").len(), 0);
    assert_eq!(kit.book().calls("crash_after").len(), 1);
    done(
        kit.call("record_send", json!({ "to": "a", "text": "b" }))
            .await,
    );
    kit.stop().await;
    assert_eq!(panics.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn what_can_not_be_sent_is_told_so() {
    let kit = Kit::start(|_| {});
    let pin = kit.pin("rec__record_send").await;
    let outcome = kit
        .host
        .call(call("rec__record_send", pin, json!([1])))
        .await;
    assert!(matches!(outcome, Outcome::NotSent(_)), "{outcome:?}");
    for unknown in ["nobody__knows", "plain"] {
        let outcome = kit.host.call(call(unknown, pin, json!({}))).await;
        assert!(matches!(outcome, Outcome::NotSent(_)), "{outcome:?}");
    }
    assert_eq!(kit.book().calls("record_send").len(), 0);
    kit.stop().await;
}

#[tokio::test]
async fn a_server_that_does_not_start_is_down_and_after_five_tries_left_alone() {
    let kit = Kit::start(|config| {
        config.command = ["sh", "-c", "echo 'no licence for topsecret' >&2; exit 4"]
            .map(str::to_owned)
            .to_vec();
        config.env = BTreeMap::from([("TOKEN".to_owned(), Secret::new("topsecret"))]);
    });
    let mut told = Vec::new();
    for _ in 0..6 {
        let send = call("rec__record_send", Default::default(), json!({}));
        match kit.host.call(send).await {
            Outcome::NotSent(why) => told.push(why),
            other => panic!("{other:?}"),
        }
    }
    assert!(
        told[0].contains("tool server `rec`") && told[0].contains("no licence"),
        "{told:?}"
    );
    assert!(!told[4].contains("left alone"), "{told:?}");
    assert!(told[5].contains("left alone"), "{told:?}");
    assert!(!told.concat().contains("topsecret"), "{told:?}");
    let offer = kit.offer().await;
    assert_eq!(offer.down.len(), 1);
    assert!(offer.tools.is_empty() && offer.withheld.is_empty());
    kit.stop().await;
}

#[tokio::test]
async fn a_program_that_is_not_there_is_told_by_name() {
    let kit = Kit::start(|config| config.command = vec!["no-such-program-here".to_owned()]);
    let offer = kit.offer().await;
    assert!(
        offer.down[0].1.contains("no-such-program-here"),
        "{offer:?}"
    );
    kit.stop().await;
}

#[tokio::test]
async fn big_results_are_cut_and_stay_what_they_were() {
    let kit = Kit::start(|config| config.result_bytes = 100_000);
    for is_error in [false, true] {
        let arguments = json!({ "bytes": 3_000_000, "is_error": is_error });
        let Outcome::Done(result) = kit.call("big", arguments).await else {
            panic!("no result")
        };
        assert_eq!(result.is_error, is_error);
        let [Content::Text { text }, Content::Text { text: note }] = &result.content[..] else {
            panic!("{} pieces", result.content.len())
        };
        assert_eq!(text.len(), 100_000);
        assert!(note.contains("2900000 bytes of it are left out"), "{note}");
    }
    let whole = done(kit.call("big", json!({ "bytes": 100_000 })).await);
    assert_eq!(whole.plain().len(), 100_000);
    kit.stop().await;
}

#[tokio::test]
async fn a_server_finds_nothing_of_our_environment() {
    let kit = Kit::start(|config| {
        config.env = BTreeMap::from([("GIVEN".to_owned(), Secret::new("value"))]);
    });
    assert!(std::env::var("CARGO_MANIFEST_DIR").is_ok());
    let names = done(kit.call("environment", json!({})).await).plain();
    let names: Vec<String> = serde_json::from_str(&names).unwrap();
    assert!(names.iter().any(|name| name == "GIVEN"), "{names:?}");
    let known = ["GIVEN", "PATH", "HOME", "LANG"];
    let foreign: Vec<_> = names
        .iter()
        .filter(|it| !known.contains(&it.as_str()))
        .collect();
    assert!(foreign.is_empty(), "{foreign:?}");
    kit.stop().await;
}

#[tokio::test]
async fn what_a_server_asks_its_user_comes_to_the_task() {
    let kit = Kit::start(|_| {});
    let outcome = kit.call("ask", json!({})).await;
    let Outcome::Asks { message, schema } = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(message, "Which colour?");
    assert_eq!(schema["required"], json!(["colour"]));
    kit.stop().await;
}

#[tokio::test]
async fn a_form_is_answered_from_its_defaults_where_the_operator_says_so() {
    let kit = Kit::start(|config| config.elicitation = Elicitation::Defaults);
    assert_eq!(done(kit.call("ask", json!({})).await).plain(), "thank you");
    kit.stop().await;
}

#[tokio::test]
async fn a_call_whose_lease_ran_out_while_it_waited_is_not_sent() {
    let kit = Kit::start(|config| config.concurrency = 1);
    let slow = call(
        "rec__slow",
        kit.pin("rec__slow").await,
        json!({ "ms": 300 }),
    );
    let pin = kit.pin("rec__record_send").await;
    let mut send = call("rec__record_send", pin, json!({ "to": "a", "text": "b" }));
    let until_ms = Arc::new(AtomicI64::new(10));
    send.until = Until::new(Arc::new(|| 9), Arc::clone(&until_ms));
    let later = async {
        kit.book().has("slow", 1).await;
        let (sent, ()) = tokio::join!(kit.host.call(send.clone()), async {
            until_ms.store(9, Ordering::Relaxed);
        });
        sent
    };
    let (first, second) = tokio::join!(kit.host.call(slow), later);
    done(first);
    assert!(matches!(second, Outcome::NotSent(_)), "{second:?}");
    assert_eq!(kit.book().calls("record_send").len(), 0);
    until_ms.store(10, Ordering::Relaxed);
    done(kit.host.call(send).await);
    kit.stop().await;
}

#[tokio::test]
async fn calls_beyond_the_places_wait_and_are_not_sent_when_they_waited_in_vain() {
    let kit = Kit::start(|config| config.concurrency = 1);
    let pin = kit.pin("rec__hang").await;
    let mut hang = call("rec__hang", pin, json!({}));
    hang.within = Duration::from_secs(3);
    let send_pin = kit.pin("rec__record_send").await;
    let mut send = call(
        "rec__record_send",
        send_pin,
        json!({ "to": "a", "text": "b" }),
    );
    send.within = Duration::from_millis(100);
    let later = async {
        kit.book().has("hang", 1).await;
        kit.host.call(send.clone()).await
    };
    let (first, second) = tokio::join!(kit.host.call(hang), later);
    assert!(matches!(first, Outcome::Lost(_)), "{first:?}");
    assert!(matches!(second, Outcome::NotSent(_)), "{second:?}");
    assert_eq!(kit.book().calls("record_send"), Vec::<Value>::new());
    kit.stop().await;
}

#[tokio::test]
async fn servers_of_the_old_handshake_work_as_well() {
    let kit = Kit::with(&["--legacy"], |_| {});
    done(
        kit.call("record_send", json!({ "to": "a", "text": "b" }))
            .await,
    );
    kit.stop().await;
}
