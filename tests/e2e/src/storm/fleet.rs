//! Many pods with a small volume each, all on one node, and backups of some of them in flight.

use crate::{
    args::StormArgs,
    backup::{self, Backup},
    bench::{Bench, rest},
    cluster::{CLAIM, Cluster, LH_VOLUME, NAMESPACE, POD, Read, STATEFULSET, STORAGE_CLASS, VOLUME},
    interruptions, settle,
    workload::{self, CLASS, Checksums, NAMESPACE_NAME, Running},
};
use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use serde_json::json;
use std::{collections::BTreeMap, time::Duration};

const NAME: &str = "fleet";
/// Label of the pods.
pub const LABELS: &str = "app=handoff-e2e-fleet";
/// Data on a volume without a backup, in MiB.
const LITTLE: u32 = 4;
/// What is done at a time inside pods.
const AT_A_TIME: usize = 4;
/// All backups of the fleet have begun to upload by then.
const FLOWING: Duration = Duration::from_mins(4);

/// The fleet in its harbour.
pub struct Fleet {
    /// The node its pods are on.
    pub node: String,
    /// They, by name.
    pub pods: BTreeMap<String, Running>,
}

/// What it carries.
pub struct Cargo {
    /// Checksums by pod.
    pub data: BTreeMap<String, Checksums>,
    /// Backups in flight by pod.
    pub backups: BTreeMap<String, Backup>,
}

/// Deploys the fleet on one node.
pub async fn launch(bench: &Bench, args: &StormArgs) -> Result<Fleet> {
    let cluster = &bench.cluster;
    let node = bench.nodes.first().context("no node")?.clone();
    for other in bench.nodes.iter().filter(|other| **other != node) {
        interruptions::cordon(bench, other).await?;
    }
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE_NAME}});
    cluster.apply(&NAMESPACE, &namespace).await?;
    cluster.apply(&STORAGE_CLASS, &workload::storage_class(CLASS, &json!({"numberOfReplicas": "2"}))).await?;
    let claim = json!({"accessModes": ["ReadWriteOnce"], "storageClassName": CLASS,
        "resources": {"requests": {"storage": args.size}}});
    let labels = json!({"app": "handoff-e2e-fleet"});
    let object = json!({"apiVersion": "apps/v1", "kind": "StatefulSet",
        "metadata": {"name": NAME, "namespace": NAMESPACE_NAME},
        "spec": {"serviceName": NAME, "replicas": args.volumes, "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": workload::pod_spec(&bench.common.image, None)},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": claim}]}});
    cluster.apply(&STATEFULSET, &object).await?;
    rest("the fleet to be ready", async || {
        let pods = cluster.list(&POD, NAMESPACE_NAME, LABELS).await?;
        let ready = pods.iter().filter(|p| p.condition("Ready") == "True").count();
        Ok((ready < args.volumes).then(|| format!("{ready} of {} pods", args.volumes)))
    })
    .await?;
    settle::uncordon(bench).await?;
    muster(bench).await
}

/// The fleet as it lies now, its volumes whole: the pods of the node that has most of them.
pub async fn muster(bench: &Bench) -> Result<Fleet> {
    let cluster = &bench.cluster;
    rest("all volumes to be healthy", async || {
        let volumes = cluster.list(&LH_VOLUME, &cluster.longhorn, "").await?;
        let ill = volumes.iter().find(|v| v.text("/status/robustness") != "healthy");
        Ok(ill.map(|v| format!("{} is {}", v.name(), v.text("/status/robustness"))))
    })
    .await?;
    let mut by_node = BTreeMap::<String, BTreeMap<String, Running>>::new();
    for pod in running(cluster).await? {
        by_node.entry(pod.node.clone()).or_default().insert(pod.pod.clone(), pod);
    }
    let (node, pods) = by_node.into_iter().max_by_key(|(_, pods)| pods.len()).context("the fleet has no pod")?;
    Ok(Fleet { node, pods })
}

/// All pods of the fleet with their volumes.
pub async fn running(cluster: &Cluster) -> Result<Vec<Running>> {
    let mut all = Vec::new();
    for pod in cluster.list(&POD, NAMESPACE_NAME, LABELS).await? {
        let claim = cluster.get(&CLAIM, NAMESPACE_NAME, &format!("data-{}", pod.name())).await?;
        let volume = cluster.get(&VOLUME, "", claim.text("/spec/volumeName")).await?;
        all.push(Running {
            pod: pod.name().to_owned(),
            uid: pod.text("/metadata/uid").to_owned(),
            node: pod.text("/spec/nodeName").to_owned(),
            volume: volume.name().to_owned(),
            handle: volume.text("/spec/csi/volumeHandle").to_owned(),
        });
    }
    Ok(all)
}

/// Writes data, and starts the backups of the first few.
pub async fn load(bench: &Bench, args: &StormArgs, fleet: &Fleet) -> Result<Cargo> {
    let cluster = &bench.cluster;
    let backed_up = fleet.pods.values().take(args.backups).collect::<Vec<_>>();
    let has_backup = |pod: &str| backed_up.iter().any(|b| b.pod == pod);
    let writes = fleet.pods.keys().map(|pod| {
        let mib = if has_backup(pod) { bench.data } else { LITTLE };
        async move { workload::write(pod, "before", mib).await }
    });
    stream::iter(writes).buffer_unordered(AT_A_TIME).try_collect::<Vec<_>>().await?;
    let data = checksums(fleet).await?;
    let mut backups = BTreeMap::new();
    for volume in backed_up {
        let name = format!("e2e-{}-{}", volume.pod, Timestamp::now().as_millisecond());
        backup::snapshot(cluster, volume, &name).await?;
        backups.insert(volume.pod.clone(), backup::start(cluster, volume, &name, "incremental").await?);
    }
    for backup in backups.values() {
        backup::reach(cluster, backup, bench.common.at_progress, FLOWING).await?;
    }
    Ok(Cargo { data, backups })
}

/// Checksums of all files of all pods.
pub async fn checksums(fleet: &Fleet) -> Result<BTreeMap<String, Checksums>> {
    let looks = fleet.pods.keys().map(|pod| async move { anyhow::Ok((pod.clone(), workload::checksums(pod).await?)) });
    stream::iter(looks).buffer_unordered(AT_A_TIME).try_collect().await
}
