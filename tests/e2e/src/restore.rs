//! A volume restored from a finished backup, as a user would: a claim of a storage class that names the backup.

use crate::{
    cluster::{CLAIM, Cluster, LH_VOLUME, POD, Read, STORAGE_CLASS, VOLUME, until},
    workload::{self, Checksums, NAMESPACE_NAME},
};
use anyhow::Result;
use serde_json::{Value, json};
use std::time::Duration;

const NAME: &str = "handoff-e2e-restore";
/// Restoring, attaching, and the attacher's back-off while Longhorn restores.
const LIMIT: Duration = Duration::from_mins(10);

/// Restores a backup by its URL and returns the checksums of what is in it. Nothing of it stays.
pub async fn checksums(cluster: &Cluster, url: &str, image: &str) -> Result<Checksums> {
    clean(cluster).await?;
    let class = workload::storage_class(NAME, &json!({"numberOfReplicas": "1", "fromBackup": url}));
    cluster.apply(&STORAGE_CLASS, &class).await?;
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": NAME, "namespace": NAMESPACE_NAME},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": NAME,
            "resources": {"requests": {"storage": workload::SIZE}}}});
    cluster.apply(&CLAIM, &claim).await?;
    // a pod that comes before Longhorn is done waits for back-offs
    until(LIMIT, "Longhorn to restore", async || restoring(cluster).await).await?;
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": NAME, "namespace": NAMESPACE_NAME},
        "spec": workload::pod_spec(image, Some(NAME))});
    cluster.apply(&POD, &pod).await?;
    until(LIMIT, "the restored volume", async || {
        let pod = cluster.get(&POD, NAMESPACE_NAME, NAME).await?;
        Ok((pod.condition("Ready") != "True").then(|| format!("pod {NAME} is {}", pod.text("/status/phase"))))
    })
    .await?;
    let found = workload::checksums(NAME).await?;
    clean(cluster).await?;
    Ok(found)
}

/// What Longhorn still has to do.
async fn restoring(cluster: &Cluster) -> Result<Option<String>> {
    let claim = cluster.get(&CLAIM, NAMESPACE_NAME, NAME).await?;
    let volume = claim.text("/spec/volumeName");
    if volume.is_empty() {
        return Ok(Some("no volume yet".to_owned()));
    }
    let handle = cluster.get(&VOLUME, "", volume).await?.text("/spec/csi/volumeHandle").to_owned();
    let found = cluster.get(&LH_VOLUME, &cluster.longhorn, &handle).await?;
    let is = |pointer| found.pointer(pointer) == Some(&Value::Bool(true));
    let state = found.text("/status/state");
    let done = is("/status/restoreInitiated") && !is("/status/restoreRequired") && state == "detached";
    Ok((!done).then(|| format!("volume is {state}")))
}

async fn clean(cluster: &Cluster) -> Result<()> {
    let claim = cluster.find(&CLAIM, NAMESPACE_NAME, NAME).await?;
    cluster.remove(&POD, NAMESPACE_NAME, NAME, LIMIT).await?;
    cluster.remove(&CLAIM, NAMESPACE_NAME, NAME, LIMIT).await?;
    cluster.delete(&STORAGE_CLASS, "", NAME).await?;
    let Some(volume) = claim.map(|c| c.text("/spec/volumeName").to_owned()).filter(|v| !v.is_empty()) else {
        return Ok(());
    };
    until(LIMIT, "the restored volume to go", async || {
        let left =
            cluster.find(&VOLUME, "", &volume).await?.or(cluster.find(&LH_VOLUME, &cluster.longhorn, &volume).await?);
        Ok(left.map(|_| "still there".to_owned()))
    })
    .await
}
