//! How long a packet the host's way out carries, and so what the interface's packets may have.
//!
//! Peers are anywhere. The way to most of them is the one that the kernel takes to what it knows nothing special of: it is asked
//! where it would send a datagram with the tunnel's mark to a root name server, whose addresses are the best known there are
//! (nothing is sent). Rules, those that go by ports aside, tables of other programs and routes that are halves of everything count as they would for
//! that datagram. IPv4 is asked about first, as peers are tried over it first. A host that has no way out has the
//! widest of its links. A peer whose path is narrower is found out to be so by itself, which costs it a moment; the
//! interface is to spare that those for whom it is the rule.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use rtnetlink::packet_route::route::RouteMessage;

use super::lookup::{self, Datagram, Way};
use super::{FWMARK, route};

/// The largest headers around a packet of the overlay: IPv6 40 bytes, UDP 8, WireGuard 32.
const HEADERS: u32 = 80;
/// Packets are padded to a multiple of this, but not beyond the most that there may be.
const PADDING: u32 = 16;
/// What every interface with IPv6 has to carry (RFC 8200, section 5).
const LEAST: u32 = 1280;
/// a.root-servers.net (root.hints of the IANA), of IPv4 and of IPv6.
const FAR: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(198, 41, 0, 4)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0x503, 0xba3e, 0, 0, 0, 2, 0x30)),
];
/// The usual port of WireGuard: rules for names are not asked.
const PORT: u16 = 51_820;

/// The MTU of an interface whose packets are to fit, padded and with all headers, into `underlay` bytes; at most `most`.
#[must_use]
pub fn overlay_mtu(underlay: Option<u32>, most: u32) -> u32 {
    let room = underlay.map_or(most, |underlay| underlay.saturating_sub(HEADERS));
    if room >= most {
        most
    } else {
        (room - room % PADDING).max(LEAST).min(most)
    }
}

/// What the way out carries, in bytes; `links` are all interfaces.
pub(super) fn mtu(links: &[LinkMessage]) -> Option<u32> {
    FAR.into_iter().find_map(|to| {
        let datagram = Datagram {
            to: SocketAddr::new(to, PORT),
            from: None,
            port: PORT,
            mark: FWMARK,
        };
        carries(&lookup::ask(datagram).ok()?, links)
    })
}

/// A way carries what its route says, if it says so, and no more than its link.
fn carries(way: &Way, links: &[LinkMessage]) -> Option<u32> {
    let index = way.next.interface?;
    let link = links.iter().find(|link| link.header.index == index)?;
    mtu_of(link).into_iter().chain(way.mtu).min()
}

/// Whether a change of this route may make the way out another.
pub(super) fn leads_far(message: &RouteMessage) -> bool {
    let leads_there =
        || route::destination_of(message).is_some_and(|net| FAR.iter().any(|to| net.contains(to)));
    let is_everything = message.header.destination_prefix_length == 0;
    (is_everything || leads_there()) && !route::is_ours(message)
}

/// What a link carries that is there, leads somewhere, and is no tunnel's: of us, or of a program that has a way out
/// itself.
pub(super) fn mtu_of_wire(link: &LinkMessage) -> Option<u32> {
    let is_tunnel = link.attributes.iter().any(|attribute| {
        let LinkAttribute::LinkInfo(infos) = attribute else {
            return false;
        };
        let kinds = [InfoKind::Tun, InfoKind::Wireguard];
        let is = |info: &LinkInfo| matches!(info, LinkInfo::Kind(kind) if kinds.contains(kind));
        infos.iter().any(is)
    });
    let flags = link.header.flags;
    let is_wire = flags.contains(LinkFlags::Up | LinkFlags::LowerUp)
        && !flags.contains(LinkFlags::Loopback)
        && !is_tunnel;
    is_wire.then(|| mtu_of(link)).flatten()
}

fn mtu_of(link: &LinkMessage) -> Option<u32> {
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
    use super::super::lookup::Next;
    use super::*;

    fn link(index: u32, mtu: u32) -> LinkMessage {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.header.flags = LinkFlags::Up | LinkFlags::LowerUp;
        link.attributes.push(LinkAttribute::Mtu(mtu));
        link
    }

    #[test]
    fn what_the_interface_has_fits_into_the_path_when_it_is_padded() {
        for (underlay, overlay) in [
            (Some(1500), 1420),
            (Some(1492), 1408),
            (Some(1400), 1312),
            (Some(1300), 1280),
            (Some(0), 1280),
            (Some(9001), 1420),
            (None, 1420),
        ] {
            assert_eq!(overlay_mtu(underlay, 1420), overlay, "{underlay:?}");
        }
        for underlay in 1360..=1600 {
            let longest = overlay_mtu(Some(underlay), 1420);
            let padded = longest.next_multiple_of(16).min(1420);
            assert!(padded + 80 <= underlay, "{longest} on {underlay}");
            assert!(
                longest + 16 + 80 > underlay.min(1500),
                "{longest} on {underlay}"
            );
        }
    }

    #[test]
    fn a_route_leads_far_if_what_is_asked_for_is_behind_it() {
        use rtnetlink::packet_route::route::RouteAttribute;
        let leads = |to: &str, length| {
            let mut message = RouteMessage::default();
            message.header.destination_prefix_length = length;
            let to: IpAddr = to.parse().unwrap();
            if length > 0 {
                message.attributes = vec![RouteAttribute::Destination(to.into())];
            }
            leads_far(&message)
        };
        for (to, length, far) in [
            ("0.0.0.0", 0, true),
            ("128.0.0.0", 1, true),
            ("192.0.0.0", 3, true),
            ("2000::", 3, true),
            ("0.0.0.0", 1, false),
            ("10.0.0.0", 8, false),
            ("fd00::", 8, false),
        ] {
            assert_eq!(leads(to, length), far, "{to}/{length}");
        }
    }

    #[test]
    fn a_way_carries_what_its_link_and_its_route_do() {
        let links = [link(1, 1500), link(2, 1400)];
        let way = |interface, mtu| Way {
            source: None,
            next: Next {
                interface,
                ..Next::default()
            },
            mtu,
        };
        assert_eq!(carries(&way(Some(2), None), &links), Some(1400));
        assert_eq!(carries(&way(Some(1), Some(1380)), &links), Some(1380));
        assert_eq!(carries(&way(Some(2), Some(1480)), &links), Some(1400));
        assert_eq!(carries(&way(Some(3), None), &links), None);
        assert_eq!(carries(&way(None, Some(1380)), &links), None);
    }

    #[test]
    fn a_wire_is_there_and_no_tunnel() {
        assert_eq!(mtu_of_wire(&link(1, 1450)), Some(1450));
        let mut unplugged = link(1, 1500);
        unplugged.header.flags = LinkFlags::Up;
        let mut loopback = link(1, 65_536);
        loopback.header.flags |= LinkFlags::Loopback;
        let [tun, wireguard] = [InfoKind::Tun, InfoKind::Wireguard].map(|kind| {
            let mut link = link(1, 1420);
            let info = LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)]);
            link.attributes.push(info);
            link
        });
        for link in [unplugged, loopback, tun, wireguard] {
            assert_eq!(mtu_of_wire(&link), None, "{link:?}");
        }
    }
}
