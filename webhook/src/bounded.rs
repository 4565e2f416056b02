//! Waiting for a verdict no longer than its budget.

use std::{future::Future, panic::AssertUnwindSafe, time::Duration};

use futures::FutureExt;
use tracing::Instrument;

use crate::{observe::Outcome, verdict::Verdict};

/// Why there is no verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    TimedOut,
    Panicked,
}

impl Missing {
    /// The answer without a verdict: what would happen if this program were not installed.
    pub(crate) fn fail_open(self) -> Verdict {
        Verdict::allowed(match self {
            Self::TimedOut => Outcome::TimedOut,
            Self::Panicked => Outcome::Failed,
        })
    }
}

/// Waits at most `budget` for `work`, which runs to its end in any case: the checkpoint of a pod that leaves is wanted
/// also when it is late, and also when the API server has hung up in the meantime.
pub(crate) async fn bounded<T: Send + 'static>(
    budget: Duration,
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T, Missing> {
    // a panic ends the work and nothing is seen of it afterwards, so it can leave nothing half done behind
    let mut work = Box::pin(AssertUnwindSafe(work).catch_unwind());
    // most verdicts come from memory: they are there at once, without a task, a timer and another thread
    if let Some(verdict) = (&mut work).now_or_never() {
        return verdict.map_err(|_| Missing::Panicked);
    }
    match tokio::time::timeout(budget, tokio::spawn(work.in_current_span())).await {
        Ok(Ok(verdict)) => verdict.map_err(|_| Missing::Panicked),
        Ok(Err(_)) => Err(Missing::Panicked),
        Err(_) => Err(Missing::TimedOut),
    }
}

/// Starts `work` and lets it go on in the background. What comes from memory is done at once, without a task.
pub(crate) fn detached(work: impl Future<Output = ()> + Send + 'static) -> Result<(), Missing> {
    let mut work = Box::pin(AssertUnwindSafe(work).catch_unwind());
    if let Some(done) = (&mut work).now_or_never() {
        return done.map_err(|_| Missing::Panicked);
    }
    tokio::spawn(work.in_current_span());
    Ok(())
}
