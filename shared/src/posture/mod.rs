//! Posture: what a device reports of itself, and what the controller makes of it.
//!
//! A [`fact::Fact`] is one observation. A [`fact::PostureReport`] carries facts from a device. The
//! controller holds them against the posture checks of the policy; the [`verdict::Verdict`] goes
//! back to the device, so that its user can see what is missing. All facts are self-reported.

pub mod fact;
pub mod verdict;
