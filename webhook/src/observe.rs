//! The hook by which the binary counts and times reviews, without this crate knowing any metrics library.

use std::time::Instant;

use axum::response::Response;

use crate::{
    review::{Head, Malformed},
    verdict::Verdict,
};

/// Which route a review came in by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Hook {
    /// `pods` CREATE.
    PodCreate,
    /// `pods` DELETE.
    PodDelete,
    /// `pods/eviction` CREATE.
    Eviction,
    /// `pods/eviction` CREATE for the storage manager's own pods.
    StorageEviction,
    /// `pods/binding` and `bindings` CREATE.
    Binding,
    /// `snapshots.longhorn.io` DELETE.
    Snapshot,
}

impl Hook {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::PodCreate, Self::PodDelete, Self::Eviction, Self::StorageEviction, Self::Binding, Self::Snapshot];

    /// The name as a metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PodCreate => "pod-create",
            Self::PodDelete => "pod-delete",
            Self::Eviction => "eviction",
            Self::StorageEviction => "storage-eviction",
            Self::Binding => "binding",
            Self::Snapshot => "snapshot",
        }
    }
}

/// What became of a review.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    /// Asked and allowed.
    Allowed,
    /// Allowed without asking: nothing of ours can be in it.
    Skipped,
    /// Allowed with a patch.
    Patched,
    /// An eviction answered 429.
    Held,
    /// An eviction answered 404.
    Gone,
    /// A deletion answered 409.
    Denied,
    /// Allowed because the verdict took longer than its budget.
    TimedOut,
    /// Allowed because the verdict failed.
    Failed,
    /// Allowed because the review is of another kind than its route.
    Misrouted,
    /// Answered HTTP 400.
    Malformed,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Allowed,
        Self::Skipped,
        Self::Patched,
        Self::Held,
        Self::Gone,
        Self::Denied,
        Self::TimedOut,
        Self::Failed,
        Self::Misrouted,
        Self::Malformed,
    ];

    /// The name as a metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Skipped => "skipped",
            Self::Patched => "patched",
            Self::Held => "held",
            Self::Gone => "gone",
            Self::Denied => "denied",
            Self::TimedOut => "timed-out",
            Self::Failed => "failed",
            Self::Misrouted => "misrouted",
            Self::Malformed => "malformed",
        }
    }
}

/// Told of every review once its answer is ready.
pub trait Observe: Send + Sync + 'static {
    /// `seconds` is the time from the complete body to the complete answer.
    fn review(&self, hook: Hook, outcome: Outcome, seconds: f64);
}

/// Observes nothing.
impl Observe for () {
    fn review(&self, _: Hook, _: Outcome, _: f64) {}
}

/// Runs from the complete body to the answer; consumed by the one answer a review gets.
pub(crate) struct Timer<'o> {
    observe: &'o dyn Observe,
    hook: Hook,
    started: Instant,
}

impl<'o> Timer<'o> {
    pub(crate) fn start(observe: &'o dyn Observe, hook: Hook) -> Self {
        Self { observe, hook, started: Instant::now() }
    }

    pub(crate) fn answer(self, head: &Head<'_>, verdict: Verdict) -> Response {
        let outcome = verdict.outcome;
        let response = head.answer(verdict);
        self.observe.review(self.hook, outcome, self.started.elapsed().as_secs_f64());
        response
    }

    pub(crate) fn malformed(self, malformed: &Malformed) -> Response {
        tracing::warn!(hook = self.hook.as_str(), error = %malformed, "malformed admission review");
        let response = malformed.answer();
        self.observe.review(self.hook, Outcome::Malformed, self.started.elapsed().as_secs_f64());
        response
    }
}
