//! What a connection may say, and when.

use std::time::Duration;

use gatereeve_shared::generation::Generation;
use gatereeve_shared::ids::DeviceId;
use gatereeve_shared::policy::port::Protocol;
use gatereeve_shared::posture::fact::PostureReport;
use gatereeve_shared::text;
use gatereeve_shared::time::Now;
use gatereeve_shared::wire::client::{
    Attach, ClientHello, ClientMessage, EndpointUpdate, KeyUpdate, WhyRequest,
};
use gatereeve_shared::wire::controller::{
    ControllerHello, ControllerMessage, Pong, Refusal, RefusalCode, Standing,
};
use gatereeve_shared::wire::{MAX_MINOR, MIN_MINOR};

use crate::audit::entry::{Actor, AuditEntry};
use crate::change::Change;
use crate::output::SessionId;
use crate::pdp::explain;
use crate::session::{DROPS, Phase, endpoints, keys};
use crate::state::device::DeviceStatus;

use super::Controller;
use super::commit::Effect;
use super::timers::Timer;

/// How long others wait to hear of a device that moves too often.
const MOVES: Duration = Duration::from_secs(2);

impl Controller {
    /// A message came.
    pub fn handle_message(&mut self, session: SessionId, message: ClientMessage, now: Now) {
        let Some(known) = self.sessions.get_mut(&session) else {
            return;
        };
        let cost = match message {
            // Confirmations follow what the controller sends, so they cost less.
            ClientMessage::Ack(_) => 1,
            // The answer is the whole map, so it costs more.
            ClientMessage::Resync(_) => 100,
            ClientMessage::Hello(_)
            | ClientMessage::Enroll(_)
            | ClientMessage::Attach(_)
            | ClientMessage::Report(_)
            | ClientMessage::Endpoints(_)
            | ClientMessage::Keys(_)
            | ClientMessage::Why(_)
            | ClientMessage::Ping(_)
            | ClientMessage::Leave(_) => 10,
        };
        if !known.bucket.take(cost, now.mono) {
            known.drops = known.drops.saturating_add(1);
            match known.drops {
                1 => self.refuse(
                    session,
                    RefusalCode::RateLimited,
                    "too many messages; slow down",
                ),
                DROPS.. => self.close(session, RefusalCode::RateLimited, "too many messages"),
                _ => {}
            }
            return;
        }
        known.drops = 0;
        let (phase, device) = (known.phase, known.device);
        match (phase, message) {
            (Phase::Fresh, ClientMessage::Hello(hello)) => self.greet(session, &hello, now),
            (Phase::Greeted, ClientMessage::Enroll(enroll)) => self.enroll(session, enroll, now),
            (Phase::Greeted, ClientMessage::Attach(attach)) => self.attach(session, attach, now),
            (Phase::Greeted | Phase::Attached, ClientMessage::Ping(nonce)) => {
                let pong = Pong {
                    nonce,
                    now: now.unix,
                };
                self.send(session, ControllerMessage::Pong(pong));
            }
            (Phase::Greeted | Phase::Attached, ClientMessage::Leave(_)) => {
                self.leave(session, device, now);
            }
            (Phase::Attached, ClientMessage::Report(report)) => {
                self.report(session, device, report, now);
            }
            (Phase::Attached, ClientMessage::Endpoints(update)) => {
                self.move_endpoints(session, device, &update, now);
            }
            (Phase::Attached, ClientMessage::Ack(generation)) => {
                self.acknowledge(device, generation);
            }
            (Phase::Attached, ClientMessage::Keys(update)) => {
                self.take_keys(session, device, update, now);
            }
            (Phase::Attached, ClientMessage::Why(question)) => {
                self.why(session, device, &question, now);
            }
            (Phase::Attached, ClientMessage::Resync(_)) => {
                if self.limits(device, now.mono).maps.take(1, now.mono) {
                    self.send_map(device, session, None, now);
                } else {
                    // It would wait for it.
                    self.close(
                        session,
                        RefusalCode::RateLimited,
                        "this device asks for everything too often; wait a few seconds",
                    );
                }
            }
            _ => self.close(
                session,
                RefusalCode::Protocol,
                "the message is out of place here",
            ),
        }
    }

    pub(super) fn refuse(&mut self, session: SessionId, code: RefusalCode, message: &str) {
        let refusal = Refusal {
            code,
            message: message.to_owned(),
        };
        self.send(session, ControllerMessage::Refused(refusal));
    }

