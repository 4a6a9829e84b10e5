//! Over loopback, with real handshakes.

use super::*;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::pki_types::{ServerName, UnixTime};
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::{
    ClientConfig as TlsConfig, DigitallySignedStruct, RootCertStore, SignatureAlgorithm,
    SignatureScheme,
};
use std::net::Ipv6Addr;
use tokio::time::timeout;

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

fn key(seed: u8) -> IdentityKey {
    IdentityKey::from_seed(&[seed; 32])
}

/// What the server with key 1 makes of a client with this TLS configuration, and which of the two
/// keys it believes. The client may think that all is well.
async fn shake(tls: TlsConfig) -> Result<Option<IdentityPublicKey>, quinn::ConnectionError> {
    let server = server_endpoint(LOOPBACK, &key(1)).unwrap();
    let client = client_endpoint(LOOPBACK).unwrap();
    let config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    let addr = server.local_addr().unwrap();
    let connecting = client.connect_with(config, addr, "x.invalid").unwrap();
    let (accepted, connected) =
        tokio::join!(async { server.accept().await.unwrap().await }, connecting);
    drop(connected);
    accepted.map(|connection| peer_key(&connection))
}

fn good(seed: u8) -> TlsConfig {
    tls::client_config(&key(seed), ServerKey::new(None)).unwrap()
}

/// Shows one public key and signs with another.
#[derive(Debug)]
struct Liar {
    shown: Vec<u8>,
    key: Arc<IdentityKey>,
}

impl SigningKey for Liar {
    fn choose_scheme(&self, _offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        Some(Box::new(Self {
            shown: self.shown.clone(),
            key: Arc::clone(&self.key),
        }))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ED25519
    }
}

