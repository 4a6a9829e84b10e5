//! Two phases: stage and append, then apply and tell.

use std::sync::Arc;
use std::time::Duration;

use gatereeve_shared::ids::DeviceId;
use gatereeve_shared::time::Now;
use gatereeve_shared::wire::controller::{
    ControllerMessage, EnrollReply, Refusal, RefusalCode, Standing,
};

use crate::audit::entry::{Actor, AuditEntry};
use crate::audit::record::Record;
use crate::change::Change;
use crate::command::{CommandError, ErrorCode, Reply};
use crate::output::{Output, RequestId, SessionId};
use crate::policy::Policy;
use crate::state::Touched;

use super::timers::Timer;
use super::{Controller, picture};

/// When a timer's change is tried again after the journal refused it.
const RETRY: Duration = Duration::from_secs(5);
/// How long a head waits for its signature.
const CHECKPOINT: Duration = Duration::from_secs(2);

/// A record on its way to the journal, and what follows when it is there.
#[derive(Debug)]
pub(super) struct InFlight {
    ticket: u64,
    record: Record,
    hash: [u8; 32],
    effects: Vec<Effect>,
}

impl InFlight {
    pub(super) fn change(&self) -> &Change {
        &self.record.change
    }
}

/// What follows a commit, after the devices concerned were told.
#[derive(Debug)]
pub(super) enum Effect {
    /// An answer that was ready before.
    Reply(RequestId, Reply),
    /// An answer that says what came of it.
    Committed(Asked),
    /// This policy is in force.
    Policy(Arc<Policy>),
    /// A connection has become a device.
    Enrolled(SessionId, DeviceId),
    /// Tell a device's connections how it stands.
    Tell(DeviceId),
    /// Tell a device's connections how it stands, and close them.
    End(DeviceId, Standing),
}

/// Who asked for a change, and what they want to know.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) request: RequestId,
    pub(super) summary: String,
    pub(super) revision: Option<u64>,
    /// How long they wait for the devices.
    pub(super) wait: Option<Duration>,
    /// The device that loses access: it may be hostile, so nobody waits for it.
    pub(super) subject: Option<DeviceId>,
}

impl Controller {
    /// Stages a change: from here on others are checked against it. False where it cannot be
    /// encoded; then nothing has happened.
    pub(super) fn stage(
        &mut self,
        actor: Actor,
        change: Change,
        audit: AuditEntry,
        effects: Vec<Effect>,
        now: Now,
    ) -> bool {
        let record = Record {
            generation: self.staged.next_generation(),
            at: now.unix,
            actor,
            change,
            audit,
        };
        let sealed = match record.seal(&self.staged.head()) {
            Ok(sealed) => sealed,
            Err(error) => {
                self.fail(effects, &format!("the change is too large: {error}"));
                return false;
            }
        };
        self.staged.apply(&record, sealed.hash);
        for effect in &effects {
            if let Effect::Policy(policy) = effect {
                self.staged_policy = Arc::clone(policy);
            }
        }
        self.next_ticket = self.next_ticket.saturating_add(1);
        let ticket = self.next_ticket;
        self.in_flight.push_back(InFlight {
            ticket,
            record,
            hash: sealed.hash,
            effects,
        });
        self.outputs.push_back(Output::Append {
            ticket,
            records: vec![sealed],
        });
        true
    }

    /// Stages what only the audit log needs to know.
    pub(super) fn note(&mut self, actor: Actor, audit: AuditEntry, now: Now) {
        self.stage(actor, Change::Noted, audit, Vec::new(), now);
    }

    /// The answer to [`Output::Append`]: durable, or why not. A failure drops what was staged from
    /// that record on; what is in flight before it stays. Answers for dropped tickets are ignored.
    pub fn handle_appended(&mut self, ticket: u64, result: Result<(), String>, now: Now) {
        let mut tickets = self.in_flight.iter();
        let Some(at) = tickets.position(|in_flight| in_flight.ticket == ticket) else {
            return;
        };
        match result {
            Ok(()) if at == 0 => {
                self.journal_error = None;
                if let Some(in_flight) = self.in_flight.pop_front() {
                    self.apply(in_flight, now);
                }
            }
            Ok(()) => tracing::error!(ticket, "the journal answers out of order"),
            Err(error) => {
                tracing::error!(%error, "the journal refuses a record");
                let dropped = self.in_flight.split_off(at);
                self.stage_again();
                for in_flight in dropped {
                    self.retry(&in_flight.record, now);
                    self.fail(in_flight.effects, &error);
                }
                self.journal_error = Some(error);
            }
        }
    }

