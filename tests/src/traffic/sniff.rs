//! Counts WireGuard datagrams on the underlay, by their kind.

use std::io::Read as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use socket2::{Domain, Protocol, Socket, Type};

use super::{Worker, is_stopped};
use crate::netns::Namespace;
use crate::world::device::WIREGUARD_PORT;

/// Every protocol: `ETH_P_ALL` of linux/if_ether.h, in network byte order.
const ALL: i32 = 0x0003_u16.to_be() as i32;

/// Looks at everything that crosses a namespace's interfaces.
#[derive(Debug)]
pub struct Sniffer {
    seen: Arc<Seen>,
    _worker: Worker,
}

#[derive(Debug, Default)]
struct Seen {
    handshakes: AtomicU64,
    data: AtomicU64,
    canary: Mutex<Option<Vec<u8>>>,
    canaries: AtomicU64,
}

impl Sniffer {
    /// Sniffs in `namespace`, such as a switch's.
    ///
    /// # Errors
    /// Where packet sockets are not to be had.
    pub fn start(namespace: &Namespace) -> anyhow::Result<Self> {
        let mut socket = packet_socket(namespace)?;
        let seen = Arc::new(Seen::default());
        let counters = Arc::clone(&seen);
        let worker = Worker::start(move |stop| {
            let mut frame = vec![0; 65_536];
            while !is_stopped(stop) {
                if let Ok(length) = socket.read(&mut frame) {
                    counters.look(frame.get(..length).unwrap_or_default());
                }
            }
        });
        Ok(Self {
            seen,
            _worker: worker,
        })
    }

    /// Handshake messages (initiations, responses, cookies) that crossed. A frame that crosses two
    /// ports counts twice.
    #[must_use]
    pub fn handshakes(&self) -> u64 {
        self.seen.handshakes.load(Ordering::Relaxed)
    }

    /// Transport data messages that crossed.
    #[must_use]
    pub fn data(&self) -> u64 {
        self.seen.data.load(Ordering::Relaxed)
    }

    /// From now on counts frames that hold `bytes` in clear.
    pub fn look_for(&self, bytes: &[u8]) {
        *self
            .seen
            .canary
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(bytes.to_vec());
    }

    /// Frames that held what [`Self::look_for`] was given.
    #[must_use]
    pub fn canaries(&self) -> u64 {
        self.seen.canaries.load(Ordering::Relaxed)
    }
}

impl Seen {
    fn look(&self, frame: &[u8]) {
        if let Some(canary) = self
            .canary
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_deref()
            && frame.windows(canary.len()).any(|window| window == canary)
        {
            self.canaries.fetch_add(1, Ordering::Relaxed);
        }
        match udp_payload(frame).and_then(<[u8]>::first) {
            Some(1..=3) => self.handshakes.fetch_add(1, Ordering::Relaxed),
            Some(4) => self.data.fetch_add(1, Ordering::Relaxed),
            _ => 0,
        };
    }
}

/// A socket that reads every frame on a namespace's interfaces.
pub(super) fn packet_socket(namespace: &Namespace) -> anyhow::Result<Socket> {
    let socket = namespace.run(|| {
        Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(ALL)))
            .context("open a packet socket")
    })?;
    socket.set_read_timeout(Some(Duration::from_millis(50)))?;
    socket.set_recv_buffer_size(8 << 20)?;
    Ok(socket)
}

/// What a frame carries to or from the WireGuard port.
pub(super) fn udp_payload(frame: &[u8]) -> Option<&[u8]> {
    let ip = frame.get(14..)?;
    let udp = match frame.get(12..14)? {
        [0x08, 0x00] if ip.get(9) == Some(&17) => {
            ip.get(usize::from(ip.first()? & 0x0f).checked_mul(4)?..)?
        }
        [0x86, 0xdd] if ip.get(6) == Some(&17) => ip.get(40..)?,
        _ => return None,
    };
    let port = |at: usize| Some(u16::from_be_bytes([*udp.get(at)?, *udp.get(at + 1)?]));
    let is_wireguard = port(0)? == WIREGUARD_PORT || port(2)? == WIREGUARD_PORT;
    is_wireguard.then(|| udp.get(8..)).flatten()
}
