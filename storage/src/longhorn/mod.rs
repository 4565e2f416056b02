//! Longhorn, through its custom resources only. Its HTTP API is not used, and nothing is ever detached by force.

mod host;
mod resume;
mod store;
mod ticket;
mod version;
mod view;
mod wire;

pub use store::Store;

use crate::{
    StorageError, StorageManager,
    model::{BackupView, Gates, PreStageGate, SnapshotView, StorageRole, VolumeView},
};
use futures::future::BoxFuture;
use handoff_cluster::{Cache, ClusterCache, OnChange, Pod, Task};
use jiff::Timestamp;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use std::fmt::Debug;

/// Longhorn's CSI driver.
pub const DRIVER: &str = "driver.longhorn.io";

/// Longhorn behind [`StorageManager`].
pub struct Longhorn {
    client: Client,
    namespace: String,
    cluster: ClusterCache,
    store: Cache<Store>,
}

impl Longhorn {
    /// Longhorn in `namespace`, and the tasks that keep its cache current. `on_change` is told volume names.
    pub fn new(
        client: Client,
        namespace: &str,
        cluster: ClusterCache,
        on_change: &OnChange<String>,
    ) -> (Self, Vec<Task>) {
        let mut store = Cache::default();
        let tasks = vec![
            store.watch::<wire::Volume>(Api::namespaced(client.clone(), namespace), on_change.clone()),
            store.watch::<wire::Engine>(Api::namespaced(client.clone(), namespace), on_change.clone()),
            store.watch::<wire::Replica>(Api::namespaced(client.clone(), namespace), on_change.clone()),
            store.watch::<wire::Attachment>(Api::namespaced(client.clone(), namespace), on_change.clone()),
            store.watch::<wire::Backup>(Api::namespaced(client.clone(), namespace), on_change.clone()),
            store.watch::<wire::Snapshot>(Api::namespaced(client.clone(), namespace), on_change.clone()),
            store.watch::<wire::Node>(Api::namespaced(client.clone(), namespace), on_change.clone()),
            store.watch::<wire::InstanceManager>(Api::namespaced(client.clone(), namespace), on_change.clone()),
            store.watch::<wire::EngineImage>(Api::namespaced(client.clone(), namespace), on_change.clone()),
            store.watch::<wire::Setting>(Api::namespaced(client.clone(), namespace), on_change.clone()),
        ];
        (Self { client, namespace: namespace.to_owned(), cluster, store }, tasks)
    }

    fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }
}

impl StorageManager for Longhorn {
    fn driver(&self) -> &'static str {
        DRIVER
    }

    fn missing(&self) -> Vec<&'static str> {
        self.store.missing()
    }

    fn gates(&self) -> Gates {
        version::gates(&self.store.read())
    }

    fn volume(&self, handle: &str) -> Option<VolumeView> {
        view::volume(&self.store.read(), handle)
    }

    fn backups(&self, handle: &str) -> Vec<BackupView> {
        self.store.read().backups_of(handle).filter_map(view::backup).collect()
    }

    fn snapshot(&self, name: &str) -> Option<SnapshotView> {
        self.store.read().snapshots.get(name).map(view::snapshot)
    }

    fn can_host(&self, handle: &str, node: &str) -> Result<(), String> {
        if !self.cluster.read().has_driver(node, DRIVER) {
            return Err(format!("the CSI driver {DRIVER} is not registered on {node}"));
        }
        host::can_host(&self.store.read(), handle, node)
    }

    fn may_prestage(&self, handle: &str, node: &str) -> Result<(), String> {
        self.can_host(handle, node)?;
        let store = self.store.read();
        let gates = version::gates(&store);
        if gates.prestage == PreStageGate::Off {
            return Err(format!("pre-staging was never verified on Longhorn {}", gates.version));
        }
        ticket::may_prestage(&store, handle)
    }

    fn prestages(&self) -> Vec<(String, String)> {
        ticket::ours(&self.store.read())
    }

    fn role_of(&self, pod: &Pod) -> Option<StorageRole> {
        (pod.key.namespace == self.namespace).then(|| host::role_of(pod)).flatten()
    }

    fn place_prestage(&self, handle: &str, node: &str, version: &str) -> BoxFuture<'_, Result<(), StorageError>> {
        let (handle, node, version) = (handle.to_owned(), node.to_owned(), version.to_owned());
        Box::pin(async move {
            self.may_prestage(&handle, &node).map_err(StorageError::Refused)?;
            let Some(patch) = ticket::place(&self.store.read(), &handle, &node, &version) else { return Ok(()) };
            ticket::send(&self.api(), &handle, patch).await
        })
    }

    fn withdraw_prestage(&self, handle: &str, node: &str) -> BoxFuture<'_, Result<bool, StorageError>> {
        let (handle, node) = (handle.to_owned(), node.to_owned());
        Box::pin(async move { ticket::withdraw(&self.api(), &handle, &node).await })
    }

    fn probe(&self, backup: &str, now: Timestamp) -> BoxFuture<'_, Result<(), StorageError>> {
        let backup = backup.to_owned();
        Box::pin(async move { resume::probe(&self.api(), &backup, now).await })
    }

    fn reset(&self, backup: &str, resource_version: &str, node: &str) -> BoxFuture<'_, Result<(), StorageError>> {
        let (backup, version, node) = (backup.to_owned(), resource_version.to_owned(), node.to_owned());
        Box::pin(async move { resume::reset(&self.api(), &backup, &version, &node).await })
    }
}

/// Turns an API error into ours.
fn api_error(what: String, source: kube::Error) -> StorageError {
    match &source {
        kube::Error::Api(status) if status.is_conflict() => StorageError::Stale { what },
        _ => StorageError::Api { what, source },
    }
}
