//! The ways in which a backup is cut on the real cluster (`handoff-e2e interrupt`, docs/interruptions.md), played here, so
//! that how they end can be held against how they ended there.

mod moves;
mod owed;
mod prestages;
mod storage;

use crate::{
    api::resource::{BACKUPS, HANDOFFS, NODES, PODS, TICKETS},
    chance::Chance,
    cluster::{Cluster, STORAGE, WORKLOADS, key},
    json::{elements, entries, is_deleting, is_ready, text},
    kubernetes::{Controller, cordon, delete_pod, uncordon},
    longhorn::{MARK, Release, Upload, start_backup},
    replica::{Replica, Start},
    world::{Plan, Planned, backup},
};
use serde_json::{Value, json};
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// A way, by its name in `handoff-e2e interrupt`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// `kubectl drain` of a `StatefulSet`'s node.
    Drain,
    /// The same, of a Deployment's.
    DrainDeployment,
    /// `kubectl delete pod`, node cordoned.
    DeletePod,
    /// `kubectl rollout restart` of a `StatefulSet`, node cordoned.
    RolloutRestart,
    /// A `NoExecute` taint.
    NoexecuteTaint,
    /// No replica of Handoff during the move.
    HandoffDown,
    /// All replicas of Handoff die and are replaced during the drain.
    ReplicasRestarted,
    /// The API server is away from Handoff during the move.
    ApiAway,
    /// Two moves, back to the first node.
    ThereAndBack,
    /// Two moves, to a third node.
    Onward,
    /// No pod for a while, and back on another node.
    ScaledToZero,
    /// Three drains, one after the other.
    ThreeDrains,
    /// Two backups in flight.
    TwoBackups,
    /// A full backup.
    FullMode,
    /// The backup is complete in the target, and `Error` in the cluster.
    CompleteInTarget,
    /// A person deletes the backup.
    BackupDeleted,
    /// A person deletes the snapshot.
    SnapshotDeleted,
    /// The replica that uploads dies.
    ReplicaKilled,
    /// All longhorn-manager pods start anew.
    ManagersRestarted,
    /// The backup target refuses connections for a minute.
    TargetDown,
    /// The drained node has the uploading replica only.
    ReplicaDrained,
    /// The drained node has the pod only.
    PodOnlyDrained,
    /// Bound elsewhere before the pre-stage is adopted.
    PrestageRebound,
    /// Deleted before the pre-stage is adopted, without a successor for a while.
    PrestagePodDeleted,
    /// The kubelet of the target falls silent before the pre-stage is adopted.
    PrestageTargetLost,
    /// A pre-stage that nobody knows of at the start, and a request that is not ours.
    PrestageUnrecorded,
    /// Attached by hand: no pre-stage.
    PrestageRefused,
}

