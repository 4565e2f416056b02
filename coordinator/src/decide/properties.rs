//! Random histories: whatever the caches show, in whatever order, these must hold.

use super::{Action, Decision, decide};
use crate::{
    api::{Order, OrderKind, PreStageOutcome, ResumeState, VolumeHandoffSpec, VolumeHandoffStatus},
    decide::tests::{at, backup, pod, request, spec, volume},
    observation::Observation,
    policy::Policy,
};
use handoff_storage::{BackupState, SnapshotView, VolumeState};
use jiff::SignedDuration;
use proptest::prelude::*;
use std::sync::Arc;

/// Requests: node, ours, satisfied.
type Requests = Vec<(u8, bool, bool)>;

/// One thing that may be seen next.
#[derive(Clone, Debug)]
struct Seen {
    pods: Vec<(u8, Option<u8>, bool, bool)>,
    volume: Option<(VolumeState, Option<u8>, Requests)>,
    backups: Vec<(BackupState, Option<u16>)>,
    snapshots: bool,
    refused: bool,
    unstaged: bool,
    cordoned: Vec<u8>,
    candidates: Vec<u8>,
    /// What is ordered for one of the backups.
    order: Option<(bool, OrderKind)>,
    after_millis: u32,
}

fn node(n: u8) -> String {
    ["a", "b", "c"][usize::from(n % 3)].to_owned()
}

prop_compose! {
    fn seen()(
        pods in prop::collection::vec((0_u8..3, prop::option::of(0_u8..3), any::<bool>(), any::<bool>()), 0..3),
        volume in prop::option::weighted(0.9, (
            prop::sample::select(vec![VolumeState::Attached, VolumeState::Attaching, VolumeState::Detaching, VolumeState::Detached]),
            prop::option::of(0_u8..3),
            prop::collection::vec((0_u8..3, any::<bool>(), any::<bool>()), 0..3),
        )),
        backups in prop::collection::vec((
            prop::sample::select(vec![BackupState::Queued, BackupState::Running, BackupState::Completed, BackupState::Lost, BackupState::Deleting]),
            prop::option::of(0_u16..600),
        ), 0..3),
        snapshots in prop::bool::weighted(0.9),
        refused in prop::bool::weighted(0.1),
        unstaged in any::<bool>(),
        cordoned in prop::collection::vec(0_u8..3, 0..2),
        candidates in prop::collection::vec(0_u8..3, 0..3),
        order in prop::option::weighted(0.1, (
            any::<bool>(), prop::sample::select(vec![OrderKind::Resume, OrderKind::Abandon]),
        )),
        after_millis in 0_u32..40_000,
    ) -> Seen {
        Seen { pods, volume, backups, snapshots, refused, unstaged, cordoned, candidates, order, after_millis }
    }
}

fn observe(seen: &Seen) -> Observation {
    let uids = ["old", "new", "newer"];
    let pods = seen.pods.iter().map(|&(uid, on, terminating, ready)| {
        let mut pod = pod(uids[usize::from(uid)], on.map(node).as_deref());
        (pod.terminating, pod.ready) = (terminating, ready);
        Arc::new(pod)
    });
    let names = ["b1", "b2"];
    let backups = seen.backups.iter().zip(names);
    let backups = backups.map(|((state, ended), name)| backup(name, *state, ended.map(f64::from))).collect::<Vec<_>>();
    let snapshot = |name: &str| (format!("snap-{name}"), SnapshotView { created: Some(at(-90.0)), unusable: None });
    Observation {
        pods: pods.collect(),
        volume: seen.volume.as_ref().map(|(state, on, requests)| {
            let requests = requests.iter().map(|&(n, ours, satisfied)| request(&node(n), ours, satisfied)).collect();
            volume(*state, on.map(node).as_deref(), requests)
        }),
        backups,
        snapshots: names.iter().filter(|_| seen.snapshots).map(|n| snapshot(n)).collect(),
        attachments: vec![],
        refusals: if seen.refused {
            ["a", "b", "c"].map(|n| (n.to_owned(), "no".to_owned())).into()
        } else {
            [].into()
        },
        unstaged: seen.unstaged,
        cordoned: seen.cordoned.iter().map(|&n| node(n)).collect(),
        candidates: if seen.refused { vec![] } else { seen.candidates.iter().map(|&n| node(n)).collect() },
        resumes_full: false,
        answer_due: [].into(),
    }
}

