//! What all workers and all peers share: counters, budgets, randomness.

use std::collections::BTreeSet;
use std::fmt;
use std::hash::BuildHasher as _;
use std::time::Duration;

use gatereeve_shared::ids::DeviceId;
use gatereeve_shared::time::Mono;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

use super::event::{DataPathEvent, Direction};
use super::outbox::Outbox;
use super::watch::Woken;
use crate::drop_reason::{DropCounters, DropReason};
use crate::filter::{FlowBudget, Permit};
use crate::keyed::HashKey;
use crate::packet::answer::{self, Refusal};
use crate::packet::{FlowKey, IpPacket};
use crate::peers::QueueBudget;
use crate::random::Random;
use crate::wg::handshake_limit::{Bucket, SourceLimits};
use crate::wg::repeats::Repeats;
use crate::wg::timers::JITTER;

/// Refusals answered per second; and as many for their length, which nobody else's shall use up.
const ANSWERS: u64 = 100;
/// Denials told to the slow path per second.
const DENIALS: u64 = 10;

const RANDOMNESS: &str = "gatereeve datapath randomness v1\0";
const HASH: &str = "gatereeve datapath hash tables v1\0";

/// A packet that was refused.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Denial {
    /// The peer, where there is one.
    pub(crate) device: Option<DeviceId>,
    pub(crate) direction: Direction,
    pub(crate) reason: DropReason,
}

/// Small things behind small locks; none is taken for a packet that passes.
pub(crate) struct Shared {
    pub(crate) drops: DropCounters,
    random: Mutex<Random>,
    /// Of all hash tables.
    pub(crate) hash: HashKey,
    pub(crate) flows: FlowBudget,
    pub(crate) queues: QueueBudget,
    pub(crate) sources: Mutex<SourceLimits>,
    repeats: Mutex<Repeats>,
    pub(crate) woken: Woken,
    /// Peers that are to be greeted when they come.
    pub(crate) greetings: Mutex<BTreeSet<DeviceId>>,
    answers: Mutex<Bucket>,
    size_answers: Mutex<Bucket>,
    denials: Mutex<Bucket>,
}

/// Leaves the randomness out.
impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("drops", &self.drops)
            .finish_non_exhaustive()
    }
}

/// Receiver indices are seen on the wire and private keys are drawn from the same kind of stream: even
/// where both were given one seed, they must not share one.
fn derived(label: &str, seed: [u8; 32]) -> [u8; 32] {
    Sha256::new()
        .chain_update(label)
        .chain_update(seed)
        .finalize()
        .into()
}

fn hash_key(derived: [u8; 32]) -> HashKey {
    let mut bytes = [0; 16];
    for (to, from) in bytes.iter_mut().zip(derived) {
        *to = from;
    }
    HashKey::new(bytes)
}

impl Shared {
    /// Whether this handshake message was let in before.
    pub(crate) fn is_repeat(&self, message: &[u8]) -> bool {
        let hash = self.hash.hash_one(message);
        self.repeats.lock().contains(hash)
    }

    /// This handshake message is let in.
    pub(crate) fn remember(&self, message: &[u8]) {
        let hash = self.hash.hash_one(message);
        self.repeats.lock().remember(hash);
    }

    /// A nanosecond count to spread a retry by.
    pub(crate) fn jitter(&self) -> Duration {
        self.random.lock().up_to(JITTER)
    }

    /// A 24-bit receiver index that nobody can guess and that is not in use.
    pub(crate) fn receiver_index(&self, is_used: impl Fn(u32) -> bool) -> u32 {
        let mut random = self.random.lock();
        loop {
            let [a, b, c, ..] = random.bytes();
            let index = u32::from_be_bytes([0, a, b, c]);
            if !is_used(index) {
                return index;
            }
        }
    }

    pub(crate) fn new(seed: [u8; 32], now: Mono) -> Self {
        Self {
            drops: DropCounters::default(),
            random: Mutex::new(Random::new(derived(RANDOMNESS, seed))),
            hash: hash_key(derived(HASH, seed)),
            flows: FlowBudget::default(),
            queues: QueueBudget::default(),
            sources: Mutex::new(SourceLimits::new(now)),
            repeats: Mutex::default(),
            woken: Woken::default(),
            greetings: Mutex::default(),
            answers: Mutex::new(Bucket::new(ANSWERS, ANSWERS, now)),
            size_answers: Mutex::new(Bucket::new(ANSWERS, ANSWERS, now)),
            denials: Mutex::new(Bucket::new(DENIALS, DENIALS, now)),
        }
    }

    /// Tells the local application, as often as is good.
    #[cold]
    pub(crate) fn refuse(
        &self,
        bytes: &[u8],
        packet: &IpPacket,
        refusal: Refusal,
        now: Mono,
        out: &mut Outbox,
    ) {
        let answers = match refusal {
            Refusal::TooBig(_) => &self.size_answers,
            Refusal::Prohibited | Refusal::Unreachable => &self.answers,
        };
        if !answers.lock().has(now) {
            return;
        }
        let room = out.delivered.room(answer::ROOM);
        if answer::refuse(bytes, packet, refusal, room).is_some()
            && let Ok(packet) = IpPacket::parse(room)
            // What gets no answer costs none.
            && answers.lock().take(now)
        {
            out.delivered
                .deliver_made(&Permit::for_own_answer(), &packet);
        }
    }

    /// Counts a packet that was refused, and hints at it.
    #[cold]
    pub(crate) fn denied(&self, packet: &IpPacket, denial: Denial, now: Mono, out: &mut Outbox) {
        let Denial {
            device,
            direction,
            reason,
        } = denial;
        self.drops.count(reason);
        // What makes no event costs none.
        if let Some(flow) = FlowKey::of(packet, direction)
            && self.denials.lock().take(now)
        {
            let (protocol, port) = flow.asked_of_rules(direction);
            out.event(DataPathEvent::Denied {
                device,
                direction,
                reason,
                protocol,
                port,
            });
        }
    }
}
