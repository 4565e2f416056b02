//! The ways, what each is for, and what it must come to.

use super::{contracts, drains, karpenter, nodes, operations, owed, passage::Scene, pods, prestage, storage};
use crate::{attacher, bench::Bench, report::Claim, settle};
use anyhow::Result;
use clap::ValueEnum;
use serde_json::{Value, json};

/// A way to interrupt a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Way {
    /// `kubectl delete pod`, its node cordoned.
    DeletePod,
    /// `kubectl rollout restart`, the node cordoned.
    RolloutRestart,
    /// A pod of higher priority needs the room.
    Preemption,
    /// A `NoExecute` taint, tolerated by storage.
    NoexecuteTaint,
    /// The node loses power; an operator marks it out of service.
    PowerLoss,
    /// The replica that uploads dies, the volume stays where it is.
    ReplicaKilled,
    /// The instance manager under the attached volume dies.
    InstanceManagerKilled,
    /// All longhorn-manager pods start anew.
    ManagersRestarted,
    /// The backup target is down, and back a minute later.
    TargetDown,
    /// The pod is deleted, and the backup target is away until long after; Longhorn has noticed.
    TargetAway,
    /// Handoff is down during the whole move, and starts afterwards.
    HandoffDown,
    /// All replicas of Handoff are restarted one after the other while the node is drained.
    ReplicasRestarted,
    /// Two moves in a row while the backup is still owed: there and back.
    ThereAndBack,
    /// Two moves in a row while the backup is still owed: to a third node.
    Onward,
    /// Scaled to zero with a backup in flight, and back on another node.
    ScaledToZero,
    /// Two backups of the volume in flight.
    TwoBackups,
    /// A `VolumeSnapshot` of type bak.
    CsiSnapshot,
    /// A recurring job's backup.
    RecurringJob,
    /// The backup is complete in the target, but Longhorn says `Error`: it must not be run again.
    CompleteInTarget,
    /// A person deletes the snapshot while its backup is owed.
    SnapshotDeleted,
    /// A person deletes the backup while it is owed.
    BackupDeleted,
    /// A backup in full mode.
    FullMode,
    /// A backup compressed with gzip.
    Gzip,
    /// The node that is drained holds the uploading replica only.
    ReplicaDrained,
    /// The node that is drained holds the pod only.
    PodOnlyDrained,
    /// The descheduler evicts the pod from a cordoned node.
    Descheduler,
    /// The descheduler asks for an eviction in background, which is held.
    DeschedulerInBackground,
    /// Karpenter is told to give the node up, and evicts the pod while its eviction is held.
    Karpenter,
    /// Cluster API's drain, with its machine controller's package, while the pod's eviction is held.
    ClusterApi,
    /// The node that is drained holds the pod and the volume's last good replica.
    LastReplicaDrained,
    /// Three nodes drained one after the other, the volume moving ahead.
    ThreeDrains,
    /// The pod is bound elsewhere before its pre-stage is adopted.
    PrestageRebound,
    /// The pod is deleted before its pre-stage is adopted, without a successor.
    PrestagePodDeleted,
    /// The target falls silent before the pre-stage is adopted: it expires.
    PrestageTargetLost,
    /// The leader is killed around the moment of pre-staging.
    PrestageLeaderKilled,
    /// A pre-stage that nobody knows of at Handoff's start, and an attach request that is not ours.
    PrestageUnrecorded,
    /// The volume is attached by hand where it is: no pre-stage.
    PrestageRefused,
    /// A strict-local volume: no pre-stage elsewhere.
    StrictLocal,
    /// Handoff is cut off from the API server for five minutes, with an eviction on hold.
    ApiAway,
    /// Another version of Handoff, and of its definition, in the middle of the move.
    Upgrade,
}

/// How a passage must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The backup is complete.
    Completed,
    /// It cannot be; the handoff says why, in words that contain this.
    Unrecoverable(&'static str),
}

/// What must be seen.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// The pod runs on another node than before.
    pub moves: bool,
    /// The backup was seen lost in between.
    pub interrupted: bool,
    /// How it ends.
    pub end: End,
    /// How often the upload may be cut; each cut may have a few blocks sent again. 0: not looked at.
    pub cuts: u8,
}

impl Way {
    /// As on the command line.
    pub fn name(self) -> String {
        self.to_possible_value().map(|v| v.get_name().to_owned()).unwrap_or_default()
    }

    /// What happens.
    pub fn title(self) -> String {
        self.to_possible_value().and_then(|v| v.get_help().map(ToString::to_string)).unwrap_or_default()
    }

