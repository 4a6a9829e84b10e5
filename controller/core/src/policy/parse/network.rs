//! `[network]`: leases and the lives of keys.

use std::time::Duration;

use super::reader::{Fields, duration, fields};
use crate::policy::Policy;
use crate::policy::problem::Problems;

const DAY: u64 = 86_400;

/// Shortest and longest lease.
pub(super) const LEASE: (Duration, Duration) =
    (Duration::from_secs(1), Duration::from_secs(30 * DAY));

const KEY_EXPIRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3650 * DAY));

const ROTATE_KEY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(90 * DAY));

pub(super) fn read(file: &Fields<'_, '_>, policy: &mut Policy, problems: &mut Problems<'_>) {
    let Some(section) = file.get("network") else {
        return;
    };
    let known = ["lease", "key_expiry", "rotate_key"];
    let Some(fields) = fields(problems, section, "`[network]`", known) else {
        return;
    };
    let mut read = |key: &str, (at_least, at_most): (Duration, Duration)| {
        duration(problems, fields.get(key)?, at_least, at_most)
    };
    let network = &mut policy.network;
    network.lease = read("lease", LEASE).unwrap_or(network.lease);
    network.key_expiry = read("key_expiry", KEY_EXPIRY);
    network.rotate_key = read("rotate_key", ROTATE_KEY).unwrap_or(network.rotate_key);
}
