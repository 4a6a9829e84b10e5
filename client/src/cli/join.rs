//! `gatereeve join`: hands the invite to the daemon, and follows how it goes.

use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use gatereeve_client_core::api::{Connection, Join, LocalReply, LocalRequest, StatusView};
use gatereeve_runtime::clock::Clock;
use gatereeve_shared::identity::fingerprint::Fingerprint;
use gatereeve_shared::invite::Invite;
use gatereeve_shared::wire::controller::Standing;

use super::output::{Printer, standing_word};
use super::{Failure, JoinArgs, client};

/// Time between looks at how it goes.
const LOOK: Duration = Duration::from_millis(150);
/// Longest text read from standard input, in bytes.
const MAX_INPUT: u64 = 8 * 1024;
/// The controller's port unless told otherwise.
const DEFAULT_PORT: u16 = 8443;

/// Joins, and waits until the device takes part or waits for an administrator.
pub(super) fn run(
    socket: &Path,
    arguments: &JoinArgs,
    printer: &mut Printer,
) -> Result<u8, Failure> {
    let join = read(arguments)?;
    let reply = client::ask(socket, &LocalRequest::Join(join))?;
    if arguments.no_wait {
        printer.reply(&reply)?;
        return Ok(0);
    }
    let deadline = Clock::mono().saturating_add(arguments.timeout);
    let mut said = String::new();
    loop {
        let reply = client::ask(socket, &LocalRequest::Status)?;
        let LocalReply::Status(status) = reply else {
            return Err(Failure {
                status: 1,
                message: "the daemon answered another question".into(),
            });
        };
        match outcome(&status) {
            Outcome::Done(message) => {
                printer.reply(&LocalReply::Done {
                    message,
                    standing: status.standing,
                })?;
                return Ok(0);
            }
            Outcome::Failed(failure) => return Err(failure),
            Outcome::Waiting(progress) => {
                if progress != said {
                    printer.progress(&progress);
                    said = progress;
                }
            }
        }
        if Clock::mono() >= deadline {
            return Err(Failure {
                status: 6,
                message: format!(
                    "not through within {:?}: {said}; the daemon goes on trying, `gatereeve status` tells how it goes",
                    arguments.timeout
                ),
            });
        }
        std::thread::sleep(LOOK);
    }
}

/// How far a device got.
#[derive(Debug)]
enum Outcome {
    Done(String),
    Failed(Failure),
    Waiting(String),
}

fn outcome(status: &StatusView) -> Outcome {
    if !status.joined {
        let why = status
            .last_error
            .clone()
            .unwrap_or_else(|| "the network was left".into());
        return Outcome::Failed(Failure {
            status: 3,
            message: format!("not joined: {why}"),
        });
    }
    let network = status.network.as_deref().unwrap_or("the network");
    let synced = status.connection == Connection::Synced;
    match status.standing {
        Some(Standing::Approved) if synced => {
            let name = status
                .name
                .as_ref()
                .map(|name| format!(" as {name}"))
                .unwrap_or_default();
            let address = status
                .addresses
                .map(|own| format!(", address {}", own.v4))
                .unwrap_or_default();
            Outcome::Done(format!("joined {network}{name}{address}"))
        }
        Some(Standing::Quarantined) if synced => {
            Outcome::Done(format!("joined {network}, in quarantine"))
        }
        Some(Standing::Pending) => Outcome::Done(
            "asked to join; an administrator approves with `gatereeve-controller device approve`"
                .into(),
        ),
        Some(standing @ (Standing::Expired | Standing::Revoked)) => Outcome::Failed(Failure {
            status: 3,
            message: format!(
                "this device's standing: {}; `gatereeve leave`, then join with a new invite",
                standing_word(standing)
            ),
        }),
        Some(Standing::Unknown | Standing::Approved | Standing::Quarantined) | None => {
            let step = match status.connection {
                Connection::Off | Connection::Connecting => "connecting to the controller",
                Connection::Waiting => "connected, waiting for the controller",
                Connection::Synced => "getting the network map",
            };
            Outcome::Waiting(match &status.last_error {
                Some(error) => format!("{step} (last error: {error})"),
                None => step.to_owned(),
            })
        }
    }
}

fn read(arguments: &JoinArgs) -> Result<Join, Failure> {
    let usage = |message: String| Failure { status: 2, message };
    if let Some(key) = &arguments.key {
        let fingerprint: Fingerprint = key.parse().map_err(|why| usage(format!("--key: {why}")))?;
        let address = check_address(&arguments.target).map_err(usage)?;
        return Ok(Join::Controller {
            address,
            fingerprint,
        });
    }
    let text = if arguments.target == "-" {
        let mut text = String::new();
        std::io::stdin()
            .take(MAX_INPUT)
            .read_to_string(&mut text)
            .map_err(|error| {
                usage(format!(
                    "cannot read the invite from standard input: {error}"
                ))
            })?;
        text.trim().to_owned()
    } else {
        arguments.target.clone()
    };
    match text.parse::<Invite>() {
        Ok(_) => Ok(Join::Invite(text)),
        Err(error) if check_address(&text).is_ok() => Err(usage(format!(
            "{error}; to join without an invite, add --key with the network key's fingerprint"
        ))),
        Err(error) => Err(usage(error.to_string())),
    }
}

/// `host:port`; the port may be left out.
fn check_address(text: &str) -> Result<String, String> {
    let malformed = text.is_empty()
        || text.len() > 255
        || text
            .chars()
            .any(|c| c.is_whitespace() || c.is_control() || c == '/');
    let wrong = || format!("{text:?} is no controller address: write HOST:PORT");
    if malformed {
        return Err(wrong());
    }
    if let Ok(address) = text.parse::<std::net::IpAddr>() {
        return Ok(std::net::SocketAddr::new(address, DEFAULT_PORT).to_string());
    }
    if text.parse::<std::net::SocketAddr>().is_ok() {
        return Ok(text.to_owned());
    }
    match text.split_once(':') {
        None => Ok(format!("{text}:{DEFAULT_PORT}")),
        Some((host, port))
            if !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0) =>
        {
            Ok(text.to_owned())
        }
        Some(_) => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(target: &str, key: Option<&str>) -> JoinArgs {
        JoinArgs {
            target: target.into(),
            key: key.map(Into::into),
            no_wait: false,
            timeout: Duration::from_secs(1),
        }
    }

    #[test]
    fn a_controller_takes_an_address_and_a_fingerprint() {
        let key = Fingerprint([9; 32]).to_string();
        let expected = Join::Controller {
            address: "c.example.com:8443".into(),
            fingerprint: Fingerprint([9; 32]),
        };
        assert_eq!(
            read(&arguments("c.example.com", Some(&key))).unwrap(),
            expected
        );
        for target in ["", "a b", "c:0", "c:x", ":8443", "http://c"] {
            assert_eq!(
                read(&arguments(target, Some(&key))).unwrap_err().status,
                2,
                "{target:?}"
            );
        }
        assert_eq!(
            read(&arguments("c:1", Some("short"))).unwrap_err().status,
            2
        );
    }

    #[test]
    fn a_damaged_invite_is_refused_before_the_daemon_is_asked() {
        let failure = read(&arguments("gatereeve-invite-1.AAAA", None)).unwrap_err();
        assert_eq!(failure.status, 2);
        assert!(failure.message.contains("damaged"), "{}", failure.message);
        let failure = read(&arguments("c.example.com:8443", None)).unwrap_err();
        assert!(failure.message.contains("--key"), "{}", failure.message);
    }
}
