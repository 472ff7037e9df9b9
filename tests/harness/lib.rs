//! What the tests share: a world of scripted endpoints and a gateway, in this process or as a
//! program of its own, and clients that speak HTTP and raw bytes.

pub mod client;
pub mod errand;
pub mod fill;
pub mod golden;
pub mod memory_log;
pub mod office;
pub mod postgres;
pub mod process;
pub mod talk;
pub mod world;

pub use client::{Client, Reply};
pub use errand::Errand;
pub use memory_log::MemoryLog;
pub use postgres::Postgres;
pub use process::Process;
pub use world::World;
