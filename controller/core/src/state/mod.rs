//! The authoritative tables: the fold of the journal's changes.
//!
//! [`apply`] is the single place where they mutate, live and on replay. [`tables`] gives them as
//! rows and reads them back. [`soft`] is what may be lost.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use gatereeve_shared::generation::Generation;
use gatereeve_shared::identity::wg_key::WgPublicKey;
use gatereeve_shared::ids::{DeviceId, DeviceName, InviteId};
use gatereeve_shared::time::UnixMillis;
use gatereeve_shared::wire::map::OverlayAddresses;
use serde::{Deserialize, Serialize};

use crate::audit::chain;
use crate::audit::entry::{Actor, AuditEntry};
use crate::audit::record::Record;
use crate::change::{Change, CheckVerdicts};

mod apply;
pub mod device;
pub mod invite;
pub mod soft;
pub mod tables;

pub use apply::Touched;

use device::Device;
use invite::StoredInvite;

/// All that is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    generation: Generation,
    head: [u8; 32],
    devices: BTreeMap<DeviceId, Device>,
    invites: BTreeMap<InviteId, StoredInvite>,
    tombstones: BTreeMap<DeviceId, UnixMillis>,
    resting: BTreeMap<Ipv4Addr, RestingAddresses>,
    policies: BTreeMap<u64, PolicyRevision>,
    verdicts: BTreeMap<DeviceId, CheckVerdicts>,
    /// Index over `devices`.
    names: BTreeMap<DeviceName, DeviceId>,
    /// Index over the keys of `devices`: no two may claim one.
    wg_keys: BTreeMap<WgPublicKey, DeviceId>,
}

/// Addresses of a forgotten device, which nobody gets for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestingAddresses {
    /// Both.
    pub addresses: OverlayAddresses,
    /// Until when.
    pub until: UnixMillis,
}

/// One revision of the policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRevision {
    /// From 1.
    pub revision: u64,
    /// The file.
    pub text: String,
    /// What each `device:NAME` of it means.
    pub pins: BTreeMap<DeviceName, DeviceId>,
    /// Rules in it.
    pub rules: u64,
    /// When it was applied.
    pub at: UnixMillis,
    /// By whom.
    pub by: String,
}

impl State {
    /// The state before the first record.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            generation: Generation::default(),
            head: chain::GENESIS,
            devices: BTreeMap::new(),
            invites: BTreeMap::new(),
            tombstones: BTreeMap::new(),
            resting: BTreeMap::new(),
            policies: BTreeMap::new(),
            verdicts: BTreeMap::new(),
            names: BTreeMap::new(),
            wg_keys: BTreeMap::new(),
        }
    }

    /// That of the last record applied.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// That of the next record, unless it is a restore.
    #[must_use]
    pub fn next_generation(&self) -> Generation {
        Generation {
            n: self.generation.n.saturating_add(1),
            ..self.generation
        }
    }

    /// The record that follows this state when it comes from a backup: the incarnation rises, so
    /// that no device takes it for what it replaces.
    #[must_use]
    pub fn restored(&self, actor: Actor, at: UnixMillis) -> Record {
        Record {
            generation: Generation {
                incarnation: self.generation.incarnation.saturating_add(1),
                n: self.generation.n.saturating_add(1),
            },
            at,
            actor,
            change: Change::Restored,
            audit: AuditEntry::done("state.restore", self.generation.to_string())
                .because("changes and revocations made after this backup are gone"),
        }
    }

    /// Chained hash of the last record applied.
    #[must_use]
    pub fn head(&self) -> [u8; 32] {
        self.head
    }

    /// Devices that were let in and not deleted, revoked ones included.
    #[must_use]
    pub fn devices(&self) -> &BTreeMap<DeviceId, Device> {
        &self.devices
    }

    /// Which device has which name.
    #[must_use]
    pub fn names(&self) -> &BTreeMap<DeviceName, DeviceId> {
        &self.names
    }

    /// The device that a WireGuard key belongs to.
    #[must_use]
    pub fn wg_owner(&self, key: &WgPublicKey) -> Option<DeviceId> {
        self.wg_keys.get(key).copied()
    }

    /// Invites, spent and expired ones included until they are forgotten.
    #[must_use]
    pub fn invites(&self) -> &BTreeMap<InviteId, StoredInvite> {
        &self.invites
    }

    /// Whether the key of this device was revoked; survives its deletion.
    #[must_use]
    pub fn is_revoked(&self, device: &DeviceId) -> bool {
        self.tombstones.contains_key(device)
    }

    /// Addresses that nobody gets for now.
    #[must_use]
    pub fn resting(&self) -> &BTreeMap<Ipv4Addr, RestingAddresses> {
        &self.resting
    }

    /// All revisions of the policy.
    #[must_use]
    pub fn policies(&self) -> &BTreeMap<u64, PolicyRevision> {
        &self.policies
    }

    /// The revision in force.
    #[must_use]
    pub fn policy(&self) -> Option<&PolicyRevision> {
        self.policies.last_key_value().map(|(_, policy)| policy)
    }

    /// How devices did on the posture checks when that last changed.
    #[must_use]
    pub fn verdicts(&self) -> &BTreeMap<DeviceId, CheckVerdicts> {
        &self.verdicts
    }

    /// Makes the indices anew.
    fn index(&mut self) {
        self.names = self
            .devices
            .values()
            .map(|device| (device.name.clone(), device.id))
            .collect();
        self.wg_keys = self
            .devices
            .values()
            .flat_map(|device| wg_keys(device).map(move |key| (key, device.id)))
            .collect();
    }
}

/// The WireGuard keys of a device, the next one included.
fn wg_keys(device: &Device) -> impl Iterator<Item = WgPublicKey> + '_ {
    std::iter::once(device.keys.current.wg_key)
        .chain(device.keys.next.as_ref().map(|next| next.wg_key))
}
