//! The policy decision point of Gatereeve, without I/O.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod audit;
pub mod change;
pub mod command;
pub mod controller;
pub mod output;
pub mod pdp;
pub mod policy;
pub mod posture;
pub mod state;
