//! What comes next: a pure function of the handoff, the observation and the time. No clock, no client, no chance.
//!
//! It is level-triggered: the same input gives the same output, whatever happened in between, and every action can
//! be repeated. The shell writes the returned journal first and then does the actions; if it dies in between, the
//! next one reads the journal, sees that the action's effect is missing, and does it again.

mod movement;
mod release;
mod resume;

use crate::{
    api::{
        Condition, PastMove, Phase, PreStageOutcome, ResumeState, Step, Trigger, VolumeHandoffSpec,
        VolumeHandoffStatus, is_done,
    },
    observation::Observation,
    policy::{Policy, after},
    reason::Reason,
};
use handoff_storage::BackupState;
use jiff::{SignedDuration, Timestamp};

/// Something to do outside. Each is idempotent and carries its precondition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Ask for the volume on the node, unless somebody asks for it there already.
    PlacePreStage {
        /// The node.
        node: String,
        /// Version of the volume's attach requests that was judged.
        version: String,
    },
    /// Take our request for the node back, if it is still ours.
    WithdrawPreStage {
        /// The node.
        node: String,
    },
    /// Delete the `VolumeAttachment` of the node that is left: the volume is unstaged there and asked for elsewhere.
    ReleaseAttachment {
        /// Its name.
        attachment: String,
        /// The node it must be for.
        node: String,
    },
    /// Touch a `VolumeAttachment` so that the attacher tries again now instead of after its back-off.
    WakeAttacher {
        /// Its name.
        attachment: String,
    },
    /// Make the storage manager look whether a lost backup is complete after all.
    Probe {
        /// Name of the backup.
        backup: String,
    },
    /// Make a lost backup run again, if it is still at this version.
    Reset {
        /// Name of the backup.
        backup: String,
        /// `resourceVersion` it was judged at.
        resource_version: String,
        /// Node of the volume.
        node: String,
    },
    /// Tell people, on the pod, on the claim and on the handoff.
    Tell {
        /// For machines.
        reason: Reason,
        /// A sentence.
        note: String,
    },
    /// Delete the handoff: it is finished and old.
    Forget,
}

impl Action {
    /// It changes something that is not ours alone.
    pub(crate) fn is_outward(&self) -> bool {
        !matches!(self, Self::Tell { .. } | Self::Forget)
    }

    /// All names.
    pub(crate) const NAMES: [&'static str; 8] =
        ["PlacePreStage", "WithdrawPreStage", "ReleaseAttachment", "WakeAttacher", "Probe", "Reset", "Tell", "Forget"];

    /// For metrics.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::PlacePreStage { .. } => "PlacePreStage",
            Self::WithdrawPreStage { .. } => "WithdrawPreStage",
            Self::ReleaseAttachment { .. } => "ReleaseAttachment",
            Self::WakeAttacher { .. } => "WakeAttacher",
            Self::Probe { .. } => "Probe",
            Self::Reset { .. } => "Reset",
            Self::Tell { .. } => "Tell",
            Self::Forget => "Forget",
        }
    }
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// The journal to write before acting.
    pub status: VolumeHandoffStatus,
    /// What to do then, in this order.
    pub actions: Vec<Action>,
    /// When to look again even if nothing changes.
    pub wake_at: Option<Timestamp>,
}

/// A decision in the making.
struct Draft<'a> {
    spec: &'a VolumeHandoffSpec,
    obs: &'a Observation,
    policy: &'a Policy,
    now: Timestamp,
    status: VolumeHandoffStatus,
    actions: Vec<Action>,
    wake_at: Option<Timestamp>,
}

/// What comes next for one handoff.
pub fn decide(
    spec: &VolumeHandoffSpec,
    journal: &VolumeHandoffStatus,
    obs: &Observation,
    policy: &Policy,
    now: Timestamp,
) -> Decision {
    let (status, actions) = (journal.clone(), Vec::new());
    let mut draft = Draft { spec, obs, policy, now, status, actions, wake_at: None };
    draft.begin_move();
    draft.follow_move();
    draft.release();
    draft.resume_backups();
    draft.conclude();
    Decision { status: draft.status, actions: draft.actions, wake_at: draft.wake_at }
}

