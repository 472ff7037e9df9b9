//! Requests that are framed well and wrong in what they say.

use tests::frames::{DATA, END_STREAM, GET, frame, headers};
use tests::world::chat;

use super::{PROTOCOL, Refused, Reset, Row, Status, post, row};

/// A request whose fields are those of GET, changed.
pub(super) fn requests() -> Vec<Row> {
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
pub(super) fn lengths() -> Vec<Row> {
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
