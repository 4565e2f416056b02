//! What the coordinator counts. Labels have few values: never names of pods, volumes or namespaces. Whatever can be
//! counted is there from the start with 0, so that the first one is seen as an increase. What is the case right now is
//! not here but in the module `now`.

use crate::{
    api::{PreStageOutcome, ResumeState, Trigger, VolumeHandoffSpec, VolumeHandoffStatus},
    decide::Action,
    phases::{self, Phase},
};
use jiff::Timestamp;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::Registry,
};
use std::time::Duration;

/// How a move ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MoveOutcome {
    /// The workload is ready again.
    Ready,
    /// Another move began before that.
    Replaced,
    /// Nothing is owed any more and no workload got ready: it was scaled away, or the pod never left.
    NotReady,
}

impl MoveOutcome {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Ready, Self::Replaced, Self::NotReady];

    /// How the move in this journal has ended, if it has.
    pub fn of(status: &VolumeHandoffStatus) -> Option<Self> {
        if is_ready(status) {
            return Some(Self::Ready);
        }
        status.finished_at.is_some().then_some(Self::NotReady)
    }

    /// The moves that have ended between two journals, each with the journal it is in: the one before if another began,
    /// and the present one.
    pub fn ended<'s>(
        before: &'s VolumeHandoffStatus,
        after: &'s VolumeHandoffStatus,
    ) -> impl Iterator<Item = (&'s VolumeHandoffStatus, Self)> {
        let same_move = before.move_started_at == after.move_started_at;
        let open = before.move_started_at.is_some() && Self::of(before).is_none();
        let replaced = (!same_move && open).then_some((before, Self::Replaced));
        let ended = Self::of(after).filter(|_| !same_move || Self::of(before).is_none());
        replaced.into_iter().chain(ended.map(|outcome| (after, outcome)))
    }

    /// The name as a label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Replaced => "replaced",
            Self::NotReady => "not-ready",
        }
    }
}

/// What an eviction is held for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Held {
    /// A pod with a backup that is about to be complete.
    Pod,
    /// An instance manager: storage leaves last.
    InstanceManager,
    /// A CSI controller: storage leaves last.
    CsiController,
    /// Ourselves.
    Handoff,
}

impl Held {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Pod, Self::InstanceManager, Self::CsiController, Self::Handoff];

    /// The name as a label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pod => "Pod",
            Self::InstanceManager => "InstanceManager",
            Self::CsiController => "CsiController",
            Self::Handoff => "Handoff",
        }
    }
}

/// Why something was let through without us having had our say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailedOpen {
    /// A pod with a backup in flight left and no review had come: the webhook was not reached, or not asked.
    NoReview,
    /// The verdict took longer than the webhook or the scheduler waits.
    TimedOut,
    /// The verdict failed.
    Failed,
    /// The pod was in no cache and could not be looked up in time.
    Unseen,
    /// The record could not be written.
    NotRecorded,
    /// A hold could not be written down, so it was not begun.
    HoldNotRecorded,
}

impl FailedOpen {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::NoReview, Self::TimedOut, Self::Failed, Self::Unseen, Self::NotRecorded, Self::HoldNotRecorded];

    /// The name as a label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoReview => "no-review",
            Self::TimedOut => "timed-out",
            Self::Failed => "failed",
            Self::Unseen => "unseen",
            Self::NotRecorded => "not-recorded",
            Self::HoldNotRecorded => "hold-not-recorded",
        }
    }
}

/// Outward actions that are none of the decision's.
const OTHER_ACTIONS: [&str; 3] = ["Checkpoint", "Hold", "Wake"];

