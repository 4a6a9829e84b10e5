//! One engine, a controller made of its keys, and a clock that only the test moves.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use gatereeve_client_core::datapath::TableSpec;
use gatereeve_client_core::engine::{Engine, EngineConfig};
use gatereeve_client_core::output::{ObservedFact, Output};
use gatereeve_client_core::stored::Stored;
use gatereeve_shared::generation::Generation;
use gatereeve_shared::identity::binding::{ControllerBinding, KeyBinding};
use gatereeve_shared::identity::fingerprint::Fingerprint;
use gatereeve_shared::identity::identity_key::IdentityKey;
use gatereeve_shared::identity::wg_key::WgSecret;
use gatereeve_shared::ids::{DeviceId, DeviceName, RuleId};
use gatereeve_shared::lease::Lease;
use gatereeve_shared::policy::filter::FilterRule;
use gatereeve_shared::posture::fact::FactValue;
use gatereeve_shared::time::{Now, UnixMillis};
use gatereeve_shared::wire::client::{Attach, ClientMessage};
use gatereeve_shared::wire::controller::{ControllerHello, ControllerMessage, Pong, Standing};
use gatereeve_shared::wire::map::{
    MapUpdate, OverlayAddresses, OverlayPrefixes, PeerEntry, SelfEntry,
};

/// Where controller time begins in the tests.
pub(crate) const EPOCH: u64 = 1_800_000_000_000;

pub(crate) struct World {
    pub(crate) engine: Engine,
    pub(crate) now: Now,
    /// Outputs of the last call, in order.
    pub(crate) out: Vec<Output>,
    /// The last table published.
    pub(crate) table: TableSpec,
    /// The last state saved.
    pub(crate) saved: Stored,
    /// Whether the data path confirms every table at once.
    pub(crate) prompt: bool,
}

pub(crate) fn identity(seed: u8) -> IdentityKey {
    IdentityKey::from_seed(&[seed; 32])
}

/// The network's key.
pub(crate) fn network() -> IdentityKey {
    identity(200)
}

pub(crate) fn pin() -> Fingerprint {
    Fingerprint::of(&network().public())
}

/// The device under test.
pub(crate) fn me() -> IdentityKey {
    identity(1)
}

pub(crate) fn id(seed: u8) -> DeviceId {
    identity(seed).public().device_id()
}

pub(crate) fn at(seconds: u64) -> UnixMillis {
    UnixMillis(EPOCH + seconds * 1000)
}

pub(crate) fn generation(n: u64) -> Generation {
    Generation { incarnation: 0, n }
}

pub(crate) fn wg(seed: u8, counter: u64) -> WgSecret {
    let mut bytes = [seed; 32];
    bytes[..8].copy_from_slice(&counter.to_be_bytes());
    WgSecret::from_bytes(bytes)
}

pub(crate) fn binding(seed: u8, counter: u64) -> KeyBinding {
    KeyBinding::sign(&identity(seed), &pin(), wg(seed, counter).public(), counter)
}

pub(crate) fn rule(name: &str, end: UnixMillis) -> FilterRule {
    hard_rule(name, end, UnixMillis::MAX)
}

pub(crate) fn hard_rule(name: &str, end: UnixMillis, hard_end: UnixMillis) -> FilterRule {
    FilterRule {
        rule: RuleId::new(name).unwrap(),
        ports: vec!["tcp:22".parse().unwrap()],
        lease: Lease::new(end, hard_end),
    }
}

/// A peer whose one rule lets this device reach it until `end`.
pub(crate) fn peer(seed: u8, end: UnixMillis) -> PeerEntry {
    PeerEntry {
        device: id(seed),
        name: DeviceName::new(format!("peer-{seed}")).unwrap(),
        addresses: addresses(seed),
        user: None,
        tags: Vec::new(),
        key: binding(seed, 1),
        next_key: None,
        endpoints: vec![SocketAddr::from(([192, 0, 2, seed], 51820))],
        ingress: Vec::new(),
        egress: vec![rule("ssh", end)],
    }
}

pub(crate) fn addresses(seed: u8) -> OverlayAddresses {
    OverlayAddresses {
        v4: [100, 64, 0, seed].into(),
        v6: [0xfd00, 1, 2, 0, 0, 0, 0, u16::from(seed)].into(),
    }
}

