use super::world::{World, asked, settings};
use crate::verdicts::{Admission, SnapshotVerdict};
use handoff_cluster::settings::{ALLOW_SNAPSHOT_DELETION, MODE};
use handoff_storage::BackupState;
use jiff::{SignedDuration, Timestamp};

/// The backup from s-1 is owed since just now.
async fn owed() -> World {
    let world = World::default();
    let now = Timestamp::now();
    world.replica().judge_eviction(&asked(), false, now).await;
    world
}

fn delete(world: &World, snapshot: &str) -> SnapshotVerdict {
    world.replica().delete_snapshot("longhorn-system", snapshot)
}

fn allowed(verdict: &SnapshotVerdict) -> bool {
    matches!(verdict, SnapshotVerdict::Allow { note: None })
}

fn allowed_with(verdict: SnapshotVerdict) -> String {
    match verdict {
        SnapshotVerdict::Allow { note: Some(note) } => note,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_needed_snapshot_stays_and_the_message_says_how_to_delete_it() {
    let world = owed().await;
    let SnapshotVerdict::Needed { message } = delete(&world, "s-1") else { panic!("allowed") };
    for part in ["VolumeHandoff shop/pv owes backup b-1", "at most", ALLOW_SNAPSHOT_DELETION, "shop/data"] {
        assert!(message.contains(part), "{part} is not in: {message}");
    }
    assert!(allowed(&delete(&world, "s-2")), "nobody needs that one");
}

#[tokio::test]
async fn it_is_needed_no_longer_than_its_backup_is_owed() {
    let world = owed().await;
    world.set_backup(100, BackupState::Completed);
    assert!(allowed(&delete(&world, "s-1")), "complete, although the journal does not say so yet");
}

#[tokio::test]
async fn its_protection_has_a_bound() {
    let mut world = owed().await;
    world.policy.snapshot_protection = SignedDuration::from_nanos(1);
    assert!(allowed(&delete(&world, "s-1")));
}

#[tokio::test]
async fn claim_and_volume_can_give_it_up() {
    let mut world = owed().await;
    *world.storage.allows_snapshot_deletion.lock().unwrap() = true;
    assert!(allowed_with(delete(&world, "s-1")).contains("gives up"));
    *world.storage.allows_snapshot_deletion.lock().unwrap() = false;
    world.claim = settings(&[(ALLOW_SNAPSHOT_DELETION, "true")]);
    assert!(allowed_with(delete(&world, "s-1")).contains("owes backup b-1"));
    world.claim = settings(&[(ALLOW_SNAPSHOT_DELETION, "false")]);
    assert!(matches!(delete(&world, "s-1"), SnapshotVerdict::Needed { .. }));
}

#[tokio::test]
async fn a_volume_that_is_opted_out_protects_nothing() {
    let mut world = owed().await;
    world.claim = settings(&[(MODE, "disabled")]);
    assert!(allowed(&delete(&world, "s-1")));
    world.claim = settings(&[(MODE, "observe")]);
    assert!(allowed_with(delete(&world, "s-1")).starts_with("handoff (observe): would keep snapshot s-1"));
}
