//! The controller as a whole, without I/O: a journal in memory, clients that only keep their map.

#![cfg(test)]
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a test fails on every answer but the one it expects"
)]

mod abuse;
mod audit;
mod clients;
mod enrollment;
mod harness;
mod journal;
mod keys;
mod maps;
mod oracle;
mod posture;
mod rehearse;
mod waiting;
