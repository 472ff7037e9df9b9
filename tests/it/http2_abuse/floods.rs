//! Much of what is allowed once.

use tests::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GET, HEADERS, PADDED, PRIORITY, RST_STREAM,
    WINDOW_UPDATE, block, frame, get, headers,
};

use super::{Alive, CALM, COMPRESSION, Gone, NONE, PROTOCOL, Refused, Row, number, post, row};

/// A lot of the same.
pub(super) fn floods() -> Vec<Row> {
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
