//! What is counted of a journal, step by step, told by the decision itself.

use super::*;
use crate::{
    decide::tests::{Story, at, backup, pod, request, volume},
    observation::Observation,
};
use handoff_cluster::Pod;
use handoff_storage::{BackupState, VolumeState};
use prometheus_client::encoding::text::encode;
use std::sync::Arc;

struct Counting {
    registry: Registry,
    metrics: Metrics,
    story: Story,
}

impl Counting {
    fn begin() -> Self {
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        Self { registry, metrics, story: Story::begin(&["b1"]) }
    }

    fn see(&mut self, seconds: f64, change: impl FnOnce(&mut Observation)) {
        change(&mut self.story.obs);
        let before = self.story.journal().clone();
        self.story.decide(seconds);
        self.metrics.journal(self.story.spec(), &before, self.story.journal(), at(seconds));
    }

    /// Samples that are not zero.
    fn counted(&self, name: &str) -> Vec<String> {
        let mut text = String::new();
        encode(&mut text, &self.registry).unwrap();
        let lines = text.lines().filter(|l| l.starts_with(name) && !l.contains("_bucket{"));
        lines.filter(|l| !l.ends_with(" 0") && !l.ends_with(" 0.0")).map(str::to_owned).collect()
    }
}

fn moves_to_b(counting: &mut Counting) {
    counting.see(0.1, |_| {});
    counting.see(1.0, |obs| obs.pods = vec![Arc::new(Pod { terminating: true, ..pod("old", Some("a")) })]);
    counting.see(3.0, |obs| {
        obs.pods = vec![Arc::new(pod("new", Some("b")))];
        obs.volume = Some(volume(VolumeState::Detaching, None, vec![]));
        obs.backups = vec![backup("b1", BackupState::Lost, Some(2.5))];
    });
    counting.see(5.0, |obs| obs.volume = Some(volume(VolumeState::Detached, None, vec![request("b", false, false)])));
    counting.see(9.0, |obs| {
        obs.volume = Some(volume(VolumeState::Attached, Some("b"), vec![request("b", false, true)]));
    });
    counting.see(14.0, |obs| obs.pods = vec![Arc::new(Pod { ready: true, ..pod("new", Some("b")) })]);
}

#[test]
fn a_move_is_counted_once_with_its_phases_and_its_backup() {
    let mut counting = Counting::begin();
    moves_to_b(&mut counting);
    counting.see(14.5, |_| {});
    assert_eq!(counting.counted("handoff_moves_started"), ["handoff_moves_started_total{trigger=\"Eviction\"} 1"]);
    let ready = "handoff_moves_total{trigger=\"Eviction\",outcome=\"ready\"} 1";
    assert_eq!(counting.counted("handoff_moves_total"), [ready]);
    let phases = counting.counted("handoff_phase_seconds");
    for sum in ["detach\"} 4.0", "attach\"} 4.0", "ready\"} 5.0", "total\"} 14.0"] {
        assert!(phases.iter().any(|l| l.contains("_sum") && l.ends_with(sum)), "{sum} in {phases:?}");
    }
    assert_eq!(phases.iter().filter(|l| l.contains("_count") && l.ends_with(" 1")).count(), 4, "{phases:?}");

    counting.see(20.0, |obs| obs.backups = vec![backup("b1", BackupState::Completed, Some(19.0))]);
    counting.see(21.0, |_| {});
    assert_eq!(counting.counted("handoff_moves_total"), [ready]);
    assert_eq!(counting.counted("handoff_backups"), ["handoff_backups_total{state=\"Completed\"} 1"]);
    let owed = counting.counted("handoff_backup_owed_seconds_sum");
    assert_eq!(owed, ["handoff_backup_owed_seconds_sum{state=\"Completed\"} 20.0"]);
    let resumed = counting.counted("handoff_phase_seconds_sum{phase=\"resume\"}");
    assert_eq!(resumed.len(), 1, "{resumed:?}");
}

