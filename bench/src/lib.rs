//! The scripted model endpoint that demo, tests and benchmarks share, a fast one with fixed answers, the
//! load generator, and the open-loop replay of real arrivals against the gateway.

#![expect(
    clippy::indexing_slicing,
    reason = "indexing a JSON value gives null where nothing is; no caller's traffic runs through here"
)]

pub mod conversation;
pub mod fixed;
pub mod floor;
pub mod load;
pub mod replay;
pub mod trace;
pub mod upstream;
