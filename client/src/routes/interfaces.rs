//! The host's own addresses, where peers on the same network can reach this device, and those of its
//! networks and routes that overlap the overlay. [`super::watch`] follows them.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, anyhow};
use futures_util::TryStreamExt as _;
use rtnetlink::Handle;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage, RouteProtocol, RouteType};

use gatereeve_shared::limits;
use gatereeve_shared::wire::map::{OverlayAddresses, OverlayPrefixes};
use ipnet::IpNet;

use super::overlap::overlapped;
use super::rule::MAIN;
use super::underlay::{self, mtu_of_wire};
use super::{Place, route};

/// Routes that overlap the overlay; more are not looked at.
const MOST_ROUTES: usize = 256;
/// The table of the host's own addresses.
const LOCAL: u32 = 255;

/// One address of one interface that is up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceAddress {
    /// The interface.
    pub interface: String,
    /// Whether it is the loopback interface.
    pub loopback: bool,
    /// The address.
    pub address: IpAddr,
}

/// A route of the host's that overlaps the overlay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostRoute {
    /// The interface that it leads through.
    pub interface: String,
    /// That interface's index.
    pub index: u32,
    /// Where it leads.
    pub network: IpNet,
    /// Whether the kernel made it for an address of the interface, so that its hosts are neighbours.
    pub is_connected: bool,
    /// The host's own address there.
    pub source: Option<IpAddr>,
}

/// The host's network, as far as it matters to us.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkView {
    /// Addresses of interfaces that are up.
    pub addresses: Vec<InterfaceAddress>,
    /// Routes that overlap the overlay, ours aside.
    pub routes: Vec<HostRoute>,
    /// What the way out of this host carries, in bytes; `None` where there is none.
    pub underlay_mtu: Option<u32>,
    /// Counts the times that something of ours went away, or may have, by whomever.
    pub disturbed: u64,
}

impl NetworkView {
    /// Whether `interface` is up with the addresses `own`, the IPv6 one only where it is to have that.
    #[must_use]
    pub fn has_addresses(&self, interface: &str, own: &OverlayAddresses, ipv6: bool) -> bool {
        let has = |address: IpAddr| {
            self.addresses
                .iter()
                .any(|held| held.interface == interface && held.address == address)
        };
        has(own.v4.into()) && (!ipv6 || has(own.v6.into()))
    }
}

/// The address that a netlink message is about.
#[must_use]
pub fn address_of(message: &AddressMessage) -> Option<IpAddr> {
    let find = |local: bool| {
        message.attributes.iter().find_map(|attribute| {
            #[expect(clippy::wildcard_enum_match_arm, reason = "the kernel's list is open")]
            match attribute {
                AddressAttribute::Local(address) if local => Some(*address),
                AddressAttribute::Address(address) if !local => Some(*address),
                _ => None,
            }
        })
    };
    // On a point-to-point link `Address` is the other end.
    find(true).or_else(|| find(false))
}

/// The endpoints to announce: every usable address with `port`, at most as many as the protocol takes.
///
/// Left out are our own TUN device, the overlay (a tunnel through itself), link-local and other
/// addresses that mean nothing elsewhere, and loopback unless there is nothing else.
#[must_use]
pub fn endpoints(
    found: &[InterfaceAddress],
    port: u16,
    tun: &str,
    overlay: Option<&OverlayPrefixes>,
) -> Vec<SocketAddr> {
    let usable = |entry: &&InterfaceAddress| {
        entry.interface != tun
            && !overlay.is_some_and(|prefixes| prefixes.contains(entry.address))
            && !entry.address.is_unspecified()
            && !entry.address.is_multicast()
            && match entry.address {
                IpAddr::V4(v4) => !v4.is_link_local(),
                IpAddr::V6(v6) => !v6.is_unicast_link_local(),
            }
    };
    let chosen = |loopback: bool| {
        let mut list: Vec<_> = found
            .iter()
            .filter(usable)
            .filter(|entry| (entry.loopback || entry.address.is_loopback()) == loopback)
            .map(|entry| SocketAddr::new(entry.address, port))
            .collect();
        // IPv4 first: it is the smaller outer header.
        list.sort_by_key(|endpoint| (endpoint.is_ipv6(), *endpoint));
        list.dedup();
        list.truncate(limits::ENDPOINTS);
        list
    };
    let real = chosen(false);
    if real.is_empty() { chosen(true) } else { real }
}

