//! Connecting, the hello, and what a session may say in which phase.

use std::time::Duration;

use gatereeve_shared::identity::fingerprint::Fingerprint;
use gatereeve_shared::posture::fact::PostureReport;
use gatereeve_shared::time::{Now, UnixMillis};
use gatereeve_shared::wire::client::{Attach, ClientMessage};
use gatereeve_shared::wire::controller::{
    ControllerHello, ControllerMessage, Pong, Refusal, RefusalCode, Standing,
};

use super::shown;
use super::{Engine, Timer};
use crate::control::link::{Link, Phase, Resync, Session};
use crate::lease;
use crate::output::Output;
use crate::posture::report;

/// The shell has this long to connect.
const CONNECTING: Duration = Duration::from_secs(30);
/// Time between two pings.
const PING: Duration = Duration::from_secs(30);
/// A ping is answered within this time, or the session is over.
const PONG: Duration = Duration::from_secs(10);
/// An attach that brought no map within this time after a ping had nothing to bring.
const QUIET: Duration = Duration::from_millis(500);
/// The wait where trying again soon helps nobody: replaced, refused, not a device.
const SLOW: Duration = Duration::from_secs(120);
/// The wait of a revoked device: its key will not be good again.
const FINAL: Duration = Duration::from_secs(900);
/// Posture checks that are remembered.
const MOST_CHECKS: usize = 1024;

impl Engine {
    pub(super) fn connect(&mut self, now: Now) {
        if !self.up {
            return;
        }
        self.timers.clear(Timer::Connect);
        self.link = Link::Connecting;
        self.await_connection(now);
        self.turn.push(Output::Connect {
            attempt: self.backoff.attempts(),
        });
    }

    pub(super) fn await_connection(&mut self, now: Now) {
        self.timers
            .set(Timer::Connecting, now.mono.saturating_add(CONNECTING));
    }

