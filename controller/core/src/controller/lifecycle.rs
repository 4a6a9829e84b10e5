//! Connections come and go, devices with them, and time passes.

use std::net::SocketAddr;
use std::time::Duration;

use gatereeve_shared::identity::identity_key::IdentityPublicKey;
use gatereeve_shared::ids::DeviceId;
use gatereeve_shared::time::{Now, UnixMillis};
use gatereeve_shared::wire::controller::{ControllerMessage, Refusal, RefusalCode, Standing};

use crate::audit::entry::{Actor, AuditEntry};
use crate::change::Change;
use crate::output::{Output, SessionId};
use crate::pdp::engine;
use crate::session::{self, Phase, Session};
use crate::state::device::DeviceStatus;

use super::Controller;
use super::commit::Effect;
use super::timers::Timer;

/// How long an ephemeral device may be gone.
const GONE: Duration = Duration::from_secs(300);

impl Controller {
    /// A connection has proven possession of `key`.
    pub fn handle_opened(
        &mut self,
        session: SessionId,
        key: IdentityPublicKey,
        from: SocketAddr,
        now: Now,
    ) {
        let opened = Session::new(key, from, now.mono);
        let device = opened.device;
        let same = self.sessions.iter().filter(|(_, s)| s.device == device);
        let same: Vec<_> = same.map(|(id, session)| (*id, session.phase)).collect();
        self.sessions.insert(session, opened);
        if same.len() >= session::PER_DEVICE {
            // A device that comes back has lost its older connections, whether or not they have
            // ended here yet.
            let oldest = same.iter().find(|(_, phase)| *phase != Phase::Attached);
            if let Some((oldest, _)) = oldest {
                self.close(
                    *oldest,
                    RefusalCode::Replaced,
                    "this key holds too many connections, so the oldest is closed",
                );
            }
        }
        let at = now.mono.saturating_add(session::IDLE);
        self.timers.set(Timer::Idle(session), at);
    }

    /// A connection is gone.
    pub fn handle_closed(&mut self, session: SessionId, now: Now) {
        self.timers.clear(Timer::Idle(session));
        let Some(closed) = self.sessions.remove(&session) else {
            return;
        };
        self.detach(closed.device, session, now);
    }

    /// Takes a device's session from it, if it is this one.
    pub(super) fn detach(&mut self, device: DeviceId, session: SessionId, now: Now) {
        if self.attached.get(&device) != Some(&session) {
            return;
        }
        self.attached.remove(&device);
        self.timers.clear(Timer::Renew(device));
        self.told_posture.remove(&device);
        if self.picture.state.devices().contains_key(&device) {
            self.see(device, now);
            self.arm_gone(device, now);
        }
    }

    /// Notes that a device was heard of.
    pub(super) fn see(&mut self, device: DeviceId, now: Now) {
        let soft = self.soft.devices.entry(device).or_default();
        soft.last_seen = Some(now.unix);
        let write = self.soft.write(&device);
        self.outputs.push_back(Output::Soft(vec![write]));
    }

    /// Says no, and closes.
    pub(super) fn close(&mut self, session: SessionId, code: RefusalCode, message: &str) {
        self.forget(session);
        self.outputs.push_back(Output::Close {
            session,
            refusal: Some(Refusal {
                code,
                message: message.to_owned(),
            }),
        });
    }

    fn forget(&mut self, session: SessionId) {
        self.timers.clear(Timer::Idle(session));
        if let Some(closed) = self.sessions.remove(&session)
            && self.attached.get(&closed.device) == Some(&session)
        {
            self.attached.remove(&closed.device);
            self.timers.clear(Timer::Renew(closed.device));
            self.told_posture.remove(&closed.device);
        }
    }

    /// Closes a connection that has come to nothing. One that waits for approval may stay.
    pub(super) fn close_idle(&mut self, session: SessionId, now: Now) {
        let Some(idle) = self.sessions.get(&session) else {
            return;
        };
        if idle.phase == Phase::Attached {
            return;
        }
        if self.standing(&idle.device, now) == Standing::Pending {
            let at = now.mono.saturating_add(session::IDLE);
            self.timers.set(Timer::Idle(session), at);
            return;
        }
        self.close(
            session,
            RefusalCode::Protocol,
            "nothing was asked in time; connect again",
        );
    }

