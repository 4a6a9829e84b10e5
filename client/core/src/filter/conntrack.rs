//! Tracked flows of one peer: who opened them, through which rule, and until when.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use gatereeve_shared::generation::Generation;
use gatereeve_shared::ids::RuleId;
use gatereeve_shared::policy::port::Protocol;
use gatereeve_shared::time::Mono;

use super::lru::{ListId, Lru, Place};
use crate::datapath::Direction;
use crate::keyed::HashKey;
use crate::packet::FlowKey;
use crate::packet::ip::TcpFlags;

/// Flows tracked for one peer; one of them makes room, within the same peer only.
pub const FLOWS_PER_PEER: usize = 16_384;
/// Flows that a peer has whatever the others hold.
pub const FLOWS_RESERVED: usize = 256;
/// Flows that all peers may track together beyond their reserves: this and 256 for each peer are the most
/// there can be, with 1,000 peers 387,072. A flow takes 120 bytes with its share of the look-up, and a table has
/// room for four times its flows at the most: at the very worst 63 MB for these, and 123 KB for a peer's
/// reserve.
pub const FLOWS_TOTAL: usize = 131_072;

/// How long after the opener's last packet those of the other side still count as use, where it is not TCP. The
/// flow ends at most a [`Class::limit`] later: for UDP, ten minutes after the opener fell silent.
///
/// Whoever was asked once could otherwise keep the way to the asker's port open for as long as the rule lasts,
/// and would reach whatever takes that port next, without a rule of its own. RFC 4787 leaves it open whether
/// inbound packets count (REQ-6), for this reason. QUIC acknowledges all the time. A stream whose receiver says nothing
/// after its first packet (RTP, whose reports have a port of their own) needs a rule from its sender to go on.
const UNASKED: Duration = Duration::from_secs(8 * 60);

/// How long a flow is kept without a packet. Flows of a class have a list of their own: in order of last
/// use is then in order of expiry too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// TCP after a RST: what is still under way may arrive.
    Reset,
    /// TCP after both FINs: what was lost may be sent again, ever more seldom (RFC 6298).
    Ended,
    /// TCP until its opener has acknowledged the answer, and echo.
    Brief,
    /// UDP, and protocols that say nothing of connections.
    Datagrams,
    /// TCP that both sides have agreed on. Longer than the two hours after which Linux sends the first keepalive
    /// (`tcp_keepalive_time`), as RFC 5382 asks (REQ-5, at least 2 hours 4 minutes): the side that accepted
    /// could not send it through a flow that has just been forgotten.
    Established,
}

impl Class {
    const ALL: [Self; 5] = [
        Self::Reset,
        Self::Ended,
        Self::Brief,
        Self::Datagrams,
        Self::Established,
    ];

    fn limit(self) -> Duration {
        let secs = match self {
            Self::Reset => 10,
            Self::Brief => 30,
            Self::Ended | Self::Datagrams => 120,
            Self::Established => (2 * 60 + 5) * 60,
        };
        Duration::from_secs(secs)
    }

    fn list(self) -> ListId {
        match self {
            Self::Reset => 0,
            Self::Ended => 1,
            Self::Brief => 2,
            Self::Datagrams => 3,
            Self::Established => 4,
        }
    }
}

/// How many flows all peers may still track together, beyond the reserve that each has.
#[derive(Clone, Debug)]
pub struct FlowBudget(Arc<AtomicUsize>);

impl Default for FlowBudget {
    fn default() -> Self {
        Self::new(FLOWS_TOTAL)
    }
}

impl FlowBudget {
    /// A budget of `flows`.
    #[must_use]
    pub fn new(flows: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(flows)))
    }

    fn take(&self) -> bool {
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(1)
            })
            .is_ok()
    }

    fn give_back(&self, flows: usize) {
        self.0.fetch_add(flows, Ordering::Relaxed);
    }
}

/// One tracked flow.
#[derive(Clone, Debug)]
pub(super) struct Flow {
    pub(super) opener: Direction,
    /// The rule that allows it, as judged last.
    pub(super) rule: Arc<RuleId>,
    /// The map's generation at that judgement.
    pub(super) generation: Generation,
    /// The table at that judgement: finer than the generation, so that a renewed or shortened lease
    /// counts too.
    pub(super) serial: u64,
    /// When the rule ends.
    pub(super) end: Mono,
    /// When a packet counted as use.
    last: Mono,
    /// When the opener was heard, in seconds: a whole instant would make every flow a word larger.
    asked: u32,
    tcp: TcpPhase,
}

