//! Other programs than kubectl that evict pods, as they are: what they make of our answers.

use super::{nodes::DRAIN, passage::Scene, pods};
use crate::{
    cluster::{CLAIM, POD, Read},
    journal,
    report::Claim,
    settle,
    timeline::Step,
    workload::{self, NAMESPACE_NAME, running},
};
use anyhow::{Context, Result, bail};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use std::{process::Stdio, time::Duration};
use tokio::process::Command;

/// Where the program around Cluster API's drain is looked for; `tests/run contracts` builds it and sets this.
pub const CLUSTER_API: &str = "HANDOFF_CLUSTER_API";

const LIMIT: Duration = Duration::from_mins(3);
/// The machine controller asks every 20 s, and a round of evictions takes 10 s at the most.
const MACHINES_ASK_AGAIN: SignedDuration = SignedDuration::from_secs(32);
/// How long an eviction may be held.
const HOLD: &str = "60s";
/// So slow that the backup outlasts its hold.
const CRAWL: &str = "1mbit";

/// Where the descheduler is looked for; `tests/run contracts` builds it and sets this.
pub const DESCHEDULER: &str = "HANDOFF_DESCHEDULER";

/// From now on an eviction of the workload is held for its backup.
pub async fn hold_evictions(scene: &Scene<'_>) -> Result<()> {
    let cluster = &scene.bench.cluster;
    let annotations = json!({"volumehandoff.io/eviction-policy": "FinishIfNear", "volumehandoff.io/max-hold": HOLD});
    let claim = workload::claim(cluster, scene.workload).await?;
    cluster.merge(&CLAIM, NAMESPACE_NAME, &claim, &json!({"metadata": {"annotations": annotations}})).await
}

/// Waits until an eviction is held, slows the backup down so that it outlasts the hold, and returns the hold's deadline.
pub async fn held(scene: &Scene<'_>) -> Result<Timestamp> {
    let cluster = &scene.bench.cluster;
    let is_held = |handoff: &serde_json::Value| handoff.has("/spec/hold");
    let handoff = journal::when(cluster, scene.workload, LIMIT, "the eviction to be held", is_held).await?;
    scene.bench.link(CRAWL).await?;
    handoff.text("/spec/hold/deadline").parse().context("a hold without a deadline")
}

/// Waits for the end of that hold too: it must come by the deadline, for a tool that asks again within this time.
pub async fn ends_in_time(scene: &Scene<'_>, asks_again: SignedDuration) -> Result<Claim> {
    let deadline = held(scene).await?;
    let evicted = scene.observer.wait_for(Step::Evicted, LIMIT).await;
    let late = Timestamp::now().duration_since(deadline);
    scene.bench.link_slow().await?;
    let found = format!("{:.1} s after its deadline", late.as_secs_f64());
    Ok(Claim::new("the hold ended by its deadline", evicted && late < asks_again, found))
}

/// The drain of Cluster API's machine controller, from its own package.
pub async fn cluster_api(scene: &Scene<'_>) -> Result<Vec<Claim>> {
    let program = std::env::var_os(CLUSTER_API).with_context(|| format!("{CLUSTER_API} is not set"))?;
    let node = &scene.workload.node;
    hold_evictions(scene).await?;
    settle::mark(&scene.bench.cluster, node).await?;
    let mut command = Command::new(program);
    command.arg(node).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let drain = command.spawn().context("cannot run Cluster API's drain")?;
    let in_time = ends_in_time(scene, MACHINES_ASK_AGAIN).await?;
    scene.ready().await?;
    let ended = tokio::time::timeout(DRAIN, drain.wait_with_output()).await;
    let output = ended.context("Cluster API's drain does not end")?.context("cannot wait for Cluster API's drain")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let told = said.lines().find(|line| line.contains(&scene.workload.pod) && line.contains("held until"));
    let last = said.lines().last().unwrap_or_default().to_owned();
    let complaint = String::from_utf8_lossy(&output.stderr);
    let after = running(&scene.bench.cluster).await?;
    Ok(vec![
        Claim::new("the Machine's condition would say why it waits", told.is_some(), told.unwrap_or("it would not")),
        in_time,
        Claim::new("the drain ended by itself", output.status.success(), format!("{last} {}", complaint.trim())),
        Claim::new("another pod runs in its place", after.uid != scene.workload.uid, after.pod),
    ])
}

