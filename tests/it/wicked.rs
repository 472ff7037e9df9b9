//! Proves, row by row, what becomes of a call whose endpoint misbehaves: the caller hears an error of its
//! dialect, or a stream that visibly breaks; the ledger has every attempt with what was or may have been used;
//! the connection is not used again; nothing stays held; and the next call to the same endpoint works.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use meter::{Entry, NanoUsd, Outcome};
use tests::talk::Tongue;
use tests::wicked::{
    self, Act, SAID, USAGE, Wicked, Wrong, chunk, error_event, events, events_with, say,
    stream_head, whole, with_length,
};
use tests::world::World;
use tests::{Client, Reply};
use wire::UsageSource;

/// What the gateway is known by at these endpoints, and callers are never to see.
const KEY: &str = "sk-canary-0123456789";

/// A gateway that waits so long for anything.
fn head(patience: Duration) -> String {
    let wait = patience.as_millis();
    format!(
        "server.workers = 1\nupstream.connect_timeout_ms = 10000\nupstream.first_byte_timeout_ms = {wait}\n\
         upstream.reply_timeout_ms = {wait}\nupstream.idle_timeout_ms = {wait}\nupstream.reply_bytes = 2000000"
    )
}

/// For endpoints that say nothing more: every row of them costs it.
const SHORT: Duration = Duration::from_millis(1500);

/// For endpoints that say all they have to say, on a machine that may have other things to do.
const LONG: Duration = Duration::from_secs(20);

