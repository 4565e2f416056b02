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

/// From the end of all managers until they work again.
const STARTS: Duration = Duration::from_secs(15);
/// How long the target is away.
const AWAY: Duration = Duration::from_mins(1);

impl Scene {
    /// All longhorn-manager pods at once: what they look at goes on meanwhile.
    pub(super) async fn restart_managers(&self) {
        self.cluster.longhorn.managers_run(false);
        tokio::time::sleep(STARTS).await;
        self.cluster.longhorn.managers_run(true);
    }

    /// Connections to the backup target refused, for a while.
    pub(super) async fn target_down(&self) {
        let target = &self.cluster.longhorn.target;
        target.set_reachable(false);
        tokio::time::sleep(AWAY).await;
        target.set_reachable(true);
    }

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
