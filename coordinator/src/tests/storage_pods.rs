use super::world::{HOLDS, World, at, manager, settings};
use crate::verdicts::EvictionVerdict;
use handoff_cluster::settings::MODE;
use handoff_storage::StorageRole;
use jiff::Timestamp;

async fn evict(world: &World, now: Timestamp) -> EvictionVerdict {
    world.replica().hold_storage(&manager(), false, now).await
}

fn until(verdict: &EvictionVerdict) -> String {
    match verdict {
        EvictionVerdict::Hold { message } => message.rsplit_once("at most until ").unwrap().1.to_owned(),
        other => panic!("not held: {other:?}"),
    }
}

/// The volume is between nodes: its pod is leaving a.
fn leaving() -> World {
    let mut world = World { cordoned: vec!["a"], ..World::default() };
    world.pod.terminating = true;
    world
}

#[tokio::test]
async fn replicas_that_answer_in_turn_share_one_deadline() {
    let world = leaving();
    let wanted = format!("{:.0}", at(0) + world.policy.storage_hold);
    let (first, second) = (world.replica(), world.replica());
    for (replica, now) in [(&first, 0), (&second, 5), (&first, 10), (&second, 90), (&world.replica(), 99)] {
        let verdict = replica.hold_storage(&manager(), false, at(now)).await;
        assert_eq!(until(&verdict), wanted, "after {now} s");
    }
    for replica in [first, second, world.replica()] {
        let verdict = replica.hold_storage(&manager(), false, at(100)).await;
        assert_eq!(verdict, EvictionVerdict::Allow { note: None }, "over for all of them");
    }
    assert_eq!(world.api.writes().len(), 1, "written once");
}

/// A drain of many volumes: the time of the hold was used up while Longhorn kept the instance manager anyway, and the
/// last volumes to leave were stranded.
#[tokio::test]
async fn the_time_of_an_instance_manager_begins_when_no_data_path_is_left_on_its_node() {
    let world = leaving();
    let replica = world.replica();
    *world.storage.guards.lock().unwrap() = true;
    for now in [0, 50, 150] {
        let verdict = replica.hold_storage(&manager(), false, at(now)).await;
        assert_eq!(verdict, EvictionVerdict::Allow { note: None }, "Longhorn's budget refuses it after {now} s");
    }
    assert!(world.api.writes().is_empty());
    *world.storage.guards.lock().unwrap() = false;
    let wanted = format!("{:.0}", at(155) + world.policy.storage_hold);
    assert_eq!(until(&replica.hold_storage(&manager(), false, at(155)).await), wanted);
    *world.storage.guards.lock().unwrap() = true;
    assert_eq!(until(&replica.hold_storage(&manager(), false, at(160)).await), wanted, "a budget may come too late");
}

/// cluster-autoscaler and Karpenter taint the node that they empty, and do not cordon it.
#[tokio::test]
async fn csi_controllers_leave_an_emptied_node_after_the_pods_that_need_them() {
    let held = |world: World| async move {
        *world.storage.role.lock().unwrap() = StorageRole::CsiController;
        matches!(evict(&world, at(0)).await, EvictionVerdict::Hold { .. })
    };
    let world = || {
        let mut world = World::default();
        // it has run for long: it is not starting
        world.pod.ready = true;
        world
    };
    assert!(!held(world()).await, "nobody empties a");
    assert!(held(World { cordoned: vec!["a"], ..world() }).await, "cordoned");
    assert!(held(World { going: vec!["a"], ..world() }).await, "tainted by what removes it");
}

#[tokio::test]
async fn after_the_first_denial_answers_come_from_memory() {
    let world = leaving();
    let replica = world.replica();
    until(&replica.hold_storage(&manager(), false, at(0)).await);
    let asked = world.api.asked().len();
    until(&replica.hold_storage(&manager(), false, at(5)).await);
    assert_eq!(world.api.asked().len(), asked);
}

#[tokio::test]
async fn what_cannot_be_written_down_is_not_held() {
    let world = leaving();
    world.api.refuse(true);
    let EvictionVerdict::Allow { note: Some(note) } = evict(&world, at(0)).await else { panic!("held") };
    assert!(note.contains("could not be written down"), "{note}");
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_does_not_answer_holds_nobody() {
    let world = leaving();
    world.api.hang();
    assert!(matches!(evict(&world, at(0)).await, EvictionVerdict::Allow { note: Some(_) }));
}

#[tokio::test]
async fn a_dry_run_starts_no_clock() {
    let world = leaving();
    until(&world.replica().hold_storage(&manager(), true, at(0)).await);
    assert!(world.api.asked().is_empty() && world.api.get(HOLDS).is_none());
}

#[tokio::test]
async fn volumes_that_are_opted_out_hold_nobody() {
    for (mode, said) in [("disabled", false), ("observe", true)] {
        let mut world = leaving();
        world.pod.settings = settings(&[(MODE, mode)]);
        let EvictionVerdict::Allow { note } = evict(&world, at(0)).await else { panic!("held in mode {mode}") };
        assert_eq!(note.is_some_and(|n| n.starts_with("handoff (observe): would hold")), said, "{mode}");
        assert!(world.api.asked().is_empty());
    }
}

/// A drain evicts all pods of a node in the same moment, and every other review goes to the other replica. With a write
/// for each pod they wore each other out, one was let go, and it was the attacher that led: 16 s more, seen twice.
#[tokio::test]
async fn all_pods_of_a_node_can_be_denied_at_once() {
    let world = leaving();
    let (first, second) = (world.replica(), world.replica());
    let hold = world.policy.storage_hold;
    let begin = |n: usize| {
        let holds = if n.is_multiple_of(2) { &first.holds } else { &second.holds };
        async move { holds.begin(&format!("uid-{n}"), hold, at(0)).await }
    };
    for (n, since) in futures::future::join_all((0..40).map(begin)).await.into_iter().enumerate() {
        assert_eq!(since.unwrap(), at(0), "pod {n}");
    }
    let written = world.api.get(HOLDS).unwrap();
    assert_eq!(written["data"].as_object().unwrap().len(), 40);
}
