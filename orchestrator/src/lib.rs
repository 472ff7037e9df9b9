//! Delegated work: a brief becomes a plan, the plan is carried out through models and tools, and every
//! step stands in a log before it counts. Calls models through the gateway as any caller would.

pub mod digest;
pub mod id;
pub mod log;
pub mod outbound;
pub mod skill;
pub mod tool;

pub use digest::Digest;
pub use id::TaskId;
pub use log::TaskLog;
pub use tool::Tools;
