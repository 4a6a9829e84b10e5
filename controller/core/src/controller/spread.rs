//! Telling the devices concerned, losers of access first.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use gatereeve_shared::generation::Generation;
use gatereeve_shared::ids::DeviceId;
use gatereeve_shared::limits;
use gatereeve_shared::time::{Now, UnixMillis};
use gatereeve_shared::wire::controller::{ControllerMessage, PeerEndpoints};
use gatereeve_shared::wire::map::PeerEntry;

use crate::map::delta::{self, Step};
use crate::map::losses::Losses;
use crate::map::{Held, build, parts};
use crate::output::SessionId;
use crate::pdp::engine;
use crate::state::Touched;
use crate::state::device::DeviceStatus;

use super::Controller;
use super::timers::Timer;

/// A connected device that was sent an update, or one that is not connected and holds too much.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    pub(super) device: DeviceId,
    pub(super) connected: bool,
    /// When the last of what it loses ends by itself.
    pub(super) loses_until: Option<UnixMillis>,
}

impl Controller {
    /// Brings the maps of connected devices up to the picture in force. Looks only at pairs that
    /// `touched` can have changed. `judged` is the device that the change judges, which is not asked to confirm it later.
    pub(super) fn spread(
        &mut self,
        touched: &Touched,
        judged: Option<DeviceId>,
        now: Now,
    ) -> Vec<Told> {
        if touched.devices.is_empty() && !touched.everything {
            return Vec::new();
        }
        let view = self.picture.view();
        let related: BTreeMap<DeviceId, BTreeSet<DeviceId>> = touched
            .devices
            .iter()
            .map(|device| (*device, engine::related(&view, device)))
            .collect();
        let mut steps = Vec::new();
        let mut told = Vec::new();
        for (device, held) in &self.held {
            let connected = self.attached.get(device).copied();
            let step = self.step(device, held, touched, &related, now.unix);
            if step.is_empty() {
                continue;
            }
            if connected.is_some() || step.loses_until().is_some_and(|end| now.unix < end) {
                told.push(Told {
                    device: *device,
                    connected: connected.is_some(),
                    loses_until: step.loses_until(),
                });
            }
            if let Some(session) = connected {
                steps.push((step.loses.is_empty(), *device, session, step));
            }
        }
        steps.sort_by_key(|(gains_only, device, ..)| (*gains_only, *device));
        for (_, device, session, mut step) in steps {
            if judged == Some(device) {
                // Whether the others have let go is what counts.
                step.loses.clear();
            }
            self.send_step(device, session, step, now.unix);
        }
        told
    }

    /// What a device has to be told of the pairs that `touched` can have changed.
    fn step(
        &self,
        device: &DeviceId,
        held: &Held,
        touched: &Touched,
        related: &BTreeMap<DeviceId, BTreeSet<DeviceId>>,
        now: UnixMillis,
    ) -> Step {
        let mut step = Step::default();
        let view = self.picture.view();
        let Some(own) = view.devices.get(device) else {
            return step;
        };
        if own.status == DeviceStatus::Revoked {
            return step;
        }
        let is_whole = touched.everything || touched.devices.contains(device);
        let peers: BTreeSet<DeviceId> = if is_whole {
            let this = build::this(&view, &self.config.network_name, &self.config.prefixes, own);
            step.this = (this != held.this).then_some(this);
            let mut peers = engine::related(&view, device);
            peers.extend(held.peers.keys());
            peers
        } else {
            related
                .iter()
                .filter(|(peer, related)| {
                    related.contains(device) || held.peers.contains_key(*peer)
                })
                .map(|(peer, _)| *peer)
                .collect()
        };
        for peer in peers {
            let new = build::peer(&view, device, &peer, &self.endpoints, now);
            step.compare(held, peer, new);
        }
        step
    }

    fn send_step(&mut self, device: DeviceId, session: SessionId, step: Step, now: UnixMillis) {
        let to = self.picture.state.generation();
        let Some(held) = self.held.get_mut(&device) else {
            return;
        };
        let from = held.generation;
        held.generation = to;
        held.losses.add(to, &step.loses, now);
        step.apply(held);
        for part in parts::updates(Some(from), to, step, None) {
            self.send(session, ControllerMessage::Map(part));
        }
    }

