//! Interruptions of the pod: deleted, restarted, preempted, moved twice, scaled away.

use super::passage::Scene;
use crate::{
    backup,
    bench::Bench,
    cluster::{NODE, POD, PRIORITY_CLASS, Read, STATEFULSET, until},
    report::Claim,
    settle,
    workload::{self, NAMESPACE_NAME, Running, kubectl},
};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::time::Duration;

const LIMIT: Duration = Duration::from_mins(5);
const LOW: &str = "handoff-e2e-low";
const HIGH: &str = "handoff-e2e-high";
const INTRUDER: &str = "intruder";
/// What the workload asks for when it is to be preempted, in thousandths of a processor.
const ASKED: i64 = 100;

/// No new pod comes to the node. `settle::uncordon` undoes it.
pub async fn cordon(bench: &Bench, node: &str) -> Result<()> {
    settle::mark(&bench.cluster, node).await?;
    bench.cluster.merge(&NODE, "", node, &json!({"spec": {"unschedulable": true}})).await
}

/// The pod deleted, its node cordoned so that it has to move.
pub async fn delete(scene: &Scene<'_>) -> Result<Vec<Claim>> {
    cordon(scene.bench, &scene.workload.node).await?;
    kubectl(&["delete", "pod", "-n", NAMESPACE_NAME, &scene.workload.pod, "--wait=false"]).await?;
    scene.ready().await?;
    Ok(vec![])
}

/// To another node, without anything in flight.
pub async fn move_away(bench: &Bench, workload: &Running) -> Result<()> {
    cordon(bench, &workload.node).await?;
    kubectl(&["delete", "pod", "-n", NAMESPACE_NAME, &workload.pod, "--wait=true"]).await?;
    settle::settle(bench).await?;
    settle::uncordon(bench).await
}

/// As after a change of the image.
pub async fn rollout_restart(scene: &Scene<'_>) -> Result<Vec<Claim>> {
    cordon(scene.bench, &scene.workload.node).await?;
    kubectl(&["rollout", "restart", "-n", NAMESPACE_NAME, "statefulset/db"]).await?;
    scene.ready().await?;
    Ok(vec![])
}

/// Two priorities: a victim's and an intruder's.
pub async fn priorities(bench: &Bench) -> Result<()> {
    for (name, value) in [(LOW, -10), (HIGH, 1000)] {
        let class = json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name},
            "value": value, "preemptionPolicy": "PreemptLowerPriority"});
        bench.cluster.apply(&PRIORITY_CLASS, &class).await?;
    }
    Ok(())
}

/// Removes them, and the intruder.
pub async fn remove_priorities(bench: &Bench) -> Result<()> {
    bench.cluster.remove(&POD, NAMESPACE_NAME, INTRUDER, LIMIT).await?;
    for name in [LOW, HIGH] {
        bench.cluster.delete(&PRIORITY_CLASS, "", name).await?;
    }
    Ok(())
}

/// Makes the workload the first to go.
pub async fn lower() -> Result<()> {
    let container = json!({"name": "db", "resources": {"requests": {"cpu": format!("{ASKED}m")}}});
    let patch = json!({"spec": {"template": {"spec": {"priorityClassName": LOW, "containers": [container]}}}});
    let patch = patch.to_string();
    kubectl(&["patch", "-n", NAMESPACE_NAME, "statefulset/db", "--patch", &patch]).await?;
    kubectl(&["rollout", "status", "-n", NAMESPACE_NAME, "statefulset/db", "--timeout=300s"]).await.map(drop)
}

/// A pod that fits on the node only without the workload.
pub async fn preempt(scene: &Scene<'_>) -> Result<Vec<Claim>> {
    let (cluster, node) = (&scene.bench.cluster, &scene.workload.node);
    let free = free_cpu(scene.bench, node).await?;
    let asked = free + ASKED / 2;
    let mut spec = workload::pod_spec(&scene.bench.common.image, None);
    spec["priorityClassName"] = json!(HIGH);
    spec["nodeSelector"] = json!({"kubernetes.io/hostname": node});
    spec["containers"][0]["resources"] = json!({"requests": {"cpu": format!("{asked}m")}});
    spec["containers"][0]["volumeMounts"] = json!([]);
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": INTRUDER, "namespace": NAMESPACE_NAME},
        "spec": spec});
    cluster.apply(&POD, &pod).await?;
    scene.ready().await?;
    let intruder = cluster.get(&POD, NAMESPACE_NAME, INTRUDER).await?;
    let there = intruder.text("/spec/nodeName") == node;
    Ok(vec![Claim::new("the pod of higher priority has its place", there, format!("{asked}m free of {free}m"))])
}

