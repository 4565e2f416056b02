//! Storage leaves last. A drain evicts the storage manager's own pods along with all others.
//!
//! - The instance manager goes as soon as no volume is attached on the node. If a volume that just left is not attached
//!   elsewhere yet, Longhorn neither starts nor fails the replica that lives there, and the volume stays "attaching"
//!   until the node is uncordoned (kin to longhorn/longhorn#9938; seen on 1.10.0 in each full drain). As long as another
//!   volume is attached there, Longhorn's own budget keeps it, and our time does not run: in a drain of many volumes it
//!   would be used up before the last ones leave.
//! - The CSI controllers go at once. If the one that leads goes, nothing is attached anywhere until its lease lapses.
//! - We may be on the node ourselves. If the replica that leads goes, a move waits for the next one to take over.
//!
//! So these evictions are answered 429 until the volumes of the node are where they are wanted, with an upper bound.

use crate::{
    metrics::{FailedOpen, Held},
    observation::Observation,
    policy::after,
    shell::Coordinator,
    verdicts::{EvictionVerdict, PodRef},
};
use handoff_cluster::{ObjectKey, Pod, Volume, settings::Mode};
use handoff_storage::{StorageRole, VolumeState, VolumeView};
use jiff::{SignedDuration, Timestamp};
use std::{sync::Arc, time::Duration};

/// Writing down a first denial takes no longer than this: past it the pod may go. Less than the webhook's time-out.
const WRITE_TIMEOUT: Duration = Duration::from_secs(1);

/// A pod that waits for its volume for longer than this is stuck for another reason, and holds nobody.
const STUCK_AFTER: SignedDuration = SignedDuration::from_mins(5);

/// Why a pod is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Storage(StorageRole),
    Ourselves,
}

impl Role {
    fn held(self) -> Held {
        match self {
            Self::Storage(StorageRole::InstanceManager) => Held::InstanceManager,
            Self::Storage(StorageRole::CsiController) => Held::CsiController,
            Self::Ourselves => Held::Handoff,
        }
    }

    fn is_instance_manager(self) -> bool {
        self == Self::Storage(StorageRole::InstanceManager)
    }
}

/// A pod that is still needed on its node.
struct Needed {
    pod: Arc<Pod>,
    node: String,
    role: Role,
    moving: Arc<Volume>,
    mode: Mode,
}

impl Coordinator {
    /// Whether the pod may leave its node now.
    pub(crate) async fn hold_storage(&self, pod: &PodRef, dry_run: bool, now: Timestamp) -> EvictionVerdict {
        let began = self.clock.now();
        let allow = |note| EvictionVerdict::Allow { note };
        let Some(needed) = self.needed(pod, now) else { return allow(None) };
        let Needed { pod, node, role, moving, mode } = needed;
        let claim = moving.claim.as_ref().map(ToString::to_string).unwrap_or_default();
        let why = format!("volume {} ({claim}) is leaving {node} and is not up elsewhere yet", moving.name);
        if mode == Mode::Observe {
            tracing::info!(pod = %pod.key, volume = moving.name, dry_run, "would be held: {why}");
            return allow(Some(format!("handoff (observe): would hold this: {why}")));
        }
        let since = match self.holds.known(&pod.uid) {
            Some(since) => since,
            None if role.is_instance_manager() && self.storage.guards(&node) => return allow(None),
            None if dry_run => now,
            None => match self.begin_hold(&pod, now).await {
                Some(since) => since,
                // nobody would know when it began, so it could go on for ever
                None => return allow(Some(format!("handoff: not held although {why}: it could not be written down"))),
            },
        };
        let until = after(since, self.policy.storage_hold);
        if now >= until {
            tracing::warn!(pod = %pod.key, volume = moving.name, "hold of a storage pod reached its deadline, let go");
            if !dry_run {
                self.metrics.hold_expired(role.held());
                self.trace_review("review storage eviction", [&*moving.name].into_iter(), &pod, began, false);
            }
            return allow(None);
        }
        if !dry_run {
            self.metrics.held(role.held());
            self.trace_review("review storage eviction", [&*moving.name].into_iter(), &pod, began, true);
        }
        let message = format!("storage leaves last: {why}; held until it is, at most until {until:.0}");
        EvictionVerdict::Hold { message }
    }