pub(crate) fn this() -> SelfEntry {
    SelfEntry {
        network: "home".into(),
        prefixes: OverlayPrefixes {
            v4: "100.64.0.0/10".parse().unwrap(),
            v6: "fd00:1:2::/48".parse().unwrap(),
        },
        device: id(1),
        name: DeviceName::new("laptop").unwrap(),
        addresses: addresses(1),
        tags: Vec::new(),
        user: None,
        key_expires: None,
        report_every_secs: 30,
        watched_processes: Vec::new(),
        rotate_key_secs: 86_400,
    }
}

pub(crate) fn whole(n: u64, peers: Vec<PeerEntry>) -> MapUpdate {
    MapUpdate {
        from: None,
        to: generation(n),
        this: Some(this()),
        removed: Vec::new(),
        upserted: peers,
        checkpoint: None,
        more: false,
    }
}

pub(crate) fn delta(from: u64, to: u64, removed: &[u8], upserted: Vec<PeerEntry>) -> MapUpdate {
    MapUpdate {
        from: Some(generation(from)),
        this: None,
        removed: removed.iter().map(|seed| id(*seed)).collect(),
        ..whole(to, upserted)
    }
}

pub(crate) fn hello(standing: Standing, now: UnixMillis) -> ControllerHello {
    let tls = identity(201).public();
    ControllerHello {
        minor: 1,
        binding: ControllerBinding::sign(&network(), tls, UnixMillis::MAX),
        now,
        standing,
        observed: "198.51.100.7:4000".parse().unwrap(),
    }
}

pub(crate) fn fact(id: &str, value: FactValue, now: Now) -> ObservedFact {
    ObservedFact {
        id: id.into(),
        value,
        source: "test".into(),
        observed: now.mono,
    }
}

impl World {
    /// A device at [`EPOCH`], up, connecting.
    pub(crate) fn new() -> Self {
        let mut world = Self::restored(Stored::default(), at(0));
        world.up();
        world
    }

    /// An engine after a start on `stored` with this wall clock; not up yet.
    pub(crate) fn restored(stored: Stored, unix: UnixMillis) -> Self {
        let now = Now {
            mono: Now::default().after(Duration::from_secs(100)).mono,
            unix,
        };
        let config = EngineConfig {
            software: "test".into(),
            identity: Arc::new(me()),
            network: pin(),
        };
        let mut world = Self {
            engine: Engine::new(config, stored.clone(), [9; 32], now),
            now,
            out: Vec::new(),
            table: TableSpec::default(),
            saved: stored,
            prompt: true,
        };
        world.drain();
        world
    }

    /// A device that is approved and holds this map.
    pub(crate) fn synced(peers: Vec<PeerEntry>) -> Self {
        let mut world = Self::new();
        world.connected(Standing::Approved);
        world.map(whole(1, peers));
        world
    }

    pub(crate) fn up(&mut self) {
        self.call(|engine, now| engine.handle_up(true, now));
    }

    /// Connects at the controller's time, which here is the wall clock's, and reports facts.
    pub(crate) fn connected(&mut self, standing: Standing) {
        let hello = hello(standing, self.now.unix);
        self.call(|engine, now| engine.handle_connected(hello, now));
        let mut before = std::mem::take(&mut self.out);
        if !before
            .iter()
            .any(|output| matches!(output, Output::Send(ClientMessage::Attach(_))))
        {
            self.facts(true);
            before.append(&mut self.out);
        }
        self.out = before;
        self.pong();
    }

    /// Answers the ping of the last call, if there was one; its outputs stay in sight.
    pub(crate) fn pong(&mut self) {
        if let Some(nonce) = self.ping() {
            let mut before = std::mem::take(&mut self.out);
            let now = self.now.unix;
            self.say(ControllerMessage::Pong(Pong { nonce, now }));
            before.append(&mut self.out);
            self.out = before;
        }
    }

    pub(crate) fn facts(&mut self, firewall: bool) {
        self.call(|engine, now| {
            engine.handle_posture(vec![fact("firewall", FactValue::Bool(firewall), now)], now);
        });
    }

