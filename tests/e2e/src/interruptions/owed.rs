//! What is owed: how backups are made for each way, and interruptions of the record, not of the pod.

use super::{Way, passage::Scene, pods};
use crate::{
    backup::{self, Backup},
    bench::Bench,
    cluster::{
        Cluster, LH_BACKUP, LH_RECURRING_JOB, LH_SNAPSHOT, LH_VOLUME, Read, SNAPSHOT, SNAPSHOT_CLASS, SNAPSHOT_CONTENT,
        until,
    },
    journey::{self, Cargo, Compared},
    report::{self, Claim},
    restore, s3, settle,
    workload::{self, NAMESPACE_NAME, Running, kubectl},
};
use anyhow::{Context, Result};
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use serde_json::{Value, json};
use std::time::Duration;

const LIMIT: Duration = Duration::from_mins(5);
const JOB: &str = "handoff-e2e";
const CLASS: &str = "handoff-e2e";
const CSI_SNAPSHOT: &str = "handoff-e2e";

/// Fresh data and a backup in flight, made the way's own way.
pub async fn load(bench: &Bench, way: Way, workload: &Running) -> Result<Cargo> {
    match way {
        Way::FullMode => journey::load(bench, workload, Some("full")).await,
        Way::RecurringJob => load_by(bench, workload, async || start_job(bench, workload).await).await,
        Way::CsiSnapshot => load_by(bench, workload, async || start_csi(bench).await).await,
        _ => journey::load(bench, workload, Some("incremental")).await,
    }
}

/// Fresh data, and a backup that somebody else makes.
async fn load_by(bench: &Bench, workload: &Running, start: impl AsyncFnOnce() -> Result<()>) -> Result<Cargo> {
    let cluster = &bench.cluster;
    workload::write(&workload.pod, "before", bench.data).await?;
    let at_snapshot = workload::checksums(&workload.pod).await?;
    let since = journey::log_position(bench).await?;
    start().await?;
    let mut found = None;
    until(LIMIT, "the backup to be made", async || {
        let backups = cluster.list(&LH_BACKUP, &cluster.longhorn, "").await?;
        let ours =
            backups.iter().find(|b| b.pointer("/metadata/labels/backup-volume") == Some(&json!(workload.handle)));
        found = ours.map(|b| Backup { name: b.name().to_owned(), uid: b.text("/metadata/uid").to_owned() });
        Ok(found.is_none().then(|| "no backup of the volume yet".to_owned()))
    })
    .await?;
    let backup = found.context("no backup was made")?;
    backup::reach(cluster, &backup, bench.common.at_progress, LIMIT).await?;
    let progress = backup::state(cluster, &backup).await?.progress;
    Ok(Cargo { at_drain: at_snapshot.clone(), at_snapshot, backup: Some((backup, progress)), since })
}

/// A recurring job that is due in the next minute, and then not for a day.
async fn start_job(bench: &Bench, workload: &Running) -> Result<()> {
    let cluster = &bench.cluster;
    let soon = (Timestamp::now() + SignedDuration::from_secs(75)).to_zoned(TimeZone::UTC);
    let cron = format!("{} {} * * *", soon.minute(), soon.hour());
    let job = json!({"apiVersion": "longhorn.io/v1beta2", "kind": "RecurringJob",
        "metadata": {"name": JOB, "namespace": cluster.longhorn},
        "spec": {"name": JOB, "task": "backup", "cron": cron, "retain": 2, "concurrency": 1, "groups": [],
            "labels": {}, "parameters": {}}});
    cluster.apply(&LH_RECURRING_JOB, &job).await?;
    let label = format!("recurring-job.longhorn.io/{JOB}");
    let patch = json!({"metadata": {"labels": {label: "enabled"}}});
    cluster.merge(&LH_VOLUME, &cluster.longhorn, &workload.handle, &patch).await
}

/// Removes the job.
pub async fn remove_job(bench: &Bench) -> Result<()> {
    bench.cluster.delete(&LH_RECURRING_JOB, &bench.cluster.longhorn, JOB).await
}

