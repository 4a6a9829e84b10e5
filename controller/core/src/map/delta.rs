//! What a device has to be told, given what it was told before.

use std::collections::{BTreeMap, BTreeSet};

use gatereeve_shared::ids::{DeviceId, RuleId};
use gatereeve_shared::policy::filter::FilterRule;
use gatereeve_shared::time::UnixMillis;
use gatereeve_shared::wire::map::{PeerEntry, PeerRenewal, SelfEntry};

use super::Held;

/// A step from what a device holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Step {
    pub(crate) this: Option<SelfEntry>,
    pub(crate) removed: BTreeSet<DeviceId>,
    pub(crate) upserted: BTreeMap<DeviceId, PeerEntry>,
    /// The peers of whom the device is to lose a lease that it holds, and the latest end of those.
    pub(crate) loses: BTreeMap<DeviceId, UnixMillis>,
}

impl Step {
    pub(crate) fn is_empty(&self) -> bool {
        self.this.is_none() && self.removed.is_empty() && self.upserted.is_empty()
    }

    /// When the last of what the device is to lose ends by itself; `None` where it loses nothing.
    pub(crate) fn loses_until(&self) -> Option<UnixMillis> {
        self.loses.values().copied().max()
    }

    /// Compares one peer: `new` is what is granted now.
    pub(crate) fn compare(&mut self, held: &Held, peer: DeviceId, new: Option<PeerEntry>) {
        match (held.peers.get(&peer), new) {
            (None, None) => {}
            (None, Some(new)) => drop(self.upserted.insert(peer, new)),
            (Some(old), None) => {
                self.lose(peer, old.ingress.iter().chain(&old.egress));
                self.removed.insert(peer);
            }
            (Some(old), Some(new)) => {
                if is_changed(old, &new) {
                    self.lose(peer, lost(&old.ingress, &new.ingress));
                    self.lose(peer, lost(&old.egress, &new.egress));
                    self.upserted.insert(peer, new);
                }
            }
        }
    }

    fn lose<'a>(&mut self, peer: DeviceId, rules: impl Iterator<Item = &'a FilterRule>) {
        if let Some(end) = rules.map(|rule| rule.lease.end()).max() {
            let until = self.loses.entry(peer).or_insert(end);
            *until = end.max(*until);
        }
    }

    /// Brings what the device holds up to this step.
    pub(crate) fn apply(&self, held: &mut Held) {
        if let Some(this) = &self.this {
            held.this = this.clone();
        }
        held.peers.retain(|peer, _| !self.removed.contains(peer));
        let upserted = self.upserted.iter();
        held.peers
            .extend(upserted.map(|(peer, entry)| (*peer, entry.clone())));
    }
}

/// Rules of `old` that `new` does not have, or not in full: fewer ports, or for less time than the
/// holder of `old` would take it for.
fn lost<'a>(
    old: &'a [FilterRule],
    new: &'a [FilterRule],
) -> impl Iterator<Item = &'a FilterRule> + 'a {
    old.iter().filter(move |old| {
        !new.iter().any(|new| {
            new.rule == old.rule
                && old.ports.iter().all(|port| new.ports.contains(port))
                && new.lease.hard_end() >= old.lease.end()
        })
    })
}

/// Endpoints and later ends of leases travel by themselves; everything else is a change.
fn is_changed(old: &PeerEntry, new: &PeerEntry) -> bool {
    let same_rules = |old: &[FilterRule], new: &[FilterRule]| {
        old.len() == new.len()
            && old.iter().zip(new).all(|(old, new)| {
                old.rule == new.rule
                    && old.ports == new.ports
                    && old.lease.hard_end() == new.lease.hard_end()
                    && old.lease.end() <= new.lease.end()
            })
    };
    old.name != new.name
        || old.addresses != new.addresses
        || old.user != new.user
        || old.tags != new.tags
        || old.key != new.key
        || old.next_key != new.next_key
        || !same_rules(&old.ingress, &new.ingress)
        || !same_rules(&old.egress, &new.egress)
}

/// New ends for what a device holds of one peer; `None` where nothing moves. `held` moves along.
pub(crate) fn renew(held: &mut PeerEntry, new: &PeerEntry) -> Option<PeerRenewal> {
    let renewal = PeerRenewal {
        device: held.device,
        ingress: renew_rules(&mut held.ingress, &new.ingress),
        egress: renew_rules(&mut held.egress, &new.egress),
    };
    let moves = !(renewal.ingress.is_empty() && renewal.egress.is_empty());
    moves.then_some(renewal)
}

fn renew_rules(held: &mut [FilterRule], new: &[FilterRule]) -> Vec<(RuleId, UnixMillis)> {
    let mut ends = Vec::new();
    for rule in held {
        let end = new
            .iter()
            .find(|new| new.rule == rule.rule)
            .map(|new| new.lease.end().min(rule.lease.hard_end()));
        if let Some(end) = end.filter(|end| *end != rule.lease.end()) {
            rule.lease = rule.lease.renewed(end);
            ends.push((rule.rule.clone(), end));
        }
    }
    ends
}
