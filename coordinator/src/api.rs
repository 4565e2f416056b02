//! The `VolumeHandoff` object: one per volume, named after the `PersistentVolume`, in the claim's namespace.
//! `spec` is what was seen and is owed, written by whichever replica sees it first; `status` is the journal of the
//! lease holder. Times have sub-second precision; the list in `timeline` is what people read.

use jiff::Timestamp;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// API group.
pub const GROUP: &str = "volumehandoff.io";

/// Annotation, written by the agent of the node that is left: the volume is unstaged there. The value is
/// `spec.triggeredAt` of the move it is about.
pub const UNSTAGED: &str = "volumehandoff.io/unstaged";

/// What was seen and is owed.
#[derive(CustomResource, Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[kube(
    group = "volumehandoff.io",
    version = "v1alpha1",
    kind = "VolumeHandoff",
    plural = "volumehandoffs",
    singular = "volumehandoff",
    shortname = "vho",
    category = "storage",
    namespaced,
    status = "VolumeHandoffStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"PVC","type":"string","jsonPath":".spec.volume.claim"}"#,
    printcolumn = r#"{"name":"From","type":"string","jsonPath":".spec.from"}"#,
    printcolumn = r#"{"name":"To","type":"string","jsonPath":".status.to"}"#,
    printcolumn = r#"{"name":"Phase","type":"string","jsonPath":".status.phase"}"#,
    printcolumn = r#"{"name":"Backups","type":"string","jsonPath":".status.backupsSafe"}"#,
    printcolumn = r#"{"name":"Move","type":"string","description":"eviction to workload ready","jsonPath":".status.move"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".spec.triggeredAt"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct VolumeHandoffSpec {
    /// The volume.
    pub volume: VolumeIdentity,
    /// The pod that leaves.
    pub pod: PodIdentity,
    /// Node that is left.
    pub from: String,
    /// What started the move.
    pub trigger: Trigger,
    /// When it started; also tells one move from the next.
    pub triggered_at: Timestamp,
    /// How long the eviction of this pod may be held; counts from the first denial.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Hold>,
    /// Backups that were in flight. Nothing is taken off this list before it is safe.
    #[serde(default)]
    pub checkpoints: Vec<Checkpoint>,
}

/// A volume by all its names.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VolumeIdentity {
    /// CSI driver.
    pub driver: String,
    /// CSI volume handle.
    pub handle: String,
    /// `PersistentVolume`.
    pub volume: String,
    /// `PersistentVolumeClaim`, in this object's namespace.
    pub claim: String,
}

/// A pod, in this object's namespace.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
pub struct PodIdentity {
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
    /// Its annotation `volumehandoff.io/mode`, if it has one: it still counts while no pod is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
}

/// An eviction that is answered "not yet". It is here and not in memory so that it ends in time whichever replica
/// answers, and after a restart of all of them.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
pub struct Hold {
    /// The first denial.
    pub since: Timestamp,
    /// From here on the eviction is allowed.
    pub deadline: Timestamp,
}

/// What started a move.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash, JsonSchema)]
pub enum Trigger {
    /// An eviction passed our webhook.
    Eviction,
    /// A deletion passed our webhook.
    Deletion,
    /// The pod was seen leaving without a review (webhook unreachable, node pressure, …).
    Observed,
    /// Nothing announced it: a backup was found lost after its volume had moved.
    Lost,
}

impl Trigger {
    /// A review said so.
    pub fn is_announced(self) -> bool {
        matches!(self, Self::Eviction | Self::Deletion)
    }

    /// All of them.
    pub const ALL: [Self; 4] = [Self::Eviction, Self::Deletion, Self::Observed, Self::Lost];

    /// Its name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Eviction => "Eviction",
            Self::Deletion => "Deletion",
            Self::Observed => "Observed",
            Self::Lost => "Lost",
        }
    }
}

