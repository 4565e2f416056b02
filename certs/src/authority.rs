//! The CA and what it issues. Pure: time comes in as an argument, nothing is read or written.
//!
//! A CA is rotated in three steps, each of which leaves everyone able to connect:
//! 1. *announced*: at two thirds of its life the next CA is made, and trusted beside the current one;
//! 2. *switched*: once API servers have been told of it for [`CA_OVERLAP`], the next CA issues the leaves. It is signed
//!    by the old one as well, and that certificate is sent along with each leaf: who knows only the old CA, as
//!    kube-scheduler does until it is started anew, goes on;
//! 3. *dropped*: the old CA stays trusted until it runs out.

use crate::{
    CertsConfig, Error, Identity,
    certificate::{Certificate, parse_all, to_pem, unix_time},
    issue::{self, CLOCK_SKEW, Role, client_verifier, provider, store},
    key::{Key, KeyPem},
};
use jiff::{SignedDuration, Timestamp};
use rcgen::{Issuer, PublicKeyData};
use rustls::{RootCertStore, server::ParsedCertificate};

/// Common name of kube-scheduler's client certificate.
pub const SCHEDULER_NAME: &str = "handoff-scheduler";

pub(crate) const CA_CERT: &str = "ca.crt";
pub(crate) const CA_KEY: &str = "ca.key";
pub(crate) const NEXT_CA_KEY: &str = "next-ca.key";
pub(crate) const TLS_CERT: &str = "tls.crt";
pub(crate) const TLS_KEY: &str = "tls.key";

/// How long the next CA is announced before it issues anything. API servers take a new `caBundle` over within seconds.
pub const CA_OVERLAP: SignedDuration = SignedDuration::from_hours(1);

/// CA and server certificate, as all replicas share them. Checked when read: keys fit, the chain verifies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Material {
    /// The current CA first, then older ones that are still valid.
    roots: Vec<Certificate>,
    ca_key: KeyPem,
    /// The CA that is announced.
    next: Option<Ca>,
    server: Identity,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Ca {
    root: Certificate,
    key: KeyPem,
}

/// What a Secret holds.
#[derive(Clone, Copy)]
pub(crate) struct Entries<'a> {
    pub ca_cert: &'a str,
    pub ca_key: &'a str,
    pub next_ca_key: Option<&'a str>,
    pub tls_cert: &'a str,
    pub tls_key: &'a str,
}

/// What the one who asks knows of the world, for [`Material::renewed`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Permits {
    /// Every webhook configuration has all our CAs, the announced one too.
    pub published: bool,
    /// A CA that is not valid now may be replaced. Nobody who knows only that one can connect then; it is not done at
    /// the first sight, which may be that of a clock someone is about to correct.
    pub replace_ca: bool,
}

impl Material {
    /// A new CA and a server certificate for the names of `config`.
    pub fn create(config: &CertsConfig, now: Timestamp) -> Result<Self, Error> {
        let ca = Ca::create(config, now)?;
        let server = issue::leaf(Role::Server, config, now, &ca.issuer()?, &ca.root)?;
        Ok(Self { roots: vec![ca.root], ca_key: ca.key, next: None, server })
    }

    /// Reads what was written of [`Self::ca_pem`] and the rest. Does not look at the time: an expired certificate is
    /// still ours to renew. Fails with [`Error::Unusable`].
    pub(crate) fn parse(entries: Entries<'_>) -> Result<Self, Error> {
        let mut roots = parse_all(CA_CERT, entries.ca_cert)?;
        if !roots.iter().all(|root| root.is_ca) {
            return Err(Error::unusable(CA_CERT, "holds a certificate that is not a CA's"));
        }
        if roots[0].public_key != public_key(CA_KEY, entries.ca_key)? {
            return Err(Error::unusable(CA_KEY, format!("is not the key of the first certificate in {CA_CERT}")));
        }
        let mut next = None;
        if let Some(key) = entries.next_ca_key {
            let public_key = public_key(NEXT_CA_KEY, key)?;
            let place = roots.iter().skip(1).position(|root| root.public_key == public_key);
            let place = place.ok_or_else(|| Error::unusable(NEXT_CA_KEY, format!("is of no CA in {CA_CERT}")))?;
            next = Some(Ca { root: roots.remove(place + 1), key: KeyPem::new(key.to_owned()) });
        }
        let server = Identity::parse(entries.tls_cert, entries.tls_key)?;
        let material = Self { roots, ca_key: KeyPem::new(entries.ca_key.to_owned()), next, server };
        material.verify_server()?;
        Ok(material)
    }

