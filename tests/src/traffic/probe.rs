//! One-way UDP under watch: numbered packets with their send times, and at the other end what is
//! missing, since when, and what came late. Both ends are of this process and read one clock, so a
//! packet's delay is meaningful.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use nix::sys::socket::{setsockopt, sockopt};

use super::{Worker, is_stopped};
use crate::clock::wall;
use crate::netns::Namespace;

const POLL: Duration = Duration::from_millis(50);
/// Between two looks at whether to send.
const PAUSE: Duration = Duration::from_millis(10);
/// Sequence number, send time and start of the burst, each eight bytes, then contents to check.
const HEADER: usize = 24;
const PACKET: usize = 200;
/// A packet that took longer than this was held somewhere.
const LATE: Duration = Duration::from_millis(200);
/// Stretches kept; the rest is counted.
const KEPT: usize = 4096;

/// A stretch of time in which packets were sent and did not arrive, or arrived late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// Wall-clock time at which the first packet of it was sent, or could have been at the earliest.
    pub began: Duration,
    /// Wall-clock time of the end: when the first packet after it was sent, or when the late one came.
    pub ended: Duration,
    /// Packets missing or late.
    pub packets: u64,
}

impl Stretch {
    /// How long it lasted.
    #[must_use]
    pub fn length(&self) -> Duration {
        self.ended.saturating_sub(self.began)
    }
}

/// What one direction has come to.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Packets that the local stack took.
    pub sent: u64,
    /// Packets that it refused, after an ICMP error for example.
    pub refused: u64,
    /// Packets that arrived, each counted once.
    pub received: u64,
    /// Packets that arrived after a later one.
    pub reordered: u64,
    /// Packets whose contents were not as sent, and those that came twice.
    pub wrong: u64,
    /// The longest that a packet took.
    pub longest_delay: Duration,
    /// Where packets are missing.
    pub lost: Vec<Stretch>,
    /// Where packets came late.
    pub late: Vec<Stretch>,
    /// Stretches beyond those kept.
    pub not_kept: u64,
}

/// Sends in one direction while it is switched on, and watches the other end.
#[derive(Debug)]
pub struct Probe {
    shared: Arc<Shared>,
    _sender: Worker,
    _receiver: Worker,
}

#[derive(Debug, Default)]
struct Shared {
    on: AtomicBool,
    sent: AtomicU64,
    refused: AtomicU64,
    /// Send time of the last packet, and start of its burst, nanoseconds.
    last_sent: AtomicU64,
    burst: AtomicU64,
    seen: Mutex<Seen>,
}

impl Probe {
    /// Packets from namespace `from` to address `to` and `port` in namespace `at`, one every `pace`
    /// while switched on. It starts switched off.
    ///
    /// # Errors
    /// Where a socket is not to be had.
    pub fn start(
        from: &Namespace,
        at: &Namespace,
        to: IpAddr,
        port: u16,
        pace: Duration,
    ) -> anyhow::Result<Self> {
        let any = if to.is_ipv4() {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED)
        } else {
            IpAddr::V6(Ipv6Addr::UNSPECIFIED)
        };
        let sending = from.run(|| UdpSocket::bind((any, 0)).context("bind a UDP port"))?;
        let receiving = at.run(|| {
            UdpSocket::bind((any, port)).with_context(|| format!("bind UDP port {port}"))
        })?;
        receiving.set_read_timeout(Some(POLL))?;
        setsockopt(&receiving, sockopt::RcvBuf, &(1 << 20))?;
        let shared = Arc::new(Shared::default());
        let (by_sender, by_receiver) = (Arc::clone(&shared), Arc::clone(&shared));
        let target = SocketAddr::new(to, port);
        Ok(Self {
            shared,
            _sender: Worker::start(move |stop| by_sender.send(&sending, target, pace, stop)),
            _receiver: Worker::start(move |stop| by_receiver.receive(&receiving, stop)),
        })
    }

    /// Switches sending on or off.
    pub fn switch(&self, on: bool) {
        self.shared.on.store(on, Ordering::SeqCst);
    }

    /// What it has come to. Packets that were sent less than `grace` ago may still arrive: they make no
    /// stretch of loss.
    #[must_use]
    pub fn tally(&self, grace: Duration) -> Tally {
        let sent = self.shared.sent.load(Ordering::SeqCst);
        let last_sent = Duration::from_nanos(self.shared.last_sent.load(Ordering::SeqCst));
        let seen = self.shared.seen();
        let mut tally = seen.tally.clone();
        tally.sent = sent;
        tally.refused = self.shared.refused.load(Ordering::SeqCst);
        // What is missing at the end has no packet after it that would tell.
        let burst = Duration::from_nanos(self.shared.burst.load(Ordering::SeqCst));
        let stretch = Stretch {
            began: seen.last.max(burst),
            ended: last_sent,
            packets: sent.saturating_sub(seen.next),
        };
        if stretch.packets > 0 && wall().saturating_sub(seen.last.max(burst)) > grace {
            tally.lost.push(stretch);
        }
        tally
    }
}

