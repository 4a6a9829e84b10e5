//! What identifies a device, a controller and the network, and what their keys sign.
//!
//! Every signature is made over a label of [`domain`] followed by fixed-length fields, so that a
//! signature made for one purpose never passes for another.

pub mod binding;
pub mod checkpoint;
pub mod domain;
pub mod fingerprint;
pub mod identity_key;
pub mod wg_key;
