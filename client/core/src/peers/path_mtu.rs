//! How large a packet the path to a peer carries: as routers say, and as probes show where none says anything.
//!
//! Packetization-layer path MTU discovery (RFC 8899) between two data paths. The first long packet on a path, and one
//! every ten seconds, has a short and a full probe sent beside it, and so has a silence of the peer. Where the short one is
//! answered and the full one is not, a second later all lengths in between are tried, three times: what is lost by
//! accident shall not make a path narrow. It can all the same while a path is overrun, so a narrow one is asked for
//! its full length again soon. Where nothing is answered, the peer does not know probes or the path is down, and nothing is
//! concluded. Who sends nothing long causes none of it.

use std::net::SocketAddr;
use std::time::Duration;

use gatereeve_shared::time::Mono;

use super::path_probe::SHORT;
use crate::wg::{LEAST_MTU, OVERHEAD, OVERLAY_MTU};

/// UDP header.
const UDP: usize = 8;
/// A path is believed to be narrow for so long, as Linux does by default (`net.ipv4.route.mtu_expires`) and RFC 8899
/// recommends (`PMTU_RAISE_TIMER`).
const BELIEVED: Duration = Duration::from_secs(600);
/// A path is believed to carry full packets for so long. It bounds how long flows stand still that meet a path which has
/// become narrow in silence while short packets get through: no silence of the peer tells of that. An overrun path is taken for
/// a narrow one where a full probe is lost four times in as many seconds and a short one is not, and each question is a chance.
const PROVEN: Duration = Duration::from_secs(10);
/// The number of the full probe, and that of the short one, behind those of all lengths.
const FULL_AT: u8 = 0;
const SHORT_AT: u8 = 7;
/// A packet is long from here on: shorter than the shortest length, so that those on the narrowest path count.
const LONG: usize = 1000;
/// How long answers are waited for.
const ANSWERS: Duration = Duration::from_secs(1);
/// From one search to the next at least.
const DISTANCE: Duration = Duration::from_secs(1);
/// Short and full probes before it is given up for a while.
const ASKED: u8 = 3;
/// Times that all lengths are tried.
const SEARCHED: u8 = 3;
/// How long a path that was found narrow is left alone.
const RECHECKED: Duration = Duration::from_secs(15);
/// How long a peer that answers nothing is left alone.
const SILENT: Duration = Duration::from_secs(60);

/// What is known of one path. By default, as much as the overlay ever sends.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PathMtu {
    /// What a router has said.
    told: Option<Narrow>,
    /// The longest packet that came through, where a full one did not.
    found: Option<Narrow>,
    /// The peer has fallen silent since: even what was found may no longer come through.
    is_doubted: bool,
    step: Step,
    /// When a long packet takes the next step.
    due: Mono,
    /// When time alone does.
    timer: Option<Mono>,
    /// Tells the answers of this search from those of another.
    search: u32,
    /// When it began. The next one keeps a distance, on another path, too: a peer that moves to and fro must not
    /// have every packet followed by probes.
    began: Option<Mono>,
    /// The lengths that were answered, a bit for each.
    answered: u8,
}

#[derive(Clone, Copy, Debug)]
struct Narrow {
    inner: usize,
    since: Mono,
}

/// Where a search is.
#[derive(Clone, Copy, Debug, Default)]
enum Step {
    #[default]
    Rests,
    /// So many times a short and a full probe were sent.
    Asks(u8),
    /// So many times all lengths were.
    Searches(u8),
}

/// Probes to send: the number and the length of each.
pub(crate) type Probes = &'static [(u8, usize)];

const FIRST: Probes = &[(FULL_AT, OVERLAY_MTU), (SHORT_AT, SHORT)];
/// The lengths that are tried, of packets. Multiples of 16 but for the first, so that padding is no matter: with
/// outer headers 1,480 (IPv4) or 1,500 bytes (IPv6), 1,452 (PPPoE and a tunnel more), 1,420, 1,388, 1,340, 1,276, 1,164.
const ALL: Probes = &[
    (FULL_AT, OVERLAY_MTU),
    (1, 1392),
    (2, 1360),
    (3, 1328),
    (4, 1280),
    (5, 1216),
    (6, 1104),
];

impl PathMtu {
    /// The largest packet that goes through, before padding.
    pub(crate) fn inner(&self) -> usize {
        let told = self.told.map_or(OVERLAY_MTU, |narrow| narrow.inner);
        self.found.map_or(told, |narrow| narrow.inner.min(told))
    }

