//! The data-path threads: one per core, eight at most, and one for the timers. No tokio here.
//!
//! A worker has queues of the TUN device and sockets of its own, and does everything with a packet
//! itself, from reading to writing ([`worker`]). It works on one batch between [`WorkerMark::begin`] and
//! [`WorkerMark::done`], writes to the TUN device and the sockets included. So when the data path counts a
//! table as enforced, no packet that an older table let through is still on its way. Between batches it
//! holds nothing up, unless it has put something off ([`WorkerMark::put_off`]).
//!
//! [`WorkerMark::begin`]: gatereeve_client_core::datapath::WorkerMark::begin
//! [`WorkerMark::done`]: gatereeve_client_core::datapath::WorkerMark::done
//! [`WorkerMark::put_off`]: gatereeve_client_core::datapath::WorkerMark::put_off

mod sources;
mod worker;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;

use anyhow::{Context as _, Result};
use nix::sys::eventfd::{EfdFlags, EventFd};
use tokio::sync::mpsc;

use gatereeve_client_core::datapath::{DataPath, DataPathEvent};

use super::ping::{EchoTap, Pinger};
use crate::tun::Tun;
use crate::udp::Udp;
use worker::Worker;

/// Most workers: more cores than this are better left to the rest of the host.
const MAX_WORKERS: usize = 8;

/// How many workers this host should have.
#[must_use]
pub fn wanted() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().min(MAX_WORKERS))
}

/// What the threads share.
#[derive(Debug)]
pub struct Shared {
    /// Where packets are judged.
    pub datapath: Arc<DataPath>,
    /// The host's side.
    pub tun: Arc<dyn Tun>,
    /// The network's side, with as many sockets as there are to be workers.
    pub udp: Arc<Udp>,
    /// Hints to the engine; what does not fit is lost.
    pub events: mpsc::Sender<DataPathEvent>,
    /// Told when the TUN device breaks or a thread dies.
    pub broken: mpsc::Sender<String>,
    /// Packets that the host did not take.
    pub undelivered: Arc<AtomicU64>,
    /// Answers to our own pings.
    pub echo: Arc<EchoTap>,
}

/// The running threads. Dropped, they stop.
#[derive(Debug)]
pub struct Workers {
    pinger: Pinger,
    stop: Arc<EventFd>,
    /// Wakes the timers' thread.
    nudge: Arc<EventFd>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts a thread for each worker that there are sockets for, and one for the timers.
    ///
    /// # Errors
    /// When the system gives no more threads or file descriptors.
    pub fn start(shared: Shared) -> Result<Self> {
        let event = || {
            let event = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC);
            event.map(Arc::new).context("cannot start the data path")
        };
        let shared = Arc::new(shared);
        let nudge = event()?;
        let mut workers = Self {
            pinger: Pinger::new(&shared),
            stop: event()?,
            nudge: Arc::clone(&nudge),
            threads: Vec::new(),
        };
        for index in 0..shared.udp.workers() {
            workers.spawn(worker_name(index), &shared, index, Worker::run)?;
        }
        workers.spawn(TIMERS.to_owned(), &shared, 0, move |worker| {
            worker.run_timers(&nudge);
        })?;
        Ok(workers)
    }

    /// A table was published: what it has brought for the timers may be due.
    pub fn nudge_timers(&self) {
        // A full counter is a nudge that was not taken yet.
        let _ = self.nudge.write(1);
    }

    /// Puts echo requests into this data path.
    #[must_use]
    pub fn pinger(&self) -> Pinger {
        self.pinger.clone()
    }

    fn spawn(
        &mut self,
        name: String,
        shared: &Arc<Shared>,
        index: usize,
        body: impl FnOnce(Worker) + Send + 'static,
    ) -> Result<()> {
        let worker = Worker::new(index, Arc::clone(shared), Arc::clone(&self.stop));
        let watch = DeathWatch(shared.broken.clone());
        let thread = std::thread::Builder::new()
            .name(name)
            .spawn(move || {
                let _watch = watch;
                body(worker);
            })
            .context("cannot start a data-path thread")?;
        self.threads.push(thread);
        Ok(())
    }
}

/// The timers' thread, as `top -H` has it.
const TIMERS: &str = "gatereeve-timer";

/// The thread of a worker, as `top -H` has it: Linux shows fifteen bytes.
fn worker_name(index: usize) -> String {
    format!("gatereeve-w{index}")
}

/// Tells when its thread dies: what the kernel sends to its queues and sockets would go nowhere. All threads are
/// then begun anew.
struct DeathWatch(mpsc::Sender<String>);

impl Drop for DeathWatch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let told = "a data-path thread has panicked".to_owned();
            // Full means that the same will be done for another reason.
            drop(self.0.try_send(told));
        }
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

#[cfg(test)]
mod tests;
