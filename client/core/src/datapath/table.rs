//! The forwarding table: immutable, loaded once per batch, swapped whole.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use gatereeve_shared::identity::wg_key::WgPublicKey;
use gatereeve_shared::ids::DeviceId;
use gatereeve_shared::wire::map::{OverlayAddresses, OverlayPrefixes};
use parking_lot::Mutex;

use crate::filter::PeerFilter;
use crate::keyed::{HashKey, KeyedMap};
use crate::peers::{AllowedIps, PeerState};
use crate::wg::HandshakeGate;

/// Everything that is looked up per packet. A new one allows nothing.
#[derive(Debug)]
pub(crate) struct ForwardingTable {
    pub(crate) own: Option<OverlayAddresses>,
    pub(crate) prefixes: Option<OverlayPrefixes>,
    /// Newest key first.
    pub(crate) gates: Vec<Gate>,
    pub(crate) peers: Vec<TablePeer>,
    pub(crate) owners: AllowedIps,
    /// Receiver index (24 bits) to position of the peer.
    pub(crate) by_index: KeyedMap<u32, usize>,
    /// Static key to position of the peer. Asked for initiations only, beside a Diffie-Hellman.
    pub(crate) by_key: BTreeMap<WgPublicKey, usize>,
    /// Where peers may be, to their positions: who an initiation from there is probably from.
    pub(crate) by_candidate: BTreeMap<SocketAddr, usize>,
    /// For timers.
    pub(crate) by_device: BTreeMap<DeviceId, usize>,
}

/// One of our own keys, for handshakes that come in.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    pub(crate) local: WgPublicKey,
    pub(crate) gate: Arc<dyn HandshakeGate>,
}

/// A peer as of this table, and its state, which outlives it.
#[derive(Debug)]
pub(crate) struct TablePeer {
    pub(crate) device: DeviceId,
    pub(crate) filter: PeerFilter,
    pub(crate) state: Arc<Mutex<PeerState>>,
}

impl ForwardingTable {
    pub(crate) fn new(key: HashKey) -> Self {
        Self {
            own: None,
            prefixes: None,
            gates: Vec::new(),
            peers: Vec::new(),
            owners: AllowedIps::new(key),
            by_index: KeyedMap::new(key),
            by_key: BTreeMap::new(),
            by_candidate: BTreeMap::new(),
            by_device: BTreeMap::new(),
        }
    }

    /// Whether `address` is this device's own in the overlay.
    pub(crate) fn is_own(&self, address: IpAddr) -> bool {
        self.own.is_some_and(|own| match address {
            IpAddr::V4(v4) => own.v4 == v4,
            IpAddr::V6(v6) => own.v6 == v6,
        })
    }

    /// Whether a datagram may go to or come from `endpoint`: never inside the overlay itself, which
    /// would be a loop.
    pub(crate) fn is_underlay(&self, endpoint: SocketAddr) -> bool {
        let ip = endpoint.ip().to_canonical();
        endpoint.port() != 0
            && !ip.is_unspecified()
            && !ip.is_multicast()
            && !matches!(ip, IpAddr::V4(v4) if v4.is_broadcast())
            && !self.prefixes.is_some_and(|overlay| overlay.contains(ip))
    }
}
