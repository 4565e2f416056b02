//! Deliberate mistakes. Each is made outside the product: the decision under test is wrapped so that what goes in or
//! comes out is changed, or the modelled shell leaves out one of its precautions. A model that cannot tell them from the
//! real thing proves nothing.

use crate::{
    model::{Config, Shell},
    rules,
    world::Budget,
};
use handoff_coordinator::{
    api::{Phase, PreStageOutcome, ResumeState, VolumeHandoff, VolumeHandoffSpec, VolumeHandoffStatus},
    checkpoint::{self, Start},
    decide::{Action, Decision, decide},
    observation::Observation,
    policy::Policy,
    reason::Reason,
};
use handoff_storage::{AttachRequest, BackupState, BackupView, VolumeState};
use jiff::{SignedDuration, Timestamp};

/// A mistake, the world in which it shows, and the rules that may tell.
pub struct Mutant {
    /// What is done wrong.
    pub name: &'static str,
    /// The world.
    pub config: Config,
    /// The rules of which one must break.
    pub rules: &'static [&'static str],
}

/// All of them.
pub fn all() -> Vec<Mutant> {
    let budget = Budget { moves: 1, ..Budget::default() };
    let plain = Config { budget, ..Config::default() };
    let slow = Budget { slow: 1, ..budget };
    // a backup that is lost where it is: a short story
    let lost = Budget { failures: 1, slow: 1, ..Budget::default() };
    let deleted = Budget { deletions: 1, ..lost };
    let decision = |name, decide, rules| Mutant { name, config: Config { name, decide, ..plain }, rules };
    let shell = |name, shell, budget, rules| Mutant { name, config: Config { name, budget, shell, ..plain }, rules };
    let real = Shell::default();
    vec![
        decision("reset without probe", reset_without_probe, &[rules::COMPLETE]),
        decision("silence before the request arrived counts as an answer", silence_counts, &[rules::COMPLETE])
            .with(Budget { crashes: 1, ..lost }),
        decision("a complete backup is taken for a lost one", complete_is_lost, &[rules::COMPLETE]),
        decision("resume before stable", resume_before_stable, &[rules::SETTLED]),
        decision("pre-stage without expiry", no_expiry, &[rules::EXPIRES]),
        decision("pre-stage that is never withdrawn", never_withdrawn, &[rules::EXPIRES]),
        decision("two pre-stages", two_prestages, &[rules::ONE]).on(3),
        decision("pre-stage where it is refused", refusal_ignored, &[rules::PLACE])
            .with(Budget { refusals: 1, ..budget }),
        decision("finish while owed", finish_while_owed, &[rules::OWED]),
        decision("drop final state", drop_final_state, &[rules::FINAL]),
        decision("a lost backup is given up", lost_is_given_up, &[rules::VERDICT]),
        decision("given up without a reason", no_reason, &[rules::VERDICT]).with(Budget { deletions: 1, ..budget }),
        decision("never woken", never_woken, &[rules::WAKE]),
        decision("never reset", never_reset, &[rules::SAFE_END]),
        decision("resumed again and again on the same look", again_and_again, &[rules::REPEAT, rules::COMPLETE]),
        decision("a backup that is not seen yet counts as deleted", absent_is_deleted, &[rules::VERDICT]).stale(),
        Mutant {
            name: "forget on second move",
            config: Config { merge: forget_on_second_move, ..plain },
            rules: &[rules::OWED],
        }
        .with(Budget { moves: 2, ..Budget::default() })
        .backups(2),
        shell(
            "reset without resourceVersion",
            Shell { reset_at_seen_version: false, ..real },
            deleted,
            &[rules::COMPLETE],
        ),
        shell("act before journal write", Shell { journal_first: false, ..real }, budget, &[rules::JOURNAL]),
        shell(
            "withdraw of a request that is not ours",
            Shell { withdraw_tests_mark: false, ..real },
            slow,
            &[rules::FOREIGN],
        ),
        shell(
            "pre-stage over a request that is not ours",
            Shell { place_tests_absence: false, place_at_seen_version: false, ..real },
            slow,
            &[rules::FOREIGN],
        ),
        shell(
            "forget the handoffs of all volumes of the pod",
            Shell { forgets_one: false, ..real },
            Budget { failures: 2, ..Budget::default() },
            &[rules::OWED],
        )
        .volumes(2),
        shell(
            "record the first volume of the pod only",
            Shell { records_all: false, ..real },
            Budget { failures: 1, ..Budget::default() },
            &[rules::SAFE_END],
        )
        .volumes(2),
    ]
}

