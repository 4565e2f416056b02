//! What must hold: the invariants of the design, as far as they can be broken here.

use crate::{
    lens::{self, EXPIRY},
    model::{Config, Model, Violation},
    ours::Decided,
    world::{Cr, Journal, MAX_BACKUPS, Resumed, Volume, World},
};
use handoff_coordinator::{
    api::{ResumeState, VolumeHandoffSpec, VolumeHandoffStatus},
    decide::{Action, Decision},
    observation::Observation,
};
use handoff_storage::BackupState;

/// Invariant 1: what is owed stays written down until its story is over.
pub const OWED: &str = "what is owed is never forgotten";
/// Invariant 1: a story ends for a reason that is true.
pub const VERDICT: &str = "a backup is given up, superseded or called complete only for a true reason";
/// Invariant 1: a final state is final.
pub const FINAL: &str = "a final state never changes";
/// Invariant 2.
pub const COMPLETE: &str = "a backup is reset only when it is lost, after a probe, and never when it is complete";
/// Invariant 2: see `decide/resume.rs`.
pub const SETTLED: &str = "a backup is reset only where the volume is settled and stays";
/// Invariant 3.
pub const ONE: &str = "at most one pre-stage of ours per volume";
/// Invariant 3.
pub const PLACE: &str = "a pre-stage is placed only where it may be";
/// Invariant 3.
pub const EXPIRES: &str = "a pre-stage is adopted or withdrawn by its expiry";
/// Invariant 4.
pub const FOREIGN: &str = "what is not ours is never touched";
/// Invariant 7: see the order of work of the shell.
pub const JOURNAL: &str = "the journal is written before the action";
/// Invariant 7.
pub const REPEAT: &str = "the same look again starts nothing new";
/// Invariant 7.
pub const WAKE: &str = "no deadline is slept through";
/// Invariants 1, 3 and 7 together: whatever happened, when nothing more goes wrong all ends well.
pub const SAFE_END: &str = "from every state a safe end is reachable";

/// Checks one decision, given what it was made from.
pub fn check_decision(
    config: &Config,
    spec: &VolumeHandoffSpec,
    before: &VolumeHandoffStatus,
    obs: &Observation,
    decision: &Decision,
) -> Result<(), Violation> {
    let after = &decision.status;
    for was in before.resumes.iter().filter(|r| r.state.is_final()) {
        let owed = spec.checkpoints.iter().any(|c| c.backup == was.backup);
        if owed && !after.resumes.iter().any(|r| r.backup == was.backup && r.state == was.state) {
            return Err(Violation::of(FINAL, format!("{} was {:?}", was.backup, was.state)));
        }
    }
    let unexplained = after.resumes.iter().find(|r| {
        matches!(r.state, ResumeState::Superseded | ResumeState::Unrecoverable | ResumeState::Abandoned)
            && r.reason.is_empty()
    });
    if let Some(r) = unexplained {
        return Err(Violation::of(VERDICT, format!("{} is {:?} without a reason", r.backup, r.state)));
    }
    let open = |c: &&handoff_coordinator::api::Checkpoint| {
        !after.resumes.iter().any(|r| r.backup == c.backup && r.state.is_final())
    };
    if let Some(c) = spec.checkpoints.iter().find(open).filter(|_| after.finished_at.is_some()) {
        return Err(Violation::of(OWED, format!("finished while {} is owed", c.backup)));
    }
    decision.actions.iter().try_for_each(|action| check_action(spec, before, obs, after, action))?;
    let again = (config.decide)(spec, after, obs, &lens::policy(), lens::now());
    let fresh = again
        .actions
        .iter()
        .find(|a| matches!(a, Action::Reset { .. } | Action::WakeAttacher { .. } | Action::Tell { .. }));
    match fresh {
        Some(action) => Err(Violation::of(REPEAT, format!("{action:?}"))),
        None => Ok(()),
    }
}

fn check_action(
    spec: &VolumeHandoffSpec,
    before: &VolumeHandoffStatus,
    obs: &Observation,
    after: &VolumeHandoffStatus,
    action: &Action,
) -> Result<(), Violation> {
    match action {
        Action::PlacePreStage { node, .. } => {
            let elsewhere = |n: &String| n != node;
            let stays = obs.pods.iter().any(|p| p.stays() && p.node.as_ref().is_some_and(elsewhere));
            let open = after.prestage.as_ref().is_some_and(|p| p.outcome.is_none() && p.node == *node);
            let repeated = before.prestage.as_ref().is_some_and(|p| p.outcome.is_none() && p.node == *node);
            if obs.refusals.contains_key(node) && !repeated {
                return Err(Violation::of(PLACE, format!("on {node}, where it is refused")));
            }
            if stays && !repeated {
                return Err(Violation::of(PLACE, format!("on {node}, and a pod stays elsewhere")));
            }
            if !open {
                return Err(Violation::of(JOURNAL, format!("placed on {node}, and the journal does not say so")));
            }
        }
        Action::Reset { backup, node, .. } => {
            let was = before.resumes.iter().find(|r| r.backup == *backup);
            let probed = was.filter(|r| r.state == ResumeState::Probing).and_then(|r| r.probed_at);
            if probed.is_none_or(|at| lens::now().duration_since(at) < lens::policy().probe_wait) {
                return Err(Violation::of(COMPLETE, format!("{backup} is reset without a probe that had its time")));
            }
            if obs.backup(backup).is_none_or(|b| b.state != BackupState::Lost) {
                return Err(Violation::of(COMPLETE, format!("{backup} is reset and not seen as lost")));
            }
            let asked = obs.volume.as_ref().and_then(|v| v.request_for(node)).is_some_and(|r| r.satisfied && !r.ours);
            let leaving = obs.pods.iter().any(|p| p.terminating && p.node.as_ref() == Some(node));
            if obs.settled_node() != Some(node) || !asked || leaving {
                return Err(Violation::of(SETTLED, format!("{backup} is reset on {node}")));
            }
        }
        Action::Forget => {
            let open = spec
                .checkpoints
                .iter()
                .find(|c| !before.resumes.iter().any(|r| r.backup == c.backup && r.state.is_final()));
            if let Some(c) = open {
                return Err(Violation::of(OWED, format!("forgotten while {} is owed", c.backup)));
            }
        }
        _ => {}
    }
    Ok(())
}

