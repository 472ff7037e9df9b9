//! Summaries of dropped turns, made by the fast tier through the gateway itself: routed, metered and
//! charged like any call of the tenant's. Each is made once and remembered.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::HeaderMap;
use http_body_util::BodyExt;
use meter::Subject;
use router::Step;
use tokio::time::{Instant, timeout_at};
use wire::Losses;
use wire::dialect::{self, Change};

use super::fit;
use crate::admission::Taken;
use crate::gateway::{self, Shared};
use crate::hints::Hint;
use crate::intake::Inbound;

/// What the fast tier is told.
const TOLD: &str = "Summarise the part of a conversation below for a model that will go on with it. Keep every \
    name, number, date, decision, instruction and open question. Write plain sentences, no preamble.";
/// Summaries made at a time: the caller waits, but the fast tier is not flooded.
const AT_A_TIME: usize = 4;
/// Summaries that become one where there are too many of them.
const FOLDED: usize = 8;
/// How long the caller waits for them all; the turns' first words do for the rest.
const PATIENCE: Duration = Duration::from_mins(1);
/// Summaries made for one call at most: a conversation grows by one at a time, and whoever brings more
/// at once gets first words for the oldest.
const MOST_MADE: usize = 64;

/// On whose behalf summaries are made.
pub(crate) struct By<'a> {
    pub(crate) shared: &'a Arc<Shared>,
    pub(crate) subject: &'a Subject,
    /// What the operator's rules look at: a summary goes to no model that may not see the conversation.
    pub(crate) headers: HeaderMap,
}

/// The summaries of `chunks`, in order, at most `most` of them: the oldest are summarised once more.
/// Where the fast tier fails, the first words of a chunk stand in.
pub(crate) async fn of(by: &By<'_>, chunks: &[String], most: usize) -> Vec<String> {
    let mut left = Left {
        made: MOST_MADE,
        until: Instant::now() + PATIENCE,
    };
    let mut summaries = all(by, chunks, &mut left).await;
    while let Some((groups, of)) = folds(summaries.len(), most.max(1)) {
        let newer = summaries.split_off(groups * of);
        let joined: Vec<String> = summaries.chunks(of).map(|old| old.join("\n")).collect();
        summaries = all(by, &joined, &mut left).await;
        summaries.extend(newer);
    }
    summaries
}

/// How many groups of the oldest of `count` summaries become one each, and of how many, so that no more
/// than `most` are left in the end, and hardly fewer; `None` where there are no more.
fn folds(count: usize, most: usize) -> Option<(usize, usize)> {
    let excess = count.checked_sub(most).filter(|excess| *excess > 0)?;
    let groups = (excess / (FOLDED - 1)).min(count / FOLDED);
    Some(match groups {
        0 => (1, (excess + 1).min(count)),
        groups => (groups, FOLDED),
    })
}

/// What may still be spent on one call.
struct Left {
    made: usize,
    until: Instant,
}

async fn all(by: &By<'_>, texts: &[String], left: &mut Left) -> Vec<String> {
    let (shared, subject) = (by.shared, by.subject);
    let known = |text: &String| shared.memory.summary(&subject.tenant, text);
    let mut summaries: Vec<Option<Arc<str>>> = texts.iter().map(known).collect();
    let missing = summaries
        .iter()
        .enumerate()
        .filter(|(_, known)| known.is_none());
    let missing: Vec<usize> = missing.map(|(at, _)| at).collect();
    // The newest are worth most.
    let made = missing
        .get(missing.len().saturating_sub(left.made)..)
        .unwrap_or_default();
    left.made -= made.len();
    let until = left.until;
    for group in made.chunks(AT_A_TIME) {
        let asked = group.iter().filter_map(|at| Some((*at, texts.get(*at)?)));
        let asked = asked.map(|(at, text)| async move { (at, one(by, text, until).await) });
        for (at, summary) in join_all(asked).await {
            if let Some(place) = summaries.get_mut(at) {
                *place = summary;
            }
        }
    }
    // What no model is asked for stays as it is: the prefix must not change when it is asked at last.
    for at in missing.iter().take(missing.len() - made.len()) {
        if let (Some(place), Some(text)) = (summaries.get_mut(*at), texts.get(*at)) {
            let words: Arc<str> = Arc::from(fit::extract(text));
            shared.memory.keep_summary(&subject.tenant, text, &words);
            *place = Some(words);
        }
    }
    let or_words = summaries.into_iter().zip(texts);
    or_words
        .map(|(known, text)| known.map_or_else(|| fit::extract(text), |it| it.to_string()))
        .collect()
}

async fn one(by: &By<'_>, text: &str, until: Instant) -> Option<Arc<str>> {
    let summary = timeout_at(until, made(by, text)).await.ok()??;
    let summary = Arc::from(summary);
    let tenant = &by.subject.tenant;
    by.shared.memory.keep_summary(tenant, text, &summary);
    Some(summary)
}

async fn made(by: &By<'_>, text: &str) -> Option<String> {
    let spoken = dialect::OPENAI_CHAT;
    let call = super::own_call("fast", TOLD, text.to_owned(), fit::SUMMARY);
    let change = Change {
        model: "fast",
        ..Change::default()
    };
    let body = spoken.encode(&call, &change, &mut Losses::default());
    let body = Bytes::from(body.to_string());
    let scan = spoken.scan(&body).ok()?;
    let inbound = Inbound {
        dialect: spoken,
        headers: by.headers.clone(),
        is_beta: false,
        body,
        scan,
        hint: Hint::of(Step::Summarise),
        room: Taken::default(),
    };
    let answer = gateway::ask(by.shared, by.subject, inbound).await.ok()?;
    if !answer.status().is_success() {
        return None;
    }
    let body = answer.into_body().collect().await.ok()?.to_bytes();
    super::answer_text(spoken, &body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_are_folded_and_hardly_more_than_must() {
        for most in 1..40 {
            for count in 0..300 {
                let mut left = count;
                while let Some((groups, of)) = folds(left, most) {
                    assert!(
                        of > 1 && of <= FOLDED && groups * of <= left,
                        "{count} {most}"
                    );
                    left -= groups * (of - 1);
                }
                assert_eq!(left, count.min(most), "{count} for {most}");
            }
        }
        assert_eq!(folds(50, 7), Some((6, 8)), "many at once, side by side");
        assert_eq!(folds(16, 15), Some((1, 2)));
    }
}
