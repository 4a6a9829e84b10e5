//! One data-path thread.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;
use std::os::fd::AsFd as _;

use gatereeve_client_core::datapath::{Batch, DataPath, Outbox, WorkerMark};
use gatereeve_runtime::clock::Clock;

use super::Shared;
use super::sources::{Source, wait};
use crate::tun::TunQueue;
use crate::udp::{Port, Receiver, Sender};

/// Packets per batch.
const BATCH: usize = 64;
/// Bytes per packet: what is coalesced or many in one, up to the longest IP packet. An odd number of cache
/// lines, so that the beginnings of the slots do not share cache sets.
const SLOT: usize = 1025 * 64;
/// The shortest time between runs of the timers: what is due about the same time is done in one.
const SHORTEST_SLEEP: Duration = Duration::from_millis(100);

/// What one thread works with.
#[derive(Debug)]
pub(super) struct Worker {
    index: usize,
    shared: Arc<Shared>,
    mark: WorkerMark,
    stop: Arc<EventFd>,
    outbox: Outbox,
    sender: Sender,
}

/// How a source is read.
#[derive(Debug)]
enum Reader<'a> {
    Tun(&'a dyn TunQueue),
    Udp(&'a Port, Receiver),
}

impl Worker {
    pub(super) fn new(index: usize, shared: Arc<Shared>, stop: Arc<EventFd>) -> Self {
        Self {
            index,
            mark: shared.datapath.worker(),
            shared,
            stop,
            outbox: Outbox::new(),
            sender: Sender::default(),
        }
    }

    /// Moves packets until told to stop: one batch of every source that has something, again and again,
    /// so that none waits for another to run dry.
    pub(super) fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let queues = shared.tun.queues();
        // Without a queue of its own a worker receives only, and writes to the first.
        let own = queues.get(self.index).copied();
        let Some(queue) = own.or_else(|| queues.first().copied()) else {
            return;
        };
        let tun = own.map(|own| Source::new(Reader::Tun(own), own.readable()));
        let ports = shared.udp.ports(self.index).iter();
        let udp = ports.map(|port| {
            let reader = Reader::Udp(port, Receiver::new());
            Source::new(reader, port.readable())
        });
        let mut sources: Vec<Source<'_, Reader<'_>>> = tun.into_iter().chain(udp).collect();
        let mut batch = Batch::new(BATCH, SLOT);
        loop {
            self.mark.park();
            if !wait(&self.stop, &mut sources) {
                return;
            }
            for source in sources.iter_mut().filter(|source| source.is_ready) {
                match self.pass(&mut source.reader, queue, &mut batch) {
                    Ok(more) => source.is_ready = more,
                    Err(error) => {
                        self.note(&source.reader, &error);
                        source.rest();
                    }
                }
                batch.clear();
            }
        }
    }

    /// Takes one batch all the way. Whether more may be waiting.
    fn pass(
        &mut self,
        reader: &mut Reader<'_>,
        queue: &dyn TunQueue,
        batch: &mut Batch,
    ) -> io::Result<bool> {
        let more = match reader {
            Reader::Tun(own) => own.receive(batch),
            Reader::Udp(port, receiver) => receiver.receive(port, batch),
        };
        // What was read before an error is packets all the same.
        if !batch.is_empty() {
            self.mark.begin();
            let now = Clock::now();
            let datapath = &self.shared.datapath;
            match reader {
                Reader::Tun(_) => datapath.outbound(batch, now, &mut self.outbox),
                Reader::Udp(..) => datapath.inbound(batch, now, &mut self.outbox),
            }
            self.flush(queue);
        }
        more
    }

    fn note(&self, reader: &Reader<'_>, error: &io::Error) {
        match reader {
            Reader::Tun(_) => {
                // An interface that is down cannot be read; one that is gone stays so.
                let told = format!("{}: {error}", self.shared.tun.name());
                drop(self.shared.broken.try_send(told));
            }
            Reader::Udp(port, _) => {
                tracing::debug!(%error, local = %port.local(), "cannot receive from the WireGuard socket");
            }
        }
    }

    /// Runs the timers until told to stop, with the sockets and the queue of the first worker.
    pub(super) fn run_timers(mut self) {
        let shared = Arc::clone(&self.shared);
        let queues = shared.tun.queues();
        let Some(queue) = queues.first().copied() else {
            return;
        };
        while self.sleep() {
            self.mark.begin();
            shared.datapath.tick(Clock::now(), &mut self.outbox);
            self.flush(queue);
        }
    }

    /// Sleeps until the timers are due. `false` when the thread is to stop.
    fn sleep(&self) -> bool {
        self.mark.park();
        let longest = DataPath::LONGEST_SLEEP;
        let due = self.shared.datapath.next_tick();
        let due = due.map_or(longest, |due| due.since(Clock::now().mono));
        let sleep = due.clamp(SHORTEST_SLEEP, longest);
        let mut stop = [PollFd::new(self.stop.as_fd(), PollFlags::POLLIN)];
        match poll(
            &mut stop,
            PollTimeout::try_from(sleep).unwrap_or(PollTimeout::from(100_u8)),
        ) {
            Ok(ready) => ready == 0,
            Err(nix::errno::Errno::EINTR) => true,
            Err(errno) => {
                tracing::error!(error = %io::Error::from(errno), "the timers' thread cannot wait, and ends");
                false
            }
        }
    }

    /// Sends what the batch has brought, and gives the table back.
    fn flush(&mut self, queue: &dyn TunQueue) {
        self.sender
            .send(&self.shared.udp, self.index, self.outbox.runs());
        let refused = queue.deliver(&self.outbox);
        if refused > 0 {
            self.shared
                .undelivered
                .fetch_add(refused, Ordering::Relaxed);
        }
        for event in self.outbox.take_events() {
            if self.shared.events.try_send(event).is_err() {
                tracing::trace!("a hint of the data path is lost");
            }
        }
        for too_big in self.sender.take_too_big() {
            let carried = self.shared.udp.path_mtu(too_big.to);
            tracing::debug!(to = %too_big.to, size = too_big.size, ?carried, "a datagram is too big for its path");
            if let Some(carried) = carried {
                self.shared
                    .datapath
                    .path_mtu(too_big.to, carried, Clock::now());
            }
        }
        self.outbox.clear();
        self.mark.done();
    }
}