/// What the caller hears.
#[derive(Debug, Clone, Copy)]
enum Hears {
    /// An error in its dialect, of one of these statuses.
    Error(&'static [u16]),
    /// A stream that breaks off behind an error event.
    Break,
    /// A whole answer.
    Answer,
}
use Hears::{Answer, Break, Error};

/// What the ledger says of each attempt.
#[derive(Debug, Clone, Copy)]
enum Books {
    /// The endpoint bills nothing.
    Void,
    /// It was counted what came.
    Counted,
    /// The bound is charged, as an estimate.
    Bound,
    /// What the endpoint said.
    Told,
    /// Whole, but what the endpoint said can not be: it was counted.
    Recounted,
}
use Books::{Bound, Counted, Recounted, Told, Void};

struct Row {
    name: String,
    tongue: Tongue,
    stream: bool,
    wrong: Wrong,
    hears: Hears,
    books: Books,
    /// The connection may be used again.
    stays: bool,
}

fn row(
    tongue: Tongue,
    stream: bool,
    name: &str,
    acts: Vec<Act>,
    hears: Hears,
    books: Books,
) -> Row {
    let manner = if stream { "stream" } else { "whole" };
    Row {
        name: format!("{tongue:?} {manner}: {name}"),
        tongue,
        stream,
        wrong: Wrong { early: false, acts },
        hears,
        books,
        stays: false,
    }
}

/// What goes wrong before an answer.
fn before(tongue: Tongue) -> Vec<Row> {
    // An endpoint that streams begins to answer before it works; one that does not may have done it all.
    let lost = |stream| if stream { Void } else { Bound };
    let failed = Error(&[502]);
    let late = Error(&[504]);
    let ok = "HTTP/1.1 200 OK\r\n";
    let mut rows = Vec::new();
    for stream in [false, true] {
        let mut add = |name: &str, acts: Vec<Act>, hears, books| {
            rows.push(row(tongue, stream, name, acts, hears, books));
        };
        add("closes before an answer", vec![], failed, lost(stream));
        add(
            "resets before an answer",
            vec![Act::Reset],
            failed,
            lost(stream),
        );
        add(
            "closes within the first line",
            vec![say("HTTP/1.1 20")],
            failed,
            lost(stream),
        );
        add(
            "closes within the head",
            vec![say(format!("{ok}content-ty"))],
            failed,
            lost(stream),
        );
        add(
            "resets within the head",
            vec![say(format!("{ok}content-ty")), Act::Reset],
            failed,
            lost(stream),
        );
        add("hangs before an answer", vec![Act::Hang], late, Bound);
        add(
            "hangs within the first line",
            vec![say("HTTP/1.1 20"), Act::Hang],
            late,
            Bound,
        );
        add(
            "hangs within the head",
            vec![say(format!("{ok}content-ty")), Act::Hang],
            late,
            Bound,
        );
        add(
            "drips its head",
            vec![Act::Drip(
                ok.repeat(100).into_bytes(),
                Duration::from_millis(20),
            )],
            late,
            Bound,
        );
        add(
            "speaks another protocol",
            vec![say("220 mail.example ESMTP\r\n\r\n")],
            failed,
            lost(stream),
        );
        add(
            "speaks HTTP/2",
            vec![say(
                b"\x00\x00\x00\x04\x00\x00\x00\x00\x00\x0d\x0a\x0d\x0a".as_slice()
            )],
            failed,
            lost(stream),
        );
        add(
            "says HTTP/0.9",
            vec![say("<html>\r\n\r\n</html>")],
            failed,
            lost(stream),
        );
        add(
            "a status of two digits",
            vec![say("HTTP/1.1 20 OK\r\n\r\n")],
            failed,
            lost(stream),
        );
        add(
            "status 999",
            vec![say("HTTP/1.1 999 X\r\ncontent-length: 0\r\n\r\n")],
            failed,
            lost(stream),
        );
        add(
            "a flood of interim answers",
            vec![Act::Flood(
                b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n".to_vec(),
            )],
            failed,
            lost(stream),
        );
        add(
            "a flood of fields",
            vec![say(ok), Act::Flood(b"x: y\r\n".to_vec())],
            failed,
            lost(stream),
        );
        add(
            "a field without an end",
            vec![say(format!("{ok}x: ")), Act::Flood(vec![b'y'; 1_000])],
            failed,
            lost(stream),
        );
        add(
            "a first line without an end",
            vec![say("HTTP/1.1 200 "), Act::Flood(vec![b'y'; 1_000])],
            failed,
            lost(stream),
        );
        add(
            "switches protocols",
            vec![say(
                "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
            )],
            failed,
            lost(stream),
        );
        add(
            "both framings",
            vec![say(format!(
                "{ok}content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n{{}}"
            ))],
            failed,
            lost(stream),
        );
        add(
            "two lengths",
            vec![say(format!(
                "{ok}content-length: 2\r\ncontent-length: 3\r\n\r\n{{}}"
            ))],
            failed,
            lost(stream),
        );
    }
    rows
}

/// Answers that are no success.
fn statuses(tongue: Tongue) -> Vec<Row> {
    let mut rows = Vec::new();
    let told = format!("{{\"error\":{{\"message\":\"no tea for {KEY}, {KEY}\",\"type\":\"x\"}}}}");
    let page = format!("<html>no, {KEY}</html>");
    let answer = |status: u16, fields: &str, body: &str| {
        let length = body.len();
        format!(
            "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n{fields}content-length: {length}\r\n\r\n{body}"
        )
    };
    for stream in [false, true] {
        for (status, heard) in [
            (400, &[400][..]),
            (401, &[502]),
            (402, &[502]),
            (403, &[502]),
            // What is said to the gateway, as a client or a proxy, is not the caller's, nor is the name of a model.
            (404, &[502]),
            (405, &[502]),
            (407, &[502]),
            (408, &[504]),
            (409, &[502]),
            (413, &[413]),
            (422, &[422]),
            (426, &[502]),
            (431, &[502]),
            (429, &[429]),
            (500, &[500, 502]),
            (501, &[502]),
            (505, &[502]),
            (502, &[502]),
            (503, &[503]),
            (504, &[504]),
            (529, &[529, 503]),
            (599, &[502]),
        ] {
            for (what, body) in [("", &*told), (" with a page", &page), (" with nothing", "")] {
                let name = format!("status {status}{what}");
                let acts = vec![say(answer(status, "", body))];
                rows.push(row(tongue, stream, &name, acts, Error(leaked(heard)), Void));
            }
        }
        for after in [
            "0",
            "1",
            "-1",
            "x",
            "",
            "1.5",
            "Fri, 31 Dec 1999 23:59:59 GMT",
            "18446744073709551616",
        ] {
            // Said, so that the next try does not meet the connection as it ends.
            let fields = format!("retry-after: {after}\r\nconnection: close\r\n");
            let acts = vec![say(answer(429, &fields, &told))];
            rows.push(row(
                tongue,
                stream,
                &format!("retry after {after:?}"),
                acts,
                Error(&[429]),
                Void,
            ));
        }
        for status in [301, 302, 303, 307, 308] {
            let acts = vec![say(answer(
                status,
                "location: http://127.0.0.1:1/evil\r\n",
                "",
            ))];
            rows.push(row(
                tongue,
                stream,
                &format!("a redirect {status}"),
                acts,
                Error(&[502]),
                Void,
            ));
        }
        for status in [300, 304, 305] {
            let acts = vec![say(answer(status, "", ""))];
            rows.push(row(
                tongue,
                stream,
                &format!("status {status}"),
                acts,
                Error(&[502]),
                Void,
            ));
        }
        let cut = format!(
            "HTTP/1.1 400 X\r\ncontent-type: application/json\r\ncontent-length: 900\r\n\r\n{told}"
        );
        rows.push(row(
            tongue,
            stream,
            "an error that is cut",
            vec![say(cut)],
            Error(&[400, 502]),
            Void,
        ));
        let long = answer(400, "", &"x".repeat(200_000));
        rows.push(row(
            tongue,
            stream,
            "an error that is long",
            vec![say(long)],
            Error(&[400, 502]),
            Void,
        ));
    }
    rows
}

fn leaked(statuses: &[u16]) -> &'static [u16] {
    Vec::leak(statuses.to_vec())
}

