//! What is no request for us whatever protocol it came by: hosts, codings and methods are checked here,
//! before anything is read. Framing is `http1`'s and the HTTP/2 library's.

use http::header::{CONTENT_ENCODING, HOST, TRANSFER_ENCODING};
use http::uri::Authority;
use http::{HeaderValue, Method, Request, Response, Version};
use wire::{Refusal, dialect};

use crate::gateway::{self, Body};
use crate::http1::BadRequest;
use crate::refusal;
use crate::trace::Trace;

/// A request that is not taken. The connection closes behind the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("the Host header is missing; HTTP/1.1 requires one")]
    NoHost,
    #[error("the Host header stands twice, or `:authority` is another; send one")]
    TwoHosts,
    #[error("the Host header is not a host name with an optional port")]
    BadHost,
    #[error("`:scheme` must be http or https, and `:path` begin with a slash")]
    Target,
    #[error("Transfer-Encoding must be `chunked`, once; anything else can hide a second request")]
    TransferEncoding,
    #[error("a header of the gateway's own, x-pareto-..., stands twice; send each once")]
    Twice,
    #[error("the value of a field begins or ends with white space")]
    Padded,
    #[error("compressed bodies are not taken; leave Content-Encoding out")]
    ContentEncoding,
}

/// Answers a request that could not be read, in the dialect of the path that it seems to have.
pub(crate) fn refuse(bad: &BadRequest, path: &str) -> Response<Body> {
    let path = dialect::plain_path(path);
    let trace = Trace::new(gateway::new_id(), dialect::shown_at(&path, false));
    let refused = refusal::unread(bad);
    gateway::told(&refused, &trace);
    let mut response = refusal::response(&refused, trace.dialect, trace.request);
    if let Ok(id) = HeaderValue::from_str(&trace.request.to_string()) {
        response.headers_mut().insert("x-request-id", id.clone());
        response.headers_mut().insert("request-id", id);
    }
    response
}

/// Lets in what is a request, by a method that is taken anywhere at all.
///
/// # Errors
/// Why it is not let in.
pub(crate) fn admit<B>(request: &Request<B>, path: &str) -> Result<(), Refusal> {
    check(request).map_err(refusal::malformed)?;
    match *request.method() {
        Method::TRACE | Method::CONNECT => Err(refusal::wrong_method(path, "GET, HEAD, POST")),
        ref method if !is_known(method) => Err(refusal::unknown_method(method)),
        _ => Ok(()),
    }
}

/// Checks the head of a request.
fn check<B>(request: &Request<B>) -> Result<(), Malformed> {
    let headers = request.headers();
    if request.version() == Version::HTTP_2 && !is_target(request) {
        return Err(Malformed::Target);
    }
    // HTTP/1.1 takes such white space away, HTTP/2 forbids it (RFC 9113, 8.2.1).
    if request.version() == Version::HTTP_2 && headers.values().any(is_padded) {
        return Err(Malformed::Padded);
    }
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (_, Some(_)) => return Err(Malformed::TwoHosts),
        (Some(host), None) => {
            let host = host.to_str().map_err(|_| Malformed::BadHost)?;
            if !is_host(host) {
                return Err(Malformed::BadHost);
            }
            // A target in absolute form stands for the header (RFC 9112, 3.2.2); HTTP/2's :authority must agree
            // with it (RFC 9113, 8.3.1).
            let named = request.uri().authority().map(Authority::as_str);
            if named.is_some_and(|named| !is_host(named)) {
                return Err(Malformed::BadHost);
            }
            let port = usual_port(request.uri().scheme_str());
            let is_same = |named| without(named, port).eq_ignore_ascii_case(without(host, port));
            if request.version() == Version::HTTP_2 && !named.is_none_or(is_same) {
                return Err(Malformed::TwoHosts);
            }
        }
        (None, None) if request.version() == Version::HTTP_11 => return Err(Malformed::NoHost),
        (None, None) if request.version() == Version::HTTP_2 => {
            let named = request.uri().authority().ok_or(Malformed::NoHost)?;
            if !is_host(named.as_str()) {
                return Err(Malformed::BadHost);
            }
        }
        (None, None) => {}
    }
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next()
        && (codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked"))
    {
        return Err(Malformed::TransferEncoding);
    }
    // Which of two bounds or labels holds, nobody should have to guess.
    let mut own = headers
        .keys()
        .filter(|name| name.as_str().starts_with("x-pareto-"));
    if own.any(|name| headers.get_all(name).iter().nth(1).is_some()) {
        return Err(Malformed::Twice);
    }
    let mut encodings = headers.get_all(CONTENT_ENCODING).iter();
    if encodings.any(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(Malformed::ContentEncoding);
    }
    Ok(())
}

