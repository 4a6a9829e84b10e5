//! What the controller says about the network: maps, renewals, endpoints.

use std::sync::Arc;
use std::time::Duration;

use gatereeve_shared::limits;
use gatereeve_shared::time::Now;
use gatereeve_shared::wire::client::ClientMessage;
use gatereeve_shared::wire::controller::PeerEndpoints;
use gatereeve_shared::wire::map::{LeaseRenewal, MapUpdate, SelfEntry};

use super::Engine;
use super::publish::LAZY;
use crate::control::link::{Phase, Resync};
use crate::map::apply::{self, After, Before};
use crate::map::assemble::{UpdateProblem, WholeUpdate};
use crate::map::check::KeyCheck;
use crate::map::renew;
use crate::stored::HeldMap;

/// A map that opens something is written this late.
const SOON: Duration = Duration::from_secs(5);

impl Engine {
    pub(super) fn on_map(&mut self, part: MapUpdate, now: Now) {
        let Some(session) = self.link.attached() else {
            return;
        };
        let is_whole = part.from.is_none();
        if !is_whole && session.resync != Resync::Settled {
            // It is a step from a map that this device does not hold.
            return;
        }
        let done = self.assembler.add(part).and_then(|update| match update {
            Some(update) => self.take_update(update, now),
            None => Ok(()),
        });
        if let Err(problem) = done {
            self.assembler.clear();
            self.refuse_update(problem, is_whole);
        }
    }

    fn take_update(&mut self, update: WholeUpdate, now: Now) -> Result<(), UpdateProblem> {
        let is_whole = update.from.is_none();
        let has_base = self.link.session().is_some_and(|session| session.has_base);
        if !is_whole && !has_base {
            return Err(UpdateProblem::Gap);
        }
        let before = Before {
            device: self.device,
            this: self.stored.this.as_ref(),
            held: self.stored.map.as_ref(),
            highest: self.stored.highest,
            network_key: self.link.session().map(|session| &session.network_key),
        };
        let changed: Vec<_> = update.upserted.keys().copied().collect();
        let closes = is_whole
            || !update.removed.is_empty()
            || changed.iter().any(|device| {
                before
                    .held
                    .is_some_and(|map| map.peers.contains_key(device))
            });
        let After {
            map,
            this,
            restored,
        } = apply::apply(&before, update)?;
        if restored {
            self.alarm(
                "the network was restored from a backup: revocations since that backup may be gone",
            );
        }
        let self_changed = self.stored.this.as_ref() != Some(&this);
        let old = self.stored.map.replace(map);
        self.stored.highest = self.stored.map.as_ref().map_or(self.stored.highest, |map| {
            map.generation.max(self.stored.highest)
        });
        let watched_changed = self.take_self(this, now);
        self.check_changed(old.as_ref(), changed);
        if is_whole {
            // The controller counts a whole map as not enforced, even one of a generation that it
            // has heard enforced before.
            self.is_from_disk = false;
            self.enforced = None;
            self.published.clear();
            if let Some(session) = self.link.session_mut() {
                session.acked = None;
                session.has_base = true;
            }
        }
        self.dirty.table = true;
        if closes || self_changed {
            self.dirty.save = true;
        } else {
            self.save_within(SOON, now);
        }
        if let Some(session) = self.link.session_mut() {
            session.resync = Resync::Settled;
        }
        self.count_as_synced(now);
        if watched_changed {
            self.collect_posture(now);
        }
        Ok(())
    }

    /// Takes the device's own entry. Returns whether other processes are to be looked for.
    fn take_self(&mut self, this: SelfEntry, now: Now) -> bool {
        let watched = |this: Option<&SelfEntry>| {
            this.map(|this| this.watched_processes.clone())
                .unwrap_or_default()
        };
        let watched_changed = watched(self.stored.this.as_ref()) != watched(Some(&this));
        if self.posture.set_interval(this.report_every_secs) {
            self.arm_collection(now);
        }
        self.stored.this = Some(this);
        watched_changed
    }

    /// Checks the keys of what has changed, and forgets what was said of what is gone.
    fn check_changed(
        &mut self,
        old: Option<&HeldMap>,
        changed: Vec<gatereeve_shared::ids::DeviceId>,
    ) {
        let own = self.own_secret();
        let Some(map) = &self.stored.map else {
            return;
        };
        self.problems
            .retain(|device, _| map.peers.contains_key(device));
        self.learned
            .retain(|device, _| map.peers.contains_key(device));
        let mut check = KeyCheck {
            network: &self.config.network,
            own: &own,
            seen: &mut self.stored.seen_keys,
        };
        for device in changed {
            let Some(peer) = map.peers.get(&device) else {
                continue;
            };
            let was_well = !self.problems.contains_key(&device);
            let before = old
                .and_then(|map| map.peers.get(&device))
                .filter(|_| was_well);
            match check.check(peer, before.map(Arc::as_ref)) {
                Ok(()) => self.problems.remove(&device),
                Err(problem) => {
                    tracing::warn!(%device, %problem, "peer left out");
                    self.problems.insert(device, problem)
                }
            };
        }
        if self.stored.seen_keys.len() > limits::PEERS {
            self.stored
                .seen_keys
                .retain(|device, _| map.peers.contains_key(device));
        }
    }

    /// Goes on with what is held, and asks for the whole map where that can help.
    fn refuse_update(&mut self, problem: UpdateProblem, is_whole: bool) {
        tracing::warn!(%problem, "map update refused");
        if problem.is_alarming() || is_whole {
            self.alarm(problem.to_string());
        }
        let have = self.stored.highest;
        let Some(session) = self.link.session_mut() else {
            return;
        };
        match session.resync {
            Resync::Settled if !problem.is_alarming() => {
                session.resync = Resync::Asked;
                self.say(ClientMessage::Resync(have));
            }
            Resync::Settled | Resync::Asked => session.resync = Resync::GivenUp,
            Resync::GivenUp => {}
        }
    }

    pub(super) fn on_renewal(&mut self, renewal: &LeaseRenewal, now: Now) {
        if self.link.attached().is_none() {
            return;
        }
        if let Some(map) = &mut self.stored.map
            && renew::renew(map, renewal)
        {
            self.publish_soon(now);
            self.save_within(LAZY, now);
        }
    }

    pub(super) fn on_endpoints(&mut self, changes: Vec<PeerEndpoints>, now: Now) {
        if self.link.attached().is_none() {
            return;
        }
        let Some(map) = &mut self.stored.map else {
            return;
        };
        let mut changed = false;
        for mut change in changes.into_iter().take(limits::PEERS) {
            change.endpoints.truncate(limits::ENDPOINTS);
            if let Some(peer) = map.peers.get_mut(&change.device)
                && peer.endpoints != change.endpoints
            {
                Arc::make_mut(peer).endpoints = change.endpoints;
                changed = true;
            }
        }
        if changed {
            self.publish_soon(now);
            self.save_within(LAZY, now);
        }
    }

    /// The controller has said all there is to say: this is the newest map.
    pub(super) fn count_as_synced(&mut self, now: Now) {
        if let Some(session) = self.link.session_mut()
            && matches!(session.phase, Phase::Attached | Phase::Synced)
            && session.resync != Resync::Asked
        {
            session.phase = Phase::Synced;
            self.timers.clear(super::Timer::Quiet);
            self.last_error = None;
            self.release_gate(now);
        }
    }
}