impl Way {
    /// All of them with their names.
    pub const ALL: [(&'static str, Self); 27] = [
        ("drain", Self::Drain),
        ("drain-deployment", Self::DrainDeployment),
        ("delete-pod", Self::DeletePod),
        ("rollout-restart", Self::RolloutRestart),
        ("noexecute-taint", Self::NoexecuteTaint),
        ("handoff-down", Self::HandoffDown),
        ("replicas-restarted", Self::ReplicasRestarted),
        ("api-away", Self::ApiAway),
        ("there-and-back", Self::ThereAndBack),
        ("onward", Self::Onward),
        ("scaled-to-zero", Self::ScaledToZero),
        ("three-drains", Self::ThreeDrains),
        ("two-backups", Self::TwoBackups),
        ("full-mode", Self::FullMode),
        ("complete-in-target", Self::CompleteInTarget),
        ("backup-deleted", Self::BackupDeleted),
        ("snapshot-deleted", Self::SnapshotDeleted),
        ("replica-killed", Self::ReplicaKilled),
        ("managers-restarted", Self::ManagersRestarted),
        ("target-down", Self::TargetDown),
        ("replica-drained", Self::ReplicaDrained),
        ("pod-only-drained", Self::PodOnlyDrained),
        ("prestage-rebound", Self::PrestageRebound),
        ("prestage-pod-deleted", Self::PrestagePodDeleted),
        ("prestage-target-lost", Self::PrestageTargetLost),
        ("prestage-unrecorded", Self::PrestageUnrecorded),
        ("prestage-refused", Self::PrestageRefused),
    ];

    fn workload(self) -> Planned {
        let controller = if self == Self::DrainDeployment { Controller::Deployment } else { Controller::StatefulSet };
        let mut planned = Planned::new(VOLUME, controller, "n00", "n01");
        if matches!(self, Self::ReplicaDrained | Self::PodOnlyDrained) {
            planned.replicas = vec!["n01".to_owned(), "n02".to_owned()];
        }
        planned
    }

    fn uploads(self) -> Vec<Upload> {
        // 20 s of sending, cut in the middle; or the end comes just before and nobody sees it; or it outlasts minutes
        let blocks = match self {
            Self::CompleteInTarget => 16,
            Self::ApiAway
            | Self::ScaledToZero
            | Self::PrestagePodDeleted
            | Self::PrestageTargetLost
            | Self::PrestageUnrecorded
            | Self::PrestageRefused => 500,
            _ => 50,
        };
        let mut upload = backup(VOLUME, "first", blocks, Duration::from_millis(400));
        upload.end_is_missed = self == Self::CompleteInTarget;
        upload.full = self == Self::FullMode;
        let second = (self == Self::TwoBackups).then(|| backup(VOLUME, "second", 50, Duration::from_millis(400)));
        [upload].into_iter().chain(second).collect()
    }
}

/// How a way ended, in categories that do not depend on speed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The pod runs on another node than before.
    pub elsewhere: bool,
    /// The backup was seen lost in between.
    pub cut: bool,
    /// `Completed` if every backup is, under its own name; otherwise `given up: ` and why.
    pub end: String,
    /// Blocks that were sent again, in percent of all; 10 are few.
    pub again_percent: u64,
    /// Pre-stages that are left.
    pub prestages: usize,
}

impl fmt::Display for Ended {
    /// The columns of tests/e2e/outcomes.tsv.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pod = if self.elsewhere { "elsewhere" } else { "same node" };
        let cut = if self.cut { "cut" } else { "not cut" };
        let again = if self.again_percent <= 10 { "few" } else { "many" };
        write!(f, "{pod}\t{cut}\t{}\t{again}\t{}", self.end, self.prestages)
    }
}

/// A way that was played.
#[derive(Clone, Debug)]
pub struct Played {
    /// How it ended.
    pub ended: Ended,
    /// Invariants that did not hold, and steps that did not come.
    pub broken: Vec<String>,
    /// What happened.
    pub story: String,
}

const VOLUME: &str = "db";
/// Where Handoff is, and no workload.
const OURS: &str = "n03";
const WORKERS: [&str; 3] = ["n00", "n01", "n02"];
/// Time until the pod runs and a replica leads.
const LEADS: Duration = Duration::from_secs(15);
/// From the begin of the backups to the interruption.
const SENDING: Duration = Duration::from_millis(6500);
/// What does not come within this does not come.
const LIMIT: Duration = Duration::from_mins(20);

/// What a way is played on.
struct Scene {
    cluster: Arc<Cluster>,
    replicas: Vec<Replica>,
}

/// Plays a way on a release of Longhorn. An error is one of this machine.
pub fn play(way: Way, release: &Release) -> std::io::Result<Played> {
    crate::run(story(way, release.clone()))
}

