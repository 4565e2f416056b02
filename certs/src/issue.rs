//! Making keys and certificates, and the one crypto provider they are made with.

use crate::{
    CertsConfig, Error, Identity, SCHEDULER_NAME,
    authority::{CA_CERT, TLS_CERT},
    certificate::Certificate,
    key::Key,
};
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyUsagePurpose, SigningKey,
};
use rustls::{
    RootCertStore,
    crypto::{CryptoProvider, ring},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use std::{sync::Arc, time::Duration};

/// How far validity starts before now, so that a peer whose clock is behind accepts a new certificate.
pub(crate) const CLOCK_SKEW: SignedDuration = SignedDuration::from_hours(1);

#[derive(Clone, Copy)]
pub(crate) enum Role {
    Server,
    Client,
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

pub(crate) fn store<'a>(roots: impl IntoIterator<Item = &'a Certificate>) -> Result<RootCertStore, rustls::Error> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root.der.clone())?;
    }
    Ok(store)
}

/// A CA's own certificate, or, with `issuer`, the same CA as certified by another one.
pub(crate) fn ca(
    key: &Key,
    issuer: Option<(&Issuer<'_, Key>, &Certificate)>,
    config: &CertsConfig,
    now: Timestamp,
) -> Result<Certificate, Error> {
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    // each CA has a name of its own: with equal names a verifier would have to guess which of two is meant
    let id = params.key_identifier(key).iter().take(6).fold(0, |id, byte| id << 8 | u64::from(*byte));
    params.distinguished_name.push(DnType::CommonName, format!("handoff-ca-{id:012x}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    validity(&mut params, now, config.ca_life_days, issuer.map(|(_, certificate)| certificate))?;
    match issuer {
        None => Certificate::parse(CA_CERT, &params.self_signed(key)?.pem()),
        Some((issuer, _)) => Certificate::parse(TLS_CERT, &params.signed_by(key, issuer)?.pem()),
    }
}

pub(crate) fn leaf(
    role: Role,
    config: &CertsConfig,
    now: Timestamp,
    issuer: &Issuer<'_, impl SigningKey>,
    root: &Certificate,
) -> Result<Identity, Error> {
    let (subject, names, usage, days) = match role {
        Role::Server => {
            ("handoff", config.dns_names.clone(), ExtendedKeyUsagePurpose::ServerAuth, config.leaf_life_days)
        }
        Role::Client => (SCHEDULER_NAME, Vec::new(), ExtendedKeyUsagePurpose::ClientAuth, config.client_life_days),
    };
    let key = Key::generate()?;
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, subject);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    validity(&mut params, now, days, Some(root))?;
    let leaf = Certificate::parse(TLS_CERT, &params.signed_by(&key, issuer)?.pem())?;
    Ok(Identity { chain: vec![leaf], key: key.pem() })
}

/// From [`CLOCK_SKEW`] before `now` for `days`, but not beyond the issuer's own end.
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
