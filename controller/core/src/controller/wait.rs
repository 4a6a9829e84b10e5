//! `--wait`: who enforces a change, and who has not said so yet.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use gatereeve_shared::generation::Generation;
use gatereeve_shared::ids::{DeviceId, DeviceName};
use gatereeve_shared::time::{Now, UnixMillis};

use crate::audit::record::Record;
use crate::command::{Committed, Reply, Unconfirmed};
use crate::output::RequestId;
use crate::state::Touched;
use crate::state::device::DeviceStatus;

use super::Controller;
use super::commit::Asked;
use super::picture::{Granted, changed_pairs};
use super::spread::Told;
use super::timers::Timer;

/// Longest wait.
const LONGEST: Duration = Duration::from_secs(600);

/// How long a connected device may say nothing that is written down: the longest time between two posture reports.
const SILENT: Duration = Duration::from_secs(3600);

/// A caller who waits for devices.
#[derive(Debug)]
pub(super) struct Waiting {
    committed: Committed,
    /// Connected devices that have not confirmed: from which generation on they have, and until when they may act as before.
    open: BTreeMap<DeviceId, (Generation, Option<UnixMillis>)>,
}

impl Controller {
    /// Answers who asked for a change: at once, or when the devices have confirmed.
    pub(super) fn answer(
        &mut self,
        asked: Asked,
        record: &Record,
        (touched, told): (&Touched, &[Told]),
        (before, after): (&Granted, &Granted),
        now: Now,
    ) {
        let (gained_pairs, lost_pairs) = changed_pairs(before, after);
        let mut open: BTreeMap<_, _> = told
            .iter()
            .filter(|told| told.connected)
            .map(|told| (told.device, (record.generation, told.loses_until)))
            .collect();
        let mut away: BTreeMap<_, _> = told
            .iter()
            .filter(|told| !told.connected)
            .map(|told| (told.device, told.loses_until))
            .collect();
        // Who was sent it by an earlier change is sent nothing now, and may not enforce it yet.
        for (device, held) in &self.held {
            let Some(loss) = held.losses.about(device, touched, now.unix) else {
                continue;
            };
            if !self.takes_part(device) {
                continue;
            }
            if self.attached.contains_key(device) {
                let (generation, until) = open.entry(*device).or_insert((loss.generation, None));
                *generation = loss.generation.max(*generation);
                *until = Some(loss.until).max(*until);
            } else {
                let until = away.entry(*device).or_default();
                *until = Some(loss.until).max(*until);
            }
        }
        if let Some(subject) = &asked.subject {
            open.remove(subject);
            away.remove(subject);
        }
        let unconfirmed = away
            .into_iter()
            .filter_map(|(device, until)| self.unconfirmed(device, until))
            .chain(self.absent(before, after, asked.subject, now.unix))
            .chain(self.unheard(before, asked.subject, now.unix))
            .collect();
        let committed = Committed {
            generation: record.generation,
            at: record.at,
            summary: asked.summary,
            revision: asked.revision,
            gained_pairs,
            lost_pairs,
            confirmed: Vec::new(),
            unconfirmed,
            waited: asked.wait.is_some(),
        };
        let waiting = Waiting { committed, open };
        match asked.wait {
            Some(wait) if !waiting.open.is_empty() => {
                let at = now.mono.saturating_add(wait.min(LONGEST));
                self.timers.set(Timer::Wait(asked.request), at);
                self.waiting.insert(asked.request, waiting);
            }
            _ => self.finish(asked.request, waiting),
        }
    }

    /// Devices that lose something, are not connected, and were last heard of before this
    /// controller started: what they hold is not known, so the longest they can is assumed.
    fn absent(
        &self,
        before: &Granted,
        after: &Granted,
        subject: Option<DeviceId>,
        now: UnixMillis,
    ) -> Vec<Unconfirmed> {
        let mut ends = BTreeMap::<DeviceId, UnixMillis>::new();
        for (pair, grants) in before {
            let kept = after.get(pair);
            let lost = grants.iter().filter(|grant| {
                !kept.is_some_and(|kept| {
                    kept.iter()
                        .any(|kept| kept.rule == grant.rule && kept.ports == grant.ports)
                })
            });
            if let Some(end) = lost.map(|grant| grant.lease.end()).max() {
                for device in [pair.0, pair.1] {
                    let latest = ends.entry(device).or_default();
                    *latest = end.max(*latest);
                }
            }
        }
        ends.into_iter()
            .filter(|(device, end)| {
                Some(*device) != subject && !self.held.contains_key(device) && now < *end
            })
            .filter_map(|(device, end)| self.unconfirmed(device, Some(end)))
            .collect()
    }

