//! What an administrator asks: checked against what is staged, answered when it is durable.

use std::time::Duration;

use gatereeve_shared::ids::DeviceId;
use gatereeve_shared::time::Now;

use crate::audit::entry::{Actor, AuditEntry};
use crate::command::{Command, CommandError, ErrorCode, Reply, Request};
use crate::output::RequestId;
use crate::state::device::Device;

use super::Controller;
use super::commit::{Asked, Effect};

mod device;
mod invite;
mod policy;

/// Who asks, and how the answer reaches them.
#[derive(Clone, Copy, Debug)]
struct Caller<'a> {
    request: RequestId,
    actor: &'a Actor,
    wait: Option<Duration>,
}

impl Caller<'_> {
    /// The answer that says what came of a change.
    fn committed(&self, summary: String, subject: Option<DeviceId>) -> Effect {
        Effect::Committed(Asked {
            request: self.request,
            summary,
            revision: None,
            wait: self.wait,
            subject,
        })
    }
}

/// An answer at once, or `None` where it follows the commit.
type Answer = Result<Option<Reply>, CommandError>;

impl Controller {
    /// An administrator asks; answered by [`Output::Reply`](crate::output::Output::Reply), once.
    pub fn handle_command(&mut self, request: RequestId, actor: &Actor, r: Request, now: Now) {
        let caller = Caller {
            request,
            actor,
            wait: r.wait_ms.map(Duration::from_millis),
        };
        let refused = changing_action(&r.command).map(|action| (action, subject_of(&r.command)));
        match self.carry_out(caller, r.command, now) {
            Ok(Some(reply)) => self.reply(request, Ok(reply)),
            Ok(None) => {}
            Err(error) => {
                if let Some((action, subject)) = refused {
                    self.note_refused(actor, action, &subject, &error.message, now);
                }
                self.reply(request, Err(error));
            }
        }
    }

    /// Somebody asks who may not; answered like [`Self::handle_command`].
    pub fn handle_forbidden(&mut self, request: RequestId, actor: &Actor, r: &Request, now: Now) {
        let message = "only root, the controller's own user and members of the configured admin_group may \
                       administrate it; try again as one of them, such as with sudo";
        let action = changing_action(&r.command).unwrap_or("admin.read");
        self.note_refused(actor, action, &subject_of(&r.command), message, now);
        self.reply(request, Err(CommandError::new(ErrorCode::Refused, message)));
    }

    fn note_refused(&mut self, actor: &Actor, action: &str, subject: &str, why: &str, now: Now) {
        if self.refusals.take(1, now.mono) {
            let audit = AuditEntry::refused(action, subject, why);
            self.note(actor.clone(), audit, now);
        }
    }

    fn carry_out(&mut self, caller: Caller<'_>, command: Command, now: Now) -> Answer {
        match command {
            Command::Status => Ok(Some(Reply::Status(self.status(now)))),
            Command::InviteCreate {
                tags,
                user,
                uses,
                expires_secs,
                ephemeral,
                approve,
            } => {
                let wanted = invite::Wanted {
                    tags: tags.into_iter().collect(),
                    user,
                    uses,
                    expires: Duration::from_secs(expires_secs),
                    ephemeral,
                    approve,
                };
                self.create_invite(caller, wanted, now)
            }
            Command::InviteList => Ok(Some(self.list_invites(now))),
            Command::InviteRevoke { id } => self.revoke_invite(caller, id, now),
            Command::DeviceList => Ok(Some(Reply::Devices {
                devices: self.device_views(now),
            })),
            Command::DeviceShow { device } => self.show_device(&device, now).map(Some),
            Command::DeviceApprove {
                device,
                name,
                tags,
                user,
            } => {
                let wanted = device::Approval { name, tags, user };
                self.approve(caller, &device, wanted, now)
            }
            Command::DeviceRename { device, name } => self.rename(caller, &device, name, now),
            Command::DeviceTag {
                device,
                add,
                remove,
            } => self.tag(caller, &device, add, &remove, now),
            Command::DeviceQuarantine {
                device,
                lift,
                reason,
            } => self.quarantine(caller, &device, lift, reason, now),
            Command::DeviceRevoke { device, reason } => self.revoke(caller, &device, reason, now),
            Command::DeviceDelete { device } => self.delete(caller, &device, now),
            Command::PolicyCheck { text } => self.check_policy(&text, now).map(Some),
            Command::PolicyPlan { text } => self.plan_policy(&text, now).map(Some),
            Command::PolicyApply {
                text,
                if_generation,
            } => self.apply_policy(caller, &text, if_generation, now),
            Command::PolicyShow { revision } => self.show_policy(revision).map(Some),
            Command::PolicyHistory => Ok(Some(self.policy_history())),
            Command::PolicyRollback { revision } => self.roll_back(caller, revision, now),
            Command::PolicyTest => Ok(Some(self.test_policy(now))),
            Command::PolicyExplain { src, dst, port } => {
                self.explain(&src, &dst, &port, now).map(Some)
            }
            Command::PolicyReach { device } => self.reach(&device, now).map(Some),
            Command::PostureShow { device } => self.show_posture(&device).map(Some),
        }
    }

