//! What a configured peer takes and what its packets take, as asked of the allocator; what its timers look at; and what its
//! packets say of congestion outside.

#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gatereeve_client_core::datapath::{
    Batch, DataPath, LocalKey, Outbox, PeerSpec, RuleSpec, TableSpec,
};
use gatereeve_client_core::filter::{Permit, VERDICTS_PER_PEER};
use gatereeve_client_core::packet::ip::{TcpFlags, protocol};
use gatereeve_client_core::packet::offload::{Ecn, Offload, SegmentKind, SegmentsOf};
use gatereeve_client_core::packet::samples;
use gatereeve_client_core::wg::{
    HandshakeGate, NoiseTunnels, Opened, SessionView, Tunnel, TunnelError, TunnelFactory,
};
use gatereeve_shared::identity::wg_key::{WgPublicKey, WgSecret};
use gatereeve_shared::ids::{DeviceId, DeviceName, RuleId};
use gatereeve_shared::time::Mono;
use gatereeve_shared::wire::map::OverlayAddresses;

const PEERS: u16 = 4_000;
/// What a peer may take that nobody talks to.
const SILENT: usize = 2 * 1024;
/// What a session may take, most of it to know which messages have come.
const SESSION: usize = 1024 + 512;

/// When everything begins.
const START: Mono = Mono(1_000_000_000_000);
/// The device that has two peers, and these.
const HUB: u16 = 1;
const ONE: u16 = 2;
const OTHER: u16 = 3;
/// A peer of the hub that is not there.
const ABSENT: u16 = 4;
/// Payload of each segment of a super-packet.
const SIZE: usize = 1_200;
/// Segments of one.
const SEGMENTS: usize = 10;
/// Packets of each kind, and pairs of fragments, between two devices in a batch.
const MANY: usize = 8;
/// What batches are made of: see [`Traffic::of`].
const KINDS: usize = 5;

#[global_allocator]
static COUNTING: Counting = Counting;

// Of each thread its own: tests run side by side, and what the others ask for is no part of what is counted.
thread_local! {
    /// Bytes. Far from zero, for a thread may give back what another one took.
    static TAKEN: Cell<usize> = const { Cell::new(usize::MAX / 2) };
    static CALLS: Cell<usize> = const { Cell::new(0) };
}

/// The system's, with a count of what is taken and not given back, and of the calls.
struct Counting;

/// One call: so many bytes are taken, and so many are given back.
fn called(taken: usize, given_back: usize) {
    TAKEN.set(TAKEN.get().wrapping_add(taken).wrapping_sub(given_back));
    CALLS.set(CALLS.get().wrapping_add(1));
}

