//! The simulated world: one virtual clock, one queue of what is under way, and who takes part.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use gatereeve_controller_core::audit::chain::EncodedRecord;
use gatereeve_controller_core::command::{CommandError, Reply};
use gatereeve_controller_core::controller::{Controller, ControllerConfig};
use gatereeve_controller_core::output::SessionId;
use gatereeve_controller_core::state::State;
use gatereeve_controller_core::state::soft::SoftState;
use gatereeve_shared::identity::fingerprint::Fingerprint;
use gatereeve_shared::identity::identity_key::IdentityKey;
use gatereeve_shared::time::{Mono, Now, UnixMillis};
use gatereeve_shared::wire::client::ClientMessage;
use gatereeve_shared::wire::controller::ControllerMessage;
use gatereeve_shared::wire::map::OverlayPrefixes;
use gatereeve_tests::random::Random;

use crate::device::{Device, delay};
use crate::model::{Rules, Snapshot};

const TICK: Duration = Duration::from_millis(250);

/// Something under way.
pub(crate) enum Event {
    Tick,
    Append {
        life: u64,
        ticket: u64,
        records: Vec<EncodedRecord>,
    },
    Open {
        device: usize,
        session: SessionId,
    },
    ConnectFailed {
        device: usize,
    },
    ToController {
        session: SessionId,
        message: Box<ClientMessage>,
    },
    ToDevice {
        device: usize,
        session: SessionId,
        message: Box<ControllerMessage>,
    },
    ClosedByDevice {
        session: SessionId,
    },
    ClosedByController {
        device: usize,
        session: SessionId,
    },
    Collected {
        device: usize,
    },
    Datagram {
        from: SocketAddr,
        to: SocketAddr,
        bytes: Vec<u8>,
    },
}

pub(crate) struct World {
    pub(crate) random: Random,
    pub(crate) now: Now,
    pub(crate) queue: BTreeMap<(Mono, u64), Event>,
    sequence: u64,
    /// When the last message of a session arrives, in each direction: they keep their order.
    pub(crate) arrivals: BTreeMap<(SessionId, bool), Mono>,

    pub(crate) controller: Controller,
    /// Counts the controller's lives: what was under way in an earlier one answers nobody.
    pub(crate) life: u64,
    network_key: [u8; 32],
    pub(crate) journal: Vec<EncodedRecord>,
    /// The fold of the journal, made here.
    pub(crate) mirror: State,
    pub(crate) soft: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(crate) is_disk_full: bool,
    pub(crate) sessions: BTreeMap<SessionId, usize>,
    pub(crate) next_session: u64,
    pub(crate) next_request: u64,
    pub(crate) replies: BTreeMap<u64, Result<Reply, CommandError>>,

    pub(crate) devices: Vec<Device>,
    /// One in this many datagrams is lost; 0 for none.
    pub(crate) loss: usize,

