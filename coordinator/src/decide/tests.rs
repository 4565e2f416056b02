//! Tables: one story each, told in observations.

use super::*;
use crate::api::{Checkpoint, Hold, PodIdentity, Resume, VolumeIdentity};
use handoff_cluster::{Attachment, ObjectKey, Pod};
use handoff_storage::{AttachRequest, BackupView, ReplicaView, SnapshotView, VolumeState, VolumeView};
use std::sync::Arc;

pub(crate) fn at(seconds: f64) -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap() + SignedDuration::from_secs_f64(seconds)
}

pub(crate) fn spec(backups: &[&str]) -> VolumeHandoffSpec {
    VolumeHandoffSpec {
        volume: VolumeIdentity { driver: "d".into(), handle: "v".into(), volume: "pv".into(), claim: "c".into() },
        pod: PodIdentity { name: "db-0".into(), uid: "old".into(), mode: None },
        from: "a".into(),
        trigger: Trigger::Eviction,
        triggered_at: at(0.0),
        hold: None,
        checkpoints: (backups.iter().zip(0_u8..))
            .map(|(b, i)| Checkpoint {
                backup: (*b).into(),
                uid: format!("uid-{b}"),
                snapshot: format!("snap-{b}"),
                snapshot_created_at: Some(at(-100.0 + f64::from(i))),
                target: "default".into(),
                mode: "incremental".into(),
                recurring_job: None,
                progress: 30,
                replica_address: None,
                recorded_at: at(0.0),
                order: None,
            })
            .collect(),
    }
}

pub(crate) fn pod(uid: &str, node: Option<&str>) -> Pod {
    Pod {
        key: ObjectKey::new("ns", "db-0"),
        uid: uid.into(),
        node: node.map(Into::into),
        terminating: false,
        finished: false,
        ready: false,
        created: Some(at(if uid == "old" { -900.0 } else { 2.0 })),
        claims: vec!["c".into()],
        owner_kind: Some("StatefulSet".into()),
        labels: std::collections::BTreeMap::default(),
        settings: handoff_cluster::settings::Settings::default(),
    }
}

pub(crate) fn request(node: &str, ours: bool, satisfied: bool) -> AttachRequest {
    AttachRequest { id: format!("csi-{node}"), node: node.into(), workload: true, ours, satisfied }
}

pub(crate) fn volume(state: VolumeState, node: Option<&str>, requests: Vec<AttachRequest>) -> VolumeView {
    let up = state == VolumeState::Attached;
    VolumeView {
        state,
        current_node: node.map(Into::into),
        wanted_node: node.map(Into::into),
        engine_running: up,
        serving: up,
        requests,
        requests_version: "5".into(),
        replicas: ["a", "b"].map(|n| ReplicaView { node: n.into(), running: true, failed: false }).to_vec(),
    }
}

pub(crate) fn backup(name: &str, state: BackupState, ended: Option<f64>) -> BackupView {
    BackupView {
        name: name.into(),
        uid: format!("uid-{name}"),
        resource_version: "7".into(),
        state,
        progress: 30,
        snapshot: format!("snap-{name}"),
        target: "default".into(),
        target_unavailable: None,
        mode: "incremental".into(),
        recurring_job: None,
        replica_address: None,
        error: ended.map(|_| "connection refused".into()),
        ended_at: ended.map(at),
        asked_at: None,
        created: Some(at(-50.0)),
        uploaded_bytes: None,
    }
}

pub(crate) fn place(node: &str) -> Action {
    Action::PlacePreStage { node: node.into(), version: "5".into() }
}

/// A story: one observation after another, the journal carried along.
pub(crate) struct Story {
    pub(super) spec: VolumeHandoffSpec,
    pub(super) journal: VolumeHandoffStatus,
    pub(crate) obs: Observation,
    pub(super) policy: Policy,
    /// Probes that were sent.
    asked: Vec<(String, Timestamp)>,
    probes_arrive: bool,
}

impl Story {
    pub(crate) fn spec(&self) -> &VolumeHandoffSpec {
        &self.spec
    }

