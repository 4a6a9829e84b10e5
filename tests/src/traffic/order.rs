//! Whether datagrams of a flow stay in order: bursts that are answered while they are on their way.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::ensure;
use nix::sys::socket::{MsgFlags, recv, setsockopt, sockopt};

use super::{Worker, is_stopped, udp_port, udp_socket};
use crate::clock::Stopwatch;
use crate::netns::Namespace;

const POLL: Duration = Duration::from_millis(50);
/// Small, so that a queue fills before its reader can take turns.
const DATAGRAM: usize = 64;

/// What became of a flow's burst.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Burst {
    /// Datagrams sent before their sender had the answer.
    pub before: u64,
    /// Datagrams that arrived and were sent after that.
    pub after: u64,
    /// Datagrams that came after one with a higher number.
    pub late: u64,
}

/// What arrived of each flow, as it came.
type Flows = Arc<Mutex<BTreeMap<u64, Vec<u64>>>>;

/// Sends `flows` bursts of numbered datagrams, one after the other and each from a socket of its own, from `client`
/// to `to` in `server`, which answers the first that arrives. A burst goes as fast as it can until the answer comes,
/// and `more` datagrams longer.
///
/// # Errors
/// Where a socket cannot be had, or no answer comes within `limit`.
pub fn answered_bursts(
    client: &Namespace,
    server: &Namespace,
    to: SocketAddr,
    flows: u64,
    more: u64,
    limit: Duration,
) -> anyhow::Result<Vec<Burst>> {
    let receiver = udp_port(server, to.port())?;
    receiver.set_read_timeout(Some(POLL))?;
    setsockopt(&receiver, sockopt::RcvBuf, &(4 << 20))?;
    let arrived = Flows::default();
    let table = Arc::clone(&arrived);
    let worker = Worker::start(move |stop| receive(&receiver, &table, stop));
    let mut befores = Vec::new();
    for flow in 0..flows {
        let socket = udp_socket(client, to)?;
        socket.connect(to)?;
        befores.push(burst(&socket, flow, more, limit)?);
        settle(&arrived);
    }
    drop(worker);
    let arrived = arrived.lock().unwrap_or_else(PoisonError::into_inner);
    let bursts = befores.into_iter().zip(0..).map(|(before, flow)| {
        let numbers = arrived.get(&flow).map(Vec::as_slice);
        tally(before, numbers.unwrap_or_default())
    });
    Ok(bursts.collect())
}

/// Sends one burst; how much of it before the answer came.
fn burst(socket: &UdpSocket, flow: u64, more: u64, limit: Duration) -> anyhow::Result<u64> {
    let mut datagram = [0; DATAGRAM];
    datagram[..8].copy_from_slice(&flow.to_be_bytes());
    let mut send = |number: u64| {
        datagram[8..16].copy_from_slice(&number.to_be_bytes());
        // Much is lost where queues are full.
        drop(socket.send(&datagram));
    };
    let is_answered = || {
        let answer = &mut [0; DATAGRAM];
        recv(socket.as_raw_fd(), answer, MsgFlags::MSG_DONTWAIT).is_ok()
    };
    let watch = Stopwatch::start();
    let mut before = 0;
    while before == 0 || !is_answered() {
        ensure!(!watch.is_past(limit), "no answer to {before} datagrams");
        send(before);
        before += 1;
    }
    for number in before..before + more {
        send(number);
    }
    Ok(before)
}

/// Waits until nothing more arrives of what is on its way.
fn settle(arrived: &Flows) {
    let packets = || {
        let flows = arrived.lock().unwrap_or_else(PoisonError::into_inner);
        flows.values().map(Vec::len).sum::<usize>()
    };
    let watch = Stopwatch::start();
    let mut last = packets();
    while !watch.is_past(Duration::from_secs(1)) {
        std::thread::sleep(Duration::from_millis(5));
        let now = packets();
        if now == last {
            break;
        }
        last = now;
    }
}

fn receive(socket: &UdpSocket, flows: &Flows, stop: &AtomicBool) {
    let mut datagram = [0; DATAGRAM];
    while !is_stopped(stop) {
        let Ok((_, from)) = socket.recv_from(&mut datagram) else {
            continue;
        };
        let [flow, number, ..] = datagram.as_chunks::<8>().0 else {
            continue;
        };
        let [flow, number] = [*flow, *number].map(u64::from_be_bytes);
        let mut flows = flows.lock().unwrap_or_else(PoisonError::into_inner);
        let numbers = flows.entry(flow).or_default();
        if numbers.is_empty() {
            drop(socket.send_to(&datagram, from));
        }
        numbers.push(number);
    }
}

fn tally(before: u64, numbers: &[u64]) -> Burst {
    let mut burst = Burst {
        before,
        ..Burst::default()
    };
    let mut highest = 0;
    for number in numbers {
        burst.after += u64::from(*number >= before);
        burst.late += u64::from(*number < highest);
        highest = highest.max(*number);
    }
    burst
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_overtaken_is_late() {
        let burst = tally(2, &[0, 1, 4, 2, 3, 7]);
        let expected = Burst {
            before: 2,
            after: 4,
            late: 2,
        };
        assert_eq!(burst, expected);
        assert_eq!(tally(2, &[]).after, 0);
    }
}
