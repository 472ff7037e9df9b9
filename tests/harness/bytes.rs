//! Both ends of the gateway byte by byte: a caller that says exactly what it is told to, and an endpoint
//! that does.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// How long anything is waited for. A connection on which a gateway leaves an endpoint alone, as it was asked to,
/// is silent for half a minute, and must not be closed just when it is used again.
const PATIENCE: Duration = Duration::from_secs(60);

/// An address at which nobody listens, and nobody will as long as the socket is there.
pub fn nobody() -> (SocketAddr, TcpSocket) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    (socket.local_addr().unwrap(), socket)
}

/// A message as it came: its head, and its body without the coding.
#[derive(Debug, Clone)]
pub struct Message {
    pub head: String,
    pub body: Vec<u8>,
}

impl Message {
    /// The status of an answer.
    pub fn status(&self) -> u16 {
        self.head[9..12].parse().unwrap()
    }

    /// The value of a field, or nothing.
    pub fn field(&self, name: &str) -> String {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        let found = lines
            .into_iter()
            .find(|(field, _)| field.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.to_owned()).unwrap_or_default()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// One end of a connection.
#[derive(Debug)]
pub struct Line {
    pub stream: TcpStream,
    came: Vec<u8>,
}

impl Line {
    /// Connects.
    pub async fn to(address: SocketAddr) -> Self {
        Self::on(TcpStream::connect(address).await.unwrap())
    }

    /// A connection that is there.
    pub fn on(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        let came = Vec::new();
        Self { stream, came }
    }

    /// Writes. The other side may have closed.
    pub async fn say(&mut self, bytes: impl AsRef<[u8]>) {
        let _written = self.stream.write_all(bytes.as_ref()).await;
    }

    /// Reads once more. `false` at the end.
    async fn more(&mut self) -> bool {
        let reading = self.stream.read_buf(&mut self.came);
        let read = tokio::time::timeout(PATIENCE, reading).await;
        read.expect("the other side is silent").unwrap_or(0) > 0
    }

    /// Reads up to the end of `mark`, and gives that out.
    pub async fn until(&mut self, mark: &str) -> Option<Vec<u8>> {
        loop {
            let found = self
                .came
                .windows(mark.len())
                .position(|it| it == mark.as_bytes());
            if let Some(at) = found {
                return Some(self.came.drain(..at + mark.len()).collect());
            }
            if !self.more().await {
                return None;
            }
        }
    }

    async fn bytes(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.came.len() < count {
            if !self.more().await {
                return None;
            }
        }
        Some(self.came.drain(..count).collect())
    }

    /// The next message; `None` where there is none, or it breaks off. `has_body` is false for the
    /// answer to HEAD.
    pub async fn message(&mut self, has_body: bool) -> Option<Message> {
        let head = String::from_utf8(self.until("\r\n\r\n").await?).unwrap();
        let mut message = Message {
            head,
            body: Vec::new(),
        };
        if !has_body {
            return Some(message);
        }
        if let Ok(length) = message.field("content-length").parse() {
            message.body = self.bytes(length).await?;
        } else if message.field("transfer-encoding") == "chunked" {
            loop {
                let size = self.until("\r\n").await?;
                let size = String::from_utf8(size).unwrap();
                let size = usize::from_str_radix(size.trim_end(), 16).unwrap();
                message.body.extend(self.bytes(size).await?);
                assert_eq!(self.until("\r\n").await?, b"\r\n");
                if size == 0 {
                    break;
                }
            }
        } else if message.head.starts_with("HTTP/") {
            message.body = self.rest().await;
        }
        Some(message)
    }

    /// Waits, however long, until the other side has left.
    pub async fn end(&mut self) {
        while self.stream.read_buf(&mut self.came).await.unwrap_or(0) > 0 {
            self.came.clear();
        }
    }

    /// Everything up to the end of the connection.
    pub async fn rest(&mut self) -> Vec<u8> {
        while self.more().await {}
        std::mem::take(&mut self.came)
    }
}

/// An endpoint that answers its n-th call with the n-th of its texts, the last one again and again, and
/// closes behind those that say so.
#[derive(Debug)]
pub struct Endpoint {
    pub address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl Endpoint {
    /// Answers each call with `answers` in turn, once it was read; before, where an answer begins with `!`.
    pub async fn start(answers: Vec<Vec<u8>>) -> Self {
        let calls = Arc::new(AtomicUsize::new(0));
        Self::with(move |mut line| {
            let (calls, answers) = (Arc::clone(&calls), answers.clone());
            async move {
                loop {
                    let at = calls.load(Ordering::Relaxed).min(answers.len() - 1);
                    let early = answers[at].strip_prefix(b"!");
                    let read = match early {
                        Some(_) => line.until("\r\n\r\n").await.is_some(),
                        None => line.message(true).await.is_some(),
                    };
                    if !read {
                        return;
                    }
                    calls.fetch_add(1, Ordering::Relaxed);
                    let answer = early.unwrap_or(&answers[at]);
                    line.say(answer).await;
                    if String::from_utf8_lossy(answer).contains("x-then: close") {
                        return;
                    }
                }
            }
        })
        .await
    }

    /// Has `serve` have each connection.
    pub async fn with<F>(serve: impl Fn(Line) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        tokio::task::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                tokio::task::spawn(serve(Line::on(stream)));
            }
        });
        Self {
            address,
            connections,
        }
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Tables of a configuration that make it the only endpoint of model `raw`.
    pub fn tables(&self) -> String {
        format!(
            "[[endpoint]]\nname = \"raw\"\ndialect = \"openai_chat\"\nurl = \"http://{}/v1\"\nkey = \"up-raw\"\n\
             [[model]]\nname = \"raw\"\ntier = \"fast\"\nendpoint = \"raw\"\nprice = \"test/fast\"\n",
            self.address
        )
    }
}

/// An answer of the endpoint's dialect that says `text`.
pub fn completion(text: &str) -> String {
    format!(
        "{{\"id\":\"c\",\"object\":\"chat.completion\",\"created\":1,\"model\":\"raw\",\"choices\":[{{\"index\":0,\
         \"message\":{{\"role\":\"assistant\",\"content\":\"{text}\"}},\"finish_reason\":\"stop\"}}],\
         \"usage\":{{\"prompt_tokens\":3,\"completion_tokens\":2,\"total_tokens\":5}}}}"
    )
}

/// The same with a head: `fields` stand in it, each with its line ending.
pub fn answer(text: &str, fields: &str) -> Vec<u8> {
    let body = completion(text);
    let length = body.len();
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n{fields}\r\n{body}"
    )
    .into_bytes()
}
