//! One data-path thread.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;

use gatereeve_client_core::datapath::{Batch, DataPath, DataPathEvent, Outbox, Run, WorkerMark};
use gatereeve_client_core::packet::offload::Ecn;
use gatereeve_runtime::clock::Clock;

use super::Shared;
use super::sources::{Sources, Turn, Waited};
use crate::tun::TunQueue;
use crate::udp::{Port, Receiver, Sender};

/// Packets per batch.
const BATCH: usize = 64;
/// Bytes per packet: what is coalesced or many in one, up to the longest IP packet. An odd number of cache
/// lines, so that the beginnings of the slots do not share cache sets.
const SLOT: usize = 1025 * 64;
/// How long a worker without packets waits for more before it does what was put off, in milliseconds. In the middle of
/// an exchange the peer would have to wait for it.
const PUT_OFF_MS: u8 = 1;
/// Rounds after which it is done all the same. With a newer table it is one.
pub(super) const PUT_OFF_ROUNDS: u8 = 16;
/// Most datagrams that are put off: with more, nothing is.
pub(super) const MAX_PUT_OFF: usize = 256;
/// Batches that are taken from a socket at most to empty it: about as many as its buffer holds.
const MAX_LEFT: u32 = 256;
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
    /// For the slow path: what the last batches have brought.
    hints: Vec<DataPathEvent>,
    /// What may be sent when nothing else is to be done.
    elsewhere: Vec<Datagram>,
    /// Rounds since the first of either.
    rounds: u8,
    /// Which of the TUN device's queues may have an answer to what was delivered last.
    answers: Option<usize>,
}

/// A datagram that was put off.
#[derive(Debug)]
struct Datagram {
    to: SocketAddr,
    ecn: Ecn,
    bytes: Vec<u8>,
}

impl Datagram {
    fn new(run: &Run<'_>) -> Self {
        Self {
            to: run.to,
            ecn: run.ecn,
            bytes: run.bytes.to_vec(),
        }
    }

    fn run(&self) -> Run<'_> {
        Run {
            to: self.to,
            ecn: self.ecn,
            segment: self.bytes.len(),
            bytes: &self.bytes,
        }
    }
}

/// How a source is read.
#[derive(Debug)]
enum Reader<'a> {
    Tun(&'a dyn TunQueue),
    Udp(Arc<Port>, Receiver),
}

