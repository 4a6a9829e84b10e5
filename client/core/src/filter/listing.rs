//! The tracked flows, for whoever asks what passes.

use std::cmp::Reverse;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use gatereeve_shared::generation::Generation;
use gatereeve_shared::ids::{DeviceId, RuleId};
use gatereeve_shared::time::Mono;

use super::conntrack::FLOWS_PER_PEER;
use super::judge::{FilterState, PeerFilter};
use super::lru::Place;
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
    /// Whether a live rule allows it now. The next packet of one that is not is judged as the first of another flow.
    pub is_allowed: bool,
    /// How far it has come.
    pub phase: FlowPhase,
    /// How long ago it began, to the second; where the opener has opened it again, since then.
    pub age: Duration,
    /// How long ago its last packet was, of those that keep it from being forgotten: for what is not TCP none of the other side's where the
    /// opener has said nothing for eight minutes.
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
    flows: Vec<(DeviceId, FlowStats)>,
    tracked: usize,
    /// Of the peer that is looked at: the bytes of its flows, and where they are.
    found: Vec<(u64, Place)>,
}

impl FlowList {
    /// A list of `most` flows, empty as yet.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            most,
            flows: Vec::new(),
            tracked: 0,
            found: Vec::with_capacity(FLOWS_PER_PEER),
        }
    }

    /// How many flows are tracked, listed or not.
    #[must_use]
    pub fn tracked(&self) -> usize {
        self.tracked
    }

    /// The flows and whose they are, those that have carried the most first.
    #[must_use]
    pub fn into_flows(mut self) -> Vec<(DeviceId, FlowStats)> {
        self.sort();
        self.flows
    }

    /// Forgets what others have more than, once another peer's flows have been added. Not to be called under a peer's lock.
    pub(crate) fn cut(&mut self) {
        if self.flows.len() > self.most {
            self.sort();
        }
    }

    fn sort(&mut self) {
        let rank = |(device, flow): &(DeviceId, FlowStats)| {
            let ends = (flow.peer, flow.own, flow.protocol);
            (Reverse(flow.bytes()), *device, ends)
        };
        self.flows.sort_unstable_by_key(rank);
        self.flows.truncate(self.most);
    }
}

impl FlowStats {
    /// Bytes in both directions.
    fn bytes(&self) -> u64 {
        self.sent.bytes.saturating_add(self.received.bytes)
    }
}

impl PeerFilter {
    /// Adds the flows of `device`, whose filter this is, to a list: those of them that have carried the most.
    ///
    /// It is called under the peer's lock. What takes time for each flow, of which there are
    /// [`FLOWS_PER_PEER`](super::FLOWS_PER_PEER) at most, is a look at its bytes; all else is for those that are listed.
    pub(crate) fn list(
        &self,
        state: &FilterState,
        device: DeviceId,
        now: Mono,
        list: &mut FlowList,
    ) {
        list.found.clear();
        let all = state.flows.iter(now).map(|(place, flow)| {
            let bytes = flow.sent.bytes.saturating_add(flow.received.bytes);
            (bytes, place)
        });
        list.found.extend(all);
        list.tracked = list.tracked.saturating_add(list.found.len());
        if list.found.len() > list.most {
            list.found
                .select_nth_unstable_by_key(list.most, |(bytes, _)| Reverse(*bytes));
        }
        let most = list.found.iter().take(list.most);
        let most = most.filter_map(|(_, place)| state.flows.get(*place));
        list.flows
            .extend(most.map(|(key, flow)| (device, self.stats(key, flow, now))));
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
