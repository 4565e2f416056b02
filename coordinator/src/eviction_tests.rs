use super::*;
use crate::api::{PodIdentity, VolumeIdentity};
use handoff_cluster::settings::Settings;
use proptest::prelude::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn seconds(seconds: i64) -> SignedDuration {
    SignedDuration::from_secs(seconds)
}

fn near(max_hold: i64, held: Option<(i64, i64)>, remaining: Option<i64>) -> Candidate {
    Candidate {
        policy: EvictionPolicy::FinishIfNear,
        max_hold: seconds(max_hold),
        held: held.map(|(since, deadline)| Hold { since: at(since), deadline: at(deadline) }),
        remaining: remaining.map(seconds),
    }
}

#[test]
fn what_is_held_and_until_when() {
    for (what, candidate, first, now, wanted) in [
        ("near enough", near(60, None, Some(59)), None, 0, Some((0, 60))),
        ("exactly as long as allowed", near(60, None, Some(60)), None, 0, Some((0, 60))),
        ("too far", near(60, None, Some(61)), None, 0, None),
        ("nothing is known of its progress", near(60, None, None), None, 0, None),
        ("complete in this moment", near(60, None, Some(0)), None, 0, Some((0, 60))),
        ("no hold wanted", near(0, None, Some(0)), None, 0, None),
        ("more is asked for than there is", near(300, None, Some(90)), None, 0, Some((0, 100))),
        ("a second volume shares the first one's time", near(60, None, Some(20)), Some(0), 30, Some((0, 60))),
        ("and gets none of its own", near(60, None, Some(40)), Some(0), 30, None),
        ("held already, slower than hoped", near(60, Some((0, 60)), Some(500)), Some(0), 30, Some((0, 60))),
        ("held already, last second", near(60, Some((0, 60)), Some(9)), Some(0), 59, Some((0, 60))),
        ("at the deadline", near(60, Some((0, 60)), Some(1)), Some(0), 60, None),
        ("after it, also for the next backup", near(60, Some((0, 60)), Some(1)), Some(0), 400, None),
        ("somebody edited the deadline", near(60, Some((0, 9000)), Some(1)), Some(0), 99, Some((0, 100))),
        ("and still", near(60, Some((0, 9000)), Some(1)), Some(0), 100, None),
        ("somebody edited the beginning", near(60, Some((500, 560)), Some(1)), Some(500), 0, None),
    ] {
        let found = hold(&candidate, first.map(at), at(now)).map(|h| (h.since, h.deadline));
        assert_eq!(found, wanted.map(|(since, deadline)| (at(since), at(deadline))), "{what}");
    }
    let policy = EvictionPolicy::Checkpoint;
    let checkpoint = Candidate { policy, ..near(60, Some((0, 60)), Some(1)) };
    assert_eq!(hold(&checkpoint, None, at(1)), None, "the policy was changed meanwhile: let go");
}

proptest! {
    /// An evictor that comes back at any times, and backups that do as they like: never more than 100 s in all, and no
    /// denial after the first permission.
    #[test]
    fn a_hold_ends_in_time_whatever_happens(
        max_hold in 0_i64..200,
        polls in prop::collection::vec((1_i64..20, prop::option::of(0_i64..300), any::<bool>()), 1..60),
    ) {
        let mut recorded: Option<Hold> = None;
        let (mut now, mut let_go) = (0, false);
        for (wait, remaining, in_flight) in polls {
            now += wait;
            if !in_flight {
                continue;
            }
            let candidate = Candidate { held: recorded, ..near(max_hold, None, remaining) };
            let held = hold(&candidate, recorded.map(|h| h.since), at(now));
            if let Some(held) = held {
                prop_assert!(at(now).duration_since(held.since) < LONGEST_HOLD);
                prop_assert!(recorded.is_none_or(|r| r.since == held.since), "counts from the first denial");
                prop_assert!(!let_go, "denied after it was let go");
            }
            let_go |= held.is_none() && recorded.is_some();
            recorded = recorded.or(held);
        }
    }
}

fn replacement(node: Option<&str>, created: i64) -> Pod {
    Pod {
        key: ObjectKey::new("shop", "db-0"),
        uid: "new".into(),
        node: node.map(Into::into),
        terminating: false,
        finished: false,
        ready: false,
        created: Some(at(created)),
        claims: vec!["data".into()],
        owner_kind: None,
        labels: std::collections::BTreeMap::default(),
        settings: Settings::default(),
    }
}

fn before() -> VolumeHandoffSpec {
    VolumeHandoffSpec {
        volume: VolumeIdentity::default(),
        pod: PodIdentity { name: "db-0".into(), uid: "old".into(), mode: None },
        from: "a".into(),
        trigger: Trigger::Eviction,
        triggered_at: at(0),
        hold: None,
        checkpoints: vec![],
    }
}

#[test]
fn whose_eviction_it_is() {
    let mistaken =
        |pod: &Pod, before: &VolumeHandoffSpec, now| is_meant_for_the_one_before(pod, before, true, true, at(now));
    let pod = replacement(Some("b"), 10);
    assert!(mistaken(&pod, &before(), 15), "a drain of a comes back");
    assert!(mistaken(&replacement(None, 10), &before(), 15), "also while its replacement is not bound yet");
    assert!(!mistaken(&pod, &before(), 40), "long after: somebody means this one");
    assert!(!is_meant_for_the_one_before(&pod, &before(), false, true, at(15)), "a was uncordoned: no drain of it");
    assert!(!is_meant_for_the_one_before(&pod, &before(), true, false, at(15)), "b is drained next");
    assert!(!mistaken(&replacement(Some("a"), 10), &before(), 15), "it came back to a: the drain means it");
    let same = Pod { uid: "old".into(), ..pod.clone() };
    assert!(!mistaken(&same, &before(), 15), "the very pod");
    let leaving = Pod { terminating: true, ..pod.clone() };
    assert!(!mistaken(&leaving, &before(), 15));
    let other = Pod { key: ObjectKey::new("shop", "db-1"), ..pod.clone() };
    assert!(!mistaken(&other, &before(), 15), "another pod with the same volume");
    let deleted = VolumeHandoffSpec { trigger: Trigger::Deletion, ..before() };
    assert!(!mistaken(&pod, &deleted, 15), "no eviction was under way");
    let later = VolumeHandoffSpec { triggered_at: at(12), ..before() };
    assert!(!mistaken(&pod, &later, 15), "it was there before that move began");
    assert!(mistaken(&replacement(Some("b"), 0), &before(), 1), "creation times are whole seconds");
}
