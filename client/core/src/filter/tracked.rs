//! One tracked flow: who opened it, through which rule, until when, how long it is kept, and what has passed in it.

use std::sync::Arc;
use std::time::Duration;

use gatereeve_shared::generation::Generation;
use gatereeve_shared::ids::RuleId;
use gatereeve_shared::policy::port::Protocol;
use gatereeve_shared::time::Mono;
use serde::{Deserialize, Serialize};

use super::lru::ListId;
use crate::datapath::Direction;
use crate::packet::FlowKey;
use crate::packet::ip::TcpFlags;

/// What has passed in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Packets as they go through the tunnel: each segment of what the host hands over as many in one.
    pub packets: u64,
    /// Their bytes, IP headers included.
    pub bytes: u64,
}

impl Traffic {
    #[inline]
    fn add(&mut self, bytes: u64) {
        self.packets = self.packets.saturating_add(1);
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

/// How far a flow has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlowPhase {
    /// TCP that has not been agreed on by both sides.
    Opening,
    /// TCP that has.
    Established,
    /// TCP that one side has ended its part of.
    Closing,
    /// TCP that both sides have ended.
    Closed,
    /// TCP that was broken off.
    Reset,
    /// A protocol that says nothing of connections.
    Datagrams,
}

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
pub(super) enum Class {
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
    pub(super) const ALL: [Self; 5] = [
        Self::Reset,
        Self::Ended,
        Self::Brief,
        Self::Datagrams,
        Self::Established,
    ];

    pub(super) fn limit(self) -> Duration {
        let secs = match self {
            Self::Reset => 10,
            Self::Brief => 30,
            Self::Ended | Self::Datagrams => 120,
            Self::Established => (2 * 60 + 5) * 60,
        };
        Duration::from_secs(secs)
    }

    pub(super) fn list(self) -> ListId {
        match self {
            Self::Reset => 0,
            Self::Ended => 1,
            Self::Brief => 2,
            Self::Datagrams => 3,
            Self::Established => 4,
        }
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
    pub(super) last: Mono,
    /// When the opener was heard, in seconds: a whole instant would make every flow a word larger.
    asked: u32,
    /// When it began, in seconds.
    pub(super) began: u32,
    tcp: TcpPhase,
    /// What this device has sent in it, and received.
    pub(super) sent: Traffic,
    pub(super) received: Traffic,
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
            began: seconds(now),
            tcp: TcpPhase::HalfOpen {
                asks: false,
                fin: false,
            },
            sent: Traffic::default(),
            received: Traffic::default(),
        }
    }

    /// Counts a packet of `bytes` that went through the tunnel.
    #[inline]
    pub(super) fn count(&mut self, direction: Direction, bytes: u64) {
        match direction {
            Direction::Outbound => self.sent.add(bytes),
            Direction::Inbound => self.received.add(bytes),
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
            let has_ended = matches!(self.tcp, TcpPhase::Ended | TcpPhase::Reset);
            self.saw_segment(is_opener, flags);
            // Another connection between the same ports.
            if has_ended && matches!(self.tcp, TcpPhase::HalfOpen { .. }) {
                self.began = second;
                (self.sent, self.received) = (Traffic::default(), Traffic::default());
            }
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

    pub(super) fn class(&self, key: &FlowKey) -> Class {
        match (key.asked_of_rules(self.opener).0, self.tcp) {
            (Protocol::Tcp, TcpPhase::Reset) => Class::Reset,
            (Protocol::Tcp, TcpPhase::Ended) => Class::Ended,
            (Protocol::Tcp, TcpPhase::HalfOpen { .. } | TcpPhase::Answered { .. })
            | (Protocol::Icmp, _) => Class::Brief,
            (Protocol::Tcp, TcpPhase::Established { .. }) => Class::Established,
            (Protocol::Udp | Protocol::Any, _) => Class::Datagrams,
        }
    }

    /// How far it has come, as a user would say it.
    pub(super) fn phase(&self, key: &FlowKey) -> FlowPhase {
        match (key.asked_of_rules(self.opener).0, self.tcp) {
            (Protocol::Tcp, TcpPhase::HalfOpen { .. } | TcpPhase::Answered { .. }) => {
                FlowPhase::Opening
            }
            (
                Protocol::Tcp,
                TcpPhase::Established {
                    fins: (true, _) | (_, true),
                },
            ) => FlowPhase::Closing,
            (Protocol::Tcp, TcpPhase::Established { .. }) => FlowPhase::Established,
            (Protocol::Tcp, TcpPhase::Ended) => FlowPhase::Closed,
            (Protocol::Tcp, TcpPhase::Reset) => FlowPhase::Reset,
            (Protocol::Icmp | Protocol::Udp | Protocol::Any, _) => FlowPhase::Datagrams,
        }
    }

    /// When it is forgotten, if no packet comes before.
    pub(super) fn expires(&self, class: Class) -> Mono {
        self.last.saturating_add(class.limit())
    }
}
