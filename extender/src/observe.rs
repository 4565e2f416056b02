//! The hook by which the binary counts and times calls, without this crate knowing any metrics library.

use std::{sync::Arc, time::Instant};

/// What the scheduler asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verb {
    /// Which nodes can take the pod.
    Filter,
    /// How well each node suits the pod.
    Prioritize,
    /// Which pods may be evicted to make room.
    Preempt,
    /// Bind the pod.
    Bind,
}

impl Verb {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Filter, Self::Prioritize, Self::Preempt, Self::Bind];

    /// The name as a metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Prioritize => "prioritize",
            Self::Preempt => "preempt",
            Self::Bind => "bind",
        }
    }
}

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    /// The pod's volumes are ours and its nodes were judged, or it was bound.
    Judged {
        /// Number of nodes that were taken off the list; always 0 for [`Verb::Prioritize`] and [`Verb::Bind`].
        rejected: usize,
    },
    /// Nothing of ours: every node passes, with score 0.
    Passed,
    /// The deadline passed: nodes that were not judged by then pass, or there is an error instead of an answer.
    Late,
    /// Answered HTTP 413.
    TooLarge,
    /// Answered HTTP 400.
    Malformed,
    /// Answered HTTP 500; for [`Verb::Bind`], not bound.
    Failed,
}

impl Outcome {
    /// One of each.
    pub const ALL: [Self; 6] =
        [Self::Judged { rejected: 0 }, Self::Passed, Self::Late, Self::TooLarge, Self::Malformed, Self::Failed];

    /// The name as a metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Judged { .. } => "judged",
            Self::Passed => "passed",
            Self::Late => "late",
            Self::TooLarge => "too_large",
            Self::Malformed => "malformed",
            Self::Failed => "failed",
        }
    }
}

/// Told of every call once its answer is ready.
pub trait Observe: Send + Sync + 'static {
    /// `seconds` is the time from the complete body to the complete answer.
    fn call(&self, verb: Verb, outcome: Outcome, seconds: f64);
}

/// Observes nothing.
impl Observe for () {
    fn call(&self, _: Verb, _: Outcome, _: f64) {}
}

/// Runs from the complete body to the answer; from the head if the body is never complete.
pub(crate) struct Timer {
    observe: Arc<dyn Observe>,
    verb: Verb,
    started: Instant,
}

impl Timer {
    pub(crate) fn start(observe: Arc<dyn Observe>, verb: Verb) -> Self {
        Self { observe, verb, started: Instant::now() }
    }

    /// The body is complete: time runs from here.
    pub(crate) fn again(self) -> Self {
        Self { started: Instant::now(), ..self }
    }

    pub(crate) fn verb(&self) -> Verb {
        self.verb
    }

    pub(crate) fn stop(self, outcome: Outcome) {
        self.observe.call(self.verb, outcome, self.started.elapsed().as_secs_f64());
    }
}