/// Whole answers that are none.
fn wholes(tongue: Tongue) -> Vec<Row> {
    let good = whole(tongue, "yes", USAGE);
    let (half, rest) = good.split_at(good.len() / 2);
    let length = good.len();
    let json = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";
    let failed = Error(&[502]);
    let late = Error(&[504]);
    let stream = events(tongue).concat();
    let mut rows = Vec::new();
    let mut add = |name: &str, acts: Vec<Act>, hears, books| {
        rows.push(row(tongue, false, name, acts, hears, books));
    };
    let sized =
        |size: usize, body: &str| say(format!("{json}content-length: {size}\r\n\r\n{body}"));
    let chunked = |body: String| say(format!("{json}transfer-encoding: chunked\r\n\r\n{body}"));
    for status in [202, 203, 205, 206, 226, 299] {
        let ok = String::from_utf8_lossy(&with_length(&good)).into_owned();
        let other = ok.replacen("200 OK", &format!("{status} X"), 1);
        add(
            &format!("status {status}"),
            vec![say(other)],
            failed,
            Counted,
        );
    }
    let error =
        "{\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"no tea\"}}";
    add(
        "an error with a status of success",
        vec![sized(error.len(), error)],
        failed,
        Counted,
    );
    add(
        "closes within the body",
        vec![sized(length, half)],
        failed,
        Bound,
    );
    add(
        "resets within the body",
        vec![sized(length, half), Act::Reset],
        failed,
        Bound,
    );
    add(
        "hangs within the body",
        vec![sized(length, half), Act::Hang],
        late,
        Bound,
    );
    add(
        "hangs behind the head",
        vec![sized(length, ""), Act::Hang],
        late,
        Bound,
    );
    add(
        "drips its body",
        vec![
            sized(length, ""),
            Act::Drip(good.clone().into_bytes(), Duration::from_millis(50)),
        ],
        late,
        Bound,
    );
    add(
        "a length that is too long",
        vec![sized(length + 1, &good)],
        failed,
        Bound,
    );
    add(
        "a length that is too long, and silence",
        vec![sized(length + 1, &good), Act::Hang],
        late,
        Bound,
    );
    add(
        "a length that is too short",
        vec![sized(length - 1, &good)],
        failed,
        Counted,
    );
    add(
        "a length beyond the limit",
        vec![sized(99_999_999, &good), Act::Hang],
        failed,
        Bound,
    );
    add(
        "a body without an end",
        vec![say(format!("{json}\r\n")), Act::Flood(vec![b' '; 10_000])],
        failed,
        Bound,
    );
    add("chunks: cut", vec![chunked(chunk(half))], failed, Bound);
    add(
        "chunks: cut within one",
        vec![chunked(format!("{length:x}\r\n{half}"))],
        failed,
        Bound,
    );
    add(
        "chunks: no last one",
        vec![chunked(chunk(&good))],
        failed,
        Bound,
    );
    add(
        "chunks: a size that is none",
        vec![chunked(format!("{}x\r\n{rest}\r\n", chunk(half)))],
        failed,
        Bound,
    );
    add(
        "chunks: hang between two",
        vec![chunked(chunk(half)), Act::Hang],
        late,
        Bound,
    );
    add(
        "chunks: longer than it says",
        vec![chunked(format!("{:x}\r\n{good}\r\n0\r\n\r\n", length - 2))],
        failed,
        Bound,
    );
    add("no JSON", vec![say(with_length("tea"))], failed, Counted);
    add(
        "half of JSON",
        vec![say(with_length(half))],
        failed,
        Counted,
    );
    add(
        "JSON of another kind",
        vec![say(with_length("[]"))],
        failed,
        Counted,
    );
    add("nothing", vec![say(with_length(""))], failed, Counted);
    add(
        "a page",
        vec![say(
            "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 12\r\n\r\n<html></html"
                .to_owned(),
        )],
        failed,
        Counted,
    );
    add(
        "no content",
        vec![say("HTTP/1.1 204 No Content\r\n\r\n")],
        failed,
        Counted,
    );
    add(
        "invalid UTF-8",
        vec![say([
            b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n".as_slice(),
            &[b'"', 0xff, b'"'],
        ]
        .concat())],
        failed,
        Counted,
    );
    add(
        "a compressed answer",
        vec![say(format!(
            "{json}content-encoding: gzip\r\ncontent-length: {length}\r\n\r\n{good}"
        ))],
        failed,
        Counted,
    );
    add(
        "a stream nobody asked for",
        vec![say(format!("{}{}0\r\n\r\n", stream_head(), chunk(&stream)))],
        failed,
        Counted,
    );
    add(
        "a second answer behind it",
        vec![say([with_length(&good), with_length(&good)].concat())],
        Answer,
        Told,
    );
    add(
        "bytes behind it",
        vec![say([with_length(&good), b"tea".to_vec()].concat())],
        Answer,
        Told,
    );
    add(
        "to the end of the connection",
        vec![say(format!("{json}\r\n{good}"))],
        Answer,
        Told,
    );
    add(
        "HTTP/1.0",
        vec![say(String::from_utf8(with_length(&good))
            .unwrap()
            .replace("HTTP/1.1", "HTTP/1.0"))],
        Answer,
        Told,
    );
    rows
}

