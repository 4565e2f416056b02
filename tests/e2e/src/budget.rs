//! Where each second of a move goes. Steps overlap, so a phase is charged only for the time it adds: from the latest
//! of all steps before it. The phases of one move therefore sum up to its length.

use crate::timeline::{Step, Timeline};

/// Phases, each with the step that ends it, in the order in which they depend on each other.
pub const PHASES: [(&str, Step); 15] = [
    ("eviction", Step::Evicted),
    ("grace", Step::Ended),
    ("unpublish", Step::Gone),
    ("schedule", Step::Bound),
    ("kubelet tick on A", Step::Released),
    ("ask to detach", Step::Detaching),
    ("detach", Step::Detached),
    ("ask to attach", Step::Attaching),
    ("attach", Step::Attached),
    ("endpoint", Step::Endpoint),
    ("CSI poll, attacher back-off", Step::Attachment),
    ("kubelet tick on B", Step::Expected),
    ("stage", Step::Staged),
    ("start", Step::Running),
    ("ready", Step::Ready),
];

/// Seconds that each phase added to a move that reached `Ready`.
pub fn phases(timeline: &Timeline) -> Option<Vec<f64>> {
    let ready = timeline.at(Step::Ready)?;
    let mut latest: f64 = 0.0;
    let spent = PHASES.iter().map(|(_, step)| {
        let reached = timeline.at(*step).unwrap_or(latest).clamp(latest, ready.max(latest));
        let added = reached - latest;
        latest = reached;
        added
    });
    Some(spent.collect())
}

/// Mean of each phase over moves.
pub fn mean(moves: &[&Timeline]) -> Option<Vec<f64>> {
    let all: Vec<_> = moves.iter().filter_map(|timeline| phases(timeline)).collect();
    let count = f64::from(u32::try_from(all.len()).ok().filter(|n| *n > 0)?);
    Some((0..PHASES.len()).map(|i| all.iter().map(|phases| phases[i]).sum::<f64>() / count).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeline(marks: &[(Step, f64)]) -> Timeline {
        let mut timeline = Timeline::default();
        for (step, at) in marks {
            timeline.add(*step, *at, String::new());
        }
        timeline
    }

    #[test]
    fn phases_sum_up_to_the_move() {
        let overlapping = timeline(&[
            (Step::Evicted, 0.5),
            (Step::Gone, 2.0),
            (Step::Expected, 3.0), // before the attachment: costs nothing
            (Step::Attachment, 11.0),
            (Step::Running, 12.0),
            (Step::Ready, 12.5),
        ]);
        let phases = phases(&overlapping).unwrap();
        assert!((phases.iter().sum::<f64>() - 12.5).abs() < 1e-9);
        let of = |name| phases[PHASES.iter().position(|(n, _)| *n == name).unwrap()];
        assert!((of("CSI poll, attacher back-off") - 9.0).abs() < 1e-9);
        assert!(of("kubelet tick on B").abs() < 1e-9);
    }

    #[test]
    fn a_move_without_an_end_has_no_budget() {
        assert!(phases(&timeline(&[(Step::Evicted, 0.5)])).is_none());
        assert!(mean(&[]).is_none());
    }
}
