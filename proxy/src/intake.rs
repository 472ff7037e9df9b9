//! Reading a call: the body is bounded, read once and scanned once.

use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Request};
use http_body::Body as _;
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};
use wire::{Dialect, Scan, ScanError};

use crate::admission::{Room, Taken};
use crate::config::Limits;
use crate::gateway::Body;
use crate::hints::{self, Hint, UnknownStep};
use crate::joined::Joined;

/// Room for a body of unknown length is asked for in steps of so many bytes.
const STEP: usize = 64 << 10;
/// So many bytes of a body must come within `limits.body_timeout_ms`, again and again: a byte now and then would hold
/// a call for ever.
const PROGRESS: usize = 1 << 10;

/// A call as the rest of the way needs it.
#[derive(Debug)]
pub(crate) struct Inbound {
    pub(crate) dialect: &'static dyn Dialect,
    pub(crate) headers: HeaderMap,
    /// The path ended in `?beta=true`, as some clients' do; no other query goes on.
    pub(crate) is_beta: bool,
    /// The caller's bytes, untouched but for a hint that was cut out.
    pub(crate) body: Bytes,
    pub(crate) scan: Scan,
    /// What the caller says of the call's step.
    pub(crate) hint: Hint,
    /// The room that the body has.
    #[expect(dead_code, reason = "it is kept for as long as the body")]
    pub(crate) room: Taken,
}

impl Inbound {
    /// The first system text, as it stands in the body.
    pub(crate) fn system(&self) -> &str {
        let text = self.body.get(self.scan.system_at.clone());
        std::str::from_utf8(text.unwrap_or_default()).unwrap_or_default()
    }
}

/// Why a body is not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadCallError {
    #[error("the body is longer than {0} bytes; send less, or raise limits.body_bytes")]
    TooLong(usize),
    #[error("no room came free for the body")]
    Crowded,
    #[error("no kilobyte of the body came for {0} ms")]
    Slow(u64),
    #[error("the body broke off")]
    Broken,
    #[error(transparent)]
    Scan(#[from] ScanError),
    #[error(transparent)]
    Step(#[from] UnknownStep),
}

/// Reads the body within `limits` and scans it.
pub(crate) async fn read_call(
    request: Request<Body>,
    dialect: &'static dyn Dialect,
    limits: &Limits,
    room: &Room,
) -> Result<Box<Inbound>, ReadCallError> {
    let (head, body) = request.into_parts();
    let declared = head
        .headers
        .get(CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse().ok());
    let (body, room) = read(body, declared.unwrap_or(0), limits, room).await?;
    let scan = dialect.scan(&body)?;
    let hint = hints::read(&head.headers, &scan)?;
    let (body, scan) = hints::taken_out(body, scan, dialect)?;
    Ok(Box::new(Inbound {
        dialect,
        headers: head.headers,
        is_beta: head.uri.query() == Some("beta=true"),
        body,
        scan,
        hint,
        room,
    }))
}

/// Reads a body that is no call, within `limits`.
pub(crate) async fn read_body(
    body: Body,
    limits: &Limits,
    room: &Room,
) -> Result<Bytes, ReadCallError> {
    let declared = body.size_hint().exact().unwrap_or(0);
    let declared = usize::try_from(declared).unwrap_or(usize::MAX);
    Ok(read(body, declared, limits, room).await?.0)
}

async fn read(
    mut body: Body,
    declared: usize,
    limits: &Limits,
    room: &Room,
) -> Result<(Bytes, Taken), ReadCallError> {
    let limit = limits.body_bytes;
    if declared > limit {
        return Err(ReadCallError::TooLong(limit));
    }
    let patience = Duration::from_millis(limits.body_timeout_ms);
    let (mut joined, mut taken) = (Joined::default(), Taken::default());
    if !room.fits(&mut taken, declared).await {
        return Err(ReadCallError::Crowded);
    }
    let (mut deadline, mut came) = (Instant::now() + patience, 0);
    loop {
        let frame = timeout_at(deadline, body.frame())
            .await
            .map_err(|_| ReadCallError::Slow(limits.body_timeout_ms))?;
        let Some(frame) = frame else {
            return Ok((joined.finish(), taken));
        };
        let Ok(data) = frame.map_err(|_| ReadCallError::Broken)?.into_data() else {
            continue;
        };
        // Of HTTP/1.1 an empty frame says that so much is under way; HTTP/2 has none.
        came += if data.is_empty() {
            PROGRESS
        } else {
            data.len()
        };
        if !joined.push(data, declared, limit) {
            return Err(ReadCallError::TooLong(limit));
        }
        // Whoever did not say how much comes asks as it does.
        let more = joined.len().next_multiple_of(STEP);
        let asked = Instant::now();
        if declared < joined.len() && !room.fits(&mut taken, more).await {
            return Err(ReadCallError::Crowded);
        }
        // How long the room took is not the caller's fault.
        deadline += asked.elapsed();
        if came >= PROGRESS {
            (deadline, came) = (Instant::now() + patience, 0);
        }
    }
}
