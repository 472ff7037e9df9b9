//! Proves, row by row, that HTTP/2 is read as RFC 9113 and 7541 say whatever a hostile caller sends: mistakes
//! end their stream or their connection, floods end it or cost nothing, nothing of them reaches an upstream,
//! and others are served meanwhile.

use std::time::Duration;

use futures_util::future::join_all;
use tests::frames::{
    ACK, CONTINUATION, Came, DATA, END_HEADERS, END_STREAM, Frames, GET, GOAWAY, HEADERS, PADDED,
    PING, PREFACE, PRIORITY, PUSH_PROMISE, RST_STREAM, SETTINGS, WINDOW_UPDATE, block, frame, get,
    headers,
};
use tests::world::{World, chat};

const PATIENCE: Duration = Duration::from_secs(10);

/// Codes of errors.
const NONE: u32 = 0;
const PROTOCOL: u32 = 1;
const FLOW: u32 = 3;
const CLOSED: u32 = 5;
const SIZE: u32 = 6;
const COMPRESSION: u32 = 9;
const CALM: u32 = 11;

/// What must become of a connection.
#[derive(Debug, Clone, Copy)]
enum Want {
    /// It goes on: stream 999 is answered.
    Alive,
    /// Stream 1 is answered with one of these, and the connection goes on.
    Status(&'static [u16]),
    /// Stream 1 is reset with one of these, or refused as a request, and the connection goes on.
    Reset(&'static [u32]),
    /// It ends, with one of these where it says why.
    Gone(&'static [u32]),
    /// Any of the two last, or an answer that refuses.
    Refused,
}
use Want::{Alive, Gone, Refused, Reset, Status};

struct Row {
    name: String,
    /// Behind the greeting, or instead of it.
    bytes: Vec<u8>,
    greets: bool,
    want: Want,
}

fn row(name: &str, bytes: impl Into<Vec<u8>>, want: Want) -> Row {
    Row {
        name: name.to_owned(),
        bytes: bytes.into(),
        greets: true,
        want,
    }
}

fn post(stream: u32, fields: &[(&str, &str)]) -> Vec<u8> {
    let key = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/v1/chat/completions"),
        (":authority", "gateway.test"),
        ("authorization", "Bearer KEY"),
    ];
    headers(stream, 0, &[&key, fields].concat())
}

fn number(number: u32) -> [u8; 4] {
    number.to_be_bytes()
}

fn setting(id: u16, value: u32) -> Vec<u8> {
    [id.to_be_bytes().as_slice(), &number(value)].concat()
}

/// Frames that are wrong in themselves, or where they stand.
fn frames() -> Vec<Row> {
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
fn compression() -> Vec<Row> {
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

/// A request whose fields are those of GET, changed.
fn requests() -> Vec<Row> {
    let bad = Reset(&[PROTOCOL]);
    let with = |fields: &[(&str, &str)]| headers(1, END_STREAM, fields);
    let without = |name: &str| {
        let left: Vec<_> = GET.into_iter().filter(|(it, _)| *it != name).collect();
        with(&left)
    };
    let changed = |name: &str, value: &str| {
        let fields: Vec<_> = GET
            .into_iter()
            .map(|(it, was)| (it, if it == name { value } else { was }))
            .collect();
        headers(1, END_STREAM, &fields)
    };
    let and = |name: &str, value: &str| with(&[&GET[..], &[(name, value)]].concat());
    let mut rows = vec![
        row("no method", without(":method"), bad),
        row("no scheme", without(":scheme"), bad),
        row("no path", without(":path"), bad),
        row("no authority", without(":authority"), Refused),
        row("two methods", and(":method", "GET"), bad),
        row("two schemes", and(":scheme", "http"), bad),
        row("two paths", and(":path", "/"), bad),
        row("two authorities", and(":authority", "gateway.test"), bad),
        row("an unknown pseudo-header", and(":foo", "bar"), bad),
        row("a status in a request", and(":status", "200"), bad),
        row("a protocol", and(":protocol", "websocket"), Refused),
        row(
            "a pseudo-header behind others",
            with(&[GET[0], GET[1], GET[3], ("x", "y"), GET[2]]),
            bad,
        ),
        row(
            "a pseudo-header behind all",
            with(&[GET[0], GET[1], GET[2], ("x", "y"), GET[3]]),
            bad,
        ),
        row(
            "connect with a path",
            changed(":method", "CONNECT"),
            Refused,
        ),
        row(
            "connect",
            with(&[(":method", "CONNECT"), (":authority", "gateway.test:443")]),
            Status(&[405, 501]),
        ),
        row("connection", and("connection", "close"), bad),
        row("keep-alive", and("keep-alive", "x"), bad),
        row("proxy-connection", and("proxy-connection", "x"), bad),
        row(
            "transfer-encoding",
            and("transfer-encoding", "chunked"),
            bad,
        ),
        row("upgrade", and("upgrade", "h2c"), bad),
        row("te", and("te", "gzip"), bad),
        row("te with trailers", and("te", "trailers"), Status(&[200])),
        row(
            "a host that agrees",
            and("host", "gateway.test"),
            Status(&[200]),
        ),
        row(
            "a host that does not",
            and("host", "elsewhere.test"),
            Refused,
        ),
        row(
            "two hosts",
            with(&[&GET[..3], &[("host", "a"), ("host", "b")]].concat()),
            Refused,
        ),
        row(
            "a host alone",
            with(&[&GET[..3], &[("host", "gateway.test")]].concat()),
            Status(&[200]),
        ),
        row(
            "no length, and a body",
            [headers(1, 0, &GET), frame(DATA, END_STREAM, 1, b"x")].concat(),
            Status(&[200]),
        ),
        row(
            "cookie in crumbs",
            with(&[&GET[..], &[("cookie", "a=b"), ("cookie", "c=d")]].concat()),
            Status(&[200]),
        ),
        row(
            "a compressed body",
            and("content-encoding", "gzip"),
            Refused,
        ),
        row(
            "two keys",
            with(
                &[
                    &GET[..2],
                    &[
                        (":path", "/v1/models"),
                        GET[3],
                        ("authorization", "Bearer KEY"),
                        ("authorization", "Bearer KEY"),
                    ],
                ]
                .concat(),
            ),
            Status(&[401]),
        ),
        row("no key", changed(":path", "/v1/models"), Status(&[401])),
        row(
            "the wrong key",
            with(
                &[
                    &GET[..2],
                    &[
                        (":path", "/v1/models"),
                        GET[3],
                        ("authorization", "Bearer x"),
                    ],
                ]
                .concat(),
            ),
            Status(&[401]),
        ),
    ];
    for (name, value) in [
        (":method", ""),
        (":method", "G T"),
        (":method", "G\0T"),
        (":scheme", ""),
        (":scheme", "h ttp"),
        (":path", ""),
        (":path", "x"),
        (":path", "?"),
        (":path", "*"),
        (":path", "/a b"),
        (":path", "/a#b"),
        (":path", "/a\0b"),
        (":path", "/a\nb"),
        (":path", "http://a/"),
        (":path", "/<a>"),
        (":authority", ""),
        (":authority", "u@a"),
        (":authority", "a b"),
        (":authority", "a/b"),
        (":authority", "a:x"),
        (":authority", "a:99999"),
        (":authority", "[::1"),
        (":authority", "a,b"),
    ] {
        rows.push(row(
            &format!("{name} is {value:?}"),
            changed(name, value),
            Refused,
        ));
    }
    for method in ["get", "TRACE", "FOO", "PRI"] {
        rows.push(row(
            &format!("method {method}"),
            changed(":method", method),
            Status(&[405, 501]),
        ));
    }
    for name in [
        "X",
        "x y",
        "x:y",
        "",
        ":",
        "x\0",
        "x\n",
        "x\r",
        "x(y)",
        "x/y",
        "ä",
        "X-Api-Key",
        " x",
        "x ",
    ] {
        rows.push(row(&format!("name {name:?}"), and(name, "y"), Refused));
    }
    for value in ["a\0b", "a\nb", "a\rb", "a\r\nx: y", "\u{1}", "\u{7f}"] {
        rows.push(row(&format!("value {value:?}"), and("x", value), Refused));
    }
    for value in [" ", " a", "a ", "\ta", "a\t"] {
        rows.push(row(
            &format!("value {value:?}"),
            and("x", value),
            Status(&[400]),
        ));
    }
    rows
}

/// Lengths that do not fit what comes.
fn lengths() -> Vec<Row> {
    let body = chat("fast", "bait", "");
    let size = body.len();
    let call =
        |length: &str, frames: Vec<u8>| [post(1, &[("content-length", length)]), frames].concat();
    let whole = || frame(DATA, END_STREAM, 1, body.as_bytes());
    let mut rows = vec![
        row(
            "too short a body",
            call(&(size + 1).to_string(), whole()),
            Refused,
        ),
        row(
            "too long a body",
            call(&(size - 1).to_string(), whole()),
            Refused,
        ),
        row("a body where none is declared", call("0", whole()), Refused),
        row(
            "no body where one is declared",
            headers(
                1,
                END_STREAM,
                &[&GET[..], &[("content-length", "5")]].concat(),
            ),
            Refused,
        ),
        row(
            "lengths that differ",
            [
                post(1, &[("content-length", "1"), ("content-length", "2")]),
                whole(),
            ]
            .concat(),
            Refused,
        ),
        row(
            "an empty end too early",
            call(&size.to_string(), frame(DATA, END_STREAM, 1, &[])),
            Refused,
        ),
        row(
            "trailers too early",
            call(
                &size.to_string(),
                [
                    frame(DATA, 0, 1, b"{"),
                    headers(1, END_STREAM, &[("x", "y")]),
                ]
                .concat(),
            ),
            Refused,
        ),
        row(
            "a body beyond the limit",
            call("99999999", frame(DATA, 0, 1, b"{")),
            Status(&[413]),
        ),
    ];
    for length in [
        "-1",
        "+1",
        "x",
        "",
        "1, 1",
        "0x10",
        "18446744073709551616",
        "1.0",
        " ",
    ] {
        rows.push(row(
            &format!("length {length:?}"),
            call(length, whole()),
            Refused,
        ));
    }
    rows
}

/// How connections begin.
fn greetings() -> Vec<Row> {
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

/// A lot of the same.
fn floods() -> Vec<Row> {
    let times =
        |count: u32, each: &dyn Fn(u32) -> Vec<u8>| (0..count).flat_map(each).collect::<Vec<u8>>();
    let stream = |at: u32| 2 * at + 1;
    let head = frame(HEADERS, END_STREAM, 1, &block(&GET));
    let long: Vec<u8> = block(&[("x", &"y".repeat(16_000))]);
    let gone = Gone(&[CALM, PROTOCOL, COMPRESSION, NONE]);
    let calm = Gone(&[CALM]);
    let bomb = {
        // One entry of the dynamic table, named again and again.
        let entry = [&[0x40, 1, b'x', 0x7f, 0xa1, 0x1e][..], &[b'y'; 4_000]].concat();
        let first = frame(
            HEADERS,
            END_STREAM | END_HEADERS,
            1,
            &[block(&GET), entry].concat(),
        );
        let again = times(200, &|at| {
            frame(
                HEADERS,
                END_STREAM | END_HEADERS,
                stream(at + 1),
                &[block(&GET), vec![0xbe; 12_000]].concat(),
            )
        });
        [first, again].concat()
    };
    vec![
        row(
            "rapid reset",
            times(2_000, &|at| {
                [
                    get(stream(at)),
                    frame(RST_STREAM, 0, stream(at), &number(8)),
                ]
                .concat()
            }),
            Refused,
        ),
        row(
            "made you reset, by windows",
            times(2_000, &|at| {
                [
                    post(stream(at), &[]),
                    frame(WINDOW_UPDATE, 0, stream(at), &number(0)),
                ]
                .concat()
            }),
            gone,
        ),
        row(
            "made you reset, by data",
            times(2_000, &|at| {
                [get(stream(at)), frame(DATA, END_STREAM, stream(at), b"x")].concat()
            }),
            gone,
        ),
        row(
            "made you reset, by lengths",
            times(2_000, &|at| {
                [
                    post(stream(at), &[("content-length", "1")]),
                    frame(DATA, END_STREAM, stream(at), b"xyz"),
                ]
                .concat()
            }),
            calm,
        ),
        row(
            "made you reset, by bad requests",
            times(2_000, &|at| headers(stream(at), END_STREAM, &[("x", "y")])),
            calm,
        ),
        row(
            "a flood of continuations",
            [
                head.clone(),
                times(2_000, &|_| frame(CONTINUATION, 0, 1, &long)),
            ]
            .concat(),
            gone,
        ),
        row(
            "a flood of empty continuations",
            [head, times(50_000, &|_| frame(CONTINUATION, 0, 1, &[]))].concat(),
            gone,
        ),
        row(
            "a flood of empty data",
            [post(1, &[]), times(100_000, &|_| frame(DATA, 0, 1, &[]))].concat(),
            Refused,
        ),
        row(
            "a flood of padding",
            [
                post(1, &[]),
                times(20_000, &|_| frame(DATA, PADDED, 1, &[0])),
            ]
            .concat(),
            Refused,
        ),
        row(
            "a flood of resets of nothing",
            [
                get(1),
                times(20_000, &|_| frame(RST_STREAM, 0, 1, &number(8))),
            ]
            .concat(),
            Refused,
        ),
        row(
            "a flood of priorities",
            times(50_000, &|at| {
                frame(PRIORITY, 0, stream(at % 1_000), &[0, 0, 0, 0, 7])
            }),
            Refused,
        ),
        row(
            "a flood of unknown frames",
            times(50_000, &|_| frame(0x2a, 0, 0, b"x")),
            Alive,
        ),
        row(
            "a flood of windows",
            times(50_000, &|_| frame(WINDOW_UPDATE, 0, 0, &number(1))),
            Alive,
        ),
        row("a bomb of headers", bomb, Refused),
        row(
            "more streams than there may be",
            times(400, &|at| post(stream(at), &[])),
            Refused,
        ),
        row(
            "more data than the window",
            [
                post(1, &[]),
                times(100, &|_| frame(DATA, 0, 1, &[b' '; 16_384])),
            ]
            .concat(),
            Refused,
        ),
    ]
}

/// What came on a connection until it ended, or a request behind the row was answered.
async fn play(world: &World, row: &Row) -> (Vec<Came>, bool) {
    let mut line = if row.greets {
        Frames::to(world.running.address).await
    } else {
        Frames::silent(world.running.address).await
    };
    let bytes = with_key(&row.bytes, &world.client.key);
    line.say(&bytes).await;
    if row.greets {
        line.say(&get(9_999)).await;
    }
    let (mut came, mut alive) = (Vec::new(), false);
    while let Some(next) = line.next(PATIENCE).await {
        alive |= matches!(next, Came::Status(9_999, _));
        came.push(next);
        let told = |it: &Came| matches!(it, Came::Status(1, _) | Came::Reset(1, _));
        let waits = matches!(row.want, Status(_) | Reset(_)) && !came.iter().any(told);
        if alive && !waits {
            return (came, true);
        }
    }
    let left = came.iter().any(|it| matches!(it, Came::GoAway(_)));
    (came, alive && !left)
}

/// `bytes` with the frames that hold `KEY` made longer.
fn with_key(bytes: &[u8], key: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let [a, b, c, kind, flags, s @ ..] = rest {
        let size = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
        let Some(payload) = s.get(4..4 + size).filter(|_| !rest.starts_with(PREFACE)) else {
            break;
        };
        let mark = b"\x0aBearer KEY";
        let found = payload.windows(mark.len()).position(|it| it == mark);
        let stream = u32::from_be_bytes(s[..4].try_into().unwrap());
        match found {
            Some(at) if *kind == HEADERS => {
                let whole = format!("Bearer {key}");
                let length = u8::try_from(whole.len()).unwrap();
                assert!(length < 127);
                let made = [
                    &payload[..at],
                    &[length],
                    whole.as_bytes(),
                    &payload[at + mark.len()..],
                ]
                .concat();
                out.extend(frame(*kind, *flags, stream, &made));
            }
            _ => out.extend_from_slice(&rest[..9 + size]),
        }
        rest = &s[4 + size..];
    }
    out.extend_from_slice(rest);
    out
}

impl Row {
    /// What is wrong with what came.
    fn fault(&self, came: &[Came], alive: bool) -> Option<String> {
        let status = came.iter().find_map(|it| match it {
            Came::Status(1, status) => Some(*status),
            _ => None,
        });
        let reset = came.iter().find_map(|it| match it {
            Came::Reset(1, code) => Some(*code),
            _ => None,
        });
        let gone = came.iter().find_map(|it| match it {
            Came::GoAway(code) => Some(*code),
            _ => None,
        });
        let refused = status.is_none_or(|status| (400..500).contains(&status) || status == 501);
        let is_right = match self.want {
            Alive => alive,
            Status(wanted) => alive && status.is_some_and(|it| wanted.contains(&it)),
            // A mistake of a stream may be taken for one of the connection.
            Reset(wanted) => {
                gone.is_some_and(|it| wanted.contains(&it))
                    || alive
                        && (reset.is_some_and(|it| wanted.contains(&it))
                            || (status.is_some() && refused))
            }
            // Which of its codes an error has is for people.
            Gone(wanted) => !alive && gone.is_none_or(|it| it == PROTOCOL || wanted.contains(&it)),
            Refused => {
                let served = self.bytes.starts_with(&get(1)) && status == Some(200);
                refused || served
            }
        };
        let failed = status.is_some_and(|status| status >= 500 && status != 501);
        let mut told: Vec<_> = came.to_vec();
        told.dedup();
        told.truncate(8);
        (!is_right || failed).then(|| {
            format!("{}: wanted {:?}, alive {alive}, status {status:?}, reset {reset:?}, gone {gone:?}: {told:?}", self.name, self.want)
        })
    }
}

async fn check(rows: Vec<Row>, at_once: usize) {
    let head = "limits.head_timeout_ms = 1500\nlimits.idle_timeout_ms = 3000\nlimits.body_timeout_ms = 1000\n\
                limits.write_timeout_ms = 3000";
    let world = World::start(head, "").await;
    let mut wrong = Vec::new();
    for some in rows.chunks(at_once) {
        let played = join_all(some.iter().map(|row| play(&world, row))).await;
        for (row, (came, alive)) in some.iter().zip(played) {
            wrong.extend(row.fault(&came, alive));
        }
        let other = world
            .client
            .post("/v1/chat/completions", chat("fast", "Hi", ""))
            .await;
        assert_eq!(other.status, 200, "others are served meanwhile");
    }
    let bait = world
        .bill()
        .into_iter()
        .any(|billed| billed.body.windows(4).any(|it| it == b"bait"));
    if bait {
        wrong.push("an upstream saw what must not be sent".to_owned());
    }
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        rows.len(),
        wrong.join("\n")
    );
    println!("{} rows", rows.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_frames_are_read_as_the_standard_says() {
    check(
        [frames(), compression(), greetings()]
            .into_iter()
            .flatten()
            .collect(),
        40,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_requests_are_read_as_the_standard_says() {
    check(requests().into_iter().chain(lengths()).collect(), 40).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_end_their_connection_or_cost_nothing() {
    check(floods(), 4).await;
}
