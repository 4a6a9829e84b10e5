//! When to shake hands and when to stay silent, in virtual time (WireGuard, section 6).

use std::time::Duration;

use gatereeve_shared::time::Mono;

use super::SessionView;

const REKEY_AFTER_TIME: Duration = Duration::from_secs(120);
const REKEY_AFTER_MESSAGES: u64 = 1 << 60;
/// The initiator renews a session that only receives when it is this old: 180 - 10 - 5 seconds.
const REKEY_ON_RECEIVE: Duration = Duration::from_secs(165);
const REKEY_TIMEOUT: Duration = Duration::from_secs(5);
const REKEY_ATTEMPT_TIME: Duration = Duration::from_secs(90);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a pair of keys that nobody answered for is left alone while another pair works.
const PAUSE: Duration = Duration::from_secs(120);
/// The shortest time between what sets a timer and what it is set for.
pub(crate) const SOONEST: Duration = REKEY_TIMEOUT;
/// Retries are spread over this time, so that peers do not storm in step.
pub(crate) const JITTER: Duration = Duration::from_millis(333);

/// What one tunnel has to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Nothing yet.
    Nothing,
    /// Send a handshake initiation.
    Initiation,
    /// Send an empty packet.
    Keepalive,
    /// Nobody answered for 90 seconds: stop trying.
    GiveUp,
}

/// The timers of one tunnel.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    attempt: Option<Attempt>,
    gave_up: Option<Mono>,
    /// When data was sent that nothing authentic has followed.
    unanswered: Option<Mono>,
    /// When an empty packet is owed for data received.
    keepalive: Option<Mono>,
}

#[derive(Clone, Copy, Debug)]
struct Attempt {
    since: Mono,
    retry: Mono,
}

impl Timers {
    /// An initiation was sent; the next follows in 5 seconds and `jitter`.
    pub(crate) fn initiated(&mut self, now: Mono, jitter: Duration) {
        let since = self.attempt.map_or(now, |attempt| attempt.since);
        let retry = now.saturating_add(REKEY_TIMEOUT).saturating_add(jitter);
        self.attempt = Some(Attempt { since, retry });
    }

    /// A handshake is under way.
    pub(crate) fn is_trying(&self) -> bool {
        self.attempt.is_some()
    }

    /// A handshake was given up so recently that another pair of keys is to be preferred.
    pub(crate) fn is_pausing(&self, now: Mono) -> bool {
        self.gave_up.is_some_and(|at| now.since(at) < PAUSE)
    }

    /// A handshake is complete.
    pub(crate) fn established(&mut self) {
        *self = Self::default();
    }

    /// Data was sent. Returns whether the session is due for renewal.
    pub(crate) fn sent_data(&mut self, session: Option<SessionView>, now: Mono) -> bool {
        self.unanswered.get_or_insert(now);
        self.keepalive = None;
        self.attempt.is_none()
            && session.is_some_and(|session| {
                session.sent >= REKEY_AFTER_MESSAGES
                    || (session.is_initiator && now.since(session.established) >= REKEY_AFTER_TIME)
            })
    }

    /// An empty packet was sent.
    pub(crate) fn sent_keepalive(&mut self) {
        self.keepalive = None;
    }

    /// Something authentic came. Returns whether the session is due for renewal.
    pub(crate) fn received(
        &mut self,
        has_data: bool,
        session: Option<SessionView>,
        now: Mono,
    ) -> bool {
        self.unanswered = None;
        if has_data {
            self.keepalive
                .get_or_insert(now.saturating_add(KEEPALIVE_TIMEOUT));
        }
        has_data
            && self.attempt.is_none()
            && session.is_some_and(|session| {
                session.is_initiator && now.since(session.established) >= REKEY_ON_RECEIVE
            })
    }

    /// The peer was heard over another of its links: nothing is unanswered.
    pub(crate) fn heard(&mut self) {
        self.unanswered = None;
    }

    /// When [`Self::due`] has something to do next, unless something else happens before. Whatever sends
    /// or receives sets nothing that is due sooner than [`SOONEST`] after it.
    pub(crate) fn next(&self) -> Option<Mono> {
        let waiting = match self.attempt {
            Some(attempt) => {
                let end = attempt.since.saturating_add(REKEY_ATTEMPT_TIME);
                Some(attempt.retry.min(end))
            }
            None => {
                let patience = KEEPALIVE_TIMEOUT + REKEY_TIMEOUT;
                self.unanswered.map(|at| at.saturating_add(patience))
            }
        };
        let pause = self.gave_up.map(|at| at.saturating_add(PAUSE));
        [waiting, self.keepalive, pause].into_iter().flatten().min()
    }