/// An in-flight backup as it stood when the move began.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Checkpoint {
    /// Name of the backup.
    pub backup: String,
    /// Its UID: a new backup of the same name is another one.
    pub uid: String,
    /// Snapshot it is made from.
    pub snapshot: String,
    /// When that snapshot froze the data; the order of resuming.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_created_at: Option<Timestamp>,
    /// Backup target.
    pub target: String,
    /// `full` or `incremental`.
    pub mode: String,
    /// Job that made it, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recurring_job: Option<String>,
    /// Progress then, percent.
    #[schemars(with = "i32")]
    pub progress: u8,
    /// Replica that uploaded then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replica_address: Option<String>,
    /// When this was recorded.
    pub recorded_at: Timestamp,
    /// What a person asked for about this backup, last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<Order>,
}

/// What a person asked for about one backup (`handoff resume`, `handoff abandon`).
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
pub struct Order {
    /// What.
    pub what: OrderKind,
    /// When; also tells one order from the next.
    pub at: Timestamp,
}

/// What can be asked for.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash, JsonSchema)]
pub enum OrderKind {
    /// Try now: the wait for the next try is over, and what was given up is taken up again, once.
    Resume,
    /// Stop owing it. What runs is left to run.
    Abandon,
}

/// The journal.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeHandoffStatus {
    /// `spec.triggeredAt` of the move this journal is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub move_started_at: Option<Timestamp>,
    /// Node that move leaves.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub from: String,
    /// Where the handoff stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// One sentence: what happens now, or what it waits for.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Node the volume goes to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Our pre-stage of this move.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prestage: Option<PreStage>,
    /// What became of each checkpoint.
    pub resumes: Vec<Resume>,
    /// `1/2 safe`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub backups_safe: String,
    /// `14.2s`: from the trigger to a ready workload.
    #[serde(rename = "move", skip_serializing_if = "String::is_empty")]
    pub duration: String,
    /// Standard conditions: `Checkpointed`, `Released`, `PreStaged`, `Attached`, `WorkloadReady`, `BackupsSafe`.
    pub conditions: Vec<Condition>,
    /// Steps of this move, oldest first.
    pub timeline: Vec<Step>,
    /// The last moves before this one, newest first.
    pub history: Vec<PastMove>,
    /// When all was done; the object is deleted some time after.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
}

/// Where a handoff stands.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash, JsonSchema)]
pub enum Phase {
    /// Recorded; the pod has not left yet.
    Checkpointed,
    /// The pod leaves, the volume follows.
    Moving,
    /// The volume is on the new node, the pod is not ready yet.
    Attached,
    /// The workload runs; backups are still owed.
    Resuming,
    /// Nothing is owed.
    Complete,
    /// Nothing is owed any more, but a backup could not be made whole.
    Failed,
}

impl Phase {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Checkpointed, Self::Moving, Self::Attached, Self::Resuming, Self::Complete, Self::Failed];

    /// Its name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Checkpointed => "Checkpointed",
            Self::Moving => "Moving",
            Self::Attached => "Attached",
            Self::Resuming => "Resuming",
            Self::Complete => "Complete",
            Self::Failed => "Failed",
        }
    }
}

/// Our attach request.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PreStage {
    /// Node it asks for.
    pub node: String,
    /// UID of the pod it is for; empty while that pod is only expected.
    pub pod_uid: String,
    /// When it was decided.
    pub placed_at: Timestamp,
    /// When it is withdrawn if nobody adopted it.
    pub expires_at: Timestamp,
    /// How it ended, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<PreStageOutcome>,
}

/// How a pre-stage ended.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
pub enum PreStageOutcome {
    /// The CSI driver's own request took it over.
    Adopted,
    /// Taken back: the pod went elsewhere, or it expired.
    Withdrawn,
}

/// What became of a checkpoint.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Resume {
    /// Name of the backup.
    pub backup: String,
    /// Where it stands.
    pub state: ResumeState,
    /// How often it was made to run again.
    #[schemars(with = "i32")]
    pub attempts: u32,
    /// When we asked the storage manager whether it is complete after all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probed_at: Option<Timestamp>,
    /// When it was last made to run again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When the run before that had ended, by the storage manager's clock: tells its end from that of our run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut_at: Option<Timestamp>,
    /// When it reached its last state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// Not tried again before this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_try_at: Option<Timestamp>,
    /// The order that was obeyed last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order_at: Option<Timestamp>,
    /// Why it is where it is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Bytes the storage manager says the last run uploaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i64>")]
    pub uploaded_bytes: Option<u64>,
}

