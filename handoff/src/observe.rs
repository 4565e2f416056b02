//! Figures of the serving side, and the three plain pages: /healthz, /readyz, /metrics.

use crate::clock::ApiClock;
use axum::{Router, extract::State, http::StatusCode, routing::get};
use handoff_certs::Serving;
use jiff::Timestamp;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, text::encode},
    metrics::{
        counter::ConstCounter,
        family::Family,
        gauge::{ConstGauge, Gauge},
        histogram::Histogram,
    },
    registry::Registry,
};
use std::{fmt, sync::Arc};

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

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ListenerLabels {
    listener: &'static str,
}

/// Registers the open connections of each listener.
pub fn connections(registry: &mut Registry) -> impl Fn(&'static str) -> Gauge + use<> {
    let open = Family::<ListenerLabels, Gauge>::default();
    registry.register("handoff_connections", "Open connections, by listener", open.clone());
    move |listener| open.get_or_create(&ListenerLabels { listener }).clone()
}

/// How it stands with the certificates, looked up when someone asks.
#[derive(Debug)]
pub struct Certificates {
    serving: Serving,
    clock: Arc<ApiClock>,
}

impl Certificates {
    /// Of what this replica serves with, and the clock it is judged by.
    pub fn new(serving: Serving, clock: Arc<ApiClock>) -> Self {
        Self { serving, clock }
    }
}

impl Collector for Certificates {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let status = self.serving.status();
        let mut put = |name: &str, help: &str, metric: &dyn EncodeMetric| {
            metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
        };
        let time = |at: Option<Timestamp>| ConstGauge::new(at.map_or(0, Timestamp::as_second));
        put(
            "handoff_certificate_not_after_seconds",
            "End of the server certificate in use, Unix time; 0 without one",
            &time(status.not_after),
        )?;
        put(
            "handoff_certificate_ca_not_after_seconds",
            "First end among the trusted CAs, Unix time; 0 without one",
            &time(status.ca_not_after),
        )?;
        put(
            "handoff_certificate_failing",
            "1 if the last look after the certificates failed; the one in use stays in use",
            &ConstGauge::new(i64::from(status.failing.is_some())),
        )?;
        put(
            "handoff_certificate_errors",
            "Failures to look after the certificates",
            &ConstCounter::new(status.errors),
        )?;
        put("handoff_certificate_changes", "Server certificates taken over", &ConstCounter::new(status.changes))?;
        put(
            "handoff_clock_ahead_seconds",
            "This node's clock less the API server's",
            &ConstGauge::new(self.clock.ahead().map_or(0, |ahead| ahead.as_secs())),
        )
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
    (StatusCode::SERVICE_UNAVAILABLE, format!("waiting for: {}\n", missing.join(", ")))
}

async fn metrics(State(pages): State<Pages>) -> (StatusCode, String) {
    let mut text = String::new();
    match encode(&mut text, &pages.registry) {
        Ok(()) => (StatusCode::OK, text),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("cannot write the figures: {error}\n")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use handoff_certs::{CertsConfig, Material};

    #[test]
    fn the_certificates_are_among_the_figures() {
        let (mut registry, serving) = (Registry::default(), Serving::default());
        registry.register_collector(Box::new(Certificates::new(serving.clone(), Arc::default())));
        let open = connections(&mut registry)("webhook");
        let text = || {
            let mut text = String::new();
            encode(&mut text, &registry).unwrap();
            text
        };
        assert!(text().contains("\nhandoff_certificate_not_after_seconds 0\n"), "{}", text());
        let config = CertsConfig::new("ns", "certs", vec!["a.svc".to_owned()]);
        let material = Material::create(&config, Timestamp::now()).unwrap();
        serving.load(&material, Timestamp::now()).unwrap();
        open.inc();
        let end = material.not_after().as_second();
        for line in [
            &*format!("handoff_certificate_not_after_seconds {end}"),
            "handoff_certificate_failing 0",
            "handoff_certificate_errors_total 0",
            "handoff_certificate_changes_total 1",
            "handoff_clock_ahead_seconds 0",
            "handoff_connections{listener=\"webhook\"} 1",
        ] {
            assert!(text().contains(&format!("\n{line}\n")), "{line} in {}", text());
        }
        assert!(text().contains("# TYPE handoff_certificate_errors counter"), "{}", text());
    }
}
