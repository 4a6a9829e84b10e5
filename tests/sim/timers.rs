//! Timers look only at peers with something under way. The reference looks at all of them, every time:
//! whatever happens, both say and send the same, byte for byte.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use gatereeve_client_core::datapath::{
    Batch, DataPath, DataPathEvent, LocalKey, Outbox, PeerSpec, PeerStats, RuleSpec, TableSpec,
};
use gatereeve_client_core::packet::samples;
use gatereeve_shared::identity::wg_key::WgSecret;
use gatereeve_shared::ids::{DeviceId, DeviceName, RuleId};
use gatereeve_shared::time::Mono;
use gatereeve_shared::wire::map::{OverlayAddresses, OverlayPrefixes};
use gatereeve_tests::fake_tunnel::FakeTunnels;
use gatereeve_tests::random::Random;

const NODES: usize = 4;
const SEEDS: u64 = 120;
const STEPS: usize = 250;
/// How far time goes in one step, in milliseconds: about every time that a timer or a table has.
const PASSES: [u64; 12] = [
    40, 100, 250, 900, 1_000, 2_500, 5_400, 10_100, 16_000, 31_000, 61_000, 125_000,
];

#[test]
fn looking_at_active_peers_is_looking_at_all() {
    let start = Random::from_environment("GATEREEVE_SIM_START")
        .unwrap()
        .seed();
    println!("GATEREEVE_SIM_START={start}");
    let mut seen = Seen::default();
    for number in 0..SEEDS {
        let seed = start.wrapping_add(number);
        let played = std::panic::catch_unwind(|| play(seed));
        match played {
            Ok(more) => seen.add(more),
            Err(_) => panic!("GATEREEVE_SIM_START={seed} brings this run back"),
        }
    }
    println!("{seen:?}");
    // Positive control: timers had things to do, and there were times without any.
    assert!(seen.acted > SEEDS, "{seen:?}");
    assert!(seen.quiet > SEEDS, "{seen:?}");
    assert!(seen.delivered > SEEDS, "{seen:?}");
}

/// What the runs came across.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// Times that the timers sent or said something.
    acted: u64,
    /// Times that nobody was on the list.
    quiet: u64,
    delivered: u64,
}

impl Seen {
    fn add(&mut self, more: Self) {
        self.acted += more.acted;
        self.quiet += more.quiet;
        self.delivered += more.delivered;
    }
}

fn play(seed: u64) -> Seen {
    let mut random = Random::new(seed);
    let mut active = World::new(false);
    let mut reference = World::new(true);
    for _ in 0..STEPS {
        let action = Action::draw(&mut random, active.wire.len());
        let did = active.act(&action);
        assert_eq!(did, reference.act(&action), "{action:?}");
        assert_eq!(active.figures(), reference.figures(), "{action:?}");
    }
    let seen = active.seen;
    // After longer than anything is kept, nobody is on the list, and there is nothing to do for anybody.
    for world in [&mut active, &mut reference] {
        for node in 0..NODES {
            world.act(&Action::Open { node, open: true });
        }
        for _ in 0..60 {
            world.act(&Action::Lose(usize::MAX));
            world.act(&Action::Pass(30_000));
        }
    }
    for node in &active.nodes {
        assert_eq!(node.path.next_tick(), None);
    }
    assert_eq!(active.figures(), reference.figures());
    assert!(reference.act(&Action::Pass(1_000)).is_empty());
    seen
}

/// The counters of a node's keys: before, while and after it changes from one to the next.
type Keys = &'static [u8];

const KEYS: [Keys; 5] = [&[1], &[1], &[1], &[1, 2], &[2]];

#[derive(Clone, Debug)]
enum Action {
    Send {
        from: usize,
        to: usize,
        port: u16,
        v6: bool,
    },
    Deliver(usize),
    Lose(usize),
    Pass(u64),
    /// For each other node: its rules' ends from now in milliseconds, and which keys it has.
    Publish {
        node: usize,
        local_keys: Keys,
        peers: [Option<(Option<u64>, Keys)>; NODES],
    },
    Narrow {
        node: usize,
        to: usize,
    },
    Open {
        node: usize,
        open: bool,
    },
}

