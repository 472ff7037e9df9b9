//! A connection's bytes, plain or under TLS, without waiting.

use std::io::{ErrorKind, Read, Result, Write};
use std::net::SocketAddr;
use std::sync::Arc;

use mio::net::TcpStream;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// How a target's TLS is spoken.
#[derive(Debug, Clone)]
pub struct Tls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Tls {
    /// TLS with the web's usual roots to a server of this name.
    ///
    /// # Errors
    /// The name is none.
    pub fn new(host: &str) -> anyhow::Result<Self> {
        Self::trusting(
            webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect(),
            host,
        )
    }

    /// TLS with these roots.
    fn trusting(roots: RootCertStore, host: &str) -> anyhow::Result<Self> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            config: Arc::new(config),
            name: ServerName::try_from(host.to_owned())?,
        })
    }
}

/// A connection.
#[derive(Debug)]
pub(super) enum Wire {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Wire {
    /// Begins to connect.
    pub(super) fn open(address: SocketAddr, tls: Option<&Tls>) -> Result<Self> {
        let tcp = TcpStream::connect(address)?;
        let Some(tls) = tls else {
            return Ok(Self::Plain(tcp));
        };
        let session = ClientConnection::new(Arc::clone(&tls.config), tls.name.clone());
        let session = session.map_err(std::io::Error::other)?;
        Ok(Self::Tls(Box::new(StreamOwned::new(session, tcp))))
    }

    pub(super) fn tcp(&mut self) -> &mut TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(stream) => &mut stream.sock,
        }
    }

    /// Writes what can be written now. Under TLS, what was taken may still be on its way: see [`Self::push`].
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    /// Sends on what TLS has taken.
    pub(super) fn push(&mut self) -> Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Tls(stream) => match stream.flush() {
                Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
                other => other,
            },
        }
    }

    /// Reads what is there; 0 at the end.
    pub(super) fn read(&mut self, into: &mut [u8]) -> Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.read(into),
            Self::Tls(stream) => match stream.read(into) {
                // Many servers end without the farewell that TLS asks for; a cut body shows anyway.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(0),
                other => other,
            },
        }
    }

    /// A read that filled less than it was given has emptied the socket.
    pub(super) fn short_read_is_empty(&self) -> bool {
        matches!(self, Self::Plain(_))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::TcpListener;
    use std::sync::Arc;
    use std::time::Duration;

    use rustls::pki_types::PrivateKeyDer;
    use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

    use super::Tls;
    use crate::load::window::{Plan, Target, Workload, run};
    use crate::load::{Ask, Dialect, Shape};

    /// Answers every call on one connection under TLS; bodies are as long as their heads say.
    fn serve(listener: &TcpListener, config: &Arc<ServerConfig>) {
        let (tcp, _) = listener.accept().unwrap();
        let session = ServerConnection::new(Arc::clone(config)).unwrap();
        let mut stream = BufReader::new(StreamOwned::new(session, tcp));
        loop {
            let (mut length, mut line) = (0, String::new());
            while line != "\r\n" {
                line.clear();
                // The load hangs up without a farewell.
                if stream.read_line(&mut line).unwrap_or(0) == 0 {
                    return;
                }
                if let Some(value) = line.strip_prefix("content-length: ") {
                    length = value.trim().parse().unwrap();
                }
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).unwrap();
            let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
            stream.get_mut().write_all(answer.as_bytes()).unwrap();
            stream.get_mut().flush().unwrap();
        }
    }

    #[test]
    fn calls_go_under_tls_and_their_answers_come_back() {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = Target {
            name: "secure".to_owned(),
            address: listener.local_addr().unwrap(),
            host: "localhost".to_owned(),
            base: "/v1".to_owned(),
            tls: Some(Tls::trusting(roots, "localhost").unwrap()),
            dialect: Dialect::Chat,
            model: "auto".to_owned(),
            key: None,
            headers: Vec::new(),
            server: None,
        };
        let plan = Plan {
            workload: Workload::Saturation { connections: 1 },
            shape: Shape {
                // Longer than a socket takes at once, so that writes have to be taken up again.
                body_bytes: 1_000_000,
                stream: false,
                max_tokens: 1,
                model_last: true,
                ask: Ask::default(),
            },
            warmup: Duration::ZERO,
            window: Duration::from_millis(500),
            timeout: Duration::from_mins(1),
            drain: Duration::from_mins(1),
            settle: Duration::ZERO,
            threads: 1,
            at_once: 1,
            seed: 1,
        };
        let server = std::thread::spawn(move || serve(&listener, &Arc::new(config)));
        let prompts = crate::conversation::prompts().into();
        let made = target.prepare(&plan.shape, &prompts);
        let measured = run(&target, &plan, &made, &mut |_| {}).unwrap();
        server.join().unwrap();
        assert!(measured.tally.good > 0);
        assert_eq!(
            measured.tally.errors.sum(),
            0,
            "{:?}",
            measured.tally.errors
        );
    }
}
