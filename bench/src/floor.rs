//! A reverse proxy as small as hyper lets one be: no key, no route, no look at a body. What a gateway
//! costs beyond this is its own doing.

use std::convert::Infallible;
use std::net::SocketAddr;

use http::header::{CONNECTION, HOST, TRANSFER_ENCODING};
use http::{HeaderValue, Request, Response, StatusCode, Uri, Version};
use http_body_util::{Either, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::{http1, http2};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

type Pool = Client<HttpConnector, Incoming>;
type Answer = Response<Either<Incoming, Empty<Bytes>>>;

/// Forwards everything that comes in to `upstream`, without end; `is_http2` says what is spoken to callers, from
/// the first byte.
pub async fn serve(listener: TcpListener, upstream: SocketAddr, is_http2: bool) -> Infallible {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let pool: Pool = Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .set_host(false)
        .build(connector);
    let tasks = TaskTracker::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        // Without this, small events wait for acknowledgements.
        let _set = stream.set_nodelay(true);
        let pool = pool.clone();
        let service = hyper::service::service_fn(move |request| {
            let pool = pool.clone();
            async move { Ok::<_, Infallible>(forward(&pool, request, upstream).await) }
        });
        let stream = TokioIo::new(stream);
        // A caller that leaves ends its connection early on purpose.
        if is_http2 {
            let serving = http2::Builder::new(TokioExecutor::new());
            let serving = serving.serve_connection(stream, service);
            tasks.spawn(async move { drop(serving.await) });
        } else {
            let serving = http1::Builder::new().serve_connection(stream, service);
            tasks.spawn(async move { drop(serving.await) });
        }
    }
}

async fn forward(pool: &Pool, mut request: Request<Incoming>, upstream: SocketAddr) -> Answer {
    let path = request.uri().path_and_query();
    let path = path.map_or("/", |path| path.as_str());
    let Ok(uri) = format!("http://{upstream}{path}").parse::<Uri>() else {
        return refuse(StatusCode::BAD_REQUEST);
    };
    *request.uri_mut() = uri;
    *request.version_mut() = Version::HTTP_11;
    request.headers_mut().remove(CONNECTION);
    if let Ok(host) = HeaderValue::from_str(&upstream.to_string()) {
        request.headers_mut().insert(HOST, host);
    }
    match pool.request(request).await {
        Ok(mut answer) => {
            answer.headers_mut().remove(CONNECTION);
            answer.headers_mut().remove(TRANSFER_ENCODING);
            answer.map(Either::Left)
        }
        Err(_) => refuse(StatusCode::BAD_GATEWAY),
    }
}

fn refuse(status: StatusCode) -> Answer {
    let mut answer = Response::new(Either::Right(Empty::new()));
    *answer.status_mut() = status;
    answer
}
