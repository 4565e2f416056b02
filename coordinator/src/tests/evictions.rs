use super::world::{HANDOFF, MINUTE, POD, World, asked, at, deleted, settings};
use crate::verdicts::{DeletedPod, EvictionVerdict, PodRef};
use handoff_cluster::settings::{EVICT_IN_BACKGROUND, EVICTION_POLICY, EvictionPolicy, MAX_HOLD};
use handoff_storage::BackupState;
use jiff::Timestamp;
use serde_json::{Value, json};

fn near() -> World {
    let mut world = World::default();
    world.policy.eviction_policy = EvictionPolicy::FinishIfNear;
    world
}

fn message(verdict: &EvictionVerdict) -> &str {
    match verdict {
        EvictionVerdict::Hold { message } => message,
        other => panic!("not held: {other:?}"),
    }
}

fn note(verdict: EvictionVerdict) -> Option<String> {
    match verdict {
        EvictionVerdict::Allow { note } => note,
        other => panic!("not allowed: {other:?}"),
    }
}

async fn evict(world: &World, now: Timestamp) -> EvictionVerdict {
    world.replica().judge_eviction(&asked(), false, now).await
}

#[tokio::test]
async fn what_is_in_flight_is_written_down_once_and_the_pod_may_go() {
    let world = World::default();
    let replica = world.replica();
    for second in 0..3 {
        // a disruption budget refuses it, and it comes again
        let verdict = replica.judge_eviction(&asked(), false, at(second)).await;
        assert_eq!(note(verdict).as_deref(), Some("handoff: backup b-1 (90 %) goes on after the move"));
    }
    assert_eq!(world.api.writes(), ["POST /apis/volumehandoff.io/v1alpha1/namespaces/shop/volumehandoffs"]);
    let spec = &world.api.get(HANDOFF).unwrap()["spec"];
    assert_eq!((&spec["from"], &spec["trigger"], &spec["hold"]), (&json!("a"), &json!("Eviction"), &Value::Null));
}

#[tokio::test]
async fn a_dry_run_is_answered_alike_and_writes_nothing() {
    for world in [World::default(), near()] {
        let dry = world.replica().judge_eviction(&asked(), true, at(0)).await;
        assert!(world.api.asked().is_empty(), "{:?}", world.api.asked());
        assert_eq!(dry, evict(&world, at(0)).await);
    }
}

#[tokio::test]
async fn without_a_backup_in_flight_nothing_is_asked_of_anybody() {
    let world = near();
    world.set_backup(100, BackupState::Completed);
    assert_eq!(note(evict(&world, at(0)).await), None);
    assert!(world.api.asked().is_empty());
}

#[tokio::test]
async fn a_hold_ends_at_the_deadline_of_the_first_denial_whoever_answers() {
    let world = near();
    let until = at(0) + MINUTE;
    // each answer is another replica's, or the same one's after a restart
    for second in [0, 5, 30, 59] {
        let verdict = evict(&world, at(second)).await;
        assert!(message(&verdict).ends_with(&format!("until {until:.0} at most")), "{second}: {verdict:?}");
    }
    assert_eq!(world.api.writes().len(), 1, "the first denial is written, the others come from memory");
    let hold = &world.api.get(HANDOFF).unwrap()["spec"]["hold"];
    assert_eq!(hold["since"].as_str().unwrap().parse::<Timestamp>().unwrap(), at(0));
    assert!(note(evict(&world, at(60)).await).unwrap().contains("goes on after the move"));
    assert!(note(evict(&world, at(300)).await).is_some(), "and no second hold");
}

#[tokio::test]
async fn a_hold_ends_when_the_backup_is_complete() {
    let world = near();
    message(&evict(&world, at(0)).await);
    world.set_backup(100, BackupState::Completed);
    assert_eq!(note(evict(&world, at(10)).await), None);
}

#[tokio::test]
async fn what_is_not_near_is_not_held() {
    let world = near();
    world.set_backup(20, BackupState::Running);
    assert!(note(evict(&world, at(0)).await).is_some());
}

#[tokio::test]
async fn policy_and_longest_hold_can_be_asked_for_by_annotation() {
    let mut world =
        World { claim: settings(&[(EVICTION_POLICY, "FinishIfNear"), (MAX_HOLD, "30s")]), ..World::default() };
    let until = at(0) + MINUTE / 2;
    assert!(message(&evict(&world, at(0)).await).contains(&format!("until {until:.0} at most")));
    world.pod.settings = settings(&[(EVICTION_POLICY, "Checkpoint")]);
    assert!(note(evict(&world, at(1)).await).is_some(), "the pod counts before its claim");
}

#[tokio::test]
async fn an_evictor_in_the_background_is_told_in_its_words() {
    let mut world = near();
    assert!(!message(&evict(&world, at(0)).await).contains("Eviction triggered evacuation"));
    world.pod.settings = settings(&[(EVICT_IN_BACKGROUND, "true")]);
    assert!(message(&evict(&world, at(1)).await).starts_with("Eviction triggered evacuation: backup b-1 is at 90 %"));
}

#[tokio::test]
async fn a_hold_that_cannot_be_written_down_is_not_begun() {
    let world = near();
    world.api.refuse(true);
    assert!(note(evict(&world, at(0)).await).unwrap().contains("could not checkpoint"));
    world.api.refuse(false);
    message(&evict(&world, at(5)).await);
}

#[tokio::test]
async fn a_pod_that_is_on_no_node_is_not_held() {
    let mut world = near();
    world.pod.node = None;
    assert!(matches!(evict(&world, at(0)).await, EvictionVerdict::Allow { .. }));
}

