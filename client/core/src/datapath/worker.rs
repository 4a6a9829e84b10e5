//! Which table every worker is past: what a generation's acknowledgement rests on.
//!
//! A worker marks the serial before it loads the table and unmarks when it has finished the batch, its
//! writes included. A worker between two batches loads whatever is published, so it holds nothing back:
//! a worker that sleeps in `poll` never delays an acknowledgement, unless a batch has left something to be
//! done. All accesses are sequentially consistent: either the publisher sees the mark, or the worker sees
//! the newer serial.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

const IDLE: u64 = u64::MAX;

/// The serial in force and the marks of all workers.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    serial: Arc<AtomicU64>,
    workers: Mutex<Vec<Weak<Mark>>>,
}

/// The serials of the tables that one worker may still work with; [`IDLE`] stands for none.
#[derive(Debug)]
struct Mark {
    /// That of the batch at hand.
    busy: AtomicU64,
    /// The lowest of those whose batches have left something to be done.
    put_off: AtomicU64,
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
        let mark = Arc::new(Mark {
            busy: AtomicU64::new(IDLE),
            put_off: AtomicU64::new(IDLE),
        });
        self.workers.lock().push(Arc::downgrade(&mark));
        WorkerMark {
            serial: Arc::clone(&self.serial),
            mark,
        }
    }

    /// The lowest serial that any worker may still work with.
    pub(crate) fn enforced(&self) -> u64 {
        let mut lowest = self.serial();
        self.workers.lock().retain(|worker| {
            let Some(mark) = worker.upgrade() else {
                return false;
            };
            // In this order: a worker puts off first, and is done with the batch then.
            lowest = lowest.min(mark.busy.load(Ordering::SeqCst));
            lowest = lowest.min(mark.put_off.load(Ordering::SeqCst));
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
    mark: Arc<Mark>,
}

impl WorkerMark {
    /// A batch begins. The table that the data path loads from now on has at least the serial returned.
    pub fn begin(&self) -> u64 {
        loop {
            let serial = self.serial.load(Ordering::SeqCst);
            self.mark.busy.store(serial, Ordering::SeqCst);
            if self.serial.load(Ordering::SeqCst) == serial {
                return serial;
            }
        }
    }

    /// The batch is finished, and everything it led to has been written, or was [put off](Self::put_off).
    pub fn done(&self) {
        self.mark.busy.store(IDLE, Ordering::SeqCst);
    }

    /// Something that the batch has led to is written later: its table counts as worked with until [`Self::made_up`].
    pub fn put_off(&self) {
        let serial = self.mark.busy.load(Ordering::SeqCst);
        self.mark.put_off.fetch_min(serial, Ordering::SeqCst);
    }

    /// Whether what was put off keeps a newer table from counting as enforced.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.mark.put_off.load(Ordering::SeqCst) < self.serial.load(Ordering::SeqCst)
    }

    /// Everything that was put off has been written.
    pub fn made_up(&self) {
        self.mark.put_off.store(IDLE, Ordering::SeqCst);
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

    #[test]
    fn what_a_batch_leaves_to_be_done_counts_until_it_is() {
        let marks = Marks::default();
        let worker = marks.worker();
        marks.publish(1);
        worker.begin();
        worker.put_off();
        worker.done();
        assert!(!worker.is_behind());
        marks.publish(2);
        assert_eq!(marks.enforced(), 1);
        assert!(worker.is_behind());
        // A later batch changes nothing about that, whether or not it puts off something too.
        worker.begin();
        assert_eq!(marks.enforced(), 1);
        worker.put_off();
        worker.done();
        worker.park();
        assert_eq!(marks.enforced(), 1);
        worker.made_up();
        assert_eq!(marks.enforced(), 2);
        assert!(!worker.is_behind());
    }
}
