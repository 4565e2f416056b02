//! A move in phases, read from the steps in its journal: what figures, traces and the page of moves have in common.

use crate::api::{Hold, Step, VolumeHandoffSpec, VolumeHandoffStatus};
use jiff::Timestamp;

/// A phase of a move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    /// The eviction is answered "not yet": first denial to the pod leaving.
    Hold,
    /// The record is written. A journal does not show this one: the replica that writes it measures it.
    Checkpoint,
    /// The pod leaves, its volume is unmounted and detached.
    Detach,
    /// The volume is attached on the new node.
    Attach,
    /// The pod there gets ready.
    Ready,
    /// Interrupted backups run again until the last one is safe or given up.
    Resume,
    /// Trigger to ready workload.
    Total,
}

impl Phase {
    /// All of them, in the order of a move.
    pub const ALL: [Self; 7] =
        [Self::Hold, Self::Checkpoint, Self::Detach, Self::Attach, Self::Ready, Self::Resume, Self::Total];

    /// The name in figures, traces and on the page.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hold => "hold",
            Self::Checkpoint => "checkpoint",
            Self::Detach => "detach",
            Self::Attach => "attach",
            Self::Ready => "ready",
            Self::Resume => "resume",
            Self::Total => "total",
        }
    }
}

/// A phase that has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Which one.
    pub phase: Phase,
    /// Its beginning.
    pub since: Timestamp,
    /// Its end; `None` while it lasts.
    pub until: Option<Timestamp>,
}

impl Span {
    fn new(phase: Phase, since: Timestamp, until: Option<Timestamp>) -> Self {
        // steps are seen in the order in which caches show them
        Self { phase, since, until: until.map(|at| at.max(since)) }
    }
}

/// What became of one interrupted backup within a move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut<'a> {
    /// Its name.
    pub backup: &'a str,
    /// When it was seen lost.
    pub since: Timestamp,
    /// When it was safe or given up.
    pub until: Option<Timestamp>,
}

/// The backups that a move cut.
pub fn cuts(timeline: &[Step]) -> impl Iterator<Item = Cut<'_>> {
    timeline.iter().filter_map(|step| {
        let backup = step.what.strip_prefix("BackupLost ")?;
        let ended = |what: &str| {
            let ends = ["BackupCompleted ", "BackupSuperseded ", "BackupUnrecoverable ", "BackupAbandoned "];
            ends.iter().any(|end| what.strip_prefix(end) == Some(backup))
        };
        let until = timeline.iter().find(|s| ended(&s.what)).map(|s| s.at.max(step.at));
        Some(Cut { backup, since: step.at, until })
    })
}

/// The phases of a move that began at `started`, as far as it got, in the order of [`Phase::ALL`]. One that was passed
/// without being seen has no span.
pub fn of_move(hold: Option<Hold>, started: Timestamp, timeline: &[Step]) -> Vec<Span> {
    let at = |what: &str| timeline.iter().find(|s| s.what == what).map(|s| s.at);
    let first = |steps: &[&str]| steps.iter().find_map(|what| at(what));
    let leaves = first(&["PodTerminating", "PodGone", "Released"]);
    let (attached, ready) = (at("Attached"), at("WorkloadReady"));
    let detached = first(&["Detached", "Attaching"]).or(attached);
    let mut spans = Vec::new();
    if let Some(hold) = hold {
        let until = leaves.or_else(|| timeline.iter().map(|s| s.at).find(|at| *at >= hold.deadline));
        spans.push(Span::new(Phase::Hold, hold.since, until));
    }
    if let Some(leaves) = leaves {
        spans.push(Span::new(Phase::Detach, leaves, detached));
    }
    if let Some(detached) = detached {
        spans.push(Span::new(Phase::Attach, detached, attached));
    }
    if let Some(attached) = attached {
        spans.push(Span::new(Phase::Ready, attached, ready));
    }
    let cuts = cuts(timeline).collect::<Vec<_>>();
    if let Some(since) = cuts.iter().map(|c| c.since).min() {
        let until = cuts.iter().map(|c| c.until).collect::<Option<Vec<_>>>();
        spans.push(Span::new(Phase::Resume, since, until.and_then(|ends| ends.into_iter().max())));
    }
    spans.push(Span::new(Phase::Total, started, ready));
    spans
}

