//! A stream on its way through: frames in, frames out, with a reader beside them that only looks.

use std::collections::VecDeque;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use wire::Dialect;
use wire::dialect::{Facts, Seen, Watch};
use wire::sse::Splitter;

/// Frames and what has been seen in them.
#[derive(Debug)]
pub(super) struct Feed {
    splitter: Splitter,
    watch: Box<dyn Watch>,
    /// Usage was asked for by the gateway alone: its event does not go to the caller. Events then
    /// go out whole; otherwise frames go out as they came.
    strips_usage: bool,
    /// What goes to the caller next.
    pub(super) queue: VecDeque<Bytes>,
}

impl Feed {
    pub(super) fn new(dialect: &dyn Dialect, strips_usage: bool) -> Self {
        Self {
            splitter: Splitter::default(),
            watch: dialect.watch(),
            strips_usage,
            queue: VecDeque::with_capacity(4),
        }
    }

    pub(super) fn facts(&self) -> Facts {
        self.watch.facts()
    }

    /// Takes a frame and says what was in it: the end or an error before content before nothing.
    pub(super) fn push(&mut self, frame: Bytes) -> Seen {
        if !self.strips_usage {
            self.queue.push_back(frame.clone());
        }
        if self.splitter.push(frame).is_err() {
            return Seen::Error;
        }
        let mut most = Seen::Quiet;
        while let Some(event) = self.splitter.next_event() {
            let seen = self.watch.event(&event);
            if seen == Seen::Error {
                return Seen::Error;
            }
            if self.strips_usage && seen != Seen::UsageOnly {
                self.queue.push_back(event);
            }
            most = match (most, seen) {
                (_, Seen::End) | (Seen::End, _) => Seen::End,
                (_, Seen::Content) | (Seen::Content, _) => Seen::Content,
                _ => Seen::Quiet,
            };
        }
        most
    }

    /// Reads up to the first content, or the end of an empty answer; everything read is queued.
    pub(super) async fn until_content(&mut self, body: &mut Incoming) -> Result<(), &'static str> {
        loop {
            let frame = body
                .frame()
                .await
                .ok_or("its stream ended before any content")?;
            let frame = frame.map_err(|_| "its stream broke off before any content")?;
            let Ok(data) = frame.into_data() else {
                continue;
            };
            match self.push(data) {
                Seen::Content | Seen::End => return Ok(()),
                Seen::Error => return Err("its stream began with an error"),
                Seen::Quiet | Seen::UsageOnly => {}
            }
        }
    }

    /// What of a last event is left when the stream ends without a closing blank line.
    pub(super) fn flush(&mut self) {
        let rest = self.splitter.rest();
        if self.strips_usage && !rest.is_empty() {
            self.queue.push_back(rest);
        }
    }

    /// Ends an event that the caller has half of, and queues `event` behind it.
    pub(super) fn push_own(&mut self, event: String) {
        let half = !self.strips_usage && self.splitter.is_inside_event();
        self.splitter.rest();
        let event = if half { format!("\n\n{event}") } else { event };
        self.queue.push_back(Bytes::from(event));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = concat!(
        "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\"}}]}\n\n",
        "data: {\"choices\":[{\"delta\":{\"content\":\"Grüße 🙂\"}}]}\n\n",
        "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n",
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2}}\n\n",
        "data: [DONE]\n\n",
    );

    fn relayed(strips_usage: bool, frames: &[&[u8]]) -> (Vec<u8>, Facts) {
        let dialect = wire::dialect::named("openai_chat").expect("a dialect");
        let mut feed = Feed::new(dialect, strips_usage);
        for frame in frames {
            feed.push(Bytes::copy_from_slice(frame));
        }
        feed.flush();
        let out: Vec<Bytes> = feed.queue.drain(..).collect();
        (out.concat(), feed.facts())
    }

    #[test]
    fn a_stream_cut_anywhere_is_relayed_the_same() {
        let text = STREAM.as_bytes();
        let stripped: String = STREAM
            .split_inclusive("\n\n")
            .filter(|event| !event.contains("usage"))
            .collect();
        for cut in 0..=text.len() {
            let frames = [&text[..cut], &text[cut..]];
            let (kept, facts) = relayed(false, &frames);
            assert_eq!(kept, text, "cut at {cut}");
            assert_eq!(facts.usage.map(|usage| usage.output), Some(2));
            let (kept, facts) = relayed(true, &frames);
            assert_eq!(kept, stripped.as_bytes(), "cut at {cut}");
            assert!(facts.finished);
        }
    }

    #[test]
    fn an_own_event_never_lands_inside_another() {
        let dialect = wire::dialect::named("openai_chat").expect("a dialect");
        let mut feed = Feed::new(dialect, false);
        feed.push(Bytes::from_static(b"data: {\"choi"));
        feed.push_own("data: {\"error\":{}}\n\n".to_owned());
        let out: Vec<Bytes> = feed.queue.drain(..).collect();
        assert_eq!(out.concat(), b"data: {\"choi\n\ndata: {\"error\":{}}\n\n");
    }
}
