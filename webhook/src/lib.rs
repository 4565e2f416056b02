//! The admission webhook: reviews in, verdicts out.
//!
//! One route per kind of review, each in the file that has its name. This crate knows the wire format of
//! `admission.k8s.io/v1` and nothing of volumes or backups: what to answer comes from [`Admission`], how long an
//! answer may take from [`WebhookConfig`].
//!
//! Two rules hold on every route. A review that we cannot judge – another kind than the route is for, an answer that
//! takes too long, a panic below – lets the request through, because without us Kubernetes would do the same. And
//! what we do not know in an object is never touched: a patch consists of single `add` operations, no object is
//! read into a typed form and written back.
//!
//! Panics inside a synchronous verdict and the size of bodies are the business of the listener that serves the router.

use std::{sync::Arc, time::Duration};

use axum::{Router, body::Bytes, extract::DefaultBodyLimit, extract::State, response::Response, routing::post};
use handoff_coordinator::verdicts::Admission;

mod affinity;
mod binding;
mod bounded;
mod create;
mod delete;
mod eviction;
mod observe;
mod patch;
mod pod;
mod review;
mod snapshot;
mod storage_last;
mod tier;
mod verdict;

pub use observe::{Hook, Observe, Outcome};
pub use tier::SchedulerTier;

use observe::Timer;

/// How long each kind of review may wait for its verdict, and what new pods are marked with. All waits are fail-open:
/// when the time is up the request is allowed and the work goes on in the background.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookConfig {
    /// Evictions: the checkpoint has to be written. Must stay below the webhook's `timeoutSeconds`.
    pub evict_budget: Duration,
    /// Evictions of the storage manager's pods: a first denial has to be written. Must stay below `timeoutSeconds`, too.
    pub storage_budget: Duration,
    /// Bindings: holds up one pod's binding goroutine in the scheduler.
    pub bind_budget: Duration,
    /// Marks for a scheduler that asks the extender.
    pub tier: SchedulerTier,
}

impl Default for WebhookConfig {
    fn default() -> Self {
        Self {
            evict_budget: Duration::from_secs(4),
            storage_budget: Duration::from_millis(1500),
            bind_budget: Duration::from_millis(20),
            tier: SchedulerTier::default(),
        }
    }
}

/// What every handler needs.
#[derive(Clone)]
pub(crate) struct Serving {
    pub(crate) admission: Arc<dyn Admission>,
    pub(crate) config: Arc<WebhookConfig>,
    observe: Arc<dyn Observe>,
}

/// The webhook's routes.
///
/// | path | review |
/// |---|---|
/// | `/mutate/pods` | `pods` CREATE |
/// | `/validate/pods-delete` | `pods` DELETE |
/// | `/validate/evictions` | `pods/eviction` CREATE |
/// | `/validate/storage-evictions` | the same for the storage manager's own pods: storage leaves last |
/// | `/validate/bindings` | `pods/binding` and `bindings` CREATE |
/// | `/validate/snapshots` | `snapshots.longhorn.io` DELETE |
///
/// A malformed body is answered with HTTP 400 and one line of text, everything else with HTTP 200 and a review.
pub fn router(admission: Arc<dyn Admission>, config: WebhookConfig, observe: Arc<dyn Observe>) -> Router {
    Router::new()
        .route("/mutate/pods", post(pods))
        .route("/validate/pods-delete", post(pods_delete))
        .route("/validate/evictions", post(evictions))
        .route("/validate/storage-evictions", post(storage_evictions))
        .route("/validate/bindings", post(bindings))
        .route("/validate/snapshots", post(snapshots))
        // The listener limits bodies; axum's own limit of 2 MB would turn away large objects without a word.
        .layer(DefaultBodyLimit::disable())
        .with_state(Serving { admission, config: Arc::new(config), observe })
}

async fn pods(State(serving): State<Serving>, body: Bytes) -> Response {
    let timer = Timer::start(&*serving.observe, Hook::PodCreate);
    match review::read(&body, create::is_ours, |request| create::judge(&serving, request)) {
        Ok((head, verdict)) => timer.answer(&head, verdict),
        Err(malformed) => timer.malformed(&malformed),
    }
}

async fn pods_delete(State(serving): State<Serving>, body: Bytes) -> Response {
    let timer = Timer::start(&*serving.observe, Hook::PodDelete);
    match review::read(&body, delete::is_ours, delete::ask) {
        Ok((head, Ok(question))) => timer.answer(&head, delete::judge(&serving, question)),
        Ok((head, Err(verdict))) => timer.answer(&head, verdict),
        Err(malformed) => timer.malformed(&malformed),
    }
}

async fn evictions(State(serving): State<Serving>, body: Bytes) -> Response {
    let timer = Timer::start(&*serving.observe, Hook::Eviction);
    match review::read(&body, eviction::is_ours, eviction::ask) {
        Ok((head, Ok(question))) => timer.answer(&head, eviction::judge(&serving, question).await),
        Ok((head, Err(verdict))) => timer.answer(&head, verdict),
        Err(malformed) => timer.malformed(&malformed),
    }
}

async fn storage_evictions(State(serving): State<Serving>, body: Bytes) -> Response {
    let timer = Timer::start(&*serving.observe, Hook::StorageEviction);
    match review::read(&body, eviction::is_ours, eviction::ask) {
        Ok((head, Ok(question))) => timer.answer(&head, storage_last::judge(&serving, question).await),
        Ok((head, Err(verdict))) => timer.answer(&head, verdict),
        Err(malformed) => timer.malformed(&malformed),
    }
}

async fn bindings(State(serving): State<Serving>, body: Bytes) -> Response {
    let timer = Timer::start(&*serving.observe, Hook::Binding);
    match review::read(&body, binding::is_ours, binding::ask) {
        Ok((head, Ok(question))) => timer.answer(&head, binding::judge(&serving, question).await),
        Ok((head, Err(verdict))) => timer.answer(&head, verdict),
        Err(malformed) => timer.malformed(&malformed),
    }
}

async fn snapshots(State(serving): State<Serving>, body: Bytes) -> Response {
    let timer = Timer::start(&*serving.observe, Hook::Snapshot);
    match review::read(&body, snapshot::is_ours, |request| snapshot::judge(&*serving.admission, request)) {
        Ok((head, verdict)) => timer.answer(&head, verdict),
        Err(malformed) => timer.malformed(&malformed),
    }
}
