//! Streams that break at each place.

use std::time::Duration;

use tests::talk::Tongue;
use tests::wicked::{Act, USAGE, chunk, error_event, events, say, stream_head, whole, with_length};

use super::{Answer, Bound, Break, Counted, Error, Row, Told, row};

/// Streams that break at each place.
pub(super) fn streams(tongue: Tongue) -> Vec<Row> {
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
