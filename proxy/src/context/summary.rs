//! Summaries of dropped turns, made by the fast tier through the gateway itself: routed, metered and
//! charged like any call of the tenant's. Each is made once and remembered.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use http_body_util::BodyExt;
use meter::Subject;
use wire::Losses;
use wire::dialect::{self, Change};

use super::fit::{self, Dropped};
use crate::gateway::{self, Shared};
use crate::intake::Inbound;

/// What the fast tier is told.
const TOLD: &str = "Summarise the part of a conversation below for a model that will go on with it. Keep every \
    name, number, date, decision, instruction and open question. Write plain sentences, no preamble.";

/// The summaries of what was dropped, in order; where the fast tier fails, the turns' first words.
pub(crate) async fn of(shared: &Arc<Shared>, subject: &Subject, dropped: &Dropped) -> Vec<String> {
    let mut summaries = Vec::with_capacity(dropped.chunks.len());
    for chunk in &dropped.chunks {
        if let Some(known) = shared.memory.summary(&subject.tenant, chunk) {
            summaries.push(known.to_string());
            continue;
        }
        match made(shared, subject, chunk).await {
            Some(summary) => {
                let summary = Arc::from(summary);
                shared.memory.keep_summary(&subject.tenant, chunk, &summary);
                summaries.push(summary.to_string());
            }
            None => summaries.push(fit::extract(chunk)),
        }
    }
    summaries
}

async fn made(shared: &Arc<Shared>, subject: &Subject, chunk: &str) -> Option<String> {
    let spoken = dialect::OPENAI_CHAT;
    let call = super::own_call("fast", TOLD, chunk.to_owned(), fit::SUMMARY);
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
        body,
        scan,
    };
    let answer = gateway::ask(shared, subject, inbound).await.ok()?;
    let body = answer.into_body().collect().await.ok()?.to_bytes();
    super::answer_text(spoken, &body)
}