#[expect(
    unsafe_code,
    reason = "counts, and leaves the work to the system's allocator"
)]
// SAFETY: all functions do what the system's do, which keeps the contract.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        called(layout.size(), 0);
        // SAFETY: the caller keeps the contract of this same function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        called(layout.size(), 0);
        // SAFETY: the caller keeps the contract of this same function.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        called(size, layout.size());
        // SAFETY: the caller keeps the contract of this same function.
        unsafe { System.realloc(memory, layout, size) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        called(0, layout.size());
        // SAFETY: the caller keeps the contract of this same function.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[test]
fn a_silent_peer_takes_little() {
    let now = Mono(1_000_000_000_000);
    let path = DataPath::new([1; 32], Box::new(NoiseTunnels), now);
    path.open_until(Mono(u64::MAX));
    let before = taken();
    // What the table is made from is no part of it, and is gone afterwards.
    path.publish(spec(), now);
    path.prepare(now);
    let silent = (taken() - before) / usize::from(PEERS);

    let mut out = Outbox::new();
    let mut batch = Batch::new(1, 2048);
    let mut handshake = |peer: u16| {
        let before = taken();
        let (from, to) = (addresses(0).v4, addresses(peer).v4);
        let packet = samples::udp((from.into(), 1), (to.into(), 2), b"hello");
        assert!(batch.push(&packet, None));
        path.outbound(&mut batch, now, &mut out);
        assert!(out.transmits().count() > 0, "an initiation");
        out.clear();
        batch.clear();
        taken().saturating_sub(before)
    };
    // The buffers are made with the first one.
    handshake(1);
    let prepared = handshake(2);
    let busy = (3..=PEERS).map(handshake).sum::<usize>() / usize::from(PEERS - 2);
    println!(
        "a silent peer takes {silent} bytes, a handshake with it {busy} more, {prepared} where it was prepared"
    );
    assert!(prepared < 4 * 1024, "{prepared}");
    assert!(silent <= SILENT, "{silent}");
    // Positive control: this does see what is taken.
    assert!(busy > 2 * 1024, "{busy}");

    let session = session(now);
    println!("a session takes {session} more, of which a peer has one or two in use");
    assert!((1024..=SESSION).contains(&session), "{session}");
}

/// In steady state the data path works in memory that it has: an allocation per packet would be the slowest thing about it.
#[test]
fn packets_of_established_flows_do_not_call_the_allocator() {
    let mut wire = Wire::of_three();
    let mut rounds = Rounds::new();
    // Until every buffer is as large as it gets, and there are as many verdicts on fragments as are kept.
    let mut datagrams = 0;
    while datagrams < VERDICTS_PER_PEER {
        for _ in 0..KINDS {
            rounds.next(&mut wire);
        }
        datagrams += MANY;
    }
    let called: Vec<_> = (0..1_000).map(|_| rounds.next(&mut wire)).collect();
    let calling = called.iter().enumerate().filter(|(_, calls)| **calls > 0);
    let calling: Vec<_> = calling.map(|(at, calls)| (at % KINDS, *calls)).collect();
    assert!(
        calling.is_empty(),
        "kinds of batches and their calls: {calling:?}"
    );
}

/// Positive control: what has to be kept takes memory, and that is seen.
#[test]
fn packets_that_leave_something_behind_call_the_allocator() {
    let mut grows = Vec::with_capacity(1);
    let before = calls();
    grows.extend([1_u8, 2]);
    assert_eq!(calls() - before, 1, "a longer one in its place");

    let mut wire = Wire::of_three();
    let mut rounds = Rounds::new();
    for _ in 0..10 * KINDS {
        rounds.next(&mut wire);
    }
    let new_flows: Vec<_> = (0..64)
        .map(|flow| lone(HUB, ONE, true, (2_000 + flow, 2)))
        .collect();
    let mut send_all = || {
        let before = calls();
        for packet in &new_flows {
            wire.push(0, packet);
            wire.outbound(0);
            wire.settle();
        }
        assert_eq!(wire.take_received(1), new_flows.len());
        calls() - before
    };
    assert!(send_all() > 0, "their flows are tracked");
    assert_eq!(send_all(), 0, "they are already");

    let waiting = lone(HUB, ABSENT, true, (1_000, 2));
    let (hub, now) = (&mut wire.nodes[0], wire.now);
    let mut wait = || {
        push(&mut hub.from_tun, &waiting);
        let before = calls();
        hub.path.outbound(&mut hub.from_tun, now, &mut hub.out);
        let transmits = hub.out.transmits().count();
        hub.out.clear();
        (calls() - before, transmits)
    };
    let (_, initiations) = wait();
    assert!(initiations > 0, "the first begins a handshake");
    let (called, initiations) = wait();
    assert_eq!(initiations, 0, "the second waits, and nothing else");
    assert!(called > 0, "for it is kept");
}

/// Routers mark only what says that its ends understand it, and nobody but the sender of the inner packet knows (RFC 6040).
#[test]
fn what_a_packet_says_of_congestion_is_said_outside() {
    let mut wire = Wire::of_three();
    for is_v4 in [true, false] {
        let packets = [
            lone(HUB, ONE, is_v4, (1_000, 2)),
            stream(HUB, ONE, is_v4, (1_000, 443)),
        ];
        for packet in packets {
            // The first long packet has the path looked at, which says nothing of congestion.
            wire.push(0, &packet);
            wire.outbound(0);
            wire.settle();
            for bits in 0..4 {
                wire.push(0, &marked(&packet, bits));
                let runs = wire.runs_of(0);
                assert_eq!(
                    runs,
                    [(Ecn::new(bits), packet.count)],
                    "{bits}, IPv4: {is_v4}"
                );
            }
        }
    }
}

/// A run has one outer header for all that is in it.
#[test]
fn packets_that_say_different_things_of_congestion_do_not_share_a_run() {
    let mut wire = Wire::of_three();
    for is_v4 in [true, false] {
        let one = lone(HUB, ONE, is_v4, (1_000, 2));
        let many = stream(HUB, ONE, is_v4, (1_000, 443));
        for packet in [one, many] {
            wire.push(0, &packet);
            wire.outbound(0);
            wire.settle();
            let sent: [u8; 12] = [0, 0, 1, 1, 2, 2, 3, 3, 0, 1, 3, 2];
            for bits in sent {
                wire.push(0, &marked(&packet, bits));
            }
            let runs = wire.runs_of(0);
            let expected = [
                (0, 2),
                (1, 2),
                (2, 2),
                (3, 2),
                (0, 1),
                (1, 1),
                (3, 1),
                (2, 1),
            ];
            // What says the same goes together: the control.
            let expected = expected.map(|(bits, packets)| (Ecn::new(bits), packets * packet.count));
            assert_eq!(runs, expected, "IPv4: {is_v4}");
        }
    }
}

/// So what is configured and silent costs no time: a network may have thousands, of which few are talked to.
#[test]
fn the_timers_look_at_peers_that_have_something_under_way() {
    const OWN: u16 = 1_001;
    let watched = Watched::default();
    let looked = || std::mem::take(&mut *watched.0.lock().expect("one thread")).len();
    let nodes = vec![
        Node::new(OWN, 1..OWN, Box::new(watched.clone())),
        Node::new(1, [OWN], Box::new(NoiseTunnels)),
    ];
    let mut wire = Wire { nodes, now: START };
    let tick = |wire: &mut Wire| {
        looked();
        wire.now = wire.now.saturating_add(DataPath::LONGEST_SLEEP);
        let (node, now) = (&mut wire.nodes[0], wire.now);
        node.path.tick(now, &mut node.out);
        let looked = looked();
        wire.carry(0);
        wire.nodes[0].out.clear();
        wire.settle();
        looked
    };
    assert_eq!(tick(&mut wire), 0);
    wire.push(0, &lone(OWN, 1, true, (1_000, 2)));
    wire.outbound(0);
    wire.settle();
    assert_eq!(wire.take_received(1), 1, "there is a session");
    for _ in 0..3 {
        assert_eq!(tick(&mut wire), 1);
    }
    wire.nodes[0].path.wake_all();
    assert_eq!(tick(&mut wire), usize::from(OWN - 1), "the control");
    assert_eq!(tick(&mut wire), 1);
}

/// What either end of a session takes for it.
fn session(now: Mono) -> usize {
    let (ours, theirs, from) = (secret(1), secret(2), SocketAddr::from(([192, 0, 2, 1], 1)));
    let create = |ours: &WgSecret, theirs: &WgSecret, index| {
        let tunnel = NoiseTunnels.create(ours, &theirs.public(), index, now);
        let mut tunnel = tunnel.unwrap();
        tunnel.prepare(now);
        tunnel
    };
    let (mut one, mut other) = (create(&ours, &theirs, 1), create(&theirs, &ours, 2));
    let (mut there, mut back) = ([0; 148], [0; 148]);
    let before = taken();
    let len = one.initiate(now, &mut there).unwrap();
    let opened = other.decapsulate(from, &mut there[..len], now, &mut back);
    let Ok(Opened::Response { len }) = opened else {
        unreachable!("an initiation");
    };
    let opened = one.decapsulate(from, &mut back[..len], now, &mut there);
    assert!(matches!(opened, Ok(Opened::Established { .. })));
    (taken() - before) / 2
}

fn taken() -> usize {
    TAKEN.get()
}

/// How often this thread has called the allocator, be it to give something back.
fn calls() -> usize {
    CALLS.get()
}

fn spec() -> TableSpec {
    table(0, 1..=PEERS)
}

/// What the device `own` has in force with these peers.
fn table(own: u16, others: impl IntoIterator<Item = u16>) -> TableSpec {
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

fn endpoint(number: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], number))
}

