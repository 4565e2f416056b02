//! What one replica serves with, and how it stands with that.

use crate::{
    Clock, Error, Material, SystemClock,
    certificate::Certificate,
    identity::{External, Identity},
    issue::store,
    resolver::{SwapResolver, SwapRoots, Trusted},
};
use jiff::Timestamp;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What this replica serves with. Clones share the same certificate and CAs.
#[derive(Clone, Debug)]
pub struct Serving {
    /// The server certificate.
    pub resolver: Arc<SwapResolver>,
    /// The CAs of clients.
    pub roots: Arc<SwapRoots>,
    clock: Arc<dyn Clock>,
    status: Arc<Mutex<Status>>,
}

/// How a replica stands with its certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// End of the server certificate in use; `None` while there is none.
    pub not_after: Option<Timestamp>,
    /// The first moment at which one of the trusted CAs runs out.
    pub ca_not_after: Option<Timestamp>,
    /// Server certificates taken over since the start.
    pub changes: u64,
    /// Things that failed since the start.
    pub errors: u64,
    /// What failed at the last look; `None` if nothing did.
    pub failing: Option<String>,
    /// From when on the server certificate in use should have been renewed long ago.
    overdue_at: Option<Timestamp>,
}

impl Default for Serving {
    fn default() -> Self {
        Self::new(Arc::new(SystemClock::default()))
    }
}

impl Serving {
    /// Nothing to serve with yet; certificates are judged by `clock`.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let roots = Arc::new(SwapRoots::new(clock.clone()));
        Self { resolver: Arc::default(), roots, clock, status: Arc::default() }
    }

    /// The clock certificates are judged by.
    pub fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    /// Takes `material` over: from the next handshake on, its certificate is presented and its CAs are trusted. True if
    /// the server certificate is another one than before. On an error, also that it is not valid now, all stays as it
    /// was.
    pub fn load(&self, material: &Material, now: Timestamp) -> Result<bool, Error> {
        self.take(material.server(), &material.roots().collect::<Vec<_>>(), now)
    }

    pub(crate) fn load_external(&self, external: &External, now: Timestamp) -> Result<bool, Error> {
        self.take(&external.server, &external.roots.iter().collect::<Vec<_>>(), now)
    }

    fn take(&self, server: &Identity, roots: &[&Certificate], now: Timestamp) -> Result<bool, Error> {
        let leaf = server.leaf();
        if leaf.is_expired(now) {
            return Err(Error::Expired { at: leaf.not_after });
        }
        if !leaf.is_valid(now) {
            return Err(Error::NotYetValid { at: leaf.not_before, now });
        }
        let key = server.certified_key()?;
        // TLS libraries do not look at the dates of a trust anchor
        let valid: Vec<_> = roots.iter().copied().filter(|root| !root.is_expired(now)).collect();
        let ca_not_after = valid.iter().map(|root| root.not_after).min();
        let trusted = Trusted::new(store(valid)?)?;
        self.roots.swap(trusted);
        let changed = self.resolver.swap(key);
        let mut status = self.lock();
        status.not_after = Some(leaf.not_after);
        status.overdue_at = Some(leaf.overdue_at());
        status.ca_not_after = ca_not_after;
        status.changes += u64::from(changed);
        Ok(changed)
    }

    /// How it stands.
    pub fn status(&self) -> Status {
        self.lock().clone()
    }

    /// Whether there is a certificate, and it has not run out: what readiness asks. A certificate that could not be
    /// renewed does not count against it as long as the one in use is good.
    pub fn is_usable(&self) -> bool {
        let now = self.clock.now();
        self.lock().not_after.is_some_and(|end| now < end)
    }

    /// End of the certificate in use, if that should have been renewed long ago.
    pub(crate) fn overdue(&self) -> Option<Timestamp> {
        let (now, status) = (self.clock.now(), self.lock());
        status.overdue_at.filter(|at| *at <= now).and(status.not_after)
    }

    /// Notes the outcome of one look after the certificates.
    pub(crate) fn note(&self, failures: &[Error]) {
        let mut status = self.lock();
        status.errors += failures.len() as u64;
        status.failing = failures.first().map(ToString::to_string);
    }

    fn lock(&self) -> MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
