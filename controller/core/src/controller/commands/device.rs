//! Devices: let in, name, tag, cut off, revoke, forget.

use std::collections::BTreeSet;

use gatereeve_shared::ids::{DeviceId, DeviceName, TagName, UserName};
use gatereeve_shared::time::Now;
use gatereeve_shared::wire::controller::Standing;

use crate::audit::entry::AuditEntry;
use crate::change::Change;
use crate::command::{CommandError, ErrorCode, Reply};
use crate::enroll::{self, NameChoice, Pending};
use crate::session::keys;
use crate::state::device::{Device, DeviceStatus};

use super::super::Controller;
use super::super::commit::Effect;
use super::super::enrollment::{Admission, texts};
use super::invite::MOST_TAGS;
use super::{Answer, Caller, no_device};

/// What an administrator decides about a device that waits.
#[derive(Debug)]
pub(super) struct Approval {
    pub(super) name: Option<DeviceName>,
    pub(super) tags: Vec<TagName>,
    pub(super) user: Option<UserName>,
}

fn conflict<T>(message: impl Into<String>) -> Result<T, CommandError> {
    Err(CommandError::new(ErrorCode::Conflict, message))
}

impl Controller {
    pub(super) fn approve(
        &mut self,
        caller: Caller<'_>,
        text: &str,
        approval: Approval,
        now: Now,
    ) -> Answer {
        let Some((id, pending)) = self.waiting_device(text, now)? else {
            let device = self.staged_device(text)?;
            return conflict(format!("device {} does not wait for approval", device.name));
        };
        if self.staged.is_revoked(&id) || self.staged.devices().contains_key(&id) {
            return conflict(format!("the key of device {id} is known already"));
        }
        let checked = keys::check_binding(
            &pending.binding,
            &pending.identity,
            &self.fingerprint,
            &self.staged,
        );
        if let Err(why) = checked {
            return conflict(why);
        }
        let name = self.approved_name(approval.name, &pending.name)?;
        let mut tags: BTreeSet<TagName> = approval.tags.into_iter().collect();
        let mut user = approval.user;
        let mut ephemeral = false;
        let mut used = None;
        if let Some(invite) = pending.invite.and_then(|id| self.staged.invites().get(&id)) {
            if !invite.is_usable(now.unix) {
                return conflict(
                    "the invite that the device brought is no longer valid; give it another, or let \
                     it ask without one",
                );
            }
            tags.extend(invite.tags.iter().cloned());
            user = user.or_else(|| invite.user.clone());
            ephemeral = invite.ephemeral;
            used = Some(invite.id);
        } else if let Some(id) = pending.invite {
            return conflict(format!(
                "the invite {id} that the device brought is revoked"
            ));
        }
        if tags.len() > MOST_TAGS {
            return conflict("a device has at most 64 tags");
        }
        let audit = AuditEntry::done("device.approve", format!("{name} ({id})"))
            .because(format!("it asked at {} as {}", pending.asked, pending.name));
        let summary = format!("device {name} takes part");
        let effects = vec![Effect::Tell(id), caller.committed(summary, None)];
        let admission = Admission {
            pending,
            name,
            tags,
            user,
            invite: used,
            ephemeral,
        };
        let admitted = self.admit(caller.actor.clone(), admission, audit, effects, now);
        if let Err(why) = admitted {
            return conflict(why);
        }
        self.enrollments.remove(&id);
        Ok(None)
    }

    /// A device that waits, by ID or by name. Anybody can ask under any name, so a name that two
    /// ask for means neither.
    fn waiting_device(
        &self,
        text: &str,
        now: Now,
    ) -> Result<Option<(DeviceId, Pending)>, CommandError> {
        let mut found = self
            .enrollments
            .all(now.mono)
            .filter(|(id, pending)| id.to_string() == text || pending.name.as_str() == text);
        let first = found.next();
        let others: Vec<String> = found.map(|(id, _)| id.to_string()).collect();
        match first {
            Some((id, _)) if !others.is_empty() => conflict(format!(
                "several devices ask for the name {text}: {id}, {}; name one by its ID, after \
                 comparing it with what `gatereeve status` shows there",
                others.join(", ")
            )),
            first => Ok(first.map(|(id, pending)| (*id, pending.clone()))),
        }
    }

    /// The name that a device gets by approval: as given, if free; as it asked for, or numbered.
    fn approved_name(
        &self,
        given: Option<DeviceName>,
        asked: &DeviceName,
    ) -> Result<DeviceName, CommandError> {
        if let Some(name) = given {
            if self.staged.names().contains_key(&name) {
                return conflict(format!("the name {name} is taken"));
            }
            return Ok(name);
        }
        let chosen = enroll::choose_name(asked.as_str(), self.staged.names(), &BTreeSet::new());
        match chosen {
            Some(NameChoice::Free(name) | NameChoice::NeedsApproval(name)) => Ok(name),
            None => conflict(format!("every name like {asked} is taken; give another")),
        }
    }

    pub(super) fn rename(
        &mut self,
        caller: Caller<'_>,
        text: &str,
        name: DeviceName,
        now: Now,
    ) -> Answer {
        let device = self.staged_device(text)?;
        if device.name == name {
            return conflict(format!("the device has the name {name} already"));
        }
        if self.staged.names().contains_key(&name) {
            return conflict(format!("the name {name} is taken"));
        }
        let audit = AuditEntry::done("device.rename", device.id.to_string())
            .from_to(device.name.as_str(), name.as_str());
        let summary = format!("device {} is now {name}", device.name);
        let change = Change::DeviceRenamed {
            device: device.id,
            name,
        };
        self.change_device(caller, change, audit, vec![], summary, None, now)
    }

