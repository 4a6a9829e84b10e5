//! The controller: one state machine that takes commands, messages and time, and says what to do.
//!
//! A change is staged against `staged`, which is ahead of the journal by what is in flight
//! ([`commit`]). When the journal has it, it is applied to the picture in force, and whoever is
//! concerned is told ([`spread`]). So nobody acts on what a crash could take back.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use gatereeve_shared::identity::binding::ControllerBinding;
use gatereeve_shared::identity::checkpoint::Checkpoint;
use gatereeve_shared::identity::fingerprint::Fingerprint;
use gatereeve_shared::identity::identity_key::{IdentityKey, IdentityPublicKey};
use gatereeve_shared::ids::DeviceId;
use gatereeve_shared::posture::verdict::CheckOutcome;
use gatereeve_shared::time::{Mono, Now, UnixMillis};
use gatereeve_shared::wire::map::OverlayPrefixes;

mod commands;
mod commit;
mod enrollment;
mod lifecycle;
mod messages;
mod picture;
mod posture;
mod random;
mod spread;
mod timers;
mod views;
mod wait;

use crate::enroll::Enrollments;
use crate::map::Held;
use crate::map::build::Endpoints;
use crate::output::{Output, RequestId, SessionId};
use crate::policy::Policy;
use crate::policy::resolve::Resolved;
use crate::session::Session;
use crate::session::bucket::Bucket;
use crate::state::State;
use crate::state::soft::SoftState;

use commit::InFlight;
use picture::{Picture, judge};
use random::Random;
use timers::{Timer, Timers};
use wait::Waiting;

/// How long the network key's word for the TLS key holds, and when it is renewed.
const BINDING_FOR: Duration = Duration::from_secs(30 * 24 * 3600);
const BINDING_RENEW: Duration = Duration::from_secs(15 * 24 * 3600);

/// What is set when the network is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControllerConfig {
    /// The network's name.
    pub network_name: String,
    /// Its addresses.
    pub prefixes: OverlayPrefixes,
    /// `host:port` of this controller, as invites carry it.
    pub advertised: Vec<String>,
    /// Software version.
    pub version: String,
}

/// How often a device may cause records.
#[derive(Debug)]
struct DeviceLimits {
    attach: Bucket,
    keys: Bucket,
    verdicts: Bucket,
    /// Records that it causes in a day, beyond what opening and closing once would take.
    records: Bucket,
    /// How often others hear where it is.
    endpoints: Bucket,
    /// How often its report is written down.
    soft: Bucket,
    /// How often all that it may know is gone through for it: when it attaches, or asks for everything.
    maps: Bucket,
    /// How often its peers are renewed out of turn for it.
    late: Bucket,
}

/// Checks that a device may newly meet in one go; each costs a token, as each can take a record to
/// close again.
const VERDICTS: u64 = 20;

/// Records that a device may cause before it is slowed to one in [`RECORD_EVERY`]: what a day of an
/// honest one stays far below, and what keeps a hostile one from filling the journal's disk.
const RECORDS: u64 = 300;
/// The pace of a device that has used up its [`RECORDS`].
const RECORD_EVERY: Duration = Duration::from_secs(300);

impl DeviceLimits {
    /// Takes from both limits of what newly opens for a device, or from neither.
    fn take_verdicts(&mut self, tokens: u64, now: Mono) -> bool {
        let tokens = tokens.min(VERDICTS);
        self.records.holds(tokens, now)
            && self.verdicts.take(tokens, now)
            && self.records.take(tokens, now)
    }

    /// Takes from both limits of new keys, or from neither.
    fn take_keys(&mut self, now: Mono) -> bool {
        self.records.holds(1, now) && self.keys.take(1, now) && self.records.take(1, now)
    }

