//! Longhorn's objects (`longhorn.io/v1beta2`), only the fields that are used.
//! Field names and values: longhorn-manager `k8s/pkg/apis/longhorn/v1beta2`.

use handoff_cluster::slim_meta;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::{Deserialize, Deserializer};
use std::{borrow::Cow, collections::BTreeMap};

/// Characters of a reason that are kept: it is written into a status.
const LONGEST_WHY: usize = 200;

/// Declares a Longhorn kind: wire type, `Resource`, and nothing else.
macro_rules! kind {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $plural:literal { $($field:ident : $ty:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, Deserialize)]
        #[serde(default)]
        pub struct $name {
            /// Metadata.
            #[serde(deserialize_with = "slim_meta")]
            pub metadata: ObjectMeta,
            $(#[allow(missing_docs)] pub $field: $ty),*
        }

        impl Resource for $name {
            type DynamicType = ();
            type Scope = kube::core::NamespaceResourceScope;
            fn kind((): &()) -> Cow<'_, str> { $kind.into() }
            fn group((): &()) -> Cow<'_, str> { "longhorn.io".into() }
            fn version((): &()) -> Cow<'_, str> { "v1beta2".into() }
            fn plural((): &()) -> Cow<'_, str> { $plural.into() }
            fn meta(&self) -> &ObjectMeta { &self.metadata }
            fn meta_mut(&mut self) -> &mut ObjectMeta { &mut self.metadata }
        }
    };
}

