//! The judgement itself: the order of checks, and the only place that says yes.

use gatereeve_shared::generation::Generation;
use gatereeve_shared::time::Mono;

use super::conntrack::{Conntrack, FlowBudget, FlowRef};
use super::fragments::{DatagramKey, Fragments, Verdict};
use super::lru::Place;
use super::tracked::Flow;
use super::{Permit, Rules};
use crate::datapath::{Direction, RuleSpec};
use crate::drop_reason::DropReason;
use crate::keyed::HashKey;
use crate::packet::ip::TcpFlags;
use crate::packet::{FlowKey, Fragment, IpPacket, Transport};

/// What may pass between this device and one peer, as of one table.
#[derive(Clone, Debug)]
pub struct PeerFilter {
    ingress: Rules,
    egress: Rules,
    serial: u64,
    generation: Generation,
}

/// The mutable part: tracked flows and fragment verdicts of one peer.
#[derive(Debug)]
pub struct FilterState {
    pub(super) flows: Conntrack,
    fragments: Fragments,
}

impl FilterState {
    /// Nothing tracked; flows are paid for from `budget`, and found by a hash under `key`.
    #[must_use]
    pub fn new(budget: FlowBudget, key: HashKey) -> Self {
        Self {
            flows: Conntrack::new(budget, key),
            fragments: Fragments::new(key),
        }
    }

    /// How many flows are tracked.
    #[must_use]
    pub fn flows(&self) -> usize {
        self.flows.len()
    }

    /// Whether what passes as part of `flow` may be counted there still.
    #[inline]
    pub(crate) fn stands(&self, flow: FlowRef) -> bool {
        self.flows.stands(flow)
    }

    /// Counts a packet of `bytes` that went through the tunnel, in the flow that its permit names.
    #[inline]
    pub(crate) fn count(&mut self, flow: FlowRef, direction: Direction, bytes: u64) {
        self.flows.count(flow, direction, bytes);
    }

    /// When [`Self::prune`] has something to forget next; `None` where nothing is tracked.
    #[must_use]
    pub fn expires(&self) -> Option<Mono> {
        let (flows, fragments) = (self.flows.expires(), self.fragments.expires());
        flows.into_iter().chain(fragments).min()
    }

    /// Forgets what is too old, a bounded amount at a time.
    pub fn prune(&mut self, now: Mono) {
        self.flows.prune(now);
        self.fragments.prune(now);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.flows.clear();
        self.fragments.clear();
    }
}

impl PeerFilter {
    /// Compiles the rules of one table.
    #[must_use]
    pub fn new(
        ingress: &[RuleSpec],
        egress: &[RuleSpec],
        serial: u64,
        generation: Generation,
    ) -> Self {
        Self {
            ingress: Rules::new(ingress),
            egress: Rules::new(egress),
            serial,
            generation,
        }
    }

    /// Whether any rule is live, in either direction: without one the peer has no business with us.
    #[must_use]
    pub fn is_live(&self, now: Mono) -> bool {
        self.ingress.is_live(now) || self.egress.is_live(now)
    }

    /// Whether this device may send the peer anything.
    #[must_use]
    pub fn may_reach(&self, now: Mono) -> bool {
        self.egress.is_live(now)
    }

    /// When the last rule ends, in either direction.
    #[must_use]
    pub fn live_until(&self) -> Option<Mono> {
        self.ingress.live_until().max(self.egress.live_until())
    }

