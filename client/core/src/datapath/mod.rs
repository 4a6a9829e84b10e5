//! The per-packet work: filter, route, seal; demultiplex, open, check, filter.
//!
//! [`DataPath`] is shared by all workers. It reads one immutable table, loaded once per batch, and locks
//! one peer's mutable state at a time. It opens no socket and reads no clock.

mod arena;
mod batch;
mod deliveries;
mod event;
mod inbound;
mod outbound;
mod outbox;
mod publish;
mod shared;
mod spec;
mod table;
mod watch;
mod worker;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use gatereeve_shared::ids::DeviceId;
use gatereeve_shared::time::Mono;
use parking_lot::Mutex;

pub use batch::Batch;
pub use deliveries::Joined;
pub use event::{DataPathEvent, Direction};
pub(crate) use outbox::Lane;
pub use outbox::{Outbox, Run};
pub(crate) use shared::Shared;
pub use spec::{LocalKey, PeerSpec, RuleSpec, SelfName, TableSpec};
pub use worker::WorkerMark;

use crate::drop_reason::DropReason;
use crate::filter::FlowList;
use crate::peers::PeerState;
use crate::wg::TunnelFactory;
use inbound::Inbound;
use outbound::Outbound;
use publish::Builder;
use table::{ForwardingTable, TablePeer};
use watch::Watch;
use worker::Marks;

/// Peers whose first handshake is prepared when they come: it is answered sooner, and takes 4 KB that idle peers
/// of a large network do without.
const PREPARED: usize = 32;

/// The fast path of a client: many threads, no allocation per packet, a lock per peer and batch.
///
/// It starts shut and with a table that allows nothing.
#[derive(Debug)]
pub struct DataPath {
    table: ArcSwap<ForwardingTable>,
    marks: Marks,
    /// Nanoseconds of [`Mono`].
    open_until: AtomicU64,
    shared: Shared,
    tunnels: Box<dyn TunnelFactory>,
    publishing: Mutex<()>,
    /// Those of the first peers whose tunnels are new.
    unprepared: Mutex<Vec<Arc<Mutex<PeerState>>>>,
    watch: Watch,
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
    /// The largest packet that the path to it carries.
    pub mtu: usize,
}

impl DataPath {
    /// How long the timers may sleep where [`Self::next_tick`] says that nothing is due: nothing that a packet
    /// sets off in the meantime is due sooner.
    pub const LONGEST_SLEEP: Duration = watch::LONGEST_SLEEP;

    /// Peers that are [greeted](Self::greet) at most: more at once would hold up the timers.
    pub const GREETED: usize = 256;

    /// A data path whose randomness comes from `seed`, 32 bytes drawn from the operating system.
    #[must_use]
    pub fn new(seed: [u8; 32], tunnels: Box<dyn TunnelFactory>, now: Mono) -> Self {
        let shared = Shared::new(seed, now);
        Self {
            table: ArcSwap::from_pointee(ForwardingTable::new(shared.hash)),
            marks: Marks::default(),
            open_until: AtomicU64::new(0),
            shared,
            tunnels,
            publishing: Mutex::new(()),
            unprepared: Mutex::default(),
            watch: Watch::default(),
        }
    }

    /// Puts a table in force, whole. Peers that stay keep their sessions and flows, each flow judged
    /// again on its next packet; peers that are gone lose their keys before this returns. A table that
    /// is not newer than the one in force is ignored. [`Self::next_tick`] may be sooner than it was before.
    pub fn publish(&self, spec: TableSpec, now: Mono) {
        let publishing = self.publishing.lock();
        if spec.serial <= self.marks.serial() {
            return;
        }
        let old = self.table.load_full();
        // Those who lose everything come first: what takes time below does not keep them alive.
        let staying: BTreeSet<_> = spec.peers.iter().map(|peer| peer.device).collect();
        for peer in old.peers.iter().filter(|p| !staying.contains(&p.device)) {
            peer.state.lock().kill();
        }
        let serial = spec.serial;
        let builder = Builder {
            old: &old,
            tunnels: self.tunnels.as_ref(),
            shared: &self.shared,
            now,
        };
        let (table, fresh) = builder.build(spec);
        let table = Arc::new(table);
        self.table.store(Arc::clone(&table));
        self.marks.publish(serial);
        self.watch.table_changed(now);
        drop(publishing);
        let fresh = fresh
            .into_iter()
            .take_while(|position| *position < PREPARED);
        let fresh = fresh.filter_map(|position| table.peers.get(position));
        let mut unprepared = self.unprepared.lock();
        unprepared.extend(fresh.map(|peer| Arc::clone(&peer.state)));
        let surplus = unprepared.len().saturating_sub(PREPARED);
        unprepared.drain(..surplus);
    }

    /// Makes what first handshakes with new peers need, ahead of them. To be called after [`Self::publish`], where nothing waits
    /// for it: a peer takes 0.1 ms.
    pub fn prepare(&self, now: Mono) {
        let unprepared = std::mem::take(&mut *self.unprepared.lock());
        for state in unprepared {
            state.lock().prepare(now);
        }
    }

