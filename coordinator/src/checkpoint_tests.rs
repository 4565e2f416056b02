use super::*;
use crate::api::{Order, OrderKind, VolumeHandoffStatus};
use handoff_cluster::{ObjectKey, settings::Settings};
use handoff_storage::BackupState;
use jiff::SignedDuration;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn pod(uid: &str) -> Pod {
    Pod {
        key: ObjectKey::new("shop", "db-0"),
        uid: uid.into(),
        node: Some("a".into()),
        terminating: false,
        finished: false,
        ready: true,
        created: None,
        claims: vec!["data".into()],
        owner_kind: None,
        labels: std::collections::BTreeMap::default(),
        settings: Settings::default(),
    }
}

fn volume() -> Volume {
    Volume {
        name: "pv".into(),
        driver: "d".into(),
        handle: "v".into(),
        claim: Some(ObjectKey::new("shop", "data")),
        shared: false,
    }
}

fn backup(name: &str) -> BackupView {
    BackupView {
        name: name.into(),
        uid: format!("uid-{name}"),
        resource_version: "1".into(),
        state: BackupState::Running,
        progress: 20,
        snapshot: "s".into(),
        target: "default".into(),
        target_unavailable: None,
        mode: "incremental".into(),
        recurring_job: None,
        replica_address: None,
        error: None,
        ended_at: None,
        asked_at: None,
        created: None,
        uploaded_bytes: None,
    }
}

fn hold(since: i64) -> Hold {
    Hold { since: at(since), deadline: at(since) + SignedDuration::from_mins(1) }
}

/// What an eviction or deletion of `pod` at `now` makes of `existing`.
fn merged(existing: Option<&VolumeHandoff>, pod: &Pod, hold: Option<Hold>, now: i64) -> Option<VolumeHandoffSpec> {
    merged_by(Trigger::Eviction, existing, pod, hold, now)
}

fn merged_by(
    trigger: Trigger,
    existing: Option<&VolumeHandoff>,
    pod: &Pod,
    hold: Option<Hold>,
    now: i64,
) -> Option<VolumeHandoffSpec> {
    let (volume, backup) = (volume(), backup("b"));
    let start = Start { volume: &volume, claim_uid: None, pod, trigger, hold, now: at(now) };
    merge(existing, &start, &[&backup], &Observation::default())
}

fn handoff(spec: VolumeHandoffSpec, finished: bool) -> VolumeHandoff {
    let mut handoff = VolumeHandoff::new("pv", spec);
    handoff.metadata.resource_version = Some("7".into());
    let (move_started_at, finished_at) = (Some(handoff.spec.triggered_at), finished.then(|| at(100)));
    handoff.status = Some(VolumeHandoffStatus { move_started_at, finished_at, ..VolumeHandoffStatus::default() });
    handoff
}

#[test]
fn a_hold_counts_from_the_first_denial() {
    let first = merged(None, &pod("old"), Some(hold(0)), 0).unwrap();
    assert_eq!(first.hold, Some(hold(0)));
    let recorded = handoff(first, false);
    assert_eq!(merged(Some(&recorded), &pod("old"), Some(hold(5)), 5), None, "nothing new");
    assert_eq!(merged(Some(&recorded), &pod("old"), None, 70), None, "over, and still written down");
}

#[test]
fn a_hold_that_begins_later_is_added_to_the_record() {
    let recorded = handoff(merged(None, &pod("old"), None, 0).unwrap(), false);
    assert_eq!(recorded.spec.hold, None);
    let held = merged(Some(&recorded), &pod("old"), Some(hold(9)), 9).unwrap();
    assert_eq!((held.hold, held.triggered_at), (Some(hold(9)), at(0)), "the same move");
}

#[test]
fn the_next_page_says_nothing_of_the_hold_before() {
    let recorded = handoff(merged(None, &pod("old"), Some(hold(0)), 0).unwrap(), true);
    let next = merged(Some(&recorded), &pod("new"), None, 500).unwrap();
    assert_eq!((next.hold, next.triggered_at), (None, at(500)));
    let patch = replacing(&recorded, &next);
    assert_eq!(patch["metadata"]["resourceVersion"], "7");
    for gone in ["/spec/hold", "/spec/pod/mode"] {
        assert_eq!(patch.pointer(gone), Some(&Value::Null), "{gone}: a merge patch keeps what it does not name");
    }
}

