//! The single place where the state mutates.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use gatereeve_shared::ids::DeviceId;
use gatereeve_shared::time::UnixMillis;

use super::device::{Device, DeviceStatus};
use super::tables::RowKey;
use super::{PolicyRevision, RestingAddresses, State, wg_keys};
use crate::audit::record::Record;
use crate::change::{Change, CheckVerdicts};

/// How long nobody gets the addresses of a forgotten device: no stale grant finds a new owner.
pub(crate) const ADDRESS_REST: Duration = Duration::from_secs(30 * 24 * 3600);
/// How long an invite that lets nobody in is remembered.
const INVITE_REST: Duration = Duration::from_secs(30 * 24 * 3600);

/// What a record has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Rows to write or to delete.
    pub rows: BTreeSet<RowKey>,
    /// Devices whose grants, keys, name or addresses may be others.
    pub devices: BTreeSet<DeviceId>,
    /// Whether which devices belong to which principal may have changed.
    pub membership: bool,
    /// Whether every pair is to be looked at again: another policy, or time has passed.
    pub everything: bool,
}

impl Touched {
    fn device(&mut self, id: DeviceId) {
        self.rows.insert(RowKey::Device(id));
        self.devices.insert(id);
    }
}

impl State {
    /// Applies a record and tells what it touched. The caller has checked that the record is the
    /// next one of the chain and that `hash` is its own. A record that names what does not exist
    /// changes nothing but the head.
    pub fn apply(&mut self, record: &Record, hash: [u8; 32]) -> Touched {
        let mut touched = Touched::default();
        self.generation = record.generation;
        self.head = hash;
        touched.rows.insert(RowKey::Head);
        match &record.change {
            Change::Noted | Change::Restored => {}
            Change::TimePassed => touched.everything = true,
            Change::InviteCreated(invite) => {
                self.forget_invites(record.at, &mut touched);
                touched.rows.insert(RowKey::Invite(invite.id));
                self.invites.insert(invite.id, invite.clone());
            }
            Change::InviteRevoked { invite } => {
                touched.rows.insert(RowKey::Invite(*invite));
                self.invites.remove(invite);
            }
            Change::DeviceAdded { device, invite } => {
                if let Some(invite) = invite.as_ref().and_then(|id| self.invites.get_mut(id)) {
                    invite.uses_left = invite.uses_left.saturating_sub(1);
                    touched.rows.insert(RowKey::Invite(invite.id));
                }
                self.add_device(device, &mut touched);
                self.wake_addresses(record.at, &mut touched);
            }
            Change::DeviceRemoved { device } => self.remove_device(device, record.at, &mut touched),
            Change::DeviceRevoked { device } => self.revoke_device(device, record.at, &mut touched),
            Change::DeviceRenamed { device, name } => {
                if let Some(known) = self.devices.get(device) {
                    self.names.remove(&known.name);
                    self.names.insert(name.clone(), *device);
                }
                self.edit(device, &mut touched, |device| device.name = name.clone());
            }
            Change::DeviceTagged { device, tags } => {
                self.edit(device, &mut touched, |device| device.tags.clone_from(tags));
                touched.membership = true;
            }
            Change::DeviceStatus { device, status } => {
                self.edit(device, &mut touched, |device| device.status = *status);
            }
            Change::KeysChanged { device, keys } => {
                self.drop_wg_keys(device);
                self.edit(device, &mut touched, |device| {
                    device.keys = keys.as_ref().clone();
                });
                if let Some(device) = self.devices.get(device) {
                    self.wg_keys
                        .extend(wg_keys(device).map(|key| (key, device.id)));
                }
            }
            Change::PolicyApplied {
                revision,
                text,
                pins,
                rules,
                verdicts,
            } => {
                let revision = PolicyRevision {
                    revision: *revision,
                    text: text.clone(),
                    pins: pins.clone(),
                    rules: *rules,
                    at: record.at,
                    by: record.actor.to_string(),
                };
                self.apply_policy(revision, verdicts, &mut touched);
            }
            Change::VerdictsChanged { device, verdicts } => {
                if self.devices.contains_key(device) {
                    self.verdicts.insert(*device, verdicts.clone());
                    touched.rows.insert(RowKey::Verdicts(*device));
                    touched.devices.insert(*device);
                }
            }
        }
        touched
    }

    fn apply_policy(
        &mut self,
        revision: PolicyRevision,
        verdicts: &BTreeMap<DeviceId, CheckVerdicts>,
        touched: &mut Touched,
    ) {
        touched.rows.insert(RowKey::Policy(revision.revision));
        self.policies.insert(revision.revision, revision);
        let before = std::mem::replace(&mut self.verdicts, verdicts.clone());
        let concerned = before.into_keys().chain(verdicts.keys().copied());
        touched.rows.extend(concerned.map(RowKey::Verdicts));
        touched.everything = true;
        touched.membership = true;
    }

    fn add_device(&mut self, device: &Device, touched: &mut Touched) {
        self.drop_wg_keys(&device.id);
        self.names.insert(device.name.clone(), device.id);
        self.wg_keys
            .extend(wg_keys(device).map(|key| (key, device.id)));
        self.devices.insert(device.id, device.clone());
        touched.device(device.id);
        touched.membership = true;
    }

    fn revoke_device(&mut self, id: &DeviceId, at: UnixMillis, touched: &mut Touched) {
        self.tombstones.insert(*id, at);
        touched.rows.insert(RowKey::Tombstone(*id));
        self.edit(id, touched, |device| device.status = DeviceStatus::Revoked);
    }

    fn remove_device(&mut self, id: &DeviceId, at: UnixMillis, touched: &mut Touched) {
        self.drop_wg_keys(id);
        let Some(device) = self.devices.remove(id) else {
            return;
        };
        if self.names.get(&device.name) == Some(id) {
            self.names.remove(&device.name);
        }
        self.verdicts.remove(id);
        self.resting.insert(
            device.addresses.v4,
            RestingAddresses {
                addresses: device.addresses,
                until: at.saturating_add(ADDRESS_REST),
            },
        );
        touched.rows.insert(RowKey::Resting(device.addresses.v4));
        touched.rows.insert(RowKey::Verdicts(*id));
        touched.device(*id);
        touched.membership = true;
    }

    fn edit(&mut self, id: &DeviceId, touched: &mut Touched, edit: impl FnOnce(&mut Device)) {
        if let Some(device) = self.devices.get_mut(id) {
            edit(device);
            touched.device(*id);
        }
    }

    fn drop_wg_keys(&mut self, id: &DeviceId) {
        if let Some(device) = self.devices.get(id) {
            for key in wg_keys(device) {
                if self.wg_keys.get(&key) == Some(id) {
                    self.wg_keys.remove(&key);
                }
            }
        }
    }

    /// Frees addresses that have rested long enough.
    fn wake_addresses(&mut self, at: UnixMillis, touched: &mut Touched) {
        self.resting.retain(|v4, resting| {
            let keep = at < resting.until;
            if !keep {
                touched.rows.insert(RowKey::Resting(*v4));
            }
            keep
        });
    }

    /// Forgets invites that have let nobody in for long.
    fn forget_invites(&mut self, at: UnixMillis, touched: &mut Touched) {
        self.invites.retain(|id, invite| {
            let keep = at < invite.expires.saturating_add(INVITE_REST);
            if !keep {
                touched.rows.insert(RowKey::Invite(*id));
            }
            keep
        });
    }
}
