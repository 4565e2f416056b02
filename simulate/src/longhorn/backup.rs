//! A backup: asks for its volume, sends block by block from one replica, and is looked at every 2 s (longhorn-manager
//! `backup_controller.go`, `backup_monitor.go`). What cuts it ends it for good, unless its status is reset.

use super::{Session, change_tickets, target::BLOCK, volume::replica_name};
use crate::{
    api::resource::{BACKUPS, LONGHORN_VOLUMES, REPLICAS, SNAPSHOTS},
    cluster::{Cluster, STORAGE, key},
    json::{flag, is_deleting, text},
};
use handoff_cluster::ObjectKey;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    time::{Instant, interval_at},
};

const BY: &str = "longhorn";
/// How often a run is looked at.
const POLL: Duration = Duration::from_secs(2);
/// Looking for a block that is there already.
const CHECK: Duration = Duration::from_millis(2);
/// From a request to look at the record in the target until that was done.
const LOOK: Duration = Duration::from_millis(190);

/// What is backed up, and how fast.
#[derive(Clone, Debug)]
pub struct Upload {
    /// The volume.
    pub volume: String,
    /// Name of the backup.
    pub name: String,
    /// Blocks of the backup.
    pub blocks: u64,
    /// Time that one takes to send.
    pub block_time: Duration,
    /// Every block is sent, whatever is there.
    pub full: bool,
    /// The look at the end of the first run fails: the backup ends in `Error` although it is complete in the target.
    pub end_is_missed: bool,
}

/// Makes a backup and its snapshot, and keeps it going.
pub fn start(cluster: &Arc<Cluster>, upload: Upload) {
    let Upload { volume, name, full, .. } = &upload;
    let snapshot = format!("snapshot-of-{name}");
    let created = cluster.time.stamp();
    cluster.add(
        SNAPSHOTS,
        STORAGE,
        &snapshot,
        json!({
            "metadata": {"labels": {"longhornvolume": volume}}, "spec": {"volume": volume},
            "status": {"readyToUse": true, "markRemoved": false, "creationTime": created, "error": ""},
        }),
    );
    cluster.add(
        BACKUPS,
        STORAGE,
        name,
        json!({
            "metadata": {"labels": {"backup-volume": volume, "backup-target": "default"}},
            "spec": {"snapshotName": snapshot, "labels": {}, "backupMode": if *full { "full" } else { "incremental" },
                "syncRequestedAt": null},
            "status": {"state": "", "progress": 0, "lastSyncedAt": null},
        }),
    );
    let backup = Backup { of: key(STORAGE, name), cluster: cluster.clone(), upload };
    tokio::spawn(backup.run());
}

struct Backup {
    cluster: Arc<Cluster>,
    upload: Upload,
    of: ObjectKey,
}

/// Longhorn takes it up: never looked at to its end, and in no final state.
fn is_to_run(backup: &Value) -> bool {
    let open = matches!(text(backup, "/status/state"), "" | "Pending");
    backup.is_object() && open && text(backup, "/status/lastSyncedAt").is_empty() && !is_deleting(backup)
}

impl Backup {
    async fn run(mut self) {
        loop {
            let now = self.cluster.store.until(BACKUPS, &self.of, |b| b.is_null() || is_to_run(b)).await;
            if now.is_null() {
                return;
            }
            let session = self.attached().await;
            let cut = self.send(&session).await;
            self.upload.end_is_missed = false;
            self.withdraw();
            if cut {
                self.wait_for_reset().await;
            }
        }
    }

    /// Asks for the volume on its owner's node, and waits until its engine runs there.
    async fn attached(&self) -> Session {
        let mut sessions = self.cluster.longhorn.session(&self.upload.volume).subscribe();
        loop {
            let volume = self.cluster.store.get(LONGHORN_VOLUMES, &key(STORAGE, &self.upload.volume));
            let owner = volume.map(|v| text(&v.value, "/status/ownerID").to_owned()).unwrap_or_default();
            let id = format!("backup-controller-{}", self.upload.name);
            let ticket = json!({"id": id, "type": "backup-controller", "nodeID": owner, "generation": 0,
                "parameters": {"disableFrontend": "any"}});
            change_tickets(&self.cluster, BY, &self.upload.volume, |tickets| {
                tickets.entry(&id).or_insert(ticket)["nodeID"] = json!(owner);
            });
            let session = sessions.borrow_and_update().clone();
            if let Some(session) = session.filter(|session| session.node == owner) {
                return session;
            }
            // the owner follows the volume
            let _ = tokio::time::timeout(POLL, sessions.changed()).await;
        }
    }

    fn withdraw(&self) {
        let id = format!("backup-controller-{}", self.upload.name);
        change_tickets(&self.cluster, BY, &self.upload.volume, |tickets| drop(tickets.remove(&id)));
    }

