//! Proves that TLS is spoken with the operator's certificate, with HTTP/2 offered, and that a caller
//! who does not trust it sends nothing.

use std::sync::Arc;

use rustls::pki_types::ServerName;
use tests::world::World;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
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
