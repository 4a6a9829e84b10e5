//! Devices with a data path each, and the wire between them.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use gatereeve_client_core::datapath::{
    Batch, DataPath, DataPathEvent, LocalKey, Outbox, PeerSpec, RuleSpec, SelfName, TableSpec,
};
use gatereeve_client_core::dns::Domain;
use gatereeve_client_core::packet::offload::{Ecn, Offload};
use gatereeve_client_core::wg::NoiseTunnels;
use gatereeve_shared::generation::Generation;
use gatereeve_shared::identity::wg_key::WgSecret;
use gatereeve_shared::ids::{DeviceId, DeviceName, RuleId};
use gatereeve_shared::time::Mono;
use gatereeve_shared::wire::map::{OverlayAddresses, OverlayPrefixes};

pub(crate) type Datagram = (SocketAddr, SocketAddr, Vec<u8>);

pub(crate) struct Node {
    pub(crate) path: DataPath,
    pub(crate) endpoint: SocketAddr,
    pub(crate) spec: TableSpec,
    /// Packets that came out of the TUN side.
    pub(crate) received: Vec<Vec<u8>>,
    /// How many packets were in each write to the TUN device.
    pub(crate) joined: Vec<usize>,
    pub(crate) events: Vec<DataPathEvent>,
    /// What datagrams are received into, and what comes of it: used again and again, as a worker does.
    batch: Batch,
    out: Outbox,
}

pub(crate) struct World {
    pub(crate) nodes: Vec<Node>,
    pub(crate) now: Mono,
    wire: VecDeque<Datagram>,
    /// Everything that was ever on the wire.
    pub(crate) seen: Vec<Datagram>,
    /// Says what is lost.
    pub(crate) loses: Box<dyn Fn(&Datagram) -> bool>,
}

pub(crate) fn secret(node: usize, counter: u64) -> WgSecret {
    let mut bytes = [7; 32];
    // The lowest bits of the first byte are no part of a key.
    bytes[1] = u8::try_from(node).unwrap();
    bytes[2] = u8::try_from(counter).unwrap();
    WgSecret::from_bytes(bytes)
}

pub(crate) fn device(node: usize) -> DeviceId {
    DeviceId([u8::try_from(node).unwrap(); 20])
}

pub(crate) fn addresses(node: usize) -> OverlayAddresses {
    let n = u8::try_from(node).unwrap() + 1;
    OverlayAddresses {
        v4: Ipv4Addr::new(100, 64, 0, n),
        v6: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, n.into()),
    }
}

pub(crate) fn v4(node: usize) -> IpAddr {
    addresses(node).v4.into()
}

pub(crate) fn v6(node: usize) -> IpAddr {
    addresses(node).v6.into()
}

pub(crate) fn endpoint(node: usize) -> SocketAddr {
    let n = u8::try_from(node).unwrap() + 1;
    SocketAddr::from(([192, 0, 2, n], 51820))
}

/// Rules for `ports`, until `end`.
pub(crate) fn rules(ports: &[&str], end: Mono) -> Vec<RuleSpec> {
    vec![RuleSpec {
        rule: RuleId::new("rule").unwrap(),
        ports: ports.iter().map(|port| port.parse().unwrap()).collect(),
        end,
    }]
}

pub(crate) const FOREVER: Mono = Mono(u64::MAX);

impl World {
    /// `count` devices that know nobody.
    pub(crate) fn new(count: usize) -> Self {
        let now = Mono(1_000_000_000_000);
        let nodes = (0..count)
            .map(|node| {
                let seed = [u8::try_from(node).unwrap(); 32];
                let path = DataPath::new(seed, Box::new(NoiseTunnels), now);
                path.open_until(FOREVER);
                Node {
                    path,
                    endpoint: endpoint(node),
                    spec: TableSpec {
                        own: Some(addresses(node)),
                        prefixes: Some(OverlayPrefixes {
                            v4: "100.64.0.0/10".parse().unwrap(),
                            v6: "fd00::/48".parse().unwrap(),
                        }),
                        names: Some(SelfName {
                            domain: Domain::of_network("acme"),
                            name: DeviceName::new(format!("node-{node}")).unwrap(),
                        }),
                        local_keys: vec![LocalKey {
                            counter: 1,
                            secret: secret(node, 1),
                        }],
                        ..TableSpec::default()
                    },
                    received: Vec::new(),
                    joined: Vec::new(),
                    events: Vec::new(),
                    batch: Batch::new(64, 65_535),
                    out: Outbox::new(),
                }
            })
            .collect();
        Self {
            nodes,
            now,
            wire: VecDeque::new(),
            seen: Vec::new(),
            loses: Box::new(|_| false),
        }
    }

