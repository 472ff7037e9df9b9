//! Open-loop replay: each call starts at its planned time, whatever the earlier ones do, and its
//! latency counts from that time. A slow server can not slow its own test down.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until};
use tokio_util::task::TaskTracker;

/// Calls at once at most; reaching it is told, because from then on the loop is not open.
const AT_ONCE: usize = 2_000;

/// A call to come.
#[derive(Debug, Clone)]
pub struct Planned {
    /// When, from the start.
    pub at: Duration,
    pub path: &'static str,
    pub key: Arc<str>,
    pub body: Bytes,
    /// Whatever the caller wants to find again in the sample.
    pub tag: usize,
}

/// A call that is over.
#[derive(Debug, Clone)]
pub struct Sample {
    pub tag: usize,
    /// 0 where no answer came.
    pub status: u16,
    pub first_byte: Duration,
    pub total: Duration,
    pub bytes: usize,
    /// The answer broke off.
    pub broken: bool,
    /// The loop was at its limit, so that this call started late.
    pub held_back: bool,
    pub headers: HashMap<String, String>,
}

/// Replays `plan` against `address` and passes each sample to `seen` as it ends.
pub async fn replay(
    address: SocketAddr,
    plan: Vec<Planned>,
    seen: impl Fn(Sample) + Send + Sync + 'static,
) {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client = Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .build::<_, Full<Bytes>>(connector);
    let (tasks, free, seen) = (
        TaskTracker::new(),
        Arc::new(Semaphore::new(AT_ONCE)),
        Arc::new(seen),
    );
    let start = Instant::now();
    for planned in plan {
        let due = start + planned.at;
        sleep_until(due).await;
        let held_back = free.available_permits() == 0;
        let Ok(slot) = Arc::clone(&free).acquire_owned().await else {
            break;
        };
        let (client, seen) = (client.clone(), Arc::clone(&seen));
        tasks.spawn(async move {
            let mut sample = one(&client, address, planned, due).await;
            sample.held_back = held_back;
            seen(sample);
            drop(slot);
        });
    }
    tasks.close();
    tasks.wait().await;
}

async fn one(
    client: &Client<HttpConnector, Full<Bytes>>,
    address: SocketAddr,
    planned: Planned,
    due: Instant,
) -> Sample {
    let mut sample = Sample {
        tag: planned.tag,
        status: 0,
        first_byte: Duration::ZERO,
        total: Duration::ZERO,
        bytes: 0,
        broken: true,
        held_back: false,
        headers: HashMap::new(),
    };
    let request = Request::post(format!("http://{address}{}", planned.path))
        .header("authorization", format!("Bearer {}", planned.key))
        .header("content-type", "application/json")
        .body(Full::new(planned.body));
    let Ok(request) = request else { return sample };
    let Ok(response) = client.request(request).await else {
        return sample;
    };
    sample.status = response.status().as_u16();
    for (name, value) in response.headers() {
        if let Ok(value) = value.to_str() {
            sample.headers.insert(name.to_string(), value.to_owned());
        }
    }
    let mut body = response.into_body();
    sample.broken = false;
    while let Some(frame) = body.frame().await {
        if sample.first_byte.is_zero() {
            sample.first_byte = due.elapsed();
        }
        match frame {
            Ok(frame) => sample.bytes += frame.data_ref().map_or(0, Bytes::len),
            Err(_) => sample.broken = true,
        }
    }
    sample.total = due.elapsed();
    sample
}
