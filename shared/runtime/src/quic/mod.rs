//! QUIC endpoints with every buffer bounded, and connections of which both keys are proven.
//!
//! A client sees its handshake succeed before the server has looked at the client's key: only a
//! first answer on the stream shows that the server took it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::time::Duration;

use gatereeve_shared::identity::identity_key::{IdentityKey, IdentityPublicKey};
use gatereeve_shared::time::PERIOD;
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, sockopt};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    ClientConfig, Connection, Endpoint, EndpointConfig, IdleTimeout, Runtime, ServerConfig,
    TokioRuntime, TransportConfig, VarInt,
};
use rustls::pki_types::CertificateDer;
use thiserror::Error;
use tokio::time::Instant;

use crate::alarm::Alarm;
use crate::clock::Clock;
use crate::tls::{self, ServerKey};
use timer::ClientRuntime;

mod timer;

/// A connection over which nothing has come for this long is gone.
pub const IDLE: Duration = Duration::from_secs(30);
/// How often a client makes an otherwise silent connection speak.
pub const KEEP_ALIVE: Duration = Duration::from_secs(9);
/// How long a client hears nothing, answers to its keep-alive included, before [`silence`] tells; it may be
/// [`PERIOD`] later.
pub const SILENCE: Duration = Duration::from_secs(11);
/// Bytes that a peer may have in flight to us on one stream of a server.
const STREAM_WINDOW: u32 = 64 * 1024;
/// Bytes that a peer may have in flight to us on one connection.
const RECEIVE_WINDOW: u32 = 256 * 1024;
/// Bytes that we hold for a peer that does not acknowledge.
const SEND_WINDOW: u64 = 512 * 1024;
/// Bytes of handshake messages that arrive out of order.
const CRYPTO_BUFFER: usize = 16 * 1024;
/// Connections that have sent a first packet and wait to be looked at.
const MAX_INCOMING: usize = 1024;
/// Bytes that all of those together may have sent.
const INCOMING_BUFFER: u64 = 4 * 1024 * 1024;
/// What the kernel is asked to hold for the socket, each way.
const SOCKET_BUFFER: usize = 2 * 1024 * 1024;

/// Why a connection is closed, as the other side sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseCode {
    /// Done.
    Done,
    /// Refused; the last message says why.
    Refused,
    /// What came is no protocol of ours.
    Protocol,
    /// Too slow: to send, to read, to begin.
    TooSlow,
    /// Too many connections.
    TooMany,
    /// The process stops.
    ShuttingDown,
}

impl CloseCode {
    /// The number on the wire.
    #[must_use]
    pub fn code(self) -> VarInt {
        VarInt::from_u32(match self {
            Self::Done => 0,
            Self::Refused => 1,
            Self::Protocol => 2,
            Self::TooSlow => 3,
            Self::TooMany => 4,
            Self::ShuttingDown => 5,
        })
    }
}

/// Closes a connection at once; what is not acknowledged yet is lost.
pub fn close(connection: &Connection, code: CloseCode) {
    connection.close(code.code(), b"");
}

/// Why there is no connection.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// The server has another key than expected, or showed it at least.
    #[error("the server has the key {found}, not the expected one")]
    KeyMismatch {
        /// What it showed.
        found: IdentityPublicKey,
    },
    /// TLS cannot be set up here.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The attempt cannot be made.
    #[error(transparent)]
    Attempt(#[from] quinn::ConnectError),
    /// The attempt failed.
    #[error(transparent)]
    Connection(#[from] quinn::ConnectionError),
}

/// An endpoint that takes connections at `addr`. An unspecified IPv6 address takes IPv4 too, and
/// where the machine has no IPv6, IPv4 alone.
///
/// # Errors
/// Where the address cannot be had or TLS cannot be set up.
pub fn server_endpoint(addr: SocketAddr, key: &IdentityKey) -> io::Result<Endpoint> {
    let tls = tls::server_config(key).map_err(io::Error::other)?;
    let crypto = QuicServerConfig::try_from(tls).map_err(io::Error::other)?;
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    let mut transport = transport()?;
    // One stream carries all: the client opens it.
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW));
    config
        .transport_config(Arc::new(transport))
        .migration(true)
        .max_incoming(MAX_INCOMING)
        .incoming_buffer_size(u64::from(STREAM_WINDOW))
        .incoming_buffer_size_total(INCOMING_BUFFER);
    endpoint(addr, Some(config), Arc::new(TokioRuntime))
}

/// An endpoint to connect from; `[::]:0` serves both families.
///
/// # Errors
/// Where the address cannot be had.
pub fn client_endpoint(bind: SocketAddr) -> io::Result<Endpoint> {
    endpoint(bind, None, Arc::new(ClientRuntime))
}

