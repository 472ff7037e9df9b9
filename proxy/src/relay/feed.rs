//! A stream on its way through: frames in, whole events out, as they came or in the caller's dialect,
//! with a reader beside them that only looks.

use std::collections::VecDeque;

use bytes::Bytes;
use http_body_util::BodyExt;
use memchr::memmem;
use wire::dialect::{Asked, Facts, Seen, Watch};
use wire::sse::{MAX_EVENT, Splitter};
use wire::translate::Translator;

use super::keeper::Keeper;
use crate::cascade::Glimpse;
use crate::runtime::{Target, count};
use crate::telemetry;
use crate::upstream::Answer;

/// Frames and what has been seen in them.
#[derive(Debug)]
pub(super) struct Feed {
    splitter: Splitter,
    watch: Box<dyn Watch>,
    way: Way,
    beside: Beside,
    /// Events that were translated for the caller.
    told: u64,
    /// What goes to the caller next.
    pub(super) queue: VecDeque<Bytes>,
    /// What came in one frame with the first content, and was not looked at yet.
    beyond: Bytes,
}

/// Who looks at the events that go by.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "the large one is the usual one, and needs no allocation"
)]
enum Beside {
    Nobody,
    Keeper(Keeper),
    /// Nothing is released yet: the answer is looked at, and not yet remembered.
    Held(Box<Held>),
}

/// A stream that is held back.
#[derive(Debug)]
struct Held {
    keeper: Keeper,
    glimpse: Glimpse,
    /// What the keeper has not seen.
    unkept: Vec<(Bytes, Seen)>,
}

/// What becomes of an event.
#[derive(Debug)]
enum Way {
    /// It goes out as it came.
    Through,
    /// So do all but the usage, which was asked for by the gateway alone.
    ThroughButUsage,
    /// It is translated.
    Translated(Box<Translator>),
}

impl Feed {
    /// A stream of `target` for a caller of the same dialect.
    pub(super) fn through(target: &Target, strips_usage: bool, keeper: Option<Keeper>) -> Self {
        let way = if strips_usage {
            Way::ThroughButUsage
        } else {
            Way::Through
        };
        Self::new(target.dialect.watch(), way, keeper)
    }

    /// A stream of `target` for the caller of another dialect who asked `asked`.
    pub(super) fn translated(
        target: &Target,
        to: &'static dyn wire::Dialect,
        asked: Asked,
        keeper: Keeper,
    ) -> Self {
        let translator = Translator::new(target.dialect, &target.endpoint.origin, to, asked);
        Self::new(
            target.dialect.watch(),
            Way::Translated(Box::new(translator)),
            Some(keeper),
        )
    }

    fn new(watch: Box<dyn Watch>, way: Way, keeper: Option<Keeper>) -> Self {
        Self {
            splitter: Splitter::default(),
            watch,
            way,
            beside: keeper.map_or(Beside::Nobody, Beside::Keeper),
            told: 0,
            queue: VecDeque::with_capacity(4),
            beyond: Bytes::new(),
        }
    }

    /// What has been seen so far.
    pub(super) fn facts(&self) -> Facts {
        let mut facts = self.watch.facts();
        if let (Way::Translated(translator), None) = (&self.way, facts.usage) {
            // The text is at hand here, so nothing has to be guessed from lengths.
            facts.counted = Some(count(&translator.assembler().seen()));
        }
        facts
    }

    /// Events so far that carried a piece of the answer: each has a token at least.
    pub(super) fn content_events(&self) -> u64 {
        self.watch.facts().content_events
    }

    /// What the upstream said of its failure.
    pub(super) fn failure(&self) -> Option<&str> {
        match &self.way {
            Way::Translated(translator) => translator.failed(),
            Way::Through | Way::ThroughButUsage => None,
        }
    }

    /// Takes a frame and says what was in it: the end or an error before content before nothing. What
    /// stands behind the end is nobody's answer, and dropped.
    pub(super) fn push(&mut self, frame: Bytes) -> Seen {
        self.read(frame, false)
    }

