//! Longhorn's objects in the terms of [`crate::model`].

use super::{
    store::{BACKUP_TARGET, Store},
    ticket,
    wire::{Backup, BackupTarget, Snapshot},
};
use crate::model::{AttachRequest, BackupState, BackupView, ReplicaView, SnapshotView, VolumeState, VolumeView};

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

pub fn volume(store: &Store, name: &str) -> Option<VolumeView> {
    let volume = store.volumes.get(name)?;
    let current = volume.status.current_node_id.as_str();
    let engine = store.engines_of(name).find(|e| e.spec.active || e.spec.node_id == current);
    Some(VolumeView {
        state: match volume.status.state.as_str() {
            "attached" => VolumeState::Attached,
            "attaching" => VolumeState::Attaching,
            "detaching" => VolumeState::Detaching,
            "detached" => VolumeState::Detached,
            _ => VolumeState::Other,
        },
        current_node: some(current),
        wanted_node: some(&volume.spec.node_id),
        engine_running: engine.is_some_and(|e| e.status.current_state == "running"),
        serving: engine.is_some_and(|e| !e.status.endpoint.is_empty()),
        requests: requests(store, name),
        requests_version: store
            .attachments
            .get(name)
            .and_then(|a| a.metadata.resource_version.clone())
            .unwrap_or_default(),
        replicas: store.replicas_of(name).filter(|r| r.spec.active).map(replica).collect(),
    })
}

fn replica(replica: &super::wire::Replica) -> ReplicaView {
    ReplicaView {
        node: replica.spec.node_id.clone(),
        running: replica.status.current_state == "running",
        failed: !replica.spec.failed_at.is_empty(),
    }
}

fn requests(store: &Store, volume: &str) -> Vec<AttachRequest> {
    let Some(attachment) = store.attachments.get(volume) else { return Vec::new() };
    let statuses = &attachment.status.attachment_ticket_statuses;
    let tickets = attachment.spec.attachment_tickets.iter().map(|(id, t)| AttachRequest {
        id: id.clone(),
        node: t.node_id.clone(),
        workload: t.r#type == ticket::CSI_TYPE,
        ours: ticket::is_ours(t),
        satisfied: statuses.get(id).is_some_and(|s| s.satisfied && s.generation == t.generation),
    });
    tickets.collect()
}

/// `None` for backups that were found in the target and not made from a snapshot here.
pub fn backup(store: &Store, backup: &Backup) -> Option<BackupView> {
    let (spec, status) = (&backup.spec, &backup.status);
    if spec.snapshot_name.is_empty() {
        return None;
    }
    let labels = backup.metadata.labels.as_ref();
    // one target, called default, before 1.8
    let target = labels.and_then(|l| l.get(BACKUP_TARGET).cloned()).unwrap_or_else(|| "default".to_owned());
    Some(BackupView {
        name: backup.metadata.name.clone()?,
        uid: backup.metadata.uid.clone().unwrap_or_default(),
        resource_version: backup.metadata.resource_version.clone().unwrap_or_default(),
        state: state(backup),
        progress: u8::try_from(status.progress.clamp(0, 100)).unwrap_or_default(),
        snapshot: spec.snapshot_name.clone(),
        target_unavailable: store.backup_targets.get(&target).and_then(BackupTarget::unavailable),
        target,
        mode: if spec.backup_mode.is_empty() { "incremental".to_owned() } else { spec.backup_mode.clone() },
        recurring_job: spec.labels.get("RecurringJob").and_then(|job| some(job)),
        replica_address: some(&status.replica_address),
        error: some(&status.error),
        ended_at: status.last_synced_at.0,
        asked_at: spec.sync_requested_at.0,
        created: backup.metadata.creation_timestamp.as_ref().map(|t| t.0),
        uploaded_bytes: status.newly_upload_data_size.parse().ok(),
    })
}