impl Mutant {
    fn with(mut self, budget: Budget) -> Self {
        self.config.budget = budget;
        self
    }

    fn backups(mut self, backups: usize) -> Self {
        self.config.backups = backups;
        self
    }

    fn volumes(mut self, volumes: usize) -> Self {
        self.config.volumes = volumes;
        self
    }

    fn on(mut self, nodes: u8) -> Self {
        self.config.nodes = nodes;
        self
    }

    fn stale(mut self) -> Self {
        self.config.running = 0;
        self.config.watches = &[crate::step::Watch::Storage];
        self.config.budget.stalls = 1;
        self
    }
}

type Spec = VolumeHandoffSpec;
type Status = VolumeHandoffStatus;

fn reset_without_probe(s: &Spec, j: &Status, o: &Observation, p: &Policy, now: Timestamp) -> Decision {
    let mut decision = decide(s, j, o, p, now);
    for action in &mut decision.actions {
        if let (Action::Probe { backup }, Some(node)) = (&*action, o.settled_node()) {
            let version = o.backup(backup).map(|b| b.resource_version.clone()).unwrap_or_default();
            *action = Action::Reset { backup: backup.clone(), resource_version: version, node: node.to_owned() };
        }
    }
    decision
}

fn silence_counts(s: &Spec, j: &Status, o: &Observation, p: &Policy, now: Timestamp) -> Decision {
    let mut o = o.clone();
    for backup in &mut o.backups {
        let probed = j.resumes.iter().find(|r| r.backup == backup.name).and_then(|r| r.probed_at);
        backup.asked_at = backup.asked_at.or(probed);
    }
    decide(s, j, &o, p, now)
}

fn complete_is_lost(s: &Spec, j: &Status, o: &Observation, p: &Policy, now: Timestamp) -> Decision {
    let mut o = o.clone();
    for backup in o.backups.iter_mut().filter(|b| b.state == BackupState::Completed) {
        backup.state = BackupState::Lost;
    }
    decide(s, j, &o, p, now)
}

fn resume_before_stable(s: &Spec, j: &Status, o: &Observation, p: &Policy, now: Timestamp) -> Decision {
    let mut seen = o.clone();
    if let (Some(volume), Some(node)) = (&mut seen.volume, o.workload().and_then(|w| w.node.clone())) {
        (volume.state, volume.engine_running) = (VolumeState::Attached, true);
        (volume.current_node, volume.wanted_node) = (Some(node.clone()), Some(node.clone()));
        let id = "csi".to_owned();
        volume.requests = vec![AttachRequest { id, node, workload: true, ours: false, satisfied: true }];
    }
    decide(s, j, &seen, p, now)
}

fn no_expiry(s: &Spec, j: &Status, o: &Observation, p: &Policy, now: Timestamp) -> Decision {
    let mut j = j.clone();
    if let Some(prestage) = &mut j.prestage {
        prestage.expires_at = now + SignedDuration::from_hours(1_000);
    }
    decide(s, &j, o, p, now)
}

fn never_withdrawn(s: &Spec, j: &Status, o: &Observation, p: &Policy, now: Timestamp) -> Decision {
    let mut decision = decide(s, j, o, p, now);
    let told = |a: &Action| matches!(a, Action::Tell { reason: Reason::PreStageWithdrawn, .. });
    decision.actions.retain(|a| !matches!(a, Action::WithdrawPreStage { .. }) && !told(a));
    if let Some(prestage) = decision.status.prestage.as_mut().filter(|p| p.outcome == Some(PreStageOutcome::Withdrawn))
    {
        prestage.outcome = None;
    }
    decision
}

