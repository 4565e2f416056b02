//! A certificate chain with its private key, and what others than us have issued.

use crate::{
    Error,
    authority::{CA_CERT, TLS_CERT, TLS_KEY},
    certificate::{Certificate, parse_all, to_pem},
    issue::provider,
    key::KeyPem,
};
use jiff::Timestamp;
use rustls::{
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    server::ParsedCertificate,
    sign::CertifiedKey,
};

/// A certificate chain with its key: the server's, or kube-scheduler's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The leaf first, then what leads from it to a CA.
    pub(crate) chain: Vec<Certificate>,
    pub(crate) key: KeyPem,
}

impl Identity {
    /// Reads a certificate chain and its key. Fails with [`Error::Unusable`].
    pub fn parse(tls_pem: &str, tls_key_pem: &str) -> Result<Self, Error> {
        let identity = Self { chain: parse_all(TLS_CERT, tls_pem)?, key: KeyPem::new(tls_key_pem.to_owned()) };
        identity.certified_key()?;
        Ok(identity)
    }

    /// The chain, leaf first, PEM.
    pub fn chain_pem(&self) -> String {
        to_pem(&self.chain)
    }

    /// The leaf's private key, PEM. Secret.
    pub fn key_pem(&self) -> &str {
        self.key.as_str()
    }

    /// The chain, leaf first, DER.
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        self.chain.iter().map(|certificate| certificate.der.clone()).collect()
    }

    /// Chain and key as rustls serves them. Fails with [`Error::Unusable`] if the key is not the leaf's.
    pub fn certified_key(&self) -> Result<CertifiedKey, Error> {
        let key = PrivateKeyDer::from_pem_slice(self.key_pem().as_bytes())
            .map_err(|_| Error::unusable(TLS_KEY, "not a PEM private key"))?;
        CertifiedKey::from_der(self.chain(), key, &provider())
            .map_err(|error| Error::unusable(TLS_KEY, format!("does not fit {TLS_CERT}: {error}")))
    }

    pub(crate) fn leaf(&self) -> &Certificate {
        &self.chain[0]
    }

    pub(crate) fn issuers(&self) -> &[Certificate] {
        &self.chain[1..]
    }

    pub(crate) fn drop_expired_issuers(&mut self, now: Timestamp) {
        let leaf = self.chain[0].clone();
        self.chain.retain(|certificate| *certificate == leaf || !certificate.is_expired(now));
    }

    /// Whether a client that asks for `name` will find it in the leaf.
    fn is_for(&self, name: &str) -> Result<(), Error> {
        let refuse = |problem: String| Error::unusable(TLS_CERT, format!("is not for {name}: {problem}"));
        let wanted = ServerName::try_from(name).map_err(|error| refuse(error.to_string()))?;
        let leaf = ParsedCertificate::try_from(&self.leaf().der).map_err(|error| refuse(error.to_string()))?;
        rustls::client::verify_server_name(&leaf, &wanted)
            .map_err(|_| refuse(format!("it is for {:?}", self.leaf().names)))
    }
}

/// A server certificate that someone else made, with the CAs that clients come from.
#[derive(Debug)]
pub(crate) struct External {
    pub server: Identity,
    pub roots: Vec<Certificate>,
}

impl External {
    /// Reads `ca.crt`, `tls.crt` and `tls.key` as cert-manager and most others lay them out. The leaf must be for
    /// `name`, which API servers ask for. Fails with [`Error::Unusable`].
    pub fn parse(ca_pem: &str, tls_pem: &str, tls_key_pem: &str, name: &str) -> Result<Self, Error> {
        let server = Identity::parse(tls_pem, tls_key_pem)?;
        server.is_for(name)?;
        Ok(Self { server, roots: parse_all(CA_CERT, ca_pem)? })
    }
}