    fn new(now: Mono) -> Self {
        Self {
            attach: Bucket::new(10, 1, Duration::from_secs(60), now),
            keys: Bucket::new(20, 1, Duration::from_secs(5), now),
            verdicts: Bucket::new(VERDICTS, 1, Duration::from_secs(15), now),
            records: Bucket::new(RECORDS, 1, RECORD_EVERY, now),
            endpoints: Bucket::new(10, 1, Duration::from_secs(2), now),
            soft: Bucket::new(10, 1, Duration::from_secs(1), now),
            maps: Bucket::new(10, 1, Duration::from_secs(2), now),
            late: Bucket::new(3, 1, Duration::from_secs(5), now),
        }
    }
}

/// The policy decision point. Drain [`Self::poll_output`] after every `handle_*`.
#[derive(Debug)]
pub struct Controller {
    config: ControllerConfig,
    network_key: IdentityKey,
    fingerprint: Fingerprint,
    tls_key: IdentityPublicKey,
    binding: ControllerBinding,
    random: Random,
    started: Now,

    /// What is in force; never ahead of the journal.
    picture: Picture,
    /// What will be in force when all that is in flight is appended.
    staged: State,
    staged_policy: Arc<Policy>,
    in_flight: VecDeque<InFlight>,
    next_ticket: u64,
    /// Why the journal refused last, until it takes a record again.
    journal_error: Option<String>,
    policy_error: Option<String>,

    soft: SoftState,
    sessions: BTreeMap<SessionId, Session>,
    attached: BTreeMap<DeviceId, SessionId>,
    held: BTreeMap<DeviceId, Held>,
    /// Devices that have come into being since this controller started, and were never sent a map.
    fresh: BTreeSet<DeviceId>,
    endpoints: Endpoints,
    told_posture: BTreeMap<DeviceId, Vec<CheckOutcome>>,
    limits: BTreeMap<DeviceId, DeviceLimits>,
    enrollments: Enrollments,
    /// Records of refused commands.
    refusals: Bucket,
    /// Records of real invites that let nobody in.
    invite_refusals: Bucket,
    unknown_keys: u64,
    waiting: BTreeMap<RequestId, Waiting>,
    checkpoint: Option<Checkpoint>,
    /// What `Timer::Schedule` waits for.
    schedule_at: Option<UnixMillis>,
    timers: Timers,
    outputs: VecDeque<Output>,
}

