//! The vocabulary of the client's local socket: what `gatereeve` asks the daemon, as JSON.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use gatereeve_shared::generation::Generation;
use gatereeve_shared::identity::fingerprint::Fingerprint;
use gatereeve_shared::ids::{DeviceId, DeviceName, RuleId, TagName, UserName};
use gatereeve_shared::policy::port::{PortSpec, Protocol};
use gatereeve_shared::posture::fact::FactValue;
use gatereeve_shared::posture::verdict::CheckOutcome;
use gatereeve_shared::time::UnixMillis;
use gatereeve_shared::wire::controller::Standing;
use gatereeve_shared::wire::map::OverlayAddresses;

pub use crate::filter::{FlowPhase, Traffic};

/// What a local user may ask. Changes, and what others do, take root or the configured operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case", deny_unknown_fields)]
pub enum LocalRequest {
    /// How it goes.
    Status,
    /// The peers of this device.
    Peers,
    /// The flows between this device and its peers, those that have carried the most first. Takes what changes take: it tells
    /// what others on this host do.
    Flows {
        /// Name, device ID or overlay address; those of all peers where there is none.
        peer: Option<String>,
        /// How many at most.
        limit: u32,
    },
    /// Round trips to a peer through the tunnel.
    Ping {
        /// Name, device ID or overlay address.
        peer: String,
        /// How many.
        count: u32,
    },
    /// Whether a destination may be reached.
    Why {
        /// Name, device ID or overlay address.
        peer: String,
        /// Protocol.
        protocol: Protocol,
        /// Port; 0 for protocols without.
        port: u16,
    },
    /// What this device reports, and how it does.
    Posture,
    /// Which device is behind an overlay address.
    Whois {
        /// The address.
        address: IpAddr,
    },
    /// Join a network. A change.
    Join(Join),
    /// Leave the network and forget its keys. A change.
    Leave,
    /// Take part. A change.
    Up,
    /// Stop taking part; stays down over restarts. A change.
    Down,
    /// Compare the host's routes and rules with what they should be, and put right what differs. A change.
    Repair,
}

/// How to join.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Join {
    /// With an invite's text.
    Invite(String),
    /// Without: wait for an administrator's approval.
    Controller {
        /// `host:port`.
        address: String,
        /// The network key to pin.
        fingerprint: Fingerprint,
    },
}

/// Why a request was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalError {
    /// Exit status of the command line: 1 failed, 2 usage, 3 refused, 4 no such thing, 5 conflict,
    /// 6 the controller cannot be reached.
    pub exit_status: u8,
    /// What failed, why, and what to do next.
    pub message: String,
}

/// Answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum LocalReply {
    /// To [`LocalRequest::Status`].
    Status(Box<StatusView>),
    /// To [`LocalRequest::Peers`].
    Peers {
        /// By name.
        peers: Vec<PeerView>,
    },
    /// To [`LocalRequest::Flows`].
    Flows {
        /// The most bytes first.
        flows: Vec<FlowView>,
        /// How many flows are tracked, listed or not.
        tracked: usize,
    },
    /// To [`LocalRequest::Ping`].
    Pinged {
        /// Which peer.
        peer: DeviceName,
        /// Its address.
        address: IpAddr,
        /// Requests sent.
        sent: u32,
        /// Round trips of the answers, in milliseconds.
        round_trips_ms: Vec<f64>,
        /// Why there was no answer, where the reason is known.
        note: Option<String>,
    },
    /// To [`LocalRequest::Why`].
    Why(WhyView),
    /// To [`LocalRequest::Posture`].
    Posture {
        /// What was collected last.
        facts: Vec<LocalFact>,
        /// What the controller made of it.
        checks: Vec<CheckOutcome>,
    },
    /// To [`LocalRequest::Whois`].
    Whois {
        /// The device.
        device: DeviceId,
        /// Its name.
        name: DeviceName,
        /// Its user.
        user: Option<UserName>,
        /// Its tags.
        tags: Vec<TagName>,
        /// Whether it is this device itself.
        is_self: bool,
    },
    /// To [`LocalRequest::Repair`].
    Repair(RepairView),
    /// To every other change.
    Done {
        /// What was done, in words.
        message: String,
        /// How the device stands now.
        standing: Option<Standing>,
    },
}

