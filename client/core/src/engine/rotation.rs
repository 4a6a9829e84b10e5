//! When this device's WireGuard keys change.

use std::time::Duration;

use gatereeve_shared::ids::DeviceId;
use gatereeve_shared::time::{Now, UnixMillis};
use gatereeve_shared::wire::client::ClientMessage;

use super::{Engine, Timer};

impl Engine {
    /// How long a key lives: as the policy says, less this device's own share of jitter. `None`
    /// where nobody has asked for rotation.
    fn lifetime(&self) -> Option<Duration> {
        let seconds = u64::from(self.stored.this.as_ref()?.rotate_key_secs);
        let share = 1000u64.saturating_sub(u64::from(self.lifetime_cut));
        (seconds > 0).then(|| Duration::from_millis(seconds.saturating_mul(share)))
    }

    /// Takes the steps of a rotation that are due, and tells the controller.
    pub(super) fn rotate(&mut self, now: Now) {
        let (Some(lifetime), Some(time)) = (self.lifetime(), self.clock.now(now)) else {
            return;
        };
        let leases_end = self.leases_end(now).unwrap_or(UnixMillis(0));
        let may_announce = self.link.attached().is_some();
        let announce = may_announce.then_some(&mut self.random);
        if self.keys.step(announce, time, lifetime, leases_end) {
            self.keys_changed();
        }
    }

    /// A peer has carried data under this key. When all have, the rotation is over.
    pub(super) fn on_key_in_use(&mut self, device: DeviceId, counter: u64, now: Now) {
        if self.keys.next_counter() != Some(counter) || !self.in_table.contains(&device) {
            return;
        }
        self.confirmed.insert(device);
        if !self.in_table.is_subset(&self.confirmed) {
            return;
        }
        let (Some(lifetime), Some(time)) = (self.lifetime(), self.clock.now(now)) else {
            return;
        };
        let leases_end = self.leases_end(now).unwrap_or(UnixMillis(0));
        if self.keys.promote(time, lifetime, leases_end) {
            self.keys_changed();
        }
    }

    fn keys_changed(&mut self) {
        self.confirmed.clear();
        self.dirty.table = true;
        self.dirty.save = true;
        if self.link.attached().is_some() {
            let update = self
                .keys
                .update(&self.config.identity, &self.config.network);
            self.say(ClientMessage::Keys(update));
        }
    }

    /// Arms the timer for the next step, unless it waits for a controller.
    pub(super) fn arm_rotation(&mut self, now: Now) {
        self.timers.clear(Timer::Rotation);
        if !self.up {
            return;
        }
        let Some(lifetime) = self.lifetime() else {
            return;
        };
        let may_announce = self.link.attached().is_some();
        if let Some(at) = self.keys.next_step(lifetime, may_announce) {
            let due = match self.clock.now(now) {
                Some(time) if at <= time => Some(now.mono),
                Some(_) => self.clock.deadline(at, now),
                None => None,
            };
            if let Some(due) = due {
                self.timers.set(Timer::Rotation, due);
            }
        }
    }
}
