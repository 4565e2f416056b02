//! Slim records, and the wire types they are read from. The wire types hold only the fields that are used, so that
//! the rest of an object is skipped while it is parsed.

use crate::{meta::slim_meta, quantity, settings::Settings};
use jiff::Timestamp;
use k8s_openapi::{
    api::{
        core::v1::{Node as FullNode, PersistentVolume, PersistentVolumeClaim, Pod as FullPod},
        storage::v1::{CSINode as FullCsiNode, VolumeAttachment as FullAttachment},
    },
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::ObjectMeta},
};
use kube::Resource;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// Namespace; empty for cluster-scoped objects.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl ObjectKey {
    /// The key of `namespace/name`.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl std::fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A pod, as far as moving its volumes is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Namespace and name.
    pub key: ObjectKey,
    /// UID.
    pub uid: String,
    /// Node it is bound to.
    pub node: Option<String>,
    /// It has a deletion timestamp.
    pub terminating: bool,
    /// Phase is Succeeded or Failed: it will never use its volumes again.
    pub finished: bool,
    /// Condition Ready is True.
    pub ready: bool,
    /// Creation time.
    pub created: Option<Timestamp>,
    /// Names of the claims it mounts, those of ephemeral volumes included.
    pub claims: Vec<String>,
    /// Kind of the controlling owner, e.g. `StatefulSet`.
    pub owner_kind: Option<String>,
    /// Its labels, without those that are different for each pod of a set; needed to recognise the storage manager's
    /// own pods.
    pub labels: BTreeMap<String, String>,
    /// Annotations of ours.
    pub settings: Settings,
}

impl Pod {
    /// It may (still or soon) use its volumes, and nothing has asked it to leave.
    pub fn stays(&self) -> bool {
        !self.terminating && !self.finished
    }
}

/// A `PersistentVolumeClaim`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Namespace and name.
    pub key: ObjectKey,
    /// UID.
    pub uid: String,
    /// Name of the bound `PersistentVolume`.
    pub volume: Option<String>,
    /// Name of its `StorageClass`.
    pub class: Option<String>,
    /// Bytes it asks for.
    pub requested_bytes: Option<u64>,
    /// Annotations of ours.
    pub settings: Settings,
}

/// A `PersistentVolume` of a CSI driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Name of the `PersistentVolume`.
    pub name: String,
    /// CSI driver.
    pub driver: String,
    /// CSI volume handle.
    pub handle: String,
    /// The claim it is bound to.
    pub claim: Option<ObjectKey>,
    /// More than one node may write (`ReadWriteMany`) or read (`ReadOnlyMany`): Kubernetes does not wait for a detach.
    pub shared: bool,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // each is a fact of its own that Kubernetes states
pub struct Node {
    /// Name.
    pub name: String,
    /// It is cordoned (`spec.unschedulable`).
    pub cordoned: bool,
    /// Condition Ready is True.
    pub ready: bool,
    /// It has a taint that keeps pods away unless they tolerate it.
    pub tainted: bool,
    /// A taint says that it is going away or out of service, whatever a pod tolerates.
    pub leaving: bool,
}

impl Node {
    /// Somebody empties it: `kubectl drain` cordons, cluster-autoscaler and Karpenter taint before they evict.
    pub fn is_emptied(&self) -> bool {
        self.cordoned || self.leaving
    }
}

/// Taints of nodes that are about to go or cannot be reached: Kubernetes' own, cluster-autoscaler's (the second only
/// asks to prefer other nodes), and Karpenter's in its present and its former spelling.
const LEAVING: [&str; 8] = [
    "node.kubernetes.io/unreachable",
    "node.kubernetes.io/out-of-service",
    "node.kubernetes.io/unschedulable",
    "node.cloudprovider.kubernetes.io/shutdown",
    "ToBeDeletedByClusterAutoscaler",
    "DeletionCandidateOfClusterAutoscaler",
    "karpenter.sh/disrupted",
    "karpenter.sh/disruption",
];

/// The drivers registered on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CsiNode {
    /// Node name.
    pub name: String,
    /// CSI drivers whose node plugin is registered.
    pub drivers: Vec<String>,
}

