//! `snapshots.longhorn.io` DELETE: refused while an owed backup needs it.

use crate::{
    bench::{Bench, SOON, Workload},
    http::{Read, eventually},
    world::{core, longhorn},
};
use anyhow::{Context, Result};
use serde_json::{Value, json};

const ALLOW: &str = "volumehandoff.io/allow-snapshot-deletion";

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
    overridden(bench, &workload).await?;
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
    deadline(bench, ns).await
}

/// Someone says that the snapshot may go all the same, on each of the three objects.
async fn overridden(bench: &mut Bench, workload: &Workload) -> Result<()> {
    let path = longhorn("snapshots", &workload.backup);
    let dry = json!({"dryRun": ["All"]});
    for (place, object) in [
        ("the snapshot", path.clone()),
        ("Longhorn's volume", longhorn("volumes", &workload.volume.handle)),
        ("the claim", core(&workload.namespace, "persistentvolumeclaims", &workload.volume.claim)),
    ] {
        let annotate = async |bench: &Bench, value: Value| {
            let annotations = json!({"metadata": {"annotations": {ALLOW: value}}});
            bench.admin.merge(&object, &annotations).await.map(drop)
        };
        let until = async |bench: &Bench, allowed: bool| {
            let answer = eventually(SOON, async || {
                let answer = bench.admin.delete(&path, &dry).await?;
                Ok((answer.is_ok() == allowed).then_some(answer))
            });
            answer.await
        };
        annotate(bench, json!("true")).await?;
        let answer = until(bench, true).await?;
        let warned = answer.as_ref().is_some_and(|a| a.warnings.iter().any(|w| w.contains(&workload.backup)));
        let saw = answer.map(|a| format!("{}, warnings {:?}", a.brief(), a.warnings)).unwrap_or_default();
        bench.report.check(&format!("given up by {ALLOW} on {place}, with a warning"), warned, saw);
        annotate(bench, Value::Null).await?;
        let refused = until(bench, false).await?.is_some();
        bench.report.check(&format!("without the annotation on {place} it is kept again"), refused, "");
    }
    Ok(())
}

/// It is kept no longer than `--snapshot-protection`, although its backup is still owed.
async fn deadline(bench: &mut Bench, ns: &str) -> Result<()> {
    bench.restart(&["--snapshot-protection=5s"]).await?;
    let workload = bench.workload(ns, "late").await?;
    let path = longhorn("snapshots", &workload.backup);
    bench.evict(&workload, json!({})).await?.ok()?;
    let dry = json!({"dryRun": ["All"]});
    let look = async |bench: &Bench, allowed: bool| {
        let answer = eventually(SOON, async || {
            let answer = bench.admin.delete(&path, &dry).await?;
            Ok((answer.is_ok() == allowed).then_some(answer))
        });
        answer.await
    };
    let refused = look(bench, false).await?;
    let says = refused.as_ref().is_some_and(|a| a.status == 409 && a.message().contains("until 20"));
    bench.report.check("the refusal names its end", says, refused.map(|a| a.brief()).unwrap_or_default());
    let allowed = look(bench, true).await?;
    let backup = bench.admin.get(&longhorn("backups", &workload.backup)).await?.ok()?;
    let owed = backup.text("/status/state") == "InProgress";
    bench.report.check("past its end it may go, backup or not", allowed.is_some() && owed, "");
    bench.restart(&[]).await
}
