//! Whole calls through a gateway in this process: real sockets, real bytes, scripted endpoints.

mod background;
mod budgets;
mod cascade;
mod config;
mod corners;
mod dialects;
mod edge;
mod endpoints;
mod faults;
mod hostile;
mod http1;
mod json_suite;
mod keys;
mod money;
mod policy;
mod proof;
mod steps;
mod switch;
mod tasks;
mod tasks_api;
mod tasks_beside;
mod tasks_log;
mod tls;
mod transparent;
mod usage;
mod window;
