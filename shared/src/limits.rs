//! Hard limits on everything that comes from outside, in one place.

/// Largest body of a frame that a client may send, in bytes.
pub const CLIENT_FRAME: usize = 64 * 1024;
/// Largest body of a frame that a controller may send, in bytes.
pub const CONTROLLER_FRAME: usize = 1024 * 1024;
/// Peers in one [`crate::wire::map::MapUpdate`] part; keeps every part far below [`CONTROLLER_FRAME`].
pub const PEERS_PER_PART: usize = 256;
/// Peers that a client accepts in one network map.
pub const PEERS: usize = 65_536;
/// Endpoints kept for one device.
pub const ENDPOINTS: usize = 16;
/// Filter rules in one direction of one peer.
pub const RULES_PER_PEER: usize = 256;
/// Port ranges of one rule.
pub const PORTS_PER_RULE: usize = 64;
/// Facts in one posture report.
pub const FACTS: usize = 256;
/// Bytes of an encoded fact value.
pub const FACT_VALUE: usize = 1024;
/// Bytes of any name or short text on the wire.
pub const TEXT: usize = 255;
/// Names of processes that a controller may ask a device to look for.
pub const WATCHED_PROCESSES: usize = 64;
