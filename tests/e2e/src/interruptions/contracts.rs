//! Other programs than kubectl that evict pods, as they are: what they make of our answers.

use super::{passage::Scene, pods};
use crate::{
    cluster::{CLAIM, Read},
    journal,
    report::Claim,
    workload::{self, NAMESPACE_NAME, running},
};
use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use serde_json::json;
use std::{process::Stdio, time::Duration};
use tokio::process::Command;

const LIMIT: Duration = Duration::from_mins(2);
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

/// One round of the descheduler, which evicts what does not tolerate the taints of its node; a cordoned one has such a
/// taint. It asks the eviction API as kubectl does, and ends.
pub async fn descheduler(scene: &Scene<'_>) -> Result<Vec<Claim>> {
    let program = std::env::var_os(DESCHEDULER).with_context(|| format!("{DESCHEDULER} is not set"))?;
    pods::cordon(scene.bench, &scene.workload.node).await?;
    let policy = tempfile::NamedTempFile::new().context("a file for the descheduler's policy")?;
    std::fs::write(policy.path(), self::policy())?;
    let kubeconfig = std::env::var("KUBECONFIG").context("KUBECONFIG is not set")?;
    let output = Command::new(program)
        .args(["--kubeconfig", &kubeconfig, "--disable-metrics", "--secure-port=0", "--v=3", "--policy-config-file"])
        .arg(policy.path())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context("cannot run the descheduler")?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("the descheduler: {}", said.trim());
    }
    scene.ready().await?;
    let evicted = said.lines().find(|line| line.contains("Evicted pod") && line.contains(&scene.workload.pod));
    let after = running(&scene.bench.cluster).await?;
    Ok(vec![
        Claim::new("the descheduler says that it evicted the pod", evicted.is_some(), evicted.unwrap_or("it does not")),
        Claim::new("another pod runs in its place", after.uid != scene.workload.uid, after.pod),
    ])
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
