//! The policy decision point of Gatereeve, without I/O.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod audit;
pub mod change;
pub mod command;
pub mod controller;
mod enroll;
pub mod ipam;
mod map;
pub mod output;
pub mod pdp;
pub mod policy;
pub mod posture;
mod session;
pub mod state;
