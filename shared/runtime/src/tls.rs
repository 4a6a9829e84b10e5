//! TLS 1.3 by raw public key (RFC 7250), both ways: both sides prove possession of an Ed25519 key,
//! and that key is all that TLS says of them. Whose it is, the layer above decides.
//!
//! No certificates, so nothing to parse, to expire or to re-encode: a key has one canonical form
//! ([`IdentityPublicKey`]). No tickets and no 0-RTT, so every connection proves both keys anew and
//! nothing can be replayed. Signing and checking are the ones of `gatereeve_shared::identity`.

use std::sync::{Arc, Mutex, PoisonError};

use gatereeve_shared::identity::identity_key::{IdentityKey, IdentityPublicKey, Signature};
use gatereeve_shared::wire::ALPN;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error,
    PeerMisbehaved, ServerConfig, SignatureAlgorithm, SignatureScheme,
};

/// SubjectPublicKeyInfo of an Ed25519 key up to the 32 bytes of the key (RFC 8410, section 4).
const SPKI_PREFIX: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

/// The SubjectPublicKeyInfo of a key.
#[must_use]
pub fn spki(key: &IdentityPublicKey) -> Vec<u8> {
    [SPKI_PREFIX.as_slice(), key.as_bytes()].concat()
}

/// The key in a SubjectPublicKeyInfo: Ed25519, in its one encoding, or nothing.
#[must_use]
pub fn key_of_spki(spki: &[u8]) -> Option<IdentityPublicKey> {
    let bytes = spki.strip_prefix(&SPKI_PREFIX)?;
    IdentityPublicKey::new(bytes.try_into().ok()?).ok()
}

/// The server side: any client that proves a well-formed key gets a connection.
///
/// # Errors
/// Where the provider cannot do TLS 1.3.
pub fn server_config(key: &IdentityKey) -> Result<ServerConfig, Error> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(AnyClientKey))
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(certified(
            key,
        ))));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
    Ok(config)
}

/// The client side. The client's key is sent only after `server` has accepted the server's.
///
/// # Errors
/// Where the provider cannot do TLS 1.3.
pub fn client_config(key: &IdentityKey, server: Arc<ServerKey>) -> Result<ClientConfig, Error> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(server)
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(certified(
            key,
        ))));
    config.alpn_protocols = vec![ALPN.to_vec()];
    // The controller is known by its key: no name for others on the way to read.
    config.enable_sni = false;
    config.enable_early_data = false;
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn certified(key: &IdentityKey) -> Arc<CertifiedKey> {
    let public = CertificateDer::from(spki(&key.public()));
    let signer = TlsKey(Arc::new(IdentityKey::from_seed(&key.seed())));
    Arc::new(CertifiedKey::new(vec![public], Arc::new(signer)))
}

/// An identity key as rustls takes it.
#[derive(Clone, Debug)]
struct TlsKey(Arc<IdentityKey>);

impl SigningKey for TlsKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered
            .contains(&SignatureScheme::ED25519)
            .then(|| Box::new(self.clone()) as Box<dyn Signer>)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(SubjectPublicKeyInfoDer::from(spki(&self.0.public())))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ED25519
    }
}

impl Signer for TlsKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        // TLS brings its own label: 64 spaces and a context string (RFC 8446, section 4.4.3).
        Ok(self.0.sign(b"", message).as_bytes().to_vec())
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

fn verify(
    message: &[u8],
    spki: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    if signed.scheme != SignatureScheme::ED25519 {
        return Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into());
    }
    let key = key_of_spki(spki).ok_or(CertificateError::BadEncoding)?;
    let signature = <[u8; 64]>::try_from(signed.signature())
        .map(Signature::from_bytes)
        .map_err(|_| CertificateError::BadSignature)?;
    key.verify(b"", message, &signature)
        .map_err(|_| CertificateError::BadSignature)?;
    Ok(HandshakeSignatureValid::assertion())
}

fn no_tls12() -> Result<HandshakeSignatureValid, Error> {
    Err(PeerMisbehaved::AttemptedDowngradeToTls12WhenTls13IsSupported.into())
}

/// What a client asks of the server's key, and what it found.
#[derive(Debug)]
pub struct ServerKey {
    expect: Option<IdentityPublicKey>,
    other: Mutex<Option<IdentityPublicKey>>,
}

impl ServerKey {
    /// Exactly this key, or with `None` any: then the layer above must learn whose it is before it
    /// says anything.
    #[must_use]
    pub fn new(expect: Option<IdentityPublicKey>) -> Arc<Self> {
        Arc::new(Self {
            expect,
            other: Mutex::new(None),
        })
    }

    /// The key that the server showed in place of the expected one. It has not proven possession.
    #[must_use]
    pub fn other(&self) -> Option<IdentityPublicKey> {
        *self.other.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ServerCertVerifier for ServerKey {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let key = key_of_spki(end_entity).ok_or(CertificateError::BadEncoding)?;
        if self.expect.is_some_and(|expected| expected != key) {
            *self.other.lock().unwrap_or_else(PoisonError::into_inner) = Some(key);
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// Checks the shape of a client's key; who it is, is looked up after the handshake.
#[derive(Debug)]
struct AnyClientKey;

impl ClientCertVerifier for AnyClientKey {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        key_of_spki(end_entity).ok_or(CertificateError::BadEncoding)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_one_encoding_of_an_ed25519_key_is_taken() {
        let key = IdentityKey::from_seed(&[1; 32]).public();
        let good = spki(&key);
        assert_eq!(key_of_spki(&good), Some(key));
        for cut in 0..good.len() {
            assert_eq!(key_of_spki(&good[..cut]), None);
        }
        assert_eq!(key_of_spki(&[good.clone(), vec![0]].concat()), None);
        // Every change of the frame around the key, among them the OIDs of X25519 and Ed448.
        for at in 0..SPKI_PREFIX.len() {
            let mut changed = good.clone();
            changed[at] ^= 1;
            assert_eq!(key_of_spki(&changed), None);
        }
        // A point of small order.
        let mut weak = SPKI_PREFIX.to_vec();
        weak.extend([1].into_iter().chain([0; 31]));
        assert_eq!(key_of_spki(&weak), None);
    }
}
