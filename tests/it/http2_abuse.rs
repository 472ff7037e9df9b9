//! Proves, row by row, that HTTP/2 is read as RFC 9113 and 7541 say whatever a hostile caller sends: mistakes
//! end their stream or their connection, floods end it or cost nothing, nothing of them reaches an upstream,
//! and others are served meanwhile.

mod floods;
mod frames;
mod requests;

use std::time::Duration;

use futures_util::future::join_all;
use tests::frames::{Came, Frames, HEADERS, PREFACE, frame, get, headers};
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
        [frames::frames(), frames::compression(), frames::greetings()]
            .into_iter()
            .flatten()
            .collect(),
        40,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_requests_are_read_as_the_standard_says() {
    check(
        requests::requests()
            .into_iter()
            .chain(requests::lengths())
            .collect(),
        40,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_end_their_connection_or_cost_nothing() {
    check(floods::floods(), 4).await;
}