    pub(crate) fn journal(&self) -> &VolumeHandoffStatus {
        &self.journal
    }

    /// Another move begins.
    pub(crate) fn trigger_again(&mut self, trigger: Trigger, seconds: f64) {
        self.spec.trigger = trigger;
        self.spec.triggered_at = at(seconds);
    }

    fn show_probes(&mut self) {
        for backup in &mut self.obs.backups {
            let last = self.asked.iter().rev().find(|(name, _)| *name == backup.name);
            backup.asked_at = last.map(|(_, at)| *at);
        }
    }

    /// The pod still runs on a, the backups are in flight.
    pub(crate) fn begin(backups: &[&str]) -> Self {
        let spec = spec(backups);
        let created = |c: &Checkpoint| SnapshotView { created: c.snapshot_created_at, unusable: None };
        let obs = Observation {
            pods: vec![Arc::new(pod("old", Some("a")))],
            volume: Some(volume(VolumeState::Attached, Some("a"), vec![request("a", false, true)])),
            backups: backups.iter().map(|b| backup(b, BackupState::Running, None)).collect(),
            snapshots: spec.checkpoints.iter().map(|c| (c.snapshot.clone(), created(c))).collect(),
            ..Observation::default()
        };
        let (journal, policy) = (VolumeHandoffStatus::default(), Policy::default());
        Self { spec, journal, obs, policy, asked: vec![], probes_arrive: true }
    }

    pub(crate) fn decide(&mut self, seconds: f64) -> Vec<Action> {
        let decision = decide(&self.spec, &self.journal, &self.obs, &self.policy, at(seconds));
        let again = decide(&self.spec, &decision.status, &self.obs, &self.policy, at(seconds));
        let fresh = |a: &&Action| matches!(a, Action::Reset { .. } | Action::Tell { .. } | Action::WakeAttacher { .. });
        assert_eq!(again.actions.iter().find(fresh), None, "the same observation again must do nothing new");
        self.journal = decision.status;
        for action in &decision.actions {
            // what a probe leaves behind, in whole seconds
            if let (Action::Probe { backup }, true) = (action, self.probes_arrive) {
                let asked = Timestamp::from_second(at(seconds).as_second()).unwrap();
                self.asked.push((backup.clone(), asked));
            }
        }
        self.show_probes();
        decision.actions.into_iter().filter(|a| !matches!(a, Action::Tell { .. })).collect()
    }

    /// The same again, up to here.
    fn again(&self) -> Self {
        let (spec, journal) = (self.spec.clone(), self.journal.clone());
        let (obs, policy, asked) = (self.obs.clone(), self.policy.clone(), self.asked.clone());
        Self { spec, journal, obs, policy, asked, probes_arrive: self.probes_arrive }
    }

    /// The old pod is gone, the new one is bound to b, the volume is on its way there.
    pub(super) fn moved(&mut self) -> &mut Self {
        self.obs.pods = vec![Arc::new(pod("new", Some("b")))];
        self.obs.volume = Some(volume(VolumeState::Detaching, None, vec![]));
        self
    }

    /// The volume is on b and the pod is ready.
    pub(super) fn arrived(&mut self) -> &mut Self {
        let mut new = pod("new", Some("b"));
        new.ready = true;
        self.obs.pods = vec![Arc::new(new)];
        self.obs.volume = Some(volume(VolumeState::Attached, Some("b"), vec![request("b", false, true)]));
        self
    }

    pub(super) fn backups(&mut self, backups: Vec<BackupView>) -> &mut Self {
        self.obs.backups = backups;
        self.show_probes();
        self
    }

    pub(super) fn resume(&self, name: &str) -> &Resume {
        self.journal.resumes.iter().find(|r| r.backup == name).unwrap()
    }
}

