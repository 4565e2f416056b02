//! Replicas of the volume that go while its pod stays.

use super::{Scene, VOLUME};
use crate::{
    api::resource::REPLICAS,
    cluster::{STORAGE, key},
    json::text,
    longhorn::replica_name,
};
use serde_json::json;
use std::time::Duration;

/// Rebuilding a replica.
const REBUILD: Duration = Duration::from_secs(30);

impl Scene {
    /// The replica that uploads: the first that runs.
    pub(super) async fn kill_replica(&self) {
        let replica = key(STORAGE, &replica_name(VOLUME, "n00"));
        let stamp = self.cluster.time.stamp();
        self.cluster.store.change("longhorn", REPLICAS, &replica, |replica| {
            replica["spec"]["failedAt"] = json!(stamp);
            replica["status"]["currentState"] = json!("stopped");
        });
        tokio::time::sleep(REBUILD).await;
        self.cluster.store.change("longhorn", REPLICAS, &replica, |replica| {
            if !text(replica, "/spec/failedAt").is_empty() {
                replica["spec"]["failedAt"] = json!("");
                replica["status"]["currentState"] = json!("running");
            }
        });
    }
}
