//! How long a packet the host's way out carries, and so what the interface's packets may have.
//!
//! Most of what leaves a host leaves by its default route, and IPv4 goes first where a peer has both. So the path
//! that counts is the default route of IPv4, of several the one that the kernel prefers, or else that of IPv6; where there is
//! neither, the widest of the interfaces with addresses. A peer whose path is narrower is found out to be so by
//! itself, which costs it a moment; the interface is to spare that those for whom it is the rule.

use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage, RouteMetric, RouteType};

use super::route;
use super::rule::MAIN;

/// The largest headers around a packet of the overlay: IPv6 40 bytes, UDP 8, WireGuard 32.
const HEADERS: u32 = 80;
/// What every interface with IPv6 has to carry (RFC 8200, section 5).
const LEAST: u32 = 1280;

/// The MTU of an interface whose packets are to fit, with all headers, into `underlay` bytes; at most `most`.
#[must_use]
pub fn overlay_mtu(underlay: Option<u32>, most: u32) -> u32 {
    underlay.map_or(most, |underlay| {
        underlay.saturating_sub(HEADERS).max(LEAST).min(most)
    })
}

/// The default routes that have been seen.
#[derive(Debug, Default)]
pub(super) struct WaysOut {
    v4: Option<WayOut>,
    v6: Option<WayOut>,
}

/// A default route. The kernel prefers the least metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct WayOut {
    metric: u32,
    mtu: u32,
}

/// Whether a route is one that everything takes that has no better one.
pub(super) fn is_default(message: &RouteMessage) -> bool {
    message.header.destination_prefix_length == 0
        && message.header.kind == RouteType::Unicast
        && route::table_of(message) == MAIN
        && !route::is_ours(message)
}

impl WaysOut {
    /// Takes a route of the kernel's list; `links` are all interfaces.
    pub(super) fn see(&mut self, message: &RouteMessage, links: &[LinkMessage]) {
        if is_default(message)
            && let Some(way) = way_out(message, links)
        {
            let is_v4 = message.header.address_family == AddressFamily::Inet;
            let held = if is_v4 { &mut self.v4 } else { &mut self.v6 };
            *held = Some(held.map_or(way, |held| held.min(way)));
        }
    }

    /// What the way out carries, in bytes; `None` where there is no default route.
    pub(super) fn mtu(&self) -> Option<u32> {
        self.v4.or(self.v6).map(|way| way.mtu)
    }
}

fn way_out(message: &RouteMessage, links: &[LinkMessage]) -> Option<WayOut> {
    let (mut metric, mut own, mut interfaces) = (0, None, Vec::new());
    for attribute in &message.attributes {
        #[expect(clippy::wildcard_enum_match_arm, reason = "the kernel's list is open")]
        match attribute {
            RouteAttribute::Priority(priority) => metric = *priority,
            RouteAttribute::Oif(index) => interfaces.push(*index),
            RouteAttribute::MultiPath(hops) => {
                interfaces.extend(hops.iter().map(|hop| hop.interface_index));
            }
            RouteAttribute::Metrics(metrics) => {
                own = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) => Some(*mtu),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    let of_links = interfaces.into_iter().filter_map(|index| {
        let link = links.iter().find(|link| link.header.index == index)?;
        mtu_of(link)
    });
    // Of several next hops each may be the one.
    let mtu = of_links.chain(own).min()?;
    Some(WayOut { metric, mtu })
}

/// The MTU of an interface that is up and leads somewhere.
pub(super) fn mtu_of(link: &LinkMessage) -> Option<u32> {
    let flags = link.header.flags;
    if !flags.contains(LinkFlags::Up) || flags.contains(LinkFlags::Loopback) {
        return None;
    }
    link.attributes.iter().find_map(|attribute| {
        if let LinkAttribute::Mtu(mtu) = attribute {
            Some(*mtu)
        } else {
            None
        }
    })
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_route::route::RouteNextHop;

    use super::*;

    fn link(index: u32, mtu: u32) -> LinkMessage {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.header.flags = LinkFlags::Up;
        link.attributes.push(LinkAttribute::Mtu(mtu));
        link
    }

    fn default_route(family: AddressFamily, attributes: Vec<RouteAttribute>) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.address_family = family;
        message.header.kind = RouteType::Unicast;
        message.header.table = 254;
        message.attributes = attributes;
        message
    }

    fn seen(routes: &[RouteMessage]) -> Option<u32> {
        let mut down = link(9, 900);
        down.header.flags = LinkFlags::empty();
        let links = [link(1, 1500), link(2, 1400), link(3, 9000), down];
        let mut ways = WaysOut::default();
        routes.iter().for_each(|route| ways.see(route, &links));
        ways.mtu()
    }

    #[test]
    fn the_interface_has_what_fits_into_the_path() {
        for (underlay, overlay) in [
            (Some(1500), 1420),
            (Some(1492), 1412),
            (Some(1400), 1320),
            (Some(1300), 1280),
            (Some(0), 1280),
            (Some(9001), 1420),
            (None, 1420),
        ] {
            assert_eq!(overlay_mtu(underlay, 1420), overlay, "{underlay:?}");
        }
    }

    #[test]
    fn the_way_out_is_the_default_route_that_the_kernel_prefers() {
        use AddressFamily::{Inet, Inet6};
        use RouteAttribute::{Metrics, Oif, Priority};
        let v4 = |metric, index| default_route(Inet, vec![Priority(metric), Oif(index)]);
        let v6 = |index| default_route(Inet6, vec![Oif(index)]);
        assert_eq!(seen(&[]), None);
        assert_eq!(seen(&[v4(100, 1), v4(50, 2), v4(600, 3)]), Some(1400));
        assert_eq!(seen(&[v6(2), v4(0, 1)]), Some(1500), "IPv4 goes first");
        assert_eq!(seen(&[v6(2)]), Some(1400));
        assert_eq!(seen(&[v4(0, 9), v6(2)]), Some(1400), "that is down");
        // A route may say so itself, and several next hops are as good as the narrowest.
        let told = Metrics(vec![RouteMetric::Mtu(1380)]);
        let route = default_route(Inet, vec![Oif(1), told]);
        assert_eq!(seen(&[route]), Some(1380));
        let hops = [3, 2].map(|index| {
            let mut hop = RouteNextHop::default();
            hop.interface_index = index;
            hop
        });
        let route = default_route(Inet, vec![RouteAttribute::MultiPath(hops.into())]);
        assert_eq!(seen(&[route]), Some(1400));
    }

    #[test]
    fn other_routes_are_no_way_out() {
        let oif = || vec![RouteAttribute::Oif(2)];
        let mut narrower = default_route(AddressFamily::Inet, oif());
        narrower.header.destination_prefix_length = 8;
        let mut elsewhere = default_route(AddressFamily::Inet, oif());
        elsewhere.header.table = 100;
        let mut nowhere = default_route(AddressFamily::Inet, oif());
        nowhere.header.kind = RouteType::Unreachable;
        assert_eq!(seen(&[narrower, elsewhere, nowhere]), None);
        assert_eq!(
            seen(&[default_route(AddressFamily::Inet, oif())]),
            Some(1400)
        );
    }
}
