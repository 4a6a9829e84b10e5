//! The controller that runs, or does not.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::Context as _;
use gatereeve_runtime::quic::{self, CloseCode};
use gatereeve_runtime::state_file;
use gatereeve_runtime::words::in_words;
use gatereeve_shared::identity::identity_key::{IdentityKey, IdentityPublicKey};

use super::{Answer, Check};
use crate::state_dir::StateDir;

/// How long the controller may take to answer at its port.
const PATIENCE: Duration = Duration::from_secs(3);
/// Devices of an older version that are named.
const NAMED: usize = 5;

/// The process that serves this state, as the lock says, if it lives.
pub(super) fn process_of(dir: &StateDir) -> Option<u32> {
    let text = state_file::read_to_string(&dir.lock(), 32).ok()?;
    let pid: u32 = text.trim().parse().ok()?;
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    // The kernel keeps 15 characters.
    name.trim().starts_with("gatereeve-contr").then_some(pid)
}

pub(super) fn controller(dir: &StateDir, answer: &Result<Answer, String>) -> Vec<Check> {
    let own = env!("CARGO_PKG_VERSION");
    match (answer, process_of(dir)) {
        (Ok(answer), _) => {
            let uptime = Duration::from_secs(answer.status.uptime_ms / 1000);
            let running = Check::ok(
                "controller",
                format!("has run for {}", humantime::format_duration(uptime)),
            );
            let version = if answer.status.version == own {
                Check::ok("version", format!("{own}, and that is what runs"))
            } else {
                Check::warning(
                    "version",
                    format!("{} runs, this program is {own}", answer.status.version),
                    "restart the controller, after `gatereeve-controller upgrade rehearse`",
                )
            };
            vec![running, version]
        }
        (Err(why), Some(pid)) => vec![Check::problem(
            "controller",
            format!("process {pid} serves this state, and does not answer: {why}"),
            "run this as root or as an administrator; does --socket name its socket? If it hangs, restart it",
        )],
        (Err(_), None) => vec![
            Check::warning(
                "controller",
                "does not run",
                "systemctl start gatereeve-controller",
            ),
            Check::ok("version", own),
        ],
    }
}

/// Whether our controller, or at least nobody else, is at each port.
pub(super) fn ports(dir: &StateDir, listen: &[SocketAddr], is_running: bool) -> Vec<Check> {
    listen
        .iter()
        .map(|address| {
            if is_running {
                answering(dir, *address)
            } else {
                free(*address)
            }
        })
        .collect()
}

fn answering(dir: &StateDir, address: SocketAddr) -> Check {
    match shake_hands(dir, address) {
        Ok(()) => Check::ok(
            "port",
            format!("UDP {address} is answered by this controller"),
        ),
        Err(error) => Check::problem(
            "port",
            format!("UDP {address}: {}", in_words(&error)),
            "is a local firewall in the way, or does the controller listen elsewhere (--listen, \
             GATEREEVE_CONTROLLER_LISTEN)?",
        ),
    }
}

/// A handshake as a device begins it: it succeeds only with our own TLS key at the other end.
fn shake_hands(dir: &StateDir, address: SocketAddr) -> anyhow::Result<()> {
    let expected = dir.load_tls_key()?.public();
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).context("the operating system gives no randomness")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let asking = ask(reachable(address), IdentityKey::from_seed(&seed), expected);
        match tokio::time::timeout(PATIENCE, asking).await {
            Ok(answered) => answered,
            Err(_) => anyhow::bail!("nobody answers within {PATIENCE:?}"),
        }
    })
}

async fn ask(
    address: SocketAddr,
    key: IdentityKey,
    expected: IdentityPublicKey,
) -> anyhow::Result<()> {
    let from = match address.ip() {
        IpAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        IpAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let endpoint = quic::client_endpoint(from)?;
    let connection = quic::connect(&endpoint, address, &key, Some(&expected)).await?;
    quic::close(&connection, CloseCode::Done);
    endpoint.wait_idle().await;
    Ok(())
}

/// Where an address that means all of them is reached from here. A socket of both families takes
/// IPv4 too, which every machine has.
fn reachable(address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        SocketAddr::from((Ipv4Addr::LOCALHOST, address.port()))
    } else {
        address
    }
}

fn free(address: SocketAddr) -> Check {
    match UdpSocket::bind(address) {
        Ok(_) => Check::ok("port", format!("UDP {address} is free")),
        Err(error) => Check::problem(
            "port",
            format!("UDP {address} cannot be had: {error}"),
            "find out who has it (ss -lunp), or set `listen` to another port",
        ),
    }
}

/// What the controller itself has to say.
pub(super) fn told(answer: &Answer) -> Vec<Check> {
    let mut checks: Vec<Check> = answer
        .status
        .warnings
        .iter()
        .map(|warning| {
            Check::warning(
                "status",
                warning.as_str(),
                "see `gatereeve-controller status`",
            )
        })
        .collect();
    let own = release(&answer.status.version);
    let old: Vec<String> = answer
        .devices
        .iter()
        .filter(|device| {
            let version = device.software.as_deref().and_then(release);
            version.is_some_and(|version| Some(version) < own)
        })
        .map(|device| device.name.to_string())
        .collect();
    let count = old.len();
    checks.push(if old.is_empty() {
        Check::ok("devices", "none is of an older version than the controller")
    } else {
        let mut named: Vec<String> = old.into_iter().take(NAMED).collect();
        if count > NAMED {
            named.push("…".to_owned());
        }
        Check::warning(
            "devices",
            format!("{count} are of an older version: {}", named.join(", ")),
            "upgrade them; one minor version apart works",
        )
    });
    checks
}

/// Major and minor version.
fn release(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_as_numbers() {
        assert!(release("0.9.7") < release("0.10.0"));
        assert_eq!(release("1.2.3-rc.1"), Some((1, 2)));
        assert_eq!(release("simulation"), None);
    }

    #[test]
    fn a_port_that_somebody_has_is_no_free_one() {
        let taken = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = taken.local_addr().unwrap();
        assert_eq!(free(address).standing, super::super::Standing::Problem);
        drop(taken);
        assert_eq!(free(address).standing, super::super::Standing::Ok);
    }
}
