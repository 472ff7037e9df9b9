//! HTTP/1.1 as both sides of the gateway speak it: strict, bounded, and copied once on its way in.
//! [`serve`] is a caller's connection; `upstream` has the other side.

pub(crate) mod chunked;
pub(crate) mod head;
pub(crate) mod scratch;

mod alarm;
mod date;
mod line;
mod outbox;
mod serve;
mod upload;

pub(crate) use line::Socket;
pub(crate) use outbox::Outbox;
pub(crate) use serve::{BadRequest, Caller, Refuse, serve};