/// Whether a value begins or ends with white space.
fn is_padded(value: &HeaderValue) -> bool {
    let ends = [value.as_bytes().first(), value.as_bytes().last()];
    ends.into_iter().flatten().any(|byte| b" \t".contains(byte))
}

/// The port that goes without saying.
fn usual_port(scheme: Option<&str>) -> &'static str {
    if scheme == Some("https") {
        ":443"
    } else {
        ":80"
    }
}

/// An authority without a port that goes without saying.
fn without<'a>(authority: &'a str, port: &str) -> &'a str {
    let plain = authority.strip_suffix(port).unwrap_or(authority);
    plain.strip_suffix(':').unwrap_or(plain)
}

/// Whether an HTTP/2 request says where it goes as it must; HTTP/1.1's first line is `http1`'s.
fn is_target<B>(request: &Request<B>) -> bool {
    let uri = request.uri();
    let path = uri.path_and_query().map_or("", |it| it.as_str());
    let is_path = path.starts_with('/') || (path == "*" && *request.method() == Method::OPTIONS);
    // Without an authority the library keeps no scheme.
    let is_scheme = uri.authority().is_none() || matches!(uri.scheme_str(), Some("http" | "https"));
    *request.method() == Method::CONNECT || (is_path && is_scheme)
}

/// Whether the method is one the gateway knows at all; names are case-sensitive.
fn is_known(method: &Method) -> bool {
    let is_common = matches!(
        *method,
        Method::GET
            | Method::HEAD
            | Method::POST
            | Method::PUT
            | Method::PATCH
            | Method::DELETE
            | Method::OPTIONS
    );
    is_common || method.as_str() == "QUERY"
}

/// A host with an optional port: no user, path or white space, and a port that is a number.
fn is_host(text: &str) -> bool {
    let Ok(authority) = text.parse::<Authority>() else {
        return false;
    };
    let host = authority.host();
    let port = text.get(host.len()..).unwrap_or_default();
    let bracketed = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let named = |host: &str| {
        host.bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b))
    };
    !host.is_empty()
        && !text.contains('@')
        && bracketed.map_or_else(
            || named(host),
            |v6| v6.parse::<std::net::Ipv6Addr>().is_ok(),
        )
        && (port.is_empty()
            || port.strip_prefix(':').is_some_and(|port| {
                // `parse` would take a sign. None at all is the usual one (RFC 3986, 3.2.3).
                let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
                port.is_empty() || (is_number && port.parse::<u16>().is_ok())
            }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(version: Version, headers: &[(&str, &str)]) -> Result<(), Malformed> {
        let mut request = Request::builder().version(version).uri("/v1/messages");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        check(&request.body(()).expect("a request"))
    }

    #[test]
    fn hosts_are_checked() {
        for good in [
            "a.example",
            "localhost:8080",
            "[::1]:80",
            "127.0.0.1",
            "a:",
            "a~b",
        ] {
            assert_eq!(
                checked(Version::HTTP_11, &[("host", good)]),
                Ok(()),
                "{good}"
            );
        }
        for bad in [
            "", "a b", "a/b", "u@a", "a:x", "a:+1", "a:99999", "[::zz]", "a:1:2",
        ] {
            assert_eq!(
                checked(Version::HTTP_11, &[("host", bad)]),
                Err(Malformed::BadHost),
                "{bad}"
            );
        }
        assert_eq!(checked(Version::HTTP_11, &[]), Err(Malformed::NoHost));
        let twice = [("host", "a"), ("host", "a")];
        assert_eq!(checked(Version::HTTP_11, &twice), Err(Malformed::TwoHosts));
    }

    #[test]
    fn only_plain_chunked_framing_passes() {
        let with = |coding| {
            checked(
                Version::HTTP_11,
                &[("host", "a"), ("transfer-encoding", coding)],
            )
        };
        assert_eq!(with("chunked"), Ok(()));
        assert_eq!(with("Chunked"), Ok(()));
        for bad in ["chunked, chunked", "gzip, chunked", "identity", ""] {
            assert_eq!(with(bad), Err(Malformed::TransferEncoding), "{bad}");
        }
        let gzip = [("host", "a"), ("content-encoding", "gzip")];
        assert_eq!(
            checked(Version::HTTP_11, &gzip),
            Err(Malformed::ContentEncoding)
        );
    }
}
