//! Answers for the webhook, from memory.

use crate::{
    mode::{Layers, layers},
    policy::after,
    shell::Coordinator,
    verdicts::{Admission, DeletedPod, EvictionVerdict, NewPod, PodPlan, PodRef, PreferredNode, SnapshotVerdict},
};
use futures::future::BoxFuture;
use handoff_cluster::{
    Claim, Index, ObjectKey, Volume,
    settings::{ALLOW_SNAPSHOT_DELETION, Allowed, Mode},
};
use handoff_storage::BackupState;
use std::{collections::BTreeMap, sync::Arc};

/// Weight of the preferred node affinity: a clear wish, less than the sum of what the user may have asked for.
const PREFER_WEIGHT: i32 = 50;
/// Weight of the node where the volume is being brought up already: the most there is.
const STAGED_WEIGHT: i32 = 100;
/// More names than this in one pod's affinity help nobody.
const PREFER_NODES: usize = 10;

/// A claim on our driver.
enum Ours {
    Volume(Arc<Volume>),
    NoVolumeYet,
}

/// The claims of a new pod that are on our driver, with what is asked for around each.
struct Claims {
    found: Vec<(Ours, Layers)>,
}

impl Claims {
    fn in_mode(&self, mode: Mode, default: Mode) -> (bool, Vec<Arc<Volume>>) {
        let found = self.found.iter().filter(|(_, layers)| layers.mode(default) == mode).collect::<Vec<_>>();
        let volumes = found.iter().filter_map(|(claim, _)| match claim {
            Ours::Volume(volume) => Some(volume.clone()),
            Ours::NoVolumeYet => None,
        });
        (!found.is_empty(), volumes.collect())
    }
}

impl Coordinator {
    /// Volumes of our driver behind these claims that only one node may use.
    pub(crate) fn volumes(&self, namespace: &str, claims: &[String]) -> Vec<Arc<Volume>> {
        let index = self.cluster.read();
        let volumes = claims.iter().filter_map(|c| index.volume_of_claim(&ObjectKey::new(namespace, c)));
        volumes.filter(|v| v.driver == self.storage.driver() && !v.shared).collect()
    }

    /// A claim that is on our driver, by its volume or, before it has one, by its class.
    fn ours(&self, index: &Index, claim: &Claim) -> Option<Ours> {
        let driver = self.storage.driver();
        if let Some(name) = &claim.volume {
            let volume = index.volume(name)?;
            return (volume.driver == driver && !volume.shared).then_some(Ours::Volume(volume));
        }
        // a claim with the class "" gets no volume made for it
        let class = match claim.class.as_deref() {
            Some(name) => index.class(name),
            None => index.default_class(),
        }?;
        (class.provisioner == driver).then_some(Ours::NoVolumeYet)
    }

    fn claims_of(&self, pod: &NewPod<'_>) -> Claims {
        let index = self.cluster.read();
        let mut found = Vec::new();
        for name in pod.claims {
            let key = ObjectKey::new(pod.namespace, name);
            let Some(claim) = index.claim(&key) else { continue };
            if let Some(ours) = self.ours(&index, &claim) {
                found.push((ours, layers(&index, &pod.settings, &key)));
            }
        }
        for template in pod.templates {
            let class = match &template.class {
                Some(name) => index.class(name),
                None => index.default_class(),
            };
            if let Some(class) = class.filter(|class| class.provisioner == self.storage.driver()) {
                let layers = Layers {
                    pod: pod.settings.clone(),
                    claim: template.settings.clone(),
                    class: class.settings.clone(),
                    namespace: index.settings_of_namespace(pod.namespace),
                };
                found.push((Ours::NoVolumeYet, layers));
            }
        }
        Claims { found }
    }

    /// Nodes that are close to all of these volumes, the best first.
    fn near(&self, volumes: &[Arc<Volume>]) -> Vec<PreferredNode> {
        let views = volumes.iter().filter_map(|v| self.storage.volume(&v.handle)).collect::<Vec<_>>();
        // from the volumes to their few nodes, not over the thousands that a cluster may have
        let mut weights = BTreeMap::new();
        for view in &views {
            view.replicas.iter().filter(|r| !r.failed).for_each(|r| {
                weights.entry(r.node.as_str()).or_insert(PREFER_WEIGHT);
            });
            view.requests.iter().filter(|r| r.ours).for_each(|r| {
                weights.insert(&r.node, STAGED_WEIGHT);
            });
        }
        {
            let index = self.cluster.read();
            // what the extender gives no point for; whether a pod tolerates other taints is the scheduler's to know
            weights.retain(|node, _| index.node(node).is_some() && !index.is_leaving(node));
        }
        // not under the guard: the storage manager looks into the same cache
        weights.retain(|node, _| volumes.iter().all(|v| self.storage.can_host(&v.handle, node).is_ok()));
        let named = |(node, weight): (&str, i32)| PreferredNode { name: node.to_owned(), weight };
        let mut nodes = weights.into_iter().map(named).collect::<Vec<_>>();
        nodes.sort_by(|a, b| b.weight.cmp(&a.weight).then_with(|| a.name.cmp(&b.name)));
        nodes.truncate(PREFER_NODES);
        nodes
    }