impl Shared {
    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, socket: &UdpSocket, to: SocketAddr, pace: Duration, stop: &AtomicBool) {
        let mut sequence = 0_u64;
        let mut burst = None;
        while !is_stopped(stop) {
            if !self.on.load(Ordering::SeqCst) {
                burst = None;
                std::thread::sleep(PAUSE);
                continue;
            }
            let now = wall();
            let began = *burst.get_or_insert(now);
            self.burst.store(nanos(began), Ordering::SeqCst);
            match socket.send_to(&write(sequence, now, began), to) {
                Ok(_) => {
                    sequence += 1;
                    self.last_sent.store(nanos(now), Ordering::SeqCst);
                    self.sent.store(sequence, Ordering::SeqCst);
                }
                Err(_) => {
                    self.refused.fetch_add(1, Ordering::SeqCst);
                }
            }
            std::thread::sleep(pace);
        }
    }

    fn receive(&self, socket: &UdpSocket, stop: &AtomicBool) {
        let mut buffer = [0; 2048];
        while !is_stopped(stop) {
            if let Ok(length) = socket.recv(&mut buffer) {
                let packet = buffer.get(..length).unwrap_or_default();
                self.seen().packet(packet, wall());
            }
        }
    }
}

fn write(sequence: u64, now: Duration, burst: Duration) -> [u8; PACKET] {
    let mut packet = [0; PACKET];
    packet[..8].copy_from_slice(&sequence.to_be_bytes());
    packet[8..16].copy_from_slice(&nanos(now).to_be_bytes());
    packet[16..HEADER].copy_from_slice(&nanos(burst).to_be_bytes());
    for (at, byte) in packet[HEADER..].iter_mut().enumerate() {
        *byte = filling(sequence, at);
    }
    packet
}