    /// What still needs the pod on its node, if anything does. A volume in mode `enabled` comes before one in mode
    /// `observe`.
    fn needed(&self, pod: &PodRef, now: Timestamp) -> Option<Needed> {
        let pod = self.cluster.read().pod(&ObjectKey::new(&pod.namespace, &pod.name))?;
        let role = self.role_of(&pod)?;
        let node = pod.node.clone()?;
        let (emptied, volumes) = {
            let index = self.cluster.read();
            let emptied = index.node(&node).is_some_and(|n| n.is_emptied());
            (emptied, index.volumes_of_driver(self.storage.driver()).collect::<Vec<Arc<Volume>>>())
        };
        let mut watched = None;
        for volume in volumes {
            let obs = self.observe(&volume);
            if !is_needed(&obs, &node, emptied, role, now) {
                continue;
            }
            let handoff = self.current(&volume.name);
            match self.mode_now(&volume, &obs, handoff.as_ref()) {
                Mode::Enabled => return Some(Needed { pod, node, role, moving: volume, mode: Mode::Enabled }),
                Mode::Observe => watched = Some(volume),
                Mode::Disabled => {}
            }
        }
        watched.map(|moving| Needed { pod, node, role, moving, mode: Mode::Observe })
    }

    async fn begin_hold(&self, pod: &Pod, now: Timestamp) -> Option<Timestamp> {
        let written = self.holds.begin(&pod.uid, self.policy.storage_hold, now);
        let error = match tokio::time::timeout(WRITE_TIMEOUT, written).await {
            Ok(Ok(since)) => return Some(since),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer in time".to_owned(),
        };
        tracing::error!(pod = %pod.key, error, "a hold cannot be written down, the pod may go");
        self.metrics.failed("Hold");
        self.metrics.failed_open(FailedOpen::HoldNotRecorded);
        None
    }

    /// What a pod is held as, if it is one that may be held for storage.
    pub(crate) fn held_as(&self, pod: &Pod) -> Option<Held> {
        self.role_of(pod).map(Role::held)
    }

    fn role_of(&self, pod: &Pod) -> Option<Role> {
        // any replica of us: which one leads can change while the drain goes on
        let name = |p: &Pod| p.labels.get("app.kubernetes.io/name").cloned();
        let us = self.cluster.read().pod(&self.identity);
        let ours = us.is_some_and(|us| us.key.namespace == pod.key.namespace && name(&us) == name(pod));
        if ours { Some(Role::Ourselves) } else { self.storage.role_of(pod).map(Role::Storage) }
    }
}

/// Whether the volume still needs the pod with this role on `node`.
fn is_needed(obs: &Observation, node: &str, emptied: bool, role: Role, now: Timestamp) -> bool {
    match role {
        Role::Storage(StorageRole::InstanceManager) => needs_instance_manager(obs, node, now),
        Role::Storage(StorageRole::CsiController) => needs_controllers(obs, node, emptied, now),
        Role::Ourselves => obs.in_flight().next().is_some() && needs_controllers(obs, node, emptied, now),
    }
}

