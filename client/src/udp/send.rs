//! Sending: runs of equal datagrams to one destination in one system call.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use quinn_udp::Transmit;

use gatereeve_client_core::datapath::Outbox;

use super::{Port, Udp};

/// Most bytes of one segmented send.
const MAX_RUN: usize = 60_000;
/// How long a full kernel buffer may hold a thread up, in milliseconds; then the datagrams are dropped.
const MAX_WAIT_MS: u8 = 5;

/// What one thread sends with.
#[derive(Debug, Default)]
pub struct Sender {
    run: Vec<u8>,
}

impl Sender {
    /// Sends every transmit of `outbox`, in order per destination. What the network does not take is
    /// counted and gone, as on any wire.
    pub fn send(&mut self, udp: &Udp, outbox: &Outbox) {
        let mut transmits = outbox.transmits().peekable();
        while let Some((to, first)) = transmits.next() {
            let Some(port) = udp
                .ports
                .iter()
                .find(|port| port.local.is_ipv6() == to.is_ipv6())
            else {
                udp.unsent.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            self.run.clear();
            self.run.extend_from_slice(first);
            let segments = port.state.max_gso_segments();
            let mut count = 1;
            let mut open = !first.is_empty();
            while open && count < segments {
                let joins = |next: &&(SocketAddr, &[u8])| {
                    next.0 == to
                        && !next.1.is_empty()
                        && next.1.len() <= first.len()
                        && self.run.len() + next.1.len() <= MAX_RUN
                };
                let Some(&(_, next)) = transmits.peek().filter(joins) else {
                    break;
                };
                self.run.extend_from_slice(next);
                count += 1;
                // A shorter one ends the run: all but the last have one size.
                open = next.len() == first.len();
                transmits.next();
            }
            self.send_run(udp, port, to, first.len(), count);
        }
    }

    fn send_run(&self, udp: &Udp, port: &Port, to: SocketAddr, size: usize, count: usize) {
        let whole = Transmit {
            destination: to,
            ecn: None,
            contents: &self.run,
            segment_size: (count > 1).then_some(size),
            src_ip: None,
        };
        let Err(error) = send_waiting(port, &whole) else {
            return;
        };
        if count == 1 {
            note(udp, &error, 1);
            return;
        }
        // The kernel or the card does not segment: one by one.
        for contents in self.run.chunks(size.max(1)) {
            let single = Transmit {
                contents,
                segment_size: None,
                ..whole.clone()
            };
            if let Err(error) = send_waiting(port, &single) {
                note(udp, &error, 1);
            }
        }
    }
}

fn send_waiting(port: &Port, transmit: &Transmit<'_>) -> io::Result<()> {
    match port.state.try_send(port.socket(), transmit) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            let mut writable = [PollFd::new(port.readable(), PollFlags::POLLOUT)];
            poll(&mut writable, PollTimeout::from(MAX_WAIT_MS))?;
            port.state.try_send(port.socket(), transmit)
        }
        result => result,
    }
}

fn note(udp: &Udp, error: &io::Error, datagrams: u64) {
    let counter = if error.raw_os_error() == Some(nix::errno::Errno::EMSGSIZE as i32) {
        &udp.too_big
    } else {
        &udp.unsent
    };
    counter.fetch_add(datagrams, Ordering::Relaxed);
    tracing::trace!(%error, "a datagram was not sent");
}
