//! Devices that reach each other in memory, and packets for them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use gatereeve_client_core::datapath::{
    Batch, DataPath, LocalKey, Outbox, PeerSpec, RuleSpec, TableSpec,
};
use gatereeve_client_core::packet::ip::{TcpFlags, protocol};
use gatereeve_client_core::packet::offload::{Ecn, Offload, SegmentKind, SegmentsOf};
use gatereeve_client_core::packet::samples;
use gatereeve_client_core::wg::{NoiseTunnels, TunnelFactory};
use gatereeve_shared::identity::wg_key::WgSecret;
use gatereeve_shared::ids::{DeviceId, DeviceName, RuleId};
use gatereeve_shared::time::Mono;
use gatereeve_shared::wire::map::OverlayAddresses;

/// When everything begins.
pub(crate) const START: Mono = Mono(1_000_000_000_000);
/// The device that has two peers, and these.
pub(crate) const HUB: u16 = 1;
pub(crate) const ONE: u16 = 2;
pub(crate) const OTHER: u16 = 3;
/// A peer of the hub that is not there.
pub(crate) const ABSENT: u16 = 4;
/// Payload of each segment of a super-packet.
const SIZE: usize = 1_200;
/// Segments of one.
const SEGMENTS: usize = 10;

/// What the device `own` has in force with these peers.
pub(crate) fn table(own: u16, others: impl IntoIterator<Item = u16>) -> TableSpec {
    let rules = vec![RuleSpec {
        rule: RuleId::new("engineers-to-web").unwrap(),
        ports: vec!["tcp:443".parse().unwrap(), "udp:2".parse().unwrap()],
        end: Mono(u64::MAX),
    }];
    let peers = others.into_iter().map(|number| PeerSpec {
        device: DeviceId(number.to_be_bytes().repeat(10).try_into().unwrap()),
        name: DeviceName::new(format!("device-{number}")).unwrap(),
        addresses: addresses(number),
        keys: vec![(1, secret(number).public())],
        endpoints: vec![
            endpoint(number),
            SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], number)),
        ],
        ingress: rules.clone(),
        egress: rules.clone(),
    });
    TableSpec {
        serial: 1,
        own: Some(addresses(own)),
        local_keys: vec![LocalKey {
            counter: 1,
            secret: secret(own),
        }],
        peers: peers.collect(),
        ..TableSpec::default()
    }
}

pub(crate) fn endpoint(number: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], number))
}

pub(crate) fn secret(number: u16) -> WgSecret {
    let [high, low] = number.to_be_bytes();
    let mut bytes = [7; 32];
    (bytes[1], bytes[2]) = (high, low);
    WgSecret::from_bytes(bytes)
}

pub(crate) fn addresses(number: u16) -> OverlayAddresses {
    let [high, low] = number.to_be_bytes();
    OverlayAddresses {
        v4: Ipv4Addr::new(100, 64, high, low),
        v6: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number),
    }
}

pub(crate) fn address(number: u16, is_v4: bool) -> IpAddr {
    let addresses = addresses(number);
    if is_v4 {
        addresses.v4.into()
    } else {
        addresses.v6.into()
    }
}

/// A packet of the host, and what the host has left to do on it.
#[derive(Clone)]
pub(crate) struct Packet {
    pub(crate) bytes: Vec<u8>,
    pub(crate) offload: Offload,
    /// How many packets it is.
    pub(crate) count: usize,
    /// How many the other host is given for it: none for what completes the one before.
    pub(crate) written: usize,
}

/// A UDP packet as it is.
pub(crate) fn lone(from: u16, to: u16, is_v4: bool, ports: (u16, u16)) -> Packet {
    let (from, to) = (address(from, is_v4), address(to, is_v4));
    Packet {
        bytes: samples::udp((from, ports.0), (to, ports.1), &[7; 100]),
        offload: Offload::default(),
        count: 1,
        written: 1,
    }
}

/// Segments of TCP in one packet.
pub(crate) fn stream(from: u16, to: u16, is_v4: bool, ports: (u16, u16)) -> Packet {
    let (from, to) = (address(from, is_v4), address(to, is_v4));
    let mut segment = samples::tcp((from, ports.0), (to, ports.1), TcpFlags::ACK);
    let header = segment.len();
    // Behind the IP header, which is made anew with the length.
    segment.drain(..header - 20);
    segment.resize(20 + SEGMENTS * SIZE, 7);
    let kind = if is_v4 {
        SegmentKind::Tcp4
    } else {
        SegmentKind::Tcp6
    };
    let segments = SegmentsOf {
        kind,
        header: u16::try_from(header).expect("a header"),
        size: u16::try_from(SIZE).expect("a segment"),
    };
    Packet {
        bytes: samples::ip(from, to, protocol::TCP, &segment),
        offload: Offload {
            checksum: None,
            segments: Some(segments),
        },
        count: SEGMENTS,
        written: 1,
    }
}

/// The two fragments of a UDP datagram over IPv4.
pub(crate) fn fragments(from: u16, to: u16, ports: (u16, u16)) -> [Packet; 2] {
    let addresses = (address(from, true), address(to, true));
    let (from, to) = ((addresses.0, ports.0), (addresses.1, ports.1));
    let mut datagram = samples::udp(from, to, &[7; SIZE]);
    datagram.drain(..20);
    let (first, later) = datagram.split_at(1_000);
    let piece = |units, more, payload: &[u8]| Packet {
        bytes: samples::fragment(addresses, protocol::UDP, 0, units, more, payload),
        offload: Offload::default(),
        count: 1,
        written: usize::from(more),
    };
    [piece(0, true, first), piece(1_000 / 8, false, later)]
}

