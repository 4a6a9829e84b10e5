//! One tunnel of a peer: between one of our keys and one of its.

use gatereeve_shared::identity::wg_key::WgPublicKey;
use gatereeve_shared::time::Mono;

use crate::wg::Tunnel;
use crate::wg::timers::Timers;

/// While keys rotate a peer has several; the one with the highest counters that works is used.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) local_counter: u64,
    pub(crate) remote_counter: u64,
    pub(crate) local: WgPublicKey,
    pub(crate) remote: WgPublicKey,
    /// The 24 bits of receiver index that lead here.
    pub(crate) index: u32,
    pub(crate) tunnel: Box<dyn Tunnel>,
    pub(crate) timers: Timers,
    /// The slow path was told that this pair of keys carries data.
    pub(crate) is_announced: bool,
}

impl Link {
    /// Orders links, best first. Both ends come to the same order but for equal sums, where either works.
    pub(crate) fn rank(&self) -> (u64, u64) {
        let sum = self.local_counter.saturating_add(self.remote_counter);
        (sum, self.local_counter.max(self.remote_counter))
    }

    /// Messages sealed with the session in use.
    pub(crate) fn sent(&self, now: Mono) -> Option<u64> {
        self.tunnel.session(now).map(|session| session.sent)
    }

    pub(crate) fn is_between(&self, local: &WgPublicKey, remote: &WgPublicKey) -> bool {
        self.local == *local && self.remote == *remote
    }
}
