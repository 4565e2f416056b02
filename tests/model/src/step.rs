//! What can happen next, and how it is told.

use crate::world::{NODE_NAMES, Node};
use std::fmt;

/// Which cache of a replica stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Watch {
    /// Longhorn's objects.
    Storage,
    /// Pods, nodes, attachments.
    Kube,
    /// Handoffs.
    Handoffs,
}

/// One step of the world. Volumes, backups and replicas are indices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// An eviction is reviewed; `drain`: its node was cordoned before. `stale`: by the replica whose cache lags.
    Review {
        /// Part of a drain.
        drain: bool,
        /// The reviewing replica's cache lags.
        stale: bool,
    },
    /// The eviction that was reviewed is refused after all.
    Denied,
    /// The eviction that was reviewed takes place.
    Terminate,
    /// The pod is asked to leave and no review reached us.
    Unseen {
        /// Part of a drain.
        drain: bool,
    },
    /// The workload is scaled to zero.
    ScaleDown,
    /// The workload is scaled up again.
    ScaleUp,
    /// A node is uncordoned.
    Uncordon(Node),
    /// A backup is asked for.
    StartBackup(usize, usize),
    /// A person deletes a backup.
    DeleteBackup(usize, usize),
    /// A person deletes a snapshot.
    DeleteSnapshot(usize, usize),
    /// A person abandons an owed backup.
    Abandon(usize, usize),
    /// An upload fails by itself.
    UploadFails(usize, usize),
    /// The volume may not be pre-staged from now on.
    Refuse(usize),
    /// The volume may be pre-staged again.
    Allow(usize),
    /// A replica of ours dies.
    Crash(usize),
    /// A second replica takes itself for the leader.
    Rival(usize),
    /// A cache of a replica stands still.
    Stall(usize, Watch),
    /// A replica decides, and what it decided is carried out step by step.
    Decide(usize, usize),

    /// The kubelet is done with a pod (by UID).
    PodGone(u8),
    /// The workload makes a new pod.
    NewPod,
    /// A pod is bound.
    Bind(u8, Node),
    /// A `VolumeAttachment` is made.
    VaCreate(usize, Node),
    /// A `VolumeAttachment` is deleted, and CSI takes its request back.
    VaDelete(usize, Node),
    /// CSI is done with the detach.
    Unpublished(usize, Node),
    /// CSI asks for the volume.
    Publish(usize, Node),
    /// The attacher's back-off is over.
    Retry(usize, Node),
    /// The volumes are there and the pod gets ready.
    PodReady(u8),

    /// Longhorn begins to detach.
    DetachBegin(usize),
    /// The volume is detached; what uploaded there is dead.
    DetachDone(usize),
    /// Longhorn begins to attach.
    AttachBegin(usize, Node),
    /// The volume is attached.
    AttachDone(usize),
    /// An upload begins in the replica on a node.
    UploadBegin(usize, usize, Node),
    /// An upload is complete in the target.
    UploadDone(usize, usize),
    /// Longhorn notices how an upload ended.
    Poll(usize, usize),
    /// Longhorn answers a probe: the backup is complete.
    Answer(usize, usize),
    /// A backup is gone.
    BackupGone(usize, usize),
    /// The storage pods of a drained node leave, and the replica with them.
    ReplicaLeaves(usize, Node),

    /// A replica looks at a volume, decides, writes, acts.
    Reconcile(usize, usize),
    /// A replica writes the journal it decided on.
    Write(usize),
    /// A replica carries out its next action.
    Act(usize),
    /// A replica withdraws pre-stages that no handoff knows of.
    Reap(usize),
    /// A cache catches up.
    CatchUp,
    /// A replica learns that it does not lead any more.
    Resign(usize),
    /// A replica takes the lease.
    Lead(usize),
    /// Time passes.
    Tick,
}

impl Step {
    /// It happens sooner or later by itself: no fault, no choice of a person.
    pub fn is_fair(self) -> bool {
        !matches!(
            self,
            Self::Review { .. }
                | Self::Denied
                | Self::Unseen { .. }
                | Self::ScaleDown
                | Self::StartBackup(..)
                | Self::DeleteBackup(..)
                | Self::DeleteSnapshot(..)
                | Self::Abandon(..)
                | Self::UploadFails(..)
                | Self::Refuse(_)
                | Self::Crash(_)
                | Self::Rival(_)
                | Self::Stall(..)
                | Self::Decide(..)
        )
    }

    /// The volume it is a step of, if it is one of a single volume.
    pub fn volume(self) -> Option<usize> {
        match self {
            Self::StartBackup(v, _)
            | Self::DeleteBackup(v, _)
            | Self::DeleteSnapshot(v, _)
            | Self::Abandon(v, _)
            | Self::UploadFails(v, _)
            | Self::Refuse(v)
            | Self::Allow(v)
            | Self::Decide(_, v)
            | Self::VaCreate(v, _)
            | Self::VaDelete(v, _)
            | Self::Unpublished(v, _)
            | Self::Publish(v, _)
            | Self::Retry(v, _)
            | Self::DetachBegin(v)
            | Self::DetachDone(v)
            | Self::AttachBegin(v, _)
            | Self::AttachDone(v)
            | Self::UploadBegin(v, ..)
            | Self::UploadDone(v, _)
            | Self::Poll(v, _)
            | Self::Answer(v, _)
            | Self::BackupGone(v, _)
            | Self::ReplicaLeaves(v, _)
            | Self::Reconcile(_, v) => Some(v),
            _ => None,
        }
    }

