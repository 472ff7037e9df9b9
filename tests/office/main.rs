//! Proves the props of tasks.
