//! What is not real here: nodes, and Longhorn's objects in the states that a check needs.

use crate::{
    control_plane::NODES,
    http::{Api, Read},
};
use anyhow::Result;
use serde_json::{Value, json};

/// Longhorn's CSI driver.
pub const DRIVER: &str = "driver.longhorn.io";
const IMAGE: &str = "longhornio/longhorn-engine:v1.10.0";
const LONGHORN: &str = "/apis/longhorn.io/v1beta2/namespaces/longhorn-system";

/// Path of a Longhorn object, or of a collection if the name is empty.
pub fn longhorn(plural: &str, name: &str) -> String {
    if name.is_empty() { format!("{LONGHORN}/{plural}") } else { format!("{LONGHORN}/{plural}/{name}") }
}

/// Path of a core object in a namespace, or of a collection if the name is empty.
pub fn core(namespace: &str, plural: &str, name: &str) -> String {
    let collection = format!("/api/v1/namespaces/{namespace}/{plural}");
    if name.is_empty() { collection } else { format!("{collection}/{name}") }
}

/// Path of the `VolumeHandoff` of a volume.
pub fn handoff(namespace: &str, volume: &str) -> String {
    format!("/apis/volumehandoff.io/v1alpha1/namespaces/{namespace}/volumehandoffs/{volume}")
}

/// A volume by all its names.
#[derive(Clone, Debug)]
pub struct Volume {
    /// Namespace of the claim.
    pub namespace: String,
    /// The claim.
    pub claim: String,
    /// The `PersistentVolume`.
    pub name: String,
    /// Longhorn's name.
    pub handle: String,
}

impl Volume {
    /// Names for the claim `claim`.
    pub fn new(namespace: &str, claim: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            claim: claim.to_owned(),
            name: format!("pv-{namespace}-{claim}"),
            handle: format!("vol-{namespace}-{claim}"),
        }
    }

    /// Path of its `VolumeHandoff`.
    pub fn handoff(&self) -> String {
        handoff(&self.namespace, &self.name)
    }
}

/// Makes objects.
#[derive(Clone)]
pub struct World {
    /// The administrator's way.
    pub admin: Api,
}

impl World {
    /// Creates an object, and its status if there is one: the API takes them in two steps.
    pub async fn create(&self, collection: &str, object: Value) -> Result<Value> {
        let created = self.admin.create(collection, &object).await?;
        if !object.has("/status") {
            return Ok(created);
        }
        let path = format!("{collection}/{}/status", object.text("/metadata/name"));
        self.admin.merge(&path, &json!({"status": object["status"]})).await
    }

    /// A namespace.
    pub async fn namespace(&self, name: &str) -> Result<()> {
        self.create("/api/v1/namespaces", json!({"metadata": {"name": name}})).await.map(drop)
    }

    /// All that Longhorn has without any volume, and the fake nodes.
    pub async fn base(&self) -> Result<()> {
        let setting = json!({"apiVersion": "longhorn.io/v1beta2", "kind": "Setting",
            "metadata": {"name": "current-longhorn-version"}, "value": "v1.10.0"});
        self.create(&longhorn("settings", ""), setting).await?;
        let deployed = NODES.iter().map(|n| ((*n).to_owned(), json!(true))).collect::<serde_json::Map<_, _>>();
        let image = json!({"apiVersion": "longhorn.io/v1beta2", "kind": "EngineImage",
            "metadata": {"name": "ei-1"}, "spec": {"image": IMAGE},
            "status": {"state": "deployed", "nodeDeploymentMap": deployed}});
        self.create(&longhorn("engineimages", ""), image).await?;
        let driver = json!({"metadata": {"name": DRIVER}, "spec": {"attachRequired": true}});
        self.create("/apis/storage.k8s.io/v1/csidrivers", driver).await?;
        let class = json!({"metadata": {"name": "longhorn"}, "provisioner": DRIVER});
        self.create("/apis/storage.k8s.io/v1/storageclasses", class).await?;
        for node in NODES {
            self.node(node).await?;
            self.longhorn_node(node).await?;
        }
        Ok(())
    }

