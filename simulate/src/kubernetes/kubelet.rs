//! A kubelet: starts and ends the pods of its node, and says at each tick which volumes are in use there.

use super::agent;
use crate::{
    api::{
        Follow,
        resource::{ATTACHMENTS, CLAIMS, NODES, PODS, VOLUMES},
    },
    cluster::{Cluster, attachment_name, key},
    json::{elements, flag, is_deleting, text},
};
use handoff_cluster::ObjectKey;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

/// A volume as a pod uses it.
#[derive(Clone)]
struct Used {
    volume: String,
    handle: String,
}

struct Kubelet {
    cluster: Arc<Cluster>,
    node: String,
    /// Handoff's agent runs beside it.
    agent: bool,
    /// `PersistentVolume` → pods here that use it or are about to.
    in_use: Mutex<BTreeMap<String, usize>>,
}

/// Starts the kubelet of a node.
pub fn start(cluster: &Arc<Cluster>, node: &str, agent: bool) {
    let kubelet =
        Arc::new(Kubelet { cluster: cluster.clone(), node: node.to_owned(), agent, in_use: Mutex::default() });
    tokio::spawn(report(kubelet.clone()));
    tokio::spawn(run(kubelet));
}

async fn run(kubelet: Arc<Kubelet>) {
    let mut pods = Follow::new(&kubelet.cluster.store, PODS);
    let mut known = BTreeMap::new();
    loop {
        for change in pods.next().await {
            let (pod, of) = (&change.object.value, change.object.key());
            let uid = text(pod, "/metadata/uid").to_owned();
            if change.what == "DELETED" {
                known.remove(&of);
            } else if text(pod, "/spec/nodeName") == kubelet.node && known.get(&of) != Some(&uid) {
                known.insert(of.clone(), uid.clone());
                tokio::spawn(kubelet.clone().live(of, uid, pod.clone()));
            }
        }
    }
}

/// Each node has its own moment for its reports.
async fn report(kubelet: Arc<Kubelet>) {
    let tick = kubelet.cluster.timing.kubelet_tick;
    let first = kubelet.cluster.chance.between(Duration::ZERO, tick, ("kubelet", &kubelet.node));
    let mut ticks = interval_at(Instant::now() + first, tick);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        kubelet.runs().await;
        let in_use = kubelet.in_use().keys().cloned().collect::<Vec<_>>();
        let by = format!("kubelet {}", kubelet.node);
        kubelet.cluster.store.change(&by, NODES, &key("", &kubelet.node), |node| {
            node["status"]["volumesInUse"] = json!(in_use);
        });
    }
}

impl Kubelet {
    /// Waits while this kubelet is silent.
    async fn runs(&self) {
        // the sender is the cluster's own: there is no error
        let _ = self.cluster.silent.subscribe().wait_for(|silent| !silent.contains(&self.node)).await;
    }

    fn in_use(&self) -> MutexGuard<'_, BTreeMap<String, usize>> {
        self.in_use.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The life of a pod here.
    async fn live(self: Arc<Self>, pod: ObjectKey, uid: String, object: Value) {
        let volumes = self.volumes_of(&object);
        self.runs().await;
        for used in &volumes {
            *self.in_use().entry(used.volume.clone()).or_default() += 1;
        }
        let mut mounted = Vec::new();
        let ends = self.cluster.store.until(PODS, &pod, |now| ends(now, &uid));
        tokio::select! {
            biased;
            _ = ends => {}
            () = self.bring_up(&pod, &uid, &volumes, &mut mounted) => {}
        }
        self.take_down(&pod, &uid, &volumes, &mounted).await;
    }

    async fn bring_up(&self, pod: &ObjectKey, uid: &str, volumes: &[Used], mounted: &mut Vec<String>) {
        let Cluster { store, timing, witness, .. } = &*self.cluster;
        for used in volumes {
            // mounting waits until this node has said that it uses the volume, and until it is attached here
            let said = |node: &Value| elements(node, "/status/volumesInUse").any(|v| *v == json!(used.volume));
            store.until(NODES, &key("", &self.node), said).await;
            let attachment = key("", &attachment_name(&used.handle, &self.node));
            store.until(ATTACHMENTS, &attachment, |a| flag(a, "/status/attached") && !is_deleting(a)).await;
        }
        self.runs().await;
        if !volumes.is_empty() {
            self.cluster.takes(timing.mount, ("mount", uid)).await;
        }
        for used in volumes {
            witness.mounted(&used.handle, &self.node, &pod.name);
            mounted.push(used.handle.clone());
        }
        self.cluster.takes(timing.start, ("start", uid)).await;
        self.runs().await;
        self.set_ready(pod, uid, true);
        std::future::pending::<()>().await;
    }

    async fn take_down(&self, pod: &ObjectKey, uid: &str, volumes: &[Used], mounted: &[String]) {
        let Cluster { store, timing, witness, .. } = &*self.cluster;
        self.runs().await;
        self.set_ready(pod, uid, false);
        self.cluster.takes(timing.grace, ("grace", uid)).await;
        if !mounted.is_empty() {
            self.cluster.takes(timing.unmount, ("unmount", uid)).await;
        }
        mounted.iter().for_each(|handle| witness.unmounted(handle, &self.node, &pod.name));
        for used in volumes {
            let mut in_use = self.in_use();
            if let Some(count) = in_use.get_mut(&used.volume) {
                *count -= 1;
                if *count == 0 {
                    in_use.remove(&used.volume);
                    if self.agent && mounted.contains(&used.handle) {
                        agent::sees_unstaged(&self.cluster, &self.node, &used.volume);
                    }
                }
            }
        }
        if store.get(PODS, pod).is_some_and(|now| text(&now.value, "/metadata/uid") == uid) {
            store.remove(&format!("kubelet {}", self.node), PODS, pod);
        }
    }

    fn set_ready(&self, pod: &ObjectKey, uid: &str, ready: bool) {
        self.cluster.store.change(&format!("kubelet {}", self.node), PODS, pod, |now| {
            if text(now, "/metadata/uid") == uid {
                let status = if ready { "True" } else { "False" };
                now["status"] = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": status}]});
            }
        });
    }

    fn volumes_of(&self, pod: &Value) -> Vec<Used> {
        let store = &self.cluster.store;
        let claims = elements(pod, "/spec/volumes").map(|v| text(v, "/persistentVolumeClaim/claimName"));
        let used = claims.filter_map(|claim| {
            let claim = store.get(CLAIMS, &key(text(pod, "/metadata/namespace"), claim))?;
            let volume = store.get(VOLUMES, &key("", text(&claim.value, "/spec/volumeName")))?;
            let handle = text(&volume.value, "/spec/csi/volumeHandle").to_owned();
            Some(Used { volume: volume.key().name, handle })
        });
        used.collect()
    }
}

fn ends(now: &Value, uid: &str) -> bool {
    now.is_null() || is_deleting(now) || text(now, "/metadata/uid") != uid
}
