//! The state of the small world: Kubernetes, Longhorn, the `VolumeHandoff` objects and our replicas, as plain numbers.
//!
//! Times are ages in ticks of the model's clock, each capped where nothing depends on it any more, so that the world
//! has finitely many states however long it runs. `resourceVersion`s are not numbers but flags in whoever remembers an
//! object: "unchanged since I saw it".

/// Index of a node.
pub type Node = u8;

/// Most nodes a world can have.
pub const MAX_NODES: usize = 3;
/// Most volumes a world can have; all of them belong to the one workload.
pub const MAX_VOLUMES: usize = 2;
/// Most backups a volume can have; the first is from the older snapshot.
pub const MAX_BACKUPS: usize = 2;

/// Names of the nodes.
pub const NODE_NAMES: [&str; MAX_NODES] = ["a", "b", "c"];

/// A pod of the workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pod {
    /// Counts up: a higher one is younger.
    pub uid: u8,
    /// Node it is bound to.
    pub node: Option<Node>,
    /// It has a deletion timestamp.
    pub terminating: bool,
    /// It is ready.
    pub ready: bool,
}

impl Pod {
    /// Bound, and nothing asked it to leave.
    pub fn runs(&self) -> bool {
        self.node.is_some() && !self.terminating
    }
}

/// An attach request of the workload for one node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Ticket {
    /// There is none.
    #[default]
    None,
    /// The CSI driver's.
    Csi,
    /// Our pre-stage.
    Ours,
}

/// A Kubernetes `VolumeAttachment` for one node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Va {
    /// There is none.
    #[default]
    None,
    /// Waits for the attacher.
    Wants,
    /// The attach call failed; the attacher is in its back-off.
    Failed,
    /// Attached.
    Attached,
    /// Has a deletion timestamp.
    Deleting,
}

/// State of a Backup object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Cr {
    /// Not created yet.
    #[default]
    NotYet,
    /// Created or reset; not uploading.
    Queued,
    /// Shown as uploading.
    Running,
    /// Complete.
    Completed,
    /// `Error`.
    Lost,
    /// Has a deletion timestamp.
    Deleting,
    /// Deleted.
    Gone,
}

impl Cr {
    /// The object is there.
    pub fn exists(self) -> bool {
        !matches!(self, Self::NotYet | Self::Gone)
    }

    /// A move now could interrupt it.
    pub fn in_flight(self) -> bool {
        matches!(self, Self::Queued | Self::Running)
    }
}

/// A backup: the object, the upload behind it, and what the target holds.
#[expect(clippy::struct_excessive_bools, reason = "independent facts")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Backup {
    /// The object.
    pub cr: Cr,
    /// Node of the replica that uploads now.
    pub upload: Option<Node>,
    /// Its record in the target says complete.
    pub remote: bool,
    /// Its snapshot is gone.
    pub no_snapshot: bool,
    /// Queued in this tick: Longhorn needs some seconds before it uploads.
    pub fresh: bool,
    /// Ticks since the last run ended (capped at 1).
    pub ended: u8,
    /// How many runs have ended.
    pub runs: u8,
    /// A probe is waiting for its answer.
    pub probed: bool,
    /// Ticks since the probe that the journal speaks of was sent (capped at 1).
    pub asked: Option<u8>,
}

/// One volume as Longhorn has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Storage {
    /// Node it is attached to.
    pub at: Option<Node>,
    /// Node Longhorn wants it on.
    pub wanted: Option<Node>,
    /// Node whose manager owns it: backup requests name it.
    pub owner: Node,
    /// Workload requests, by node.
    pub tickets: [Ticket; MAX_NODES],
    /// Ticks since ours was placed (capped one past its expiry).
    pub ours_age: u8,
    /// Nodes whose replica is not running, as bits.
    pub down: u8,
    /// A reason not to pre-stage holds (it expands, is evicted, …).
    pub refused: bool,
    /// Its backups.
    pub backups: [Backup; MAX_BACKUPS],
}

impl Storage {
    /// Attached on `node` and wanted there.
    pub fn settled_on(&self, node: Node) -> bool {
        self.at == Some(node) && self.wanted == Some(node)
    }

    /// What can be seen of it from outside.
    #[must_use]
    pub fn visible(mut self) -> Self {
        self.owner = 0;
        self.ours_age = 0;
        for backup in &mut self.backups {
            (backup.upload, backup.remote, backup.fresh, backup.probed) = (None, false, false, false);
        }
        self
    }

    /// Nodes of our pre-stages.
    pub fn ours(&self) -> impl Iterator<Item = Node> + '_ {
        (0..).zip(&self.tickets).filter(|(_, t)| **t == Ticket::Ours).map(|(n, _)| n)
    }
}

