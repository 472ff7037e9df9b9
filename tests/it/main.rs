//! Whole calls through a gateway in this process: real sockets, real bytes, scripted endpoints.

mod config;
mod edge;
mod faults;
mod json_suite;
mod keys;
mod money;
mod tls;
mod transparent;
