//! Addresses as a configuration has them: those that are listened to, and those that are called.

use std::net::{IpAddr, SocketAddr};

use http::Uri;
use serde::{Deserialize, Deserializer, de};

/// Reads an address that is listened to. Names are not looked up: what they lead to may change.
pub(super) fn listen<'de, D: Deserializer<'de>>(from: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(from)?;
    text.parse().map_err(|_| {
        let (host, port) = text.rsplit_once(':').unwrap_or((&text, ""));
        let port: u16 = port.parse().unwrap_or(8_080);
        let host = match host {
            "" | "*" => "0.0.0.0",
            _ => "127.0.0.1",
        };
        let message = format!("`{text}` is no address with a port; write {host}:{port}");
        de::Error::custom(message)
    })
}

/// Whether listening at one address leaves no room for the other.
pub(super) fn clash(one: SocketAddr, other: SocketAddr) -> bool {
    let all = |it: IpAddr| match it {
        IpAddr::V4(it) => it.is_unspecified() && other.is_ipv4() && one.is_ipv4(),
        // It is listened to for both families.
        IpAddr::V6(it) => it.is_unspecified(),
    };
    one.port() == other.port()
        && one.port() != 0
        && (one.ip() == other.ip() || all(one.ip()) || all(other.ip()))
}

/// Whether it says who asks, which would be left out.
pub(super) fn has_user(authority: &http::uri::Authority) -> bool {
    authority.as_str().contains('@')
}

/// An address that can be connected to, and that says nothing which would be left out.
pub(super) fn address(text: &str) -> Option<Uri> {
    let uri: Uri = text.parse().ok()?;
    let (authority, host) = (uri.authority()?.as_str(), uri.host()?);
    let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
    let named = host.strip_suffix('.').unwrap_or(host);
    let is_host = named.split('.').all(|label| !label.is_empty());
    // What is behind the host's colon; those of an address of numbers stand in brackets.
    let says_port = authority.rsplit([']', '@']).next()?.contains(':');
    let has_port = !says_port || uri.port_u16().is_some_and(|port| port > 0);
    (is_http && is_host && has_port && !text.contains('#')).then_some(uri)
}

/// An address as it may be printed: who is said to ask, and with which password, is nobody's business.
pub(crate) fn masked(url: &str) -> String {
    let Some((before, rest)) = url.rsplit_once('@') else {
        return url.to_owned();
    };
    match before.split_once("://") {
        Some((scheme, _)) => format!("{scheme}://***@{rest}"),
        None => format!("***@{rest}"),
    }
}