/// One round of the descheduler, which evicts what does not tolerate the taints of its node; a cordoned one has such a
/// taint. It asks the eviction API as kubectl does, and ends.
pub async fn descheduler(scene: &Scene<'_>) -> Result<Vec<Claim>> {
    pods::cordon(scene.bench, &scene.workload.node).await?;
    let said = deschedule(&[]).await?;
    scene.ready().await?;
    let after = running(&scene.bench.cluster).await?;
    Ok(vec![
        says(&said, "that it evicted the pod", "Evicted pod", &scene.workload.pod),
        Claim::new("another pod runs in its place", after.uid != scene.workload.uid, after.pod),
    ])
}

/// The same with evictions in background, for a pod that asks for them: the first round takes our denial for an eviction
/// under way; one after the deadline evicts.
pub async fn descheduler_in_background(scene: &Scene<'_>) -> Result<Vec<Claim>> {
    let (cluster, pod) = (&scene.bench.cluster, &scene.workload.pod);
    let asks = json!({"metadata": {"annotations": {"descheduler.alpha.kubernetes.io/request-evict-only": ""}}});
    cluster.merge(&POD, NAMESPACE_NAME, pod, &asks).await?;
    hold_evictions(scene).await?;
    pods::cordon(scene.bench, &scene.workload.node).await?;
    let gate = ["--feature-gates=EvictionsInBackground=true"];
    let first = deschedule(&gate).await?;
    let deadline = held(scene).await?;
    let stays = cluster.get(&POD, NAMESPACE_NAME, pod).await?.text("/metadata/uid") == scene.workload.uid;
    let left = deadline.duration_since(Timestamp::now()).max(SignedDuration::ZERO).unsigned_abs();
    tokio::time::sleep(left + Duration::from_secs(1)).await;
    let second = deschedule(&gate).await?;
    scene.bench.link_slow().await?;
    scene.ready().await?;
    Ok(vec![
        says(&first, "that an eviction in background is under way", "Eviction in background assumed", pod),
        Claim::new("the pod stays meanwhile", stays, format!("held until {deadline:.0}")),
        says(&second, "after the deadline that it evicted the pod", "Evicted pod", pod),
    ])
}

/// One round of the descheduler. Returns what it says.
async fn deschedule(flags: &[&str]) -> Result<String> {
    let program = std::env::var_os(DESCHEDULER).with_context(|| format!("{DESCHEDULER} is not set"))?;
    let policy = tempfile::NamedTempFile::new().context("a file for the descheduler's policy")?;
    std::fs::write(policy.path(), self::policy())?;
    let kubeconfig = std::env::var("KUBECONFIG").context("KUBECONFIG is not set")?;
    let output = Command::new(program)
        .args(["--kubeconfig", &kubeconfig, "--disable-metrics", "--secure-port=0", "--v=3", "--policy-config-file"])
        .arg(policy.path())
        .args(flags)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context("cannot run the descheduler")?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() {
        bail!("the descheduler: {}", said.trim());
    }
    Ok(said)
}

fn says(said: &str, what: &str, words: &str, pod: &str) -> Claim {
    let line = said.lines().find(|line| line.contains(words) && line.contains(pod));
    Claim::new(&format!("the descheduler says {what}"), line.is_some(), line.unwrap_or("it does not"))
}

fn policy() -> String {
    format!(
        r"apiVersion: descheduler/v1alpha2
kind: DeschedulerPolicy
profiles:
- name: cordoned
  pluginConfig:
  - name: DefaultEvictor
    args: {{}}
  - name: RemovePodsViolatingNodeTaints
    args: {{namespaces: {{include: [{NAMESPACE_NAME}]}}}}
  plugins:
    deschedule: {{enabled: [RemovePodsViolatingNodeTaints]}}
"
    )
}
