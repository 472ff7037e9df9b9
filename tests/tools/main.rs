//! Proves the host of tool servers against real ones: a recording server of our own that hangs, dies and
//! changes as it is told, the reference servers of the protocol's authors, and their suite for clients.
//! Servers are real processes, found again through /proc; what they were asked is read from their books.
//!
//! `tests/run` installs the servers of others and sets `PARETO_TOOLS_KIT` to their folder. Without it the
//! tests that need them fail, unless `PARETO_SKIP` names `tools`.

mod calls;
mod drift;
mod kit;
mod orphans;
mod others;
mod suite;
mod web;
