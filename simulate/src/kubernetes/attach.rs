//! The attach-detach controller: an attachment for each node with a pod that uses the volume, on one node at a time, and
//! none any more once the node has said that it does not use it.

use crate::{
    api::{
        Change, Follow,
        resource::{ATTACHMENTS, CLAIMS, NODES, PODS, VOLUMES},
    },
    cluster::{Cluster, DRIVER, attachment_name, key},
    json::{elements, is_deleting, text},
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tokio::time::Instant;

const BY: &str = "attach-detach-controller";
/// Keeps an attachment until the volume is detached.
const FINALIZER: &str = "external-attacher/driver-longhorn-io";

/// A pod on a node.
struct Placed {
    node: String,
    volumes: Vec<String>,
    terminating: bool,
}

#[derive(Default)]
struct Seen {
    /// By pod, `namespace/name`.
    pods: BTreeMap<String, Placed>,
    /// `PersistentVolume` → pods that use it.
    users: BTreeMap<String, BTreeSet<String>>,
    /// `PersistentVolume` → its attachments: name → node.
    attachments: BTreeMap<String, BTreeMap<String, String>>,
    /// Something is to be done, or waited for.
    pending: BTreeSet<String>,
}

/// Runs for ever.
pub async fn run(cluster: Arc<Cluster>) {
    let (mut pods, mut attachments, mut nodes) = (
        Follow::new(&cluster.store, PODS),
        Follow::new(&cluster.store, ATTACHMENTS),
        Follow::new(&cluster.store, NODES),
    );
    let (mut seen, mut due) = (Seen::default(), None);
    loop {
        tokio::select! {
            biased;
            () = async { tokio::time::sleep_until(due.unwrap_or_else(Instant::now)).await }, if due.is_some() => {
                let pending = std::mem::take(&mut seen.pending);
                seen.pending = pending.into_iter().filter(|volume| seen.is_unsettled(&cluster, volume)).collect();
                // nothing more happens before someone changes something
                due = None;
                continue;
            }
            changes = pods.next() => changes.iter().for_each(|c| seen.pod(&cluster, c)),
            changes = attachments.next() => changes.iter().for_each(|c| seen.attachment(c)),
            _ = nodes.next() => {}
        }
        due.get_or_insert_with(|| Instant::now() + cluster.timing.reconcile);
    }
}

impl Seen {
    fn pod(&mut self, cluster: &Cluster, change: &Change) {
        let (pod, name) = (&change.object.value, change.object.key().to_string());
        if let Some(before) = self.pods.remove(&name) {
            for volume in before.volumes {
                self.users.entry(volume.clone()).or_default().remove(&name);
                self.pending.insert(volume);
            }
        }
        let node = text(pod, "/spec/nodeName");
        if change.what == "DELETED" || node.is_empty() {
            return;
        }
        let volumes = volumes_of(cluster, pod);
        for volume in &volumes {
            self.users.entry(volume.clone()).or_default().insert(name.clone());
            self.pending.insert(volume.clone());
        }
        self.pods.insert(name, Placed { node: node.to_owned(), volumes, terminating: is_deleting(pod) });
    }

    fn attachment(&mut self, change: &Change) {
        let attachment = &change.object.value;
        let volume = text(attachment, "/spec/source/persistentVolumeName").to_owned();
        let of_volume = self.attachments.entry(volume.clone()).or_default();
        if change.what == "DELETED" {
            of_volume.remove(&change.object.key().name);
        } else {
            of_volume.insert(change.object.key().name, text(attachment, "/spec/nodeName").to_owned());
        }
        self.pending.insert(volume);
    }

    /// Does what can be done for a volume; whether something is still waited for.
    fn is_unsettled(&self, cluster: &Cluster, volume: &str) -> bool {
        let users = self.users.get(volume).into_iter().flatten().filter_map(|pod| self.pods.get(pod));
        let users = users.collect::<Vec<_>>();
        let attachments = self.attachments.get(volume).cloned().unwrap_or_default();
        let mut waits = false;
        for (name, node) in &attachments {
            if users.iter().any(|pod| pod.node == *node) {
                continue;
            }
            let node = cluster.store.get(NODES, &key("", node));
            let in_use = |n: &Value| elements(n, "/status/volumesInUse").any(|v| *v == json!(volume));
            if node.is_some_and(|node| in_use(&node.value)) {
                waits = true;
            } else {
                let _ = cluster.store.delete(BY, ATTACHMENTS, &key("", name));
            }
        }
        for pod in users.iter().filter(|pod| !pod.terminating) {
            if attachments.values().any(|node| *node == pod.node) {
                // one that goes has to be gone before there is another
                continue;
            }
            if attachments.is_empty() {
                attach(cluster, volume, &pod.node);
            } else {
                waits = true;
            }
        }
        waits
    }
}

fn attach(cluster: &Cluster, volume: &str, node: &str) {
    let Some(found) = cluster.store.get(VOLUMES, &key("", volume)) else { return };
    let name = attachment_name(text(&found.value, "/spec/csi/volumeHandle"), node);
    let attachment = json!({
        "metadata": {"name": name, "finalizers": [FINALIZER]},
        "spec": {"attacher": DRIVER, "nodeName": node, "source": {"persistentVolumeName": volume}},
        "status": {"attached": false},
    });
    let _ = cluster.store.create(BY, ATTACHMENTS, attachment);
}

fn volumes_of(cluster: &Cluster, pod: &Value) -> Vec<String> {
    let claims = elements(pod, "/spec/volumes").map(|v| text(v, "/persistentVolumeClaim/claimName"));
    let volumes = claims.filter_map(|claim| {
        let claim = cluster.store.get(CLAIMS, &key(text(pod, "/metadata/namespace"), claim))?;
        Some(text(&claim.value, "/spec/volumeName").to_owned())
    });
    volumes.collect()
}
