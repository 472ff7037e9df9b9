//! Delegated work: a brief becomes a plan, the plan is carried out through models and tools, and every
//! step stands in a log before it counts. Calls models through the gateway as any caller would.

pub mod actor;
pub mod brief;
pub mod check;
pub mod commit;
pub mod context;
pub mod digest;
pub mod event;
pub mod id;
pub mod log;
pub mod model;
pub mod money;
pub mod next;
pub mod plan;
pub mod schedule;
pub mod standing;
pub mod state;
pub mod tool;
pub mod view;
pub mod worker;

pub use digest::Digest;
pub use event::{Caller, Event};
pub use id::TaskId;
pub use log::TaskLog;
pub use money::Usd;
pub use schedule::Schedule;
pub use state::State;
pub use tool::Tools;
