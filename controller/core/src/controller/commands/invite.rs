//! Invites.

use std::collections::BTreeSet;
use std::time::Duration;

use gatereeve_shared::ids::{InviteId, TagName, UserName};
use gatereeve_shared::invite::{Invite, InviteSecret};
use gatereeve_shared::time::Now;

use crate::audit::entry::AuditEntry;
use crate::change::Change;
use crate::command::{CommandError, ErrorCode, InviteView, Reply};
use crate::state::invite::StoredInvite;

use super::super::Controller;
use super::super::commit::Effect;
use super::super::enrollment::texts;
use super::{Answer, Caller};

/// Longest life of an invite.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);
/// Most devices that one invite lets in.
const MOST_USES: u32 = 100_000;
/// Most tags of one device.
pub(super) const MOST_TAGS: usize = 64;
/// Most invites that are kept.
const MOST_INVITES: usize = 10_000;

/// What an invite is to be.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) tags: BTreeSet<TagName>,
    pub(super) user: Option<UserName>,
    pub(super) uses: u32,
    pub(super) expires: Duration,
    pub(super) ephemeral: bool,
    pub(super) approve: bool,
}

impl Controller {
    pub(super) fn create_invite(&mut self, caller: Caller<'_>, wanted: Wanted, now: Now) -> Answer {
        let usage = |message: &str| Err(CommandError::new(ErrorCode::Usage, message));
        if wanted.uses == 0 || wanted.uses > MOST_USES {
            return usage("an invite takes 1 to 100000 uses");
        }
        if wanted.expires.is_zero() || wanted.expires > LONGEST {
            return usage("an invite lasts from one second to 365 days");
        }
        if wanted.tags.len() > MOST_TAGS {
            return usage("a device has at most 64 tags");
        }
        if self.staged.invites().len() >= MOST_INVITES {
            let message = "there are 10000 invites already; revoke some that are not needed";
            return Err(CommandError::new(ErrorCode::Conflict, message));
        }
        let secret = InviteSecret(self.random.bytes());
        let stored = StoredInvite {
            id: InviteId(self.random.short()),
            secret_hash: secret.hash(),
            tags: wanted.tags,
            user: wanted.user,
            uses_left: wanted.uses,
            expires: now.unix.saturating_add(wanted.expires),
            ephemeral: wanted.ephemeral,
            approve: wanted.approve,
        };
        let invite = Invite {
            network: self.fingerprint,
            controllers: self.config.advertised.clone(),
            id: stored.id,
            secret,
        };
        let reply = Reply::Invite {
            id: stored.id,
            invite: invite.to_text(),
            expires: stored.expires,
        };
        let audit = AuditEntry::done("invite.create", stored.id.to_string()).detailed([
            format!("tags {:?}", texts(&stored.tags)),
            format!("user {:?}", stored.user.as_ref().map(UserName::as_str)),
            format!("uses {}, expires {}", stored.uses_left, stored.expires),
            format!("ephemeral {}, approve {}", stored.ephemeral, stored.approve),
        ]);
        let effects = vec![Effect::Reply(caller.request, reply)];
        let change = Change::InviteCreated(stored);
        self.stage(caller.actor.clone(), change, audit, effects, now);
        Ok(None)
    }

    pub(super) fn revoke_invite(&mut self, caller: Caller<'_>, id: InviteId, now: Now) -> Answer {
        if !self.staged.invites().contains_key(&id) {
            let message = format!("no invite {id}: `gatereeve-controller invite list` shows all");
            return Err(CommandError::new(ErrorCode::NotFound, message));
        }
        let audit = AuditEntry::done("invite.revoke", id.to_string());
        let effects = vec![caller.committed(format!("invite {id} is revoked"), None)];
        let change = Change::InviteRevoked { invite: id };
        self.stage(caller.actor.clone(), change, audit, effects, now);
        Ok(None)
    }

    pub(super) fn list_invites(&self, now: Now) -> Reply {
        let mut invites: Vec<_> = self
            .picture
            .state
            .invites()
            .values()
            .filter(|invite| invite.is_usable(now.unix))
            .map(|invite| InviteView {
                id: invite.id,
                tags: invite.tags.iter().cloned().collect(),
                user: invite.user.clone(),
                uses_left: invite.uses_left,
                expires: invite.expires,
                ephemeral: invite.ephemeral,
                approve: invite.approve,
            })
            .collect();
        invites.sort_by_key(|invite| (invite.expires, invite.id));
        Reply::Invites { invites }
    }
}
