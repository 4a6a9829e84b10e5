//! What the micro-benchmarks need from inside. Not for the product.

use std::net::IpAddr;

use crate::keyed::HashKey;
use crate::peers::AllowedIps;

/// The look-up of a packet's peer.
#[derive(Debug)]
pub struct Routes(AllowedIps);

impl Routes {
    /// Nobody's.
    #[must_use]
    pub fn new(key: HashKey) -> Self {
        Self(AllowedIps::new(key))
    }

    /// Gives `address` to `peer`.
    pub fn insert(&mut self, address: IpAddr, peer: usize) {
        self.0.insert(address, peer);
    }

    /// The peer that owns `address`.
    #[must_use]
    pub fn owner(&self, address: IpAddr) -> Option<usize> {
        self.0.owner(address)
    }
}