/// A `storage.k8s.io` `VolumeAttachment`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Name.
    pub name: String,
    /// Node.
    pub node: String,
    /// Name of the `PersistentVolume`.
    pub volume: String,
    /// `status.attached`.
    pub attached: bool,
    /// It has a deletion timestamp.
    pub deleting: bool,
    /// Message of `status.attachError`.
    pub attach_error: Option<String>,
    /// Creation time.
    pub created: Option<Timestamp>,
}

impl Attachment {
    /// Asked for, and not done yet.
    pub fn is_under_way(&self) -> bool {
        !self.attached && !self.deleting
    }
}

fn time(t: Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>) -> Option<Timestamp> {
    t.map(|t| t.0)
}

pub(crate) fn name_of(meta: &ObjectMeta) -> String {
    meta.name.clone().unwrap_or_default()
}

fn key_of(meta: &ObjectMeta) -> ObjectKey {
    ObjectKey::new(meta.namespace.clone().unwrap_or_default(), name_of(meta))
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct WireCondition {
    r#type: String,
    status: String,
}

fn is_true(conditions: &[WireCondition], wanted: &str) -> bool {
    conditions.iter().any(|c| c.r#type == wanted && c.status == "True")
}

#[derive(Resource, Clone, Debug, Deserialize)]
#[resource(inherit = FullPod)]
pub(crate) struct WirePod {
    #[serde(default, deserialize_with = "slim_meta")]
    metadata: ObjectMeta,
    #[serde(default)]
    spec: WirePodSpec,
    #[serde(default)]
    status: WirePodStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WirePodSpec {
    node_name: Option<String>,
    volumes: Option<Vec<WirePodVolume>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WirePodVolume {
    name: String,
    persistent_volume_claim: Option<WireClaimSource>,
    ephemeral: Option<serde::de::IgnoredAny>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireClaimSource {
    claim_name: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct WirePodStatus {
    phase: Option<String>,
    conditions: Option<Vec<WireCondition>>,
}

/// Labels by which controllers tell one of their pods from the next. Nothing is selected by them, and with them no two
/// pods of a set would have the same labels.
const LABELS_OF_ONE_POD: [&str; 6] = [
    "apps.kubernetes.io/pod-index",
    "statefulset.kubernetes.io/pod-name",
    "batch.kubernetes.io/controller-uid",
    "batch.kubernetes.io/job-completion-index",
    "batch.kubernetes.io/job-name",
    "controller-uid",
];

impl From<WirePod> for Pod {
    fn from(w: WirePod) -> Self {
        let key = key_of(&w.metadata);
        let claims = w.spec.volumes.unwrap_or_default().into_iter().filter_map(|v| match v {
            WirePodVolume { persistent_volume_claim: Some(c), .. } => Some(c.claim_name),
            // the claim of an ephemeral volume is named after pod and volume (core/v1 EphemeralVolumeSource)
            WirePodVolume { ephemeral: Some(_), name, .. } => Some(format!("{}-{name}", key.name)),
            _ => None,
        });
        let claims = claims.collect();
        let owners = w.metadata.owner_references.unwrap_or_default();
        let mut labels = w.metadata.labels.unwrap_or_default();
        labels.retain(|label, _| !LABELS_OF_ONE_POD.contains(&label.as_str()));
        Self {
            claims,
            uid: w.metadata.uid.unwrap_or_default(),
            node: w.spec.node_name.filter(|n| !n.is_empty()),
            terminating: w.metadata.deletion_timestamp.is_some(),
            finished: matches!(w.status.phase.as_deref(), Some("Succeeded" | "Failed")),
            ready: is_true(w.status.conditions.as_deref().unwrap_or_default(), "Ready"),
            created: time(w.metadata.creation_timestamp.as_ref()),
            owner_kind: owners.into_iter().find(|o| o.controller == Some(true)).map(|o| o.kind),
            settings: Settings::of(w.metadata.annotations.as_ref()),
            labels,
            key,
        }
    }
}

#[derive(Resource, Clone, Debug, Deserialize)]
#[resource(inherit = PersistentVolumeClaim)]
pub(crate) struct WireClaim {
    #[serde(default, deserialize_with = "slim_meta")]
    metadata: ObjectMeta,
    #[serde(default)]
    spec: WireClaimSpec,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WireClaimSpec {
    volume_name: Option<String>,
    storage_class_name: Option<String>,
    resources: Option<WireResources>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct WireResources {
    requests: Option<WireRequests>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct WireRequests {
    storage: Option<Quantity>,
}

/// A claim from before storage classes were a field names its class here; the API still honours it.
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

impl From<WireClaim> for Claim {
    fn from(w: WireClaim) -> Self {
        let annotations = w.metadata.annotations.as_ref();
        let class = annotations.and_then(|a| a.get(CLASS_ANNOTATION).cloned()).or(w.spec.storage_class_name);
        let requests = w.spec.resources.and_then(|r| r.requests);
        Self {
            key: key_of(&w.metadata),
            settings: Settings::of(annotations),
            uid: w.metadata.uid.unwrap_or_default(),
            volume: w.spec.volume_name.filter(|v| !v.is_empty()),
            class: class.filter(|c| !c.is_empty()),
            requested_bytes: requests.and_then(|r| r.storage).and_then(|q| quantity::parse(&q.0)),
        }
    }
}

#[derive(Resource, Clone, Debug, Deserialize)]
#[resource(inherit = PersistentVolume)]
pub(crate) struct WireVolume {
    #[serde(default, deserialize_with = "slim_meta")]
    metadata: ObjectMeta,
    #[serde(default)]
    spec: WireVolumeSpec,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WireVolumeSpec {
    csi: Option<WireCsiSource>,
    claim_ref: Option<WireClaimRef>,
    access_modes: Option<Vec<String>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireCsiSource {
    driver: String,
    volume_handle: String,
}

#[derive(Clone, Debug, Deserialize)]
struct WireClaimRef {
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    name: String,
}

impl WireVolume {
    /// `None` for volumes that are not of a CSI driver.
    pub(crate) fn slim(self) -> Option<Volume> {
        let csi = self.spec.csi?;
        Some(Volume {
            name: name_of(&self.metadata),
            driver: csi.driver,
            handle: csi.volume_handle,
            claim: self.spec.claim_ref.map(|c| ObjectKey::new(c.namespace, c.name)),
            shared: (self.spec.access_modes.unwrap_or_default().iter()).any(|m| m.ends_with("Many")),
        })
    }
}

#[derive(Resource, Clone, Debug, Deserialize)]
#[resource(inherit = FullNode)]
pub(crate) struct WireNode {
    #[serde(default, deserialize_with = "slim_meta")]
    metadata: ObjectMeta,
    #[serde(default)]
    spec: WireNodeSpec,
    #[serde(default)]
    status: WireNodeStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct WireNodeSpec {
    unschedulable: bool,
    taints: Option<Vec<WireTaint>>,
}

#[derive(Clone, Debug, Deserialize)]
struct WireTaint {
    #[serde(default)]
    key: String,
    effect: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct WireNodeStatus {
    conditions: Option<Vec<WireCondition>>,
}

impl From<WireNode> for Node {
    fn from(w: WireNode) -> Self {
        Self {
            name: name_of(&w.metadata),
            cordoned: w.spec.unschedulable,
            tainted: w.spec.taints.iter().flatten().any(|t| t.effect != "PreferNoSchedule"),
            leaving: w.spec.taints.iter().flatten().any(|t| LEAVING.contains(&t.key.as_str())),
            ready: is_true(w.status.conditions.as_deref().unwrap_or_default(), "Ready"),
        }
    }
}

#[derive(Resource, Clone, Debug, Deserialize)]
#[resource(inherit = FullCsiNode)]
pub(crate) struct WireCsiNode {
    #[serde(default, deserialize_with = "slim_meta")]
    metadata: ObjectMeta,
    #[serde(default)]
    spec: WireCsiNodeSpec,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct WireCsiNodeSpec {
    drivers: Option<Vec<WireCsiDriver>>,
}

#[derive(Clone, Debug, Deserialize)]
struct WireCsiDriver {
    name: String,
}

impl From<WireCsiNode> for CsiNode {
    fn from(w: WireCsiNode) -> Self {
        Self {
            name: name_of(&w.metadata),
            drivers: w.spec.drivers.unwrap_or_default().into_iter().map(|d| d.name).collect(),
        }
    }
}

#[derive(Resource, Clone, Debug, Deserialize)]
#[resource(inherit = FullAttachment)]
pub(crate) struct WireAttachment {
    #[serde(default, deserialize_with = "slim_meta")]
    metadata: ObjectMeta,
    spec: WireAttachmentSpec,
    #[serde(default)]
    status: WireAttachmentStatus,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireAttachmentSpec {
    node_name: String,
    source: WireAttachmentSource,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireAttachmentSource {
    persistent_volume_name: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WireAttachmentStatus {
    attached: bool,
    attach_error: Option<WireAttachError>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct WireAttachError {
    message: Option<String>,
}

impl WireAttachment {
    /// `None` for attachments of inline volumes, which have no `PersistentVolume`.
    pub(crate) fn slim(self) -> Option<Attachment> {
        Some(Attachment {
            name: name_of(&self.metadata),
            node: self.spec.node_name,
            volume: self.spec.source.persistent_volume_name?,
            attached: self.status.attached,
            deleting: self.metadata.deletion_timestamp.is_some(),
            attach_error: self.status.attach_error.map(|e| e.message.unwrap_or_default()),
            created: time(self.metadata.creation_timestamp.as_ref()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_keeps_its_claims_and_state() {
        let wire: WirePod = serde_json::from_value(json!({
            "metadata": {"namespace": "ns", "name": "db-0", "uid": "u", "deletionTimestamp": "2026-01-01T00:00:00Z",
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db", "uid": "o", "controller": true}]},
            "spec": {"nodeName": "a", "invented": {"x": 1}, "volumes": [
                {"name": "data", "persistentVolumeClaim": {"claimName": "data-db-0"}},
                {"name": "tmp", "ephemeral": {"volumeClaimTemplate": {}}},
                {"name": "cfg", "configMap": {"name": "c"}}]},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
        }))
        .unwrap();
        let pod = Pod::from(wire);
        assert_eq!(pod.claims, ["data-db-0", "db-0-tmp"]);
        assert!(pod.terminating && pod.ready && !pod.finished && !pod.stays());
        assert_eq!(pod.owner_kind.as_deref(), Some("StatefulSet"));
    }

    #[test]
    fn a_claim_says_what_it_wants() {
        let wire: WireClaim = serde_json::from_value(json!({
            "metadata": {"namespace": "ns", "name": "c", "uid": "u", "annotations": {"volumehandoff.io/mode": "disabled"}},
            "spec": {"storageClassName": "fast", "volumeName": "", "resources": {"requests": {"storage": "10Gi"}}}
        }))
        .unwrap();
        let claim = Claim::from(wire);
        assert_eq!((claim.class.as_deref(), claim.requested_bytes, claim.volume), (Some("fast"), Some(10 << 30), None));
        assert!(!claim.settings.is_empty());
        let wire: WireClaim = serde_json::from_value(json!({
            "metadata": {"name": "c", "annotations": {CLASS_ANNOTATION: "old"}},
            "spec": {"storageClassName": null, "resources": {}}
        }))
        .unwrap();
        let claim = Claim::from(wire);
        assert_eq!((claim.class.as_deref(), claim.requested_bytes), (Some("old"), None));
    }

    #[test]
    fn volumes_without_csi_are_not_ours() {
        let wire: WireVolume =
            serde_json::from_value(json!({"metadata": {"name": "pv"}, "spec": {"hostPath": {"path": "/x"}}})).unwrap();
        assert_eq!(wire.slim(), None);
        let wire: WireVolume = serde_json::from_value(json!({"metadata": {"name": "pv"}, "spec": {
            "csi": {"driver": "d", "volumeHandle": "h"}, "accessModes": ["ReadWriteMany"],
            "claimRef": {"namespace": "ns", "name": "c"}}}))
        .unwrap();
        let volume = wire.slim().unwrap();
        assert!(volume.shared);
        assert_eq!(volume.claim, Some(ObjectKey::new("ns", "c")));
    }
}
