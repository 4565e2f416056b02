//! One passage: fresh data, a backup in flight, the interruption, and what became of it.

use super::{
    nodes, pods,
    way::{End, Way},
};
use crate::{
    backup::{self, Backup},
    bench::Bench,
    cluster::{HANDOFF, Read, until},
    handoff,
    journey::{self, Cargo, Compared},
    observer::Observer,
    report::{self, Claim},
    restore, s3, settle,
    timeline::Step,
    workload::{self, NAMESPACE_NAME, Running},
};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::time::Duration;

/// A pod that is not there by then counts as stranded. A node that lost its power takes its time to be missed.
const PATIENCE: Duration = Duration::from_mins(5);
/// How often a backup is made until it is as the way needs it.
const LOADS: usize = 4;
/// A handoff notes the end of a backup within moments.
const NOTED: Duration = Duration::from_mins(1);

/// What became of a passage.
pub struct Passage {
    /// The way.
    pub way: Way,
    /// How the backup ended, in a word.
    pub end: String,
    /// Seconds from the interruption to the ready pod.
    pub ready: Option<f64>,
    /// What arrived at the S3 server.
    pub blocks: Option<s3::Blocks>,
    /// The pod runs on another node than before; `None`: nobody could look.
    pub elsewhere: Option<bool>,
    /// The backup was seen lost in between.
    pub cut: bool,
    /// Pre-stages that are left.
    pub prestages: usize,
    /// What must hold.
    pub claims: Vec<Claim>,
}

impl Passage {
    /// One that could not be carried out.
    pub fn broken(way: Way, error: &anyhow::Error) -> Self {
        let claims = vec![Claim::new("the passage could be carried out", false, format!("{error:#}"))];
        let end = "?".to_owned();
        Self { way, end, ready: None, blocks: None, elsewhere: None, cut: false, prestages: 0, claims }
    }

    /// A line of tests/e2e/outcomes.tsv: categories that do not depend on speed.
    pub fn outcome(&self, longhorn: &str) -> String {
        let elsewhere = self.elsewhere.filter(|_| !self.way.place_varies());
        let pod = elsewhere.map_or("-", |elsewhere| if elsewhere { "elsewhere" } else { "same node" });
        let cut = match self.cut {
            _ if self.way.cut_varies() => "-",
            true => "cut",
            false => "not cut",
        };
        let blocks = self.blocks.filter(|_| self.end == "Completed");
        let again = blocks.map_or("-", |b| if 10 * b.again <= b.blocks { "few" } else { "many" });
        format!("{}\t{longhorn}\t{pod}\t{cut}\t{}\t{again}\t{}", self.way.name(), self.end, self.prestages)
    }
}

/// What an interruption works on.
pub struct Scene<'a> {
    /// Cluster and lab.
    pub bench: &'a Bench,
    /// The workload before.
    pub workload: &'a Running,
    /// The backup.
    pub backup: &'a Backup,
    /// Watches.
    pub observer: &'a Observer,
}

impl Scene<'_> {
    /// Waits until the workload is ready again in a new pod.
    pub async fn ready(&self) -> Result<()> {
        if self.observer.wait_for(Step::Ready, PATIENCE).await {
            return Ok(());
        }
        bail!("the pod was not ready again within {} s", PATIENCE.as_secs())
    }
}

/// The workload, and a backup in flight that is as the way needs it.
async fn loaded(bench: &Bench, way: Way) -> Result<(Running, Cargo)> {
    for _ in 0..LOADS {
        let workload = settle::settle(bench).await?;
        let cargo = super::owed::load(bench, way, &workload).await?;
        let (backup, _) = cargo.backup.as_ref().context("no backup was started")?;
        if way != Way::ReplicaDrained || nodes::uploader(bench, &workload, backup).await? != workload.node {
            return Ok((workload, cargo));
        }
        // an engine has always the same of its replicas upload: with the pod elsewhere, that one is not beside it
        println!("  the replica beside the pod uploads: the pod is moved first");
        backup::finish(&bench.cluster, backup).await?;
        pods::move_away(bench, &workload).await?;
    }
    bail!("the replica beside the pod uploaded {LOADS} times")
}

