//! A made-up cluster of any size. Objects have the fields and the length of real ones; pods are those that a real
//! kube-apiserver sent, under other names.

use serde_json::{Value, json};

/// Namespaces the pods are spread over.
const NAMESPACES: usize = 50;
/// Where Longhorn's objects are.
const LONGHORN: &str = "/apis/longhorn.io/v1beta2/namespaces/longhorn-system/";
/// The review that the pods are taken from.
const POD: &str = include_str!("../../../webhook/tests/recorded/delete-kubectl.json");
const ENGINE_IMAGE: &str = "longhornio/longhorn-engine:v1.10.0";
const OUR_DRIVER: &str = "driver.longhorn.io";
const OTHER_DRIVER: &str = "ebs.csi.aws.com";

/// Makes one object, as JSON.
pub type Make = fn(&World, usize) -> String;

/// A cluster: how much of each there is, and the texts that objects are made from.
#[derive(Clone, Debug)]
pub struct World {
    /// Pods; the first ones mount a volume each.
    pub pods: usize,
    /// Volumes with their claims; each is attached. The last one is of another driver.
    pub volumes: usize,
    /// Nodes.
    pub nodes: usize,
    with_claim: String,
    without_claim: String,
    node: String,
}

impl World {
    /// A cluster of this size.
    pub fn new(pods: usize, volumes: usize, nodes: usize) -> Self {
        let pod = recorded_pod();
        let mut plain = pod.clone();
        plain["metadata"]["labels"] = json!({"app": "web-@APP@", "pod-template-hash": "6cf4cdbfbf"});
        if let Some(list) = plain["spec"]["volumes"].as_array_mut() {
            list.retain(|volume| volume.get("persistentVolumeClaim").is_none());
        }
        Self {
            pods,
            volumes,
            nodes,
            with_claim: pod.to_string(),
            without_claim: plain.to_string(),
            node: full_node().to_string(),
        }
    }

    /// How many objects the collection at `path` has, and how one is made.
    pub fn collection(&self, path: &str) -> (usize, Make) {
        if let Some(kind) = path.strip_prefix(LONGHORN) {
            return match kind {
                "volumes" => (self.volumes, longhorn_volume),
                "engines" => (self.volumes, longhorn_engine),
                "replicas" => (2 * self.volumes, longhorn_replica),
                "volumeattachments" => (self.volumes, longhorn_attachment),
                "nodes" => (self.nodes, longhorn_node),
                "instancemanagers" => (self.nodes, instance_manager),
                "engineimages" => (1, engine_image),
                "settings" => (1, longhorn_version),
                _ => (0, nothing),
            };
        }
        match path {
            "/api/v1/pods" => (self.pods, pod),
            "/api/v1/persistentvolumeclaims" => (self.volumes, claim),
            "/api/v1/persistentvolumes" => (self.volumes, volume),
            "/api/v1/nodes" => (self.nodes, node),
            "/apis/storage.k8s.io/v1/csinodes" => (self.nodes, csi_node),
            "/apis/storage.k8s.io/v1/volumeattachments" => (self.volumes, attachment),
            _ => (0, nothing),
        }
    }

    /// The node of a volume.
    fn home(&self, volume: usize) -> String {
        node_name(volume * 7 % self.nodes)
    }

    fn driver(&self, volume: usize) -> &'static str {
        if volume + 1 == self.volumes { OTHER_DRIVER } else { OUR_DRIVER }
    }
}

/// As a cloud would name it.
pub fn node_name(at: usize) -> String {
    format!("ip-10-{}-{}-{}.eu-central-1.compute.internal", at / 62_500, at / 250 % 250, at % 250)
}

/// Namespace of a volume's claim and pod.
pub fn namespace(at: usize) -> String {
    format!("team-{}", at % NAMESPACES)
}

/// Name of a pod.
pub fn pod_name(at: usize) -> String {
    format!("database-{at}")
}

/// Name of the claim of a volume.
pub fn claim_name(at: usize) -> String {
    format!("data-database-{at}")
}

fn volume_name(at: usize) -> String {
    format!("pvc-{}", uid(1, at))
}

fn uid(kind: usize, at: usize) -> String {
    format!("{kind:08x}-6cf4-4cdb-8bf5-{at:012x}")
}

/// The pod of a recorded review, with marks for what differs from pod to pod.
fn recorded_pod() -> Value {
    let review: Value = serde_json::from_str(POD).unwrap_or_default();
    let mut pod = review["request"]["oldObject"].clone();
    let meta = &mut pod["metadata"];
    meta["name"] = json!("@POD@");
    meta["namespace"] = json!("@NAMESPACE@");
    meta["uid"] = json!("@UID@");
    meta["labels"]["app"] = json!("database-@APP@");
    meta["labels"]["statefulset.kubernetes.io/pod-name"] = json!("@POD@");
    pod["spec"]["nodeName"] = json!("@NODE@");
    for volume in pod["spec"]["volumes"].as_array_mut().into_iter().flatten() {
        if volume.get("persistentVolumeClaim").is_some() {
            volume["persistentVolumeClaim"]["claimName"] = json!("@CLAIM@");
        }
    }
    pod
}

