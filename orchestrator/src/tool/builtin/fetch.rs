//! Reading a page: GET only, from hosts that the operator lists, each redirect looked at as if it had been
//! asked for, within bounds of size and time, and as text.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Uri, header};
use http_body_util::BodyExt;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tower::ServiceExt;

use super::files::arguments;
use super::markup;
use crate::outbound::{self, Outbound, Sent};
use crate::tool::{Outcome, ToolResult};

/// Redirects that are followed.
const REDIRECTS: usize = 3;
/// Bytes of a failed answer that are shown.
const SHOWN_OF_FAILURE: usize = 600;

/// What may be read, and how much of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FetchConfig {
    /// Hosts that may be read: `example.com`, `*.example.com` (all below it), `*` (every name), each with
    /// `:port` or `:*` where another port than the usual is meant. An address of numbers is never
    /// covered by a `*`. Empty: nothing may be read, and the tool is not offered.
    pub hosts: Vec<String>,
    /// Those of them that may be read without TLS.
    pub plain_hosts: Vec<String>,
    /// Bytes of an answer that are read at most.
    pub most_bytes: usize,
    /// Bytes of text that are given to the model at most.
    pub text_bytes: usize,
    pub timeout_ms: u64,
}

impl Default for FetchConfig {
    fn default() -> Self {
        Self {
            hosts: Vec::new(),
            plain_hosts: Vec::new(),
            most_bytes: 4 << 20,
            text_bytes: 64 << 10,
            timeout_ms: 20_000,
        }
    }
}

/// A page can not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum FetchError {
    #[error("`{0}` is no address; one looks like https://example.com/page")]
    Address(String),
    #[error("`{0}` may not be read; the operator lists the hosts that may")]
    Host(String),
    #[error("`{0}` must be read by https")]
    Plain(String),
    #[error("it redirects more than {REDIRECTS} times")]
    Redirects,
    #[error("it is `{0}`, not text")]
    NotText(String),
    #[error("it has more than {0} bytes")]
    Size(usize),
    #[error("it did not answer in {0} ms")]
    Time(u64),
    #[error("it could not be reached: {0}")]
    Unreached(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fetch {
    url: String,
}

/// Reads the page that the arguments name.
pub(super) async fn fetch(
    config: &FetchConfig,
    outbound: Outbound,
    given: &Value,
    within: Duration,
) -> Outcome {
    let url = match arguments::<Fetch>(given) {
        Ok(given) => given.url,
        Err(error) => return Outcome::Done(ToolResult::error(error.to_string())),
    };
    let limit = within.min(Duration::from_millis(config.timeout_ms));
    let read = tokio::time::timeout(limit, follow(config, outbound, &url)).await;
    let told = read.unwrap_or_else(|_| {
        let ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        Err(FetchError::Time(ms))
    });
    Outcome::Done(told.unwrap_or_else(|error| {
        let shown: String = url.chars().take(200).collect();
        ToolResult::error(format!("{shown} was not read: {error}"))
    }))
}

async fn follow(
    config: &FetchConfig,
    outbound: Outbound,
    url: &str,
) -> Result<ToolResult, FetchError> {
    let mut at = parse(url)?;
    for _ in 0..=REDIRECTS {
        check(config, &at)?;
        let request = Request::builder()
            .method(Method::GET)
            .uri(at.clone())
            .header(
                header::ACCEPT,
                "text/*, application/json, application/xml;q=0.9",
            )
            .header(header::ACCEPT_ENCODING, "identity")
            .header(header::USER_AGENT, "pareto")
            .body(Sent::default())
            .map_err(|error| FetchError::Address(error.to_string()))?;
        let answer = outbound.clone().oneshot(request).await;
        let answer = answer.map_err(|error| FetchError::Unreached(error.to_string()))?;
        let to = answer.headers().get(header::LOCATION);
        match to.filter(|_| answer.status().is_redirection()) {
            Some(to) => {
                let to = to.to_str().unwrap_or_default();
                at = resolve(&at, to)?;
            }
            None => return read(config, &at, answer).await,
        }
    }
    Err(FetchError::Redirects)
}

async fn read<B>(
    config: &FetchConfig,
    at: &Uri,
    answer: http::Response<B>,
) -> Result<ToolResult, FetchError>
where
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    let (head, mut body) = answer.into_parts();
    let kind = media_type(&head.headers);
    if !is_text(&kind) {
        return Err(FetchError::NotText(kind));
    }
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| FetchError::Unreached(error.to_string()))?;
        if let Some(data) = frame.data_ref() {
            if bytes.len() + data.len() > config.most_bytes {
                return Err(FetchError::Size(config.most_bytes));
            }
            bytes.extend_from_slice(data);
        }
    }
    let text = decoded(&head.headers, &bytes);
    let is_page = kind.contains("html") || (kind.is_empty() && text.trim_start().starts_with("<!"));
    let mut text = if is_page {
        markup::text_of_page(&text)
    } else {
        text
    };
    let status = head.status.as_u16();
    if !head.status.is_success() {
        cut(&mut text, SHOWN_OF_FAILURE);
        return Ok(ToolResult::error(format!("{at} answered {status}: {text}")));
    }
    let whole = text.len();
    cut(&mut text, config.text_bytes);
    if text.len() < whole {
        text.extend([format!("\n[cut; {whole} bytes in all]")]);
    }
    Ok(ToolResult::text(format!("{at}\n\n{text}")))
}