    pub(crate) fn map(&mut self, update: MapUpdate) {
        self.say(ControllerMessage::Map(update));
    }

    pub(crate) fn say(&mut self, message: ControllerMessage) {
        self.call(|engine, now| engine.handle_control(message, now));
    }

    pub(crate) fn lost(&mut self) {
        self.call(|engine, now| engine.handle_disconnected("gone".into(), now));
    }

    pub(crate) fn enforced(&mut self, serial: u64) {
        self.call(|engine, now| engine.handle_enforced(serial, now));
    }

    /// One call, and all that comes of it.
    pub(crate) fn call(&mut self, call: impl FnOnce(&mut Engine, Now)) {
        call(&mut self.engine, self.now);
        self.drain();
    }

    fn drain(&mut self) {
        self.out.clear();
        self.take_outputs();
        if self.prompt && self.out.iter().any(|o| matches!(o, Output::Publish(_))) {
            self.engine.handle_enforced(self.table.serial, self.now);
            self.take_outputs();
        }
    }

    fn take_outputs(&mut self) {
        while let Some(output) = self.engine.poll_output() {
            match &output {
                Output::Publish(table) => {
                    assert!(table.serial > self.table.serial, "serials rise");
                    self.table = table.clone();
                }
                Output::Save(stored) => self.saved = (**stored).clone(),
                _ => {}
            }
            self.out.push(output);
        }
    }

    /// Lets time pass with every timer in its turn. Answers pings where told to.
    pub(crate) fn run(&mut self, time: Duration, answers: bool) -> Vec<(Now, Output)> {
        let end = self.now.after(time);
        let mut log = Vec::new();
        for _ in 0..1_000_000 {
            let Some(due) = self.engine.poll_timeout().filter(|due| *due <= end.mono) else {
                self.now = end;
                return log;
            };
            self.now = self.now.after(due.since(self.now.mono));
            self.call(Engine::handle_timeout);
            self.collect(&mut log);
            if answers {
                self.answer_pings(&mut log);
            }
        }
        panic!("the engine's timers do not come to rest");
    }

    /// Jumps over time in which nobody called the engine.
    pub(crate) fn sleep(&mut self, time: Duration) {
        self.now = self.now.after(time);
    }

    fn collect(&mut self, log: &mut Vec<(Now, Output)>) {
        log.extend(self.out.iter().map(|output| (self.now, output.clone())));
    }

    fn answer_pings(&mut self, log: &mut Vec<(Now, Output)>) {
        let pings: Vec<u64> = self
            .sent()
            .filter_map(|message| match message {
                ClientMessage::Ping(nonce) => Some(*nonce),
                _ => None,
            })
            .collect();
        for nonce in pings {
            let now = self.now.unix;
            self.say(ControllerMessage::Pong(Pong { nonce, now }));
            self.collect(log);
        }
    }

    /// What the last call said to the controller.
    pub(crate) fn sent(&self) -> impl Iterator<Item = &ClientMessage> {
        self.out.iter().filter_map(|output| match output {
            Output::Send(message) => Some(message),
            _ => None,
        })
    }

    pub(crate) fn attach(&self) -> Option<&Attach> {
        self.sent().find_map(|message| match message {
            ClientMessage::Attach(attach) => Some(attach),
            _ => None,
        })
    }

    pub(crate) fn ping(&self) -> Option<u64> {
        self.sent().find_map(|message| match message {
            ClientMessage::Ping(nonce) => Some(*nonce),
            _ => None,
        })
    }

    pub(crate) fn has(&self, test: impl Fn(&Output) -> bool) -> bool {
        self.out.iter().any(test)
    }

    /// Peers of the table in force.
    pub(crate) fn peers(&self) -> Vec<DeviceId> {
        self.table.peers.iter().map(|peer| peer.device).collect()
    }

    pub(crate) fn warnings(&self) -> String {
        self.engine.status(self.now).warnings.join("; ")
    }
}

/// The IDs of these, in the table's order.
pub(crate) fn ids(seeds: &[u8]) -> Vec<DeviceId> {
    let mut ids: Vec<_> = seeds.iter().map(|seed| id(*seed)).collect();
    ids.sort();
    ids
}

pub(crate) const SECOND: Duration = Duration::from_secs(1);
