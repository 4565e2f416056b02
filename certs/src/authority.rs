//! The CA and what it issues. Pure: time comes in as an argument, nothing is read or written.

use crate::{
    CertsConfig, Error,
    certificate::{Certificate, parse_all, to_pem, unix_time},
};
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData,
};
use rustls::{
    RootCertStore,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ParsedCertificate, WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::CertifiedKey,
};
use std::{fmt, sync::Arc, time::Duration};

/// Common name of kube-scheduler's client certificate.
pub const SCHEDULER_NAME: &str = "handoff-scheduler";

pub(crate) const CA_CERT: &str = "ca.crt";
pub(crate) const CA_KEY: &str = "ca.key";
pub(crate) const TLS_CERT: &str = "tls.crt";
pub(crate) const TLS_KEY: &str = "tls.key";

/// How far validity starts before now, so that a peer whose clock is behind accepts a new certificate.
const CLOCK_SKEW: SignedDuration = SignedDuration::from_mins(5);

/// CA and server certificate, as all replicas share them. Checked when read: keys fit, the chain verifies.
#[derive(Clone, PartialEq, Eq)]
pub struct Material {
    /// The current CA first, then older ones that are still valid.
    roots: Vec<Certificate>,
    ca_key: String,
    server: Identity,
}

/// A certificate chain with its key: the server's, or kube-scheduler's.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// The leaf first, then the current CA as signed by older ones.
    chain: Vec<Certificate>,
    key: String,
}

#[derive(Clone, Copy)]
enum Role {
    Server,
    Client,
}

impl Material {
    /// A new CA and a server certificate for the names of `config`.
    pub fn create(config: &CertsConfig, now: Timestamp) -> Result<Self, Error> {
        let key = new_key()?;
        let mut params = ca_params(&key)?;
        validity(&mut params, now, config.ca_life_days, None)?;
        let issuer = CertifiedIssuer::self_signed(params, &key)?;
        let root = Certificate::parse(CA_CERT, &issuer.pem())?;
        let server = issue(Role::Server, config, now, &issuer, &root)?;
        Ok(Self { roots: vec![root], ca_key: key.serialize_pem(), server })
    }

    /// Reads what [`Self::ca_pem`], [`Self::ca_key_pem`] and [`Self::server`] gave. Does not look at the time: an
    /// expired certificate is still ours to renew. Fails with [`Error::Unusable`].
    pub(crate) fn parse(ca_pem: &str, ca_key_pem: &str, tls_pem: &str, tls_key_pem: &str) -> Result<Self, Error> {
        let roots = parse_all(CA_CERT, ca_pem)?;
        if !roots.iter().all(|root| root.is_ca) {
            return Err(Error::unusable(CA_CERT, "holds a certificate that is not a CA's"));
        }
        let ca_key = KeyPair::from_pem(ca_key_pem).map_err(|_| Error::unusable(CA_KEY, "not a PEM private key"))?;
        if roots[0].public_key != ca_key.subject_public_key_info() {
            return Err(Error::unusable(CA_KEY, format!("is not the key of the first certificate in {CA_CERT}")));
        }
        let server = Identity::parse(tls_pem, tls_key_pem)?;
        let material = Self { roots, ca_key: ca_key_pem.to_owned(), server };
        material.verify_server()?;
        Ok(material)
    }

    /// All CA certificates that are to be trusted, current first, PEM: the `caBundle`, and `ca.crt` of both Secrets.
    pub fn ca_pem(&self) -> String {
        to_pem(&self.roots)
    }

    /// The current CA's private key, PEM. Secret.
    pub(crate) fn ca_key_pem(&self) -> &str {
        &self.ca_key
    }

    /// The server's certificate and key.
    pub fn server(&self) -> &Identity {
        &self.server
    }

    /// End of the server certificate's validity.
    pub fn not_after(&self) -> Timestamp {
        self.server.leaf().not_after
    }

