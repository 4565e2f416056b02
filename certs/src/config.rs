//! Settings.

use crate::Error;
use rustls::pki_types::ServerName;

/// Suffix of the Secret for kube-scheduler.
const SCHEDULER_SUFFIX: &str = "-scheduler";
const LONGEST_NAME: usize = 253;
const LONGEST_LIFE_DAYS: u32 = 36_500;

/// Where certificates are kept, for which names, and how long they live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertsConfig {
    /// Namespace of both Secrets.
    pub namespace: String,
    /// Secret with CA and server certificate; `<secret_name>-scheduler` holds kube-scheduler's client certificate.
    pub secret_name: String,
    /// Names the server certificate is for: DNS names such as `handoff.handoff-system.svc`, or IP addresses. The first
    /// is the one API servers ask for: a certificate that someone else made must be for it.
    pub dns_names: Vec<String>,
    /// Life of the CA in days.
    pub ca_life_days: u32,
    /// Life of the server certificate in days, at most a third of the CA's.
    pub leaf_life_days: u32,
    /// Life of kube-scheduler's client certificate in days, at most a third of the CA's.
    pub client_life_days: u32,
}

impl CertsConfig {
    /// Settings with the default lives: CA 10 years, server 90 days, client 1 year.
    pub fn new(namespace: impl Into<String>, secret_name: impl Into<String>, dns_names: Vec<String>) -> Self {
        Self {
            namespace: namespace.into(),
            secret_name: secret_name.into(),
            dns_names,
            ca_life_days: 3650,
            leaf_life_days: 90,
            client_life_days: 365,
        }
    }

    /// Name of the Secret that kube-scheduler's client certificate is kept in.
    pub fn scheduler_secret_name(&self) -> String {
        format!("{}{SCHEDULER_SUFFIX}", self.secret_name)
    }

    /// Checks every field. Fails with [`Error::Config`], which names the first one that cannot work.
    pub fn validate(&self) -> Result<(), Error> {
        object_name("namespace", &self.namespace, 63)?;
        object_name("secret_name", &self.secret_name, LONGEST_NAME - SCHEDULER_SUFFIX.len())?;
        if self.dns_names.is_empty() {
            return Err(invalid("dns_names", "", "at least one name is needed"));
        }
        for name in &self.dns_names {
            ServerName::try_from(name.as_str())
                .map_err(|_| invalid("dns_names", name, "neither a DNS name nor an IP address"))?;
        }
        if !(1..=LONGEST_LIFE_DAYS).contains(&self.ca_life_days) {
            return Err(invalid(
                "ca_life_days",
                self.ca_life_days.to_string(),
                format!("must be 1 to {LONGEST_LIFE_DAYS}"),
            ));
        }
        leaf_life("leaf_life_days", self.leaf_life_days, self.ca_life_days)?;
        leaf_life("client_life_days", self.client_life_days, self.ca_life_days)
    }
}

fn object_name(field: &'static str, name: &str, longest: usize) -> Result<(), Error> {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    let fits = name.len() <= longest && edge(name.chars().next()) && edge(name.chars().last());
    if fits && name.chars().all(inner) {
        return Ok(());
    }
    Err(invalid(field, name, format!("not a Kubernetes name of at most {longest} characters")))
}

/// A CA is replaced at two thirds of its life; what it has issued by then must be able to run out under it.
fn leaf_life(field: &'static str, days: u32, ca_days: u32) -> Result<(), Error> {
    let longest = ca_days / 3;
    if (1..=longest).contains(&days) {
        return Ok(());
    }
    let problem = format!("must be 1 to {longest}, a third of ca_life_days {ca_days}");
    Err(invalid(field, days.to_string(), problem))
}

fn invalid(field: &'static str, value: impl Into<String>, problem: impl Into<String>) -> Error {
    Error::Config { field, value: value.into(), problem: problem.into() }
}
