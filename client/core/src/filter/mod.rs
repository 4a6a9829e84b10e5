//! The enforcement point: what may pass, in which direction, until when.
//!
//! Default deny by construction: a [`Permit`] comes into being only where a live rule matches, or where
//! a tracked flow that a live rule still allows covers the packet. There is no other way to "yes".

mod permit;

pub use permit::Permit;
