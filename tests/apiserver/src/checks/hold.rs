//! `FinishIfNear`: an eviction that waits for a backup which is nearly done, with a deadline that outlives us.

use super::optout::annotated;
use crate::{
    bench::{Bench, SOON, Workload},
    http::{Answer, Read, eventually},
    report::figure,
};
use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// How long these evictions may be held: time for a restart of all replicas on a busy machine too.
const HOLD: &str = "30s";

/// A workload under `FinishIfNear` whose backup goes fast.
async fn near(bench: &Bench, ns: &str, name: &str, hold: &str) -> Result<Workload> {
    let annotations = json!({"volumehandoff.io/eviction-policy": "FinishIfNear", "volumehandoff.io/max-hold": hold,
        "descheduler.alpha.kubernetes.io/request-evict-only": ""});
    let workload = annotated(bench, ns, name, annotations).await?;
    for progress in [60, 80, 95] {
        tokio::time::sleep(Duration::from_millis(200)).await;
        bench.world.backup_is(&workload.backup, &json!({"progress": progress})).await?;
    }
    Ok(workload)
}

/// Evicts until the answer is 429.
async fn held(bench: &Bench, workload: &Workload) -> Result<Answer> {
    let held = eventually(SOON, async || {
        let dry = bench.evict(workload, json!({"dryRun": ["All"]})).await?;
        Ok((dry.status == 429).then_some(()))
    });
    held.await?.context("the eviction is never held, not even in a dry run")?;
    let none = bench.handoff(workload, Duration::from_millis(300)).await?;
    if let Some(handoff) = none.filter(|h| h.has("/spec/hold")) {
        anyhow::bail!("a dry run started the hold: {}", handoff["spec"]["hold"]);
    }
    bench.evict(workload, json!({})).await
}

async fn deadline(bench: &Bench, workload: &Workload) -> Result<Value> {
    let held = eventually(SOON, async || {
        let handoff = bench.admin.find(&workload.volume.handoff()).await?.unwrap_or_default();
        Ok(handoff.has("/spec/hold").then(|| handoff["spec"]["hold"].clone()))
    });
    held.await?.context("the hold is not recorded")
}

pub async fn run(bench: &mut Bench) -> Result<()> {
    let ns = "hold";
    bench.world.namespace(ns).await?;
    let done = near(bench, ns, "done", "100s").await?;
    let answer = held(bench, &done).await?;
    let as_clients_need = answer.status == 429 && answer.body.text("/reason") == "TooManyRequests";
    bench.report.check("a backup that is nearly done: 429", as_clients_need, answer.brief());
    bench.report.check("without Retry-After", answer.retry_after.is_none(), format!("{:?}", answer.retry_after));
    let background = answer.message().contains("Eviction triggered evacuation");
    bench.report.check("a pod that asks for background eviction gets its text", background, "");
    bench
        .world
        .backup_is(
            &done.backup,
            &json!({"state": "Completed", "progress": 100, "lastSyncedAt": "2026-01-02T03:04:05Z"}),
        )
        .await?;
    let gone = eventually(SOON, async || {
        let answer = bench.evict(&done, json!({})).await?;
        Ok(answer.is_ok().then_some(answer))
    });
    let gone = gone.await?;
    bench.report.check("complete: it goes", gone.is_some(), gone.map(|a| a.brief()).unwrap_or_default());

    let stuck = near(bench, ns, "stuck", HOLD).await?;
    let answer = held(bench, &stuck).await?;
    bench.report.check("another one is held", answer.status == 429, answer.brief());
    let began = Instant::now();
    let before = deadline(bench, &stuck).await?;
    bench.restart(&[]).await?;
    let restarted = began.elapsed();
    // what a new replica has seen of the backup is one step, from which no speed can be told: the hold was promised
    let asked = Timestamp::now();
    let answer = bench.evict(&stuck, json!({})).await?;
    let after = deadline(bench, &stuck).await?;
    let saw = format!("{before} before, {after} after, {}", answer.brief());
    bench.report.check("all replicas killed and started: the deadline is the same", before == after, saw);
    let until: Timestamp = before.text("/deadline").parse().context("no deadline")?;
    figure("restart", format!("{:.1} s", restarted.as_secs_f64()));
    ensure!(asked < until, "the restart took longer than the hold: what a new replica answers was not seen");
    // it may have passed between the question and the answer
    let kept = answer.status == 429 || Timestamp::now() >= until;
    bench.report.check("and the hold goes on", kept, format!("asked at {asked}: {}", answer.brief()));
    let released = eventually(Duration::from_mins(1), async || {
        let answer = bench.evict(&stuck, json!({})).await?;
        Ok(answer.is_ok().then(|| (Timestamp::now(), began.elapsed())))
    });
    let released = released.await?;
    let saw = released.map(|(_, t)| format!("{:.1} s after the first denial, {HOLD} allowed", t.as_secs_f64()));
    let saw = saw.unwrap_or_default();
    bench.report.check("at the deadline it goes, backup or not", released.is_some(), &saw);
    bench.report.check("and not before", released.is_some_and(|(at, _)| at >= until), saw);
    let recorded = bench.handoff(&stuck, SOON).await?.is_some_and(|h| !h.items("/spec/checkpoints").is_empty());
    bench.report.check("and its backup is recorded", recorded, "");
    Ok(())
}
