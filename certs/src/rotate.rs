//! What each replica does with certificates as long as it runs. Every replica follows the Secret; the one that leads
//! renews, and keeps the `caBundle` right.
//!
//! The objects are read on a timer, not watched: a handful of `get`s a minute, and no right to list Secrets is needed.

use crate::{
    BundleState, CertsConfig, Error, Material, Serving, WebhookNames,
    bundle::publish,
    secret::{ensure_scheduler, read, renew},
};
use jiff::Timestamp;
use kube::Client;
use std::{future::Future, time::Duration};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};

/// How often the leader looks; a `caBundle` that someone emptied is back within this time.
const LEAD_EVERY: Duration = Duration::from_secs(10);
/// How often the others look.
const FOLLOW_EVERY: Duration = Duration::from_secs(30);
/// What one look may take.
const LIMIT: Duration = Duration::from_secs(30);

/// Serves with what the Secret holds now. On an error the replica goes on with the certificate it has.
pub async fn follow(client: &Client, config: &CertsConfig, serving: &Serving, now: Timestamp) -> Result<(), Error> {
    take_over(serving, &read(client, config).await?, now)
}

/// For the leading replica only: renews what is due in the Secret, serves with it, keeps kube-scheduler's Secret and
/// the `caBundle` of `webhooks` in step. Does as much as can be done and returns what could not; empty if all is well.
pub async fn maintain(
    client: &Client,
    config: &CertsConfig,
    webhooks: &WebhookNames,
    serving: &Serving,
    now: Timestamp,
) -> Vec<Error> {
    let material = match renew(client, config, now).await {
        Ok(material) => material,
        Err(error) => return vec![error],
    };
    let mut failures = Vec::new();
    failures.extend(take_over(serving, &material, now).err());
    failures.extend(ensure_scheduler(client, config, &material, now).await.err());
    for (name, state) in publish(client, webhooks, &material.ca_pem()).await {
        match state {
            Ok(BundleState::Absent) => tracing::warn!(name, "webhook configuration not found; no review reaches us"),
            Ok(BundleState::Current | BundleState::Written) => {}
            Err(error) => failures.push(error),
        }
    }
    failures
}

/// Runs for as long as it is polled, in every replica. While `leading` is true it does what [`maintain`] does every
/// 10 s, else what [`follow`] does every 30 s. When `leading` turns true the first look is at once; when it turns false,
/// writing stops where it is. A dropped sender counts as not leading.
pub async fn run(
    client: Client,
    config: CertsConfig,
    webhooks: WebhookNames,
    serving: Serving,
    mut leading: watch::Receiver<bool>,
) {
    loop {
        let started = Instant::now();
        let leads = *leading.borrow_and_update() && leading.has_changed().is_ok();
        let (failures, every) = if leads {
            let pass = Box::pin(maintain(&client, &config, &webhooks, &serving, Timestamp::now()));
            (while_leading(&mut leading, limited(pass)).await, LEAD_EVERY)
        } else {
            let pass = async { Vec::from_iter(follow(&client, &config, &serving, Timestamp::now()).await.err()) };
            (limited(pass).await, FOLLOW_EVERY)
        };
        failures.iter().for_each(report);
        tokio::select! {
            () = sleep_until(started + every) => {}
            Ok(()) = leading.changed() => {}
        }
    }
}

/// The result of `pass`, or nothing if this replica stops leading before it is done.
async fn while_leading(leading: &mut watch::Receiver<bool>, pass: impl Future<Output = Vec<Error>>) -> Vec<Error> {
    tokio::select! {
        biased;
        _ = leading.wait_for(|leads| !leads) => Vec::new(),
        failures = pass => failures,
    }
}

async fn limited(pass: impl Future<Output = Vec<Error>>) -> Vec<Error> {
    timeout(LIMIT, pass).await.unwrap_or_else(|_| vec![Error::Slow { seconds: LIMIT.as_secs() }])
}

fn take_over(serving: &Serving, material: &Material, now: Timestamp) -> Result<(), Error> {
    let not_after = material.not_after();
    if serving.load(material, now)? {
        tracing::info!(%not_after, "serving with a new certificate");
    }
    if material.is_overdue(now) {
        tracing::error!(%not_after, "the certificate is near its end and no leading replica has renewed it");
    }
    Ok(())
}

fn report(error: &Error) {
    if error.is_transient() {
        tracing::warn!(%error, "certificates could not be looked after, trying again");
    } else {
        tracing::error!(%error, "certificates could not be looked after; this replica goes on with what it has");
    }
}
