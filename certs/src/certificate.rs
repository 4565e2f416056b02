//! One certificate as read from PEM: its text, its DER and the few facts decisions need.

use crate::Error;
use jiff::Timestamp;
use rustls::pki_types::{CertificateDer, UnixTime, pem::PemObject};
use std::{fmt, net::IpAddr, time::Duration};
use x509_parser::{extensions::GeneralName, prelude::X509Certificate};

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Certificate {
    pub pem: String,
    pub der: CertificateDer<'static>,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    /// DNS names and IP addresses.
    pub names: Vec<String>,
    pub is_ca: bool,
    /// Subject public key info, DER.
    pub public_key: Vec<u8>,
}

impl Certificate {
    /// Reads one PEM block; `entry` is where it stands in the Secret.
    pub fn parse(entry: &'static str, pem: &str) -> Result<Self, Error> {
        let der = CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|error| Error::unusable(entry, format!("not a PEM certificate: {error}")))?;
        Self::from_der(entry, pem.to_owned(), der)
    }

    fn from_der(entry: &'static str, pem: String, der: CertificateDer<'static>) -> Result<Self, Error> {
        let (_, read) = x509_parser::parse_x509_certificate(&der)
            .map_err(|error| Error::unusable(entry, format!("not an X.509 certificate: {error}")))?;
        let not_before = timestamp(entry, read.validity().not_before.timestamp())?;
        let not_after = timestamp(entry, read.validity().not_after.timestamp())?;
        let names = names(entry, &read)?;
        let is_ca = read.is_ca();
        let public_key = read.public_key().raw.to_vec();
        Ok(Self { pem, der, not_before, not_after, names, is_ca, public_key })
    }

    /// Two thirds of its life: the moment to replace it, late enough to be rare, early enough to fail for weeks.
    pub fn renew_at(&self) -> Timestamp {
        self.after(2, 3)
    }

    /// Five sixths of its life: by then it should have been replaced long ago.
    pub fn overdue_at(&self) -> Timestamp {
        self.after(5, 6)
    }

    /// Whether it is to be replaced at `now`. One that begins in the future was made while a clock was wrong, and is
    /// accepted by nobody until then.
    pub fn is_due(&self, now: Timestamp) -> bool {
        self.renew_at() <= now || now < self.not_before
    }

    pub fn is_valid(&self, now: Timestamp) -> bool {
        self.not_before <= now && !self.is_expired(now)
    }

    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.not_after <= now
    }

    fn after(&self, part: i64, of: i64) -> Timestamp {
        let (start, end) = (self.not_before.as_second(), self.not_after.as_second());
        Timestamp::from_second(start + (end - start) / of * part).unwrap_or(self.not_after)
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("names", &self.names)
            .field("not_before", &self.not_before)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// Reads a concatenation of PEM certificates, at least one. Text around the blocks is ignored.
pub(crate) fn parse_all(entry: &'static str, text: &str) -> Result<Vec<Certificate>, Error> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find(BEGIN) {
        let block = &rest[start..];
        let end = block.find(END).ok_or_else(|| Error::unusable(entry, "a certificate has no end line"))? + END.len();
        found.push(Certificate::parse(entry, &format!("{}\n", &block[..end]))?);
        rest = &block[end..];
    }
    if found.is_empty() {
        return Err(Error::unusable(entry, "holds no PEM certificate"));
    }
    Ok(found)
}

/// The concatenation [`parse_all`] reads.
pub(crate) fn to_pem<'a>(certificates: impl IntoIterator<Item = &'a Certificate>) -> String {
    certificates.into_iter().map(|certificate| certificate.pem.as_str()).collect()
}

/// The same moment as rustls wants it; times before 1970 count as 1970.
pub(crate) fn unix_time(at: Timestamp) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(at.as_second()).unwrap_or(0)))
}

fn timestamp(entry: &'static str, second: i64) -> Result<Timestamp, Error> {
    Timestamp::from_second(second).map_err(|error| Error::unusable(entry, error.to_string()))
}

fn names(entry: &'static str, read: &X509Certificate<'_>) -> Result<Vec<String>, Error> {
    let extension = read.subject_alternative_name().map_err(|error| Error::unusable(entry, error.to_string()))?;
    let names = extension.map_or(&[][..], |extension| &extension.value.general_names);
    Ok(names.iter().filter_map(name).collect())
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => address(bytes).map(|address| address.to_string()),
        _ => None,
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}
