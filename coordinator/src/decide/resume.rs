//! Owed backups: probe, reset, follow; oldest snapshot first, one at a time per volume.

use super::{Action, Draft};
use crate::{
    api::{Checkpoint, OrderKind, Resume, ResumeState, is_done},
    policy::after,
    reason::Reason,
};
use handoff_storage::{BackupState, BackupView};
use jiff::SignedDuration;

/// How often a backup that waits for its turn asks again.
const TURN_POLL: SignedDuration = SignedDuration::from_secs(5);

/// A final state, in one step.
struct Verdict {
    state: ResumeState,
    reason: String,
}

impl Draft<'_> {
    pub(super) fn resume_backups(&mut self) {
        let mut owed = self.spec.checkpoints.clone();
        owed.sort_by_key(|c| (c.snapshot_created_at, c.recorded_at));
        for checkpoint in &owed {
            if !self.status.resumes.iter().any(|r| r.backup == checkpoint.backup) {
                self.status.resumes.push(waiting(&checkpoint.backup));
            }
            self.obey(checkpoint);
            if let Some(verdict) = self.judge(checkpoint) {
                self.close(checkpoint, &verdict);
            } else if self.backup_of(checkpoint).is_none() && !is_done(&self.status.resumes, &checkpoint.backup) {
                self.wake(after(checkpoint.recorded_at, self.policy.cache_lag));
            }
        }
        // one at a time: the oldest that is still owed
        let next = owed.iter().find(|c| !is_done(&self.status.resumes, &c.backup)).cloned();
        if let Some(checkpoint) = next {
            self.advance(&checkpoint);
        }
    }

    /// A person said: try now. Each order counts once; it ends the wait for the next try and takes up again what was given
    /// up, and nothing else: whatever makes a try safe is still waited for.
    fn obey(&mut self, checkpoint: &Checkpoint) {
        let Some(order) = checkpoint.order.filter(|order| order.what == OrderKind::Resume) else { return };
        self.update(&checkpoint.backup, |resume| {
            if resume.order_at == Some(order.at) {
                return;
            }
            resume.order_at = Some(order.at);
            resume.next_try_at = None;
            if resume.state == ResumeState::Unrecoverable {
                *resume = Resume { order_at: resume.order_at, ..waiting(&resume.backup) };
            }
        });
    }

    /// Whether the story of a checkpoint is over, whatever was done so far.
    fn judge(&self, checkpoint: &Checkpoint) -> Option<Verdict> {
        if is_done(&self.status.resumes, &checkpoint.backup) {
            return None;
        }
        let unrecoverable = |reason: String| Some(Verdict { state: ResumeState::Unrecoverable, reason });
        let complete = self.backup_of(checkpoint).is_some_and(|b| b.state == BackupState::Completed);
        if let Some(at) = checkpoint.abandoned_at().filter(|_| !complete) {
            let reason = format!("abandoned on request at {at:.0}");
            return Some(Verdict { state: ResumeState::Abandoned, reason });
        }
        let Some(backup) = self.backup_of(checkpoint) else {
            let renamed = self.obs.backup(&checkpoint.backup).is_some();
            let what =
                if renamed { "the backup was deleted and another one has its name" } else { "the backup was deleted" };
            return (self.now >= after(checkpoint.recorded_at, self.policy.cache_lag))
                .then(|| unrecoverable(what.to_owned()))
                .flatten();
        };
        match backup.state {
            BackupState::Completed => Some(Verdict { state: ResumeState::Completed, reason: String::new() }),
            BackupState::Deleting => unrecoverable("the backup is being deleted".to_owned()),
            BackupState::Queued | BackupState::Running => None,
            BackupState::Lost => self.judge_lost(checkpoint, backup),
        }
    }

    fn judge_lost(&self, checkpoint: &Checkpoint, backup: &BackupView) -> Option<Verdict> {
        if let Some(newer) = self.newer_safe(checkpoint, backup) {
            let reason = format!("newer data is in backup {newer}");
            return Some(Verdict { state: ResumeState::Superseded, reason });
        }
        let gone = match self.obs.snapshots.get(&checkpoint.snapshot) {
            None => Some(format!("its snapshot {} is gone", checkpoint.snapshot)),
            Some(snapshot) => snapshot
                .unusable
                .as_ref()
                .map(|why| format!("its snapshot {} cannot be used: {why}", checkpoint.snapshot)),
        };
        gone.map(|reason| Verdict { state: ResumeState::Unrecoverable, reason })
    }

    /// The backup that was checkpointed, if it is there.
    fn backup_of(&self, checkpoint: &Checkpoint) -> Option<&BackupView> {
        self.obs.backup(&checkpoint.backup).filter(|b| b.uid == checkpoint.uid)
    }

    /// A newer backup of the volume in the same target that is complete. Resuming an older one after it would make the
    /// older data the volume's last backup.
    fn newer_safe(&self, checkpoint: &Checkpoint, lost: &BackupView) -> Option<&str> {
        self.newer(checkpoint, lost, |b| b.state == BackupState::Completed)
    }

    /// A newer one in flight for the same job: the job tries again by itself. Not safe yet, so nothing is decided.
    fn newer_try(&self, checkpoint: &Checkpoint, lost: &BackupView) -> Option<&str> {
        let same_job = |b: &BackupView| b.recurring_job.is_some() && b.recurring_job == checkpoint.recurring_job;
        self.newer(checkpoint, lost, |b| b.in_flight() && same_job(b))
    }

    fn newer(&self, checkpoint: &Checkpoint, lost: &BackupView, is_it: impl Fn(&BackupView) -> bool) -> Option<&str> {
        let time_of = |b: &BackupView| self.obs.snapshots.get(&b.snapshot).and_then(|s| s.created).or(b.created);
        let own = checkpoint.snapshot_created_at.or(lost.created)?;
        let newer = self.obs.backups.iter().find(|b| {
            b.name != lost.name && b.target == checkpoint.target && time_of(b).is_some_and(|t| t > own) && is_it(b)
        });
        newer.map(|b| b.name.as_str())
    }

    fn close(&mut self, checkpoint: &Checkpoint, verdict: &Verdict) {
        let uploaded = self.obs.backup(&checkpoint.backup).and_then(|b| b.uploaded_bytes);
        let (now, attempts) = (self.now, self.resume_of(&checkpoint.backup).map_or(0, |r| r.attempts));
        self.update(&checkpoint.backup, |r| {
            r.state = verdict.state;
            r.reason.clone_from(&verdict.reason);
            r.ended_at = Some(now);
            r.next_try_at = None;
            r.uploaded_bytes = uploaded;
        });
        let backup = &checkpoint.backup;
        match verdict.state {
            ResumeState::Completed => {
                let how = if attempts > 0 { format!(" after {attempts} resume(s)") } else { String::new() };
                self.tell(Reason::BackupCompleted, format!("backup {backup} is complete{how}"));
            }
            ResumeState::Superseded => {
                self.tell(Reason::BackupSuperseded, format!("backup {backup} is not resumed: {}", verdict.reason));
            }
            ResumeState::Abandoned => {
                let note = format!("backup {backup} is no longer owed: {}", verdict.reason);
                self.tell(Reason::BackupAbandoned, note);
            }
            _ => self.tell(Reason::BackupUnrecoverable, format!("backup {backup}: {}", verdict.reason)),
        }
        self.mark(&format!("Backup{:?} {backup}", verdict.state));
    }

    /// One step for the backup whose turn it is.
    fn advance(&mut self, checkpoint: &Checkpoint) {
        let name = checkpoint.backup.clone();
        let (Some(backup), Some(resume)) = (self.backup_of(checkpoint).cloned(), self.resume_of(&name).cloned()) else {
            return;
        };
        if backup.state != BackupState::Lost || self.newer_try(checkpoint, &backup).is_some() {
            return;
        }
        match resume.state {
            ResumeState::Waiting => self.start_probe(&name, &resume, &backup),
            ResumeState::Probing => self.end_probe(&name, &resume, &backup),
            ResumeState::Running => self.follow_run(&name, &resume, &backup),
            ResumeState::Completed | ResumeState::Superseded | ResumeState::Unrecoverable | ResumeState::Abandoned => {}
        }
    }

    fn start_probe(&mut self, name: &str, resume: &Resume, backup: &BackupView) {
        self.mark(&format!("BackupLost {name}"));
        if let Some(at) = resume.next_try_at.filter(|at| self.now < *at) {
            return self.wake(at);
        }
        if self.resume_node().is_none() {
            return;
        }
        if backup.target_unavailable.is_some() {
            return self.wake_in(TURN_POLL);
        }
        // the storage manager compares whole seconds: the request must be later than the end of the run
        if let Some(at) = backup.ended_at.map(|t| t + SignedDuration::from_secs(1)).filter(|at| self.now < *at) {
            return self.wake(at);
        }
        if self.obs.resumes_full {
            return self.wake_in(TURN_POLL);
        }
        self.ask(name);
    }

    fn ask(&mut self, name: &str) {
        let now = self.now;
        self.update(name, |r| {
            r.state = ResumeState::Probing;
            r.probed_at = Some(now);
        });
        self.actions.push(Action::Probe { backup: name.to_owned() });
        self.wake_in(self.policy.probe_wait);
    }

    fn end_probe(&mut self, name: &str, resume: &Resume, backup: &BackupView) {
        let probed = resume.probed_at.unwrap_or(self.now);
        // the request has whole seconds
        let asked = backup.asked_at.filter(|at| after(*at, SignedDuration::from_secs(1)) > probed);
        let until = after(asked.map_or(probed, |at| at.max(probed)), self.policy.probe_wait);
        if self.now < until {
            return self.wake(until);
        }
        if asked.is_none() {
            // whoever was to ask died before, or the answer is not in our cache: silence means nothing yet
            return self.ask(name);
        }
        if let Some(left) = self.obs.answer_due.get(name) {
            // whatever the time of day says
            return self.wake_in(*left);
        }
        // it moved again: start over there; or nobody could look: silence does not say that it is not complete
        let Some(node) = self.resume_node().filter(|_| backup.target_unavailable.is_none()) else {
            return self.update(name, |r| r.state = ResumeState::Waiting);
        };
        let now = self.now;
        self.update(name, |r| {
            r.state = ResumeState::Running;
            r.attempts = r.attempts.saturating_add(1);
            r.started_at = Some(now);
            r.cut_at = backup.ended_at;
        });
        self.mark(&format!("BackupResumed {name}"));
        self.tell(Reason::BackupResumed, format!("backup {name} runs again on {node} under its own name"));
        let resource_version = backup.resource_version.clone();
        self.actions.push(Action::Reset { backup: name.to_owned(), resource_version, node });
    }

    /// Our run ended without success, or the reset never happened.
    fn follow_run(&mut self, name: &str, resume: &Resume, backup: &BackupView) {
        let started = resume.started_at.unwrap_or(self.now);
        let not_ours = match resume.cut_at {
            Some(cut) => backup.ended_at == Some(cut),
            None => backup.ended_at.is_none_or(|at| at <= started),
        };
        if not_ours {
            // not reset yet as far as can be seen: a stale cache, or we died before the reset. Start over after a
            // while, with a fresh probe.
            let again = after(started, self.policy.probe_wait + SignedDuration::from_secs(2));
            if self.now < again {
                return self.wake(again);
            }
            return self.update(name, |r| {
                r.state = ResumeState::Waiting;
                r.attempts = r.attempts.saturating_sub(1);
            });
        }
        if started < self.spec.triggered_at {
            // cut by a later move, which says nothing about the backup: a drain of the whole cluster, node by node,
            // must not use its attempts up
            return self.update(name, |r| {
                r.state = ResumeState::Waiting;
                r.attempts = r.attempts.saturating_sub(1);
            });
        }
        let reason = backup.error.clone().unwrap_or_else(|| "the run ended without being complete".to_owned());
        if resume.attempts >= self.policy.resume_attempts {
            self.update(name, |r| {
                r.state = ResumeState::Unrecoverable;
                r.reason = format!("given up after {} runs: {reason}", r.attempts);
            });
            self.mark(&format!("BackupUnrecoverable {name}"));
            return self.tell(Reason::BackupUnrecoverable, format!("backup {name}: given up: {reason}"));
        }
        let next = self.now + self.policy.backoff(resume.attempts);
        self.update(name, |r| {
            r.state = ResumeState::Waiting;
            r.reason.clone_from(&reason);
            r.next_try_at = Some(next);
        });
        self.tell(Reason::BackupRunFailed, format!("backup {name}: {reason}; tried again at {next:.0}"));
        self.wake(next);
    }

    /// The node to resume on: the volume is settled there, asked for by its workload, nobody is leaving, and what is
    /// going to leave with the drain has left. `None`: not yet.
    fn resume_node(&mut self) -> Option<String> {
        let node = self.obs.settled_node()?.to_owned();
        let volume = self.obs.volume.as_ref()?;
        let request = volume.request_for(&node)?;
        let leaving = self.obs.pods.iter().any(|p| p.terminating && p.node.as_deref() == Some(&node));
        let elsewhere = self.obs.workload().is_some_and(|p| p.node.as_deref() != Some(&node));
        if !request.satisfied || request.ours || leaving || elsewhere {
            return None;
        }
        let ready = self.obs.workload().is_some_and(|p| p.ready);
        // a replica on a drained node is about to go; if the upload ran in it, it would be cut again
        let draining =
            volume.replicas.iter().any(|r| r.running && r.node != node && self.obs.cordoned.contains(&r.node));
        if ready && !draining {
            return Some(node);
        }
        let since = self.at("Attached").unwrap_or(self.spec.triggered_at);
        let until = after(since, self.policy.settle_wait);
        if self.now >= until {
            return Some(node);
        }
        self.wake(until);
        None
    }

    /// What the oldest owed backup waits for, in words.
    pub(super) fn waiting_for(&self) -> Option<String> {
        let resume = self.status.resumes.iter().find(|r| !r.state.is_final())?;
        let name = &resume.backup;
        // in steps of ten: each change is a write of the journal
        let progress = self.obs.backup(name).map_or(0, |b| b.progress / 10 * 10);
        Some(match resume.state {
            ResumeState::Probing => format!("asking whether backup {name} is complete after all"),
            ResumeState::Running => format!("backup {name} runs again, past {progress} %"),
            _ if self.obs.backup(name).is_some_and(BackupView::in_flight) => {
                format!("backup {name} is in flight, past {progress} %")
            }
            _ => match (resume.next_try_at, self.obs.backup(name).and_then(|b| b.target_unavailable.as_ref())) {
                (_, Some(why)) => format!("backup {name} waits for its target, which is not available: {why}"),
                (Some(at), None) => format!("backup {name} is tried again at {at:.0}: {}", resume.reason),
                _ if self.obs.resumes_full => format!("backup {name} waits for its turn to be resumed"),
                _ => format!("backup {name} is resumed once the volume is settled"),
            },
        })
    }

    fn resume_of(&self, backup: &str) -> Option<&Resume> {
        self.status.resumes.iter().find(|r| r.backup == backup)
    }

    fn update(&mut self, backup: &str, change: impl FnOnce(&mut Resume)) {
        if let Some(resume) = self.status.resumes.iter_mut().find(|r| r.backup == backup) {
            change(resume);
        }
    }
}

fn waiting(backup: &str) -> Resume {
    Resume {
        backup: backup.to_owned(),
        state: ResumeState::Waiting,
        attempts: 0,
        probed_at: None,
        started_at: None,
        cut_at: None,
        ended_at: None,
        next_try_at: None,
        order_at: None,
        reason: String::new(),
        uploaded_bytes: None,
    }
}
