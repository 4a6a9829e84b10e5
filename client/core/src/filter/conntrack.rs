//! Tracked flows of one peer: who opened them, through which rule, and until when.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use gatereeve_shared::generation::Generation;
use gatereeve_shared::ids::RuleId;
use gatereeve_shared::policy::port::Protocol;
use gatereeve_shared::time::Mono;

use super::lru::{Lru, Place};
use crate::datapath::Direction;
use crate::keyed::HashKey;
use crate::packet::FlowKey;
use crate::packet::ip::TcpFlags;

/// Flows tracked for one peer; the least recently used one makes room, within the same peer only.
pub const FLOWS_PER_PEER: usize = 16_384;
/// Flows tracked for all peers.
pub const FLOWS_TOTAL: usize = 131_072;

const TCP_ESTABLISHED: Duration = Duration::from_secs(2 * 60 * 60);
const TCP_HALF_OPEN: Duration = Duration::from_secs(30);
const TCP_CLOSED: Duration = Duration::from_secs(10);
const ICMP: Duration = Duration::from_secs(30);
const OTHERS: Duration = Duration::from_secs(120);

/// How many flows all peers may still track together.
#[derive(Clone, Debug)]
pub struct FlowBudget(Arc<AtomicUsize>);

impl Default for FlowBudget {
    fn default() -> Self {
        Self::new(FLOWS_TOTAL)
    }
}

impl FlowBudget {
    /// A budget of `flows`.
    #[must_use]
    pub fn new(flows: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(flows)))
    }

    fn take(&self) -> bool {
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(1)
            })
            .is_ok()
    }

    fn give_back(&self, flows: usize) {
        self.0.fetch_add(flows, Ordering::Relaxed);
    }
}

/// One tracked flow.
#[derive(Clone, Debug)]
pub(super) struct Flow {
    pub(super) opener: Direction,
    /// The rule that allows it, as judged last; for the flow log.
    pub(super) rule: Arc<RuleId>,
    /// The map's generation at that judgement.
    pub(super) generation: Generation,
    /// The table at that judgement: finer than the generation, so that a renewed or shortened lease
    /// counts too.
    pub(super) serial: u64,
    /// When the rule ends.
    pub(super) end: Mono,
    last: Mono,
    tcp: TcpPhase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TcpPhase {
    /// Only the opener was heard.
    HalfOpen,
    Established {
        /// FIN of the opener, of the other side.
        fins: (bool, bool),
    },
    Closed,
}

impl Flow {
    pub(super) fn new(
        opener: Direction,
        rule: Arc<RuleId>,
        generation: Generation,
        serial: u64,
        end: Mono,
        now: Mono,
    ) -> Self {
        Self {
            opener,
            rule,
            generation,
            serial,
            end,
            last: now,
            tcp: TcpPhase::HalfOpen,
        }
    }

    /// Takes note of a packet that passed.
    pub(super) fn saw(&mut self, direction: Direction, flags: Option<TcpFlags>, now: Mono) {
        self.last = self.last.max(now);
        let Some(flags) = flags else {
            return;
        };
        let is_opener = direction == self.opener;
        if flags.has(TcpFlags::RST) {
            self.tcp = TcpPhase::Closed;
            return;
        }
        match &mut self.tcp {
            TcpPhase::HalfOpen if !is_opener => {
                let fin = flags.has(TcpFlags::FIN);
                self.tcp = TcpPhase::Established { fins: (false, fin) };
            }
            TcpPhase::Closed if is_opener && flags.opens() => self.tcp = TcpPhase::HalfOpen,
            TcpPhase::Established { fins } if flags.has(TcpFlags::FIN) => {
                if is_opener {
                    fins.0 = true;
                } else {
                    fins.1 = true;
                }
                if *fins == (true, true) {
                    self.tcp = TcpPhase::Closed;
                }
            }
            TcpPhase::HalfOpen | TcpPhase::Established { .. } | TcpPhase::Closed => {}
        }
    }

    fn is_idle(&self, protocol: Protocol, now: Mono) -> bool {
        now.since(self.last) >= self.limit(protocol)
    }

    /// How long it is kept without a packet.
    fn limit(&self, protocol: Protocol) -> Duration {
        match (protocol, self.tcp) {
            (Protocol::Tcp, TcpPhase::HalfOpen) => TCP_HALF_OPEN,
            (Protocol::Tcp, TcpPhase::Established { .. }) => TCP_ESTABLISHED,
            (Protocol::Tcp, TcpPhase::Closed) => TCP_CLOSED,
            (Protocol::Icmp, _) => ICMP,
            (Protocol::Udp | Protocol::Any, _) => OTHERS,
        }
    }
}

/// The flows of one peer.
#[derive(Debug)]
pub(super) struct Conntrack {
    flows: Lru<FlowKey, Flow>,
    budget: FlowBudget,
}

impl Conntrack {
    pub(super) fn new(budget: FlowBudget, hash: HashKey) -> Self {
        Self {
            flows: Lru::new(FLOWS_PER_PEER, hash),
            budget,
        }
    }

    /// Where the flow is, unless it has been idle for too long; good until the next removal.
    pub(super) fn find(&mut self, key: &FlowKey, now: Mono) -> Option<Place> {
        let place = self.flows.place(key)?;
        let flow = self.flows.at(place)?;
        if flow.is_idle(key.asked_of_rules(flow.opener).0, now) {
            self.remove(key);
            return None;
        }
        Some(place)
    }

    /// The flow at a place.
    pub(super) fn at(&mut self, place: Place) -> Option<&mut Flow> {
        self.flows.at(place)
    }

    /// Counts as use: the flow is the last to make room.
    pub(super) fn touch(&mut self, place: Place) {
        self.flows.touch(place);
    }

    /// Tracks a flow. `false` where the budget of all peers is spent and this peer has no flow to give up.
    pub(super) fn insert(&mut self, key: FlowKey, flow: Flow) -> bool {
        let grows = self.flows.place(&key).is_none() && !self.flows.is_full();
        if grows && !self.budget.take() && self.flows.remove_oldest().is_none() {
            return false;
        }
        self.flows.insert(key, flow);
        true
    }

    pub(super) fn remove(&mut self, key: &FlowKey) {
        if self.flows.remove(key) {
            self.budget.give_back(1);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.flows.len()
    }

    pub(super) fn clear(&mut self) {
        self.budget.give_back(self.flows.len());
        self.flows.clear();
    }

    /// When [`Self::prune`] has something to forget next, if no packet comes before.
    pub(super) fn expires(&self) -> Option<Mono> {
        let (key, flow) = self.flows.oldest()?;
        let limit = flow.limit(key.asked_of_rules(flow.opener).0);
        Some(flow.last.saturating_add(limit))
    }

    /// Forgets idle flows from the oldest on, a bounded number at a time.
    pub(super) fn prune(&mut self, now: Mono) {
        for _ in 0..256 {
            let Some((key, flow)) = self.flows.oldest() else {
                return;
            };
            if !flow.is_idle(key.asked_of_rules(flow.opener).0, now) {
                return;
            }
            let key = *key;
            self.remove(&key);
        }
    }
}

impl Drop for Conntrack {
    fn drop(&mut self) {
        self.budget.give_back(self.flows.len());
    }
}
