//! From names to a connection with a proven key: all addresses, each a little after the one before.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use gatereeve_runtime::quic::{self, ConnectError};
use gatereeve_shared::identity::identity_key::{IdentityKey, IdentityPublicKey};
use gatereeve_shared::text::printable;
use quinn::{Connection, Endpoint};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::Timing;
use super::error::{self, LinkError};
use super::names::Names;

/// Addresses that are tried; more are no help.
const ADDRESSES: usize = 16;
/// Controllers whose names are looked up.
const CONTROLLERS: usize = 8;

/// The addresses of the controllers, in the order in which to try them.
pub(super) async fn resolve(
    controllers: &[String],
    names: &Names,
    timing: &Timing,
) -> Result<Vec<SocketAddr>, LinkError> {
    let mut found: Vec<SocketAddr> = Vec::new();
    let mut why = "none is configured".to_owned();
    let looking = async {
        for name in controllers.iter().take(CONTROLLERS) {
            match names.resolve(name).await {
                Ok(addresses) => {
                    for address in addresses.into_iter().map(quic::canonical) {
                        if found.len() < ADDRESSES && !found.contains(&address) {
                            found.push(address);
                        }
                    }
                }
                Err(error) => why = format!("{}: {error}", printable(name)),
            }
        }
    };
    if timeout(timing.resolve, looking).await.is_err() {
        why = format!("no answer within {:?}", timing.resolve);
    }
    if found.is_empty() {
        Err(LinkError::Resolve(why))
    } else {
        Ok(found)
    }
}

/// Why no address gave a connection.
#[derive(Debug)]
pub(super) struct Failed {
    /// Address by address, in words.
    pub(super) words: String,
    /// Those that showed another key than expected.
    pub(super) mismatches: BTreeSet<SocketAddr>,
}

/// The first connection with the expected key, or with `None` with any. The key that we prove is
/// shown to nobody who has not proven the expected one.
pub(super) async fn dial(
    endpoint: &Endpoint,
    addresses: &[SocketAddr],
    key: &Arc<IdentityKey>,
    expect: Option<IdentityPublicKey>,
    timing: &Timing,
) -> Result<(Connection, SocketAddr), Failed> {
    let mut attempts = JoinSet::new();
    for (index, address) in addresses.iter().copied().enumerate() {
        let (endpoint, key) = (endpoint.clone(), Arc::clone(key));
        let wait = timing
            .stagger
            .saturating_mul(u32::try_from(index).unwrap_or(u32::MAX));
        attempts.spawn(async move {
            sleep(wait).await;
            let connected = quic::connect(&endpoint, address, &key, expect.as_ref()).await;
            (address, connected)
        });
    }
    let mut mismatches = BTreeSet::new();
    let mut words = Vec::new();
    let racing = async {
        while let Some(attempt) = attempts.join_next().await {
            match attempt {
                Ok((address, Ok(connection))) => return Some((connection, address)),
                Ok((address, Err(error))) => {
                    if matches!(error, ConnectError::KeyMismatch { .. }) {
                        mismatches.insert(address);
                    }
                    words.push(format!("{address} ({})", error::attempt(&error)));
                }
                Err(error) => words.push(error.to_string()),
            }
        }
        None
    };
    match timeout(timing.dial, racing).await {
        Ok(Some(connected)) => return Ok(connected),
        Ok(None) => {}
        Err(_) => {
            let all: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            words = vec![format!(
                "{} (no answer within {:?})",
                all.join(", "),
                timing.dial
            )];
        }
    }
    Err(Failed {
        words: words.join(", "),
        mismatches,
    })
}