fn secret(number: u16) -> WgSecret {
    let [high, low] = number.to_be_bytes();
    let mut bytes = [7; 32];
    (bytes[1], bytes[2]) = (high, low);
    WgSecret::from_bytes(bytes)
}

fn addresses(number: u16) -> OverlayAddresses {
    let [high, low] = number.to_be_bytes();
    OverlayAddresses {
        v4: Ipv4Addr::new(100, 64, high, low),
        v6: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number),
    }
}

fn address(number: u16, is_v4: bool) -> IpAddr {
    let addresses = addresses(number);
    if is_v4 {
        addresses.v4.into()
    } else {
        addresses.v6.into()
    }
}

/// A packet of the host, and what the host has left to do on it.
#[derive(Clone)]
struct Packet {
    bytes: Vec<u8>,
    offload: Offload,
    /// How many packets it is.
    count: usize,
    /// How many the other host is given for it: none for what completes the one before.
    written: usize,
}

/// A UDP packet as it is.
fn lone(from: u16, to: u16, is_v4: bool, ports: (u16, u16)) -> Packet {
    let (from, to) = (address(from, is_v4), address(to, is_v4));
    Packet {
        bytes: samples::udp((from, ports.0), (to, ports.1), &[7; 100]),
        offload: Offload::default(),
        count: 1,
        written: 1,
    }
}

