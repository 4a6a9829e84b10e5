//! Routes of our table: which ones there are to be, and how the kernel tells them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType,
};

use super::{HostPlan, PROTOCOL, Place};

/// Metric of a route into the tunnel.
pub(super) const TUNNEL_METRIC: u32 = 100;
/// Metric of a route to a network of the host's own: behind the tunnel's, where both lead to one address.
const LOCAL_METRIC: u32 = 1000;
/// Metric of a route that is left when the tunnel is gone.
pub(super) const FALLBACK_METRIC: u32 = 4_000_000;

/// Where a route leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Via {
    /// Through the interface of this index into the tunnel.
    Tunnel(u32),
    /// Nowhere: the answer is "unreachable".
    Nowhere,
    /// To a network that the host is connected to, with the address that it is to be spoken to from.
    Local(u32, Option<Ipv4Addr>),
}

/// One route of our table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Route {
    pub(super) destination: IpNet,
    pub(super) via: Via,
}

impl Route {
    /// The routes that hold without the tunnel: what is the overlay's is unreachable, what is the host's own
    /// stays so.
    pub(super) fn lasting(plan: &HostPlan) -> Vec<Self> {
        let local = plan.overlap.local.iter().map(|network| {
            let source = match (network.source, network.network) {
                (Some(IpAddr::V4(source)), IpNet::V4(_)) => Some(source),
                _ => None,
            };
            Self {
                destination: network.network,
                via: Via::Local(network.index, source),
            }
        });
        Self::overlay(plan, Via::Nowhere).chain(local).collect()
    }

    /// The routes into the tunnel.
    pub(super) fn into_tunnel(plan: &HostPlan, index: u32) -> Vec<Self> {
        Self::overlay(plan, Via::Tunnel(index)).collect()
    }

    fn overlay(plan: &HostPlan, via: Via) -> impl Iterator<Item = Self> {
        let prefixes = [IpNet::V4(plan.prefixes.v4), IpNet::V6(plan.prefixes.v6)];
        let destinations = prefixes.map(|prefix| prefix.trunc()).into_iter();
        let reserved = plan.overlap.reserved.iter().copied().map(IpNet::from);
        destinations
            .chain(reserved)
            .map(move |destination| Self { destination, via })
    }

    /// As text; `name` tells the interface of an index.
    pub(super) fn show(&self, name: impl Fn(u32) -> String) -> String {
        let Self { destination, via } = self;
        match via {
            Via::Nowhere => format!("unreachable {destination}"),
            Via::Tunnel(index) | Via::Local(index, _) => {
                format!("{destination} dev {}", name(*index))
            }
        }
    }

    /// The message that adds it to `table`.
    pub(super) fn message(&self, table: u32) -> RouteMessage {
        let mut message = match self.destination {
            IpNet::V4(net) => RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(net.addr(), net.prefix_len())
                .build(),
            IpNet::V6(net) => RouteMessageBuilder::<Ipv6Addr>::new()
                .destination_prefix(net.addr(), net.prefix_len())
                .build(),
        };
        message.header.table = 0;
        message.header.protocol = RouteProtocol::Other(PROTOCOL);
        let (interface, metric) = match self.via {
            Via::Tunnel(index) => (Some(index), TUNNEL_METRIC),
            Via::Local(index, _) => (Some(index), LOCAL_METRIC),
            Via::Nowhere => (None, FALLBACK_METRIC),
        };
        match interface {
            Some(index) => {
                message.attributes.push(RouteAttribute::Oif(index));
                message.header.scope = RouteScope::Link;
            }
            None => message.header.kind = RouteType::Unreachable,
        }
        if let Via::Local(_, Some(source)) = self.via {
            let source = RouteAddress::Inet(source);
            message.attributes.push(RouteAttribute::PrefSource(source));
        }
        message.attributes.push(RouteAttribute::Table(table));
        message.attributes.push(RouteAttribute::Priority(metric));
        message
    }

