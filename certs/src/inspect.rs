//! What can be said of certificates by whoever only reads them.

use crate::{
    Error, Identity,
    authority::{TLS_CERT, verify_server},
    certificate::{Certificate, parse_all},
    key::KeyPem,
};
use jiff::Timestamp;

/// A certificate as far as people care.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspected {
    /// DNS names and IP addresses.
    pub names: Vec<String>,
    /// It is a CA's.
    pub is_ca: bool,
    /// From when on it is valid.
    pub not_before: Timestamp,
    /// Until when it is valid.
    pub not_after: Timestamp,
    /// When it should have been replaced long ago.
    pub overdue_at: Timestamp,
}

impl From<&Certificate> for Inspected {
    fn from(certificate: &Certificate) -> Self {
        Self {
            names: certificate.names.clone(),
            is_ca: certificate.is_ca,
            not_before: certificate.not_before,
            not_after: certificate.not_after,
            overdue_at: certificate.overdue_at(),
        }
    }
}

/// The certificates in a PEM text, at least one. Fails with [`Error::Unusable`].
pub fn inspect(pem: &str) -> Result<Vec<Inspected>, Error> {
    Ok(parse_all("PEM", pem)?.iter().map(Inspected::from).collect())
}

/// Whether who trusts the CAs in `bundle_pem` accepts the server certificate of `chain_pem` at `at`, its names aside.
pub fn verify(chain_pem: &str, bundle_pem: &str, at: Timestamp) -> Result<(), Error> {
    let server = Identity { chain: parse_all(TLS_CERT, chain_pem)?, key: KeyPem::new(String::new()) };
    let roots = parse_all("caBundle", bundle_pem)?;
    verify_server(&server, roots.iter().filter(|root| root.is_valid(at)), at)
        .map_err(|error| Error::unusable(TLS_CERT, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CertsConfig, Material};
    use jiff::SignedDuration;

    #[test]
    fn what_we_make_is_read_back_and_verified_by_its_own_ca_only() {
        let config = CertsConfig::new("ns", "certs", vec!["handoff-webhook.ns.svc".to_owned()]);
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let (ours, other) = (Material::create(&config, now).unwrap(), Material::create(&config, now).unwrap());
        let chain = ours.server().chain_pem();
        let seen = inspect(&chain).unwrap();
        assert_eq!(seen[0].names, config.dns_names);
        assert!(!seen[0].is_ca && now < seen[0].overdue_at && seen[0].overdue_at < seen[0].not_after);
        assert!(inspect(&ours.bundle_pem()).unwrap()[0].is_ca);
        assert!(verify(&chain, &ours.bundle_pem(), now).is_ok());
        assert!(verify(&chain, &other.bundle_pem(), now).is_err(), "another CA");
        assert!(
            verify(&chain, &ours.bundle_pem(), seen[0].not_after + SignedDuration::from_secs(1)).is_err(),
            "expired"
        );
        assert!(inspect("no certificate").is_err() && verify(&chain, "", now).is_err());
    }
}