/// The Kubernetes side as far as it is seen of a volume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Kube {
    /// Pods of the workload, oldest first.
    pub pods: [Option<Pod>; 2],
    /// Cordoned nodes, as bits.
    pub cordoned: u8,
    /// `VolumeAttachment`s by volume and node, and how many backups of the volume are older than it.
    pub vas: [[(Va, u8); MAX_NODES]; MAX_VOLUMES],
}

impl Kube {
    /// All pods.
    pub fn pods(&self) -> impl Iterator<Item = &Pod> {
        self.pods.iter().flatten()
    }

    /// The node is cordoned.
    pub fn is_cordoned(&self, node: Node) -> bool {
        self.cordoned & (1 << node) != 0
    }
}

/// Which move the journal is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Page {
    /// Nothing written yet.
    #[default]
    Empty,
    /// The move of the spec.
    Current,
    /// An earlier one.
    Earlier,
}

/// State of an owed backup in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Resumed {
    /// Waiting; ticks until the next try.
    Waiting {
        /// Ticks.
        next: u8,
    },
    /// Probing; ticks since the probe.
    Probing {
        /// Ticks.
        age: u8,
    },
    /// Running; ticks since the reset and the run that was reset.
    Running {
        /// Ticks.
        age: u8,
        /// How many runs had ended then.
        of_run: u8,
    },
    /// Completed.
    Completed,
    /// Superseded.
    Superseded,
    /// Unrecoverable.
    Unrecoverable,
    /// Abandoned by a person.
    Abandoned,
}

impl Resumed {
    /// Nothing more will happen.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Superseded | Self::Unrecoverable | Self::Abandoned)
    }
}

/// Our pre-stage in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Staged {
    /// Node.
    pub node: Node,
    /// The pod it is for; `None` while that pod is only expected.
    pub pod: Option<u8>,
    /// Ticks since it was decided.
    pub age: u8,
    /// `Some(true)`: adopted, `Some(false)`: withdrawn.
    pub outcome: Option<bool>,
}

/// The journal, as far as decisions depend on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Journal {
    /// Which move it is about.
    pub page: Page,
    /// Our pre-stage.
    pub staged: Option<Staged>,
    /// What became of each backup, and how often it was made to run again.
    pub resumes: [Option<(Resumed, u8)>; MAX_BACKUPS],
    /// Steps seen, as bits of [`STEPS`].
    pub seen: u8,
    /// Ticks since the pod was gone and since the volume was attached, if seen.
    pub ages: [u8; 2],
    /// Ticks since all was done.
    pub finished: Option<u8>,
}

/// Steps of the timeline that decisions depend on. The first two have their times kept.
pub const STEPS: [&str; 4] = ["PodGone", "Attached", "WorkloadReady", "AttacherWoken"];

/// A `VolumeHandoff` object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Handoff {
    /// The pod that leaves.
    pub pod: u8,
    /// The node it leaves.
    pub from: Node,
    /// Ticks since the move began.
    pub age: u8,
    /// Checkpoints: ticks since each was recorded.
    pub checkpoints: [Option<u8>; MAX_BACKUPS],
    /// Backups that a person has abandoned, as bits.
    pub abandoned: u8,
    /// The journal.
    pub journal: Journal,
}

impl Handoff {
    /// Nothing is owed and the move is over.
    pub fn is_finished(&self) -> bool {
        self.journal.finished.is_some() && self.journal.page == Page::Current
    }
}

/// An action, in numbers. `Tell` is left out: it changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Act {
    /// Place a pre-stage.
    Place(Node),
    /// Withdraw one.
    Withdraw(Node),
    /// Wake the attacher.
    Wake(Node),
    /// Probe a backup.
    Probe(u8),
    /// Reset a backup, to run on a node.
    Reset(u8, Node),
    /// Delete the handoff.
    Forget,
}

/// Most actions of one decision.
pub const MAX_ACTS: usize = 6;

/// A decision on its way: what a replica still has to do, and which of the objects it saw are unchanged since.
#[expect(clippy::struct_excessive_bools, reason = "independent facts")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Plan {
    /// The volume.
    pub volume: u8,
    /// The journal is written (or needed no writing).
    pub wrote: bool,
    /// The journal to write.
    pub journal: Journal,
    /// It differs from the one that was read.
    pub changed: bool,
    /// Actions left.
    pub acts: [Option<Act>; MAX_ACTS],
    /// The handoff is as it was read, save for our own write.
    pub handoff_same: bool,
    /// The attach requests are as they were seen.
    pub tickets_same: bool,
    /// Each backup is as it was seen.
    pub backups_same: [bool; MAX_BACKUPS],
}

