//! Whole nodes drained where storage itself is in the way: the last good replica, and one node after the other.

use super::{nodes::DRAIN, passage::Scene, pods, storage};
use crate::{
    bench::Bench,
    cluster::{BUDGET, LH_VOLUME, POD, Read, until},
    drain::Drain,
    handoff, journal,
    report::Claim,
    settle,
    timeline::Step,
    workload::{self, NAMESPACE_NAME, kubectl},
};
use anyhow::{Context, Result};
use serde_json::json;
use std::time::Duration;

const LIMIT: Duration = Duration::from_mins(5);
/// `kubectl drain` asks again every 5 s: what is still there then is kept on purpose.
const ASKED_AGAIN: Duration = Duration::from_secs(12);
/// So slow that the backup outlasts all drains.
const CRAWL: &str = "3mbit";

/// One replica, on the node of the pod.
pub async fn one_replica_beside_the_pod(bench: &Bench) -> Result<()> {
    let node = storage::one_replica(bench, true).await?;
    if workload::running(&bench.cluster).await?.node == node {
        return Ok(());
    }
    for other in bench.nodes.iter().filter(|other| **other != node) {
        pods::cordon(bench, other).await?;
    }
    let pod = workload::running(&bench.cluster).await?.pod;
    kubectl(&["delete", "pod", "-n", NAMESPACE_NAME, &pod, "--wait=false"]).await?;
    until(LIMIT, "the pod to run beside its replica", async || {
        let now = workload::running(&bench.cluster).await;
        Ok((!now.is_ok_and(|now| now.node == node)).then(|| "not ready there".to_owned()))
    })
    .await?;
    settle::uncordon(bench).await
}

/// The node with the pod and the only good replica of its volume. Longhorn's budget keeps the instance manager there
/// until there is another good replica; then the drain ends by itself.
pub async fn last_replica(scene: &Scene<'_>) -> Result<Vec<Claim>> {
    let (cluster, workload) = (&scene.bench.cluster, scene.workload);
    settle::mark(cluster, &workload.node).await?;
    let mut drain = Drain::start(&workload.node, None)?;
    scene.ready().await?;
    tokio::time::sleep(ASKED_AGAIN).await;
    let managers = cluster.list(&POD, &cluster.longhorn, "longhorn.io/component=instance-manager").await?;
    let kept = managers.iter().find(|p| p.text("/spec/nodeName") == workload.node);
    let stays = kept.is_some_and(|p| !p.has("/metadata/deletionTimestamp"));
    let now = workload::running(cluster).await?.node;
    let moved = now != workload.node && drain.is_running()?;
    let way = format!("{} → {now}", workload.node);
    let mut claims = vec![Claim::new("the pod moved although the drain cannot end yet", moved, way)];
    claims.push(Claim::new("the instance manager with the last replica stays", stays, ""));
    let name = kept.map(|p| p.name().to_owned()).unwrap_or_default();
    let budget = cluster.find(&BUDGET, &cluster.longhorn, &name).await?;
    claims.push(Claim::new("it is Longhorn's own budget that keeps it", budget.is_some(), name));
    let patch = json!({"spec": {"numberOfReplicas": 2}});
    cluster.merge(&LH_VOLUME, &cluster.longhorn, &workload.handle, &patch).await?;
    let (code, seconds, complaint) = drain.wait(DRAIN).await?;
    let found = format!("after {seconds:.1} s {complaint}");
    claims.push(Claim::new("with another replica the drain ended by itself", code == Some(0), found.trim()));
    let timeline = scene.observer.timeline();
    let (ready, left) = (timeline.at(Step::Ready), timeline.at(Step::StorageLeft));
    let last = ready.zip(left).is_some_and(|(ready, left)| ready < left);
    let found = format!("ready {:.1} s, storage left {:.1} s", ready.unwrap_or(-1.0), left.unwrap_or(-1.0));
    claims.push(Claim::new("storage left last", last, found));
    Ok(claims)
}

/// Each node drained and put back into service, one after the other; the pod's own first, then where it went.
pub async fn three(scene: &Scene<'_>) -> Result<Vec<Claim>> {
    let (bench, cluster) = (scene.bench, &scene.bench.cluster);
    let mut claims = Vec::new();
    let mut left = bench.nodes.clone();
    // the backup is to be owed all the way
    bench.link(CRAWL).await?;
    while !left.is_empty() {
        let here = workload::running(cluster).await?;
        let next = left.iter().position(|node| *node == here.node).unwrap_or(0);
        let node = left.remove(next);
        settle::mark(cluster, &node).await?;
        println!("  draining {node}, the pod is on {}", here.node);
        let (code, seconds, complaint) = Drain::start(&node, None)?.wait(DRAIN).await?;
        let found = format!("{node} after {seconds:.1} s {complaint}");
        claims.push(Claim::new("the drain ended by itself", code == Some(0), found.trim()));
        until(LIMIT, "the pod to run elsewhere", async || {
            let now = workload::running(cluster).await;
            Ok((!now.is_ok_and(|now| now.node != node)).then(|| "not ready elsewhere".to_owned()))
        })
        .await?;
        settle::uncordon(bench).await?;
        settle::storage(bench).await?;
    }
    bench.link_slow().await?;
    let moves = journal::find(cluster, scene.workload).await?.context("there is no handoff")?;
    let moves = moves.items("/status/history").len() + 1;
    claims.push(Claim::new("the handoff has kept account of the moves", moves >= 2, format!("{moves} moves")));
    let prestages = handoff::prestages(cluster).await?;
    claims.push(Claim::new("no pre-stage was left behind on the way", prestages.is_empty(), prestages.join(", ")));
    Ok(claims)
}