impl Action {
    fn draw(random: &mut Random, on_wire: usize) -> Self {
        let node = random.below(NODES);
        let to = (node + 1 + random.below(NODES - 1)) % NODES;
        match random.below(20) {
            0..6 => Self::Send {
                from: node,
                to,
                port: [53, 80, 81][random.below(3)],
                v6: random.one_in(2),
            },
            6..12 => Self::Deliver(1 + random.below(on_wire + 1)),
            12 => Self::Lose(1 + random.below(on_wire + 1)),
            13..17 => Self::Pass(PASSES[random.below(PASSES.len())]),
            17 => Self::Publish {
                node,
                local_keys: KEYS[random.below(KEYS.len())],
                peers: std::array::from_fn(|_| {
                    (!random.one_in(8)).then(|| {
                        let end = [3_000, 20_000, 400_000, 100_000_000][random.below(4)];
                        let keys = KEYS[random.below(KEYS.len())];
                        ((!random.one_in(8)).then_some(end), keys)
                    })
                }),
            },
            18 => Self::Narrow { node, to },
            _ => Self::Open {
                node,
                open: !random.one_in(4),
            },
        }
    }
}

/// Everything that a step brought out of one node.
#[derive(Debug, PartialEq)]
struct Did {
    node: usize,
    transmits: Vec<(SocketAddr, Vec<u8>)>,
    deliveries: Vec<Vec<u8>>,
    events: Vec<DataPathEvent>,
}

struct Node {
    path: DataPath,
    serial: u64,
    /// Until then the thread of the timers sleeps, packets or not: what it was told after its last look or
    /// after a table.
    sleeps_until: Mono,
}

impl Node {
    fn sleep(&mut self, now: Mono) {
        let longest = now.saturating_add(DataPath::LONGEST_SLEEP);
        let due = self.path.next_tick();
        self.sleeps_until = due.map_or(longest, |due| due.min(longest));
    }
}

struct World {
    /// Everybody is looked at each time.
    looks_at_all: bool,
    nodes: Vec<Node>,
    now: Mono,
    wire: VecDeque<(usize, SocketAddr, Vec<u8>)>,
    seen: Seen,
}

impl World {
    fn new(looks_at_all: bool) -> Self {
        let now = Mono(1_000_000_000_000);
        let nodes = (0..NODES).map(|node| {
            let path = DataPath::new([byte(node); 32], Box::new(FakeTunnels), now);
            path.open_until(Mono(u64::MAX));
            Node {
                path,
                serial: 0,
                sleeps_until: now,
            }
        });
        let mut world = Self {
            looks_at_all,
            nodes: nodes.collect(),
            now,
            wire: VecDeque::new(),
            seen: Seen::default(),
        };
        for node in 0..NODES {
            world.publish(node, KEYS[0], [Some((Some(100_000_000), KEYS[0])); NODES]);
        }
        world
    }

    fn act(&mut self, action: &Action) -> Vec<Did> {
        match *action {
            Action::Send { from, to, port, v6 } => {
                let ip = |node| match v6 {
                    true => IpAddr::V6(addresses(node).v6),
                    false => IpAddr::V4(addresses(node).v4),
                };
                let packet = samples::udp((ip(from), 40_000), (ip(to), port), b"hello");
                vec![self.run(from, |path, now, out| {
                    let mut batch = Batch::new(1, 2048);
                    assert!(batch.push(&packet, None));
                    path.outbound(&mut batch, now, out);
                })]
            }
            Action::Deliver(most) => (0..most.min(self.wire.len()))
                .filter_map(|_| self.deliver())
                .collect(),
            Action::Lose(most) => {
                self.wire.drain(..most.min(self.wire.len()));
                Vec::new()
            }
            Action::Pass(millis) => {
                self.now = self.now.saturating_add(Duration::from_millis(millis));
                (0..NODES).filter_map(|node| self.tick(node)).collect()
            }
            Action::Publish {
                node,
                local_keys,
                peers,
            } => {
                self.publish(node, local_keys, peers);
                Vec::new()
            }
            Action::Narrow { node, to } => {
                let outer = 1_300 + 16 * to;
                self.nodes[node]
                    .path
                    .path_mtu(endpoint(to), outer, self.now);
                Vec::new()
            }
            Action::Open { node, open } => {
                let until = if open { Mono(u64::MAX) } else { Mono(0) };
                self.nodes[node].path.open_until(until);
                // Nothing was done meanwhile, so a lot may be due.
                self.nodes[node].sleeps_until = self.now;
                Vec::new()
            }
        }
    }

    fn deliver(&mut self) -> Option<Did> {
        let (from, to, datagram) = self.wire.pop_front()?;
        let to = (0..NODES).find(|node| endpoint(*node) == to)?;
        Some(self.run(to, |path, now, out| {
            let mut batch = Batch::new(1, 2048);
            assert!(batch.push(&datagram, Some(endpoint(from))));
            path.inbound(&mut batch, now, out);
        }))
    }

