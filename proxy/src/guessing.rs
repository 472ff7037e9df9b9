//! Wrong keys, by the address that sends them and by the key they are meant for: beyond so many in a minute
//! each is told to wait, and each time for twice as long. Right keys are never asked: they are let in before
//! anybody looks here, whoever else comes from their address.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};

/// Failures are counted for so long, and forgotten so long after the last wait is over.
const MINUTE_MS: i64 = 60_000;
/// The longest wait is a second doubled so often: some four minutes.
const DOUBLINGS: u32 = 8;
/// Places for those who fail, in sets of four: half a megabyte, from the first failure on. Where more fail at
/// a time, those with the fewest failures are forgotten.
const SETS: usize = 4_096;
const WAYS: usize = 4;

/// Who is wrong.
#[derive(Debug, Clone, Copy, Hash)]
pub(crate) enum Whom<'a> {
    /// The address that a caller's connection comes from.
    Caller(IpAddr),
    /// The public id of the key, whoever sends it.
    Key(&'a str),
    /// The address of who wants to be an operator.
    Operator(IpAddr),
}

impl Whom<'_> {
    /// Who has an address of IPv6 has all that share its first half.
    fn counted(self) -> Self {
        match self {
            Self::Caller(address) => Self::Caller(network(address)),
            Self::Operator(address) => Self::Operator(network(address)),
            Self::Key(id) => Self::Key(id),
        }
    }
}

fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)))
        }
    }
}

/// All who have failed of late.
#[derive(Debug, Default)]
pub(crate) struct Guesses {
    /// Nobody outside knows who shares a set with whom.
    hasher: RandomState,
    sets: Mutex<Vec<[Failures; WAYS]>>,
}

/// What one of them has done.
#[derive(Debug, Clone, Copy, Default)]
struct Failures {
    /// Its hash; 0 where the place is free.
    whom: u64,
    since_ms: i64,
    /// Until when it was told to wait, and how often.
    until_ms: i64,
    told: u32,
    count: u32,
}

impl Guesses {
    /// Counts a wrong key at `now_ms` against each of `all`, who may send `most` in a minute; for how many
    /// seconds to wait where that is too many. With a `most` of 0 nobody is told to.
    pub(crate) fn count(&self, all: &[Whom<'_>], most: u32, now_ms: i64) -> Option<u64> {
        if most == 0 {
            return None;
        }
        let mut sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
        if sets.is_empty() {
            sets.resize(SETS, Default::default());
        }
        let mut longest = None;
        for whom in all {
            let hash = self.hasher.hash_one(whom.counted());
            let set = usize::try_from(hash).unwrap_or_default() % SETS;
            let Some(set) = sets.get_mut(set) else {
                continue;
            };
            let failures = place(set, hash | 1, now_ms);
            longest = longest.max(failures.again(most, now_ms));
        }
        longest
    }
}

/// The place of `whom` in its set, where need be that of whoever has failed least.
fn place(set: &mut [Failures; WAYS], whom: u64, now_ms: i64) -> &mut Failures {
    let known = set.iter().position(|it| it.whom == whom);
    let weights = set.map(|it| if it.is_over(now_ms) { 0 } else { it.count });
    let least = || (0..WAYS).min_by_key(|at| weights.get(*at));
    let at = known.or_else(least).unwrap_or_default();
    let [first, rest @ ..] = set;
    let place = match at.checked_sub(1).and_then(|at| rest.get_mut(at)) {
        Some(place) => place,
        None => first,
    };
    if place.whom != whom {
        *place = Failures {
            whom,
            since_ms: now_ms,
            ..Failures::default()
        };
    }
    place
}

impl Failures {
    /// Nothing of it counts any more.
    fn is_over(&self, now_ms: i64) -> bool {
        let last_ms = self.since_ms.max(self.until_ms);
        now_ms.saturating_sub(last_ms) >= MINUTE_MS
    }

    /// Counts one more; for how many seconds to wait, where that is too many.
    fn again(&mut self, most: u32, now_ms: i64) -> Option<u64> {
        if self.is_over(now_ms) {
            *self = Self {
                whom: self.whom,
                since_ms: now_ms,
                ..Self::default()
            };
        }
        self.count = self.count.saturating_add(1);
        if self.count <= most {
            return None;
        }
        let seconds = 1_u32 << self.told.min(DOUBLINGS);
        self.told = self.told.saturating_add(1);
        self.until_ms = now_ms.saturating_add(i64::from(seconds) * 1_000);
        Some(u64::from(seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: Whom<'_> = Whom::Key("me");

    #[test]
    fn waits_double_up_to_four_minutes_and_are_forgotten_a_minute_after_the_last() {
        let guesses = Guesses::default();
        let again = |now_ms| guesses.count(&[ME], 3, now_ms);
        assert_eq!([0, 1, 2].map(again), [None; 3]);
        let waits: Vec<_> = (0..10).map(|_| again(3).unwrap()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 256]);
        let over_ms = 3 + 256_000 + MINUTE_MS;
        assert_eq!(again(over_ms), None, "it begins anew");
    }

    #[test]
    fn a_few_failures_each_minute_are_never_told_to_wait() {
        let guesses = Guesses::default();
        for minute in 0..100 {
            for second in [0, 20, 40] {
                let now_ms = minute * MINUTE_MS + second * 1_000;
                assert_eq!(guesses.count(&[ME], 3, now_ms), None);
            }
        }
    }

    #[test]
    fn an_address_of_ipv6_counts_as_its_network() {
        let guesses = Guesses::default();
        let from = |address: &str| Whom::Caller(address.parse().unwrap());
        assert_eq!(guesses.count(&[from("2001:db8::1")], 1, 0), None);
        assert_eq!(guesses.count(&[from("2001:db8::2:3")], 1, 0), Some(1));
        assert_eq!(guesses.count(&[from("2001:db8:0:1::1")], 1, 0), None);
        assert_eq!(guesses.count(&[from("10.0.0.1")], 1, 0), None);
        assert_eq!(guesses.count(&[from("::ffff:10.0.0.1")], 1, 0), Some(1));
        let operator = Whom::Operator("10.0.0.1".parse().unwrap());
        assert_eq!(guesses.count(&[operator], 1, 0), None, "counted apart");
    }

    #[test]
    fn however_many_fail_memory_is_bounded_and_who_is_told_to_wait_stays_known() {
        let guesses = Guesses::default();
        let busy: Vec<_> = (0..1_000).map(|n| format!("busy {n}")).collect();
        let told = |now_ms| {
            let waits = busy.iter().map(|id| {
                let count = || guesses.count(&[Whom::Key(id)], 3, now_ms);
                (0..4).filter_map(|_| count()).max()
            });
            waits.flatten().count()
        };
        assert_eq!(told(0), 1_000);
        for n in 0..200_000 {
            guesses.count(&[Whom::Key(&format!("once {n}"))], 3, 1);
        }
        let sets = guesses.sets.lock().unwrap();
        assert_eq!((sets.len(), sets.capacity()), (SETS, SETS));
        let known = sets.iter().flatten().filter(|it| it.told > 0).count();
        assert!(known >= 990, "{known}");
    }

    #[test]
    fn without_a_limit_nobody_is_told_to_wait() {
        let guesses = Guesses::default();
        assert_eq!([0; 100].map(|_| guesses.count(&[ME], 0, 0)), [None; 100]);
        assert!(guesses.sets.lock().unwrap().is_empty());
    }
}
