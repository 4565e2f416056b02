//! What the parts of a simulated cluster share.

use crate::{
    api::{Admission, Object, Refusal, Server, Store, Verb, resource::Resource, resource::Target},
    chance::Chance,
    longhorn::{Longhorn, Release},
    time::Time,
    witness::Witness,
};
use handoff_cluster::ObjectKey;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{collections::BTreeSet, hash::Hash, sync::Arc, time::Duration};
use tokio::sync::watch;

/// Namespace of the workloads.
pub const WORKLOADS: &str = "shop";
/// Namespace of Longhorn.
pub const STORAGE: &str = "longhorn-system";
/// Namespace of Handoff.
pub const HANDOFF: &str = "handoff-system";
/// Longhorn's CSI driver.
pub const DRIVER: &str = "driver.longhorn.io";

/// How long things take, as measured on the real cluster (README, "Where the seconds go").
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// How often kubelets report.
    pub kubelet_tick: Duration,
    /// From the deletion of a pod until its containers have ended.
    pub grace: Duration,
    /// Unmounting and unstaging.
    pub unmount: Duration,
    /// Staging and mounting.
    pub mount: Duration,
    /// From mounted to ready.
    pub start: Duration,
    /// From the end of a pod until its controller has made the next one.
    pub recreate: Duration,
    /// From a pod without node to its binding.
    pub schedule: Duration,
    /// A look of the attach-detach controller.
    pub reconcile: Duration,
    /// Stopping an engine.
    pub stop_engine: Duration,
    /// From there until the volume is detached.
    pub detach: Duration,
    /// Starting replicas and engine.
    pub attach: Duration,
    /// From there until the device is announced.
    pub device: Duration,
    /// Whether all of these vary by chance.
    pub varies: bool,
}

impl Default for Timing {
    fn default() -> Self {
        let ms = Duration::from_millis;
        Self {
            kubelet_tick: ms(10_000),
            grace: ms(800),
            unmount: ms(400),
            mount: ms(1200),
            start: ms(800),
            recreate: ms(100),
            schedule: ms(60),
            reconcile: ms(100),
            stop_engine: ms(300),
            detach: ms(1200),
            attach: ms(3300),
            device: ms(5000),
            varies: false,
        }
    }
}

/// Everything that the parts share.
pub struct Cluster {
    /// The API server.
    pub server: Arc<Server>,
    /// Its objects.
    pub store: Arc<Store>,
    /// The time.
    pub time: Time,
    /// Chance.
    pub chance: Chance,
    /// How long things take.
    pub timing: Timing,
    /// Longhorn's inside.
    pub longhorn: Longhorn,
    /// Workloads that are to have no pod.
    pub scaled_to_zero: watch::Sender<BTreeSet<String>>,
    /// Nodes whose kubelet is not heard of.
    pub silent: watch::Sender<BTreeSet<String>>,
    /// Who looks on.
    pub witness: Arc<Witness>,
}

impl Cluster {
    /// An empty cluster; call it inside the runtime.
    pub fn new(release: Release, timing: Timing, chance: Chance) -> Arc<Self> {
        let time = Time::start();
        let longhorn = Longhorn::new(release);
        let witness = Witness::new(time.clone(), longhorn.target.clone());
        let stamp = time.clone();
        let store = Arc::new(Store::new(Box::new(move || stamp.stamp()), witness.clone()));
        let server = Server::new(store.clone(), witness.clone(), crate::longhorn::guard);
        let (scaled_to_zero, silent) = (watch::Sender::default(), watch::Sender::default());
        Arc::new(Self { server, store, time, chance, timing, longhorn, scaled_to_zero, silent, witness })
    }

    /// The webhook.
    pub fn admission(&self) -> &Admission {
        &self.server.admission
    }

    /// Passes the time that something takes; `what` tells it from others that take as long.
    pub async fn takes(&self, usual: Duration, what: impl Hash) {
        let time = if self.timing.varies { self.chance.between(usual * 7 / 10, usual * 3 / 2, what) } else { usual };
        tokio::time::sleep(time).await;
    }

    /// Adds an object of the cluster's own making.
    pub fn add(&self, resource: Resource, namespace: &str, name: &str, mut value: Value) {
        value["metadata"]["name"] = json!(name);
        if !namespace.is_empty() {
            value["metadata"]["namespace"] = json!(namespace);
        }
        // it can only be there already, which is as good
        let _ = self.store.create("cluster", resource, value);
    }

    /// Asks the API server, as everybody who is not Handoff does it here: without a line that could fail.
    pub async fn ask(
        &self,
        by: &str,
        resource: Resource,
        key: &ObjectKey,
        subresource: &str,
        verb: Verb,
    ) -> Result<Arc<Object>, Refusal> {
        let target = Target {
            resource,
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            subresource: subresource.to_owned(),
        };
        self.server.ask(by, &target, verb).await
    }
}

/// Name of the `VolumeAttachment` and id of the ticket of a volume on a node, as CSI makes them.
pub fn attachment_name(handle: &str, node: &str) -> String {
    format!("csi-{:x}", Sha256::digest(format!("{handle}{DRIVER}{node}")))
}

/// A key in a namespace.
pub fn key(namespace: &str, name: &str) -> ObjectKey {
    ObjectKey::new(namespace, name)
}
