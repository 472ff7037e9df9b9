//! Telling others: events of the outbox and entries as they come, by signed HTTP posts, at least once.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Uri};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use meter::LedgerError;
use meter::books::statement::hex;
use meter::books::{Books, Span};
use serde_json::{Value, json};
use sha2::Sha256;
use tokio_util::sync::CancellationToken;

use crate::books::export;
use crate::clock::now_ms;
use crate::config::{Secret, Upstream, Webhook, masked};
use crate::outbound;
use crate::tasks::assemble::{Notice, Notices};
use crate::upstream::Pieces;

/// How often it is looked for something to tell.
const EVERY: Duration = Duration::from_millis(500);
/// How long a listener may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// For how long an event that is being delivered is nobody else's.
const LEASE_MS: i64 = 30_000;
/// Events and entries taken at a time.
const BATCH: u32 = 200;
/// The waits between tries: doubled from the first to the longest.
const FIRST_WAIT_MS: i64 = 1_000;
const LONGEST_WAIT_MS: i64 = 3_600_000;

/// Everyone who is told.
pub(crate) struct Webhooks {
    books: Arc<dyn Books>,
    /// Notices about tasks, where there are any.
    notices: Option<Notices>,
    hooks: Vec<Hook>,
    client: Client<HttpsConnector<HttpConnector>, Pieces>,
}

struct Hook {
    /// What tasks call it.
    called: Option<String>,
    /// Its address, by which it is remembered how far it has been told.
    name: String,
    uri: Uri,
    secret: Secret,
    topics: Vec<String>,
    /// Tries of the entries that failed in a row, and when to try again.
    failures: u32,
    next_ms: i64,
}

impl Hook {
    fn wants(&self, topic: &str) -> bool {
        self.topics
            .iter()
            .any(|pattern| match pattern.strip_suffix('*') {
                Some(start) => topic.starts_with(start),
                None => pattern == topic,
            })
    }
}

impl Webhooks {
    /// The listeners of a configuration.
    pub(crate) fn build(
        books: Arc<dyn Books>,
        notices: Option<Notices>,
        config: &[Webhook],
        patience: &Upstream,
    ) -> Result<Self, String> {
        let hook = |it: &Webhook| {
            let uri = it.url.parse::<Uri>();
            Ok(Hook {
                called: it.name.clone(),
                name: it.url.clone(),
                uri: uri.map_err(|error| format!("webhook `{}`: {error}", masked(&it.url)))?,
                secret: it.secret.clone(),
                topics: it.topics.clone(),
                failures: 0,
                next_ms: 0,
            })
        };
        Ok(Self {
            books,
            notices,
            hooks: config.iter().map(hook).collect::<Result<_, String>>()?,
            client: outbound::client(patience)?,
        })
    }

