//! One call's way through one model at one endpoint, with one of its keys: it counts as under way until it is
//! dropped, and says in the end what it has shown.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use http::HeaderMap;

use super::balance::{Equal, Lean, choose};
use super::breaker::Entry;
use super::{LONGEST_PAUSE_MS, luck, used_up_ms};
use crate::clock::{now_ms, uptime_ms};
use crate::runtime::Target;
use crate::telemetry;
use crate::upstream::Key;

/// How long a key is set aside that its endpoint refuses, in milliseconds.
const REFUSED_MS: i64 = 60_000;

/// Why a model at an endpoint takes no call now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shut {
    /// It failed, or refuses its keys. The lower the number, the better it is.
    Rests(i64),
    /// It asked for a pause, which ends in so many milliseconds.
    Pauses(u64),
    /// Its endpoint has as many calls as it gets at once.
    Full,
}

/// How a key stands with one model.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    /// When the pauses are over that the endpoint asked for, and when it is asked again that refused the
    /// key for this model.
    paused_until_ms: AtomicI64,
    refused_until_ms: AtomicI64,
}

impl Standing {
    fn is_paused(&self, now_ms: i64) -> bool {
        self.paused_until_ms.load(Ordering::Relaxed) > now_ms
    }

    fn is_refused(&self, now_ms: i64) -> bool {
        self.refused_until_ms.load(Ordering::Relaxed) > now_ms
    }

    /// Lets a pause end no earlier than in `ms`.
    fn pause(&self, ms: u64) {
        let ms = i64::try_from(ms.min(LONGEST_PAUSE_MS)).unwrap_or(0);
        self.paused_until_ms
            .fetch_max(uptime_ms() + ms, Ordering::Relaxed);
    }
}

/// A call at a model.
#[derive(Debug)]
pub(crate) struct Passage {
    target: Arc<Target>,
    key: Arc<Key>,
    place: usize,
    entry: Entry,
    is_judged: bool,
    /// It is counted by the endpoint's limit.
    is_limited: bool,
    /// Set when another attempt that is made beside it has been quicker.
    is_beaten: Option<Arc<AtomicBool>>,
}

impl Target {
    /// Whether a call would be let through.
    pub(crate) fn is_usable(&self, now_ms: i64) -> bool {
        self.health.is_usable(now_ms) && self.open_keys(now_ms).next().is_some()
    }

    /// Keys that the endpoint takes, with their places and how they stand.
    fn keys(&self, now_ms: i64) -> impl Iterator<Item = (usize, &Arc<Key>, &Standing)> {
        let keys = self.endpoint.keys.iter().zip(self.standings.iter());
        keys.enumerate()
            .map(|(place, (key, standing))| (place, key, standing))
            .filter(move |(_, key, standing)| key.is_taken(now_ms) && !standing.is_refused(now_ms))
    }

    /// Keys that can be used now.
    fn open_keys(&self, now_ms: i64) -> impl Iterator<Item = (usize, &Arc<Key>)> {
        self.keys(now_ms)
            .filter(move |(_, _, standing)| !standing.is_paused(now_ms))
            .map(|(place, key, _)| (place, key))
    }

    /// This model at all endpoints where it is the same.
    pub(crate) fn equals(self: &Arc<Self>) -> impl Iterator<Item = &Arc<Self>> {
        std::iter::once(self).chain(&self.also)
    }