    /// It acts on processes, or on the S3 server.
    pub fn needs_lab(self) -> bool {
        use Way::{
            ApiAway, InstanceManagerKilled, Karpenter, PowerLoss, PrestageLeaderKilled, PrestageTargetLost,
            ReplicaKilled, TargetAway, TargetDown, Upgrade,
        };
        matches!(
            self,
            PowerLoss
                | ReplicaKilled
                | InstanceManagerKilled
                | Karpenter
                | TargetAway
                | TargetDown
                | PrestageTargetLost
                | PrestageLeaderKilled
                | ApiAway
                | Upgrade
        )
    }

    /// What it needs and is not there, on a cluster with so many nodes with storage.
    pub fn lacks(self, nodes: usize) -> Option<String> {
        let needed = if matches!(self, Self::Onward | Self::ThreeDrains | Self::PrestageRebound) { 3 } else { 2 };
        if nodes < needed {
            return Some(format!("{needed} nodes with storage, there are {nodes}"));
        }
        let variable = match self {
            Self::Descheduler | Self::DeschedulerInBackground => contracts::DESCHEDULER,
            Self::Karpenter => karpenter::KARPENTER,
            Self::ClusterApi => contracts::CLUSTER_API,
            _ => return None,
        };
        let missing = std::env::var_os(variable).is_none();
        missing.then(|| format!("{}, at the path in {variable}: see `tests/run contracts`", self.name()))
    }

    /// Parameters of the volume's storage class.
    pub fn parameters(self) -> Value {
        match self {
            Self::StrictLocal => json!({"numberOfReplicas": "1", "dataLocality": "strict-local"}),
            _ => json!({"numberOfReplicas": "2"}),
        }
    }

    /// What must be seen; `waits`: on a Longhorn on which a pod waits for its backup.
    pub fn expected(self, waits: bool) -> Expected {
        let usual = Expected { moves: true, interrupted: true, end: End::Completed, cuts: 1 };
        match self {
            // without Handoff nothing cuts it there
            Self::HandoffDown => Expected { interrupted: !waits, ..usual },
            // full mode sends everything by its own definition
            Self::FullMode => Expected { cuts: 0, ..usual },
            // the pod stays, is made anew where storage is, or is back where it began
            Self::ReplicaKilled
            | Self::TargetDown
            | Self::ReplicaDrained
            | Self::InstanceManagerKilled
            | Self::ThereAndBack => Expected { moves: false, ..usual },
            // drained from each node in turn: where it is in the end is not the point
            Self::ThreeDrains => Expected { moves: false, cuts: 3, ..usual },
            // once by the move, and then by each try before Longhorn notices
            Self::TargetAway => Expected { cuts: 3, ..usual },
            // two uploads, each of them cut; or the replica that uploads after the move is on the node that is still drained
            Self::TwoBackups | Self::LastReplicaDrained => Expected { cuts: 2, ..usual },
            // the upload lives in the replica, not in the manager; without another node, nothing need cut it
            Self::ManagersRestarted | Self::StrictLocal => Expected { moves: false, interrupted: false, ..usual },
            Self::SnapshotDeleted => Expected { end: End::Unrecoverable("snapshot"), cuts: 0, ..usual },
            Self::BackupDeleted => {
                Expected { end: End::Unrecoverable("deleted"), cuts: 0, interrupted: false, ..usual }
            }
            _ => usual,
        }
    }

    /// Where the pod is in the end is not the same each time.
    pub fn place_varies(self) -> bool {
        matches!(self, Self::InstanceManagerKilled | Self::ThreeDrains)
    }

    /// Whether the backup is seen lost is not the same each time.
    pub fn cut_varies(self) -> bool {
        matches!(self, Self::ManagersRestarted | Self::BackupDeleted | Self::StrictLocal)
    }

    /// Settings that must be there before the volume is made.
    pub async fn prepare(self, bench: &Bench) -> Result<()> {
        match self {
            Self::Gzip => storage::set(bench, "backup-compression-method", "gzip").await,
            Self::Preemption => pods::priorities(bench).await,
            Self::Karpenter => karpenter::install(bench).await,
            Self::CsiSnapshot => owed::snapshot_class(bench).await,
            _ => Ok(()),
        }
    }

    /// Changes of the workload before it is loaded.
    pub async fn adapt(self, bench: &Bench) -> Result<()> {
        match self {
            Self::Preemption => pods::lower().await,
            Self::Karpenter => karpenter::adopt(bench).await,
            Self::PodOnlyDrained => storage::one_replica(bench, false).await.map(drop),
            Self::LastReplicaDrained => drains::one_replica_beside_the_pod(bench).await,
            _ => Ok(()),
        }
    }

