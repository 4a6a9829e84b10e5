//! Every durable mutation, as data: the state is the fold of these.

use std::collections::BTreeMap;

use gatereeve_shared::ids::{CheckName, DeviceId, DeviceName, InviteId, TagName};
use gatereeve_shared::posture::verdict::Verdict;
use gatereeve_shared::wire::client::KeyUpdate;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

use crate::state::device::{Device, DeviceStatus};
use crate::state::invite::StoredInvite;

/// How a device does on each posture check.
pub type CheckVerdicts = BTreeMap<CheckName, Verdict>;

/// One change. Encoded into the journal: a released variant is never edited or moved, new ones go
/// to the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// Nothing but an audit entry: an authentication, or a refusal.
    Noted,
    /// An invite can be used from now on.
    InviteCreated(StoredInvite),
    /// An invite can no longer be used.
    InviteRevoked {
        /// Which.
        invite: InviteId,
    },
    /// A device takes part.
    DeviceAdded {
        /// The device.
        device: Box<Device>,
        /// The invite that it used up one use of.
        invite: Option<InviteId>,
    },
    /// A device has another name.
    DeviceRenamed {
        /// Which.
        device: DeviceId,
        /// The name.
        name: DeviceName,
    },
    /// A device has other tags.
    DeviceTagged {
        /// Which.
        device: DeviceId,
        /// All of them.
        tags: BTreeSet<TagName>,
    },
    /// A device was quarantined, or let out of it.
    DeviceStatus {
        /// Which.
        device: DeviceId,
        /// How it stands now.
        status: DeviceStatus,
    },
    /// A device's key is refused from now on, for good.
    DeviceRevoked {
        /// Which.
        device: DeviceId,
    },
    /// A device is forgotten; its addresses rest.
    DeviceRemoved {
        /// Which.
        device: DeviceId,
    },
    /// A device's WireGuard keys have changed.
    KeysChanged {
        /// Which.
        device: DeviceId,
        /// The keys.
        keys: Box<KeyUpdate>,
    },
    /// A policy is in force.
    PolicyApplied {
        /// From 1.
        revision: u64,
        /// The file.
        text: String,
        /// What each `device:NAME` of it means.
        pins: BTreeMap<DeviceName, DeviceId>,
        /// Rules in it.
        rules: u64,
        /// How devices with a report do on its checks.
        verdicts: BTreeMap<DeviceId, CheckVerdicts>,
    },
    /// A device meets a check that it did not meet, or the other way round.
    VerdictsChanged {
        /// Which.
        device: DeviceId,
        /// All checks.
        verdicts: CheckVerdicts,
    },
    /// A schedule window opened or closed, a rule or a key ended.
    TimePassed,
    /// A backup was restored: the incarnation rises, and what came after the backup is gone.
    Restored,
}
