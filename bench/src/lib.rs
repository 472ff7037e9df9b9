//! The scripted model endpoint that demo, tests and benchmarks share, and the open-loop replay of
//! real arrivals against the gateway.

pub mod conversation;
pub mod replay;
pub mod trace;
pub mod upstream;
