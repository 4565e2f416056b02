//! `pods/eviction`: the record is durable before the pod leaves.

use super::delete::records;
use crate::{
    bench::{Bench, SOON},
    http::{Read, eventually},
    world::{core, pod},
};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::time::Duration;

/// Longest time in which something that must not be there would have appeared.
const SIDE_EFFECT: Duration = Duration::from_millis(300);

pub async fn run(bench: &mut Bench) -> Result<()> {
    let ns = "eviction";
    bench.world.namespace(ns).await?;
    plain(bench, ns).await?;
    dry_runs(bench, ns).await?;
    preconditions(bench, ns).await?;
    budget(bench, ns).await?;
    moved(bench, ns).await?;

    let idle = bench.plain(ns, "idle").await?;
    let answer = bench.evict(&idle, json!({})).await?;
    let none = bench.handoff(&idle, SIDE_EFFECT).await?.is_none();
    let quiet = answer.warnings.is_empty();
    bench.report.check(
        "no backup in flight: allowed, nothing recorded",
        answer.is_ok() && none && quiet,
        answer.brief(),
    );

    let nobody = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "nobody"}});
    let answer = bench.admin.post(&core(ns, "pods", "nobody/eviction"), &nobody).await?;
    bench.report.check("a pod that is not there: 404 from Kubernetes", answer.status == 404, answer.brief());
    Ok(())
}

async fn plain(bench: &mut Bench, ns: &str) -> Result<()> {
    for version in ["policy/v1", "policy/v1beta1"] {
        let name = version.replace('/', "-");
        let workload = bench.workload(ns, &name).await?;
        let deletions = bench.replicas.calls(&["hook=\"pod-delete\""]).await?;
        let mut eviction = workload.eviction(&json!({}));
        eviction["apiVersion"] = json!(version);
        let answer = bench.admin.post(&workload.path("eviction"), &eviction).await?;
        let told = answer.warnings.iter().any(|w| w.contains(&workload.backup));
        let saw = format!("{}, warnings {:?}", answer.brief(), answer.warnings);
        bench.report.check(&format!("{version}: allowed, and the user is told"), answer.is_ok() && told, saw);
        let handoff = bench.handoff(&workload, Duration::ZERO).await?.context("no VolumeHandoff when it returns")?;
        let held = records(&handoff, &workload, "Eviction");
        bench.report.check("the record is there when the eviction returns", held, &handoff["spec"]["checkpoints"]);
        bench.gone(&workload).await?;
        let deletions = bench.replicas.calls(&["hook=\"pod-delete\""]).await? - deletions;
        bench.report.check("the pod goes without a deletion review", deletions == 0, format!("{deletions} reviews"));
    }
    Ok(())
}

async fn dry_runs(bench: &mut Bench, ns: &str) -> Result<()> {
    let workload = bench.workload(ns, "dry").await?;
    let body = bench.evict(&workload, json!({"dryRun": ["All"]})).await?;
    let path = format!("{}?dryRun=All", workload.path("eviction"));
    let query = bench.admin.post(&path, &workload.eviction(&json!({}))).await?;
    for (place, answer) in [("the body", body), ("the request", query)] {
        let none = bench.handoff(&workload, SIDE_EFFECT).await?.is_none();
        let stays = !bench.admin.get(&workload.path("")).await?.ok()?.has("/metadata/deletionTimestamp");
        let told = answer.warnings.iter().any(|w| w.contains(&workload.backup));
        let claim = format!("a dry run in {place} says the same and does nothing");
        bench.report.check(&claim, answer.is_ok() && told && none && stays, answer.brief());
    }
    Ok(())
}

async fn preconditions(bench: &mut Bench, ns: &str) -> Result<()> {
    let workload = bench.workload(ns, "uid").await?;
    let answer = bench.evict(&workload, json!({"preconditions": {"uid": "another"}})).await?;
    let none = bench.handoff(&workload, SIDE_EFFECT).await?.is_none();
    bench.report.check("another pod's uid: refused, nothing recorded", answer.status == 409 && none, answer.brief());
    let answer = bench.evict(&workload, json!({"preconditions": {"uid": workload.uid}})).await?;
    let recorded = bench.handoff(&workload, Duration::ZERO).await?.is_some();
    bench.report.check("its own uid: allowed and recorded", answer.is_ok() && recorded, answer.brief());
    Ok(())
}