    /// Sends what is missing. Whether it was cut.
    async fn send(&self, session: &Session) -> bool {
        let Upload { name, blocks, block_time, full, volume, .. } = &self.upload;
        let Some((replica, snapshot)) = self.source() else {
            self.end("Error", "the snapshot cannot be read", 0);
            return true;
        };
        let target = &self.cluster.longhorn.target;
        if !target.is_reachable() {
            self.end("Error", "the backup target cannot be reached", 0);
            return true;
        }
        self.cluster.witness.begins(name);
        let missing = target.begin(name, *blocks, *full);
        let time = |blocks: u64, each: Duration| each * u32::try_from(blocks).unwrap_or(u32::MAX);
        let checked = Instant::now() + time(blocks - missing, CHECK);
        let complete_at = checked + time(missing, *block_time);
        let mut sessions = self.cluster.longhorn.session(volume).subscribe();
        let replica_key = key(STORAGE, &replica_name(volume, &replica));
        let runs = |r: &Value| text(r, "/status/currentState") == "running";
        let (mut cut, mut complete) = (false, false);
        let mut polls = interval_at(Instant::now() + POLL, POLL);
        loop {
            let sent = || {
                let since = Instant::now().saturating_duration_since(checked).as_micros();
                u64::try_from(since / block_time.as_micros().max(1)).unwrap_or(u64::MAX).min(missing)
            };
            tokio::select! {
                biased;
                () = ended(&mut sessions, session), if !cut && !complete => cut = true,
                _ = self.cluster.store.until(REPLICAS, &replica_key, |r| !runs(r)), if !cut && !complete => cut = true,
                () = target.refuses(), if !cut && !complete => cut = true,
                () = tokio::time::sleep_until(complete_at), if !cut && !complete => {
                    complete = true;
                    target.end(name, missing, true);
                }
                () = async { let _ = polls.tick().await; self.cluster.longhorn.managed().await; } => {
                    let reachable = self.cluster.longhorn.session(volume).borrow().as_ref() == Some(session);
                    let deleted = self.cluster.store.get(BACKUPS, &self.of).is_none();
                    if complete && reachable && !self.upload.end_is_missed {
                        self.end("Completed", "", missing);
                        return false;
                    }
                    if cut || complete || deleted {
                        let why = format!("failed to get {name} backup status: connection refused");
                        self.end("Error", &why, 0);
                        return true;
                    }
                    self.say_progress(sent() + blocks - missing, &replica, &snapshot);
                    continue;
                }
            }
            if cut {
                target.end(name, sent(), false);
            }
        }
    }

    /// The node of the first replica that runs, and the snapshot, if it can be read.
    fn source(&self) -> Option<(String, String)> {
        let Cluster { store, .. } = &*self.cluster;
        let backup = store.get(BACKUPS, &self.of)?;
        let snapshot = text(&backup.value, "/spec/snapshotName").to_owned();
        let found = store.get(SNAPSHOTS, &key(STORAGE, &snapshot))?;
        let readable = flag(&found.value, "/status/readyToUse") && !is_deleting(&found.value);
        let (replicas, _) = store.list(REPLICAS, STORAGE);
        let runs = replicas.iter().find(|r| {
            text(&r.value, "/spec/volumeName") == self.upload.volume
                && text(&r.value, "/status/currentState") == "running"
        })?;
        readable.then(|| (text(&runs.value, "/spec/nodeID").to_owned(), snapshot))
    }

    fn say_progress(&self, there: u64, replica: &str, snapshot: &str) {
        let progress = 95 * there / self.upload.blocks.max(1);
        self.cluster.store.change(BY, BACKUPS, &self.of, |backup| {
            backup["status"] = json!({"state": "InProgress", "progress": progress, "lastSyncedAt": null,
                "replicaAddress": format!("tcp://{replica}:10000"), "snapshotName": snapshot, "error": ""});
        });
    }

    fn end(&self, state: &str, error: &str, sent: u64) {
        let now = self.cluster.time.stamp();
        self.cluster.store.change(BY, BACKUPS, &self.of, |backup| {
            let status = &mut backup["status"];
            status["state"] = json!(state);
            status["error"] = json!(error);
            status["lastSyncedAt"] = json!(now);
            if state == "Completed" {
                status["progress"] = json!(100);
                status["newlyUploadDataSize"] = json!((sent * BLOCK).to_string());
            }
        });
    }

    /// After a cut: whoever asks whether it is complete after all is answered if it is, and not at all if it is not.
    async fn wait_for_reset(&self) {
        let mut answered = String::new();
        loop {
            let asked = |b: &Value| text(b, "/spec/syncRequestedAt").to_owned();
            let is_asked = |b: &Value| asked(b) != answered && is_later(&asked(b), text(b, "/status/lastSyncedAt"));
            let is_over = |b: &Value| b.is_null() || is_to_run(b) || text(b, "/status/state") == "Completed";
            let now = self.cluster.store.until(BACKUPS, &self.of, |b| is_over(b) || is_asked(b)).await;
            if is_over(&now) {
                return;
            }
            answered = asked(&now);
            tokio::time::sleep(LOOK).await;
            self.cluster.longhorn.managed().await;
            if !self.cluster.longhorn.target.is_reachable() {
                continue;
            }
            self.cluster.witness.looked(&self.upload.name);
            if !self.cluster.longhorn.target.record(&self.upload.name).complete {
                continue;
            }
            let stamp = self.cluster.time.stamp();
            self.cluster.store.change(BY, BACKUPS, &self.of, |backup| {
                if text(backup, "/status/state") == "Error" {
                    backup["status"]["state"] = json!("Completed");
                    backup["status"]["progress"] = json!(100);
                    backup["status"]["lastSyncedAt"] = json!(stamp);
                }
            });
        }
    }
}

/// Waits until this engine runs no more.
async fn ended(sessions: &mut watch::Receiver<Option<Session>>, session: &Session) {
    // without a sender nothing changes any more
    let _ = sessions.wait_for(|now| now.as_ref() != Some(session)).await;
}

fn is_later(asked: &str, synced: &str) -> bool {
    let time = |text: &str| text.parse::<Timestamp>().ok();
    match (time(asked), time(synced)) {
        (Some(asked), Some(synced)) => asked > synced,
        (Some(_), None) => true,
        _ => false,
    }
}
