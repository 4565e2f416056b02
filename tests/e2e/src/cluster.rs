//! The cluster: objects as plain JSON, so that one small set of calls serves all kinds.

use anyhow::{Context, Result, bail};
use kube::{
    Api, Client,
    api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::Value;
use std::time::{Duration, Instant};

/// A kind of objects.
#[derive(Debug, PartialEq, Eq)]
pub struct Kind {
    group: &'static str,
    version: &'static str,
    name: &'static str,
    plural: &'static str,
}

macro_rules! kinds {
    ($($name:ident = $group:literal $version:literal $kind:literal $plural:literal;)*) => {
        $(#[allow(missing_docs)]
        pub static $name: Kind = Kind { group: $group, version: $version, name: $kind, plural: $plural };)*
    };
}

kinds! {
    NAMESPACE = "" "v1" "Namespace" "namespaces";
    NODE = "" "v1" "Node" "nodes";
    POD = "" "v1" "Pod" "pods";
    CLAIM = "" "v1" "PersistentVolumeClaim" "persistentvolumeclaims";
    VOLUME = "" "v1" "PersistentVolume" "persistentvolumes";
    EVENT = "" "v1" "Event" "events";
    BUDGET = "policy" "v1" "PodDisruptionBudget" "poddisruptionbudgets";
    DEPLOYMENT = "apps" "v1" "Deployment" "deployments";
    STATEFULSET = "apps" "v1" "StatefulSet" "statefulsets";
    LEASE = "coordination.k8s.io" "v1" "Lease" "leases";
    STORAGE_CLASS = "storage.k8s.io" "v1" "StorageClass" "storageclasses";
    CSI_NODE = "storage.k8s.io" "v1" "CSINode" "csinodes";
    ATTACHMENT = "storage.k8s.io" "v1" "VolumeAttachment" "volumeattachments";
    MUTATING = "admissionregistration.k8s.io" "v1" "MutatingWebhookConfiguration" "mutatingwebhookconfigurations";
    VALIDATING = "admissionregistration.k8s.io" "v1" "ValidatingWebhookConfiguration" "validatingwebhookconfigurations";
    PRIORITY_CLASS = "scheduling.k8s.io" "v1" "PriorityClass" "priorityclasses";
    SNAPSHOT_CLASS = "snapshot.storage.k8s.io" "v1" "VolumeSnapshotClass" "volumesnapshotclasses";
    SNAPSHOT = "snapshot.storage.k8s.io" "v1" "VolumeSnapshot" "volumesnapshots";
    SNAPSHOT_CONTENT = "snapshot.storage.k8s.io" "v1" "VolumeSnapshotContent" "volumesnapshotcontents";
    NODE_CLAIM = "karpenter.sh" "v1" "NodeClaim" "nodeclaims";
    HANDOFF = "volumehandoff.io" "v1alpha1" "VolumeHandoff" "volumehandoffs";
    LH_VOLUME = "longhorn.io" "v1beta2" "Volume" "volumes";
    LH_ENGINE = "longhorn.io" "v1beta2" "Engine" "engines";
    LH_ATTACHMENT = "longhorn.io" "v1beta2" "VolumeAttachment" "volumeattachments";
    LH_BACKUP = "longhorn.io" "v1beta2" "Backup" "backups";
    LH_BACKUP_VOLUME = "longhorn.io" "v1beta2" "BackupVolume" "backupvolumes";
    LH_BACKUP_TARGET = "longhorn.io" "v1beta2" "BackupTarget" "backuptargets";
    LH_RECURRING_JOB = "longhorn.io" "v1beta2" "RecurringJob" "recurringjobs";
    LH_REPLICA = "longhorn.io" "v1beta2" "Replica" "replicas";
    LH_SNAPSHOT = "longhorn.io" "v1beta2" "Snapshot" "snapshots";
    LH_NODE = "longhorn.io" "v1beta2" "Node" "nodes";
    LH_INSTANCE_MANAGER = "longhorn.io" "v1beta2" "InstanceManager" "instancemanagers";
    LH_SETTING = "longhorn.io" "v1beta2" "Setting" "settings";
}

impl Kind {
    /// As the client wants it.
    pub fn resource(&self) -> ApiResource {
        let api_version =
            if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) };
        ApiResource {
            group: self.group.into(),
            version: self.version.into(),
            api_version,
            kind: self.name.into(),
            plural: self.plural.into(),
        }
    }
}

/// Reads from JSON without ceremony: what is absent or of another type is empty.
pub trait Read {
    /// The text at a JSON pointer.
    fn text(&self, pointer: &str) -> &str;
    /// The list at a JSON pointer.
    fn items(&self, pointer: &str) -> &[Value];
    /// Whether something but null is there.
    fn has(&self, pointer: &str) -> bool;
    /// The status of a condition in `status.conditions`.
    fn condition(&self, kind: &str) -> &str;
    /// `metadata.name`.
    fn name(&self) -> &str {
        self.text("/metadata/name")
    }
}

