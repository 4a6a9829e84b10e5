//! Named timers: one table, one next deadline.

use std::collections::BTreeMap;

use gatereeve_shared::time::Mono;

/// What can be due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// A rule of the table ends.
    Expiry,
    /// What of a table may wait a moment has waited.
    Table,
    /// The data path wants to hear that the engine lives.
    Heartbeat,
    /// The wait for the controller after a gap is over.
    Hold,
    /// Try to connect.
    Connect,
    /// The shell has said nothing of an attempt to connect.
    Connecting,
    /// Ask whether the controller is there.
    Ping,
    /// It has not answered.
    Pong,
    /// The wait for first facts is over.
    Attach,
    /// The controller had nothing to say to an attach.
    Quiet,
    /// Posture is to be collected.
    Collect,
    /// A report that came too soon after another.
    Report,
    /// A question has waited long enough for the controller.
    Why,
    /// The next step of a key rotation.
    Rotation,
    /// Write what is not urgent.
    Save,
}

/// When what is due.
#[derive(Debug, Default)]
pub(super) struct Timers(BTreeMap<Timer, Mono>);

impl Timers {
    /// Sets or moves a timer.
    pub(super) fn set(&mut self, timer: Timer, at: Mono) {
        self.0.insert(timer, at);
    }

    /// Sets a timer unless it is due earlier already.
    pub(super) fn set_earlier(&mut self, timer: Timer, at: Mono) {
        let at = self.0.get(&timer).map_or(at, |set| at.min(*set));
        self.0.insert(timer, at);
    }

    /// Clears a timer.
    pub(super) fn clear(&mut self, timer: Timer) {
        self.0.remove(&timer);
    }

    /// The next deadline.
    pub(super) fn next(&self) -> Option<Mono> {
        self.0.values().min().copied()
    }

    /// Takes one that is due.
    pub(super) fn take_due(&mut self, now: Mono) -> Option<Timer> {
        let due = self.0.iter().find(|(_, at)| **at <= now).map(|(t, _)| *t)?;
        self.0.remove(&due);
        Some(due)
    }
}