/// Streams that break at each place.
fn streams(tongue: Tongue) -> Vec<Row> {
    let events = events(tongue);
    let failed = Error(&[502]);
    let late = Error(&[504]);
    let mut rows = Vec::new();
    let mut add = |name: String, acts: Vec<Act>, hears, books| {
        rows.push(row(tongue, true, &name, acts, hears, books));
    };
    add(
        "a whole answer instead".to_owned(),
        vec![say(with_length(&whole(tongue, "yes", USAGE)))],
        Answer,
        Told,
    );
    let upto = |count: usize| [events.before.concat(), events.content[..count].concat()].concat();
    let first = &events.content[0];
    let places = [
        ("before any event", String::new(), failed, late),
        (
            "within the first event",
            events.before[0][..events.before[0].len() - 10].to_owned(),
            failed,
            late,
        ),
        ("before the content", events.before.concat(), failed, late),
        (
            "within the first content",
            upto(0) + &first[..first.len() - 5],
            failed,
            late,
        ),
        ("behind the first content", upto(1), Break, Break),
        (
            "within the third content",
            upto(2) + &first[..first.len() - 5],
            Break,
            Break,
        ),
        ("behind all content", upto(4), Break, Break),
    ];
    // The last event of a response has all of it.
    if let (Some(end), false) = (events.after.last(), matches!(tongue, Tongue::Responses)) {
        add(
            "ends before it begins".to_owned(),
            vec![say(stream_head() + &chunk(end) + "0\r\n\r\n")],
            failed,
            Counted,
        );
    }
    for (place, sent, cut, silent) in places {
        let said = if sent.is_empty() {
            stream_head()
        } else {
            stream_head() + &chunk(&sent)
        };
        // What was half an event is none when it ends there.
        let is_half = place.starts_with("within");
        let silent_books = if matches!(silent, Error(_)) {
            Bound
        } else {
            Counted
        };
        let mut at = |what: &str, acts: Vec<Act>, hears, books| {
            add(format!("{what} {place}"), acts, hears, books)
        };
        at("closes", vec![say(said.clone())], cut, Counted);
        at("resets", vec![say(said.clone()), Act::Reset], cut, Counted);
        at(
            "hangs",
            vec![say(said.clone()), Act::Hang],
            silent,
            silent_books,
        );
        at("ends", vec![say(said.clone() + "0\r\n\r\n")], cut, Counted);
        at(
            "breaks its chunks",
            vec![
                say(said.clone()),
                Act::Pause(Duration::from_millis(600)),
                say("tea\r\n"),
                Act::Hang,
            ],
            cut,
            Counted,
        );
        // Nothing of a piece that is broken is released.
        at(
            "breaks its chunks in one piece",
            vec![say(said.clone() + "tea\r\n"), Act::Hang],
            failed,
            Counted,
        );
        at(
            "sends what is no UTF-8",
            vec![
                say([
                    (said.clone() + "8\r\n").into_bytes(),
                    b"data: \"\xff".to_vec(),
                    b"\r\n4\r\n\"\n\n\n\r\n".to_vec(),
                ]
                .concat()),
                Act::Hang,
            ],
            cut,
            Counted,
        );
        at(
            "sends what is no JSON",
            vec![say(said.clone() + &chunk("\n\ndata: tea\n\n")), Act::Hang],
            cut,
            Counted,
        );
        at(
            "sends an error",
            vec![
                say(said.clone() + &chunk("\n\n") + &chunk(&error_event(tongue))),
                Act::Hang,
            ],
            cut,
            Counted,
        );
        at(
            "says nothing but comments",
            vec![say(said.clone() + &chunk("\n\n: ping\n\n")), Act::Hang],
            if is_half { cut } else { silent },
            if is_half { Counted } else { silent_books },
        );
    }
    add(
        "a flood of comments".to_owned(),
        vec![
            say(stream_head()),
            Act::Flood(chunk(": ping\n\n").into_bytes()),
        ],
        failed,
        Counted,
    );
    add(
        "nothing, with a length".to_owned(),
        vec![say(
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 0\r\n\r\n",
        )],
        failed,
        Counted,
    );
    add(
        "a page".to_owned(),
        vec![say(
            "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 13\r\n\r\n<html></html>",
        )],
        failed,
        Counted,
    );
    add(
        "a compressed stream".to_owned(),
        vec![say(
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-encoding: gzip\r\ncontent-length: 5\r\n\r\nhello",
        )],
        failed,
        Counted,
    );
    add(
        // That it closes then is said, or the next call may go out on a connection that ends just now.
        "dripped".to_owned(),
        vec![
            say(stream_head().replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n")),
            Act::Drip(
                (chunk(&events.concat()) + "0\r\n\r\n").into_bytes(),
                Duration::ZERO,
            ),
        ],
        Answer,
        Told,
    );
    let all = stream_head() + &chunk(&events.concat());
    add(
        "extra text behind the end".to_owned(),
        vec![say(all.clone()
            + &chunk(&events.content.concat())
            + "0\r\n\r\n")],
        Answer,
        Told,
    );
    add(
        "extra text much later".to_owned(),
        vec![say(all.clone()), say(chunk("data: x\n\n")), Act::Hang],
        Answer,
        Told,
    );
    add(
        "no last chunk".to_owned(),
        vec![say(all.clone())],
        Answer,
        Told,
    );
    add(
        "no last chunk, and silence".to_owned(),
        vec![say(all.clone()), Act::Hang],
        Answer,
        Told,
    );
    add(
        "reset behind the end".to_owned(),
        vec![say(all.clone()), Act::Reset],
        Answer,
        Told,
    );
    add(
        "a second answer behind it".to_owned(),
        vec![say(all.clone() + "0\r\n\r\n" + &all)],
        Answer,
        Told,
    );
    rows
}

/// Usage that no endpoint can mean, and what it is taken for.
fn usage(tongue: Tongue) -> Vec<Row> {
    let mut rows = Vec::new();
    for wrong in [
        "-1",
        "-9223372036854775808",
        "9223372036854775808",
        "18446744073709551615",
        "18446744073709551616",
        "100000001",
        "1000000000000",
        "1e99",
        "2.5",
        "\"7\"",
        "null",
        "true",
        "[]",
        "{}",
        "999999999999999999999999999999",
    ] {
        for (what, usage) in [
            ("input", (wrong, "2")),
            ("output", ("3", wrong)),
            ("both", (wrong, wrong)),
        ] {
            let name = format!("{what} of {wrong}");
            let answer = vec![say(with_length(&whole(tongue, "yes", usage)))];
            rows.push(row(tongue, false, &name, answer, Answer, Recounted));
            let stream = stream_head() + &chunk(&events_with(tongue, usage).concat()) + "0\r\n\r\n";
            rows.push(row(
                tongue,
                true,
                &name,
                vec![say(stream)],
                Answer,
                Recounted,
            ));
        }
    }
    rows
}

fn body(tongue: Tongue, model: &str, stream: bool) -> String {
    let rest = match tongue {
        Tongue::Chat => {
            "\"messages\":[{\"role\":\"user\",\"content\":\"Hello there\"}],\"max_completion_tokens\":50"
        }
        Tongue::Responses => "\"input\":\"Hello there\",\"max_output_tokens\":50",
        Tongue::Messages => {
            "\"messages\":[{\"role\":\"user\",\"content\":\"Hello there\"}],\"max_tokens\":50"
        }
    };
    format!("{{\"model\":\"{model}\",\"stream\":{stream},{rest}}}")
}

fn ends_cleanly(stream: &str) -> bool {
    [
        "data: [DONE]",
        "event: response.completed",
        "event: message_stop",
    ]
    .iter()
    .any(|end| stream.contains(end))
}

/// What is wrong with what the caller heard.
fn misheard(row: &Row, reply: &Reply) -> Option<String> {
    let text = reply.text();
    let is_right = match row.hears {
        Error(statuses) => {
            let is_told = reply.json()["error"].is_object();
            statuses.contains(&reply.status) && !reply.broken && is_told && !text.contains("data: ")
        }
        Break => {
            reply.status == 200
                && reply.broken
                && text.contains("upstream_interrupted")
                && !ends_cleanly(&text)
        }
        Answer if row.stream => {
            reply.status == 200
                && !reply.broken
                && ends_cleanly(&text)
                && !text.contains("upstream_interrupted")
        }
        Answer => reply.status == 200 && !reply.broken && text.contains("yes"),
    };
    let start: String = text.chars().take(300).collect();
    let is_safe = !text.contains(KEY) && !format!("{:?}", reply.headers).contains(KEY);
    (!is_right || !is_safe).then(|| {
        format!(
            "{}: wanted {:?}, got {} broken {}: {start}",
            row.name, row.hears, reply.status, reply.broken
        )
    })
}

/// What is wrong with an attempt's entry.
fn misbooked(row: &Row, entry: &Entry) -> Option<String> {
    let (outcome, source) = (entry.outcome, entry.source);
    let is_charged = entry.cost > NanoUsd::ZERO && entry.cost <= entry.held.bound;
    let is_right = match row.books {
        Void => outcome == Outcome::Failed && entry.cost == NanoUsd::ZERO,
        Counted => outcome == Outcome::Interrupted && source == UsageSource::Counted && is_charged,
        Bound => outcome == Outcome::Interrupted && source == UsageSource::Estimated && is_charged,
        Told => outcome == Outcome::Completed && source == UsageSource::Provider && is_charged,
        Recounted => outcome == Outcome::Completed && is_charged,
    };
    (!is_right).then(|| {
        format!(
            "{}: wanted {:?}, the ledger says {outcome:?} {source:?} {:?} of {:?}, {:?}",
            row.name, row.books, entry.cost, entry.held.bound, entry.usage
        )
    })
}

async fn played(client: Client, name: String, row: Arc<Row>, endpoint: Arc<Wicked>) -> Vec<String> {
    let mut wrong = Vec::new();
    let path = row.tongue.path();
    let reply = client.post(path, body(row.tongue, &name, row.stream)).await;
    wrong.extend(misheard(&row, &reply));
    let before = endpoint.endpoint.connections();
    endpoint.repent();
    // The endpoint may be just about to close a connection that looks good: a call on it would be tried twice.
    tokio::time::sleep(Duration::from_millis(50)).await;
    // Who asked to be left alone is left alone; the next call may have to wait for that.
    for stream in [row.stream, !row.stream] {
        let next = client.post(path, body(row.tongue, &name, stream)).await;
        if next.status != 200
            || next.broken
            || !(next.text().contains("yes") || next.text().contains("four "))
        {
            wrong.push(format!(
                "{}: the next call: {} {}",
                row.name,
                next.status,
                next.text()
            ));
        }
    }
    if !row.stays && endpoint.endpoint.connections() != before + 1 {
        wrong.push(format!(
            "{}: {} connections, then {}",
            row.name,
            before,
            endpoint.endpoint.connections()
        ));
    }
    wrong
}

/// Whether the end of a call that goes so is that a wait ends.
fn is_waited_for(row: &Row) -> bool {
    let slow = Duration::from_millis(1);
    let waits =
        |act: &Act| matches!(act, Act::Hang) || matches!(act, Act::Drip(_, gap) if *gap > slow);
    row.wrong.acts.iter().any(waits)
}

async fn check(rows: Vec<Row>) {
    let count = rows.len();
    let (silent, telling): (Vec<_>, Vec<_>) = rows.into_iter().partition(is_waited_for);
    let mut wrong = Vec::new();
    for (rows, patience) in [(silent, SHORT), (telling, LONG)] {
        let rows: Vec<Arc<Row>> = rows.into_iter().map(Arc::new).collect();
        if !rows.is_empty() {
            wrong.extend(faults(&rows, patience).await);
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong of {count} rows:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    println!("{count} rows");
}

/// What is wrong with how these go.
async fn faults(rows: &[Arc<Row>], patience: Duration) -> Vec<String> {
    let mut tables = String::new();
    let mut endpoints = Vec::new();
    for (at, row) in rows.iter().enumerate() {
        let endpoint = Wicked::start(row.tongue, row.wrong.clone()).await;
        let name = format!("raw-{at}");
        let url = wicked::url(endpoint.endpoint.address);
        let table = wicked::tables(&name, row.tongue, &url);
        tables.push_str(&table.replace(&format!("up-{name}"), KEY));
        endpoints.push(Arc::new(endpoint));
    }
    let world = World::start(&head(patience), &tables).await;
    let mut wrong = Vec::new();
    let all: Vec<_> = rows.iter().zip(&endpoints).enumerate().collect();
    for some in all.chunks(32) {
        let playing = some.iter().map(|(at, (row, endpoint))| {
            let client = world.caller(&world.client.key);
            played(
                client,
                format!("raw-{at}"),
                Arc::clone(row),
                Arc::clone(endpoint),
            )
        });
        wrong.extend(join_all(playing).await.into_iter().flatten());
    }
    let entries = world.entries().await;
    for (at, row) in rows.iter().enumerate() {
        let name = format!("raw-{at}");
        let own: Vec<_> = entries
            .iter()
            .filter(|entry| *entry.held.model == *name)
            .collect();
        let (bad, good) = own.split_at(own.len().saturating_sub(2));
        if bad.is_empty() || good.iter().any(|entry| entry.outcome != Outcome::Completed) {
            wrong.push(format!("{}: {} entries", row.name, own.len()));
        }
        wrong.extend(bad.iter().filter_map(|entry| misbooked(row, entry)));
    }
    world.quiet().await;
    wrong
}

fn each(rows: impl Fn(Tongue) -> Vec<Row>) -> Vec<Row> {
    Tongue::ALL.into_iter().flat_map(rows).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_that_fail_before_they_answer() {
    check(each(before)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_that_answer_with_errors() {
    check(each(statuses)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_whose_whole_answers_are_none() {
    check(each(wholes)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_whose_streams_break() {
    check(each(streams)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_that_lie_about_usage() {
    check(each(usage)).await;
}

/// Hears what follows when the text is said in full.
#[test]
fn the_pieces_are_the_text() {
    for tongue in Tongue::ALL {
        assert!(
            events(tongue)
                .concat()
                .contains(SAID.split(' ').next().unwrap())
        );
    }
}
