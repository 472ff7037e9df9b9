//! Proves that TLS is spoken with the operator's certificate, with HTTP/2 offered, that a caller who does not
//! trust it sends nothing, and that endpoints are called over TLS if they are who they should be.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use bench::upstream::{Script, Upstream};
use rustls::pki_types::ServerName;
use tests::bytes::Endpoint;
use tests::world::World;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

fn connector(trusted: Option<&rcgen::Certificate>, alpn: &[u8]) -> TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    if let Some(certificate) = trusted {
        roots.add(certificate.der().clone()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    TlsConnector::from(Arc::new(config))
}

#[tokio::test]
async fn calls_come_in_over_tls() {
    let made = rcgen::generate_simple_self_signed(vec!["gateway.test".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = (
        folder.path().join("cert.pem"),
        folder.path().join("key.pem"),
    );
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let head = format!("server.tls_cert = {certificate:?}\nserver.tls_key = {key:?}");
    let world = World::start(&head, "").await;
    let name = || ServerName::try_from("gateway.test").unwrap();
    let connect = || TcpStream::connect(world.running.address);
    let mut stream = connector(Some(&made.cert), b"http/1.1")
        .connect(name(), connect().await.unwrap())
        .await
        .unwrap();
    let request = format!(
        "GET /v1/models HTTP/1.1\r\nhost: gateway.test\r\nauthorization: Bearer {}\r\nconnection: close\r\n\r\n",
        world.client.key
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    // The other side may end TCP without TLS's own farewell.
    let _ended = stream.read_to_string(&mut answer).await;
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.contains("\"auto\""),
        "{answer}"
    );
    let stream = connector(Some(&made.cert), b"h2")
        .connect(name(), connect().await.unwrap())
        .await
        .unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let distrusting = connector(None, b"h2")
        .connect(name(), connect().await.unwrap())
        .await;
    assert!(distrusting.is_err());
}

#[tokio::test]
async fn a_new_certificate_is_taken_by_a_reload_and_a_bad_one_refused() {
    let folder = tempfile::tempdir().unwrap();
    let [certificate, key] = ["cert.pem", "key.pem"].map(|name| folder.path().join(name));
    let make = || rcgen::generate_simple_self_signed(vec!["gateway.test".to_owned()]).unwrap();
    let (first, second) = (make(), make());
    let put = |made: &rcgen::CertifiedKey<rcgen::KeyPair>| {
        std::fs::write(&certificate, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    };
    put(&first);
    let head = format!("server.tls_cert = {certificate:?}\nserver.tls_key = {key:?}");
    let world = World::start(&head, "").await;
    let address = world.running.address;
    let trusts = async |made: &rcgen::CertifiedKey<rcgen::KeyPair>| {
        let name = ServerName::try_from("gateway.test").unwrap();
        let stream = TcpStream::connect(address).await.unwrap();
        let connector = connector(Some(&made.cert), b"http/1.1");
        connector.connect(name, stream).await.is_ok()
    };
    assert!(trusts(&first).await && !trusts(&second).await);
    put(&second);
    assert!(trusts(&first).await, "nothing is read without a reload");
    world.running.reload().unwrap();
    assert!(trusts(&second).await && !trusts(&first).await);
    std::fs::write(&certificate, "no certificate").unwrap();
    let refused = world.running.reload().unwrap_err();
    assert!(refused.contains("cert.pem"), "{refused}");
    assert!(trusts(&second).await, "the last good one stays");
}

/// A certificate for `name`, valid from `from` to `until` in years, with its key.
fn certificate(name: &str, from: i32, until: i32) -> (rcgen::Certificate, Vec<u8>) {
    let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(from, 1, 1);
    params.not_after = rcgen::date_time_ymd(until, 1, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    let made = params.self_signed(&key).unwrap();
    (made, key.serialize_der())
}

/// What an endpoint does with a connection that should become TLS.
#[derive(Clone)]
enum Shaking {
    With(Vec<u8>, Vec<u8>),
    Says(&'static [u8]),
    Resets,
    Hangs,
}

/// Speaks TLS, or does not, and gives out everything that it could read, decrypted or as it came.
async fn shake(stream: TcpStream, how: Shaking) -> Vec<u8> {
    let mut heard = Vec::new();
    let mut stream = stream;
    match how {
        Shaking::With(certificate, key) => {
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let config = rustls::ServerConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![certificate.into()], key.try_into().unwrap())
                .unwrap();
            let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
            if let Ok(mut stream) = acceptor.accept(stream).await {
                let _ended = stream.read_to_end(&mut heard).await;
            }
        }
        Shaking::Says(bytes) => {
            let _first = stream.read_buf(&mut heard).await;
            let _written = stream.write_all(bytes).await;
            let _ended = stream.read_to_end(&mut heard).await;
        }
        Shaking::Resets => {
            let _first = stream.read_buf(&mut heard).await;
            stream.set_zero_linger().unwrap();
        }
        Shaking::Hangs => {
            let _ended = stream.read_to_end(&mut heard).await;
        }
    }
    heard
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_whose_certificate_is_wrong_never_sees_a_key() {
    let with = |name: &str, from, until| {
        let (certificate, key) = certificate(name, from, until);
        Shaking::With(certificate.der().to_vec(), key)
    };
    let rows = [
        ("nobody signed it", with("localhost", 2020, 2090)),
        ("expired", with("localhost", 2000, 2001)),
        ("not yet valid", with("localhost", 2080, 2090)),
        ("another name", with("elsewhere.test", 2020, 2090)),
        (
            "plain HTTP",
            Shaking::Says(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"),
        ),
        (
            "an alert of TLS 1.0",
            Shaking::Says(b"\x15\x03\x01\x00\x02\x02\x46"),
        ),
        (
            "an old handshake",
            Shaking::Says(b"\x16\x03\x00\x00\x04\x02\x00\x00\x00"),
        ),
        ("noise", Shaking::Says(&[0xff; 64])),
        ("reset in the handshake", Shaking::Resets),
        ("silence", Shaking::Hangs),
    ];
    let mut tables = String::new();
    let (heard, mut listening) = tokio::sync::mpsc::unbounded_channel();
    for (at, (_, how)) in rows.iter().enumerate() {
        let (heard, how) = (heard.clone(), how.clone());
        let endpoint = tests::bytes::Endpoint::with(move |line| {
            let (heard, how) = (heard.clone(), how.clone());
            async move {
                let all = shake(line.stream, how).await;
                let _told = heard.send((at, all));
            }
        });
        let port = endpoint.await.address.port();
        let url = format!("https://localhost:{port}/v1");
        tables.push_str(&tests::wicked::tables(
            &format!("raw-{at}"),
            tests::talk::Tongue::Chat,
            &url,
        ));
    }
    let world = World::start("upstream.connect_timeout_ms = 700", &tables).await;
    for (at, (what, _)) in rows.iter().enumerate() {
        let body = tests::world::chat(&format!("raw-{at}"), "Hi", "");
        let reply = world.client.post("/v1/chat/completions", body).await;
        assert!(
            matches!(reply.status, 502 | 504),
            "{what}: {} {}",
            reply.status,
            reply.text()
        );
    }
    drop(heard);
    for entry in world.entries().await {
        assert_eq!(entry.outcome, meter::Outcome::Failed, "{entry:?}");
        assert_eq!(entry.cost, meter::NanoUsd::ZERO, "{entry:?}");
    }
    while let Ok((at, all)) = listening.try_recv() {
        let text = String::from_utf8_lossy(&all).into_owned();
        let leaks = text.contains("up-raw") || text.contains("Hi") && text.contains("messages");
        assert!(!leaks, "{}: {text}", rows[at].0);
    }
}

/// What an endpoint that speaks TLS for `upstream` offers to speak in it.
struct Behind {
    config: Arc<rustls::ServerConfig>,
    /// Where HTTP/2 is passed on to, and where HTTP/1.1 is.
    http2: SocketAddr,
    http1: SocketAddr,
}

impl Behind {
    /// With `certificate`, and one bridge more where `alpn` has HTTP/2.
    async fn start(
        made: &(rcgen::Certificate, Vec<u8>),
        alpn: &[&[u8]],
        http1: SocketAddr,
    ) -> Endpoint {
        let (certificate, key) = (made.0.der().clone(), made.1.clone());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key.try_into().unwrap())
            .unwrap();
        config.alpn_protocols = alpn.iter().map(|it| it.to_vec()).collect();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let http2 = listener.local_addr().unwrap();
        tokio::task::spawn(bench::floor::serve(listener, http1, true));
        let behind = Arc::new(Self {
            config: Arc::new(config),
            http2,
            http1,
        });
        Endpoint::with(move |line| Arc::clone(&behind).pass_on(line.stream)).await
    }

    async fn pass_on(self: Arc<Self>, stream: TcpStream) {
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::clone(&self.config));
        // A caller that does not trust it leaves.
        let Ok(mut stream) = acceptor.accept(stream).await else {
            return;
        };
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let to = if is_http2 { self.http2 } else { self.http1 };
        let mut other = TcpStream::connect(to).await.unwrap();
        other.set_nodelay(true).unwrap();
        let _ended = tokio::io::copy_bidirectional(&mut stream, &mut other).await;
    }
}

/// Tables that make `endpoint` that of model `raw`, trusted by the certificate at `ca`.
fn trusting(endpoint: &Endpoint, ca: &Path) -> String {
    let tables = endpoint
        .tables()
        .replacen("http://127.0.0.1", "https://localhost", 1);
    tables.replacen("key =", &format!("tls_ca = {ca:?}\nkey ="), 1)
}

async fn answers(world: &World, count: usize) -> Vec<u16> {
    let calls: Vec<_> = (0..count)
        .map(|at| {
            let client = world.caller(&world.client.key);
            let rest = if at % 4 == 0 { "" } else { ",\"stream\":true" };
            let body = tests::world::chat("raw", "Hi", rest);
            tokio::task::spawn(async move { client.post("/v1/chat/completions", body).await })
        })
        .collect();
    let mut statuses = Vec::new();
    for call in calls {
        statuses.push(call.await.unwrap().status);
    }
    statuses
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_of_ones_own_are_called_over_tls_as_they_offer() {
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    let made = certificate("localhost", 2020, 2090);
    std::fs::write(&ca, made.0.pem()).unwrap();
    for (alpn, most) in [
        (&[&b"h2"[..], b"http/1.1"][..], 1),
        (&[b"http/1.1"], 41),
        (&[], 41),
    ] {
        let upstream = Upstream::start(Script {
            output_tokens: 20,
            token_gap_us: 10_000,
            ..tests::world::script(tests::world::FAST)
        });
        let upstream = upstream.await.unwrap();
        let endpoint = Behind::start(&made, alpn, upstream.address).await;
        let world = World::start("server.workers = 1", &trusting(&endpoint, &ca)).await;
        // From then on it is known what the endpoint speaks.
        assert_eq!(answers(&world, 1).await, [200]);
        assert_eq!(answers(&world, 40).await, [200; 40]);
        let connections = endpoint.connections();
        assert!(
            connections <= most && (most == 1 || connections > 1),
            "{connections}"
        );
        let entries = world.entries().await;
        let charged: meter::NanoUsd = entries.iter().map(|it| it.cost).sum();
        let owed: u64 = upstream.bill().iter().map(|it| it.cost_pico / 1_000).sum();
        assert_eq!((entries.len(), upstream.bill().len()), (41, 41));
        assert_eq!(charged.0, i64::try_from(owed).unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_of_ones_own_is_trusted_by_what_is_named_alone() {
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    let good = certificate("localhost", 2020, 2090);
    let upstream = Upstream::start(tests::world::script(tests::world::FAST));
    let upstream = upstream.await.unwrap();
    for (what, offered) in [
        ("another", certificate("localhost", 2020, 2090)),
        ("expired", certificate("localhost", 2000, 2001)),
        ("not yet valid", certificate("localhost", 2080, 2090)),
        ("another name", certificate("elsewhere.test", 2020, 2090)),
    ] {
        // But for the first, what is offered is what is trusted.
        let trusted = if what == "another" { &good } else { &offered };
        std::fs::write(&ca, trusted.0.pem()).unwrap();
        let endpoint = Behind::start(&offered, &[], upstream.address).await;
        let world = World::start("", &trusting(&endpoint, &ca)).await;
        assert_eq!(answers(&world, 1).await, [502], "{what}");
    }
    assert!(upstream.bill().is_empty());
    let endpoint = Behind::start(&good, &[], upstream.address).await;
    std::fs::write(&ca, certificate("localhost", 2020, 2090).0.pem()).unwrap();
    let world = World::start("", &trusting(&endpoint, &ca)).await;
    assert_eq!(answers(&world, 1).await, [502]);
    std::fs::write(&ca, good.0.pem()).unwrap();
    world.running.reload().unwrap();
    assert_eq!(answers(&world, 1).await, [200]);
    for broken in [
        "",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ] {
        std::fs::write(&ca, broken).unwrap();
        let refused = world.running.reload().unwrap_err();
        assert!(refused.contains("ca.pem"), "{refused}");
    }
    assert_eq!(answers(&world, 1).await, [200]);
}
