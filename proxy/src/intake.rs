//! Reading a call: the body is bounded, read once and scanned once.

use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Request};
use http_body_util::BodyExt;
use tokio::time::timeout;
use wire::{Dialect, Scan, ScanError};

use crate::config::Limits;
use crate::gateway::Body;
use crate::hints::{self, Hint, UnknownStep};
use crate::joined::Joined;

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
    #[error("no byte of the body came for {0} ms")]
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
) -> Result<Inbound, ReadCallError> {
    let (head, body) = request.into_parts();
    let declared = head
        .headers
        .get(CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse().ok());
    let body = read(body, declared.unwrap_or(0), limits).await?;
    let scan = dialect.scan(&body)?;
    let hint = hints::read(&head.headers, &scan)?;
    let (body, scan) = hints::taken_out(body, scan, dialect)?;
    Ok(Inbound {
        dialect,
        headers: head.headers,
        is_beta: head.uri.query() == Some("beta=true"),
        body,
        scan,
        hint,
    })
}

/// Reads a body that is no call, within `limits`.
pub(crate) async fn read_body(body: Body, limits: &Limits) -> Result<Bytes, ReadCallError> {
    read(body, 0, limits).await
}

async fn read(mut body: Body, declared: usize, limits: &Limits) -> Result<Bytes, ReadCallError> {
    let limit = limits.body_bytes;
    if declared > limit {
        return Err(ReadCallError::TooLong(limit));
    }
    let patience = Duration::from_millis(limits.body_timeout_ms);
    let mut joined = Joined::default();
    loop {
        let frame = timeout(patience, body.frame())
            .await
            .map_err(|_| ReadCallError::Slow(limits.body_timeout_ms))?;
        let Some(frame) = frame else {
            return Ok(joined.finish());
        };
        let Ok(data) = frame.map_err(|_| ReadCallError::Broken)?.into_data() else {
            continue;
        };
        if !joined.push(data, declared, limit) {
            return Err(ReadCallError::TooLong(limit));
        }
    }
}
