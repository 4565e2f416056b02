//! Backups: made from a snapshot as a user would, followed, and brought to the point where a move hurts.

use crate::{
    cluster::{Cluster, LH_BACKUP, LH_SNAPSHOT, Read, until},
    workload::Running,
};
use anyhow::{Result, bail};
use serde_json::{Value, json};
use std::time::Duration;

/// Longhorn looks at a backup that is not ready to start only every 30 s.
const START: Duration = Duration::from_mins(2);
/// A backup over a slow link, with a move and retries in between.
const FINISH: Duration = Duration::from_mins(20);

/// A backup of the workload's volume.
#[derive(Clone, Debug)]
pub struct Backup {
    /// Its name.
    pub name: String,
    /// Its UID: what ends must be what began.
    pub uid: String,
}

/// How a backup stands.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct State {
    /// Longhorn's word; empty before it starts.
    #[serde(rename = "state")]
    pub word: String,
    /// Percent.
    pub progress: i64,
    /// Why it is where it is.
    pub error: String,
    /// Where it lies when complete.
    pub url: String,
    /// Whether the object is still the one that was created.
    pub same: bool,
}

/// Takes a snapshot of the volume, with what is on it now.
pub async fn snapshot(cluster: &Cluster, volume: &Running, name: &str) -> Result<()> {
    let object = json!({"apiVersion": "longhorn.io/v1beta2", "kind": "Snapshot",
        "metadata": {"name": name, "namespace": cluster.longhorn},
        "spec": {"volume": volume.handle, "createSnapshot": true, "labels": {}}});
    cluster.create(&LH_SNAPSHOT, object).await?;
    until(START, &format!("snapshot {name}"), async || {
        let found = cluster.get(&LH_SNAPSHOT, &cluster.longhorn, name).await?;
        let ready = found.pointer("/status/readyToUse").and_then(Value::as_bool).unwrap_or(false);
        Ok((!ready).then(|| format!("not ready to use: {}", found.text("/status/error"))))
    })
    .await
}

/// Has Longhorn back the snapshot of the same name up, `full` or `incremental`, and waits until data flows.
pub async fn start(cluster: &Cluster, volume: &Running, name: &str, mode: &str) -> Result<Backup> {
    let object = json!({"apiVersion": "longhorn.io/v1beta2", "kind": "Backup",
        "metadata": {"name": name, "namespace": cluster.longhorn,
            "labels": {"backup-volume": volume.handle, "backup-target": "default"}},
        "spec": {"snapshotName": name, "labels": {}, "backupMode": mode}});
    let created = cluster.create(&LH_BACKUP, object).await?;
    let backup = Backup { name: name.to_owned(), uid: created.text("/metadata/uid").to_owned() };
    reach(cluster, &backup, 1, START).await?;
    Ok(backup)
}

/// Waits until the backup has come this far. One that is through by then is no use: the link is too fast.
pub async fn reach(cluster: &Cluster, backup: &Backup, progress: u8, limit: Duration) -> Result<()> {
    until(limit, &format!("backup {} at {progress} %", backup.name), async || {
        let now = state(cluster, backup).await?;
        match now.word.as_str() {
            "Completed" => bail!("backup {} was through before it could be interrupted: slow the link", backup.name),
            "Error" | "Unknown" => bail!("backup {} failed: {}", backup.name, now.error),
            _ => Ok((now.progress < i64::from(progress)).then(|| format!("{} {} %", now.word, now.progress))),
        }
    })
    .await
}

/// How the backup stands now.
pub async fn state(cluster: &Cluster, backup: &Backup) -> Result<State> {
    let found = cluster.find(&LH_BACKUP, &cluster.longhorn, &backup.name).await?;
    Ok(found.map_or_else(State::default, |found| State {
        word: found.text("/status/state").to_owned(),
        progress: found.pointer("/status/progress").and_then(Value::as_i64).unwrap_or_default(),
        error: found.text("/status/error").to_owned(),
        url: found.text("/status/url").to_owned(),
        same: found.text("/metadata/uid") == backup.uid,
    }))
}

/// Waits until the backup is complete, or until nothing more can be hoped for.
pub async fn finish(cluster: &Cluster, backup: &Backup) -> Result<State> {
    let waited = until(FINISH, &format!("backup {} to complete", backup.name), async || {
        let now = state(cluster, backup).await?;
        Ok((now.same && now.word != "Completed").then(|| format!("{} {} % {}", now.word, now.progress, now.error)))
    })
    .await;
    if let Err(error) = waited {
        eprintln!("  {error:#}");
    }
    state(cluster, backup).await
}

/// How the backup ends when nobody sees to it, as far as that shows within the limit.
pub async fn give_up_after(cluster: &Cluster, backup: &Backup, limit: Duration) -> Result<State> {
    let ended = async || -> Result<Option<String>> {
        let now = state(cluster, backup).await?;
        Ok(matches!(now.word.as_str(), "" | "New" | "Pending" | "InProgress").then(|| now.word))
    };
    // one that goes on is an outcome too; what it means is the caller's to say
    if until(limit, "the backup to end", ended).await.is_err() {
        eprintln!("  the backup has not ended within {} s", limit.as_secs());
    }
    state(cluster, backup).await
}

/// Deletes the snapshots of the volume but this one, so that replicas have little to rebuild.
pub async fn prune_snapshots(cluster: &Cluster, volume: &Running, keep: &str) -> Result<()> {
    let all = cluster.list(&LH_SNAPSHOT, &cluster.longhorn, &format!("longhornvolume={}", volume.handle)).await?;
    for old in all.iter().filter(|s| s.name() != keep && s.pointer("/status/userCreated") == Some(&Value::Bool(true))) {
        cluster.delete(&LH_SNAPSHOT, &cluster.longhorn, old.name()).await?;
    }
    Ok(())
}