macro_rules! labels {
    ($($(#[$doc:meta])* $name:ident { $($label:ident),+ })*) => {
        $($(#[$doc])*
        #[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
        pub(crate) struct $name { $(pub(crate) $label: &'static str),+ })*
    };
}
labels! {
    ByTrigger { trigger }
    ByEnd { trigger, outcome }
    ByOutcome { outcome }
    ByPhase { phase }
    ByState { state }
    ByKind { kind }
    ByAction { action }
    ByReason { reason }
    ByCache { cache }
}

/// Upper bounds of what a move takes, in seconds: fine where moves are (8–30 s), up to half a day for a backup that is
/// resumed.
const PHASE_SECONDS: [f64; 23] = [
    0.01, 0.05, 0.2, 0.5, 1., 2., 3., 5., 8., 10., 12., 15., 18., 22., 30., 45., 60., 120., 300., 900., 3600., 14_400.,
    43_200.,
];
/// Upper bounds of how long a backup is owed, in seconds.
const OWED_SECONDS: [f64; 12] = [10., 30., 60., 120., 300., 600., 1800., 3600., 7200., 14_400., 28_800., 86_400.];

/// Figures of the coordinator.
#[derive(Clone, Debug)]
pub struct Metrics {
    started: Family<ByTrigger, Counter>,
    moves: Family<ByEnd, Counter>,
    phases: Family<ByPhase, Histogram>,
    prestages: Family<ByOutcome, Counter>,
    backups: Family<ByState, Counter>,
    owed_seconds: Family<ByState, Histogram>,
    holds: Family<ByKind, Counter>,
    expired_holds: Family<ByKind, Counter>,
    errors: Family<ByAction, Counter>,
    failed_open: Family<ByReason, Counter>,
    won: Counter,
}

impl Metrics {
    /// Registers all figures.
    pub fn new(registry: &mut Registry) -> Self {
        let phase_buckets = || Histogram::new(PHASE_SECONDS);
        let owed_buckets = || Histogram::new(OWED_SECONDS);
        let metrics = Self {
            started: Family::default(),
            moves: Family::default(),
            phases: Family::new_with_constructor(phase_buckets as fn() -> Histogram),
            prestages: Family::default(),
            backups: Family::default(),
            owed_seconds: Family::new_with_constructor(owed_buckets as fn() -> Histogram),
            holds: Family::default(),
            expired_holds: Family::default(),
            errors: Family::default(),
            failed_open: Family::default(),
            won: Counter::default(),
        };
        metrics.register(registry);
        metrics.begin_at_zero();
        metrics
    }

    fn register(&self, registry: &mut Registry) {
        registry.register("handoff_moves_started", "Moves that began", self.started.clone());
        registry.register("handoff_moves", "Moves that ended", self.moves.clone());
        registry.register(
            "handoff_phase_seconds",
            "Time of each phase of a move; total is trigger to ready workload",
            self.phases.clone(),
        );
        registry.register("handoff_prestages", "Pre-stages that ended", self.prestages.clone());
        registry.register("handoff_backups", "Interrupted backups that reached a state", self.backups.clone());
        registry.register(
            "handoff_backup_owed_seconds",
            "Time from the record of a backup to its end",
            self.owed_seconds.clone(),
        );
        registry.register("handoff_holds", "Evictions answered 429, by what was held", self.holds.clone());
        registry.register(
            "handoff_holds_expired",
            "Evictions let through because their hold was over",
            self.expired_holds.clone(),
        );
        registry.register("handoff_errors", "Outward actions that failed, by action", self.errors.clone());
        registry.register(
            "handoff_failed_open",
            "What went its way without a review, a look or a record of ours, as far as it is known",
            self.failed_open.clone(),
        );
        registry.register("handoff_leaderships", "How often this replica became the leader", self.won.clone());
    }

    fn begin_at_zero(&self) {
        for trigger in Trigger::ALL.map(Trigger::as_str) {
            drop(self.started.get_or_create(&ByTrigger { trigger }));
            for outcome in MoveOutcome::ALL.map(MoveOutcome::as_str) {
                drop(self.moves.get_or_create(&ByEnd { trigger, outcome }));
            }
        }
        for phase in Phase::ALL.map(Phase::as_str) {
            drop(self.phases.get_or_create(&ByPhase { phase }));
        }
        for outcome in ["used", "expired", "withdrawn"] {
            drop(self.prestages.get_or_create(&ByOutcome { outcome }));
        }
        for state in ResumeState::ALL.into_iter().filter(|s| counts(*s)) {
            drop(self.backups.get_or_create(&ByState { state: state.as_str() }));
        }
        for state in ResumeState::ALL.into_iter().filter(|s| s.is_final()) {
            drop(self.owed_seconds.get_or_create(&ByState { state: state.as_str() }));
        }
        for kind in Held::ALL.map(Held::as_str) {
            drop(self.holds.get_or_create(&ByKind { kind }));
            drop(self.expired_holds.get_or_create(&ByKind { kind }));
        }
        for action in Action::NAMES.into_iter().chain(OTHER_ACTIONS) {
            drop(self.errors.get_or_create(&ByAction { action }));
        }
        for reason in FailedOpen::ALL.map(FailedOpen::as_str) {
            drop(self.failed_open.get_or_create(&ByReason { reason }));
        }
    }

    /// What changed between two journals of a handoff, the second one written at `now`.
    pub fn journal(
        &self,
        spec: &VolumeHandoffSpec,
        before: &VolumeHandoffStatus,
        after: &VolumeHandoffStatus,
        now: Timestamp,
    ) {
        if before.move_started_at != after.move_started_at {
            self.started.get_or_create(&ByTrigger { trigger: spec.trigger.as_str() }).inc();
        }
        for (status, outcome) in MoveOutcome::ended(before, after) {
            let trigger = trigger_of(spec, status);
            self.moves.get_or_create(&ByEnd { trigger: trigger.as_str(), outcome: outcome.as_str() }).inc();
            // only now: the review of a deletion can come after the pod was seen leaving
            if trigger == Trigger::Observed {
                self.failed_open(FailedOpen::NoReview);
            }
        }
        self.prestage(before, after, now);
        let ended = phases::ended(spec, before, after);
        let phases = ended.phases.into_iter();
        let backups = ended.backups.into_iter().map(|(_, since, until)| (Phase::Resume, since, until));
        for (phase, since, until) in phases.chain(backups) {
            self.phase(phase, until.duration_since(since).unsigned_abs());
        }
        self.resumes(spec, before, after);
    }

    fn prestage(&self, before: &VolumeHandoffStatus, after: &VolumeHandoffStatus, now: Timestamp) {
        let Some(open) = before.prestage.as_ref().filter(|p| p.outcome.is_none()) else {
            return;
        };
        let same = |p: &&crate::api::PreStage| (&p.node, p.placed_at) == (&open.node, open.placed_at);
        let ended = match after.prestage.as_ref().filter(same) {
            Some(prestage) => prestage.outcome,
            None => Some(PreStageOutcome::Withdrawn),
        };
        let outcome = match ended {
            None => return,
            Some(PreStageOutcome::Adopted) => "used",
            Some(PreStageOutcome::Withdrawn) if now >= open.expires_at => "expired",
            Some(PreStageOutcome::Withdrawn) => "withdrawn",
        };
        self.prestages.get_or_create(&ByOutcome { outcome }).inc();
    }

    fn resumes(&self, spec: &VolumeHandoffSpec, before: &VolumeHandoffStatus, after: &VolumeHandoffStatus) {
        for resume in &after.resumes {
            let was = before.resumes.iter().find(|r| r.backup == resume.backup).map(|r| r.state);
            if was == Some(resume.state) || !counts(resume.state) {
                continue;
            }
            let state = ByState { state: resume.state.as_str() };
            self.backups.get_or_create(&state).inc();
            let recorded = spec.checkpoints.iter().find(|c| c.backup == resume.backup).map(|c| c.recorded_at);
            let ended = resume.ended_at.filter(|_| resume.state.is_final());
            if let (Some(recorded), Some(ended)) = (recorded, ended) {
                self.owed_seconds.get_or_create(&state).observe(ended.duration_since(recorded).as_secs_f64().max(0.0));
            }
        }
    }

    /// A phase took so long.
    pub(crate) fn phase(&self, phase: Phase, took: Duration) {
        self.phases.get_or_create(&ByPhase { phase: phase.as_str() }).observe(took.as_secs_f64());
    }

    /// An eviction was answered 429.
    pub(crate) fn held(&self, what: Held) {
        self.holds.get_or_create(&ByKind { kind: what.as_str() }).inc();
    }

    /// An eviction was let through because its hold was over.
    pub(crate) fn hold_expired(&self, what: Held) {
        self.expired_holds.get_or_create(&ByKind { kind: what.as_str() }).inc();
    }

    /// An outward action failed.
    pub(crate) fn failed(&self, action: &'static str) {
        self.errors.get_or_create(&ByAction { action }).inc();
    }

    /// Something was let through without us.
    pub(crate) fn failed_open(&self, why: FailedOpen) {
        self.failed_open.get_or_create(&ByReason { reason: why.as_str() }).inc();
    }

    /// This replica became the leader.
    pub(crate) fn leads(&self) {
        self.won.inc();
    }
}

/// What started the move in a journal: for one that has been replaced, its first step says so.
pub(crate) fn trigger_of(spec: &VolumeHandoffSpec, status: &VolumeHandoffStatus) -> Trigger {
    if status.move_started_at == Some(spec.triggered_at) {
        return spec.trigger;
    }
    let first = status.timeline.first().map(|step| step.what.as_str());
    Trigger::ALL.into_iter().find(|t| Some(t.as_str()) == first).unwrap_or(Trigger::Observed)
}

fn is_ready(status: &VolumeHandoffStatus) -> bool {
    status.timeline.iter().any(|step| step.what == "WorkloadReady")
}

/// States that are worth counting: those in between say nothing.
fn counts(state: ResumeState) -> bool {
    state.is_final() || state == ResumeState::Running
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
