//! Tests of what a resume waits for besides its volume: its turn, and the backup target.

use super::tests::{Story, backup};
use super::{Action, ResumeState};
use handoff_storage::BackupState;

#[test]
fn a_resume_waits_for_its_turn() {
    let mut s = Story::begin(&["b1"]);
    s.decide(0.0);
    s.arrived().backups(vec![backup("b1", BackupState::Lost, Some(3.0))]);
    s.obs.resumes_full = true;
    assert_eq!(s.decide(14.0), []);
    assert_eq!(s.decide(900.0), [], "however long that takes");
    assert!(s.journal.message.contains("turn"), "{}", s.journal.message);
    s.obs.resumes_full = false;
    assert_eq!(s.decide(905.0), [Action::Probe { backup: "b1".into() }]);
    s.obs.resumes_full = true;
    s.decide(908.0);
    assert_eq!(s.resume("b1").state, ResumeState::Running, "who has begun goes on");
}

/// A backup was lost, and its volume is settled again.
fn lost() -> Story {
    let mut s = Story::begin(&["b1"]);
    s.decide(0.0);
    s.arrived().backups(vec![backup("b1", BackupState::Lost, Some(3.0))]);
    s
}

fn target_is(story: &mut Story, unavailable: Option<&str>) {
    story.obs.backups[0].target_unavailable = unavailable.map(Into::into);
}

/// Nobody could look whether the backup is complete, so silence says nothing.
#[test]
fn nothing_is_asked_or_reset_while_the_target_is_away() {
    let mut s = lost();
    target_is(&mut s, Some("connection refused"));
    assert_eq!(s.decide(14.0), []);
    assert_eq!(s.decide(9000.0), [], "however long that takes");
    assert!(s.journal.message.contains("not available: connection refused"), "{}", s.journal.message);
    assert_eq!(s.resume("b1").attempts, 0);
    target_is(&mut s, None);
    assert_eq!(s.decide(9005.0), [Action::Probe { backup: "b1".into() }]);
    assert!(matches!(s.decide(9008.0)[..], [Action::Reset { .. }]));
}

#[test]
fn a_target_that_went_away_after_the_question_makes_its_silence_worthless() {
    let mut s = lost();
    assert_eq!(s.decide(14.0), [Action::Probe { backup: "b1".into() }]);
    target_is(&mut s, Some("no route to host"));
    assert_eq!(s.decide(17.0), []);
    assert_eq!(s.resume("b1").state, ResumeState::Waiting);
    target_is(&mut s, None);
    assert_eq!(s.decide(40.0), [Action::Probe { backup: "b1".into() }], "asked again");
}
