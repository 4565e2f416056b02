//! One move, from a cluster at rest to a verdict: fresh data, a backup in flight, the drain, the wait for the pod and
//! for the backup, and the comparison of every checksum.

use crate::{
    backup::{self, Backup, State},
    bench::Bench,
    cluster::{LH_VOLUME, NODE, Read},
    drain::{Drain, Ended, WITHOUT_STORAGE},
    handoff,
    metrics::{Histogram, Reviews},
    observer::Observer,
    restore, s3, settle,
    timeline::{Step, Timeline},
    workload::{self, Checksums, Running},
};
use anyhow::{Context, Result};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use std::{
    hash::{BuildHasher, Hasher, RandomState},
    time::Duration,
};

/// A drain that has not ended by then does not end.
const DRAIN_LIMIT: Duration = Duration::from_mins(7);
/// Reaching the progress at which the drain begins.
const PROGRESS_LIMIT: Duration = Duration::from_mins(5);
/// Longhorn notices a lost backup within a few seconds, mostly; 22 s after the detach was seen.
const LOSS_SHOWS: Duration = Duration::from_mins(1);
/// The leader is killed within this time after the drain began, in milliseconds.
const KILL_WITHIN_MILLIS: u64 = 45_000;

/// What kind of move.
#[expect(clippy::struct_excessive_bools, reason = "independent switches, each named where it is set")]
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// With a backup in flight.
    pub backup: bool,
    /// With Handoff in the cluster (it must be there already).
    pub handoff: bool,
    /// Drains Longhorn's instance manager and CSI controllers too, as a plain `kubectl drain` does.
    pub whole_node: bool,
    /// How long the pod is waited for.
    pub limit: Duration,
    /// What is done to Handoff meanwhile.
    pub disturb: Option<Disturb>,
    /// Restore the backup and compare.
    pub restore: bool,
    /// Print the steps as they come.
    pub live: bool,
}

/// What is done to Handoff during a move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Disturb {
    /// SIGKILL for the leader at a random moment.
    KillLeader,
    /// All replicas are restarted, one after the other.
    RestartReplicas,
}

impl Disturb {
    /// What must hold of it.
    pub fn claim(self) -> &'static str {
        match self {
            Self::KillLeader => "the leader was killed",
            Self::RestartReplicas => "all replicas were restarted",
        }
    }
}

/// Result of comparing checksums.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compared {
    /// All files are equal.
    Equal(usize),
    /// Some are not.
    Differs(String),
}

impl Compared {
    /// The comparison.
    pub fn of(expected: &Checksums, found: &Checksums) -> Self {
        workload::difference(expected, found).map_or(Self::Equal(expected.len()), Self::Differs)
    }
}

/// The backup's story.
#[derive(Clone, Debug, Serialize)]
pub struct BackupStory {
    /// Its name.
    pub name: String,
    /// Progress when the drain began.
    pub at_drain: i64,
    /// How it stood in the end; for a pod that did not come, when its time was up.
    pub end: State,
    /// What arrived at the S3 server.
    pub blocks: Option<s3::Blocks>,
    /// The restored data against the snapshot's.
    pub restored: Option<Compared>,
}

/// What was done to Handoff.
#[derive(Clone, Debug, Serialize)]
pub struct Disturbed {
    /// What.
    pub how: Disturb,
    /// Seconds after the drain began.
    pub at: f64,
    /// The pods, or why it was not done.
    pub who: String,
    /// Whether it was done.
    pub done: bool,
}

/// What became of a move.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// The node that was drained.
    pub from: String,
    /// The steps.
    pub timeline: Timeline,
    /// The drain.
    pub drain: Ended,
    /// Where things stood when the time was up without a ready pod.
    pub stuck: Option<String>,
    /// The backup.
    pub backup: Option<BackupStory>,
    /// The moved volume's data against what was written.
    pub moved: Compared,
    /// Handoff's pre-stages that were left.
    pub prestages: Vec<String>,
    /// What was done to Handoff.
    pub disturbed: Option<Disturbed>,
    /// Handoff's reviews of evictions.
    pub reviews: Histogram,
}

impl Outcome {
    /// Seconds from the drain to the ready pod.
    pub fn ready(&self) -> Option<f64> {
        self.timeline.at(Step::Ready)
    }
}