impl Read for Value {
    fn text(&self, pointer: &str) -> &str {
        self.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    fn items(&self, pointer: &str) -> &[Value] {
        self.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
    }

    fn has(&self, pointer: &str) -> bool {
        self.pointer(pointer).is_some_and(|v| !v.is_null())
    }

    fn condition(&self, kind: &str) -> &str {
        let condition = self.items("/status/conditions").iter().find(|c| c.text("/type") == kind);
        condition.map_or("", |c| c.text("/status"))
    }
}

/// A client, and where Longhorn is.
#[derive(Clone)]
pub struct Cluster {
    /// The client.
    pub client: Client,
    /// Longhorn's namespace.
    pub longhorn: String,
}

impl Cluster {
    /// Connects to the cluster of KUBECONFIG.
    pub async fn connect(longhorn: &str) -> Result<Self> {
        let client = Client::try_default().await.context("no cluster (is KUBECONFIG set?)")?;
        let version = client.apiserver_version().await.context("the API server of KUBECONFIG does not answer")?;
        eprintln!("Kubernetes {}", version.git_version);
        Ok(Self { client, longhorn: longhorn.to_owned() })
    }

    /// The calls of one kind; an empty namespace is none, or all.
    pub fn api(&self, kind: &Kind, namespace: &str) -> Api<DynamicObject> {
        let resource = kind.resource();
        match namespace {
            "" => Api::all_with(self.client.clone(), &resource),
            _ => Api::namespaced_with(self.client.clone(), namespace, &resource),
        }
    }

    /// One object, if it is there.
    pub async fn find(&self, kind: &Kind, namespace: &str, name: &str) -> Result<Option<Value>> {
        let found = self.api(kind, namespace).get_opt(name).await;
        let found = found.with_context(|| format!("cannot read {} {name}", kind.name))?;
        found.map(|object| serde_json::to_value(object).context("unreadable object")).transpose()
    }

    /// One object that must be there.
    pub async fn get(&self, kind: &Kind, namespace: &str, name: &str) -> Result<Value> {
        self.find(kind, namespace, name).await?.with_context(|| format!("there is no {} {name}", kind.name))
    }

    /// All objects that match a label selector.
    pub async fn list(&self, kind: &Kind, namespace: &str, labels: &str) -> Result<Vec<Value>> {
        let list = self.api(kind, namespace).list(&ListParams::default().labels(labels)).await;
        let list = list.with_context(|| format!("cannot list {}", kind.plural))?;
        list.into_iter().map(|object| serde_json::to_value(object).context("unreadable object")).collect()
    }

    /// Creates or updates an object as written.
    pub async fn apply(&self, kind: &Kind, object: &Value) -> Result<()> {
        let (namespace, name) = (object.text("/metadata/namespace"), object.name());
        let how = PatchParams::apply("handoff-e2e").force();
        let done = self.api(kind, namespace).patch(name, &how, &Patch::Apply(object)).await;
        done.with_context(|| format!("cannot apply {} {name}", kind.name))?;
        Ok(())
    }

    /// Creates an object that must not be there yet.
    pub async fn create(&self, kind: &Kind, object: Value) -> Result<Value> {
        let (namespace, name) = (object.text("/metadata/namespace").to_owned(), object.name().to_owned());
        let object: DynamicObject = serde_json::from_value(object).context("bad object")?;
        let created = self.api(kind, &namespace).create(&PostParams::default(), &object).await;
        let created = created.with_context(|| format!("cannot create {} {name}", kind.name))?;
        serde_json::to_value(created).context("unreadable object")
    }

    /// Merges a patch into an object.
    pub async fn merge(&self, kind: &Kind, namespace: &str, name: &str, patch: &Value) -> Result<()> {
        let done = self.api(kind, namespace).patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
        done.with_context(|| format!("cannot patch {} {name}", kind.name))?;
        Ok(())
    }

    /// Merges a patch into an object's status.
    pub async fn merge_status(&self, kind: &Kind, namespace: &str, name: &str, patch: &Value) -> Result<()> {
        let done = self.api(kind, namespace).patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await;
        done.with_context(|| format!("cannot patch the status of {} {name}", kind.name))?;
        Ok(())
    }

    /// Deletes an object; one that is not there is no error.
    pub async fn delete(&self, kind: &Kind, namespace: &str, name: &str) -> Result<()> {
        match self.api(kind, namespace).delete(name, &DeleteParams::background()).await {
            Ok(_) => Ok(()),
            Err(error) if is_not_found(&error) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("cannot delete {} {name}", kind.name)),
        }
    }

    /// Deletes an object and waits until it is gone.
    pub async fn remove(&self, kind: &Kind, namespace: &str, name: &str, limit: Duration) -> Result<()> {
        self.delete(kind, namespace, name).await?;
        until(limit, &format!("{} {name} to go", kind.name), async || {
            Ok(self.find(kind, namespace, name).await?.map(|_| "still there".to_owned()))
        })
        .await
    }

    /// The value of a Longhorn setting.
    pub async fn setting(&self, name: &str) -> Result<String> {
        Ok(self.get(&LH_SETTING, &self.longhorn, name).await?.text("/value").to_owned())
    }
}

/// Whether the object of a call is not there.
pub fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// Repeats a check until it finds nothing missing. Every 30 s it says what is.
pub async fn until(
    limit: Duration,
    what: &str,
    mut missing: impl AsyncFnMut() -> Result<Option<String>>,
) -> Result<()> {
    let start = Instant::now();
    let mut said = start;
    loop {
        let Some(missing) = missing().await? else { return Ok(()) };
        if start.elapsed() > limit {
            bail!("waited {} s for {what}: {missing}", limit.as_secs());
        }
        if said.elapsed() > Duration::from_secs(30) {
            said = Instant::now();
            eprintln!("  waiting for {what}: {missing}");
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
