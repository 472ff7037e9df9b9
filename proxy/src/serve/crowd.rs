//! Connections of each address: one caller can not take all of them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Who is connected how often.
#[derive(Debug, Clone)]
pub(super) struct Crowd {
    most: usize,
    by_address: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// One connection of an address, for as long as it is kept.
#[derive(Debug)]
pub(super) struct Place {
    crowd: Crowd,
    address: IpAddr,
}

impl Crowd {
    /// At most `most` connections for each address.
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            by_address: Arc::default(),
        }
    }

    /// Counts a connection in. `None` where its address has as many as it may.
    pub(super) fn enter(&self, address: IpAddr) -> Option<Place> {
        let address = address.to_canonical();
        let mut counts = self.counts();
        let count = counts.entry(address).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        drop(counts);
        let crowd = self.clone();
        Some(Place { crowd, address })
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.by_address
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.crowd.counts();
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_share_and_gets_it_back() {
        let crowd = Crowd::new(2);
        let [one, mapped, other] =
            ["10.0.0.1", "::ffff:10.0.0.1", "10.0.0.2"].map(|it| it.parse().unwrap());
        let first = crowd.enter(one);
        let second = crowd.enter(mapped);
        assert!(first.is_some() && second.is_some());
        assert!(crowd.enter(one).is_none() && crowd.enter(mapped).is_none());
        assert!(crowd.enter(other).is_some());
        drop(first);
        assert!(crowd.enter(one).is_some());
        drop(second);
        assert!(crowd.counts().is_empty());
    }
}
