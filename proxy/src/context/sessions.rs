//! Which conversation a call belongs to: by what the caller says, or by what its transcript begins with.

use std::hash::BuildHasher;
use std::sync::{Arc, LazyLock};

use foldhash::quality::RandomState;
use http::HeaderMap;
use meter::{Entry, Subject};
use wire::Scan;

use super::memory::digest;
use super::recent::Recent;
use crate::economy::Seat;
use crate::names;

/// Headers in which clients name their session, most telling first.
const HEADERS: [&str; 5] = [
    "x-session-id",
    "x-conversation-id",
    "x-claude-code-session-id",
    "session-id",
    "thread-id",
];
/// Sessions and prefixes known at a time: some dozen bytes each.
const MOST_KNOWN: usize = 200_000;
/// Turns of a transcript looked at for a known prefix, newest first.
const MOST_LOOKED_AT: usize = 64;

/// A conversation, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Session {
    pub(crate) key: u64,
    /// How it was recognised: `header`, `client`, `previous`, `prefix`, or `new`.
    pub(crate) how: &'static str,
}

/// The conversations of late.
#[derive(Debug)]
pub(crate) struct Sessions {
    /// Where sessions sit.
    seats: Recent<Seat>,
    /// Sessions by the digest of a transcript so far.
    prefixes: Recent<u64>,
}

impl Default for Sessions {
    fn default() -> Self {
        Self {
            seats: Recent::new(MOST_KNOWN),
            prefixes: Recent::new(MOST_KNOWN),
        }
    }
}

impl Sessions {
    /// The session of a call. `previous` is the session of the response it goes on from.
    pub(crate) fn recognise(
        &self,
        subject: &Subject,
        headers: &HeaderMap,
        scan: &Scan,
        body: &[u8],
        previous: Option<u64>,
    ) -> Session {
        let named = HEADERS.iter().find_map(|name| {
            let value = names::find(headers, name)?.to_str().ok()?;
            (!value.is_empty()).then_some(value)
        });
        let key = |name: &str| digest(&[&subject.tenant, &subject.key, name]);
        if let Some(name) = named {
            return Session {
                key: key(name),
                how: "header",
            };
        }
        if let Some(previous) = previous {
            return Session {
                key: previous,
                how: "previous",
            };
        }
        if !scan.session.is_empty() {
            return Session {
                key: key(&scan.session),
                how: "client",
            };
        }
        let seed = DIGEST.hash_one((&subject.tenant, &subject.key));
        self.by_prefix(seed, scan, body)
    }

    /// A transcript that begins as another one did goes on with it. The longest known one counts.
    fn by_prefix(&self, seed: u64, scan: &Scan, body: &[u8]) -> Session {
        let mut digests = Vec::with_capacity(scan.turns_at.len());
        let mut hash = seed;
        for at in &scan.turns_at {
            hash = DIGEST.hash_one((hash, body.get(at.clone()).unwrap_or_default()));
            digests.push(hash);
        }
        let Some((whole, earlier)) = digests.split_last() else {
            return Session {
                key: seed,
                how: "new",
            };
        };
        let looked_at = earlier.iter().rev().take(MOST_LOOKED_AT);
        let found = looked_at
            .into_iter()
            .find_map(|prefix| self.prefixes.get(*prefix));
        let session = match found {
            Some(key) => Session { key, how: "prefix" },
            None => Session {
                key: *whole,
                how: "new",
            },
        };
        self.prefixes.insert(*whole, session.key);
        session
    }

    /// Where the session sits: the model of its last answer, and what that read.
    pub(crate) fn seat(&self, session: Session) -> Option<Seat> {
        self.seats.get(session.key)
    }

    /// Remembers which model answered.
    pub(crate) fn answered(&self, session: Session, model: &Arc<str>) {
        let before = self.seats.get(session.key);
        if before.is_none_or(|seat| seat.model != *model) {
            let seat = Seat {
                model: Arc::clone(model),
                tokens: 0,
                cached: 0,
                at_ms: 0,
            };
            self.seats.insert(session.key, seat);
        }
    }

    /// Remembers what an answer had to read, once that is known.
    pub(crate) fn settled(&self, session: Session, entry: &Entry) {
        let usage = &entry.usage;
        let seat = Seat {
            model: Arc::clone(&entry.held.model),
            tokens: usage.prompt().saturating_add(usage.answer()),
            cached: usage
                .cache_read
                .saturating_add(usage.cache_write_5m)
                .saturating_add(usage.cache_write_1h),
            at_ms: entry.settled_at_ms,
        };
        self.seats.insert(session.key, seat);
    }
}

/// What digests of transcripts begin with: nothing of them is kept, so a quick hash will do.
static DIGEST: LazyLock<RandomState> = LazyLock::new(RandomState::default);

#[cfg(test)]
mod tests {
    use super::*;

    fn recognised(sessions: &Sessions, turns: &[&str], header: Option<&str>) -> Session {
        let turns: Vec<String> = turns
            .iter()
            .map(|text| format!("{{\"role\":\"user\",\"content\":\"{text}\"}}"))
            .collect();
        let body = format!("{{\"model\":\"auto\",\"messages\":[{}]}}", turns.join(","));
        let scan = wire::dialect::OPENAI_CHAT
            .scan(body.as_bytes())
            .expect("a scan");
        let mut headers = HeaderMap::new();
        if let Some(value) = header {
            headers.insert("session-id", value.parse().expect("a value"));
        }
        let subject = Subject::of_key("acme", "", "", "k");
        sessions.recognise(&subject, &headers, &scan, body.as_bytes(), None)
    }

    #[test]
    fn a_transcript_that_goes_on_is_the_same_session() {
        let sessions = Sessions::default();
        let first = recognised(&sessions, &["Hello"], None);
        let second = recognised(&sessions, &["Hello", "Hi", "And then?"], None);
        let third = recognised(&sessions, &["Hello", "Hi", "And then?", "x", "y"], None);
        assert_eq!((second.key, second.how), (first.key, "prefix"));
        assert_eq!(third.key, first.key);
        assert_ne!(recognised(&sessions, &["Another"], None).key, first.key);
    }

    #[test]
    fn what_the_client_says_comes_first() {
        let sessions = Sessions::default();
        let one = recognised(&sessions, &["Hello"], Some("s1"));
        let other = recognised(&sessions, &["Hello"], Some("s2"));
        assert_eq!(one.how, "header");
        assert_ne!(one.key, other.key);
        assert_eq!(
            recognised(&sessions, &["Something else"], Some("s1")).key,
            one.key
        );
    }
}