fn parse(url: &str) -> Result<Uri, FetchError> {
    let wrong = || FetchError::Address(url.chars().take(200).collect());
    let uri: Uri = url.trim().parse().map_err(|_| wrong())?;
    let has_user = uri.authority().is_some_and(|it| it.as_str().contains('@'));
    if uri.host().is_none() || uri.scheme().is_none() || has_user {
        return Err(wrong());
    }
    Ok(uri)
}

/// Where a redirect leads: an address of its own, or one relative to `from`.
fn resolve(from: &Uri, to: &str) -> Result<Uri, FetchError> {
    let to = to.split('#').next().unwrap_or_default();
    if to.contains("://") {
        return parse(to);
    }
    let scheme = from.scheme_str().unwrap_or("https");
    let host = from.authority().map_or("", |it| it.as_str());
    let path = from.path();
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let whole = match to {
        _ if to.starts_with("//") => format!("{scheme}:{to}"),
        _ if to.starts_with('/') => format!("{scheme}://{host}{to}"),
        _ if to.starts_with('?') => format!("{scheme}://{host}{path}{to}"),
        _ => format!("{scheme}://{host}{folder}/{to}"),
    };
    parse(&whole)
}

/// Whether an address may be read.
fn check(config: &FetchConfig, uri: &Uri) -> Result<(), FetchError> {
    let host = uri.host().unwrap_or_default().to_ascii_lowercase();
    let plain = match uri.scheme_str() {
        Some("https") => false,
        Some("http") => true,
        _ => return Err(FetchError::Address(uri.to_string())),
    };
    let usual = if plain { 80 } else { 443 };
    let port = uri.port_u16().unwrap_or(usual);
    let fits = |list: &[String]| list.iter().any(|it| covers(it, &host, port, usual));
    if !fits(&config.hosts) {
        return Err(FetchError::Host(host));
    }
    if plain && !fits(&config.plain_hosts) {
        return Err(FetchError::Plain(host));
    }
    Ok(())
}

/// Whether a pattern of the list covers a host and port.
fn covers(pattern: &str, host: &str, port: u16, usual: u16) -> bool {
    let pattern = pattern.to_ascii_lowercase();
    let is_bracketed = pattern.ends_with(']');
    let (name, ports) = match pattern.rsplit_once(':').filter(|_| !is_bracketed) {
        Some((name, ports)) => (name.to_owned(), ports.to_owned()),
        None => (pattern, usual.to_string()),
    };
    if ports != "*" && ports != port.to_string() {
        return false;
    }
    let is_literal = outbound::literal(host).is_some() || looks_like_a_number(host);
    if is_literal {
        return name == host;
    }
    match name.strip_prefix('*') {
        Some("") => !host.eq_ignore_ascii_case("localhost"),
        Some(below) => below.starts_with('.') && host.ends_with(below),
        None => name == host,
    }
}

/// Whether some resolvers take it for an address: `2130706433`, `0x7f.1`.
fn looks_like_a_number(host: &str) -> bool {
    let last = host.trim_end_matches('.').rsplit('.').next();
    last.is_some_and(|last| last.starts_with("0x") || last.chars().all(|c| c.is_ascii_digit()))
}

fn media_type(headers: &HeaderMap) -> String {
    let value = headers.get(header::CONTENT_TYPE);
    let value = value.and_then(|it| it.to_str().ok()).unwrap_or_default();
    let kind = value.split(';').next().unwrap_or_default();
    kind.trim().to_ascii_lowercase()
}

fn is_text(kind: &str) -> bool {
    let named = [
        "",
        "application/json",
        "application/xml",
        "application/xhtml+xml",
    ];
    kind.starts_with("text/")
        || named.contains(&kind)
        || kind.ends_with("+json")
        || kind.ends_with("+xml")
}

/// The text that the bytes are: UTF-8, or Latin 1 where the answer says so.
fn decoded(headers: &HeaderMap, bytes: &[u8]) -> String {
    let value = headers.get(header::CONTENT_TYPE);
    let value = value.and_then(|it| it.to_str().ok()).unwrap_or_default();
    let value = value.to_ascii_lowercase();
    if value.contains("iso-8859-1") || value.contains("windows-1252") {
        return bytes.iter().map(|byte| char::from(*byte)).collect();
    }
    String::from_utf8_lossy(bytes).into_owned()
}

fn cut(text: &mut String, most: usize) {
    let mut at = most.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    text.truncate(at);
}
