//! When posture is collected, and when and what is reported of it.

pub(crate) mod report;
pub(crate) mod schedule;
