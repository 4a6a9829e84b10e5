//! The shells' part: carrying out what the cores ask for, over links with delay.

use std::net::SocketAddr;
use std::time::Duration;

use gatereeve_client_core::output::{ObservedFact, Output as DeviceOutput};
use gatereeve_controller_core::audit::chain::EncodedRecord;
use gatereeve_controller_core::output::{Output, SessionId};
use gatereeve_shared::posture::fact::FactValue;
use gatereeve_shared::wire::client::{ClientHello, ClientMessage};
use gatereeve_shared::wire::controller::ControllerMessage;
use gatereeve_shared::wire::{MAX_MINOR, MIN_MINOR};

use crate::device::delay;
use crate::model::Snapshot;
use crate::packets;
use crate::world::{Event, World};

impl World {
    pub(crate) fn append(&mut self, life: u64, ticket: u64, records: &[EncodedRecord]) {
        if life != self.life {
            return;
        }
        let result = if self.is_disk_full {
            Err("the disk is full".to_owned())
        } else {
            self.write(records);
            Ok(())
        };
        self.controller.handle_appended(ticket, result, self.now);
        self.drain_controller();
    }

    pub(crate) fn open(&mut self, at: usize, session: SessionId) {
        let device = &self.devices[at];
        if device.session != Some(session) {
            return;
        }
        self.sessions.insert(session, at);
        let key = device.identity.public();
        self.controller
            .handle_opened(session, key, device.endpoint, self.now);
        let hello = ClientHello {
            min_minor: MIN_MINOR,
            max_minor: MAX_MINOR,
        };
        self.controller
            .handle_message(session, ClientMessage::Hello(hello), self.now);
        self.drain_controller();
    }

    pub(crate) fn lose(&mut self, at: usize, why: &str) {
        self.devices[at]
            .engine
            .handle_disconnected(why.to_owned(), self.now);
        self.drain_device(at);
    }

    pub(crate) fn reach_controller(&mut self, session: SessionId, message: ClientMessage) {
        if self.sessions.contains_key(&session) {
            self.controller.handle_message(session, message, self.now);
            self.drain_controller();
        }
    }

    pub(crate) fn reach_device(
        &mut self,
        at: usize,
        session: SessionId,
        message: ControllerMessage,
    ) {
        let device = &mut self.devices[at];
        if device.session != Some(session) {
            return;
        }
        device.heard_at = self.now.mono;
        if let ControllerMessage::Hello(hello) = message {
            device.engine.handle_connected(hello, self.now);
        } else {
            device.engine.handle_control(message, self.now);
        }
        self.drain_device(at);
    }

    pub(crate) fn closed_by_device(&mut self, session: SessionId) {
        if self.sessions.remove(&session).is_some() {
            self.controller.handle_closed(session, self.now);
            self.drain_controller();
        }
    }

    pub(crate) fn collected(&mut self, at: usize) {
        let device = &mut self.devices[at];
        let fact = ObservedFact {
            id: "custom.healthy".into(),
            value: FactValue::Bool(device.is_healthy),
            source: "simulation".into(),
            observed: self.now.mono,
        };
        device.engine.handle_posture(vec![fact], self.now);
        self.drain_device(at);
    }

    /// Records become durable: chained, applied to the mirror, remembered by the model.
    pub(crate) fn write(&mut self, records: &[EncodedRecord]) {
        for encoded in records {
            let record = encoded
                .follow(self.mirror.generation(), &self.mirror.head())
                .unwrap();
            assert!(!record.audit.action.is_empty(), "promise 5: {record:?}");
            self.mirror.apply(&record, encoded.hash);
            self.journal.push(encoded.clone());
            let text = self.mirror.policy().map(|policy| policy.text.clone());
            let rules = text
                .map(|text| self.policies[&text].clone())
                .unwrap_or_default();
            let snapshot = Snapshot::of(&self.mirror, rules);
            self.snapshots.insert(record.generation.n, snapshot);
        }
    }

    pub(crate) fn drain_controller(&mut self) {
        while let Some(output) = self.controller.poll_output() {
            match output {
                Output::Append { ticket, records } => {
                    let after = Duration::from_micros(200 + self.random.below(4000) as u64);
                    // The journal keeps its order.
                    let at = self.queue.iter().rev().find_map(|((at, _), event)| {
                        matches!(event, Event::Append { .. }).then_some(*at)
                    });
                    let at = at
                        .unwrap_or_default()
                        .max(self.now.mono.saturating_add(after));
                    let life = self.life;
                    self.at(
                        at,
                        Event::Append {
                            life,
                            ticket,
                            records,
                        },
                    );
                }
                Output::Soft(rows) => {
                    for (key, value) in rows {
                        match value {
                            Some(value) => self.soft.insert(key, value),
                            None => self.soft.remove(&key),
                        };
                    }
                }
                Output::Send { session, message } => {
                    if let Some(device) = self.sessions.get(&session).copied() {
                        let at = self.arrival(session, false);
                        if !self.devices[device].is_cut_off {
                            let message = Box::new(message);
                            self.at(
                                at,
                                Event::ToDevice {
                                    device,
                                    session,
                                    message,
                                },
                            );
                        }
                    }
                }
                Output::Close { session, refusal } => {
                    if let Some(device) = self.sessions.remove(&session) {
                        if let Some(refusal) = refusal {
                            let at = self.arrival(session, false);
                            let message = Box::new(ControllerMessage::Refused(refusal));
                            self.at(
                                at,
                                Event::ToDevice {
                                    device,
                                    session,
                                    message,
                                },
                            );
                        }
                        let at = self.arrival(session, false);
                        self.at(at, Event::ClosedByController { device, session });
                    }
                    self.controller.handle_closed(session, self.now);
                }
                Output::Reply { request, result } => {
                    self.replies.insert(request.0, result);
                }
                Output::Tables(_) | Output::Checkpoint(_) => {}
            }
        }
    }