#[test]
fn a_whole_move() {
    let mut s = Story::begin(&["b1"]);
    assert_eq!(s.decide(0.0), []);
    assert_eq!(s.journal.phase, Some(Phase::Checkpointed));

    assert_eq!(s.moved().decide(2.0), [place("b")]);
    assert_eq!(s.journal.phase, Some(Phase::Moving));
    assert_eq!(s.journal.to.as_deref(), Some("b"));

    s.obs.volume = Some(volume(VolumeState::Attaching, None, vec![request("b", true, false)]));
    s.backups(vec![backup("b1", BackupState::Lost, Some(3.0))]);
    assert_eq!(s.decide(4.0), [], "placed: nothing to repeat, and no resume before the volume is settled");

    s.obs.volume = Some(volume(VolumeState::Attached, Some("b"), vec![request("b", false, true)]));
    assert_eq!(s.decide(9.0), []);
    assert_eq!(s.journal.phase, Some(Phase::Attached));
    assert_eq!(s.journal.prestage.as_ref().unwrap().outcome, Some(PreStageOutcome::Adopted));

    assert_eq!(s.arrived().decide(14.0), [Action::Probe { backup: "b1".into() }]);
    assert_eq!(s.journal.duration, "14.0s");
    assert_eq!(s.journal.phase, Some(Phase::Resuming));
    assert_eq!(s.decide(16.0), [], "the probe gets its time");
    let reset = Action::Reset { backup: "b1".into(), resource_version: "7".into(), node: "b".into() };
    assert_eq!(s.decide(16.6), [reset]);

    s.backups(vec![backup("b1", BackupState::Running, None)]);
    assert_eq!(s.decide(20.0), []);
    s.backups(vec![backup("b1", BackupState::Completed, Some(30.0))]);
    assert_eq!(s.decide(31.0), []);
    assert_eq!(s.journal.phase, Some(Phase::Complete));
    assert_eq!(s.journal.backups_safe, "1/1 safe");
    assert_eq!(s.decide(31.0 + 3601.0), [Action::Forget]);
}

#[test]
fn a_backup_that_was_complete_after_all_is_never_reset() {
    let mut s = Story::begin(&["b1"]);
    s.decide(0.0);
    s.arrived().backups(vec![backup("b1", BackupState::Lost, Some(3.0))]);
    assert_eq!(s.decide(14.0), [Action::Probe { backup: "b1".into() }]);
    s.backups(vec![backup("b1", BackupState::Completed, Some(14.0))]);
    assert_eq!(s.decide(17.0), []);
    assert_eq!(s.resume("b1").state, ResumeState::Completed);
    assert_eq!(s.resume("b1").attempts, 0);
}

#[test]
fn several_backups_are_resumed_oldest_first_one_at_a_time() {
    let mut s = Story::begin(&["b1", "b2"]);
    s.decide(0.0);
    let lost = |name| backup(name, BackupState::Lost, Some(3.0));
    s.arrived().backups(vec![lost("b2"), lost("b1")]);
    assert_eq!(s.decide(14.0), [Action::Probe { backup: "b1".into() }]);
    assert!(matches!(&s.decide(17.0)[..], [Action::Reset { backup, .. }] if backup == "b1"));
    s.backups(vec![lost("b2"), backup("b1", BackupState::Running, None)]);
    assert_eq!(s.decide(18.0), [], "b2 waits for b1");
    s.backups(vec![lost("b2"), backup("b1", BackupState::Completed, Some(30.0))]);
    assert_eq!(s.decide(31.0), [Action::Probe { backup: "b2".into() }]);
}

#[test]
fn an_older_backup_is_superseded_by_newer_data_that_is_safe() {
    let mut s = Story::begin(&["b1", "b2"]);
    s.decide(0.0);
    let newer = backup("b2", BackupState::Completed, Some(2.0));
    s.arrived().backups(vec![backup("b1", BackupState::Lost, Some(3.0)), newer]);
    assert_eq!(s.decide(14.0), []);
    assert_eq!(s.resume("b1").state, ResumeState::Superseded);
    assert_eq!(s.journal.phase, Some(Phase::Complete));
}