    /// A session with a controller has begun; its binding was checked.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a hello is good for one session"
    )]
    pub fn handle_connected(&mut self, hello: ControllerHello, now: Now) {
        self.begin(now);
        if !self.up || !matches!(self.link, Link::Connecting | Link::Idle) {
            self.turn.push(Output::Disconnect);
        } else if Fingerprint::of(&hello.binding.network) == self.config.network {
            self.open_session(&hello, now);
        } else {
            self.lose_session("controller key mismatch", now);
        }
        self.settle(now);
    }

    fn open_session(&mut self, hello: &ControllerHello, now: Now) {
        self.timers.clear(Timer::Connecting);
        self.timers.clear(Timer::Connect);
        self.set_clock(hello.now, now, now);
        let loopback = hello.observed.ip().to_canonical().is_loopback();
        if self.stored.loopback != loopback {
            self.stored.loopback = loopback;
            self.dirty.table = true;
            self.dirty.save = true;
        }
        self.posture.session_began();
        self.link = Link::Up(Box::new(Session {
            since: now.mono,
            network_key: hello.binding.network,
            standing: hello.standing,
            phase: Phase::Waiting,
            reports: 0,
            resync: Resync::Settled,
            has_base: false,
            ping: None,
            acked: None,
        }));
        tracing::info!(standing = ?hello.standing, "connected to the controller");
        self.arm_ping(now);
        if !self.posture.is_awaited(now) {
            self.collect_posture(now);
        }
        self.arm_collection(now);
        self.take_standing(hello.standing, now);
    }

    /// The session is over, or an attempt to connect has failed.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "the shell has no more use for it"
    )]
    pub fn handle_disconnected(&mut self, error: String, now: Now) {
        self.begin(now);
        if matches!(self.link, Link::Up(_) | Link::Connecting) {
            self.end_session(&error, now);
        }
        self.settle(now);
    }

    /// Gives a session up from this side.
    pub(super) fn lose_session(&mut self, error: &str, now: Now) {
        self.turn.push(Output::Disconnect);
        self.end_session(error, now);
    }

    fn end_session(&mut self, error: &str, now: Now) {
        let was_up = match &self.link {
            Link::Up(session) => {
                self.backoff.session_ended(session.since, now.mono);
                tracing::info!(error = %shown(error), "the connection to the controller has ended; what it allowed holds until its leases end");
                true
            }
            Link::Off | Link::Idle | Link::Connecting => false,
        };
        self.forget_session();
        self.link = Link::Idle;
        // A refusal says more than the end of the connection behind it.
        if !was_up || self.last_error.is_none() {
            self.last_error = Some(shown(error));
        }
        self.answer_all_from_map(now);
        // A session that ends says nothing of the controller's reach; an attempt that fails does.
        if !was_up {
            self.release_gate(now);
        }
        let wait = match self.stored.standing {
            Some(Standing::Revoked) => Some(FINAL),
            Some(Standing::Expired) => Some(SLOW),
            Some(Standing::Unknown) if self.stored.enrollment.is_none() => Some(SLOW),
            _ => self.slow_down.then_some(SLOW),
        };
        let delay = match wait {
            Some(wait) => self.random.around(wait),
            None => self.backoff.next(&mut self.random),
        };
        self.slow_down = false;
        self.timers
            .set(Timer::Connect, now.mono.saturating_add(delay));
    }

    /// Stops having to do with the controller.
    pub(super) fn hang_up(&mut self, now: Now) {
        if !matches!(self.link, Link::Off | Link::Idle) {
            self.turn.push(Output::Disconnect);
        }
        self.forget_session();
        self.timers.clear(Timer::Connect);
        self.link = Link::Off;
        self.last_error = None;
        self.answer_all_from_map(now);
    }

    fn forget_session(&mut self) {
        self.assembler.clear();
        for timer in [
            Timer::Connecting,
            Timer::Ping,
            Timer::Pong,
            Timer::Attach,
            Timer::Quiet,
            Timer::Collect,
            Timer::Report,
        ] {
            self.timers.clear(timer);
        }
    }

    /// Something that the controller said.
    pub fn handle_control(&mut self, message: ControllerMessage, now: Now) {
        self.begin(now);
        if self.link.session().is_some() {
            match message {
                // A second hello is out of place; the shell took the first.
                ControllerMessage::Hello(_) => {}
                ControllerMessage::Enrolled(reply) => self.on_enrolled(reply, now),
                ControllerMessage::Map(update) => self.on_map(update, now),
                ControllerMessage::Renew(renewal) => self.on_renewal(&renewal, now),
                ControllerMessage::Endpoints(changes) => self.on_endpoints(changes, now),
                ControllerMessage::Posture(mut checks) => {
                    checks.truncate(MOST_CHECKS);
                    self.checks = checks;
                }
                ControllerMessage::Why(reply) => self.on_why(reply, now),
                ControllerMessage::Pong(pong) => self.on_pong(&pong, now),
                ControllerMessage::Refused(refusal) => self.on_refused(refusal, now),
                ControllerMessage::Standing(standing) => self.take_standing(standing, now),
            }
        }
        self.settle(now);
    }

    /// Attaches as soon as there are facts to attach with, and after a short wait without.
    pub(super) fn attach(&mut self, now: Now) {
        self.timers.clear(Timer::Attach);
        let keys = self
            .keys
            .update(&self.config.identity, &self.config.network);
        // A map counts as held only when it is enforced: what is announced here is as good as an
        // acknowledgement.
        let have = self
            .enforced
            .filter(|enforced| !self.is_from_disk && self.held_generation() == Some(*enforced));
        let report = match self.posture.facts() {
            Some(facts) => report::report(1, facts, now),
            None => PostureReport {
                counter: 1,
                facts: Vec::new(),
            },
        };
        let Some(session) = self.link.session_mut() else {
            return;
        };
        session.phase = Phase::Attached;
        session.acked = have;
        session.has_base = have.is_some();
        session.reports = 1;
        if self.posture.facts().is_some() {
            self.posture.reported(now);
        }
        self.say(ClientMessage::Attach(Attach {
            keys,
            endpoints: self.own_endpoints(),
            have,
            report,
            software: self.config.software.clone(),
        }));
        self.arm_collection(now);
        self.ping(now);
    }

    pub(super) fn held_generation(&self) -> Option<gatereeve_shared::generation::Generation> {
        self.stored.map.as_ref().map(|map| map.generation)
    }

    fn arm_ping(&mut self, now: Now) {
        let delay = self.random.around(PING);
        self.timers.set(Timer::Ping, now.mono.saturating_add(delay));
    }

    pub(super) fn ping(&mut self, now: Now) {
        let nonce = self.number();
        let Some(session) = self.link.session_mut() else {
            return;
        };
        session.ping = Some((nonce, now));
        self.timers.set(Timer::Pong, now.mono.saturating_add(PONG));
        self.say(ClientMessage::Ping(nonce));
        self.arm_ping(now);
    }

    fn on_pong(&mut self, pong: &Pong, now: Now) {
        let have_map = self.held_generation().is_some();
        let Some(session) = self.link.session_mut() else {
            return;
        };
        let Some((_, asked)) = session.ping.take_if(|(nonce, _)| *nonce == pong.nonce) else {
            return;
        };
        let phase = session.phase;
        self.timers.clear(Timer::Pong);
        // It read its clock after it was asked. So leases end early by what the answer took, and not late: somebody on the
        // way who holds answers up makes none last longer.
        self.set_clock(pong.now, asked, now);
        match phase {
            Phase::Synced => self.release_gate(now),
            Phase::Attached if have_map && self.assembler.is_empty() => self
                .timers
                .set(Timer::Quiet, now.mono.saturating_add(QUIET)),
            Phase::Attached | Phase::Waiting | Phase::Collecting => {}
        }
    }

    /// Takes the time that the controller had `at` this instant. What had ended under the old one stays so until it is
    /// renewed.
    fn set_clock(&mut self, controller: UnixMillis, at: Now, now: Now) {
        let before = self
            .clock
            .now(now)
            .filter(|_| self.clock.is_from_controller());
        if self.clock.set(controller, at) {
            if let (Some(before), Some(map)) = (before, &mut self.stored.map) {
                lease::bury_ended(map, before);
            }
            self.dirty.table = true;
        }
    }

    fn on_refused(&mut self, refusal: Refusal, now: Now) {
        match refusal.code {
            // Two that replace each other must not do so in a circle.
            RefusalCode::Replaced | RefusalCode::Version | RefusalCode::Standing => {
                self.slow_down = true;
                if refusal.code == RefusalCode::Standing
                    && let Some(session) = self.link.session_mut()
                {
                    // Attached too early: wait for the word that it may.
                    session.phase = Phase::Waiting;
                }
            }
            RefusalCode::Binding => {
                self.alarm(format!(
                    "the controller refused a key: {}",
                    shown(&refusal.message)
                ));
            }
            RefusalCode::Invite
            | RefusalCode::RateLimited
            | RefusalCode::Protocol
            | RefusalCode::Unavailable
            | RefusalCode::ShuttingDown => {}
        }
        tracing::info!(code = ?refusal.code, "refused by the controller");
        self.refused(refusal, now);
    }
}