/// Makes one passage. Nodes are left as the interruption left them.
pub async fn make(bench: &Bench, way: Way) -> Result<Passage> {
    let (workload, cargo) = loaded(bench, way).await.context("loading")?;
    let (backup, _) = cargo.backup.as_ref().context("no backup was started")?;
    let observer = Observer::start(&bench.cluster, &workload, Some(backup), true).await?;
    observer.begin();
    let scene = Scene { bench, workload: &workload, backup, observer: &observer };
    let mut claims = way.interrupt(&scene).await.context("interrupting")?;
    let expected = way.expected(bench.pod_waits_for_backup());
    let end = match expected.end {
        End::Completed => backup::finish(&bench.cluster, backup).await?,
        End::Unrecoverable(_) => backup::state(&bench.cluster, backup).await?,
    };
    let blocks = journey::uploaded(bench, &workload, &cargo).await?;
    let timeline = observer.timeline();
    drop(observer);
    let says = handoff_says(bench, &workload, backup, expected.end).await?;
    let word = match expected.end {
        End::Unrecoverable(reason) if says.as_ref().is_some_and(|claim| claim.holds) => format!("given up: {reason}"),
        _ => end.word.clone(),
    };
    claims.extend(says);
    let prestages = handoff::prestages(&bench.cluster).await?;
    // nodes are needed again for what follows
    way.undo(bench).await?;
    let after = settle::settle(bench).await.context("after the interruption")?;
    if expected.moves {
        let to = format!("{} → {}", workload.node, after.node);
        claims.push(Claim::new("the pod runs on another node", after.node != workload.node, to));
    }
    let lost = timeline.has(Step::BackupLost);
    if expected.interrupted {
        let how = if lost { format!("lost {}", timeline.note(Step::BackupLost)) } else { "never lost".into() };
        claims.push(Claim::new("the backup was interrupted", lost, how));
    }
    if expected.end == End::Completed {
        let own = end.same && end.word == "Completed";
        claims.push(Claim::new(
            "the backup completed under its own name",
            own,
            format!("{} {}", backup.name, end.word),
        ));
    }
    if let Some(blocks) = blocks.filter(|_| expected.cuts > 0) {
        claims.push(report::few_blocks(blocks, expected.cuts));
    }
    let moved = Compared::of(&cargo.at_drain, &workload::checksums(&after.pod).await?);
    claims.push(report::compared("the volume's data is equal", &moved));
    claims.push(Claim::new("no pre-stage is left", prestages.is_empty(), prestages.join(", ")));
    if expected.end == End::Completed && end.word == "Completed" {
        settle::storage(bench).await?;
        let found = restore::checksums(&bench.cluster, &end.url, &bench.common.image).await?;
        let restored = Compared::of(&cargo.at_snapshot, &found);
        claims.push(report::compared("the restored data equals the snapshot's", &restored));
    }
    Ok(Passage {
        way,
        end: word,
        ready: timeline.at(Step::Ready),
        blocks,
        elsewhere: Some(after.node != workload.node),
        cut: lost,
        prestages: prestages.len(),
        claims,
    })
}

/// The handoff's own account of the backup, which must agree. No handoff is right when nothing was owed.
async fn handoff_says(bench: &Bench, workload: &Running, backup: &Backup, end: End) -> Result<Option<Claim>> {
    let mut said = String::new();
    let state = match end {
        End::Completed => "Completed",
        End::Unrecoverable(_) => "Unrecoverable",
    };
    let waited = until(NOTED, "the handoff to note the end", async || {
        let found = bench.cluster.find(&HANDOFF, NAMESPACE_NAME, &workload.volume).await?;
        let resumes = found.as_ref().map(|h| h.items("/status/resumes").to_vec()).unwrap_or_default();
        let Some(ours) = resumes.iter().find(|r| r.text("/backup") == backup.name) else { return Ok(None) };
        said = format!("{} {}", ours.text("/state"), ours.text("/reason"));
        Ok((ours.text("/state") != state).then(|| said.clone()))
    })
    .await;
    let held = match end {
        End::Completed => waited.is_ok(),
        End::Unrecoverable(reason) => waited.is_ok() && said.contains(reason),
    };
    let nothing_owed = said.is_empty() && end == End::Completed;
    Ok((!nothing_owed).then(|| Claim::new("the handoff says the same", held, said.trim())))
}

/// A number at a JSON pointer.
pub fn number(object: &Value, pointer: &str) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench;
    use clap::ValueEnum;

    const COMMITTED: &str = include_str!("../../outcomes.tsv");

    /// A passage that went as its way expects, with as many blocks again as a way of its kind may have.
    fn as_expected(way: Way, longhorn: &str) -> Passage {
        let expected = way.expected(bench::waits(longhorn));
        let end = match expected.end {
            End::Completed => "Completed".to_owned(),
            End::Unrecoverable(reason) => format!("given up: {reason}"),
        };
        let blocks = s3::Blocks { blocks: 59, again: if way == Way::FullMode { 26 } else { 2 } };
        Passage {
            way,
            end,
            ready: None,
            blocks: Some(blocks),
            elsewhere: Some(expected.moves),
            cut: expected.interrupted,
            prestages: 0,
            claims: Vec::new(),
        }
    }

    #[test]
    fn the_committed_outcomes_are_lines_as_they_are_written_here() {
        let mut compared = 0;
        for line in COMMITTED.lines().filter(|line| !line.starts_with('#')) {
            let columns = line.split('\t').collect::<Vec<_>>();
            // drains with nothing special about them are runs of `ci`
            if ["drain", "drain-deployment"].contains(&columns[0]) {
                continue;
            }
            let way = Way::from_str(columns[0], false).unwrap_or_else(|error| panic!("{line}: {error}"));
            assert_eq!(line, as_expected(way, columns[1]).outcome(columns[1]));
            compared += 1;
        }
        assert!(compared > 30, "{compared} lines");
    }

    #[test]
    fn another_outcome_is_another_line() {
        let line = |change: fn(&mut Passage)| {
            let mut passage = as_expected(Way::DeletePod, "1.10.0");
            change(&mut passage);
            passage.outcome("1.10.0")
        };
        let usual = line(|_| {});
        let changes: [fn(&mut Passage); 5] = [
            |p| p.elsewhere = Some(false),
            |p| p.cut = false,
            |p| p.end = "Error".to_owned(),
            |p| p.blocks = Some(s3::Blocks { blocks: 59, again: 30 }),
            |p| p.prestages = 1,
        ];
        assert!(changes.into_iter().all(|change| line(change) != usual), "{usual}");
    }
}
