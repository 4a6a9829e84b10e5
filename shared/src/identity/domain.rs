//! Domain separation: one label for each thing that is ever signed or hashed.

/// Public identity key to device ID.
pub const DEVICE_ID: &[u8] = b"gatereeve device id v1\0";
/// Public network key to fingerprint.
pub const FINGERPRINT: &[u8] = b"gatereeve network fingerprint v1\0";
/// "This device owns this WireGuard key", signed by the device's identity key.
pub const KEY_BINDING: &[u8] = b"gatereeve key binding v1\0";
/// "This TLS key belongs to a controller", signed by the network key.
pub const CONTROLLER_BINDING: &[u8] = b"gatereeve controller binding v1\0";
/// "The journal had this head", signed by the network key.
pub const CHECKPOINT: &[u8] = b"gatereeve checkpoint v1\0";
/// The hash of an invite's secret that the store keeps.
pub const INVITE_SECRET: &[u8] = b"gatereeve invite secret v1\0";
/// The link from one journal record to the next.
pub const JOURNAL_RECORD: &[u8] = b"gatereeve journal record v1\0";
