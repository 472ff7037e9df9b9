//! What the fuzz targets share: the dialects, and a caller who gets the answers.

pub mod bills;
pub mod http1;
pub mod money;
pub mod pauses;
pub mod store;

// Files of other parts with files of their own below them: links beside this one lead there.
mod import;
#[expect(
    dead_code,
    unused_imports,
    reason = "only what reads whole records is asked"
)]
mod record;

#[expect(dead_code, reason = "only the search of headers is asked")]
#[path = "../../proxy/src/names.rs"]
mod names;

use std::sync::Arc;

use wire::dialect::{self, Asked, Change};
use wire::{Call, Dialect, RequestId};

/// Who made everything.
pub const ORIGIN: &str = "there";

/// The dialects that a conversation can be held in.
pub fn conversing() -> impl Iterator<Item = &'static dyn Dialect> {
    dialect::ALL
        .into_iter()
        .filter(|dialect| dialect.converses())
}

/// A change that only names the model.
pub const CHANGE: Change<'static> = Change {
    model: "target",
    cap: None,
    cap_field: "",
    most_output: None,
    thinking: None,
};

/// A caller without tools.
pub fn asked() -> Asked {
    Asked {
        request: RequestId::new(1_795_000_000_000, [7; 10]),
        created_s: 1_795_000_000,
        call: Arc::new(Call::default()),
        include_usage: true,
        prompt_tokens: 11,
        count: |text| text.len() as u64,
    }
}

/// What bills are known by; what it is does not matter here.
fn digest(bytes: &[u8]) -> String {
    format!("{:08x}", crc32fast::hash(bytes))
}