/// State of an owed backup.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash, JsonSchema)]
pub enum ResumeState {
    /// In flight still, or lost and waiting for its turn.
    Waiting,
    /// Lost; asked the storage manager whether it is complete after all.
    Probing,
    /// Made to run again.
    Running,
    /// Complete.
    Completed,
    /// Not resumed because newer data of the volume is already safe.
    Superseded,
    /// Cannot be resumed; `reason` says why.
    Unrecoverable,
    /// No longer owed because a person said so.
    Abandoned,
}

impl ResumeState {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Waiting,
        Self::Probing,
        Self::Running,
        Self::Completed,
        Self::Superseded,
        Self::Unrecoverable,
        Self::Abandoned,
    ];

    /// Its name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "Waiting",
            Self::Probing => "Probing",
            Self::Running => "Running",
            Self::Completed => "Completed",
            Self::Superseded => "Superseded",
            Self::Unrecoverable => "Unrecoverable",
            Self::Abandoned => "Abandoned",
        }
    }

    /// Nothing more will happen.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Superseded | Self::Unrecoverable | Self::Abandoned)
    }
}

/// A standard condition, without `observedGeneration`.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Type.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True` or `False`.
    pub status: String,
    /// Machine-readable reason.
    pub reason: String,
    /// For people.
    #[serde(default)]
    pub message: String,
    /// When `status` last changed.
    pub last_transition_time: Timestamp,
}

/// One step of a move.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
pub struct Step {
    /// What happened.
    pub what: String,
    /// When it was seen.
    pub at: Timestamp,
}

/// A move that is over.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PastMove {
    /// When it started.
    pub started_at: Timestamp,
    /// Node that was left.
    pub from: String,
    /// Node that was reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// How long it took.
    #[serde(rename = "move", default, skip_serializing_if = "String::is_empty")]
    pub duration: String,
    /// Its steps, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub timeline: Vec<Step>,
}

impl Checkpoint {
    /// When a person said that this backup is no longer owed.
    pub fn abandoned_at(&self) -> Option<Timestamp> {
        self.order.filter(|order| order.what == OrderKind::Abandon).map(|order| order.at)
    }
}

impl VolumeHandoff {
    /// The journal; empty before the first decision.
    pub fn journal(&self) -> VolumeHandoffStatus {
        self.status.clone().unwrap_or_default()
    }

    /// Checkpoints whose backup is neither complete nor given up.
    pub fn owed(&self) -> impl Iterator<Item = &Checkpoint> {
        let resumes = self.status.as_ref().map(|s| s.resumes.as_slice()).unwrap_or_default();
        self.spec.checkpoints.iter().filter(move |c| !is_done(resumes, &c.backup))
    }

    /// The agent of the left node saw the volume unstaged during this move.
    pub fn is_unstaged(&self) -> bool {
        let said = self.metadata.annotations.as_ref().and_then(|a| a.get(UNSTAGED));
        said.is_some_and(|said| *said == self.spec.triggered_at.to_string())
    }

    /// The workload of this move runs again.
    pub fn workload_is_ready(&self) -> bool {
        let of_this_move = |s: &&VolumeHandoffStatus| s.move_started_at == Some(self.spec.triggered_at);
        let status = self.status.as_ref().filter(of_this_move);
        status.is_some_and(|s| s.timeline.iter().any(|step| step.what == "WorkloadReady"))
    }

    /// Nothing is owed and the move is over.
    pub fn is_finished(&self) -> bool {
        let status = self.status.as_ref();
        status.is_some_and(|s| s.finished_at.is_some() && s.move_started_at == Some(self.spec.triggered_at))
    }
}

/// Whether a backup's story is over.
pub fn is_done(resumes: &[Resume], backup: &str) -> bool {
    resumes.iter().any(|r| r.backup == backup && r.state.is_final())
}