/// The same with these congestion bits.
pub(crate) fn marked(packet: &Packet, bits: u8) -> Packet {
    let mut packet = packet.clone();
    let is_v4 = packet.bytes[0] >> 4 == 4;
    packet.bytes[1] |= if is_v4 { bits } else { bits << 4 };
    packet
}

pub(crate) fn push(batch: &mut Batch, packet: &Packet) {
    let slot = batch.slot().expect("room for one more");
    slot[..packet.bytes.len()].copy_from_slice(&packet.bytes);
    batch.commit_offloaded(0, packet.bytes.len(), packet.offload);
}

/// A device, with the buffers that its worker keeps.
pub(crate) struct Node {
    pub(crate) number: u16,
    pub(crate) path: DataPath,
    pub(crate) from_tun: Batch,
    pub(crate) from_udp: Batch,
    pub(crate) out: Outbox,
    /// Packets that came out of the TUN side since somebody asked, and in how many writes.
    pub(crate) received: (usize, usize),
}

impl Node {
    pub(crate) fn new(
        number: u16,
        others: impl IntoIterator<Item = u16>,
        tunnels: Box<dyn TunnelFactory>,
    ) -> Self {
        let [_, seed] = number.to_be_bytes();
        let path = DataPath::new([seed; 32], tunnels, START);
        path.open_until(Mono(u64::MAX));
        path.publish(table(number, others), START);
        Self {
            number,
            path,
            from_tun: Batch::new(128, 65_535),
            from_udp: Batch::new(256, 65_535),
            out: Outbox::new(),
            received: (0, 0),
        }
    }
}

/// Devices that reach each other. Takes no memory itself once it is made.
pub(crate) struct Wire {
    pub(crate) nodes: Vec<Node>,
    pub(crate) now: Mono,
}

impl Wire {
    /// The hub and its two peers, with sessions.
    pub(crate) fn of_three() -> Self {
        let tunnels = || Box::new(NoiseTunnels);
        let nodes = vec![
            Node::new(HUB, [ONE, OTHER, ABSENT], tunnels()),
            Node::new(ONE, [HUB], tunnels()),
            Node::new(OTHER, [HUB], tunnels()),
        ];
        let mut wire = Self { nodes, now: START };
        for (node, to) in [(1, ONE), (2, OTHER)] {
            wire.push(0, &lone(HUB, to, true, (1_000, 2)));
            wire.outbound(0);
            wire.settle();
            assert_eq!(wire.take_received(node), 1, "there is a session");
        }
        wire
    }

    /// The host of `node` gives a packet.
    pub(crate) fn push(&mut self, node: usize, packet: &Packet) {
        push(&mut self.nodes[node].from_tun, packet);
    }

    /// What the host of `node` has given goes on the wire.
    pub(crate) fn outbound(&mut self, node: usize) {
        let (at, now) = (&mut self.nodes[node], self.now);
        at.path.outbound(&mut at.from_tun, now, &mut at.out);
        self.carry(node);
        self.nodes[node].out.clear();
    }

    /// As [`Self::outbound`], and says of each run what it says of congestion, and how many datagrams it is.
    pub(crate) fn runs_of(&mut self, node: usize) -> Vec<(Ecn, usize)> {
        let (at, now) = (&mut self.nodes[node], self.now);
        at.path.outbound(&mut at.from_tun, now, &mut at.out);
        let runs = at.out.runs().map(|run| (run.ecn, run.count())).collect();
        self.carry(node);
        self.nodes[node].out.clear();
        self.settle();
        runs
    }

    /// What `node` wants sent lies where it is received.
    pub(crate) fn carry(&mut self, node: usize) {
        let from = endpoint(self.nodes[node].number);
        let out = std::mem::take(&mut self.nodes[node].out);
        for run in out.runs() {
            let mut nodes = self.nodes.iter_mut();
            let to = nodes.find(|to| endpoint(to.number) == run.to);
            let batch = &mut to.expect("a device that is there").from_udp;
            let slot = batch.slot().expect("room for one more");
            slot[..run.bytes.len()].copy_from_slice(run.bytes);
            batch.commit_coalesced(run.bytes.len(), run.segment, from, run.ecn);
        }
        self.nodes[node].out = out;
    }

    /// What lies there is received, and what follows from it.
    pub(crate) fn settle(&mut self) {
        let has_some = |node: &Node| !node.from_udp.is_empty();
        while let Some(node) = self.nodes.iter().position(has_some) {
            let (at, now) = (&mut self.nodes[node], self.now);
            at.path.inbound(&mut at.from_udp, now, &mut at.out);
            let packets = at.out.joined().map(|one| one.count());
            at.received.0 += packets.sum::<usize>();
            at.received.1 += at.out.joined().count();
            self.carry(node);
            let at = &mut self.nodes[node];
            at.out.give_back(&mut at.from_udp);
        }
    }

    /// Packets that the host of `node` was given since somebody asked.
    pub(crate) fn take_received(&mut self, node: usize) -> usize {
        self.take_written(node).0
    }

    /// The same, and in how many writes.
    pub(crate) fn take_written(&mut self, node: usize) -> (usize, usize) {
        std::mem::take(&mut self.nodes[node].received)
    }
}