/// What of a move has ended between two journals of it: its phases, and each interrupted backup by itself instead of
/// their common phase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended<'a> {
    /// Phase, beginning, end; never [`Phase::Resume`].
    pub phases: Vec<(Phase, Timestamp, Timestamp)>,
    /// Backup, when it was seen lost, when it was safe or given up.
    pub backups: Vec<(&'a str, Timestamp, Timestamp)>,
}

/// What has ended between `before` and `after`. A journal that is about another move says nothing of this one.
pub fn ended<'a>(spec: &VolumeHandoffSpec, before: &VolumeHandoffStatus, after: &'a VolumeHandoffStatus) -> Ended<'a> {
    let known = if before.move_started_at == after.move_started_at { before.timeline.as_slice() } else { &[] };
    let of = |timeline: &[Step]| of_move(spec.hold, spec.triggered_at, timeline);
    let old = of(known);
    let was_over = |phase: Phase| old.iter().any(|k| k.phase == phase && k.until.is_some());
    let phases = of(&after.timeline).into_iter().filter(|s| s.phase != Phase::Resume && !was_over(s.phase));
    let was_cut = |backup: &str| cuts(known).any(|c| c.backup == backup && c.until.is_some());
    let backups = cuts(&after.timeline).filter(|cut| !was_cut(cut.backup));
    Ended {
        phases: phases.filter_map(|s| Some((s.phase, s.since, s.until?))).collect(),
        backups: backups.filter_map(|c| Some((c.backup, c.since, c.until?))).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::tests::at;

    fn steps(steps: &[(&str, f64)]) -> Vec<Step> {
        steps.iter().map(|(what, seconds)| Step { what: (*what).to_owned(), at: at(*seconds) }).collect()
    }

    fn told(hold: Option<Hold>, timeline: &[Step]) -> Vec<String> {
        let seconds = |t: Timestamp| t.duration_since(at(0.0)).as_secs_f64();
        let spans = of_move(hold, at(0.0), timeline).into_iter();
        let line = |s: Span| format!("{} {}–{:?}", s.phase.as_str(), seconds(s.since), s.until.map(seconds));
        spans.map(line).collect()
    }

    #[test]
    fn a_whole_move() {
        let timeline = steps(&[
            ("Eviction", 0.0),
            ("PodTerminating", 20.0),
            ("Detaching", 22.0),
            ("BackupLost b1", 22.5),
            ("Detached", 23.0),
            ("Attaching", 24.0),
            ("Attached", 27.0),
            ("WorkloadReady", 31.0),
            ("BackupResumed b1", 40.0),
            ("BackupCompleted b1", 100.0),
        ]);
        let hold = Hold { since: at(0.0), deadline: at(60.0) };
        assert_eq!(
            told(Some(hold), &timeline),
            [
                "hold 0–Some(20.0)",
                "detach 20–Some(23.0)",
                "attach 23–Some(27.0)",
                "ready 27–Some(31.0)",
                "resume 22.5–Some(100.0)",
                "total 0–Some(31.0)",
            ]
        );
    }

    #[test]
    fn what_lasts_has_no_end_and_what_was_not_seen_is_not_there() {
        assert_eq!(told(None, &steps(&[("Eviction", 0.0)])), ["total 0–None"]);
        let held = Hold { since: at(0.0), deadline: at(60.0) };
        assert_eq!(told(Some(held), &steps(&[("Eviction", 0.0)])), ["hold 0–None", "total 0–None"]);
        let left = steps(&[("Eviction", 0.0), ("PodTerminating", 0.5), ("BackupLost b1", 2.0), ("BackupLost b2", 2.0)]);
        assert_eq!(told(None, &left), ["detach 0.5–None", "resume 2–None", "total 0–None"]);
        let one_of_two = [left, steps(&[("BackupCompleted b2", 9.0)])].concat();
        assert_eq!(told(None, &one_of_two)[1], "resume 2–None", "b1 is owed still");
        // detached and attached between two looks
        let fast = steps(&[("Deletion", 0.0), ("PodGone", 1.0), ("Attached", 3.0), ("WorkloadReady", 5.0)]);
        let fast = told(None, &fast);
        assert_eq!(fast, ["detach 1–Some(3.0)", "attach 3–Some(3.0)", "ready 3–Some(5.0)", "total 0–Some(5.0)"]);
    }

    #[test]
    fn no_phase_ends_before_it_begins() {
        let odd = steps(&[("Eviction", 0.0), ("Detached", 1.0), ("PodTerminating", 2.0), ("Attached", 3.0)]);
        assert!(of_move(None, at(0.0), &odd).iter().all(|s| s.until.is_none_or(|until| until >= s.since)));
    }
}
