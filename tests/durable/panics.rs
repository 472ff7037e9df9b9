//! A panic while one call is handled ends that call alone: its caller hears of it in its own dialect, other
//! streams go on, the hold is settled, and the log says where it was, and nothing of what was said.

use std::collections::HashSet;

use tests::world::chat;
use tests::{Client, Process, Reply};

use crate::points::compare;
use crate::{PROGRAM, caller, config, endpoints, key};

const STREAMS: usize = 3;
const CALLS: usize = 12;
/// Of what callers say; in no line of the log.
const WORD: &str = "marmalade";

/// Places on the way of a call, and which time to panic there. Three streams have begun by then, so that the
/// next to come by, or the one after it, is a short call. The last four come by when a call ends.
const PLACES: [(&str, usize); 9] = [
    ("hold.reserved", 5),
    ("journal.room", 6),
    ("hold.written", 5),
    ("call.held", 5),
    ("call.answered", 5),
    ("call.content", 5),
    ("call.synced", 5),
    ("settle.released", 2),
    ("settle.written", 2),
];

/// How a call is made, and how one that failed ends.
#[derive(Clone, Copy, Debug)]
struct Kind {
    path: &'static str,
    rest: &'static str,
    /// The beginning of a refusal's body.
    refusal: &'static str,
}

const WHOLE: Kind = Kind {
    path: "/v1/chat/completions",
    rest: "",
    refusal: "{\"error\":{",
};
const STREAMED: Kind = Kind {
    path: "/v1/messages",
    rest: ",\"stream\":true",
    refusal: "{\"type\":\"error\",",
};

/// A stream that lasts until after the panic.
async fn stream(client: Client) -> Reply {
    let text = format!("<<script {{\"output_tokens\":50,\"gap_us\":40000}}>> {WORD}");
    let body = chat("fast", &text, ",\"max_tokens\":80,\"stream\":true");
    client.post("/v1/chat/completions", body).await
}

/// What the caller of the call hears that panicked.
fn is_told(reply: &Reply, kind: Kind) {
    let text = reply.text();
    if reply.status == 200 {
        // Its stream had begun.
        assert!(reply.broken, "{text}");
        assert!(text.contains("event: error\n"), "{text}");
        assert!(!text.contains("message_stop"), "{text}");
    } else {
        assert_eq!(reply.status, 500, "{text}");
        assert!(text.starts_with(kind.refusal), "{text}");
    }
    assert!(text.contains("the gateway failed on this call"), "{text}");
}

async fn metric(admin: &Client, name: &str) -> f64 {
    let text = admin.get("/metrics").await.text();
    let of = |line: &&str| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with([' ', '{']))
    };
    let values = text.lines().filter(of);
    let values = values.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    values.sum()
}

/// Waits until nothing is under way or held.
async fn quiet(admin: &Client, place: &str) {
    for name in [
        "pareto_in_flight",
        "pareto_holds_inflight",
        "pareto_budget_held_usd",
    ] {
        let mut left = f64::NAN;
        for _ in 0..500 {
            left = metric(admin, name).await;
            if left == 0.0 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        assert_eq!(left, 0.0, "{place}: {name}");
    }
}

/// What the log says of it.
async fn is_logged(process: &Process, id: &str, place: &str) {
    let line = process.said("a call ended in a panic", 0).await;
    assert_eq!(line["request"], id, "{place}: {line}");
    assert!(line["place"].as_str().unwrap().contains(".rs:"), "{line}");
    for line in process.log() {
        assert!(!line.to_string().contains(WORD), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_ends_one_call_and_nothing_else() {
    let told = check(WHOLE).await;
    tests::figure("B9", &told);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_ends_one_stream_and_nothing_else() {
    check(STREAMED).await;
}

/// Panics at each place, in one call of `kind` each.
async fn check(kind: Kind) -> String {
    let folder = tempfile::tempdir().unwrap();
    let [fast, deep] = endpoints(5).await;
    let tail = "[[budget]]\ntenant = \"acme\"\nlimit_usd = \"100\"\nwindow = \"total\"\n";
    let config = config(folder.path(), &fast, &deep, tail);
    let key = key(&config, "acme");
    let (mut whole, mut rounds) = (HashSet::new(), Vec::new());
    for place in PLACES {
        let plan = format!("{}:{}", place.0, place.1);
        let with = [("PARETO_PANIC_AT", plan.as_str())];
        let process = Process::start_with(PROGRAM, &config, &with).await;
        let admin = Client::new(process.admin_address, "admin-secret");
        let streams: Vec<_> = (0..STREAMS)
            .map(|_| tokio::task::spawn(stream(caller(&process, &key))))
            .collect();
        while metric(&admin, "pareto_first_byte_seconds_count").await < STREAMS as f64 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        let mut replies = Vec::new();
        for _ in 0..CALLS {
            let body = chat("fast", WORD, &format!(",\"max_tokens\":40{}", kind.rest));
            replies.push(caller(&process, &key).post(kind.path, body).await);
        }
        for stream in streams {
            let reply = stream.await.unwrap();
            assert_eq!((reply.status, reply.broken), (200, false), "{plan}");
            assert!(reply.text().ends_with("data: [DONE]\n\n"), "{plan}");
            replies.push(reply);
        }
        let is_whole = |it: &Reply| it.status == 200 && !it.broken;
        let (good, bad): (Vec<_>, Vec<_>) = replies.into_iter().partition(is_whole);
        assert_eq!(
            (good.len(), bad.len()),
            (CALLS + STREAMS - 1, 1),
            "{plan} {kind:?}"
        );
        is_told(&bad[0], kind);
        whole.extend(good.iter().map(|reply| reply.header("x-request-id")));
        if place.0.starts_with("settle.") {
            // What it has used was known, and is charged.
            whole.insert(bad[0].header("x-request-id"));
        }
        quiet(&admin, &plan).await;
        assert_eq!(metric(&admin, "pareto_panics_total").await, 1.0, "{plan}");
        is_logged(&process, &bad[0].header("x-request-id"), &plan).await;
        process.signal("TERM");
        let mut child = process.child;
        assert!(child.wait().await.unwrap().success(), "{plan}");
        let called = fast.calls() + deep.calls();
        rounds.push((plan, usize::try_from(called).unwrap()));
    }
    let told = compare(folder.path(), &fast, &deep, &whole, &rounds).await;
    format!("{} panics, {told}", rounds.len())
}
