//! Answers for the webhook, from memory.

use crate::{
    api::Trigger,
    shell::Coordinator,
    verdicts::{Admission, EvictionVerdict, PodRef, PreferredNode},
};
use futures::future::{BoxFuture, join_all};
use handoff_cluster::{ObjectKey, Pod, Volume};
use jiff::Timestamp;
use std::sync::Arc;

/// Weight of the preferred node affinity: a clear wish, less than the sum of what the user may have asked for.
const PREFER_WEIGHT: i32 = 50;
/// Weight of the node where the volume is being brought up already: the most there is.
const STAGED_WEIGHT: i32 = 100;
/// More names than this in one pod's affinity help nobody.
const PREFER_NODES: usize = 10;

impl Coordinator {
    fn pod(&self, pod: &PodRef) -> Option<Arc<Pod>> {
        let found = self.cluster.read().pod(&ObjectKey::new(&pod.namespace, &pod.name))?;
        pod.uid.as_ref().is_none_or(|uid| *uid == found.uid).then_some(found)
    }

    /// Volumes of our driver behind these claims that only one node may use.
    pub(crate) fn volumes(&self, namespace: &str, claims: &[String]) -> Vec<Arc<Volume>> {
        let index = self.cluster.read();
        let volumes = claims.iter().filter_map(|c| index.volume_of_claim(&ObjectKey::new(namespace, c)));
        volumes.filter(|v| v.driver == self.storage.driver() && !v.shared).collect()
    }

    /// Checkpoints what is in flight on the volumes of a pod that leaves. Returns a line per volume.
    async fn checkpoint_pod(&self, pod: &Pod, trigger: Trigger, dry_run: bool) -> Vec<String> {
        let volumes = self.volumes(&pod.key.namespace, &pod.claims);
        let notes = volumes.iter().map(async |volume| {
            let obs = self.observe(volume);
            let backups = obs.in_flight().collect::<Vec<_>>();
            if backups.is_empty() {
                return None;
            }
            if !dry_run && let Err(error) = self.checkpoint(volume, pod, trigger, &backups, &obs).await {
                // the move goes on: the lease holder sees the pod leave and records it from there
                tracing::error!(volume = volume.name, pod = %pod.key, %error, "cannot checkpoint");
                self.metrics.failed("Checkpoint");
                return Some(format!("handoff: could not checkpoint {} yet", volume.name));
            }
            let names = backups.iter().map(|b| format!("{} ({} %)", b.name, b.progress)).collect::<Vec<_>>();
            Some(format!("handoff: backup {} goes on after the move", names.join(", ")))
        });
        join_all(notes).await.into_iter().flatten().collect()
    }
}

impl Admission for Coordinator {
    fn evict(&self, pod: PodRef, dry_run: bool) -> BoxFuture<'_, EvictionVerdict> {
        Box::pin(async move {
            let Some(pod) = self.pod(&pod) else { return EvictionVerdict::Allow { note: None } };
            let notes = self.checkpoint_pod(&pod, Trigger::Eviction, dry_run).await;
            EvictionVerdict::Allow { note: (!notes.is_empty()).then(|| notes.join("; ")) }
        })
    }

    fn delete(&self, pod: PodRef, dry_run: bool) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if let Some(pod) = self.pod(&pod) {
                self.checkpoint_pod(&pod, Trigger::Deletion, dry_run).await;
            }
        })
    }

    fn bind(&self, pod: PodRef, node: String, dry_run: bool) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let Some(found) = self.pod(&pod).filter(|_| !dry_run) else { return };
            let volumes = self.volumes(&found.key.namespace, &found.claims);
            if !volumes.is_empty() {
                self.announce_binding(&found.key.to_string(), pod.uid, node, &volumes);
            }
        })
    }

    fn prefer(&self, namespace: &str, claims: &[String]) -> Vec<PreferredNode> {
        let volumes = self.volumes(namespace, claims);
        let views = volumes.iter().filter_map(|v| self.storage.volume(&v.handle)).collect::<Vec<_>>();
        let index = self.cluster.read();
        let local = index.nodes().filter(|n| n.ready && !n.cordoned).filter(|n| {
            views.iter().any(|v| {
                v.replicas.iter().any(|r| r.node == n.name && !r.failed)
                    || v.requests.iter().any(|r| r.ours && r.node == n.name)
            }) && volumes.iter().all(|v| self.storage.can_host(&v.handle, &n.name).is_ok())
        });
        let mut nodes = local
            .map(|n| {
                let staged = views.iter().any(|v| v.requests.iter().any(|r| r.ours && r.node == n.name));
                PreferredNode { name: n.name.clone(), weight: if staged { STAGED_WEIGHT } else { PREFER_WEIGHT } }
            })
            .take(PREFER_NODES)
            .collect::<Vec<_>>();
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        nodes
    }

    fn snapshot_needed(&self, _namespace: &str, name: &str) -> Option<String> {
        let (handoff, checkpoint) = self.handoffs.read().needing_snapshot(name)?;
        let until = checkpoint.recorded_at + self.policy.snapshot_protection;
        (Timestamp::now() < until).then(|| {
            format!(
                "VolumeHandoff {}/{} owes backup {} from this snapshot; protected until {until:.0} at most. \
                 To delete it anyway, delete backup {} first",
                handoff.metadata.namespace.as_deref().unwrap_or_default(),
                handoff.spec.volume.volume,
                checkpoint.backup,
                checkpoint.backup,
            )
        })
    }

    fn storage_needed(&self, pod: &PodRef, dry_run: bool) -> Option<String> {
        self.hold_storage(pod, dry_run, Timestamp::now())
    }
}
