//! What a person does to a backup that is owed.

use super::Scene;
use crate::{
    api::{
        Verb,
        resource::{BACKUPS, SNAPSHOTS},
    },
    cluster::{STORAGE, key},
};
use handoff_cluster::settings::ALLOW_SNAPSHOT_DELETION;
use serde_json::json;
use std::time::Duration;

const PERSON: &str = "kubectl";

impl Scene {
    /// Nobody protects a backup from its owner.
    pub(super) async fn delete_backup(&self) {
        let before = self.send_away_only().await;
        let deleted = self.cluster.ask(PERSON, BACKUPS, &key(STORAGE, "first"), "", Verb::Delete(json!({}))).await;
        if let Err(refusal) = deleted {
            self.cluster.witness.breaks(&format!("the backup cannot be deleted: {}", refusal.message));
        }
        self.ready_after(&before).await;
    }

    /// Refused while it is owed, unless it is annotated.
    pub(super) async fn delete_snapshot(&self) {
        let before = self.send_away_only().await;
        // a person is slower than the caches of the replicas
        tokio::time::sleep(Duration::from_secs(1)).await;
        let snapshot = key(STORAGE, "snapshot-of-first");
        let delete = async || self.cluster.ask(PERSON, SNAPSHOTS, &snapshot, "", Verb::Delete(json!({}))).await;
        if delete().await.is_ok() {
            self.cluster.witness.breaks("the snapshot of an owed backup was deleted");
        }
        self.cluster.store.change(PERSON, SNAPSHOTS, &snapshot, |snapshot| {
            snapshot["metadata"]["annotations"][ALLOW_SNAPSHOT_DELETION] = json!("true");
        });
        if let Err(refusal) = delete().await {
            self.cluster.witness.breaks(&format!("the annotation is not heeded: {}", refusal.message));
        }
        self.ready_after(&before).await;
    }
}
