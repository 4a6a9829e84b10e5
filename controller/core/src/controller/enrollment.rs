//! From a proven key to a device of the network.

use std::collections::BTreeSet;

use gatereeve_shared::ids::{DeviceId, DeviceName, InviteId, TagName, UserName};
use gatereeve_shared::invite::InviteSecret;
use gatereeve_shared::time::Now;
use gatereeve_shared::wire::client::{Enroll, KeyUpdate};
use gatereeve_shared::wire::controller::{
    ControllerMessage, EnrollReply, Refusal, RefusalCode, Standing,
};

use crate::audit::entry::{Actor, AuditEntry};
use crate::change::Change;
use crate::enroll::{self, NameChoice, Pending};
use crate::ipam;
use crate::output::SessionId;
use crate::session::keys;
use crate::state::device::{Device, DeviceStatus};
use crate::state::invite::StoredInvite;

use super::Controller;
use super::commit::Effect;

/// One answer for every invite that does not let in; which way it fails is not told.
const NO_INVITE: &str = "the invite is not valid: it is unknown, used up, expired or revoked; ask \
                         an administrator for another";

/// What makes a device of one that asks.
#[derive(Debug)]
pub(super) struct Admission {
    pub(super) pending: Pending,
    pub(super) name: DeviceName,
    pub(super) tags: BTreeSet<TagName>,
    pub(super) user: Option<UserName>,
    pub(super) invite: Option<InviteId>,
    pub(super) ephemeral: bool,
}

impl Controller {
    pub(super) fn enroll(&mut self, session: SessionId, enroll: Enroll, now: Now) {
        let Some(known) = self.sessions.get(&session) else {
            return;
        };
        let (identity, device, from) = (known.key, known.device, known.from.ip());
        match self.standing(&device, now) {
            // The answer may have been lost: say it again.
            standing @ (Standing::Approved | Standing::Quarantined) => {
                self.answer_enrollment(session, EnrollReply::Done(standing));
                return;
            }
            Standing::Expired | Standing::Revoked => {
                let message = "this key has expired or is revoked; enroll with a new one";
                self.refuse_enrollment(session, RefusalCode::Standing, message);
                return;
            }
            Standing::Unknown | Standing::Pending => {}
        }
        if self.staged.devices().contains_key(&device) {
            // Its enrollment is on the way to the journal, and will be answered from there.
            return;
        }
        let invite = match enroll.invite {
            None => None,
            Some((id, secret)) => match self.redeemable(&id, &secret, &device, now) {
                Some(invite) => Some(invite),
                None => {
                    self.refuse_invite(session, &id, &secret, now);
                    return;
                }
            },
        };
        if invite.is_none() && !self.enrollments.admit(from, now.mono) {
            let message = "too many attempts; wait a minute";
            self.refuse_enrollment(session, RefusalCode::RateLimited, message);
            return;
        }
        let checked =
            keys::check_binding(&enroll.binding, &identity, &self.fingerprint, &self.staged);
        if let Err(why) = checked {
            if let Some(invite) = &invite {
                self.note_refused_invite(session, &invite.id, why, now);
            }
            self.refuse_enrollment(session, RefusalCode::Binding, why);
            return;
        }
        let mentioned = self.staged_policy.mentioned_names();
        let Some(choice) = enroll::choose_name(&enroll.name, self.staged.names(), &mentioned)
        else {
            let message = "every name like this one is taken; choose another";
            self.refuse_enrollment(session, RefusalCode::Unavailable, message);
            return;
        };
        let (name, is_free) = match choice {
            NameChoice::Free(name) => (name, true),
            NameChoice::NeedsApproval(name) => (name, false),
        };
        let invite_id = invite.as_ref().map(|invite| invite.id);
        let asks = Pending::new(identity, name, enroll.binding, invite_id, from, now);
        match invite {
            Some(invite) if is_free && !invite.approve => {
                self.enrollments.remove(&device);
                self.admit_by_invite(session, asks, invite, now);
            }
            _ => match self.enrollments.wait(asks, now.mono) {
                Ok(()) => self.answer_enrollment(session, EnrollReply::Done(Standing::Pending)),
                Err(why) => self.refuse_enrollment(session, RefusalCode::RateLimited, why),
            },
        }
    }

    /// The invite, where it lets this device in now. What others have in hand is not free.
    fn redeemable(
        &self,
        id: &InviteId,
        secret: &InviteSecret,
        device: &DeviceId,
        now: Now,
    ) -> Option<StoredInvite> {
        let invite = self.staged.invites().get(id)?;
        let held_back = self.enrollments.held_back(id, device, now.mono);
        let is_good = secret.matches(&invite.secret_hash)
            && invite.is_usable(now.unix)
            && invite.uses_left > held_back;
        is_good.then(|| invite.clone())
    }

