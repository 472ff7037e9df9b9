//! Proves the limits of an HTTP/2 connection: callers that read slowly get all of their answer, those that read
//! nothing lose their stream, and those that send slowly, too much or nothing but resets are turned away.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use tests::bytes::{Endpoint, answer, completion};
use tests::frames::{
    Came, DATA, END_STREAM, Frames, GET, PREFACE, RST_STREAM, SETTINGS, WINDOW_UPDATE, frame, get,
    headers,
};
use tests::world::{World, chat};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const PATIENCE: Duration = Duration::from_secs(10);
fn post(world: &World, stream: u32) -> Vec<u8> {
    let key = format!("Bearer {}", world.client.key);
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/v1/chat/completions"),
        (":authority", "gateway.test"),
        ("authorization", key.as_str()),
    ];
    headers(stream, 0, &fields)
}

fn call(world: &World, stream: u32, body: &str) -> Vec<u8> {
    let data = frame(DATA, END_STREAM, stream, body.as_bytes());
    [post(world, stream), data].concat()
}

fn window(stream: u32, more: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &more.to_be_bytes())
}

/// The status of `stream`.
async fn status(line: &mut Frames, stream: u32) -> Option<u16> {
    loop {
        if let Came::Status(at, status) = line.next(PATIENCE).await?
            && at == stream
        {
            return Some(status);
        }
    }
}

/// An answer of `size` bytes of text, read `step` bytes at a time for much longer than silence may last.
async fn read_slowly(size: usize, step: u32) {
    let text = "x".repeat(size);
    let endpoint = Endpoint::start(vec![answer(&text, "")]).await;
    let head =
        "limits.head_timeout_ms = 300\nlimits.idle_timeout_ms = 300\nlimits.write_timeout_ms = 400";
    let world = World::start(head, &endpoint.tables()).await;
    let mut line = Frames::to(world.running.address).await;
    line.say(&call(&world, 1, &chat("raw", "Hi", ""))).await;
    assert_eq!(status(&mut line, 1).await, Some(200));
    let (begun, mut came) = (Instant::now(), Vec::new());
    let whole = completion(&text);
    while came.len() < whole.len() {
        let at = format!("{} of {} bytes", came.len(), whole.len());
        assert!(begun.elapsed() < Duration::from_secs(30), "{at}");
        let more = [window(0, step), window(1, step)].concat();
        assert!(line.say(&more).await, "{at}");
        tokio::time::sleep(Duration::from_millis(40)).await;
        while let Some(next) = line.next(Duration::from_millis(1)).await {
            assert!(!matches!(next, Came::Reset(1, _)), "{at}: {next:?}");
            if let Came::Data(1, data) = next {
                came.extend(data);
            }
        }
    }
    assert!(begun.elapsed() > Duration::from_millis(1_500));
    assert_eq!(came, whole.as_bytes());
    line.say(&get(3)).await;
    assert_eq!(status(&mut line, 3).await, Some(200));
}

#[tokio::test]
async fn whoever_reads_slowly_but_steadily_gets_all_of_its_answer() {
    tokio::join!(
        read_slowly(1 << 20, 16 << 10),
        read_slowly(150_000, 1 << 10)
    );
}

#[tokio::test]
async fn a_body_that_comes_byte_by_byte_is_not_waited_for() {
    let world = World::start("limits.body_timeout_ms = 700", "").await;
    let mut line = Frames::to(world.running.address).await;
    line.say(&post(&world, 1)).await;
    let begun = Instant::now();
    let told = loop {
        // Empty frames are no progress either.
        line.say(&frame(DATA, 0, 1, b" ")).await;
        line.say(&frame(DATA, 0, 1, b"")).await;
        match line.next(Duration::from_millis(100)).await {
            Some(Came::Status(1, status)) => break Some(status),
            _ if begun.elapsed() > PATIENCE => break None,
            _ => {}
        }
    };
    assert_eq!(told, Some(408));
}

#[tokio::test]
async fn a_body_that_goes_on_coming_is_waited_for() {
    let world = World::start("limits.body_timeout_ms = 700", "").await;
    let mut line = Frames::to(world.running.address).await;
    line.say(&post(&world, 1)).await;
    for _ in 0..8 {
        line.say(&frame(DATA, 0, 1, &[b' '; 600])).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let body = chat("fast", "Hi", "");
    line.say(&frame(DATA, END_STREAM, 1, body.as_bytes())).await;
    assert_eq!(status(&mut line, 1).await, Some(200));
}

#[tokio::test]
async fn heads_have_no_more_fields_than_they_may() {
    let world = World::start("", "").await;
    let mut line = Frames::to(world.running.address).await;
    let with = |count: usize| [&GET[..], &vec![("x-more", "y"); count]].concat();
    line.say(&headers(1, END_STREAM, &with(100))).await;
    assert_eq!(status(&mut line, 1).await, Some(200));
    line.say(&headers(3, END_STREAM, &with(101))).await;
    assert_eq!(status(&mut line, 3).await, Some(431));
    line.say(&get(5)).await;
    assert_eq!(status(&mut line, 5).await, Some(200));
}

#[tokio::test]
async fn a_connection_ends_after_its_last_request() {
    let world = World::start("limits.requests = 5", "").await;
    let mut line = Frames::to(world.running.address).await;
    for at in 0..4 {
        line.say(&get(2 * at + 1)).await;
        assert_eq!(status(&mut line, 2 * at + 1).await, Some(200));
    }
    let begun = Instant::now();
    line.say(&get(9)).await;
    let (mut told, mut answered) = (false, false);
    while !(told && answered) {
        let came = line.next(PATIENCE).await.unwrap();
        told |= came == Came::GoAway(0);
        answered |= came == Came::Status(9, 200);
    }
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "it is told at once"
    );
    // This caller answers no ping, so that it could go on; it gets no more than it might have had under way.
    let mut more = 0;
    while line.say(&get(2 * more + 11)).await && status(&mut line, 2 * more + 11).await.is_some() {
        more += 1;
        assert!(more < 200);
    }
}

