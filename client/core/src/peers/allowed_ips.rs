//! Cryptokey routing: an address belongs to exactly one peer, by longest prefix over all of them.

use std::net::IpAddr;

use ipnet::{Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;

/// Prefix to position of the peer in its table. The same for both directions.
#[derive(Clone, Debug, Default)]
pub(crate) struct AllowedIps {
    v4: PrefixMap<Ipv4Net, usize>,
    v6: PrefixMap<Ipv6Net, usize>,
}

impl AllowedIps {
    /// Gives `address` to `peer`; the first one to have it keeps it.
    pub(crate) fn insert(&mut self, address: IpAddr, peer: usize) {
        match address {
            IpAddr::V4(v4) => {
                let prefix = Ipv4Net::from(v4);
                if self.v4.get(&prefix).is_none() {
                    self.v4.insert(prefix, peer);
                }
            }
            IpAddr::V6(v6) => {
                let prefix = Ipv6Net::from(v6);
                if self.v6.get(&prefix).is_none() {
                    self.v6.insert(prefix, peer);
                }
            }
        }
    }

    /// The peer that owns `address`.
    pub(crate) fn owner(&self, address: IpAddr) -> Option<usize> {
        match address {
            IpAddr::V4(v4) => self.v4.get_lpm(&Ipv4Net::from(v4)).map(|(_, peer)| *peer),
            IpAddr::V6(v6) => self.v6.get_lpm(&Ipv6Net::from(v6)).map(|(_, peer)| *peer),
        }
    }
}
