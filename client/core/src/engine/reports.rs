//! Posture and endpoints: what the device says of itself.

use gatereeve_shared::limits;
use gatereeve_shared::time::Now;
use gatereeve_shared::wire::client::{ClientMessage, EndpointUpdate};
use std::net::SocketAddr;

use super::{Engine, Timer};
use crate::control::link::{Link, Phase};
use crate::datapath::DataPathEvent;
use crate::output::{ObservedFact, Output};
use crate::posture::report;
use crate::posture::schedule::ReportWhen;

impl Engine {
    /// Everything that the collectors found, in answer to [`Output::CollectPosture`] or because
    /// something that is watched has changed.
    pub fn handle_posture(&mut self, facts: Vec<ObservedFact>, now: Now) {
        self.begin(now);
        let when = self.posture.collected(facts, now);
        match self.link.session().map(|session| session.phase) {
            Some(Phase::Collecting) => self.attach(now),
            Some(Phase::Attached | Phase::Synced) => match when {
                ReportWhen::Now => self.report(now),
                ReportWhen::At(at) => self.timers.set(Timer::Report, at),
                ReportWhen::Not => {}
            },
            Some(Phase::Waiting) | None => {}
        }
        self.settle(now);
    }

    pub(super) fn report(&mut self, now: Now) {
        self.timers.clear(Timer::Report);
        let (Some(facts), true) = (self.posture.facts(), self.link.attached().is_some()) else {
            return;
        };
        let Some(session) = self.link.session_mut() else {
            return;
        };
        session.reports = session.reports.saturating_add(1);
        let report = report::report(session.reports, facts, now);
        self.posture.reported(now);
        self.say(ClientMessage::Report(report));
    }

    /// Asks for facts, and again after the interval.
    pub(super) fn collect_posture(&mut self, now: Now) {
        self.posture.due(now);
        let watched = self
            .stored
            .this
            .as_ref()
            .map(|this| this.watched_processes.clone())
            .unwrap_or_default();
        self.turn.push(Output::CollectPosture { watched });
        if self.link.session().is_some() {
            self.arm_collection(now);
        }
    }

    pub(super) fn arm_collection(&mut self, now: Now) {
        if self.link.session().is_some() {
            let delay = self.posture.interval(&mut self.random);
            self.timers
                .set(Timer::Collect, now.mono.saturating_add(delay));
        }
    }

    /// Where this device's WireGuard socket can be reached: its port, and the interfaces' addresses
    /// with it, best first.
    pub fn handle_endpoints(&mut self, listen_port: u16, interfaces: Vec<SocketAddr>, now: Now) {
        self.begin(now);
        let before = self.own_endpoints();
        self.endpoints = EndpointUpdate {
            listen_port,
            endpoints: interfaces.into_iter().take(limits::ENDPOINTS * 4).collect(),
        };
        let after = self.own_endpoints();
        if before != after {
            // Where there was no way to the controller there may be one now: not at the end of a delay.
            if self.up && !after.endpoints.is_empty() && matches!(self.link, Link::Idle) {
                self.backoff.reset();
                self.connect(now);
            }
            if self.link.attached().is_some() {
                self.say(ClientMessage::Endpoints(after));
            }
        }
        self.settle(now);
    }

    /// Own endpoints that are of use to others.
    pub(super) fn own_endpoints(&self) -> EndpointUpdate {
        EndpointUpdate {
            listen_port: self.endpoints.listen_port,
            endpoints: self
                .endpoint_rules()
                .usable(self.endpoints.endpoints.iter().copied()),
        }
    }

    /// Something that the data path noticed.
    pub fn handle_event(&mut self, event: DataPathEvent, now: Now) {
        self.begin(now);
        match event {
            DataPathEvent::EndpointMoved { device, endpoint } => {
                // The data path goes there already; the next table must not lead it back.
                if self.in_table.contains(&device) {
                    self.learned.insert(device, endpoint);
                }
            }
            DataPathEvent::KeyInUse {
                device,
                local_counter,
                ..
            } => self.on_key_in_use(device, local_counter, now),
            DataPathEvent::HandshakeGivenUp { device } => {
                self.learned.remove(&device);
            }
            DataPathEvent::HandshakeDone { .. } | DataPathEvent::Denied { .. } => {}
        }
        self.settle(now);
    }
}
