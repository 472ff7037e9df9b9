//! Whole answers that are none, and usage that no endpoint can mean.

use std::time::Duration;

use tests::talk::Tongue;
use tests::wicked::{Act, USAGE, chunk, events, events_with, say, stream_head, whole, with_length};

use super::{Answer, Bound, Counted, Error, Recounted, Row, Told, row};

/// Whole answers that are none.
pub(super) fn wholes(tongue: Tongue) -> Vec<Row> {
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

/// Usage that no endpoint can mean, and what it is taken for.
pub(super) fn usage(tongue: Tongue) -> Vec<Row> {
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
