//! The authoritative tables: the fold of the journal's changes.

pub mod device;
