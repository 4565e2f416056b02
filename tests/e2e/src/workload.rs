//! The workload that is moved: one pod with an ext4 volume, its random data, and the checksums of that.

use crate::{
    args::WorkloadKind,
    bench,
    cluster::{
        CLAIM, Cluster, DEPLOYMENT, LH_BACKUP_VOLUME, LH_VOLUME, NAMESPACE, POD, Read, STATEFULSET, STORAGE_CLASS,
        VOLUME,
    },
};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::{collections::BTreeMap, process::Stdio, time::Duration};
use tokio::process::Command;

/// Everything of ours is in this namespace.
pub const NAMESPACE_NAME: &str = "handoff-e2e";
/// Our storage class: ext4.
pub const CLASS: &str = "handoff-e2e";
/// Label of the workload's pods.
pub const LABELS: &str = "app=handoff-e2e";
/// Size of the volume.
pub const SIZE: &str = "1Gi";
/// Files that a set of data is spread over.
const FILES: u32 = 10;
/// A namespace with volumes to detach and delete.
const REMOVAL: Duration = Duration::from_mins(5);

/// Checksums by file.
pub type Checksums = BTreeMap<String, String>;

/// The workload's pod and where it is.
#[derive(Clone, Debug)]
pub struct Running {
    /// The pod.
    pub pod: String,
    /// Its UID.
    pub uid: String,
    /// Its node.
    pub node: String,
    /// The `PersistentVolume`.
    pub volume: String,
    /// Longhorn's name of it.
    pub handle: String,
}

/// Deploys the workload with two replicas of its volume. `settle` waits until it is ready.
pub async fn deploy(cluster: &Cluster, kind: WorkloadKind, image: &str) -> Result<()> {
    deploy_with(cluster, kind, image, &json!({"numberOfReplicas": "2"})).await
}

/// Deploys the workload on a volume with these parameters of its storage class.
pub async fn deploy_with(cluster: &Cluster, kind: WorkloadKind, image: &str, parameters: &Value) -> Result<()> {
    cluster
        .apply(&NAMESPACE, &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE_NAME}}))
        .await?;
    cluster.apply(&STORAGE_CLASS, &storage_class(CLASS, parameters)).await?;
    let claim = json!({"accessModes": ["ReadWriteOnce"], "storageClassName": CLASS,
        "resources": {"requests": {"storage": SIZE}}});
    let metadata = json!({"name": "db", "namespace": NAMESPACE_NAME});
    let selector = json!({"matchLabels": {"app": "handoff-e2e"}});
    match kind {
        WorkloadKind::Statefulset => {
            let object = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": metadata, "spec": {
                "serviceName": "db", "replicas": 1, "selector": selector, "template": pod_template(image, None),
                "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": claim}]}});
            cluster.apply(&STATEFULSET, &object).await
        }
        WorkloadKind::Deployment => {
            let object = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
                "metadata": {"name": "data-db", "namespace": NAMESPACE_NAME}, "spec": claim});
            cluster.apply(&CLAIM, &object).await?;
            let object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": {
                "replicas": 1, "selector": selector, "strategy": {"type": "Recreate"},
                "template": pod_template(image, Some("data-db"))}});
            cluster.apply(&DEPLOYMENT, &object).await
        }
    }
}

/// A storage class of ours.
pub fn storage_class(name: &str, parameters: &Value) -> Value {
    let mut all =
        json!({"staleReplicaTimeout": "30", "fsType": "ext4", "dataLocality": "disabled", "dataEngine": "v1"});
    if let (Some(all), Some(more)) = (all.as_object_mut(), parameters.as_object()) {
        all.extend(more.clone());
    }
    json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name},
        "provisioner": "driver.longhorn.io", "reclaimPolicy": "Delete", "volumeBindingMode": "Immediate",
        "parameters": all})
}

