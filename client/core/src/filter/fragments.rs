//! Verdicts on fragmented datagrams: the later fragments go where the first one went.

use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::time::Duration;

use gatereeve_shared::time::Mono;

use super::lru::{ListId, Lru};
use crate::datapath::Direction;
use crate::keyed::HashKey;
use crate::packet::flow::hash_addresses;
use crate::packet::{FlowKey, IpPacket};

/// Verdicts kept for one peer.
pub const VERDICTS_PER_PEER: usize = 1_024;
const KEPT_FOR: Duration = Duration::from_secs(15);

/// What identifies a fragmented datagram between this device and one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DatagramKey {
    direction: Direction,
    id: u32,
    source: IpAddr,
    destination: IpAddr,
}

impl DatagramKey {
    pub(super) fn new(packet: &IpPacket, id: u32, direction: Direction) -> Self {
        Self {
            direction,
            id,
            source: packet.source,
            destination: packet.destination,
        }
    }
}

impl Hash for DatagramKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        hash_addresses(self.source, self.destination, state);
        let direction = u64::from(self.direction == Direction::Inbound);
        state.write_u64((direction << 32) | u64::from(self.id));
    }
}

/// The datagram's first fragment passed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Verdict {
    /// The flow it belongs to, which must be allowed still.
    pub(super) flow: FlowKey,
    /// The bytes that the first fragment covers; none may be sent again.
    pub(super) covers: u16,
    pub(super) at: Mono,
}

/// Verdicts of one peer. Only "allowed" is kept: what is not here is dropped.
#[derive(Debug)]
pub(super) struct Fragments(Lru<DatagramKey, Verdict, 1>);

/// The only list.
const ALL: ListId = 0;

impl Fragments {
    pub(super) fn new(hash: HashKey) -> Self {
        Self(Lru::new(VERDICTS_PER_PEER, hash))
    }

    /// Remembers it, in place of the oldest verdict where there is no room.
    pub(super) fn allow(&mut self, key: DatagramKey, verdict: Verdict) {
        if self.0.is_full() && self.0.place(&key).is_none() {
            self.0.remove_oldest(ALL);
        }
        self.0.insert(key, verdict, ALL);
    }

    pub(super) fn forget(&mut self, key: &DatagramKey) {
        self.0.remove(key);
    }

    pub(super) fn find(&mut self, key: &DatagramKey, now: Mono) -> Option<Verdict> {
        let place = self.0.place(key)?;
        let verdict = *self.0.at(place)?;
        if now.since(verdict.at) >= KEPT_FOR {
            self.0.remove(key);
            return None;
        }
        Some(verdict)
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// When [`Self::prune`] has something to forget next.
    pub(super) fn expires(&self) -> Option<Mono> {
        let (_, verdict) = self.0.oldest(ALL)?;
        Some(verdict.at.saturating_add(KEPT_FOR))
    }

    pub(super) fn prune(&mut self, now: Mono) {
        while let Some((_, verdict)) = self.0.oldest(ALL) {
            if now.since(verdict.at) < KEPT_FOR {
                return;
            }
            self.0.remove_oldest(ALL);
        }
    }
}
