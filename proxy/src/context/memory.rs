//! What the gateway remembers of conversations: documents, written behind the calls into the
//! archive, and in front of it what every call may need at once.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest, Sha256};
use tokio::sync::Notify;
use wire::archive::{Archive, ArchiveError, Place, Shelf};
use wire::call::{Kind, Part, Turn};

use super::fit::Shape;
use super::place;
use super::recent::Recent;
use crate::clock::now_ms;
use crate::telemetry;

/// Documents that may wait to be written; more would mean that the disk has stopped.
const MOST_WAITING: usize = 10_000;
/// Bytes of conversations and responses kept open.
const MOST_OPEN_BYTES: usize = 64 << 20;
/// Responses looked through at the start for those that an earlier process was making.
const LATEST_RESPONSES: u32 = 1_000;
/// Values of each kind looked at again for what an earlier process has written late.
const LATE: u32 = 1_000;
/// How often a change is tried where others change the same document.
const TRIES: usize = 8;
/// Values kept at hand of each kind. A turn has some kilobytes, so this bounds memory to about 100 MB.
const MOST_AT_HAND: usize = 20_000;

/// Documents on their way into the archive.
#[derive(Debug, Default)]
struct Queue {
    waiting: HashMap<Place, Option<String>>,
    /// Being written just now; still read from here.
    writing: Arc<HashMap<Place, Option<String>>>,
    /// Conversations and responses as they are written, so that they can be changed at once.
    at_hand: HashMap<Place, String>,
    at_hand_bytes: usize,
    /// Counts changes: what was read before one must not be taken for the present state.
    changes: u64,
}

/// Only the archive knows.
struct Unread;

impl Queue {
    /// Keeps a conversation at hand.
    fn open(&mut self, place: Place, text: Option<&str>) {
        let opens = matches!(place.shelf, Shelf::Conversation | Shelf::Response);
        let Some(text) = text.filter(|text| opens && text.len() <= MOST_OPEN_BYTES) else {
            return;
        };
        self.close(&place);
        if self.at_hand_bytes + text.len() > MOST_OPEN_BYTES {
            self.at_hand.clear();
            self.at_hand_bytes = 0;
        }
        self.at_hand_bytes += text.len();
        self.at_hand.insert(place, text.to_owned());
    }

    /// Lays aside what was kept at hand.
    fn close(&mut self, place: &Place) {
        let known = self.at_hand.remove(place);
        self.at_hand_bytes -= known.map_or(0, |known| known.len());
    }

    /// The document at `place`, `None` where it was removed; or that it must be read.
    fn known(&self, place: &Place) -> Result<Option<&String>, Unread> {
        let changed = self.waiting.get(place).or_else(|| self.writing.get(place));
        let known = changed.map(Option::as_ref);
        known
            .or_else(|| self.at_hand.get(place).map(Some))
            .ok_or(Unread)
    }
}

/// The gateway's memory of conversations.
#[derive(Debug)]
pub(crate) struct Memory {
    archive: Arc<dyn Archive>,
    /// Nobody else writes to the archive, so what was read from it may be kept at hand.
    is_alone: AtomicBool,
    queue: Mutex<Queue>,
    wake: Notify,
    seals: Recent<Arc<str>>,
    turns: Recent<Arc<Turn>>,
    summaries: Recent<Arc<str>>,
    /// Turns cut off a transcript, by the digest of it up to where its tool results were shortened.
    shapes: Recent<usize>,
}

/// What is known of how a transcript was shortened.
#[derive(Debug)]
pub(crate) struct Shapes {
    /// The transcript's digest up to each of its turns.
    digests: Vec<u64>,
    /// The last shape it was given.
    pub(crate) latest: Shape,
}

/// A 64-bit digest of some parts; collisions would mix up two conversations of one tenant.
pub(crate) fn digest(parts: &[&str]) -> u64 {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
        hash.update(part.as_bytes());
    }
    let bytes = hash.finalize();
    bytes
        .iter()
        .take(8)
        .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

fn named(key: u64) -> String {
    format!("{key:016x}")
}