/// Segments of TCP in one packet.
fn stream(from: u16, to: u16, is_v4: bool, ports: (u16, u16)) -> Packet {
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
fn fragments(from: u16, to: u16, ports: (u16, u16)) -> [Packet; 2] {
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
fn marked(packet: &Packet, bits: u8) -> Packet {
    let mut packet = packet.clone();
    let is_v4 = packet.bytes[0] >> 4 == 4;
    packet.bytes[1] |= if is_v4 { bits } else { bits << 4 };
    packet
}

fn push(batch: &mut Batch, packet: &Packet) {
    let slot = batch.slot().expect("room for one more");
    slot[..packet.bytes.len()].copy_from_slice(&packet.bytes);
    batch.commit_offloaded(0, packet.bytes.len(), packet.offload);
}

/// A device, with the buffers that its worker keeps.
struct Node {
    number: u16,
    path: DataPath,
    from_tun: Batch,
    from_udp: Batch,
    out: Outbox,
    /// Packets that came out of the TUN side since somebody asked, and in how many writes.
    received: (usize, usize),
}

impl Node {
    fn new(
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
struct Wire {
    nodes: Vec<Node>,
    now: Mono,
}

impl Wire {
    /// The hub and its two peers, with sessions.
    fn of_three() -> Self {
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
    fn push(&mut self, node: usize, packet: &Packet) {
        push(&mut self.nodes[node].from_tun, packet);
    }

    /// What the host of `node` has given goes on the wire.
    fn outbound(&mut self, node: usize) {
        let (at, now) = (&mut self.nodes[node], self.now);
        at.path.outbound(&mut at.from_tun, now, &mut at.out);
        self.carry(node);
        self.nodes[node].out.clear();
    }

    /// As [`Self::outbound`], and says of each run what it says of congestion, and how many datagrams it is.
    fn runs_of(&mut self, node: usize) -> Vec<(Ecn, usize)> {
        let (at, now) = (&mut self.nodes[node], self.now);
        at.path.outbound(&mut at.from_tun, now, &mut at.out);
        let runs = at.out.runs().map(|run| (run.ecn, run.count())).collect();
        self.carry(node);
        self.nodes[node].out.clear();
        self.settle();
        runs
    }

    /// What `node` wants sent lies where it is received.
    fn carry(&mut self, node: usize) {
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
    fn settle(&mut self) {
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
    fn take_received(&mut self, node: usize) -> usize {
        self.take_written(node).0
    }

    /// The same, and in how many writes.
    fn take_written(&mut self, node: usize) -> (usize, usize) {
        std::mem::take(&mut self.nodes[node].received)
    }
}

/// What one device sends to another.
struct Traffic {
    lone: Vec<Packet>,
    streams: Vec<Packet>,
    fragments: Vec<Packet>,
}

impl Traffic {
    /// Of flows that the hub has begun: what comes from its peers answers them.
    fn new(from: u16, to: u16) -> Self {
        let ports = |port| {
            if from == HUB {
                (1_000, port)
            } else {
                (port, 1_000)
            }
        };
        let families = [true, false].into_iter().cycle().take(MANY);
        Self {
            lone: families
                .clone()
                .map(|is_v4| lone(from, to, is_v4, ports(2)))
                .collect(),
            streams: families
                .map(|is_v4| stream(from, to, is_v4, ports(443)))
                .collect(),
            fragments: (0..MANY)
                .flat_map(|_| fragments(from, to, ports(2)))
                .collect(),
        }
    }

    /// Every datagram has an identification of its own.
    fn identify(&mut self, next: &mut u16) {
        for pair in self.fragments.chunks_mut(2) {
            *next = next.wrapping_add(1);
            for fragment in pair {
                fragment.bytes[4..6].copy_from_slice(&next.to_be_bytes());
            }
        }
    }

    /// What is in a batch of this kind.
    fn of(&self, kind: usize) -> impl Iterator<Item = &Packet> {
        let (lone, streams, fragments) = match kind {
            0 => (1, 0, 0),
            1 => (MANY, 0, 0),
            2 => (0, MANY, 0),
            3 => (0, 0, MANY),
            _ => (MANY, MANY, MANY),
        };
        let lone = self.lone.iter().take(lone);
        let streams = self.streams.iter().take(streams);
        let fragments = self.fragments.iter().take(2 * fragments);
        lone.chain(streams).chain(fragments)
    }
}

/// Batches to and fro, of each kind in turn.
struct Rounds {
    there: [Traffic; 2],
    back: [Traffic; 2],
    number: usize,
    identification: u16,
}

impl Rounds {
    fn new() -> Self {
        Self {
            there: [Traffic::new(HUB, ONE), Traffic::new(HUB, OTHER)],
            back: [Traffic::new(ONE, HUB), Traffic::new(OTHER, HUB)],
            number: 0,
            identification: 0,
        }
    }

    /// A batch of the hub's for both peers, and one of the hub's from both. Returns how often the allocator was called.
    fn next(&mut self, wire: &mut Wire) -> usize {
        let before = calls();
        let kind = self.number % KINDS;
        self.number += 1;
        wire.now = wire.now.saturating_add(Duration::from_millis(10));
        for traffic in self.there.iter_mut().chain(&mut self.back) {
            traffic.identify(&mut self.identification);
        }
        let [one, other] = &self.there;
        for (one, other) in one.of(kind).zip(other.of(kind)) {
            wire.push(0, one);
            wire.push(0, other);
        }
        wire.outbound(0);
        wire.settle();
        for (node, traffic) in [(1, &self.back[0]), (2, &self.back[1])] {
            traffic.of(kind).for_each(|packet| wire.push(node, packet));
            wire.outbound(node);
        }
        wire.settle();
        let called = calls() - before;
        let packets: usize = one.of(kind).map(|packet| packet.count).sum();
        let writes: usize = one.of(kind).map(|packet| packet.written).sum();
        let expected = [
            (2 * packets, 2 * writes),
            (packets, writes),
            (packets, writes),
        ];
        let received = [0, 1, 2].map(|node| wire.take_written(node));
        assert_eq!(received, expected, "a batch of kind {kind}");
        called
    }
}

/// Tunnels as they are, of which somebody knows whether they were asked anything.
#[derive(Clone, Debug, Default)]
struct Watched(Arc<Mutex<BTreeSet<u32>>>);

impl TunnelFactory for Watched {
    fn create(
        &self,
        local: &WgSecret,
        remote: &WgPublicKey,
        index: u32,
        now: Mono,
    ) -> Result<Box<dyn Tunnel>, TunnelError> {
        Ok(Box::new(WatchedTunnel {
            tunnel: NoiseTunnels.create(local, remote, index, now)?,
            index,
            asked: self.clone(),
        }))
    }

    fn gate(&self, local: &WgSecret) -> Box<dyn HandshakeGate> {
        NoiseTunnels.gate(local)
    }
}

#[derive(Debug)]
struct WatchedTunnel {
    tunnel: Box<dyn Tunnel>,
    index: u32,
    asked: Watched,
}

impl WatchedTunnel {
    fn ask(&self) -> &dyn Tunnel {
        self.asked.0.lock().expect("one thread").insert(self.index);
        self.tunnel.as_ref()
    }

    fn ask_mut(&mut self) -> &mut dyn Tunnel {
        self.ask();
        self.tunnel.as_mut()
    }
}

impl Tunnel for WatchedTunnel {
    fn initiate(&mut self, now: Mono, out: &mut [u8]) -> Result<usize, TunnelError> {
        self.ask_mut().initiate(now, out)
    }

    fn encapsulate(
        &mut self,
        permit: &Permit,
        packet: &[u8],
        now: Mono,
        out: &mut [u8],
    ) -> Result<usize, TunnelError> {
        self.ask_mut().encapsulate(permit, packet, now, out)
    }

    fn keepalive(&mut self, now: Mono, out: &mut [u8]) -> Result<usize, TunnelError> {
        self.ask_mut().keepalive(now, out)
    }

    fn decapsulate(
        &mut self,
        from: SocketAddr,
        datagram: &mut [u8],
        now: Mono,
        out: &mut [u8],
    ) -> Result<Opened, TunnelError> {
        self.ask_mut().decapsulate(from, datagram, now, out)
    }

    fn session(&self, now: Mono) -> Option<SessionView> {
        self.ask().session(now)
    }

    fn awaits(&self, response: &[u8]) -> bool {
        self.ask().awaits(response)
    }

    fn expires(&self) -> Option<Mono> {
        self.ask().expires()
    }

    fn maintain(&mut self, now: Mono) {
        self.ask_mut().maintain(now);
    }

    fn erase(&mut self) {
        self.ask_mut().erase();
    }
}
