//! Random schedules of lost, repeated and swapped deltas, restarts and renewals: after the dust has
//! settled, what is enforced is what the whole map says.

use std::collections::BTreeMap;

use gatereeve_shared::wire::client::ClientMessage;
use gatereeve_shared::wire::controller::{ControllerMessage, Standing};
use gatereeve_shared::wire::map::{LeaseRenewal, MapUpdate, PeerEntry, PeerRenewal};
use proptest::prelude::*;

use crate::support::*;

/// The controller's own view, and what it has sent this session.
struct Oracle {
    n: u64,
    peers: BTreeMap<u8, PeerEntry>,
    /// The generation last sent, and its peers.
    sent: Option<(u64, BTreeMap<u8, PeerEntry>)>,
}

#[derive(Clone, Debug)]
enum Step {
    /// A peer appears or changes.
    Put(u8, u64),
    /// A peer goes.
    Drop(u8),
    /// Its leases are renewed.
    Renew(u8, u64),
    /// What has changed is sent, in one piece or in parts, once or twice, or lost on the way.
    Send { parts: bool, fate: u8 },
    /// The session ends in the middle of something, and another begins.
    Reconnect,
    /// The device restarts.
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (2u8..8, 100u64..200).prop_map(|(peer, end)| Step::Put(peer, end)),
        2 => (2u8..8).prop_map(Step::Drop),
        1 => (2u8..8, 200u64..300).prop_map(|(peer, end)| Step::Renew(peer, end)),
        5 => (any::<bool>(), 0u8..8).prop_map(|(parts, fate)| Step::Send { parts, fate }),
        1 => Just(Step::Reconnect),
        1 => Just(Step::Restart),
    ]
}

impl Oracle {
    fn entry(&self, seed: u8, end: u64) -> PeerEntry {
        peer(seed, at(end))
    }

    /// The updates from what was sent to what is.
    fn updates(&mut self, parts: bool) -> Vec<MapUpdate> {
        let update = match &self.sent {
            Some((from, old)) => {
                let gone = old.keys().filter(|seed| !self.peers.contains_key(seed));
                let gone: Vec<u8> = gone.copied().collect();
                let news = self.peers.iter().filter(|(s, p)| old.get(s) != Some(p));
                delta(*from, self.n, &gone, news.map(|(_, p)| p.clone()).collect())
            }
            None => whole(self.n, self.peers.values().cloned().collect()),
        };
        self.sent = Some((self.n, self.peers.clone()));
        if !parts || update.upserted.is_empty() {
            return vec![update];
        }
        let last = update.upserted.len() - 1;
        let part = |(index, peer): (usize, &PeerEntry)| MapUpdate {
            upserted: vec![peer.clone()],
            removed: if index == 0 {
                update.removed.clone()
            } else {
                vec![]
            },
            this: update.this.clone().filter(|_| index == 0),
            more: index != last,
            ..update.clone()
        };
        update.upserted.iter().enumerate().map(part).collect()
    }
}

fn deliver(world: &mut World, oracle: &mut Oracle, updates: Vec<MapUpdate>) {
    for update in updates {
        world.map(update);
        answer_resync(world, oracle);
    }
}

/// The controller answers a request for the whole map.
fn answer_resync(world: &mut World, oracle: &mut Oracle) {
    let is_resync = |message: &ClientMessage| matches!(message, ClientMessage::Resync(_));
    if world.sent().any(is_resync) {
        oracle.sent = None;
        for update in oracle.updates(false) {
            world.map(update);
        }
    }
}

fn attach(world: &mut World, oracle: &mut Oracle) {
    world.lost();
    world.call(|engine, now| engine.handle_connected(hello(Standing::Approved, now.unix), now));
    if world.attach().is_none() {
        world.facts(true);
    }
    let have = world.attach().and_then(|attach| attach.have);
    if have != Some(generation(oracle.n)) {
        oracle.sent = None;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1000) })]

    #[test]
    fn what_is_enforced_is_what_the_whole_map_says(steps in prop::collection::vec(step(), 1..60)) {
        check(steps);
    }
}

