//! Where answers to our own echo requests are seen, among all that is delivered to the host.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use parking_lot::Mutex;

use gatereeve_client_core::datapath::Outbox;

use super::echo;

type Key = (IpAddr, [u8; 2], u16);

/// Looks at deliveries while somebody waits for one, and costs one atomic load otherwise.
#[derive(Debug, Default)]
pub struct EchoTap {
    waiting: AtomicUsize,
    wanted: Mutex<Vec<(Key, SyncSender<()>)>>,
}

impl EchoTap {
    /// Notes the answers that are waited for in what a batch delivers.
    pub fn look(&self, outbox: &Outbox) {
        if self.waiting.load(Ordering::Acquire) == 0 {
            return;
        }
        for key in outbox.deliveries().filter_map(echo::reply) {
            for (_, answered) in self
                .wanted
                .lock()
                .iter()
                .filter(|(wanted, _)| *wanted == key)
            {
                // One note is enough.
                let _ = answered.try_send(());
            }
        }
    }

    /// An answer from `peer` is to be noted, from now on.
    pub(super) fn expect(
        self: &Arc<Self>,
        peer: IpAddr,
        identifier: [u8; 2],
        sequence: u16,
    ) -> Expected {
        let (sender, answered) = sync_channel(1);
        let key = (peer, identifier, sequence);
        self.wanted.lock().push((key, sender));
        self.waiting.fetch_add(1, Ordering::AcqRel);
        Expected {
            tap: Arc::clone(self),
            key,
            answered,
        }
    }
}

/// An answer that is waited for. Dropped, it is no longer.
#[derive(Debug)]
pub(super) struct Expected {
    tap: Arc<EchoTap>,
    key: Key,
    answered: Receiver<()>,
}

impl Expected {
    /// Whether it comes within `patience`.
    pub(super) fn wait(&self, patience: Duration) -> bool {
        self.answered.recv_timeout(patience).is_ok()
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        self.tap.waiting.fetch_sub(1, Ordering::AcqRel);
        self.tap.wanted.lock().retain(|(key, _)| *key != self.key);
    }
}
