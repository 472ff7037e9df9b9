//! Which of equals a call goes to. A prompt that is long enough to be cached goes where its conversation went
//! before; any other goes to the less busy of two that luck has picked. Pure.

use super::mixed;

/// Bytes of a prompt from which on vendors cache it: about a thousand tokens.
const CACHED_BYTES: usize = 4 << 10;

/// What decides between equals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lean {
    /// Where the conversation of this number goes.
    To(u64),
    /// Nowhere; random bits.
    Nowhere(u64),
}

impl Lean {
    /// Of a call of so many bytes that belongs to the conversation `session`.
    pub(crate) fn of(session: u64, bytes: usize, luck: u64) -> Self {
        if bytes >= CACHED_BYTES {
            Self::To(session)
        } else {
            Self::Nowhere(luck)
        }
    }
}

/// One of some equals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Equal {
    /// A number of its own, the same on all nodes and after each start.
    pub(crate) seed: u64,
    /// Calls under way.
    pub(crate) calls: u32,
    /// What its first content has taken lately, in milliseconds; 0 where nobody knows.
    pub(crate) first_ms: u32,
}

/// A seed from a name.
pub(crate) fn seed(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The place of the one that a call goes to; `None` where there is none.
pub(crate) fn choose(equals: &[Equal], lean: Lean) -> Option<usize> {
    match (equals, lean) {
        ([], _) => None,
        ([_], _) => Some(0),
        (_, Lean::To(session)) => at_home(equals, session),
        (_, Lean::Nowhere(luck)) => of_two(equals, luck),
    }
}

/// Each conversation ranks all of them in an order of its own, so that most stay where they are when one comes
/// or goes. The first takes it that has less than a quarter above its share of the calls.
fn at_home(equals: &[Equal], session: u64) -> Option<usize> {
    let calls: u64 = equals.iter().map(|it| u64::from(it.calls)).sum();
    let count = u64::try_from(equals.len()).unwrap_or(u64::MAX);
    let most = ((calls + 1) * 5).div_ceil(count * 4);
    let free = equals.iter().enumerate();
    let free = free.filter(|(_, it)| u64::from(it.calls) < most);
    let best = free.max_by_key(|(_, it)| mixed(session ^ mixed(it.seed)));
    best.map(|(place, _)| place)
}

/// The less busy of two that luck picks; of two as busy the one that is quicker.
fn of_two(equals: &[Equal], luck: u64) -> Option<usize> {
    let count = u64::try_from(equals.len()).ok()?;
    let first = (luck >> 32) % count;
    let second = (first + 1 + (luck & 0xffff_ffff) % (count - 1)) % count;
    let places = [first, second].map(|it| usize::try_from(it).unwrap_or(0));
    let busy = |place: &usize| equals.get(*place).map(|it| (it.calls, it.first_ms));
    places.into_iter().min_by_key(busy)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn equals(calls: &[u32]) -> Vec<Equal> {
        let of = |(place, calls): (usize, &u32)| Equal {
            seed: seed(&format!("endpoint-{place}")),
            calls: *calls,
            first_ms: 0,
        };
        calls.iter().enumerate().map(of).collect()
    }

    #[test]
    fn a_conversation_stays_where_it_is_and_all_of_them_are_spread() {
        let four = equals(&[0; 4]);
        let mut homes = [0; 4];
        let mut moved = 0;
        for session in 0..4_000 {
            let session = mixed(session);
            let home = choose(&four, Lean::To(session)).unwrap();
            homes[home] += 1;
            let less = choose(&four[..3], Lean::To(session)).unwrap();
            // Only who sat at the one that went has to move.
            assert!(home == less || home == 3);
            moved += usize::from(home != less);
        }
        assert!(
            homes.iter().all(|it| (850..1_150).contains(it)),
            "{homes:?}"
        );
        assert_eq!(moved, homes[3]);
    }

    #[test]
    fn nobody_gets_more_than_a_quarter_above_its_share_by_conversations() {
        let mut calls = [0; 4];
        // All of one conversation: it spills over, evenly enough.
        for _ in 0..1_000 {
            let place = choose(&equals(&calls), Lean::To(7)).unwrap();
            calls[place] += 1;
        }
        assert!(calls.iter().all(|it| *it <= 313), "{calls:?}");
    }

    #[test]
    fn short_calls_go_to_the_less_busy_and_then_the_quicker_of_two() {
        let mut calls = [0; 5];
        for luck in 0..1_000 {
            let place = choose(&equals(&calls), Lean::Nowhere(mixed(luck))).unwrap();
            calls[place] += 1;
        }
        let (most, least) = (calls.iter().max().unwrap(), calls.iter().min().unwrap());
        assert!(most - least <= 6, "{calls:?}");
        let mut two = equals(&[3, 3]);
        (two[0].first_ms, two[1].first_ms) = (900, 200);
        for luck in 0..100 {
            assert_eq!(choose(&two, Lean::Nowhere(mixed(luck))), Some(1));
        }
        assert_eq!(choose(&[], Lean::Nowhere(0)), None);
    }
}