    /// Another path, of which nothing is known.
    pub(crate) fn changed(&mut self) {
        let began = self.began;
        *self = Self {
            search: self.search,
            began,
            due: began.map_or(Mono(0), |began| began.saturating_add(DISTANCE)),
            ..Self::default()
        };
    }

    /// The path to `to` carries datagrams of `outer` bytes, IP header included.
    pub(crate) fn learn(&mut self, to: SocketAddr, outer: usize, now: Mono) {
        let ip = if to.is_ipv4() { 20 } else { 40 };
        // What is padded to 16 bytes must fit, too.
        let inner = outer.saturating_sub(ip + UDP + OVERHEAD) & !15;
        let inner = inner.max(LEAST_MTU);
        self.told = (inner < OVERLAY_MTU).then_some(Narrow { inner, since: now });
    }

    /// When [`Self::forget`] or [`Self::look`] will have something to do, unless a packet comes before.
    pub(crate) fn next(&self) -> Option<Mono> {
        let told = self.told.iter();
        let ends = told.map(|narrow| narrow.since.saturating_add(BELIEVED));
        ends.chain(self.timer).min()
    }

    /// A path that was said to be narrow may have become wide again: the next packet that does not fit tells.
    pub(crate) fn forget(&mut self, now: Mono) {
        self.told = self
            .told
            .filter(|narrow| now.since(narrow.since) < BELIEVED);
    }

    /// Whether a packet of `len` bytes that was sent has [`Self::look`] something to do.
    ///
    /// Not on a path that a router has said is narrow: the kernel sends what is too long for it in fragments.
    pub(crate) fn is_due(&self, len: usize, now: Mono) -> bool {
        len > LONG && now >= self.due && self.told.is_none()
    }

    /// Whether time alone has [`Self::look`] something to do.
    pub(crate) fn is_late(&self, now: Mono) -> bool {
        self.timer.is_some_and(|timer| timer <= now)
    }

    /// The peer has fallen silent. If long packets go to it, they may be why.
    pub(crate) fn doubt(&mut self, now: Mono) {
        if matches!(self.step, Step::Rests) && self.due > Mono(0) && self.told.is_none() {
            self.timer = Some(now);
            self.is_doubted = true;
        }
    }

    /// The next step of the search: what to send, and under which number. Time alone takes the one after it no
    /// sooner than `soonest` from now.
    pub(crate) fn look(&mut self, now: Mono, soonest: Duration) -> (u32, Probes) {
        let short_came = self.has(SHORT_AT);
        let (step, wait, probes) = match self.step {
            Step::Rests => {
                self.search = self.search.wrapping_add(1);
                self.began = Some(now);
                self.answered = 0;
                (Step::Asks(1), ANSWERS, FIRST)
            }
            Step::Asks(_) if short_came => {
                let is_known = |narrow: Narrow| now.since(narrow.since) < BELIEVED;
                if self.found.is_some_and(is_known) && !self.is_doubted {
                    (Step::Rests, RECHECKED, [].as_slice())
                } else {
                    (Step::Searches(1), ANSWERS, ALL)
                }
            }
            Step::Asks(times) if times < ASKED => (Step::Asks(times + 1), ANSWERS, FIRST),
            Step::Asks(_) => (Step::Rests, SILENT, [].as_slice()),
            Step::Searches(times) if times < SEARCHED => (Step::Searches(times + 1), ANSWERS, ALL),
            Step::Searches(_) => {
                self.is_doubted = false;
                match ALL.iter().find(|(at, _)| self.has(*at)) {
                    Some((_, longest)) => {
                        self.found = Some(Narrow {
                            inner: *longest,
                            since: now,
                        });
                        (Step::Rests, RECHECKED, [].as_slice())
                    }
                    // Not even the shortest: this is no matter of length.
                    None => (Step::Rests, SILENT, [].as_slice()),
                }
            }
        };
        self.step = step;
        self.due = now.saturating_add(wait);
        let goes_on = !matches!(step, Step::Rests);
        self.timer = goes_on.then_some(now.saturating_add(wait.max(soonest)));
        (self.search, probes)
    }

    /// The probe with the number `length` of `search` came through.
    pub(crate) fn answered(&mut self, search: u32, length: u8, now: Mono) {
        let is_asked = search == self.search && !matches!(self.step, Step::Rests);
        if !is_asked || length > SHORT_AT {
            return;
        }
        self.answered |= 1 << length;
        if self.has(FULL_AT) {
            self.found = None;
            self.is_doubted = false;
            self.step = Step::Rests;
            self.due = now.saturating_add(PROVEN);
            self.timer = None;
        }
    }

