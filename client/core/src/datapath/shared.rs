//! What all workers and all peers share: counters, budgets, randomness.

use gatereeve_shared::ids::DeviceId;
use gatereeve_shared::time::Mono;
use parking_lot::Mutex;

use super::event::{DataPathEvent, Direction};
use super::outbox::Outbox;
use super::random::Random;
use crate::drop_reason::{DropCounters, DropReason};
use crate::filter::{FlowBudget, Permit};
use crate::packet::answer::{self, Refusal};
use crate::packet::{FlowKey, IpPacket};
use crate::peers::QueueBudget;
use crate::wg::handshake_limit::{Bucket, SourceLimit};

/// Refusals answered per second.
const ANSWERS: u64 = 100;
/// Denials told to the slow path per second.
const DENIALS: u64 = 10;

/// Small things behind small locks; none is taken for a packet that passes.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) drops: DropCounters,
    pub(crate) random: Mutex<Random>,
    pub(crate) flows: FlowBudget,
    pub(crate) queues: QueueBudget,
    pub(crate) sources: Mutex<SourceLimit>,
    answers: Mutex<Bucket>,
    denials: Mutex<Bucket>,
}

impl Shared {
    pub(crate) fn new(seed: [u8; 32], now: Mono) -> Self {
        Self {
            drops: DropCounters::default(),
            random: Mutex::new(Random::new(seed)),
            flows: FlowBudget::default(),
            queues: QueueBudget::default(),
            sources: Mutex::new(SourceLimit::new(now)),
            answers: Mutex::new(Bucket::new(ANSWERS, ANSWERS, now)),
            denials: Mutex::new(Bucket::new(DENIALS, DENIALS, now)),
        }
    }

    /// Tells the local application, as often as is good.
    pub(crate) fn refuse(
        &self,
        bytes: &[u8],
        packet: &IpPacket,
        refusal: Refusal,
        now: Mono,
        out: &mut Outbox,
    ) {
        if !self.answers.lock().take(now) {
            return;
        }
        let room = out.delivery_room(answer::ROOM);
        if let Some(len) = answer::refuse(bytes, packet, refusal, room) {
            out.commit_delivery(&Permit::for_own_answer(), len);
        }
    }

    /// Counts a packet that was refused, and hints at it.
    pub(crate) fn denied(
        &self,
        packet: &IpPacket,
        device: Option<DeviceId>,
        direction: Direction,
        reason: DropReason,
        now: Mono,
        out: &mut Outbox,
    ) {
        self.drops.count(reason);
        if !self.denials.lock().take(now) {
            return;
        }
        if let Some(flow) = FlowKey::of(packet, direction) {
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
