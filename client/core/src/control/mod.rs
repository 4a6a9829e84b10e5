//! The control session, seen from the device: when to connect, what was agreed, what is awaited.

pub(crate) mod backoff;
pub(crate) mod link;
