//! One request to a server, with its deadlines: how long without progress, and how long in all. Whoever
//! stops waiting, by a deadline or by being dropped, has the server told so.

use std::time::Duration;

use rmcp::Peer;
use rmcp::model::{ClientRequest, ProgressToken, ServerResult};
use rmcp::service::{PeerRequestOptions, RequestHandle, RoleClient, ServiceError};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_util::task::TaskTracker;

use std::sync::Arc;

use super::handler::{Question, Watch};
use super::{http, lease};
use crate::tool::LATE;

/// How long the word that nobody waits any more may take. A server that hangs does not read it.
const PARTING: Duration = Duration::from_secs(2);

/// How long a request may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Without a sign of progress.
    pub(super) idle: Duration,
    /// In all.
    pub(super) until: Instant,
}

/// An answer, and what the server asked its user before it.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) result: ServerResult,
    pub(super) asked: Option<Question>,
}

/// A request without a result.
#[derive(Debug)]
pub(super) enum Failed {
    /// It certainly reached nobody.
    NotSent(String),
    /// Nor did this, and not for a fault of the server's: its task may be another's by now.
    Fenced(String),
    /// The server answered that it will not.
    Refused(String),
    /// It took too long.
    Late(String),
    /// Nobody knows what became of it.
    Lost(String),
}

impl Failed {
    /// What happened, in words.
    pub(super) fn into_text(self) -> String {
        match self {
            Self::NotSent(text)
            | Self::Fenced(text)
            | Self::Refused(text)
            | Self::Late(text)
            | Self::Lost(text) => text,
        }
    }
}

/// Who sends requests on a connection.
#[derive(Debug, Clone)]
pub(super) struct Sender {
    pub(super) peer: Peer<RoleClient>,
    pub(super) watch: Arc<Watch>,
    pub(super) tracker: TaskTracker,
}

impl Sender {
    /// Sends a request and waits for its answer.
    pub(super) async fn send(
        &self,
        request: ClientRequest,
        limits: Limits,
    ) -> Result<Answer, Failed> {
        let options = PeerRequestOptions::no_options();
        let handed = self.peer.send_request_with_option(request, options);
        let handle = match timeout_at(limits.until, handed).await {
            Ok(Ok(handle)) => handle,
            // What is not taken from us is not sent.
            Ok(Err(_)) => return Err(Failed::NotSent("the connection has ended".to_owned())),
            Err(_) => return Err(Failed::NotSent("no time was left to send it".to_owned())),
        };
        let running = self
            .watch
            .begin(handle.progress_token.clone(), handle.id.clone());
        let mut waiting = Waiting {
            token: handle.progress_token.clone(),
            handle: Some(handle),
            sender: self,
        };
        let began = Instant::now();
        let mut idle_until = began.checked_add(limits.idle).unwrap_or(limits.until);
        loop {
            let Some(handle) = waiting.handle.as_mut() else {
                return Err(Failed::Lost("the connection has ended".to_owned()));
            };
            tokio::select! {
                biased;
                answer = &mut handle.rx => {
                    waiting.handle = None;
                    let asked = running.asked();
                    let answer = answer.unwrap_or(Err(ServiceError::TransportClosed));
                    return answer.map(|result| Answer { result, asked }).map_err(read);
                }
                () = sleep_until(idle_until.min(limits.until)) => {
                    let after = began.elapsed().as_millis();
                    return Err(Failed::Late(format!("no answer came within {after} ms")));
                }
                () = running.progress.notified() => {
                    idle_until = Instant::now().checked_add(limits.idle).unwrap_or(limits.until);
                }
            }
        }
    }
}

/// A request whose answer is waited for. Dropped before it came, it tells the server.
struct Waiting<'a> {
    token: ProgressToken,
    handle: Option<RequestHandle<RoleClient>>,
    sender: &'a Sender,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.sender.watch.end(&self.token);
        if let Some(handle) = self.handle.take() {
            self.sender.tracker.spawn(async move {
                let told = handle.cancel(Some("nobody waits for it any more".to_owned()));
                if timeout(PARTING, told).await.is_err() {
                    tracing::debug!("a tool server does not read that a call was given up");
                }
            });
        }
    }
}

fn read(error: ServiceError) -> Failed {
    match error {
        ServiceError::McpError(error) => {
            Failed::Refused(format!("{} (code {})", error.message, error.code.0))
        }
        ServiceError::TransportSend(error)
            if lease::ran_out(&*error.error) || http::ran_out(&*error.error) =>
        {
            Failed::Fenced(LATE.to_owned())
        }
        ServiceError::TransportSend(error) if http::is_harmless(&*error.error) => {
            Failed::NotSent(error.error.to_string())
        }
        ServiceError::TransportSend(error) => Failed::Lost(error.error.to_string()),
        ServiceError::TransportClosed => {
            Failed::Lost("the connection ended before the answer".to_owned())
        }
        other => Failed::Lost(other.to_string()),
    }
}
