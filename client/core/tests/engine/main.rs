//! The engine under virtual time, through its public surface alone.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test stops where it fails, and picks the outputs that it is about"
)]

mod clocks;
mod enrollment;
mod gate;
mod keys;
mod maps;
mod oracle;
mod order;
mod peers;
mod posture;
mod support;
mod why;