#[test]
fn what_cannot_be_resumed_says_why() {
    for (change, why) in [
        ((|o: &mut Observation| o.backups.clear()) as fn(&mut Observation), "deleted"),
        (|o| o.backups[0].uid = "other".into(), "another one"),
        (|o| o.backups[0].state = BackupState::Deleting, "being deleted"),
        (|o| o.snapshots.clear(), "is gone"),
        (|o| o.snapshots.get_mut("snap-b1").unwrap().unusable = Some("it is being deleted".into()), "cannot be used"),
    ] {
        let mut s = Story::begin(&["b1"]);
        s.decide(0.0);
        s.arrived().backups(vec![backup("b1", BackupState::Lost, Some(3.0))]);
        change(&mut s.obs);
        assert_eq!(s.decide(14.0), []);
        assert_eq!(s.resume("b1").state, ResumeState::Unrecoverable);
        assert!(s.resume("b1").reason.contains(why), "{}", s.resume("b1").reason);
        assert_eq!(s.journal.phase, Some(Phase::Failed));
    }
}

#[test]
fn a_run_that_fails_is_tried_again_later_and_not_for_ever() {
    let mut s = Story::begin(&["b1"]);
    s.policy.resume_attempts = 2;
    s.decide(0.0);
    s.arrived().backups(vec![backup("b1", BackupState::Lost, Some(3.0))]);
    s.decide(14.0);
    assert!(matches!(s.decide(17.0)[..], [Action::Reset { .. }]));
    assert_eq!(s.decide(18.0), [], "stale: still shows the end of the first run");
    s.backups(vec![backup("b1", BackupState::Lost, Some(25.0))]);
    assert_eq!(s.decide(26.0), []);
    assert_eq!(s.resume("b1").state, ResumeState::Waiting);
    assert_eq!(s.decide(40.0), [], "back-off");
    assert_eq!(s.decide(42.0), [Action::Probe { backup: "b1".into() }]);
    assert!(matches!(s.decide(45.0)[..], [Action::Reset { .. }]));
    s.backups(vec![backup("b1", BackupState::Lost, Some(50.0))]);
    assert_eq!(s.decide(51.0), []);
    assert_eq!(s.resume("b1").state, ResumeState::Unrecoverable);
}

#[test]
fn a_reset_that_never_happened_is_done_over_with_a_fresh_probe() {
    let mut s = Story::begin(&["b1"]);
    s.decide(0.0);
    s.arrived().backups(vec![backup("b1", BackupState::Lost, Some(3.0))]);
    s.decide(14.0);
    assert!(matches!(s.decide(17.0)[..], [Action::Reset { .. }]));
    // the holder died before the reset: nothing changed
    s.decide(30.0);
    assert_eq!(s.resume("b1").state, ResumeState::Waiting);
    assert_eq!(s.decide(30.1), [Action::Probe { backup: "b1".into() }]);
    assert!(matches!(s.decide(33.0)[..], [Action::Reset { .. }]));
    assert_eq!(s.resume("b1").attempts, 1);
}

#[test]
fn no_pre_stage_where_it_must_not_be() {
    let stays_elsewhere = |s: &mut Story| s.obs.pods.push(Arc::new(pod("third", Some("a"))));
    let same_node = |s: &mut Story| s.obs.pods = vec![Arc::new(pod("new", Some("a")))];
    let asked_already = |s: &mut Story| s.obs.volume.as_mut().unwrap().requests = vec![request("b", false, false)];
    let refused = |s: &mut Story| drop(s.obs.refusals.insert("b".into(), "it is migratable".into()));
    let unbound = |s: &mut Story| s.obs.pods = vec![Arc::new(pod("new", None))];
    for change in [stays_elsewhere as fn(&mut Story), same_node, asked_already, refused, unbound] {
        let mut s = Story::begin(&["b1"]);
        s.decide(0.0);
        change(s.moved());
        assert_eq!(s.decide(2.0), []);
        assert_eq!(s.journal.prestage, None);
    }
}

