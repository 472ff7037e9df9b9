//! Proves the props of tasks before any task runs: the office answers over MCP as it says and keeps what
//! it did through kills; each brief's play carries its plan through real servers to what the brief calls
//! done; cases of injections have their form.

mod injection;
mod office;
mod rehearsal;
mod stage;
mod stdio;