    /// Makes what is staged from what is in force and what is still in flight.
    fn stage_again(&mut self) {
        self.staged = self.picture.state.clone();
        self.staged_policy = Arc::clone(&self.picture.policy);
        for in_flight in &self.in_flight {
            self.staged.apply(&in_flight.record, in_flight.hash);
            for effect in &in_flight.effects {
                if let Effect::Policy(policy) = effect {
                    self.staged_policy = Arc::clone(policy);
                }
            }
        }
    }

    fn apply(&mut self, in_flight: InFlight, now: Now) {
        let InFlight {
            record,
            hash,
            effects,
            ..
        } = in_flight;
        let asks = effects
            .iter()
            .any(|effect| matches!(effect, Effect::Committed(_)));
        let (concerned, is_total) = concerned_by(&record.change);
        let scope = if is_total { None } else { Some(&concerned) };
        let before = asks.then(|| self.picture.granted(scope, now.unix));

        let touched = self.picture.state.apply(&record, hash);
        self.outputs.push_back(Output::Tables(
            self.picture.state.writes(touched.rows.iter().copied()),
        ));
        for effect in &effects {
            if let Effect::Policy(policy) = effect {
                self.picture.policy = Arc::clone(policy);
                self.policy_error = None;
            }
        }
        self.bring_up(&record.change, &touched, now);
        if !self.timers.is_set(Timer::Checkpoint) {
            let at = now.mono.saturating_add(CHECKPOINT);
            self.timers.set(Timer::Checkpoint, at);
        }

        let told = self.spread(&touched, judged(&record.change), now);
        let after = asks.then(|| self.picture.granted(scope, now.unix));
        let (before, after) = (before.unwrap_or_default(), after.unwrap_or_default());
        let mut asked = None;
        for effect in effects {
            match effect {
                Effect::Policy(_) => {}
                Effect::Reply(request, reply) => self.reply(request, Ok(reply)),
                Effect::Committed(ask) => asked = Some(ask),
                Effect::Enrolled(session, device) => self.confirm_enrolled(session, device, now),
                Effect::Tell(device) => self.tell_standing(&device, now),
                Effect::End(device, standing) => self.end_sessions(&device, standing),
            }
        }
        self.settle(&record.change, &touched, now);
        if let Some(asked) = asked {
            self.answer(asked, &record, (&touched, &told), (&before, &after), now);
        }
    }

    /// Compiles again what hangs on the state.
    fn bring_up(&mut self, change: &Change, touched: &Touched, now: Now) {
        if touched.membership {
            self.picture.resolve();
        }
        match change {
            Change::VerdictsChanged { device, verdicts } => {
                self.picture.live.insert(*device, verdicts.clone());
            }
            Change::PolicyApplied { verdicts, .. } => {
                self.picture.live = verdicts.clone();
            }
            Change::DeviceRemoved { device } => {
                self.picture.live.remove(device);
                self.soft.devices.remove(device);
                let write = self.soft.write(device);
                self.outputs.push_back(Output::Soft(vec![write]));
            }
            Change::Noted
            | Change::InviteCreated(_)
            | Change::InviteRevoked { .. }
            | Change::DeviceAdded { .. }
            | Change::DeviceRenamed { .. }
            | Change::DeviceTagged { .. }
            | Change::DeviceStatus { .. }
            | Change::DeviceRevoked { .. }
            | Change::KeysChanged { .. }
            | Change::TimePassed
            | Change::Restored => {}
        }
        let moves_time = matches!(change, Change::DeviceStatus { .. });
        if touched.membership || touched.everything || moves_time {
            self.arm_schedule(now);
        }
    }

    /// Follows up on a change when everybody was told.
    fn settle(&mut self, change: &Change, touched: &Touched, now: Now) {
        match change {
            Change::PolicyApplied { .. } => {
                // Reports may have come while the record was on its way.
                let devices: Vec<_> = self.picture.state.devices().keys().copied().collect();
                for device in devices {
                    self.review(device, now);
                    self.hasten_renew(device, now);
                    self.renew_in_time(device, now);
                }
            }
            Change::TimePassed => {
                let expired: Vec<_> = self.attached.keys().copied().collect();
                for device in expired {
                    if self.standing(&device, now) == Standing::Expired {
                        self.tell_standing(&device, now);
                    }
                }
            }
            Change::DeviceRemoved { device } => {
                self.held.remove(device);
                self.fresh.remove(device);
                self.endpoints.remove(device);
                self.told_posture.remove(device);
                self.limits.remove(device);
                self.timers.clear(Timer::Verdicts(*device));
                self.timers.clear(Timer::Gone(*device));
                self.timers.clear(Timer::Endpoints(*device));
                self.timers.clear(Timer::Soft(*device));
            }
            Change::DeviceAdded { .. } | Change::DeviceTagged { .. } => {
                if let Change::DeviceAdded { device, .. } = change {
                    self.fresh.insert(device.id);
                }
                for device in &touched.devices {
                    self.review(*device, now);
                }
            }
            Change::VerdictsChanged { device, .. } => {
                self.review(*device, now);
                self.tell_posture(device);
            }
            Change::Noted
            | Change::InviteCreated(_)
            | Change::InviteRevoked { .. }
            | Change::DeviceRenamed { .. }
            | Change::DeviceStatus { .. }
            | Change::DeviceRevoked { .. }
            | Change::KeysChanged { .. }
            | Change::Restored => {}
        }
    }