/// Declares the spec or status of a kind; absent and null fields are empty.
macro_rules! part {
    ($name:ident { $($(#[$attr:meta])* $field:ident : $ty:ty),* $(,)? }) => {
        #[derive(Clone, Debug, Default, PartialEq, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        #[allow(missing_docs)]
        pub struct $name { $(#[serde(deserialize_with = "nullable")] $(#[$attr])* pub $field: $ty),* }
    };
}

fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(d: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(d)?.unwrap_or_default())
}

kind!(
    /// A volume.
    Volume, "Volume", "volumes" { spec: VolumeSpec, status: VolumeStatus });
part!(VolumeSpec {
    #[serde(rename = "nodeID")]
    node_id: String,
    #[serde(rename = "migrationNodeID")]
    migration_node_id: String,
    access_mode: String,
    migratable: bool,
    data_engine: String,
    data_locality: String,
    disable_frontend: bool,
    image: String,
    #[serde(rename = "Standby")]
    standby: bool,
});
part!(VolumeStatus {
    state: String,
    robustness: String,
    #[serde(rename = "currentNodeID")]
    current_node_id: String,
    restore_required: bool,
    expansion_required: bool,
    clone_status: CloneStatus,
});
part!(CloneStatus { state: String });

kind!(
    /// The data path of an attached volume.
    Engine, "Engine", "engines" { spec: EngineSpec, status: EngineStatus });
part!(EngineSpec {
    volume_name: String,
    #[serde(rename = "nodeID")]
    node_id: String,
    active: bool
});
part!(EngineStatus { current_state: String, endpoint: String });

kind!(
    /// One copy of a volume's data.
    Replica, "Replica", "replicas" { spec: ReplicaSpec, status: ReplicaStatus });
part!(ReplicaSpec {
    volume_name: String,
    #[serde(rename = "nodeID")]
    node_id: String,
    failed_at: String,
    active: bool
});
part!(ReplicaStatus { current_state: String });

kind!(
    /// The attach requests of a volume; name equals the volume's.
    Attachment, "VolumeAttachment", "volumeattachments" { spec: AttachmentSpec, status: AttachmentStatus });
part!(AttachmentSpec { attachment_tickets: BTreeMap<String, Ticket> });
part!(Ticket {
    r#type: String,
    #[serde(rename = "nodeID")] node_id: String,
    parameters: BTreeMap<String, String>,
    generation: i64,
});
part!(AttachmentStatus { attachment_ticket_statuses: BTreeMap<String, TicketStatus> });
part!(TicketStatus { satisfied: bool, generation: i64 });

kind!(
    /// A backup.
    Backup, "Backup", "backups" { spec: BackupSpec, status: BackupStatus });
part!(BackupSpec {
    snapshot_name: String,
    labels: BTreeMap<String, String>,
    backup_mode: String,
    sync_requested_at: Time,
});
part!(BackupStatus {
    state: String,
    progress: i64,
    replica_address: String,
    error: String,
    last_synced_at: Time,
    newly_upload_data_size: String,
});

kind!(
    /// A snapshot.
    Snapshot, "Snapshot", "snapshots" { status: SnapshotStatus });
part!(SnapshotStatus { ready_to_use: bool, mark_removed: bool, creation_time: Time, error: String });

kind!(
    /// A node as Longhorn sees it; name equals the Kubernetes node's.
    Node, "Node", "nodes" { spec: NodeSpec, status: NodeStatus });
part!(NodeSpec { allow_scheduling: bool, eviction_requested: bool, disks: BTreeMap<String, DiskSpec> });
part!(DiskSpec { disk_type: String, allow_scheduling: bool, eviction_requested: bool, storage_reserved: i64 });
part!(NodeStatus { conditions: Vec<Condition>, disk_status: BTreeMap<String, DiskStatus> });
part!(DiskStatus {
    conditions: Vec<Condition>,
    storage_maximum: i64,
    storage_available: i64,
    storage_scheduled: i64
});
part!(Condition { r#type: String, status: String, reason: String, message: String });

impl Node {
    /// Why the node is not ready, if it is not.
    pub fn not_ready(&self) -> Option<&str> {
        let ready = self.status.conditions.iter().find(|c| c.r#type == "Ready")?;
        (ready.status != "True").then_some(ready.reason.as_str())
    }
}

kind!(
    /// The process that runs engines and replicas of a node.
    InstanceManager, "InstanceManager", "instancemanagers" { spec: InstanceManagerSpec, status: InstanceManagerStatus });
part!(InstanceManagerSpec {
    #[serde(rename = "nodeID")]
    node_id: String,
    r#type: String,
    data_engine: String
});
part!(InstanceManagerStatus { current_state: String });

impl InstanceManager {
    /// It runs engines, or is about to.
    pub fn is_up(&self) -> bool {
        matches!(self.status.current_state.as_str(), "running" | "starting")
    }
}

kind!(
    /// An engine image.
    EngineImage, "EngineImage", "engineimages" { spec: EngineImageSpec, status: EngineImageStatus });
part!(EngineImageSpec { image: String });
part!(EngineImageStatus { state: String, node_deployment_map: BTreeMap<String, bool> });

kind!(
    /// Where backups are kept.
    BackupTarget, "BackupTarget", "backuptargets" { spec: BackupTargetSpec, status: BackupTargetStatus });
part!(BackupTargetSpec {
    #[serde(rename = "backupTargetURL")]
    backup_target_url: String,
    poll_interval: String,
});
part!(BackupTargetStatus { available: bool, conditions: Vec<Condition> });

impl BackupTarget {
    /// Why backups cannot reach it, as far as Longhorn knows from its last look. Longhorn looks every
    /// `spec.pollInterval` and on request (longhorn-manager `backup_target_controller.go`); where it is told not to, what
    /// it saw once says nothing about now.
    pub fn unavailable(&self) -> Option<String> {
        let looks = !matches!(self.spec.poll_interval.as_str(), "" | "0" | "0s");
        if self.status.available || !looks || self.spec.backup_target_url.is_empty() {
            return None;
        }
        let says = self.status.conditions.iter().find(|c| c.r#type == "Unavailable" && !c.message.is_empty());
        // the store's answer can be pages long
        let why = says.and_then(|c| c.message.lines().next()).unwrap_or("Longhorn could not reach it");
        Some(why.chars().take(LONGEST_WHY).collect())
    }
}

kind!(
    /// A setting.
    Setting, "Setting", "settings" { value: String });

/// A time that may be absent, null, empty or "0001-01-01T00:00:00Z" (Go's zero time): all of these are `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Time(pub Option<Timestamp>);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(d)?;
        Ok(Self(text.parse().ok().filter(|_| !text.starts_with("0001-"))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_target_is_away_when_longhorn_looked_and_did_not_reach_it() {
        let of = |interval: &str, url: &str, available: bool, conditions: serde_json::Value| {
            let wire = json!({"metadata": {"name": "default"}, "status": {"available": available, "conditions": conditions},
                "spec": {"backupTargetURL": url, "pollInterval": interval}});
            serde_json::from_value::<BackupTarget>(wire).unwrap().unavailable()
        };
        let url = "s3://backups@region/";
        let refused = json!([{"type": "Unavailable", "status": "True", "message": "connection refused\nstack"}]);
        assert_eq!(of("5m0s", url, false, refused.clone()).unwrap(), "connection refused");
        assert_eq!(of("5m0s", url, false, json!(null)).unwrap(), "Longhorn could not reach it");
        assert_eq!(of("5m0s", url, true, refused.clone()), None);
        assert_eq!(of("0s", url, false, refused.clone()), None, "nobody looks");
        assert_eq!(of("5m0s", "", false, refused), None, "there is none");
        let long = json!([{"type": "Unavailable", "status": "True", "message": "é".repeat(900)}]);
        assert_eq!(of("5m0s", url, false, long).unwrap().chars().count(), LONGEST_WHY);
    }

    #[test]
    fn nulls_and_zero_times_are_nothing() {
        let backup: Backup = serde_json::from_value(json!({
            "metadata": {"name": "b"},
            "spec": {"snapshotName": "s", "labels": null, "backupMode": "incremental"},
            "status": {"state": "", "lastSyncedAt": null, "progress": 0, "messages": null, "newlyUploadDataSize": ""}
        }))
        .unwrap();
        assert_eq!(backup.status.last_synced_at.0, None);
        let snapshot: Snapshot =
            serde_json::from_value(json!({"metadata": {}, "status": {"creationTime": "0001-01-01T00:00:00Z"}}))
                .unwrap();
        assert_eq!(snapshot.status.creation_time.0, None);
        let snapshot: Snapshot =
            serde_json::from_value(json!({"metadata": {}, "status": {"creationTime": "2026-01-02T03:04:05Z"}}))
                .unwrap();
        assert!(snapshot.status.creation_time.0.is_some());
    }
}
