//! The tracked flows of one peer: how many there may be, which make room, and what has passed in each.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use gatereeve_shared::time::Mono;

use super::lru::{Lru, Place};
use super::tracked::{Class, Flow};
use crate::datapath::Direction;
use crate::keyed::HashKey;
use crate::packet::FlowKey;
use crate::packet::ip::TcpFlags;

/// Flows tracked for one peer; one of them makes room, within the same peer only.
pub const FLOWS_PER_PEER: usize = 16_384;
/// Flows that a peer has whatever the others hold.
pub const FLOWS_RESERVED: usize = 256;
/// Flows that all peers may track together beyond their reserves: this and 256 for each peer are the most
/// there can be, with 1,000 peers 387,072. A flow takes 160 bytes with its share of the look-up, and a table has
/// room for four times its flows at the most: at the very worst 84 MB for these, and 164 KB for a peer's
/// reserve.
pub const FLOWS_TOTAL: usize = 131_072;

/// How many flows all peers may still track together, beyond the reserve that each has.
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

/// Which tracked flow of its peer a packet is part of. Good while no flow of that peer has gone, and for use at once: it is
/// not to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FlowRef {
    place: Place,
    removals: u32,
}

/// The flows of one peer.
#[derive(Debug)]
pub(super) struct Conntrack {
    flows: Lru<FlowKey, Flow, { Class::ALL.len() }>,
    /// Pays for all but the first [`FLOWS_RESERVED`].
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
        if flow.expires(flow.class(key)) <= now {
            self.remove(key);
            return None;
        }
        Some(place)
    }

    /// The flow at a place.
    pub(super) fn at(&mut self, place: Place) -> Option<&mut Flow> {
        self.flows.at(place)
    }

    /// The flow at a place, for [`Self::count`].
    pub(super) fn reference(&self, place: Place) -> FlowRef {
        FlowRef {
            place,
            removals: self.flows.removals(),
        }
    }

    /// Whether `flow` is the flow that it was, for certain.
    #[inline]
    pub(super) fn stands(&self, flow: FlowRef) -> bool {
        flow.removals == self.flows.removals()
    }

    /// Counts a packet of `bytes` that went through the tunnel; not where it cannot be told any more whose it is.
    #[inline]
    pub(super) fn count(&mut self, flow: FlowRef, direction: Direction, bytes: u64) {
        debug_assert!(self.stands(flow), "a flow that was kept for too long");
        if self.stands(flow)
            && let Some(flow) = self.flows.at(flow.place)
        {
            flow.count(direction, bytes);
        }
    }

    /// The flows that have not idled out, and where they are.
    pub(super) fn iter(&self, now: Mono) -> impl Iterator<Item = (Place, &Flow)> {
        let kept = move |(_, key, flow): &(_, &FlowKey, &Flow)| flow.expires(flow.class(key)) > now;
        let kept = self.flows.iter().filter(kept);
        kept.map(|(place, _, flow)| (place, flow))
    }

    /// The flow at a place, and what it is between.
    pub(super) fn get(&self, place: Place) -> Option<(&FlowKey, &Flow)> {
        self.flows.get(place)
    }

    /// Takes note of a packet that passes, of the flow at a place.
    pub(super) fn saw(
        &mut self,
        place: Place,
        key: &FlowKey,
        direction: Direction,
        flags: Option<TcpFlags>,
        now: Mono,
    ) {
        if let Some(flow) = self.flows.at(place)
            && flow.saw(direction, flags, now)
        {
            let class = flow.class(key);
            self.flows.touch(place, class.list());
        }
    }

    /// Tracks a flow, and says where it is. Beyond the peer's reserve, where the budget of all peers is spent, it takes the
    /// place of another one of the same peer.
    pub(super) fn insert(&mut self, key: FlowKey, flow: Flow) -> Option<Place> {
        if self.flows.place(&key).is_none() && !self.may_grow() {
            self.make_room();
        }
        let class = flow.class(&key);
        self.flows.insert(key, flow, class.list())
    }

    /// Whether there may be one more, which is paid for then.
    fn may_grow(&self) -> bool {
        !self.flows.is_full() && (self.flows.len() < FLOWS_RESERVED || self.budget.take())
    }

    /// Gives up one flow, whose share of the budget is the next one's.
    ///
    /// Closed ones go first. Then what is neither closed nor established, by last use: no scan and no burst
    /// of queries ends a connection. Connections have to leave an eighth to the others, or else where they take all
    /// there is, whatever begins would end what began just before.
    fn make_room(&mut self) {
        let others = self.flows.len() / 8;
        let connections = self.flows.len_of(Class::Established.list());
        let mut closed = [Class::Reset, Class::Ended].into_iter();
        let class = if let Some(closed) = closed.find(|class| self.oldest(*class).is_some()) {
            closed
        } else if connections > self.flows.len().saturating_sub(others) {
            Class::Established
        } else {
            let used = [Class::Brief, Class::Datagrams]
                .into_iter()
                .filter_map(|class| Some((self.oldest(class)?.1.last, class)));
            let least = used.min_by_key(|(last, _)| *last);
            least.map_or(Class::Established, |(_, class)| class)
        };
        self.flows.remove_oldest(class.list());
    }

    fn oldest(&self, class: Class) -> Option<(&FlowKey, &Flow)> {
        self.flows.oldest(class.list())
    }

    pub(super) fn remove(&mut self, key: &FlowKey) {
        if self.flows.remove(key) && self.flows.len() >= FLOWS_RESERVED {
            self.budget.give_back(1);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.flows.len()
    }

    /// How many flows the budget has paid for.
    fn paid_for(&self) -> usize {
        self.flows.len().saturating_sub(FLOWS_RESERVED)
    }

    pub(super) fn clear(&mut self) {
        self.budget.give_back(self.paid_for());
        self.flows.clear();
    }

    /// The flow that expires first of each class, and when.
    fn next(&self) -> impl Iterator<Item = (&FlowKey, Mono)> {
        Class::ALL.into_iter().filter_map(|class| {
            let (key, flow) = self.oldest(class)?;
            Some((key, flow.expires(class)))
        })
    }

    /// When [`Self::prune`] has something to forget next, if no packet comes before.
    pub(super) fn expires(&self) -> Option<Mono> {
        self.next().map(|(_, end)| end).min()
    }

    /// Forgets idle flows, a bounded number at a time.
    pub(super) fn prune(&mut self, now: Mono) {
        for _ in 0..256 {
            let Some((key, _)) = self.next().find(|(_, end)| *end <= now) else {
                return;
            };
            let key = *key;
            self.remove(&key);
        }
    }
}

impl Drop for Conntrack {
    fn drop(&mut self) {
        self.budget.give_back(self.paid_for());
    }
}
