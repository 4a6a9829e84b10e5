//! Who is there? The identity key is shown only to a TLS key that the network key has vouched for.
//!
//! Without such a key at hand, the first connection is made under a throw-away key and says nothing
//! but which versions are spoken. Its answer carries the network key's statement about the TLS key
//! just proven. Only then, and to exactly that TLS key, a second connection proves the identity.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;

use gatereeve_runtime::clock::Clock;
use gatereeve_runtime::framed::{Reader, Writer};
use gatereeve_runtime::quic::{self, CloseCode};
use gatereeve_shared::identity::identity_key::{IdentityKey, IdentityPublicKey};
use gatereeve_shared::wire::client::{ClientHello, ClientMessage};
use gatereeve_shared::wire::controller::{ControllerHello, ControllerMessage};
use gatereeve_shared::wire::{MAX_MINOR, MIN_MINOR};
use quinn::{Connection, Endpoint};
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::dial::{dial, resolve};
use super::error::LinkError;
use super::{Target, Timing};

/// A connection on which both sides know each other.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) connection: Connection,
    pub(super) reader: Reader<ControllerMessage>,
    pub(super) writer: Writer<ClientMessage>,
    pub(super) hello: ControllerHello,
    pub(super) local: SocketAddr,
    /// Its socket lives as long as this.
    pub(super) endpoint: Endpoint,
}

/// Connects to one of the target's controllers, by the rule above.
pub(super) async fn establish(target: &Target, timing: &Timing) -> Result<Session, LinkError> {
    let addresses = resolve(&target.controllers, &target.names, timing).await?;
    let endpoint =
        quic::client_endpoint((Ipv6Addr::UNSPECIFIED, 0).into()).map_err(LinkError::Socket)?;
    if let Some(known) = target.known_tls {
        match prove(&endpoint, &addresses, target, known, timing).await {
            // The controller may have been replaced: the network key decides.
            Err(LinkError::Mismatch { .. }) => {}
            proven => return proven,
        }
    }
    let vouched = introduce(&endpoint, addresses.clone(), target, timing).await?;
    prove(&endpoint, &addresses, target, vouched, timing).await
}

/// Learns a TLS key that the network key vouches for, without saying who we are.
async fn introduce(
    endpoint: &Endpoint,
    mut addresses: Vec<SocketAddr>,
    target: &Target,
    timing: &Timing,
) -> Result<IdentityPublicKey, LinkError> {
    let key = Arc::new(throw_away()?);
    let mut last = None;
    // An impostor at one address must not hide the controller at another.
    while !addresses.is_empty() {
        let (connection, address) = match dial(endpoint, &addresses, &key, None, timing).await {
            Ok(connected) => connected,
            Err(failed) => return Err(last.unwrap_or(LinkError::Unreachable(failed.words))),
        };
        match greet(endpoint, connection, address, target, timing).await {
            Ok(session) => {
                quic::close(&session.connection, CloseCode::Done);
                return Ok(session.hello.binding.tls_key);
            }
            Err(error) => {
                addresses.retain(|other| *other != address);
                // A mismatch is worth more to a person than that the rest is silent.
                if !last.as_ref().is_some_and(LinkError::is_mismatch) {
                    last = Some(error);
                }
            }
        }
    }
    Err(last.unwrap_or_else(|| LinkError::Unreachable("any address".to_owned())))
}

/// Connects under the identity key, to the holder of `tls_key` and nobody else.
async fn prove(
    endpoint: &Endpoint,
    addresses: &[SocketAddr],
    target: &Target,
    tls_key: IdentityPublicKey,
    timing: &Timing,
) -> Result<Session, LinkError> {
    let dialled = dial(endpoint, addresses, &target.identity, Some(tls_key), timing).await;
    let (connection, address) = dialled.map_err(|failed| match failed.mismatches.first() {
        Some(address) => LinkError::Mismatch {
            address: *address,
            network: target.network,
        },
        None => LinkError::Unreachable(failed.words),
    })?;
    greet(endpoint, connection, address, target, timing).await
}

/// Exchanges hellos and checks whose the controller's is.
async fn greet(
    endpoint: &Endpoint,
    connection: Connection,
    address: SocketAddr,
    target: &Target,
    timing: &Timing,
) -> Result<Session, LinkError> {
    let speaking = async {
        let lost = |error: quinn::ConnectionError| LinkError::Lost(super::error::words(&error));
        let (send, recv) = connection.open_bi().await.map_err(lost)?;
        let mut writer = Writer::new(send, timing.write);
        let mut reader = Reader::new(recv, timing.frame);
        let hello = ClientMessage::Hello(ClientHello {
            min_minor: MIN_MINOR,
            max_minor: MAX_MINOR,
        });
        let failed = |error| LinkError::stream(error, &connection);
        writer.send(&hello).await.map_err(failed)?;
        let answer = reader.next().await.map_err(failed)?;
        Ok((writer, reader, answer))
    };
    let (writer, reader, answer) =
        timeout(timing.hello, speaking)
            .await
            .map_err(|_| LinkError::Slow {
                what: "answer",
                limit: timing.hello,
            })??;
    let hello = match answer {
        Some(ControllerMessage::Hello(hello)) => hello,
        Some(ControllerMessage::Refused(refusal)) => return Err(LinkError::refused(&refusal)),
        Some(other) => {
            return Err(LinkError::Protocol(format!(
                "its first message is of kind {}",
                other.kind()
            )));
        }
        None => return Err(LinkError::Lost("the controller ended it".to_owned())),
    };
    let proven = quic::peer_key(&connection)
        .ok_or_else(|| LinkError::Protocol("it has proven no key".to_owned()))?;
    hello
        .binding
        .verify(&target.network, &proven, Clock::unix())
        .map_err(|error| LinkError::binding(error, address, target.network))?;
    if !(MIN_MINOR..=MAX_MINOR).contains(&hello.minor) {
        return Err(LinkError::Version(hello.minor));
    }
    let local = local(endpoint, &connection);
    Ok(Session {
        connection,
        reader,
        writer,
        hello,
        local,
        endpoint: endpoint.clone(),
    })
}

/// This machine's address on the way to the controller. QUIC does not tell a client: the routing
/// table does, asked by a socket that is never used.
fn local(endpoint: &Endpoint, connection: &Connection) -> SocketAddr {
    let remote = quic::remote(connection);
    let any: IpAddr = match remote.ip() {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let routed = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect(remote)?;
        socket.local_addr()
    });
    let ip = routed.map_or(any, |address| address.ip());
    let port = endpoint.local_addr().map_or(0, |address| address.port());
    SocketAddr::new(ip, port)
}

fn throw_away() -> Result<IdentityKey, LinkError> {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(seed.as_mut()).map_err(LinkError::Random)?;
    Ok(IdentityKey::from_seed(&seed))
}