    /// Judges a packet whose addresses have been found to be this device's and the peer's own.
    ///
    /// # Errors
    /// Why it must be dropped.
    pub fn judge(
        &self,
        state: &mut FilterState,
        packet: &IpPacket,
        direction: Direction,
        now: Mono,
    ) -> Result<Permit, DropReason> {
        let place = match packet.fragment {
            Fragment::Whole => self.whole(state, packet, direction, now)?,
            Fragment::First { id, covers } => {
                let datagram = DatagramKey::new(packet, id, direction);
                // A second first fragment stands for itself: what the earlier one was allowed is over.
                state.fragments.forget(&datagram);
                let place = self.whole(state, packet, direction, now)?;
                let flow = FlowKey::of(packet, direction).ok_or(DropReason::BadFragment)?;
                let verdict = Verdict {
                    flow,
                    covers,
                    at: now,
                };
                state.fragments.allow(datagram, verdict);
                place
            }
            Fragment::Later { id, offset } => {
                let datagram = DatagramKey::new(packet, id, direction);
                let verdict = state
                    .fragments
                    .find(&datagram, now)
                    .ok_or(DropReason::FragmentWithoutVerdict)?;
                if offset < verdict.covers {
                    state.fragments.forget(&datagram);
                    return Err(DropReason::BadFragment);
                }
                self.covered(state, &verdict.flow, now)
                    .ok_or(DropReason::FragmentWithoutVerdict)?
            }
        };
        Ok(Permit::of(state.flows.reference(place)))
    }

    /// Judges a packet that does not hang on an earlier one, and says where the flow is that it passes as part of. An error
    /// about a packet passes as part of the flow of that packet.
    fn whole(
        &self,
        state: &mut FilterState,
        packet: &IpPacket,
        direction: Direction,
        now: Mono,
    ) -> Result<Place, DropReason> {
        let (flags, is_reply_only) = match packet.transport {
            Transport::Control => return Err(DropReason::ControlIcmp),
            Transport::Error(quoted) => {
                let is_ours =
                    quoted.source == packet.destination && quoted.destination == packet.source;
                let flow = FlowKey::quoted(&quoted, direction);
                let covering = if is_ours {
                    self.covered(state, &flow, now)
                } else {
                    None
                };
                return covering.ok_or(DropReason::UntrackedError);
            }
            Transport::Tcp { flags, .. } => (Some(flags), false),
            Transport::Echo { request, .. } => (None, !request),
            Transport::Udp { .. } | Transport::Other { .. } => (None, false),
        };
        let key = FlowKey::of(packet, direction).ok_or(DropReason::Malformed)?;
        if let Some(place) = self.covered(state, &key, now)
            && let Some(flow) = state.flows.at(place)
            // The other side's SYN is no reply: it asks for a connection of its own.
            && !(flow.opener != direction && flags.is_some_and(TcpFlags::opens))
        {
            state.flows.saw(place, &key, direction, flags, now);
            return Ok(place);
        }
        if is_reply_only {
            return Err(DropReason::NoRule);
        }
        let (protocol, port) = key.asked_of_rules(direction);
        let (rule, end) = self
            .rules(direction)
            .allow(protocol, port, now)
            .ok_or(DropReason::NoRule)?;
        let mut flow = Flow::new(direction, rule, self.generation, self.serial, end, now);
        flow.saw(direction, flags, now);
        // There is room: `insert` makes it.
        state.flows.insert(key, flow).ok_or(DropReason::NoRule)
    }

    /// Where the flow is, if it is tracked and its opener's rules still allow it. It is judged again when
    /// the table has moved or the rule's end has passed; a flow that fails is forgotten.
    fn covered(&self, state: &mut FilterState, key: &FlowKey, now: Mono) -> Option<Place> {
        let place = state.flows.find(key, now)?;
        let flow = state.flows.at(place)?;
        if flow.serial == self.serial && now < flow.end {
            return Some(place);
        }
        let (protocol, port) = key.asked_of_rules(flow.opener);
        if let Some((rule, end)) = self.rules(flow.opener).allow(protocol, port, now) {
            (flow.rule, flow.end) = (rule, end);
            (flow.serial, flow.generation) = (self.serial, self.generation);
            return Some(place);
        }
        state.flows.remove(key);
        None
    }

    /// Whether the rules that [`Self::judge`] would ask allow the flow still.
    pub(super) fn allows(&self, key: &FlowKey, flow: &Flow, now: Mono) -> bool {
        let (protocol, port) = key.asked_of_rules(flow.opener);
        let is_known = flow.serial == self.serial && now < flow.end;
        is_known || self.rules(flow.opener).allow(protocol, port, now).is_some()
    }

    fn rules(&self, direction: Direction) -> &Rules {
        match direction {
            Direction::Inbound => &self.ingress,
            Direction::Outbound => &self.egress,
        }
    }
}
