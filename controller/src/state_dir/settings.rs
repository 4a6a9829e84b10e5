//! The network's settings: chosen at `init`, kept in the state directory, part of every backup.

use std::path::Path;

use anyhow::Context as _;
use gatereeve_runtime::{atomic_file, state_file};
use gatereeve_shared::identity::fingerprint::Fingerprint;
use gatereeve_shared::wire::map::OverlayPrefixes;
use serde::{Deserialize, Serialize};

/// Largest settings file, in bytes.
const LIMIT: u64 = 64 * 1024;

/// What `init` settles.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The network's name, for people.
    pub name: String,
    /// `host:port` of the controller, as invites carry them.
    pub advertise: Vec<String>,
    /// Overlay addresses are taken from these.
    pub prefixes: OverlayPrefixes,
}

impl Settings {
    /// The settings in the file at `path`.
    ///
    /// # Errors
    /// It cannot be read, or is no settings file.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let text = state_file::read_to_string(path, LIMIT)
            .with_context(|| format!("cannot read {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("{} is damaged", path.display()))
    }

    /// Writes them, durably.
    ///
    /// # Errors
    /// What the file system says.
    pub fn save(&self, path: &Path) -> anyhow::Result<()> {
        let text = toml::to_string(self).context("cannot write the settings as TOML")?;
        atomic_file::write(path, text.as_bytes(), 0o600)
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

/// The IPv6 prefix of a network: `fd` and 40 bits of its fingerprint, which are as good as random
/// (RFC 4193 asks for that) and are the same wherever the network's key is.
#[must_use]
pub fn default_v6(network: &Fingerprint) -> String {
    let [a, b, c, d, e, ..] = network.0;
    format!("fd{a:02x}:{b:02x}{c:02x}:{d:02x}{e:02x}::/48")
}

/// The IPv4 prefix of every network that does not choose another: shared address space (RFC 6598).
pub const DEFAULT_V4: &str = "100.64.0.0/10";

/// Takes `host:port` apart; IPv6 addresses stand in brackets.
///
/// # Errors
/// What is wrong with it.
pub fn check_advertised(text: &str) -> Result<String, String> {
    let (host, port) = text.rsplit_once(':').ok_or_else(|| {
        format!("{text:?} has no port; write HOST:PORT, such as vpn.example.com:8443")
    })?;
    let is_host = !host.is_empty()
        && host.len() <= 253
        && host
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '[' | ']' | ':'));
    let is_bracketed = !host.contains(':') || (host.starts_with('[') && host.ends_with(']'));
    if !is_host || !is_bracketed {
        return Err(format!("{host:?} is no host name or address"));
    }
    match port.parse::<u16>() {
        Ok(port) if port > 0 => Ok(text.to_owned()),
        Ok(_) | Err(_) => Err(format!("{port:?} is no port; it takes 1 to 65535")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        let settings = Settings {
            name: "example".into(),
            advertise: vec!["vpn.example.com:8443".into()],
            prefixes: OverlayPrefixes {
                v4: DEFAULT_V4.parse().unwrap(),
                v6: default_v6(&Fingerprint([0xab; 32])).parse().unwrap(),
            },
        };
        settings.save(&path).unwrap();
        assert_eq!(Settings::load(&path).unwrap(), settings);
        assert_eq!(settings.prefixes.v6.to_string(), "fdab:abab:abab::/48");
    }

    #[test]
    fn addresses_to_advertise_are_checked() {
        for good in ["vpn.example.com:8443", "192.0.2.1:1", "[2001:db8::1]:8443"] {
            assert!(check_advertised(good).is_ok(), "{good}");
        }
        for bad in [
            "vpn",
            "vpn:0",
            "vpn:x",
            ":1",
            "a b:1",
            "2001:db8::1:8443",
            "x:99999",
        ] {
            assert!(check_advertised(bad).is_err(), "{bad}");
        }
    }
}