#[test]
fn a_prestage_ends_used_withdrawn_or_expired() {
    let staged = |node: &str, seconds: f64, outcome: Option<PreStageOutcome>| {
        let (placed_at, expires_at) = (at(seconds), at(seconds + 120.0));
        let prestage = crate::api::PreStage { node: node.into(), pod_uid: "u".into(), placed_at, expires_at, outcome };
        VolumeHandoffStatus {
            move_started_at: Some(at(0.0)),
            prestage: Some(prestage),
            ..VolumeHandoffStatus::default()
        }
    };
    let none = VolumeHandoffStatus { move_started_at: Some(at(0.0)), ..VolumeHandoffStatus::default() };
    for (before, after, seconds, counted) in [
        (staged("b", 1.0, None), staged("b", 1.0, Some(PreStageOutcome::Adopted)), 5.0, Some("used")),
        (staged("b", 1.0, None), staged("b", 1.0, Some(PreStageOutcome::Withdrawn)), 5.0, Some("withdrawn")),
        (staged("b", 1.0, None), staged("b", 1.0, Some(PreStageOutcome::Withdrawn)), 121.0, Some("expired")),
        // withdrawn on one node and placed on another within one decision, or by the next move
        (staged("b", 1.0, None), staged("c", 4.0, None), 5.0, Some("withdrawn")),
        (staged("b", 1.0, None), none.clone(), 5.0, Some("withdrawn")),
        (none.clone(), staged("b", 1.0, None), 5.0, None),
        (staged("b", 1.0, None), staged("b", 1.0, None), 5.0, None),
        (staged("b", 1.0, Some(PreStageOutcome::Adopted)), none, 5.0, None),
    ] {
        let counting = Counting::begin();
        counting.metrics.journal(counting.story.spec(), &before, &after, at(seconds));
        let expected = counted.map(|outcome| format!("handoff_prestages_total{{outcome=\"{outcome}\"}} 1"));
        assert_eq!(counting.counted("handoff_prestages"), expected.into_iter().collect::<Vec<_>>());
    }
}

#[test]
fn a_move_that_leads_nowhere_has_its_outcome_too() {
    // the backup is complete before the pod leaves
    let mut counting = Counting::begin();
    counting.see(0.1, |_| {});
    counting.see(5.0, |obs| obs.backups = vec![backup("b1", BackupState::Completed, Some(4.0))]);
    counting.see(6.0, |_| {});
    let not_ready = "handoff_moves_total{trigger=\"Eviction\",outcome=\"not-ready\"} 1";
    assert_eq!(counting.counted("handoff_moves_total"), [not_ready]);

    // the next move begins while this one is under way
    let mut counting = Counting::begin();
    counting.see(0.1, |_| {});
    counting.story.trigger_again(Trigger::Observed, 8.0);
    counting.see(8.1, |_| {});
    let replaced = "handoff_moves_total{trigger=\"Eviction\",outcome=\"replaced\"} 1";
    assert_eq!(counting.counted("handoff_moves_total"), [replaced]);
    assert_eq!(counting.counted("handoff_failed_open"), [""; 0], "a review may still come");
}

#[test]
fn a_move_that_nobody_announced_failed_open() {
    let mut counting = Counting::begin();
    counting.story.trigger_again(Trigger::Observed, 0.0);
    moves_to_b(&mut counting);
    let no_review = "handoff_failed_open_total{reason=\"no-review\"} 1";
    assert_eq!(counting.counted("handoff_failed_open"), [no_review]);

    // the review of the deletion came after the pod was seen leaving
    let mut counting = Counting::begin();
    counting.story.trigger_again(Trigger::Observed, 0.0);
    counting.see(0.1, |_| {});
    counting.story.trigger_again(Trigger::Deletion, 0.0);
    moves_to_b(&mut counting);
    assert_eq!(counting.counted("handoff_failed_open"), [""; 0]);
    let ready = "handoff_moves_total{trigger=\"Deletion\",outcome=\"ready\"} 1";
    assert_eq!(counting.counted("handoff_moves_total"), [ready]);
}

#[test]
fn everything_that_is_counted_is_there_before_it_happens() {
    let counting = Counting::begin();
    let mut text = String::new();
    encode(&mut text, &counting.registry).unwrap();
    for series in [
        "handoff_moves_total{trigger=\"Lost\",outcome=\"replaced\"} 0",
        "handoff_errors_total{action=\"ReleaseAttachment\"} 0",
        "handoff_errors_total{action=\"Hold\"} 0",
        "handoff_holds_expired_total{kind=\"CsiController\"} 0",
        "handoff_backups_total{state=\"Unrecoverable\"} 0",
        "handoff_phase_seconds_count{phase=\"hold\"} 0",
    ] {
        assert!(text.contains(&format!("\n{series}\n")), "{series} in {text}");
    }
    assert!(!text.contains("handoff_backups_total{state=\"Waiting\"}"), "{text}");
}
