//! A server of tools for tests. It writes down every call, on the disk, before it answers, so that what
//! it was asked to do can be compared with what others believe; and it hangs, dies, changes and floods
//! when it is told to.
//!
//! `tool-server --log FILE [--schema N] [--legacy] [--http] [--pause MS]`. It waits so long before it acts, and
//! again before it answers. With `--http` it listens on a free port of
//! the loopback address and prints its URL; otherwise it speaks on its standard streams.

mod book;
mod tools;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use rmcp::ServiceExt;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::{StreamableHttpServerConfig, StreamableHttpService};

use crate::book::Book;
use crate::tools::{Recorder, State};

fn main() {
    let (mut log, mut schema, mut legacy, mut http) = (None, 0, false, false);
    let mut pause = Duration::ZERO;
    let mut args = std::env::args().skip(1);
    while let Some(word) = args.next() {
        match word.as_str() {
            "--log" => log = args.next().map(PathBuf::from),
            "--schema" => schema = args.next().unwrap().parse().unwrap(),
            "--pause" => pause = Duration::from_millis(args.next().unwrap().parse().unwrap()),
            "--legacy" => legacy = true,
            "--http" => http = true,
            other => panic!("unknown word `{other}`"),
        }
    }
    let book = Book::open(&log.expect("--log FILE"));
    let state = Arc::new(State::new(book, schema, legacy, pause));
    // One thread starts in a millisecond.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    if http {
        runtime.block_on(listen(state));
        return;
    }
    let served = Arc::clone(&state);
    runtime.block_on(async move {
        let running = Recorder(served).serve(rmcp::transport::stdio()).await;
        if let Ok(running) = running {
            // What ended it shows in what others see.
            let _quit = running.waiting().await;
        }
    });
    while state.stays.load(Ordering::Acquire) {
        std::thread::sleep(Duration::from_secs(1));
    }
    // Reading standard input has a thread of its own that can not be ended.
    std::process::exit(0);
}

async fn listen(state: Arc<State>) {
    let service = StreamableHttpService::new(
        move || Ok(Recorder(Arc::clone(&state))),
        Arc::new(LocalSessionManager::default()),
        StreamableHttpServerConfig::default(),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("http://{}/mcp", listener.local_addr().unwrap());
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let service = TowerToHyperService::new(service.clone());
        tokio::spawn(async move {
            let http = hyper::server::conn::http1::Builder::new();
            // A client that leaves is no failure.
            let _served = http.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}