    /// The kind of step, for counting.
    pub fn kind(self) -> String {
        let text = format!("{self:?}");
        text.split(['(', ' ']).next().unwrap_or_default().to_owned()
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let node = |n: &Node| NODE_NAMES[usize::from(*n)];
        match self {
            Self::Review { drain, stale } => {
                let drain = if *drain { ", its node is cordoned" } else { "" };
                let stale = if *stale { ", by the replica whose cache lags" } else { "" };
                write!(f, "the pod's eviction is reviewed{drain}{stale}")
            }
            Self::Denied => write!(f, "the eviction is refused after all"),
            Self::Terminate => write!(f, "the pod is asked to leave"),
            Self::Unseen { drain: false } => write!(f, "the pod is asked to leave, no review reached us"),
            Self::Unseen { drain: true } => write!(f, "its node is cordoned, the pod leaves, no review reached us"),
            Self::ScaleDown => write!(f, "the workload is scaled to zero"),
            Self::ScaleUp => write!(f, "the workload is scaled up"),
            Self::Uncordon(n) => write!(f, "node {} is uncordoned", node(n)),
            Self::StartBackup(v, b) => write!(f, "backup v{v}/b{b} is asked for"),
            Self::DeleteBackup(v, b) => write!(f, "a person deletes backup v{v}/b{b}"),
            Self::DeleteSnapshot(v, b) => write!(f, "a person deletes the snapshot of v{v}/b{b}"),
            Self::Abandon(v, b) => write!(f, "a person abandons backup v{v}/b{b}"),
            Self::UploadFails(v, b) => write!(f, "the upload of v{v}/b{b} fails by itself"),
            Self::Refuse(v) => write!(f, "v{v} may not be pre-staged from now on"),
            Self::Allow(v) => write!(f, "v{v} may be pre-staged again"),
            Self::Crash(p) => write!(f, "replica {p} of Handoff dies"),
            Self::Rival(p) => write!(f, "replica {p} takes itself for the leader as well"),
            Self::Stall(p, watch) => write!(f, "the {watch:?} cache of replica {p} stands still"),
            Self::Decide(p, v) => write!(f, "replica {p} looks at v{v} and decides"),
            Self::PodGone(uid) => write!(f, "pod p{uid} is gone"),
            Self::NewPod => write!(f, "a new pod is made"),
            Self::Bind(uid, n) => write!(f, "pod p{uid} is bound to {}", node(n)),
            Self::VaCreate(v, n) => write!(f, "Kubernetes wants v{v} attached on {}", node(n)),
            Self::VaDelete(v, n) => write!(f, "Kubernetes wants v{v} detached from {}", node(n)),
            Self::Unpublished(v, n) => write!(f, "the detach call for v{v} on {} returns", node(n)),
            Self::Publish(v, n) => write!(f, "the attach call for v{v} on {} is made", node(n)),
            Self::Retry(v, n) => write!(f, "the attacher's back-off for v{v} on {} is over", node(n)),
            Self::PodReady(uid) => write!(f, "pod p{uid} has its volumes and is ready"),
            Self::DetachBegin(v) => write!(f, "Longhorn begins to detach v{v}"),
            Self::DetachDone(v) => write!(f, "v{v} is detached"),
            Self::AttachBegin(v, n) => write!(f, "Longhorn begins to attach v{v} on {}", node(n)),
            Self::AttachDone(v) => write!(f, "v{v} is attached"),
            Self::UploadBegin(v, b, n) => write!(f, "v{v}/b{b} uploads from the replica on {}", node(n)),
            Self::UploadDone(v, b) => write!(f, "the upload of v{v}/b{b} is complete in the target"),
            Self::Poll(v, b) => write!(f, "Longhorn notices how the upload of v{v}/b{b} ended"),
            Self::Answer(v, b) => write!(f, "Longhorn answers the probe of v{v}/b{b}"),
            Self::BackupGone(v, b) => write!(f, "backup v{v}/b{b} is gone"),
            Self::ReplicaLeaves(v, n) => write!(f, "the storage pods of {} leave, with the replica of v{v}", node(n)),
            Self::Reconcile(p, v) => write!(f, "replica {p} reconciles v{v}"),
            Self::Write(p) => write!(f, "replica {p} writes the journal"),
            Self::Act(p) => write!(f, "replica {p} carries out its next action"),
            Self::Reap(p) => write!(f, "replica {p} withdraws pre-stages nobody knows of"),
            Self::CatchUp => write!(f, "the cache catches up"),
            Self::Resign(p) => write!(f, "replica {p} learns that it does not lead"),
            Self::Lead(p) => write!(f, "replica {p} takes the lease"),
            Self::Tick => write!(f, "time passes"),
        }
    }
}