/// What is on the volume when the move begins.
pub struct Cargo {
    /// What the backup's snapshot holds.
    pub at_snapshot: Checksums,
    /// What the volume holds.
    pub at_drain: Checksums,
    /// The backup, and how far it had come.
    pub backup: Option<(Backup, i64)>,
    /// Where the S3 server's log stood before the backup.
    pub since: Option<s3::Since>,
}

/// Makes one move. The cluster is back in service afterwards.
pub async fn travel(bench: &Bench, plan: &Plan) -> Result<Outcome> {
    let workload = settle::settle(bench).await?;
    let cargo = load(bench, &workload, plan.backup.then_some("incremental")).await.context("preparing the move")?;
    let backup = cargo.backup.as_ref().map(|(backup, _)| backup);
    let observer = Observer::start(&bench.cluster, &workload, backup, plan.live).await?;
    let (drain, disturbed, reviews) = drain(bench, plan, &workload, &observer).await?;
    let stuck = if observer.timeline().has(Step::Ready) { None } else { Some(stuck(bench, &workload).await?) };
    let story = follow_backup(bench, plan, &workload, &cargo, stuck.is_some()).await?;
    let prestages = handoff::prestages(&bench.cluster).await?;
    let timeline = observer.timeline();
    drop(observer);
    let pod = return_to_service(bench, stuck.is_some()).await?;
    let moved = Compared::of(&cargo.at_drain, &workload::checksums(&pod.pod).await?);
    let story = match story {
        Some(story) => Some(restore(bench, plan, &pod, story, &cargo.at_snapshot).await?),
        None => None,
    };
    Ok(Outcome { from: workload.node, timeline, drain, stuck, backup: story, moved, prestages, disturbed, reviews })
}

/// Fresh data, and a backup of it (in this mode, if one is wanted) that has come as far as asked for, with more data
/// written since.
pub async fn load(bench: &Bench, workload: &Running, mode: Option<&str>) -> Result<Cargo> {
    let (cluster, common) = (&bench.cluster, &bench.common);
    workload::write(&workload.pod, "before", bench.data).await?;
    let at_snapshot = workload::checksums(&workload.pod).await?;
    let Some(mode) = mode else {
        return Ok(Cargo { at_drain: at_snapshot.clone(), at_snapshot, backup: None, since: None });
    };
    let name = format!("e2e-{}", Timestamp::now().as_millisecond());
    backup::snapshot(cluster, workload, &name).await?;
    let since = log_position(bench).await?;
    let backup = backup::start(cluster, workload, &name, mode).await?;
    workload::write(&workload.pod, "during", bench.data / 5).await?;
    let at_drain = workload::checksums(&workload.pod).await?;
    backup::reach(cluster, &backup, common.at_progress, PROGRESS_LIMIT).await?;
    let progress = backup::state(cluster, &backup).await?.progress;
    Ok(Cargo { at_snapshot, at_drain, backup: Some((backup, progress)), since })
}

/// Where the S3 server's log stands; `None` where there is no lab.
pub async fn log_position(bench: &Bench) -> Result<Option<s3::Since>> {
    match &bench.lab {
        Some(lab) => Ok(Some(s3::from_now(lab).await?)),
        None => Ok(None),
    }
}

/// The drain, until it ended and the pod is ready, or until the time is up.
async fn drain(
    bench: &Bench,
    plan: &Plan,
    workload: &Running,
    observer: &Observer,
) -> Result<(Ended, Option<Disturbed>, Histogram)> {
    let selector = (!plan.whole_node).then_some(WITHOUT_STORAGE);
    let limit = if plan.handoff { DRAIN_LIMIT } else { plan.limit };
    let mut reviews = Reviews::start(&bench.cluster, "eviction").await?;
    settle::mark(&bench.cluster, &workload.node).await?;
    if plan.live {
        println!("  $ kubectl {}", Drain::arguments(&workload.node, selector).join(" "));
    }
    observer.begin();
    let drain = Drain::start(&workload.node, selector)?;
    let ended = async {
        let (code, seconds, complaint) = drain.wait(limit).await?;
        let how = code.map_or("by us: its time was up".to_owned(), |code| format!("exit code {code}"));
        observer.add(Step::DrainEnded, &how);
        if plan.live {
            println!("  {:6.1} s  {} ({how})", observer.elapsed(), Step::DrainEnded.label());
        }
        let node = bench.cluster.get(&NODE, "", &workload.node).await?;
        let still_cordoned = node.pointer("/spec/unschedulable") == Some(&Value::Bool(true));
        anyhow::Ok(Ended { code, seconds, still_cordoned, complaint })
    };
    let all = async { tokio::join!(ended, observer.wait_for(Step::Ready, plan.limit), disturb(bench, plan, observer)) };
    let (ended, _, disturbed) = tokio::select! {
        all = all => all,
        never = reviews.keep_reading() => never,
    };
    reviews.read().await?;
    Ok((ended?, disturbed, reviews.added))
}

