//! Proves, case by case, what RFC 9110 and 9112 say of bytes that a hostile caller may send: a message that
//! can be read in two ways is refused, its connection ends, and nothing of it or behind it reaches an upstream.
//! Behind each case stands a whole call, the canary, which tells how far the gateway read. Callers and operators
//! have a listener each, which hear the same cases.

mod rows;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tests::world::{World, chat};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Cases that run at once.
const AT_ONCE: usize = 48;

/// What must become of a case.
#[derive(Debug, Clone, Copy)]
enum Want {
    /// One answer of one of these statuses, and the end: the canary is not served.
    Refused(&'static [u16]),
    /// An answer of one of these, and then the canary's.
    Kept(&'static [u16]),
    /// An answer of one of these; whether the canary is served is the gateway's choice.
    Told(&'static [u16]),
    /// An answer of this status, and the end, because the caller or its version asked for that.
    Last(u16),
    /// Nothing but errors, if anything: more than one may be told, since the head was whole.
    Unserved,
}
use Want::{Kept, Last, Refused, Told, Unserved};

const BAD: Want = Refused(&[400]);

/// One case. `KEY` stands for a key in `bytes`, and `TEXT` for a text that names the case.
#[derive(Debug, Clone)]
struct Case {
    name: String,
    bytes: Vec<u8>,
    want: Want,
}

fn case(name: impl Into<String>, bytes: impl Into<Vec<u8>>, want: Want) -> Case {
    Case {
        name: name.into(),
        bytes: bytes.into(),
        want,
    }
}

/// What came back.
#[derive(Debug)]
struct Back {
    statuses: Vec<u16>,
    /// The connection ended in time.
    ended: bool,
    text: String,
}

/// The statuses of the answers in `text`, each with a length or in chunks.
fn statuses(text: &str) -> Vec<u16> {
    let (mut found, mut rest) = (Vec::new(), text);
    while let Some(after) = rest.strip_prefix("HTTP/1.1 ") {
        let status = after[..3].parse().unwrap();
        // What was made is as good as what was found.
        found.push(if status == 201 { 200 } else { status });
        let Some((head, body)) = after.split_once("\r\n\r\n") else {
            break;
        };
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.map_or(0, |length| length.parse().unwrap());
        rest = body.get(length..).unwrap_or_default();
    }
    assert!(rest.is_empty(), "what came behind the answers: {rest:?}");
    found
}

fn replaced(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::new(), bytes);
    while let Some(at) = rest
        .windows(from.len())
        .position(|it| it == from.as_bytes())
    {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(to.as_bytes());
        rest = &rest[at + from.len()..];
    }
    out.extend_from_slice(rest);
    out
}

/// A text of eight characters that names a case.
fn mark(number: usize) -> String {
    format!("c{number:07}")
}

/// A whole call that says `text` and ends the connection.
fn canary(key: &str, text: &str) -> String {
    let body = chat("fast", &format!("canary {text}"), "");
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {key}\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// A call that is a change of a budget's limit as well, so that either listener takes it.
fn body() -> String {
    let rest = ",\"budget\":\"acme/month\",\"usd\":\"1\",\"until_ms\":9999999999999,\"author\":\"THE TEXT\",\"reason\":\"a case\"";
    chat("fast", "THE TEXT", rest)
}

/// Who listens to a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Callers,
    Operators,
}

/// What operators say where callers list models and make calls. The first is as long as what it stands for, since
/// it stands in bodies as well.
const OF_OPERATORS: [(&str, &str); 5] = [
    ("/v1/models", "/approvals"),
    (
        "/v1/chat/completions HTTP/1.1\r\n",
        "/api/overrides HTTP/1.1\r\ncontent-type: application/json\r\n",
    ),
    (
        "/v1/chat/completions HTTP/1.0\r\n",
        "/api/overrides HTTP/1.0\r\ncontent-type: application/json\r\n",
    ),
    ("GET / HTTP/1.0\r\n", "GET /livez HTTP/1.0\r\n"),
    ("KEY", "admin-secret"),
];

/// What only callers say in bodies.
const OF_CALLERS: &str =
    "\"model\":\"fast\",\"messages\":[{\"role\":\"user\",\"content\":\"THE TEXT\"}],";

/// A text in chunks of a byte.
fn one_by_one(text: &str) -> String {
    text.chars().map(|c| format!("1\r\n{c}\r\n")).collect()
}

impl Side {
    /// What is said: the case, and a canary behind it.
    fn bytes(self, world: &World, number: usize, case: &Case) -> Vec<u8> {
        let mut bytes = case.bytes.clone();
        if self == Self::Operators {
            // They take no fields that they do not know; JSON is as long with spaces in it.
            let nothing = " ".repeat(OF_CALLERS.len());
            bytes = replaced(&bytes, OF_CALLERS, &nothing);
            bytes = replaced(&bytes, &one_by_one(OF_CALLERS), &one_by_one(&nothing));
        }
        bytes = replaced(&bytes, "THE TEXT", &mark(number));
        let canary = match self {
            Self::Callers => {
                bytes = replaced(&bytes, "KEY", &world.client.key);
                canary(&world.client.key, &mark(number))
            }
            Self::Operators => {
                for (from, to) in OF_OPERATORS {
                    bytes = replaced(&bytes, from, to);
                }
                "GET /livez HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".to_owned()
            }
        };
        bytes.extend_from_slice(canary.as_bytes());
        bytes
    }

    /// What the cases said that had an effect, and the canaries behind them.
    async fn seen(self, world: &World) -> HashSet<String> {
        let said = |text: &serde_json::Value| text.as_str().unwrap().to_owned();
        match self {
            Self::Callers => {
                let bill = world.bill();
                let bodies = bill
                    .iter()
                    .map(|it| serde_json::from_slice::<serde_json::Value>(&it.body).unwrap());
                bodies
                    .map(|body| said(&body["messages"][0]["content"]))
                    .collect()
            }
            Self::Operators => {
                let overrides = world.admin().get("/api/overrides").await.json();
                let overrides = overrides.as_array().unwrap();
                overrides.iter().map(|it| said(&it["author"])).collect()
            }
        }
    }
}

async fn told(world: &World, side: Side, number: usize, case: &Case) -> Back {
    let bytes = side.bytes(world, number, case);
    let address = match side {
        Side::Callers => world.running.address,
        Side::Operators => world.running.admin_address,
    };
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The other side may close before it has read everything.
    let _written = stream.write_all(&bytes).await;
    let mut came = Vec::new();
    let reading = stream.read_to_end(&mut came);
    let ended = tokio::time::timeout(Duration::from_secs(20), reading).await;
    let text = String::from_utf8_lossy(&came).into_owned();
    Back {
        statuses: statuses(&text),
        ended: ended.is_ok(),
        text,
    }
}

impl Case {
    /// What is wrong with `told`.
    fn fault(&self, told: &Back) -> Option<String> {
        let got = told.statuses.as_slice();
        let is_right = match self.want {
            Refused(wanted) => {
                matches!(got, [one] if wanted.contains(one))
                    && told.text.contains("connection: close\r\n")
            }
            Kept(wanted) => matches!(got, [one, 200] if wanted.contains(one)),
            Told(wanted) => {
                matches!(got, [one] | [one, 200] if wanted.contains(one))
            }
            Last(wanted) => got == [wanted],
            Unserved => got.iter().all(|status| (400..500).contains(status)),
        };
        let failed = got
            .iter()
            .any(|status| *status >= 500 && *status != 501 && *status != 505);
        (!is_right || failed || !told.ended).then(|| {
            let start: String = String::from_utf8_lossy(&self.bytes)
                .chars()
                .take(160)
                .collect();
            format!(
                "{}: wanted {:?}, got {got:?}, ended {}\n   {start:?}",
                self.name, self.want, told.ended
            )
        })
    }

    /// Whether it, and the canary, may have an effect.
    fn reaches(&self) -> (bool, Option<bool>) {
        match self.want {
            Refused(_) | Unserved => (false, Some(false)),
            Kept(wanted) => (wanted.contains(&200), Some(true)),
            Told(wanted) => (wanted.contains(&200), None),
            Last(status) => (status == 200, Some(false)),
        }
    }
}

/// Runs all `cases` against one gateway.
async fn check(side: Side, cases: Vec<Case>) {
    let head = "limits.body_timeout_ms = 2000\nlimits.head_timeout_ms = 2000\nlimits.connections_per_ip = 1000\n\
        limits.wrong_keys = 0";
    // What operators change; nothing keeps to it.
    let budget =
        "[[budget]]\ntenant = \"acme\"\nlimit_usd = \"1\"\nwindow = \"month\"\nhard = false\n";
    let world = Arc::new(World::start(head, budget).await);
    let mut wrong = Vec::new();
    for (group, some) in cases.chunks(AT_ONCE).enumerate() {
        let running = some.iter().enumerate().map(|(at, case)| {
            let world = Arc::clone(&world);
            async move { told(&world, side, group * AT_ONCE + at, case).await }
        });
        for (case, told) in some.iter().zip(join_all(running).await) {
            wrong.extend(case.fault(&told));
        }
    }
    let seen = side.seen(&world).await;
    for (number, case) in cases.iter().enumerate() {
        let (own, canary) = case.reaches();
        let mark = mark(number);
        if !own && seen.contains(&mark) {
            wrong.push(format!("{}: it had an effect", case.name));
        }
        let served = seen.contains(&format!("canary {mark}"));
        // That of operators has no effect: its answer tells.
        if side == Side::Callers && canary.is_some_and(|wanted| wanted != served) {
            wrong.push(format!("{}: the canary was served: {served}", case.name));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
    println!("{} cases", cases.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_the_standards_are_kept() {
    check(Side::Callers, rows::all()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_the_standards_are_kept_to_operators() {
    check(Side::Operators, rows::of_messages()).await;
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// What may stand in a field's value.
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// A place of a request where every byte is tried. `@` stands for the byte.
struct Place {
    name: &'static str,
    request: String,
    want: fn(u8) -> Option<Want>,
}

const MODELS: &str = "host: a\r\nauthorization: Bearer KEY\r\n";

/// A call with `fields`, and `body` behind its head as it is.
fn post(fields: &str, body: &str) -> String {
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nauthorization: Bearer KEY\r\n{fields}\r\n{body}"
    )
}

/// A call whose body is in chunks, the first of them `first`, with what belongs around the size.
fn chunked(first: impl Fn(&str, &str) -> String, rest: &str) -> String {
    let body = body();
    let size = format!("{:x}", body.len());
    post(
        "transfer-encoding: chunked\r\n",
        &(first(&size, &body) + rest),
    )
}

fn ok_or_bad(is_ok: bool) -> Option<Want> {
    Some(if is_ok { Kept(&[200]) } else { BAD })
}

/// Places in the head of a request.
fn places_of_heads() -> Vec<Place> {
    let get = |line: &str, fields: &str| format!("{line}\r\n{MODELS}{fields}\r\n");
    let first = "GET /v1/models HTTP/1.1";
    let place = |name, request, want| Place {
        name,
        request,
        want,
    };
    let name = |byte| ok_or_bad(is_token(byte) || byte == b':');
    let value = |byte| ok_or_bad(is_text(byte));
    vec![
        place("method", get("G@T /v1/models HTTP/1.1", ""), |byte| {
            Some(match byte {
                b'E' => Kept(&[200]),
                _ if is_token(byte) => Kept(&[405, 501]),
                _ => BAD,
            })
        }),
        place(
            "before the method",
            get("@GET /v1/models HTTP/1.1", ""),
            |byte| {
                Some(if is_token(byte) {
                    Kept(&[405, 501])
                } else {
                    BAD
                })
            },
        ),
        place(
            "behind the method",
            get("GET@/v1/models HTTP/1.1", ""),
            |byte| ok_or_bad(byte == b' '),
        ),
        place(
            "before the target",
            get("GET @/v1/models HTTP/1.1", ""),
            |byte| {
                // `//v1/models` is a path of its own; a letter makes it no path.
                if byte == b'/' {
                    Some(Kept(&[404]))
                } else {
                    Some(BAD)
                }
            },
        ),
        place(
            "path",
            get("GET /v1/mo@dels HTTP/1.1", ""),
            |byte| match byte {
                b'?' => Some(Kept(&[404])),
                b'[' | b']' => None,
                _ if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@%/".contains(&byte) => {
                    Some(Kept(&[404]))
                }
                _ => Some(BAD),
            },
        ),
        place(
            "query",
            get("GET /v1/models?a@b HTTP/1.1", ""),
            |byte| match byte {
                b'[' | b']' => None,
                _ => ok_or_bad(
                    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@%/?".contains(&byte),
                ),
            },
        ),
        place(
            "behind the target",
            get("GET /v1/models@HTTP/1.1", ""),
            |byte| ok_or_bad(byte == b' '),
        ),
        place(
            "before the version",
            get("GET /v1/models @HTTP/1.1", ""),
            |_| Some(BAD),
        ),
        place(
            "name of the protocol",
            get("GET /v1/models H@TP/1.1", ""),
            |byte| ok_or_bad(byte == b'T'),
        ),
        place(
            "between the versions",
            get("GET /v1/models HTTP/1@1", ""),
            |byte| ok_or_bad(byte == b'.'),
        ),
        place(
            "major version",
            get("GET /v1/models HTTP/@.1", ""),
            |byte| {
                Some(match byte {
                    b'1' => Kept(&[200]),
                    _ if byte.is_ascii_digit() => Refused(&[505]),
                    _ => BAD,
                })
            },
        ),
        place(
            "minor version",
            get("GET /v1/models HTTP/1.@", ""),
            |byte| {
                Some(match byte {
                    b'0' => Last(200),
                    _ if byte.is_ascii_digit() => Kept(&[200]),
                    _ => BAD,
                })
            },
        ),
        place(
            "behind the version",
            get("GET /v1/models HTTP/1.1@", ""),
            |_| Some(BAD),
        ),
        place(
            "end of the first line",
            format!("{first}@\n{MODELS}\r\n"),
            |byte| ok_or_bad(byte == b'\r'),
        ),
        place("start of a field", get(first, "@x: y\r\n"), |byte| {
            Some(match byte {
                b':' => BAD,
                _ => ok_or_bad(is_token(byte))?,
            })
        }),
        place("name of a field", get(first, "x@y: z\r\n"), name),
        place("behind a name", get(first, "x@: z\r\n"), name),
        place("before a value", get(first, "x:@z\r\n"), value),
        place("value", get(first, "x: y@z\r\n"), value),
        place("behind a value", get(first, "x: y@\r\n"), value),
        place("end of a field", get(first, "x: y@\n"), |byte| {
            ok_or_bad(byte == b'\r')
        }),
        place(
            "inside the end of a field",
            get(first, "x: y\r@z: w\r\n"),
            |byte| ok_or_bad(byte == b'\n'),
        ),
        place(
            "end of the head",
            format!("{first}\r\n{MODELS}@\n"),
            |byte| ok_or_bad(byte == b'\r'),
        ),
        place(
            "host",
            format!("{first}\r\nhost: a@b\r\nauthorization: Bearer KEY\r\n\r\n"),
            |byte| match byte {
                _ if !is_text(byte) => Some(BAD),
                // The standard lets these stand in names; nobody's name has them.
                b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b';' | b'=' | b'~' => None,
                _ if byte.is_ascii_alphanumeric() || b"-._".contains(&byte) => Some(Kept(&[200])),
                // The head is whole, so that what follows may be served.
                _ => Some(BAD),
            },
        ),
        place(
            "before a key",
            format!("{first}\r\nhost: a\r\nauthorization: Bearer @KEY\r\n\r\n"),
            |byte| {
                Some(match byte {
                    b' ' | b'\t' => Told(&[200, 401]),
                    _ if is_text(byte) => Told(&[401]),
                    _ => BAD,
                })
            },
        ),
        place(
            "behind a key",
            format!("{first}\r\nhost: a\r\nauthorization: Bearer KEY@\r\n\r\n"),
            |byte| {
                Some(match byte {
                    b' ' | b'\t' => Kept(&[200]),
                    _ if is_text(byte) => Told(&[401]),
                    _ => BAD,
                })
            },
        ),
    ]
}

/// Places in what says how long a body is, and in bodies that come in chunks.
fn places_of_bodies() -> Vec<Place> {
    let place = |name, request, want| Place {
        name,
        request,
        want,
    };
    let length = |text: &str| {
        let body = body();
        let field = text.replace('N', &body.len().to_string());
        post(&format!("content-length:{field}\r\n"), &body)
    };
    let coding = |text: &str| {
        let body = body();
        let chunks = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
        post(&format!("transfer-encoding{text}\r\n"), &chunks)
    };
    let last = "0\r\n\r\n";
    let blank = |byte| ok_or_bad(matches!(byte, b' ' | b'\t'));
    let not_digits = |byte: u8| {
        (!byte.is_ascii_digit())
            .then_some(())
            .and_then(|()| ok_or_bad(matches!(byte, b' ' | b'\t')))
    };
    let hex = |byte: u8| byte.is_ascii_hexdigit();
    let _ = hex;
    vec![
        place("before a length", length("@N"), |byte| {
            if byte == b'0' {
                Some(Kept(&[200]))
            } else if byte.is_ascii_digit() {
                None
            } else {
                ok_or_bad(matches!(byte, b' ' | b'\t'))
            }
        }),
        place("behind a length", length(" N@"), not_digits),
        place("inside a length", length(" 0@N"), |byte| {
            if byte == b'0' {
                Some(Kept(&[200]))
            } else if byte.is_ascii_digit() {
                None
            } else {
                Some(BAD)
            }
        }),
        place("before a coding", coding(":@chunked"), |byte| match byte {
            b' ' | b'\t' => Some(Kept(&[200])),
            _ => Some(Refused(&[400, 501])),
        }),
        place("behind a coding", coding(": chunked@"), |byte| match byte {
            b' ' | b'\t' => Some(Kept(&[200])),
            _ => Some(Refused(&[400, 501])),
        }),
        place("inside a coding", coding(": chu@ked"), |byte| match byte {
            b'n' | b'N' => Some(Kept(&[200])),
            _ => Some(Refused(&[400, 501])),
        }),
        place("behind the coding's name", coding("@: chunked"), |byte| {
            if byte == b':' { None } else { Some(Unserved) }
        }),
        place(
            "before a size",
            chunked(|size, body| format!("@{size}\r\n{body}\r\n"), last),
            |byte| {
                if byte == b'0' {
                    Some(Kept(&[200]))
                } else if byte.is_ascii_hexdigit() {
                    None
                } else {
                    Some(BAD)
                }
            },
        ),
        place(
            "behind a size",
            chunked(|size, body| format!("{size}@\r\n{body}\r\n"), last),
            |byte| {
                if byte.is_ascii_hexdigit() {
                    None
                } else {
                    ok_or_bad(byte == b';')
                }
            },
        ),
        place(
            "end of a size",
            chunked(|size, body| format!("{size}@\n{body}\r\n"), last),
            |byte| {
                if byte.is_ascii_hexdigit() {
                    None
                } else {
                    ok_or_bad(byte == b'\r')
                }
            },
        ),
        place(
            "inside the end of a size",
            chunked(|size, body| format!("{size}\r@{body}\r\n"), last),
            |byte| ok_or_bad(byte == b'\n'),
        ),
        place(
            "extension",
            chunked(|size, body| format!("{size};a@b\r\n{body}\r\n"), last),
            |byte| match byte {
                b'"' => Some(BAD),
                _ if is_token(byte) || byte == b'=' || byte == b';' => Some(Kept(&[200])),
                _ if is_text(byte) => None,
                _ => Some(BAD),
            },
        ),
        place(
            "quoted extension",
            chunked(|size, body| format!("{size};a=\"@\"\r\n{body}\r\n"), last),
            |byte| match byte {
                b'"' | b'\\' => Some(BAD),
                _ => ok_or_bad(is_text(byte)),
            },
        ),
        place(
            "escape in an extension",
            chunked(|size, body| format!("{size};a=\"\\@\"\r\n{body}\r\n"), last),
            |byte| ok_or_bad(is_text(byte)),
        ),
        place(
            "behind a chunk",
            chunked(|size, body| format!("{size}\r\n{body}@\r\n"), last),
            |_| Some(BAD),
        ),
        place(
            "end of a chunk",
            chunked(|size, body| format!("{size}\r\n{body}@\n"), last),
            |byte| ok_or_bad(byte == b'\r'),
        ),
        place(
            "inside the end of a chunk",
            chunked(|size, body| format!("{size}\r\n{body}\r@"), last),
            |byte| ok_or_bad(byte == b'\n'),
        ),
        place(
            "before the last chunk",
            chunked(|size, body| format!("{size}\r\n{body}\r\n@"), last),
            |byte| {
                if byte == b'0' {
                    Some(Kept(&[200]))
                } else if byte.is_ascii_hexdigit() {
                    None
                } else {
                    Some(BAD)
                }
            },
        ),
        place(
            "behind the last size",
            chunked(|size, body| format!("{size}\r\n{body}\r\n0@"), "\r\n\r\n"),
            |byte| {
                if byte == b'0' {
                    Some(Kept(&[200]))
                } else if byte.is_ascii_hexdigit() {
                    None
                } else {
                    ok_or_bad(byte == b';')
                }
            },
        ),
        place(
            "start of a trailer",
            chunked(
                |size, body| format!("{size}\r\n{body}\r\n0\r\n@x: y\r\n\r\n"),
                "",
            ),
            |byte| ok_or_bad(is_token(byte)),
        ),
        place(
            "name of a trailer",
            chunked(
                |size, body| format!("{size}\r\n{body}\r\n0\r\nx@y: z\r\n\r\n"),
                "",
            ),
            |byte| ok_or_bad(is_token(byte) || byte == b':'),
        ),
        place(
            "value of a trailer",
            chunked(
                |size, body| format!("{size}\r\n{body}\r\n0\r\nx: y@z\r\n\r\n"),
                "",
            ),
            |byte| ok_or_bad(is_text(byte)),
        ),
        place(
            "end of a trailer",
            chunked(
                |size, body| format!("{size}\r\n{body}\r\n0\r\nx: y@\n\r\n"),
                "",
            ),
            |byte| ok_or_bad(byte == b'\r'),
        ),
        place(
            "end of the message",
            chunked(|size, body| format!("{size}\r\n{body}\r\n0\r\n@\n"), ""),
            |byte| ok_or_bad(byte == b'\r'),
        ),
        place(
            "blank line before a body",
            post(
                &format!("content-length: {}\r\n", body().len() + 1),
                &format!("@{}", body()),
            ),
            |byte| {
                if matches!(byte, b' ' | b'\t' | b'\r' | b'\n') {
                    Some(Kept(&[200]))
                } else {
                    // Operators are told of JSON that means nothing otherwise than of none.
                    Some(Kept(&[400, 422]))
                }
            },
        ),
        place(
            "end of a body",
            post(
                &format!("content-length: {}\r\n", body().len() + 1),
                &format!("{}@", body()),
            ),
            |byte| {
                if matches!(byte, b' ' | b'\t' | b'\r' | b'\n') {
                    Some(Kept(&[200]))
                } else {
                    Some(Kept(&[400]))
                }
            },
        ),
        place("length with blanks", length("  N@"), |byte| {
            if byte.is_ascii_digit() {
                None
            } else if matches!(byte, b' ' | b'\t') {
                Some(Kept(&[200]))
            } else {
                Some(BAD)
            }
        }),
        place(
            "two codings apart",
            coding(": chunked\r\ntransfer-encoding:@chunked"),
            |_| Some(Refused(&[400, 501])),
        ),
        place("coding apart by", coding(": chunked@chunked"), |_| {
            Some(Refused(&[400, 501]))
        }),
        place(
            "length behind a coding",
            post(
                &format!("transfer-encoding: chunked\r\ncontent-length:@{}\r\n", 4),
                "0\r\n\r\n",
            ),
            |_| Some(BAD),
        ),
        place("blank", length("@ N"), blank),
    ]
}

/// Every byte at each of `places`.
fn each_byte(places: Vec<Place>) -> Vec<Case> {
    let mut cases = Vec::new();
    for place in places {
        for byte in 0..=u8::MAX {
            let Some(want) = (place.want)(byte) else {
                continue;
            };
            let mut bytes = place.request.clone().into_bytes();
            let at = bytes.iter().position(|it| *it == b'@').unwrap();
            bytes[at] = byte;
            cases.push(case(
                format!("{}, byte {byte:#04x}", place.name),
                bytes,
                want,
            ));
        }
    }
    cases
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_byte_at_every_place_of_a_head_is_read_as_the_standard_says() {
    check(Side::Callers, each_byte(places_of_heads())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_byte_at_every_place_is_read_so_of_operators_as_well() {
    let cases = [places_of_heads(), places_of_bodies()].map(each_byte);
    check(Side::Operators, cases.concat()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_byte_at_every_place_of_a_bodys_framing_is_read_as_the_standard_says() {
    check(Side::Callers, each_byte(places_of_bodies())).await;
}
