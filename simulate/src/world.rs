//! Building a cluster: nodes, volumes, workloads, backups.

use crate::{
    api::resource::{CLAIMS, CLASSES, CSI_NODES, ENGINE_IMAGES, LONGHORN_NODES, NODES, SETTINGS, VOLUMES},
    chance::Chance,
    cluster::{Cluster, DRIVER, STORAGE, Timing, WORKLOADS},
    kubernetes::{self, Controller, Workload},
    longhorn::{self, Release, Upload},
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// What a cluster is made of.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Longhorn's release.
    pub release: Release,
    /// How long things take.
    pub timing: Timing,
    /// Names of the nodes.
    pub nodes: Vec<String>,
    /// The workloads, each with a volume of its own.
    pub workloads: Vec<Planned>,
    /// All of them get their chance from here.
    pub chance: Chance,
    /// Handoff's agent runs on each node.
    pub agents: bool,
}

/// A workload.
#[derive(Clone, Debug)]
pub struct Planned {
    /// Name of the workload and of its volume.
    pub name: String,
    /// What keeps it going.
    pub controller: Controller,
    /// Where it is first.
    pub node: String,
    /// Where its replicas are.
    pub replicas: Vec<String>,
    /// What is special about its Longhorn volume.
    pub special: Value,
}

impl Planned {
    /// One on `node`, with a replica there and one on `other`.
    pub fn new(name: &str, controller: Controller, node: &str, other: &str) -> Self {
        Self {
            name: name.to_owned(),
            controller,
            node: node.to_owned(),
            replicas: vec![node.to_owned(), other.to_owned()],
            special: json!({}),
        }
    }

    /// Its pod at the beginning.
    pub fn pod(&self) -> String {
        match self.controller {
            Controller::StatefulSet => format!("{}-0", self.name),
            Controller::Deployment => format!("{}-0000", self.name),
        }
    }

    fn claim(&self) -> String {
        format!("data-{}", self.name)
    }

    fn volume(&self) -> String {
        format!("pv-{}", self.name)
    }
}

impl Plan {
    /// So many nodes, `n00` and on, and nothing on them.
    pub fn new(release: Release, nodes: usize, chance: Chance) -> Self {
        let nodes = (0..nodes).map(|n| format!("n{n:02}")).collect();
        Self { release, timing: Timing::default(), nodes, workloads: Vec::new(), chance, agents: true }
    }

    /// Builds it, inside the runtime.
    pub fn build(&self) -> Arc<Cluster> {
        let cluster = Cluster::new(self.release.clone(), self.timing, self.chance);
        for node in &self.nodes {
            add_node(&cluster, node);
        }
        let on_all = self.nodes.iter().map(|node| (node.clone(), true)).collect::<BTreeMap<_, _>>();
        cluster.add(
            ENGINE_IMAGES,
            STORAGE,
            "ei-1",
            json!({"spec": {"image": "engine:1"},
            "status": {"state": "deployed", "nodeDeploymentMap": on_all}}),
        );
        cluster.add(SETTINGS, STORAGE, "current-longhorn-version", json!({"value": self.release.version}));
        cluster.add(CLASSES, "", "longhorn", json!({"provisioner": DRIVER}));
        for planned in &self.workloads {
            add_volume(&cluster, planned);
        }
        longhorn::start_target(&cluster);
        longhorn::start_controllers(&cluster, &self.nodes);
        kubernetes::start(&cluster, &self.nodes, self.agents);
        for planned in &self.workloads {
            let Planned { name, controller, node, .. } = planned;
            let workload = Workload { name: name.clone(), controller: *controller, claim: planned.claim() };
            workload.start(&cluster, node);
        }
        cluster
    }
}

fn add_node(cluster: &Arc<Cluster>, node: &str) {
    let ready = json!([{"type": "Ready", "status": "True"}]);
    cluster.add(NODES, "", node, json!({"spec": {}, "status": {"conditions": ready, "volumesInUse": []}}));
    cluster.add(CSI_NODES, "", node, json!({"spec": {"drivers": [{"name": DRIVER}]}}));
    cluster.add(
        LONGHORN_NODES,
        STORAGE,
        node,
        json!({
        "spec": {"allowScheduling": true, "evictionRequested": false}, "status": {"conditions": ready}}),
    );
    longhorn::start_manager(cluster, node);
}

fn add_volume(cluster: &Arc<Cluster>, planned: &Planned) {
    let (claim, volume) = (planned.claim(), planned.volume());
    cluster.add(
        CLAIMS,
        WORKLOADS,
        &claim,
        json!({"spec": {"volumeName": volume, "storageClassName": "longhorn",
        "resources": {"requests": {"storage": "1Gi"}}}, "status": {"phase": "Bound"}}),
    );
    cluster.add(
        VOLUMES,
        "",
        &volume,
        json!({"spec": {
        "csi": {"driver": DRIVER, "volumeHandle": planned.name}, "accessModes": ["ReadWriteOnce"],
        "claimRef": {"namespace": WORKLOADS, "name": claim}}}),
    );
    longhorn::start_volume(cluster, &planned.name, &planned.node, &planned.replicas, &planned.special);
}

/// A backup of a volume, of so many blocks that take so long each.
pub fn backup(volume: &str, name: &str, blocks: u64, block_time: Duration) -> Upload {
    Upload { volume: volume.to_owned(), name: name.to_owned(), blocks, block_time, full: false, end_is_missed: false }
}
