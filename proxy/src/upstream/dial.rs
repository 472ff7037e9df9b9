//! Connecting to an endpoint: its name, TCP, and TLS where its address says so.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http::Uri;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::names::{Names, Resolve, System};
use crate::config;
use crate::machine::{self, Machine, Stream};
use crate::serve::{self, descriptors};

/// How long an address has before the next is tried beside it.
const HEAD_START: Duration = Duration::from_millis(250);

/// A connection.
#[derive(Debug)]
pub(super) enum Socket {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    /// What a simulation has in its place.
    Played(Box<dyn Stream>),
}

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub(super) struct NoConnection {
    /// The process can open no more, which shows nothing of the endpoint.
    pub(super) is_ours: bool,
    what: String,
}

impl From<String> for NoConnection {
    fn from(what: String) -> Self {
        let is_ours = false;
        Self { is_ours, what }
    }
}

/// What is spoken with an endpoint, and whom it has to be.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Terms<'a> {
    pub(super) http2_only: bool,
    /// Certificates that its own has to be signed by, in place of the public ones.
    ca: Option<&'a Path>,
}

impl<'a> From<&'a config::Endpoint> for Terms<'a> {
    fn from(endpoint: &'a config::Endpoint) -> Self {
        Self {
            http2_only: endpoint.http2,
            ca: endpoint.tls_ca.as_deref(),
        }
    }
}

/// Where an endpoint is, and how it is reached.
pub(super) struct Dial {
    pub(super) names: Names,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    patience: Duration,
}

impl Dial {
    /// The way to `uri`, which has `patience` to be connected to. Fails where the certificates that it is trusted
    /// by can not be read.
    pub(super) fn new(
        uri: &Uri,
        terms: Terms<'_>,
        patience: Duration,
        resolver: Arc<dyn Resolve>,
    ) -> Result<Self, String> {
        let host = uri
            .host()
            .ok_or_else(|| format!("url `{uri}` has no host"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let is_tls = uri.scheme_str() == Some("https");
        let tls = if is_tls {
            let name = ServerName::try_from(host.to_owned());
            let name = name.map_err(|error| format!("url `{uri}`: {error}"))?;
            Some((connector(terms)?, name))
        } else {
            None
        };
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        Ok(Self {
            names: Names::new(host, port, resolver),
            tls,
            patience,
        })
    }

    /// Connects. Says what went wrong, for people.
    pub(super) async fn connect(&self) -> Result<Socket, NoConnection> {
        if let Some(machine) = machine::played() {
            return Ok(self.played(machine).await?);
        }
        let dialling = timeout(self.patience, self.tcp());
        let told = |error: io::Error| NoConnection {
            is_ours: descriptors::are_short(&error),
            what: format!("connecting to {}: {error}", self.names.host()),
        };
        let stream = dialling
            .await
            .map_err(|_| format!("no connection to {} in time", self.names.host()))?
            .map_err(told)?;
        stream.set_nodelay(true).map_err(told)?;
        let Some((connector, name)) = &self.tls else {
            return Ok(Socket::Plain(stream));
        };
        let shaking = timeout(self.patience, connector.connect(name.clone(), stream));
        let stream = shaking
            .await
            .map_err(|_| format!("no TLS handshake with {} in time", self.names.host()))?
            .map_err(|error| format!("TLS with {}: {error}", self.names.host()))?;
        Ok(Socket::Tls(Box::new(stream)))
    }

    async fn played(&self, machine: Machine) -> Result<Socket, String> {
        let (host, port) = self.names.place();
        let dialling = timeout(self.patience, (machine.connect)(host, port)).await;
        let stream = dialling.map_err(|_| format!("no connection to {host} in time"))?;
        let stream = stream.map_err(|error| format!("connecting to {host}: {error}"))?;
        Ok(Socket::Played(stream))
    }

    /// Tries the addresses of the host in turn, the next one when one fails or does not answer soon, and takes
    /// whichever is there first.
    async fn tcp(&self) -> io::Result<TcpStream> {
        let addresses = self.names.addresses(Instant::now()).await?;
        let mut left = addresses.into_iter();
        let mut trying = FuturesUnordered::new();
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        loop {
            trying.extend(left.next().map(TcpStream::connect));
            if trying.is_empty() {
                return Err(last);
            }
            let patience = if left.len() > 0 {
                HEAD_START
            } else {
                self.patience
            };
            match timeout(patience, trying.next()).await {
                Ok(Some(Ok(stream))) => return Ok(stream),
                Ok(Some(Err(error))) => last = error,
                Ok(None) | Err(_) => {}
            }
        }
    }
}

/// Connects to `uri` and leaves: says whether that can be done.
pub(crate) async fn reach(uri: &Uri, terms: Terms<'_>, patience: Duration) -> Result<(), String> {
    let dial = Dial::new(uri, terms, patience, Arc::new(System))?;
    let connected = dial.connect().await;
    connected.map(drop).map_err(|error| error.to_string())
}

fn connector(terms: Terms<'_>) -> Result<TlsConnector, String> {
    let roots = match terms.ca {
        Some(path) => serve::trusted(path)?,
        None => rustls::RootCertStore {
            roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
        },
    };
    let mut config = rustls::ClientConfig::builder_with_provider(crate::serve::crypto())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    if !terms.http2_only {
        config.alpn_protocols.push(b"http/1.1".to_vec());
    }
    Ok(TlsConnector::from(Arc::new(config)))
}

impl Socket {
    /// The address at the other end.
    pub(super) fn peer(&self) -> Option<SocketAddr> {
        let stream = match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
            Self::Played(_) => return None,
        };
        stream.peer_addr().ok()
    }

    /// Whether both sides agreed on HTTP/2 while they shook hands.
    pub(super) fn is_http2(&self) -> bool {
        match self {
            Self::Plain(_) | Self::Played(_) => false,
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
            Self::Played(stream) => Pin::new(stream).poll_read(context, buffer),
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
            Self::Played(stream) => Pin::new(stream).poll_write(context, bytes),
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
            Self::Played(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
            Self::Played(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Played(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Always gives these.
    struct Fixed(Vec<SocketAddr>);

    impl Resolve for Fixed {
        fn resolve<'a>(&'a self, _: &'a str, _: u16) -> super::super::names::Answer<'a> {
            let told = self.0.clone();
            Box::pin(async move { Ok(told) })
        }
    }

    /// One address refuses, one does not answer, and one is there.
    #[tokio::test]
    async fn an_address_that_leads_nowhere_does_not_keep_a_call_from_the_next() {
        let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let refuses = gone.local_addr().unwrap();
        drop(gone);
        // A queue of one that is full takes no more.
        let full = tokio::net::TcpSocket::new_v4().unwrap();
        full.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let full = full.listen(0).unwrap();
        let silent = full.local_addr().unwrap();
        let mut queued = Vec::new();
        for _ in 0..4 {
            let connecting = TcpStream::connect(silent);
            queued.push(timeout(Duration::from_millis(50), connecting).await);
        }
        let open = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let there = open.local_addr().unwrap();
        let uri = "http://example.test/v1".parse().unwrap();
        let resolver = Arc::new(Fixed(vec![refuses, silent, there]));
        let dial = Dial::new(&uri, Terms::default(), Duration::from_secs(30), resolver).unwrap();
        assert_eq!(dial.connect().await.unwrap().peer(), Some(there));
        let nobody = Arc::new(Fixed(vec![refuses]));
        let dial = Dial::new(&uri, Terms::default(), Duration::from_secs(30), nobody).unwrap();
        assert!(dial.connect().await.is_err());
    }
}
