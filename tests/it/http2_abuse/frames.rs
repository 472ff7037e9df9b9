//! Frames that are wrong in themselves, or where they stand, and headers that are packed wrongly.

use tests::frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GET, GOAWAY, HEADERS, PADDED, PING, PREFACE,
    PRIORITY, PUSH_PROMISE, RST_STREAM, SETTINGS, WINDOW_UPDATE, block, frame, get, headers,
};
use tests::world::chat;

use super::{
    Alive, CLOSED, COMPRESSION, FLOW, Gone, NONE, PROTOCOL, Refused, Reset, Row, SIZE, Status,
    number, post, row, setting,
};

/// Frames that are wrong in themselves, or where they stand.
pub(super) fn frames() -> Vec<Row> {
    let settings = |payload: &[u8]| frame(SETTINGS, 0, 0, payload);
    let open = post(1, &[]);
    let after = |more: Vec<u8>| [get(1), more].concat();
    let within = |more: Vec<u8>| [open.clone(), more].concat();
    let body = chat("fast", "bait", "");
    let fine = chat("fast", "fine", "");
    vec![
        row("a request", get(1), Status(&[200])),
        row("settings: none", settings(&[]), Alive),
        row("settings: unknown", settings(&setting(0xffff, 7)), Alive),
        row("settings: not whole", settings(&[0; 5]), Gone(&[SIZE])),
        row(
            "settings: on a stream",
            frame(SETTINGS, 0, 1, &[]),
            Gone(&[PROTOCOL]),
        ),
        row(
            "settings: an answer with content",
            frame(SETTINGS, ACK, 0, &[0; 6]),
            Gone(&[SIZE]),
        ),
        row(
            "settings: push is 2",
            settings(&setting(2, 2)),
            Gone(&[PROTOCOL]),
        ),
        row(
            "settings: a window too large",
            settings(&setting(4, 1 << 31)),
            Gone(&[FLOW]),
        ),
        row(
            "settings: frames too small",
            settings(&setting(5, 16_383)),
            Gone(&[PROTOCOL]),
        ),
        row(
            "settings: frames too large",
            settings(&setting(5, 1 << 24)),
            Gone(&[PROTOCOL]),
        ),
        row(
            "settings: the largest table",
            settings(&setting(1, u32::MAX)),
            Alive,
        ),
        row(
            "settings: no headers at all",
            settings(&setting(6, 0)),
            Alive,
        ),
        row("unknown frame", frame(0x2a, 0xff, 0, b"anything"), Alive),
        row(
            "unknown frame on a stream",
            frame(0x2a, 0xff, 7, b"anything"),
            Alive,
        ),
        row(
            "unknown frame inside of headers",
            [
                frame(HEADERS, END_STREAM, 1, &block(&GET)),
                frame(0x2a, 0, 1, b""),
            ]
            .concat(),
            Gone(&[PROTOCOL]),
        ),
        row(
            "data on stream 0",
            frame(DATA, 0, 0, b"x"),
            Gone(&[PROTOCOL]),
        ),
        row(
            "headers on stream 0",
            headers(0, END_STREAM, &GET),
            Gone(&[PROTOCOL]),
        ),
        row(
            "reset of stream 0",
            frame(RST_STREAM, 0, 0, &number(8)),
            Gone(&[PROTOCOL]),
        ),
        row(
            "priority on stream 0",
            frame(PRIORITY, 0, 0, &[0; 5]),
            Gone(&[PROTOCOL]),
        ),
        row(
            "continuation on stream 0",
            frame(CONTINUATION, END_HEADERS, 0, &[]),
            Gone(&[PROTOCOL]),
        ),
        row("headers on an even stream", get(2), Gone(&[PROTOCOL])),
        row(
            "a stream from before",
            [get(5), get(3)].concat(),
            Gone(&[PROTOCOL, CLOSED]),
        ),
        row("a stream again", after(get(1)), Refused),
        row(
            "data on an idle stream",
            frame(DATA, 0, 1, b"x"),
            Gone(&[PROTOCOL]),
        ),
        row(
            "reset of an idle stream",
            frame(RST_STREAM, 0, 1, &number(8)),
            Gone(&[PROTOCOL]),
        ),
        row(
            "window of an idle stream",
            frame(WINDOW_UPDATE, 0, 1, &number(1)),
            Gone(&[PROTOCOL]),
        ),
        row(
            "reset: too short",
            within(frame(RST_STREAM, 0, 1, &[0; 3])),
            Gone(&[SIZE]),
        ),
        row(
            "reset: too long",
            within(frame(RST_STREAM, 0, 1, &[0; 5])),
            Gone(&[SIZE]),
        ),
        row(
            "priority: too short",
            frame(PRIORITY, 0, 1, &[0; 4]),
            Refused,
        ),
        row(
            "priority: on itself",
            [frame(PRIORITY, 0, 1, &[0, 0, 0, 1, 0])].concat(),
            Refused,
        ),
        row("ping: too short", frame(PING, 0, 0, &[0; 7]), Gone(&[SIZE])),
        row("ping: too long", frame(PING, 0, 0, &[0; 9]), Gone(&[SIZE])),
        row(
            "ping: on a stream",
            frame(PING, 0, 1, &[0; 8]),
            Gone(&[PROTOCOL]),
        ),
        row(
            "ping: an answer to nothing",
            frame(PING, ACK, 0, &[7; 8]),
            Alive,
        ),
        row(
            "goaway: on a stream",
            frame(GOAWAY, 0, 1, &[0; 8]),
            Gone(&[PROTOCOL]),
        ),
        row(
            "goaway: too short",
            frame(GOAWAY, 0, 0, &[0; 7]),
            Gone(&[SIZE]),
        ),
        row(
            "push",
            frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2]),
            Gone(&[PROTOCOL]),
        ),
        row(
            "push within a request",
            within(frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2])),
            Gone(&[PROTOCOL]),
        ),
        row(
            "window: by nothing",
            frame(WINDOW_UPDATE, 0, 0, &number(0)),
            Gone(&[PROTOCOL]),
        ),
        row(
            "window: by nothing, of a stream",
            within(frame(WINDOW_UPDATE, 0, 1, &number(0))),
            Reset(&[PROTOCOL]),
        ),
        row(
            "window: too short",
            frame(WINDOW_UPDATE, 0, 0, &[0; 3]),
            Gone(&[SIZE]),
        ),
        row(
            "window: too large",
            [
                frame(WINDOW_UPDATE, 0, 0, &number(0x7fff_ffff)),
                frame(WINDOW_UPDATE, 0, 0, &number(0x7fff_ffff)),
            ]
            .concat(),
            Gone(&[FLOW]),
        ),
        row(
            "window: too large, of a stream",
            within(
                [
                    frame(WINDOW_UPDATE, 0, 1, &number(0x7fff_ffff)),
                    frame(WINDOW_UPDATE, 0, 1, &number(0x7fff_ffff)),
                ]
                .concat(),
            ),
            Reset(&[FLOW]),
        ),
        row(
            "continuation of nothing",
            frame(CONTINUATION, END_HEADERS, 1, &block(&GET)),
            Gone(&[PROTOCOL]),
        ),
        row(
            "continuation of a whole head",
            within(frame(CONTINUATION, END_HEADERS, 1, &[])),
            Gone(&[PROTOCOL]),
        ),
        row(
            "continuation of another stream",
            [
                frame(HEADERS, END_STREAM, 1, &block(&GET)),
                frame(CONTINUATION, END_HEADERS, 3, &[]),
            ]
            .concat(),
            Gone(&[PROTOCOL]),
        ),
        row(
            "data inside of headers",
            [frame(HEADERS, 0, 1, &block(&GET)), frame(DATA, 0, 1, b"x")].concat(),
            Gone(&[PROTOCOL]),
        ),
        row(
            "ping inside of headers",
            [
                frame(HEADERS, 0, 1, &block(&GET)),
                frame(PING, 0, 0, &[0; 8]),
            ]
            .concat(),
            Gone(&[PROTOCOL]),
        ),
        row(
            "headers inside of headers",
            [frame(HEADERS, 0, 1, &block(&GET)), get(3)].concat(),
            Gone(&[PROTOCOL]),
        ),
        row(
            "headers in two pieces",
            [
                frame(HEADERS, END_STREAM, 1, &block(&GET[..2])),
                frame(CONTINUATION, END_HEADERS, 1, &block(&GET[2..])),
            ]
            .concat(),
            Status(&[200]),
        ),
        row(
            "a frame beyond the size",
            frame(DATA, 0, 1, &[0; 16_385]),
            Gone(&[SIZE]),
        ),
        row(
            "settings beyond the size",
            frame(SETTINGS, 0, 0, &[0; 16_386]),
            Gone(&[SIZE]),
        ),
        row(
            "an unknown frame beyond the size",
            frame(0x2a, 0, 0, &[0; 16_385]),
            Gone(&[SIZE]),
        ),
        row(
            "padding beyond the headers",
            frame(HEADERS, END_STREAM | END_HEADERS | PADDED, 1, &[9, 0, 0]),
            Gone(&[PROTOCOL]),
        ),
        row(
            "padding beyond the data",
            within(frame(DATA, PADDED, 1, &[9, 0, 0])),
            Gone(&[PROTOCOL]),
        ),
        row(
            "padding with no length",
            frame(HEADERS, END_STREAM | END_HEADERS | PADDED, 1, &[]),
            Gone(&[PROTOCOL, SIZE]),
        ),
        row(
            "padded headers",
            frame(
                HEADERS,
                END_STREAM | END_HEADERS | PADDED,
                1,
                &[&[2], block(&GET).as_slice(), &[0, 0]].concat(),
            ),
            Status(&[200]),
        ),
        row(
            "data behind the end",
            after(frame(DATA, 0, 1, b"x")),
            Refused,
        ),
        row(
            "headers behind the end",
            after(headers(1, END_STREAM, &[("x", "y")])),
            Refused,
        ),
        row(
            "data behind a reset",
            within([frame(RST_STREAM, 0, 1, &number(8)), frame(DATA, 0, 1, b"x")].concat()),
            Refused,
        ),
        row(
            "trailers that do not end",
            within(
                [
                    frame(DATA, 0, 1, body.as_bytes()),
                    headers(1, 0, &[("x", "y")]),
                ]
                .concat(),
            ),
            Reset(&[PROTOCOL]),
        ),
        row(
            "trailers with a method",
            within(
                [
                    frame(DATA, 0, 1, fine.as_bytes()),
                    headers(1, END_STREAM, &[(":method", "GET")]),
                ]
                .concat(),
            ),
            // The library drops such fields, and the gateway all trailers.
            Status(&[200, 400]),
        ),
        row(
            "trailers with a status",
            within(
                [
                    frame(DATA, 0, 1, fine.as_bytes()),
                    headers(1, END_STREAM, &[(":status", "200")]),
                ]
                .concat(),
            ),
            // The library drops such fields, and the gateway all trailers.
            Status(&[200, 400]),
        ),
    ]
}

