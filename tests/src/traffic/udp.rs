//! UDP: numbered packets at a steady rate, received with the kernel's own timestamps.

use std::collections::{BTreeMap, VecDeque};
use std::io::IoSliceMut;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::cmsg_space;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt,
};
use nix::sys::time::TimeSpec;

use super::{Worker, is_stopped, udp_port, udp_socket};
use crate::clock::wall;
use crate::netns::Namespace;

const POLL: Duration = Duration::from_millis(50);
/// Flow, sequence number, and filling up to a size of everyday.
const PACKET: usize = 200;

/// What was received of one flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// Packets.
    pub packets: u64,
    /// Highest sequence number, from 0.
    pub highest: u64,
    /// Wall-clock time at which the kernel had the first packet.
    pub first_at: Duration,
    /// Wall-clock time at which the kernel had the last packet.
    pub last_at: Duration,
}

/// How many of a flow's latest timestamps are kept.
const STAMPS: usize = 16 * 1024;

type Flows = Arc<Mutex<BTreeMap<u32, (Received, VecDeque<Duration>)>>>;

/// Receives on a UDP port, both families, and can answer each packet with itself.
#[derive(Debug)]
pub struct UdpReceiver {
    flows: Flows,
    _worker: Worker,
}

impl UdpReceiver {
    /// Receives on `port` in `namespace`; with `echo`, every packet goes back.
    ///
    /// # Errors
    /// Where the port cannot be had.
    pub fn start(namespace: &Namespace, port: u16, echo: bool) -> anyhow::Result<Self> {
        let socket = udp_port(namespace, port)?;
        socket.set_read_timeout(Some(POLL))?;
        setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
        setsockopt(&socket, sockopt::RcvBuf, &(4 << 20))?;
        let flows = Flows::default();
        let table = Arc::clone(&flows);
        let worker = Worker::start(move |stop| receive(&socket, &table, echo, stop));
        Ok(Self {
            flows,
            _worker: worker,
        })
    }

    /// What was received of `flow`.
    #[must_use]
    pub fn flow(&self, flow: u32) -> Received {
        let flows = self.flows.lock().unwrap_or_else(PoisonError::into_inner);
        flows.get(&flow).map(|(flow, _)| *flow).unwrap_or_default()
    }

    /// How many packets of `flow` the kernel had after the wall-clock time `at`.
    #[must_use]
    pub fn after(&self, flow: u32, at: Duration) -> usize {
        let flows = self.flows.lock().unwrap_or_else(PoisonError::into_inner);
        let stamps = flows.get(&flow).map(|(_, stamps)| stamps);
        stamps.map_or(0, |stamps| {
            stamps.iter().filter(|stamp| **stamp > at).count()
        })
    }

    /// Packets of all flows.
    #[must_use]
    pub fn packets(&self) -> u64 {
        let flows = self.flows.lock().unwrap_or_else(PoisonError::into_inner);
        flows.values().map(|(flow, _)| flow.packets).sum()
    }
}

fn receive(socket: &UdpSocket, table: &Flows, echo: bool, stop: &AtomicBool) {
    let mut buffer = [0; 2048];
    while !is_stopped(stop) {
        let mut control = cmsg_space!(TimeSpec);
        let mut slices = [IoSliceMut::new(&mut buffer)];
        let received = recvmsg::<SockaddrStorage>(
            socket.as_raw_fd(),
            &mut slices,
            Some(&mut control),
            MsgFlags::empty(),
        );
        let Ok(message) = received else { continue };
        let stamp = message.cmsgs().into_iter().flatten().find_map(|control| {
            if let ControlMessageOwned::ScmTimestampns(at) = control {
                Some(Duration::from(at))
            } else {
                None
            }
        });
        let (length, from) = (message.bytes, message.address);
        let at = stamp.unwrap_or_else(wall);
        let packet = buffer.get(..length).unwrap_or_default();
        let Some((flow, sequence)) = parse(packet) else {
            continue;
        };
        {
            let mut flows = table.lock().unwrap_or_else(PoisonError::into_inner);
            let (entry, stamps) = flows.entry(flow).or_default();
            if stamps.len() == STAMPS {
                stamps.pop_front();
            }
            stamps.push_back(at);
            if entry.packets == 0 {
                entry.first_at = at;
            }
            entry.packets += 1;
            entry.highest = entry.highest.max(sequence);
            entry.last_at = entry.last_at.max(at);
        }
        if let (true, Some(to)) = (echo, from.and_then(|from| socket_address(&from))) {
            // The answer may be refused as the packet might have been: both are what is measured.
            drop(socket.send_to(packet, to));
        }
    }
}

fn socket_address(from: &SockaddrStorage) -> Option<SocketAddr> {
    from.as_sockaddr_in6()
        .map(|v6| SocketAddr::from((v6.ip(), v6.port())))
        .or_else(|| {
            from.as_sockaddr_in()
                .map(|v4| SocketAddr::from((v4.ip(), v4.port())))
        })
}

fn parse(packet: &[u8]) -> Option<(u32, u64)> {
    let (flow, rest) = packet.split_first_chunk::<4>()?;
    let (sequence, _) = rest.split_first_chunk::<8>()?;
    Some((u32::from_be_bytes(*flow), u64::from_be_bytes(*sequence)))
}

/// Sends numbered packets at a steady rate, and counts what comes back.
#[derive(Debug)]
pub struct UdpSender {
    counters: Arc<Counters>,
    _sender: Worker,
    _answers: Worker,
}

#[derive(Debug, Default)]
struct Counters {
    sent: AtomicU64,
    errors: AtomicU64,
    answers: AtomicU64,
}

impl UdpSender {
    /// Sends from `namespace` to `to`, one packet every `interval`, marked as `flow`.
    ///
    /// # Errors
    /// Where no socket is to be had.
    pub fn start(
        namespace: &Namespace,
        to: SocketAddr,
        flow: u32,
        interval: Duration,
    ) -> anyhow::Result<Self> {
        let socket = udp_socket(namespace, to)?;
        socket.set_read_timeout(Some(POLL))?;
        let counters = Arc::new(Counters::default());
        let listener = socket.try_clone()?;
        let (count, count_answers) = (Arc::clone(&counters), Arc::clone(&counters));
        let sender = Worker::start(move |stop| {
            let mut packet = [0; PACKET];
            let mut sequence = 0_u64;
            while !is_stopped(stop) {
                packet[..4].copy_from_slice(&flow.to_be_bytes());
                packet[4..12].copy_from_slice(&sequence.to_be_bytes());
                match socket.send_to(&packet, to) {
                    Ok(_) => {
                        sequence += 1;
                        count.sent.fetch_add(1, Ordering::Relaxed)
                    }
                    Err(_) => count.errors.fetch_add(1, Ordering::Relaxed),
                };
                std::thread::sleep(interval);
            }
        });
        let answers = Worker::start(move |stop| {
            while !is_stopped(stop) {
                match listener.recv(&mut [0; 2048]) {
                    Ok(_) => count_answers.answers.fetch_add(1, Ordering::Relaxed),
                    Err(_) => 0,
                };
            }
        });
        Ok(Self {
            counters,
            _sender: sender,
            _answers: answers,
        })
    }

    /// Packets that the local stack took.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.counters.sent.load(Ordering::Relaxed)
    }

    /// Packets that the local stack refused, after an ICMP error for example.
    #[must_use]
    pub fn errors(&self) -> u64 {
        self.counters.errors.load(Ordering::Relaxed)
    }

    /// Packets that came back.
    #[must_use]
    pub fn answers(&self) -> u64 {
        self.counters.answers.load(Ordering::Relaxed)
    }
}