    /// The same, in the order in which a call is to try them.
    pub(crate) fn arranged<'a>(self: &'a Arc<Self>, lean: Lean, to: &mut Vec<&'a Arc<Self>>) {
        if self.also.is_empty() {
            to.push(self);
            return;
        }
        let now_ms = uptime_ms();
        let (mut well, mut rest): (Vec<_>, Vec<_>) =
            self.equals().partition(|it| it.is_usable(now_ms));
        let equals: Vec<Equal> = well.iter().map(|it| it.as_equal(now_ms)).collect();
        if let Some(first) = choose(&equals, lean) {
            to.push(well.remove(first));
        }
        well.sort_by_key(|it| it.health.under_way());
        to.append(&mut well);
        to.append(&mut rest);
    }

    fn as_equal(&self, now_ms: i64) -> Equal {
        Equal {
            seed: self.seed,
            calls: self.health.under_way(),
            first_ms: self.health.first_byte_ms(now_ms).unwrap_or(0),
        }
    }

    /// The key that a call goes with: its conversation's, or that with the fewest calls under way.
    fn key(&self, lean: Lean, now_ms: i64) -> Option<(usize, &Arc<Key>)> {
        let keys = self.open_keys(now_ms);
        let (Lean::To(_), false) = (lean, self.endpoint.keys.len() == 1) else {
            return keys.min_by_key(|(_, key)| key.under_way());
        };
        let keys: Vec<_> = keys.collect();
        let of = |(place, key): &(usize, &Arc<Key>)| Equal {
            seed: u64::try_from(*place).unwrap_or(0),
            calls: key.under_way(),
            first_ms: 0,
        };
        let equals: Vec<Equal> = keys.iter().map(of).collect();
        keys.get(choose(&equals, lean)?).copied()
    }

    /// Lets a call through, with one of the keys.
    ///
    /// # Errors
    /// When it takes no call now.
    pub(crate) fn enter(self: &Arc<Self>, lean: Lean, now_ms: i64) -> Result<Passage, Shut> {
        let Some((place, key)) = self.key(lean, now_ms) else {
            return Err(self.shut(now_ms));
        };
        let limit = self.endpoint.limit.as_ref();
        if limit.is_some_and(|it| !it.enter()) {
            return Err(Shut::Full);
        }
        let Some(entry) = self.health.enter(now_ms) else {
            limit.inspect(|it| it.leave());
            return Err(Shut::Rests(self.health.until_ms()));
        };
        let mut passage = Passage::new(self, (place, key), entry);
        passage.is_limited = limit.is_some();
        Ok(passage)
    }

    /// Lets a call through although it rests: nobody better is left.
    pub(crate) fn enter_all_the_same(self: &Arc<Self>) -> Option<Passage> {
        let now_ms = uptime_ms();
        let keys = self.endpoint.keys.iter().zip(self.standings.iter());
        let best = keys.enumerate().min_by_key(|(_, (key, standing))| {
            let is_refused = !key.is_taken(now_ms) || standing.is_refused(now_ms);
            (is_refused, standing.is_paused(now_ms), key.under_way())
        });
        best.map(|(place, (key, _))| Passage::new(self, (place, key), Entry::Panic))
    }

    /// Why none of its keys can be used.
    fn shut(&self, now_ms: i64) -> Shut {
        let pauses = self
            .keys(now_ms)
            .map(|(_, _, standing)| standing.paused_until_ms.load(Ordering::Relaxed));
        match pauses.min() {
            Some(until) => Shut::Pauses(u64::try_from(until - now_ms).unwrap_or(0)),
            None => Shut::Rests(i64::MAX),
        }
    }
}

impl Passage {
    fn new(target: &Arc<Target>, (place, key): (usize, &Arc<Key>), entry: Entry) -> Self {
        target.health.under_way.fetch_add(1, Ordering::Relaxed);
        key.enter();
        Self {
            target: Arc::clone(target),
            key: Arc::clone(key),
            place,
            entry,
            is_judged: false,
            is_limited: false,
            is_beaten: None,
        }
    }

    /// The key that the call goes with.
    pub(crate) fn shared_key(&self) -> Arc<Key> {
        Arc::clone(&self.key)
    }

    /// The model that the call goes to.
    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// Another attempt may be made beside it; `is_beaten` will say that this one is not waited for any more.
    pub(crate) fn races(&mut self, is_beaten: &Arc<AtomicBool>) {
        self.is_beaten = Some(Arc::clone(is_beaten));
    }

    /// Whether another attempt has been quicker.
    pub(crate) fn is_beaten(&self) -> bool {
        let is_beaten = self.is_beaten.as_ref();
        is_beaten.is_some_and(|it| it.load(Ordering::Relaxed))
    }