    /// Peers to shake hands with as soon as they come into the table, because they may send on sessions that ended here with an
    /// earlier run: they would notice after 15 seconds (WireGuard, section 6.5). Of many, [`Self::GREETED`].
    pub fn greet(&self, devices: impl IntoIterator<Item = DeviceId>) {
        let mut greetings = self.shared.greetings.lock();
        greetings.extend(devices.into_iter().take(Self::GREETED));
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

    /// Has the calling thread pay now what its first handshake would pay once, about a millisecond. For a thread that
    /// is to work with [`Self::outbound`] and [`Self::inbound`].
    pub fn warm_up(&self) {
        self.tunnels.warm_up();
    }

    /// The serial that all workers are past: no batch in flight works with an older table.
    #[must_use]
    pub fn enforced(&self) -> u64 {
        self.marks.enforced()
    }

    /// Packets read from the TUN device. Empties the batch.
    pub fn outbound(&self, from_tun: &mut Batch, now: Mono, out: &mut Outbox) {
        let table = self.table.load();
        let outbound = Outbound {
            table: &table,
            shared: &self.shared,
            is_open: self.is_open(now),
            now,
            out,
            held: None,
        };
        outbound.run(from_tun);
        out.delivered.end_stretch();
        from_tun.clear();
    }

    /// Datagrams read from the UDP socket. Empties the batch, and may leave its buffers with `out`, for the packets lie in them:
    /// [`Outbox::give_back`] returns them. What `out` still has of another batch is not delivered any more.
    pub fn inbound(&self, from_udp: &mut Batch, now: Mono, out: &mut Outbox) {
        if self.is_open(now) {
            let table = self.table.load();
            let inbound = Inbound {
                table: &table,
                shared: &self.shared,
                now,
                out,
                held: None,
                last_link: 0,
            };
            inbound.run(from_udp);
        } else {
            for _ in from_udp.packets() {
                self.shared.drops.count(DropReason::Shut);
            }
            from_udp.clear();
        }
    }

    /// Timers, of peers that have something under way only; at [`Self::next_tick`] or soon after.
    pub fn tick(&self, now: Mono, out: &mut Outbox) {
        if self.is_open(now) {
            self.watch.look(&self.table, &self.shared, now, out);
            out.delivered.end_stretch();
        }
    }

    /// When [`Self::tick`] is to be called next, which may have passed. `None`: nothing is under way with any
    /// peer, and the timers may sleep for [`Self::LONGEST_SLEEP`]. What a packet sets off later is due no sooner
    /// than that; what a table sets off may be: ask again after [`Self::publish`].
    #[must_use]
    pub fn next_tick(&self) -> Option<Mono> {
        self.watch.next(&self.shared.woken)
    }

    /// The next [`Self::tick`] looks at every peer: the reference that tests hold it to.
    #[doc(hidden)]
    pub fn wake_all(&self) {
        self.shared.woken.note_all(&self.table.load());
    }

    /// A datagram to `to` was too long: the path carries `outer` bytes, IP header included. Believed for
    /// ten minutes.
    pub fn path_mtu(&self, to: SocketAddr, outer: usize, now: Mono) {
        let table = self.table.load();
        for peer in &table.peers {
            let mut state = peer.state.lock();
            state.learn_mtu(to, outer, now);
            self.shared.woken.note(&mut state);
        }
    }

    /// Packets dropped so far, by reason.
    #[must_use]
    pub fn drops(&self) -> BTreeMap<&'static str, u64> {
        self.shared.drops.snapshot()
    }

    /// Figures of all peers of the table in force.
    #[must_use]
    pub fn peer_stats(&self) -> Vec<PeerStats> {
        let table = self.table.load();
        let stats = table.peers.iter().map(|peer| {
            let state = peer.state.lock();
            PeerStats {
                device: peer.device,
                endpoint: state.endpoint,
                last_handshake: state.last_handshake,
                rx: state.rx,
                tx: state.tx,
                mtu: state.mtu(),
            }
        });
        stats.collect()
    }

    /// The tracked flows that have carried the most, at most `most` of them, of one peer or of all.
    #[must_use]
    pub fn flows(&self, device: Option<DeviceId>, most: usize, now: Mono) -> FlowList {
        let table = self.table.load();
        let mut list = FlowList::new(most);
        let is_asked = |peer: &&TablePeer| device.is_none_or(|device| device == peer.device);
        for peer in table.peers.iter().filter(is_asked) {
            let state = peer.state.lock();
            if state.is_alive {
                peer.filter.list(&state.filter, peer.device, now, &mut list);
            }
            drop(state);
            list.cut();
        }
        list
    }

    fn is_open(&self, now: Mono) -> bool {
        now.0 < self.open_until.load(Ordering::SeqCst)
    }
}
