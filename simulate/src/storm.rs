//! A drain storm: one node with many volumes, some of them with a backup in flight, is drained whole. How long until each
//! pod runs again, and how long until each backup is safe.

use crate::{
    api::resource::BACKUPS,
    chance::Chance,
    cluster::{Cluster, STORAGE, Timing, key},
    json::text,
    kubernetes::{Controller, drain},
    longhorn::{BLOCK, Release, start_backup},
    replica::{Replica, Start},
    world::{Plan, Planned, backup},
};
use serde::Serialize;
use std::{sync::Arc, time::Duration};

/// Time until all pods run and a replica leads, beside a report of the kubelets.
const WARM_UP: Duration = Duration::from_secs(20);
/// Backups are this far, or less, when the drain begins.
const BEGUN: Duration = Duration::from_secs(30);

/// A drain storm in numbers.
#[derive(Clone, Debug)]
pub struct Storm {
    /// Volumes on the node that is drained, each with a pod.
    pub volumes: usize,
    /// How many of them have a backup in flight.
    pub with_backups: usize,
    /// Nodes of the cluster.
    pub nodes: usize,
    /// Bytes of a backup.
    pub backup_bytes: u64,
    /// Bytes that one backup sends in a second.
    pub upload_rate: u64,
    /// How often kubelets report.
    pub kubelet_tick: Duration,
    /// Longhorn's release.
    pub release: Release,
    /// What chance is drawn from.
    pub seed: u64,
    /// What is not over by then is not waited for.
    pub patience: Duration,
}

/// Times of the same thing, many times.
#[derive(Clone, Debug, Default, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Times {
    /// How many came to their end.
    pub done: usize,
    /// How many did not, in time or ever.
    pub not_done: usize,
    /// Half of those that did took no longer, in seconds.
    pub p50: f64,
    /// Nine of ten.
    pub p90: f64,
    /// All but one in a hundred.
    pub p99: f64,
    /// All.
    pub max: f64,
}

impl Times {
    fn of(all: &[Option<Duration>]) -> Self {
        let mut done = all.iter().flatten().map(Duration::as_secs_f64).collect::<Vec<_>>();
        done.sort_by(f64::total_cmp);
        let at = |per_cent: usize| {
            let place = (done.len() * per_cent).div_ceil(100).max(1) - 1;
            done.get(place).map_or(0.0, |seconds| (seconds * 10.0).round() / 10.0)
        };
        let (p50, p90, p99, max) = (at(50), at(90), at(99), at(100));
        Self { done: done.len(), not_done: all.len() - done.len(), p50, p90, p99, max }
    }
}

/// What came of a storm.
#[derive(Clone, Debug, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Figures {
    /// From the drain to the pod ready elsewhere, of all volumes.
    pub move_seconds: Times,
    /// The same, of those with a backup in flight.
    pub move_seconds_with_backup: Times,
    /// From the drain to the backup complete.
    pub safe_seconds: Times,
    /// Blocks that were sent in all.
    pub blocks_sent: u64,
    /// Blocks that are in the target.
    pub blocks_there: u64,
    /// From the drain's first eviction to its end; absent if it did not end in time.
    pub drain_seconds: Option<f64>,
    /// Invariants that did not hold.
    pub broken: Vec<String>,
}

impl Storm {
    /// Runs it, with Handoff or without.
    pub fn run(&self, with_handoff: bool) -> std::io::Result<Figures> {
        crate::run(self.story(with_handoff))
    }

    fn plan(&self) -> Plan {
        let chance = Chance::new(self.seed);
        let mut plan = Plan::new(self.release.clone(), self.nodes.max(2), chance);
        plan.timing = Timing { varies: true, kubelet_tick: self.kubelet_tick, ..Timing::default() };
        for n in 0..self.volumes {
            let others = u64::try_from(plan.nodes.len()).unwrap_or(2) - 1;
            let other = 1 + usize::try_from(chance.below(others, ("replica", n))).unwrap_or(0);
            let planned = Planned::new(&format!("db{n:04}"), Controller::StatefulSet, "n00", &plan.nodes[other]);
            plan.workloads.push(planned);
        }
        plan
    }

