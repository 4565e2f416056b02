//! Reviews without a pause, and how many of them failed. The caller sees nothing of a failed one, as the webhooks are
//! `failurePolicy: Ignore`: what counts is what the API server counts.

use crate::{
    bench::{Bench, Workload},
    metrics,
};
use anyhow::Result;
use futures::future::join_all;
use serde_json::json;
use std::{cell::Cell, fmt};

/// Callers at the same time.
const CALLERS: usize = 4;

/// What became of the calls.
#[derive(Clone, Copy, Debug)]
pub struct Calls {
    /// Evictions asked for.
    pub made: u64,
    /// Calls of the API server to our webhooks.
    pub asked: u64,
    /// Those that failed and were let through.
    pub failed: u64,
}

impl Calls {
    /// Every eviction came to us, and none failed.
    pub fn all_answered(&self) -> bool {
        self.failed == 0 && self.made > 0 && self.asked >= self.made
    }
}

impl fmt::Display for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} evictions, {} calls, {} failed", self.made, self.asked, self.failed)
    }
}

async fn counted(bench: &Bench) -> Result<(u64, u64)> {
    let page = bench.admin.get("/metrics").await?.ok()?;
    let page = page.as_str().unwrap_or_default();
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // it counts calls
    let failed = metrics::sum(page, "apiserver_admission_webhook_fail_open_count", &["volumehandoff.io\""]) as u64;
    Ok((bench.requests().await?.iter().sum(), failed))
}

/// Does `work` while dry-run evictions of a pod come in without a pause.
pub async fn under_load<T>(bench: &Bench, pod: &Workload, work: impl Future<Output = Result<T>>) -> Result<(T, Calls)> {
    let before = counted(bench).await?;
    let (over, made) = (Cell::new(false), Cell::new(0));
    let load = join_all((0..CALLERS).map(|_| async {
        while !over.get() {
            bench.evict(pod, json!({"dryRun": ["All"]})).await?.ok()?;
            made.set(made.get() + 1);
        }
        anyhow::Ok(())
    }));
    let work = async {
        let done = work.await;
        over.set(true);
        done
    };
    let (load, done) = futures::join!(load, work);
    load.into_iter().collect::<Result<()>>()?;
    let after = counted(bench).await?;
    Ok((done?, Calls { made: made.get(), asked: after.0 - before.0, failed: after.1 - before.1 }))
}
