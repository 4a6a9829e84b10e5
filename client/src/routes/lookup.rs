//! Which way the kernel would send a datagram: asked of the kernel itself (`RTM_GETROUTE`, rtnetlink(7)), which sends nothing for
//! it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd as _;

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};
use rtnetlink::packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteVia,
};

/// Protocol number of UDP.
const UDP: u8 = 17;
/// Longer than an answer is.
const ROOM: usize = 4096;

/// A datagram of UDP, as far as routes can depend on it.
#[derive(Clone, Copy, Debug)]
pub struct Datagram {
    /// Where to.
    pub to: SocketAddr,
    /// From which of our addresses; `None` where the kernel chooses.
    pub from: Option<IpAddr>,
    /// From which port.
    pub port: u16,
    /// The mark of its socket.
    pub mark: u32,
}

/// A way that the kernel has chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// The address that it would be sent from.
    pub source: Option<IpAddr>,
    /// Where it leads first.
    pub next: Next,
    /// What its route says that it carries, in bytes, if that says so.
    pub mtu: Option<u32>,
}

/// Where a way leads first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Next {
    /// Through which interface, by its index.
    pub interface: Option<u32>,
    /// To whom there, where it is not the destination itself.
    pub gateway: Option<RouteAddress>,
    /// The same, of the other family.
    pub via: Option<RouteVia>,
}

/// Asks the kernel.
///
/// # Errors
/// Where there is no route, or the kernel does not answer.
pub fn ask(datagram: Datagram) -> io::Result<Way> {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )?;
    let question = question(datagram);
    let kernel = NetlinkAddr::new(0, 0);
    sendto(socket.as_raw_fd(), &question, &kernel, MsgFlags::empty())?;
    let mut bytes = [0; ROOM];
    // It has answered by now.
    let len = recv(socket.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT)?;
    answer(bytes.get(..len).unwrap_or_default())
}

fn question(datagram: Datagram) -> Vec<u8> {
    let Datagram {
        to,
        from,
        port,
        mark,
    } = datagram;
    let mut message = RouteMessage::default();
    message.header.address_family = if to.is_ipv4() {
        rtnetlink::packet_route::AddressFamily::Inet
    } else {
        rtnetlink::packet_route::AddressFamily::Inet6
    };
    let bits = if to.is_ipv4() { 32 } else { 128 };
    message.header.destination_prefix_length = bits;
    message.attributes = vec![
        RouteAttribute::Destination(to.ip().into()),
        RouteAttribute::Mark(mark),
        RouteAttribute::IpProto(UDP),
        RouteAttribute::Sport(port),
        RouteAttribute::Dport(to.port()),
    ];
    if let Some(from) = from {
        message.header.source_prefix_length = bits;
        message.attributes.push(RouteAttribute::Source(from.into()));
    }
    if let SocketAddr::V6(to) = to
        && to.scope_id() != 0
    {
        message.attributes.push(RouteAttribute::Oif(to.scope_id()));
    }
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST;
    let payload = NetlinkPayload::from(RouteNetlinkMessage::GetRoute(message));
    let mut packet = NetlinkMessage::new(header, payload);
    packet.finalize();
    let mut bytes = vec![0; packet.buffer_len()];
    packet.serialize(&mut bytes);
    bytes
}

fn answer(bytes: &[u8]) -> io::Result<Way> {
    let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes);
    #[expect(clippy::wildcard_enum_match_arm, reason = "the kernel's list is open")]
    let message = match message.map_err(io::Error::other)?.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(message)) => message,
        NetlinkPayload::Error(error) => return Err(error.to_io()),
        other => return Err(io::Error::other(format!("not a route: {other:?}"))),
    };
    let mut way = Way {
        source: None,
        next: Next::default(),
        mtu: None,
    };
    // IPv6 has ends for routes that routers announce, too, whose word it is.
    let is_of_address = message.header.flags.contains(RouteFlags::Cloned);
    let mut is_passing = false;
    #[expect(clippy::wildcard_enum_match_arm, reason = "the kernel's list is open")]
    for attribute in message.attributes {
        match attribute {
            RouteAttribute::PrefSource(RouteAddress::Inet(source)) => {
                way.source = Some(source.into());
            }
            RouteAttribute::PrefSource(RouteAddress::Inet6(source)) => {
                way.source = Some(source.into());
            }
            RouteAttribute::Oif(interface) => way.next.interface = Some(interface),
            RouteAttribute::Gateway(gateway) => way.next.gateway = Some(gateway),
            RouteAttribute::Via(via) => way.next.via = Some(via),
            RouteAttribute::Metrics(metrics) => {
                way.mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) => Some(*mtu),
                    _ => None,
                });
            }
            // What was learned of the path to this one address is no word of the route's.
            RouteAttribute::CacheInfo(info) => is_passing = is_of_address && info.expires != 0,
            _ => {}
        }
    }
    if is_passing {
        way.mtu = None;
    }
    Ok(way)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datagram(to: &str) -> Datagram {
        Datagram {
            to: to.parse().unwrap(),
            from: None,
            port: 51820,
            mark: 0,
        }
    }

    #[test]
    fn the_kernel_tells_which_address_it_would_send_from() {
        let way = ask(datagram("127.0.0.1:9")).unwrap();
        let own = IpAddr::from([127, 0, 0, 1]);
        assert_eq!(way.source, Some(own));
        assert!(way.next.interface.is_some(), "{way:?}");
        let bound = ask(Datagram {
            from: Some(own),
            ..datagram("127.0.0.1:9")
        });
        assert_eq!(bound.unwrap().next, way.next);
        // Which is none of ours.
        let bound = ask(Datagram {
            from: Some([192, 0, 2, 77].into()),
            ..datagram("127.0.0.1:9")
        });
        assert!(bound.is_err());
    }

    #[test]
    fn what_was_learned_of_one_address_is_no_word_of_its_route() {
        use rtnetlink::packet_route::route::RouteCacheInfo;
        let told = |flags, expires| {
            let mut message = RouteMessage::default();
            message.header.flags = flags;
            // `rta_cacheinfo` of linux/rtnetlink.h: what ends it is the third of eight words.
            let words: [u32; 8] = [0, 0, expires, 0, 0, 0, 0, 0];
            let info = RouteCacheInfo::parse(&words.map(u32::to_ne_bytes).concat()).unwrap();
            message.attributes = vec![
                RouteAttribute::Metrics(vec![RouteMetric::Mtu(1280)]),
                RouteAttribute::CacheInfo(info),
            ];
            let payload = NetlinkPayload::from(RouteNetlinkMessage::NewRoute(message));
            let mut packet = NetlinkMessage::new(NetlinkHeader::default(), payload);
            packet.finalize();
            let mut bytes = vec![0; packet.buffer_len()];
            packet.serialize(&mut bytes);
            answer(&bytes).unwrap().mtu
        };
        assert_eq!(told(RouteFlags::Cloned, 500), None);
        assert_eq!(told(RouteFlags::Cloned, 0), Some(1280), "the route's own");
        assert_eq!(told(RouteFlags::empty(), 500), Some(1280), "a router's");
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        assert!(answer(&[]).is_err());
        assert!(answer(&[0; 64]).is_err());
        let question = question(datagram("[2001:db8::1]:5"));
        assert!(answer(&question).is_err());
    }
}
