//! Other programs than kubectl that evict pods, as they are: what they make of our answers.

use super::{passage::Scene, pods};
use crate::{
    report::Claim,
    workload::{NAMESPACE_NAME, running},
};
use anyhow::{Context, Result, bail};
use std::process::Stdio;
use tokio::process::Command;

/// Where the descheduler is looked for; `tests/run contracts` builds it and sets this.
pub const DESCHEDULER: &str = "HANDOFF_DESCHEDULER";

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
