//! What each replica does with certificates as long as it runs. Every replica follows its source; the one that leads also
//! renews what is ours, and looks after the `caBundle`.
//!
//! Secrets and files are read on a timer, not watched: a few small reads a minute, no right to list Secrets is needed, and
//! a link that a kubelet turns over is not missed.

use crate::{
    BundleState, CertsConfig, Error, Material, Serving, Source, WebhookNames,
    authority::Permits,
    bundle::{check, publish},
    files,
    identity::External,
    secret::{ensure_scheduler, read, read_external, settle},
};
use jiff::Timestamp;
use kube::Client;
use std::{future::Future, path::PathBuf, time::Duration};
use tokio::{
    sync::watch,
    task::spawn_blocking,
    time::{Instant, sleep_until, timeout},
};

/// How often a replica looks. A `caBundle` that someone emptied is back within this time.
const EVERY: Duration = Duration::from_secs(5);
/// How often a replica looks that has no certificate yet.
const EVERY_AT_START: Duration = Duration::from_secs(1);
/// What one look may take.
const LIMIT: Duration = Duration::from_secs(30);

/// How long a CA of ours must have been outside its dates before it is replaced. Nobody who trusts only that CA can
/// connect after that, so a clock that is wrong for a moment must not be the reason.
pub const PATIENCE: Duration = Duration::from_mins(5);

/// Keeps one replica's certificates.
#[derive(Clone)]
pub struct Keeper {
    client: Client,
    source: Source,
    config: CertsConfig,
    webhooks: WebhookNames,
    serving: Serving,
    /// When the CA was first seen outside its dates, by the monotonic clock.
    ca_not_valid_since: Option<Duration>,
}

impl Keeper {
    /// Keeps `serving` supplied from `source`. Fails with [`Error::Config`] if a setting cannot work.
    pub fn new(
        client: Client,
        source: Source,
        config: CertsConfig,
        webhooks: WebhookNames,
        serving: Serving,
    ) -> Result<Self, Error> {
        source.validate()?;
        config.validate()?;
        Ok(Self { client, source, config, webhooks, serving, ca_not_valid_since: None })
    }

    /// Runs for as long as it is polled: looks every 5 s, every second until there is a certificate. When `leading`
    /// turns true the next look is at once; when it turns false, writing stops where it is. A dropped sender counts as
    /// not leading.
    pub async fn run(mut self, mut leading: watch::Receiver<bool>) {
        loop {
            let started = Instant::now();
            let leads = *leading.borrow_and_update() && leading.has_changed().is_ok();
            if leads {
                while_leading(&mut leading, self.look(true)).await;
            } else {
                self.look(false).await;
            }
            let every = if self.serving.status().not_after.is_some() { EVERY } else { EVERY_AT_START };
            tokio::select! {
                () = sleep_until(started + every) => {}
                Ok(()) = leading.changed() => {}
            }
        }
    }

    /// One look. Does as much as can be done, takes note of what could not, says it in the log and returns it.
    /// `leads`: this replica holds the lease, and so may write.
    pub async fn look(&mut self, leads: bool) -> Vec<Error> {
        let failures = timeout(LIMIT, self.pass(leads)).await;
        let mut failures = failures.unwrap_or_else(|_| vec![Error::Slow { seconds: LIMIT.as_secs() }]);
        failures.extend(self.serving.overdue().map(|at| Error::Overdue { at }));
        failures.iter().for_each(report);
        self.serving.note(&failures);
        failures
    }

    async fn pass(&mut self, leads: bool) -> Vec<Error> {
        match (&self.source, leads) {
            (Source::Own, true) => self.lead().await,
            (Source::Own, false) => Vec::from_iter(self.follow().await.err()),
            (Source::CertManager, _) => {
                let read = read_external(&self.client, &self.config, &self.config.dns_names[0]).await;
                self.serve_external(read, true, leads).await
            }
            (Source::Files(dir), _) => {
                let read = self.read_files(dir.clone()).await;
                self.serve_external(read, false, leads).await
            }
        }
    }

    /// Serves with what the Secret holds now.
    async fn follow(&self) -> Result<(), Error> {
        let now = self.serving.clock().now();
        self.take_over(&read(&self.client, &self.config).await?, now)
    }

