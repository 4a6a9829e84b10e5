//! Cryptokey routing: an address belongs to exactly one peer.

use std::net::IpAddr;

use crate::keyed::{HashKey, KeyedMap};

/// Address to position of the peer in its table. The same for both directions.
///
/// A peer owns whole addresses and no wider prefixes, so the longest prefix around an address is the
/// address itself. Prefixes of subnets would have to be asked after it, from the longest on.
#[derive(Clone, Debug)]
pub(crate) struct AllowedIps {
    v4: KeyedMap<u32, usize>,
    v6: KeyedMap<u128, usize>,
}

impl AllowedIps {
    /// Nobody's, as yet.
    pub(crate) fn new(key: HashKey) -> Self {
        Self {
            v4: KeyedMap::new(key),
            v6: KeyedMap::new(key),
        }
    }

    /// Gives `address` to `peer`; the first one to have it keeps it.
    pub(crate) fn insert(&mut self, address: IpAddr, peer: usize) {
        match address {
            IpAddr::V4(v4) => self.v4.insert_new(v4.into(), peer),
            IpAddr::V6(v6) => self.v6.insert_new(v6.into(), peer),
        }
    }

    /// The peer that owns `address`.
    pub(crate) fn owner(&self, address: IpAddr) -> Option<usize> {
        match address {
            IpAddr::V4(v4) => self.v4.get(&v4.into()),
            IpAddr::V6(v6) => self.v6.get(&v6.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_its_first_owners_alone() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let mut owners = AllowedIps::new(HashKey::new([1; 16]));
        owners.insert(address("100.64.0.1"), 0);
        owners.insert(address("fd00::1"), 0);
        owners.insert(address("100.64.0.1"), 1);
        owners.insert(address("fd00::2"), 1);
        assert_eq!(owners.owner(address("100.64.0.1")), Some(0));
        assert_eq!(owners.owner(address("fd00::1")), Some(0));
        assert_eq!(owners.owner(address("fd00::2")), Some(1));
        // The same bits in the other family are another address.
        for other in ["100.64.0.2", "fd00::3", "::100.64.0.1", "::ffff:100.64.0.1"] {
            assert_eq!(owners.owner(address(other)), None, "{other}");
        }
    }
}
