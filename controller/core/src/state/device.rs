//! Devices as the controller knows them.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use gatereeve_shared::identity::identity_key::IdentityPublicKey;
use gatereeve_shared::ids::{DeviceId, DeviceName, TagName, UserName};
use gatereeve_shared::posture::fact::Fact;
use gatereeve_shared::time::UnixMillis;
use gatereeve_shared::wire::client::KeyUpdate;
use gatereeve_shared::wire::map::OverlayAddresses;

/// A device that was let in, whatever became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Hash of `identity`.
    pub id: DeviceId,
    /// The key it authenticates with.
    pub identity: IdentityPublicKey,
    /// Unique among devices that are not deleted.
    pub name: DeviceName,
    /// Unique, and given to nobody else for 30 days after deletion.
    pub addresses: OverlayAddresses,
    /// Its roles. A device cannot change them.
    pub tags: BTreeSet<TagName>,
    /// Whose it is.
    pub user: Option<UserName>,
    /// Whether it takes part.
    pub status: DeviceStatus,
    /// Vanishes after it has been gone for a while.
    pub ephemeral: bool,
    /// Its WireGuard keys.
    pub keys: KeyUpdate,
    /// When it was let in.
    pub enrolled_at: UnixMillis,
    /// When its identity key expires; `None` is never.
    pub key_expires: Option<UnixMillis>,
}

impl Device {
    /// Whether the device may have peers at all: approved, and its key not expired.
    #[must_use]
    pub fn may_have_peers(&self, now: UnixMillis) -> bool {
        self.status == DeviceStatus::Approved && self.key_expires.is_none_or(|end| now < end)
    }
}

/// How a device stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceStatus {
    /// Waits for approval; lives in memory only.
    Pending,
    /// Takes part.
    Approved,
    /// Keeps its session and has no peers.
    Quarantined,
    /// Its key is refused, for good.
    Revoked,
}

/// A device's last posture report, as received.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredReport {
    /// When it came, by the controller's clock. A fact was observed its `age_ms` before.
    pub received: UnixMillis,
    /// The facts.
    pub facts: Vec<Fact>,
}