    /// How a key stands, as it is in force.
    pub(super) fn standing(&self, device: &DeviceId, now: Now) -> Standing {
        if self.picture.state.is_revoked(device) {
            return Standing::Revoked;
        }
        let Some(known) = self.picture.state.devices().get(device) else {
            return match self.enrollments.get(device, now.mono) {
                Some(_) => Standing::Pending,
                None => Standing::Unknown,
            };
        };
        match known.status {
            DeviceStatus::Revoked => Standing::Revoked,
            _ if known.key_expires.is_some_and(|end| end <= now.unix) => Standing::Expired,
            DeviceStatus::Pending => Standing::Pending,
            DeviceStatus::Quarantined => Standing::Quarantined,
            DeviceStatus::Approved => Standing::Approved,
        }
    }

    /// All connections of a device that have said hello.
    pub(super) fn greeted(&self, device: &DeviceId) -> Vec<SessionId> {
        self.sessions
            .iter()
            .filter(|(_, session)| session.device == *device && session.phase != Phase::Fresh)
            .map(|(id, _)| *id)
            .collect()
    }

    pub(super) fn tell_standing(&mut self, device: &DeviceId, now: Now) {
        let standing = self.standing(device, now);
        for session in self.greeted(device) {
            self.send(session, ControllerMessage::Standing(standing));
        }
    }

    /// Tells all connections of a device that it is over, and closes them.
    pub(super) fn end_sessions(&mut self, device: &DeviceId, standing: Standing) {
        for session in self.greeted(device) {
            self.send(session, ControllerMessage::Standing(standing));
        }
        let all: Vec<_> = self
            .sessions
            .iter()
            .filter(|(_, session)| session.device == *device)
            .map(|(id, _)| *id)
            .collect();
        for session in all {
            self.close(
                session,
                RefusalCode::Standing,
                "this device no longer takes part in the network",
            );
        }
        self.held.remove(device);
        self.endpoints.remove(device);
    }

    pub(super) fn arm_gone(&mut self, device: DeviceId, now: Now) {
        let known = self.picture.state.devices().get(&device);
        if known.is_some_and(|device| device.ephemeral) {
            let at = now.mono.saturating_add(GONE);
            self.timers.set(Timer::Gone(device), at);
        }
    }

    /// Forgets an ephemeral device that has not come back.
    pub(super) fn forget_gone(&mut self, device: DeviceId, now: Now) {
        let Some(known) = self.staged.devices().get(&device) else {
            return;
        };
        if self.attached.contains_key(&device) || !known.ephemeral {
            return;
        }
        // Who was revoked stays in the list until an administrator has seen it.
        if known.status == DeviceStatus::Revoked {
            return;
        }
        let audit = AuditEntry::done("device.delete", format!("{} ({device})", known.name))
            .because("it is ephemeral and has been gone for too long");
        let effects = vec![Effect::End(device, Standing::Unknown)];
        let change = Change::DeviceRemoved { device };
        self.stage(Actor::System, change, audit, effects, now);
    }

    pub(super) fn arm_schedule(&mut self, now: Now) {
        self.schedule_at = engine::next_change(&self.picture.view(), now.unix);
        match self.schedule_at {
            Some(at) => self.timers.set_unix(Timer::Schedule, at, now),
            None => self.timers.clear(Timer::Schedule),
        }
    }

    /// A schedule window opens or closes, a rule or a key ends: that takes a record, so that maps
    /// get a generation of their own and the audit log says what changed.
    pub(super) fn time_passed(&mut self, now: Now) {
        let Some(at) = self.schedule_at else {
            return;
        };
        if now.unix < at {
            self.timers.set_unix(Timer::Schedule, at, now);
            return;
        }
        let is_staged = self
            .in_flight
            .iter()
            .any(|in_flight| matches!(in_flight.change(), Change::TimePassed));
        if is_staged {
            return;
        }
        let just_before = UnixMillis(at.0.saturating_sub(1));
        let before = self.picture.granted(None, just_before);
        let after = self.picture.granted(None, now.unix);
        let lines = self.picture.difference(&before, &after);
        let expired: Vec<String> = self
            .picture
            .state
            .devices()
            .values()
            .filter(|device| {
                let end = device.key_expires;
                end.is_some_and(|end| just_before < end && end <= now.unix)
            })
            .map(|device| format!("the key of {} ({}) has expired", device.name, device.id))
            .collect();
        if lines.is_empty() && expired.is_empty() {
            self.arm_schedule(now);
            return;
        }
        let audit = AuditEntry::done("time.pass", at.to_string())
            .because("a schedule, an end or the expiry of a key")
            .detailed(expired.into_iter().chain(lines));
        self.stage(Actor::System, Change::TimePassed, audit, Vec::new(), now);
    }
}