/// The byte at `at` of what fills a packet up.
fn filling(sequence: u64, at: usize) -> u8 {
    let [.., low] = sequence.to_be_bytes();
    let [.., place] = at.to_be_bytes();
    low.wrapping_mul(31).wrapping_add(place)
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// The receiver's side.
#[derive(Debug, Default)]
struct Seen {
    tally: Tally,
    /// The sequence number after the highest one seen.
    next: u64,
    /// Send time of the packet with the highest number seen.
    last: Duration,
    /// The first number of each of the latest stretches of loss, for packets that come late after all.
    open: VecDeque<(std::ops::Range<u64>, usize)>,
    /// Whether the packet before was late.
    was_late: bool,
}

impl Seen {
    fn packet(&mut self, packet: &[u8], arrived: Duration) {
        let Some((sequence, sent, burst)) = parse(packet) else {
            self.tally.wrong += 1;
            return;
        };
        if sequence >= self.next {
            self.tally.received += 1;
            if sequence > self.next {
                let stretch = Stretch {
                    began: self.last.max(burst),
                    ended: sent,
                    packets: sequence - self.next,
                };
                self.missing(self.next..sequence, stretch);
            }
            (self.next, self.last) = (sequence + 1, sent);
        } else if self.found(sequence) {
            self.tally.received += 1;
            self.tally.reordered += 1;
        } else {
            self.tally.wrong += 1;
        }
        self.time(sent, arrived);
    }

    fn missing(&mut self, numbers: std::ops::Range<u64>, stretch: Stretch) {
        if self.tally.lost.len() >= KEPT {
            self.tally.not_kept += 1;
            return;
        }
        if self.open.len() >= 64 {
            self.open.pop_front();
        }
        self.open.push_back((numbers, self.tally.lost.len()));
        self.tally.lost.push(stretch);
    }

    /// Whether `sequence` was held to be lost.
    fn found(&mut self, sequence: u64) -> bool {
        let at = self
            .open
            .iter()
            .find(|(numbers, _)| numbers.contains(&sequence))
            .map(|(_, at)| *at);
        let stretch = at.and_then(|at| self.tally.lost.get_mut(at));
        stretch.is_some_and(|stretch| {
            let was_missing = stretch.packets > 0;
            stretch.packets = stretch.packets.saturating_sub(1);
            was_missing
        })
    }

    fn time(&mut self, sent: Duration, arrived: Duration) {
        let delay = arrived.saturating_sub(sent);
        self.tally.longest_delay = self.tally.longest_delay.max(delay);
        let is_late = delay >= LATE;
        if is_late {
            let goes_on = self.was_late;
            let late = &mut self.tally.late;
            if let Some(stretch) = late.last_mut().filter(|_| goes_on) {
                stretch.ended = stretch.ended.max(arrived);
                stretch.packets += 1;
            } else if late.len() < KEPT {
                late.push(Stretch {
                    began: sent,
                    ended: arrived,
                    packets: 1,
                });
            } else {
                self.tally.not_kept += 1;
            }
        }
        self.was_late = is_late;
    }
}

fn parse(packet: &[u8]) -> Option<(u64, Duration, Duration)> {
    let field = |at: usize| {
        let bytes = packet.get(at..at + 8)?;
        Some(u64::from_be_bytes(bytes.try_into().ok()?))
    };
    let (sequence, sent, burst) = (field(0)?, field(8)?, field(16)?);
    let contents = packet.get(HEADER..PACKET)?;
    let is_right = packet.len() == PACKET
        && contents
            .iter()
            .enumerate()
            .all(|(at, byte)| *byte == filling(sequence, at));
    is_right.then(|| {
        (
            sequence,
            Duration::from_nanos(sent),
            Duration::from_nanos(burst),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn loss_lateness_and_damage_are_told_apart() {
        let mut seen = Seen::default();
        let mut give = |sequence, sent, burst, arrived| {
            seen.packet(&write(sequence, ms(sent), ms(burst)), ms(arrived));
        };
        give(0, 0, 0, 1);
        give(1, 10, 0, 11);
        // 2, 3 and 4 are missing, within the burst.
        give(5, 50, 0, 51);
        // 3 comes after all.
        give(3, 30, 0, 52);
        // A new burst, whose first packet is missing: the pause before it is no loss.
        give(7, 1_010, 1_000, 1_011);
        give(8, 1_020, 1_000, 1_500);
        give(9, 1_030, 1_000, 1_510);
        give(9, 1_030, 1_000, 1_511);
        seen.packet(&[0; PACKET - 1], ms(2_000));
        let tally = &seen.tally;
        assert_eq!(tally.lost[0].packets, 2);
        assert_eq!(
            (tally.lost[0].began, tally.lost[0].length()),
            (ms(10), ms(40))
        );
        assert_eq!(
            (tally.lost[1].began, tally.lost[1].length()),
            (ms(1_000), ms(10))
        );
        assert_eq!(tally.late.len(), 1);
        assert_eq!(
            (tally.late[0].began, tally.late[0].ended),
            (ms(1_020), ms(1_511))
        );
        assert_eq!((tally.received, tally.reordered, tally.wrong), (7, 1, 2));
        assert_eq!(tally.longest_delay, ms(481));
    }
}
