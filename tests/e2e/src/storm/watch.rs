//! Looks at pods and backups of the fleet twice a second, and turns what it sees into times after the drain began.

use super::fleet::{Fleet, LABELS};
use crate::{
    backup::{self, Backup},
    cluster::{Cluster, POD, Read},
    report,
    workload::NAMESPACE_NAME,
};
use anyhow::Result;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};
use tokio::{sync::watch, task::JoinSet};

const LOOK: Duration = Duration::from_millis(500);

/// One backup.
#[derive(Clone, Debug, Default)]
struct Run {
    word: String,
    same: bool,
    lost: Option<f64>,
    resumed: Option<f64>,
    completed: Option<f64>,
}

impl Run {
    /// Takes in how it stands.
    fn see(&mut self, at: f64, word: &str, same: bool) {
        word.clone_into(&mut self.word);
        self.same = same;
        let first = match word {
            "Error" | "Unknown" => &mut self.lost,
            "InProgress" if self.lost.is_some() => &mut self.resumed,
            "Completed" => &mut self.completed,
            _ => return,
        };
        first.get_or_insert(at);
    }
}

/// What was seen.
#[derive(Clone, Debug, Default)]
pub struct Story {
    pods: usize,
    ready: BTreeMap<String, f64>,
    runs: BTreeMap<String, Run>,
    most_at_a_time: usize,
}

impl Story {
    fn see_pods(&mut self, at: f64, fleet: &Uids, pods: &[serde_json::Value]) {
        for pod in pods.iter().filter(|p| p.condition("Ready") == "True" && !p.has("/metadata/deletionTimestamp")) {
            let new = fleet.get(pod.name()).is_some_and(|uid| uid != pod.text("/metadata/uid"));
            if new {
                self.ready.entry(pod.name().to_owned()).or_insert(at);
            }
        }
    }

    fn see_backup(&mut self, at: f64, pod: &str, word: &str, same: bool) {
        self.runs.entry(pod.to_owned()).or_default().see(at, word, same);
    }

    fn count(&mut self) {
        let again = self.runs.values().filter(|r| r.resumed.is_some() && r.word == "InProgress").count();
        self.most_at_a_time = self.most_at_a_time.max(again);
    }

    fn all_ready(&self) -> bool {
        self.ready.len() == self.pods
    }

    fn all_complete(&self) -> bool {
        self.runs.values().all(|r| r.word == "Completed")
    }

    /// Resumed backups that ran at the same time, at most.
    pub fn most_at_a_time(&self) -> usize {
        self.most_at_a_time
    }

    /// Each ended as the object that was made.
    pub fn own_names(&self, backups: &BTreeMap<String, Backup>) -> bool {
        backups.keys().all(|pod| self.runs.get(pod).is_some_and(|r| r.same))
    }

    /// `12.1 / 14.5 / 20.1 / 22.0`: the times to Ready.
    pub fn arrivals(&self) -> String {
        let times = self.ready.values().copied().collect::<Vec<_>>();
        format!("{} ({} of {} pods)", spread(&times, &[0, 50, 90, 100]), times.len(), self.pods)
    }

    /// The times to Completed.
    pub fn safe(&self) -> String {
        let times = self.runs.values().filter_map(|r| r.completed).collect::<Vec<_>>();
        format!("{} ({} of {} backups)", spread(&times, &[0, 50, 100]), times.len(), self.runs.len())
    }

    /// `3 Completed, 1 Error`.
    pub fn ends(&self) -> String {
        let mut counts = BTreeMap::<&str, usize>::new();
        for run in self.runs.values() {
            *counts.entry(&run.word).or_default() += 1;
        }
        counts.iter().map(|(word, n)| format!("{n} {word}")).collect::<Vec<_>>().join(", ")
    }

