//! The keys that an endpoint knows us by. All of them are of one account: what the endpoint keeps for one,
//! answers' ids and seals, the others may use.

use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};

use wire::Dialect;

use super::fields::Own;

/// A key of an endpoint, or the lack of one.
#[derive(Debug)]
pub(crate) struct Key {
    pub(super) own: Own,
    /// Calls under way with it.
    under_way: AtomicU32,
    /// The endpoint has refused it, and is asked again then.
    refused_until_ms: AtomicI64,
}

impl Key {
    pub(super) fn new(dialect: &'static dyn Dialect, key: Option<&str>) -> Result<Self, String> {
        Ok(Self {
            own: Own::new(dialect, key)?,
            under_way: AtomicU32::new(0),
            refused_until_ms: AtomicI64::new(i64::MIN),
        })
    }

    /// Whether the endpoint takes it, as far as is known.
    pub(crate) fn is_taken(&self, now_ms: i64) -> bool {
        self.refused_until_ms.load(Ordering::Relaxed) <= now_ms
    }

    /// Sets it aside.
    pub(crate) fn set_aside(&self, until_ms: i64) {
        self.refused_until_ms.store(until_ms, Ordering::Relaxed);
    }

    /// Calls under way with it.
    pub(crate) fn under_way(&self) -> u32 {
        self.under_way.load(Ordering::Relaxed)
    }

    /// A call goes with it.
    pub(crate) fn enter(&self) {
        self.under_way.fetch_add(1, Ordering::Relaxed);
    }

    /// That call has ended.
    pub(crate) fn leave(&self) {
        self.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}
