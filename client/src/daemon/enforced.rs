//! Watches for the moment when every worker has left the tables before a given one behind.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use parking_lot::{Condvar, Mutex};
use tokio::sync::mpsc;

use gatereeve_client_core::datapath::DataPath;

/// Time between looks while the answer is expected at once.
const TIGHT: Duration = Duration::from_micros(100);
/// Looks at that pace: a few milliseconds.
const TIGHT_LOOKS: u32 = 50;
/// Time between looks afterwards.
const RELAXED: Duration = Duration::from_millis(1);

/// What the thread waits for.
#[derive(Debug, Default)]
struct Wanted {
    /// The newest table to watch for.
    serial: Option<u64>,
    stop: bool,
}

/// A thread that waits where the engine's task must not. Dropped, it stops.
#[derive(Debug)]
pub struct EnforcedWatch {
    wanted: Arc<(Mutex<Wanted>, Condvar)>,
}

impl EnforcedWatch {
    /// Starts the thread; `enforced` is told the serials that have become true, in order.
    ///
    /// # Errors
    /// When the system gives no more threads.
    pub fn start(datapath: Arc<DataPath>, enforced: mpsc::Sender<u64>) -> Result<Self> {
        let wanted = Arc::new((Mutex::new(Wanted::default()), Condvar::new()));
        let shared = Arc::clone(&wanted);
        std::thread::Builder::new()
            .name("gatereeve-ack".into())
            .spawn(move || run(&datapath, &shared, &enforced))
            .context("cannot start a thread")?;
        Ok(Self { wanted })
    }

    /// A table with this serial was published. It stands for those before it.
    pub fn published(&self, serial: u64) {
        let (wanted, changed) = &*self.wanted;
        wanted.lock().serial = Some(serial);
        changed.notify_one();
    }
}

impl Drop for EnforcedWatch {
    fn drop(&mut self) {
        let (wanted, changed) = &*self.wanted;
        wanted.lock().stop = true;
        changed.notify_one();
    }
}

fn run(datapath: &DataPath, shared: &(Mutex<Wanted>, Condvar), enforced: &mpsc::Sender<u64>) {
    let (wanted, changed) = shared;
    let mut looks = 0;
    loop {
        let serial = {
            let mut guard = wanted.lock();
            while guard.serial.is_none() && !guard.stop {
                looks = 0;
                changed.wait(&mut guard);
            }
            if guard.stop {
                return;
            }
            guard.serial
        };
        let Some(serial) = serial else { continue };
        if datapath.enforced() >= serial {
            let mut guard = wanted.lock();
            if guard.serial == Some(serial) {
                guard.serial = None;
            }
            drop(guard);
            if enforced.blocking_send(serial).is_err() {
                return;
            }
            looks = 0;
        } else {
            std::thread::sleep(if looks < TIGHT_LOOKS { TIGHT } else { RELAXED });
            looks += 1;
        }
    }
}
