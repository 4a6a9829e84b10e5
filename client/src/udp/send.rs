//! Sending: runs of equal datagrams to one destination in one system call, from where they were sealed.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use quinn_udp::{EcnCodepoint, Transmit};

use gatereeve_client_core::datapath::Run;

use super::path_mtu::Fragmenting;
use super::{Port, Udp};

/// How long a full kernel buffer may hold a thread up, in milliseconds; then the datagrams are dropped.
const MAX_WAIT_MS: u8 = 5;
/// Datagrams that were too big for their path, remembered until they are taken.
const MAX_TOO_BIG: usize = 16;

/// A datagram that the path to its destination does not carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooBig {
    /// Where it should have gone.
    pub to: SocketAddr,
    /// Its bytes, without IP and UDP headers.
    pub size: usize,
}

/// What one thread sends with.
#[derive(Debug, Default)]
pub struct Sender {
    too_big: Vec<TooBig>,
}

impl Sender {
    /// Sends `runs` over the sockets of `worker`, in order per destination. What the network does not take is
    /// counted and gone, as on any wire.
    pub fn send<'a>(&mut self, udp: &Udp, worker: usize, runs: impl IntoIterator<Item = Run<'a>>) {
        for run in runs {
            let port = udp
                .ports(worker)
                .iter()
                .find(|port| port.local.is_ipv6() == run.to.is_ipv6());
            match port {
                // Nothing listens on port 0, and the kernel's EINVAL would be mistaken for one about
                // segmentation.
                Some(port) if run.to.port() != 0 => self.send_run(udp, port, &run),
                _ => unsent(udp, run.count()),
            }
        }
    }

    /// The datagrams that were too big for their path since the last call. They are few: what does not
    /// fit into the list is counted all the same.
    pub fn take_too_big(&mut self) -> impl Iterator<Item = TooBig> + '_ {
        self.too_big.drain(..)
    }

    fn send_run(&mut self, udp: &Udp, port: &Port, run: &Run<'_>) {
        if run.count() <= 1 || !port.segmentation.wanted() {
            self.send_singles(udp, port, run, run.bytes);
            return;
        }
        let whole = transmit(run, run.bytes, Some(run.segment));
        let Err(error) = send_waiting(port, &whole) else {
            return;
        };
        match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EMSGSIZE) => {
                self.note_too_big(run.to, run.segment);
                self.send_singles(udp, port, run, run.bytes);
            }
            // Older kernels say it so.
            Some(Errno::EINVAL) if udp.is_too_narrow(run.to, run.segment) => {
                self.note_too_big(run.to, run.segment);
                self.send_singles(udp, port, run, run.bytes);
            }
            // The interface does not segment.
            Some(Errno::EINVAL | Errno::EIO) => {
                let sent = self.send_singles(udp, port, run, run.bytes);
                if sent && port.segmentation.refused() {
                    tracing::info!(%error, to = %run.to, "the interface does not segment; datagrams go one by one");
                }
            }
            _ => {
                unsent(udp, run.count());
                tracing::trace!(%error, "a run of datagrams was not sent");
            }
        }
    }

    /// Sends datagrams of one run one by one, from the first on that is too big for its path in fragments. Whether any
    /// was taken.
    fn send_singles(&mut self, udp: &Udp, port: &Port, run: &Run<'_>, bytes: &[u8]) -> bool {
        let mut sent = false;
        let mut fragmenting = None;
        for contents in bytes.chunks(run.segment.max(1)) {
            let single = transmit(run, contents, None);
            let mut result = send_waiting(port, &single);
            if result.as_ref().is_err_and(is_too_big) && fragmenting.is_none() {
                self.note_too_big(run.to, contents.len());
                fragmenting = Fragmenting::new(&port.socket, run.to.is_ipv4()).ok();
                result = send_waiting(port, &single);
            }
            match result {
                Ok(()) => sent = true,
                Err(error) if is_too_big(&error) => {
                    udp.too_big.fetch_add(1, Ordering::Relaxed);
                    self.note_too_big(run.to, contents.len());
                }
                Err(error) => {
                    unsent(udp, 1);
                    tracing::trace!(%error, "a datagram was not sent");
                }
            }
        }
        sent
    }

    fn note_too_big(&mut self, to: SocketAddr, size: usize) {
        let too_big = TooBig { to, size };
        if self.too_big.len() < MAX_TOO_BIG && !self.too_big.contains(&too_big) {
            self.too_big.push(too_big);
        }
    }
}

fn transmit<'a>(run: &Run<'a>, contents: &'a [u8], segment_size: Option<usize>) -> Transmit<'a> {
    Transmit {
        destination: run.to,
        ecn: EcnCodepoint::from_bits(run.ecn.bits()),
        contents,
        segment_size,
        src_ip: None,
    }
}

fn is_too_big(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::EMSGSIZE as i32)
}

fn send_waiting(port: &Port, transmit: &Transmit<'_>) -> io::Result<()> {
    match send_now(port, transmit) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            let mut writable = [PollFd::new(port.readable(), PollFlags::POLLOUT)];
            poll(&mut writable, PollTimeout::from(MAX_WAIT_MS))?;
            send_now(port, transmit)
        }
        result => result,
    }
}

/// Sends it if the kernel has room for it.
fn send_now(port: &Port, transmit: &Transmit<'_>) -> io::Result<()> {
    if transmit.ecn.is_none() && transmit.segment_size.is_none() {
        // With nothing to say beside it, the kernel has less to read.
        let sent = port.socket.send_to(transmit.contents, transmit.destination);
        return sent.map(drop);
    }
    port.state.try_send(port.socket(), transmit)
}

fn unsent(udp: &Udp, datagrams: usize) {
    udp.unsent.fetch_add(datagrams as u64, Ordering::Relaxed);
}