impl Draft<'_> {
    /// A new trigger starts a new page of the journal; what is owed stays.
    fn begin_move(&mut self) {
        let started = self.spec.triggered_at;
        if self.status.move_started_at == Some(started) {
            return;
        }
        if let Some(before) = self.status.move_started_at {
            let past = PastMove {
                started_at: before,
                from: std::mem::take(&mut self.status.from),
                to: self.status.to.take(),
                duration: std::mem::take(&mut self.status.duration),
                timeline: std::mem::take(&mut self.status.timeline),
            };
            self.status.history.insert(0, past);
            self.status.history.truncate(5);
        }
        if let Some(prestage) = self.status.prestage.take().filter(|p| p.outcome.is_none()) {
            self.actions.push(Action::WithdrawPreStage { node: prestage.node });
        }
        let owed = &self.spec.checkpoints;
        self.status.resumes.retain(|r| owed.iter().any(|c| c.backup == r.backup));
        self.status.move_started_at = Some(started);
        self.status.finished_at = None;
        self.status.to = None;
        self.status.from.clone_from(&self.spec.from);
        self.status.timeline = vec![Step { what: format!("{:?}", self.spec.trigger), at: started }];
        self.status.conditions.clear();
        let backups = self.spec.checkpoints.iter().map(|c| format!("{} at {} %", c.backup, c.progress));
        let what = if self.spec.trigger == Trigger::Lost { "lost a backup on" } else { "leaves" };
        let note = format!(
            "volume {} {what} {}; checkpointed: {}",
            self.spec.volume.volume,
            self.spec.from,
            backups.collect::<Vec<_>>().join(", ")
        );
        self.tell(Reason::BackupCheckpointed, note);
    }

    /// Phase, message, conditions, and the end.
    fn conclude(&mut self) {
        let resumes = &self.status.resumes;
        let total = self.spec.checkpoints.len();
        let safe =
            resumes.iter().filter(|r| matches!(r.state, ResumeState::Completed | ResumeState::Superseded)).count();
        let open = self.spec.checkpoints.iter().filter(|c| !is_done(resumes, &c.backup)).count();
        self.status.backups_safe = format!("{safe}/{total} safe");
        let moving = self.is_moving();
        let ready = self.seen("WorkloadReady");
        let attached = self.seen("Attached");
        let abandoned = resumes.iter().filter(|r| r.state == ResumeState::Abandoned).count();
        let failed = open == 0 && safe + abandoned < total;
        let untouched = self.status.resumes.iter().all(|r| r.attempts == 0 && !self.is_lost(&r.backup));
        let original_stays = self.obs.pod(&self.spec.pod.uid).is_some_and(|p| p.stays());
        let phase = match () {
            () if original_stays && untouched && open > 0 => Phase::Checkpointed,
            () if moving && attached => Phase::Attached,
            () if moving => Phase::Moving,
            () if open > 0 => Phase::Resuming,
            () if failed => Phase::Failed,
            () => Phase::Complete,
        };
        self.status.phase = Some(phase);
        self.status.message = self.message(phase);
        let released = self.seen("Released") || self.seen("PodGone");
        let adopted = self.status.prestage.as_ref().is_some_and(|p| p.outcome == Some(PreStageOutcome::Adopted));
        let prestaged = self.seen("PreStaged");
        self.condition("Checkpointed", true, "Recorded");
        self.condition("Released", released, if released { "LeftNode" } else { "StillInUse" });
        self.condition(
            "PreStaged",
            prestaged,
            if adopted {
                "Adopted"
            } else if prestaged {
                "Placed"
            } else {
                "NotPlaced"
            },
        );
        self.condition("Attached", attached, if attached { "OnTarget" } else { "NotYet" });
        self.condition("WorkloadReady", ready, if ready { "PodReady" } else { "PodNotReady" });
        self.condition(
            "BackupsSafe",
            open == 0 && safe == total,
            if failed {
                "Unrecoverable"
            } else if open == 0 && abandoned > 0 {
                "Abandoned"
            } else if open == 0 {
                "Complete"
            } else {
                "Owed"
            },
        );
        self.finish(matches!(phase, Phase::Complete | Phase::Failed));
    }

    fn finish(&mut self, over: bool) {
        if !over {
            self.status.finished_at = None;
            return;
        }
        let finished = *self.status.finished_at.get_or_insert(self.now);
        let forget_at = after(finished, self.policy.retention);
        if self.now >= forget_at {
            self.actions.push(Action::Forget);
        } else {
            self.wake(forget_at);
        }
    }

    fn message(&self, phase: Phase) -> String {
        let to = self.status.to.as_deref().unwrap_or("another node");
        match phase {
            Phase::Checkpointed => format!("recorded; pod {} has not left {} yet", self.spec.pod.name, self.spec.from),
            Phase::Moving => format!("moving from {} to {to}", self.spec.from),
            Phase::Attached => format!("attached on {to}, waiting for the pod to be ready"),
            Phase::Resuming => self.waiting_for().unwrap_or_else(|| "backups are owed".to_owned()),
            Phase::Complete => {
                let given_up = self.status.resumes.iter().filter(|r| r.state == ResumeState::Abandoned);
                let given_up = given_up.map(|r| r.backup.as_str()).collect::<Vec<_>>().join(", ");
                if given_up.is_empty() {
                    "nothing is owed".to_owned()
                } else {
                    format!("nothing is owed; abandoned: {given_up}")
                }
            }
            Phase::Failed => {
                let lost = self.status.resumes.iter().filter(|r| r.state == ResumeState::Unrecoverable);
                lost.map(|r| format!("{}: {}", r.backup, r.reason)).collect::<Vec<_>>().join("; ")
            }
        }
    }

    fn is_lost(&self, backup: &str) -> bool {
        self.obs.backup(backup).is_some_and(|b| b.state == BackupState::Lost)
    }

    fn seen(&self, what: &str) -> bool {
        self.status.timeline.iter().any(|s| s.what == what)
    }

    /// When a step was first seen.
    fn at(&self, what: &str) -> Option<Timestamp> {
        self.status.timeline.iter().find(|s| s.what == what).map(|s| s.at)
    }

    /// Notes a step the first time it is seen.
    fn mark(&mut self, what: &str) {
        if !self.seen(what) {
            self.status.timeline.push(Step { what: what.to_owned(), at: self.now });
        }
    }

    fn tell(&mut self, reason: Reason, note: String) {
        self.actions.push(Action::Tell { reason, note });
    }

    fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |t| t.min(at)));
    }

    fn wake_in(&mut self, wait: SignedDuration) {
        self.wake(self.now + wait);
    }

    fn condition(&mut self, kind: &str, holds: bool, reason: &str) {
        let status = if holds { "True" } else { "False" };
        let at = self.now;
        match self.status.conditions.iter_mut().find(|c| c.kind == kind) {
            Some(c) if c.status == status => reason.clone_into(&mut c.reason),
            Some(c) => {
                status.clone_into(&mut c.status);
                reason.clone_into(&mut c.reason);
                c.last_transition_time = at;
            }
            None => self.status.conditions.push(Condition {
                kind: kind.to_owned(),
                status: status.to_owned(),
                reason: reason.to_owned(),
                message: String::new(),
                last_transition_time: at,
            }),
        }
    }
}

#[cfg(test)]
mod orders;
#[cfg(test)]
mod properties;
#[cfg(test)]
pub(crate) mod tests;
#[cfg(test)]
mod waits;