    /// A node that is Ready and has the CSI driver.
    pub async fn node(&self, name: &str) -> Result<()> {
        let resources = json!({"cpu": "64", "memory": "256Gi", "pods": "1000"});
        let node = json!({
            "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
            "status": {
                "capacity": resources, "allocatable": resources,
                "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
            },
        });
        self.create("/api/v1/nodes", node).await?;
        // admission taints each new node as not ready; a kubelet's heartbeat would have it removed
        self.admin.merge(&format!("/api/v1/nodes/{name}"), &json!({"spec": {"taints": null}})).await?;
        let csi = json!({"metadata": {"name": name},
            "spec": {"drivers": [{"name": DRIVER, "nodeID": name, "topologyKeys": []}]}});
        self.create("/apis/storage.k8s.io/v1/csinodes", csi).await.map(drop)
    }

    /// Longhorn on a node: its Node object and an instance manager that runs.
    pub async fn longhorn_node(&self, name: &str) -> Result<()> {
        let node = json!({"apiVersion": "longhorn.io/v1beta2", "kind": "Node", "metadata": {"name": name},
            "spec": {"name": name, "allowScheduling": true},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        self.create(&longhorn("nodes", ""), node).await?;
        let manager = json!({"apiVersion": "longhorn.io/v1beta2", "kind": "InstanceManager",
            "metadata": {"name": format!("im-{name}")},
            "spec": {"nodeID": name, "type": "aio", "dataEngine": "v1"}, "status": {"currentState": "running"}});
        self.create(&longhorn("instancemanagers", ""), manager).await.map(drop)
    }

    /// The state of a node's instance manager.
    pub async fn instance_manager(&self, node: &str, state: &str) -> Result<()> {
        let path = format!("{}/status", longhorn("instancemanagers", &format!("im-{node}")));
        self.admin.merge(&path, &json!({"status": {"currentState": state}})).await.map(drop)
    }

    /// A claim that is bound to a volume, without Longhorn behind it.
    pub async fn claim(&self, volume: &Volume) -> Result<()> {
        let Volume { namespace, claim, name, handle } = volume;
        let space = json!({"storage": "1Gi"});
        let made = json!({
            "metadata": {"name": claim, "annotations": {"pv.kubernetes.io/bind-completed": "yes"}},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": space}, "volumeName": name,
                "storageClassName": "longhorn"},
        });
        let made = self.create(&core(namespace, "persistentvolumeclaims", ""), made).await?;
        let volume = json!({"metadata": {"name": name}, "spec": {
            "accessModes": ["ReadWriteOnce"], "capacity": space, "storageClassName": "longhorn",
            "csi": {"driver": DRIVER, "volumeHandle": handle, "fsType": "ext4"},
            "claimRef": {"kind": "PersistentVolumeClaim", "apiVersion": "v1", "namespace": namespace, "name": claim,
                "uid": made.text("/metadata/uid")},
        }});
        self.create("/api/v1/persistentvolumes", volume).await.map(drop)
    }

    /// A claim with a Longhorn volume that is attached on `node` for a workload and has its replicas on `replicas`.
    pub async fn volume(&self, volume: &Volume, node: &str, replicas: &[&str]) -> Result<()> {
        self.claim(volume).await?;
        let handle = &volume.handle;
        let of = |kind: &str, name: &str, spec: Value, status: Value| {
            json!({"apiVersion": "longhorn.io/v1beta2", "kind": kind, "metadata": {"name": name},
                "spec": spec, "status": status})
        };
        let spec = json!({"accessMode": "rwo", "dataEngine": "v1", "image": IMAGE, "nodeID": node, "size": "1073741824",
            "numberOfReplicas": replicas.len(), "frontend": "blockdev"});
        let status = json!({"state": "attached", "robustness": "healthy", "currentNodeID": node});
        self.create(&longhorn("volumes", ""), of("Volume", handle, spec, status)).await?;
        let spec = json!({"volumeName": handle, "nodeID": node, "active": true, "dataEngine": "v1", "image": IMAGE,
            "desireState": "running", "volumeSize": "1073741824"});
        let status = json!({"currentState": "running", "endpoint": format!("/dev/longhorn/{handle}")});
        self.create(&longhorn("engines", ""), of("Engine", &format!("{handle}-e-0"), spec, status)).await?;
        for replica in replicas {
            let spec = json!({"volumeName": handle, "nodeID": replica, "active": true, "dataEngine": "v1",
                "image": IMAGE, "desireState": "running", "volumeSize": "1073741824"});
            let object = of("Replica", &format!("{handle}-r-{replica}"), spec, json!({"currentState": "running"}));
            self.create(&longhorn("replicas", ""), object).await?;
        }
        let ticket = json!({"id": "csi-test", "type": "csi-attacher", "nodeID": node, "generation": 0,
            "parameters": {"disableFrontend": "false", "lastAttachedBy": ""}});
        let spec = json!({"volume": handle, "attachmentTickets": {"csi-test": ticket}});
        let status = json!({"attachmentTicketStatuses":
            {"csi-test": {"id": "csi-test", "satisfied": true, "generation": 0, "conditions": []}}});
        self.create(&longhorn("volumeattachments", ""), of("VolumeAttachment", handle, spec, status)).await.map(drop)
    }

    /// A snapshot and a backup of it that runs. Both have the backup's name.
    pub async fn backup(&self, volume: &Volume, name: &str, progress: u8) -> Result<()> {
        let handle = &volume.handle;
        let snapshot = json!({"apiVersion": "longhorn.io/v1beta2", "kind": "Snapshot", "metadata": {"name": name},
            "spec": {"volume": handle, "createSnapshot": true},
            "status": {"readyToUse": true, "creationTime": "2026-01-02T03:04:05Z"}});
        self.create(&longhorn("snapshots", ""), snapshot).await?;
        let backup = json!({"apiVersion": "longhorn.io/v1beta2", "kind": "Backup",
            "metadata": {"name": name, "labels": {"backup-volume": handle, "backup-target": "default"}},
            "spec": {"snapshotName": name, "backupMode": "incremental", "labels": {}},
            "status": {"state": "InProgress", "progress": progress, "snapshotName": name, "volumeName": handle,
                "replicaAddress": "tcp://10.42.0.1:10000"}});
        self.create(&longhorn("backups", ""), backup).await.map(drop)
    }

    /// The state of a backup.
    pub async fn backup_is(&self, name: &str, status: &Value) -> Result<()> {
        self.admin.merge(&format!("{}/status", longhorn("backups", name)), &json!({"status": status})).await.map(drop)
    }

    /// The pod runs and is ready, as its kubelet would say.
    pub async fn ready(&self, namespace: &str, pod: &str) -> Result<Value> {
        let status = json!({"status": {"phase": "Running", "conditions": [
            {"type": "Ready", "status": "True"}, {"type": "PodScheduled", "status": "True"},
            {"type": "ContainersReady", "status": "True"}, {"type": "Initialized", "status": "True"}]}});
        self.admin.merge(&format!("{}/status", core(namespace, "pods", pod)), &status).await
    }

    /// Creates a pod on a node, and it is ready at once.
    pub async fn running(&self, pod: &Value, node: &str) -> Result<Value> {
        let namespace = pod.text("/metadata/namespace");
        let mut pod = pod.clone();
        pod["spec"]["nodeName"] = json!(node);
        let made = self.create(&core(namespace, "pods", ""), pod.clone()).await?;
        self.ready(namespace, made.text("/metadata/name")).await
    }
}

/// A pod that mounts these claims.
pub fn pod(namespace: &str, name: &str, claims: &[&str]) -> Value {
    let volumes = claims.iter().map(|c| json!({"name": c, "persistentVolumeClaim": {"claimName": c}}));
    let mounts = claims.iter().map(|c| json!({"name": c, "mountPath": format!("/{c}")}));
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": name}},
        "spec": {
            "terminationGracePeriodSeconds": 30,
            "containers": [{"name": "main", "image": "none.invalid/none:1", "volumeMounts": mounts.collect::<Vec<_>>()}],
            "volumes": volumes.collect::<Vec<_>>(),
        },
    })
}