    /// Each backup's own times.
    pub fn resumes(&self) -> comfy_table::Table {
        let mut table = report::table(&["backup of", "pod Ready", "lost", "resumed", "Completed"]);
        let cell = |at: Option<f64>| at.map_or("–".to_owned(), |at| format!("{at:.1}"));
        for (pod, run) in &self.runs {
            let ready = self.ready.get(pod).copied();
            table.add_row([pod.clone(), cell(ready), cell(run.lost), cell(run.resumed), cell(run.completed)]);
        }
        table
    }
}

/// Percentiles, by the nearest rank.
fn spread(times: &[f64], percent: &[usize]) -> String {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |p: usize| sorted.get((sorted.len() * p).div_ceil(100).saturating_sub(1));
    let all = percent.iter().map(|p| at(*p).map_or("–".to_owned(), |t| format!("{t:.1}")));
    all.collect::<Vec<_>>().join(" / ")
}

/// UIDs before the storm, by pod.
type Uids = BTreeMap<String, String>;

/// Looks until it is ended.
pub struct Watch {
    story: watch::Receiver<Story>,
    _task: JoinSet<()>,
}

impl Watch {
    /// Starts now: times count from here.
    pub fn start(cluster: &Cluster, fleet: &Fleet, backups: &BTreeMap<String, Backup>) -> Self {
        let first = Story { pods: fleet.pods.len(), ..Story::default() };
        let (sender, story) = watch::channel(first);
        let uids = fleet.pods.iter().map(|(name, p)| (name.clone(), p.uid.clone())).collect::<Uids>();
        let (cluster, backups, start) = (cluster.clone(), backups.clone(), Instant::now());
        let mut task = JoinSet::new();
        task.spawn(async move {
            loop {
                if let Err(error) = look(&cluster, &uids, &backups, start, &sender).await {
                    eprintln!("  (a look failed: {error:#})");
                }
                tokio::time::sleep(LOOK).await;
            }
        });
        Self { story, _task: task }
    }

    /// Waits until every pod is ready anew; whether that came.
    pub async fn all_ready(&self, limit: Duration) -> bool {
        let mut story = self.story.clone();
        tokio::time::timeout(limit, story.wait_for(Story::all_ready)).await.is_ok_and(|seen| seen.is_ok())
    }

    /// Waits until every backup is complete; whether that came.
    pub async fn all_complete(&self, limit: Duration) -> bool {
        let mut story = self.story.clone();
        tokio::time::timeout(limit, story.wait_for(Story::all_complete)).await.is_ok_and(|seen| seen.is_ok())
    }

    /// What was seen.
    pub fn end(self) -> Story {
        self.story.borrow().clone()
    }
}

async fn look(
    cluster: &Cluster,
    uids: &Uids,
    backups: &BTreeMap<String, Backup>,
    start: Instant,
    story: &watch::Sender<Story>,
) -> Result<()> {
    let pods = cluster.list(&POD, NAMESPACE_NAME, LABELS).await?;
    let at = start.elapsed().as_secs_f64();
    let mut states = Vec::new();
    for (pod, backup) in backups {
        states.push((pod, backup::state(cluster, backup).await?));
    }
    story.send_modify(|story| {
        story.see_pods(at, uids, &pods);
        for (pod, state) in &states {
            story.see_backup(at, pod, &state.word, state.same);
        }
        story.count();
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        assert_eq!(spread(&[4.0, 1.0, 3.0, 2.0], &[0, 50, 90, 100]), "1.0 / 2.0 / 4.0 / 4.0");
        assert_eq!(spread(&[], &[50]), "–");
    }

    #[test]
    fn a_backup_has_its_first_times() {
        let mut run = Run::default();
        for (at, word) in [(1.0, "InProgress"), (2.0, "Error"), (3.0, "Error"), (4.0, "InProgress"), (9.0, "Completed")]
        {
            run.see(at, word, true);
        }
        assert_eq!((run.lost, run.resumed, run.completed), (Some(2.0), Some(4.0), Some(9.0)));
    }
}