impl Signer for Liar {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        Ok(self.key.sign(b"", message).as_bytes().to_vec())
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

fn lying(shown: Vec<u8>) -> TlsConfig {
    let mut config = good(2);
    let certified = CertifiedKey::new(
        vec![CertificateDer::from(shown.clone())],
        Arc::new(Liar {
            shown,
            key: Arc::new(key(2)),
        }),
    );
    config.client_auth_cert_resolver =
        Arc::new(AlwaysResolvesClientRawPublicKeys::new(Arc::new(certified)));
    config
}

#[tokio::test]
async fn both_keys_are_proven() {
    let server = server_endpoint(LOOPBACK, &key(1)).unwrap();
    let client = client_endpoint(LOOPBACK).unwrap();
    let addr = server.local_addr().unwrap();
    let (identity, expected) = (key(2), key(1).public());
    let (accepted, connected) = tokio::join!(
        async { server.accept().await.unwrap().await },
        connect(&client, addr, &identity, Some(&expected))
    );
    assert_eq!(peer_key(&accepted.unwrap()), Some(key(2).public()));
    assert_eq!(peer_key(&connected.unwrap()), Some(key(1).public()));
}

#[tokio::test]
async fn a_client_without_a_proven_key_is_refused() {
    assert_eq!(shake(good(2)).await.unwrap(), Some(key(2).public()));
    // The key it shows must be the key it has; the liar's own key passes.
    let own = tls::spki(&key(2).public());
    assert_eq!(shake(lying(own)).await.unwrap(), Some(key(2).public()));
    shake(lying(tls::spki(&key(3).public()))).await.unwrap_err();
    // No Ed25519 key: a P-256 prefix, rubbish, nothing, a point of small order.
    let mut weak = tls::spki(&key(2).public());
    weak.truncate(12);
    weak.extend([1].into_iter().chain([0; 31]));
    for shown in [vec![0x30, 0x59, 0x30, 0x13], vec![7; 44], vec![], weak] {
        shake(lying(shown)).await.unwrap_err();
    }
    shake(keyless()).await.unwrap_err();
}

#[tokio::test]
async fn another_protocol_is_refused() {
    for alpn in [vec![], vec![b"h3".to_vec()], vec![b"gatereeve/2".to_vec()]] {
        let mut config = good(2);
        config.alpn_protocols = alpn;
        shake(config).await.unwrap_err();
    }
    let mut config = good(2);
    config.alpn_protocols.insert(0, b"h3".to_vec());
    assert_eq!(shake(config).await.unwrap(), Some(key(2).public()));
}

#[tokio::test]
async fn a_client_of_certificates_is_refused() {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = TlsConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = good(2).alpn_protocols;
    shake(config).await.unwrap_err();
}

#[tokio::test]
async fn an_unexpected_server_does_not_see_the_clients_key() {
    let server = server_endpoint(LOOPBACK, &key(9)).unwrap();
    let client = client_endpoint(LOOPBACK).unwrap();
    let addr = server.local_addr().unwrap();
    let (identity, expected) = (key(2), key(1).public());
    let (accepted, connected) = tokio::join!(
        async { server.accept().await.unwrap().await },
        connect(&client, addr, &identity, Some(&expected))
    );
    // No handshake, so no client key: it travels in the client's last flight.
    accepted.unwrap_err();
    assert!(matches!(
        connected,
        Err(ConnectError::KeyMismatch { found }) if found == key(9).public()
    ));
}

#[tokio::test]
async fn nothing_is_resumed_or_sent_early() {
    let server = server_endpoint(LOOPBACK, &key(1)).unwrap();
    let client = client_endpoint(LOOPBACK).unwrap();
    let mut tls = good(2);
    // A client that would like to.
    tls.resumption = Resumption::in_memory_sessions(8);
    tls.enable_early_data = true;
    let config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    let addr = server.local_addr().unwrap();
    for _ in 0..2 {
        let connecting = client
            .connect_with(config.clone(), addr, "x.invalid")
            .unwrap();
        let connecting = connecting.into_0rtt().err().unwrap();
        let (accepted, connected) =
            tokio::join!(async { server.accept().await.unwrap().await }, connecting);
        let (accepted, connected) = (accepted.unwrap(), connected.unwrap());
        // A ticket would come right behind the handshake.
        let (mut send, _recv) = connected.open_bi().await.unwrap();
        send.write_all(b"x").await.unwrap();
        let (_send, mut recv) = accepted.accept_bi().await.unwrap();
        recv.read_exact(&mut [0]).await.unwrap();
    }
}

#[tokio::test]
async fn a_client_has_one_stream_and_nothing_else() {
    let server = server_endpoint(LOOPBACK, &key(1)).unwrap();
    let client = client_endpoint(LOOPBACK).unwrap();
    let addr = server.local_addr().unwrap();
    let identity = key(2);
    let (accepted, connected) = tokio::join!(
        async { server.accept().await.unwrap().await },
        connect(&client, addr, &identity, None)
    );
    let (accepted, connected) = (accepted.unwrap(), connected.unwrap());
    let brief = Duration::from_millis(100);
    let _stream = timeout(brief, connected.open_bi()).await.unwrap().unwrap();
    assert!(timeout(brief, connected.open_bi()).await.is_err());
    assert!(timeout(brief, connected.open_uni()).await.is_err());
    assert!(timeout(brief, accepted.open_bi()).await.is_err());
    assert!(timeout(brief, accepted.open_uni()).await.is_err());
    assert_eq!(connected.max_datagram_size(), None);
}

#[tokio::test]
async fn one_socket_serves_both_families() {
    let server = server_endpoint((Ipv6Addr::UNSPECIFIED, 0).into(), &key(1)).unwrap();
    let client = client_endpoint((Ipv6Addr::UNSPECIFIED, 0).into()).unwrap();
    let port = server.local_addr().unwrap().port();
    let mut addresses: Vec<SocketAddr> = vec![(Ipv4Addr::LOCALHOST, port).into()];
    if std::net::UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok() {
        addresses.push((Ipv6Addr::LOCALHOST, port).into());
    }
    let identity = key(2);
    for addr in addresses {
        let (accepted, connected) = tokio::join!(
            async { server.accept().await.unwrap().await },
            connect(&client, addr, &identity, None)
        );
        assert_eq!(remote(&accepted.unwrap()).ip(), addr.ip());
        assert_eq!(remote(&connected.unwrap()), addr);
    }
}

/// A client-side verifier that takes any server, for configurations that need one.
#[derive(Debug)]
struct AnyServer;

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// Raw public keys, any server, no client key.
fn keyless() -> TlsConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = TlsConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer))
        .with_no_client_auth();
    config.alpn_protocols = good(2).alpn_protocols;
    config
}