#[test]
fn a_pre_stage_that_nobody_wants_is_withdrawn() {
    let mut s = Story::begin(&["b1"]);
    s.decide(0.0);
    s.moved().decide(2.0);
    s.obs.volume = Some(volume(VolumeState::Attaching, None, vec![request("b", true, false)]));
    s.obs.pods = vec![Arc::new(pod("newer", Some("c")))];
    assert_eq!(s.decide(3.0), [Action::WithdrawPreStage { node: "b".into() }], "first it must be gone: never two");
    assert_eq!(s.decide(3.1), [Action::WithdrawPreStage { node: "b".into() }], "still there");
    s.obs.volume.as_mut().unwrap().requests.clear();
    assert_eq!(s.decide(3.2), [place("c")]);

    let mut s = Story::begin(&["b1"]);
    s.decide(0.0);
    s.moved().decide(2.0);
    s.obs.volume = Some(volume(VolumeState::Attaching, None, vec![request("b", true, false)]));
    assert_eq!(s.decide(121.0), []);
    assert_eq!(s.decide(122.0), [Action::WithdrawPreStage { node: "b".into() }], "expired");
    s.obs.volume.as_mut().unwrap().requests.clear();
    assert_eq!(s.decide(123.0), [], "and not placed again for the same pod");
}

#[test]
fn in_a_drain_the_target_is_expected_before_the_pod_is_there() {
    let mut s = Story::begin(&["b1"]);
    s.decide(0.0);
    let mut leaving = pod("old", Some("a"));
    leaving.terminating = true;
    s.obs.pods = vec![Arc::new(leaving)];
    s.obs.candidates = vec!["b".into(), "c".into()];
    assert_eq!(s.decide(1.0), [], "not a drain: it may come back here");
    s.obs.cordoned = vec!["a".into()];
    assert_eq!(s.decide(1.0), [], "still asked for on a");
    s.obs.volume.as_mut().unwrap().requests.clear();
    assert_eq!(s.decide(2.0), [place("b")]);
    s.obs.volume = Some(volume(VolumeState::Detaching, None, vec![request("b", true, false)]));
    s.obs.pods = vec![];
    assert_eq!(s.decide(3.0), []);
    assert_eq!(s.journal.phase, Some(Phase::Moving), "between pods it is still moving");

    let mut as_expected = s.again();
    as_expected.obs.pods = vec![Arc::new(pod("new", Some("b")))];
    assert_eq!(as_expected.decide(4.0), []);
    assert_eq!(as_expected.journal.prestage.as_ref().unwrap().pod_uid, "new");

    s.obs.pods = vec![Arc::new(pod("new", Some("c")))];
    assert_eq!(
        s.decide(4.0),
        [Action::WithdrawPreStage { node: "b".into() }],
        "bound elsewhere: the pre-stage follows"
    );
    s.obs.volume.as_mut().unwrap().requests.clear();
    assert_eq!(s.decide(4.1), [place("c")]);
}

#[test]
fn a_pre_stage_whose_placing_was_lost_is_placed_again() {
    let mut s = Story::begin(&["b1"]);
    s.decide(0.0);
    s.moved().decide(2.0);
    assert_eq!(s.decide(3.0), [place("b")]);
}

#[test]
fn each_further_move_keeps_what_is_owed_and_uses_no_attempt_up() {
    let mut s = Story::begin(&["b1"]);
    s.policy.resume_attempts = 2;
    s.decide(0.0);
    s.arrived().backups(vec![backup("b1", BackupState::Lost, Some(3.0))]);
    s.decide(14.0);
    s.decide(17.0);
    for (n, from, to) in [(1, "b", "a"), (2, "a", "b"), (3, "b", "a"), (4, "a", "b")] {
        let start = 100.0 * f64::from(n);
        s.spec.pod.uid = format!("pod-{n}");
        s.spec.from = from.into();
        s.spec.triggered_at = at(start);
        let mut next = pod(&format!("pod-{}", n + 1), Some(to));
        next.ready = true;
        s.obs.pods = vec![Arc::new(next)];
        s.obs.volume = Some(volume(VolumeState::Attached, Some(to), vec![request(to, false, true)]));
        s.backups(vec![backup("b1", BackupState::Lost, Some(start + 1.0))]);
        s.decide(start + 10.0);
        assert_eq!(s.journal.history[0].from, to);
        s.decide(start + 40.0);
        assert!(matches!(s.decide(start + 43.0)[..], [Action::Reset { .. }]), "move {n}");
    }
    assert_eq!(s.resume("b1").attempts, 1);
    s.backups(vec![backup("b1", BackupState::Lost, Some(450.0))]);
    s.decide(451.0);
    assert!(s.resume("b1").next_try_at.is_some(), "without a move a failed run counts, and is tried again later");
}

