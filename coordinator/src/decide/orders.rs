//! Tests of what people order: `handoff resume` and `handoff abandon`.

use super::tests::{Story, at, backup};
use super::{Action, Phase, ResumeState};
use crate::api::{Order, OrderKind};
use handoff_storage::BackupState;

fn order(story: &mut Story, what: OrderKind, seconds: f64) {
    story.spec.checkpoints[0].order = Some(Order { what, at: at(seconds) });
}

/// A run has just failed and the next try is 15 s away.
fn failed_once(attempts: u32) -> Story {
    let mut s = Story::begin(&["b1"]);
    s.policy.resume_attempts = attempts;
    s.decide(0.0);
    s.arrived().backups(vec![backup("b1", BackupState::Lost, Some(3.0))]);
    s.decide(14.0);
    assert!(matches!(s.decide(17.0)[..], [Action::Reset { .. }]));
    s.backups(vec![backup("b1", BackupState::Lost, Some(25.0))]);
    assert_eq!(s.decide(28.0), []);
    s
}

#[test]
fn resume_ends_the_wait_for_the_next_try_once_and_skips_no_probe() {
    let mut s = failed_once(8);
    assert_eq!(s.decide(29.0), [], "back-off");
    order(&mut s, OrderKind::Resume, 30.0);
    assert_eq!(s.decide(30.0), [Action::Probe { backup: "b1".into() }]);
    assert_eq!(s.resume("b1").order_at, Some(at(30.0)));
    assert!(matches!(s.decide(33.0)[..], [Action::Reset { .. }]));
    s.backups(vec![backup("b1", BackupState::Lost, Some(40.0))]);
    assert_eq!(s.decide(43.0), []);
    assert_eq!(s.decide(45.0), [], "the same order does not end the next wait, too");
    assert_eq!(s.resume("b1").attempts, 2);
}

#[test]
fn resume_waits_for_whatever_makes_a_try_safe() {
    let mut s = failed_once(8);
    s.moved();
    order(&mut s, OrderKind::Resume, 30.0);
    let probed = |actions: Vec<Action>| actions.iter().any(|a| matches!(a, Action::Probe { .. }));
    assert!(!probed(s.decide(31.0)), "the volume is between nodes");
    s.arrived();
    assert!(probed(s.decide(32.0)));
}

#[test]
fn resume_takes_up_again_what_was_given_up() {
    let mut s = failed_once(1);
    assert_eq!((s.resume("b1").state, s.journal.phase), (ResumeState::Unrecoverable, Some(Phase::Failed)));
    order(&mut s, OrderKind::Resume, 100.0);
    assert_eq!(s.decide(101.0), [Action::Probe { backup: "b1".into() }]);
    assert_eq!((s.journal.phase, s.journal.finished_at), (Some(Phase::Resuming), None), "owed again");
    assert!(matches!(s.decide(104.0)[..], [Action::Reset { .. }]));
    s.backups(vec![backup("b1", BackupState::Completed, Some(130.0))]);
    s.decide(131.0);
    assert_eq!((s.resume("b1").state, s.journal.phase), (ResumeState::Completed, Some(Phase::Complete)));

    // what cannot be resumed at all ends where it was
    let mut s = failed_once(1);
    s.obs.snapshots.clear();
    order(&mut s, OrderKind::Resume, 100.0);
    assert_eq!(s.decide(101.0), []);
    assert_eq!(s.resume("b1").state, ResumeState::Unrecoverable);
    assert!(s.resume("b1").reason.contains("is gone"), "{}", s.resume("b1").reason);
}

#[test]
fn abandon_ends_what_is_owed_with_a_reason() {
    let mut s = failed_once(8);
    order(&mut s, OrderKind::Abandon, 30.0);
    assert_eq!(s.decide(31.0), []);
    let resume = s.resume("b1");
    assert_eq!(resume.state, ResumeState::Abandoned);
    assert!(resume.reason.starts_with("abandoned on request at 20"), "{}", resume.reason);
    assert_eq!(s.journal.phase, Some(Phase::Complete), "nothing is owed, and nothing failed");
    assert!(s.journal.finished_at.is_some());
    assert_eq!(s.journal.message, "nothing is owed; abandoned: b1");
    let condition = s.journal.conditions.iter().find(|c| c.kind == "BackupsSafe").unwrap();
    assert_eq!((condition.status.as_str(), condition.reason.as_str()), ("False", "Abandoned"));
    // whatever becomes of it, it stays abandoned
    s.backups(vec![backup("b1", BackupState::Lost, Some(60.0))]);
    assert_eq!(s.decide(61.0), []);
    assert_eq!(s.resume("b1").state, ResumeState::Abandoned);
}

#[test]
fn abandon_lets_the_next_backup_have_its_turn_and_touches_no_run() {
    let mut s = Story::begin(&["b1", "b2"]);
    s.decide(0.0);
    let lost = |name: &str| backup(name, BackupState::Lost, Some(3.0));
    s.arrived().backups(vec![lost("b1"), lost("b2")]);
    assert_eq!(s.decide(14.0), [Action::Probe { backup: "b1".into() }]);
    order(&mut s, OrderKind::Abandon, 15.0);
    assert_eq!(s.decide(15.0), [Action::Probe { backup: "b2".into() }]);
    assert_eq!(s.journal.phase, Some(Phase::Resuming));
}

#[test]
fn what_is_complete_cannot_be_abandoned() {
    let mut s = Story::begin(&["b1"]);
    s.decide(0.0);
    s.arrived().backups(vec![backup("b1", BackupState::Completed, Some(9.0))]);
    order(&mut s, OrderKind::Abandon, 14.0);
    s.decide(14.0);
    assert_eq!(s.resume("b1").state, ResumeState::Completed);
}