/// The peer goes while the delta that brought it is late, and its renewal was not taken.
#[test]
fn a_peer_whose_entry_comes_late_goes_with_the_next_delta() {
    let late = |fate| Step::Send { parts: false, fate };
    check(vec![
        late(4),
        Step::Put(3, 100),
        late(2),
        Step::Renew(3, 200),
        Step::Drop(3),
        late(2),
        late(0),
    ]);
}

fn check(steps: Vec<Step>) {
    let mut world = World::new();
    let mut oracle = Oracle {
        n: 1,
        peers: BTreeMap::new(),
        sent: None,
    };
    attach(&mut world, &mut oracle);
    let mut late: Vec<MapUpdate> = Vec::new();
    for step in steps {
        match step {
            Step::Put(seed, end) => {
                oracle.n += 1;
                let entry = oracle.entry(seed, end);
                oracle.peers.insert(seed, entry);
            }
            Step::Drop(seed) => {
                oracle.n += 1;
                oracle.peers.remove(&seed);
            }
            Step::Renew(seed, end) => renew(&mut world, &mut oracle, seed, end),
            Step::Send { parts, fate } => {
                let mut updates = oracle.updates(parts);
                match fate {
                    0 => updates.clear(),
                    1 => {
                        updates.pop();
                    }
                    // A step comes behind the next one; the parts of one stay together.
                    2 if updates.iter().all(|u| u.from.is_some()) => late.append(&mut updates),
                    3 => updates.extend(updates.clone()),
                    _ => {}
                }
                if fate != 2 {
                    updates.append(&mut late);
                }
                deliver(&mut world, &mut oracle, updates);
            }
            Step::Reconnect => {
                late.clear();
                attach(&mut world, &mut oracle);
            }
            Step::Restart => {
                late.clear();
                let mut fresh = World::restored(world.saved.clone(), world.now.unix);
                fresh.up();
                world = fresh;
                attach(&mut world, &mut oracle);
            }
        }
    }
    // Quiescence: one more change, and whatever it takes to get it over.
    oracle.n += 1;
    let updates = oracle.updates(false);
    deliver(&mut world, &mut oracle, updates);
    if world.engine.status(world.now).generation != Some(generation(oracle.n)) {
        attach(&mut world, &mut oracle);
        oracle.sent = None;
        let updates = oracle.updates(false);
        deliver(&mut world, &mut oracle, updates);
    }
    assert_eq!(
        world.engine.status(world.now).generation,
        Some(generation(oracle.n))
    );
    let mut expected: Vec<_> = oracle
        .peers
        .values()
        .map(|p| (p.device, p.egress[0].lease.end()))
        .collect();
    expected.sort();
    let enforced: Vec<_> = world
        .table
        .peers
        .iter()
        .map(|spec| {
            let left = spec.egress[0].end.since(world.now.mono);
            (spec.device, world.now.unix.saturating_add(left))
        })
        .collect();
    assert_eq!(enforced, expected);
}

/// A renewal, which the device takes only for the generation it was last sent.
fn renew(world: &mut World, oracle: &mut Oracle, seed: u8, end: u64) {
    let Some((n, sent)) = &mut oracle.sent else {
        return;
    };
    let (Some(entry), Some(told)) = (oracle.peers.get_mut(&seed), sent.get_mut(&seed)) else {
        return;
    };
    if entry != told {
        return;
    }
    let lease = entry.egress[0].lease;
    entry.egress[0].lease = lease.renewed(at(end).max(lease.end()));
    let renewal = LeaseRenewal {
        generation: generation(*n),
        peers: vec![PeerRenewal {
            device: id(seed),
            ingress: Vec::new(),
            egress: vec![(entry.egress[0].rule.clone(), at(end))],
        }],
    };
    // A renewal is not numbered: one that is lost comes again before long, here with the entry. The device may have the
    // entry before it, or be about to get it: as far as the controller knows, it has.
    if world.engine.status(world.now).generation == Some(generation(*n)) {
        *told = entry.clone();
        world.say(ControllerMessage::Renew(renewal));
    } else {
        oracle.n += 1;
    }
}