/// Does to Handoff what the plan says.
async fn disturb(bench: &Bench, plan: &Plan, observer: &Observer) -> Option<Disturbed> {
    let how = plan.disturb?;
    if how == Disturb::KillLeader {
        let random = RandomState::new().build_hasher().finish();
        tokio::time::sleep(Duration::from_millis(random % KILL_WITHIN_MILLIS)).await;
    }
    let at = observer.elapsed();
    let done = match (how, &bench.lab) {
        (Disturb::KillLeader, Some(lab)) => handoff::kill_leader(&bench.cluster, lab).await,
        (Disturb::KillLeader, None) => Err(anyhow::anyhow!("a process is killed by the lab only")),
        (Disturb::RestartReplicas, _) => handoff::restart(&bench.cluster).await.map(|pods| pods.join(", ")),
    };
    if plan.live {
        println!("  {at:6.1} s  {}", how.claim());
    }
    Some(match done {
        Ok(who) => Disturbed { how, at, who, done: true },
        Err(error) => Disturbed { how, at, who: format!("{error:#}"), done: false },
    })
}

/// Where the volume stands.
async fn stuck(bench: &Bench, workload: &Running) -> Result<String> {
    let volume = bench.cluster.get(&LH_VOLUME, &bench.cluster.longhorn, &workload.handle).await?;
    Ok(format!("volume is {}", volume.text("/status/state")))
}

/// Waits for the backup as far as there is hope, and counts what was uploaded.
async fn follow_backup(
    bench: &Bench,
    plan: &Plan,
    workload: &Running,
    cargo: &Cargo,
    stuck: bool,
) -> Result<Option<BackupStory>> {
    let Some((backup, at_drain)) = &cargo.backup else { return Ok(None) };
    let end = if plan.handoff {
        backup::finish(&bench.cluster, backup).await?
    } else {
        backup::give_up_after(&bench.cluster, backup, if stuck { Duration::ZERO } else { LOSS_SHOWS }).await?
    };
    let blocks = uploaded(bench, workload, cargo).await?;
    Ok(Some(BackupStory { name: backup.name.clone(), at_drain: *at_drain, end, blocks, restored: None }))
}

/// What was uploaded since the backup began; `None` where it cannot be counted.
pub async fn uploaded(bench: &Bench, workload: &Running, cargo: &Cargo) -> Result<Option<s3::Blocks>> {
    match (&bench.lab, cargo.since) {
        (Some(lab), Some(since)) => Ok(Some(s3::count(lab, since, &workload.handle).await?)),
        _ => Ok(None),
    }
}

/// Nodes back in service; waits until the pod is ready, as a stuck one becomes then.
async fn return_to_service(bench: &Bench, stuck: bool) -> Result<Running> {
    settle::uncordon(bench).await?;
    if !stuck {
        return workload::running(&bench.cluster).await;
    }
    bench.link_open().await?; // a pod that waits for its backup waits less
    let pod = settle::settle(bench).await.context("after the node was uncordoned");
    bench.link_slow().await?;
    pod
}

/// Restores a complete backup and compares; then only its snapshot is kept.
async fn restore(
    bench: &Bench,
    plan: &Plan,
    pod: &Running,
    mut story: BackupStory,
    expected: &Checksums,
) -> Result<BackupStory> {
    if plan.restore && story.end.word == "Completed" {
        settle::storage(bench).await?;
        let found = restore::checksums(&bench.cluster, &story.end.url, &bench.common.image).await;
        let found = found.with_context(|| format!("restoring backup {}", story.name))?;
        story.restored = Some(Compared::of(expected, &found));
    }
    backup::prune_snapshots(&bench.cluster, pod, &story.name).await?;
    Ok(story)
}
