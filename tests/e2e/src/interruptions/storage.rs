//! Interruptions of storage itself: replica, instance manager, managers, backup target. And settings.

use super::{
    nodes::uploader,
    passage::{Scene, number},
    pods,
};
use crate::{
    bench::Bench,
    cluster::{HANDOFF, LH_BACKUP, LH_BACKUP_TARGET, LH_REPLICA, LH_SETTING, LH_VOLUME, POD, Read, until},
    report::Claim,
    settle,
    workload::{NAMESPACE_NAME, kubectl},
};
use anyhow::{Context, Result};
use serde_json::json;
use std::time::Duration;

const LIMIT: Duration = Duration::from_mins(5);
/// How long the target is away: longer than an upload tries by itself.
const AWAY: Duration = Duration::from_mins(1);
/// How often Longhorn looks at the target while it is away, and by default.
const LOOK: &str = "10s";
pub const LOOK_BY_DEFAULT: &str = "5m0s";

/// Changes a setting of Longhorn's.
pub async fn set(bench: &Bench, name: &str, value: &str) -> Result<()> {
    bench.cluster.merge(&LH_SETTING, &bench.cluster.longhorn, name, &json!({"value": value})).await
}

/// The process of the replica that uploads, killed.
pub async fn kill_replica(scene: &Scene<'_>) -> Result<Vec<Claim>> {
    let (bench, cluster) = (scene.bench, &scene.bench.cluster);
    let lab = bench.lab.as_ref().context("killing a process needs --lab")?;
    let node = uploader(bench, scene.workload, scene.backup).await?;
    let backup = cluster.get(&LH_BACKUP, &cluster.longhorn, &scene.backup.name).await?;
    let port = backup.text("/status/replicaAddress").rsplit(':').next().unwrap_or_default().to_owned();
    let handle = &scene.workload.handle;
    // the program's own words: `longhorn … replica DIRECTORY … --listen :PORT`; 1.8 names the address too
    lab.on_node(&node, &format!("pkill -KILL -f -- 'replica /.*{handle}.*listen [0-9.]*:{port}$'")).await?;
    let beside = if node == scene.workload.node { "beside the pod" } else { "on the other node" };
    println!("  killed the replica {beside}");
    Ok(vec![])
}

/// The process under the attached volume, killed. Longhorn has the pod made anew.
pub async fn kill_instance_manager(scene: &Scene<'_>) -> Result<Vec<Claim>> {
    let (bench, cluster) = (scene.bench, &scene.bench.cluster);
    let lab = bench.lab.as_ref().context("killing a process needs --lab")?;
    let managers = cluster.list(&POD, &cluster.longhorn, "longhorn.io/component=instance-manager").await?;
    let here = managers.iter().find(|p| p.text("/spec/nodeName") == scene.workload.node);
    lab.kill_container(here.context("the node has no instance manager")?).await?;
    scene.ready().await?;
    Ok(vec![])
}

/// All longhorn-manager pods at once.
pub async fn restart_managers(scene: &Scene<'_>) -> Result<Vec<Claim>> {
    let namespace = scene.bench.cluster.longhorn.as_str();
    kubectl(&["delete", "pod", "-n", namespace, "-l", "app=longhorn-manager", "--wait=false"]).await?;
    kubectl(&["rollout", "status", "-n", namespace, "daemonset/longhorn-manager", "--timeout=300s"]).await?;
    Ok(vec![])
}

/// Connections to the S3 server refused, for a while.
pub async fn target_down(scene: &Scene<'_>) -> Result<Vec<Claim>> {
    let lab = scene.bench.lab.as_ref().context("stopping the S3 server needs --lab")?;
    lab.refuse_s3(true).await?;
    tokio::time::sleep(AWAY).await;
    lab.refuse_s3(false).await?;
    Ok(vec![])
}

/// The pod deleted, and connections to the S3 server refused until long after it is ready elsewhere. From the moment
/// that Longhorn knows, the handoff says so and nothing is tried.
pub async fn target_away(scene: &Scene<'_>) -> Result<Vec<Claim>> {
    let (bench, cluster) = (scene.bench, &scene.bench.cluster);
    let lab = bench.lab.as_ref().context("stopping the S3 server needs --lab")?;
    target_is_looked_at(bench, LOOK).await?;
    lab.refuse_s3(true).await?;
    pods::delete(scene).await?;
    until(LIMIT, "Longhorn to notice", async || {
        let target = cluster.get(&LH_BACKUP_TARGET, &cluster.longhorn, "default").await?;
        Ok((target.pointer("/status/available") != Some(&json!(false))).then(|| "still available".to_owned()))
    })
    .await?;
    let status = async || {
        let handoff = cluster.get(&HANDOFF, NAMESPACE_NAME, &scene.workload.volume).await?;
        let tries = handoff.items("/status/resumes").iter().map(|resume| number(resume, "/attempts")).sum::<i64>();
        anyhow::Ok((handoff.text("/status/message").to_owned(), tries))
    };
    let said = until(LIMIT, "the handoff to say so", async || {
        let (message, _) = status().await?;
        Ok((!message.contains("not available")).then_some(message))
    })
    .await;
    let (message, before) = status().await?;
    tokio::time::sleep(AWAY).await;
    let (_, after) = status().await?;
    lab.refuse_s3(false).await?;
    Ok(vec![
        Claim::new("the handoff says that the target is away", said.is_ok(), message),
        Claim::new(
            "nothing is tried while it is away",
            before == after,
            format!("{before} tries, a minute later {after}"),
        ),
    ])
}

/// How often Longhorn looks whether the target is there.
pub async fn target_is_looked_at(bench: &Bench, every: &str) -> Result<()> {
    let patch = json!({"spec": {"pollInterval": every}});
    bench.cluster.merge(&LH_BACKUP_TARGET, &bench.cluster.longhorn, "default", &patch).await
}

/// Connections to the S3 server taken again.
pub async fn target_up(bench: &Bench) -> Result<()> {
    match &bench.lab {
        Some(lab) => lab.refuse_s3(false).await,
        None => Ok(()),
    }
}

/// One replica of the volume, beside the pod if there is one and that is wanted, else on another node. Returns its node.
pub async fn one_replica(bench: &Bench, beside_the_pod: bool) -> Result<String> {
    let (cluster, before) = (&bench.cluster, settle::settle(bench).await?);
    let patch = json!({"spec": {"numberOfReplicas": 1}});
    cluster.merge(&LH_VOLUME, &cluster.longhorn, &before.handle, &patch).await?;
    let labels = format!("longhornvolume={}", before.handle);
    let replicas = cluster.list(&LH_REPLICA, &cluster.longhorn, &labels).await?;
    let beside = |r: &&serde_json::Value| (r.text("/spec/nodeID") == before.node) == beside_the_pod;
    let kept = replicas.iter().find(beside).or(replicas.first().filter(|_| beside_the_pod));
    let kept = kept.context("all replicas are beside the pod")?;
    let (kept, node) = (kept.name().to_owned(), kept.text("/spec/nodeID").to_owned());
    for extra in replicas.iter().filter(|r| r.name() != kept) {
        cluster.delete(&LH_REPLICA, &cluster.longhorn, extra.name()).await?;
    }
    until(LIMIT, "one replica", async || {
        let left = cluster.list(&LH_REPLICA, &cluster.longhorn, &labels).await?;
        let nodes = left.iter().map(|r| r.text("/spec/nodeID")).collect::<Vec<_>>();
        Ok((nodes != [node.as_str()]).then(|| nodes.join(", ")))
    })
    .await?;
    Ok(node)
}
