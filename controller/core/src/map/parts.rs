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
