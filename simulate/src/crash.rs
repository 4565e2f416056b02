//! One move, and a replica that dies at one of its writes. Whoever finishes, the outcome is the same (invariant 7).

use crate::{
    api::Crash,
    chance::Chance,
    history::{Outcome, drain_node, wait_until_over},
    kubernetes::{Controller, uncordon},
    longhorn::{Release, start_backup},
    replica::{Replica, Start},
    world::{Plan, Planned, backup},
};
use std::time::Duration;

/// Who finishes what the dead replica has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heir {
    /// Another replica that serves already.
    Standby,
    /// A new one that starts a moment later.
    New,
}

/// A move of which a replica dies.
#[derive(Clone, Debug)]
pub struct Death {
    /// Longhorn's release.
    pub release: Release,
    /// The backup turns out complete when it is looked at, although it ended in `Error`.
    pub complete_after_all: bool,
    /// How long the backup target refuses connections after the drain, and during it unless this is zero.
    pub target_away: Duration,
    /// When the replica dies; `None`: it does not.
    pub crash: Option<Crash>,
    /// Who is there then.
    pub heir: Heir,
}

/// How it went, and how many writes the first replica did.
#[derive(Clone, Debug)]
pub struct Died {
    /// How it went.
    pub outcome: Outcome,
    /// Writes of the first replica.
    pub writes: usize,
}

/// Time until the pod runs and the first replica leads.
const LEADS: Duration = Duration::from_secs(15);
/// From a replica's death to the next one's start.
const RESTART: Duration = Duration::from_secs(4);

impl Death {
    /// Makes the move.
    pub fn run(&self) -> std::io::Result<Died> {
        crate::run(self.story())
    }

    async fn story(&self) -> Died {
        let mut plan = Plan::new(self.release.clone(), 3, Chance::new(1));
        plan.workloads.push(Planned::new("db", Controller::StatefulSet, "n00", "n01"));
        let cluster = plan.build();
        let first = Replica::start(&cluster, "handoff-0", "n02", Start { crash: self.crash, ..Start::default() });
        tokio::time::sleep(LEADS).await;
        let (of, line, heir) = (cluster.clone(), first.line.clone(), self.heir);
        let next = tokio::spawn(async move {
            if heir == Heir::New {
                line.ends().await;
                tokio::time::sleep(RESTART).await;
            }
            Replica::start(&of, "handoff-1", "n02", Start::default())
        });
        // 20 s of sending, cut in the middle; or the end comes just before the drain and nobody sees it
        let blocks = if self.complete_after_all { 16 } else { 50 };
        let mut upload = backup("db", "backup", blocks, Duration::from_millis(400));
        upload.end_is_missed = self.complete_after_all;
        start_backup(&cluster, upload.clone());
        tokio::time::sleep(Duration::from_millis(6500)).await;
        cluster.longhorn.target.set_reachable(self.target_away.is_zero());
        drain_node(&cluster, "n00").await;
        uncordon(&cluster, "n00");
        tokio::time::sleep(self.target_away).await;
        cluster.longhorn.target.set_reachable(true);
        wait_until_over(&cluster, &plan, &[upload]).await;
        cluster.witness.at_the_end();
        next.abort();
        let outcome = Outcome { seed: 1, moves: 1, broken: cluster.witness.broken(), story: cluster.witness.story() };
        Died { outcome, writes: first.line.writes() }
    }
}