impl Controller {
    /// A controller over the state that the journal gives. `seed` is 32 bytes of the operating
    /// system's randomness; all of the controller's comes from it.
    #[must_use]
    #[expect(
        clippy::too_many_arguments,
        reason = "each is of its own type and comes from its own place"
    )]
    pub fn new(
        config: ControllerConfig,
        network_key: IdentityKey,
        tls_key: IdentityPublicKey,
        state: State,
        soft: SoftState,
        seed: [u8; 32],
        now: Now,
    ) -> Self {
        let mut policy_error = None;
        let policy = state.policy().map_or_else(Policy::empty, |revision| {
            Policy::from_pinned(&revision.text, &revision.pins).unwrap_or_else(|problems| {
                let first = problems.into_iter().find(|problem| !problem.is_warning);
                policy_error = Some(format!(
                    "policy revision {} is not understood by this version, so everything is denied: {}",
                    revision.revision,
                    first.map(|problem| problem.message).unwrap_or_default(),
                ));
                Policy::empty()
            })
        });
        let policy = Arc::new(policy);
        let sets = Resolved::new(&policy, state.devices());
        let binding =
            ControllerBinding::sign(&network_key, tls_key, now.unix.saturating_add(BINDING_FOR));
        let mut controller = Self {
            fingerprint: Fingerprint::of(&network_key.public()),
            binding,
            network_key,
            tls_key,
            config,
            random: Random::new(seed),
            started: now,
            staged: state.clone(),
            staged_policy: Arc::clone(&policy),
            picture: Picture {
                live: state.verdicts().clone(),
                state,
                policy,
                sets,
            },
            in_flight: VecDeque::new(),
            next_ticket: 0,
            journal_error: None,
            policy_error,
            soft,
            sessions: BTreeMap::new(),
            attached: BTreeMap::new(),
            held: BTreeMap::new(),
            fresh: BTreeSet::new(),
            endpoints: Endpoints::new(),
            told_posture: BTreeMap::new(),
            limits: BTreeMap::new(),
            enrollments: Enrollments::new(now.mono),
            refusals: Bucket::new(10, 10, Duration::from_secs(60), now.mono),
            invite_refusals: Bucket::new(10, 10, Duration::from_secs(60), now.mono),
            unknown_keys: 0,
            waiting: BTreeMap::new(),
            checkpoint: None,
            schedule_at: None,
            timers: Timers::default(),
            outputs: VecDeque::new(),
        };
        controller.start(now);
        controller
    }

    /// Takes up the clocks where the state left them: verdicts keep their ends, those who were
    /// connected get time to come back.
    fn start(&mut self, now: Now) {
        let devices: Vec<_> = self.picture.state.devices().values().cloned().collect();
        for device in devices {
            let report = self.soft.devices.get(&device.id);
            let report = report.and_then(|soft| soft.report.as_ref());
            let judged = judge(&self.picture.policy, &device, report, now.unix);
            picture::extend(
                self.picture.live.get_mut(&device.id),
                self.picture.state.verdicts().get(&device.id),
                judged,
            );
            self.timers.set(Timer::Verdicts(device.id), now.mono);
            if device.ephemeral {
                self.arm_gone(device.id, now);
            }
        }
        self.soft
            .devices
            .retain(|device, _| self.picture.state.devices().contains_key(device));
        self.arm_schedule(now);
        // A map of a new incarnation has to come with a head of it, and a crash may have left one
        // unsigned.
        self.sign_checkpoint(now);
    }

    /// The last call: signs a head that is not signed yet.
    pub fn handle_stopping(&mut self, now: Now) {
        if self.timers.is_set(Timer::Checkpoint) {
            self.timers.clear(Timer::Checkpoint);
            self.sign_checkpoint(now);
        }
    }

    /// When [`Self::handle_timeout`] is next due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Mono> {
        self.timers.next()
    }

    /// The instant of [`Self::poll_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Now) {
        while let Some(timer) = self.timers.due(now.mono) {
            match timer {
                Timer::Idle(session) => self.close_idle(session, now),
                Timer::Renew(device) => self.renew(device, now),
                Timer::Verdicts(device) => self.review(device, now),
                Timer::Gone(device) => self.forget_gone(device, now),
                Timer::Endpoints(device) => self.spread_endpoints(device),
                Timer::Soft(device) => self.write_soft(device),
                Timer::Schedule => self.time_passed(now),
                Timer::Wait(request) => self.give_up_waiting(request),
                Timer::Checkpoint => self.sign_checkpoint(now),
            }
        }
    }

    /// The next effect, or `None` when all are taken.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// What is in force: never ahead of the journal.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.picture.state
    }

    /// The network key's word for the TLS key, renewed in time.
    fn binding(&mut self, now: UnixMillis) -> ControllerBinding {
        if self.binding.not_after.since(now) < BINDING_RENEW {
            let end = now.saturating_add(BINDING_FOR);
            self.binding = ControllerBinding::sign(&self.network_key, self.tls_key, end);
        }
        self.binding.clone()
    }

    fn sign_checkpoint(&mut self, now: Now) {
        let state = &self.picture.state;
        let checkpoint = Checkpoint::sign(
            &self.network_key,
            state.generation(),
            state.head(),
            now.unix,
        );
        self.checkpoint = Some(checkpoint.clone());
        if checkpoint.generation.n > 0 {
            self.outputs.push_back(Output::Checkpoint(checkpoint));
        }
    }

    /// The limits of a device, made when first asked for.
    fn limits(&mut self, device: DeviceId, now: Mono) -> &mut DeviceLimits {
        self.limits
            .entry(device)
            .or_insert_with(|| DeviceLimits::new(now))
    }

    fn address_of(&self, session: SessionId) -> Option<SocketAddr> {
        self.sessions.get(&session).map(|session| session.from)
    }
}
