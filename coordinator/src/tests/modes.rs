use super::world::{HANDOFF, World, asked, at, deleted, settings};
use crate::verdicts::{Admission, ClaimTemplate, EvictionVerdict, NewPod, Placement, PodPlan};
use handoff_cluster::settings::{EVICTION_POLICY, MODE, Mode, Settings};

fn in_mode(mode: &'static str) -> World {
    World { claim: settings(&[(MODE, mode)]), ..World::default() }
}

#[tokio::test]
async fn disabled_does_nothing_on_an_eviction_and_a_deletion() {
    let world = in_mode("disabled");
    let replica = world.replica();
    let verdict = replica.judge_eviction(&asked(), false, at(0)).await;
    assert_eq!(verdict, EvictionVerdict::Allow { note: None });
    replica.note_deletion(deleted(), false, at(0)).await;
    assert!(world.api.asked().is_empty());
}

#[tokio::test]
async fn observe_says_what_it_would_do_and_writes_events_only() {
    let mut world = in_mode("observe");
    let EvictionVerdict::Allow { note: Some(note) } = world.replica().judge_eviction(&asked(), false, at(0)).await
    else {
        panic!("held or silent")
    };
    assert_eq!(note, "handoff (observe): would have backup b-1 (90 %) go on after the move");
    assert_eq!(world.api.events(2).await, ["WouldCheckpoint", "WouldCheckpoint"], "on the claim and on the pod");
    world.pod.settings = settings(&[(EVICTION_POLICY, "FinishIfNear")]);
    let verdict = world.replica().judge_eviction(&asked(), true, at(0)).await;
    assert!(matches!(verdict, EvictionVerdict::Allow { note: Some(n) } if n.contains("would hold this until")));
    assert!(world.api.writes().is_empty(), "{:?}", world.api.writes());
    assert_eq!(world.api.events(0).await.len(), 2, "a dry run writes no Event either");
}

#[tokio::test]
async fn an_opt_in_world_cares_for_what_is_opted_in() {
    let mut world = World::default();
    world.policy.mode = Mode::Disabled;
    world.replica().judge_eviction(&asked(), false, at(0)).await;
    assert!(world.api.get(HANDOFF).is_none());
    world.namespace = settings(&[(MODE, "enabled")]);
    world.replica().judge_eviction(&asked(), false, at(0)).await;
    assert!(world.api.get(HANDOFF).is_some());
}

#[tokio::test]
async fn an_invalid_value_is_warned_of_and_ignored() {
    let world = in_mode("off");
    let verdict = world.replica().judge_eviction(&asked(), false, at(0)).await;
    let EvictionVerdict::Allow { note: Some(note) } = verdict else { panic!("{verdict:?}") };
    assert!(note.contains("of the claim is \"off\" and ignored"), "{note}");
    assert!(world.api.get(HANDOFF).is_some(), "the default counts");
}

#[tokio::test]
async fn a_move_that_no_review_announced_honours_the_mode() {
    for (mode, recorded, events) in [("enabled", true, 0), ("disabled", false, 0), ("observe", false, 2)] {
        let mut world = World { leads: true, ..in_mode(mode) };
        world.pod.terminating = true;
        let replica = world.replica();
        for _ in 0..3 {
            replica.reconcile("pv").await;
        }
        assert_eq!(world.api.get(HANDOFF).is_some(), recorded, "{mode}");
        let reasons = world.api.events(events).await;
        if !recorded {
            assert_eq!(reasons, vec!["WouldResume"; events], "{mode}: said once");
            assert!(world.api.writes().is_empty(), "{mode}: {:?}", world.api.writes());
        }
    }
}

#[tokio::test]
async fn what_is_owed_waits_while_its_volume_is_opted_out() {
    let mut world = World { leads: true, ..World::default() };
    world.replica().judge_eviction(&asked(), false, at(0)).await;
    let written = world.api.writes().len();
    world.claim = settings(&[(MODE, "disabled")]);
    world.replica().reconcile("pv").await;
    assert_eq!(world.api.writes().len(), written, "nothing is done, and the record stays");
    world.claim = Settings::default();
    world.replica().reconcile("pv").await;
    assert!(world.api.writes().len() > written, "it goes on");
}

#[tokio::test]
async fn what_the_last_pod_asked_for_counts_while_there_is_none() {
    let mut world = World { leads: true, ..World::default() };
    world.policy.mode = Mode::Disabled;
    world.pod.settings = settings(&[(MODE, "enabled")]);
    world.replica().judge_eviction(&asked(), false, at(0)).await;
    world.known = false;
    let written = world.api.writes().len();
    world.replica().reconcile("pv").await;
    assert!(world.api.writes().len() > written, "the move is followed");
}

fn plan(world: &World, claims: &[&str], templates: &[ClaimTemplate]) -> PodPlan {
    let claims = claims.iter().map(ToString::to_string).collect::<Vec<_>>();
    let settings = world.pod.settings.clone();
    world.replica().create(&NewPod { namespace: "shop", settings, claims: &claims, templates })
}