/// Connects with `key`, to a server that proves `expect`, or with `None` to any: then say nothing
/// that is not for everyone before the server has shown whose it is.
///
/// # Errors
/// [`ConnectError`]. Over a [`ConnectError::KeyMismatch`] the server has not seen our key.
pub async fn connect(
    endpoint: &Endpoint,
    addr: SocketAddr,
    key: &IdentityKey,
    expect: Option<&IdentityPublicKey>,
) -> Result<Connection, ConnectError> {
    let server = ServerKey::new(expect.copied());
    let tls = tls::client_config(key, Arc::clone(&server))?;
    let crypto = QuicClientConfig::try_from(tls)
        .map_err(|error| rustls::Error::General(error.to_string()))?;
    let mut config = ClientConfig::new(Arc::new(crypto));
    let mut transport = transport().map_err(|error| rustls::Error::General(error.to_string()))?;
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(RECEIVE_WINDOW))
        .keep_alive_interval(Some(KEEP_ALIVE));
    config.transport_config(Arc::new(transport));
    // The name is never sent nor looked at; quinn wants one.
    let connecting = endpoint.connect_with(config, addr, "controller.invalid")?;
    connecting.await.map_err(|error| match server.other() {
        Some(found) => ConnectError::KeyMismatch { found },
        None => ConnectError::Connection(error),
    })
}

/// The key that the peer has proven in the handshake. Always there on connections of this module.
#[must_use]
pub fn peer_key(connection: &Connection) -> Option<IdentityPublicKey> {
    let identity = connection.peer_identity()?;
    let keys = identity.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    tls::key_of_spki(keys.first()?)
}

/// The peer's address, IPv4 as IPv4 on a socket of both families too.
#[must_use]
pub fn remote(connection: &Connection) -> SocketAddr {
    canonical(connection.remote_address())
}

/// `addr` with an IPv4-mapped address as the IPv4 address that it is.
#[must_use]
pub fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

/// Returns once nothing has come over the connection for `limit`. With a limit over [`KEEP_ALIVE`],
/// the other side is gone then: it does not even acknowledge.
pub async fn silence(connection: &Connection, limit: Duration) {
    let heard = |connection: &Connection| connection.stats().udp_rx.datagrams;
    let (mut count, mut since) = (heard(connection), Instant::now());
    // One wake-up a look: tokio's own timers take several.
    let mut alarm = Alarm::new().ok();
    while since.elapsed() < limit {
        match &mut alarm {
            Some(alarm) => {
                // Together with whatever else wakes this machine, unless that is too long.
                let next = Clock::mono().next_of(PERIOD.min(limit));
                alarm.wait(next).await;
            }
            None => tokio::time::sleep(PERIOD.min(limit)).await,
        }
        let now = heard(connection);
        if now != count {
            (count, since) = (now, Instant::now());
        }
    }
}

/// What both sides have in common.
fn transport() -> io::Result<TransportConfig> {
    let idle = IdleTimeout::try_from(IDLE).map_err(io::Error::other)?;
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .receive_window(VarInt::from_u32(RECEIVE_WINDOW))
        .send_window(SEND_WINDOW)
        .crypto_buffer_size(CRYPTO_BUFFER)
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(Some(idle));
    Ok(transport)
}

fn endpoint(
    addr: SocketAddr,
    config: Option<ServerConfig>,
    runtime: Arc<dyn Runtime>,
) -> io::Result<Endpoint> {
    let socket = match bind(addr) {
        Err(error) if addr.is_ipv6() && addr.ip().is_unspecified() && no_ipv6(&error) => {
            bind((Ipv4Addr::UNSPECIFIED, addr.port()).into()).map_err(|_| error)?
        }
        bound => bound?,
    };
    Endpoint::new(EndpointConfig::default(), config, socket, runtime)
}

/// Whether it is the machine that has no IPv6.
fn no_ipv6(error: &io::Error) -> bool {
    let code = error.raw_os_error().map(Errno::from_raw);
    matches!(code, Some(Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL))
}

fn bind(addr: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let family = if addr.is_ipv6() {
        AddressFamily::Inet6
    } else {
        AddressFamily::Inet
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = nix::sys::socket::socket(family, SockType::Datagram, flags, None)?;
    if addr.is_ipv6() {
        // Whatever the sysctl says.
        nix::sys::socket::setsockopt(&socket, sockopt::Ipv6V6Only, &false)?;
    }
    // Less than asked for still works.
    nix::sys::socket::setsockopt(&socket, sockopt::RcvBuf, &SOCKET_BUFFER).ok();
    nix::sys::socket::setsockopt(&socket, sockopt::SndBuf, &SOCKET_BUFFER).ok();
    nix::sys::socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(addr))?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests;
