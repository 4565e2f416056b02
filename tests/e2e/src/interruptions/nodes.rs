//! Interruptions by way of the node: drained, tainted, without power.

use super::passage::{Scene, number};
use crate::{
    backup::Backup,
    bench::Bench,
    cluster::{LH_BACKUP, LH_REPLICA, NODE, POD, Read, until},
    drain::{Drain, WITHOUT_STORAGE},
    handoff,
    report::Claim,
    settle,
    workload::{Running, kubectl},
};
use anyhow::{Context, Result, bail};
use serde_json::json;
use std::time::Duration;

/// A drain that has not ended by then does not end.
pub const DRAIN: Duration = Duration::from_mins(7);
/// The API server takes a node that is silent for dead after 50 s.
const MISSED: Duration = Duration::from_mins(3);
/// Longhorn's pods tolerate it in the lab, as they would a maintenance taint of their operator's.
const TAINT: &str = "lab.local/maintenance";
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

async fn full_drain(bench: &Bench, node: &str, selector: Option<&str>) -> Result<Vec<Claim>> {
    settle::mark(&bench.cluster, node).await?;
    let (code, seconds, complaint) = Drain::start(node, selector)?.wait(DRAIN).await?;
    let found = format!("after {seconds:.1} s {complaint}");
    Ok(vec![Claim::new("the drain ended by itself", code == Some(0), found.trim())])
}

/// The whole node.
pub async fn drain(scene: &Scene<'_>) -> Result<Vec<Claim>> {
    let claims = full_drain(scene.bench, &scene.workload.node, None).await?;
    scene.ready().await?;
    Ok(claims)
}

/// The whole node, of which the workload uses a replica only, the one that uploads.
pub async fn drain_replica(scene: &Scene<'_>) -> Result<Vec<Claim>> {
    let (bench, workload) = (scene.bench, scene.workload);
    let node = uploader(bench, workload, scene.backup).await?;
    if node == workload.node {
        bail!("the replica beside the pod uploads: nothing to see here");
    }
    full_drain(bench, &node, None).await
}

/// Node of the replica that uploads.
pub async fn uploader(bench: &Bench, workload: &Running, backup: &Backup) -> Result<String> {
    let cluster = &bench.cluster;
    let backup = cluster.get(&LH_BACKUP, &cluster.longhorn, &backup.name).await?;
    let address = backup.text("/status/replicaAddress").trim_start_matches("tcp://").to_owned();
    let labels = format!("longhornvolume={}", workload.handle);
    let replicas = cluster.list(&LH_REPLICA, &cluster.longhorn, &labels).await?;
    let at =
        |r: &&serde_json::Value| format!("{}:{}", r.text("/status/storageIP"), number(r, "/status/port")) == address;
    let found = replicas.iter().find(at).with_context(|| format!("no replica is at '{address}'"))?;
    Ok(found.text("/spec/nodeID").to_owned())
}

/// With no replica of Handoff running, and its webhooks still registered. Storage stays, as nobody would hold it.
pub async fn drain_without_handoff(scene: &Scene<'_>) -> Result<Vec<Claim>> {
    handoff::scale(&scene.bench.cluster, 0).await?;
    let claims = full_drain(scene.bench, &scene.workload.node, Some(WITHOUT_STORAGE)).await?;
    scene.ready().await?;
    settle::uncordon(scene.bench).await?;
    handoff::scale(&scene.bench.cluster, 2).await?;
    Ok(claims)
}

/// The whole node, while every replica of Handoff is deleted and replaced, one after the other.
pub async fn drain_while_handoff_restarts(scene: &Scene<'_>) -> Result<Vec<Claim>> {
    let (cluster, before) = (&scene.bench.cluster, scene.observer.elapsed());
    let drained = full_drain(scene.bench, &scene.workload.node, None);
    let (drained, restarted) = tokio::join!(drained, handoff::restart(cluster));
    let (mut claims, old) = (drained?, restarted?);
    let took = scene.observer.elapsed() - before;
    scene.ready().await?;
    let left = cluster.list(&POD, handoff::NAMESPACE, handoff::PODS).await?;
    let all = old.len() > 1 && !left.iter().any(|pod| old.iter().any(|name| name == pod.name()));
    let found = format!("{} within {took:.1} s", old.join(", "));
    claims.push(Claim::new("all replicas were restarted", all, found));
    Ok(claims)
}

/// Evicts all that does not tolerate it, without asking.
pub async fn taint(scene: &Scene<'_>) -> Result<Vec<Claim>> {
    kubectl(&["taint", "node", &scene.workload.node, &format!("{TAINT}=e2e:NoExecute"), "--overwrite"]).await?;
    scene.ready().await?;
    remove_taints(scene.bench).await?;
    Ok(vec![])
}

/// Removes what `taint` and `power_loss` put there.
pub async fn remove_taints(bench: &Bench) -> Result<()> {
    for node in bench.cluster.list(&NODE, "", "").await? {
        let ours = |t: &&serde_json::Value| [TAINT, OUT_OF_SERVICE].contains(&t.text("/key"));
        if node.items("/spec/taints").iter().any(|t| ours(&t)) {
            let rest: Vec<_> = node.items("/spec/taints").iter().filter(|t| !ours(t)).cloned().collect();
            bench.cluster.merge(&NODE, "", node.name(), &json!({"spec": {"taints": rest}})).await?;
        }
    }
    Ok(())
}

/// Off at once; missed after a while; then an operator who knows says so.
pub async fn power_loss(scene: &Scene<'_>) -> Result<Vec<Claim>> {
    let (bench, node) = (scene.bench, &scene.workload.node);
    let lab = bench.lab.as_ref().context("a power cut needs --lab")?;
    lab.power_off(node).await?;
    until(MISSED, "the node to be missed", async || {
        let found = bench.cluster.get(&NODE, "", node).await?;
        let ready = found.condition("Ready");
        Ok((ready == "True").then(|| "still Ready".to_owned()))
    })
    .await?;
    kubectl(&["taint", "node", node, &format!("{OUT_OF_SERVICE}=nodeshutdown:NoExecute"), "--overwrite"]).await?;
    scene.ready().await?;
    Ok(vec![])
}

/// Boots all nodes and takes them back into service.
pub async fn power_on(bench: &Bench) -> Result<()> {
    let Some(lab) = &bench.lab else { return Ok(()) };
    for node in &bench.nodes {
        lab.power_on(node).await?;
    }
    all_ready(bench).await?;
    remove_taints(bench).await
}

/// Starts all kubelets.
pub async fn kubelets_on(bench: &Bench) -> Result<()> {
    let Some(lab) = &bench.lab else { return Ok(()) };
    for node in &bench.nodes {
        lab.kubelet_runs(node, true).await?;
    }
    all_ready(bench).await
}

/// Waits until every node with storage is.
pub async fn all_ready(bench: &Bench) -> Result<()> {
    until(MISSED, "all nodes to be Ready", async || {
        for name in &bench.nodes {
            if bench.cluster.get(&NODE, "", name).await?.condition("Ready") != "True" {
                return Ok(Some(format!("{name} is not")));
            }
        }
        Ok(None)
    })
    .await
}