/// What must hold for each decision, given the journal before it.
fn check(
    spec: &VolumeHandoffSpec,
    before: &VolumeHandoffStatus,
    obs: &Observation,
    decision: &Decision,
    now: jiff::Timestamp,
    policy: &Policy,
) {
    let placed = decision.actions.iter().filter(|a| matches!(a, Action::PlacePreStage { .. })).count();
    assert!(placed <= 1, "two pre-stages at once");
    let open = decision.status.prestage.as_ref().filter(|p| p.outcome.is_none());
    for action in &decision.actions {
        match action {
            Action::PlacePreStage { node, .. } => {
                assert_eq!(open.map(|p| &p.node), Some(node), "placed without being in the journal");
                assert!(open.is_some_and(|p| now < p.expires_at), "placed after its expiry");
                let stays_elsewhere = obs.pods.iter().any(|p| p.stays() && p.node.as_ref().is_some_and(|n| n != node));
                let placed_before = before.prestage.as_ref().is_some_and(|p| p.outcome.is_none() && p.node == *node);
                assert!(!stays_elsewhere || placed_before, "would take the volume from a pod that stays");
            }
            Action::Reset { backup, resource_version, node } => {
                let was = before.resumes.iter().find(|r| r.backup == *backup).expect("reset of an unknown backup");
                assert_eq!(was.state, ResumeState::Probing, "reset without a probe");
                let waited = now.duration_since(was.probed_at.expect("probed"));
                assert!(waited >= policy.probe_wait, "reset before the probe had its time");
                let seen = obs.backup(backup).expect("reset of a backup that is not there");
                assert_eq!(seen.state, BackupState::Lost, "reset of a backup that is not lost");
                assert_eq!(&seen.resource_version, resource_version);
                assert_eq!(obs.settled_node(), Some(node.as_str()), "reset while the volume is not settled");
            }
            _ => {}
        }
    }
    let running = decision.status.resumes.iter().filter(|r| r.state == ResumeState::Probing).count();
    assert!(running <= 1, "two backups probed at a time");
    for checkpoint in &spec.checkpoints {
        let of = |status: &VolumeHandoffStatus| status.resumes.iter().find(|r| r.backup == checkpoint.backup).cloned();
        let (was, is) = (of(before).filter(|r| r.state.is_final()), of(&decision.status).expect("each has its state"));
        let new_order = checkpoint.order.filter(|o| o.what == OrderKind::Resume && is.order_at == Some(o.at));
        let new_order = new_order.filter(|o| was.as_ref().is_some_and(|r| r.order_at != Some(o.at)));
        match was {
            Some(was) if new_order.is_some() && was.state == ResumeState::Unrecoverable => {}
            Some(was) => assert_eq!(is.state, was.state, "a final state changed"),
            None => assert!(checkpoint.abandoned_at().is_none() || is.state.is_final(), "owed although abandoned"),
        }
    }
    // what was open is still open, adopted, or withdrawn by an action
    if let Some(was) = before.prestage.as_ref().filter(|p| p.outcome.is_none()) {
        let now_is = decision.status.prestage.as_ref();
        let same =
            now_is.is_some_and(|p| p.placed_at == was.placed_at && p.outcome != Some(PreStageOutcome::Withdrawn));
        let withdrawn = decision.actions.contains(&Action::WithdrawPreStage { node: was.node.clone() });
        let request = obs.volume.as_ref().and_then(|v| v.request_for(&was.node));
        let adopted = request.is_some_and(|r| !r.ours);
        assert!(same || withdrawn || adopted, "a pre-stage was forgotten");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_seen_the_rules_hold(history in prop::collection::vec(seen(), 1..30)) {
        let (mut spec, policy) = (spec(&["b1", "b2"]), Policy::default());
        let (mut journal, mut now) = (VolumeHandoffStatus::default(), at(0.0));
        for seen in &history {
            now += SignedDuration::from_millis(i64::from(seen.after_millis));
            if let Some((second, what)) = seen.order {
                spec.checkpoints[usize::from(second)].order = Some(Order { what, at: now });
            }
            let obs = observe(seen);
            let decision = decide(&spec, &journal, &obs, &policy, now);
            prop_assert_eq!(&decide(&spec, &journal, &obs, &policy, now), &decision, "not a function of its input");
            check(&spec, &journal, &obs, &decision, now, &policy);
            journal = decision.status;
        }
    }
}
