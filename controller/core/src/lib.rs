//! The policy decision point of Gatereeve, without I/O.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod command;
pub mod state;