    pub(super) fn tag(
        &mut self,
        caller: Caller<'_>,
        text: &str,
        add: Vec<TagName>,
        remove: &[TagName],
        now: Now,
    ) -> Answer {
        let device = self.staged_device(text)?;
        let mut tags = device.tags.clone();
        tags.retain(|tag| !remove.contains(tag));
        tags.extend(add);
        if tags == device.tags {
            return conflict(format!("device {} has these tags already", device.name));
        }
        if tags.len() > MOST_TAGS {
            return conflict("a device has at most 64 tags");
        }
        let audit = AuditEntry::done("device.tag", label(&device)).from_to(
            format!("{:?}", texts(&device.tags)),
            format!("{:?}", texts(&tags)),
        );
        let summary = format!(
            "device {} has tags {}",
            device.name,
            texts(&tags).join(", ")
        );
        let change = Change::DeviceTagged {
            device: device.id,
            tags,
        };
        self.change_device(caller, change, audit, vec![], summary, None, now)
    }

    pub(super) fn quarantine(
        &mut self,
        caller: Caller<'_>,
        text: &str,
        lift: bool,
        reason: Option<String>,
        now: Now,
    ) -> Answer {
        let device = self.staged_device(text)?;
        let (from, to, words) = if lift {
            let words = "is out of quarantine";
            (DeviceStatus::Quarantined, DeviceStatus::Approved, words)
        } else {
            let words = "is quarantined";
            (DeviceStatus::Approved, DeviceStatus::Quarantined, words)
        };
        if device.status != from {
            return conflict(format!(
                "device {} is {:?}, so this changes nothing",
                device.name, device.status
            ));
        }
        let audit = because(
            AuditEntry::done("device.quarantine", label(&device)),
            reason,
        )
        .from_to(format!("{from:?}"), format!("{to:?}"));
        let summary = format!("device {} {words}", device.name);
        let change = Change::DeviceStatus {
            device: device.id,
            status: to,
        };
        let subject = (!lift).then_some(device.id);
        let effects = vec![Effect::Tell(device.id)];
        self.change_device(caller, change, audit, effects, summary, subject, now)
    }

    pub(super) fn revoke(
        &mut self,
        caller: Caller<'_>,
        text: &str,
        reason: Option<String>,
        now: Now,
    ) -> Answer {
        // A device that waits can be revoked as well: its key never gets in.
        let (id, name) = match self.staged_device(text) {
            Ok(device) => (device.id, device.name),
            Err(none) => self
                .waiting_device(text, now)?
                .map(|(id, pending)| (id, pending.name))
                .ok_or(none)?,
        };
        if self.staged.is_revoked(&id) {
            return conflict(format!("device {name} is revoked already"));
        }
        let audit = because(
            AuditEntry::done("device.revoke", format!("{name} ({id})")),
            reason,
        );
        let summary = format!("device {name} is revoked: its key is refused for good");
        let change = Change::DeviceRevoked { device: id };
        let effects = vec![Effect::End(id, Standing::Revoked)];
        self.enrollments.remove(&id);
        self.change_device(caller, change, audit, effects, summary, Some(id), now)
    }

    pub(super) fn delete(&mut self, caller: Caller<'_>, text: &str, now: Now) -> Answer {
        let device = match self.staged_device(text) {
            Ok(device) => device,
            Err(none) => {
                // One that waits is in memory only.
                let (id, pending) = self.waiting_device(text, now)?.ok_or(none)?;
                self.enrollments.remove(&id);
                let label = format!("{} ({id})", pending.name);
                let audit = AuditEntry::refused("device.enroll", &label, "it was not approved");
                let effects = vec![
                    Effect::Tell(id),
                    caller.committed(format!("device {label} is refused"), Some(id)),
                ];
                self.stage(caller.actor.clone(), Change::Noted, audit, effects, now);
                return Ok(None);
            }
        };
        let is_revoked = device.status == DeviceStatus::Revoked;
        let audit = AuditEntry::done("device.delete", label(&device));
        let summary = format!("device {} is forgotten", device.name);
        let standing = if is_revoked {
            Standing::Revoked
        } else {
            Standing::Unknown
        };
        let effects = vec![Effect::End(device.id, standing)];
        let change = Change::DeviceRemoved { device: device.id };
        self.change_device(
            caller,
            change,
            audit,
            effects,
            summary,
            Some(device.id),
            now,
        )
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one call for each kind of change; each argument is of its own type"
    )]
    fn change_device(
        &mut self,
        caller: Caller<'_>,
        change: Change,
        audit: AuditEntry,
        mut effects: Vec<Effect>,
        summary: String,
        subject: Option<DeviceId>,
        now: Now,
    ) -> Answer {
        effects.push(caller.committed(summary, subject));
        self.stage(caller.actor.clone(), change, audit, effects, now);
        Ok(None)
    }

    pub(super) fn show_device(&self, text: &str, now: Now) -> Result<Reply, CommandError> {
        let views = self.device_views(now);
        let id = self.find_device(text).map(|device| device.id);
        views
            .into_iter()
            .find(|view| match id {
                Some(id) => view.id == id,
                None => view.id.to_string() == text || view.name.as_str() == text,
            })
            .map(|view| Reply::Device(Box::new(view)))
            .ok_or_else(|| no_device(text))
    }
}

fn label(device: &Device) -> String {
    format!("{} ({})", device.name, device.id)
}

fn because(audit: AuditEntry, reason: Option<String>) -> AuditEntry {
    match reason {
        Some(reason) => audit.because(reason),
        None => audit,
    }
}