    /// What is due at `now`.
    pub(crate) fn due(&mut self, now: Mono) -> Due {
        if !self.is_pausing(now) {
            self.gave_up = None;
        }
        if let Some(attempt) = self.attempt {
            if now.since(attempt.since) >= REKEY_ATTEMPT_TIME {
                *self = Self {
                    gave_up: Some(now),
                    ..Self::default()
                };
                return Due::GiveUp;
            }
            if now >= attempt.retry {
                return Due::Initiation;
            }
        } else if self
            .unanswered
            .is_some_and(|at| now.since(at) >= KEEPALIVE_TIMEOUT + REKEY_TIMEOUT)
        {
            self.unanswered = None;
            return Due::Initiation;
        }
        if self.keepalive.is_some_and(|at| now >= at) {
            self.keepalive = None;
            return Due::Keepalive;
        }
        Due::Nothing
    }

    /// Forgets everything: the peer has no business with us any more.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Mono {
        Mono(secs * 1_000_000_000)
    }

    fn session(is_initiator: bool) -> Option<SessionView> {
        Some(SessionView {
            established: at(0),
            is_initiator,
            sent: 1,
        })
    }

    #[test]
    fn retries_come_every_five_seconds_and_end_after_ninety() {
        let mut timers = Timers::default();
        timers.initiated(at(0), Duration::from_nanos(1));
        assert_eq!(timers.due(at(5)), Due::Nothing, "the jitter counts");
        let mut sent = 1;
        let mut now = at(0);
        let gave_up = loop {
            now = now.saturating_add(Duration::from_millis(100));
            match timers.due(now) {
                Due::Initiation => {
                    sent += 1;
                    timers.initiated(now, JITTER);
                }
                Due::GiveUp => break now,
                Due::Nothing | Due::Keepalive => {}
            }
        };
        assert_eq!(gave_up, at(90));
        assert!((16..=18).contains(&sent), "{sent}");
        assert!(!timers.is_trying());
        assert!(timers.is_pausing(at(91)));
        assert_eq!(timers.due(at(1000)), Due::Nothing);
    }

    #[test]
    fn only_the_initiator_renews_by_time() {
        let mut timers = Timers::default();
        assert!(!timers.sent_data(session(true), at(119)));
        assert!(timers.sent_data(session(true), at(120)));
        assert!(!timers.sent_data(session(false), at(170)));
        assert!(!timers.received(true, session(true), at(164)));
        assert!(timers.received(true, session(true), at(165)));
        assert!(!timers.received(true, session(false), at(165)));
        let full = SessionView {
            established: at(0),
            is_initiator: false,
            sent: REKEY_AFTER_MESSAGES,
        };
        assert!(timers.sent_data(Some(full), at(1)));
    }

    #[test]
    fn silence_is_answered_with_silence() {
        let mut timers = Timers::default();
        assert_eq!(timers.due(at(600)), Due::Nothing);
        timers.received(false, session(true), at(600));
        assert_eq!(
            timers.due(at(1200)),
            Due::Nothing,
            "no keepalive for a keepalive"
        );
        timers.received(true, session(true), at(1200));
        assert_eq!(timers.due(at(1209)), Due::Nothing);
        assert_eq!(timers.due(at(1210)), Due::Keepalive);
        assert_eq!(timers.due(at(2000)), Due::Nothing);
    }

    #[test]
    fn what_is_due_was_announced() {
        let mut timers = Timers::default();
        let mut announced = 0;
        for step in 0..4_000_u64 {
            let now = Mono(step * 700_000_000);
            let next = timers.next();
            match timers.due(now) {
                Due::Nothing => {
                    // Nothing but the end of a pause passes without a word.
                    let was_pause = timers.next() != next;
                    assert!(was_pause || next.is_none_or(|at| at > now), "{step}");
                }
                due @ (Due::Initiation | Due::Keepalive | Due::GiveUp) => {
                    announced += 1;
                    assert!(next.is_some_and(|at| at <= now), "{step}: {due:?}");
                    if due == Due::Initiation {
                        timers.initiated(now, JITTER);
                    }
                }
            }
            // Whatever sets a timer sets it for later than this.
            let soonest = now.saturating_add(SOONEST);
            let before = timers.next();
            match step * 7919 % 997 {
                0..4 => drop(timers.sent_data(session(true), now)),
                4..6 => drop(timers.received(step % 2 == 0, session(false), now)),
                6 => timers.established(),
                7..9 => timers.initiated(now, Duration::ZERO),
                _ => {}
            }
            assert!(timers.next() == before || timers.next().is_none_or(|at| at >= soonest));
        }
        assert!(announced > 20, "{announced}");
        timers = Timers::default();
        timers.initiated(at(0), JITTER);
        assert_eq!(timers.due(at(90)), Due::GiveUp);
        assert_eq!(timers.next(), Some(at(210)), "the pause");
        assert_eq!(timers.due(at(210)), Due::Nothing);
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn unanswered_data_brings_a_handshake() {
        let mut timers = Timers::default();
        timers.sent_data(session(false), at(100));
        assert_eq!(timers.due(at(114)), Due::Nothing);
        assert_eq!(timers.due(at(115)), Due::Initiation);
        timers.sent_data(session(false), at(200));
        timers.received(false, session(false), at(201));
        assert_eq!(timers.due(at(300)), Due::Nothing);
    }
}