    /// Sends a device its map: the step from `have` where that is what it was last sent, else all.
    pub(super) fn send_map(
        &mut self,
        device: DeviceId,
        session: SessionId,
        have: Option<Generation>,
        now: Now,
    ) {
        let view = self.picture.view();
        let Some(own) = view.devices.get(&device) else {
            return;
        };
        let peers: BTreeMap<DeviceId, PeerEntry> = engine::related(&view, &device)
            .into_iter()
            .filter_map(|peer| {
                let entry = build::peer(&view, &device, &peer, &self.endpoints, now.unix)?;
                Some((peer, entry))
            })
            .collect();
        let this = build::this(&view, &self.config.network_name, &self.config.prefixes, own);
        let generation = self.picture.state.generation();
        let held = self
            .held
            .get(&device)
            .filter(|held| Some(held.generation) == have);
        let all: BTreeSet<DeviceId> = held
            .iter()
            .flat_map(|held| held.peers.keys())
            .chain(peers.keys())
            .copied()
            .collect();
        let step = held.map(|held| {
            let mut step = Step {
                this: (this != held.this).then_some(this.clone()),
                ..Step::default()
            };
            for peer in &all {
                step.compare(held, *peer, peers.get(peer).cloned());
            }
            step
        });
        // Time changes what is in force by itself, and a journal that takes no records gives that no number of its
        // own. A step leads from one number to a higher one, so such a device gets all.
        let step = step.filter(|step| step.is_empty() || have < Some(generation));
        if let Some(step) = step {
            if !step.is_empty() {
                self.send_step(device, session, step, now.unix);
            }
            if let Some(have) = have {
                self.acknowledge(device, have);
            }
            self.send_endpoints_of(&all, device, session);
            self.renew(device, now);
            return;
        }
        let step = Step {
            this: Some(this.clone()),
            upserted: peers.clone(),
            ..Step::default()
        };
        // Whatever it holds by now, nothing tells that it has let go of what it was sent before.
        let losses = match self.held.remove(&device) {
            Some(mut before) => {
                let mut step = Step::default();
                for peer in &all {
                    step.compare(&before, *peer, peers.get(peer).cloned());
                }
                before.losses.add(generation, &step.loses, now.unix);
                before.losses
            }
            None if self.fresh.contains(&device) => Losses::default(),
            None => {
                let longest = self.picture.policy.longest_lease();
                Losses::unknown(generation, now.unix.saturating_add(longest))
            }
        };
        self.fresh.remove(&device);
        self.held.insert(
            device,
            Held {
                generation,
                this,
                peers,
                acked: None,
                losses,
            },
        );
        for part in parts::updates(None, generation, step, self.checkpoint.clone()) {
            self.send(session, ControllerMessage::Map(part));
        }
        self.arm_renew(device, now);
    }

    /// Sends where the peers of a device's map can be reached.
    fn send_endpoints_of(
        &mut self,
        peers: &BTreeSet<DeviceId>,
        device: DeviceId,
        session: SessionId,
    ) {
        let Some(held) = self.held.get(&device) else {
            return;
        };
        let known: Vec<PeerEndpoints> = peers
            .iter()
            .filter(|peer| held.peers.contains_key(*peer))
            .filter_map(|peer| {
                Some(PeerEndpoints {
                    device: *peer,
                    endpoints: self.endpoints.get(peer)?.clone(),
                })
            })
            .collect();
        for part in known.chunks(limits::PEERS_PER_PART) {
            self.send(session, ControllerMessage::Endpoints(part.to_vec()));
        }
    }

    /// Tells where a device can be reached to those that have it in their map, and to nobody else.
    pub(super) fn spread_endpoints(&mut self, device: DeviceId) {
        let Some(endpoints) = self.endpoints.get(&device).cloned() else {
            return;
        };
        let holders: Vec<SessionId> = self
            .attached
            .iter()
            .filter(|(holder, _)| {
                let held = self.held.get(holder);
                held.is_some_and(|held| held.peers.contains_key(&device))
            })
            .map(|(_, session)| *session)
            .collect();
        for session in holders {
            let update = vec![PeerEndpoints {
                device,
                endpoints: endpoints.clone(),
            }];
            self.send(session, ControllerMessage::Endpoints(update));
        }
    }