/// It has a good replica on the node and is between nodes, or its pod is just starting elsewhere.
fn needs_instance_manager(obs: &Observation, node: &str, now: Timestamp) -> bool {
    let Some(volume) = &obs.volume else { return false };
    let replica = volume.replicas.iter().any(|r| r.node == node && !r.failed);
    let elsewhere = |p: &Pod| p.node.as_deref().is_some_and(|n| n != node);
    let starting = obs.pods.iter().any(|p| elsewhere(p) && is_starting(p, now));
    let between = !is_up_elsewhere(volume, node) && is_wanted(obs, volume, node);
    replica && (starting || between)
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

/// Its pod is still on the node that is being drained, or is waiting or starting.
fn needs_controllers(obs: &Observation, node: &str, emptied: bool, now: Timestamp) -> bool {
    let drained = |p: &Pod| emptied && !p.finished && p.node.as_deref() == Some(node) && !is_daemon(p);
    obs.pods.iter().any(|p| drained(p) || is_starting(p, now))
}

/// It waits for its volume or has just got it. Taking pods off the node meanwhile only makes that slower.
fn is_starting(pod: &Pod, now: Timestamp) -> bool {
    pod.stays() && !pod.ready && pod.created.is_none_or(|at| now.duration_since(at) < STUCK_AFTER)
}

/// A drain leaves these where they are.
fn is_daemon(pod: &Pod) -> bool {
    pod.owner_kind.as_deref() == Some("DaemonSet")
}

#[cfg(test)]
mod tests {
    use super::*;
    use handoff_storage::{AttachRequest, ReplicaView};

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
            settings: handoff_cluster::settings::Settings::default(),
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
            requests_version: "1".into(),
            replicas: ["a", "b"].map(|n| ReplicaView { node: n.into(), running: true, failed: false }).to_vec(),
        }
    }

    fn needed(obs: &Observation, role: Role) -> bool {
        is_needed(obs, "a", true, role, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn the_instance_manager_of_the_left_node_stays_until_the_volume_is_up_elsewhere() {
        let of = |volume: VolumeView, pods: Vec<Arc<Pod>>| {
            let obs = Observation { volume: Some(volume), pods, ..Observation::default() };
            needed(&obs, Role::Storage(StorageRole::InstanceManager))
        };
        let used = volume(VolumeState::Attached, Some("a"), true);
        assert!(!of(used.clone(), vec![pod(Some("a"), false)]), "in use here: the storage manager guards it");
        assert!(of(used, vec![pod(Some("a"), true)]), "its pod is leaving");
        assert!(of(volume(VolumeState::Detaching, Some("a"), false), vec![]), "between pods");
        assert!(of(volume(VolumeState::Detached, None, false), vec![pod(Some("b"), false)]));
        assert!(of(volume(VolumeState::Attaching, None, false), vec![pod(Some("b"), false)]));
        let ready = Arc::new(Pod { ready: true, ..Pod::clone(&pod(Some("b"), false)) });
        assert!(of(volume(VolumeState::Attached, Some("b"), false), vec![ready.clone()]), "no device yet");
        assert!(of(volume(VolumeState::Attached, Some("b"), true), vec![pod(Some("b"), false)]), "up, pod starting");
        assert!(!of(volume(VolumeState::Attached, Some("b"), true), vec![ready]), "up, pod ready");
        assert!(!of(volume(VolumeState::Detached, None, false), vec![]), "scaled away");
        let mut asked = volume(VolumeState::Detached, None, false);
        let request = AttachRequest { id: "x".into(), node: "b".into(), workload: true, ours: false, satisfied: false };
        asked.requests.push(request);
        assert!(of(asked, vec![]), "asked for elsewhere");
        let mut failed = volume(VolumeState::Attaching, None, false);
        failed.replicas[0].failed = true;
        assert!(!of(failed, vec![pod(Some("b"), false)]), "its replica here is of no use");
    }

    #[test]
    fn the_controllers_stay_from_the_beginning_of_the_drain_until_the_pod_is_ready_again() {
        let controller = Role::Storage(StorageRole::CsiController);
        let of = |pods: Vec<Arc<Pod>>| Observation { pods, ..Observation::default() };
        let ready = |p: Arc<Pod>| Arc::new(Pod { ready: true, ..Pod::clone(&p) });
        assert!(needed(&of(vec![ready(pod(Some("a"), false))]), controller), "about to be evicted");
        assert!(needed(&of(vec![pod(Some("a"), true)]), controller));
        assert!(needed(&of(vec![pod(None, false)]), controller), "not bound yet");
        assert!(needed(&of(vec![pod(Some("b"), false)]), controller), "starting");
        assert!(!needed(&of(vec![ready(pod(Some("b"), false))]), controller), "ready");
        assert!(!needed(&of(vec![]), controller), "nobody wants it");
        let waiting = of(vec![pod(Some("a"), true)]);
        assert!(!needed(&waiting, Role::Ourselves), "no backup in flight: nothing for us to do in time");
        let used = of(vec![ready(pod(Some("a"), false))]);
        assert!(!is_needed(&used, "a", false, controller, Timestamp::UNIX_EPOCH), "in use here, no drain");
        let daemon = Pod { owner_kind: Some("DaemonSet".into()), ready: true, ..Pod::clone(&pod(Some("a"), false)) };
        assert!(!needed(&of(vec![Arc::new(daemon)]), controller), "a drain leaves it alone");
        let old = Pod { created: Some(Timestamp::UNIX_EPOCH - STUCK_AFTER), ..Pod::clone(&pod(Some("b"), false)) };
        assert!(!needed(&of(vec![Arc::new(old)]), controller), "stuck for another reason");
    }
}
