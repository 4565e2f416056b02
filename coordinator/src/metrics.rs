//! Figures of the coordinator. Labels have few values: never names of pods, volumes or namespaces.

use crate::api::{ResumeState, Trigger, VolumeHandoff, VolumeHandoffStatus};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

/// One label.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Label {
    /// Its value.
    pub kind: String,
}

fn label(kind: impl std::fmt::Debug) -> Label {
    Label { kind: format!("{kind:?}") }
}

/// Figures of the coordinator.
#[derive(Clone, Debug)]
pub struct Metrics {
    moves: Family<Label, Counter>,
    move_seconds: Histogram,
    prestages: Family<Label, Counter>,
    backups: Family<Label, Counter>,
    owed: Gauge,
    holds: Family<Label, Counter>,
    errors: Family<Label, Counter>,
    leader: Gauge,
}

impl Metrics {
    /// Registers all figures.
    pub fn new(registry: &mut Registry) -> Self {
        let seconds = [1., 2., 5., 8., 10., 12., 15., 18., 22., 30., 45., 60., 120., 300.];
        let metrics = Self {
            moves: Family::default(),
            move_seconds: Histogram::new(seconds),
            prestages: Family::default(),
            backups: Family::default(),
            owed: Gauge::default(),
            holds: Family::default(),
            errors: Family::default(),
            leader: Gauge::default(),
        };
        registry.register("handoff_moves", "Moves that began, by trigger", metrics.moves.clone());
        registry.register(
            "handoff_move_seconds",
            "Trigger of a move to its workload ready",
            metrics.move_seconds.clone(),
        );
        registry.register("handoff_prestages", "Pre-stages, by outcome", metrics.prestages.clone());
        registry.register("handoff_backups", "Owed backups that reached a state", metrics.backups.clone());
        registry.register("handoff_backups_owed", "Backups owed now", metrics.owed.clone());
        registry.register("handoff_holds", "Evictions answered 429, by what was held", metrics.holds.clone());
        registry.register("handoff_errors", "Outward actions that failed, by action", metrics.errors.clone());
        registry.register("handoff_leader", "1 while this replica leads", metrics.leader.clone());
        metrics
    }

    /// What changed between two journals of a handoff.
    pub fn journal(&self, trigger: Trigger, before: &VolumeHandoffStatus, after: &VolumeHandoffStatus) {
        if before.move_started_at != after.move_started_at {
            self.moves.get_or_create(&label(trigger)).inc();
        }
        let ready = |s: &VolumeHandoffStatus| s.timeline.iter().find(|t| t.what == "WorkloadReady").map(|t| t.at);
        if let (None, Some(ready), Some(began)) = (ready(before), ready(after), after.move_started_at) {
            self.move_seconds.observe(ready.duration_since(began).as_secs_f64());
        }
        let ended = |s: &VolumeHandoffStatus| s.prestage.as_ref().and_then(|p| p.outcome);
        if let (None, Some(outcome)) = (ended(before), ended(after)) {
            self.prestages.get_or_create(&label(outcome)).inc();
        }
        for resume in &after.resumes {
            let was = before.resumes.iter().find(|r| r.backup == resume.backup).map(|r| r.state);
            if was != Some(resume.state) && (resume.state.is_final() || resume.state == ResumeState::Running) {
                self.backups.get_or_create(&label(resume.state)).inc();
            }
        }
    }

    /// How much is owed over all handoffs.
    pub fn owed<'a>(&self, handoffs: impl Iterator<Item = &'a VolumeHandoff>) {
        let owed = handoffs.map(|h| h.owed().count()).sum::<usize>();
        self.owed.set(i64::try_from(owed).unwrap_or(i64::MAX));
    }

    /// An eviction was answered 429.
    pub fn held(&self, what: &str) {
        self.holds.get_or_create(&Label { kind: what.to_owned() }).inc();
    }

    /// An outward action failed.
    pub fn failed(&self, action: &str) {
        self.errors.get_or_create(&Label { kind: action.to_owned() }).inc();
    }

    /// Whether this replica leads.
    pub fn leading(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }
}
