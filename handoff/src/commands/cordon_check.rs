//! `handoff cordon-check NODE`: is it safe to drain this node now? For scripts: the exit code says it.

use super::{
    End,
    connection::ClusterArgs,
    installation,
    output::{self, OutputArgs, Report, Tone, paint},
    plan::{self, Plan},
};
use clap::Args;
use jiff::Timestamp;
use serde::Serialize;

/// `handoff cordon-check`.
#[derive(Args, Debug)]
pub struct CordonCheckArgs {
    /// The node.
    #[arg(value_name = "NODE")]
    pub node: String,
    /// How it is printed.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Which cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Answer {
    /// Drain it.
    Safe,
    /// Not now; ask again.
    Wait,
    /// Not before somebody has done something.
    Blocked,
}

/// The answer and why.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// The node.
    pub node: String,
    /// The answer.
    pub answer: Answer,
    /// Why it is not safe; or what goes along with a drain.
    pub reasons: Vec<String>,
}

/// Says whether the node can be drained.
pub async fn run(args: CordonCheckArgs) -> anyhow::Result<End> {
    let cluster = args.cluster.connect().await?;
    let now = Timestamp::now();
    let plan = plan::plan(&plan::gather(&cluster, &args.node).await?, now);
    let verdict = verdict(&plan, installation::leader(&cluster, installation::NAME, now).await?.as_deref());
    output::print(&verdict, args.output.output)?;
    Ok(match verdict.answer {
        Answer::Safe => End::Yes,
        Answer::Wait => End::No,
        Answer::Blocked => End::Blocked,
    })
}

/// Whether a drain as in `plan` is safe while `leader` leads.
fn verdict(plan: &Plan, leader: Option<&str>) -> Verdict {
    let backups = plan.pods.iter().flat_map(|p| &p.volumes).map(|v| v.backups.len()).sum::<usize>();
    let mut reasons =
        plan.blockers.iter().map(|b| format!("{}: {}. {}", b.object, b.reason, b.fix)).collect::<Vec<_>>();
    let mut answer = match () {
        () if plan.blockers.iter().any(|b| !b.passes) => Answer::Blocked,
        () if !plan.blockers.is_empty() => Answer::Wait,
        () => Answer::Safe,
    };
    if leader.is_none() && backups > 0 {
        let what =
            "backup(s) in flight would be interrupted, and no replica of Handoff leads that would make them complete";
        reasons.push(format!("{backups} {what}. See handoff doctor"));
        answer = Answer::Blocked;
    }
    if answer == Answer::Safe && backups > 0 {
        reasons.push(format!("{backups} backup(s) in flight will be interrupted and made complete after the move"));
    }
    Verdict { node: plan.node.clone(), answer, reasons }
}

impl Report for Verdict {
    fn text(&self) -> String {
        let (tone, says) = match self.answer {
            Answer::Safe => (Tone::Good, "can be drained now"),
            Answer::Wait => (Tone::Doubtful, "should not be drained yet; what is in the way goes by itself"),
            Answer::Blocked => (Tone::Bad, "should not be drained before somebody has done something"),
        };
        let mut lines = vec![paint(tone, &format!("Node {} {says}.", self.node))];
        lines.extend(self.reasons.iter().map(|r| format!("- {r}")));
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::super::{
        blockers::{Blocker, Obstacle},
        plan::{InFlight, Planned, PlannedVolume},
    };
    use super::*;

    fn plan(passes: &[bool], backup: bool) -> Plan {
        let blocker = |passes: &bool| Blocker {
            kind: Obstacle::DisruptionBudget,
            object: "PodDisruptionBudget shop/db".into(),
            reason: "it allows nothing".into(),
            fix: "wait".into(),
            passes: *passes,
        };
        let in_flight = InFlight { name: "b1".into(), progress: 1, eta_seconds: None };
        let volume = PlannedVolume {
            claim: "data".into(),
            volume: "pv".into(),
            mode: "enabled".into(),
            backups: if backup { vec![in_flight] } else { vec![] },
            hold_seconds: None,
        };
        let pod = Planned {
            namespace: "shop".into(),
            name: "db-0".into(),
            owner: None,
            volumes: vec![volume],
            targets: vec![],
            expected: None,
        };
        Plan {
            node: "a".into(),
            cordoned: false,
            pods: vec![pod],
            stays: 0,
            blockers: passes.iter().map(blocker).collect(),
            expected: None,
        }
    }

    #[test]
    fn the_worst_of_all_counts() {
        for (passes, backup, leader, wanted) in [
            (&[][..], false, true, Answer::Safe),
            (&[], false, false, Answer::Safe),
            (&[], true, true, Answer::Safe),
            (&[], true, false, Answer::Blocked),
            (&[true], true, true, Answer::Wait),
            (&[true, false], false, true, Answer::Blocked),
            (&[true], true, false, Answer::Blocked),
        ] {
            let verdict = verdict(&plan(passes, backup), leader.then_some("handoff-1"));
            assert_eq!(verdict.answer, wanted, "{passes:?} {backup} {leader}");
            assert_eq!(verdict.reasons.is_empty(), passes.is_empty() && !backup, "{:?}", verdict.reasons);
        }
    }
}