/// The pod: it does nothing, and ends at once when asked to.
pub fn pod_spec(image: &str, claim: Option<&str>) -> Value {
    let mut spec = json!({
        "terminationGracePeriodSeconds": 30,
        "enableServiceLinks": false,
        "automountServiceAccountToken": false,
        "containers": [{
            "name": "db", "image": image, "imagePullPolicy": "IfNotPresent",
            "command": ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 3600 & wait $!; done"],
            "volumeMounts": [{"name": "data", "mountPath": "/data"}],
        }],
    });
    if let Some(claim) = claim {
        spec["volumes"] = json!([{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]);
    }
    spec
}

fn pod_template(image: &str, claim: Option<&str>) -> Value {
    json!({"metadata": {"labels": {"app": "handoff-e2e"}}, "spec": pod_spec(image, claim)})
}

/// The workload's pod, which must be ready.
pub async fn running(cluster: &Cluster) -> Result<Running> {
    let pods = cluster.list(&POD, NAMESPACE_NAME, LABELS).await?;
    let pod = pods.iter().find(|p| p.condition("Ready") == "True" && !p.has("/metadata/deletionTimestamp"));
    let pod = pod.context("no pod of the workload is ready")?;
    let claim = pod.items("/spec/volumes").iter().map(|v| v.text("/persistentVolumeClaim/claimName"));
    let claim = claim.into_iter().find(|c| !c.is_empty()).context("the workload's pod has no claim")?;
    let claim = cluster.get(&CLAIM, NAMESPACE_NAME, claim).await?;
    let volume = cluster.get(&VOLUME, "", claim.text("/spec/volumeName")).await?;
    Ok(Running {
        pod: pod.name().to_owned(),
        uid: pod.text("/metadata/uid").to_owned(),
        node: pod.text("/spec/nodeName").to_owned(),
        volume: volume.name().to_owned(),
        handle: volume.text("/spec/csi/volumeHandle").to_owned(),
    })
}

/// The workload's claim.
pub async fn claim(cluster: &Cluster, volume: &Running) -> Result<String> {
    let volume = cluster.get(&VOLUME, "", &volume.volume).await?;
    Ok(volume.text("/spec/claimRef/name").to_owned())
}

/// Writes fresh random data, in a set of files that replaces the last one of that name.
pub async fn write(pod: &str, set: &str, mib: u32) -> Result<()> {
    let bytes = u64::from(mib) * 1024 * 1024 / u64::from(FILES);
    let script =
        format!("cd /data && for i in $(seq {FILES}); do head -c {bytes} /dev/urandom >{set}-$i || exit 1; done; sync");
    shell(pod, &script).await.map(drop)
}

/// Checksums of all files.
pub async fn checksums(pod: &str) -> Result<Checksums> {
    let text = shell(pod, "cd /data && find . -type f ! -path './lost+found/*' -exec sha256sum {} +").await?;
    let pairs = text.lines().filter_map(|line| line.split_once("  "));
    let sums: Checksums = pairs.map(|(sum, file)| (file.to_owned(), sum.to_owned())).collect();
    if sums.is_empty() {
        bail!("pod {pod} has no data to check");
    }
    Ok(sums)
}

/// What differs between two sets of checksums, for people; `None` when nothing does.
pub fn difference(expected: &Checksums, found: &Checksums) -> Option<String> {
    let missing = expected.keys().filter(|f| !found.contains_key(*f)).map(|f| format!("{f} is missing"));
    let extra = found.keys().filter(|f| !expected.contains_key(*f)).map(|f| format!("{f} should not be there"));
    let changed = expected.iter().filter(|(f, sum)| found.get(*f).is_some_and(|other| other != *sum));
    let all: Vec<_> = missing.chain(extra).chain(changed.map(|(f, _)| format!("{f} differs"))).collect();
    (!all.is_empty()).then(|| all.join(", "))
}

async fn shell(pod: &str, script: &str) -> Result<String> {
    kubectl(&["exec", "-n", NAMESPACE_NAME, pod, "--", "sh", "-c", script]).await
}

/// Runs kubectl and returns what it prints.
pub async fn kubectl(args: &[&str]) -> Result<String> {
    let output = Command::new("kubectl").args(args).stdin(Stdio::null()).kill_on_drop(true).output().await;
    let output = output.context("cannot run kubectl; is it in PATH?")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("kubectl {}: {}", args.join(" "), said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Removes workload, volumes and backups of this and of earlier runs.
pub async fn remove_leftovers(cluster: &Cluster) -> Result<()> {
    let ours: Vec<_> = cluster.list(&LH_VOLUME, &cluster.longhorn, "").await?;
    let ours = ours.iter().filter(|v| v.text("/status/kubernetesStatus/namespace") == NAMESPACE_NAME);
    let ours: Vec<String> = ours.map(|v| v.name().to_owned()).collect();
    cluster.remove(&NAMESPACE, "", NAMESPACE_NAME, REMOVAL).await?;
    for class in cluster.list(&STORAGE_CLASS, "", "").await?.iter().filter(|c| c.name().starts_with(CLASS)) {
        cluster.delete(&STORAGE_CLASS, "", class.name()).await?;
    }
    for volume in &ours {
        bench::rest(&format!("volume {volume} to go"), async || {
            Ok(cluster.find(&LH_VOLUME, &cluster.longhorn, volume).await?.map(|v| v.text("/status/state").to_owned()))
        })
        .await?;
    }
    forget_backups(cluster).await
}

/// Has Longhorn delete our backups, here and at the target, in its own time. What it cannot delete yet (an interrupted
/// backup keeps its lock for 150 s) it finds at the target again, and the next run has it deleted then.
async fn forget_backups(cluster: &Cluster) -> Result<()> {
    for volume in cluster.list(&LH_BACKUP_VOLUME, &cluster.longhorn, "").await? {
        if volume.text("/status/storageClassName").starts_with(CLASS) {
            cluster.delete(&LH_BACKUP_VOLUME, &cluster.longhorn, volume.name()).await?;
        }
    }
    Ok(())
}
