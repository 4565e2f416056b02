//! Storage leaves last: pods of the storage manager stay on a drained node until the volumes that left are up.

use crate::{
    bench::Bench,
    http::{Answer, Read},
    world::{core, longhorn, pod},
};
use anyhow::Result;
use serde_json::json;

/// A pod in Longhorn's namespace on node-a with these labels.
pub async fn storage_pod(bench: &Bench, name: &str, labels: serde_json::Value) -> Result<()> {
    let mut pod = pod("longhorn-system", name, &[]);
    pod["metadata"]["labels"] = labels;
    bench.world.running(&pod, "node-a").await.map(drop)
}

/// Evicts a pod of another namespace's.
pub async fn evict(bench: &Bench, namespace: &str, name: &str, dry_run: bool) -> Result<Answer> {
    let options = if dry_run { json!({"dryRun": ["All"]}) } else { json!({}) };
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": namespace},
        "deleteOptions": options});
    bench.admin.post(&core(namespace, "pods", &format!("{name}/eviction")), &eviction).await
}

/// Also those of the volumes that other checks have left there.
async fn stop_engines(bench: &Bench, node: &str) -> Result<()> {
    let engines = bench.admin.get(&longhorn("engines", "")).await?.ok()?;
    let engines = engines.pointer("/items").and_then(serde_json::Value::as_array).cloned().unwrap_or_default();
    for engine in engines.iter().filter(|e| e.text("/spec/nodeID") == node) {
        let status = format!("{}/status", longhorn("engines", engine.text("/metadata/name")));
        bench.admin.merge(&status, &json!({"status": {"currentState": "stopped"}})).await?;
    }
    Ok(())
}

pub async fn run(bench: &mut Bench) -> Result<()> {
    let ns = "storage";
    bench.world.namespace(ns).await?;
    storage_pod(bench, "instance-manager-a", json!({"longhorn.io/component": "instance-manager"})).await?;
    storage_pod(bench, "csi-attacher-a", json!({"app": "csi-attacher"})).await?;
    storage_pod(bench, "longhorn-ui", json!({"app": "longhorn-ui"})).await?;
    let node = "/api/v1/nodes/node-a";
    bench.admin.merge(node, &json!({"spec": {"unschedulable": true}})).await?;
    let workload = bench.workload(ns, "db").await?;
    bench.evict(&workload, json!({})).await?.ok()?;
    bench.gone(&workload).await?;
    // Longhorn lets go of it, and its next pod waits for it elsewhere
    let handle = &workload.volume.handle;
    let attachment = longhorn("volumeattachments", handle);
    bench.admin.merge(&attachment, &json!({"spec": {"attachmentTickets": {"csi-test": null}}})).await?;
    let volume = format!("{}/status", longhorn("volumes", handle));
    bench.admin.merge(&volume, &json!({"status": {"state": "detached", "currentNodeID": ""}})).await?;
    let mut next = pod(ns, "db", &[&workload.volume.claim]);
    next["metadata"]["annotations"] = json!({crate::kubelet::MANUAL: ""});
    next["spec"]["nodeName"] = json!("node-b");
    bench.admin.create(&core(ns, "pods", ""), &next).await?;
    let answer = evict(bench, "longhorn-system", "instance-manager-a", true).await?;
    let claim = "while an engine runs on its node, the instance manager is left to Longhorn's budget";
    bench.report.check(claim, answer.is_ok(), answer.brief());
    stop_engines(bench, "node-a").await?;
    let stopped = crate::http::eventually(crate::bench::SOON, async || {
        let answer = evict(bench, "longhorn-system", "instance-manager-a", true).await?;
        Ok((answer.status == 429).then_some(()))
    });
    bench.report.check("when none does any more it is held", stopped.await?.is_some(), "");
    for name in ["instance-manager-a", "csi-attacher-a"] {
        for dry_run in [true, false] {
            let answer = evict(bench, "longhorn-system", name, dry_run).await?;
            let held = answer.status == 429
                && answer.body.text("/reason") == "TooManyRequests"
                && answer.retry_after.is_none();
            let claim = format!("{name} is held{}, without Retry-After", if dry_run { " in a dry run" } else { "" });
            bench.report.check(&claim, held && answer.message().contains("storage leaves last"), answer.brief());
        }
    }
    let answer = evict(bench, "longhorn-system", "longhorn-ui", false).await?;
    bench.report.check("a pod that no volume needs goes", answer.is_ok(), answer.brief());
    // one of our own replicas, while the backup is in flight
    let ours = bench.names[0].clone();
    let answer = evict(bench, "handoff-system", &ours, true).await?;
    bench.report.check("so is Handoff itself", answer.status == 429, answer.brief());
    // the volume comes up on node-b and the pod is ready there
    bench.admin.merge(&longhorn("volumes", handle), &json!({"spec": {"nodeID": "node-b"}})).await?;
    bench.admin.merge(&volume, &json!({"status": {"state": "attached", "currentNodeID": "node-b"}})).await?;
    let engine = longhorn("engines", &format!("{handle}-e-0"));
    bench.admin.merge(&engine, &json!({"spec": {"nodeID": "node-b"}})).await?;
    bench.admin.merge(&format!("{engine}/status"), &json!({"status": {"currentState": "running"}})).await?;
    bench.world.ready(ns, "db").await?;
    bench
        .world
        .backup_is(
            &workload.backup,
            &json!({"state": "Completed", "progress": 100, "lastSyncedAt": "2026-01-02T03:04:05Z"}),
        )
        .await?;
    for name in ["instance-manager-a", "csi-attacher-a"] {
        let released = crate::http::eventually(crate::bench::SOON, async || {
            let answer = evict(bench, "longhorn-system", name, false).await?;
            Ok(answer.is_ok().then_some(answer))
        });
        let released = released.await?;
        let saw = released.map(|a| a.brief()).unwrap_or_default();
        bench.report.check(&format!("{name} may go once the volume is up elsewhere"), !saw.is_empty(), saw);
    }
    bench.admin.merge(node, &json!({"spec": {"unschedulable": null}})).await?;
    Ok(())
}
