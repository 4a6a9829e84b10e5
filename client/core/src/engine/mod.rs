//! The slow path: one state machine that decides what the data path enforces and what is said to the
//! controller.
//!
//! The shell calls one `handle_*`, then [`Engine::poll_output`] until `None`, and arms one timer
//! from [`Engine::poll_timeout`]. Nothing here reads a clock or draws a random number: two engines
//! built from the same memory and seed do the same.
//!
//! * [`session`](self): connecting, the hello, what a session may say in which phase.
//! * Standing decides first: only an approved device has peers, on disk and in the table.
//! * The gate: the data path is open only while the engine lives, and stays shut after a gap in
//!   which it may have missed something.

mod enrollment;
mod gate;
mod maps;
mod publish;
mod reports;
mod rotation;
mod session;
mod status;
mod timers;
mod why;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use gatereeve_shared::generation::Generation;
use gatereeve_shared::identity::fingerprint::Fingerprint;
use gatereeve_shared::identity::identity_key::IdentityKey;
use gatereeve_shared::identity::wg_key::WgSecret;
use gatereeve_shared::ids::DeviceId;
use gatereeve_shared::posture::verdict::CheckOutcome;
use gatereeve_shared::text;
use gatereeve_shared::time::{Mono, Now};
use gatereeve_shared::wire::client::{ClientMessage, EndpointUpdate};
use gatereeve_shared::wire::controller::Standing;

use crate::clock::ControlClock;
use crate::control::backoff::Backoff;
use crate::control::link::Link;
use crate::keys::KeyRing;
use crate::map::assemble::Assembler;
use crate::map::check::PeerProblem;
use crate::map::table::Holders;
use crate::output::{HostConfig, Output};
use crate::posture::schedule::Posture;
use crate::random::Random;
use crate::stored::Stored;
use gate::Gate;
pub use status::{EngineStatus, WhoisView};
use timers::{Timer, Timers};

/// What an engine is built for.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Software version, for the controller's registry.
    pub software: String,
    /// The device's identity key.
    pub identity: Arc<IdentityKey>,
    /// The network's key, pinned.
    pub network: Fingerprint,
}

/// The device's part in its network: see the module's documentation.
pub struct Engine {
    config: EngineConfig,
    device: DeviceId,
    random: Random,
    clock: ControlClock,
    /// Whether the map held was read from disk, and none has come since: what was late to be written
    /// is missing from it, and nothing would say so.
    is_from_disk: bool,
    /// What is kept over a restart.
    stored: Stored,
    keys: KeyRing,
    /// A share of a key's lifetime, in permille, by which it is cut, so that not all devices rotate at once.
    lifetime_cut: u32,
    /// Peers that have carried data under the next key.
    confirmed: BTreeSet<DeviceId>,

    up: bool,
    link: Link,
    backoff: Backoff,
    last_error: Option<String>,
    /// The next attempt to connect is not to come soon.
    slow_down: bool,
    gate: Gate,
    endpoints: EndpointUpdate,
    posture: Posture,
    checks: Vec<CheckOutcome>,
    questions: why::Questions,
    next_number: u64,

    assembler: Assembler,
    /// Held peers that are left out for what they are.
    problems: BTreeMap<DeviceId, PeerProblem>,
    /// Held peers that are left out for what they claim.
    conflicts: BTreeMap<DeviceId, PeerProblem>,
    holders: Holders,
    learned: BTreeMap<DeviceId, SocketAddr>,

    serial: u64,
    /// When one was last published at once for what takes nothing from anybody.
    soon: Mono,
    in_table: BTreeSet<DeviceId>,
    /// First table of each generation that is not enforced yet.
    published: VecDeque<(u64, Option<Generation>)>,
    enforced: Option<Generation>,
    host: Option<HostConfig>,

    alarms: BTreeSet<String>,
    timers: Timers,
    last_call: Mono,
    dirty: Dirty,
    turn: Vec<Output>,
    ready: VecDeque<Output>,
}

/// What the end of a call has to bring out.
#[derive(Debug, Default)]
struct Dirty {
    table: bool,
    save: bool,
}

impl Engine {
    /// An engine that is not taking part yet: see [`Self::handle_up`]. `stored` is what the last one
    /// saved, or the default; `seed` is 32 bytes drawn from the operating system.
    #[must_use]
    pub fn new(config: EngineConfig, stored: Stored, seed: [u8; 32], now: Now) -> Self {
        let device = config.identity.public().device_id();
        let owner = Some((config.network, device));
        let mut stored = match stored {
            stored if stored.owner == owner => stored,
            // Another network's or device's state says nothing here.
            _ => Stored {
                owner,
                ..Stored::default()
            },
        };
        let mut random = Random::new(seed);
        let is_new = stored.keys.is_none();
        let keys = match stored.keys.take() {
            Some(keys) => keys,
            None => KeyRing::new(&mut random, now.unix),
        };
        let cut = random.up_to(Duration::from_nanos(100)).subsec_nanos();
        let mut engine = Self {
            device,
            clock: ControlClock::new(stored.floor, now),
            random,
            is_from_disk: true,
            stored,
            keys,
            lifetime_cut: cut,
            confirmed: BTreeSet::new(),
            up: false,
            link: Link::Off,
            backoff: Backoff::default(),
            last_error: None,
            slow_down: false,
            gate: Gate::Shut,
            endpoints: EndpointUpdate {
                listen_port: 0,
                endpoints: Vec::new(),
            },
            posture: Posture::new(),
            checks: Vec::new(),
            questions: why::Questions::default(),
            next_number: 1,
            assembler: Assembler::default(),
            problems: BTreeMap::new(),
            conflicts: BTreeMap::new(),
            holders: Holders::new(),
            learned: BTreeMap::new(),
            serial: 0,
            soon: Mono(0),
            in_table: BTreeSet::new(),
            published: VecDeque::new(),
            enforced: None,
            host: None,
            alarms: BTreeSet::new(),
            timers: Timers::default(),
            last_call: now.mono,
            dirty: Dirty {
                table: false,
                save: is_new,
            },
            turn: Vec::new(),
            ready: VecDeque::new(),
            config,
        };
        if let Some(this) = &engine.stored.this {
            engine.posture.set_interval(this.report_every_secs);
        }
        engine.check_all_peers();
        engine.save_within(FLOOR_EVERY, now);
        engine.settle(now);
        engine
    }

