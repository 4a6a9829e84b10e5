//! Invites as the controller keeps them: without their secret.

use std::collections::BTreeSet;

use gatereeve_shared::ids::{InviteId, TagName, UserName};
use gatereeve_shared::time::UnixMillis;
use serde::{Deserialize, Serialize};

/// An invite.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredInvite {
    /// Its public number.
    pub id: InviteId,
    /// Hash of its secret.
    pub secret_hash: [u8; 32],
    /// Tags that its devices get.
    pub tags: BTreeSet<TagName>,
    /// User whose devices they are.
    pub user: Option<UserName>,
    /// How many more devices it lets in.
    pub uses_left: u32,
    /// From when on it lets nobody in.
    pub expires: UnixMillis,
    /// Its devices vanish when they have been gone for a while.
    pub ephemeral: bool,
    /// Its devices wait for approval.
    pub approve: bool,
}

impl StoredInvite {
    /// Whether it lets a device in at `now`.
    #[must_use]
    pub fn is_usable(&self, now: UnixMillis) -> bool {
        self.uses_left > 0 && now < self.expires
    }
}