    /// The route as the kernel lists it, with its table, if it is ours: of our protocol number, in one of our
    /// tables. One that we would not write (of another version, say) has no `Self`.
    pub(super) fn read(message: &RouteMessage) -> Option<(u32, Option<Self>)> {
        let table = table_of(message);
        if !is_ours(message) || Place::of_table(table).is_none() {
            return None;
        }
        let (mut interface, mut metric, mut source) = (None, None, None);
        for attribute in &message.attributes {
            #[expect(clippy::wildcard_enum_match_arm, reason = "the kernel's list is open")]
            match attribute {
                RouteAttribute::Oif(index) => interface = Some(*index),
                RouteAttribute::Priority(number) => metric = Some(*number),
                RouteAttribute::PrefSource(RouteAddress::Inet(v4)) => source = Some(*v4),
                _ => {}
            }
        }
        let is_unreachable = message.header.kind == RouteType::Unreachable;
        let via = match (metric, interface) {
            (Some(FALLBACK_METRIC), _) if is_unreachable => Some(Via::Nowhere),
            (Some(TUNNEL_METRIC), Some(index)) if !is_unreachable => Some(Via::Tunnel(index)),
            (Some(LOCAL_METRIC), Some(index)) if !is_unreachable => Some(Via::Local(index, source)),
            _ => None,
        };
        let route = destination_of(message)
            .zip(via)
            .map(|(destination, via)| Self { destination, via });
        Some((table, route))
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.show(|index| format!("if{index}")))
    }
}

/// Whether a route carries our protocol number.
pub(super) fn is_ours(message: &RouteMessage) -> bool {
    message.header.protocol == RouteProtocol::Other(PROTOCOL)
}

/// The table that a route is in.
pub(super) fn table_of(message: &RouteMessage) -> u32 {
    let attribute = message.attributes.iter().find_map(|attribute| {
        if let RouteAttribute::Table(table) = attribute {
            Some(*table)
        } else {
            None
        }
    });
    attribute.unwrap_or_else(|| u32::from(message.header.table))
}

/// Where a route leads to; `None` for a default route and other families.
pub(super) fn destination_of(message: &RouteMessage) -> Option<IpNet> {
    let length = message.header.destination_prefix_length;
    message.attributes.iter().find_map(|attribute| {
        if let RouteAttribute::Destination(destination) = attribute {
            address_of(destination).and_then(|address| IpNet::new(address, length).ok())
        } else {
            None
        }
    })
}

/// An IP address of a route.
pub(super) fn address_of(address: &RouteAddress) -> Option<IpAddr> {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "other families are not ours"
    )]
    match address {
        RouteAddress::Inet(v4) => Some((*v4).into()),
        RouteAddress::Inet6(v6) => Some((*v6).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(destination: &str, via: Via) -> Route {
        Route {
            destination: destination.parse().unwrap(),
            via,
        }
    }

    #[test]
    fn what_is_written_reads_back_as_ours() {
        let source = "100.64.5.1".parse().unwrap();
        let routes = [
            route("100.64.0.0/10", Via::Nowhere),
            route("fd12:3456:789a::/48", Via::Tunnel(7)),
            route("100.64.5.0/24", Via::Local(2, Some(source))),
        ];
        for route in routes {
            let message = route.message(5247);
            assert_eq!(Route::read(&message), Some((5247, Some(route))));
        }
    }

    #[test]
    fn routes_of_others_are_not_ours_and_odd_ones_of_ours_are() {
        let written = route("100.64.0.0/10", Via::Nowhere);
        let mut foreign = written.message(5247);
        foreign.header.protocol = RouteProtocol::Static;
        assert_eq!(Route::read(&foreign), None, "our table alone");
        assert_eq!(
            Route::read(&written.message(254)),
            None,
            "our protocol alone"
        );
        let mut odd = written.message(5300);
        odd.header.kind = RouteType::BlackHole;
        assert_eq!(Route::read(&odd), Some((5300, None)));
    }
}
