//! A bounded map of what was used lately: two halves, of which the older is dropped when the younger
//! is full. Readers and writers never wait for more than a shard.

use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;
use foldhash::fast::RandomState;

/// Values by a hash of what they belong to.
#[derive(Debug)]
pub(crate) struct Recent<V> {
    halves: [DashMap<u64, V, RandomState>; 2],
    /// The index of the younger half, and how many values went into it.
    young: AtomicUsize,
    taken: AtomicUsize,
    half: usize,
}

impl<V: Clone> Recent<V> {
    /// A map that keeps between `most / 2` and `most` values.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            halves: [DashMap::default(), DashMap::default()],
            young: AtomicUsize::new(0),
            taken: AtomicUsize::new(0),
            half: (most / 2).max(1),
        }
    }

    /// The value at `key`; it counts as used now.
    pub(crate) fn get(&self, key: u64) -> Option<V> {
        let young = self.young.load(Ordering::Acquire);
        let find = |at: usize| {
            let half = self.halves.get(at % 2)?;
            half.get(&key).map(|found| found.value().clone())
        };
        if let Some(found) = find(young) {
            return Some(found);
        }
        let found = find(young + 1)?;
        self.insert(key, found.clone());
        Some(found)
    }

    /// Puts a value.
    pub(crate) fn insert(&self, key: u64, value: V) {
        let young = self.young.load(Ordering::Acquire);
        if let Some(half) = self.halves.get(young % 2) {
            half.insert(key, value);
        }
        if self.taken.fetch_add(1, Ordering::AcqRel) + 1 == self.half {
            if let Some(old) = self.halves.get((young + 1) % 2) {
                old.clear();
            }
            self.young.store(young + 1, Ordering::Release);
            self.taken.store(0, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_the_rest_goes() {
        let recent = Recent::new(100);
        recent.insert(0, 0);
        for key in 1..1_000 {
            recent.insert(key, key);
            assert_eq!(recent.get(0), Some(0));
        }
        assert_eq!(recent.get(1), None);
        assert_eq!(recent.get(999), Some(999));
    }
}
