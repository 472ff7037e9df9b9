//! Endpoints that fail before they answer, or answer that they failed.

use std::time::Duration;

use tests::talk::Tongue;
use tests::wicked::{Act, say};

use super::{Bound, Error, KEY, Row, Void, row};

/// What goes wrong before an answer.
pub(super) fn before(tongue: Tongue) -> Vec<Row> {
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
pub(super) fn statuses(tongue: Tongue) -> Vec<Row> {
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

pub(super) fn leaked(statuses: &[u16]) -> &'static [u16] {
    Vec::leak(statuses.to_vec())
}