#[test]
fn a_resume_waits_for_the_storage_that_leaves_with_the_drain_but_not_for_ever() {
    let mut s = Story::begin(&["b1"]);
    s.decide(0.0);
    s.arrived().backups(vec![backup("b1", BackupState::Lost, Some(3.0))]);
    s.obs.cordoned = vec!["a".into()];
    assert_eq!(s.decide(14.0), []);
    assert_eq!(s.decide(73.0), []);
    assert_eq!(s.decide(74.0), [Action::Probe { backup: "b1".into() }]);
}

#[test]
fn a_resume_does_not_start_while_the_volume_is_about_to_leave_again() {
    let mut s = Story::begin(&["b1"]);
    s.decide(0.0);
    s.arrived().backups(vec![backup("b1", BackupState::Lost, Some(3.0))]);
    let mut leaving = pod("new", Some("b"));
    leaving.terminating = true;
    s.obs.pods = vec![Arc::new(leaving)];
    assert_eq!(s.decide(100.0), []);
}

#[test]
fn an_attacher_in_back_off_is_woken_once() {
    let mut s = Story::begin(&["b1"]);
    s.decide(0.0);
    s.moved().decide(2.0);
    s.obs.volume = Some(volume(VolumeState::Attached, Some("b"), vec![request("b", true, true)]));
    s.obs.attachments = vec![Arc::new(Attachment {
        name: "csi-x".into(),
        node: "b".into(),
        volume: "pv".into(),
        attached: false,
        deleting: false,
        attach_error: Some("aborted".into()),
        created: None,
    })];
    assert_eq!(s.decide(9.0), [Action::WakeAttacher { attachment: "csi-x".into() }]);
    assert_eq!(s.decide(9.5), []);
}

#[test]
fn a_backup_that_survives_the_move_is_left_alone() {
    let mut s = Story::begin(&["b1"]);
    s.decide(0.0);
    s.arrived().backups(vec![backup("b1", BackupState::Queued, None)]);
    assert_eq!(s.decide(14.0), []);
    s.backups(vec![backup("b1", BackupState::Completed, Some(40.0))]);
    assert_eq!(s.decide(41.0), []);
    assert_eq!(s.journal.phase, Some(Phase::Complete));
}

#[test]
fn silence_is_no_answer_before_the_question_has_arrived() {
    let mut s = Story::begin(&["b1"]);
    s.decide(0.0);
    s.arrived().backups(vec![backup("b1", BackupState::Lost, Some(3.0))]);
    s.probes_arrive = false;
    let probe = [Action::Probe { backup: "b1".into() }];
    assert_eq!(s.decide(14.0), probe);
    // the holder died between the journal and the probe
    assert_eq!(s.decide(16.0), []);
    s.probes_arrive = true;
    assert_eq!(s.decide(17.0), probe, "asked again, not reset");
    assert_eq!(s.decide(19.0), [], "and given its time again");
    assert!(matches!(s.decide(19.6)[..], [Action::Reset { .. }]));
}

#[test]
fn the_end_of_our_run_is_told_from_the_one_before_whatever_the_clocks_say() {
    let mut s = Story::begin(&["b1"]);
    s.policy.resume_attempts = 1;
    s.decide(0.0);
    // the storage manager's clock is half a minute behind
    s.arrived().backups(vec![backup("b1", BackupState::Lost, Some(-27.0))]);
    s.decide(14.0);
    assert!(matches!(s.decide(17.0)[..], [Action::Reset { .. }]));
    s.backups(vec![backup("b1", BackupState::Lost, Some(-5.0))]);
    assert_eq!(s.decide(40.0), []);
    assert_eq!(s.resume("b1").state, ResumeState::Unrecoverable, "it ran and failed: it counts");
}

