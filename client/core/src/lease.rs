//! Which rules are live, and until when on the monotonic clock.

use std::sync::Arc;

use gatereeve_shared::lease::Lease;
use gatereeve_shared::policy::filter::FilterRule;
use gatereeve_shared::time::{Mono, Now, UnixMillis};
use gatereeve_shared::wire::map::PeerEntry;

use crate::clock::ControlClock;
use crate::datapath::RuleSpec;
use crate::stored::HeldMap;

/// Turns ends in controller time into ends on the monotonic clock.
#[derive(Clone, Copy)]
pub(crate) struct LeaseView<'a> {
    /// What the time is at the controller.
    pub(crate) clock: &'a ControlClock,
    /// Now.
    pub(crate) now: Now,
    /// When this device's own identity key expires: nothing is leased past it.
    pub(crate) own_end: UnixMillis,
}

impl LeaseView<'_> {
    /// The end of a rule, held to this device's own.
    pub(crate) fn end(&self, rule: &FilterRule) -> UnixMillis {
        rule.lease.end().min(self.own_end)
    }

    /// When the rule ends; `None` where it has ended, or the time cannot be told.
    pub(crate) fn deadline(&self, rule: &FilterRule) -> Option<Mono> {
        self.clock.deadline(self.end(rule), self.now)
    }

    /// The live ones, as the data path takes them.
    pub(crate) fn live(&self, rules: &[FilterRule]) -> Vec<RuleSpec> {
        rules
            .iter()
            .filter_map(|rule| {
                Some(RuleSpec {
                    rule: rule.rule.clone(),
                    ports: rule.ports.clone(),
                    end: self.deadline(rule)?,
                })
            })
            .collect()
    }

    /// The latest end of a live rule of `peer`.
    pub(crate) fn latest(&self, peer: &PeerEntry) -> Option<UnixMillis> {
        peer.ingress
            .iter()
            .chain(&peer.egress)
            .filter(|rule| self.deadline(rule).is_some())
            .map(|rule| self.end(rule))
            .max()
    }
}

/// Marks what has ended as ended under every clock: should controller time be corrected backwards,
/// only a renewal brings it back.
pub(crate) fn bury_ended(map: &mut HeldMap, at: UnixMillis) {
    let ended = |rule: &FilterRule| !rule.lease.is_live(at) && rule.lease.end() > UnixMillis(0);
    for peer in map.peers.values_mut() {
        if peer.ingress.iter().chain(&peer.egress).any(ended) {
            let entry = Arc::make_mut(peer);
            for rule in entry.ingress.iter_mut().chain(&mut entry.egress) {
                if ended(rule) {
                    let hard_end = match rule.lease.hard_end() {
                        // Past its hard end no renewal brings it back either.
                        hard_end if hard_end <= at => UnixMillis(0),
                        hard_end => hard_end,
                    };
                    rule.lease = Lease::new(UnixMillis(0), hard_end);
                }
            }
        }
    }
}
