//! Connecting to an endpoint: its name, TCP, and TLS where its address says so.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A connection.
#[derive(Debug)]
pub(super) enum Socket {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Where an endpoint is, and how it is reached.
pub(super) struct Dial {
    host: String,
    port: u16,
    /// The address, where the host is one.
    literal: Option<IpAddr>,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    patience: Duration,
}

impl Dial {
    /// The way to `uri`, which has `patience` to be connected to. Over TLS `http2_only` asks for nothing
    /// else.
    pub(super) fn new(uri: &Uri, http2_only: bool, patience: Duration) -> Result<Self, String> {
        let host = uri
            .host()
            .ok_or_else(|| format!("url `{uri}` has no host"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let is_tls = uri.scheme_str() == Some("https");
        let tls = if is_tls {
            let name = ServerName::try_from(host.to_owned());
            let name = name.map_err(|error| format!("url `{uri}`: {error}"))?;
            Some((connector(http2_only)?, name))
        } else {
            None
        };
        Ok(Self {
            host: host.to_owned(),
            port: uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 }),
            literal: host.parse().ok(),
            tls,
            patience,
        })
    }

    /// Connects. Says what went wrong, for people.
    pub(super) async fn connect(&self) -> Result<Socket, String> {
        let dialling = timeout(self.patience, self.tcp());
        let told = |error: io::Error| format!("connecting to {}: {error}", self.host);
        let stream = dialling
            .await
            .map_err(|_| format!("no connection to {} in time", self.host))?
            .map_err(told)?;
        stream.set_nodelay(true).map_err(told)?;
        let Some((connector, name)) = &self.tls else {
            return Ok(Socket::Plain(stream));
        };
        let shaking = timeout(self.patience, connector.connect(name.clone(), stream));
        let stream = shaking
            .await
            .map_err(|_| format!("no TLS handshake with {} in time", self.host))?
            .map_err(|error| format!("TLS with {}: {error}", self.host))?;
        Ok(Socket::Tls(Box::new(stream)))
    }

    /// Tries the addresses of the host in turn; one that does not answer leaves time for the others.
    async fn tcp(&self) -> io::Result<TcpStream> {
        if let Some(address) = self.literal {
            return TcpStream::connect((address, self.port)).await;
        }
        let found = tokio::net::lookup_host((self.host.as_str(), self.port)).await?;
        let addresses: Vec<SocketAddr> = found.collect();
        let share = self.patience / u32::try_from(addresses.len().max(1)).unwrap_or(1);
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for address in addresses {
            match timeout(share, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = error,
                Err(_) => last = io::ErrorKind::TimedOut.into(),
            }
        }
        Err(last)
    }
}

/// Connects to `uri` and leaves: says whether that can be done.
pub(crate) async fn reach(uri: &Uri, http2_only: bool, patience: Duration) -> Result<(), String> {
    let dial = Dial::new(uri, http2_only, patience)?;
    dial.connect().await.map(drop)
}

fn connector(http2_only: bool) -> Result<TlsConnector, String> {
    let roots = rustls::RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    let mut config = rustls::ClientConfig::builder_with_provider(crate::serve::crypto())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    if !http2_only {
        config.alpn_protocols.push(b"http/1.1".to_vec());
    }
    Ok(TlsConnector::from(Arc::new(config)))
}

impl Socket {
    /// Whether both sides agreed on HTTP/2 while they shook hands.
    pub(super) fn is_http2(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(stream) => stream.get_ref().1.alpn_protocol() == Some(b"h2"),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
