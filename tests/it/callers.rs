//! Proves, stage by stage, what becomes of a call whose caller misbehaves: one that leaves takes its upstream
//! call with it and pays for what was made, one that is slow is cut off, and nobody else notices.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use meter::{NanoUsd, Outcome};
use tests::bytes::Line;
use tests::talk::Tongue;
use tests::wicked::{self, Act, Wicked, Wrong, chunk, events, say, stream_head};
use tests::world::{World, chat};
use tokio::io::AsyncWriteExt;
use wire::UsageSource;

/// How a caller leaves.
#[derive(Debug, Clone, Copy)]
enum Manner {
    Closes,
    Resets,
    /// It only says that it will send no more; who waits for an answer does not do that.
    HalfCloses,
}

/// What the caller has sent, and what the endpoint has said, when the caller leaves.
#[derive(Debug, Clone)]
struct Stage {
    name: &'static str,
    /// Of a thousand parts of the request.
    sent: usize,
    stream: bool,
    said: Option<String>,
    /// Pieces of content that the caller has read.
    content: usize,
}

fn stages() -> Vec<Stage> {
    let events = events(Tongue::Chat);
    let upto = |count: usize| {
        let said = events.before.concat() + &events.content[..count].concat();
        Some(stream_head() + &chunk(&said))
    };
    let stage = |name, sent, stream, said, content| Stage {
        name,
        sent,
        stream,
        said,
        content,
    };
    let json = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 999\r\n\r\n";
    vec![
        stage("half of the first line", 20, false, None, 0),
        stage("half of the head", 200, false, None, 0),
        stage("the head", 620, false, None, 0),
        stage("half of the body", 850, true, None, 0),
        stage("all but a byte", 999, false, None, 0),
        stage("silence, whole", 1_000, false, None, 0),
        stage("silence, stream", 1_000, true, None, 0),
        stage(
            "half of a head",
            1_000,
            true,
            Some("HTTP/1.1 200 OK\r\ncontent".to_owned()),
            0,
        ),
        stage("a head, whole", 1_000, false, Some(json.to_owned()), 0),
        stage(
            "half of an answer",
            1_000,
            false,
            Some(format!("{json}{{\"id\":\"c\",")),
            0,
        ),
        stage("a head, stream", 1_000, true, Some(stream_head()), 0),
        stage("events before the content", 1_000, true, upto(0), 0),
        stage("one piece", 1_000, true, upto(1), 1),
        stage("three pieces", 1_000, true, upto(3), 3),
    ]
}

async fn leave(mut line: Line, manner: Manner) -> Option<Line> {
    match manner {
        Manner::Closes => None,
        Manner::Resets => {
            line.stream.set_zero_linger().unwrap();
            None
        }
        Manner::HalfCloses => {
            line.stream.shutdown().await.unwrap();
            Some(line)
        }
    }
}

/// Sends what the stage says, waits for what it says, and leaves.
async fn play(
    world: &World,
    name: &str,
    stage: &Stage,
    manner: Manner,
    endpoint: &Wicked,
) -> Vec<String> {
    let key = &world.client.key;
    let stream = if stage.stream { ",\"stream\":true" } else { "" };
    let body = chat(name, "Hello there", stream);
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {key}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut line = Line::to(world.running.address).await;
    let sent = if stage.sent == 999 {
        request.len() - 1
    } else {
        request.len() * stage.sent / 1_000
    };
    line.say(&request[..sent]).await;
    let whole = stage.sent == 1_000;
    let (mut wrong, at) = (Vec::new(), format!("{} {manner:?}", stage.name));
    if whole {
        wait("the call", || endpoint.calls() == 1).await;
    }
    for _ in 0..stage.content {
        line.until("\"content\":\"").await.expect("content");
    }
    // The endpoint's word may still be on its way; a caller that reads nothing can not tell.
    tokio::time::sleep(Duration::from_millis(30)).await;
    let kept = leave(line, manner).await;
    let began = std::time::Instant::now();
    if whole {
        wait("the end of the call upstream", || endpoint.left() == 1).await;
    }
    if began.elapsed() > Duration::from_secs(1) {
        wrong.push(format!(
            "{at}: the upstream was left after {:?}",
            began.elapsed()
        ));
    }
    if let Some(mut line) = kept {
        let told = line.rest().await;
        if String::from_utf8_lossy(&told).contains("[DONE]") {
            wrong.push(format!("{at}: a clean end"));
        }
    }
    wrong
}

