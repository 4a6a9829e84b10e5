//! What packets of established flows ask of the allocator: nothing.

use std::time::Duration;

use gatereeve_client_core::filter::VERDICTS_PER_PEER;

use crate::allocator::calls;
use crate::wire::{ABSENT, HUB, ONE, OTHER, Packet, Wire, fragments, lone, push, stream};

/// Packets of each kind, and pairs of fragments, between two devices in a batch.
const MANY: usize = 8;
/// What batches are made of: see [`Traffic::of`].
const KINDS: usize = 5;

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
