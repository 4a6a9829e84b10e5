//! Sending: runs of equal datagrams to one destination in one system call, from where they were sealed.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{MsgHdr, SockAddr, SockRef};

use gatereeve_client_core::datapath::Run;
use gatereeve_client_core::wg::{LEAST_MTU, OVERHEAD};

use super::connected::Connections;
use super::control::Control;
use super::path_mtu::Fragmenting;
use super::{Port, Udp};

/// How long a full kernel buffer may hold a thread up, in milliseconds; what it has no room for then is dropped.
const MAX_WAIT_MS: u8 = 5;
/// How often it may in one batch. The kernel calls a buffer writable when it is half empty, so on a slow path each takes all
/// of its time; four of them drain a batch of bulk at 100 Mbit/s.
const MAX_WAITS: u8 = 4;
/// The first byte of a data message (WireGuard, section 5.4.6).
const DATA: u8 = 4;
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
    connections: Connections,
}

/// How often a full kernel buffer may hold the thread up in one batch: as often as lets a slow path take all of it. More would
/// keep interfaces that are not stuck, and the acknowledgement of a revocation, waiting for every datagram.
#[derive(Debug)]
struct Patience {
    waits: u8,
}

impl Default for Patience {
    fn default() -> Self {
        Self { waits: MAX_WAITS }
    }
}

impl Patience {
    /// Sends the bytes of `run`, as one datagram or segmented.
    fn send_waiting(&mut self, port: &Port, run: &Run<'_>, segment: Option<u16>) -> io::Result<()> {
        self.send(
            || send_now(port, run, segment),
            || {
                let mut writable = [PollFd::new(port.readable(), PollFlags::POLLOUT)];
                poll(&mut writable, PollTimeout::from(MAX_WAIT_MS))?;
                Ok(())
            },
        )
    }

    /// Tries `send`; where there is no room, again after `wait`, as long as it may be waited for.
    fn send(
        &mut self,
        send: impl Fn() -> io::Result<()>,
        wait: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        match send() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && self.waits > 0 => {
                self.waits -= 1;
                wait()?;
                send()
            }
            result => result,
        }
    }
}

impl Sender {
    /// Sends `runs` over the sockets of `worker`, in order per destination. What the network does not take is
    /// counted and gone, as on any wire.
    pub fn send<'a>(&mut self, udp: &Udp, worker: usize, runs: impl IntoIterator<Item = Run<'a>>) {
        self.connections.look(udp);
        let mut patience = Patience::default();
        for mut run in runs {
            if let Some(own) = self.connections.port(run.to) {
                let (sent, result) = send_plainly(&own, &run, &mut patience);
                let Err(error) = result else {
                    continue;
                };
                run.bytes = run.bytes.get(sent..).unwrap_or_default();
                if !self.goes_elsewhere(udp, &run, &error) {
                    continue;
                }
            } else if run.is_single() && run.bytes.first() == Some(&DATA) {
                self.connections.count(run.to);
            }
            let port = udp
                .ports(worker)
                .iter()
                .find(|port| port.local.is_ipv6() == run.to.is_ipv6());
            match port {
                // Nothing listens on port 0, and the kernel's EINVAL would be mistaken for one about
                // segmentation.
                Some(port) if run.to.port() != 0 => self.send_run(udp, port, &run, &mut patience),
                _ => unsent(udp, run.count()),
            }
        }
    }

    /// The sockets of its own that it sends with, for who reads them.
    pub fn connections(&mut self) -> &mut Connections {
        &mut self.connections
    }

    /// Whether there are any to be [taken](Self::take_too_big).
    #[must_use]
    pub fn has_too_big(&self) -> bool {
        !self.too_big.is_empty()
    }

    /// The datagrams that were too big for their path since the last call, and longer than the least that the data path makes
    /// of them. They are few: what does not fit into the list is counted all the same.
    pub fn take_too_big(&mut self) -> impl Iterator<Item = TooBig> + '_ {
        self.too_big.drain(..)
    }

    /// What a connected socket has not sent of `run`: whether it is to be sent with a shared one.
    #[cold]
    fn goes_elsewhere(&mut self, udp: &Udp, run: &Run<'_>, error: &io::Error) -> bool {
        // There is no more room behind another socket.
        if error.kind() == io::ErrorKind::WouldBlock {
            unsent(udp, run.count());
            return false;
        }
        tracing::debug!(%error, to = %run.to, "a connected socket does not send");
        self.connections.retire(run.to);
        true
    }

    fn send_run(&mut self, udp: &Udp, port: &Port, run: &Run<'_>, patience: &mut Patience) {
        if run.is_single() {
            self.send_single(udp, port, run, patience, &mut None);
            return;
        }
        if !port.segmentation.wanted() {
            self.send_singles(udp, port, run, patience);
            return;
        }
        let segment = u16::try_from(run.segment).ok();
        let Err(error) = patience.send_waiting(port, run, segment) else {
            return;
        };
        match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EMSGSIZE) => {
                self.note_too_big(run.to, run.segment);
                self.send_singles(udp, port, run, patience);
            }
            // Older kernels say it so.
            Some(Errno::EINVAL) if udp.is_too_narrow(run.to, run.segment) => {
                self.note_too_big(run.to, run.segment);
                self.send_singles(udp, port, run, patience);
            }
            // The interface does not segment.
            Some(Errno::EINVAL | Errno::EIO) => {
                let sent = self.send_singles(udp, port, run, patience);
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
    fn send_singles(
        &mut self,
        udp: &Udp,
        port: &Port,
        run: &Run<'_>,
        patience: &mut Patience,
    ) -> bool {
        let mut sent = false;
        let mut fragmenting = None;
        for contents in run.bytes.chunks(run.segment.max(1)) {
            let single = Run {
                bytes: contents,
                ..*run
            };
            sent |= self.send_single(udp, port, &single, patience, &mut fragmenting);
        }
        sent
    }

    /// Sends one datagram; in fragments where it is too big for its path, and what follows while `fragmenting` is kept. Whether it
    /// was taken.
    fn send_single<'p>(
        &mut self,
        udp: &Udp,
        port: &'p Port,
        single: &Run<'_>,
        patience: &mut Patience,
        fragmenting: &mut Option<Fragmenting<'p>>,
    ) -> bool {
        let mut result = patience.send_waiting(port, single, None);
        if result.as_ref().is_err_and(is_too_big) {
            self.note_too_big(single.to, single.bytes.len());
            // Another thread that sends over this socket may have ended what this one has begun.
            drop(fragmenting.take());
            *fragmenting = Fragmenting::new(&port.socket, single.to.is_ipv4()).ok();
            result = patience.send_waiting(port, single, None);
        }
        match result {
            Ok(()) => return true,
            Err(error) if is_too_big(&error) => {
                udp.too_big.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                unsent(udp, 1);
                tracing::trace!(%error, "a datagram was not sent");
            }
        }
        false
    }

    fn note_too_big(&mut self, to: SocketAddr, size: usize) {
        // Of no path does the data path believe that it carries less.
        if size <= LEAST_MTU + OVERHEAD {
            return;
        }
        let too_big = TooBig { to, size };
        if self.too_big.len() < MAX_TOO_BIG && !self.too_big.contains(&too_big) {
            self.too_big.push(too_big);
        }
    }
}

