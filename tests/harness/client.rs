//! Callers: one over a real HTTP client, one over raw bytes.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client as Http;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long a caller waits for the next piece of an answer before the test has failed.
const PATIENCE: Duration = Duration::from_mins(2);

/// A caller with a key.
#[derive(Debug, Clone)]
pub struct Client {
    http: Http<HttpConnector, Full<Bytes>>,
    pub address: SocketAddr,
    pub key: String,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    /// The body broke off.
    pub broken: bool,
}

impl Reply {
    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header, or nothing.
    pub fn header(&self, name: &str) -> String {
        self.headers
            .get(name)
            .map(|v| v.to_str().unwrap().to_owned())
            .unwrap_or_default()
    }
}

impl Client {
    /// A caller of the gateway at `address`.
    pub fn new(address: SocketAddr, key: &str) -> Self {
        let http = Http::builder(TokioExecutor::new()).build_http();
        Self {
            http,
            address,
            key: key.to_owned(),
        }
    }

    /// The same from another address of this machine.
    pub fn from(local: IpAddr, address: SocketAddr, key: &str) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_local_address(Some(local));
        Self {
            http: Http::builder(TokioExecutor::new()).build(connector),
            ..Self::new(address, key)
        }
    }

    /// Posts `body` with the key as bearer.
    pub async fn post(&self, path: &str, body: impl Into<Bytes>) -> Reply {
        self.send(Method::POST, path, &[], body).await
    }

    /// Gets `path`.
    pub async fn get(&self, path: &str) -> Reply {
        self.send(Method::GET, path, &[], Bytes::new()).await
    }

    /// Sends any request; a connection that breaks before the answer has status 0.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Reply {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.address));
        if !headers.iter().any(|(name, _)| *name == "content-type") {
            request = request.header("content-type", "application/json");
        }
        if !headers
            .iter()
            .any(|(name, _)| *name == "authorization" || *name == "x-api-key")
        {
            request = request.header("authorization", format!("Bearer {}", self.key));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).unwrap();
        let mut reply = Reply {
            status: 0,
            headers: HeaderMap::new(),
            body: Vec::new(),
            broken: true,
        };
        let answer = timeout(PATIENCE, self.http.request(request)).await;
        let Ok(response) = answer.unwrap_or_else(|_| panic!("no answer at {path}")) else {
            return reply;
        };
        reply.status = response.status().as_u16();
        reply.headers = response.headers().clone();
        reply.broken = false;
        let mut body = response.into_body();
        let next = async |body: &mut Incoming| {
            let next = timeout(PATIENCE, body.frame()).await;
            next.unwrap_or_else(|_| panic!("no end of the answer at {path}"))
        };
        while let Some(frame) = next(&mut body).await {
            match frame {
                Ok(frame) => reply.body.extend(frame.into_data().unwrap_or_default()),
                Err(_) => reply.broken = true,
            }
        }
        reply
    }

    /// Sends a streamed call with `headers` and leaves after `frames` pieces of its answer, or when it
    /// ends; whatever goes wrong on the way is part of leaving.
    pub async fn begin_and_leave(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
        frames: usize,
    ) {
        let mut request = Request::post(format!("http://{}{path}", self.address))
            .header("authorization", format!("Bearer {}", self.key));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).unwrap();
        let Ok(response) = self.http.request(request).await else {
            return;
        };
        let mut body = response.into_body();
        for _ in 0..frames {
            let Some(Ok(_)) = body.frame().await else {
                return;
            };
        }
    }

    /// Sends a streamed call and leaves after `events` events.
    pub async fn leave_after(&self, path: &str, body: impl Into<Bytes>, events: usize) -> String {
        let request = Request::post(format!("http://{}{path}", self.address))
            .header("authorization", format!("Bearer {}", self.key))
            .body(Full::new(body.into()))
            .unwrap();
        let response = self.http.request(request).await.unwrap();
        let mut text = String::new();
        let mut body = response.into_body();
        while text.matches("\n\n").count() < events {
            let frame = body.frame().await.unwrap().unwrap();
            text.push_str(&String::from_utf8_lossy(
                &frame.into_data().unwrap_or_default(),
            ));
        }
        text
    }
}

/// Writes `bytes` as they are and returns all that comes back until the other side closes, or
/// `None` if it does not close within ten seconds.
pub async fn raw(address: SocketAddr, bytes: &[u8]) -> Option<String> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The other side may close before it has read everything.
    let _written = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let reading = stream.read_to_end(&mut answer);
    let ended = tokio::time::timeout(Duration::from_secs(10), reading)
        .await
        .is_ok();
    ended.then(|| String::from_utf8_lossy(&answer).into_owned())
}
