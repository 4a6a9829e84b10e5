//! The per-packet work: filter, route, seal; demultiplex, open, check, filter.
//!
//! [`DataPath`] is shared by all workers. It reads one immutable table, loaded once per batch, and locks
//! one peer's mutable state at a time. It opens no socket and reads no clock.

mod batch;
mod event;
mod outbox;
mod spec;
mod worker;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use gatereeve_shared::ids::DeviceId;
use gatereeve_shared::time::{Mono, Now};

pub use batch::Batch;
pub use event::{DataPathEvent, Direction};
pub use outbox::Outbox;
pub use spec::{LocalKey, PeerSpec, RuleSpec, TableSpec};
pub use worker::WorkerMark;

use crate::drop_reason::{DropCounters, DropReason};
use crate::wg::TunnelFactory;
use worker::Marks;

/// The fast path of a client: many threads, no allocation per packet, a lock per peer and batch.
///
/// It starts shut and with a table that allows nothing.
#[derive(Debug)]
pub struct DataPath {
    table: ArcSwap<TableSpec>,
    marks: Marks,
    open_until: AtomicU64,
    drops: DropCounters,
    tunnels: Box<dyn TunnelFactory>,
}

/// A peer's figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerStats {
    /// The peer.
    pub device: DeviceId,
    /// Where it is reached.
    pub endpoint: Option<SocketAddr>,
    /// When the last handshake was completed.
    pub last_handshake: Option<Mono>,
    /// Bytes of packets delivered from it.
    pub rx: u64,
    /// Bytes of packets sent to it.
    pub tx: u64,
}

impl DataPath {
    /// A data path whose randomness comes from `seed`, 32 bytes drawn from the operating system.
    #[must_use]
    pub fn new(_seed: [u8; 32], tunnels: Box<dyn TunnelFactory>, _now: Now) -> Self {
        Self {
            table: ArcSwap::default(),
            marks: Marks::default(),
            open_until: AtomicU64::new(0),
            drops: DropCounters::default(),
            tunnels,
        }
    }

    /// Puts a table in force, whole. Peers that stay keep their sessions and flows, each flow judged
    /// again on its next packet; peers that are gone lose their keys before this returns.
    pub fn publish(&self, spec: TableSpec, _now: Now) {
        let serial = spec.serial;
        self.table.store(spec.into());
        self.marks.publish(serial);
    }

    /// Nothing passes from now on.
    pub fn shut(&self) {
        self.open_until.store(0, Ordering::SeqCst);
    }

    /// Packets pass until `until`, as far as the table lets them; the engine's heartbeat.
    pub fn open_until(&self, until: Mono) {
        self.open_until.store(until.0, Ordering::SeqCst);
    }

    /// Serial of the table in force.
    #[must_use]
    pub fn serial(&self) -> u64 {
        self.marks.serial()
    }

    /// A mark for one more worker.
    #[must_use]
    pub fn worker(&self) -> WorkerMark {
        self.marks.worker()
    }

    /// The serial that all workers are past: no batch in flight works with an older table.
    #[must_use]
    pub fn enforced(&self) -> u64 {
        self.marks.enforced()
    }

    /// Packets read from the TUN device. Empties the batch.
    pub fn outbound(&self, from_tun: &mut Batch, _now: Now, _out: &mut Outbox) {
        for _ in from_tun.packets() {
            self.drops.count(DropReason::Shut);
        }
        from_tun.clear();
    }

    /// Datagrams read from the UDP socket. Empties the batch.
    pub fn inbound(&self, from_udp: &mut Batch, _now: Now, _out: &mut Outbox) {
        for _ in from_udp.packets() {
            self.drops.count(DropReason::Shut);
        }
        from_udp.clear();
    }

    /// Timers; every 250 ms or so.
    pub fn tick(&self, _now: Now, _out: &mut Outbox) {}

    /// Packets dropped so far, by reason.
    #[must_use]
    pub fn drops(&self) -> BTreeMap<&'static str, u64> {
        self.drops.snapshot()
    }

    /// Figures of all peers of the table in force.
    #[must_use]
    pub fn peer_stats(&self) -> Vec<PeerStats> {
        Vec::new()
    }
}
