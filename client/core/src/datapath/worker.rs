//! Which table every worker is past: what a generation's acknowledgement rests on.
//!
//! A worker marks the serial before it loads the table and unmarks when it has finished the batch, its
//! writes included. A worker between two batches loads whatever is published, so it holds nothing back:
//! a worker that sleeps in `poll` never delays an acknowledgement. All accesses are sequentially
//! consistent: either the publisher sees the mark, or the worker sees the newer serial.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

const IDLE: u64 = u64::MAX;

/// The serial in force and the marks of all workers.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    serial: Arc<AtomicU64>,
    workers: Mutex<Vec<Weak<AtomicU64>>>,
}

impl Marks {
    pub(crate) fn serial(&self) -> u64 {
        self.serial.load(Ordering::SeqCst)
    }

    /// To be called after the table itself was swapped.
    pub(crate) fn publish(&self, serial: u64) {
        self.serial.store(serial, Ordering::SeqCst);
    }

    pub(crate) fn worker(&self) -> WorkerMark {
        let busy = Arc::new(AtomicU64::new(IDLE));
        self.workers.lock().push(Arc::downgrade(&busy));
        WorkerMark {
            serial: Arc::clone(&self.serial),
            busy,
        }
    }

    /// The lowest serial that any worker may still work with.
    pub(crate) fn enforced(&self) -> u64 {
        let mut lowest = self.serial();
        self.workers.lock().retain(|worker| {
            let Some(busy) = worker.upgrade() else {
                return false;
            };
            lowest = lowest.min(busy.load(Ordering::SeqCst));
            true
        });
        lowest
    }
}

/// A worker's mark. Around every batch: [`WorkerMark::begin`], the data path's call, the writes, then
/// [`WorkerMark::done`]. Dropping it takes the worker out of the count.
#[derive(Debug)]
pub struct WorkerMark {
    serial: Arc<AtomicU64>,
    busy: Arc<AtomicU64>,
}

impl WorkerMark {
    /// A batch begins. The table that the data path loads from now on has at least the serial returned.
    pub fn begin(&self) -> u64 {
        loop {
            let serial = self.serial.load(Ordering::SeqCst);
            self.busy.store(serial, Ordering::SeqCst);
            if self.serial.load(Ordering::SeqCst) == serial {
                return serial;
            }
        }
    }

    /// The batch is finished, and everything it led to has been written.
    pub fn done(&self) {
        self.busy.store(IDLE, Ordering::SeqCst);
    }

    /// The worker goes to sleep; the same as [`Self::done`].
    pub fn park(&self) {
        self.done();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_worker_holds_the_acknowledgement_back() {
        let marks = Marks::default();
        let (one, two) = (marks.worker(), marks.worker());
        marks.publish(1);
        assert_eq!(marks.enforced(), 1);
        assert_eq!(one.begin(), 1);
        marks.publish(2);
        assert_eq!(two.begin(), 2);
        assert_eq!(marks.enforced(), 1);
        one.done();
        assert_eq!(marks.enforced(), 2);
        marks.publish(3);
        assert_eq!(marks.enforced(), 2);
        drop(two);
        assert_eq!(marks.enforced(), 3);
    }
}
