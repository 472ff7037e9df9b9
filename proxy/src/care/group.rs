//! Models that stand in for each other: those of one tier that answer the same kind of call. Together they
//! have a bound on retries, and not too many of them rest at a time. Half is counted in origins: what one
//! vendor offers in two dialects fails together.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::breaker::Rules;
use super::retries::{Extra, Retries, Share};
use super::{Health, luck};
use crate::config::{Breaker, Upstream};

/// A group of models.
#[derive(Debug)]
pub(crate) struct Group {
    pub(super) rules: Rules,
    /// The part of the origins that may rest at a time, in percent; one may always.
    most_out: usize,
    share: Share,
    /// With the origin of each.
    members: OnceLock<Vec<(Arc<str>, Arc<Health>)>>,
    /// Held while somebody is sent to rest, so that they are counted one after the other.
    resting: Mutex<()>,
    retries: Mutex<Retries>,
}

/// The calls that may have another made beside them.
const HEDGES: Share = Share {
    percent: 5,
    per_second: 0,
};

impl Group {
    /// A group whose members are yet to come.
    pub(crate) fn new(config: &Upstream) -> Self {
        let Breaker {
            failures,
            least_success,
            least_calls,
            rest_ms,
            most_rest_ms,
            most_resting,
            closing,
        } = config.breaker;
        let ms = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
        Self {
            rules: Rules {
                failures,
                least_success,
                least_calls,
                rest_ms: ms(rest_ms),
                most_rest_ms: ms(most_rest_ms),
                closing,
            },
            most_out: usize::try_from(most_resting).unwrap_or(100),
            share: Share {
                percent: config.retries.percent,
                per_second: config.retries.per_second,
            },
            members: OnceLock::new(),
            resting: Mutex::default(),
            retries: Mutex::default(),
        }
    }

    /// Says who belongs to it.
    pub(crate) fn assemble(&self, members: Vec<(Arc<str>, Arc<Health>)>) {
        let _first = self.members.set(members);
    }

    /// A call begins; calls that their own clients make again do not count.
    pub(crate) fn called(&self, now_ms: i64) {
        self.retries().called(now_ms);
    }

    /// Takes an attempt beside another, if there is one to take.
    pub(crate) fn take_hedge(&self, now_ms: i64) -> bool {
        self.retries().take(now_ms, HEDGES, Extra::Hedge)
    }

    /// Takes a retry, if there is one to take.
    pub(crate) fn take_retry(&self, now_ms: i64) -> bool {
        self.retries().take(now_ms, self.share, Extra::Retry)
    }

    /// Sends a member to rest, unless too many do already.
    pub(super) fn rest(&self, member: &Health, now_ms: i64) -> bool {
        let _one_by_one = self.resting.lock().unwrap_or_else(PoisonError::into_inner);
        let members = self.members.get().map_or(&[][..], Vec::as_slice);
        let (mut origins, mut out) = (0, 0);
        for (place, (origin, _)) in members.iter().enumerate() {
            let mut earlier = members.iter().take(place);
            if earlier.any(|(other, _)| other == origin) {
                continue;
            }
            let mut own = members.iter().filter(|(other, _)| other == origin);
            origins += 1;
            out += usize::from(
                own.all(|(_, it)| it.is_out() || std::ptr::eq(Arc::as_ptr(it), member)),
            );
        }
        let most = (origins * self.most_out / 100).max(1);
        out <= most && member.open(now_ms, luck(), &self.rules)
    }

    fn retries(&self) -> MutexGuard<'_, Retries> {
        self.retries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::breaker::Entry;
    use super::*;

    fn fail(group: &Group, member: &Health, now_ms: i64) {
        if member.failed(Entry::Through, now_ms, 0, &group.rules) {
            group.rest(member, now_ms);
        }
    }

    /// Members of origins `a`, `b` and so on, one for each letter.
    fn group(origins: &str) -> (Group, Vec<Arc<Health>>) {
        let group = Group::new(&Upstream::default());
        let members: Vec<Arc<Health>> = origins.chars().map(|_| Arc::default()).collect();
        let names = origins.chars().map(|it| Arc::from(it.to_string().as_str()));
        group.assemble(names.zip(members.clone()).collect());
        (group, members)
    }

    fn out(members: &[Arc<Health>]) -> usize {
        members.iter().filter(|it| it.is_out()).count()
    }

    #[test]
    fn half_of_a_group_rests_at_most_and_a_lone_member_may() {
        for (origins, most) in [("a", 1), ("ab", 1), ("abc", 1), ("abcd", 2), ("abcde", 2)] {
            let (group, members) = group(origins);
            for _ in 0..7 {
                for member in &members {
                    fail(&group, member, 0);
                }
            }
            assert_eq!(out(&members), most, "{origins}");
            // Whoever could not rest does at its next failure, once there is room.
            let back = members.iter().find(|it| it.is_out()).unwrap();
            for _ in 0..3 {
                let entry = back.enter(12_000).unwrap();
                back.succeeded(entry, 12_000, &group.rules);
            }
            assert!(!back.is_out());
            let mut others = members.iter().rev();
            if let Some(waits) = others.find(|it| !it.is_out() && !Arc::ptr_eq(it, back)) {
                fail(&group, waits, 12_000);
                assert!(waits.is_out(), "{origins}");
            }
        }
    }

    /// Otherwise a vendor's second dialect would get the calls that its first one fails.
    #[test]
    fn what_one_vendor_offers_twice_counts_once() {
        for (origins, most) in [("aa", 2), ("aab", 2), ("aabb", 3)] {
            let (group, members) = group(origins);
            for _ in 0..7 {
                for member in &members {
                    fail(&group, member, 0);
                }
            }
            assert_eq!(out(&members), most, "{origins}");
        }
    }
}