    fn greet(&mut self, session: SessionId, hello: &ClientHello, now: Now) {
        let minor = hello.max_minor.min(MAX_MINOR);
        if minor < hello.min_minor.max(MIN_MINOR) {
            let message = format!(
                "this controller speaks minor versions {MIN_MINOR} to {MAX_MINOR}, the client {} to \
                 {}; update the older of the two",
                hello.min_minor, hello.max_minor
            );
            self.close(session, RefusalCode::Version, &message);
            return;
        }
        let binding = self.binding(now.unix);
        let Some(known) = self.sessions.get_mut(&session) else {
            return;
        };
        known.phase = Phase::Greeted;
        let (device, observed) = (known.device, known.from);
        let standing = self.standing(&device, now);
        let hello = ControllerHello {
            minor,
            binding,
            now: now.unix,
            standing,
            observed,
        };
        self.send(session, ControllerMessage::Hello(hello));
        match standing {
            Standing::Unknown => self.unknown_keys = self.unknown_keys.saturating_add(1),
            Standing::Expired => self.note_no_session(device, "the key has expired", now),
            Standing::Revoked => {
                self.note_no_session(device, "the key is revoked", now);
                self.close(
                    session,
                    RefusalCode::Standing,
                    "this key is revoked; ask an administrator for an invite, and enroll anew",
                );
            }
            Standing::Pending | Standing::Approved | Standing::Quarantined => {}
        }
    }

    /// A known key has proven itself, and gets no session for it.
    fn note_no_session(&mut self, device: DeviceId, why: &str, now: Now) {
        if self.limits(device, now.mono).attach.take(1, now.mono) {
            let audit = AuditEntry::refused("session.attach", self.picture.label(&device), why);
            self.note(Actor::Device(device), audit, now);
        }
    }

    fn attach(&mut self, session: SessionId, attach: Attach, now: Now) {
        let Some(known) = self.sessions.get(&session) else {
            return;
        };
        let (device, from) = (known.device, known.from);
        let standing = self.standing(&device, now);
        if !matches!(standing, Standing::Approved | Standing::Quarantined) {
            self.send(session, ControllerMessage::Standing(standing));
            self.refuse(
                session,
                RefusalCode::Standing,
                "this device does not take part in the network; enroll, or wait for approval",
            );
            return;
        }
        // Before anything is done about it: to come back must not be cheaper than to ask for everything.
        if !self.limits(device, now.mono).maps.take(1, now.mono) {
            self.close(
                session,
                RefusalCode::RateLimited,
                "this device attaches too often; wait a few seconds",
            );
            return;
        }
        if let Err(why) = self.change_keys(device, attach.keys, now) {
            self.note_no_session(device, why, now);
            self.close(session, RefusalCode::Binding, why);
            return;
        }
        let replaced = self.attached.get(&device).copied();
        let clash = replaced
            .and_then(|other| self.address_of(other))
            .filter(|other| other.ip() != from.ip());
        if let Some(other) = replaced {
            self.close(
                other,
                RefusalCode::Replaced,
                "the same device has attached from elsewhere; if that was not you, its key is copied",
            );
        }
        let Some(known) = self.sessions.get_mut(&session) else {
            return;
        };
        known.phase = Phase::Attached;
        known.report = Some(attach.report.counter);
        self.timers.clear(Timer::Idle(session));
        self.timers.clear(Timer::Gone(device));
        self.attached.insert(device, session);
        if self.limits(device, now.mono).attach.take(1, now.mono) {
            let audit = AuditEntry::done("session.attach", self.picture.label(&device))
                .because(format!("key proven from {from}"));
            let audit = match clash {
                Some(other) => audit.detailed([format!(
                    "a live session from {other} was replaced: is the key in two places?"
                )]),
                None => audit,
            };
            self.note(Actor::Device(device), audit, now);
        }
        let software: String = text::printable(&attach.software).chars().take(64).collect();
        self.soft.devices.entry(device).or_default().software = Some(software);
        self.send_map(device, session, attach.have, now);
        self.move_endpoints(session, device, &attach.endpoints, now);
        self.take_report(device, attach.report, now);
        // A device without checks is told so, once.
        self.tell_posture(&device);
    }

    fn report(&mut self, session: SessionId, device: DeviceId, report: PostureReport, now: Now) {
        let Some(known) = self.sessions.get_mut(&session) else {
            return;
        };
        if known.report.is_some_and(|last| report.counter <= last) {
            self.refuse(
                session,
                RefusalCode::Protocol,
                "a posture report has to have a higher counter than the one before",
            );
            return;
        }
        known.report = Some(report.counter);
        self.take_report(device, report, now);
    }

