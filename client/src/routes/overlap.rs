//! Where the host's own networks and the overlay claim the same addresses.
//!
//! Neither is taken over silently. A network that the host is connected to, and that is smaller than the
//! overlay's range, keeps its addresses, but for those of this network's devices: what this device has ever
//! been told of as a peer goes into the tunnel or nowhere. A network as large as the overlay, a route that
//! leads further (such as a LAN may hand out by DHCP to draw traffic to itself), and an address that both
//! have, are told of only. Pure: what the host has comes in, what to do comes out.

use std::collections::BTreeSet;
use std::net::IpAddr;

use gatereeve_client_core::dns;
use gatereeve_shared::wire::map::OverlayPrefixes;
use ipnet::IpNet;

use super::interfaces::{InterfaceAddress, NetworkView};

/// Networks of the host that are let be; more than this are told of only.
const MOST_LOCAL: usize = 64;
/// Addresses of peers that are remembered. Who has as many may have more, which nobody could keep for the overlay.
pub const MOST_KNOWN: usize = 64 * 1024;
/// Addresses that are kept for the overlay within them.
const MOST_RESERVED: usize = 16 * 1024;
/// Warnings in words; the rest is counted.
const MOST_WARNINGS: usize = 8;

/// A network that the host is connected to, within the overlay's range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalNetwork {
    /// The interface's index.
    pub index: u32,
    /// Its addresses.
    pub network: IpNet,
    /// The host's own address in it.
    pub source: Option<IpAddr>,
}

/// What becomes of addresses that both claim.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overlap {
    /// Networks of the host that are let be.
    pub local: Vec<LocalNetwork>,
    /// Addresses within them that are the overlay's all the same.
    pub reserved: Vec<IpAddr>,
}

/// Compares the overlay with what the host has. `known` are the addresses that peers have or had; `tun` is
/// our own interface. With the warnings for `status`.
#[must_use]
pub fn compare(
    view: &NetworkView,
    overlay: &OverlayPrefixes,
    known: &BTreeSet<IpAddr>,
    tun: &str,
) -> (Overlap, Vec<String>) {
    let mut overlap = Overlap::default();
    let mut reserved = BTreeSet::new();
    let mut warnings = Vec::new();
    let resolver = dns::resolver(overlay);
    let resolver = [IpAddr::V4(resolver.v4), resolver.v6.into()];
    for route in view.routes.iter().filter(|route| route.interface != tun) {
        let Some(prefix) = overlapped(overlay, route.network) else {
            continue;
        };
        let (interface, network) = (&route.interface, route.network);
        let is_inside = network.prefix_len() > prefix.prefix_len();
        if !route.is_connected {
            warnings.push(format!(
                "the route to {network} through {interface} overlaps the overlay ({prefix}): overlay addresses in it go into the \
                 tunnel, so hosts behind that route with such addresses cannot be reached; give one of the two another range"
            ));
            continue;
        }
        if !is_inside || overlap.local.len() >= MOST_LOCAL {
            warnings.push(format!(
                "the network {network} of {interface} is as large as the overlay ({prefix}) or larger: overlay addresses in it go \
                 into the tunnel, so hosts on {interface} with such addresses cannot be reached; give one of the two another range"
            ));
            continue;
        }
        let taken: Vec<IpAddr> = known
            .iter()
            .copied()
            .filter(|address| network.contains(address))
            .collect();
        // An address that is not kept for the overlay would go out in clear.
        let room = MOST_RESERVED.saturating_sub(reserved.len());
        if taken.len() > room || known.len() >= MOST_KNOWN {
            warnings.push(format!(
                "the network {network} of {interface} lies within the overlay ({prefix}), which has more devices than can be told from \
                 it: all its addresses go into the tunnel, so hosts on {interface} cannot be reached; give one of the two another range"
            ));
            continue;
        }
        warnings.push(format!(
            "the network {network} of {interface} lies within the overlay ({prefix}): its addresses go to {interface}, but for {} \
             of devices of the overlay, which go into the tunnel; give one of the two another range to reach all of both",
            match taken.len() {
                1 => "one address".to_owned(),
                number => format!("{number} addresses"),
            }
        ));
        reserved.extend(taken);
        // Questions for names are not the LAN's either.
        reserved.extend(resolver.into_iter().filter(|at| network.contains(at)));
        overlap.local.push(LocalNetwork {
            index: route.index,
            network,
            source: route.source,
        });
    }
    overlap.reserved = reserved.into_iter().collect();
    for InterfaceAddress {
        interface, address, ..
    } in &view.addresses
    {
        if interface != tun && known.contains(address) {
            warnings.push(format!(
                "{interface} has the address {address}, which a device of the overlay has too: from here that device cannot be \
                 reached at it; give {interface} another address"
            ));
        }
        if interface != tun && resolver.contains(address) {
            warnings.push(format!(
                "{interface} has the address {address}, where names of devices are asked for: there is no answer; give {interface} \
                 another address"
            ));
        }
    }
    let more = warnings.len().saturating_sub(MOST_WARNINGS);
    warnings.truncate(MOST_WARNINGS);
    if more > 0 {
        warnings.push(format!(
            "{more} more networks of this host overlap the overlay"
        ));
    }
    (overlap, warnings)
}