    /// All CA certificates, current first, PEM: `ca.crt` of our own Secret.
    pub(crate) fn ca_pem(&self) -> String {
        let [current, older @ ..] = &self.roots[..] else { return String::new() };
        let next = self.next.iter().map(|next| &next.root);
        to_pem([current].into_iter().chain(next).chain(older))
    }

    /// All CA certificates that are to be trusted, newest first, PEM: the `caBundle`, and `ca.crt` of kube-scheduler's
    /// Secret. The switch to an announced CA does not change it.
    pub fn bundle_pem(&self) -> String {
        let next = self.next.iter().map(|next| &next.root);
        to_pem(next.chain(&self.roots))
    }

    /// The current CA's private key, PEM. Secret.
    pub(crate) fn ca_key_pem(&self) -> &str {
        self.ca_key.as_str()
    }

    /// The announced CA's private key, PEM. Secret.
    pub(crate) fn next_ca_key_pem(&self) -> Option<&str> {
        self.next.as_ref().map(|next| next.key.as_str())
    }

    /// The server's certificate and key.
    pub fn server(&self) -> &Identity {
        &self.server
    }

    /// End of the server certificate's validity.
    pub fn not_after(&self) -> Timestamp {
        self.server.leaf().not_after
    }

    /// Whether the current CA is within its dates.
    pub(crate) fn ca_is_valid(&self, now: Timestamp) -> bool {
        self.roots[0].is_valid(now)
    }

    /// Whether an announced CA is only waiting for [`Permits::published`].
    pub(crate) fn switch_is_due(&self, now: Timestamp) -> bool {
        self.next.as_ref().is_some_and(|next| next.root.not_before + CLOCK_SKEW + CA_OVERLAP <= now)
    }

    /// What this should become by `now`; `None` if it is to stay as it is. A certificate is due when two thirds of its
    /// life are over, when it begins in the future (the clock was wrong when it was made), and a server certificate
    /// also when a configured name is missing.
    pub(crate) fn renewed(
        &self,
        config: &CertsConfig,
        now: Timestamp,
        permits: Permits,
    ) -> Result<Option<Self>, Error> {
        let mut next = self.clone();
        next.next.take_if(|ca| !ca.root.is_valid(now));
        if self.ca_is_valid(now) {
            if next.next.is_none() && self.roots[0].renew_at() <= now {
                next.next = Some(Ca::create(config, now)?);
            }
            let late = self.roots[0].overdue_at() <= now;
            if next.switch_is_due(now)
                && (permits.published || late)
                && let Some(ca) = next.next.take()
            {
                next = next.under(ca, config, now)?;
            } else if next.leaf_is_due(config, now) {
                next = next.with_new_leaf(config, now)?;
            }
        } else if permits.replace_ca {
            // nothing the current CA issues is accepted
            let ca = next.next.take().map_or_else(|| Ca::create(config, now), Ok)?;
            next = next.under(ca, config, now)?;
        }
        let current = next.roots[0].clone();
        next.roots.retain(|root| *root == current || !root.is_expired(now));
        next.server.drop_expired_issuers(now);
        Ok((next != *self).then_some(next))
    }

    /// A client certificate for kube-scheduler.
    pub fn client(&self, config: &CertsConfig, now: Timestamp) -> Result<Identity, Error> {
        let mut client = issue::leaf(Role::Client, config, now, &self.issuer()?, &self.roots[0])?;
        client.chain.extend_from_slice(self.server.issuers());
        Ok(client)
    }

    /// Whether kube-scheduler needs a new client certificate in place of `client`.
    pub(crate) fn client_is_due(&self, client: &Identity, now: Timestamp) -> bool {
        let leaf = client.leaf();
        leaf.is_due(now) || self.verify_client(leaf).is_err() || client.issuers() != self.server.issuers()
    }

    /// The CAs a client may come from.
    pub(crate) fn roots(&self) -> impl Iterator<Item = &Certificate> {
        self.roots.iter().chain(self.next.iter().map(|next| &next.root))
    }