    /// Interrupts. Returns further claims.
    pub async fn interrupt(self, scene: &Scene<'_>) -> Result<Vec<Claim>> {
        match self {
            Self::DeletePod | Self::FullMode | Self::Gzip | Self::RecurringJob => pods::delete(scene).await,
            Self::RolloutRestart => pods::rollout_restart(scene).await,
            Self::Preemption => pods::preempt(scene).await,
            Self::NoexecuteTaint => nodes::taint(scene).await,
            Self::PowerLoss => nodes::power_loss(scene).await,
            Self::ReplicaKilled => storage::kill_replica(scene).await,
            Self::InstanceManagerKilled => storage::kill_instance_manager(scene).await,
            Self::ManagersRestarted => storage::restart_managers(scene).await,
            Self::TargetDown => storage::target_down(scene).await,
            Self::TargetAway => storage::target_away(scene).await,
            Self::HandoffDown => nodes::drain_without_handoff(scene).await,
            Self::ReplicasRestarted => nodes::drain_while_handoff_restarts(scene).await,
            Self::ThereAndBack => pods::there_and_back(scene).await,
            Self::Onward => pods::onward(scene).await,
            Self::ScaledToZero => pods::scale_to_zero_and_back(scene).await,
            Self::CsiSnapshot => owed::csi_snapshot(scene).await,
            Self::TwoBackups => owed::two_backups(scene).await,
            Self::CompleteInTarget => owed::complete_in_target(scene).await,
            Self::SnapshotDeleted => owed::delete_snapshot(scene).await,
            Self::BackupDeleted => owed::delete_backup(scene).await,
            Self::ReplicaDrained => nodes::drain_replica(scene).await,
            Self::PodOnlyDrained => nodes::drain(scene).await,
            Self::Descheduler => contracts::descheduler(scene).await,
            Self::DeschedulerInBackground => contracts::descheduler_in_background(scene).await,
            Self::Karpenter => karpenter::ends_the_node(scene).await,
            Self::ClusterApi => contracts::cluster_api(scene).await,
            Self::LastReplicaDrained => drains::last_replica(scene).await,
            Self::ThreeDrains => drains::three(scene).await,
            Self::PrestageRebound => prestage::rebound(scene).await,
            Self::PrestagePodDeleted => prestage::pod_deleted(scene).await,
            Self::PrestageTargetLost => prestage::target_lost(scene).await,
            Self::PrestageLeaderKilled => prestage::leader_killed(scene).await,
            Self::PrestageUnrecorded => prestage::unrecorded(scene).await,
            Self::PrestageRefused => prestage::refused(scene).await,
            Self::StrictLocal => prestage::strict_local(scene).await,
            Self::ApiAway => operations::api_away(scene).await,
            Self::Upgrade => operations::upgrade(scene).await,
        }
    }

    /// Puts the cluster back in order.
    pub async fn undo(self, bench: &Bench) -> Result<()> {
        match self {
            Self::Gzip => storage::set(bench, "backup-compression-method", "lz4").await?,
            Self::Preemption => pods::remove_priorities(bench).await?,
            Self::NoexecuteTaint => nodes::remove_taints(bench).await?,
            Self::PowerLoss => nodes::power_on(bench).await?,
            Self::PrestageRebound | Self::PrestagePodDeleted | Self::PrestageLeaderKilled | Self::StrictLocal => {
                attacher::back(&bench.cluster).await?;
            }
            Self::PrestageTargetLost => {
                nodes::kubelets_on(bench).await?;
                attacher::back(&bench.cluster).await?;
            }
            Self::ApiAway => operations::api_back(bench).await?,
            Self::Karpenter => karpenter::remove(bench).await?,
            Self::Upgrade => operations::downgrade(bench).await?,
            Self::TargetDown => storage::target_up(bench).await?,
            Self::TargetAway => {
                storage::target_up(bench).await?;
                storage::target_is_looked_at(bench, storage::LOOK_BY_DEFAULT).await?;
            }
            Self::RecurringJob => owed::remove_job(bench).await?,
            _ => {}
        }
        settle::uncordon(bench).await?;
        bench.link_slow().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_says_what_it_is() {
        for way in Way::value_variants() {
            assert!(!way.name().is_empty() && !way.title().is_empty(), "{way:?}");
        }
    }
}