async fn wait(what: &str, done: impl Fn() -> bool) {
    for _ in 0..1_000 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never came: {what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_leaves_at_any_stage_ends_its_call_and_pays_for_what_was_made() {
    let mut rows = Vec::new();
    for stage in stages() {
        for manner in [Manner::Closes, Manner::Resets, Manner::HalfCloses] {
            let said = stage.said.iter().map(|said| say(said.as_str()));
            let acts = said.chain([Act::Hang]).collect();
            let endpoint = Wicked::start(Tongue::Chat, Wrong { early: false, acts }).await;
            rows.push((stage.clone(), manner, endpoint));
        }
    }
    let tables = rows.iter().enumerate().map(|(at, (_, _, endpoint))| {
        wicked::tables(
            &format!("raw-{at}"),
            Tongue::Chat,
            &wicked::url(endpoint.endpoint.address),
        )
    });
    let world = Arc::new(World::start("", &tables.collect::<String>()).await);
    let playing = rows
        .iter()
        .enumerate()
        .map(|(at, (stage, manner, endpoint))| {
            let world = &world;
            async move { play(world, &format!("raw-{at}"), stage, *manner, endpoint).await }
        });
    let mut wrong: Vec<String> = join_all(playing).await.into_iter().flatten().collect();
    let began = rows
        .iter()
        .filter(|(stage, ..)| stage.sent == 1_000)
        .count();
    let mut entries = Vec::new();
    for _ in 0..500 {
        entries = world.entries().await;
        if entries.len() >= began {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for (at, (stage, manner, endpoint)) in rows.iter().enumerate() {
        let name = format!("raw-{at}");
        let own: Vec<_> = entries
            .iter()
            .filter(|entry| *entry.held.model == *name)
            .collect();
        let source = if stage.content > 0 {
            UsageSource::Counted
        } else {
            UsageSource::Estimated
        };
        let is_right = match own.as_slice() {
            [] => stage.sent < 1_000 && endpoint.calls() == 0,
            [one] => {
                stage.sent == 1_000
                    && one.outcome == Outcome::Disconnected
                    && one.source == source
                    && one.cost > NanoUsd::ZERO
                    && one.cost <= one.held.bound
                    && one.usage.answer() >= u64::try_from(stage.content).unwrap()
            }
            _ => false,
        };
        if !is_right {
            wrong.push(format!("{} {manner:?}: {own:?}", stage.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    world.quiet().await;
    let after = world
        .client
        .post("/v1/chat/completions", chat("fast", "Hi", ""))
        .await;
    assert_eq!(after.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_send_slowly_are_cut_off_while_others_are_served() {
    let head = "limits.head_timeout_ms = 1000\nlimits.body_timeout_ms = 1000\nlimits.connections_per_ip = 1000";
    let world = Arc::new(World::start(head, "").await);
    let key = &world.client.key;
    let line = "GET /v1/models HTTP/1.1\r\nhost: a\r\n".to_owned() + &"x: y\r\n".repeat(90);
    let call = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {key}\r\ncontent-length: 5000\r\n\r\n"
    );
    let coded = call.replace("content-length: 5000", "transfer-encoding: chunked");
    let rows = [
        ("head", String::new(), line.clone()),
        (
            "second head",
            "GET / HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(),
            line,
        ),
        (
            "body",
            call,
            "{\"model\":\"fast\",".to_owned() + &" ".repeat(4_000),
        ),
        ("chunks", coded, "1\r\n{\r\n".repeat(500)),
        (
            "preface",
            String::new(),
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
        ),
    ];
    let gap = Duration::from_millis(50);
    let slow = rows.iter().cycle().take(60).map(|(name, before, after)| {
        let world = Arc::clone(&world);
        async move {
            let whole = [before.as_bytes(), after.as_bytes()].concat();
            let (told, took) = drip_from(&world, &whole, before.len(), gap).await;
            assert!(took < Duration::from_secs(8), "{name} went on for {took:?}");
            assert!(!told.contains("\"choices\""), "{name}: {told}");
            if *name == "body" || *name == "chunks" {
                assert!(told.contains(" 408 ") || told.is_empty(), "{name}: {told}");
            }
        }
    });
    let good = async {
        for _ in 0..30 {
            let reply = world
                .client
                .post("/v1/chat/completions", chat("fast", "Hi", ""))
                .await;
            assert_eq!(reply.status, 200);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::join!(join_all(slow), good);
    assert_eq!(world.bill().len(), 30, "only whole calls reach an upstream");
}

/// Says the first `at_once` bytes at once, and drips the others.
async fn drip_from(
    world: &World,
    bytes: &[u8],
    at_once: usize,
    gap: Duration,
) -> (String, Duration) {
    let mut line = Line::to(world.running.address).await;
    let (first, rest) = bytes.split_at(at_once);
    line.say(first).await;
    let began = std::time::Instant::now();
    let (mut reader, mut writer) = line.stream.split();
    let mut told = Vec::new();
    let reading = async {
        use tokio::io::AsyncReadExt;
        let _ended = reader.read_to_end(&mut told).await;
    };
    let writing = async {
        for byte in rest {
            if writer.write_all(&[*byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(gap).await;
        }
    };
    tokio::select! {
        () = reading => {}
        () = writing => {}
        () = tokio::time::sleep(Duration::from_secs(12)) => {}
    }
    (String::from_utf8_lossy(&told).into_owned(), began.elapsed())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_that_are_abandoned_leave_nothing() {
    let world = Arc::new(World::start("limits.connections_per_ip = 1000", "").await);
    let key = &world.client.key;
    let length = 9 << 20;
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {key}\r\ncontent-length: {length}\r\n\r\n"
    );
    let abandoned = (0..24).map(|n: usize| {
        let (world, head) = (Arc::clone(&world), head.clone());
        async move {
            let mut line = Line::to(world.running.address).await;
            line.say(head).await;
            for _ in 0..(n % 9) {
                line.say(vec![b' '; 1 << 20]).await;
            }
            leave(line, [Manner::Closes, Manner::Resets][n % 2]).await;
        }
    });
    join_all(abandoned).await;
    world.quiet().await;
    assert!(world.entries().await.is_empty());
    let after = world
        .client
        .post("/v1/chat/completions", chat("fast", "Hi", ""))
        .await;
    assert_eq!(after.status, 200);
}
