//! What changed between two books, and what that would have done to recorded usage.