    /// The CAs that are to be trusted at `now`. Those that have run out are left out, since TLS libraries do not look
    /// at the dates of a trust anchor.
    pub fn trusted(&self, now: Timestamp) -> Result<RootCertStore, Error> {
        Ok(store(self.roots().filter(|root| !root.is_expired(now)))?)
    }

    fn leaf_is_due(&self, config: &CertsConfig, now: Timestamp) -> bool {
        let leaf = self.server.leaf();
        leaf.is_due(now) || !config.dns_names.iter().all(|name| leaf.names.contains(&canonical(name)))
    }

    fn with_new_leaf(&self, config: &CertsConfig, now: Timestamp) -> Result<Self, Error> {
        let mut server = issue::leaf(Role::Server, config, now, &self.issuer()?, &self.roots[0])?;
        server.chain.extend_from_slice(self.server.issuers());
        Ok(Self { server, ..self.clone() })
    }

    /// With `ca` as the current CA, trusted beside the old ones and signed by the old one as well.
    fn under(&self, ca: Ca, config: &CertsConfig, now: Timestamp) -> Result<Self, Error> {
        let mut server = issue::leaf(Role::Server, config, now, &ca.issuer()?, &ca.root)?;
        server.chain.push(issue::ca(&ca.key.key()?, Some((&self.issuer()?, &self.roots[0])), config, now)?);
        server.chain.extend_from_slice(self.server.issuers());
        let roots = [ca.root].into_iter().chain(self.roots.iter().cloned()).collect();
        Ok(Self { roots, ca_key: ca.key, next: None, server })
    }

    fn issuer(&self) -> Result<Issuer<'static, Key>, Error> {
        issuer(&self.roots[0], &self.ca_key)
    }

    /// The leaf must come from the current CA. Judged at the start of its validity, so that only the chain counts.
    fn verify_server(&self) -> Result<(), Error> {
        verify_server(&self.server, [&self.roots[0]], self.server.leaf().not_before)
            .map_err(|error| Error::unusable(TLS_CERT, format!("not from the first CA in {CA_CERT}: {error}")))
    }

    fn verify_client(&self, leaf: &Certificate) -> Result<(), Error> {
        let verifier = client_verifier(store([&self.roots[0]])?)?;
        verifier.verify_client_cert(&leaf.der, &[], unix_time(leaf.not_before))?;
        Ok(())
    }
}

impl Ca {
    fn create(config: &CertsConfig, now: Timestamp) -> Result<Self, Error> {
        let key = Key::generate()?;
        Ok(Self { root: issue::ca(&key, None, config, now)?, key: key.pem() })
    }

    fn issuer(&self) -> Result<Issuer<'static, Key>, Error> {
        issuer(&self.root, &self.key)
    }
}

/// Whether who trusts `roots` accepts `server` at `at`, its names aside.
pub(crate) fn verify_server<'a>(
    server: &Identity,
    roots: impl IntoIterator<Item = &'a Certificate>,
    at: Timestamp,
) -> Result<(), rustls::Error> {
    let leaf = ParsedCertificate::try_from(&server.leaf().der)?;
    let issuers: Vec<_> = server.issuers().iter().map(|issuer| issuer.der.clone()).collect();
    let algorithms = provider().signature_verification_algorithms.all;
    rustls::client::verify_server_cert_signed_by_trust_anchor(
        &leaf,
        &store(roots)?,
        &issuers,
        unix_time(at),
        algorithms,
    )
}

fn issuer(root: &Certificate, key: &KeyPem) -> Result<Issuer<'static, Key>, Error> {
    Ok(Issuer::from_ca_cert_der(&root.der, key.key()?)?)
}

fn public_key(entry: &'static str, pem: &str) -> Result<Vec<u8>, Error> {
    let key = KeyPem::new(pem.to_owned()).key().map_err(|_| Error::unusable(entry, "not a PEM private key"))?;
    Ok(key.subject_public_key_info())
}

/// An IP address as it comes back out of a certificate; DNS names stay as they are.
fn canonical(name: &str) -> String {
    name.parse::<std::net::IpAddr>().map_or_else(|_| name.to_owned(), |address| address.to_string())
}
