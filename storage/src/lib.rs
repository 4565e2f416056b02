//! Storage managers: what Handoff asks of one ([`StorageManager`]) and Longhorn behind it.
//!
//! Looking is answered from memory and never fails; doing is one small write each, idempotent, with its precondition.

mod hosting;
pub mod longhorn;
mod model;

pub use hosting::{Hosting, NewVolume};
pub use longhorn::StorageChange;
pub use model::{
    AttachRequest, BackupState, BackupView, Gates, HostTable, PreStageGate, ReplicaView, SnapshotView, StorageRole,
    VolumeState, VolumeView,
};

use futures::future::BoxFuture;
use handoff_cluster::{Pod, Watched};
use jiff::Timestamp;
use std::collections::BTreeMap;

/// Why a write to the storage manager did not happen.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The object changed since it was seen: look again.
    #[error("{what} changed meanwhile, looking again")]
    Stale {
        /// The object.
        what: String,
    },
    /// Our own checks refuse.
    #[error("{0}")]
    Refused(String),
    /// The API server or the storage manager's admission refused or did not answer.
    #[error("{what}: {source}")]
    Api {
        /// What was tried.
        what: String,
        /// The answer.
        #[source]
        source: kube::Error,
    },
}

/// A storage manager: the owner of volumes, attach requests and backups.
pub trait StorageManager: Send + Sync + 'static {
    /// Its CSI driver.
    fn driver(&self) -> &'static str;
    /// Watches that have not synced yet; empty when ready.
    fn missing(&self) -> Vec<&'static str>;
    /// Watches whose picture may be out of date.
    fn stale(&self) -> Vec<&'static str>;
    /// Its watches, for those who want to know more.
    fn watches(&self) -> Vec<Watched> {
        Vec::new()
    }
    /// What is allowed on the version that runs.
    fn gates(&self) -> Gates;

    /// The volume with this CSI handle.
    fn volume(&self, handle: &str) -> Option<VolumeView>;
    /// All backups of the volume that were made from a snapshot in this cluster, in no order.
    fn backups(&self, handle: &str) -> Vec<BackupView>;
    /// The snapshot of this name.
    fn snapshot(&self, name: &str) -> Option<SnapshotView>;
    /// Whether the volume's data path could run on the node; the reason if not.
    fn can_host(&self, handle: &str, node: &str) -> Result<(), String>;
    /// The same, for asking about many nodes. `None`: too little is known to refuse any.
    fn hosting(&self, handle: &str) -> Option<Hosting>;
    /// The same for a volume that is going to be made for a claim, with the parameters of its storage class.
    fn hosting_of_new(&self, claim: &str, bytes: u64, parameters: &BTreeMap<String, String>) -> Option<Hosting>;
    /// Handles of the volumes that have a backup in flight.
    fn busy(&self) -> Vec<String>;
    /// Whether we may ask for the volume on the node before Kubernetes does; the reason if not.
    fn may_prestage(&self, handle: &str, node: &str) -> Result<(), String>;
    /// Pre-stages that carry our mark: (volume handle, node).
    fn prestages(&self) -> Vec<(String, String)>;
    /// Which part of the storage manager a pod is, if any.
    fn role_of(&self, pod: &Pod) -> Option<StorageRole>;

    /// The storage manager's own disruption budget keeps its instance manager on the node: a data path runs there.
    fn guards(&self, _node: &str) -> bool {
        false
    }

    /// Someone has said on the volume itself that its snapshots may be deleted although a backup needs them.
    fn allows_snapshot_deletion(&self, _handle: &str) -> bool {
        false
    }

    /// Asks for the volume on the node, with our mark, if its requests are still at `version`: whoever decided on an
    /// older state must not add a second one. Does nothing when the request is there already.
    fn place_prestage(&self, handle: &str, node: &str, version: &str) -> BoxFuture<'_, Result<(), StorageError>>;
    /// Takes our request back. `false`: it is not (or no longer) ours, nothing was changed.
    fn withdraw_prestage(&self, handle: &str, node: &str) -> BoxFuture<'_, Result<bool, StorageError>>;
    /// Makes the storage manager look whether a lost backup is complete after all.
    fn probe(&self, backup: &str, now: Timestamp) -> BoxFuture<'_, Result<(), StorageError>>;
    /// Makes a lost backup run again under its own name, if it is still at `resource_version`.
    fn reset(&self, backup: &str, resource_version: &str, node: &str) -> BoxFuture<'_, Result<(), StorageError>>;
}