/// The class of snapshots that are backups.
pub async fn snapshot_class(bench: &Bench) -> Result<()> {
    let class = json!({"apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotClass",
        "metadata": {"name": CLASS}, "driver": "driver.longhorn.io", "deletionPolicy": "Delete",
        "parameters": {"type": "bak"}});
    bench.cluster.apply(&SNAPSHOT_CLASS, &class).await.context("are CSI snapshots installed?")
}

async fn start_csi(bench: &Bench) -> Result<()> {
    let snapshot = json!({"apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot",
        "metadata": {"name": CSI_SNAPSHOT, "namespace": NAMESPACE_NAME},
        "spec": {"volumeSnapshotClassName": CLASS, "source": {"persistentVolumeClaimName": "data-db-0"}}});
    bench.cluster.apply(&SNAPSHOT, &snapshot).await
}

/// The handle that Kubernetes has for the snapshot; empty before it has one.
async fn handle(cluster: &Cluster) -> Result<(String, bool)> {
    let snapshot = cluster.get(&SNAPSHOT, NAMESPACE_NAME, CSI_SNAPSHOT).await?;
    let ready = snapshot.pointer("/status/readyToUse") == Some(&Value::Bool(true));
    let content = snapshot.text("/status/boundVolumeSnapshotContentName");
    let content = cluster.find(&SNAPSHOT_CONTENT, "", content).await?;
    Ok((content.map(|c| c.text("/status/snapshotHandle").to_owned()).unwrap_or_default(), ready))
}

/// The pod moved while the `VolumeSnapshot` was being made: it becomes ready, under the handle it had.
pub async fn csi_snapshot(scene: &Scene<'_>) -> Result<Vec<Claim>> {
    let cluster = &scene.bench.cluster;
    let (before, early) = handle(cluster).await?;
    let mut claims = pods::delete(scene).await?;
    let waited = until(Duration::from_mins(10), "the VolumeSnapshot to be ready", async || {
        Ok((!handle(cluster).await?.1).then(|| "not ready to use".to_owned()))
    })
    .await;
    let (after, _) = handle(cluster).await?;
    claims.push(Claim::new("the VolumeSnapshot was not ready before", !early, ""));
    claims.push(Claim::new("the VolumeSnapshot is ready to use in the end", waited.is_ok(), ""));
    let same = !after.is_empty() && (before.is_empty() || before == after) && after.ends_with(&scene.backup.name);
    claims.push(Claim::new("its handle is the backup's, and never changed", same, format!("'{before}' → '{after}'")));
    Ok(claims)
}

/// A second snapshot and its backup, both in flight when the pod moves.
pub async fn two_backups(scene: &Scene<'_>) -> Result<Vec<Claim>> {
    let (bench, workload) = (scene.bench, scene.workload);
    let name = format!("{}-second", scene.backup.name);
    let at_snapshot = workload::checksums(&workload.pod).await?;
    backup::snapshot(&bench.cluster, workload, &name).await?;
    let second = backup::start(&bench.cluster, workload, &name, "incremental").await?;
    let first = backup::state(&bench.cluster, scene.backup).await?;
    let mut claims = vec![Claim::new("both were in flight", first.word != "Completed", first.word)];
    claims.extend(pods::delete(scene).await?);
    let end = backup::finish(&bench.cluster, &second).await?;
    let own = end.same && end.word == "Completed";
    claims.push(Claim::new("the second completed under its own name", own, format!("{name} {}", end.word)));
    if own {
        settle::uncordon(bench).await?;
        settle::storage(bench).await?;
        let found = restore::checksums(&bench.cluster, &end.url, &bench.common.image).await?;
        let restored = Compared::of(&at_snapshot, &found);
        claims.push(report::compared("the second's restored data equals its snapshot's", &restored));
    }
    Ok(claims)
}