/// A disruption budget comes after our allow, and the same eviction comes again.
async fn budget(bench: &mut Bench, ns: &str) -> Result<()> {
    let workload = bench.workload(ns, "pdb").await?;
    let budgets = format!("/apis/policy/v1/namespaces/{ns}/poddisruptionbudgets");
    let budget = json!({"metadata": {"name": "pdb"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "pdb"}}}});
    bench.admin.create(&budgets, &budget).await?;
    let path = format!("{budgets}/pdb");
    let seen = eventually(SOON, async || {
        let budget = bench.admin.get(&path).await?.ok()?;
        Ok((budget["status"]["currentHealthy"] == 1).then_some(()))
    });
    seen.await?.context("the disruption controller does not see the pod")?;
    let first = bench.evict(&workload, json!({})).await?;
    let before = bench.handoff(&workload, Duration::ZERO).await?.context("no VolumeHandoff")?;
    let second = bench.evict(&workload, json!({})).await?;
    let after = bench.handoff(&workload, Duration::ZERO).await?.context("no VolumeHandoff")?;
    let refused = first.status == 429 && second.status == 429 && first.message().contains("disruption budget");
    bench.report.check("a disruption budget refuses what we allowed", refused, first.brief());
    bench.report.check("asked again, the record stays one", before["spec"] == after["spec"], "");
    bench.admin.delete(&path, &json!({})).await?.ok()?;
    let third = eventually(SOON, async || {
        let answer = bench.evict(&workload, json!({})).await?;
        Ok(answer.is_ok().then_some(answer))
    });
    let third = third.await?.context("the eviction is never allowed")?;
    let held = bench.handoff(&workload, Duration::ZERO).await?.is_some_and(|h| records(&h, &workload, "Eviction"));
    bench.report.check("without the budget it goes, recorded once", held, third.brief());
    Ok(())
}

/// A drain that was told "not yet" comes back by name when the pod has been replaced on another node already.
async fn moved(bench: &mut Bench, ns: &str) -> Result<()> {
    let cordon = async |bench: &Bench, node: &str, on: bool| {
        let spec = json!({"spec": {"unschedulable": if on { json!(true) } else { Value::Null }}});
        bench.admin.merge(&format!("/api/v1/nodes/{node}"), &spec).await.map(drop)
    };
    let workload = bench.workload(ns, "moved").await?;
    cordon(bench, "node-a", true).await?;
    bench.evict(&workload, json!({})).await?.ok()?;
    bench.gone(&workload).await?;
    let new = bench.world.running(&pod(ns, "moved", &[&workload.volume.claim]), "node-b").await?;
    let uid = new.text("/metadata/uid");
    // the cordon, the record and the replacement have to be in the caches
    let told = eventually(SOON, async || {
        let answer = bench.evict(&workload, json!({"dryRun": ["All"]})).await?;
        Ok((answer.status == 404).then_some(()))
    });
    let told = told.await?.is_some();
    let answer = if told { bench.evict(&workload, json!({})).await? } else { bench.admin.get("/readyz").await? };
    let as_clients_need = answer.status == 404 && answer.body.text("/reason") == "NotFound";
    let says = answer.message().contains(&workload.uid) && answer.message().contains("replacement on node-b");
    bench.report.check("a pod that has moved, asked for by name: 404", told && as_clients_need && says, answer.brief());
    let there = bench.admin.get(&workload.path("")).await?.ok()?;
    let kept = there.text("/metadata/uid") == uid && !there.has("/metadata/deletionTimestamp");
    bench.report.check("its replacement stays", kept, "");
    let by_uid = json!({"dryRun": ["All"], "preconditions": {"uid": uid}});
    let answer = bench.evict(&workload, by_uid).await?;
    bench.report.check("asked for by its UID it may go", answer.is_ok(), answer.brief());
    cordon(bench, "node-b", true).await?;
    let answer = bench.evict(&workload, json!({"dryRun": ["All"]})).await?;
    bench.report.check("a drain of the new node is not told 404", answer.is_ok(), answer.brief());
    cordon(bench, "node-a", false).await?;
    cordon(bench, "node-b", false).await
}