/// Processor that no pod on the node has asked for, in thousandths.
async fn free_cpu(bench: &Bench, node: &str) -> Result<i64> {
    let found = bench.cluster.get(&NODE, "", node).await?;
    let all = millis(found.text("/status/allocatable/cpu")).context("the node does not say what it has")?;
    let pods = bench.cluster.list(&POD, "", "").await?;
    let here = pods.iter().filter(|p| p.text("/spec/nodeName") == node);
    let running = here.filter(|p| !matches!(p.text("/status/phase"), "Succeeded" | "Failed"));
    let asked = running.flat_map(|p| p.items("/spec/containers").to_vec());
    Ok(all - asked.filter_map(|c: Value| millis(c.text("/resources/requests/cpu"))).sum::<i64>())
}

/// `2`, `1.5` or `240m` in thousandths.
fn millis(quantity: &str) -> Option<i64> {
    if let Some(millis) = quantity.strip_suffix('m') {
        return millis.parse().ok();
    }
    let (whole, part) = quantity.split_once('.').unwrap_or((quantity, ""));
    let part = format!("{part:0<3}");
    Some(whole.parse::<i64>().ok()? * 1000 + part.get(..3)?.parse::<i64>().ok()?)
}

/// To the other node and, before the backup is complete, back.
pub async fn there_and_back(scene: &Scene<'_>) -> Result<Vec<Claim>> {
    delete(scene).await?;
    settle::uncordon(scene.bench).await?;
    for node in scene.bench.nodes.iter().filter(|node| **node != scene.workload.node) {
        cordon(scene.bench, node).await?;
    }
    move_again(scene, |node| node == scene.workload.node).await
}

/// To another node and, before the backup is complete, to a third.
pub async fn onward(scene: &Scene<'_>) -> Result<Vec<Claim>> {
    delete(scene).await?;
    move_again(scene, |node| node != scene.workload.node).await
}

/// A second move, from where the first one led.
async fn move_again(scene: &Scene<'_>, wanted: impl Fn(&str) -> bool) -> Result<Vec<Claim>> {
    let cluster = &scene.bench.cluster;
    let there = workload::running(cluster).await?;
    let owed = backup::state(cluster, scene.backup).await?;
    let still = Claim::new("the backup was still owed at the second move", owed.word != "Completed", owed.word);
    cordon(scene.bench, &there.node).await?;
    kubectl(&["delete", "pod", "-n", NAMESPACE_NAME, &there.pod, "--wait=false"]).await?;
    until(LIMIT, "the pod to run after its second move", async || {
        let now = workload::running(cluster).await;
        let arrived = now.is_ok_and(|now| now.node != there.node && now.uid != there.uid && wanted(&now.node));
        Ok((!arrived).then(|| "not ready there".to_owned()))
    })
    .await?;
    Ok(vec![still])
}

/// Away for ten seconds, then on another node.
pub async fn scale_to_zero_and_back(scene: &Scene<'_>) -> Result<Vec<Claim>> {
    let (cluster, workload) = (&scene.bench.cluster, scene.workload);
    let scale = async |replicas: u8| {
        cluster.merge(&STATEFULSET, NAMESPACE_NAME, "db", &json!({"spec": {"replicas": replicas}})).await
    };
    scale(0).await?;
    until(LIMIT, "the pod to go", async || {
        Ok(cluster.find(&POD, NAMESPACE_NAME, &workload.pod).await?.map(|_| "still there".to_owned()))
    })
    .await?;
    tokio::time::sleep(Duration::from_secs(10)).await;
    cordon(scene.bench, &workload.node).await?;
    scale(1).await?;
    scene.ready().await?;
    Ok(vec![])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_of_processor() {
        assert_eq!(millis("2"), Some(2000));
        assert_eq!(millis("240m"), Some(240));
        assert_eq!(millis("1.25"), Some(1250));
        assert_eq!(millis(""), None);
    }
}