/// So many calls, fifty at a time, all of them reset once they are under way; whether the connection goes on.
async fn reset(world: &World, calls: u32) -> bool {
    let mut line = Frames::to(world.running.address).await;
    for first in (0..calls).step_by(50) {
        let some = || (first..calls.min(first + 50)).map(|at| 2 * at + 1);
        let begin = |at| [post(world, at), frame(DATA, 0, at, b"{")].concat();
        line.say(&some().flat_map(begin).collect::<Vec<u8>>()).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        let end = |at| frame(RST_STREAM, 0, at, &8_u32.to_be_bytes());
        line.say(&some().flat_map(end).collect::<Vec<u8>>()).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    line.say(&get(9_999)).await;
    let goes_on = status(&mut line, 9_999).await.is_some();
    goes_on && line.next(Duration::from_millis(300)).await != Some(Came::GoAway(0))
}

#[tokio::test]
async fn calls_that_are_reset_again_and_again_end_their_connection() {
    let world = World::start("", "").await;
    assert!(reset(&world, 60).await, "some are as they should be");
    assert!(!reset(&world, 400).await);
}

#[tokio::test]
async fn streams_that_are_not_read_end_while_their_connection_goes_on() {
    for first in [0_u32, 7] {
        let world = World::start("limits.write_timeout_ms = 600", "").await;
        let mut line = Frames::silent(world.running.address).await;
        line.say(PREFACE).await;
        let settings = [&[0, 1, 0, 0, 0, 0, 0, 4][..], &first.to_be_bytes()].concat();
        line.say(&frame(SETTINGS, 0, 0, &settings)).await;
        let body = chat("fast", "Hi", ",\"stream\":true");
        let whole = chat("fast", "Hi", "");
        for at in 0..10 {
            line.say(&call(&world, 4 * at + 1, &body)).await;
            line.say(&call(&world, 4 * at + 3, &whole)).await;
        }
        let (begun, mut ended, mut beside) = (Instant::now(), String::new(), 0);
        let mut at = 101;
        while ended.len() < 20 {
            assert!(begun.elapsed() < PATIENCE, "{first}: {ended}");
            line.say(&[get(at), window(at, 1_000)].concat()).await;
            at += 2;
            tokio::time::sleep(Duration::from_millis(50)).await;
            while let Some(came) = line.next(Duration::from_millis(1)).await {
                match came {
                    Came::Reset(stream, code) if stream < 100 => {
                        assert_eq!(code, 8);
                        write!(ended, ".").unwrap();
                    }
                    Came::Status(stream, 200) if stream > 100 => beside += 1,
                    Came::GoAway(_) | Came::Reset(..) => panic!("{came:?}"),
                    _ => {}
                }
            }
        }
        assert!(beside > 3, "{beside}");
        line.say(&get(9_999)).await;
        assert_eq!(status(&mut line, 9_999).await, Some(200));
    }
}

#[tokio::test]
async fn an_answer_that_nobody_takes_off_the_network_ends_its_connection() {
    let text = "x".repeat(32 << 20);
    let endpoint = Endpoint::start(vec![answer(&text, "")]).await;
    let head = "limits.write_timeout_ms = 600\nupstream.reply_bytes = 60000000";
    let world = World::start(head, &endpoint.tables()).await;
    let mut line = Frames::silent(world.running.address).await;
    line.say(PREFACE).await;
    line.say(&frame(SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]))
        .await;
    line.say(&window(0, 0x7000_0000)).await;
    line.say(&call(&world, 1, &chat("raw", "Hi", ""))).await;
    assert_eq!(status(&mut line, 1).await, Some(200));
    tokio::time::sleep(Duration::from_secs(4)).await;
    let begun = Instant::now();
    while line.next(PATIENCE).await.is_some() {}
    assert!(begun.elapsed() < PATIENCE, "it goes on");
}

/// What comes over TLS to a caller that offers `alpn`, and says `bytes`.
async fn over_tls(alpn: &[u8], bytes: &[u8]) -> Vec<u8> {
    let made = rcgen::generate_simple_self_signed(vec!["gateway.test".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let [certificate, key] = ["cert.pem", "key.pem"].map(|name| folder.path().join(name));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let head = format!("server.tls_cert = {certificate:?}\nserver.tls_key = {key:?}");
    let world = World::start(&head, "").await;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    let stream = TcpStream::connect(world.running.address).await.unwrap();
    let name = ServerName::try_from("gateway.test").unwrap();
    let made = TlsConnector::from(Arc::new(config)).connect(name, stream);
    let mut stream = made.await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut came = Vec::new();
    let reading = stream.read_to_end(&mut came);
    let _ended = tokio::time::timeout(PATIENCE, reading).await.unwrap();
    came
}

#[tokio::test]
async fn no_protocol_is_spoken_but_the_one_agreed_on() {
    let first = b"GET / HTTP/1.1\r\nhost: gateway.test\r\n\r\n";
    let came = over_tls(b"h2", first).await;
    assert!(came.ends_with(&[0, 0, 0, 1]), "{came:?}");
    assert!(!came.starts_with(b"HTTP/1.1"));
    let greeting = [PREFACE, &frame(SETTINGS, 0, 0, &[]), &get(1)].concat();
    let came = over_tls(b"http/1.1", &greeting).await;
    assert!(came.starts_with(b"HTTP/1.1 "), "{came:?}");
}