    /// What came with the first content, to be pushed next.
    pub(super) fn beyond(&mut self) -> Option<Bytes> {
        let beyond = std::mem::take(&mut self.beyond);
        (!beyond.is_empty()).then_some(beyond)
    }

    /// Reads a frame, up to its first content at most where `stops_there`: how much an endpoint sends at
    /// once must not decide whether a failure is one before or after that.
    fn read(&mut self, frame: Bytes, stops_there: bool) -> Seen {
        if self.splitter.push(frame).is_err() {
            return Seen::Broken;
        }
        let (whole, mut through) = (self.splitter.pending(), 0);
        let mut most = Seen::Quiet;
        while let Some(event) = self.splitter.next_event() {
            let seen = self.watch.event(&event);
            if seen == Seen::Broken {
                // Not even an event: nobody could read it.
                self.pass(&whole, through);
                return seen;
            }
            through += event.len();
            match &mut self.beside {
                Beside::Keeper(keeper) if !matches!(self.way, Way::Translated(_)) => {
                    keeper.passed(&event, seen == Seen::End);
                }
                Beside::Held(held) => {
                    held.glimpse.event(&event);
                    held.unkept.push((event.clone(), seen));
                }
                Beside::Keeper(_) | Beside::Nobody => {}
            }
            self.take(event, seen);
            if seen == Seen::Error {
                self.pass(&whole, through);
                return seen;
            }
            if seen == Seen::End {
                self.splitter.rest();
                most = seen;
                break;
            }
            if seen == Seen::Content {
                most = seen;
                if stops_there {
                    self.beyond = self.splitter.rest();
                    break;
                }
            }
        }
        self.pass(&whole, through);
        most
    }

    /// Queues the whole events of a frame in one piece. What is only half there waits: a caller could
    /// not use it, and might get an error event in its middle.
    fn pass(&mut self, whole: &Bytes, through: usize) {
        if through > 0 && matches!(self.way, Way::Through) {
            self.queue.push_back(whole.slice(..through));
        }
    }

    fn take(&mut self, event: Bytes, seen: Seen) {
        match &mut self.way {
            Way::Through => {}
            Way::ThroughButUsage => {
                if seen != Seen::UsageOnly {
                    self.queue.push_back(event);
                }
            }
            Way::Translated(translator) => {
                let mut out = String::new();
                translator.event(&event, &mut out);
                if !out.is_empty() {
                    self.told += events_in(&out);
                    self.queue.push_back(Bytes::from(out));
                }
                if seen == Seen::End {
                    self.ended();
                }
            }
        }
    }

    /// The translated answer is whole.
    fn ended(&mut self) {
        let (Way::Translated(translator), false) = (&self.way, self.is_held()) else {
            return;
        };
        telemetry::lost(translator.losses());
        if let (Beside::Keeper(keeper), Some(reply)) =
            (&mut self.beside, translator.assembler().whole())
        {
            keeper.translated(translator.call(), reply, translator.whole());
        }
    }

    /// Holds back what comes: it is queued, and remembered only once it is released.
    pub(super) fn hold_back(&mut self, glimpse: Glimpse) {
        self.beside = match std::mem::replace(&mut self.beside, Beside::Nobody) {
            Beside::Keeper(keeper) => Beside::Held(Box::new(Held {
                keeper,
                glimpse,
                unkept: Vec::new(),
            })),
            other => other,
        };
    }

    pub(super) fn is_held(&self) -> bool {
        matches!(self.beside, Beside::Held(_))
    }

    /// What is seen of the answer that is held.
    pub(super) fn glimpse(&self) -> Option<&Glimpse> {
        match &self.beside {
            Beside::Held(held) => Some(&held.glimpse),
            Beside::Keeper(_) | Beside::Nobody => None,
        }
    }

    /// Lets what is held go on its way.
    pub(super) fn release(&mut self) {
        match std::mem::replace(&mut self.beside, Beside::Nobody) {
            Beside::Held(held) => {
                let Held {
                    mut keeper, unkept, ..
                } = *held;
                if !matches!(self.way, Way::Translated(_)) {
                    for (event, seen) in &unkept {
                        keeper.passed(event, *seen == Seen::End);
                    }
                }
                self.beside = Beside::Keeper(keeper);
                if unkept.iter().any(|(_, seen)| *seen == Seen::End) {
                    self.ended();
                }
            }
            other => self.beside = other,
        }
    }