/// How the daemon is doing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatusView {
    /// Software version.
    pub version: String,
    /// Whether a network was joined.
    pub joined: bool,
    /// Whether the device is to take part (`up`).
    pub up: bool,
    /// The control session.
    pub connection: Connection,
    /// Why there is no session.
    pub last_error: Option<String>,
    /// How the device stands.
    pub standing: Option<Standing>,
    /// The network.
    pub network: Option<String>,
    /// Its pinned key.
    pub fingerprint: Option<Fingerprint>,
    /// Controllers, as joined.
    pub controllers: Vec<String>,
    /// This device.
    pub device: Option<DeviceId>,
    /// Its name.
    pub name: Option<DeviceName>,
    /// Its overlay addresses.
    pub addresses: Option<OverlayAddresses>,
    /// Its WireGuard key in use, in base64.
    pub wg_key: Option<String>,
    /// UDP port of its WireGuard socket.
    pub listen_port: u16,
    /// The TUN interface.
    pub interface: String,
    /// Its MTU; `None` while the device does not take part, and from a daemon that does not say.
    #[serde(default)]
    pub mtu: Option<u32>,
    /// What the kernel takes off the data path; `None` while the device does not take part.
    pub offloads: Option<OffloadView>,
    /// What seals and opens packets; `None` from a daemon that does not say.
    #[serde(default)]
    pub cipher: Option<String>,
    /// What our routing table keeps unreachable whenever there is no tunnel; `None` where there is none of it.
    pub blackhole: Option<BlackholeView>,
    /// The map held.
    pub generation: Option<Generation>,
    /// The generation that the data path enforces.
    pub enforced: Option<Generation>,
    /// When the last of the leases held ends.
    pub leases_end: Option<UnixMillis>,
    /// How many peers the map has.
    pub peers: usize,
    /// Posture checks that fail.
    pub failing_checks: Vec<CheckOutcome>,
    /// Packets dropped, by reason.
    pub drops: BTreeMap<String, u64>,
    /// What needs attention.
    pub warnings: Vec<String>,
    /// How the daemon is confined; `None` from one that does not say.
    #[serde(default)]
    pub sandbox: Option<String>,
    /// Names of devices; `None` while the device does not take part, and from a daemon that has none.
    #[serde(default)]
    pub names: Option<NamesView>,
}

/// Names of the devices that this one may reach, and who asks for them here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamesView {
    /// Their domain.
    pub domain: String,
    /// Where they are asked for, on this host alone.
    pub resolver: OverlayAddresses,
    /// Whether the host's resolver does.
    pub state: NamesState,
    /// Why not, where that is not clear from the state.
    pub problem: Option<String>,
}

/// Whether the host's programs find names of devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NamesState {
    /// It is not known yet.
    Pending,
    /// systemd-resolved asks for them, and programs ask it.
    InUse,
    /// systemd-resolved asks for them here, and by another interface's domains elsewhere, too.
    Contested,
    /// systemd-resolved asks for them; `/etc/resolv.conf` names others.
    Bypassed,
    /// There is no systemd-resolved.
    Absent,
    /// The daemon's user may not tell it.
    Forbidden,
    /// It did not take it.
    Failed,
    /// Switched off in `client.toml`.
    Off,
}

/// Prefixes that are unreachable but for the tunnel: also while no daemon runs, until `down` or `leave`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlackholeView {
    /// The routing table that says so.
    pub table: u32,
    /// The overlay's prefixes.
    pub prefixes: Vec<String>,
}

/// What of ours is on the host, and what was done about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairView {
    /// Whether a daemon answers at the socket.
    pub daemon: bool,
    /// What is there, after the changes.
    pub places: Vec<PlaceView>,
    /// What this command changed.
    pub changes: Vec<String>,
    /// What it means, and what may be done about it.
    pub notes: Vec<String>,
}

/// Rules and routes of one daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlaceView {
    /// The routing table.
    pub table: u32,
    /// The first of the rules' priorities.
    pub priority: u32,
    /// The TUN interface that the table leads into; `None` where no daemon keeps one.
    pub interface: Option<String>,
    /// Prefixes that are unreachable without a tunnel.
    pub blackhole: Vec<String>,
    /// The rules, as `ip rule` would write them.
    pub rules: Vec<String>,
    /// The routes, as `ip route` would write them.
    pub routes: Vec<String>,
}

/// Which work the kernel takes off the data path, and over how many threads the rest is spread.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OffloadView {
    /// The host's side.
    pub tun: TunOffloads,
    /// The network's side.
    pub udp: UdpOffloads,
    /// Threads that move packets.
    pub workers: usize,
    /// What is not used, and why.
    pub missing: Vec<String>,
}

