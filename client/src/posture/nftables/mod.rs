//! The host firewall, read from the kernel: whether what nobody asked for is dropped at the input hook, in
//! both families.
//!
//! The daemon reads it itself, by netlink: it takes CAP_NET_ADMIN in the host's own network namespace, which
//! the daemon has and the collector must not have. nftables answers for itself, for ufw and firewalld, and for
//! iptables-nft. A chain counts if its policy is drop, or if it ends in a rule that drops or rejects everything,
//! and if no rule before that accepts everything; what a chain does that is jumped to is not followed.
//!
//! Legacy iptables has another interface, which takes CAP_NET_RAW. It is not read: where its filter is there and
//! nftables alone does not close the host, the fact is unknown.
//!
//! * [`socket`]: asks the kernel. [`parse`]: what it answers. [`judge`]: what that comes to.

mod judge;
mod parse;
mod socket;

use std::path::Path;

use gatereeve_shared::posture::fact::{FactValue, names};

use super::CollectedFact;

pub use judge::{Chain, Closed, Rule, Ruleset, Table};
pub use socket::ReadError;

const SOURCE: &str = "nftables by netlink";
/// There while the filter tables of legacy iptables are.
const LEGACY: [&str; 2] = ["sys/module/iptable_filter", "sys/module/ip6table_filter"];

/// The fact `firewall` of the network namespace that the calling thread is in. Blocks for some milliseconds.
#[must_use]
pub fn firewall() -> CollectedFact {
    let legacy = LEGACY.iter().any(|path| Path::new("/").join(path).exists());
    let value = match socket::read() {
        Ok(ruleset) => value(ruleset.closed(), legacy),
        Err(error) => FactValue::Unknown(error.to_string()),
    };
    CollectedFact::new(names::FIREWALL, value, SOURCE)
}

/// The ruleset of the network namespace that the calling thread is in, as far as it matters here.
///
/// # Errors
/// [`ReadError`]: without the right to read it, or where it changes all the time.
pub fn read() -> Result<Ruleset, ReadError> {
    socket::read()
}

fn value(closed: Closed, legacy: bool) -> FactValue {
    match (closed.v4 && closed.v6, legacy) {
        (true, _) => FactValue::Bool(true),
        (false, false) => FactValue::Bool(false),
        (false, true) => FactValue::Unknown(
            "legacy iptables filters here, which cannot be read; use nftables or iptables-nft"
                .into(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_count_and_what_is_not_read_is_unknown() {
        let both = Closed { v4: true, v6: true };
        let half = Closed {
            v4: true,
            v6: false,
        };
        assert_eq!(value(both, false), FactValue::Bool(true));
        assert_eq!(value(both, true), FactValue::Bool(true));
        assert_eq!(value(half, false), FactValue::Bool(false));
        assert!(matches!(value(half, true), FactValue::Unknown(_)));
        assert!(matches!(
            value(Closed::default(), true),
            FactValue::Unknown(_)
        ));
    }
}