    /// The first content is there, `ms` after the call was sent, of an answer to a prompt of `bytes`: a model
    /// that was tried is well as far as can be seen.
    pub(crate) fn came(&mut self, ms: u32, is_stream: bool, bytes: usize) {
        self.is_beaten = None;
        self.target.health.came(ms, is_stream, uptime_ms());
        if let Some(limit) = &self.target.endpoint.limit {
            limit.came(ms, bytes);
        }
        if self.entry != Entry::Through && !self.is_judged {
            let (health, rules) = (&self.target.health, &self.target.group.rules);
            health.succeeded(self.entry, uptime_ms(), rules);
            // What comes now is judged as that of any call.
            self.entry = Entry::Through;
        }
    }

    /// The answer is whole.
    pub(crate) fn succeeded(&mut self) {
        if !std::mem::replace(&mut self.is_judged, true) {
            let (health, rules) = (&self.target.health, &self.target.group.rules);
            health.succeeded(self.entry, uptime_ms(), rules);
        }
    }

    /// The endpoint has said what is wrong with the call.
    pub(crate) fn answered(&mut self) {
        if !std::mem::replace(&mut self.is_judged, true) {
            let (health, rules) = (&self.target.health, &self.target.group.rules);
            health.answered(self.entry, uptime_ms(), rules);
        }
    }

    /// Nothing that comes shows anything of the endpoint.
    pub(crate) fn excuse(&mut self) {
        if !std::mem::replace(&mut self.is_judged, true) {
            self.target.health.left(self.entry);
        }
    }

    /// The endpoint has turned the call away because it has too many.
    pub(crate) fn turned_away(&self) {
        if let Some(limit) = &self.target.endpoint.limit {
            let now = uptime_ms();
            let usual = self.target.health.first_byte_ms(now);
            limit.turned_away(usual.unwrap_or(0), now);
        }
    }

    /// The endpoint has failed.
    pub(crate) fn failed(&mut self) {
        if std::mem::replace(&mut self.is_judged, true) {
            return;
        }
        let (target, now) = (&self.target, uptime_ms());
        let trips = target
            .health
            .failed(self.entry, now, luck(), &target.group.rules);
        if trips && target.group.rest(&target.health, now) {
            telemetry::rests(target);
            let (model, endpoint) = (&target.name, &target.endpoint.name);
            tracing::warn!(%model, %endpoint, "a model failed too often and is left alone for a while");
        }
    }

    /// The endpoint asks that this key be not used at this model for a while. Says whether there is another
    /// that it may take.
    pub(crate) fn pause(&self, ms: u64) -> bool {
        if let Some(standing) = self.target.standings.get(self.place) {
            standing.pause(ms);
            telemetry::pauses(&self.target);
        }
        self.target.open_keys(uptime_ms()).next().is_some()
    }

    /// The endpoint asks that this model be left alone for a while, whatever the key.
    pub(crate) fn pause_all(&self, ms: u64) {
        for standing in self.target.standings.iter() {
            standing.pause(ms);
        }
        telemetry::pauses(&self.target);
    }

    /// An answer may tell that an allowance is used up, before a call is turned away for it.
    pub(crate) fn heed(&self, headers: &HeaderMap) {
        if let Some(ms) = used_up_ms(headers, now_ms()) {
            self.pause(ms);
        }
    }

    /// The endpoint refuses the key: for all of its models, or where `here` for this one alone. Says whether
    /// there is another that it may take.
    pub(crate) fn refused(&self, here: bool) -> bool {
        let (endpoint, key) = (&self.target.endpoint.name, self.place + 1);
        let (model, until) = (&self.target.name, uptime_ms() + REFUSED_MS);
        if !here {
            self.key.set_aside(until);
            tracing::error!(%endpoint, key, "the endpoint refuses a key, which is set aside");
        } else if let Some(standing) = self.target.standings.get(self.place) {
            standing.refused_until_ms.store(until, Ordering::Relaxed);
            tracing::error!(%endpoint, key, %model, "the endpoint refuses a key for a model, where it is set aside");
        }
        telemetry::key_refused(endpoint);
        self.target.open_keys(uptime_ms()).next().is_some()
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        if !self.is_judged {
            self.target.health.left(self.entry);
        }
        if let (Some(limit), true) = (&self.target.endpoint.limit, self.is_limited) {
            limit.leave();
        }
        self.key.leave();
        self.target.health.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}
