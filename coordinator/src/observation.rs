//! What the caches show of one volume at one moment: the input of the decision, plain data.

use handoff_cluster::{Attachment, Pod};
use handoff_storage::{BackupView, SnapshotView, VolumeView};
use jiff::SignedDuration;
use std::{collections::BTreeMap, sync::Arc};

/// One volume, everything around it.
#[derive(Clone, Debug, Default)]
pub struct Observation {
    /// Pods that mount the volume's claim. A pod whose binding is under way counts as bound.
    pub pods: Vec<Arc<Pod>>,
    /// The volume; `None` when the storage manager does not know it.
    pub volume: Option<VolumeView>,
    /// Its backups that were made from snapshots in this cluster.
    pub backups: Vec<BackupView>,
    /// The snapshots of those backups, by name, as far as they exist.
    pub snapshots: BTreeMap<String, SnapshotView>,
    /// Lost backups that were probed so lately that the storage manager may still answer, and how long it has for that; by
    /// a clock that nobody sets.
    pub answer_due: BTreeMap<String, SignedDuration>,
    /// Its `VolumeAttachment`s in Kubernetes.
    pub attachments: Vec<Arc<Attachment>>,
    /// For each node that a pod of the volume is bound to: why we may not pre-stage there, if so.
    pub refusals: BTreeMap<String, String>,
    /// The volume is unstaged on the node that is left: seen by an agent there, in this move.
    pub unstaged: bool,
    /// All nodes that are being emptied: cordoned, or tainted by what removes nodes.
    pub cordoned: Vec<String>,
    /// Nodes on which a pod of the volume may well be scheduled and the volume may be pre-staged, best first: those
    /// that hold a good replica before the others. Only looked up while a volume is between nodes.
    pub candidates: Vec<String>,
    /// As many resumed backups run as may: no other one is begun now.
    pub resumes_full: bool,
}

impl Observation {
    /// The newest pod that stays and is bound to a node: where the volume is wanted.
    pub fn workload(&self) -> Option<&Arc<Pod>> {
        self.pods.iter().filter(|p| p.stays() && p.node.is_some()).max_by_key(|p| p.created)
    }

    /// The pod of this UID.
    pub fn pod(&self, uid: &str) -> Option<&Arc<Pod>> {
        self.pods.iter().find(|p| p.uid == uid)
    }

    /// The backup of this name.
    pub fn backup(&self, name: &str) -> Option<&BackupView> {
        self.backups.iter().find(|b| b.name == name)
    }

    /// Backups that a move now could interrupt.
    pub fn in_flight(&self) -> impl Iterator<Item = &BackupView> {
        self.backups.iter().filter(|b| b.in_flight())
    }

    /// The volume's node, when it is attached, wanted there and its data path runs.
    pub fn settled_node(&self) -> Option<&str> {
        let volume = self.volume.as_ref()?;
        volume.current_node.as_deref().filter(|node| volume.is_settled_on(node))
    }
}
