//! Figures of the serving side, and the three plain pages: /healthz, /readyz, /metrics.

use axum::{Router, extract::State, http::StatusCode, routing::get};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{family::Family, histogram::Histogram},
    registry::Registry,
};
use std::sync::Arc;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReviewLabels {
    hook: &'static str,
    outcome: &'static str,
}

/// Time taken by reviews and extender calls, by kind and outcome.
pub struct Reviews {
    seconds: Family<ReviewLabels, Histogram>,
}

impl Reviews {
    /// Registers the figure.
    pub fn new(registry: &mut Registry) -> Self {
        let buckets = || Histogram::new([5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.05, 0.1, 0.5, 1., 5.]);
        let seconds = Family::new_with_constructor(buckets as fn() -> Histogram);
        registry.register("handoff_review_seconds", "Body complete to answer complete", seconds.clone());
        Self { seconds }
    }

    fn note(&self, hook: &'static str, outcome: &'static str, seconds: f64) {
        self.seconds.get_or_create(&ReviewLabels { hook, outcome }).observe(seconds);
    }
}

impl handoff_webhook::Observe for Reviews {
    fn review(&self, hook: handoff_webhook::Hook, outcome: handoff_webhook::Outcome, seconds: f64) {
        self.note(hook.as_str(), outcome.as_str(), seconds);
    }
}

impl handoff_extender::Observe for Reviews {
    fn call(&self, verb: handoff_extender::Verb, outcome: handoff_extender::Outcome, seconds: f64) {
        self.note(verb.as_str(), outcome.as_str(), seconds);
    }
}

/// Names of what is not ready yet.
pub type Missing = Arc<dyn Fn() -> Vec<&'static str> + Send + Sync>;

/// What the pages show.
#[derive(Clone)]
pub struct Pages {
    /// All figures.
    pub registry: Arc<Registry>,
    /// What is not ready yet.
    pub missing: Missing,
}

/// The three pages.
pub fn router(pages: Pages) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(pages)
}

async fn ready(State(pages): State<Pages>) -> (StatusCode, String) {
    let missing = (pages.missing)();
    if missing.is_empty() {
        return (StatusCode::OK, "ready\n".to_owned());
    }
    (StatusCode::SERVICE_UNAVAILABLE, format!("waiting for the first list of: {}\n", missing.join(", ")))
}

async fn metrics(State(pages): State<Pages>) -> (StatusCode, String) {
    let mut text = String::new();
    match encode(&mut text, &pages.registry) {
        Ok(()) => (StatusCode::OK, text),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("cannot write the figures: {error}\n")),
    }
}