    /// Whether someone has said that the snapshots of a volume may be deleted all the same.
    fn may_lose_snapshots(&self, namespace: &str, claim: &str, handle: &str) -> bool {
        let claim = self.cluster.read().claim(&ObjectKey::new(namespace, claim));
        let by_claim = claim.is_some_and(|c| c.settings.allow_snapshot_deletion.value() == Some(Allowed(true)));
        by_claim || self.storage.allows_snapshot_deletion(handle)
    }
}

impl Admission for Coordinator {
    fn create(&self, pod: &NewPod<'_>) -> PodPlan {
        let claims = self.claims_of(pod);
        let mut plan = PodPlan::default();
        for warning in claims.found.iter().flat_map(|(_, layers)| layers.warnings()) {
            if !plan.warnings.contains(&warning) {
                plan.warnings.push(warning);
            }
        }
        let (ours, volumes) = claims.in_mode(Mode::Enabled, self.policy.mode);
        plan.ours = ours;
        if !volumes.is_empty() {
            plan.nodes = self.near(&volumes);
        }
        let (_, watched) = claims.in_mode(Mode::Observe, self.policy.mode);
        if !watched.is_empty() {
            let nodes = self.near(&watched).into_iter().map(|n| n.name).collect::<Vec<_>>();
            if !nodes.is_empty() {
                let note = format!("handoff (observe): would have this pod prefer {}", nodes.join(", "));
                tracing::info!(namespace = pod.namespace, claims = ?pod.claims, note);
                plan.warnings.push(note);
            }
        }
        plan
    }

    fn evict(&self, pod: PodRef, dry_run: bool) -> BoxFuture<'_, EvictionVerdict> {
        Box::pin(async move { self.judge_eviction(&pod, dry_run, self.clock.now()).await })
    }

    fn evict_storage(&self, pod: PodRef, dry_run: bool) -> BoxFuture<'_, EvictionVerdict> {
        Box::pin(async move { self.hold_storage(&pod, dry_run, self.clock.now()).await })
    }

    fn delete(&self, pod: DeletedPod, dry_run: bool) -> BoxFuture<'_, ()> {
        Box::pin(async move { self.note_deletion(pod, dry_run, self.clock.now()).await })
    }

    fn bind(&self, pod: PodRef, node: String, dry_run: bool) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let Some(found) = self.cached(&pod).filter(|_| !dry_run) else { return };
            let mut volumes = self.volumes(&found.key.namespace, &found.claims);
            volumes.retain(|v| self.mode(&found.settings, v) == Mode::Enabled);
            if !volumes.is_empty() {
                self.announce_binding(&found.key.to_string(), pod.uid, node, &volumes);
            }
        })
    }

    fn delete_snapshot(&self, _namespace: &str, name: &str) -> SnapshotVerdict {
        let nothing = SnapshotVerdict::Allow { note: None };
        let Some((handoff, checkpoint)) = self.handoffs.read().needing_snapshot(name) else { return nothing };
        let volume = &handoff.spec.volume;
        let complete = |b: &handoff_storage::BackupView| b.uid == checkpoint.uid && b.state == BackupState::Completed;
        let until = after(checkpoint.recorded_at, self.policy.snapshot_protection);
        if self.clock.now() >= until || self.storage.backups(&volume.handle).iter().any(complete) {
            return nothing;
        }
        let namespace = handoff.metadata.namespace.as_deref().unwrap_or_default();
        let owed = format!("VolumeHandoff {namespace}/{} owes backup {}", volume.volume, checkpoint.backup);
        let mode = self.cluster.read().volume(&volume.volume).map_or(Mode::Enabled, |found| {
            let obs = self.observe(&found);
            self.mode_now(&found, &obs, Some(&handoff))
        });
        if mode == Mode::Disabled {
            return nothing;
        }
        if mode == Mode::Observe {
            let note = format!("handoff (observe): would keep snapshot {name}: {owed} from it");
            return SnapshotVerdict::Allow { note: Some(note) };
        }
        if self.may_lose_snapshots(namespace, &volume.claim, &volume.handle) {
            let note = format!("handoff: {owed} from snapshot {name}, which {ALLOW_SNAPSHOT_DELETION} gives up");
            return SnapshotVerdict::Allow { note: Some(note) };
        }
        SnapshotVerdict::Needed {
            message: format!(
                "{owed} from snapshot {name}; kept until that backup is complete, until {until:.0} at most. To delete it \
                 all the same, annotate the snapshot, Longhorn's volume {} or claim {namespace}/{} with \
                 {ALLOW_SNAPSHOT_DELETION}=true",
                volume.handle, volume.claim,
            ),
        }
    }
}