async fn story(way: Way, release: Release) -> Played {
    let mut plan = Plan::new(release, 4, Chance::new(1));
    plan.workloads.push(way.workload());
    let cluster = plan.build();
    let tainted = json!([{"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}]);
    cluster.store.change("e2e", NODES, &key("", OURS), |node| node["spec"]["taints"] = tainted);
    let mut scene = Scene { cluster: cluster.clone(), replicas: Vec::new() };
    (0..2).for_each(|n| scene.start_replica(n));
    tokio::time::sleep(LEADS).await;
    let before = scene.pod();
    let uploads = way.uploads();
    let cut = Arc::new(AtomicBool::new(false));
    for upload in &uploads {
        start_backup(&cluster, upload.clone());
        tokio::spawn(sees_the_cut(cluster.clone(), upload.name.clone(), cut.clone()));
    }
    tokio::time::sleep(SENDING).await;
    scene.interrupt(way).await;
    scene.open_all();
    scene.until("everything to be over", |scene| scene.unfinished(&uploads)).await;
    cluster.witness.at_the_end();
    let again_percent = |upload: &Upload| {
        let record = cluster.longhorn.target.record(&upload.name);
        100 * record.sent.saturating_sub(record.blocks) / record.blocks.max(1)
    };
    let ended = Ended {
        elsewhere: text(&scene.pod(), "/spec/nodeName") != text(&before, "/spec/nodeName"),
        cut: cut.load(Ordering::Relaxed),
        end: scene.end(&uploads),
        again_percent: uploads.iter().map(again_percent).max().unwrap_or(0),
        prestages: scene.prestages().len(),
    };
    Played { ended, broken: cluster.witness.broken(), story: cluster.witness.story() }
}

async fn sees_the_cut(cluster: Arc<Cluster>, backup: String, cut: Arc<AtomicBool>) {
    let lost = |b: &Value| matches!(text(b, "/status/state"), "Error" | "Unknown");
    cluster.store.until(BACKUPS, &key(STORAGE, &backup), lost).await;
    cut.store(true, Ordering::Relaxed);
}

impl Scene {
    async fn interrupt(&mut self, way: Way) {
        match way {
            Way::Drain | Way::DrainDeployment | Way::TwoBackups | Way::PodOnlyDrained | Way::CompleteInTarget => {
                self.drain("n00").await;
            }
            Way::DeletePod | Way::FullMode => self.send_away().await,
            Way::RolloutRestart => self.rollout_restart().await,
            Way::ScaledToZero => self.scale_to_zero_and_back().await,
            Way::ManagersRestarted => self.restart_managers().await,
            Way::TargetDown => self.target_down().await,
            Way::PrestagePodDeleted => self.pod_deleted().await,
            Way::PrestageTargetLost => self.target_lost().await,
            Way::NoexecuteTaint => self.taint().await,
            Way::HandoffDown => self.drain_without_handoff().await,
            Way::ReplicasRestarted => self.drain_while_handoff_restarts().await,
            Way::ApiAway => self.drain_while_the_api_is_away().await,
            Way::ThereAndBack => self.there_and_back().await,
            Way::Onward => self.onward().await,
            Way::ThreeDrains => self.three_drains().await,
            Way::BackupDeleted => self.delete_backup().await,
            Way::SnapshotDeleted => self.delete_snapshot().await,
            Way::ReplicaKilled => self.kill_replica().await,
            Way::ReplicaDrained => self.drain("n01").await,
            Way::PrestageRebound => self.rebound().await,
            Way::PrestageUnrecorded => self.unrecorded().await,
            Way::PrestageRefused => self.refused().await,
        }
    }

    fn start_replica(&mut self, number: usize) {
        self.replicas.push(Replica::start(&self.cluster, &format!("handoff-{number}"), OURS, Start::default()));
    }

    /// The pod that stays, if one is there.
    fn pod(&self) -> Value {
        let (pods, _) = self.cluster.store.list(PODS, WORKLOADS);
        pods.iter().map(|pod| &pod.value).find(|pod| !is_deleting(pod)).cloned().unwrap_or_default()
    }

    fn handoff(&self) -> Value {
        let (handoffs, _) = self.cluster.store.list(HANDOFFS, WORKLOADS);
        handoffs.first().map(|handoff| handoff.value.clone()).unwrap_or_default()
    }

    fn state(&self, backup: &str) -> String {
        let backup = self.cluster.store.get(BACKUPS, &key(STORAGE, backup));
        backup.map(|b| text(&b.value, "/status/state").to_owned()).unwrap_or_default()
    }

    /// Nodes of our pre-stages.
    fn prestages(&self) -> Vec<String> {
        let request = self.cluster.store.get(TICKETS, &key(STORAGE, VOLUME));
        let all = request.iter().flat_map(|r| entries(&r.value, "/spec/attachmentTickets"));
        let ours = all.filter(|(_, ticket)| text(ticket, "/parameters/lastAttachedBy") == MARK);
        ours.map(|(_, ticket)| text(ticket, "/nodeID").to_owned()).collect()
    }

    /// Waits for what is not so yet, as `missing` says; in vain is a fault of its own.
    async fn until(&self, what: &str, missing: impl Fn(&Self) -> Option<String>) {
        let waited = async {
            while missing(self).is_some() {
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        };
        if tokio::time::timeout(LIMIT, waited).await.is_err() {
            let left = missing(self).unwrap_or_default();
            self.cluster.witness.breaks(&format!("waited in vain for {what}: {left}"));
        }
    }

    fn unfinished(&self, uploads: &[Upload]) -> Option<String> {
        if !is_ready(&self.pod()) {
            return Some("the pod does not run".to_owned());
        }
        let handoff = self.handoff();
        // none is right when nothing was owed
        if handoff.is_object() && text(&handoff, "/status/finishedAt").is_empty() {
            return Some("the handoff is not finished".to_owned());
        }
        let open = uploads.iter().find(|u| self.state(&u.name) != "Completed" && self.given_up(&u.name).is_none());
        open.map(|u| format!("backup {} is {}", u.name, self.state(&u.name)))
    }

    /// Why the handoff has given the backup up, if it has.
    fn given_up(&self, backup: &str) -> Option<String> {
        let handoff = self.handoff();
        let mut resumes = elements(&handoff, "/status/resumes");
        let ours = resumes.find(|r| text(r, "/backup") == backup && text(r, "/state") == "Unrecoverable")?;
        Some(text(ours, "/reason").to_owned())
    }

    /// In the words of tests/e2e/outcomes.tsv, which are parts of the reasons.
    fn end(&self, uploads: &[Upload]) -> String {
        let Some(left) = uploads.iter().find(|upload| self.state(&upload.name) != "Completed") else {
            return "Completed".to_owned();
        };
        let reason = self.given_up(&left.name).unwrap_or_else(|| "nobody says why".to_owned());
        let word = ["deleted", "snapshot"].into_iter().find(|word| reason.contains(word));
        format!("given up: {}", word.unwrap_or(&reason))
    }

    /// Its pod is another one than `before`, and ready.
    async fn ready_after(&self, before: &Value) {
        let uid = text(before, "/metadata/uid").to_owned();
        self.until("the next pod to be ready", |scene| {
            let pod = scene.pod();
            let there = is_ready(&pod) && text(&pod, "/metadata/uid") != uid;
            (!there).then(|| format!("on '{}'", text(&pod, "/spec/nodeName")))
        })
        .await;
    }

    /// Cordons the node of the pod and deletes the pod. Returns it.
    async fn send_away_only(&self) -> Value {
        let pod = self.pod();
        cordon(&self.cluster, text(&pod, "/spec/nodeName"));
        delete_pod(&self.cluster, &key(WORKLOADS, text(&pod, "/metadata/name"))).await;
        pod
    }

    async fn send_away(&self) {
        let before = self.send_away_only().await;
        self.ready_after(&before).await;
    }

    fn open_all(&self) {
        WORKERS.iter().for_each(|node| uncordon(&self.cluster, node));
    }
}
