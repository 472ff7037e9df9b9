//! A collector of OpenTelemetry: it takes posts over HTTP, answers as it is told, and reads what it has taken with
//! the protocol's own messages.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{HistogramDataPoint, Metric};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::bytes::nobody;

/// A post as it came, and what it was answered with.
#[derive(Debug, Clone)]
pub struct Post {
    pub head: String,
    pub body: Vec<u8>,
    pub status: u16,
}

impl Post {
    pub fn path(&self) -> &str {
        self.head.split(' ').nth(1).unwrap()
    }
}

/// What a post is answered with: a status, further fields of the head, and whether at all.
pub type Answer = (u16, &'static str);
/// Says that from the signal (`traces`) and the number of its post, from 0.
type Answers = dyn Fn(&str, usize) -> Option<Answer> + Send + Sync;

/// A collector; it takes nothing before [`Collector::open`].
pub struct Collector {
    socket: Option<TcpSocket>,
    address: SocketAddr,
    posts: Arc<Mutex<Vec<Post>>>,
}

impl Collector {
    /// A place for one: whoever connects is refused.
    pub fn closed() -> Self {
        let (address, socket) = nobody();
        Self {
            address,
            socket: Some(socket),
            posts: Arc::default(),
        }
    }

    /// One that takes everything.
    pub fn start() -> Self {
        Self::answering(|_, _| Some((200, "")))
    }

    /// One that answers so; where it says nothing it is silent.
    pub fn answering(
        answers: impl Fn(&str, usize) -> Option<Answer> + Send + Sync + 'static,
    ) -> Self {
        let mut collector = Self::closed();
        collector.open(answers);
        collector
    }

    /// Listens from now on.
    pub fn open(
        &mut self,
        answers: impl Fn(&str, usize) -> Option<Answer> + Send + Sync + 'static,
    ) {
        let listener = self.socket.take().unwrap().listen(64).unwrap();
        let (posts, answers): (_, Arc<Answers>) = (Arc::clone(&self.posts), Arc::new(answers));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&posts), Arc::clone(&answers)));
            }
        });
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Every post that came.
    pub fn posts(&self) -> Vec<Post> {
        self.posts.lock().unwrap().clone()
    }

    /// The bodies of a signal that were taken.
    fn taken<T: Message + Default>(&self, signal: &str) -> Vec<T> {
        let path = format!("/v1/{signal}");
        let posts = self.posts();
        let taken = posts
            .iter()
            .filter(|it| it.path() == path && it.status == 200);
        taken
            .map(|it| T::decode(it.body.as_slice()).unwrap())
            .collect()
    }

    pub fn traces(&self) -> Vec<ExportTraceServiceRequest> {
        self.taken("traces")
    }

    pub fn spans(&self) -> Vec<Span> {
        let traces = self.traces().into_iter();
        let resources = traces.flat_map(|it| it.resource_spans);
        let scopes = resources.flat_map(|it| it.scope_spans);
        scopes.flat_map(|it| it.spans).collect()
    }

    pub fn logs(&self) -> Vec<LogRecord> {
        let logs = self.taken::<ExportLogsServiceRequest>("logs").into_iter();
        let resources = logs.flat_map(|it| it.resource_logs);
        let scopes = resources.flat_map(|it| it.scope_logs);
        scopes.flat_map(|it| it.log_records).collect()
    }

    /// The newest state of all metrics.
    pub fn metrics(&self) -> Vec<Metric> {
        let newest = self.taken::<ExportMetricsServiceRequest>("metrics").pop();
        let resources = newest.into_iter().flat_map(|it| it.resource_metrics);
        let scopes = resources.flat_map(|it| it.scope_metrics);
        scopes.flat_map(|it| it.metrics).collect()
    }

    /// The points of a histogram in that state.
    pub fn points(&self, name: &str) -> Vec<HistogramDataPoint> {
        let found = self.metrics().into_iter().find(|it| it.name == name);
        match found.and_then(|it| it.data) {
            Some(Data::Histogram(histogram)) => histogram.data_points,
            _ => Vec::new(),
        }
    }
}

async fn serve(mut stream: TcpStream, posts: Arc<Mutex<Vec<Post>>>, answers: Arc<Answers>) {
    let mut came = Vec::new();
    loop {
        let head = loop {
            let end = came.windows(4).position(|it| it == b"\r\n\r\n");
            if let Some(end) = end {
                break String::from_utf8(came.drain(..end + 4).collect()).unwrap();
            }
            if stream.read_buf(&mut came).await.unwrap_or(0) == 0 {
                return;
            }
        };
        let mut lines = head.lines().filter_map(|line| line.split_once(": "));
        let length = lines.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        let length: usize = length.unwrap().1.parse().unwrap();
        while came.len() < length {
            if stream.read_buf(&mut came).await.unwrap_or(0) == 0 {
                return;
            }
        }
        let mut post = Post {
            head,
            body: came.drain(..length).collect(),
            status: 0,
        };
        let signal = post.path().trim_start_matches("/v1/").to_owned();
        let answer = {
            let mut posts = posts.lock().unwrap();
            let number = posts.iter().filter(|it| it.path() == post.path()).count();
            let answer = answers(&signal, number);
            post.status = answer.map_or(0, |it| it.0);
            posts.push(post);
            answer
        };
        let Some((status, fields)) = answer else {
            continue;
        };
        let text = format!("HTTP/1.1 {status} X\r\n{fields}content-length: 0\r\n\r\n");
        if stream.write_all(text.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// Attributes by their names, as text; lists in brackets.
pub fn attributes(list: &[KeyValue]) -> BTreeMap<String, String> {
    fn text(value: &Value) -> String {
        match value {
            Value::StringValue(text) => text.clone(),
            Value::BoolValue(is_set) => is_set.to_string(),
            Value::IntValue(count) => count.to_string(),
            Value::DoubleValue(number) => number.to_string(),
            Value::ArrayValue(list) => {
                let values = list.values.iter().filter_map(|it| it.value.as_ref());
                format!("{:?}", values.map(text).collect::<Vec<_>>())
            }
            other => panic!("{other:?}"),
        }
    }
    let pairs = list.iter().map(|it| {
        let value = it.value.as_ref().unwrap().value.as_ref().unwrap();
        (it.key.clone(), text(value))
    });
    let named: BTreeMap<String, String> = pairs.collect();
    assert_eq!(
        named.len(),
        list.len(),
        "an attribute stands twice: {list:?}"
    );
    named
}

/// An id as it is written.
pub fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}
