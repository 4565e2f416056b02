//! The leader lease. Every replica serves; only the holder writes outward. Rules as in client-go's leaderelection:
//! a standby judges expiry by its own clock, from the moment it saw the record change; the holder stops writing well
//! before others may take over. The record is replaced under its resourceVersion, so two takers cannot both win.

use crate::clock::Clock;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{Api, Client, api::PostParams};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{sync::watch, time::Instant};

/// How long a holder that is silent keeps the lease. Moves in progress stand still for this long when the holder is
/// killed, so it is short; a renewal is one small write.
const DURATION: Duration = Duration::from_secs(6);
/// How often the holder renews and a standby looks.
const RETRY: Duration = Duration::from_secs(1);
/// The holder stops writing when its last renewal is older than this: less than [`DURATION`], so that it has stopped
/// before another one starts.
const DEADLINE: Duration = Duration::from_secs(4);

/// Whether we lead.
#[derive(Clone, Debug, Default)]
pub struct Leadership {
    renewed: Arc<Mutex<Option<Instant>>>,
}

impl Leadership {
    /// We hold the lease, and renewed it recently enough to be sure.
    pub fn is_held(&self) -> bool {
        self.last().is_some_and(|at| at.elapsed() < DEADLINE)
    }

    /// That of a replica that leads.
    #[cfg(test)]
    pub(crate) fn held() -> Self {
        Self { renewed: Arc::new(Mutex::new(Some(Instant::now()))) }
    }

    fn last(&self) -> Option<Instant> {
        *self.renewed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, at: Option<Instant>) {
        *self.renewed.lock().unwrap_or_else(PoisonError::into_inner) = at;
    }
}

/// Competes for a lease.
pub struct Elector {
    api: Api<Lease>,
    name: String,
    identity: String,
    leadership: Leadership,
    clock: Clock,
    /// The record as last seen to change, and when.
    seen: Option<(String, Instant)>,
}

impl Elector {
    /// `identity` must differ between replicas (the pod's name).
    pub fn new(client: Client, namespace: &str, name: &str, identity: &str, clock: Clock) -> Self {
        let api = Api::namespaced(client, namespace);
        let leadership = Leadership::default();
        Self { api, name: name.to_owned(), identity: identity.to_owned(), leadership, clock, seen: None }
    }

    /// Shared view of whether we lead.
    pub fn leadership(&self) -> Leadership {
        self.leadership.clone()
    }

    /// Competes until `stop` is set, then gives the lease back so that another replica takes over at once.
    /// `leading_now` is told each time leadership is won or lost.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>, leading_now: watch::Sender<bool>) {
        let mut leading = false;
        while !*stop.borrow() {
            let held = self.try_hold().await;
            if held != leading {
                tracing::info!(lease = self.name, identity = self.identity, leading = held, "leadership changed");
                leading = held;
                leading_now.send_replace(held);
            }
            let _ = tokio::time::timeout(RETRY, stop.changed()).await;
        }
        if leading {
            self.leadership.set(None);
            self.release().await;
        }
    }

    /// One round: renew, take over, or wait. Errors count as "not renewed"; the deadline decides.
    async fn try_hold(&mut self) -> bool {
        let before = Instant::now();
        match tokio::time::timeout(DEADLINE / 2, self.round()).await {
            Ok(Ok(true)) => self.leadership.set(Some(before)),
            Ok(Ok(false)) => self.leadership.set(None),
            Ok(Err(error)) => tracing::warn!(lease = self.name, %error, "lease not renewed"),
            Err(_) => tracing::warn!(lease = self.name, "lease not renewed: the API server does not answer"),
        }
        self.leadership.is_held()
    }

    async fn round(&mut self) -> Result<bool, kube::Error> {
        let Some(mut lease) = self.api.get_opt(&self.name).await? else {
            let mut lease = Lease::default();
            lease.metadata.name = Some(self.name.clone());
            lease.spec = Some(self.record(0));
            return took(self.api.create(&PostParams::default(), &lease).await);
        };
        let spec = lease.spec.take().unwrap_or_default();
        let holder = spec.holder_identity.clone().unwrap_or_default();
        let transitions = spec.lease_transitions.unwrap_or(0);
        if holder == self.identity {
            lease.spec = Some(LeaseSpec { acquire_time: spec.acquire_time, ..self.record(transitions) });
        } else if holder.is_empty() || self.is_expired(&spec) {
            lease.spec = Some(self.record(transitions + 1));
        } else {
            return Ok(false);
        }
        took(self.api.replace(&self.name, &PostParams::default(), &lease).await)
    }

    /// The record has not changed for a whole lease duration, by our clock.
    fn is_expired(&mut self, spec: &LeaseSpec) -> bool {
        let record = format!("{:?}{:?}", spec.holder_identity, spec.renew_time);
        match &self.seen {
            Some((seen, at)) if *seen == record => at.elapsed() >= DURATION,
            _ => {
                self.seen = Some((record, Instant::now()));
                false
            }
        }
    }

    fn record(&self, transitions: i32) -> LeaseSpec {
        let now = Some(MicroTime(self.clock.now()));
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: now.clone(),
            renew_time: now,
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }

    async fn release(&self) {
        let released = async {
            let mut lease = self.api.get(&self.name).await?;
            if let Some(spec) = lease.spec.as_mut().filter(|s| s.holder_identity.as_deref() == Some(&self.identity)) {
                spec.holder_identity = Some(String::new());
                self.api.replace(&self.name, &PostParams::default(), &lease).await?;
            }
            Ok::<_, kube::Error>(())
        };
        if let Err(error) = released.await {
            tracing::warn!(lease = self.name, %error, "lease not given back; it lapses by itself");
        }
    }
}

/// Losing a race is no error.
fn took(answer: Result<Lease, kube::Error>) -> Result<bool, kube::Error> {
    match answer {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}
