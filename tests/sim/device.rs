//! A device: the real engine and the real data path over the fake tunnel, and what its shell keeps.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use gatereeve_client_core::datapath::{Batch, DataPath, Outbox};
use gatereeve_client_core::engine::{Engine, EngineConfig};
use gatereeve_client_core::stored::Stored;
use gatereeve_controller_core::output::SessionId;
use gatereeve_shared::generation::Generation;
use gatereeve_shared::identity::fingerprint::Fingerprint;
use gatereeve_shared::identity::identity_key::IdentityKey;
use gatereeve_shared::ids::DeviceId;
use gatereeve_shared::time::{Mono, Now};
use gatereeve_tests::fake_tunnel::FakeTunnels;
use gatereeve_tests::random::Random;

/// One device.
pub(crate) struct Device {
    pub(crate) identity: Arc<IdentityKey>,
    pub(crate) id: DeviceId,
    pub(crate) network: Fingerprint,
    pub(crate) endpoint: SocketAddr,
    pub(crate) engine: Engine,
    pub(crate) datapath: DataPath,
    pub(crate) outbox: Outbox,
    pub(crate) batch: Batch,
    /// As written to disk last.
    pub(crate) stored: Stored,
    /// The connection that is there or comes about.
    pub(crate) session: Option<SessionId>,
    /// Whether the control connection works at all.
    pub(crate) is_cut_off: bool,
    pub(crate) is_healthy: bool,
    /// Generation of the table in force.
    pub(crate) table: Option<Generation>,
    /// When the controller was last heard.
    pub(crate) heard_at: Mono,
    /// The highest generation ever held.
    pub(crate) highest: Generation,
}

impl Device {
    pub(crate) fn new(number: u16, network: Fingerprint, random: &mut Random, now: Now) -> Self {
        let identity = Arc::new(IdentityKey::from_seed(&random.seed32()));
        let [high, low] = number.to_be_bytes();
        let endpoint = SocketAddr::from((Ipv4Addr::new(192, 168, high, low), 51820));
        let stored = Stored::default();
        let (engine, datapath) = make(&identity, network, stored.clone(), random, now);
        let mut device = Self {
            id: identity.public().device_id(),
            identity,
            network,
            endpoint,
            engine,
            datapath,
            outbox: Outbox::new(),
            batch: Batch::new(16, 2048),
            stored,
            session: None,
            is_cut_off: false,
            is_healthy: true,
            table: None,
            heard_at: now.mono,
            highest: Generation::default(),
        };
        device.begin(now);
        device
    }

    /// The daemon dies and starts again on what it had written.
    pub(crate) fn restart(&mut self, random: &mut Random, now: Now) {
        let stored = self.stored.clone();
        let (engine, datapath) = make(&self.identity, self.network, stored, random, now);
        self.engine = engine;
        self.datapath = datapath;
        self.table = None;
        // What only opens is written a little later: a crash may take that back, and nothing else.
        self.highest = self.engine.status(now).generation.unwrap_or_default();
        self.begin(now);
    }

    fn begin(&mut self, now: Now) {
        self.engine
            .handle_endpoints(self.endpoint.port(), vec![self.endpoint], now);
        self.engine.handle_up(true, now);
    }
}

fn make(
    identity: &Arc<IdentityKey>,
    network: Fingerprint,
    stored: Stored,
    random: &mut Random,
    now: Now,
) -> (Engine, DataPath) {
    let config = EngineConfig {
        software: "simulation".into(),
        identity: Arc::clone(identity),
        network,
    };
    let engine = Engine::new(config, stored, random.seed32(), now);
    (
        engine,
        DataPath::new(random.seed32(), Box::new(FakeTunnels), now.mono),
    )
}

/// A delay of a link, in microseconds.
pub(crate) fn delay(random: &mut Random) -> Duration {
    Duration::from_micros(500 + random.below(20_000) as u64)
}
