//! A body read whole: one frame is kept as it came, several are joined in one buffer.

use bytes::{Bytes, BytesMut};

/// The data frames of a body so far.
#[derive(Debug, Default)]
pub(crate) struct Joined {
    only: Bytes,
    all: BytesMut,
}

impl Joined {
    /// Adds a frame. `expected` bytes are reserved once a second one comes. `false` when there would
    /// be more than `limit` bytes.
    pub(crate) fn push(&mut self, data: Bytes, expected: usize, limit: usize) -> bool {
        let length = self.len() + data.len();
        if length > limit {
            return false;
        }
        if self.only.is_empty() && self.all.is_empty() {
            self.only = data;
            return true;
        }
        if self.all.is_empty() {
            self.all.reserve(expected.max(length));
            self.all.extend_from_slice(&std::mem::take(&mut self.only));
        }
        self.all.extend_from_slice(&data);
        true
    }

    /// How much there is.
    pub(crate) fn len(&self) -> usize {
        self.only.len() + self.all.len()
    }

    /// All of it.
    pub(crate) fn finish(self) -> Bytes {
        if self.all.is_empty() {
            self.only
        } else {
            self.all.freeze()
        }
    }
}
