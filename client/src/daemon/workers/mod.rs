//! The data-path threads: TUN, each UDP socket, and the timers. No tokio here.
//!
//! A thread works on one batch between [`WorkerMark::begin`] and [`WorkerMark::done`], writes to the TUN
//! device and the sockets included. So when the data path counts a table as enforced, no packet that an
//! older table let through is still on its way. Between batches a thread is parked and holds nothing up.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use anyhow::{Context as _, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use tokio::sync::mpsc;

use gatereeve_client_core::datapath::{Batch, DataPath, DataPathEvent, Outbox, WorkerMark};
use gatereeve_runtime::clock::Clock;

use crate::tun::Tun;
use crate::udp::{Receiver, Sender, Udp};

/// Packets per batch.
const BATCH: usize = 64;
/// Bytes per packet: jumbo frames, and not a power of two, so that slots do not share cache sets.
const SLOT: usize = 9_280;
/// Time between runs of the timers, in milliseconds.
const TICK_MS: u8 = 250;
/// Batches that a thread works off before it looks whether it is to stop.
const ROUNDS: usize = 64;

/// What the threads share.
#[derive(Debug)]
pub struct Shared {
    /// Where packets are judged.
    pub datapath: Arc<DataPath>,
    /// The host's side.
    pub tun: Arc<dyn Tun>,
    /// The network's side.
    pub udp: Arc<Udp>,
    /// Hints to the engine; what does not fit is lost.
    pub events: mpsc::Sender<DataPathEvent>,
    /// Told when the TUN device breaks.
    pub broken: mpsc::Sender<String>,
    /// Packets that the host did not take.
    pub undelivered: Arc<AtomicU64>,
}

/// The running threads. Dropped, they stop.
#[derive(Debug)]
pub struct Workers {
    stop: Arc<EventFd>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts one thread for the TUN device, one per socket, and one for the timers.
    ///
    /// # Errors
    /// When the system gives no more threads or file descriptors.
    pub fn start(shared: Shared) -> Result<Self> {
        let stop = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)
            .context("cannot start the data path")?;
        let mut workers = Self {
            stop: Arc::new(stop),
            threads: Vec::new(),
        };
        let shared = Arc::new(shared);
        workers.spawn("tun", &shared, |mut worker| worker.run_tun())?;
        for index in 0..shared.udp.ports().len() {
            workers.spawn("udp", &shared, move |mut worker| worker.run_udp(index))?;
        }
        workers.spawn("timers", &shared, |mut worker| worker.run_timers())?;
        Ok(workers)
    }

    fn spawn(
        &mut self,
        name: &str,
        shared: &Arc<Shared>,
        body: impl FnOnce(Worker) + Send + 'static,
    ) -> Result<()> {
        let worker = Worker {
            mark: shared.datapath.worker(),
            shared: Arc::clone(shared),
            stop: Arc::clone(&self.stop),
            outbox: Outbox::new(),
            sender: Sender::default(),
        };
        let thread = std::thread::Builder::new()
            .name(format!("gatereeve-{name}"))
            .spawn(move || body(worker))
            .context("cannot start a data-path thread")?;
        self.threads.push(thread);
        Ok(())
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        // The descriptor is never read, so that one write wakes and stops every thread.
        let _ = self.stop.write(1);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a data-path thread has panicked");
            }
        }
    }
}

/// What one thread works with.
#[derive(Debug)]
struct Worker {
    shared: Arc<Shared>,
    mark: WorkerMark,
    stop: Arc<EventFd>,
    outbox: Outbox,
    sender: Sender,
}

impl Worker {
    fn run_tun(&mut self) {
        let shared = Arc::clone(&self.shared);
        let mut batch = Batch::new(BATCH, SLOT);
        while self.wait(Some(shared.tun.readable()), PollTimeout::NONE) {
            for _ in 0..ROUNDS {
                match shared.tun.receive(&mut batch) {
                    Ok(0) => break,
                    Ok(_) => {
                        self.mark.begin();
                        shared
                            .datapath
                            .outbound(&mut batch, Clock::now(), &mut self.outbox);
                        self.flush();
                        batch.clear();
                    }
                    Err(error) => {
                        // An interface that is down cannot be read; one that is gone stays so.
                        drop(
                            shared
                                .broken
                                .try_send(format!("{}: {error}", shared.tun.name())),
                        );
                        self.wait(None, PollTimeout::from(TICK_MS));
                        break;
                    }
                }
            }
        }
    }

    fn run_udp(&mut self, index: usize) {
        let shared = Arc::clone(&self.shared);
        let Some(port) = shared.udp.ports().get(index) else {
            return;
        };
        let mut batch = Batch::new(BATCH, SLOT);
        let mut receiver = Receiver::new();
        while self.wait(Some(port.readable()), PollTimeout::NONE) {
            for _ in 0..ROUNDS {
                match receiver.receive(port, &mut batch) {
                    Ok(0) if !receiver.has_more() => break,
                    Ok(_) => {
                        self.mark.begin();
                        shared
                            .datapath
                            .inbound(&mut batch, Clock::now(), &mut self.outbox);
                        self.flush();
                        batch.clear();
                    }
                    Err(error) => {
                        tracing::debug!(%error, "cannot receive from the WireGuard socket");
                        self.wait(None, PollTimeout::from(TICK_MS));
                        break;
                    }
                }
            }
        }
    }

    fn run_timers(&mut self) {
        while self.wait(None, PollTimeout::from(TICK_MS)) {
            self.mark.begin();
            let shared = Arc::clone(&self.shared);
            shared.datapath.tick(Clock::now(), &mut self.outbox);
            self.flush();
        }
    }

    /// Sends what the batch has brought, and gives the table back.
    fn flush(&mut self) {
        self.sender.send(&self.shared.udp, &self.outbox);
        let refused = self.shared.tun.deliver(&self.outbox);
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
        self.outbox.clear();
        self.mark.done();
    }

    /// Parks until `readable` is, or the time is over. `false` when the thread is to stop.
    fn wait(&self, readable: Option<BorrowedFd<'_>>, timeout: PollTimeout) -> bool {
        self.mark.park();
        let stop = PollFd::new(self.stop.as_fd(), PollFlags::POLLIN);
        let result = match readable {
            Some(fd) => {
                let mut fds = [stop, PollFd::new(fd, PollFlags::POLLIN)];
                poll(&mut fds, timeout).map(|_| is_set(&fds[0]))
            }
            None => {
                let mut fds = [stop];
                poll(&mut fds, timeout).map(|_| is_set(&fds[0]))
            }
        };
        match result {
            Ok(stopped) => !stopped,
            Err(nix::errno::Errno::EINTR) => true,
            Err(errno) => {
                tracing::error!(error = %io::Error::from(errno), "a data-path thread cannot wait, and ends");
                false
            }
        }
    }
}

fn is_set(fd: &PollFd<'_>) -> bool {
    fd.any().unwrap_or(true)
}

#[cfg(test)]
mod tests;
