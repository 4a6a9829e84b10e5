//! The Gatereeve client: daemon and command line in one.

pub mod control;
pub mod posture;