impl Memory {
    /// Opens the memory over `archive` and takes to hand what was used last. Where it is not alone, an earlier
    /// process still writes to the archive.
    pub(crate) fn open(archive: Arc<dyn Archive>, is_alone: bool) -> Result<Self, ArchiveError> {
        let memory = Self {
            is_alone: AtomicBool::new(is_alone),
            archive,
            queue: Mutex::new(Queue::default()),
            wake: Notify::new(),
            seals: Recent::new(MOST_AT_HAND),
            turns: Recent::new(MOST_AT_HAND),
            summaries: Recent::new(MOST_AT_HAND),
            shapes: Recent::new(MOST_AT_HAND),
        };
        memory.look(u32::try_from(MOST_AT_HAND / 2 - 1).unwrap_or(u32::MAX))?;
        if is_alone {
            memory.give_up(|_| false)?;
        }
        Ok(memory)
    }

    /// Takes to hand the latest `most` of each kind. Blocks.
    pub(crate) fn look(&self, most: u32) -> Result<(), ArchiveError> {
        let key = |place: &Place| u64::from_str_radix(&place.id, 16).unwrap_or(0);
        for (place, origin) in self.archive.latest(Shelf::Seal, most)? {
            self.seals.insert(key(&place), Arc::from(origin));
        }
        for (place, turn) in self.archive.latest(Shelf::Turn, most)? {
            if let Ok(turn) = serde_json::from_str(&turn) {
                self.turns.insert(key(&place), Arc::new(turn));
            }
        }
        for (place, summary) in self.archive.latest(Shelf::Summary, most)? {
            self.summaries.insert(key(&place), Arc::from(summary));
        }
        for (place, cut) in self.archive.latest(Shelf::Shape, most)? {
            if let Ok(cut) = cut.parse() {
                self.shapes.insert(key(&place), cut);
            }
        }
        Ok(())
    }

    /// The process before is gone: what it still made is never finished, and the archive is this one's
    /// alone. `is_made_here` tells of a response's id. Blocks.
    pub(crate) fn be_alone(&self, is_made_here: impl Fn(&str) -> bool) -> Result<(), ArchiveError> {
        self.look(LATE)?;
        self.give_up(is_made_here)?;
        self.is_alone.store(true, Ordering::Release);
        Ok(())
    }

    /// Marks responses as failed that an earlier process was making.
    fn give_up(&self, is_made_here: impl Fn(&str) -> bool) -> Result<(), ArchiveError> {
        for (place, text) in self.archive.latest(Shelf::Response, LATEST_RESPONSES)? {
            // What is known otherwise is this process's own.
            if is_made_here(&place.id) || self.queue().known(&place).is_ok() {
                continue;
            }
            if let Some(failed) = super::given_up(&text) {
                self.put(place, Some(failed));
            }
        }
        Ok(())
    }

    /// Which origin made the signature or sealed content `seal`, as far as that is at hand.
    pub(crate) fn origin_of(&self, tenant: &str, seal: &str) -> Option<Arc<str>> {
        let found = self.seals.get(digest(&[tenant, seal]));
        found.filter(|origin| !origin.is_empty())
    }

