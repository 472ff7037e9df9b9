//! Delegated work: a brief becomes a plan, the plan is carried out through models and tools, and every
//! step stands in a log before it counts. Calls models through the gateway as any caller would.

pub mod actor;
pub mod api;
pub mod audit;
pub mod brief;
pub mod check;
pub mod commit;
pub mod config;
pub mod context;
pub mod desk;
pub mod digest;
pub mod event;
pub mod id;
pub mod log;
pub mod model;
pub mod money;
pub mod news;
pub mod next;
pub mod notices;
pub mod outbound;
pub mod outcomes;
pub mod plan;
pub mod schedule;
pub mod schedules;
pub mod skill;
pub mod standing;
pub mod state;
pub mod tool;
pub mod toolbox;
pub mod view;
pub mod worker;

pub use config::Config;
pub use desk::Desk;
pub use digest::Digest;
pub use event::{Caller, Event};
pub use id::TaskId;
pub use log::TaskLog;
pub use money::Usd;
pub use schedule::Schedule;
pub use state::State;
pub use tool::Tools;
pub use toolbox::Toolbox;
pub use worker::Worker;
