//! Moves and losses that no review announced, found in what the caches show.

use crate::{
    api::{Trigger, VolumeHandoff},
    observation::Observation,
    policy::Policy,
};
use handoff_cluster::Pod;
use handoff_storage::{BackupState, BackupView};
use jiff::Timestamp;
use std::sync::Arc;

/// A move that no review announced: a pod that leaves with backups in flight, or a backup that was lost.
pub fn find_unannounced<'a>(
    handoff: Option<&VolumeHandoff>,
    obs: &'a Observation,
    policy: &Policy,
    now: Timestamp,
) -> Option<(Arc<Pod>, Trigger, Vec<&'a BackupView>)> {
    let leaving = obs.pods.iter().find(|p| p.terminating && !p.finished && p.node.is_some());
    if let Some(pod) = leaving {
        let backups = obs.in_flight().filter(|b| !is_recorded(handoff, b)).collect::<Vec<_>>();
        if !backups.is_empty() {
            return Some((pod.clone(), Trigger::Observed, backups));
        }
    }
    let workload = obs.workload()?;
    let lost = lost_unrecorded(handoff, obs, policy, now).filter(|(_, due)| now >= *due).map(|(backup, _)| backup);
    let lost = lost.collect::<Vec<_>>();
    (!lost.is_empty()).then(|| (workload.clone(), Trigger::Lost, lost))
}

fn is_recorded(handoff: Option<&VolumeHandoff>, backup: &BackupView) -> bool {
    handoff.is_some_and(|h| h.spec.checkpoints.iter().any(|c| c.uid == backup.uid))
}

/// Backups that ended lately without being complete, whatever cut them (a move, a dead replica, a backup target that
/// was away), that nobody recorded and that can be run again; each with the time from which it may be taken up.
fn lost_unrecorded<'a>(
    handoff: Option<&VolumeHandoff>,
    obs: &'a Observation,
    policy: &Policy,
    now: Timestamp,
) -> impl Iterator<Item = (&'a BackupView, Timestamp)> {
    obs.backups.iter().filter_map(move |backup| {
        let ended = backup.ended_at.filter(|at| now.duration_since(*at) < policy.lost_max_age)?;
        let usable = obs.snapshots.get(&backup.snapshot).is_some_and(|s| s.unusable.is_none());
        let open = backup.state == BackupState::Lost && usable && !is_recorded(handoff, backup);
        // where the volume stayed, only the storage manager's look at the upload may have failed, and the upload may
        // still be running: it gets time to end, so that the probe can find it complete
        let moved = obs.attachments.iter().any(|a| !a.deleting && a.created > backup.created);
        let due = if moved { ended } else { ended + policy.resume_backoff };
        open.then_some((backup, due))
    })
}

/// When the next backup that is lost and unrecorded may be taken up, if that is not now.
pub fn next_due(
    handoff: Option<&VolumeHandoff>,
    obs: &Observation,
    policy: &Policy,
    now: Timestamp,
) -> Option<Timestamp> {
    lost_unrecorded(handoff, obs, policy, now).map(|(_, due)| due).filter(|due| *due > now).min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::tests::{at, backup, pod};
    use handoff_cluster::Attachment;
    use handoff_storage::SnapshotView;

    /// A pod that stays on a, and a backup that ended without being complete at 0 s.
    fn lost() -> Observation {
        Observation {
            pods: vec![Arc::new(pod("new", Some("a")))],
            backups: vec![backup("b1", BackupState::Lost, Some(0.0))],
            snapshots: [("snap-b1".to_owned(), SnapshotView { created: Some(at(-90.0)), unusable: None })].into(),
            ..Observation::default()
        }
    }

    fn found(obs: &Observation, seconds: f64) -> Option<Trigger> {
        find_unannounced(None, obs, &Policy::default(), at(seconds)).map(|(_, trigger, _)| trigger)
    }

    #[test]
    fn a_backup_that_was_cut_by_a_move_is_taken_up_at_once() {
        let mut obs = lost();
        obs.attachments.push(Arc::new(Attachment {
            name: "va".into(),
            node: "a".into(),
            volume: "pv".into(),
            attached: true,
            deleting: false,
            attach_error: None,
            created: Some(at(-1.0)),
        }));
        assert_eq!(found(&obs, 0.5), Some(Trigger::Lost));
    }

    #[test]
    fn one_that_was_cut_where_its_volume_stayed_gets_time_to_turn_out_complete() {
        let (obs, policy) = (lost(), Policy::default());
        assert_eq!(found(&obs, 14.0), None);
        assert_eq!(next_due(None, &obs, &policy, at(14.0)), Some(at(15.0)));
        assert_eq!(found(&obs, 15.0), Some(Trigger::Lost));
        assert_eq!(next_due(None, &obs, &policy, at(15.0)), None);
    }

    #[test]
    fn what_is_old_complete_or_cannot_be_run_again_is_left_alone() {
        assert_eq!(found(&lost(), 3601.0), None, "an hour ago");
        let mut obs = lost();
        obs.backups[0].state = BackupState::Completed;
        assert_eq!(found(&obs, 60.0), None);
        let mut obs = lost();
        obs.snapshots.clear();
        assert_eq!(found(&obs, 60.0), None, "nothing to run it from");
        let mut obs = lost();
        obs.pods.clear();
        assert_eq!(found(&obs, 60.0), None, "nobody uses the volume");
    }
}