#[tokio::test]
async fn a_new_pod_prefers_good_nodes_and_is_marked_by_mode() {
    let names = |plan: &PodPlan| plan.nodes.iter().map(|n| n.name.clone()).collect::<Vec<_>>();
    let enabled = World { cordoned: vec!["a"], ..World::default() };
    let found = plan(&enabled, &["data"], &[]);
    assert_eq!((names(&found), found.ours, found.warnings.len()), (vec!["b".to_owned()], true, 0));
    for (world, wanted) in [
        (World { going: vec!["b"], ..World::default() }, vec!["a"]),
        (World { tainted: vec!["b"], ..World::default() }, vec!["a", "b"]),
        (World { tainted: vec!["a"], going: vec!["a", "b"], ..World::default() }, vec![]),
    ] {
        assert_eq!(
            names(&plan(&world, &["data"], &[])),
            wanted,
            "going {:?}, tainted {:?}",
            world.going,
            world.tainted
        );
    }
    let found = plan(&enabled, &["pending"], &[]);
    assert!(found.ours && found.nodes.is_empty(), "known by its class");
    for class in [None, Some("fast".to_owned())] {
        let template = ClaimTemplate { class, settings: Settings::default() };
        assert!(plan(&enabled, &[], &[template]).ours, "known by its template");
    }
    let theirs = ClaimTemplate { class: Some("other".into()), settings: Settings::default() };
    assert_eq!(plan(&enabled, &["unknown"], &[theirs]), PodPlan::default());
    assert_eq!(plan(&in_mode("disabled"), &["data"], &[]), PodPlan::default());
    let watched = plan(&in_mode("observe"), &["data"], &[]);
    assert!(!watched.ours && watched.nodes.is_empty());
    assert_eq!(watched.warnings, ["handoff (observe): would have this pod prefer a, b"]);
    let template = ClaimTemplate { class: None, settings: settings(&[(MODE, "disabled")]) };
    assert!(!plan(&enabled, &[], &[template]).ours, "the template's own annotation");
    let invalid = plan(&in_mode("off"), &["data"], &[]);
    assert!(invalid.ours && invalid.warnings.len() == 1, "{:?}", invalid.warnings);
    assert!(enabled.api.asked().is_empty(), "from memory");
}

#[tokio::test]
async fn a_binding_makes_the_target_known_at_once_and_honours_the_mode() {
    for (mode, dry_run, known) in
        [("enabled", false, true), ("enabled", true, false), ("observe", false, false), ("disabled", false, false)]
    {
        let mut world = in_mode(mode);
        world.pod.node = None;
        let replica = world.replica();
        replica.bind(asked(), "b".into(), dry_run).await;
        let volume = replica.cluster.read().volume("pv").unwrap();
        let node = replica.observe(&volume).pods[0].node.clone();
        assert_eq!(node.as_deref() == Some("b"), known, "{mode}, dry run {dry_run}");
        assert!(world.api.asked().is_empty(), "from memory");
    }
}

#[tokio::test]
async fn a_node_is_judged_only_for_what_is_opted_in() {
    for (mode, judged) in [("enabled", true), ("observe", false), ("disabled", false)] {
        let replica = in_mode(mode).replica();
        let claims = ["data".to_owned()];
        assert_eq!(replica.judge(&asked(), &Settings::default(), &claims).is_some(), judged, "{mode}");
        // the pod counts before its claim, also one that the cache does not show yet
        for (pod, judged) in [("enabled", true), ("observe", false), ("disabled", false)] {
            let found = replica.judge(&asked(), &settings(&[(MODE, pod)]), &claims);
            assert_eq!(found.is_some(), judged, "{pod} before {mode}");
        }
    }
}

#[tokio::test]
async fn a_volume_of_another_driver_and_a_shared_one_are_left_alone() {
    for claim in ["foreign", "shared"] {
        let mut world = World::default();
        world.pod.claims = vec![claim.into()];
        assert_eq!(plan(&world, &[claim], &[]), PodPlan::default(), "{claim}");
        let replica = world.replica();
        let verdict = replica.judge_eviction(&asked(), false, at(0)).await;
        assert_eq!(verdict, EvictionVerdict::Allow { note: None }, "{claim}");
        assert!(replica.judge(&asked(), &Settings::default(), &[claim.to_owned()]).is_none(), "{claim}");
        assert!(world.api.asked().is_empty(), "{claim}: {:?}", world.api.asked());
        // beside one of ours they change nothing
        world.pod.claims.push("data".into());
        let verdict = world.replica().judge_eviction(&asked(), false, at(0)).await;
        assert!(matches!(verdict, EvictionVerdict::Allow { .. }), "{verdict:?}");
        assert!(world.api.get(HANDOFF).is_some(), "{claim}");
    }
}