fn state(backup: &Backup) -> BackupState {
    match backup.status.state.as_str() {
        _ if backup.metadata.deletion_timestamp.is_some() => BackupState::Deleting,
        "Completed" => BackupState::Completed,
        "Error" | "Unknown" => BackupState::Lost,
        "InProgress" => BackupState::Running,
        // a time of synchronisation without a final state: Longhorn will not take it up again
        _ if backup.status.last_synced_at.0.is_some() => BackupState::Lost,
        _ => BackupState::Queued,
    }
}

/// Made from a snapshot here, and a move now could interrupt it.
pub fn in_flight(backup: &Backup) -> bool {
    !backup.spec.snapshot_name.is_empty() && matches!(state(backup), BackupState::Queued | BackupState::Running)
}

pub fn snapshot(snapshot: &Snapshot) -> SnapshotView {
    let status = &snapshot.status;
    let unusable = if snapshot.metadata.deletion_timestamp.is_some() || status.mark_removed {
        Some("it is being deleted".to_owned())
    } else {
        some(&status.error)
    };
    SnapshotView { created: status.creation_time.0, unusable }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn states_of_a_backup() {
        let of = |status: serde_json::Value, deleting: bool| {
            let mut meta = json!({"name": "b"});
            if deleting {
                meta["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            }
            let wire = json!({"metadata": meta, "spec": {"snapshotName": "s"}, "status": status});
            backup(&Store::default(), &serde_json::from_value(wire).unwrap()).unwrap().state
        };
        assert_eq!(of(json!({}), false), BackupState::Queued);
        assert_eq!(of(json!({"state": "Pending"}), false), BackupState::Queued);
        assert_eq!(of(json!({"state": "InProgress"}), false), BackupState::Running);
        assert_eq!(of(json!({"state": "Error", "lastSyncedAt": "2026-01-01T00:00:00Z"}), false), BackupState::Lost);
        assert_eq!(of(json!({"state": "Unknown"}), false), BackupState::Lost);
        assert_eq!(of(json!({"state": "Completed"}), false), BackupState::Completed);
        assert_eq!(of(json!({"state": "InProgress"}), true), BackupState::Deleting);
    }

    #[test]
    fn a_probe_that_arrived_is_seen() {
        let of = |spec: serde_json::Value| {
            let wire = json!({"metadata": {"name": "b"}, "spec": spec, "status": {"state": "Error"}});
            backup(&Store::default(), &serde_json::from_value(wire).unwrap()).unwrap().asked_at
        };
        assert_eq!(of(json!({"snapshotName": "s"})), None);
        let asked = json!({"snapshotName": "s", "syncRequestedAt": "2026-01-02T03:04:05Z"});
        assert_eq!(of(asked), Some("2026-01-02T03:04:05Z".parse().unwrap()));
        assert_eq!(of(json!({"snapshotName": "s", "syncRequestedAt": null})), None);
    }

    #[test]
    fn a_backup_knows_whether_its_own_target_is_away() {
        let mut store = Store::default();
        let target = |name: &str, available: bool| {
            json!({"metadata": {"name": name}, "spec": {"backupTargetURL": "s3://b@r/", "pollInterval": "5m0s"},
                "status": {"available": available}})
            .to_string()
        };
        for (name, available) in [("default", true), ("second", false)] {
            store.put_json("backuptargets", target(name, available).as_bytes()).unwrap().unwrap();
        }
        let of = |labels: serde_json::Value| {
            let wire = json!({"metadata": {"name": "b", "labels": labels}, "spec": {"snapshotName": "s"}});
            backup(&store, &serde_json::from_value(wire).unwrap()).unwrap().target_unavailable.is_some()
        };
        assert!(!of(json!({})));
        assert!(of(json!({"backup-target": "second"})));
        assert!(!of(json!({"backup-target": "not-seen-yet"})));
    }

    #[test]
    fn backups_pulled_from_the_target_are_not_ours() {
        let wire = json!({"metadata": {"name": "b"}, "spec": {}, "status": {"state": "Completed"}});
        assert_eq!(backup(&Store::default(), &serde_json::from_value(wire).unwrap()), None);
    }
}
