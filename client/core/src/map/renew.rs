//! New ends for leases that are held.

use std::sync::Arc;

use gatereeve_shared::ids::RuleId;
use gatereeve_shared::policy::filter::FilterRule;
use gatereeve_shared::time::UnixMillis;
use gatereeve_shared::wire::map::LeaseRenewal;

use crate::stored::HeldMap;

/// Takes a renewal. It is ignored where it is for another generation, for a peer or rule that is not
/// held, or for an end before the one held; no end goes past its hard end. Returns whether anything
/// changed.
pub(crate) fn renew(map: &mut HeldMap, renewal: &LeaseRenewal) -> bool {
    if renewal.generation != map.generation {
        return false;
    }
    let mut changed = false;
    for peer in &renewal.peers {
        let Some(held) = map.peers.get_mut(&peer.device) else {
            continue;
        };
        let gains = extends(&held.ingress, &peer.ingress) || extends(&held.egress, &peer.egress);
        if gains {
            let entry = Arc::make_mut(held);
            extend(&mut entry.ingress, &peer.ingress);
            extend(&mut entry.egress, &peer.egress);
            changed = true;
        }
    }
    changed
}

fn new_end(rule: &FilterRule, ends: &[(RuleId, UnixMillis)]) -> Option<UnixMillis> {
    ends.iter()
        .filter(|(id, _)| *id == rule.rule)
        .map(|(_, end)| rule.lease.renewed(*end).end())
        .max()
        .filter(|end| *end > rule.lease.end())
}

fn extends(rules: &[FilterRule], ends: &[(RuleId, UnixMillis)]) -> bool {
    rules.iter().any(|rule| new_end(rule, ends).is_some())
}

fn extend(rules: &mut [FilterRule], ends: &[(RuleId, UnixMillis)]) {
    for rule in rules {
        if let Some(end) = new_end(rule, ends) {
            rule.lease = rule.lease.renewed(end);
        }
    }
}
