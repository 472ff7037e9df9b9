//! Somebody who listens for webhooks.

use std::sync::{Arc, Mutex};

use hmac::{Hmac, KeyInit, Mac};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// A post as it came, and what it was answered with.
#[derive(Debug, Clone)]
pub struct Post {
    pub head: String,
    pub body: String,
    pub status: u16,
}

impl Post {
    /// A header by its name in small letters; empty where it is not there.
    pub fn header(&self, name: &str) -> &str {
        let start = format!("{name}: ");
        let line = self.head.lines().find_map(|line| line.strip_prefix(&start));
        line.unwrap_or_default().trim()
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// The signature that it must bear where the secret is `whisper`.
    pub fn signature(&self) -> String {
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(b"whisper").unwrap();
        mac.update(format!("{}.{}", self.header("x-pareto-timestamp"), self.body).as_bytes());
        let bytes = mac.finalize().into_bytes();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("v1={hex}")
    }
}

/// A listener that answers the first `refused` posts with 500: its address, and all that it was told.
pub async fn listener(refused: usize) -> (String, Arc<Mutex<Vec<Post>>>) {
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", tcp.local_addr().unwrap());
    let posts: Arc<Mutex<Vec<Post>>> = Arc::default();
    let kept = Arc::clone(&posts);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = tcp.accept().await.unwrap();
            let mut bytes = Vec::new();
            let (head, body) = loop {
                let mut some = [0; 4096];
                let read = stream.read(&mut some).await.unwrap();
                assert!(read > 0, "a post broke off");
                bytes.extend_from_slice(&some[..read]);
                let text = String::from_utf8_lossy(&bytes).into_owned();
                let Some((head, body)) = text.split_once("\r\n\r\n") else {
                    continue;
                };
                let mut lines = head.lines();
                let length = lines.find_map(|line| line.strip_prefix("content-length: "));
                if body.len() == length.unwrap().trim().parse::<usize>().unwrap() {
                    break (head.to_owned(), body.to_owned());
                }
            };
            let is_refused = kept.lock().unwrap().len() < refused;
            let status = if is_refused { 500 } else { 204 };
            kept.lock().unwrap().push(Post { head, body, status });
            let answer =
                format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (url, posts)
}