/// Reads the host's network; routes are compared with `overlay`.
///
/// # Errors
/// When the kernel does not list what there is.
pub(super) async fn list(handle: &Handle, overlay: Option<OverlayPrefixes>) -> Result<NetworkView> {
    let failed = |error| anyhow!("cannot list the interfaces: {error}");
    let links: Vec<LinkMessage> = handle
        .link()
        .get()
        .execute()
        .try_collect()
        .await
        .map_err(failed)?;
    let messages: Vec<_> = handle
        .address()
        .get()
        .execute()
        .try_collect()
        .await
        .map_err(failed)?;
    let mut view = NetworkView::default();
    for message in &messages {
        let Some((name, flags)) = link_of(&links, message.header.index) else {
            continue;
        };
        let unusable = message.attributes.iter().any(|attribute| {
            matches!(attribute, AddressAttribute::Flags(flags)
                if flags.intersects(AddressFlags::Dadfailed | AddressFlags::Deprecated))
        });
        if let Some(address) = address_of(message)
            && flags.contains(LinkFlags::Up)
            && !unusable
        {
            view.addresses.push(InterfaceAddress {
                interface: name.to_owned(),
                loopback: flags.contains(LinkFlags::Loopback),
                address,
            });
        }
    }
    if let Some(overlay) = &overlay {
        view.routes = list_routes(handle, &links, overlay).await?;
    }
    view.underlay_mtu = underlay::mtu(&links).or_else(|| widest(&view.addresses, &links));
    Ok(view)
}

/// The largest MTU of the wires with an address.
fn widest(addresses: &[InterfaceAddress], links: &[LinkMessage]) -> Option<u32> {
    let has_address = |name: &str| addresses.iter().any(|held| held.interface == name);
    let links = links
        .iter()
        .filter(|link| name_of(link).is_some_and(has_address));
    links.filter_map(mtu_of_wire).max()
}

/// The host's routes that overlap the overlay.
async fn list_routes(
    handle: &Handle,
    links: &[LinkMessage],
    overlay: &OverlayPrefixes,
) -> Result<Vec<HostRoute>> {
    let mut found = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut query = RouteMessage::default();
        query.header.address_family = family;
        let mut routes = handle.route().get(query).execute();
        while let Some(message) = routes
            .try_next()
            .await
            .map_err(|error| anyhow!("cannot list the routes: {error}"))?
        {
            let overlaps = route::destination_of(&message)
                .is_some_and(|network| overlapped(overlay, network).is_some());
            if overlaps && found.len() < MOST_ROUTES {
                found.extend(host_route(&message, links));
            }
        }
    }
    Ok(found)
}

/// A route of the host's that packets would take if it were not for us.
fn host_route(message: &RouteMessage, links: &[LinkMessage]) -> Option<HostRoute> {
    let table = route::table_of(message);
    if message.header.kind != RouteType::Unicast
        || table == LOCAL
        || (route::is_ours(message) && Place::of_table(table).is_some())
    {
        return None;
    }
    let (mut index, mut gateway, mut source) = (None, false, None);
    for attribute in &message.attributes {
        #[expect(clippy::wildcard_enum_match_arm, reason = "the kernel's list is open")]
        match attribute {
            RouteAttribute::Oif(oif) => index = Some(*oif),
            RouteAttribute::Gateway(_) | RouteAttribute::Via(_) => gateway = true,
            RouteAttribute::PrefSource(address) => source = route::address_of(address),
            _ => {}
        }
    }
    let index = index?;
    let network = route::destination_of(message)?;
    let by_kernel = message.header.protocol == RouteProtocol::Kernel;
    // IPv6 has such a route for each address of the host's own: nobody else is there.
    if by_kernel && network.addr().is_ipv6() && network.prefix_len() == 128 {
        return None;
    }
    let (name, _) = link_of(links, index)?;
    Some(HostRoute {
        interface: name.to_owned(),
        index,
        network,
        is_connected: table == MAIN && !gateway && message.header.protocol == RouteProtocol::Kernel,
        source,
    })
}