#[test]
fn repeated_reviews_of_one_move_write_once() {
    // an eviction that a disruption budget refuses comes again and again, and each deletion is reviewed twice
    let recorded = handoff(merged(None, &pod("old"), None, 0).unwrap(), false);
    for now in 1..20 {
        assert_eq!(merged(Some(&recorded), &pod("old"), None, now), None);
    }
}

#[test]
fn what_was_only_observed_gets_the_trigger_of_its_review() {
    use Trigger::{Deletion, Eviction, Lost, Observed};
    for (first, second, wanted) in [
        (Observed, Deletion, Some(Deletion)),
        (Observed, Eviction, Some(Eviction)),
        (Observed, Observed, None),
        (Observed, Lost, None),
        (Eviction, Deletion, None),
        (Deletion, Eviction, None),
        (Deletion, Observed, None),
        (Lost, Deletion, None),
    ] {
        let spec = merged_by(first, None, &pod("old"), None, 0).unwrap();
        let recorded = handoff(spec.clone(), false);
        let again = merged_by(second, Some(&recorded), &pod("old"), None, 1);
        let wanted = wanted.map(|trigger| VolumeHandoffSpec { trigger, ..spec });
        assert_eq!(again, wanted, "{first:?}, then {second:?}: nothing else changes");
    }
}

#[test]
fn the_pods_mode_is_written_down_with_it() {
    let settings = Settings::read(|key| (key == handoff_cluster::settings::MODE).then_some("enabled"));
    let spec = merged(None, &Pod { settings, ..pod("old") }, None, 0).unwrap();
    assert_eq!(spec.pod.mode.as_deref(), Some("enabled"));
}

#[test]
fn a_pod_that_is_sent_on_before_its_volume_came_leaves_the_node_of_the_move_before() {
    use crate::decide::tests::{request, volume as view};
    use handoff_storage::VolumeState;
    let recorded = handoff(merged(None, &pod("old"), None, 0).unwrap(), false);
    let next = Pod { node: Some("b".into()), ..pod("next") };
    let (volume, backup) = (volume(), backup("b"));
    let start =
        Start { volume: &volume, claim_uid: None, pod: &next, trigger: Trigger::Deletion, hold: None, now: at(9) };
    for (here, wanted) in [("a", "a"), ("b", "b"), ("c", "b")] {
        let view = view(VolumeState::Attached, Some(here), vec![request(here, false, true)]);
        let obs = Observation { volume: Some(view), ..Observation::default() };
        let spec = merge(Some(&recorded), &start, &[&backup], &obs).unwrap();
        assert_eq!(spec.from, wanted, "the volume is on {here}");
        assert_eq!(merge(None, &start, &[&backup], &obs).unwrap().from, "b");
    }
}

#[test]
fn what_was_abandoned_stays_written_down_and_starts_nothing() {
    let mut spec = merged(None, &pod("old"), None, 0).unwrap();
    spec.checkpoints[0].order = Some(Order { what: OrderKind::Abandon, at: at(50) });
    let mut recorded = handoff(spec, true);
    let over = |state| serde_json::from_value(json!([{"backup": "b", "state": state, "attempts": 0}])).unwrap();
    recorded.status.as_mut().unwrap().resumes = over("Abandoned");
    assert_eq!(merged(Some(&recorded), &pod("new"), None, 500), None, "still uploading, and nobody is to care");
    let (volume, other) = (volume(), backup("other"));
    let start = Start {
        volume: &volume,
        claim_uid: None,
        pod: &pod("new"),
        trigger: Trigger::Eviction,
        hold: None,
        now: at(500),
    };
    let next = |recorded: &VolumeHandoff| {
        let next = merge(Some(recorded), &start, &[&other], &Observation::default()).unwrap();
        next.checkpoints.into_iter().map(|c| c.backup).collect::<Vec<_>>()
    };
    assert_eq!(next(&recorded), ["b", "other"], "or it would be found lost and be owed anew");
    recorded.spec.checkpoints[0].order = None;
    recorded.status.as_mut().unwrap().resumes = over("Completed");
    assert_eq!(next(&recorded), ["other"]);
}