fn live_pod(uid: &str) -> Value {
    json!({"metadata": {"namespace": "shop", "name": "db-0", "uid": uid},
        "spec": {"nodeName": "a", "volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": "data"}}]}})
}

#[tokio::test]
async fn a_pod_that_the_cache_does_not_know_is_looked_up_once() {
    let world = World { known: false, ..World::default() };
    world.api.put(POD, live_pod("old"));
    assert!(note(evict(&world, at(0)).await).is_some());
    assert_eq!(world.api.asked()[0], format!("GET {POD}"));
    assert!(world.api.get(HANDOFF).is_some());
}

#[tokio::test]
async fn a_pod_that_does_not_exist_is_left_to_the_api_server() {
    let world = World { known: false, ..World::default() };
    assert_eq!(note(evict(&world, at(0)).await), None);
    assert_eq!(world.api.asked(), [format!("GET {POD}")]);
}

#[tokio::test]
async fn a_precondition_for_another_pod_is_left_to_the_api_server() {
    let world = World::default();
    world.api.put(POD, live_pod("old"));
    let another = PodRef { uid: Some("another".into()), ..asked() };
    assert_eq!(note(world.replica().judge_eviction(&another, false, at(0)).await), None);
    assert!(world.api.writes().is_empty());
    let this = PodRef { uid: Some("old".into()), ..asked() };
    assert!(note(world.replica().judge_eviction(&this, false, at(0)).await).is_some());
}

#[tokio::test]
async fn a_deleted_pod_that_the_cache_does_not_know_is_recorded_as_its_review_shows_it() {
    let world = World { known: false, ..World::default() };
    let replica = world.replica();
    for dry_run in [true, false, false] {
        replica.note_deletion(deleted(), dry_run, at(0)).await;
    }
    assert_eq!(world.api.asked(), ["POST /apis/volumehandoff.io/v1alpha1/namespaces/shop/volumehandoffs"]);
    let spec = &world.api.get(HANDOFF).unwrap()["spec"];
    assert_eq!(
        (&spec["from"], &spec["trigger"], &spec["pod"]["uid"]),
        (&json!("a"), &json!("Deletion"), &json!("old"))
    );
    let nameless = World { known: false, ..World::default() };
    nameless.replica().note_deletion(DeletedPod { pod: asked(), ..deleted() }, false, at(0)).await;
    assert!(nameless.api.asked().is_empty(), "without a UID it may be any pod of that name");
}

#[tokio::test]
async fn a_review_that_comes_after_the_watch_still_counts() {
    let world = World::default();
    let other = world.replica();
    // the leader saw the pod leave before the replica that was asked has written it down
    let mut leading = World { leads: true, ..world.clone() };
    leading.pod.terminating = true;
    leading.replica().reconcile("pv").await;
    assert_eq!(world.api.get(HANDOFF).unwrap()["spec"]["trigger"], "Observed");
    let before = world.api.get(HANDOFF).unwrap();
    other.note_deletion(deleted(), false, at(0)).await;
    let after = world.api.get(HANDOFF).unwrap();
    assert_eq!(after["spec"]["trigger"], "Deletion");
    for same in ["triggeredAt", "checkpoints", "pod", "from"] {
        assert_eq!(after["spec"][same], before["spec"][same], "{same}");
    }
}

#[tokio::test(start_paused = true)]
async fn looks_at_the_api_server_are_bounded_in_time_and_number() {
    let world = World { known: false, ..World::default() };
    world.api.hang();
    let replica = world.replica();
    let pod = asked();
    let evictions = (0..20).map(|_| replica.judge_eviction(&pod, false, at(0)));
    let verdicts = futures::future::join_all(evictions).await;
    assert!(verdicts.iter().all(|v| *v == EvictionVerdict::Allow { note: None }));
    assert_eq!(world.api.asked().len(), crate::eviction::LIVE_LOOKS);
}

/// The pod has been evicted from a and its replacement runs on b since some seconds.
async fn moved() -> World {
    let mut world = World { cordoned: vec!["a"], ..World::default() };
    evict(&world, at(0)).await;
    world.pod.uid = "new".into();
    world.pod.node = Some("b".into());
    world.pod.created = Some(at(10));
    world.api.put("/api/v1/nodes/b", json!({"metadata": {"name": "b"}}));
    world
}

#[tokio::test]
async fn a_drain_that_comes_back_for_a_pod_that_has_moved_is_told_that_it_is_gone() {
    let world = moved().await;
    let verdict = evict(&world, at(15)).await;
    let EvictionVerdict::Gone { message } = &verdict else { panic!("{verdict:?}") };
    assert!(message.contains("(old) has left a") && message.contains("replacement on b"), "{message}");
    let by_uid = PodRef { uid: Some("new".into()), ..asked() };
    let verdict = world.replica().judge_eviction(&by_uid, false, at(15)).await;
    assert!(matches!(verdict, EvictionVerdict::Allow { .. }), "who names the UID means this pod");
}

#[tokio::test]
async fn a_drain_of_the_new_node_is_never_told_that_the_pod_is_gone() {
    let mut world = moved().await;
    // the cordon is at the API server, the cache has not seen it yet
    world.api.put("/api/v1/nodes/b", json!({"metadata": {"name": "b"}, "spec": {"unschedulable": true}}));
    assert!(matches!(evict(&world, at(15)).await, EvictionVerdict::Allow { .. }));
    world.cordoned.push("b");
    assert!(matches!(evict(&world, at(15)).await, EvictionVerdict::Allow { .. }));
}

#[tokio::test]
async fn a_node_that_cannot_be_looked_at_makes_nothing_gone() {
    let mut world = moved().await;
    world.pod.node = Some("c".into());
    assert!(matches!(evict(&world, at(15)).await, EvictionVerdict::Allow { .. }));
}
