//! The one way out by HTTP: a service that is handed in, so that nothing here opens a connection by itself.

use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body::{Frame, SizeHint};
use http_body_util::Full;
use http_body_util::combinators::UnsyncBoxBody;
use tower::BoxError;
use tower::util::BoxCloneSyncService;

use crate::tool::LATE;
pub use crate::tool::Until;

/// The body of an answer from outside.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// Sends a request to wherever its URI points, and gives the answer once it has begun. Redirects are
/// not followed. What never had a connection fails with [`NotConnected`], and what came too late to be
/// sent whole with [`RanOut`].
pub type Outbound = BoxCloneSyncService<Request<Sent>, Response<Body>, BoxError>;

/// The body of a request. It is given out when the connection is there to be written to, and not after
/// its lease ran out: whoever connects or waits for a connection may stand still for long.
#[derive(Debug, Default)]
pub struct Sent {
    bytes: Full<Bytes>,
    until: Option<Until>,
}

impl Sent {
    /// Bytes that may leave until then, or at any time.
    pub fn new(bytes: Bytes, until: Option<Until>) -> Self {
        Self {
            bytes: Full::new(bytes),
            until,
        }
    }
}

impl http_body::Body for Sent {
    type Data = Bytes;
    type Error = RanOut;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RanOut>>> {
        if !self.is_end_stream() && self.until.as_ref().is_some_and(Until::is_over) {
            return Poll::Ready(Some(Err(RanOut)));
        }
        let left = Pin::new(&mut self.bytes).poll_frame(context);
        left.map_err(|never| match never {})
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.bytes.size_hint()
    }
}

/// A request was not sent, because another may have its task by now.
#[derive(Debug, thiserror::Error)]
#[error("{LATE}")]
pub struct RanOut;

/// No connection was there, so nobody has seen the request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no connection: {0}")]
pub struct NotConnected(pub String);

/// An address that nothing may be sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error("the address needs a scheme and a host, such as https://tools.example.com/mcp")]
    Incomplete,
    #[error("plain http is only for loopback addresses; use https")]
    Plain,
    #[error("the address names a user or a password; put them into headers")]
    Credentials,
    #[error("the address has a scheme other than http and https")]
    Scheme,
}

/// Whether a request may go to `uri` at all: by https anywhere, by plain http to loopback only.
pub fn check(uri: &Uri) -> Result<(), AddressError> {
    let (Some(scheme), Some(host)) = (uri.scheme_str(), uri.host()) else {
        return Err(AddressError::Incomplete);
    };
    let has_user = uri.authority().is_some_and(|it| it.as_str().contains('@'));
    match scheme {
        _ if has_user => Err(AddressError::Credentials),
        "https" => Ok(()),
        "http" if is_loopback(host) => Ok(()),
        "http" => Err(AddressError::Plain),
        _ => Err(AddressError::Scheme),
    }
}

/// Whether a URI's host is this machine itself, by name or by address.
pub fn is_loopback(host: &str) -> bool {
    literal(host).map_or_else(
        || host.eq_ignore_ascii_case("localhost"),
        |address| address.to_canonical().is_loopback(),
    )
}

/// The address that a URI's host is, where it is no name.
pub fn literal(host: &str) -> Option<IpAddr> {
    let bare = host
        .strip_prefix('[')
        .and_then(|inner| inner.strip_suffix(']'));
    bare.unwrap_or(host).parse().ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering};

    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn a_body_that_has_left_whole_ends_well_whatever_becomes_of_its_lease() {
        let until_ms = Arc::new(AtomicI64::new(9));
        let until = Until::new(Arc::new(|| 5), Arc::clone(&until_ms));
        let mut body = Sent::new("all of it".into(), Some(until));
        let first = body.frame().await.unwrap().unwrap();
        assert_eq!(first.into_data().unwrap(), "all of it");
        until_ms.store(0, Ordering::Relaxed);
        assert!(body.frame().await.is_none(), "it is out");
    }

    #[test]
    fn plain_http_is_for_loopback_only() {
        for (uri, expected) in [
            ("https://tools.example.com/mcp", Ok(())),
            ("http://127.0.0.1:8080/mcp", Ok(())),
            ("http://127.8.9.1/mcp", Ok(())),
            ("http://localhost:1/", Ok(())),
            ("http://LOCALHOST/", Ok(())),
            ("http://[::1]:80/", Ok(())),
            ("http://[::ffff:127.0.0.1]/", Ok(())),
            ("http://tools.example.com/", Err(AddressError::Plain)),
            ("http://localhost.example.com/", Err(AddressError::Plain)),
            ("http://10.0.0.1/", Err(AddressError::Plain)),
            (
                "http://127.0.0.1@example.com/",
                Err(AddressError::Credentials),
            ),
            (
                "https://me:pass@example.com/",
                Err(AddressError::Credentials),
            ),
            ("ftp://example.com/", Err(AddressError::Scheme)),
            ("/mcp", Err(AddressError::Incomplete)),
        ] {
            assert_eq!(check(&uri.parse().unwrap()), expected, "{uri}");
        }
    }
}