    /// Two devices; the first may reach `ports` of the second.
    pub(crate) fn pair(ports: &[&str]) -> Self {
        let mut world = Self::new(2);
        world.allow(0, 1, ports, FOREVER);
        world
    }

    /// Device `from` may reach `ports` of `to` until `end`: an entry in both tables.
    pub(crate) fn allow(&mut self, from: usize, to: usize, ports: &[&str], end: Mono) {
        self.peer(from, to).egress = rules(ports, end);
        self.peer(to, from).ingress = rules(ports, end);
        self.publish(from);
        self.publish(to);
    }

    /// The entry of `other` in the table of `node`, made where it is missing.
    pub(crate) fn peer(&mut self, node: usize, other: usize) -> &mut PeerSpec {
        let peers = &mut self.nodes[node].spec.peers;
        let position = peers.iter().position(|peer| peer.device == device(other));
        let position = position.unwrap_or_else(|| {
            peers.push(PeerSpec {
                device: device(other),
                name: DeviceName::new(format!("node-{other}")).unwrap(),
                addresses: addresses(other),
                keys: vec![(1, secret(other, 1).public())],
                endpoints: vec![endpoint(other)],
                ingress: Vec::new(),
                egress: Vec::new(),
            });
            peers.len() - 1
        });
        &mut peers[position]
    }

    pub(crate) fn publish(&mut self, node: usize) {
        let node = &mut self.nodes[node];
        node.spec.serial += 1;
        node.spec.generation = Generation {
            incarnation: 0,
            n: node.spec.serial,
        };
        node.path.publish(node.spec.clone(), self.now);
    }

    /// The process of `node` has ended and another has begun a second later: without sessions, and without a table so far.
    pub(crate) fn restart(&mut self, node: usize) {
        self.pass(Duration::from_secs(1));
        let seed = [u8::try_from(node).unwrap() + 100; 32];
        let path = DataPath::new(seed, Box::new(NoiseTunnels), self.now);
        path.open_until(FOREVER);
        self.nodes[node].path = path;
    }

    /// The TUN device of `node` gives `packet`; what follows runs until the wire is quiet.
    pub(crate) fn send(&mut self, node: usize, packet: &[u8]) {
        self.send_held(node, packet);
        self.settle();
    }

    /// As `send`, but what goes on the wire stays there.
    pub(crate) fn send_held(&mut self, node: usize, packet: &[u8]) {
        let mut batch = Batch::new(1, 2048);
        assert!(batch.push(packet, None));
        let mut out = Outbox::new();
        self.nodes[node]
            .path
            .outbound(&mut batch, self.now, &mut out);
        self.take(node, &mut out);
    }

    /// As `send`, with work left to do on the packet.
    pub(crate) fn send_offloaded(&mut self, node: usize, packet: &[u8], offload: Offload) {
        let mut batch = Batch::new(1, 65_600);
        batch.slot().unwrap()[..packet.len()].copy_from_slice(packet);
        batch.commit_offloaded(0, packet.len(), offload);
        let mut out = Outbox::new();
        self.nodes[node]
            .path
            .outbound(&mut batch, self.now, &mut out);
        self.take(node, &mut out);
        self.settle();
    }

    /// A datagram arrives at `node`.
    pub(crate) fn arrive(&mut self, node: usize, from: SocketAddr, datagram: &[u8]) {
        self.arrive_together(node, from, &[datagram.to_vec()], Ecn::NOT_ECT);
    }

