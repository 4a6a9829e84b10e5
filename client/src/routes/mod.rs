//! What the host's network is told about the overlay: addresses, routes and rules, by netlink.
//!
//! Everything lives in a routing table of our own and in policy rules of our own priorities, so that
//! what is ours can be told from what is not, and be taken away whole:
//!
//! | priority | rule | why |
//! |---|---|---|
//! | base | `to PREFIX fwmark MARK lookup main` | datagrams of the tunnel itself never enter the tunnel |
//! | base + 1 | `to PREFIX lookup TABLE` | before `main`, so that no route a LAN hands out (DHCP, RA) takes overlay traffic out of the tunnel |
//! | base + 2 | `from OWN unreachable` | a packet that carries an overlay address leaves by the tunnel or not at all: a neighbour that sends to it from outside gets no answer |
//!
//! The table has a route into the TUN device and, with a worse metric, an `unreachable` one. When the
//! daemon crashes its TUN device goes away, and the `unreachable` route and the rules stay on purpose:
//! overlay traffic fails instead of leaving in clear. The next start takes them over, `down` and a clean
//! stop remove them. [`guard`] drops what arrives for the overlay addresses outside the tunnel. The default route and the table `main` are never touched.

pub mod guard;
pub mod interfaces;
pub mod linux;

use gatereeve_shared::wire::map::{OverlayAddresses, OverlayPrefixes};

/// Marks the sockets that carry the tunnel's own datagrams.
pub const FWMARK: u32 = 0x5247;
/// The first table, and the first priority, of the first daemon on a host.
const BASE: u32 = 5247;

/// Where our rules and routes are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The routing table.
    pub table: u32,
    /// The first of three rule priorities.
    pub priority: u32,
}

impl Place {
    /// The place of the daemon with the TUN device `tun`: the number at the end of its name sets several
    /// daemons on one host apart.
    #[must_use]
    pub fn of(tun: &str) -> Self {
        let digits = tun.trim_start_matches(|c: char| !c.is_ascii_digit());
        let number = digits.parse::<u32>().unwrap_or(0) % 100;
        Self {
            table: BASE + number,
            priority: BASE + 3 * number,
        }
    }
}

/// What the host's network should look like while the device takes part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPlan {
    /// The TUN interface.
    pub tun: String,
    /// Its MTU.
    pub mtu: u32,
    /// This device's overlay addresses.
    pub addresses: OverlayAddresses,
    /// The overlay.
    pub prefixes: OverlayPrefixes,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn daemons_on_one_host_do_not_share_a_place() {
        let first = Place::of("gatereeve0");
        let second = Place::of("gatereeve1");
        assert_eq!((first.table, first.priority), (5247, 5247));
        assert_eq!((second.table, second.priority), (5248, 5250));
        assert_eq!(Place::of("overlay"), first);
        assert!(Place::of("gr4294967295").table < 5347);
    }
}
