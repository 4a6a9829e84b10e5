//! The step from one map to the next.

use std::collections::BTreeMap;

use gatereeve_shared::generation::Generation;
use gatereeve_shared::identity::identity_key::IdentityPublicKey;
use gatereeve_shared::ids::DeviceId;
use gatereeve_shared::limits;
use gatereeve_shared::wire::map::SelfEntry;

use super::assemble::{UpdateProblem, WholeUpdate};
use crate::stored::HeldMap;

/// No journal grows by as much between two updates.
const JUMP: u64 = 1 << 32;

/// What an update is held against.
pub(crate) struct Before<'a> {
    /// This device.
    pub(crate) device: DeviceId,
    /// Its entry as held.
    pub(crate) this: Option<&'a SelfEntry>,
    /// The map as held.
    pub(crate) held: Option<&'a HeldMap>,
    /// The highest generation ever held.
    pub(crate) highest: Generation,
    /// The network's key, where the session has shown it.
    pub(crate) network_key: Option<&'a IdentityPublicKey>,
}

/// What the device holds afterwards.
#[derive(Debug)]
pub(crate) struct After {
    /// The map.
    pub(crate) map: HeldMap,
    /// The device's own entry.
    pub(crate) this: SelfEntry,
    /// The network was restored from a backup: revocations since then may be gone.
    pub(crate) restored: bool,
}

/// Applies `update`, or says why it does not fit; then nothing changes.
pub(crate) fn apply(before: &Before<'_>, update: WholeUpdate) -> Result<After, UpdateProblem> {
    check_generation(before, &update)?;
    check_checkpoint(before, &update)?;
    let mut peers = match (update.from, before.held) {
        (None, _) => BTreeMap::new(),
        (Some(from), Some(held)) if held.generation == from => held.peers.clone(),
        (Some(_), _) => return Err(UpdateProblem::Gap),
    };
    let this = match (update.this, before.this) {
        (Some(this), _) => this,
        (None, Some(this)) if update.from.is_some() => this.clone(),
        (None, _) => return Err(UpdateProblem::NoSelf),
    };
    if this.device != before.device || update.upserted.contains_key(&before.device) {
        return Err(UpdateProblem::WrongDevice);
    }
    for device in &update.removed {
        peers.remove(device);
    }
    peers.extend(update.upserted);
    if peers.len() > limits::PEERS {
        return Err(UpdateProblem::TooManyPeers);
    }
    let map = HeldMap {
        generation: update.to,
        peers,
    };
    if equivocates(before, &map, &this) {
        return Err(UpdateProblem::Equivocation);
    }
    Ok(After {
        map,
        this,
        restored: is_restored(before, update.to),
    })
}

fn check_generation(before: &Before<'_>, update: &WholeUpdate) -> Result<(), UpdateProblem> {
    let (to, highest) = (update.to, before.highest);
    if to < highest || update.from.is_some_and(|from| from > to) {
        return Err(UpdateProblem::Rollback);
    }
    let jumps = to.incarnation == highest.incarnation
        && highest != Generation::default()
        && to.n.saturating_sub(highest.n) > JUMP;
    if jumps {
        return Err(UpdateProblem::Jump);
    }
    Ok(())
}

/// A head that comes along must be signed. A new incarnation must bring one of its own: without the
/// network's key nobody can make a device forget the generations it has seen.
fn check_checkpoint(before: &Before<'_>, update: &WholeUpdate) -> Result<(), UpdateProblem> {
    let is_restored = is_restored(before, update.to);
    let Some(checkpoint) = &update.checkpoint else {
        return if is_restored {
            Err(UpdateProblem::Unsigned)
        } else {
            Ok(())
        };
    };
    let key = before.network_key.ok_or(UpdateProblem::Checkpoint)?;
    checkpoint
        .verify(key)
        .map_err(|_| UpdateProblem::Checkpoint)?;
    if is_restored && checkpoint.generation.incarnation != update.to.incarnation {
        return Err(UpdateProblem::Unsigned);
    }
    Ok(())
}

/// Whether `to` is of a later incarnation than anything held so far.
fn is_restored(before: &Before<'_>, to: Generation) -> bool {
    before.highest != Generation::default() && to.incarnation > before.highest.incarnation
}

/// Whether something that only a journal record changes differs under the same generation.
fn equivocates(before: &Before<'_>, map: &HeldMap, this: &SelfEntry) -> bool {
    let (Some(held), Some(own)) = (before.held, before.this) else {
        return false;
    };
    if held.generation != map.generation {
        return false;
    }
    let own_differs = own.addresses != this.addresses || own.prefixes != this.prefixes;
    own_differs
        || map.peers.iter().any(|(device, peer)| {
            held.peers
                .get(device)
                .is_some_and(|old| old.addresses != peer.addresses || old.name != peer.name)
        })
}