    /// Take part, or stop. Nothing of it is remembered here: the shell says so after every start.
    pub fn handle_up(&mut self, up: bool, now: Now) {
        self.begin(now);
        if up && !self.up {
            self.up = true;
            self.dirty.table = true;
            self.hold_gate(now);
            self.backoff.reset();
            self.collect_posture(now);
            self.connect(now);
        } else if !up && self.up {
            self.up = false;
            self.dirty.table = true;
            self.shut_gate();
            self.hang_up(now);
        }
        self.settle(now);
    }

    /// Leave the network for good: tells the controller, closes everything and forgets keys and map.
    /// The shell drops the engine afterwards, having carried out the outputs.
    pub fn handle_leave(&mut self, now: Now) {
        self.begin(now);
        if self.link.session().is_some() {
            self.say(ClientMessage::Leave(Default::default()));
        }
        self.up = false;
        self.shut_gate();
        self.hang_up(now);
        self.stored = Stored::default();
        self.problems.clear();
        self.checks.clear();
        self.enforced = None;
        // The key that is forgotten is not written again.
        self.keys = KeyRing::new(&mut self.random, now.unix);
        self.dirty.table = true;
        self.settle(now);
        // An empty state, in place of what the end of the call would save.
        self.ready
            .retain(|output| !matches!(output, Output::Save(_)));
        self.ready.push_back(Output::Save(Box::default()));
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Now) {
        self.begin(now);
        while let Some(timer) = self.timers.take_due(now.mono) {
            match timer {
                Timer::Expiry => self.dirty.table = true,
                Timer::Table => self.publish_soon(now),
                Timer::Heartbeat => self.beat(now),
                Timer::Hold => self.release_gate(now),
                Timer::Connect => self.connect(now),
                Timer::Connecting => self.lose_session("no answer from the controller", now),
                Timer::Ping => self.ping(now),
                Timer::Pong => self.lose_session("the controller stopped answering", now),
                Timer::Attach => self.attach(now),
                Timer::Quiet => self.count_as_synced(now),
                Timer::Collect => self.collect_posture(now),
                Timer::Report => self.report(now),
                Timer::Why => self.answer_overdue(now),
                Timer::Rotation => self.rotate(now),
                Timer::Save => self.dirty.save = true,
            }
        }
        self.settle(now);
    }

    /// When [`Self::handle_timeout`] is to be called next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Mono> {
        self.timers.next()
    }

    /// The next thing to do; drain it to `None` after every call.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.ready.pop_front()
    }

    /// Every call begins here: time has passed, perhaps more than it should.
    fn begin(&mut self, now: Now) {
        self.notice_gap(now);
        self.last_call = self.last_call.max(now.mono);
        if self.clock.look_at_wall(now) {
            self.dirty.table = true;
        }
    }

    /// Every call ends here: what closes access comes out first, then what must not be lost, then
    /// what is said.
    fn settle(&mut self, now: Now) {
        if std::mem::take(&mut self.dirty.table) {
            self.publish(now);
        }
        if std::mem::take(&mut self.dirty.save) {
            self.save(now);
        }
        self.update_host();
        self.ready.extend(self.turn.drain(..));
        self.arm_rotation(now);
    }

    fn save(&mut self, now: Now) {
        self.timers.clear(Timer::Save);
        let mut stored = self.stored.clone();
        stored.keys = Some(self.keys.clone());
        stored.floor = self.clock.floor(now);
        self.ready.push_back(Output::Save(Box::new(stored)));
        self.timers
            .set(Timer::Save, now.mono.saturating_add(FLOOR_EVERY));
    }

    /// Has what is not urgent written within `delay`.
    fn save_within(&mut self, delay: Duration, now: Now) {
        self.timers
            .set_earlier(Timer::Save, now.mono.saturating_add(delay));
    }

    fn say(&mut self, message: ClientMessage) {
        self.turn.push(Output::Send(message));
    }

    fn number(&mut self) -> u64 {
        let number = self.next_number;
        self.next_number = number.wrapping_add(1);
        number
    }

    fn alarm(&mut self, text: impl Into<String>) {
        if self.alarms.len() < MOST_ALARMS {
            self.alarms.insert(text.into());
        }
    }

    fn is_approved(&self) -> bool {
        self.stored.standing == Some(Standing::Approved)
    }

    /// A key of this device, to test others against.
    fn own_secret(&self) -> WgSecret {
        self.keys.current().secret.clone()
    }
}

/// The clock's floor on disk is never older than this while the device runs.
const FLOOR_EVERY: Duration = Duration::from_secs(15 * 60);
/// A text from elsewhere, fit to be shown: no control characters, not long.
fn shown(text: &str) -> String {
    text::printable(text).chars().take(300).collect()
}

/// Alarms that are remembered.
const MOST_ALARMS: usize = 16;

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("device", &self.device)
            .field("up", &self.up)
            .field("standing", &self.stored.standing)
            .field("link", &self.link)
            .field("gate", &self.gate)
            .finish_non_exhaustive()
    }
}