    /// Where `subject` had nothing left to lose: devices that were last heard of before this controller started, and may not
    /// have heard of the change that took it. The longest is assumed, by the policy in force.
    fn unheard(
        &self,
        before: &Granted,
        subject: Option<DeviceId>,
        now: UnixMillis,
    ) -> Vec<Unconfirmed> {
        let had_nothing = |subject: &DeviceId| {
            let mut pairs = before.keys();
            !pairs.any(|(from, to)| from == subject || to == subject)
        };
        let Some(subject) = subject.filter(had_nothing) else {
            return Vec::new();
        };
        let longest = self.picture.policy.longest_lease();
        let devices = self.picture.state.devices().keys().copied();
        devices
            .filter(|device| *device != subject && !self.held.contains_key(device))
            .filter(|device| !self.fresh.contains(device) && self.takes_part(device))
            .filter_map(|device| {
                // Where that is lost, as soft state may be, it was connected until the start.
                let soft = self.soft.devices.get(&device);
                let seen = soft
                    .and_then(|soft| soft.last_seen)
                    .map(|seen| seen.saturating_add(SILENT));
                let seen = seen.unwrap_or(UnixMillis::MAX).min(self.started.unix);
                let end = seen.saturating_add(longest);
                (now < end).then(|| self.unconfirmed(device, Some(end)))?
            })
            .collect()
    }

    /// Whether a device may have anything at all; who may not may be hostile, and is not waited for.
    fn takes_part(&self, device: &DeviceId) -> bool {
        let known = self.picture.state.devices().get(device);
        known.is_some_and(|known| known.status == DeviceStatus::Approved)
    }

    fn unconfirmed(&self, device: DeviceId, leases_end: Option<UnixMillis>) -> Option<Unconfirmed> {
        Some(Unconfirmed {
            device,
            name: self.picture.name(&device)?.clone(),
            connected: self.attached.contains_key(&device),
            leases_end,
        })
    }

    /// A device's data path enforces `generation`.
    pub(super) fn confirmed(&mut self, device: DeviceId, generation: Generation) {
        let Some(name) = self.picture.name(&device).cloned() else {
            return;
        };
        let mut done = BTreeSet::new();
        for (request, waiting) in &mut self.waiting {
            let open = waiting.open.get(&device);
            if open.is_some_and(|(wanted, _)| *wanted <= generation) {
                waiting.open.remove(&device);
                waiting.committed.confirmed.push(name.clone());
            }
            if waiting.open.is_empty() {
                done.insert(*request);
            }
        }
        for request in done {
            self.give_up_waiting(request);
        }
    }

    /// Answers with what is known by now.
    pub(super) fn give_up_waiting(&mut self, request: RequestId) {
        self.timers.clear(Timer::Wait(request));
        if let Some(waiting) = self.waiting.remove(&request) {
            self.finish(request, waiting);
        }
    }

    fn finish(&mut self, request: RequestId, waiting: Waiting) {
        let Waiting {
            mut committed,
            open,
        } = waiting;
        let late: Vec<_> = open
            .into_iter()
            .filter_map(|(device, (_, end))| self.unconfirmed(device, end))
            .collect();
        committed.unconfirmed.extend(late);
        committed.unconfirmed.sort_by(|a, b| a.name.cmp(&b.name));
        committed.confirmed.sort();
        self.reply(request, Ok(Reply::Committed(committed)));
    }

    /// Connected devices that have not confirmed what they were last sent.
    pub(super) fn lagging(&self) -> Vec<DeviceName> {
        self.attached
            .keys()
            .filter(|device| {
                let held = self.held.get(device);
                held.is_some_and(|held| held.acked.is_none_or(|acked| acked < held.generation))
            })
            .filter_map(|device| self.picture.name(device).cloned())
            .collect()
    }
}