    /// By text, as the journal knows policies.
    pub(crate) policies: BTreeMap<String, Rules>,
    pub(crate) snapshots: BTreeMap<u64, Snapshot>,
    pub(crate) delivered: u64,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let now = Now {
            mono: Mono(1_000_000_000_000),
            unix: UnixMillis(1_800_000_000_000),
        };
        let network_key = random.seed32();
        let controller = controller(
            &network_key,
            State::empty(),
            SoftState::default(),
            &mut random,
            now,
        );
        let mut world = Self {
            random,
            now,
            queue: BTreeMap::new(),
            sequence: 0,
            arrivals: BTreeMap::new(),
            controller,
            life: 0,
            network_key,
            journal: Vec::new(),
            mirror: State::empty(),
            soft: BTreeMap::new(),
            is_disk_full: false,
            sessions: BTreeMap::new(),
            next_session: 1,
            next_request: 1,
            replies: BTreeMap::new(),
            devices: Vec::new(),
            loss: 0,
            policies: BTreeMap::new(),
            snapshots: BTreeMap::from([(0, Snapshot::default())]),
            delivered: 0,
        };
        world.later(TICK, Event::Tick);
        for _ in 0..4 {
            world.enroll();
        }
        world.apply_policy();
        world.run_for(Duration::from_secs(10));
        world
    }

    /// What clients pin.
    pub(crate) fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&IdentityKey::from_seed(&self.network_key).public())
    }

    /// Puts an event into the queue.
    pub(crate) fn later(&mut self, after: Duration, event: Event) {
        self.at(self.now.mono.saturating_add(after), event);
    }

    pub(crate) fn at(&mut self, at: Mono, event: Event) {
        self.sequence += 1;
        self.queue.insert((at, self.sequence), event);
    }

    /// The controller dies at once. Of what it was writing, a part that nobody knows is there.
    pub(crate) fn crash_controller(&mut self) {
        let written = self.random.below(3);
        let under_way: Vec<_> = self
            .queue
            .iter()
            .filter(|(_, event)| matches!(event, Event::Append { life, .. } if *life == self.life))
            .map(|(key, _)| *key)
            .collect();
        for (number, key) in under_way.into_iter().enumerate() {
            if let Some(Event::Append { records, .. }) = self.queue.remove(&key)
                && number < written
                && !self.is_disk_full
            {
                self.write(&records);
            }
        }
        self.life += 1;
        let soft = if self.random.one_in(3) {
            SoftState::default()
        } else {
            SoftState::from_rows(self.soft.clone())
        };
        self.controller = controller(
            &self.network_key,
            self.mirror.clone(),
            soft,
            &mut self.random,
            self.now,
        );
        for (session, device) in std::mem::take(&mut self.sessions) {
            let after = delay(&mut self.random);
            self.later(after, Event::ClosedByController { device, session });
        }
        self.drain_controller();
    }

    /// Lets time pass, and everything happen that is due.
    pub(crate) fn run_for(&mut self, time: Duration) {
        let end = self.now.mono.saturating_add(time);
        loop {
            let timers = self
                .devices
                .iter()
                .map(|device| device.engine.poll_timeout())
                .chain([self.controller.poll_timeout()]);
            let due = timers
                .flatten()
                .chain(self.queue.keys().next().map(|(at, _)| *at))
                .min();
            let Some(due) = due.filter(|due| *due <= end) else {
                break;
            };
            self.pass_until(due);
            self.fire_timers();
            while let Some(entry) = self.queue.first_entry() {
                if entry.key().0 > self.now.mono {
                    break;
                }
                let event = entry.remove();
                self.handle(event);
            }
        }
        self.pass_until(end);
    }

    fn pass_until(&mut self, at: Mono) {
        if at > self.now.mono {
            self.now = self.now.after(at.since(self.now.mono));
        }
    }

    fn fire_timers(&mut self) {
        let now = self.now;
        if self
            .controller
            .poll_timeout()
            .is_some_and(|at| at <= now.mono)
        {
            self.controller.handle_timeout(now);
            self.drain_controller();
        }
        for at in 0..self.devices.len() {
            if self.devices[at]
                .engine
                .poll_timeout()
                .is_some_and(|due| due <= now.mono)
            {
                self.devices[at].engine.handle_timeout(now);
                self.drain_device(at);
            }
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Tick => {
                for at in 0..self.devices.len() {
                    let device = &mut self.devices[at];
                    device.datapath.tick(self.now.mono, &mut device.outbox);
                    self.empty_outbox(at);
                }
                self.later(TICK, Event::Tick);
            }
            Event::Datagram { from, to, bytes } => self.datagram(from, to, &bytes),
            Event::Append {
                life,
                ticket,
                records,
            } => self.append(life, ticket, &records),
            Event::Open { device, session } => self.open(device, session),
            Event::ConnectFailed { device } => self.lose(device, "no answer"),
            Event::ToController { session, message } => self.reach_controller(session, *message),
            Event::ToDevice {
                device,
                session,
                message,
            } => {
                self.reach_device(device, session, *message);
            }
            Event::ClosedByDevice { session } => self.closed_by_device(session),
            Event::ClosedByController { device, session } => {
                if self.devices[device].session == Some(session) {
                    self.devices[device].session = None;
                    self.lose(device, "closed");
                }
            }
            Event::Collected { device } => self.collected(device),
        }
    }
}

fn controller(
    network_key: &[u8; 32],
    state: State,
    soft: SoftState,
    random: &mut Random,
    now: Now,
) -> Controller {
    let config = ControllerConfig {
        network_name: "simulation".into(),
        prefixes: OverlayPrefixes {
            v4: "100.64.0.0/10".parse().unwrap(),
            v6: "fd00:1:2::/48".parse().unwrap(),
        },
        advertised: vec!["controller.example:8443".into()],
        version: "simulation".into(),
    };
    let tls = IdentityKey::from_seed(&[9; 32]).public();
    let key = IdentityKey::from_seed(network_key);
    Controller::new(config, key, tls, state, soft, random.seed32(), now)
}
