//! The steps of a move, and when each was seen, in seconds after the drain began.

use serde::Serialize;
use std::collections::BTreeMap;

/// What can be seen to happen, in the order in which a move usually goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// The drain's first deed.
    Cordoned,
    /// Handoff recorded the backup.
    Checkpointed,
    /// The pod is asked to end: the eviction was answered.
    Evicted,
    /// Its containers have ended.
    Ended,
    /// It is gone: its volumes are no longer published.
    Gone,
    /// Its replacement is there.
    Recreated,
    /// The replacement has a node.
    Bound,
    /// Handoff asked for the attachment there.
    PreStaged,
    /// The left node's kubelet reports that it no longer uses the volume.
    Released,
    /// Kubernetes asks for the detachment.
    DetachAsked,
    /// The old `VolumeAttachment` is gone.
    Detachment,
    /// Longhorn detaches.
    Detaching,
    /// Longhorn has detached.
    Detached,
    /// The new `VolumeAttachment` is there.
    AttachAsked,
    /// The CSI driver's own request is there, or took our pre-stage over.
    Requested,
    /// Longhorn attaches.
    Attaching,
    /// Longhorn has attached.
    Attached,
    /// The block device is known.
    Endpoint,
    /// The new `VolumeAttachment` says attached.
    Attachment,
    /// The next node's kubelet reports that it is going to use the volume.
    Expected,
    /// The volume is mounted and the pod has its sandbox.
    Staged,
    /// The container runs.
    Running,
    /// The pod is ready.
    Ready,
    /// Longhorn gave the backup up.
    BackupLost,
    /// It uploads again.
    Resumed,
    /// It is complete.
    Completed,
    /// The left node's instance manager is gone.
    StorageLeft,
    /// `kubectl drain` ended.
    DrainEnded,
}

impl Step {
    /// All steps, in order.
    pub const ALL: [Self; 28] = [
        Self::Cordoned,
        Self::Checkpointed,
        Self::Evicted,
        Self::Ended,
        Self::Gone,
        Self::Recreated,
        Self::Bound,
        Self::PreStaged,
        Self::Released,
        Self::DetachAsked,
        Self::Detachment,
        Self::Detaching,
        Self::Detached,
        Self::AttachAsked,
        Self::Requested,
        Self::Attaching,
        Self::Attached,
        Self::Endpoint,
        Self::Attachment,
        Self::Expected,
        Self::Staged,
        Self::Running,
        Self::Ready,
        Self::BackupLost,
        Self::Resumed,
        Self::Completed,
        Self::StorageLeft,
        Self::DrainEnded,
    ];

    /// For people.
    pub fn label(self) -> &'static str {
        match self {
            Self::Cordoned => "node cordoned",
            Self::Checkpointed => "backup checkpointed by Handoff",
            Self::Evicted => "eviction answered",
            Self::Ended => "containers ended",
            Self::Gone => "old pod gone, volume unpublished",
            Self::Recreated => "new pod created",
            Self::Bound => "new pod bound",
            Self::PreStaged => "attachment pre-staged by Handoff",
            Self::Released => "kubelet of the left node let go",
            Self::DetachAsked => "Kubernetes asks to detach",
            Self::Detachment => "old VolumeAttachment gone",
            Self::Detaching => "Longhorn detaches",
            Self::Detached => "Longhorn has detached",
            Self::AttachAsked => "Kubernetes asks to attach",
            Self::Requested => "CSI driver asks to attach",
            Self::Attaching => "Longhorn attaches",
            Self::Attached => "Longhorn has attached",
            Self::Endpoint => "block device there",
            Self::Attachment => "VolumeAttachment says attached",
            Self::Expected => "kubelet of the next node expects it",
            Self::Staged => "volume staged, sandbox up",
            Self::Running => "container Running",
            Self::Ready => "pod Ready",
            Self::BackupLost => "backup interrupted",
            Self::Resumed => "backup resumed",
            Self::Completed => "backup Completed",
            Self::StorageLeft => "instance manager evicted",
            Self::DrainEnded => "kubectl drain ended",
        }
    }
}

/// A step that was seen.
#[derive(Clone, Debug, Serialize)]
pub struct Mark {
    /// Seconds after the drain began.
    pub at: f64,
    /// What else is worth saying.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// The steps that were seen, each the first time.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(transparent)]
pub struct Timeline(BTreeMap<Step, Mark>);

impl Timeline {
    /// Adds a step unless it was seen before; whether it was added.
    pub fn add(&mut self, step: Step, at: f64, note: String) -> bool {
        let new = !self.0.contains_key(&step);
        if new {
            self.0.insert(step, Mark { at, note });
        }
        new
    }

    /// Whether a step was seen.
    pub fn has(&self, step: Step) -> bool {
        self.0.contains_key(&step)
    }

    /// When a step was seen.
    pub fn at(&self, step: Step) -> Option<f64> {
        self.0.get(&step).map(|mark| mark.at)
    }

    /// What was said about a step.
    pub fn note(&self, step: Step) -> &str {
        self.0.get(&step).map_or("", |mark| &mark.note)
    }
}
