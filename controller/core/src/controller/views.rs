//! Answers about the whole.

use gatereeve_shared::ids::DeviceName;
use gatereeve_shared::time::Now;

use crate::command::{DeviceView, StatusReply};
use crate::state::device::{Device, DeviceStatus};

use super::{Controller, VERDICTS};

/// Most slowed devices that a status names.
const SLOWED: usize = 5;

impl Controller {
    pub(super) fn status(&self, now: Now) -> StatusReply {
        let state = &self.picture.state;
        let journal = self.journal_error.as_ref().map(|error| {
            format!("the journal refuses records, so nothing can be changed: {error}")
        });
        let policy = self.policy_error.clone();
        let idle = state
            .policy()
            .is_none()
            .then(|| "no policy is in force, so nothing is allowed".to_owned());
        let slowed = self.slowed(now).map(|name| {
            format!(
                "{name} changes its posture or keys so often that what it gains now waits; \
                 look at it, and quarantine it if it is not well"
            )
        });
        StatusReply {
            version: self.config.version.clone(),
            network: self.config.network_name.clone(),
            fingerprint: self.fingerprint,
            prefixes: self.config.prefixes,
            generation: state.generation(),
            policy_revision: state.policy().map_or(0, |policy| policy.revision),
            devices: state.devices().len(),
            connected: self.attached.len(),
            pending: self.enrollments.all(now.mono).count(),
            lagging: self.lagging(),
            unknown_keys: self.unknown_keys,
            uptime_ms: u64::try_from(now.mono.since(self.started.mono).as_millis())
                .unwrap_or(u64::MAX),
            warnings: journal
                .into_iter()
                .chain(policy)
                .chain(idle)
                .chain(slowed)
                .collect(),
            sandbox: None,
            disk: None,
        }
    }

    /// The first of the devices that have used up the records they may cause.
    fn slowed(&self, now: Now) -> impl Iterator<Item = DeviceName> {
        let slowed = self.limits.iter().filter(move |(_, limits)| {
            let mut records = limits.records;
            !records.holds(VERDICTS, now.mono)
        });
        slowed
            .filter_map(|(device, _)| self.picture.name(device).cloned())
            .take(SLOWED)
    }

    /// All devices and those that wait, by name.
    pub(super) fn device_views(&self, now: Now) -> Vec<DeviceView> {
        let devices = self.picture.state.devices().values();
        let mut views: Vec<_> = devices
            .map(|device| self.device_view(device))
            .chain(self.enrollments.all(now.mono).map(|(id, pending)| {
                let invite = pending
                    .invite
                    .and_then(|invite| self.picture.state.invites().get(&invite));
                DeviceView {
                    id: *id,
                    name: pending.name.clone(),
                    status: DeviceStatus::Pending,
                    addresses: None,
                    tags: invite
                        .map(|invite| invite.tags.iter().cloned().collect())
                        .unwrap_or_default(),
                    user: invite.and_then(|invite| invite.user.clone()),
                    ephemeral: invite.is_some_and(|invite| invite.ephemeral),
                    connected: self.sessions.values().any(|session| session.device == *id),
                    last_seen: Some(pending.asked),
                    key_expires: None,
                    wg_key: None,
                    software: None,
                    confirmed: None,
                    posture: Vec::new(),
                    peers: 0,
                }
            }))
            .collect();
        views.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
        views
    }

    fn device_view(&self, device: &Device) -> DeviceView {
        let soft = self.soft.devices.get(&device.id);
        let held = self.held.get(&device.id);
        DeviceView {
            id: device.id,
            name: device.name.clone(),
            status: device.status,
            addresses: Some(device.addresses),
            tags: device.tags.iter().cloned().collect(),
            user: device.user.clone(),
            ephemeral: device.ephemeral,
            connected: self.attached.contains_key(&device.id),
            last_seen: soft.and_then(|soft| soft.last_seen),
            key_expires: device.key_expires,
            wg_key: Some(device.keys.current.wg_key.to_string()),
            software: soft.and_then(|soft| soft.software.clone()),
            confirmed: held.and_then(|held| held.acked),
            posture: self.outcomes(&device.id),
            peers: held.map_or(0, |held| held.peers.len()),
        }
    }
}
