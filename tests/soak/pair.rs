//! Two hosts, the traffic between them, and what it has come to.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use gatereeve_shared::wire::map::OverlayAddresses;
use gatereeve_tests::netns::Namespace;
use gatereeve_tests::netns::links::UnderlayAddresses;
use gatereeve_tests::traffic::handshakes::{Kind, Message};
use gatereeve_tests::traffic::probe::{Probe, Tally};
use gatereeve_tests::traffic::trickle::{Trickle, Trickled};

use crate::pattern::Pattern;

/// Between two chunks of a TCP trickle.
const TRICKLE: Duration = Duration::from_millis(100);
const CONNECT: Duration = Duration::from_secs(10);
/// What was sent so recently may still be under way.
const GRACE: Duration = Duration::from_secs(1);

/// One end of a pair.
#[derive(Clone, Debug)]
pub(crate) struct Side {
    pub(crate) name: String,
    pub(crate) namespace: Namespace,
    pub(crate) underlay: UnderlayAddresses,
    pub(crate) overlay: OverlayAddresses,
}

impl Side {
    fn is_at(&self, underlay: IpAddr) -> bool {
        match underlay {
            IpAddr::V4(v4) => v4 == self.underlay.v4,
            IpAddr::V6(v6) => v6 == self.underlay.v6,
        }
    }
}

/// One direction of a pair.
pub(crate) struct Direction {
    pub(crate) from: String,
    pub(crate) to: String,
    probe: Probe,
    trickle: Option<Trickle>,
}

impl Direction {
    /// What it has come to.
    pub(crate) fn tally(&self) -> Tally {
        self.probe.tally(GRACE)
    }

    /// What its TCP connection has come to, if it has one.
    pub(crate) fn trickled(&self) -> Option<Trickled> {
        self.trickle.as_ref().map(Trickle::tally)
    }
}

/// Two hosts and the traffic between them.
pub(crate) struct Pair {
    pub(crate) left: Side,
    pub(crate) right: Side,
    pub(crate) pattern: Pattern,
    pub(crate) directions: Vec<Direction>,
}

/// How to make the traffic of a pair.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) pattern: Pattern,
    /// Over IPv6 rather than IPv4.
    pub(crate) v6: bool,
    /// The ports are this one and the next.
    pub(crate) port: u16,
    pub(crate) pace: Duration,
}

impl Pair {
    /// Opens all sockets; UDP is switched off as yet, and TCP has begun where the pattern is steady.
    pub(crate) fn start(left: &Side, right: &Side, plan: Plan) -> anyhow::Result<Self> {
        let mut directions = vec![direction(left, right, plan, plan.port)?];
        if plan.pattern.answers() {
            directions.push(direction(right, left, plan, plan.port + 1)?);
        }
        Ok(Self {
            left: left.clone(),
            right: right.clone(),
            pattern: plan.pattern,
            directions,
        })
    }

    /// Switches the senders as the pattern says.
    pub(crate) fn conduct(&self, elapsed: Duration) {
        let (left, right) = self.pattern.at(elapsed);
        self.switch(left, right);
    }

    /// Nothing more is sent, TCP aside.
    pub(crate) fn stop(&self) {
        self.switch(false, false);
    }

    fn switch(&self, left: bool, right: bool) {
        for (direction, on) in self.directions.iter().zip([left, right]) {
            direction.probe.switch(on);
        }
    }

    /// Its name in reports.
    pub(crate) fn name(&self) -> String {
        format!("{}-{}", self.left.name, self.right.name)
    }

    /// Its messages of all those that crossed the underlay.
    pub(crate) fn handshakes(&self, all: &[Message]) -> Handshakes {
        let mut handshakes = Handshakes::default();
        for message in all {
            let by_left = self.left.is_at(message.from) && self.right.is_at(message.to);
            let by_right = self.right.is_at(message.from) && self.left.is_at(message.to);
            match message.kind {
                Kind::Initiation if by_left => handshakes.initiations.0 += 1,
                Kind::Initiation if by_right => handshakes.initiations.1 += 1,
                Kind::Response if by_left || by_right => handshakes.done.push(message.at),
                Kind::Cookie if by_left || by_right => handshakes.cookies += 1,
                Kind::Initiation | Kind::Response | Kind::Cookie => {}
            }
        }
        handshakes
    }
}

fn direction(from: &Side, to: &Side, plan: Plan, port: u16) -> anyhow::Result<Direction> {
    let (v4, v6) = (IpAddr::V4(to.overlay.v4), IpAddr::V6(to.overlay.v6));
    let (udp, tcp) = if plan.v6 { (v6, v4) } else { (v4, v6) };
    let (a, b) = (&from.namespace, &to.namespace);
    let probe = Probe::start(a, b, udp, port, plan.pace)?;
    let trickle = match plan.pattern {
        Pattern::Steady => {
            let target = SocketAddr::new(tcp, port);
            Some(Trickle::start(a, b, target, TRICKLE, CONNECT)?)
        }
        Pattern::OneWay | Pattern::Alternating { .. } => None,
    };
    Ok(Direction {
        from: from.name.clone(),
        to: to.name.clone(),
        probe,
        trickle,
    })
}

/// What the underlay saw of a pair's handshakes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Handshakes {
    /// Wall-clock times of the responses.
    pub(crate) done: Vec<Duration>,
    /// Initiations of the left and of the right side, repeated ones included.
    pub(crate) initiations: (u64, u64),
    /// Cookie replies.
    pub(crate) cookies: u64,
}

impl Handshakes {
    /// Time from the last handshake until `at`.
    pub(crate) fn since(&self, at: Duration) -> Option<Duration> {
        let before = self.done.iter().rev().find(|done| **done <= at);
        before.map(|done| at.saturating_sub(*done))
    }

    /// Time from `at` until the next handshake.
    pub(crate) fn until(&self, at: Duration) -> Option<Duration> {
        let after = self.done.iter().find(|done| **done > at);
        after.map(|done| done.saturating_sub(at))
    }

    /// Seconds between one handshake and the next: the shortest and the longest.
    pub(crate) fn intervals(&self) -> Option<(Duration, Duration)> {
        let pairs = self.done.windows(2).filter_map(|two| match two {
            [one, other] => Some(other.saturating_sub(*one)),
            _ => None,
        });
        let (shortest, longest) = (pairs.clone().min(), pairs.max());
        shortest.zip(longest)
    }
}