impl AsFd for Reader<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Reader::Tun(queue) => queue.readable(),
            Reader::Udp(port, _) => port.readable(),
        }
    }
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
            hints: Vec::new(),
            elsewhere: Vec::new(),
            rounds: 0,
            answers: None,
        }
    }

    /// Moves packets until told to stop: a batch at a time, what is sparse before what is bulk.
    #[inline(never)] // `fast-path.ld` knows it by its name.
    pub(super) fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let tun = shared.tun.queues(self.index).into_iter().map(Reader::Tun);
        let udp = shared.udp.ports(self.index).iter();
        let udp = udp.map(|port| Reader::Udp(Arc::clone(port), Receiver::new()));
        let stop = Arc::clone(&self.stop);
        let mut sources = match Sources::new(&stop, tun.chain(udp)) {
            Ok(sources) => sources,
            Err(error) => {
                let told = format!("a data-path thread cannot start: {error}");
                drop(shared.broken.try_send(told));
                return;
            }
        };
        let mut batch = Batch::new(BATCH, SLOT);
        shared.datapath.warm_up();
        loop {
            self.mark.park();
            let waits = !self.hints.is_empty() || !self.elsewhere.is_empty();
            match sources.wait(waits.then_some(PUT_OFF_MS)) {
                Waited::Ready => {}
                Waited::Nothing => self.make_up(),
                Waited::Stop => {
                    self.make_up();
                    return;
                }
            }
            if waits {
                self.count_round();
            }
            let mut round = sources.round();
            while let Some((position, quiet)) = sources.next(&mut round) {
                let Some(reader) = sources.reader(position) else {
                    continue;
                };
                let most = if quiet { 1 } else { BATCH };
                let turn = match self.pass(reader, most, &mut batch) {
                    Ok(true) if quiet => Turn::Unknown,
                    Ok(true) => Turn::More,
                    Ok(false) => Turn::Emptied,
                    // Its peer's host says that nobody is there, as a rule. What comes is read all the same.
                    Err(error)
                        if let Reader::Udp(port, _) = reader
                            && port.is_connected() =>
                    {
                        tracing::debug!(%error, "a socket that is connected to a peer has failed");
                        self.sender.connections().retire_at(position);
                        Turn::Unknown
                    }
                    Err(error) => {
                        self.note(reader, &error);
                        Turn::Failed
                    }
                };
                batch.clear();
                let mut answers = None;
                if let Reader::Udp(_, receiver) = reader {
                    receiver.give_back(&mut batch);
                    answers = self.answers.take().filter(|_| quiet);
                }
                sources.done(position, turn);
                // What the host answers by itself (echo requests, segments of TCP), it has answered while the packet was written.
                if let Some(answers) = answers {
                    sources.look(answers, &mut round);
                }
            }
            if self.sender.connections().has_work() {
                self.connect(&mut sources, &mut batch);
            }
        }
    }

    /// Closes connected sockets that are not sent with any more, and makes one that is worth it. What their peers have sent stays in
    /// order: what lies in the one socket is taken before anything is read from the other.
    fn connect(&mut self, sources: &mut Sources<Reader<'_>>, batch: &mut Batch) {
        for position in self.sender.connections().retired() {
            if let Some(reader) = sources.reader(position) {
                if let Reader::Udp(port, _) = reader
                    && let Err(error) = port.let_go()
                {
                    tracing::debug!(%error, local = %port.local(), "a socket keeps its peer until it is closed");
                }
                self.empty(reader, batch);
            }
            sources.remove(position);
        }
        let wanted = self
            .sender
            .connections()
            .wanted(&self.shared.udp, self.index);
        let Some(made) = wanted else {
            return;
        };
        let is_v6 = made.port().local().is_ipv6();
        let shared = sources.find(|reader| match reader {
            Reader::Tun(_) => false,
            Reader::Udp(port, _) => !port.is_connected() && port.local().is_ipv6() == is_v6,
        });
        if let Some(shared) = shared {
            self.empty(shared, batch);
        }
        let place = sources.add(Reader::Udp(Arc::clone(made.port()), Receiver::new()));
        self.sender.connections().add(made, place);
    }

    /// Takes what a socket has.
    fn empty(&mut self, reader: &mut Reader<'_>, batch: &mut Batch) {
        for _ in 0..MAX_LEFT {
            let more = self.pass(reader, BATCH, batch);
            batch.clear();
            if let Reader::Udp(_, receiver) = reader {
                receiver.give_back(batch);
            }
            // An error says nothing of what is behind it.
            if more.is_ok_and(|more| !more) {
                break;
            }
        }
        self.answers = None;
    }

    /// Takes one batch of `most` reads at most all the way. Whether more may be waiting.
    fn pass(
        &mut self,
        reader: &mut Reader<'_>,
        most: usize,
        batch: &mut Batch,
    ) -> io::Result<bool> {
        let more = match reader {
            Reader::Tun(own) => own.receive(most, batch),
            Reader::Udp(port, receiver) => receiver.receive(port, most, batch),
        };
        // What was read before an error is packets all the same.
        if !batch.is_empty() {
            match reader {
                Reader::Tun(_) => self.outbound(batch),
                Reader::Udp(port, _) => {
                    if most == 1 && !port.is_connected() {
                        self.hear(batch);
                    }
                    self.inbound(batch);
                }
            }
        }
        more
    }

    /// Takes packets of the host to the network.
    pub(super) fn outbound(&mut self, batch: &mut Batch) {
        self.mark.begin();
        let datapath = &self.shared.datapath;
        datapath.outbound(batch, Clock::mono(), &mut self.outbox);
        self.flush();
    }

    /// Takes datagrams of the network to the host.
    fn inbound(&mut self, batch: &mut Batch) {
        self.answers = None;
        self.mark.begin();
        let datapath = &self.shared.datapath;
        datapath.inbound(batch, Clock::mono(), &mut self.outbox);
        self.flush();
        self.outbox.give_back(batch);
    }

    /// Takes note of whom a lone datagram is from.
    fn hear(&mut self, batch: &Batch) {
        let from = batch.packets().next().and_then(|(_, from)| from);
        if let Some(from) = from {
            self.sender.connections().heard(from);
        }
    }

    fn note(&self, reader: &Reader<'_>, error: &io::Error) {
        match reader {
            Reader::Tun(_) => {
                // An interface that is down has nothing to read; one that is gone stays so.
                let told = format!("{}: {error}", self.shared.tun.name());
                drop(self.shared.broken.try_send(told));
            }
            Reader::Udp(port, _) => {
                tracing::debug!(%error, local = %port.local(), "cannot receive from the WireGuard socket");
            }
        }
    }

    /// Runs the timers until told to stop, with the sockets and the queues of the first worker. `nudge` becomes
    /// readable when they may be due sooner than was said before.
    pub(super) fn run_timers(mut self, nudge: &EventFd) {
        let shared = Arc::clone(&self.shared);
        shared.datapath.prepare(Clock::mono());
        while self.sleep(nudge) {
            self.mark.begin();
            shared.datapath.tick(Clock::mono(), &mut self.outbox);
            self.flush();
            self.make_up();
        }
    }

    /// Sleeps until the timers are due. `false` when the thread is to stop.
    fn sleep(&self, nudge: &EventFd) -> bool {
        self.mark.park();
        // From the beginning on: nudges, however many, put nothing off.
        let began = Clock::mono();
        let (earliest, latest) = (
            began.saturating_add(SHORTEST_SLEEP),
            began.saturating_add(DataPath::LONGEST_SLEEP),
        );
        loop {
            let due = self.shared.datapath.next_tick().unwrap_or(latest);
            let due = due.clamp(earliest, latest);
            let now = Clock::mono();
            if due <= now {
                return true;
            }
            // Whole milliseconds, and none too few: what is not due yet would wait for another sleep.
            let sleep = due.since(now).saturating_add(Duration::from_micros(999));
            let sleep = PollTimeout::try_from(sleep).unwrap_or(PollTimeout::from(100_u8));
            let mut waits = [
                PollFd::new(self.stop.as_fd(), PollFlags::POLLIN),
                PollFd::new(nudge.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut waits, sleep) {
                Ok(0) | Err(Errno::EINTR) => return true,
                Ok(_) if waits[0].any().unwrap_or(true) => return false,
                // Two nudges are as good as one.
                Ok(_) => {
                    let _ = nudge.read();
                    self.shared.datapath.prepare(Clock::mono());
                }
                Err(errno) => {
                    tracing::error!(error = %io::Error::from(errno), "the timers' thread cannot wait, and ends");
                    return false;
                }
            }
        }
    }

    /// Something waits, and has for another round. A newer table waits for it too.
    pub(super) fn count_round(&mut self) {
        self.rounds = self.rounds.saturating_add(1);
        if self.rounds >= PUT_OFF_ROUNDS || self.mark.is_behind() {
            self.make_up();
        }
    }

    /// Does what was put off: sends initiations to where else peers may be, and tells the slow path what happened in the last
    /// batches.
    pub(super) fn make_up(&mut self) {
        self.rounds = 0;
        let runs = self.elsewhere.iter().map(Datagram::run);
        self.sender.send(&self.shared.udp, self.index, runs);
        self.elsewhere.clear();
        self.mark.made_up();
        for event in self.hints.drain(..) {
            if self.shared.events.try_send(event).is_err() {
                tracing::trace!("a hint of the data path is lost");
            }
        }
    }

    /// Sends what the batch has brought, and gives the table back.
    fn flush(&mut self) {
        if self.outbox.has_transmits() {
            self.sender
                .send(&self.shared.udp, self.index, self.outbox.runs());
        }
        if self.outbox.has_deliveries() {
            let delivered = self.shared.tun.deliver(self.index, &self.outbox);
            self.answers = delivered.answers;
            if delivered.refused > 0 {
                self.shared
                    .undelivered
                    .fetch_add(delivered.refused, Ordering::Relaxed);
            }
            self.shared.echo.look(&self.outbox);
        }
        // As a rule there is neither; out of line, it leaves less code to go through.
        if !self.outbox.events().is_empty() {
            self.hint();
        }
        if self.sender.has_too_big() {
            self.learn_mtu();
        }
        self.put_off();
        self.outbox.clear();
        self.mark.done();
        if self.elsewhere.len() > MAX_PUT_OFF {
            self.make_up();
        }
    }

    /// Keeps what the batch has for the slow path.
    #[cold]
    fn hint(&mut self) {
        for event in self.outbox.take_events() {
            // Where a peer is now is all that counts: one that moves with every datagram must not fill the queue.
            if let DataPathEvent::EndpointMoved { device, .. } = &event {
                self.hints.retain(|earlier| {
                    !matches!(earlier, DataPathEvent::EndpointMoved { device: of, .. } if of == device)
                });
            }
            self.hints.push(event);
        }
    }

    /// Asks the kernel how much the paths carry that datagrams were too big for.
    #[cold]
    fn learn_mtu(&mut self) {
        for too_big in self.sender.take_too_big() {
            let carried = self.shared.udp.path_mtu(too_big.to);
            tracing::debug!(to = %too_big.to, size = too_big.size, ?carried, "a datagram is too big for its path");
            if let Some(carried) = carried {
                self.shared
                    .datapath
                    .path_mtu(too_big.to, carried, Clock::mono());
            }
        }
    }

    /// Keeps what the batch has brought that may wait.
    fn put_off(&mut self) {
        let before = self.elsewhere.len();
        let more = self.outbox.elsewhere().map(|run| Datagram::new(&run));
        self.elsewhere.extend(more);
        if self.elsewhere.len() > before {
            self.mark.put_off();
        }
    }
}
