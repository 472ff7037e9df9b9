//! A sync of the journal that fails is the last: the kernel may have dropped what it was to write, so that a
//! second one would succeed and prove nothing. The program lets nobody in any more, says so to whoever waits,
//! and ends with an error, so that a service manager starts it again; and the start reads what there is.
//!
//! What a caller sees: an answer that had not begun is a 503 with `retry-after`; a stream under way ends in an
//! error event and a broken body; nothing ends as if all were well that is not in the journal.
//!
//! The same holds where a thread panics while it writes, syncs, or brings records into the ledger.

use std::collections::HashSet;
use std::time::Duration;

use bench::upstream::Upstream;
use tests::world::chat;
use tests::{Client, Process, Reply};

use crate::points::compare;
use crate::{PROGRAM, caller, config, endpoints, key};

/// More than are made until the program ends.
const ENOUGH: usize = 10_000;
const CHAT: &str = "/v1/chat/completions";
const MESSAGES: &str = "/v1/messages";

/// Whether an answer came to a good end; else it must say that it did not.
fn is_whole(reply: &Reply) -> bool {
    let text = reply.text();
    let is_stream = reply
        .header("content-type")
        .starts_with("text/event-stream");
    match reply.status {
        200 if !reply.broken => return true,
        200 => {
            assert!(is_stream, "a whole answer breaks off: {text}");
            let ends = ["[DONE]", "event: message_stop"];
            assert!(!ends.iter().any(|end| text.contains(end)), "{text}");
        }
        // The call on which a thread panics.
        500 => assert!(
            text.contains("internal_error") || text.contains("api_error"),
            "{text}"
        ),
        503 => {
            assert_eq!(reply.header("retry-after"), "5", "{text}");
            assert!(text.contains("calls can not be written down"), "{text}");
        }
        // The program takes no connections any more, or has ended.
        status => assert_eq!(status, 0, "{text}"),
    }
    false
}

/// Calls until nobody answers; returns the answers.
async fn calls(client: Client, n: usize) -> Vec<Reply> {
    let mut replies = Vec::new();
    for call in 0..ENOUGH {
        let rest = [",\"max_tokens\":40", ",\"max_tokens\":40,\"stream\":true"][call % 2];
        let body = chat("auto", "What is a river?", rest);
        let reply = client.post([CHAT, MESSAGES][n % 2], body).await;
        let is_over = reply.status == 0;
        replies.push(reply);
        if is_over {
            break;
        }
    }
    replies
}

/// A stream of half a minute.
async fn long(client: Client, path: &'static str) -> Reply {
    let text = "<<script {\"output_tokens\":600,\"gap_us\":50000}>> Hello";
    let body = chat("fast", text, ",\"max_tokens\":700,\"stream\":true");
    client.post(path, body).await
}

/// Lets the program come to where `plan` has it fail, and to its end; returns the answers.
async fn until_the_end(
    process: &mut Process,
    key: &str,
    begun: &Upstream,
    plan: &str,
) -> Vec<Reply> {
    let streams: Vec<_> = [CHAT, MESSAGES]
        .map(|path| tokio::task::spawn(long(caller(process, key), path)))
        .into();
    let before = begun.bill().len() as u64;
    for _ in 0..2_000 {
        if begun.calls() >= before + 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let callers: Vec<_> = (0..6)
        .map(|n| tokio::task::spawn(calls(caller(process, key), n)))
        .collect();
    let ended = tokio::time::timeout(Duration::from_secs(30), process.child.wait()).await;
    let ended = ended
        .unwrap_or_else(|_| panic!("{plan}: it goes on"))
        .unwrap();
    assert_eq!(
        ended.code(),
        Some(1),
        "{plan}: {ended}; it ends with an error, in order"
    );
    let mut replies = Vec::new();
    for caller in callers {
        replies.extend(caller.await.unwrap());
    }
    for stream in streams {
        let reply = stream.await.unwrap();
        assert!(!is_whole(&reply), "{plan}: a stream goes on");
        if reply.status == 200 {
            assert!(reply.text().contains("error"), "{plan}: {}", reply.text());
        }
        replies.push(reply);
    }
    replies
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sync_that_fails_ends_the_program_and_the_next_start_has_every_call() {
    let folder = tempfile::tempdir().unwrap();
    let [fast, deep] = endpoints(10).await;
    let config = config(folder.path(), &fast, &deep, "");
    let key = key(&config, "acme");
    let (mut whole, mut refused, mut rounds) = (HashSet::new(), 0, Vec::new());
    for (variable, plan) in [
        // A sync that is tried again after it has failed ends the program by a signal.
        ("PARETO_FAIL_AT", "journal.sync:2"),
        ("PARETO_FAIL_AT", "journal.sync:20"),
        ("PARETO_FAIL_AT", "journal.sync:60"),
        ("PARETO_PANIC_AT", "journal.sync:20"),
        ("PARETO_PANIC_AT", "journal.write:30"),
        ("PARETO_PANIC_AT", "journal.written:30"),
        ("PARETO_PANIC_AT", "batch.taken:3"),
    ] {
        let mut process = Process::start_with(PROGRAM, &config, &[(variable, plan)]).await;
        let replies = until_the_end(&mut process, &key, &fast, plan).await;
        for reply in replies {
            if is_whole(&reply) {
                whole.insert(reply.header("x-request-id"));
            }
            refused += usize::from(reply.status == 503);
        }
        let called = fast.calls() + deep.calls();
        rounds.push((plan.to_owned(), usize::try_from(called).unwrap()));
    }
    assert!(refused > 0, "some were told");
    let process = Process::start(PROGRAM, &config).await;
    process.signal("TERM");
    let mut child = process.child;
    assert!(child.wait().await.unwrap().success());
    let told = compare(folder.path(), &fast, &deep, &whole, &rounds).await;
    let told = format!(
        "{} failures, {told}, {refused} refused with 503",
        rounds.len()
    );
    tests::figure("B5", &told);
}
