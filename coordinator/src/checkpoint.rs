//! Writing down what is in flight, before it is interrupted. Any replica may do this: it is one object of ours, named
//! after the volume, so replicas that race meet AlreadyExists or Conflict, look again and merge.

use crate::{
    api::{Checkpoint, Hold, PodIdentity, Trigger, VolumeHandoff, VolumeHandoffSpec, VolumeIdentity, is_done},
    observation::Observation,
};
use handoff_cluster::{Pod, Volume};
use handoff_storage::BackupView;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

/// A move that starts now.
#[derive(Clone, Debug)]
pub struct Start<'a> {
    /// The volume.
    pub volume: &'a Volume,
    /// UID of its claim: the owner of the object, so that it is collected with the claim.
    pub claim_uid: Option<String>,
    /// The pod that leaves.
    pub pod: &'a Pod,
    /// What started it.
    pub trigger: Trigger,
    /// The hold of the pod's eviction, if it is or was held. One that is recorded already stays as it is.
    pub hold: Option<Hold>,
    /// When.
    pub now: Timestamp,
}

/// The checkpoint of one backup.
fn record(backup: &BackupView, obs: &Observation, now: Timestamp) -> Checkpoint {
    Checkpoint {
        backup: backup.name.clone(),
        uid: backup.uid.clone(),
        snapshot: backup.snapshot.clone(),
        snapshot_created_at: obs.snapshots.get(&backup.snapshot).and_then(|s| s.created),
        target: backup.target.clone(),
        mode: backup.mode.clone(),
        recurring_job: backup.recurring_job.clone(),
        progress: backup.progress,
        replica_address: backup.replica_address.clone(),
        recorded_at: now,
        order: None,
    }
}

/// The spec that records `start` with these backups on top of what is owed already. `None`: nothing new.
pub fn merge(
    existing: Option<&VolumeHandoff>,
    start: &Start<'_>,
    backups: &[&BackupView],
    obs: &Observation,
) -> Option<VolumeHandoffSpec> {
    let resumes = existing.and_then(|h| h.status.as_ref()).map(|s| s.resumes.as_slice()).unwrap_or_default();
    let mut checkpoints = existing.map(|h| h.spec.checkpoints.clone()).unwrap_or_default();
    let same_move = existing.is_some_and(|h| h.spec.pod.uid == start.pod.uid && !h.is_finished());
    if !same_move {
        // a new page: what is safe stays in the old page's timeline only. What was abandoned stays, or it would be found
        // lost and be owed anew
        checkpoints.retain(|c| !is_done(resumes, &c.backup) || c.abandoned_at().is_some());
    }
    let known = |b: &&&BackupView| !checkpoints.iter().any(|c| c.backup == b.name && c.uid == b.uid);
    let new = backups.iter().filter(known).map(|b| record(b, obs, start.now)).collect::<Vec<_>>();
    let before = existing.filter(|_| same_move).map(|h| &h.spec);
    // a hold that is not written down would begin anew with each eviction
    let held_anew = start.hold.is_some() && before.is_none_or(|spec| spec.hold.is_none());
    // the lease holder may have seen the pod leave before its review was written down
    let announced = before.is_some_and(|spec| spec.trigger == Trigger::Observed && start.trigger.is_announced());
    let nothing_owed = checkpoints.iter().all(|c| c.abandoned_at().is_some());
    let nothing_new = new.is_empty() && !held_anew && (nothing_owed || (same_move && !announced));
    if nothing_new || (checkpoints.is_empty() && new.is_empty()) {
        return None;
    }
    checkpoints.extend(new);
    // a pod that is sent on before its volume came to it: what is left is still the node of the move before
    let here = obs.volume.as_ref().and_then(|v| v.current_node.as_ref());
    let not_left = existing.map(|h| &h.spec.from).filter(|from| here == Some(*from)).cloned();
    Some(VolumeHandoffSpec {
        volume: VolumeIdentity {
            driver: start.volume.driver.clone(),
            handle: start.volume.handle.clone(),
            volume: start.volume.name.clone(),
            claim: start.volume.claim.as_ref().map(|c| c.name.clone()).unwrap_or_default(),
        },
        pod: PodIdentity {
            name: start.pod.key.name.clone(),
            uid: start.pod.uid.clone(),
            mode: start.pod.settings.mode.value().map(|mode| mode.to_string()),
        },
        from: not_left.or_else(|| start.pod.node.clone()).unwrap_or_default(),
        trigger: before.filter(|_| !announced).map_or(start.trigger, |s| s.trigger),
        triggered_at: before.map_or(start.now, |s| s.triggered_at),
        hold: before.and_then(|s| s.hold).or(start.hold),
        checkpoints,
    })
}

/// Why a checkpoint could not be written.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The API server refused or did not answer.
    #[error("VolumeHandoff {name}: {source}")]
    Api {
        /// Name of the object.
        name: String,
        /// The answer.
        #[source]
        source: kube::Error,
    },
    /// Others kept changing it.
    #[error("VolumeHandoff {0} kept changing under us")]
    Busy(String),
}

fn object(name: &str, spec: VolumeHandoffSpec, start: &Start<'_>) -> VolumeHandoff {
    let mut handoff = VolumeHandoff::new(name, spec);
    handoff.metadata.owner_references = start.claim_uid.as_ref().map(|uid| {
        vec![OwnerReference {
            api_version: "v1".to_owned(),
            kind: "PersistentVolumeClaim".to_owned(),
            name: handoff.spec.volume.claim.clone(),
            uid: uid.clone(),
            ..OwnerReference::default()
        }]
    });
    handoff
}

/// The merge patch that puts `spec` in the place of what `handoff` says, if that is still so. What is absent now is
/// null, or it would stay.
fn replacing(handoff: &VolumeHandoff, spec: &VolumeHandoffSpec) -> Value {
    let mut next = json!(spec);
    next["hold"] = json!(spec.hold);
    next["pod"]["mode"] = json!(spec.pod.mode);
    json!({"metadata": {"resourceVersion": handoff.resource_version()}, "spec": next})
}

/// Rounds before giving up on a contended object.
const ROUNDS: usize = 4;

/// Records the move. Returns the object when something was written.
pub async fn write(
    client: &Client,
    cached: Option<VolumeHandoff>,
    start: &Start<'_>,
    backups: &[&BackupView],
    obs: &Observation,
) -> Result<Option<VolumeHandoff>, CheckpointError> {
    let Some(claim) = &start.volume.claim else { return Ok(None) };
    let name = &start.volume.name;
    let api: Api<VolumeHandoff> = Api::namespaced(client.clone(), &claim.namespace);
    let failed = |source| CheckpointError::Api { name: name.clone(), source };
    let mut existing = cached;
    for _ in 0..ROUNDS {
        let Some(spec) = merge(existing.as_ref(), start, backups, obs) else { return Ok(None) };
        let answer = match &existing {
            None => api.create(&PostParams::default(), &object(name, spec, start)).await,
            Some(handoff) => {
                let patch = replacing(handoff, &spec);
                api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await
            }
        };
        match answer {
            Ok(written) => return Ok(Some(written)),
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {
                existing = api.get_opt(name).await.map_err(failed)?;
            }
            Err(source) => return Err(failed(source)),
        }
    }
    Err(CheckpointError::Busy(name.clone()))
}

#[cfg(test)]
#[path = "checkpoint_tests.rs"]
mod tests;