    /// Refuses an invite. Guesses get no record.
    fn refuse_invite(
        &mut self,
        session: SessionId,
        id: &InviteId,
        secret: &InviteSecret,
        now: Now,
    ) {
        let Some(known) = self.sessions.get(&session) else {
            return;
        };
        let from = known.from.ip();
        if !self.enrollments.admit(from, now.mono) {
            let message = "too many attempts; wait a minute";
            self.refuse_enrollment(session, RefusalCode::RateLimited, message);
            return;
        }
        let invite = self.staged.invites().get(id);
        if let Some(invite) = invite.filter(|invite| secret.matches(&invite.secret_hash)) {
            let why = if invite.expires <= now.unix {
                "it has expired"
            } else {
                "it is used up"
            };
            self.note_refused_invite(session, id, why, now);
        }
        self.refuse_enrollment(session, RefusalCode::Invite, NO_INVITE);
    }

    /// A real invite that lets nobody in is worth a record.
    fn note_refused_invite(&mut self, session: SessionId, id: &InviteId, why: &str, now: Now) {
        let Some(known) = self.sessions.get(&session) else {
            return;
        };
        let (device, from) = (known.device, known.from.ip());
        if self.invite_refusals.take(1, now.mono) {
            let audit = AuditEntry::refused("device.enroll", format!("invite {id}"), why)
                .detailed([format!("key of device {device}, from {from}")]);
            self.note(Actor::Device(device), audit, now);
        }
    }

    fn admit_by_invite(
        &mut self,
        session: SessionId,
        pending: Pending,
        invite: StoredInvite,
        now: Now,
    ) {
        let device = pending.identity.device_id();
        let name = pending.name.clone();
        let audit = AuditEntry::done("device.enroll", format!("{name} ({device})"))
            .because(format!("invite {}", invite.id));
        let admission = Admission {
            pending,
            name,
            tags: invite.tags,
            user: invite.user,
            invite: Some(invite.id),
            ephemeral: invite.ephemeral,
        };
        let effects = vec![Effect::Enrolled(session, device)];
        if let Err(why) = self.admit(Actor::Device(device), admission, audit, effects, now) {
            self.refuse_enrollment(session, RefusalCode::Unavailable, why);
        }
    }

    /// Stages a new device.
    pub(super) fn admit(
        &mut self,
        actor: Actor,
        admission: Admission,
        audit: AuditEntry,
        effects: Vec<Effect>,
        now: Now,
    ) -> Result<(), &'static str> {
        let id = admission.pending.identity.device_id();
        let addresses = ipam::allocate(&self.config.prefixes, &self.staged, &id)
            .ok_or("the network has no free address left; make its prefix larger")?;
        let expiry = self.staged_policy.key_expiry();
        let audit = audit.detailed([
            format!("addresses {} and {}", addresses.v4, addresses.v6),
            format!("tags {:?}", texts(&admission.tags)),
            format!("user {:?}", admission.user.as_ref().map(UserName::as_str)),
        ]);
        let device = Device {
            id,
            identity: admission.pending.identity,
            name: admission.name,
            addresses,
            tags: admission.tags,
            user: admission.user,
            status: DeviceStatus::Approved,
            ephemeral: admission.ephemeral,
            keys: KeyUpdate {
                current: admission.pending.binding,
                next: None,
            },
            enrolled_at: now.unix,
            key_expires: expiry.map(|expiry| now.unix.saturating_add(expiry)),
        };
        let change = Change::DeviceAdded {
            device: Box::new(device),
            invite: admission.invite,
        };
        self.stage(actor, change, audit, effects, now);
        Ok(())
    }

    /// The journal has the device: tell the connection that asked.
    pub(super) fn confirm_enrolled(&mut self, session: SessionId, device: DeviceId, now: Now) {
        if let Some(known) = self.sessions.get(&session) {
            let standing = self.standing(&known.device, now);
            self.answer_enrollment(session, EnrollReply::Done(standing));
        }
        // Whoever lost the connection that asked, and came back before the answer, hears it too.
        for other in self.greeted(&device) {
            if other != session {
                let standing = self.standing(&device, now);
                self.send(other, ControllerMessage::Standing(standing));
            }
        }
    }

    fn answer_enrollment(&mut self, session: SessionId, reply: EnrollReply) {
        self.send(session, ControllerMessage::Enrolled(reply));
    }

    fn refuse_enrollment(&mut self, session: SessionId, code: RefusalCode, message: &str) {
        let refusal = Refusal {
            code,
            message: message.to_owned(),
        };
        self.answer_enrollment(session, EnrollReply::Refused(refusal));
    }
}

pub(super) fn texts(tags: &BTreeSet<TagName>) -> Vec<&str> {
    tags.iter().map(TagName::as_str).collect()
}