/// A replica of ours.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Replica {
    /// It holds the lease, or believes so.
    pub leads: bool,
    /// What it is in the middle of.
    pub plan: Option<Box<Plan>>,
}

/// Which of a replica's caches stands still.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Stale {
    /// Longhorn's objects, as they were, and whether attach requests and backups are unchanged since.
    Storage([(Storage, bool, [bool; MAX_BACKUPS]); MAX_VOLUMES]),
    /// Pods, nodes and `VolumeAttachment`s, as they were.
    Kube(Kube),
    /// The handoffs, as they were, and whether each is unchanged since.
    Handoffs([(Option<Handoff>, bool); MAX_VOLUMES]),
}

/// A replica whose cache lags behind.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Frozen {
    /// The replica.
    pub replica: u8,
    /// Ticks since.
    pub age: u8,
    /// What stands still.
    pub what: Stale,
}

/// One volume with everything around it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Volume {
    /// Longhorn's side.
    pub storage: Storage,
    /// Our object.
    pub handoff: Option<Handoff>,
    /// Bookkeeping of the checker: backups that are checkpointed and whose story is not over, as bits.
    pub owed: u8,
    /// Backups that were lost and whose story is not over, as bits.
    pub cut: u8,
    /// Backups that were probed since their run ended, as bits.
    pub asked: u8,
    /// Runs of ours that ended badly, per backup.
    pub failed: [u8; MAX_BACKUPS],
    /// Backups that were ever checkpointed, as bits.
    pub known: u8,
    /// Resets that no run has followed yet, as bits.
    pub rerun: u8,
}

/// What may still go wrong or be asked for: each such event uses one up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Budget {
    /// Evictions and deletions of the running pod.
    pub moves: u8,
    /// Of those: how many may pass without a review.
    pub unseen: u8,
    /// Scaling to zero.
    pub scales: u8,
    /// Backups or snapshots deleted by a person.
    pub deletions: u8,
    /// Owed backups abandoned by a person.
    pub abandons: u8,
    /// Uploads that fail by themselves.
    pub failures: u8,
    /// Reasons not to pre-stage that turn up.
    pub refusals: u8,
    /// Replicas of ours that die.
    pub crashes: u8,
    /// Second leaders.
    pub rivals: u8,
    /// Caches that stand still.
    pub stalls: u8,
    /// Decisions that are not carried out at once: anything may happen before each of their steps.
    pub slow: u8,
}

/// The whole world.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct World {
    /// The Kubernetes side.
    pub kube: Kube,
    /// Pods wanted: 0 or 1.
    pub desired: u8,
    /// UID of the next pod.
    pub next_uid: u8,
    /// The pod whose eviction was allowed and not carried out yet.
    pub reviewed: Option<u8>,
    /// The volumes.
    pub volumes: [Volume; MAX_VOLUMES],
    /// Our replicas.
    pub replicas: [Replica; 2],
    /// A cache that lags.
    pub frozen: Option<Box<Frozen>>,
    /// What may still happen.
    pub left: Budget,
}

impl World {
    /// Notes that the attach requests of a volume changed: whoever remembers them remembers an old version.
    pub fn touch_tickets(&mut self, volume: usize) {
        self.plans(volume).for_each(|p| p.tickets_same = false);
        if let Some(Frozen { what: Stale::Storage(seen), .. }) = self.frozen.as_deref_mut() {
            seen[volume].1 = false;
        }
    }

    /// Notes that a backup changed.
    pub fn touch_backup(&mut self, volume: usize, backup: usize) {
        self.plans(volume).for_each(|p| p.backups_same[backup] = false);
        if let Some(Frozen { what: Stale::Storage(seen), .. }) = self.frozen.as_deref_mut() {
            seen[volume].2[backup] = false;
        }
    }

    /// Notes that a handoff changed, by the hand of `by`, who knows of it.
    pub fn touch_handoff(&mut self, volume: usize, by: Option<usize>) {
        for (i, replica) in self.replicas.iter_mut().enumerate() {
            if let Some(plan) = replica.plan.as_deref_mut().filter(|p| usize::from(p.volume) == volume) {
                plan.handoff_same &= by == Some(i);
            }
        }
        let now = self.volumes[volume].handoff;
        if let Some(Frozen { replica, what: Stale::Handoffs(seen), .. }) = self.frozen.as_deref_mut() {
            // what a replica wrote itself it remembers until its cache shows it
            seen[volume] = if by == Some(usize::from(*replica)) { (now, true) } else { (seen[volume].0, false) };
        }
    }

    fn plans(&mut self, volume: usize) -> impl Iterator<Item = &mut Plan> {
        let plans = self.replicas.iter_mut().filter_map(|r| r.plan.as_deref_mut());
        plans.filter(move |p| usize::from(p.volume) == volume)
    }
}
