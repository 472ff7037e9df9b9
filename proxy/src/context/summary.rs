//! Summaries of dropped turns, made by the fast tier through the gateway itself: routed, metered and
//! charged like any call of the tenant's. Each is made once and remembered.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::HeaderMap;
use http_body_util::BodyExt;
use meter::Subject;
use tokio::time::timeout;
use wire::Losses;
use wire::dialect::{self, Change};

use super::fit::{self, Dropped};
use crate::gateway::{self, Shared};
use crate::intake::Inbound;

/// What the fast tier is told.
const TOLD: &str = "Summarise the part of a conversation below for a model that will go on with it. Keep every \
    name, number, date, decision, instruction and open question. Write plain sentences, no preamble.";
/// Summaries made at a time: the caller waits, but the fast tier is not flooded.
const AT_A_TIME: usize = 4;
/// Summaries that become one where there are too many of them.
const FOLDED: usize = 8;
/// How long the caller waits for one; the turns' first words do otherwise.
const PATIENCE: Duration = Duration::from_secs(30);

/// The summaries of what was dropped, in order, at most `most` of them: older ones are summarised once
/// more. Where the fast tier fails, the turns' first words stand in.
pub(crate) async fn of(
    shared: &Arc<Shared>,
    subject: &Subject,
    dropped: &Dropped,
    most: usize,
) -> Vec<String> {
    let mut summaries = all(shared, subject, &dropped.chunks).await;
    while summaries.len() > most.max(1) {
        let groups: Vec<String> = summaries
            .chunks(FOLDED)
            .map(|group| group.join("\n"))
            .collect();
        summaries = all(shared, subject, &groups).await;
    }
    summaries
}

async fn all(shared: &Arc<Shared>, subject: &Subject, texts: &[String]) -> Vec<String> {
    let mut summaries = Vec::with_capacity(texts.len());
    for group in texts.chunks(AT_A_TIME) {
        let made = group.iter().map(|text| one(shared, subject, text));
        summaries.extend(join_all(made).await);
    }
    summaries
}

async fn one(shared: &Arc<Shared>, subject: &Subject, text: &str) -> String {
    if let Some(known) = shared.memory.summary(&subject.tenant, text) {
        return known.to_string();
    }
    let Ok(Some(summary)) = timeout(PATIENCE, made(shared, subject, text)).await else {
        return fit::extract(text);
    };
    let summary = Arc::from(summary);
    shared.memory.keep_summary(&subject.tenant, text, &summary);
    summary.to_string()
}

async fn made(shared: &Arc<Shared>, subject: &Subject, text: &str) -> Option<String> {
    let spoken = dialect::OPENAI_CHAT;
    let call = super::own_call("fast", TOLD, text.to_owned(), fit::SUMMARY);
    let change = Change {
        model: "fast",
        cap: None,
        cap_field: "",
        most_output: None,
    };
    let body = spoken.encode(&call, &change, &mut Losses::default());
    let body = Bytes::from(body.to_string());
    let scan = spoken.scan(&body).ok()?;
    let inbound = Inbound {
        dialect: spoken,
        headers: HeaderMap::new(),
        is_beta: false,
        body,
        scan,
    };
    let answer = gateway::ask(shared, subject, inbound).await.ok()?;
    if !answer.status().is_success() {
        return None;
    }
    let body = answer.into_body().collect().await.ok()?.to_bytes();
    super::answer_text(spoken, &body)
}
