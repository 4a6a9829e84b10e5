//! Real traffic inside namespaces: sockets are opened in the namespace and stay there, whichever
//! thread uses them afterwards.

pub mod bulk;
pub mod dns;
pub mod handshakes;
pub mod icmp;
pub mod order;
pub mod probe;
pub mod sniff;
pub mod tcp;
pub mod trickle;
pub mod udp;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// A thread that works until it is dropped.
#[derive(Debug)]
struct Worker {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts `work`; it has to look at the flag several times a second.
    fn start(work: impl FnOnce(&AtomicBool) + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let thread = std::thread::spawn(move || work(&flag));
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic was printed where it happened, and its counters stand still.
            drop(thread.join());
        }
    }
}

fn is_stopped(stop: &AtomicBool) -> bool {
    stop.load(Ordering::Relaxed)
}