    fn tick(&mut self, node: usize) -> Option<Did> {
        let looks_at_all = self.looks_at_all;
        let did = self.run(node, |path, now, out| {
            if looks_at_all {
                path.wake_all();
            }
            path.tick(now, out);
        });
        let acted = !did.transmits.is_empty() || !did.deliveries.is_empty();
        if !looks_at_all {
            self.check(node, acted);
        }
        (acted || !did.events.is_empty()).then_some(did)
    }

    /// What [`DataPath::next_tick`] had said must be true, whatever packets came since.
    fn check(&mut self, node: usize, acted: bool) {
        let now = self.now;
        let node = &mut self.nodes[node];
        if acted {
            self.seen.acted += 1;
            assert!(node.sleeps_until <= now, "the timers may have slept");
        }
        if node.path.next_tick().is_none() {
            self.seen.quiet += 1;
        }
        node.sleep(now);
    }

    fn run(&mut self, node: usize, work: impl FnOnce(&DataPath, Mono, &mut Outbox)) -> Did {
        let mut out = Outbox::new();
        work(&self.nodes[node].path, self.now, &mut out);
        let did = Did {
            node,
            transmits: out.transmits().map(|(to, d)| (to, d.to_vec())).collect(),
            deliveries: out.deliveries().map(<[u8]>::to_vec).collect(),
            events: out.take_events().collect(),
        };
        for (to, datagram) in &did.transmits {
            self.wire.push_back((node, *to, datagram.clone()));
        }
        self.seen.delivered += did.deliveries.len() as u64;
        did
    }

    fn publish(
        &mut self,
        node: usize,
        local_keys: Keys,
        peers: [Option<(Option<u64>, Keys)>; NODES],
    ) {
        let now = self.now;
        let peers = peers.iter().enumerate().filter(|(other, _)| *other != node);
        let peers = peers.filter_map(|(other, peer)| {
            let (end, keys) = (*peer)?;
            let end = end.map(|millis| now.saturating_add(Duration::from_millis(millis)));
            let rules: Vec<_> = end.into_iter().map(rule).collect();
            Some(PeerSpec {
                device: DeviceId([byte(other); 20]),
                name: DeviceName::new(format!("node-{other}")).unwrap(),
                addresses: addresses(other),
                keys: keys
                    .iter()
                    .map(|n| (u64::from(*n), secret(other, *n).public()))
                    .collect(),
                endpoints: vec![endpoint(other)],
                ingress: rules.clone(),
                egress: rules,
            })
        });
        let peers = peers.collect();
        let node_of = &mut self.nodes[node];
        node_of.serial += 1;
        let spec = TableSpec {
            serial: node_of.serial,
            own: Some(addresses(node)),
            prefixes: Some(OverlayPrefixes {
                v4: "100.64.0.0/10".parse().unwrap(),
                v6: "fd00::/48".parse().unwrap(),
            }),
            names: None,
            local_keys: local_keys
                .iter()
                .map(|n| LocalKey {
                    counter: u64::from(*n),
                    secret: secret(node, *n),
                })
                .collect(),
            peers,
            ..TableSpec::default()
        };
        node_of.path.publish(spec, now);
        node_of.sleep(now);
    }

    /// What the nodes would tell.
    fn figures(&self) -> Vec<(BTreeMap<&'static str, u64>, Vec<PeerStats>)> {
        let paths = self.nodes.iter().map(|node| &node.path);
        paths
            .map(|path| (path.drops(), path.peer_stats()))
            .collect()
    }
}

fn rule(end: Mono) -> RuleSpec {
    RuleSpec {
        rule: RuleId::new("rule").unwrap(),
        ports: vec!["udp:53".parse().unwrap(), "udp:80".parse().unwrap()],
        end,
    }
}

fn byte(node: usize) -> u8 {
    u8::try_from(node + 1).unwrap()
}

fn secret(node: usize, counter: u8) -> WgSecret {
    let mut bytes = [7; 32];
    (bytes[1], bytes[2]) = (byte(node), counter);
    WgSecret::from_bytes(bytes)
}

fn addresses(node: usize) -> OverlayAddresses {
    let n = byte(node);
    OverlayAddresses {
        v4: Ipv4Addr::new(100, 64, 0, n),
        v6: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, n.into()),
    }
}

fn endpoint(node: usize) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, byte(node)], 51820))
}