    /// Renews what a connected device holds and is still granted.
    pub(super) fn renew(&mut self, device: DeviceId, now: Now) {
        self.renew_of(device, None, now);
        if self.attached.contains_key(&device) && self.held.contains_key(&device) {
            self.arm_renew(device, now);
        }
    }

    /// Renews what a connected device holds of `only`, or of all its peers.
    fn renew_of(&mut self, device: DeviceId, only: Option<DeviceId>, now: Now) {
        let Some(session) = self.attached.get(&device).copied() else {
            return;
        };
        let view = self.picture.view();
        let Some(held) = self.held.get_mut(&device) else {
            return;
        };
        let peers = match only {
            Some(only) => held.peers.range_mut(only..=only),
            None => held.peers.range_mut(..),
        };
        let renewals: Vec<_> = peers
            .filter_map(|(peer, entry)| {
                let new = build::peer(&view, &device, peer, &self.endpoints, now.unix)?;
                delta::renew(entry, &new)
            })
            .collect();
        let generation = held.generation;
        for renewal in parts::renewals(generation, renewals) {
            self.send(session, ControllerMessage::Renew(renewal));
        }
    }

    /// Sets when a connected device's leases, which were renewed now, are next renewed.
    fn arm_renew(&mut self, device: DeviceId, now: Now) {
        self.timers.clear(Timer::Renew(device));
        self.hasten_renew(device, now);
    }

    /// The same under another policy: what the device holds may end as early as the one before has let it, so nothing is put
    /// off. Up to a tenth early, so that not all come at once.
    pub(super) fn hasten_renew(&mut self, device: DeviceId, now: Now) {
        if !self.attached.contains_key(&device) {
            return;
        }
        let every = self.picture.policy.renew_every();
        let tenth = u64::try_from(every.as_millis() / 10).unwrap_or(0);
        let early = Duration::from_millis(self.random.below(tenth.max(1)));
        let at = now.mono.saturating_add(every.saturating_sub(early));
        self.timers.set_earlier(Timer::Renew(device), at);
    }

    /// Renews at once what a connected device holds where the first of it ends before it would be renewed: what it is
    /// granted has been given a later end so late that access would pause.
    pub(super) fn renew_in_time(&mut self, device: DeviceId, now: Now) {
        if self.ends_too_soon(device, None, now) {
            self.renew(device, now);
        }
    }

    /// The same for all who hold anything of `device`, whose verdicts were to end at `until` and end later now. Where
    /// reports come in time, nothing is so late that it has to be looked at. How old its facts are is the device's own
    /// word, so what it can have done out of turn has a limit.
    pub(super) fn renew_around(&mut self, device: DeviceId, until: UnixMillis, now: Now) {
        let every = self.picture.policy.renew_every();
        let latest = now
            .unix
            .saturating_add(every.saturating_add(self.renewal_takes()));
        if until >= latest || !self.limits(device, now.mono).late.take(1, now.mono) {
            return;
        }
        self.renew_in_time(device, now);
        let holders: Vec<_> = self.attached.keys().copied().collect();
        for holder in holders {
            if self.ends_too_soon(holder, Some(device), now) {
                self.renew_of(holder, Some(device), now);
            }
        }
    }

    /// Whether the first of what a connected device holds of `only`, or of all its peers, ends before it is renewed.
    fn ends_too_soon(&self, device: DeviceId, only: Option<DeviceId>, now: Now) -> bool {
        let due = self.timers.at(Timer::Renew(device));
        let Some((held, due)) = self.held.get(&device).zip(due) else {
            return false;
        };
        let peers = match only {
            Some(only) => held.peers.range(only..=only),
            None => held.peers.range(..),
        };
        let rules = peers.flat_map(|(_, peer)| peer.ingress.iter().chain(&peer.egress));
        let first_end = rules.map(|rule| rule.lease.end()).min();
        let renewed = now.unix.saturating_add(due.since(now.mono));
        first_end.is_some_and(|end| end < renewed.saturating_add(self.renewal_takes()))
    }

    /// What a renewal is given to arrive: a quarter of the time between two.
    fn renewal_takes(&self) -> Duration {
        self.picture.policy.renew_every() / 4
    }
}