fn pod(world: &World, at: usize) -> String {
    let text = if at < world.volumes { &world.with_claim } else { &world.without_claim };
    text.replace("@POD@", &pod_name(at))
        .replace("@NAMESPACE@", &namespace(at))
        .replace("@UID@", &uid(2, at))
        .replace("@APP@", &(at / 3 % 1000).to_string())
        .replace("@NODE@", &world.home(at))
        .replace("@CLAIM@", &claim_name(at))
}

fn claim(_: &World, at: usize) -> String {
    json!({"kind": "PersistentVolumeClaim", "apiVersion": "v1",
        "metadata": {"name": claim_name(at), "namespace": namespace(at), "uid": uid(3, at), "resourceVersion": "900",
            "creationTimestamp": "2026-11-20T09:14:02Z", "labels": {"app": "database"},
            "annotations": {"pv.kubernetes.io/bind-completed": "yes", "pv.kubernetes.io/bound-by-controller": "yes",
                "volume.kubernetes.io/storage-provisioner": OUR_DRIVER},
            "finalizers": ["kubernetes.io/pvc-protection"], "managedFields": managed("kube-controller-manager")},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10Gi"}},
            "volumeName": volume_name(at), "storageClassName": "longhorn", "volumeMode": "Filesystem"},
        "status": {"phase": "Bound", "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "10Gi"}}})
    .to_string()
}

fn volume(world: &World, at: usize) -> String {
    json!({"kind": "PersistentVolume", "apiVersion": "v1",
        "metadata": {"name": volume_name(at), "uid": uid(4, at), "resourceVersion": "900",
            "creationTimestamp": "2026-11-20T09:14:02Z",
            "annotations": {"pv.kubernetes.io/provisioned-by": world.driver(at),
                "volume.kubernetes.io/provisioner-deletion-secret-name": "",
                "volume.kubernetes.io/provisioner-deletion-secret-namespace": ""},
            "finalizers": ["kubernetes.io/pv-protection", "external-attacher/driver-longhorn-io"],
            "managedFields": managed("csi-provisioner")},
        "spec": {"capacity": {"storage": "10Gi"}, "accessModes": ["ReadWriteOnce"],
            "csi": {"driver": world.driver(at), "volumeHandle": volume_name(at), "fsType": "ext4",
                "volumeAttributes": {"dataLocality": "disabled", "fsType": "ext4", "numberOfReplicas": "2",
                    "staleReplicaTimeout": "30",
                    "storage.kubernetes.io/csiProvisionerIdentity": "1763629200000-5931-driver.longhorn.io"}},
            "claimRef": {"kind": "PersistentVolumeClaim", "namespace": namespace(at), "name": claim_name(at),
                "uid": uid(3, at), "apiVersion": "v1", "resourceVersion": "890"},
            "persistentVolumeReclaimPolicy": "Delete", "storageClassName": "longhorn", "volumeMode": "Filesystem"},
        "status": {"phase": "Bound", "lastPhaseTransitionTime": "2026-11-20T09:14:02Z"}})
    .to_string()
}

/// A node of 5.3 kB, as its list in full-node mode has it; `@NODE@` is its name.
pub fn full_node() -> Value {
    let images: Vec<Value> = (0..28)
        .map(|at| {
            json!({"names": [format!("registry.example.com/team/component-{at}@sha256:{:064x}", at * 7919)],
                "sizeBytes": 48_211_000 + at})
        })
        .collect();
    let condition = |kind: &str, status: &str, reason: &str| {
        json!({"type": kind, "status": status, "reason": reason, "message": format!("kubelet has {reason}"),
            "lastHeartbeatTime": "2026-11-20T09:14:02Z", "lastTransitionTime": "2026-11-20T09:10:00Z"})
    };
    json!({"metadata": {"name": "@NODE@", "uid": "5d1bb6a1-3b79-4e4d-8f38-50a0a2c9b7b1", "resourceVersion": "48390",
            "creationTimestamp": "2026-11-20T09:10:00Z",
            "labels": {"kubernetes.io/hostname": "@NODE@", "kubernetes.io/arch": "amd64", "kubernetes.io/os": "linux",
                "topology.kubernetes.io/region": "eu-central-1", "topology.kubernetes.io/zone": "eu-central-1a",
                "node.kubernetes.io/instance-type": "m6i.2xlarge"},
            "annotations": {"csi.volume.kubernetes.io/nodeid": "{\"driver.longhorn.io\":\"@NODE@\"}",
                "volumes.kubernetes.io/controller-managed-attach-detach": "true"}},
        "spec": {"podCIDR": "10.244.7.0/24", "podCIDRs": ["10.244.7.0/24"], "providerID": "aws:///eu-central-1a/i-0f"},
        "status": {"capacity": {"cpu": "8", "memory": "32Gi", "pods": "110", "ephemeral-storage": "209702892Ki"},
            "allocatable": {"cpu": "7910m", "memory": "30Gi", "pods": "110", "ephemeral-storage": "193262185Ki"},
            "conditions": [condition("MemoryPressure", "False", "KubeletHasSufficientMemory"),
                condition("DiskPressure", "False", "KubeletHasNoDiskPressure"),
                condition("PIDPressure", "False", "KubeletHasSufficientPID"),
                condition("Ready", "True", "KubeletReady")],
            "addresses": [{"type": "InternalIP", "address": "10.0.7.12"}, {"type": "Hostname", "address": "@NODE@"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
            "nodeInfo": {"machineID": "ec2f", "kernelVersion": "6.8.0", "osImage": "Ubuntu 24.04", "architecture": "amd64",
                "systemUUID": "ec2f", "bootID": "71f2", "containerRuntimeVersion": "containerd://2.2.0",
                "kubeletVersion": "v1.36.2", "kubeProxyVersion": "", "operatingSystem": "linux"},
            "images": images}})
}

fn node(world: &World, at: usize) -> String {
    world.node.replace("@NODE@", &node_name(at))
}

fn csi_node(_: &World, at: usize) -> String {
    let driver =
        |name: &str| json!({"name": name, "nodeID": node_name(at), "topologyKeys": ["kubernetes.io/hostname"]});
    json!({"metadata": {"name": node_name(at), "uid": uid(5, at), "resourceVersion": "900",
            "annotations": {"storage.alpha.kubernetes.io/migrated-plugins": "kubernetes.io/aws-ebs,kubernetes.io/gce-pd"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": node_name(at), "uid": uid(6, at)}]},
        "spec": {"drivers": [driver(OUR_DRIVER), driver(OTHER_DRIVER)]}})
    .to_string()
}

fn attachment(world: &World, at: usize) -> String {
    json!({"metadata": {"name": format!("csi-{:064x}", at * 7919), "uid": uid(7, at), "resourceVersion": "900",
            "creationTimestamp": "2026-11-20T09:14:02Z", "finalizers": ["external-attacher/driver-longhorn-io"],
            "annotations": {"csi.alpha.kubernetes.io/node-id": world.home(at)},
            "managedFields": managed("csi-attacher")},
        "spec": {"attacher": world.driver(at), "nodeName": world.home(at),
            "source": {"persistentVolumeName": volume_name(at)}},
        "status": {"attached": true}})
    .to_string()
}

/// Metadata of an object of Longhorn's.
fn longhorn_meta(kind: usize, at: usize, name: &str) -> Value {
    json!({"name": name, "namespace": "longhorn-system", "uid": uid(kind, at), "resourceVersion": "900",
        "creationTimestamp": "2026-11-20T09:14:02Z", "generation": 3, "finalizers": ["longhorn.io"],
        "labels": {"longhornvolume": volume_name(at), "longhornnode": node_name(at % 500),
            "setting.longhorn.io/remove-snapshots-during-filesystem-trim": "ignored"},
        "ownerReferences": [{"apiVersion": "longhorn.io/v1beta2", "kind": "Volume", "name": volume_name(at),
            "uid": uid(8, at)}],
        "managedFields": managed("longhorn-manager")})
}

fn longhorn_volume(world: &World, at: usize) -> String {
    let home = world.home(at);
    json!({"metadata": longhorn_meta(8, at, &volume_name(at)),
        "spec": {"nodeID": home, "migrationNodeID": "", "accessMode": "rwo", "migratable": false, "dataEngine": "v1",
            "dataLocality": "disabled", "image": ENGINE_IMAGE, "Standby": false, "disableFrontend": false,
            "frontend": "blockdev", "numberOfReplicas": 2, "size": "10737418240", "fromBackup": "",
            "recurringJobSelector": [], "diskSelector": [], "nodeSelector": [], "staleReplicaTimeout": 30},
        "status": {"state": "attached", "robustness": "healthy", "currentNodeID": home, "restoreRequired": false,
            "expansionRequired": false, "cloneStatus": {"state": "", "snapshot": "", "sourceVolume": ""},
            "kubernetesStatus": {"pvName": volume_name(at), "pvcName": claim_name(at), "namespace": namespace(at),
                "workloadsStatus": [{"podName": pod_name(at), "podStatus": "Running", "workloadType": "StatefulSet"}]}}})
    .to_string()
}

fn longhorn_engine(world: &World, at: usize) -> String {
    json!({"metadata": longhorn_meta(9, at, &format!("{}-e-0", volume_name(at))),
        "spec": {"volumeName": volume_name(at), "nodeID": world.home(at), "active": true, "image": ENGINE_IMAGE,
            "desireState": "running", "frontend": "blockdev", "volumeSize": "10737418240",
            "replicaAddressMap": {format!("{}-r-0", volume_name(at)): "10.244.7.3:10000"}},
        "status": {"currentState": "running", "endpoint": format!("/dev/longhorn/{}", volume_name(at)),
            "currentImage": ENGINE_IMAGE, "currentSize": "10737418240", "started": true}})
    .to_string()
}

fn longhorn_replica(world: &World, at: usize) -> String {
    let volume = at / 2;
    let node = node_name((volume * 7 + at % 2) % world.nodes);
    json!({"metadata": longhorn_meta(10, volume, &format!("{}-r-{}", volume_name(volume), at % 2)),
        "spec": {"volumeName": volume_name(volume), "nodeID": node, "failedAt": "", "active": true,
            "image": ENGINE_IMAGE, "desireState": "running", "diskID": uid(11, at), "diskPath": "/var/lib/longhorn/",
            "dataDirectoryName": format!("{}-1f2e3d4c", volume_name(volume))},
        "status": {"currentState": "running", "currentImage": ENGINE_IMAGE, "port": 10000, "started": true}})
    .to_string()
}

fn longhorn_attachment(world: &World, at: usize) -> String {
    let ticket = format!("csi-{:064x}", at * 7919);
    json!({"metadata": longhorn_meta(12, at, &volume_name(at)),
        "spec": {"volume": volume_name(at), "attachmentTickets": {&ticket: {"id": ticket, "type": "csi-attacher",
            "nodeID": world.home(at), "generation": 0,
            "parameters": {"disableFrontend": "false", "lastAttachedBy": ""}}}},
        "status": {"attachmentTicketStatuses": {&ticket: {"id": ticket, "satisfied": true, "generation": 0,
            "conditions": [{"type": "Satisfied", "status": "True", "reason": "", "message": ""}]}}}})
    .to_string()
}

fn longhorn_node(_: &World, at: usize) -> String {
    json!({"metadata": {"name": node_name(at), "namespace": "longhorn-system", "uid": uid(13, at)},
        "spec": {"allowScheduling": true},
        "status": {"conditions": [{"type": "Ready", "status": "True", "reason": "", "message": "node is ready"},
            {"type": "Schedulable", "status": "True", "reason": "", "message": ""}]}})
    .to_string()
}

fn instance_manager(_: &World, at: usize) -> String {
    json!({"metadata": {"name": format!("instance-manager-{:032x}", at * 7919), "namespace": "longhorn-system",
            "uid": uid(14, at)},
        "spec": {"nodeID": node_name(at), "type": "aio", "dataEngine": "v1"},
        "status": {"currentState": "running", "instanceEngines": {}, "instanceReplicas": {}}})
    .to_string()
}

fn engine_image(world: &World, _: usize) -> String {
    let nodes: serde_json::Map<String, Value> =
        // one node in fifty cannot run the volumes, so that a filter has something to reject
        (0..world.nodes).map(|at| (node_name(at), json!(at % 50 != 49))).collect();
    json!({"metadata": {"name": "ei-51cc7b9c", "namespace": "longhorn-system"}, "spec": {"image": ENGINE_IMAGE},
        "status": {"state": "deployed", "nodeDeploymentMap": nodes}})
    .to_string()
}

fn longhorn_version(_: &World, _: usize) -> String {
    json!({"metadata": {"name": "current-longhorn-version", "namespace": "longhorn-system"}, "value": "v1.10.0"})
        .to_string()
}

fn nothing(_: &World, _: usize) -> String {
    "{}".to_owned()
}

/// One entry of `managedFields`, of the usual length.
fn managed(manager: &str) -> Value {
    json!([{"manager": manager, "operation": "Update", "apiVersion": "v1", "time": "2026-11-20T09:14:02Z",
        "fieldsType": "FieldsV1", "fieldsV1": {
            "f:metadata": {"f:annotations": {".": {}, "f:pv.kubernetes.io/bind-completed": {}},
                "f:finalizers": {".": {}, "v:\"longhorn.io\"": {}}, "f:labels": {".": {}, "f:longhornvolume": {}}},
            "f:spec": {"f:accessModes": {}, "f:resources": {"f:requests": {".": {}, "f:storage": {}}},
                "f:storageClassName": {}, "f:volumeMode": {}, "f:volumeName": {}},
            "f:status": {"f:phase": {}, "f:capacity": {".": {}, "f:storage": {}}}}}])
}