fn two_prestages(s: &Spec, j: &Status, o: &Observation, p: &Policy, now: Timestamp) -> Decision {
    let mut seen = o.clone();
    let target = o.workload().and_then(|w| w.node.clone());
    if let (Some(volume), Some(target)) = (&mut seen.volume, target) {
        volume.requests.retain(|r| !r.ours || r.node == target);
    }
    let mut decision = decide(s, j, &seen, p, now);
    decision.actions.retain(|a| !matches!(a, Action::WithdrawPreStage { .. }));
    decision
}

fn refusal_ignored(s: &Spec, j: &Status, o: &Observation, p: &Policy, now: Timestamp) -> Decision {
    decide(s, j, &Observation { refusals: [].into(), ..o.clone() }, p, now)
}

fn finish_while_owed(s: &Spec, j: &Status, o: &Observation, p: &Policy, now: Timestamp) -> Decision {
    let mut decision = decide(s, j, o, p, now);
    if decision.status.phase == Some(Phase::Resuming) {
        decision.status.finished_at = Some(now);
    }
    decision
}

fn drop_final_state(s: &Spec, j: &Status, o: &Observation, p: &Policy, now: Timestamp) -> Decision {
    let mut decision = decide(s, j, o, p, now);
    let was_final = |name: &str| j.resumes.iter().any(|r| r.backup == name && r.state.is_final());
    decision.status.resumes.retain(|r| !was_final(&r.backup));
    decision
}

fn lost_is_given_up(s: &Spec, j: &Status, o: &Observation, p: &Policy, now: Timestamp) -> Decision {
    let mut decision = decide(s, j, o, p, now);
    for resume in decision.status.resumes.iter_mut().filter(|r| r.state == ResumeState::Probing) {
        (resume.state, resume.reason) = (ResumeState::Unrecoverable, "it is lost".to_owned());
    }
    decision.actions.retain(|a| !matches!(a, Action::Probe { .. }));
    decision
}

fn no_reason(s: &Spec, j: &Status, o: &Observation, p: &Policy, now: Timestamp) -> Decision {
    let mut decision = decide(s, j, o, p, now);
    decision.status.resumes.iter_mut().for_each(|r| r.reason.clear());
    decision
}

fn never_woken(s: &Spec, j: &Status, o: &Observation, p: &Policy, now: Timestamp) -> Decision {
    Decision { wake_at: None, ..decide(s, j, o, p, now) }
}

fn never_reset(s: &Spec, j: &Status, o: &Observation, p: &Policy, now: Timestamp) -> Decision {
    let mut decision = decide(s, j, o, p, now);
    decision.actions.retain(|a| !matches!(a, Action::Reset { .. }));
    decision
}

fn again_and_again(s: &Spec, j: &Status, o: &Observation, p: &Policy, now: Timestamp) -> Decision {
    let mut j = j.clone();
    for resume in j.resumes.iter_mut().filter(|r| r.state == ResumeState::Running) {
        resume.state = ResumeState::Probing;
        resume.probed_at = Some(now - SignedDuration::from_hours(1));
    }
    decide(s, &j, o, p, now)
}

fn absent_is_deleted(s: &Spec, j: &Status, o: &Observation, p: &Policy, now: Timestamp) -> Decision {
    decide(s, j, o, &Policy { cache_lag: SignedDuration::ZERO, ..p.clone() }, now)
}

fn forget_on_second_move(
    existing: Option<&VolumeHandoff>,
    start: &Start<'_>,
    backups: &[&BackupView],
    obs: &Observation,
) -> Option<VolumeHandoffSpec> {
    let merged = checkpoint::merge(existing, start, backups, obs)?;
    let new_move = existing.is_some_and(|h| h.spec.pod.uid != merged.pod.uid);
    let mut merged = merged;
    if new_move {
        merged.checkpoints.retain(|c| backups.iter().any(|b| b.name == c.backup));
    }
    Some(merged)
}