    fn has(&self, length: u8) -> bool {
        self.answered & (1 << length) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const SOONEST: Duration = Duration::from_secs(5);

    #[test]
    fn a_path_is_as_wide_as_was_learnt_for_ten_minutes() {
        let v4: SocketAddr = "192.0.2.1:1".parse().unwrap();
        let v6: SocketAddr = "[2001:db8::1]:1".parse().unwrap();
        let mut path = PathMtu::default();
        assert_eq!(path.inner(), OVERLAY_MTU);
        path.learn(v4, 1400, Mono(0));
        // 1400 - 20 - 8 - 32, and room for padding.
        assert_eq!(path.inner(), 1328);
        path.learn(v6, 1400, Mono(0));
        assert_eq!(path.inner(), 1312);
        path.forget(Mono(599 * SECOND));
        assert_eq!(path.inner(), 1312);
        path.forget(Mono(600 * SECOND));
        assert_eq!(path.inner(), OVERLAY_MTU);
        path.learn(v4, 68, Mono(0));
        assert_eq!(path.inner(), LEAST_MTU, "nobody makes it useless");
        path.learn(v4, 9000, Mono(0));
        assert_eq!(path.inner(), OVERLAY_MTU);
    }

    /// Sends a long packet every 100 ms for `secs`, over a path that carries packets of `carries` bytes to a peer
    /// that answers. Returns the number of probes.
    fn traffic(path: &mut PathMtu, now: &mut Mono, secs: u64, carries: usize) -> usize {
        let mut sent = 0;
        for _ in 0..secs * 10 {
            if path.is_due(OVERLAY_MTU, *now) {
                let (search, probes) = path.look(*now, SOONEST);
                sent += probes.len();
                for (number, length) in probes {
                    if *length <= carries {
                        path.answered(search, *number, *now);
                    }
                }
            }
            *now = Mono(now.0 + SECOND / 10);
        }
        sent
    }

    #[test]
    fn a_silent_hole_is_found_and_so_is_its_end() {
        for (carries, found) in [
            (1419, 1392),
            (1391, 1360),
            (1328, 1328),
            (1300, 1280),
            (1220, 1216),
            (1150, 1104),
        ] {
            let (mut path, mut now) = (PathMtu::default(), Mono(7));
            let probes = traffic(&mut path, &mut now, 5, carries);
            assert_eq!((path.inner(), probes), (found, 2 + 3 * 7), "{carries}");
            // It stays so, at two probes in a quarter of a minute.
            let probes = traffic(&mut path, &mut now, 590, carries);
            assert_eq!(path.inner(), found);
            assert!((60..=80).contains(&probes), "{probes}");
            // Ten minutes later all lengths are tried again.
            let probes = traffic(&mut path, &mut now, 60, carries);
            assert_eq!(path.inner(), found);
            assert!(probes > 3 * 7, "{probes}");
            // Wide again, or it never was narrow: it takes no longer than the next question.
            traffic(&mut path, &mut now, 18, OVERLAY_MTU);
            assert_eq!(path.inner(), OVERLAY_MTU);
        }
    }

    #[test]
    fn a_narrow_path_that_becomes_narrower_is_found_out_by_silence() {
        let (mut path, mut now) = (PathMtu::default(), Mono(7));
        traffic(&mut path, &mut now, 5, 1400);
        assert_eq!(path.inner(), 1392);
        traffic(&mut path, &mut now, 60, 1300);
        assert_eq!(path.inner(), 1392, "asked for its full length alone");
        while !path.is_late(now) {
            path.doubt(now);
            now = Mono(now.0 + SECOND);
        }
        traffic(&mut path, &mut now, 40, 1300);
        assert_eq!(path.inner(), 1280);
        // The same questions again cost what they did.
        assert!(traffic(&mut path, &mut now, 45, 1300) <= 8);
        assert_eq!(path.inner(), 1280);
    }

    #[test]
    fn a_wide_path_costs_two_probes_in_ten_seconds() {
        let (mut path, mut now) = (PathMtu::default(), Mono(7));
        assert_eq!(traffic(&mut path, &mut now, 9, OVERLAY_MTU), 2);
        assert_eq!(traffic(&mut path, &mut now, 2, OVERLAY_MTU), 2);
        assert_eq!(path.inner(), OVERLAY_MTU);
        assert!(!path.is_due(LONG, Mono(u64::MAX)), "nor do short packets");
    }

    #[test]
    fn without_packets_time_goes_on_with_it() {
        let mut path = PathMtu::default();
        assert_eq!(path.next(), None);
        path.doubt(Mono(0));
        assert_eq!(path.next(), None, "nothing long was ever sent");
        // By a packet: what it sets off is due no sooner than this.
        let (search, probes) = path.look(Mono(0), SOONEST);
        path.answered(search, probes[1].0, Mono(1));
        assert_eq!(path.next(), Some(Mono(5 * SECOND)));
        assert!(!path.is_late(Mono(4 * SECOND)) && path.is_late(Mono(5 * SECOND)));
        for second in 5..9 {
            let (search, probes) = path.look(Mono(second * SECOND), Duration::ZERO);
            for (number, length) in probes {
                if *length <= 1300 {
                    path.answered(search, *number, Mono(second * SECOND));
                }
            }
            let next = path.next();
            assert_eq!(next, (second < 8).then_some(Mono((second + 1) * SECOND)));
        }
        assert_eq!(path.inner(), 1280);

        // A silence of the peer begins one, ahead of time.
        path.changed();
        let (search, _) = path.look(Mono(0), SOONEST);
        path.answered(search, FULL_AT, Mono(0));
        assert_eq!(path.next(), None);
        path.doubt(Mono(SECOND));
        assert!(path.is_late(Mono(SECOND)));
        assert_eq!(path.look(Mono(SECOND), Duration::ZERO).1, FIRST);
    }

    #[test]
    fn a_peer_that_moves_with_every_packet_costs_two_probes_a_second() {
        let mut path = PathMtu::default();
        let probes: usize = (0..1000)
            .map(|millis| {
                path.changed();
                let now = Mono(7 + millis * 10_000_000);
                if path.is_due(OVERLAY_MTU, now) {
                    path.look(now, SOONEST).1.len()
                } else {
                    0
                }
            })
            .sum();
        assert_eq!(probes, 20);
    }

    #[test]
    fn silence_and_loss_narrow_nothing() {
        // A peer that does not know probes, or a path that is down.
        let (mut path, mut now) = (PathMtu::default(), Mono(7));
        let probes = traffic(&mut path, &mut now, 10, 0);
        assert_eq!((path.inner(), probes), (OVERLAY_MTU, 6));
        // Only what is short gets through, which is not a matter of length.
        path.changed();
        traffic(&mut path, &mut now, 10, SHORT);
        assert_eq!(path.inner(), OVERLAY_MTU);
        // A full probe that is lost once.
        path.changed();
        let (search, probes) = path.look(now, SOONEST);
        path.answered(search, probes[1].0, now);
        let (search, _) = path.look(now, SOONEST);
        path.answered(search, 0, now);
        assert_eq!(path.inner(), OVERLAY_MTU);
        assert!(!path.is_due(OVERLAY_MTU, Mono(now.0 + 8 * SECOND)));
    }

    #[test]
    fn answers_of_another_search_or_of_nothing_count_for_nothing() {
        let mut path = PathMtu::default();
        let (search, _) = path.look(Mono(0), SOONEST);
        path.changed();
        let (other, _) = path.look(Mono(0), SOONEST);
        assert_ne!(search, other);
        path.answered(search, 0, Mono(0));
        path.answered(other, 200, Mono(0));
        assert!(path.is_due(OVERLAY_MTU, Mono(SECOND)), "still asking");
        path.answered(other, 0, Mono(0));
        assert!(!path.is_due(OVERLAY_MTU, Mono(SECOND)), "the control");
        // What nobody asked for changes nothing that was found.
        path.found = Some(Narrow {
            inner: 1280,
            since: Mono(0),
        });
        path.answered(other, 0, Mono(0));
        assert_eq!(path.inner(), 1280);
    }

    #[test]
    fn what_a_router_says_and_what_is_found_both_hold() {
        let to: SocketAddr = "192.0.2.1:1".parse().unwrap();
        let (mut path, mut now) = (PathMtu::default(), Mono(7));
        path.learn(to, 1400, now);
        assert_eq!(traffic(&mut path, &mut now, 4, 1300), 0);
        assert_eq!(path.inner(), 1328);
        path.changed();
        traffic(&mut path, &mut now, 5, 1300);
        path.learn(to, 1400, now);
        assert_eq!(path.inner(), 1280);
    }
}
