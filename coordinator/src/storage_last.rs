//! Storage leaves last. When a node is drained, the storage manager's own pods there are evicted too, as soon as no
//! volume is attached on the node. If its instance manager goes while a volume that just left is not attached
//! elsewhere yet, Longhorn neither starts nor fails the replica that lives there, and the volume stays "attaching"
//! until the node is uncordoned (kin to longhorn/longhorn#9938; seen on 1.10.0 in each full drain). So their evictions
//! are answered 429 until the volume is there, with an upper bound.

use crate::{observation::Observation, shell::Coordinator, verdicts::PodRef};
use handoff_cluster::ObjectKey;
use handoff_storage::{StorageRole, VolumeState, VolumeView};
use jiff::{SignedDuration, Timestamp};
use std::sync::PoisonError;

impl Coordinator {
    /// Why the pod must not leave its node now; `None`: it may.
    pub(crate) fn hold_storage(&self, pod: &PodRef, dry_run: bool, now: Timestamp) -> Option<String> {
        let pod = self.cluster.read().pod(&ObjectKey::new(&pod.namespace, &pod.name))?;
        let role = self.storage.role_of(&pod)?;
        let node = pod.node.as_deref()?;
        let volumes = {
            let index = self.cluster.read();
            index.volumes_of_driver(self.storage.driver()).cloned().collect::<Vec<_>>()
        };
        let leaving = volumes.iter().find(|v| is_in_transit(&self.observe(v), node, role))?;
        let since = self.held_since(&pod.uid, dry_run, now);
        let until = since + self.policy.storage_hold;
        if now >= until {
            tracing::warn!(pod = %pod.key, volume = leaving.name, "hold of a storage pod reached its deadline, let go");
            return None;
        }
        if !dry_run {
            self.metrics.held(role);
        }
        let claim = leaving.claim.as_ref().map(ToString::to_string).unwrap_or_default();
        Some(format!(
            "storage leaves last: volume {} ({claim}) just left {node} and is not attached elsewhere yet; \
             held until it is, at most until {until:.0}",
            leaving.name
        ))
    }

    /// The first denial starts the clock. Forgotten long after its deadline.
    fn held_since(&self, uid: &str, dry_run: bool, now: Timestamp) -> Timestamp {
        let mut holds = self.holds.lock().unwrap_or_else(PoisonError::into_inner);
        let keep = self.policy.storage_hold + SignedDuration::from_mins(10);
        holds.retain(|_, since| now.duration_since(*since) < keep);
        match holds.get(uid) {
            Some(since) => *since,
            None if dry_run => now,
            None => *holds.entry(uid.to_owned()).insert(now).get(),
        }
    }
}

/// Whether the volume still needs the storage pod on `node`: it is between nodes, somebody wants it, and the pod has
/// a part in bringing it up.
fn is_in_transit(obs: &Observation, node: &str, role: StorageRole) -> bool {
    let Some(volume) = &obs.volume else { return false };
    let involved = match role {
        StorageRole::InstanceManager => volume.replicas.iter().any(|r| r.node == node && !r.failed),
        StorageRole::CsiController => obs.pods.iter().any(|p| p.terminating && p.node.as_deref() == Some(node)) || left(obs, node),
    };
    involved && !is_up_elsewhere(volume, node) && is_wanted(obs, volume, node)
}

/// The volume was attached on `node` a moment ago as far as Kubernetes or the storage manager still show.
fn left(obs: &Observation, node: &str) -> bool {
    let (Some(volume), attachments) = (&obs.volume, &obs.attachments) else { return false };
    volume.current_node.as_deref() == Some(node)
        || attachments.iter().any(|a| a.node == node)
        || (volume.state != VolumeState::Attached && volume.replicas.iter().any(|r| r.node == node))
}

fn is_up_elsewhere(volume: &VolumeView, node: &str) -> bool {
    volume.serving && volume.current_node.as_deref().is_some_and(|n| n != node && volume.is_settled_on(n))
}

/// A pod waits for it or is about to be made again, or an attach request elsewhere is open. A volume that is attached
/// on `node` and used by a pod that stays is not in transit: the storage manager's own budget guards it.
fn is_wanted(obs: &Observation, volume: &VolumeView, node: &str) -> bool {
    let stays_here = obs.pods.iter().any(|p| p.stays() && p.node.as_deref() == Some(node));
    let waits = obs.pods.iter().any(|p| !p.finished);
    let asked = volume.requests.iter().any(|r| r.workload && r.node != node);
    let moving = matches!(volume.state, VolumeState::Detaching | VolumeState::Attaching);
    !stays_here && (waits || asked || moving)
}

#[cfg(test)]
mod tests {
    use super::*;
    use handoff_cluster::Pod;
    use handoff_storage::{AttachRequest, ReplicaView};
    use std::sync::Arc;

    fn pod(node: Option<&str>, terminating: bool) -> Arc<Pod> {
        Arc::new(Pod {
            key: ObjectKey::new("ns", "p"),
            uid: format!("{node:?}{terminating}"),
            node: node.map(Into::into),
            terminating,
            finished: false,
            ready: false,
            created: None,
            claims: vec![],
            owner_kind: None,
            labels: std::collections::BTreeMap::default(),
        })
    }

    fn volume(state: VolumeState, current: Option<&str>, up: bool) -> VolumeView {
        VolumeView {
            state,
            current_node: current.map(Into::into),
            wanted_node: current.map(Into::into),
            engine_running: up,
            serving: up,
            requests: vec![],
            replicas: ["a", "b"].map(|n| ReplicaView { node: n.into(), running: true, failed: false }).to_vec(),
        }
    }

    #[test]
    fn the_instance_manager_of_the_left_node_stays_until_the_volume_is_up_elsewhere() {
        let im = StorageRole::InstanceManager;
        let of = |volume: VolumeView, pods: Vec<Arc<Pod>>| {
            is_in_transit(&Observation { volume: Some(volume), pods, ..Observation::default() }, "a", im)
        };
        let used = volume(VolumeState::Attached, Some("a"), true);
        assert!(!of(used.clone(), vec![pod(Some("a"), false)]), "in use here: the storage manager guards it");
        assert!(of(used, vec![pod(Some("a"), true)]), "its pod is leaving");
        assert!(of(volume(VolumeState::Detaching, Some("a"), false), vec![]), "between pods");
        assert!(of(volume(VolumeState::Detached, None, false), vec![pod(Some("b"), false)]));
        assert!(of(volume(VolumeState::Attaching, None, false), vec![pod(Some("b"), false)]));
        assert!(of(volume(VolumeState::Attached, Some("b"), false), vec![pod(Some("b"), false)]), "no device yet");
        assert!(!of(volume(VolumeState::Attached, Some("b"), true), vec![pod(Some("b"), false)]), "up");
        assert!(!of(volume(VolumeState::Detached, None, false), vec![]), "scaled away");
        let mut asked = volume(VolumeState::Detached, None, false);
        asked.requests.push(AttachRequest { id: "x".into(), node: "b".into(), workload: true, ours: false, satisfied: false });
        assert!(of(asked, vec![]), "asked for elsewhere");
    }

    #[test]
    fn a_failed_or_absent_replica_holds_nothing() {
        let mut v = volume(VolumeState::Attaching, None, false);
        v.replicas[0].failed = true;
        let obs = Observation { volume: Some(v), pods: vec![pod(Some("b"), false)], ..Observation::default() };
        assert!(!is_in_transit(&obs, "a", StorageRole::InstanceManager));
    }
}
