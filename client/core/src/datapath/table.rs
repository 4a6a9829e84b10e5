//! The forwarding table: immutable, loaded once per batch, swapped whole.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use gatereeve_shared::identity::wg_key::WgPublicKey;
use gatereeve_shared::ids::{DeviceId, DeviceName};
use gatereeve_shared::time::Mono;
use gatereeve_shared::wire::map::{OverlayAddresses, OverlayPrefixes};
use parking_lot::Mutex;

use super::spec::SelfName;
use crate::dns::{self, Directory, Domain};
use crate::filter::PeerFilter;
use crate::keyed::{HashKey, KeyedMap};
use crate::peers::{AllowedIps, PeerState};
use crate::wg::HandshakeGate;

/// Everything that is looked up per packet. A new one allows nothing.
#[derive(Debug)]
pub(crate) struct ForwardingTable {
    pub(crate) own: Option<OverlayAddresses>,
    pub(crate) prefixes: Option<OverlayPrefixes>,
    pub(crate) names: Option<SelfName>,
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
    /// Positions of the peers by their names: the one way in which a name is found.
    pub(crate) by_name: Vec<usize>,
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
    pub(crate) name: DeviceName,
    pub(crate) addresses: OverlayAddresses,
    pub(crate) filter: PeerFilter,
    pub(crate) state: Arc<Mutex<PeerState>>,
}

impl ForwardingTable {
    pub(crate) fn new(key: HashKey) -> Self {
        Self {
            own: None,
            prefixes: None,
            names: None,
            gates: Vec::new(),
            peers: Vec::new(),
            owners: AllowedIps::new(key),
            by_index: KeyedMap::new(key),
            by_key: BTreeMap::new(),
            by_candidate: BTreeMap::new(),
            by_name: Vec::new(),
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

    /// Whether names are asked for at `address`.
    pub(crate) fn is_resolver(&self, address: IpAddr) -> bool {
        self.prefixes.is_some_and(|prefixes| {
            let resolver = dns::resolver(&prefixes);
            match address {
                IpAddr::V4(v4) => resolver.v4 == v4,
                IpAddr::V6(v6) => resolver.v6 == v6,
            }
        })
    }

    /// What questions for names are answered from.
    pub(crate) fn directory(&self, now: Mono) -> Option<TableNames<'_>> {
        Some(TableNames {
            table: self,
            this: self.names.as_ref()?,
            own: self.own?,
            prefixes: self.prefixes?,
            now,
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

/// The names that a table has.
pub(crate) struct TableNames<'a> {
    table: &'a ForwardingTable,
    this: &'a SelfName,
    own: OverlayAddresses,
    prefixes: OverlayPrefixes,
    now: Mono,
}

impl Directory for TableNames<'_> {
    fn domain(&self) -> &Domain {
        &self.this.domain
    }

    fn prefixes(&self) -> &OverlayPrefixes {
        &self.prefixes
    }

    fn addresses(&self, name: &str) -> Option<OverlayAddresses> {
        if self.this.name.as_str() == name {
            return Some(self.own);
        }
        let peers = &self.table.peers;
        let named = |position: &usize| peers.get(*position).map(|peer| peer.name.as_str());
        let by_name = &self.table.by_name;
        let found = by_name.binary_search_by(|position| named(position).cmp(&Some(name)));
        let peer = peers.get(*by_name.get(found.ok()?)?)?;
        // Who may only reach this device has a name there is nothing to do with.
        peer.filter.may_reach(self.now).then_some(peer.addresses)
    }

    fn name(&self, address: IpAddr) -> Option<&str> {
        if self.table.is_own(address) {
            return Some(self.this.name.as_str());
        }
        let position = self.table.owners.owner(address)?;
        let peer = self.table.peers.get(position)?;
        let is_live = peer.filter.is_live(self.now);
        is_live.then_some(peer.name.as_str())
    }
}