/// Name and flags of an interface.
pub(super) fn link_of(links: &[LinkMessage], index: u32) -> Option<(&str, LinkFlags)> {
    let link = links.iter().find(|link| link.header.index == index)?;
    name_of(link).map(|name| (name, link.header.flags))
}

/// The name of an interface.
pub(super) fn name_of(link: &LinkMessage) -> Option<&str> {
    link.attributes.iter().find_map(|attribute| {
        if let LinkAttribute::IfName(name) = attribute {
            Some(name.as_str())
        } else {
            None
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(interface: &str, address: &str) -> InterfaceAddress {
        InterfaceAddress {
            interface: interface.into(),
            loopback: interface == "lo",
            address: address.parse().unwrap(),
        }
    }

    fn overlay() -> OverlayPrefixes {
        OverlayPrefixes {
            v4: "100.64.0.0/10".parse().unwrap(),
            v6: "fd12:3456:789a::/48".parse().unwrap(),
        }
    }

    #[test]
    fn either_address_is_missed_and_ipv6_only_where_it_is_on() {
        let own = OverlayAddresses {
            v4: "100.64.0.1".parse().unwrap(),
            v6: "fd12:3456:789a::1".parse().unwrap(),
        };
        let (v4, v6) = (
            entry("gatereeve0", "100.64.0.1"),
            entry("gatereeve0", "fd12:3456:789a::1"),
        );
        let has = |addresses: &[&InterfaceAddress], ipv6| {
            let view = NetworkView {
                addresses: addresses.iter().copied().cloned().collect(),
                ..NetworkView::default()
            };
            view.has_addresses("gatereeve0", &own, ipv6)
        };
        assert!(has(&[&v4, &v6], true));
        assert!(!has(&[&v4], true) && !has(&[&v6], true));
        assert!(has(&[&v4], false), "IPv6 is off");
        let elsewhere = entry("eth0", "fd12:3456:789a::1");
        assert!(!has(&[&v4, &elsewhere], true));
    }

    #[test]
    fn only_addresses_that_others_can_use_are_announced() {
        let found = [
            entry("lo", "127.0.0.1"),
            entry("eth0", "192.0.2.7"),
            entry("eth0", "2001:db8::7"),
            entry("eth0", "fe80::1"),
            entry("eth0", "169.254.1.1"),
            entry("eth1", "100.64.0.9"),
            entry("gatereeve0", "198.51.100.1"),
        ];
        let announced = endpoints(&found, 7, "gatereeve0", Some(&overlay()));
        let expected: Vec<SocketAddr> = vec![
            "192.0.2.7:7".parse().unwrap(),
            "[2001:db8::7]:7".parse().unwrap(),
        ];
        assert_eq!(announced, expected);
    }

    #[test]
    fn loopback_is_the_last_resort_and_the_list_is_bounded() {
        let only_loopback = [entry("lo", "127.0.0.1"), entry("eth0", "fe80::1")];
        let announced = endpoints(&only_loopback, 7, "gatereeve0", None);
        assert_eq!(
            announced,
            vec!["127.0.0.1:7".parse::<SocketAddr>().unwrap()]
        );
        let many: Vec<_> = (0..100)
            .map(|n| entry("eth0", &format!("192.0.2.{n}")))
            .collect();
        assert_eq!(
            endpoints(&many, 7, "gatereeve0", None).len(),
            limits::ENDPOINTS
        );
    }
}