    fn move_endpoints(
        &mut self,
        session: SessionId,
        device: DeviceId,
        update: &EndpointUpdate,
        now: Now,
    ) {
        let Some(from) = self.address_of(session) else {
            return;
        };
        let usable = endpoints::usable(update, from.ip(), &self.config.prefixes);
        if self.endpoints.get(&device) != Some(&usable) {
            self.endpoints.insert(device, usable);
            // Each move costs every peer a new table, so who moves without end is told of later,
            // with where it is then.
            if self.limits(device, now.mono).endpoints.take(1, now.mono) {
                self.timers.clear(Timer::Endpoints(device));
                self.spread_endpoints(device);
            } else if !self.timers.is_set(Timer::Endpoints(device)) {
                let at = now.mono.saturating_add(MOVES);
                self.timers.set(Timer::Endpoints(device), at);
            }
        }
    }

    fn take_keys(&mut self, session: SessionId, device: DeviceId, update: KeyUpdate, now: Now) {
        if let Err(why) = self.change_keys(device, update, now) {
            self.refuse(session, RefusalCode::Binding, why);
        }
    }

    /// Takes a device's WireGuard keys, if they are its own and no step back.
    fn change_keys(
        &mut self,
        device: DeviceId,
        update: KeyUpdate,
        now: Now,
    ) -> Result<(), &'static str> {
        let Some(known) = self.staged.devices().get(&device) else {
            return Err("the device is not known");
        };
        if known.keys == update {
            return Ok(());
        }
        let identity = known.identity;
        keys::check_update(
            &update,
            &known.keys,
            &identity,
            &self.fingerprint,
            &self.staged,
        )?;
        let before = known.keys.current.counter.to_string();
        let after = update.current.counter.to_string();
        if !self.limits(device, now.mono).take_keys(now.mono) {
            return Err("the WireGuard keys of this device change too often; wait a minute");
        }
        let audit = AuditEntry::done("device.keys", self.picture.label(&device))
            .because("the device has signed them")
            .from_to(before, after);
        let change = Change::KeysChanged {
            device,
            keys: Box::new(update),
        };
        self.stage(Actor::Device(device), change, audit, Vec::new(), now);
        Ok(())
    }

    pub(super) fn acknowledge(&mut self, device: DeviceId, generation: Generation) {
        let Some(held) = self.held.get_mut(&device) else {
            return;
        };
        // Nobody enforces what was not sent.
        if generation <= held.generation && held.acked.is_none_or(|acked| acked < generation) {
            held.acked = Some(generation);
            held.losses.confirm(generation);
            self.confirmed(device, generation);
        }
    }

    fn why(&mut self, session: SessionId, device: DeviceId, question: &WhyRequest, now: Now) {
        let peer = self.find_device(&question.peer).map(|device| device.id);
        let port = match question.protocol {
            Protocol::Tcp | Protocol::Udp => question.port,
            Protocol::Any | Protocol::Icmp => 0,
        };
        let mut reply = explain::why(
            &self.picture.view(),
            &device,
            peer.as_ref(),
            question.protocol,
            port,
            now.unix,
        );
        reply.request = question.request;
        self.send(session, ControllerMessage::Why(reply));
    }

    /// The device goes, of its own will.
    fn leave(&mut self, session: SessionId, device: DeviceId, now: Now) {
        self.enrollments.remove(&device);
        let is_known = self.staged.devices().contains_key(&device);
        if !is_known || self.staged.is_revoked(&device) {
            self.close(
                session,
                RefusalCode::Standing,
                "this device does not take part in the network",
            );
            return;
        }
        // Gone, it could come back with what is left of an invite, and no longer be quarantined.
        if self
            .staged
            .devices()
            .get(&device)
            .is_some_and(|known| known.status == DeviceStatus::Quarantined)
        {
            let message = "this device is quarantined; only an administrator can remove it";
            self.close(session, RefusalCode::Standing, message);
            return;
        }
        let audit = AuditEntry::done("device.delete", self.picture.label(&device))
            .because("the device has left");
        let effects = vec![Effect::End(device, Standing::Unknown)];
        let change = Change::DeviceRemoved { device };
        self.stage(Actor::Device(device), change, audit, effects, now);
    }
}
