//! `snapshots.longhorn.io` DELETE: refused while an owed backup needs it.

use crate::{
    bench::{Bench, SOON},
    http::eventually,
    world::longhorn,
};
use anyhow::{Context, Result};
use serde_json::json;

pub async fn run(bench: &mut Bench) -> Result<()> {
    let ns = "snapshot";
    bench.world.namespace(ns).await?;
    bench.led().await?;
    let workload = bench.workload(ns, "db").await?;
    let path = longhorn("snapshots", &workload.backup);
    let dry = json!({"dryRun": ["All"]});
    let answer = bench.admin.delete(&path, &dry).await?;
    bench.report.check("nothing owed: it may go", answer.is_ok(), answer.brief());
    bench.evict(&workload, json!({})).await?.ok()?;
    let answer = eventually(SOON, async || {
        let answer = bench.admin.delete(&path, &dry).await?;
        Ok((!answer.is_ok()).then_some(answer))
    });
    let answer = answer.await?.context("the deletion is never refused")?;
    let names = answer.message().contains(&workload.backup) && answer.message().contains(&workload.volume.name);
    bench.report.check(
        "an owed backup needs it: refused, with the reason",
        answer.status == 409 && names,
        answer.brief(),
    );
    let answer = bench.admin.delete(&path, &json!({})).await?;
    bench.report.check("in earnest too", answer.status == 409, format!("status {}", answer.status));
    bench.gone(&workload).await?;
    bench
        .world
        .backup_is(
            &workload.backup,
            &json!({"state": "Completed", "progress": 100, "lastSyncedAt": "2026-01-02T03:04:05Z"}),
        )
        .await?;
    let answer = eventually(SOON, async || {
        let answer = bench.admin.delete(&path, &json!({})).await?;
        Ok(answer.is_ok().then_some(answer))
    });
    let answer = answer.await?;
    let saw = answer.map(|a| a.brief()).unwrap_or_default();
    bench.report.check("the backup is complete: it may go", !saw.is_empty(), saw);
    Ok(())
}
