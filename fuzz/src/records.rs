//! What Handoff itself writes down and people can edit: `VolumeHandoff`s, and the first denials of storage pods.

use handoff_cluster::Cached;
use handoff_coordinator::{
    api::VolumeHandoff,
    decide::decide,
    handoffs::Handoffs,
    holds::{Denied, first_denials},
    observation::Observation,
    policy::{Policy, after},
};
use handoff_storage::{BackupState, BackupView};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;

/// Lines of JSON, each taken in as a `VolumeHandoff` and as the denials; then what comes next is decided for each of
/// them, at the beginning of time, now and at its end.
///
/// # Panics
/// If one is not found again, is not read as it was written, or lets nothing be decided.
pub fn records(data: &[u8]) {
    let (mut handoffs, mut denied) = (Handoffs::default(), Denied::default());
    for line in data.split(|byte| *byte == b'\n').take(16) {
        if let Ok(map) = serde_json::from_slice::<ConfigMap>(line) {
            for (_, since) in first_denials(&map) {
                assert!(after(since, SignedDuration::from_secs(100)) >= since, "a hold that ends before it begins");
            }
            map.put(&mut denied);
        }
        if let Ok(handoff) = serde_json::from_slice::<VolumeHandoff>(line) {
            handoff.put(&mut handoffs);
        }
    }
    let now = Timestamp::from_second(1_800_000_000).unwrap_or_default();
    for handoff in handoffs.iter() {
        assert!(handoffs.of_volume(&handoff.name_any()).is_some(), "a handoff is not found");
        for owed in handoff.owed() {
            assert!(handoffs.needing_snapshot(&owed.snapshot).is_some(), "nobody needs an owed backup's snapshot");
        }
        let written = serde_json::to_vec(&**handoff).unwrap_or_default();
        let again = serde_json::from_slice::<VolumeHandoff>(&written);
        let same = again.is_ok_and(|again| again.spec == handoff.spec && again.status == handoff.status);
        assert!(same, "a handoff is not read as it was written");
        for now in [Timestamp::MIN, now, Timestamp::MAX - SignedDuration::from_hours(24)] {
            next(handoff, now);
        }
    }
}

fn next(handoff: &VolumeHandoff, now: Timestamp) {
    let policy = Policy::default();
    let backups = handoff.spec.checkpoints.iter().map(|checkpoint| BackupView {
        name: checkpoint.backup.clone(),
        uid: checkpoint.uid.clone(),
        resource_version: "7".into(),
        state: BackupState::Lost,
        progress: 23,
        snapshot: checkpoint.snapshot.clone(),
        target: "default".into(),
        target_unavailable: None,
        mode: "incremental".into(),
        recurring_job: None,
        replica_address: None,
        error: None,
        ended_at: None,
        asked_at: Some(checkpoint.recorded_at),
        created: Some(checkpoint.recorded_at),
        uploaded_bytes: None,
    });
    let lost = Observation { backups: backups.collect(), ..Observation::default() };
    for obs in [Observation::default(), lost] {
        let decision = decide(&handoff.spec, &handoff.journal(), &obs, &policy, now);
        assert_eq!(decision.status.move_started_at, Some(handoff.spec.triggered_at), "another move is followed");
    }
}