    /// Whether the server certificate or the current CA has run out.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.roots[0].is_expired(now) || self.server.leaf().is_expired(now)
    }

    /// Whether the server certificate should have been renewed long ago.
    pub fn is_overdue(&self, now: Timestamp) -> bool {
        self.server.leaf().overdue_at() <= now
    }

    /// What this should become by `now`: with a new CA or a new server certificate if two thirds of its life are over
    /// or a configured name is missing, and without CAs that have run out. `None` if it is to stay as it is.
    pub fn renewed(&self, config: &CertsConfig, now: Timestamp) -> Result<Option<Self>, Error> {
        let mut next = if self.roots[0].renew_at() <= now {
            self.with_new_ca(config, now)?
        } else if self.leaf_is_due(config, now) {
            self.with_new_leaf(config, now)?
        } else {
            self.clone()
        };
        let current = next.roots[0].clone();
        next.roots.retain(|root| *root == current || !root.is_expired(now));
        next.server.drop_expired_issuers(now);
        Ok((next != *self).then_some(next))
    }

    /// A client certificate for kube-scheduler.
    pub fn client(&self, config: &CertsConfig, now: Timestamp) -> Result<Identity, Error> {
        let (issuer, root) = (self.issuer()?, &self.roots[0]);
        let mut client = issue(Role::Client, config, now, &issuer, root)?;
        client.chain.extend_from_slice(self.server.issuers());
        Ok(client)
    }

    /// Whether kube-scheduler needs a new client certificate in place of `client`.
    pub fn client_is_due(&self, client: &Identity, now: Timestamp) -> bool {
        let leaf = client.leaf();
        leaf.renew_at() <= now || self.verify_client(leaf).is_err() || client.issuers() != self.server.issuers()
    }

    /// The CAs that are to be trusted at `now`. Those that have run out are left out, since TLS libraries do not look
    /// at the dates of a trust anchor.
    pub fn trusted(&self, now: Timestamp) -> Result<RootCertStore, Error> {
        Ok(store(self.roots.iter().filter(|root| !root.is_expired(now)))?)
    }

    fn leaf_is_due(&self, config: &CertsConfig, now: Timestamp) -> bool {
        let leaf = self.server.leaf();
        leaf.renew_at() <= now || !config.dns_names.iter().all(|name| leaf.names.contains(&canonical(name)))
    }

    fn with_new_leaf(&self, config: &CertsConfig, now: Timestamp) -> Result<Self, Error> {
        let mut server = issue(Role::Server, config, now, &self.issuer()?, &self.roots[0])?;
        server.chain.extend_from_slice(self.server.issuers());
        Ok(Self { server, ..self.clone() })
    }

    /// A new CA, trusted beside the old ones and signed by the old one as well.
    fn with_new_ca(&self, config: &CertsConfig, now: Timestamp) -> Result<Self, Error> {
        let mut next = Self::create(config, now)?;
        next.server.chain.push(self.cross_sign(&next.ca_key()?, config, now)?);
        next.server.chain.extend_from_slice(self.server.issuers());
        next.roots.extend_from_slice(&self.roots);
        Ok(next)
    }

    fn cross_sign(&self, new: &KeyPair, config: &CertsConfig, now: Timestamp) -> Result<Certificate, Error> {
        let mut params = ca_params(new)?;
        validity(&mut params, now, config.ca_life_days, Some(&self.roots[0]))?;
        Certificate::parse(TLS_CERT, &params.signed_by(new, &self.issuer()?)?.pem())
    }

    fn ca_key(&self) -> Result<KeyPair, Error> {
        Ok(KeyPair::from_pem(&self.ca_key)?)
    }

    fn issuer(&self) -> Result<Issuer<'static, KeyPair>, Error> {
        Ok(Issuer::from_ca_cert_der(&self.roots[0].der, self.ca_key()?)?)
    }

    /// The leaf must come from the current CA. Judged at the start of its validity, so that only the chain counts.
    fn verify_server(&self) -> Result<(), Error> {
        let leaf = self.server.leaf();
        let verified = ParsedCertificate::try_from(&leaf.der).and_then(|parsed| {
            let roots = store([&self.roots[0]])?;
            let at = unix_time(leaf.not_before);
            let algorithms = provider().signature_verification_algorithms.all;
            rustls::client::verify_server_cert_signed_by_trust_anchor(&parsed, &roots, &[], at, algorithms)
        });
        verified.map_err(|error| Error::unusable(TLS_CERT, format!("not from the first CA in {CA_CERT}: {error}")))
    }

    fn verify_client(&self, leaf: &Certificate) -> Result<(), Error> {
        let verifier = client_verifier(store([&self.roots[0]])?)?;
        verifier.verify_client_cert(&leaf.der, &[], unix_time(leaf.not_before))?;
        Ok(())
    }
}

impl Identity {
    /// Reads a certificate chain and its key. Fails with [`Error::Unusable`].
    pub fn parse(tls_pem: &str, tls_key_pem: &str) -> Result<Self, Error> {
        let identity = Self { chain: parse_all(TLS_CERT, tls_pem)?, key: tls_key_pem.to_owned() };
        identity.certified_key()?;
        Ok(identity)
    }

