//! Updates cut to frames.

use gatereeve_shared::generation::Generation;
use gatereeve_shared::identity::checkpoint::Checkpoint;
use gatereeve_shared::limits;
use gatereeve_shared::wire::codec;
use gatereeve_shared::wire::map::{LeaseRenewal, MapUpdate, PeerRenewal};
use serde::Serialize;

use super::delta::Step;

/// Bytes of peers that a part is filled to; one peer more fits below the frame's limit.
const FILL: usize = limits::CONTROLLER_FRAME / 2;
/// Peers named as removed in one part.
const REMOVED_PER_PART: usize = 8192;

/// The parts of an update, in order.
pub(crate) fn updates(
    from: Option<Generation>,
    to: Generation,
    step: Step,
    checkpoint: Option<Checkpoint>,
) -> Vec<MapUpdate> {
    let part = || MapUpdate {
        from,
        to,
        this: None,
        removed: Vec::new(),
        upserted: Vec::new(),
        checkpoint: None,
        more: true,
    };
    let removed: Vec<_> = step.removed.into_iter().collect();
    let mut parts: Vec<MapUpdate> = removed
        .chunks(REMOVED_PER_PART)
        .map(|removed| MapUpdate {
            removed: removed.to_vec(),
            ..part()
        })
        .collect();
    for upserted in fill(step.upserted.into_values()) {
        match parts.last_mut() {
            Some(first) if first.upserted.is_empty() => first.upserted = upserted,
            _ => parts.push(MapUpdate { upserted, ..part() }),
        }
    }
    if parts.is_empty() {
        parts.push(part());
    }
    if let Some(first) = parts.first_mut() {
        first.this = step.this;
    }
    if let Some(last) = parts.last_mut() {
        last.checkpoint = checkpoint;
        last.more = false;
    }
    parts
}

/// The messages of a renewal.
pub(crate) fn renewals(generation: Generation, peers: Vec<PeerRenewal>) -> Vec<LeaseRenewal> {
    fill(peers.into_iter())
        .into_iter()
        .map(|peers| LeaseRenewal { generation, peers })
        .collect()
}

/// Groups of bounded size in bytes and number.
fn fill<T: Serialize>(items: impl Iterator<Item = T>) -> Vec<Vec<T>> {
    let mut groups: Vec<Vec<T>> = Vec::new();
    let mut filled = FILL;
    for item in items {
        let bytes = codec::encode(&item).map_or(FILL, |bytes| bytes.len());
        match groups.last_mut() {
            Some(group) if filled < FILL && group.len() < limits::PEERS_PER_PART => {
                group.push(item);
                filled = filled.saturating_add(bytes);
            }
            _ => {
                groups.push(vec![item]);
                filled = bytes;
            }
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use gatereeve_shared::ids::{DeviceId, RuleId};
    use gatereeve_shared::time::UnixMillis;
    use gatereeve_shared::wire::controller::ControllerMessage;

    use super::*;

    fn id(n: u32) -> DeviceId {
        let mut id = [0; 20];
        id[..4].copy_from_slice(&n.to_be_bytes());
        DeviceId(id)
    }

    #[test]
    fn a_long_update_comes_in_parts_that_fit_and_lose_nothing() {
        let step = Step {
            removed: (0..65_536).map(id).collect(),
            ..Step::default()
        };
        let to = Generation::default();
        let parts = updates(Some(to), to, step, None);
        assert_eq!(parts.len(), 8);
        let removed: BTreeSet<_> = parts.iter().flat_map(|part| &part.removed).collect();
        assert_eq!(removed.len(), 65_536);
        let more: Vec<_> = parts.iter().map(|part| part.more).collect();
        assert_eq!(more.iter().filter(|more| !**more).count(), 1);
        assert_eq!(more.last(), Some(&false));
        for part in parts {
            assert!(ControllerMessage::Map(part).to_frame().is_ok());
        }
    }

    #[test]
    fn an_empty_update_is_one_part() {
        let to = Generation::default();
        let parts = updates(None, to, Step::default(), None);
        assert_eq!(parts.len(), 1);
        assert!(!parts[0].more);
    }

    #[test]
    fn renewals_of_many_long_rules_fit_their_frames() {
        let rule = RuleId::new("r".repeat(63)).unwrap();
        let peers: Vec<_> = (0..1000)
            .map(|n| PeerRenewal {
                device: id(n),
                ingress: vec![(rule.clone(), UnixMillis::MAX); 256],
                egress: vec![],
            })
            .collect();
        let parts = renewals(Generation::default(), peers);
        let total: usize = parts.iter().map(|part| part.peers.len()).sum();
        assert_eq!(total, 1000);
        for part in parts {
            assert!(ControllerMessage::Renew(part).to_frame().is_ok());
        }
    }
}
