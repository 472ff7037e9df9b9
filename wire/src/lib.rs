//! The words on the wire: ids, dialects, usage, server-sent events and the JSON scan.
//! No I/O, no clock, no async runtime: every function here is bytes in, values out.

pub mod archive;
pub mod call;
pub mod dialect;
mod halves;
pub mod ids;
pub mod json;
pub mod letters;
pub mod loss;
mod numbers;
pub mod reply;
pub mod scan;
pub mod schema;
pub mod seal;
pub mod splice;
pub mod sse;
pub mod tier;
pub mod translate;
pub mod usage;

pub use call::Call;
pub use dialect::{Dialect, Fault, Refusal};
pub use ids::{ParseRequestIdError, RequestId};
pub use loss::{Loss, LossKind, Losses};
pub use reply::Reply;
pub use scan::{Scan, ScanError, Shape};
pub use tier::Tier;
pub use usage::{Usage, UsageSource};
