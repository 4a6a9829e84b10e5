//! From parts to whole updates, with every limit held before anything is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use thiserror::Error;

use gatereeve_shared::generation::Generation;
use gatereeve_shared::identity::checkpoint::Checkpoint;
use gatereeve_shared::ids::DeviceId;
use gatereeve_shared::limits;
use gatereeve_shared::wire::map::{MapUpdate, PeerEntry, SelfEntry};

/// Tags that a device may have; far above any use.
pub(super) const TAGS: usize = 256;

/// An update with all its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WholeUpdate {
    pub(crate) from: Option<Generation>,
    pub(crate) to: Generation,
    pub(crate) this: Option<SelfEntry>,
    pub(crate) removed: BTreeSet<DeviceId>,
    pub(crate) upserted: BTreeMap<DeviceId, Arc<PeerEntry>>,
    pub(crate) checkpoint: Option<Checkpoint>,
}

/// Why an update cannot be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum UpdateProblem {
    /// It is not a step from the held map: ask for the whole one.
    #[error("a map update does not follow from the map held")]
    Gap,
    /// Its parts contradict one another.
    #[error("the parts of a map update do not belong together")]
    Parts,
    /// A device is in it twice.
    #[error("a map update names a device twice")]
    Duplicate,
    /// More peers than a device takes.
    #[error("a map update exceeds the limit of {} peers", limits::PEERS)]
    TooManyPeers,
    /// Something about this device itself exceeds a limit.
    #[error("a map update describes this device beyond the limits")]
    SelfLimits,
    /// A whole map does not say what this device is.
    #[error("a whole map came without this device's own entry")]
    NoSelf,
    /// It is about another device.
    #[error("a map for another device came")]
    WrongDevice,
    /// It would go back.
    #[error("the controller offered an older map than the one in force; it was refused")]
    Rollback,
    /// It jumps further than any journal can have.
    #[error("the controller offered a map with an impossible generation; it was refused")]
    Jump,
    /// The same generation with other content.
    #[error("the controller offered another map under the generation in force; it was refused")]
    Equivocation,
    /// The journal's head in it is not signed by the network's key.
    #[error("a map came with a journal head that the network's key has not signed; it was refused")]
    Checkpoint,
    /// A new incarnation without the network key's word for it.
    #[error(
        "a map of a restored network came without a journal head that the network's key has signed for it; it was refused"
    )]
    Unsigned,
}

impl UpdateProblem {
    /// Whether it shows that somebody tampers, rather than that something was missed.
    pub(crate) fn is_alarming(self) -> bool {
        match self {
            Self::Rollback
            | Self::Jump
            | Self::Equivocation
            | Self::Checkpoint
            | Self::Unsigned
            | Self::WrongDevice => true,
            Self::Gap
            | Self::Parts
            | Self::Duplicate
            | Self::TooManyPeers
            | Self::SelfLimits
            | Self::NoSelf => false,
        }
    }
}

/// Collects the parts of one update.
#[derive(Debug, Default)]
pub(crate) struct Assembler {
    partial: Option<WholeUpdate>,
}

impl Assembler {
    /// Forgets parts, as at the end of a session.
    pub(crate) fn clear(&mut self) {
        self.partial = None;
    }

    /// Whether no update is under way.
    pub(crate) fn is_empty(&self) -> bool {
        self.partial.is_none()
    }

    /// Adds a part; returns the update when it was the last.
    ///
    /// # Errors
    /// [`UpdateProblem`]; the parts before are forgotten then.
    pub(crate) fn add(&mut self, part: MapUpdate) -> Result<Option<WholeUpdate>, UpdateProblem> {
        let more = part.more;
        let update = merge(self.partial.take(), part)?;
        if more {
            self.partial = Some(update);
            return Ok(None);
        }
        Ok(Some(update))
    }
}

fn merge(partial: Option<WholeUpdate>, part: MapUpdate) -> Result<WholeUpdate, UpdateProblem> {
    let mut whole = match partial {
        Some(whole) if whole.from == part.from && whole.to == part.to => whole,
        Some(_) => return Err(UpdateProblem::Parts),
        None => WholeUpdate {
            from: part.from,
            to: part.to,
            this: None,
            removed: BTreeSet::new(),
            upserted: BTreeMap::new(),
            checkpoint: None,
        },
    };
    if let Some(this) = part.this {
        if whole.this.is_some() {
            return Err(UpdateProblem::Parts);
        }
        check_self(&this)?;
        whole.this = Some(this);
    }
    let removed = whole.removed.len().saturating_add(part.removed.len());
    let upserted = whole.upserted.len().saturating_add(part.upserted.len());
    if removed > limits::PEERS || upserted > limits::PEERS {
        return Err(UpdateProblem::TooManyPeers);
    }
    for device in part.removed {
        if !whole.removed.insert(device) {
            return Err(UpdateProblem::Duplicate);
        }
    }
    for peer in part.upserted {
        let peer = Arc::new(cut(peer));
        if whole.upserted.insert(peer.device, peer).is_some() {
            return Err(UpdateProblem::Duplicate);
        }
    }
    whole.checkpoint = part.checkpoint.or(whole.checkpoint);
    Ok(whole)
}

/// Drops what is far beyond the limits, so that it takes no memory; one too many stays, by which
/// the peer is found out and left out.
fn cut(mut peer: PeerEntry) -> PeerEntry {
    peer.endpoints.truncate(limits::ENDPOINTS);
    peer.tags.truncate(TAGS + 1);
    for rules in [&mut peer.ingress, &mut peer.egress] {
        rules.truncate(limits::RULES_PER_PEER + 1);
        for rule in rules {
            rule.ports.truncate(limits::PORTS_PER_RULE + 1);
        }
    }
    peer
}

fn check_self(this: &SelfEntry) -> Result<(), UpdateProblem> {
    let fits = this.network.len() <= limits::TEXT
        && this.tags.len() <= TAGS
        && this.watched_processes.len() <= limits::WATCHED_PROCESSES
        && this
            .watched_processes
            .iter()
            .all(|path| path.len() <= limits::TEXT)
        && this.prefixes.v4.contains(&this.addresses.v4)
        && this.prefixes.v6.contains(&this.addresses.v6);
    if fits {
        Ok(())
    } else {
        Err(UpdateProblem::SelfLimits)
    }
}
