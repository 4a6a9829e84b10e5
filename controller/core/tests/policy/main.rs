//! The policy from the outside: what a file says, and what follows from it.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::string_slice,
    clippy::too_many_lines,
    reason = "a test fails by panicking, and its tables are long"
)]

mod decisions;
mod documented;
mod errors;
mod model;
mod posture;
mod property;
mod scale;
mod support;
