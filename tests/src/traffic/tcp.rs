//! TCP: a server that sends without end, downloads from it, and single connection attempts.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;

use super::{Worker, is_stopped};
use crate::clock::{Stopwatch, wait_for, wall};
use crate::netns::Namespace;

const POLL: Duration = Duration::from_millis(50);
/// Between two chunks of 16 KiB, so about 4 MB/s: plenty to see a stop, little enough for twenty
/// devices on two cores.
const PACE: Duration = Duration::from_millis(4);

/// A server on a TCP port, both families, that sends to whoever connects until they close.
#[derive(Debug)]
pub struct TcpSource {
    accepted: Arc<AtomicU64>,
    _worker: Worker,
}

impl TcpSource {
    /// Listens on `port` in `namespace`.
    ///
    /// # Errors
    /// Where the port cannot be had.
    pub fn start(namespace: &Namespace, port: u16) -> anyhow::Result<Self> {
        Self::start_at(namespace, port, PACE)
    }

    /// Listens on `port` in `namespace`, and sends as fast as it goes.
    ///
    /// # Errors
    /// Where the port cannot be had.
    pub fn start_unpaced(namespace: &Namespace, port: u16) -> anyhow::Result<Self> {
        Self::start_at(namespace, port, Duration::ZERO)
    }

    fn start_at(namespace: &Namespace, port: u16, pause: Duration) -> anyhow::Result<Self> {
        let listener = namespace.run(|| {
            TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).context("listen on a TCP port")
        })?;
        listener.set_nonblocking(true)?;
        let accepted = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&accepted);
        let worker = Worker::start(move |stop| {
            let mut senders = Vec::new();
            while !is_stopped(stop) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        counter.fetch_add(1, Ordering::Relaxed);
                        senders.push(Worker::start(move |stop| {
                            send_without_end(stream, pause, stop);
                        }));
                    }
                    Err(_) => std::thread::sleep(Duration::from_millis(2)),
                }
            }
        });
        Ok(Self {
            accepted,
            _worker: worker,
        })
    }

    /// Connections accepted so far.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }
}

fn send_without_end(mut stream: TcpStream, pause: Duration, stop: &std::sync::atomic::AtomicBool) {
    let chunk = [0x5a; 16 * 1024];
    if stream.set_nonblocking(false).is_err() || stream.set_write_timeout(Some(POLL)).is_err() {
        return;
    }
    while !is_stopped(stop) {
        match stream.write(&chunk) {
            Ok(0) => return,
            Ok(_) if pause.is_zero() => {}
            Ok(_) => std::thread::sleep(pause),
            Err(error) if is_patient(error.kind()) => {}
            Err(_) => return,
        }
    }
}

fn is_patient(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
    )
}

/// A running download.
#[derive(Debug)]
pub struct Download {
    shared: Arc<DownloadState>,
    stream: TcpStream,
    _worker: Worker,
}

#[derive(Debug, Default)]
struct DownloadState {
    bytes: AtomicU64,
    last_at_nanos: AtomicU64,
    ended: Mutex<Option<String>>,
}

impl Download {
    /// Connects from `namespace` and reads.
    ///
    /// # Errors
    /// Where no connection comes about within `limit`.
    pub fn start(namespace: &Namespace, from: SocketAddr, limit: Duration) -> anyhow::Result<Self> {
        let stream = namespace.run(|| {
            TcpStream::connect_timeout(&from, limit).with_context(|| format!("connect to {from}"))
        })?;
        stream.set_read_timeout(Some(POLL))?;
        let shared = Arc::new(DownloadState::default());
        let state = Arc::clone(&shared);
        let mut reader = stream.try_clone()?;
        let worker = Worker::start(move |stop| {
            let mut buffer = [0; 64 * 1024];
            while !is_stopped(stop) {
                let end = match reader.read(&mut buffer) {
                    Ok(0) => "closed by the other end".to_owned(),
                    Ok(n) => {
                        state.bytes.fetch_add(n as u64, Ordering::Relaxed);
                        let now = u64::try_from(wall().as_nanos()).unwrap_or(u64::MAX);
                        state.last_at_nanos.store(now, Ordering::Relaxed);
                        continue;
                    }
                    Err(error) if is_patient(error.kind()) => continue,
                    Err(error) => error.to_string(),
                };
                *state.ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(end);
                return;
            }
        });
        Ok(Self {
            shared,
            stream,
            _worker: worker,
        })
    }

    /// Bytes read so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::Relaxed)
    }

    /// Wall-clock time of the last byte.
    #[must_use]
    pub fn last_at(&self) -> Duration {
        Duration::from_nanos(self.shared.last_at_nanos.load(Ordering::Relaxed))
    }

    /// How the connection ended, if it did.
    #[must_use]
    pub fn ended(&self) -> Option<String> {
        self.shared
            .ended
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Waits until nothing has come for `silence`, and returns the wall-clock time of the last byte.
    ///
    /// # Errors
    /// Where bytes still come after `limit`.
    pub fn wait_cut(&self, silence: Duration, limit: Duration) -> anyhow::Result<Duration> {
        wait_for("the download to be cut", limit, || {
            let last = self.last_at();
            let is_silent = wall().saturating_sub(last) >= silence;
            Ok(is_silent.then_some(last))
        })
    }

    /// Bytes that come in during `period`.
    #[must_use]
    pub fn bytes_during(&self, period: Duration) -> u64 {
        let before = self.bytes();
        std::thread::sleep(period);
        self.bytes().saturating_sub(before)
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        // An error says that it is closed already.
        drop(self.stream.shutdown(Shutdown::Both));
    }
}

/// What became of one attempt to connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// Connected, and this many bytes came within the time given.
    Connected {
        /// Bytes read.
        bytes: usize,
        /// Milliseconds until the connection was there.
        after_ms: u64,
    },
    /// An error came back at once or soon.
    Refused {
        /// The error.
        error: String,
        /// Milliseconds until it came.
        after_ms: u64,
    },
    /// Nothing came back at all.
    TimedOut,
}

impl Attempt {
    /// Whether bytes came through.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        matches!(self, Self::Connected { bytes, .. } if *bytes > 0)
    }

    /// Bytes that came through.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Connected { bytes, .. } => *bytes,
            Self::Refused { .. } | Self::TimedOut => 0,
        }
    }
}

/// Connects from `namespace` to a [`TcpSource`] and reads once.
///
/// # Errors
/// Where the namespace cannot be entered; a connection that fails is an [`Attempt`].
pub fn attempt(namespace: &Namespace, to: SocketAddr, limit: Duration) -> anyhow::Result<Attempt> {
    namespace.run(|| {
        let watch = Stopwatch::start();
        let after_ms = |watch: &Stopwatch| u64::try_from(watch.elapsed().as_millis()).unwrap_or(0);
        let mut stream = match TcpStream::connect_timeout(&to, limit) {
            Ok(stream) => stream,
            Err(error) if error.kind() == ErrorKind::TimedOut => return Ok(Attempt::TimedOut),
            Err(error) => {
                return Ok(Attempt::Refused {
                    error: error.to_string(),
                    after_ms: after_ms(&watch),
                });
            }
        };
        let connected_after = after_ms(&watch);
        stream.set_read_timeout(Some(limit))?;
        let bytes = stream.read(&mut [0; 4096]).unwrap_or(0);
        Ok(Attempt::Connected {
            bytes,
            after_ms: connected_after,
        })
    })
}