/// Checks the end of a backup's story against what is true.
pub fn check_verdicts(volume: &Volume, before: &Journal, after: &Journal) -> Result<(), Violation> {
    for b in 0..MAX_BACKUPS {
        let Some((state, _)) = after.resumes[b].filter(|(r, _)| r.is_final()) else { continue };
        if before.resumes[b].is_some_and(|(r, _)| r.is_final()) {
            continue;
        }
        let backup = &volume.storage.backups[b];
        let over = |cr: Cr| matches!(cr, Cr::Completed | Cr::Deleting | Cr::Gone);
        let holds = match state {
            Resumed::Completed => over(backup.cr),
            Resumed::Abandoned => volume.handoff.is_some_and(|h| h.abandoned & (1 << b) != 0),
            Resumed::Superseded => volume.storage.backups.iter().skip(b + 1).any(|newer| over(newer.cr)),
            _ => {
                let worn_out = u32::from(volume.failed[b]) >= lens::ATTEMPTS;
                matches!(backup.cr, Cr::Deleting | Cr::Gone) || backup.no_snapshot || worn_out
            }
        };
        if !holds {
            return Err(Violation::of(VERDICT, format!("b{b} is called {state:?} while it is {:?}", backup.cr)));
        }
    }
    Ok(())
}

/// Checks a state when time has passed, given what a rested replica that sees everything made of it before.
pub fn check_rest(model: &Model, w: &World, p: usize, before: &[Option<(Journal, Decided)>]) -> Result<(), Violation> {
    for (v, before) in before.iter().enumerate() {
        let storage = &w.volumes[v].storage;
        if storage.ours_age > EXPIRY {
            let on = storage.ours().next().map_or("?", |n| crate::world::NODE_NAMES[usize::from(n)]);
            return Err(Violation::of(EXPIRES, format!("v{v} is still asked for on {on}")));
        }
        let (Some((_, asked)), Some((journal, now))) = (before, model.outlook(w, p, v)?) else { continue };
        let due = now.journal != journal || now.acts.iter().flatten().any(|a| !asked.acts.contains(&Some(*a)));
        // one tick more than asked for is the grain of the clock
        if due && asked.wake.is_none_or(|ticks| ticks > 2) {
            return Err(Violation::of(WAKE, format!("v{v}: {:?} is due and nobody asked to be woken", now.acts[0])));
        }
    }
    Ok(())
}

impl Model {
    /// Checks what must hold in every state.
    pub fn check_state(&self, w: &World) -> Result<(), Violation> {
        for (v, volume) in w.volumes.iter().enumerate().take(self.config.volumes) {
            if volume.storage.ours().count() > 1 {
                return Err(Violation::of(ONE, format!("v{v} has two")));
            }
            for b in (0..MAX_BACKUPS).filter(|b| volume.owed & (1 << b) != 0) {
                if volume.handoff.is_none_or(|h| h.checkpoints[b].is_none()) {
                    return Err(Violation::of(OWED, format!("b{b} is owed and not written down any more")));
                }
            }
        }
        Ok(())
    }

    /// All is well: the workload runs or is scaled away, nothing is owed, nothing of ours is left behind.
    pub fn is_safe_end(&self, w: &World) -> bool {
        let rested = w.replicas.iter().all(|r| r.plan.is_none()) && w.frozen.is_none();
        let runs = w.kube.pods().count() == usize::from(w.desired) && w.kube.pods().all(|p| p.ready);
        let settled = w.volumes.iter().take(self.config.volumes).all(|v| {
            // without its snapshot nothing can be made of a lost backup that nobody recorded
            let given_up = v.handoff.map_or(0, |h| h.abandoned);
            let open = |b: usize| v.cut & !given_up & (1 << b) != 0 && !v.storage.backups[b].no_snapshot;
            let open = (0..MAX_BACKUPS).any(open);
            v.owed == 0 && !open && v.storage.ours().next().is_none() && v.handoff.is_none_or(|h| h.is_finished())
        });
        rested && runs && settled
    }
}