    /// Datagrams arrive at `node` in one batch, all with the same congestion bits, and coalesced where a kernel does that.
    pub(crate) fn arrive_together(
        &mut self,
        node: usize,
        from: SocketAddr,
        mut datagrams: &[Vec<u8>],
        ecn: Ecn,
    ) {
        while !datagrams.is_empty() {
            let at = &mut self.nodes[node];
            while let Some(slot) = at.batch.slot()
                && let Some((together, rest)) = datagrams.split_at_checked(coalesced(datagrams))
                && let Some(first) = together.first()
            {
                let bytes = together.concat();
                slot[..bytes.len()].copy_from_slice(&bytes);
                at.batch
                    .commit_coalesced(bytes.len(), first.len(), from, ecn);
                datagrams = rest;
            }
            at.path.inbound(&mut at.batch, self.now, &mut at.out);
            let mut out = std::mem::take(&mut at.out);
            self.take(node, &mut out);
            let at = &mut self.nodes[node];
            out.give_back(&mut at.batch);
            at.out = out;
        }
    }

    pub(crate) fn settle(&mut self) {
        while let Some((from, to, datagram)) = self.wire.pop_front() {
            let mut datagrams = vec![datagram];
            // As a kernel does: what follows from the same sender comes with it.
            while let Some((next_from, next_to, _)) = self.wire.front()
                && (*next_from, *next_to) == (from, to)
            {
                datagrams.extend(self.wire.pop_front().map(|(_, _, datagram)| datagram));
            }
            let target = self.nodes.iter().position(|node| node.endpoint == to);
            if let Some(target) = target {
                self.arrive_together(target, from, &datagrams, Ecn::NOT_ECT);
            }
        }
    }

    /// What is on the wire, taken off it.
    pub(crate) fn take_wire(&mut self) -> Vec<Datagram> {
        self.wire.drain(..).collect()
    }

    /// Time passes in ticks of 250 ms.
    pub(crate) fn pass(&mut self, time: Duration) {
        for _ in 0..time.as_millis() / 250 {
            self.now = self.now.saturating_add(Duration::from_millis(250));
            for node in 0..self.nodes.len() {
                self.tick(node);
            }
            self.settle();
        }
    }

    pub(crate) fn tick(&mut self, node: usize) {
        let mut out = Outbox::new();
        self.nodes[node].path.tick(self.now, &mut out);
        self.take(node, &mut out);
    }

    fn take(&mut self, node: usize, out: &mut Outbox) {
        let from = self.nodes[node].endpoint;
        for (to, datagram) in out.transmits() {
            let datagram = (from, to, datagram.to_vec());
            self.seen.push(datagram.clone());
            if !(self.loses)(&datagram) {
                self.wire.push_back(datagram);
            }
        }
        crate::offload::check_joined(out);
        let node = &mut self.nodes[node];
        node.joined
            .extend(out.joined().map(|one| one.tails().count().max(1)));
        node.received.extend(out.deliveries().map(<[u8]>::to_vec));
        node.events.extend(out.take_events());
    }

    /// What `node` received since the last time.
    pub(crate) fn received(&mut self, node: usize) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.nodes[node].received)
    }

    pub(crate) fn drops(&self, node: usize, reason: &str) -> u64 {
        self.nodes[node]
            .path
            .drops()
            .get(reason)
            .copied()
            .unwrap_or(0)
    }

    /// Datagrams ever sent of the given message type.
    pub(crate) fn sent_of_type(&self, kind: u8) -> usize {
        self.seen
            .iter()
            .filter(|(_, _, bytes)| bytes[0] == kind)
            .count()
    }
}

/// How many of the first datagrams come as one: of one length, but for a shorter one in the end.
fn coalesced(datagrams: &[Vec<u8>]) -> usize {
    let Some(first) = datagrams.first() else {
        return 0;
    };
    let most = (65_535 / first.len().max(1)).min(64);
    let same = datagrams.iter().take(most);
    let same = same.take_while(|next| next.len() == first.len()).count();
    let is_last = |next: &Vec<u8>| !next.is_empty() && next.len() < first.len() && same < most;
    same + usize::from(datagrams.get(same).is_some_and(is_last))
}