    /// When the next message of a session arrives: after all before it.
    fn arrival(&mut self, session: SessionId, to_controller: bool) -> gatereeve_shared::time::Mono {
        let at = self.now.mono.saturating_add(delay(&mut self.random));
        let last = self.arrivals.entry((session, to_controller)).or_default();
        *last = at.max(*last);
        *last
    }

    pub(crate) fn drain_device(&mut self, at: usize) {
        loop {
            while let Some(output) = self.devices[at].engine.poll_output() {
                self.carry_out(at, output);
            }
            // All workers are between two batches here.
            let device = &mut self.devices[at];
            let serial = device.datapath.enforced();
            device.engine.handle_enforced(serial, self.now);
            let Some(output) = device.engine.poll_output() else {
                return;
            };
            self.carry_out(at, output);
        }
    }

    fn carry_out(&mut self, at: usize, output: DeviceOutput) {
        let now = self.now;
        let device = &mut self.devices[at];
        match output {
            DeviceOutput::Publish(spec) => {
                device.table = Some(spec.generation);
                device.datapath.publish(spec, now.mono);
            }
            DeviceOutput::OpenUntil(until) => device.datapath.open_until(until),
            DeviceOutput::Shut => device.datapath.shut(),
            DeviceOutput::Save(stored) => device.stored = *stored,
            DeviceOutput::Connect { .. } => {
                if device.is_cut_off {
                    self.later(Duration::from_secs(5), Event::ConnectFailed { device: at });
                } else {
                    let session = SessionId(self.next_session);
                    self.next_session += 1;
                    device.session = Some(session);
                    let after = delay(&mut self.random) * 3;
                    self.later(
                        after,
                        Event::Open {
                            device: at,
                            session,
                        },
                    );
                }
            }
            DeviceOutput::Disconnect => {
                if let Some(session) = device.session.take() {
                    let due = self.arrival(session, true);
                    self.at(due, Event::ClosedByDevice { session });
                }
            }
            DeviceOutput::Send(message) => {
                if let Some(session) = device.session.filter(|_| !device.is_cut_off) {
                    let due = self.arrival(session, true);
                    let message = Box::new(message);
                    self.at(due, Event::ToController { session, message });
                }
            }
            DeviceOutput::CollectPosture { .. } => {
                let after = Duration::from_millis(20 + self.random.below(200) as u64);
                self.later(after, Event::Collected { device: at });
            }
            DeviceOutput::Host(_) | DeviceOutput::WhyAnswer { .. } | DeviceOutput::Enrolled(_) => {}
        }
    }

    /// Sends what the data path wants sent, checks what it delivers.
    pub(crate) fn empty_outbox(&mut self, at: usize) {
        let device = &mut self.devices[at];
        let sent: Vec<(SocketAddr, Vec<u8>)> = device
            .outbox
            .transmits()
            .map(|(to, bytes)| (to, bytes.to_vec()))
            .collect();
        let delivered: Vec<Vec<u8>> = device.outbox.deliveries().map(<[u8]>::to_vec).collect();
        let events: Vec<_> = device.outbox.take_events().collect();
        device.outbox.give_back(&mut device.batch);
        let from = device.endpoint;
        for event in events {
            self.devices[at].engine.handle_event(event, self.now);
            self.drain_device(at);
        }
        for (to, bytes) in sent {
            if self.loss > 0 && self.random.one_in(self.loss) {
                continue;
            }
            if self.random.one_in(50) {
                let after = delay(&mut self.random);
                self.later(
                    after,
                    Event::Datagram {
                        from,
                        to,
                        bytes: bytes.clone(),
                    },
                );
            }
            let after = delay(&mut self.random);
            self.later(after, Event::Datagram { from, to, bytes });
        }
        for packet in delivered {
            self.take_delivery(at, &packet);
        }
    }

    fn take_delivery(&mut self, at: usize, packet: &[u8]) {
        // Errors that the data path makes for the local application are not UDP.
        let Some(parsed) = packets::parse(packet) else {
            return;
        };
        self.check_delivery(at, &parsed);
        self.delivered += 1;
        if parsed.request().is_some() {
            self.send(at, &parsed.reply());
        }
    }

    /// Hands a packet to a device's TUN interface.
    pub(crate) fn send(&mut self, at: usize, packet: &[u8]) {
        let device = &mut self.devices[at];
        device.batch.push(packet, None);
        device
            .datapath
            .outbound(&mut device.batch, self.now.mono, &mut device.outbox);
        self.empty_outbox(at);
    }

    pub(crate) fn datagram(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let Some(at) = self.devices.iter().position(|device| device.endpoint == to) else {
            return;
        };
        let device = &mut self.devices[at];
        device.batch.push(bytes, Some(from));
        device
            .datapath
            .inbound(&mut device.batch, self.now.mono, &mut device.outbox);
        self.empty_outbox(at);
    }
}
