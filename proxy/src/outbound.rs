//! The product's way out by HTTP for everything that is not a model: to any address for what the operator
//! has named, to public addresses only for what a task has.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response, Uri};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::client::legacy::connect::{Connect, HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Service, service_fn};

use crate::assemble::outbound::{Body, NotConnected, Outbound, RanOut, Sent, check, literal};
use crate::config::Upstream;
use crate::upstream::chain;

/// Goes wherever the operator says: servers of tools, webhooks. Plain http goes to loopback only.
///
/// # Errors
/// What is wrong with the TLS of this machine.
pub fn any(patience: &Upstream) -> Result<Outbound, String> {
    let client = pool(HttpConnector::new(), patience)?;
    Ok(BoxCloneSyncService::new(service_fn(
        move |request: Request<Sent>| {
            let client = client.clone();
            async move {
                check(request.uri())?;
                send(&client, request).await
            }
        },
    )))
}

/// Goes to public addresses only, whatever a name resolves to, and by https only.
///
/// # Errors
/// What is wrong with the TLS of this machine.
pub fn public_only(patience: &Upstream) -> Result<Outbound, String> {
    let client = pool(HttpConnector::new_with_resolver(Public), patience)?;
    Ok(BoxCloneSyncService::new(service_fn(
        move |request: Request<Sent>| {
            let client = client.clone();
            async move {
                check(request.uri())?;
                check_literal(request.uri())?;
                send(&client, request).await
            }
        },
    )))
}

/// Connections to wherever the operator says.
pub(crate) fn client<B>(
    patience: &Upstream,
) -> Result<Client<HttpsConnector<HttpConnector>, B>, String>
where
    B: http_body::Body + Send,
    B::Data: Send,
{
    pool(HttpConnector::new(), patience)
}

/// A pool of connections that are found by `tcp`'s way of resolving names.
pub(crate) fn pool<R, B>(
    mut tcp: HttpConnector<R>,
    patience: &Upstream,
) -> Result<Client<HttpsConnector<HttpConnector<R>>, B>, String>
where
    B: http_body::Body + Send,
    B::Data: Send,
    HttpsConnector<HttpConnector<R>>: Connect + Clone,
{
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(Duration::from_millis(patience.connect_timeout_ms)));
    let tls = rustls::ClientConfig::builder_with_provider(crate::serve::crypto())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_webpki_roots()
        .with_no_client_auth();
    let https = HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http();
    let https = https.enable_all_versions().wrap_connector(tcp);
    Ok(Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_max_idle_per_host(patience.idle_connections)
        .pool_idle_timeout(Duration::from_mins(1))
        .http1_max_buf_size(64 << 10)
        .build(https))
}

async fn send<R>(
    client: &Client<HttpsConnector<HttpConnector<R>>, Sent>,
    request: Request<Sent>,
) -> Result<Response<Body>, BoxError>
where
    HttpsConnector<HttpConnector<R>>: Connect + Clone + Send + Sync + 'static,
{
    match client.request(request).await {
        Ok(answer) => Ok(answer.map(|body: Incoming| body.map_err(BoxError::from).boxed_unsync())),
        Err(error) if ran_out(&error) => Err(RanOut.into()),
        Err(error) if error.is_connect() => Err(NotConnected(chain(&error)).into()),
        Err(error) => Err(chain(&error).into()),
    }
}

/// Whether a request's own body kept it back.
fn ran_out(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |it| it.source()).any(<dyn std::error::Error>::is::<RanOut>)
}

/// An address that tasks may not reach.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a public address")]
pub struct PrivateAddressError(String);

/// Addresses are connected to without being resolved, so they are looked at here.
fn check_literal(uri: &Uri) -> Result<(), NotConnected> {
    let host = uri.host().unwrap_or_default();
    match literal(host) {
        Some(address) if !is_public(address) => {
            let refused = PrivateAddressError(host.to_owned());
            Err(NotConnected(refused.to_string()))
        }
        _ => Ok(()),
    }
}

/// Resolves names to their public addresses. Names are resolved once for each connection, and what was
/// looked at is what is connected to.
#[derive(Debug, Clone)]
struct Public;

impl Service<Name> for Public {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let public: Vec<_> = found.filter(|it| is_public(it.ip())).collect();
            if public.is_empty() {
                return Err(PrivateAddressError(name.as_str().to_owned()).into());
            }
            Ok(public.into_iter())
        })
    }
}

/// Whether an address is one of the public internet. What is reserved for anything else is not, nor is
/// what carries another address within it that could be private.
pub fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

