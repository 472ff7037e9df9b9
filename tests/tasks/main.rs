//! Whole tasks through a gateway in this process: the briefs of a working morning, planted orders, and what
//! users of other task runners complain about.

mod complaints;
mod injection;
mod morning;

/// The program that is the office.
const OFFICE: &str = env!("CARGO_BIN_EXE_office-server");
/// The server that writes down every call before it answers.
const RECORDER: &str = env!("CARGO_BIN_EXE_tool-server");
