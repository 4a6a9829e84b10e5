//! A host firewall by nftables, where `nft` is installed.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::bail;

use super::device::{TUN, WIREGUARD_PORT};
use crate::cli;
use crate::netns::Namespace;
use crate::process;
use crate::suite::Skip;

/// Where `nft` is, if anywhere.
#[must_use]
pub fn nft() -> Option<PathBuf> {
    ["/usr/sbin/nft", "/sbin/nft", "/usr/bin/nft"]
        .into_iter()
        .map(PathBuf::from)
        .find(|path| path.exists())
}

/// Drops whatever comes in unasked, but for WireGuard and what comes out of the tunnel.
pub(super) fn raise(namespace: &Namespace) -> anyhow::Result<()> {
    let rules = format!(
        "table inet host {{\n chain input {{\n type filter hook input priority 0; policy drop;\n \
         iifname {{ \"lo\", \"{TUN}\" }} accept\n ct state established,related accept\n \
         meta l4proto ipv6-icmp accept\n udp dport {WIREGUARD_PORT} accept\n }}\n }}\n"
    );
    run(namespace, &[rules.as_str()]).map(drop)
}

pub(super) fn flush(namespace: &Namespace) -> anyhow::Result<()> {
    run(namespace, &["delete table inet host"]).map(drop)
}

/// Loads a ruleset.
///
/// # Errors
/// Where `nft` fails.
pub fn load(namespace: &Namespace, ruleset: &str) -> anyhow::Result<()> {
    run(namespace, &[ruleset]).map(drop)
}

/// The ruleset as `nft` describes it, in JSON.
///
/// # Errors
/// Where `nft` fails.
pub fn described(namespace: &Namespace) -> anyhow::Result<String> {
    run(namespace, &["-j", "list", "ruleset"])
}

/// Runs `nft`; what it printed.
pub(super) fn run(namespace: &Namespace, arguments: &[&str]) -> anyhow::Result<String> {
    let nft: PathBuf = nft().ok_or_else(|| Skip("nft is not installed".to_owned()))?;
    let mut command = Command::new(Path::new(&nft));
    command.args(arguments);
    process::prepare(
        &mut command,
        process::Setting {
            namespace: Some(namespace.clone()),
            ..Default::default()
        },
    );
    let done = cli::run(command)?;
    if done.status != Some(0) {
        bail!("nft: {}", done.stderr);
    }
    Ok(done.stdout)
}