/// Offloads of the TUN interface. Everything is off by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunOffloads {
    /// TCP packets that are many in one come from the host.
    pub tso: bool,
    /// UDP packets that are many in one come from the host.
    pub uso: bool,
    /// TCP packets are joined for the host.
    pub tcp_joining: bool,
    /// UDP packets are joined for the host.
    pub udp_joining: bool,
    /// Queues; a worker reads several.
    pub queues: usize,
}

/// Offloads of the WireGuard sockets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UdpOffloads {
    /// Many datagrams are sent as one.
    pub gso: bool,
    /// Datagrams come coalesced.
    pub gro: bool,
}

/// The control session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Connection {
    /// Not wanted: not joined, or down.
    Off,
    /// Trying.
    Connecting,
    /// Authenticated, waiting for a map or for approval.
    Waiting,
    /// The newest map is in force.
    Synced,
}

/// One peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerView {
    /// Its ID.
    pub device: DeviceId,
    /// Its name.
    pub name: DeviceName,
    /// Its addresses.
    pub addresses: OverlayAddresses,
    /// Its user, where it may reach this device.
    pub user: Option<UserName>,
    /// How it is reached.
    pub path: Option<PathView>,
    /// Seconds since the last WireGuard handshake.
    pub last_handshake_secs: Option<u64>,
    /// Bytes received through the tunnel.
    pub rx_bytes: u64,
    /// Bytes sent through it.
    pub tx_bytes: u64,
    /// What this device may send to it.
    pub egress: Vec<RuleStatus>,
    /// What it may send to this device.
    pub ingress: Vec<RuleStatus>,
    /// The generation that its rules are from.
    pub generation: Generation,
    /// When the last of its leases ends.
    pub leases_end: Option<UnixMillis>,
}

/// A flow between this device and a peer, and what has passed in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowView {
    /// The peer.
    pub device: DeviceId,
    /// Its name.
    pub name: DeviceName,
    /// Its user, where it may reach this device.
    pub user: Option<UserName>,
    /// `tcp`, `udp`, `icmp`, or another protocol's number.
    pub protocol: String,
    /// Who sent the first packet.
    pub opened_by: FlowOpener,
    /// This device's end.
    pub own: FlowEnd,
    /// The peer's.
    pub theirs: FlowEnd,
    /// The rule that allowed it, as judged last.
    pub rule: RuleId,
    /// The generation at that judgement.
    pub generation: Generation,
    /// Whether a rule allows it now. The next packet of one that is not is judged as the first of another flow.
    pub allowed: bool,
    /// How far it has come.
    pub phase: FlowPhase,
    /// Seconds since its first packet.
    pub age_secs: u64,
    /// Seconds since the last one that keeps it from being forgotten.
    pub idle_secs: u64,
    /// What this device has sent in it.
    pub sent: Traffic,
    /// What it has received in it.
    pub received: Traffic,
}

/// Who sent a flow's first packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlowOpener {
    /// This device.
    ThisDevice,
    /// The peer.
    Peer,
}

/// One end of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowEnd {
    /// The overlay address.
    pub address: IpAddr,
    /// The port; 0 where the protocol has none.
    pub port: u16,
}

/// How a peer is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "path", rename_all = "snake_case")]
pub enum PathView {
    /// By UDP, at this endpoint.
    Direct {
        /// Where.
        endpoint: SocketAddr,
        /// The largest packet of the overlay that goes there whole, as far as it is known; `None` before anything was sent.
        #[serde(default)]
        mtu: Option<u16>,
    },
}

/// A rule between this device and a peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleStatus {
    /// The rule.
    pub rule: RuleId,
    /// What may be reached.
    pub ports: Vec<PortSpec>,
    /// Until when, as leased now.
    pub until: UnixMillis,
}

/// Whether a destination may be reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhyView {
    /// As asked.
    pub peer: String,
    /// As asked.
    pub port: PortSpec,
    /// Whether it is allowed now; where no port was asked for, whether anything is.
    pub allowed: bool,
    /// Through which rule: the one that lasts longest, or the nearest that would.
    pub rule: Option<RuleId>,
    /// Until when.
    pub until: Option<UnixMillis>,
    /// All rules in force here that allow it, with their ports.
    pub through: Vec<RuleStatus>,
    /// What is missing.
    pub missing: Vec<String>,
    /// `controller`, or `map` where the controller could not be asked.
    pub answered_by: String,
}

/// A fact as collected here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalFact {
    /// Which.
    pub id: String,
    /// The value.
    pub value: FactValue,
    /// Where it was read.
    pub source: String,
    /// Seconds since.
    pub age_secs: u64,
}