/// An instant in whole seconds; they reach for 136 years of uptime.
fn seconds(at: Mono) -> u32 {
    u32::try_from(at.since(Mono(0)).as_secs()).unwrap_or(u32::MAX)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TcpPhase {
    /// Only the opener was heard.
    HalfOpen {
        /// By a SYN. A connection that is older than this device's memory of it begins with any segment.
        asks: bool,
        fin: bool,
    },
    /// Its SYN was answered, and it has not acknowledged that. Whoever only asks, and lets the host answer, is left with
    /// what passes soon: connections that nobody has would take the places of those of others for hours.
    Answered {
        /// As below.
        fins: (bool, bool),
    },
    Established {
        /// FIN of the opener, of the other side.
        fins: (bool, bool),
    },
    /// After both FINs.
    Ended,
    Reset,
}

impl TcpPhase {
    /// Of a connection that both sides were heard on, by whether they have sent a FIN.
    fn of(opener: bool, other: bool) -> Self {
        if opener && other {
            Self::Ended
        } else {
            Self::Established {
                fins: (opener, other),
            }
        }
    }
}

impl Flow {
    pub(super) fn new(
        opener: Direction,
        rule: Arc<RuleId>,
        generation: Generation,
        serial: u64,
        end: Mono,
        now: Mono,
    ) -> Self {
        Self {
            opener,
            rule,
            generation,
            serial,
            end,
            last: now,
            asked: seconds(now),
            tcp: TcpPhase::HalfOpen {
                asks: false,
                fin: false,
            },
        }
    }

    /// Takes note of a packet that passes: one of TCP has flags. Says whether it counts as use.
    pub(super) fn saw(&mut self, direction: Direction, flags: Option<TcpFlags>, now: Mono) -> bool {
        let is_opener = direction == self.opener;
        let second = seconds(now);
        if is_opener {
            self.asked = self.asked.max(second);
        } else if flags.is_none()
            && u64::from(second.saturating_sub(self.asked)) >= UNASKED.as_secs()
        {
            return false;
        }
        self.last = self.last.max(now);
        if let Some(flags) = flags {
            self.saw_segment(is_opener, flags);
        }
        true
    }

    fn saw_segment(&mut self, is_opener: bool, flags: TcpFlags) {
        if flags.has(TcpFlags::RST) {
            self.tcp = TcpPhase::Reset;
            return;
        }
        let fin = flags.has(TcpFlags::FIN);
        self.tcp = match self.tcp {
            // Its FIN may be the first that is seen of a connection that is older than this device's memory of it.
            TcpPhase::HalfOpen { asks, fin: before } if is_opener => TcpPhase::HalfOpen {
                asks: asks || flags.opens(),
                fin: (before || fin) && !flags.opens(),
            },
            TcpPhase::HalfOpen {
                asks: true,
                fin: before,
            } => TcpPhase::Answered {
                fins: (before, fin),
            },
            TcpPhase::HalfOpen {
                asks: false,
                fin: before,
            } => TcpPhase::of(before, fin),
            TcpPhase::Answered {
                fins: (ours, theirs),
            } if !is_opener => TcpPhase::Answered {
                fins: (ours, theirs || fin),
            },
            TcpPhase::Answered { .. } if flags.opens() => self.tcp,
            TcpPhase::Answered {
                fins: (ours, theirs),
            } => TcpPhase::of(ours || fin, theirs),
            TcpPhase::Established {
                fins: (ours, theirs),
            } => TcpPhase::of(ours || (is_opener && fin), theirs || (!is_opener && fin)),
            TcpPhase::Ended | TcpPhase::Reset if is_opener && flags.opens() => TcpPhase::HalfOpen {
                asks: true,
                fin: false,
            },
            TcpPhase::Ended | TcpPhase::Reset => self.tcp,
        };
    }

    fn class(&self, key: &FlowKey) -> Class {
        match (key.asked_of_rules(self.opener).0, self.tcp) {
            (Protocol::Tcp, TcpPhase::Reset) => Class::Reset,
            (Protocol::Tcp, TcpPhase::Ended) => Class::Ended,
            (Protocol::Tcp, TcpPhase::HalfOpen { .. } | TcpPhase::Answered { .. })
            | (Protocol::Icmp, _) => Class::Brief,
            (Protocol::Tcp, TcpPhase::Established { .. }) => Class::Established,
            (Protocol::Udp | Protocol::Any, _) => Class::Datagrams,
        }
    }

    /// When it is forgotten, if no packet comes before.
    fn expires(&self, class: Class) -> Mono {
        self.last.saturating_add(class.limit())
    }
}

/// The flows of one peer.
#[derive(Debug)]
pub(super) struct Conntrack {
    flows: Lru<FlowKey, Flow, { Class::ALL.len() }>,
    /// Pays for all but the first [`FLOWS_RESERVED`].
    budget: FlowBudget,
}

impl Conntrack {
    pub(super) fn new(budget: FlowBudget, hash: HashKey) -> Self {
        Self {
            flows: Lru::new(FLOWS_PER_PEER, hash),
            budget,
        }
    }

    /// Where the flow is, unless it has been idle for too long; good until the next removal.
    pub(super) fn find(&mut self, key: &FlowKey, now: Mono) -> Option<Place> {
        let place = self.flows.place(key)?;
        let flow = self.flows.at(place)?;
        if flow.expires(flow.class(key)) <= now {
            self.remove(key);
            return None;
        }
        Some(place)
    }

    /// The flow at a place.
    pub(super) fn at(&mut self, place: Place) -> Option<&mut Flow> {
        self.flows.at(place)
    }

    /// Takes note of a packet that passes, of the flow at a place.
    pub(super) fn saw(
        &mut self,
        place: Place,
        key: &FlowKey,
        direction: Direction,
        flags: Option<TcpFlags>,
        now: Mono,
    ) {
        if let Some(flow) = self.flows.at(place)
            && flow.saw(direction, flags, now)
        {
            let class = flow.class(key);
            self.flows.touch(place, class.list());
        }
    }

    /// Tracks a flow. Beyond the peer's reserve, where the budget of all peers is spent, it takes the place of
    /// another one of the same peer.
    pub(super) fn insert(&mut self, key: FlowKey, flow: Flow) {
        if self.flows.place(&key).is_none() && !self.may_grow() {
            self.make_room();
        }
        let class = flow.class(&key);
        self.flows.insert(key, flow, class.list());
    }

    /// Whether there may be one more, which is paid for then.
    fn may_grow(&self) -> bool {
        !self.flows.is_full() && (self.flows.len() < FLOWS_RESERVED || self.budget.take())
    }

    /// Gives up one flow, whose share of the budget is the next one's.
    ///
    /// Closed ones go first. Then what is neither closed nor established, by last use: no scan and no burst
    /// of queries ends a connection. Connections have to leave an eighth to the others, or else where they take all
    /// there is, whatever begins would end what began just before.
    fn make_room(&mut self) {
        let others = self.flows.len() / 8;
        let connections = self.flows.len_of(Class::Established.list());
        let mut closed = [Class::Reset, Class::Ended].into_iter();
        let class = if let Some(closed) = closed.find(|class| self.oldest(*class).is_some()) {
            closed
        } else if connections > self.flows.len().saturating_sub(others) {
            Class::Established
        } else {
            let used = [Class::Brief, Class::Datagrams]
                .into_iter()
                .filter_map(|class| Some((self.oldest(class)?.1.last, class)));
            let least = used.min_by_key(|(last, _)| *last);
            least.map_or(Class::Established, |(_, class)| class)
        };
        self.flows.remove_oldest(class.list());
    }

    fn oldest(&self, class: Class) -> Option<(&FlowKey, &Flow)> {
        self.flows.oldest(class.list())
    }

    pub(super) fn remove(&mut self, key: &FlowKey) {
        if self.flows.remove(key) && self.flows.len() >= FLOWS_RESERVED {
            self.budget.give_back(1);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.flows.len()
    }

    /// How many flows the budget has paid for.
    fn paid_for(&self) -> usize {
        self.flows.len().saturating_sub(FLOWS_RESERVED)
    }

    pub(super) fn clear(&mut self) {
        self.budget.give_back(self.paid_for());
        self.flows.clear();
    }

    /// The flow that expires first of each class, and when.
    fn next(&self) -> impl Iterator<Item = (&FlowKey, Mono)> {
        Class::ALL.into_iter().filter_map(|class| {
            let (key, flow) = self.oldest(class)?;
            Some((key, flow.expires(class)))
        })
    }

    /// When [`Self::prune`] has something to forget next, if no packet comes before.
    pub(super) fn expires(&self) -> Option<Mono> {
        self.next().map(|(_, end)| end).min()
    }

    /// Forgets idle flows, a bounded number at a time.
    pub(super) fn prune(&mut self, now: Mono) {
        for _ in 0..256 {
            let Some((key, _)) = self.next().find(|(_, end)| *end <= now) else {
                return;
            };
            let key = *key;
            self.remove(&key);
        }
    }
}

impl Drop for Conntrack {
    fn drop(&mut self) {
        self.budget.give_back(self.paid_for());
    }
}
