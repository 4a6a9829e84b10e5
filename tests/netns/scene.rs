//! What many tests begin with: a policy of one rule, and two or three devices.

use std::time::Duration;

use anyhow::ensure;

use gatereeve_tests::binaries::Profile;
use gatereeve_tests::clock::wait_for;
use gatereeve_tests::traffic::tcp::attempt;
use gatereeve_tests::world::{DeviceHost, World};

/// How long an attempt may take that ought to succeed, or be refused at once.
pub(crate) const LIMIT: Duration = Duration::from_secs(3);
/// How long to look at something that must not come.
pub(crate) const QUIET: Duration = Duration::from_millis(700);

/// A world without devices.
pub(crate) fn world() -> anyhow::Result<World> {
    World::new(Profile::Dev)
}

/// Declares tags, as a policy has to before it speaks of them.
pub(crate) fn tags(names: &[&str]) -> String {
    names
        .iter()
        .map(|name| format!("[tags.\"{name}\"]\n"))
        .collect()
}

/// A policy in which `from` may reach `to` at `ports`; `more` goes into the rule.
pub(crate) fn rule(from: &str, to: &str, ports: &str, more: &str) -> String {
    let mut names = vec![from, to];
    names.dedup();
    format!(
        "version = 1\n{}\n[[allow]]\nid = \"the-rule\"\nfrom = [\"{from}\"]\nto = [\"{to}\"]\nports = {ports}\n{more}\n",
        tags(&names)
    )
}

/// A client and a server, the one with the tag `client`, the other with the tag `server`.
pub(crate) fn pair(world: &mut World) -> anyhow::Result<(DeviceHost, DeviceHost)> {
    let client = world.device("client", &["--tag", "tag:client"])?;
    let server = world.device("server", &["--tag", "tag:server"])?;
    Ok((client, server))
}

/// The rule that lets the client of [`pair`] reach its server, with everything that tests use.
pub(crate) fn open_pair() -> String {
    rule(
        "tag:client",
        "tag:server",
        r#"["tcp:80", "udp:53", "icmp"]"#,
        "",
    )
}

/// Applies `policy` and waits until every connected device enforces it.
pub(crate) fn apply(world: &World, policy: &str) -> anyhow::Result<()> {
    let committed = world.controller.cli.apply(policy, &["--wait"])?;
    ensure!(committed.unconfirmed.is_empty(), "{committed:?}");
    Ok(())
}

/// Waits until a connection to a TCP source carries bytes: the positive control of what follows.
pub(crate) fn wait_open(from: &DeviceHost, to: &DeviceHost, port: u16) -> anyhow::Result<()> {
    let target = to.v4(port)?;
    let what = format!("{} to reach {}:{port}", from.name, to.name);
    wait_for(&what, Duration::from_secs(20), || {
        let result = attempt(&from.namespace, target, Duration::from_secs(1))?;
        Ok(result.is_connected().then_some(()))
    })
}

/// Checks that no byte comes over a new connection.
pub(crate) fn ensure_closed(from: &DeviceHost, to: &DeviceHost, port: u16) -> anyhow::Result<()> {
    for target in [to.v4(port)?, to.v6(port)?] {
        let result = attempt(&from.namespace, target, QUIET)?;
        ensure!(
            result.bytes() == 0,
            "{} reached {target}: {result:?}",
            from.name
        );
    }
    Ok(())
}