/// What the compression of headers must not take.
pub(super) fn compression() -> Vec<Row> {
    let with = |bytes: &[u8]| frame(HEADERS, END_HEADERS | END_STREAM, 1, bytes);
    let behind = |bytes: &[u8]| with(&[block(&GET).as_slice(), bytes].concat());
    let wrong = Gone(&[COMPRESSION]);
    vec![
        row("index 0", behind(&[0x80]), wrong),
        row("an index beyond both tables", behind(&[0xff, 0x20]), wrong),
        row(
            "a huge index",
            behind(&[0xff, 0xff, 0xff, 0xff, 0xff, 0x0f]),
            wrong,
        ),
        row(
            "a number without an end",
            behind(&[
                0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
            ]),
            wrong,
        ),
        row("a literal that is cut", behind(&[0x00, 0x05, b'a']), wrong),
        row(
            "a literal without a value",
            behind(&[0x00, 0x01, b'a']),
            wrong,
        ),
        row(
            "Huffman: an end inside",
            behind(&[0x00, 0x84, 0xff, 0xff, 0xff, 0xff, 0x01, b'a']),
            wrong,
        ),
        row(
            "Huffman: padding of zeros",
            behind(&[0x00, 0x81, 0x00, 0x01, b'a']),
            wrong,
        ),
        row(
            "Huffman: padding too long",
            behind(&[0x00, 0x82, 0x1f, 0xff, 0x01, b'a']),
            wrong,
        ),
        row(
            "a table beyond the agreed size",
            with(&[&[0x3f, 0xe1, 0xff, 0x03], block(&GET).as_slice()].concat()),
            wrong,
        ),
        row(
            "a table resized in the middle",
            behind(&[0x20, 0x00, 0x01, b'a', 0x01, b'b']),
            wrong,
        ),
        row("a block of noise", with(&[0xba; 40]), Refused),
        row("an empty block", with(&[]), Reset(&[PROTOCOL])),
    ]
}