/// Complete in the target, `Error` in the cluster, and then a move: it must be found complete, not run again.
pub async fn complete_in_target(scene: &Scene<'_>) -> Result<Vec<Claim>> {
    let (bench, cluster) = (scene.bench, &scene.bench.cluster);
    bench.link_open().await?;
    backup::finish(cluster, scene.backup).await?;
    let since = journey::log_position(bench).await?;
    cordon_and_break(scene).await?;
    kubectl(&["delete", "pod", "-n", NAMESPACE_NAME, &scene.workload.pod, "--wait=false"]).await?;
    scene.ready().await?;
    let end = backup::finish(cluster, scene.backup).await?;
    let mut claims = vec![Claim::new("it was found complete", end.word == "Completed", end.word)];
    if let (Some(lab), Some(since)) = (&bench.lab, since) {
        let record = s3::puts(lab, since, &format!("/backup_{}.cfg", scene.backup.name)).await?;
        claims.push(Claim::new("its record in the target was not touched", record == 0, format!("{record} writes")));
        let blocks = s3::count(lab, since, &scene.workload.handle).await?;
        claims.push(Claim::new("nothing was uploaded again", blocks.blocks == 0, format!("{} blocks", blocks.blocks)));
    }
    Ok(claims)
}

/// As when Longhorn missed the last step of an upload.
async fn cordon_and_break(scene: &Scene<'_>) -> Result<()> {
    let cluster = &scene.bench.cluster;
    pods::cordon(scene.bench, &scene.workload.node).await?;
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let status = json!({"status": {"state": "Error", "error": "the upload was not seen to end", "lastSyncedAt": now}});
    cluster.merge_status(&LH_BACKUP, &cluster.longhorn, &scene.backup.name, &status).await
}

/// The snapshot is protected while its backup is owed; who insists is obeyed.
pub async fn delete_snapshot(scene: &Scene<'_>) -> Result<Vec<Claim>> {
    let namespace = scene.bench.cluster.longhorn.as_str();
    let object = format!("snapshots.longhorn.io/{}", scene.backup.name);
    pods::cordon(scene.bench, &scene.workload.node).await?;
    kubectl(&["delete", "pod", "-n", NAMESPACE_NAME, &scene.workload.pod, "--wait=false"]).await?;
    let denied = kubectl(&["delete", "-n", namespace, &object, "--wait=false"]).await;
    let said = denied.as_ref().err().map(|e| format!("{e:#}")).unwrap_or_default();
    let named = said.contains(&scene.workload.volume) && said.contains(&scene.backup.name);
    let mut claims = vec![Claim::new("the deletion is denied, and the handoff named", named, said)];
    kubectl(&["annotate", "-n", namespace, &object, "volumehandoff.io/allow-snapshot-deletion=true"]).await?;
    let allowed = kubectl(&["delete", "-n", namespace, &object, "--wait=false"]).await;
    let said = allowed.as_ref().err().map(|e| format!("{e:#}")).unwrap_or_default();
    claims.push(Claim::new("with the annotation it is allowed", allowed.is_ok(), said));
    scene.ready().await?;
    until(LIMIT, "the snapshot to go", async || {
        let found = scene.bench.cluster.find(&LH_SNAPSHOT, namespace, &scene.backup.name).await?;
        Ok(found.filter(|s| !s.has("/metadata/deletionTimestamp")).map(|_| "still there".to_owned()))
    })
    .await?;
    Ok(claims)
}

/// Nobody protects the backup itself from its owner.
pub async fn delete_backup(scene: &Scene<'_>) -> Result<Vec<Claim>> {
    let namespace = scene.bench.cluster.longhorn.as_str();
    let object = format!("backups.longhorn.io/{}", scene.backup.name);
    pods::cordon(scene.bench, &scene.workload.node).await?;
    kubectl(&["delete", "pod", "-n", NAMESPACE_NAME, &scene.workload.pod, "--wait=false"]).await?;
    kubectl(&["delete", "-n", namespace, &object, "--wait=false"]).await?;
    scene.ready().await?;
    Ok(vec![])
}