    /// A device by name, ID or overlay address, as it is in force.
    pub(super) fn find_device(&self, text: &str) -> Option<&Device> {
        find(&self.picture.state, text)
    }

    /// A device in force, or the error that says there is none.
    fn device(&self, text: &str) -> Result<&Device, CommandError> {
        self.find_device(text).ok_or_else(|| no_device(text))
    }

    /// A device as staged: what a change is checked against.
    fn staged_device(&self, text: &str) -> Result<Device, CommandError> {
        find(&self.staged, text)
            .cloned()
            .ok_or_else(|| no_device(text))
    }
}

fn find<'s>(state: &'s crate::state::State, text: &str) -> Option<&'s Device> {
    let by_name = || {
        let name = gatereeve_shared::ids::DeviceName::new(text).ok()?;
        state.names().get(&name)
    };
    if let Ok(id) = text.parse::<DeviceId>()
        && let Some(device) = state.devices().get(&id)
    {
        return Some(device);
    }
    if let Some(device) = by_name().and_then(|id| state.devices().get(id)) {
        return Some(device);
    }
    let address: std::net::IpAddr = text.parse().ok()?;
    state
        .devices()
        .values()
        .find(|device| address == device.addresses.v4 || address == device.addresses.v6)
}

fn no_device(text: &str) -> CommandError {
    let text = gatereeve_shared::text::printable(text);
    let shown: String = text.chars().take(80).collect();
    CommandError::new(
        ErrorCode::NotFound,
        format!("no device \"{shown}\": `gatereeve-controller device list` shows all"),
    )
}

/// What the audit log calls a command that would change something.
fn changing_action(command: &Command) -> Option<&'static str> {
    match command {
        Command::InviteCreate { .. } => Some("invite.create"),
        Command::InviteRevoke { .. } => Some("invite.revoke"),
        Command::DeviceApprove { .. } => Some("device.approve"),
        Command::DeviceRename { .. } => Some("device.rename"),
        Command::DeviceTag { .. } => Some("device.tag"),
        Command::DeviceQuarantine { .. } => Some("device.quarantine"),
        Command::DeviceRevoke { .. } => Some("device.revoke"),
        Command::DeviceDelete { .. } => Some("device.delete"),
        Command::PolicyApply { .. } => Some("policy.apply"),
        Command::PolicyRollback { .. } => Some("policy.rollback"),
        Command::Status
        | Command::InviteList
        | Command::DeviceList
        | Command::DeviceShow { .. }
        | Command::PolicyCheck { .. }
        | Command::PolicyPlan { .. }
        | Command::PolicyShow { .. }
        | Command::PolicyHistory
        | Command::PolicyTest
        | Command::PolicyExplain { .. }
        | Command::PolicyReach { .. }
        | Command::PostureShow { .. } => None,
    }
}

/// What a command is about, as its caller names it.
fn subject_of(command: &Command) -> String {
    match command {
        Command::InviteRevoke { id } => format!("invite {id}"),
        Command::DeviceApprove { device, .. }
        | Command::DeviceRename { device, .. }
        | Command::DeviceTag { device, .. }
        | Command::DeviceQuarantine { device, .. }
        | Command::DeviceRevoke { device, .. }
        | Command::DeviceDelete { device }
        | Command::DeviceShow { device }
        | Command::PolicyReach { device }
        | Command::PostureShow { device } => format!("device {device}"),
        Command::PolicyRollback { revision } => format!("revision {revision}"),
        Command::PolicyExplain { src, dst, .. } => format!("{src} to {dst}"),
        Command::InviteCreate { .. } | Command::InviteList => "invites".to_owned(),
        Command::DeviceList => "devices".to_owned(),
        Command::Status => "status".to_owned(),
        Command::PolicyCheck { .. }
        | Command::PolicyPlan { .. }
        | Command::PolicyApply { .. }
        | Command::PolicyShow { .. }
        | Command::PolicyHistory
        | Command::PolicyTest => "policy".to_owned(),
    }
}
