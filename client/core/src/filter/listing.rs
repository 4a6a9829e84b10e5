//! The tracked flows, for whoever asks what passes.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use gatereeve_shared::generation::Generation;
use gatereeve_shared::ids::{DeviceId, RuleId};
use gatereeve_shared::time::Mono;

use super::judge::{FilterState, PeerFilter};
use super::tracked::{Flow, FlowPhase, Traffic};
use crate::datapath::Direction;
use crate::packet::FlowKey;

/// A tracked flow, and what has passed in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowStats {
    /// IP protocol number.
    pub protocol: u8,
    /// This device's address and port; the identifier of echo, 0 where the protocol has no ports.
    pub own: SocketAddr,
    /// The peer's; 0 for echo.
    pub peer: SocketAddr,
    /// Outbound where this device opened it.
    pub opener: Direction,
    /// The rule that allowed it, as judged last.
    pub rule: Arc<RuleId>,
    /// The map's generation at that judgement.
    pub generation: Generation,
    /// Whether a live rule allows it now: the next packet of one that is not is dropped, and the flow forgotten.
    pub is_allowed: bool,
    /// How far it has come.
    pub phase: FlowPhase,
    /// How long ago it began, to the second.
    pub age: Duration,
    /// How long ago its last packet was.
    pub idle: Duration,
    /// What this device has sent in it since.
    pub sent: Traffic,
    /// What it has received in it since.
    pub received: Traffic,
}

/// The flows of all peers that have carried the most, out of all that are tracked.
#[derive(Debug)]
pub struct FlowList {
    most: usize,
    /// The one with the fewest bytes on top.
    flows: BinaryHeap<Ranked>,
    tracked: usize,
}

impl FlowList {
    /// A list of `most` flows, empty as yet.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            most,
            flows: BinaryHeap::new(),
            tracked: 0,
        }
    }

    /// How many flows are tracked, listed or not.
    #[must_use]
    pub fn tracked(&self) -> usize {
        self.tracked
    }

    /// The flows and whose they are, those that have carried the most first.
    #[must_use]
    pub fn into_flows(self) -> Vec<(DeviceId, FlowStats)> {
        let ranked = self.flows.into_sorted_vec();
        ranked
            .into_iter()
            .map(|flow| (flow.device, flow.stats))
            .collect()
    }

    fn has_place_for(&self, bytes: u64) -> bool {
        self.flows.len() < self.most || self.flows.peek().is_some_and(|least| least.bytes < bytes)
    }

    fn add(&mut self, flow: Ranked) {
        self.flows.push(flow);
        if self.flows.len() > self.most {
            self.flows.pop();
        }
    }
}

/// In the order of a list: the most bytes first, of equal ones by whose they are.
#[derive(Debug)]
struct Ranked {
    bytes: u64,
    device: DeviceId,
    stats: FlowStats,
}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> Ordering {
        let rank = |flow: &Self| {
            let FlowStats { own, peer, .. } = flow.stats;
            (Reverse(flow.bytes), flow.device, peer, own)
        };
        rank(self).cmp(&rank(other))
    }
}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Ranked {}

impl PeerFilter {
    /// Adds the flows of `device`, whose filter this is, to a list. Takes time in proportion to the flows, of which there are at
    /// most [`FLOWS_PER_PEER`](super::FLOWS_PER_PEER).
    pub(crate) fn list(
        &self,
        state: &FilterState,
        device: DeviceId,
        now: Mono,
        list: &mut FlowList,
    ) {
        let kept = |(key, flow): &(&FlowKey, &Flow)| flow.expires(flow.class(key)) > now;
        for (key, flow) in state.flows.iter().filter(kept) {
            list.tracked = list.tracked.saturating_add(1);
            let bytes = flow.sent.bytes.saturating_add(flow.received.bytes);
            if list.has_place_for(bytes) {
                let stats = self.stats(key, flow, now);
                list.add(Ranked {
                    bytes,
                    device,
                    stats,
                });
            }
        }
    }

    fn stats(&self, key: &FlowKey, flow: &Flow, now: Mono) -> FlowStats {
        let began = Mono(u64::from(flow.began).saturating_mul(1_000_000_000));
        FlowStats {
            protocol: key.protocol(),
            own: key.own(),
            peer: key.peer(),
            opener: flow.opener,
            rule: Arc::clone(&flow.rule),
            generation: flow.generation,
            is_allowed: self.allows(key, flow, now),
            phase: flow.phase(key),
            age: now.since(began),
            idle: now.since(flow.last),
            sent: flow.sent,
            received: flow.received,
        }
    }
}
