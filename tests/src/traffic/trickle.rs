//! A TCP connection with a little data now and then, whose every byte is checked on arrival.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;

use super::{Worker, is_stopped};
use crate::clock::wall;
use crate::netns::Namespace;

const POLL: Duration = Duration::from_millis(50);
const CHUNK: usize = 512;

/// What a trickle has come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trickled {
    /// Bytes that arrived.
    pub bytes: u64,
    /// Bytes that were not as sent.
    pub wrong: u64,
    /// The longest time in which nothing arrived, and the wall-clock time at which it began.
    pub longest_silence: (Duration, Duration),
    /// How the connection ended, if it did.
    pub ended: Option<String>,
}

/// Bytes in one direction over one connection, until it is dropped.
#[derive(Debug)]
pub struct Trickle {
    shared: Arc<Shared>,
    _sender: Worker,
    _receiver: Worker,
}

#[derive(Debug, Default)]
struct Shared {
    bytes: AtomicU64,
    wrong: AtomicU64,
    last: Mutex<Silence>,
    ended: Mutex<Option<String>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Silence {
    last: Duration,
    longest: (Duration, Duration),
}

impl Trickle {
    /// Connects from namespace `from` to address `to` and `port`, where it listens in namespace `at`, and
    /// sends half a kilobyte every `pace`.
    ///
    /// # Errors
    /// Where no connection comes about within `limit`.
    pub fn start(
        from: &Namespace,
        at: &Namespace,
        to: SocketAddr,
        pace: Duration,
        limit: Duration,
    ) -> anyhow::Result<Self> {
        let any = if to.is_ipv4() {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED)
        } else {
            IpAddr::V6(Ipv6Addr::UNSPECIFIED)
        };
        let listener = at.run(|| {
            TcpListener::bind((any, to.port())).with_context(|| format!("listen at {to}"))
        })?;
        let mut sending = from.run(|| {
            TcpStream::connect_timeout(&to, limit).with_context(|| format!("connect to {to}"))
        })?;
        let (mut receiving, _) = listener.accept().context("accept")?;
        sending.set_nodelay(true)?;
        sending.set_write_timeout(Some(POLL))?;
        receiving.set_read_timeout(Some(POLL))?;
        let shared = Arc::new(Shared::default());
        shared.silence(|silence| silence.last = wall());
        let (by_sender, by_receiver) = (Arc::clone(&shared), Arc::clone(&shared));
        Ok(Self {
            shared,
            _sender: Worker::start(move |stop| by_sender.send(&mut sending, pace, stop)),
            _receiver: Worker::start(move |stop| by_receiver.receive(&mut receiving, stop)),
        })
    }

    /// What it has come to.
    #[must_use]
    pub fn tally(&self) -> Trickled {
        let silence = self.shared.silence(|silence| {
            silence.measure(wall());
            *silence
        });
        let ended = self.shared.ended.lock();
        Trickled {
            bytes: self.shared.bytes.load(Ordering::Relaxed),
            wrong: self.shared.wrong.load(Ordering::Relaxed),
            longest_silence: silence.longest,
            ended: ended.unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

impl Silence {
    fn measure(&mut self, now: Duration) {
        let silence = now.saturating_sub(self.last);
        if silence > self.longest.0 {
            self.longest = (silence, self.last);
        }
    }
}

impl Shared {
    fn silence<T>(&self, work: impl FnOnce(&mut Silence) -> T) -> T {
        work(&mut self.last.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn end(&self, why: String) {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.get_or_insert(why);
    }

    fn send(&self, stream: &mut TcpStream, pace: Duration, stop: &AtomicBool) {
        let mut offset = 0_u64;
        while !is_stopped(stop) {
            let mut chunk = [0; CHUNK];
            for (at, byte) in (offset..).zip(&mut chunk) {
                *byte = content(at);
            }
            match stream.write(&chunk) {
                Ok(0) => return self.end("closed while sending".into()),
                Ok(length) => offset += length as u64,
                Err(error) if is_patient(error.kind()) => {}
                Err(error) => return self.end(format!("sending: {error}")),
            }
            std::thread::sleep(pace);
        }
    }

    fn receive(&self, stream: &mut TcpStream, stop: &AtomicBool) {
        let mut offset = 0_u64;
        let mut buffer = [0; 16 * 1024];
        while !is_stopped(stop) {
            match stream.read(&mut buffer) {
                Ok(0) => return self.end("closed while receiving".into()),
                Ok(length) => {
                    let bytes = buffer.get(..length).unwrap_or_default();
                    let wrong = (offset..).zip(bytes).filter(|(at, b)| **b != content(*at));
                    let wrong = wrong.count() as u64;
                    self.wrong.fetch_add(wrong, Ordering::Relaxed);
                    offset += length as u64;
                    self.bytes.store(offset, Ordering::Relaxed);
                    self.silence(|silence| {
                        let now = wall();
                        silence.measure(now);
                        silence.last = now;
                    });
                }
                Err(error) if is_patient(error.kind()) => {}
                Err(error) => return self.end(format!("receiving: {error}")),
            }
        }
    }
}

/// The byte at an offset: no period that a lost segment could hide behind.
fn content(offset: u64) -> u8 {
    let mixed = offset.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let [high, ..] = mixed.to_be_bytes();
    high
}

fn is_patient(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
    )
}