    /// The chain, leaf first, PEM.
    pub fn chain_pem(&self) -> String {
        to_pem(&self.chain)
    }

    /// The leaf's private key, PEM. Secret.
    pub fn key_pem(&self) -> &str {
        &self.key
    }

    /// The chain, leaf first, DER.
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        self.chain.iter().map(|certificate| certificate.der.clone()).collect()
    }

    /// Chain and key as rustls serves them. Fails with [`Error::Unusable`] if the key is not the leaf's.
    pub fn certified_key(&self) -> Result<CertifiedKey, Error> {
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes())
            .map_err(|_| Error::unusable(TLS_KEY, "not a PEM private key"))?;
        CertifiedKey::from_der(self.chain(), key, &provider())
            .map_err(|error| Error::unusable(TLS_KEY, format!("does not fit {TLS_CERT}: {error}")))
    }

    fn leaf(&self) -> &Certificate {
        &self.chain[0]
    }

    fn issuers(&self) -> &[Certificate] {
        &self.chain[1..]
    }

    fn drop_expired_issuers(&mut self, now: Timestamp) {
        let leaf = self.chain[0].clone();
        self.chain.retain(|certificate| *certificate == leaf || !certificate.is_expired(now));
    }
}

impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Material").field("roots", &self.roots).field("server", &self.server).finish_non_exhaustive()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("chain", &self.chain).finish_non_exhaustive()
    }
}

/// The one crypto provider of this crate, always passed explicitly: a process-wide default may not be set, or another.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// Requires a client certificate from one of `roots`, good for client authentication.
pub(crate) fn client_verifier(roots: RootCertStore) -> Result<Arc<dyn ClientCertVerifier>, Error> {
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .map_err(|error| Error::unusable(CA_CERT, error.to_string()))
}

fn store<'a>(roots: impl IntoIterator<Item = &'a Certificate>) -> Result<RootCertStore, rustls::Error> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root.der.clone())?;
    }
    Ok(store)
}

fn new_key() -> Result<KeyPair, Error> {
    Ok(KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?)
}

fn ca_params(key: &KeyPair) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    // each CA has a name of its own: with equal names a verifier would have to guess which of two is meant
    let id = params.key_identifier(key).iter().take(6).fold(0, |id, byte| id << 8 | u64::from(*byte));
    params.distinguished_name.push(DnType::CommonName, format!("handoff-ca-{id:012x}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn issue(
    role: Role,
    config: &CertsConfig,
    now: Timestamp,
    issuer: &Issuer<'_, impl rcgen::SigningKey>,
    root: &Certificate,
) -> Result<Identity, Error> {
    let (subject, names, usage, days) = match role {
        Role::Server => {
            ("handoff", config.dns_names.clone(), ExtendedKeyUsagePurpose::ServerAuth, config.leaf_life_days)
        }
        Role::Client => (SCHEDULER_NAME, Vec::new(), ExtendedKeyUsagePurpose::ClientAuth, config.client_life_days),
    };
    let key = new_key()?;
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, subject);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    validity(&mut params, now, days, Some(root))?;
    let leaf = Certificate::parse(TLS_CERT, &params.signed_by(&key, issuer)?.pem())?;
    Ok(Identity { chain: vec![leaf], key: key.serialize_pem() })
}

/// From just before `now` for `days`, but not beyond the issuer's own end.
fn validity(
    params: &mut CertificateParams,
    now: Timestamp,
    days: u32,
    issuer: Option<&Certificate>,
) -> Result<(), Error> {
    let unrepresentable = |_| Error::Time { from: now, days };
    let start = now.checked_sub(CLOCK_SKEW).map_err(unrepresentable)?;
    let end = now.checked_add(SignedDuration::from_hours(24 * i64::from(days))).map_err(unrepresentable)?;
    let end = issuer.map_or(end, |issuer| end.min(issuer.not_after));
    for (field, at) in [(&mut params.not_before, start), (&mut params.not_after, end)] {
        let second = u64::try_from(at.as_second()).map_err(|_| Error::Time { from: now, days })?;
        *field = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(second);
    }
    Ok(())
}

/// An IP address as it comes back out of a certificate; DNS names stay as they are.
fn canonical(name: &str) -> String {
    name.parse::<std::net::IpAddr>().map_or_else(|_| name.to_owned(), |address| address.to_string())
}