/// How connections begin.
pub(super) fn greetings() -> Vec<Row> {
    let raw = |name: &str, bytes: Vec<u8>, want| Row {
        greets: false,
        ..row(name, bytes, want)
    };
    vec![
        raw(
            "no settings",
            [PREFACE, &get(1)].concat(),
            Gone(&[PROTOCOL]),
        ),
        raw(
            "ping before settings",
            [PREFACE, &frame(PING, 0, 0, &[0; 8])].concat(),
            Gone(&[PROTOCOL]),
        ),
        raw(
            "an answer to settings first",
            [PREFACE, &frame(SETTINGS, ACK, 0, &[])].concat(),
            Gone(&[PROTOCOL]),
        ),
        raw(
            "noise behind the preface",
            [PREFACE, &[0xff; 64]].concat(),
            Gone(&[PROTOCOL, SIZE]),
        ),
        raw(
            "a request of HTTP/1.1 behind it",
            [PREFACE, b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"].concat(),
            Gone(&[PROTOCOL, SIZE]),
        ),
        raw(
            "the preface alone",
            PREFACE.to_vec(),
            Gone(&[NONE, PROTOCOL]),
        ),
        raw(
            "half of a frame",
            [PREFACE, &[0, 0, 6, 4]].concat(),
            Gone(&[NONE, PROTOCOL]),
        ),
        raw(
            "half of a request",
            [
                PREFACE,
                &frame(SETTINGS, 0, 0, &[]),
                &frame(HEADERS, END_STREAM, 1, &block(&GET)),
            ]
            .concat(),
            Gone(&[NONE, PROTOCOL]),
        ),
    ]
}
