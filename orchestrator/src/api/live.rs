//! A task's events as server-sent events: first how it stands, then each event under its number, as it
//! comes. Whoever comes back with the last number has missed nothing.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::Response;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use serde_json::Value;
use tokio::time::Instant;

use crate::desk::{Desk, Listening, Problem};
use crate::id::TaskId;
use crate::model::Body;
use crate::news::Listener;
use crate::state::State;
use crate::view;

use super::answer;
use super::events::{event, wanted};
use super::request::Question;

/// How often it is looked for what other nodes have written.
const LOOK: Duration = Duration::from_millis(500);
/// How often something is said, so that nothing on the way takes the stream for dead.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Events read at a time.
const PAGE: u32 = 200;

/// A stream under way.
struct Live {
    desk: Arc<Desk>,
    task: TaskId,
    types: Vec<String>,
    /// The last event that was told.
    after: u64,
    told: VecDeque<Bytes>,
    news: Listener,
    beat: Instant,
    is_over: bool,
    _counted: Listening,
}

/// The stream of a task's events behind `Last-Event-ID` or `after`, all of them where neither is said.
pub(super) fn stream(
    desk: &Arc<Desk>,
    it: &Question,
    state: &State,
) -> Result<Response<Body>, Problem> {
    let last = it.header("last-event-id").filter(|id| !id.is_empty());
    let after = match last {
        Some(last) => last
            .parse()
            .map_err(|_| Problem::field("Last-Event-ID", "is the number of an event"))?,
        None => it.number("after")?.unwrap_or(0),
    };
    let live = Live {
        task: state.id,
        types: it.words("types"),
        after,
        // It has no number: who leaves right behind it has heard no event.
        told: VecDeque::from([frame(None, "snapshot", &view::task(state))]),
        news: desk.news().listen(),
        beat: Instant::now() + HEARTBEAT,
        is_over: false,
        _counted: desk.listen(&it.caller)?,
        desk: Arc::clone(desk),
    };
    let pieces = stream::unfold(live, |mut live| async move {
        let piece = live.next().await?;
        Some((piece.map(Frame::data), live))
    });
    let mut response = answer::whole(200, "text/event-stream", "");
    *response.body_mut() = StreamBody::new(pieces).boxed_unsync();
    answer::set(&mut response, CONTENT_TYPE, "text/event-stream");
    answer::set(&mut response, CACHE_CONTROL, "no-cache");
    let unbuffered = HeaderName::from_static("x-accel-buffering");
    answer::set(&mut response, unbuffered, "no");
    Ok(response)
}

impl Live {
    /// The next piece; none after the end.
    async fn next(&mut self) -> Option<Result<Bytes, crate::model::BodyError>> {
        loop {
            if let Some(piece) = self.told.pop_front() {
                return Some(Ok(piece));
            }
            if self.is_over {
                return None;
            }
            match self.look().await {
                Ok(true) => {}
                Ok(false) => self.wait().await,
                // A broken stream is taken up again; a clean end would be the task's.
                Err(problem) => {
                    self.is_over = true;
                    return Some(Err(problem.message.into()));
                }
            }
        }
    }

    /// Takes in what has happened; false where nothing has.
    async fn look(&mut self) -> Result<bool, Problem> {
        let (task, after) = (self.task, self.after);
        let events = self
            .desk
            .ask(move |log| log.events(task, after, PAGE))
            .await?;
        for it in &events {
            self.after = it.seq;
            self.is_over |= it.kind == "task.ended";
            if wanted(&self.types, &it.kind) {
                self.told
                    .push_back(frame(Some(it.seq), &it.kind, &event(it)));
            }
        }
        if events.is_empty() {
            // Whoever comes back behind the last event gets no other.
            let row = self.desk.ask(move |log| log.task(task)).await?;
            self.is_over |= row.is_none_or(|row| row.ended && row.head.seq <= self.after);
        }
        Ok(!events.is_empty() || self.is_over)
    }

    /// Waits until something may have happened.
    async fn wait(&mut self) {
        tokio::select! {
            biased;
            () = self.desk.closed() => self.is_over = true,
            () = tokio::time::sleep_until(self.beat) => {
                self.beat = Instant::now() + HEARTBEAT;
                self.told.push_back(self.heartbeat().await);
            }
            () = self.news.of(self.task) => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }

    /// A comment that says what the task has cost so far.
    async fn heartbeat(&self) -> Bytes {
        let task = self.task;
        let row = self.desk.ask(move |log| log.task(task)).await;
        let summary = row.ok().flatten().map(|row| row.summary);
        let summary: Value = summary
            .and_then(|text| serde_json::from_str(&text).ok())
            .unwrap_or_default();
        let text = |at: &str| {
            let text = summary.pointer(at).and_then(Value::as_str);
            text.unwrap_or_default().to_owned()
        };
        let (status, cost) = (text("/status"), text("/usage/cost_usd"));
        Bytes::from(format!(": {status}, {cost} USD so far\n\n"))
    }
}

/// One event of the stream. JSON has no line ends, so it is one line.
fn frame(id: Option<u64>, kind: &str, data: &Value) -> Bytes {
    let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
    Bytes::from(format!("{id}event: {kind}\ndata: {data}\n\n"))
}