    /// Renews what is due in the Secret, serves with it, keeps kube-scheduler's Secret and the `caBundle`s in step, and
    /// then, when all know of an announced CA, lets it issue.
    async fn lead(&mut self) -> Vec<Error> {
        let now = self.serving.clock().now();
        let material = match self.renew(now, false).await {
            Ok(material) => material,
            Err(error) => return vec![error],
        };
        let mut failures = Vec::new();
        if !material.ca_is_valid(now) {
            failures.push(Error::CaNotValid { now });
        }
        failures.extend(self.supply(&material, now).await);
        let unpublished = self.publish(&material).await;
        if unpublished.is_empty() && material.switch_is_due(now) {
            match self.renew(now, true).await {
                Ok(material) => failures.extend(self.supply(&material, now).await),
                Err(error) => failures.push(error),
            }
        }
        failures.extend(unpublished);
        failures
    }

    async fn renew(&mut self, now: Timestamp, published: bool) -> Result<Material, Error> {
        let (at, since) = (self.serving.clock().monotonic(), &mut self.ca_not_valid_since);
        let permits = |held: &Material| {
            let replace_ca = if held.ca_is_valid(now) {
                *since = None;
                false
            } else {
                at.saturating_sub(*since.get_or_insert(at)) >= PATIENCE
            };
            Permits { published, replace_ca }
        };
        settle(&self.client, &self.config, now, permits).await
    }

    /// Serves with `material`, and gives kube-scheduler what fits it.
    async fn supply(&self, material: &Material, now: Timestamp) -> Vec<Error> {
        let mut failures = Vec::from_iter(self.take_over(material, now).err());
        failures.extend(ensure_scheduler(&self.client, &self.config, material, now).await.err());
        failures
    }

    async fn publish(&self, material: &Material) -> Vec<Error> {
        let mut failures = Vec::new();
        for (name, state) in publish(&self.client, &self.webhooks, &material.bundle_pem()).await {
            match state {
                Ok(BundleState::Absent) => {
                    tracing::warn!(name, "webhook configuration not found; no review reaches us");
                }
                Ok(BundleState::Current | BundleState::Written) => {}
                Err(error) => failures.push(error),
            }
        }
        failures
    }

    fn take_over(&self, material: &Material, now: Timestamp) -> Result<(), Error> {
        self.serving.load(material, now).map(|changed| self.announce(changed))
    }

    fn announce(&self, changed: bool) {
        if changed {
            let not_after = self.serving.status().not_after.map(|at| at.to_string());
            tracing::info!(not_after, source = %self.source, "serving with a new certificate");
        }
    }

    async fn read_files(&self, dir: PathBuf) -> Result<External, Error> {
        let (at, name) = (dir.clone(), self.config.dns_names[0].clone());
        let lost = |error: tokio::task::JoinError| Error::Directory {
            path: dir,
            source: Box::new(Error::unusable("directory", error.to_string())),
        };
        spawn_blocking(move || files::load(&at, &name)).await.map_err(lost)?
    }

    async fn serve_external(&self, read: Result<External, Error>, must: bool, leads: bool) -> Vec<Error> {
        let external = match read {
            Ok(external) => external,
            Err(error) => return vec![error],
        };
        let now = self.serving.clock().now();
        let loaded = self.serving.load_external(&external, now).map(|changed| self.announce(changed));
        let mut failures = Vec::from_iter(loaded.err());
        if leads {
            failures.extend(check(&self.client, &self.webhooks, &external.server, must, now).await);
        }
        failures
    }
}

/// Does `pass`, unless this replica stops leading before it is done.
async fn while_leading(leading: &mut watch::Receiver<bool>, pass: impl Future<Output = Vec<Error>>) {
    tokio::select! {
        biased;
        _ = leading.wait_for(|leads| !leads) => {}
        _ = pass => {}
    }
}

fn report(error: &Error) {
    if error.is_transient() {
        tracing::warn!(%error, "certificates could not be looked after, trying again");
    } else {
        tracing::error!(%error, "certificates could not be looked after; this replica goes on with what it has");
    }
}
