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
        let roots: RootCertStore = webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect();
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
