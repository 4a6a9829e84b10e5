//! The words of a policy that reach a device. The policy file itself is the controller's business.

pub mod filter;
pub mod port;
