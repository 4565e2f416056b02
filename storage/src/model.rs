//! What is seen of a volume, its attach requests, backups and snapshots, in terms that hold for any storage manager.

use hashbrown::HashMap;
use jiff::Timestamp;

/// Node → why it cannot host volumes of one kind; `None`: it can. Nodes that are not in it are not the storage
/// manager's.
pub type HostTable = HashMap<String, Option<String>>;

/// State of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VolumeState {
    /// On a node, in use or ready for use.
    Attached,
    /// On its way to a node.
    Attaching,
    /// On its way off a node.
    Detaching,
    /// On no node.
    Detached,
    /// Creating, deleting, …
    Other,
}

/// A request that the volume be attached to a node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AttachRequest {
    /// Its identity in the storage manager.
    pub id: String,
    /// The node.
    pub node: String,
    /// It serves a workload (came through CSI, or stands in for that).
    pub workload: bool,
    /// It carries our mark: a pre-stage that was not adopted yet.
    pub ours: bool,
    /// The storage manager says the volume is attached as asked.
    pub satisfied: bool,
}

/// One copy of the data.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ReplicaView {
    /// Node it lives on.
    pub node: String,
    /// Its process runs.
    pub running: bool,
    /// It is marked failed.
    pub failed: bool,
}

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VolumeView {
    /// State.
    pub state: VolumeState,
    /// Node it is attached to now.
    pub current_node: Option<String>,
    /// Node the storage manager wants it on.
    pub wanted_node: Option<String>,
    /// The data path runs on the current node.
    pub engine_running: bool,
    /// The block device is announced there.
    pub serving: bool,
    /// Who asks for it, where.
    pub requests: Vec<AttachRequest>,
    /// Version of these requests; a request of ours is placed under it.
    pub requests_version: String,
    /// Its copies.
    pub replicas: Vec<ReplicaView>,
}

impl VolumeView {
    /// Attached to `node`, wanted there, data path running.
    pub fn is_settled_on(&self, node: &str) -> bool {
        self.state == VolumeState::Attached
            && self.current_node.as_deref() == Some(node)
            && self.wanted_node.as_deref() == Some(node)
            && self.engine_running
    }

    /// The workload's request for `node`.
    pub fn request_for(&self, node: &str) -> Option<&AttachRequest> {
        self.requests.iter().find(|r| r.workload && r.node == node)
    }
}

/// State of a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BackupState {
    /// Accepted, not uploading as far as is known.
    Queued,
    /// Uploading.
    Running,
    /// Complete.
    Completed,
    /// Ended without being complete; the storage manager will not try again.
    Lost,
    /// Being deleted.
    Deleting,
}

/// A backup made from a snapshot in this cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BackupView {
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
    /// `resourceVersion` it was seen at.
    pub resource_version: String,
    /// State.
    pub state: BackupState,
    /// Progress of the present run, percent.
    pub progress: u8,
    /// Snapshot it is made from.
    pub snapshot: String,
    /// Backup target.
    pub target: String,
    /// Why that target cannot be reached, as the storage manager saw when it looked last; `None`: it can, or nobody knows.
    pub target_unavailable: Option<String>,
    /// `full` or `incremental`.
    pub mode: String,
    /// Job that made it, if one did.
    pub recurring_job: Option<String>,
    /// Address of the replica that uploads or uploaded it.
    pub replica_address: Option<String>,
    /// The storage manager's error text.
    pub error: Option<String>,
    /// When the present run ended.
    pub ended_at: Option<Timestamp>,
    /// When the storage manager was last asked to look whether it is complete after all (whole seconds).
    pub asked_at: Option<Timestamp>,
    /// Creation time.
    pub created: Option<Timestamp>,
    /// Bytes the last run uploaded.
    pub uploaded_bytes: Option<u64>,
}

impl BackupView {
    /// A move now could interrupt it.
    pub fn in_flight(&self) -> bool {
        matches!(self.state, BackupState::Queued | BackupState::Running)
    }
}

/// A snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SnapshotView {
    /// When its data was frozen.
    pub created: Option<Timestamp>,
    /// Why a backup can no longer be made from it; `None`: it can.
    pub unusable: Option<String>,
}

/// Whether pre-staging is allowed on a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PreStageGate {
    /// Without it the pod waits for the backup.
    Needed,
    /// It saves time.
    Useful,
    /// Version unknown: off.
    Off,
}

/// What is allowed on the version that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gates {
    /// The version, as the storage manager states it.
    pub version: String,
    /// Pre-staging.
    pub prestage: PreStageGate,
}

/// Parts of the storage manager whose pods must not leave a node before its volumes have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StorageRole {
    /// Runs replicas and engines of its node.
    InstanceManager,
    /// Attaches and provisions for the whole cluster.
    CsiController,
}