    /// Tries again what no one will ask for again.
    fn retry(&mut self, record: &Record, now: Now) {
        let at = now.mono.saturating_add(RETRY);
        match &record.change {
            Change::VerdictsChanged { device, .. } => self.timers.set(Timer::Verdicts(*device), at),
            Change::TimePassed => self.timers.set(Timer::Schedule, at),
            Change::DeviceRemoved { device } => self.timers.set(Timer::Gone(*device), at),
            Change::Noted
            | Change::InviteCreated(_)
            | Change::InviteRevoked { .. }
            | Change::DeviceAdded { .. }
            | Change::DeviceRenamed { .. }
            | Change::DeviceTagged { .. }
            | Change::DeviceStatus { .. }
            | Change::DeviceRevoked { .. }
            | Change::KeysChanged { .. }
            | Change::PolicyApplied { .. }
            | Change::Restored => {}
        }
    }

    /// Answers those who waited for a record that will not be.
    fn fail(&mut self, effects: Vec<Effect>, error: &str) {
        let message = format!(
            "the change was not made, because the journal could not take it: {error}; \
             what was in force stays in force; mend that, and try again"
        );
        for effect in effects {
            match effect {
                Effect::Reply(request, _) | Effect::Committed(Asked { request, .. }) => {
                    let error = CommandError::new(ErrorCode::Failed, message.clone());
                    self.reply(request, Err(error));
                }
                Effect::Enrolled(session, _) => self.send(
                    session,
                    ControllerMessage::Enrolled(EnrollReply::Refused(Refusal {
                        code: RefusalCode::Unavailable,
                        message: "the controller cannot commit the enrollment now; try again in a \
                                  minute"
                            .into(),
                    })),
                ),
                Effect::Policy(_) | Effect::Tell(_) | Effect::End(..) => {}
            }
        }
    }

    pub(super) fn reply(&mut self, request: RequestId, result: Result<Reply, CommandError>) {
        self.outputs.push_back(Output::Reply { request, result });
    }

    pub(super) fn send(&mut self, session: SessionId, message: ControllerMessage) {
        if self.sessions.contains_key(&session) {
            self.outputs.push_back(Output::Send { session, message });
        }
    }
}

/// The devices that a change is about, and whether it is about all pairs.
fn concerned_by(change: &Change) -> (picture::Devices, bool) {
    let one = |device: &DeviceId| (picture::Devices::from([*device]), false);
    match change {
        Change::DeviceAdded { device, .. } => one(&device.id),
        Change::DeviceRenamed { device, .. }
        | Change::DeviceTagged { device, .. }
        | Change::DeviceStatus { device, .. }
        | Change::DeviceRevoked { device }
        | Change::DeviceRemoved { device }
        | Change::KeysChanged { device, .. }
        | Change::VerdictsChanged { device, .. } => one(device),
        Change::PolicyApplied { .. } | Change::TimePassed => (picture::Devices::new(), true),
        Change::Noted
        | Change::InviteCreated(_)
        | Change::InviteRevoked { .. }
        | Change::Restored => (picture::Devices::new(), false),
    }
}

/// The device that a change judges: what that takes, it takes from this one, which may be hostile.
fn judged(change: &Change) -> Option<DeviceId> {
    match change {
        Change::VerdictsChanged { device, .. } | Change::DeviceStatus { device, .. } => {
            Some(*device)
        }
        Change::Noted
        | Change::InviteCreated(_)
        | Change::InviteRevoked { .. }
        | Change::DeviceAdded { .. }
        | Change::DeviceRenamed { .. }
        | Change::DeviceTagged { .. }
        | Change::DeviceRevoked { .. }
        | Change::DeviceRemoved { .. }
        | Change::KeysChanged { .. }
        | Change::PolicyApplied { .. }
        | Change::TimePassed
        | Change::Restored => None,
    }
}