    /// Bytes that wait for the caller.
    pub(super) fn queued(&self) -> usize {
        self.queue.iter().map(Bytes::len).sum()
    }

    /// Reads up to the first content, or the end of an empty answer; everything read is queued.
    pub(super) async fn until_content(&mut self, body: &mut Answer) -> Result<Seen, &'static str> {
        // All of it waits here, so that it must have a bound: no more than one event may.
        let mut room = MAX_EVENT;
        loop {
            let frame = body
                .frame()
                .await
                .ok_or("its stream ended before any content")?;
            let frame = frame.map_err(|_| "its stream broke off before any content")?;
            let Ok(data) = frame.into_data() else {
                continue;
            };
            room = room
                .checked_sub(data.len())
                .ok_or("its stream said too much before any content")?;
            match self.read(data, true) {
                Seen::End if self.facts().says_nothing() => {
                    return Err("its stream ended before any content");
                }
                seen @ (Seen::Content | Seen::End) => return Ok(seen),
                Seen::Error => return Err("its stream began with an error"),
                Seen::Broken => return Err("its stream is not of its dialect"),
                Seen::Quiet | Seen::UsageOnly => {}
            }
        }
    }

    /// What is left to be said when the stream ends behind a finished answer without its last event.
    pub(super) fn flush(&mut self) {
        let rest = self.splitter.rest();
        match &mut self.way {
            Way::Through | Way::ThroughButUsage if !rest.is_empty() => self.queue.push_back(rest),
            Way::Through | Way::ThroughButUsage => {}
            Way::Translated(translator) => {
                let mut out = String::new();
                translator.finish(&mut out);
                self.queue.push_back(Bytes::from(out));
                self.ended();
            }
        }
    }

    /// The number of the event that comes next, where the caller's dialect counts them.
    pub(super) fn next(&self) -> u64 {
        let passed = || self.watch.facts().numbered;
        match &self.way {
            Way::Translated(_) => self.told,
            _ => passed().map_or(0, |last| last.saturating_add(1)),
        }
    }

    /// Queues an event of our own; whatever is only half there is dropped.
    pub(super) fn push_own(&mut self, event: String) {
        self.splitter.rest();
        self.queue.push_back(Bytes::from(event));
    }
}

/// How many events a translator wrote.
fn events_in(written: &str) -> u64 {
    let ends = memmem::find_iter(written.as_bytes(), b"\n\n");
    u64::try_from(ends.count()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use wire::dialect::OPENAI_CHAT;

    use super::*;

    const STREAM: &str = concat!(
        "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\"}}]}\n\n",
        "data: {\"choices\":[{\"delta\":{\"content\":\"Grüße 🙂\"}}]}\n\n",
        "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n",
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2}}\n\n",
        "data: [DONE]\n\n",
    );

    fn feed(strips_usage: bool) -> Feed {
        let way = if strips_usage {
            Way::ThroughButUsage
        } else {
            Way::Through
        };
        Feed::new(OPENAI_CHAT.watch(), way, None)
    }

    fn relayed(strips_usage: bool, frames: &[&[u8]]) -> (Vec<u8>, Facts) {
        let mut feed = feed(strips_usage);
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
    fn what_is_broken_or_half_never_reaches_the_caller() {
        let good = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n";
        for bad in ["data: {\"choices\":[{broken\n\n", "data: {\"choi"] {
            let mut feed = feed(false);
            feed.push(Bytes::from(format!("{good}{bad}")));
            feed.push_own("data: {\"error\":{}}\n\n".to_owned());
            let out: Vec<Bytes> = feed.queue.drain(..).collect();
            let wanted = format!("{good}data: {{\"error\":{{}}}}\n\n");
            assert_eq!(out.concat(), wanted.as_bytes());
        }
    }
}
