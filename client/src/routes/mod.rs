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
//! The table has a route into the TUN device and, with a worse metric, an `unreachable` one. Whenever the
//! daemon does not run, its TUN device is gone, and the `unreachable` route and the rules stay on purpose:
//! overlay traffic fails instead of leaving in clear. The next start takes them over; `down`, `leave` and
//! `gatereeve repair --remove` take them away. [`guard`] drops what arrives for the overlay addresses outside
//! the tunnel. The default route, the tables of others and DNS are never touched.
//!
//! What is ours carries [`PROTOCOL`] and lies at a [`Place`]: only what has both is ever changed or removed.
//! Where a network of the host's own lies within the overlay's range, [`overlap`] tells what becomes of it.

pub mod changes;
pub mod guard;
pub mod interfaces;
pub mod linux;
pub mod lookup;
pub mod netlink;
pub mod overlap;
mod route;
mod rule;
pub mod survey;
pub mod underlay;
pub mod watch;

use gatereeve_shared::wire::map::{OverlayAddresses, OverlayPrefixes};

/// Marks the sockets that carry the tunnel's own datagrams. Other programs look at some bits of every mark: what
/// has them set is theirs to masquerade, to drop or to route. It has none of those.
pub const FWMARK: u32 = 0x52;
/// The protocol number (`ip rule`, `ip route`: `proto 82`) of all our rules and routes.
pub const PROTOCOL: u8 = 82;
/// The first table, and the first priority, of the first daemon on a host.
const BASE: u32 = 5247;
/// Daemons on one host that do not share a place.
const PLACES: u32 = 100;
/// Priorities of one place.
const PRIORITIES: u32 = 3;

/// Where our rules and routes are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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
        Self::numbered(digits.parse::<u32>().unwrap_or(0) % PLACES)
    }

    fn numbered(number: u32) -> Self {
        Self {
            table: BASE + number,
            priority: BASE + PRIORITIES * number,
        }
    }

    /// The place with this routing table.
    #[must_use]
    pub fn of_table(table: u32) -> Option<Self> {
        let number = table.checked_sub(BASE)?;
        (number < PLACES).then(|| Self::numbered(number))
    }

    /// The place that a rule of this priority belongs to.
    #[must_use]
    pub fn of_priority(priority: u32) -> Option<Self> {
        let number = priority.checked_sub(BASE)? / PRIORITIES;
        (number < PLACES).then(|| Self::numbered(number))
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
    /// What of the host's own lies within it.
    pub overlap: overlap::Overlap,
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

    #[test]
    fn the_mark_is_none_that_others_look_for() {
        let theirs = [
            ("Cilium", 0xf00),
            ("kube-proxy, kubelet", 0xc000),
            ("Amazon VPC CNI", 0x80),
            ("mwan3", 0x3f00),
            ("Tailscale", 0xff_0000),
            ("Calico", 0xffff_0000),
        ];
        assert_ne!(FWMARK, 0, "unmarked");
        for (name, mask) in theirs {
            assert_eq!(FWMARK & mask, 0, "{name}");
        }
    }

    #[test]
    fn a_place_is_found_by_its_table_and_its_priorities() {
        for name in ["gatereeve0", "gatereeve7", "gr99"] {
            let place = Place::of(name);
            assert_eq!(Place::of_table(place.table), Some(place));
            for offset in 0..3 {
                assert_eq!(Place::of_priority(place.priority + offset), Some(place));
            }
        }
        for number in [0, 254, 5246, 5547] {
            assert_eq!(Place::of_table(number), None);
            assert_eq!(Place::of_priority(number), None);
        }
    }
}