    /// Tells until told to stop. What is cut by that comes again.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let telling = async {
            loop {
                tokio::time::sleep(EVERY).await;
                if let Err(error) = self.events().await {
                    tracing::warn!(%error, "the outbox could not be read");
                }
                if let Err(error) = self.tasks().await {
                    tracing::warn!(error, "notices about tasks could not be read");
                }
                for place in 0..self.hooks.len() {
                    if let Err(error) = self.entries(place).await {
                        tracing::warn!(%error, "entries could not be read for a webhook");
                    }
                }
            }
        };
        let _stopped: Option<()> = stop.run_until_cancelled(telling).await;
    }

    /// Delivers what of the outbox is due. An event is done when all who want it have it.
    async fn events(&self) -> Result<(), LedgerError> {
        let due = self
            .ask(|books| books.claim(now_ms(), LEASE_MS, BATCH))
            .await?;
        for event in due {
            let payload: Value = serde_json::from_str(&event.payload).unwrap_or(Value::Null);
            let body = json!({ "id": event.id, "topic": event.topic,
                "created_at_ms": event.created_at_ms, "data": payload });
            let body = Bytes::from(body.to_string());
            let mut failed = None;
            for hook in self.hooks.iter().filter(|hook| hook.wants(&event.topic)) {
                if let Err(error) = self.post(hook, &event.id, body.clone()).await {
                    tracing::warn!(
                        url = masked(&hook.name),
                        id = event.id,
                        error,
                        "an event was not taken"
                    );
                    failed = Some(error);
                }
            }
            let id = event.id;
            match failed {
                None => {
                    self.ask(move |books| books.delivered(&id, now_ms()))
                        .await?;
                }
                Some(error) => {
                    let next = now_ms() + wait_ms(event.attempts);
                    self.ask(move |books| books.failed(&id, next, &error))
                        .await?;
                }
            }
        }
        Ok(())
    }

    /// Delivers notices about tasks, each to the listener that its brief names.
    async fn tasks(&self) -> Result<(), String> {
        let Some(notices) = &self.notices else {
            return Ok(());
        };
        let due = notices.clone();
        for notice in blocking(move || due.due(LEASE_MS, BATCH)).await? {
            let told = self.notify(&notice).await;
            if let Err(error) = &told {
                let (id, webhook) = (&notice.id, &notice.webhook);
                tracing::warn!(webhook, id, error, "a notice about a task was not taken");
            }
            let notices = notices.clone();
            let outcome = move || notices.told(&notice, told.as_ref().copied().map_err(|it| &**it));
            blocking(outcome).await?;
        }
        Ok(())
    }

    async fn notify(&self, notice: &Notice) -> Result<(), String> {
        let is_meant = |hook: &&Hook| hook.called.as_deref() == Some(&notice.webhook);
        let hook = self.hooks.iter().find(is_meant);
        let hook = hook.ok_or_else(|| format!("no webhook is called `{}`", notice.webhook))?;
        let body = Bytes::from(notice.body.clone());
        self.post(hook, &notice.id, body).await
    }

    /// Tells a listener of the entries and corrections behind those that it knows.
    async fn entries(&mut self, place: usize) -> Result<(), LedgerError> {
        let Some(hook) = self.hooks.get(place) else {
            return Ok(());
        };
        if !hook.wants("usage") || hook.next_ms > now_ms() {
            return Ok(());
        }
        let name = hook.name.clone();
        let (after, rows) = self
            .ask(move |books| {
                let after = books.told(&name)?;
                let all = Span {
                    until_ms: i64::MAX,
                    ..Span::default()
                };
                Ok((after, books.events(&all, after, BATCH)?))
            })
            .await?;
        let Some(last) = rows.last().map(|row| export::seq(row)) else {
            return Ok(());
        };
        let id = format!("usage:{after}:{last}");
        let events: Vec<Value> = rows
            .iter()
            .map(|row| Value::from(export::object(row)))
            .collect();
        let body = json!({ "id": id, "topic": "usage", "data": events }).to_string();
        let told = self.post(hook, &id, Bytes::from(body)).await;
        let name = hook.name.clone();
        if told.is_ok() {
            self.ask(move |books| books.tell_up_to(&name, last)).await?;
        }
        if let Some(hook) = self.hooks.get_mut(place) {
            match told {
                Ok(()) => (hook.failures, hook.next_ms) = (0, 0),
                Err(error) => {
                    tracing::warn!(url = masked(&hook.name), error, "entries were not taken");
                    hook.next_ms = now_ms() + wait_ms(hook.failures);
                    hook.failures = hook.failures.saturating_add(1);
                }
            }
        }
        Ok(())
    }

    /// Asks the books, which block, off the reactor.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&dyn Books) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, LedgerError> {
        let books = Arc::clone(&self.books);
        let asked = tokio::task::spawn_blocking(move || question(&*books)).await;
        asked.unwrap_or_else(|error| {
            Err(LedgerError {
                what: "answer a webhook",
                cause: error.to_string(),
            })
        })
    }

    async fn post(&self, hook: &Hook, id: &str, body: Bytes) -> Result<(), String> {
        let timestamp = now_ms().div_euclid(1_000).to_string();
        let signature = sign(hook.secret.expose(), &timestamp, &body);
        let mut request = Request::new(Pieces::from(vec![body]));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = hook.uri.clone();
        let json = HeaderValue::from_static("application/json");
        request.headers_mut().insert(CONTENT_TYPE, json);
        for (name, value) in [
            ("x-pareto-event-id", id),
            ("x-pareto-timestamp", &timestamp),
            ("x-pareto-signature", &signature),
        ] {
            let value = HeaderValue::from_str(value).map_err(|error| error.to_string())?;
            request.headers_mut().insert(name, value);
        }
        let answer = tokio::time::timeout(PATIENCE, self.client.request(request)).await;
        let answer = answer.map_err(|_| "it did not answer in time".to_owned())?;
        let status = answer.map_err(|error| error.to_string())?.status();
        if status.is_success() {
            return Ok(());
        }
        Err(format!("it answered with status {status}"))
    }
}

/// Asks what blocks, off the reactor.
async fn blocking<T: Send + 'static>(
    question: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    let asked = tokio::task::spawn_blocking(question).await;
    asked.unwrap_or_else(|error| Err(error.to_string()))
}

/// `v1=` and the HMAC-SHA-256 of timestamp, dot and body, in hex.
fn sign(secret: &str, timestamp: &str, body: &[u8]) -> String {
    // A key of any length is good for an HMAC.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else {
        return String::new();
    };
    mac.update(timestamp.as_bytes());
    mac.update(b".");
    mac.update(body);
    format!("v1={}", hex(&mac.finalize().into_bytes()))
}

fn wait_ms(failures: u32) -> i64 {
    FIRST_WAIT_MS
        .saturating_mul(1_i64.checked_shl(failures.min(30)).unwrap_or(1))
        .min(LONGEST_WAIT_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_those_of_any_other_hmac() {
        // echo -n '1795000000.{}' | openssl dgst -sha256 -hmac secret
        let signature = sign("secret", "1795000000", b"{}");
        assert_eq!(
            signature,
            "v1=6b4c7e66d3b69c810f27c4aa67ee370757d4dfdabf1fbb338ea7cf6aba9e0494"
        );
    }

    #[test]
    fn waits_double_up_to_an_hour() {
        let waits: Vec<i64> = [0, 1, 2, 11, 12, 99].map(wait_ms).to_vec();
        assert_eq!(
            waits,
            [1_000, 2_000, 4_000, 2_048_000, 3_600_000, 3_600_000]
        );
    }
}
