//! What is due when.

use std::collections::{BTreeMap, BTreeSet};

use gatereeve_shared::ids::DeviceId;
use gatereeve_shared::time::{Mono, Now, UnixMillis};

use crate::output::{RequestId, SessionId};

/// Wall-clock instants are looked at again at least this often: the wall clock may be set.
const LOOK_AGAIN: std::time::Duration = std::time::Duration::from_secs(30);

/// What can be due. One instant for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// A connection has not become a control session.
    Idle(SessionId),
    /// A connected device's leases.
    Renew(DeviceId),
    /// A device's verdicts become too old.
    Verdicts(DeviceId),
    /// An ephemeral device has been gone for too long.
    Gone(DeviceId),
    /// Others are to hear where a device is that moves too often.
    Endpoints(DeviceId),
    /// A report that came too soon after others is to be written.
    Soft(DeviceId),
    /// Time alone changes a grant.
    Schedule,
    /// A caller has waited long enough.
    Wait(RequestId),
    /// The head is to be signed.
    Checkpoint,
}

/// All instants.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    at: BTreeMap<Timer, Mono>,
    queue: BTreeSet<(Mono, Timer)>,
}

impl Timers {
    /// Sets, or moves.
    pub(crate) fn set(&mut self, timer: Timer, at: Mono) {
        self.clear(timer);
        self.at.insert(timer, at);
        self.queue.insert((at, timer));
    }

    /// Sets, or moves to an earlier instant.
    pub(crate) fn set_earlier(&mut self, timer: Timer, at: Mono) {
        if self.at.get(&timer).is_none_or(|set| at < *set) {
            self.set(timer, at);
        }
    }

    /// Sets by wall clock; fires early when that is far off, and is then to be set again.
    pub(crate) fn set_unix(&mut self, timer: Timer, at: UnixMillis, now: Now) {
        let wait = at.since(now.unix).min(LOOK_AGAIN);
        self.set(timer, now.mono.saturating_add(wait));
    }

    /// When it is due.
    pub(crate) fn at(&self, timer: Timer) -> Option<Mono> {
        self.at.get(&timer).copied()
    }

    pub(crate) fn is_set(&self, timer: Timer) -> bool {
        self.at.contains_key(&timer)
    }

    pub(crate) fn clear(&mut self, timer: Timer) {
        if let Some(at) = self.at.remove(&timer) {
            self.queue.remove(&(at, timer));
        }
    }

    /// Takes one that is due.
    pub(crate) fn due(&mut self, now: Mono) -> Option<Timer> {
        let (at, timer) = *self.queue.first()?;
        if at > now {
            return None;
        }
        self.clear(timer);
        Some(timer)
    }

    pub(crate) fn next(&self) -> Option<Mono> {
        self.queue.first().map(|(at, _)| *at)
    }
}