/// IANA's registry of special addresses, by first address and bits that count.
const SPECIAL_V4: [(Ipv4Addr, u32); 15] = [
    (Ipv4Addr::UNSPECIFIED, 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
];

fn is_public_v4(address: Ipv4Addr) -> bool {
    !SPECIAL_V4.iter().any(|(first, bits)| {
        let rest = 32 - bits;
        address.to_bits() >> rest == first.to_bits() >> rest
    })
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [first, second, third, ..] = address.segments();
    // Only 2000::/3 is given out as global unicast; loopback, ULA, link-local, multicast, NAT64 and the
    // IPv4-compatible ones are all outside of it.
    let is_global = first & 0xe000 == 0x2000;
    // 2001::/23 is for protocols, Teredo among them; 2002::/16 (6to4) carries an IPv4 address.
    let is_protocol = first == 0x2001 && second < 0x0200;
    let is_6to4 = first == 0x2002;
    let is_documentation =
        (first == 0x2001 && second == 0x0db8) || (first == 0x3fff && second < 0x1000);
    // 2620:4f:8000::/48 is for the blackhole of reverse DNS.
    let is_blackhole = (first, second, third) == (0x2620, 0x004f, 0x8000);
    is_global && !is_protocol && !is_6to4 && !is_documentation && !is_blackhole
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering};

    use tokio::io::AsyncReadExt;
    use tower::ServiceExt;

    use crate::assemble::outbound::Until;

    use super::*;

    #[test]
    fn only_addresses_of_the_public_internet_are_public() {
        for (address, expected) in [
            ("1.1.1.1", true),
            ("93.184.216.34", true),
            ("172.15.255.255", true),
            ("172.32.0.0", true),
            ("100.63.255.255", true),
            ("100.128.0.0", true),
            ("223.255.255.255", true),
            ("2606:4700::1111", true),
            ("2a00:1450:4001:80e::200e", true),
            ("0.0.0.0", false),
            ("10.1.2.3", false),
            ("100.64.0.1", false),
            ("127.0.0.1", false),
            ("127.255.255.254", false),
            ("169.254.169.254", false),
            ("172.16.0.1", false),
            ("172.31.255.255", false),
            ("192.0.0.8", false),
            ("192.0.2.1", false),
            ("192.168.1.1", false),
            ("198.18.0.1", false),
            ("198.19.255.255", false),
            ("198.51.100.7", false),
            ("203.0.113.9", false),
            ("224.0.0.1", false),
            ("239.1.1.1", false),
            ("255.255.255.255", false),
            ("::", false),
            ("::1", false),
            ("::ffff:127.0.0.1", false),
            ("::ffff:10.0.0.1", false),
            ("::ffff:1.1.1.1", true),
            ("::127.0.0.1", false),
            ("64:ff9b::7f00:1", false),
            ("2001::1", false),
            ("2001:db8::1", false),
            ("2002:7f00:1::", false),
            ("3fff:fff::1", false),
            ("fc00::1", false),
            ("fd12:3456::1", false),
            ("fe80::1", false),
            ("fec0::1", false),
            ("ff02::1", false),
        ] {
            let parsed: IpAddr = address.parse().unwrap();
            assert_eq!(is_public(parsed), expected, "{address}");
        }
    }

    async fn refusal(outbound: Outbound, uri: &str) -> String {
        let request = Request::builder().uri(uri).body(Sent::default()).unwrap();
        let answer = outbound.oneshot(request).await;
        answer.err().map_or_else(String::new, |it| it.to_string())
    }

    #[tokio::test]
    async fn private_addresses_are_refused_by_name_and_by_number() {
        // Somebody listens, so that nothing but the rule can refuse.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"] {
            let outbound = public_only(&Upstream::default()).unwrap();
            let told = refusal(outbound, &format!("https://{host}:{port}/")).await;
            assert!(told.contains("not a public address"), "{host}: {told}");
        }
        // Other spellings of an address are names to everybody but the resolver.
        for name in ["localhost", "2130706433", "0x7f.1", "127.1"] {
            let found = Public.call(name.parse().unwrap()).await;
            let told = found.unwrap_err().to_string();
            assert!(told.contains("not a public address"), "{name}: {told}");
        }
        let plain = public_only(&Upstream::default()).unwrap();
        let told = refusal(plain, "http://example.com/").await;
        assert!(told.contains("plain http"), "{told}");
        listener.set_nonblocking(true).unwrap();
        assert!(listener.accept().is_err(), "somebody connected");
    }

    #[tokio::test]
    async fn a_closed_port_is_no_connection() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let request = Request::builder()
            .uri(format!("http://{address}/"))
            .body(Sent::default())
            .unwrap();
        let error = any(&Upstream::default()).unwrap().oneshot(request).await;
        assert!(error.unwrap_err().is::<NotConnected>());
    }

    #[tokio::test]
    async fn a_body_that_may_not_leave_any_more_never_makes_a_whole_request() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let until_ms = Arc::new(AtomicI64::new(9));
        let until = Until::new(Arc::new(|| 5), Arc::clone(&until_ms));
        let request = Request::post(format!("http://{address}/"))
            .body(Sent::new("{\"call\": 1}".into(), Some(until)))
            .unwrap();
        let sending = any(&Upstream::default()).unwrap().oneshot(request);
        let server = async {
            // There is a connection, and the lease is lost before anything is written to it.
            until_ms.store(0, Ordering::Relaxed);
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut got = Vec::new();
            stream.read_to_end(&mut got).await.unwrap();
            got
        };
        let (got, sent) = tokio::join!(server, sending);
        assert!(sent.unwrap_err().is::<RanOut>());
        let got = String::from_utf8(got).unwrap();
        assert!(!got.contains("call"), "{got}");
    }
}