    async fn story(&self, with_handoff: bool) -> Figures {
        let plan = self.plan();
        let cluster = plan.build();
        if with_handoff {
            for n in 0..2 {
                let node = &plan.nodes[plan.nodes.len() - 1 - n % (plan.nodes.len() - 1)];
                Replica::start(&cluster, &format!("handoff-{n}"), node, Start::default());
            }
        }
        tokio::time::sleep(WARM_UP + self.kubelet_tick).await;
        let backups = self.start_backups(&cluster, &plan).await;
        let begin = cluster.time.passed();
        let drained = {
            let cluster = cluster.clone();
            tokio::spawn(async move { drain(&cluster, "n00").await })
        };
        let over = async {
            while !Self::is_over(&cluster, &plan, &backups, begin, with_handoff) {
                tokio::time::sleep(Duration::from_secs(5)).await;
            }
        };
        // what is not over is counted as such
        let _ = tokio::time::timeout(self.patience, over).await;
        self.figures(&cluster, &plan, &backups, begin, drained).await
    }

    /// Begins the backups, spread over some time so that they are at different places when the drain comes.
    async fn start_backups(&self, cluster: &Arc<Cluster>, plan: &Plan) -> Vec<String> {
        let blocks = self.backup_bytes.div_ceil(BLOCK).max(1);
        let each = Duration::from_micros(BLOCK * 1_000_000 / self.upload_rate.max(1));
        let mut names = Vec::new();
        for planned in plan.workloads.iter().take(self.with_backups) {
            let name = format!("backup-{}", planned.name);
            let upload = backup(&planned.name, &name, blocks, each);
            let (cluster, wait) = (cluster.clone(), cluster.chance.between(Duration::ZERO, BEGUN, &name));
            names.push(name);
            tokio::spawn(async move {
                tokio::time::sleep(wait).await;
                start_backup(&cluster, upload);
            });
        }
        tokio::time::sleep(BEGUN).await;
        names
    }

    fn is_over(cluster: &Cluster, plan: &Plan, backups: &[String], begin: Duration, resumes: bool) -> bool {
        let moved = plan.workloads.iter().all(|w| moved_at(cluster, &w.pod(), begin).is_some());
        let state = |name: &String| {
            let backup = cluster.store.get(BACKUPS, &key(STORAGE, name));
            backup.map(|b| text(&b.value, "/status/state").to_owned()).unwrap_or_default()
        };
        // nothing but Handoff ever takes up a backup that has ended
        let ended = |name: &String| matches!(state(name).as_str(), "Completed") || !resumes && state(name) == "Error";
        moved && backups.iter().all(ended)
    }

    async fn figures(
        &self,
        cluster: &Cluster,
        plan: &Plan,
        backups: &[String],
        begin: Duration,
        drained: tokio::task::JoinHandle<crate::kubernetes::Drained>,
    ) -> Figures {
        let moves = plan.workloads.iter().map(|w| moved_at(cluster, &w.pod(), begin)).collect::<Vec<_>>();
        let safe = backups.iter().map(|name| cluster.witness.completed_at(name).map(|at| at.saturating_sub(begin)));
        let safe = safe.collect::<Vec<_>>();
        let records = backups.iter().map(|name| cluster.longhorn.target.record(name));
        let (sent, there) = records.fold((0, 0), |(sent, there), r| (sent + r.sent, there + r.there));
        let drain_seconds = match tokio::time::timeout(Duration::from_secs(1), drained).await {
            Ok(Ok(drained)) => Some((drained.took.as_secs_f64() * 10.0).round() / 10.0),
            _ => None,
        };
        Figures {
            move_seconds_with_backup: Times::of(&moves[..self.with_backups.min(moves.len())]),
            move_seconds: Times::of(&moves),
            safe_seconds: Times::of(&safe),
            blocks_sent: sent,
            blocks_there: there,
            drain_seconds,
            broken: cluster.witness.broken(),
        }
    }
}

fn moved_at(cluster: &Cluster, pod: &str, begin: Duration) -> Option<Duration> {
    cluster.witness.ready_at(pod).filter(|at| *at > begin).map(|at| at.saturating_sub(begin))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_counted_and_ranked() {
        let all = (1..=100).map(|n| Some(Duration::from_secs(n))).chain([None, None]).collect::<Vec<_>>();
        let times = Times::of(&all);
        assert_eq!((times.done, times.not_done), (100, 2));
        let ranked = format!("{:?}", [times.p50, times.p90, times.p99, times.max]);
        assert_eq!(ranked, "[50.0, 90.0, 99.0, 100.0]");
        assert_eq!(Times::of(&[]), Times::default());
    }
}