#[test]
fn a_request_of_ours_that_the_journal_does_not_know_is_withdrawn_before_another_is_placed() {
    let mut s = Story::begin(&["b1"]);
    s.decide(0.0);
    s.moved();
    s.obs.volume.as_mut().unwrap().requests = vec![request("c", true, false)];
    assert_eq!(s.decide(2.0), [Action::WithdrawPreStage { node: "c".into() }]);
    assert_eq!(s.journal.prestage, None);
    s.obs.volume.as_mut().unwrap().requests.clear();
    assert_eq!(s.decide(2.1), [place("b")]);
    s.obs.volume.as_mut().unwrap().requests = vec![request("b", true, false)];
    assert_eq!(s.decide(2.2), [], "known and open");
}

#[test]
fn a_backup_that_our_cache_does_not_show_yet_is_not_deleted() {
    for change in
        [(|o: &mut Observation| o.backups.clear()) as fn(&mut Observation), |o| o.backups[0].uid = "older".into()]
    {
        let mut s = Story::begin(&["b1"]);
        change(&mut s.obs);
        assert_eq!(s.decide(0.5), []);
        assert_eq!(s.resume("b1").state, ResumeState::Waiting);
        s.arrived();
        assert_eq!(s.decide(9.0), [], "nothing is done to one of the same name either");
        s.backups(vec![backup("b1", BackupState::Completed, Some(8.0))]);
        s.decide(11.0);
        assert_eq!(s.resume("b1").state, ResumeState::Completed);
    }
}

#[test]
fn the_next_try_of_a_job_is_waited_for_but_is_not_safe_before_it_is_complete() {
    let of_job = |name, state, ended| BackupView { recurring_job: Some("daily".into()), ..backup(name, state, ended) };
    let begin = || {
        let mut s = Story::begin(&["b1"]);
        s.spec.checkpoints[0].recurring_job = Some("daily".into());
        s.obs.snapshots.insert("snap-b2".into(), SnapshotView { created: Some(at(5.0)), unusable: None });
        s.decide(0.0);
        let lost = of_job("b1", BackupState::Lost, Some(3.0));
        s.arrived().backups(vec![lost, of_job("b2", BackupState::Running, None)]);
        assert_eq!(s.decide(14.0), []);
        assert_eq!(s.resume("b1").state, ResumeState::Waiting);
        s
    };
    let mut s = begin();
    s.obs.backups[1].state = BackupState::Completed;
    assert_eq!(s.decide(30.0), []);
    assert_eq!(s.resume("b1").state, ResumeState::Superseded);
    let mut s = begin();
    s.obs.backups[1].state = BackupState::Lost;
    assert_eq!(s.decide(30.0), [Action::Probe { backup: "b1".into() }], "the try failed: ours again");
}

#[test]
fn a_pod_that_is_held_or_refused_by_a_budget_and_never_leaves() {
    // held by us, or let through and then refused by a disruption budget again and again
    for hold in [Some(Hold { since: at(0.0), deadline: at(60.0) }), None] {
        let mut s = Story::begin(&["b1"]);
        s.spec.hold = hold;
        s.obs.cordoned = vec!["a".into()];
        s.obs.candidates = vec!["b".into()];
        for seconds in [0.0, 5.0, 59.0, 61.0, 300.0] {
            assert_eq!(s.decide(seconds), [], "{seconds} s");
            assert_eq!(s.journal.phase, Some(Phase::Checkpointed), "{seconds} s");
        }
        s.backups(vec![backup("b1", BackupState::Completed, Some(310.0))]);
        assert_eq!(s.decide(311.0), []);
        assert_eq!((s.journal.phase, s.journal.prestage.clone()), (Some(Phase::Complete), None));
        assert_eq!(s.decide(311.0 + 3600.0), [Action::Forget]);
    }
}
