//! Figures of what is answered.

use handoff_coordinator::{Coordinator, metrics::FailedOpen};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, histogram::Histogram},
    registry::Registry,
};
use std::sync::{Arc, OnceLock, Weak};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReviewLabels {
    hook: &'static str,
    outcome: &'static str,
}

/// Time taken by reviews and extender calls, by kind and outcome.
pub struct Reviews {
    seconds: Family<ReviewLabels, Histogram>,
    /// Counts what failed open.
    coordinator: OnceLock<Weak<Coordinator>>,
}

impl Reviews {
    /// Registers the figure.
    pub fn new(registry: &mut Registry) -> Self {
        let buckets = || Histogram::new([5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.05, 0.1, 0.5, 1., 5.]);
        let seconds = Family::new_with_constructor(buckets as fn() -> Histogram);
        registry.register(
            "handoff_review_seconds",
            "Time of reviews and of extender calls, body complete to answer complete",
            seconds.clone(),
        );
        Self { seconds, coordinator: OnceLock::new() }
    }

    /// From now on, answers that came too late or failed are counted by `coordinator` as failed open.
    pub fn count_failed_open_by(&self, coordinator: &Arc<Coordinator>) {
        let _ = self.coordinator.set(Arc::downgrade(coordinator));
    }

    fn failed_open(&self, why: FailedOpen) {
        if let Some(coordinator) = self.coordinator.get().and_then(Weak::upgrade) {
            coordinator.count_failed_open(why);
        }
    }

    fn note(&self, hook: &'static str, outcome: &'static str, seconds: f64) {
        self.seconds.get_or_create(&ReviewLabels { hook, outcome }).observe(seconds);
    }
}

impl handoff_webhook::Observe for Reviews {
    fn review(&self, hook: handoff_webhook::Hook, outcome: handoff_webhook::Outcome, seconds: f64) {
        self.note(hook.as_str(), outcome.as_str(), seconds);
        match outcome {
            handoff_webhook::Outcome::TimedOut => self.failed_open(FailedOpen::TimedOut),
            handoff_webhook::Outcome::Failed => self.failed_open(FailedOpen::Failed),
            _ => {}
        }
    }
}

impl handoff_extender::Observe for Reviews {
    fn call(&self, verb: handoff_extender::Verb, outcome: handoff_extender::Outcome, seconds: f64) {
        self.note(verb.as_str(), outcome.as_str(), seconds);
        match outcome {
            handoff_extender::Outcome::Late => self.failed_open(FailedOpen::TimedOut),
            handoff_extender::Outcome::Failed => self.failed_open(FailedOpen::Failed),
            _ => {}
        }
    }
}
