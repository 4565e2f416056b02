//! What rustls asks at each handshake: the certificate to present, the CAs a client may come from. Both are replaced in
//! place; connections that are open stay open.

use crate::{
    Clock, Error, SCHEDULER_NAME, SystemClock,
    certificate::unix_time,
    issue::{client_verifier, provider},
};
use arc_swap::ArcSwapOption;
use jiff::Timestamp;
use rustls::{
    CertificateError, ConfigBuilder, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig,
    SignatureScheme, WantsVerifier,
    client::danger::HandshakeSignatureValid,
    crypto::{verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, UnixTime},
    server::{
        ClientHello, NoServerSessionStorage, ResolvesServerCert,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
};
use std::sync::Arc;
use x509_parser::extensions::GeneralName;

/// The server certificate in use. Until the first one is loaded every handshake fails.
#[derive(Debug, Default)]
pub struct SwapResolver {
    current: ArcSwapOption<CertifiedKey>,
}

impl SwapResolver {
    /// Presents `key` from the next handshake on; true if its leaf is not the one presented so far.
    pub fn swap(&self, key: CertifiedKey) -> bool {
        let leaf = key.cert.first().cloned();
        let before = self.current.swap(Some(Arc::new(key)));
        before.and_then(|before| before.cert.first().cloned()) != leaf
    }

    /// End of validity of the certificate in use; `None` while there is none.
    pub fn not_after(&self) -> Option<Timestamp> {
        let current = self.current.load_full()?;
        let (_, leaf) = x509_parser::parse_x509_certificate(current.cert.first()?).ok()?;
        Timestamp::from_second(leaf.validity().not_after.timestamp()).ok()
    }
}

impl ResolvesServerCert for SwapResolver {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.current.load_full()
    }
}

/// The CAs client certificates are accepted from. Until the first ones are loaded every client is refused.
#[derive(Debug)]
pub struct SwapRoots {
    current: ArcSwapOption<Trusted>,
    clock: Arc<dyn Clock>,
}

#[derive(Debug)]
pub(crate) struct Trusted(Arc<dyn ClientCertVerifier>);

impl Trusted {
    pub fn new(roots: RootCertStore) -> Result<Self, Error> {
        Ok(Self(client_verifier(roots)?))
    }
}

impl Default for SwapRoots {
    fn default() -> Self {
        Self::new(Arc::new(SystemClock::default()))
    }
}

impl SwapRoots {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { current: ArcSwapOption::empty(), clock }
    }

    pub(crate) fn swap(&self, trusted: Trusted) {
        self.current.store(Some(Arc::new(trusted)));
    }
}

impl ClientCertVerifier for SwapRoots {
    /// None: a client then sends what it has, also when its CA is one that came or went a moment ago.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let current = self.current.load_full();
        let trusted = current.ok_or_else(|| rustls::Error::General("no CA for clients is loaded yet".to_owned()))?;
        let now = unix_time(self.clock.now());
        let verified = trusted.0.verify_client_cert(end_entity, intermediates, now)?;
        // a CA that is not only ours also issues certificates to others
        if is_scheduler(end_entity) {
            Ok(verified)
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &provider().signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

/// TLS 1.2 and later without client certificates, HTTP/2 and HTTP/1.1.
pub fn server_config(resolver: Arc<SwapResolver>) -> Result<Arc<ServerConfig>, Error> {
    let mut config = builder()?.with_no_client_auth().with_cert_resolver(resolver);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// As [`server_config`], but a client must show a certificate for client authentication from one of `roots`, and speaks
/// HTTP/1.1: kube-scheduler asks one question after the other, and with HTTP/2 each is handed from the connection's task
/// to one of its own and back, which costs two more switches of threads in the scheduler's serial part.
pub fn server_config_mtls(resolver: Arc<SwapResolver>, roots: Arc<SwapRoots>) -> Result<Arc<ServerConfig>, Error> {
    let mut config = builder()?.with_client_cert_verifier(roots).with_cert_resolver(resolver);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // a resumed session would not be checked against the CAs of today
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

fn builder() -> Result<ConfigBuilder<ServerConfig, WantsVerifier>, Error> {
    Ok(ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?)
}

/// Whether the certificate is for [`SCHEDULER_NAME`], as common name or as DNS name.
fn is_scheduler(der: &CertificateDer<'_>) -> bool {
    let Ok((_, read)) = x509_parser::parse_x509_certificate(der) else { return false };
    let common = read.subject().iter_common_name().any(|name| name.as_str() == Ok(SCHEDULER_NAME));
    let alternative = read.subject_alternative_name().ok().flatten();
    let mut names = alternative.iter().flat_map(|extension| &extension.value.general_names);
    common || names.any(|name| matches!(name, GeneralName::DNSName(name) if *name == SCHEDULER_NAME))
}
