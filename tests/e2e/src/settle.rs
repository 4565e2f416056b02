//! The state every move starts from: all nodes in service, storage at rest, the volume whole, the pod ready.

use crate::{
    bench::{Bench, rest},
    cluster::{
        ATTACHMENT, Cluster, DEPLOYMENT, LH_INSTANCE_MANAGER, LH_SNAPSHOT, LH_VOLUME, NODE, POD, Read, STATEFULSET,
    },
    workload::{self, LABELS, NAMESPACE_NAME, Running},
};
use anyhow::Result;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// On nodes that we cordoned; an operator's own cordon is left alone.
const MARK: &str = "handoff-e2e/drained";
/// A pod that waits for the attacher's back-off is helped this often.
const KICK: Duration = Duration::from_secs(5);

/// Marks a node as cordoned by us.
pub async fn mark(cluster: &Cluster, node: &str) -> Result<()> {
    cluster.merge(&NODE, "", node, &json!({"metadata": {"annotations": {MARK: "true"}}})).await
}

/// Puts nodes back into service: those that we cordoned, in the lab all.
pub async fn uncordon(bench: &Bench) -> Result<()> {
    for node in bench.cluster.list(&NODE, "", "").await? {
        let ours = node.pointer("/metadata/annotations").is_some_and(|a| a.get(MARK).is_some());
        let cordoned = node.pointer("/spec/unschedulable") == Some(&Value::Bool(true));
        if ours || cordoned && bench.lab.is_some() {
            let patch = json!({"metadata": {"annotations": {MARK: null}}, "spec": {"unschedulable": null}});
            bench.cluster.merge(&NODE, "", node.name(), &patch).await?;
        }
    }
    Ok(())
}

/// Waits until a move can start, and tells where the workload is.
pub async fn settle(bench: &Bench) -> Result<Running> {
    let mut kicked = Instant::now();
    rest("the cluster to come to rest", async || {
        kick_attacher(&bench.cluster, &mut kicked).await?;
        missing(bench).await
    })
    .await?;
    workload::running(&bench.cluster).await
}

/// Waits until storage is at rest; volumes may still be rebuilding.
pub async fn storage(bench: &Bench) -> Result<()> {
    rest("storage to be back", async || storage_incomplete(bench).await).await
}

async fn missing(bench: &Bench) -> Result<Option<String>> {
    let cluster = &bench.cluster;
    if let Some(node) = node_out_of_service(bench).await? {
        return Ok(Some(node));
    }
    if let Some(what) = storage_incomplete(bench).await? {
        return Ok(Some(what));
    }
    for namespace in ["handoff-system", NAMESPACE_NAME] {
        if let Some(what) = replicas_missing(cluster, namespace).await? {
            return Ok(Some(what));
        }
    }
    let pods = cluster.list(&POD, NAMESPACE_NAME, LABELS).await?;
    let [pod] = pods.as_slice() else { return Ok(Some(format!("{} pods of the workload", pods.len()))) };
    if pod.condition("Ready") != "True" {
        return Ok(Some(format!("pod {} is {}, not ready", pod.name(), pod.text("/status/phase"))));
    }
    volume_incomplete(cluster).await
}

async fn node_out_of_service(bench: &Bench) -> Result<Option<String>> {
    for name in &bench.nodes {
        let node = bench.cluster.get(&NODE, "", name).await?;
        if node.pointer("/spec/unschedulable") == Some(&Value::Bool(true)) {
            return Ok(Some(format!("node {name} is cordoned, and not by us")));
        }
        if node.condition("Ready") != "True" {
            return Ok(Some(format!("node {name} is not Ready")));
        }
    }
    Ok(None)
}

async fn storage_incomplete(bench: &Bench) -> Result<Option<String>> {
    let managers = bench.cluster.list(&LH_INSTANCE_MANAGER, &bench.cluster.longhorn, "").await?;
    for node in &bench.nodes {
        let ours = managers.iter().find(|m| m.text("/spec/nodeID") == node && m.text("/spec/dataEngine") != "v2");
        let state = ours.map_or("missing", |m| m.text("/status/currentState"));
        if state != "running" {
            return Ok(Some(format!("instance manager of {node} is {state}")));
        }
    }
    replicas_missing(&bench.cluster, &bench.cluster.longhorn).await
}

/// A `Deployment` or `StatefulSet` of a namespace that has fewer ready pods than it should.
async fn replicas_missing(cluster: &Cluster, namespace: &str) -> Result<Option<String>> {
    for kind in [&DEPLOYMENT, &STATEFULSET] {
        for object in cluster.list(kind, namespace, "").await? {
            let count = |pointer| object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
            let (wanted, ready) = (count("/spec/replicas"), count("/status/readyReplicas"));
            if ready < wanted {
                return Ok(Some(format!("{} has {ready} of {wanted} pods ready", object.name())));
            }
        }
    }
    Ok(None)
}

async fn volume_incomplete(cluster: &Cluster) -> Result<Option<String>> {
    let volume = workload::running(cluster).await?.handle;
    let found = cluster.get(&LH_VOLUME, &cluster.longhorn, &volume).await?;
    let (state, robustness) = (found.text("/status/state"), found.text("/status/robustness"));
    if (state, robustness) != ("attached", "healthy") {
        return Ok(Some(format!("volume is {state}, {robustness}")));
    }
    let snapshots = cluster.list(&LH_SNAPSHOT, &cluster.longhorn, &format!("longhornvolume={volume}")).await?;
    let purging = snapshots.iter().find(|s| s.has("/metadata/deletionTimestamp") && !is_head_parent(s));
    Ok(purging.map(|s| format!("snapshot {} is being removed", s.name())))
}

/// Longhorn keeps a removed snapshot as long as it is the last one before the live data.
fn is_head_parent(snapshot: &Value) -> bool {
    snapshot.pointer("/status/children").is_some_and(|c| c.get("volume-head").is_some())
}

/// A stranded attachment is retried after up to five minutes; any change of its object has it retried at once.
async fn kick_attacher(cluster: &Cluster, last: &mut Instant) -> Result<()> {
    if last.elapsed() < KICK {
        return Ok(());
    }
    *last = Instant::now();
    for attachment in cluster.list(&ATTACHMENT, "", "").await? {
        if attachment.has("/status/attachError") || attachment.has("/status/detachError") {
            let now = Timestamp::now().to_string();
            let patch = json!({"metadata": {"annotations": {"handoff-e2e/kicked": now}}});
            // it may be gone by now, and then all is well
            let _ = cluster.merge(&ATTACHMENT, "", attachment.name(), &patch).await;
        }
    }
    Ok(())
}