    /// Takes to hand who made `seals`; those that nobody knows are looked up once.
    pub(crate) async fn look_up(&self, tenant: &str, seals: &[Cow<'_, str>]) {
        let keys = seals.iter().map(|seal| digest(&[tenant, seal]));
        let unknown: Vec<u64> = keys.filter(|key| self.seals.get(*key).is_none()).collect();
        if unknown.is_empty() {
            return;
        }
        let (archive, tenant) = (Arc::clone(&self.archive), tenant.to_owned());
        let asked = unknown.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let read = |key: &u64| archive.get(&place(Shelf::Seal, &tenant, &named(*key)));
            asked.iter().map(read).collect::<Result<Vec<_>, _>>()
        });
        match reading.await {
            Ok(Ok(found)) => {
                for (key, origin) in unknown.into_iter().zip(found) {
                    self.seals
                        .insert(key, Arc::from(origin.unwrap_or_default()));
                }
            }
            Ok(Err(error)) => tracing::warn!(%error, "origins of signatures could not be read"),
            Err(_) => {}
        }
    }

    /// Remembers that `origin` made `seal`.
    pub(crate) fn keep_seal(&self, tenant: &str, seal: &str, origin: &Arc<str>) {
        let key = digest(&[tenant, seal]);
        if self.seals.get(key).is_none_or(|known| known != *origin) {
            self.seals.insert(key, Arc::clone(origin));
            self.put(
                place(Shelf::Seal, tenant, &named(key)),
                Some(origin.to_string()),
            );
        }
    }

    /// The turn that ends the transcript of this digest, as its origin wrote it.
    pub(crate) fn turn(&self, transcript: u64) -> Option<Arc<Turn>> {
        self.turns.get(transcript)
    }

    /// Remembers the turn that ends the transcript of this digest: its private parts are none that the
    /// caller can bring back.
    pub(crate) fn keep_turn(&self, tenant: &str, transcript: u64, turn: Turn) {
        if let Ok(text) = serde_json::to_string(&turn) {
            self.put(place(Shelf::Turn, tenant, &named(transcript)), Some(text));
        }
        self.turns.insert(transcript, Arc::new(turn));
    }

    /// The summary of `text`, if it was made before.
    pub(crate) fn summary(&self, tenant: &str, text: &str) -> Option<Arc<str>> {
        self.summaries.get(digest(&[tenant, text]))
    }

    /// Remembers the summary of `text`.
    pub(crate) fn keep_summary(&self, tenant: &str, text: &str, summary: &Arc<str>) {
        let key = digest(&[tenant, text]);
        self.summaries.insert(key, Arc::clone(summary));
        self.put(
            place(Shelf::Summary, tenant, &named(key)),
            Some(summary.to_string()),
        );
    }

    /// Keeps whole tool results at their handles.
    pub(crate) fn keep_results(&self, tenant: &str, results: Vec<(String, String)>) {
        for (handle, text) in results {
            self.put(place(Shelf::Result, tenant, &handle), Some(text));
        }
    }

    /// How far this transcript was shortened for `model` before.
    pub(crate) fn shapes(&self, tenant: &str, model: &str, turns: &[Turn]) -> Shapes {
        let mut digests = vec![digest(&[tenant, "shape", model])];
        for turn in turns {
            digests.push(transcript(digests.last().copied().unwrap_or(0), turn));
        }
        let mut known = digests.iter().enumerate().rev();
        let latest = known.find_map(|(trimmed, digest)| {
            let cut = self.shapes.get(*digest)?;
            Some(Shape { cut, trimmed })
        });
        Shapes {
            digests,
            latest: latest.unwrap_or_default(),
        }
    }

    /// Remembers that a transcript was shortened to `shape`.
    pub(crate) fn keep_shape(&self, tenant: &str, shapes: &Shapes, shape: Shape) {
        let Some(digest) = shapes.digests.get(shape.trimmed) else {
            return;
        };
        if shape != shapes.latest {
            self.shapes.insert(*digest, shape.cut);
            let place = place(Shelf::Shape, tenant, &named(*digest));
            self.put(place, Some(shape.cut.to_string()));
        }
    }

    /// Puts or removes a document. It can be read from now on, and is written soon.
    pub(crate) fn put(&self, place: Place, value: Option<String>) {
        let mut queue = self.queue();
        queue.changes += 1;
        queue.close(&place);
        queue.open(place.clone(), value.as_deref());
        let is_full = queue.waiting.len() >= MOST_WAITING && value.is_some();
        if is_full && !queue.waiting.contains_key(&place) {
            drop(queue);
            telemetry::forgotten();
            let shelf = place.shelf.as_str();
            tracing::error!(shelf, "the archive does not keep up; a document is lost");
            return;
        }
        queue.waiting.insert(place, value);
        drop(queue);
        self.wake.notify_one();
    }

    /// The document at `place`.
    pub(crate) async fn get(&self, place: Place) -> Result<Option<String>, ArchiveError> {
        let changes = {
            let mut queue = self.queue();
            if let Ok(found) = queue.known(&place) {
                let found = found.cloned();
                queue.open(place, found.as_deref());
                return Ok(found);
            }
            queue.changes
        };
        let (archive, wanted) = (Arc::clone(&self.archive), place.clone());
        let reading = tokio::task::spawn_blocking(move || archive.get(&wanted)).await;
        let found = reading.unwrap_or_else(|error| {
            let cause = error.to_string();
            Err(ArchiveError {
                what: "read a document",
                cause,
            })
        })?;
        let mut queue = self.queue();
        if queue.changes == changes && self.is_alone.load(Ordering::Acquire) {
            queue.open(place, found.as_deref());
        }
        Ok(found)
    }

    /// Changes the document at `place` in one step; `false` where there is none, or `change` leaves it.
    /// The work is done outside the lock, and anew if somebody else was faster.
    pub(crate) async fn update(
        &self,
        place: Place,
        change: impl Fn(&str) -> Option<String>,
    ) -> bool {
        for _ in 0..TRIES {
            let Ok(Some(before)) = self.get(place.clone()).await else {
                return false;
            };
            let Some(after) = change(&before) else {
                return false;
            };
            if self.swap(&place, &before, after) {
                return true;
            }
        }
        false
    }

    /// As [`Memory::update`], for a document that lies at hand; `None` where it does not.
    pub(crate) fn update_at_hand(
        &self,
        place: &Place,
        change: impl Fn(&str) -> Option<String>,
    ) -> Option<bool> {
        for _ in 0..TRIES {
            let before = self.queue().known(place).ok()?.cloned();
            let Some(after) = before.as_deref().and_then(&change) else {
                return Some(false);
            };
            if self.swap(place, before.as_deref().unwrap_or_default(), after) {
                return Some(true);
            }
        }
        None
    }

    /// Puts `after` where `before` still stands; `false` where it does not.
    fn swap(&self, place: &Place, before: &str, after: String) -> bool {
        let mut queue = self.queue();
        // What is not at hand any more can not have been changed since without being so.
        let known = queue.known(place);
        if known.is_ok_and(|known| known.map(String::as_str) != Some(before)) {
            return false;
        }
        queue.changes += 1;
        queue.open(place.clone(), Some(&after));
        queue.waiting.insert(place.clone(), Some(after));
        drop(queue);
        self.wake.notify_one();
        true
    }

    /// Says that something waits to be written.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Waits until something waits to be written.
    pub(crate) async fn wanted(&self) {
        self.wake.notified().await;
    }

    /// Writes everything that waits. Blocks.
    pub(crate) fn write(&self) -> Result<(), ArchiveError> {
        let batch = {
            let mut queue = self.queue();
            queue.writing = Arc::new(std::mem::take(&mut queue.waiting));
            Arc::clone(&queue.writing)
        };
        if batch.is_empty() {
            return Ok(());
        }
        let changes: Vec<_> = batch
            .iter()
            .map(|(place, value)| (place.clone(), value.clone()))
            .collect();
        let written = self.archive.put(&changes, now_ms());
        let mut queue = self.queue();
        queue.writing = Arc::default();
        if written.is_err() {
            for (place, value) in changes {
                queue.waiting.entry(place).or_insert(value);
            }
        }
        written
    }

    /// Removes what is older than `before_ms`. Blocks.
    pub(crate) fn prune(&self, before_ms: i64) -> Result<u64, ArchiveError> {
        self.archive.prune(before_ms)
    }

    /// Bytes that the archive takes, once its oldest documents have made room for the others: `most`
    /// at most. Blocks.
    pub(crate) fn shrink(&self, most: u64) -> Result<u64, ArchiveError> {
        let bytes = self.archive.bytes()?;
        if bytes <= most {
            return Ok(bytes);
        }
        let gone = self.archive.shrink(most / 10 * 9)?;
        tracing::warn!(
            documents = gone,
            "context.max_mb is reached: the oldest conversations are forgotten before their time"
        );
        self.archive.bytes()
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The handle that a tool result goes by.
pub(crate) fn handle(tenant: &str, text: &str) -> String {
    format!("result_{}", named(digest(&[tenant, text])))
}

/// The digest of a transcript without a turn.
pub(crate) fn no_transcript(tenant: &str) -> u64 {
    digest(&[tenant])
}

/// The digest of a transcript with one more turn. Only what every dialect shows counts: a turn is the
/// same whether its private parts are there or not.
pub(crate) fn transcript(before: u64, turn: &Turn) -> u64 {
    let (mut said, mut calls) = (String::new(), String::new());
    shown(&turn.parts, &mut said, &mut calls);
    digest(&[&named(before), &said, &calls])
}

fn shown(parts: &[Part], said: &mut String, calls: &mut String) {
    for part in parts {
        match &part.kind {
            Kind::Text(text) => said.push_str(&text.text),
            Kind::Refusal(text) => said.push_str(text),
            Kind::ToolCall(call) => {
                // Clients write the arguments anew, with other white space.
                let parsed: Option<serde_json::Value> = serde_json::from_str(&call.arguments).ok();
                let arguments = parsed.map_or_else(|| call.arguments.clone(), |it| it.to_string());
                for word in [&call.id, &call.name, &arguments] {
                    calls.push_str(word);
                    calls.push('\0');
                }
            }
            Kind::ToolResult(result) => {
                calls.push_str(&result.id);
                shown(&result.parts, said, calls);
            }
            _ => {}
        }
    }
}