/// Sends `run` over a socket that is connected to where it goes, as far as that goes without more ado. How many bytes went, and
/// what stopped it.
fn send_plainly(port: &Port, run: &Run<'_>, patience: &mut Patience) -> (usize, io::Result<()>) {
    if run.is_single() || port.segmentation.wanted() {
        let segment = u16::try_from(run.segment).ok();
        let segment = segment.filter(|_| !run.is_single());
        let result = patience.send_waiting(port, run, segment);
        return (result.as_ref().map_or(0, |()| run.bytes.len()), result);
    }
    let mut sent = 0;
    for bytes in run.datagrams() {
        let single = Run { bytes, ..*run };
        if let Err(error) = patience.send_waiting(port, &single, None) {
            return (sent, Err(error));
        }
        sent += bytes.len();
    }
    (sent, Ok(()))
}

fn is_too_big(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::EMSGSIZE as i32)
}

/// Sends it if the kernel has room for it.
///
/// Not by quinn-udp: for it, any `EINVAL` is about the mark, which it leaves out on that socket from then on.
fn send_now(port: &Port, run: &Run<'_>, segment: Option<u16>) -> io::Result<()> {
    let ecn = run.ecn.bits();
    if ecn == 0 && segment.is_none() {
        // With nothing to say beside it, the kernel has less to read.
        return match port.peer {
            Some(_) => port.socket.send(run.bytes).map(drop),
            None => port.socket.send_to(run.bytes, run.to).map(drop),
        };
    }
    let control = Control::new(run.to, ecn, segment);
    let bytes = [IoSlice::new(run.bytes)];
    let to = SockAddr::from(run.to);
    let message = MsgHdr::new()
        .with_buffers(&bytes)
        .with_control(control.bytes());
    // Told an address, a connected socket looks the route up all the same.
    let message = match port.peer {
        Some(_) => message,
        None => message.with_addr(&to),
    };
    SockRef::from(&port.socket).sendmsg(&message, 0).map(drop)
}

fn unsent(udp: &Udp, datagrams: usize) {
    udp.unsent.fetch_add(datagrams as u64, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn a_full_buffer_is_waited_for_so_often_in_a_batch() {
        let (room, sent, waits) = (Cell::new(0), Cell::new(0), Cell::new(0_u8));
        let send = || {
            let left: u32 = room.get();
            let left = left.checked_sub(1).ok_or(io::ErrorKind::WouldBlock)?;
            room.set(left);
            sent.set(sent.get() + 1);
            Ok(())
        };
        let wait = || {
            waits.set(waits.get() + 1);
            room.set(2);
            Ok(())
        };
        let mut patience = Patience::default();
        let taken = (0..20)
            .filter(|_| patience.send(send, wait).is_ok())
            .count();
        assert_eq!((taken, sent.get(), waits.get()), (8, 8, MAX_WAITS));
        assert!(
            Patience::default().send(send, wait).is_ok(),
            "the next batch"
        );
        assert_eq!(waits.get(), MAX_WAITS + 1);
    }

    #[test]
    fn what_is_refused_for_another_reason_is_not_tried_again() {
        let tries = Cell::new(0);
        let refuse = || {
            tries.set(tries.get() + 1);
            Err(Errno::EMSGSIZE.into())
        };
        let result = Patience::default().send(refuse, || unreachable!("there is room"));
        assert!(result.is_err_and(|error| is_too_big(&error)));
        assert_eq!(tries.get(), 1);
    }
}
