//! When the data path is open: only while the engine lives and knows what it enforces.
//!
//! The engine renews a short permission; should it hang, the data path shuts by itself. After a
//! start, a suspend or a stall the data path stays shut until the controller has answered, with
//! whatever was missed, or has been found unreachable, and never longer than [`HOLD`].

use std::time::Duration;

use gatereeve_shared::time::{Now, PERIOD};

use super::{Engine, Timer};
use crate::control::link::Link;
use crate::output::Output;

/// A gap between two calls above this counts as a suspend.
const GAP: Duration = Duration::from_secs(60);
/// Longest wait for the controller after a gap.
const HOLD: Duration = Duration::from_secs(5);
/// Time between two permissions. Each wakes the device: at instants that others wake it at, too.
const BEAT: Duration = PERIOD;
/// How long a permission lasts: a machine that is slow to run us has the time between this and [`BEAT`].
const SPAN: Duration = Duration::from_secs(7);

/// Whether packets may pass at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gate {
    /// The device does not take part.
    Shut,
    /// Shut until the controller has answered or the wait is over.
    Holding,
    /// Open.
    Open,
}

impl Engine {
    pub(super) fn notice_gap(&mut self, now: Now) {
        if !self.up || now.mono.since(self.last_call) <= GAP {
            return;
        }
        self.hold_gate(now);
        match &self.link {
            Link::Up(_) => self.ping(now),
            Link::Idle => {
                self.backoff.reset();
                self.connect(now);
            }
            // The time asleep does not count against the attempt.
            Link::Connecting => self.await_connection(now),
            Link::Off => {}
        }
    }

    pub(super) fn hold_gate(&mut self, now: Now) {
        self.gate = Gate::Holding;
        self.timers.clear(Timer::Heartbeat);
        self.timers.set(Timer::Hold, now.mono.saturating_add(HOLD));
        self.turn.push(Output::Shut);
    }

    /// The controller has answered, was found unreachable, or the wait is over.
    pub(super) fn release_gate(&mut self, now: Now) {
        if self.gate == Gate::Holding {
            self.gate = Gate::Open;
            self.timers.clear(Timer::Hold);
            self.beat(now);
        }
    }

    pub(super) fn beat(&mut self, now: Now) {
        if self.gate == Gate::Open {
            self.turn
                .push(Output::OpenUntil(now.mono.saturating_add(SPAN)));
            self.timers.set(Timer::Heartbeat, now.mono.next_of(BEAT));
        }
    }

    pub(super) fn shut_gate(&mut self) {
        self.gate = Gate::Shut;
        self.timers.clear(Timer::Heartbeat);
        self.timers.clear(Timer::Hold);
        self.turn.push(Output::Shut);
    }
}