/// The overlay's prefix of the same family, where the two have addresses in common. Routes to half of all
/// addresses and more stand for a default route, and lead to what nobody else claims.
#[must_use]
pub fn overlapped(overlay: &OverlayPrefixes, network: IpNet) -> Option<IpNet> {
    let prefix = match network {
        IpNet::V4(_) => IpNet::V4(overlay.v4),
        IpNet::V6(_) => IpNet::V6(overlay.v6),
    };
    let common = prefix.contains(&network) || network.contains(&prefix);
    (common && network.prefix_len() > 1).then_some(prefix)
}

#[cfg(test)]
mod tests {
    use super::super::interfaces::HostRoute;
    use super::*;

    fn overlay() -> OverlayPrefixes {
        OverlayPrefixes {
            v4: "100.64.0.0/10".parse().unwrap(),
            v6: "fd12:3456:789a::/48".parse().unwrap(),
        }
    }

    fn route(interface: &str, network: &str, is_connected: bool) -> HostRoute {
        HostRoute {
            interface: interface.into(),
            index: 2,
            network: network.parse().unwrap(),
            is_connected,
            source: None,
        }
    }

    fn seen(routes: Vec<HostRoute>, known: &[&str]) -> (Overlap, Vec<String>) {
        let view = NetworkView {
            routes,
            ..NetworkView::default()
        };
        let known = known.iter().map(|text| text.parse().unwrap()).collect();
        compare(&view, &overlay(), &known, "gatereeve0")
    }

    #[test]
    fn what_has_nothing_in_common_is_left_alone() {
        let routes = vec![
            route("eth0", "192.168.1.0/24", true),
            route("eth0", "0.0.0.0/0", false),
            route("tun9", "0.0.0.0/1", false),
            route("eth0", "fd77::/64", true),
            route("gatereeve0", "100.64.0.0/10", true),
        ];
        let (overlap, warnings) = seen(routes, &["100.64.0.1"]);
        assert_eq!((overlap, warnings.len()), (Overlap::default(), 0));
    }

    #[test]
    fn a_local_network_keeps_its_addresses_but_for_those_of_peers() {
        let routes = vec![route("eth0", "100.64.5.0/24", true)];
        let known = ["100.64.5.9", "100.64.6.1", "fd12:3456:789a::5"];
        let (overlap, warnings) = seen(routes, &known);
        assert_eq!(overlap.local.len(), 1);
        assert_eq!(overlap.reserved, ["100.64.5.9".parse::<IpAddr>().unwrap()]);
        assert_eq!(warnings.len(), 1);
        for named in ["100.64.5.0/24", "eth0", "100.64.0.0/10", "one address"] {
            assert!(warnings[0].contains(named), "{warnings:?}");
        }
    }

    #[test]
    fn a_network_with_more_peers_than_are_kept_apart_draws_nothing() {
        let view = NetworkView {
            routes: vec![route("eth0", "100.65.0.0/16", true)],
            ..NetworkView::default()
        };
        let first = u32::from(std::net::Ipv4Addr::new(100, 65, 0, 0));
        let known = |count: usize| -> BTreeSet<IpAddr> {
            (first..)
                .take(count)
                .map(|bits| std::net::Ipv4Addr::from(bits).into())
                .collect()
        };
        let of = |known: &BTreeSet<IpAddr>| compare(&view, &overlay(), known, "gatereeve0");
        let (overlap, _) = of(&known(MOST_RESERVED));
        assert_eq!(overlap.local.len(), 1, "control");
        assert_eq!(overlap.reserved.len(), MOST_RESERVED);
        let (overlap, warnings) = of(&known(MOST_RESERVED + 1));
        assert_eq!(overlap, Overlap::default());
        assert!(warnings[0].contains("100.65.0.0/16"), "{warnings:?}");
        // As many as are remembered: there may be others in it.
        let elsewhere = (0..MOST_KNOWN)
            .map(|n| IpAddr::V6(((0xfd12_u128 << 112) + n as u128).into()))
            .collect();
        assert_eq!(of(&elsewhere).0, Overlap::default());
    }

    #[test]
    fn routes_of_a_lan_and_networks_as_large_as_the_overlay_draw_nothing() {
        let routes = vec![
            route("eth0", "100.64.7.0/24", false),
            route("wwan0", "100.64.0.0/10", true),
            route("vpn0", "100.0.0.0/8", false),
        ];
        let (overlap, warnings) = seen(routes, &[]);
        assert_eq!(overlap, Overlap::default());
        assert_eq!(warnings.len(), 3);
        assert!(warnings[0].contains("100.64.7.0/24") && warnings[1].contains("wwan0"));
    }

    #[test]
    fn an_address_of_both_is_told_and_warnings_are_bounded() {
        let view = NetworkView {
            addresses: vec![InterfaceAddress {
                interface: "eth0".into(),
                loopback: false,
                address: "100.64.5.9".parse().unwrap(),
            }],
            routes: (0..40)
                .map(|n| route("eth0", &format!("100.65.{n}.0/24"), true))
                .collect(),
            ..NetworkView::default()
        };
        let known = BTreeSet::from(["100.64.5.9".parse().unwrap()]);
        let (overlap, warnings) = compare(&view, &overlay(), &known, "gatereeve0");
        assert_eq!(overlap.local.len(), 40);
        assert_eq!(warnings.len(), MOST_WARNINGS + 1);
        assert!(warnings[MOST_WARNINGS].starts_with("33 more"));
        let one = NetworkView {
            routes: Vec::new(),
            ..view
        };
        let (_, warnings) = compare(&one, &overlay(), &known, "gatereeve0");
        assert!(warnings[0].contains("100.64.5.9"), "{warnings:?}");
    }
}
