//! Longhorn, through its custom resources only. Its HTTP API is not used, and nothing is ever detached by force.

mod host;
#[cfg(test)]
mod hosting_tests;
mod resume;
mod store;
mod ticket;
mod version;
mod view;
mod wire;

pub use store::{StorageChange, Store};
pub use version::gates_of;

use crate::{
    Hosting, NewVolume, StorageError, StorageManager,
    model::{BackupView, Gates, HostTable, PreStageGate, SnapshotView, StorageRole, VolumeView},
};
use futures::future::BoxFuture;
use handoff_cluster::{Cache, ClusterCache, OnChange, Pod, Task, Watched, settings::ALLOW_SNAPSHOT_DELETION};
use hashbrown::HashMap;
use jiff::Timestamp;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    sync::{Arc, Mutex, PoisonError},
};

/// Longhorn's CSI driver.
pub const DRIVER: &str = "driver.longhorn.io";

/// Longhorn behind [`StorageManager`].
pub struct Longhorn {
    client: Client,
    namespace: String,
    cluster: ClusterCache,
    store: Cache<Store>,
    tables: Mutex<Tables>,
}

/// What is known of hosts, for each engine image and data engine, until something changes.
#[derive(Default)]
struct Tables {
    /// Of the store and of the drivers that are registered.
    versions: (u64, u64),
    tables: HashMap<(String, String), Arc<HostTable>>,
}

impl Longhorn {
    /// Longhorn in `namespace`, and the tasks that keep its cache current. `on_change` is told what changed.
    pub fn new(
        client: Client,
        namespace: &str,
        cluster: ClusterCache,
        on_change: &OnChange<StorageChange>,
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
            store.watch::<wire::BackupTarget>(Api::namespaced(client.clone(), namespace), on_change.clone()),
            store.watch::<wire::Setting>(Api::namespaced(client.clone(), namespace), on_change.clone()),
        ];
        (Self { client, namespace: namespace.to_owned(), cluster, store, tables: Mutex::default() }, tasks)
    }

    /// Which nodes can host volumes of one kind. Made anew only when something about hosts has changed: thousands of
    /// nodes are asked about for each pod.
    fn table(&self, store: &Store, image: &str, engine: &str) -> Arc<HostTable> {
        let index = self.cluster.read();
        let versions = (store.hosts_version(), index.drivers_version());
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        if tables.versions != versions {
            *tables = Tables { versions, tables: HashMap::new() };
        }
        let table = tables.tables.entry((image.to_owned(), engine.to_owned()));
        let make = || Arc::new(host::table(store, |node| index.has_driver(node, DRIVER), DRIVER, image, engine));
        table.or_insert_with(make).clone()
    }

    fn hosting_in(&self, store: &Store, handle: &str) -> Option<Hosting> {
        let spec = &store.volumes.get(handle)?.spec;
        let strict = spec.data_locality == "strict-local";
        let only_on = strict.then(|| store.replicas_of(handle).map(|r| r.spec.node_id.clone()).collect());
        let table = self.table(store, &spec.image, host::data_engine(&spec.data_engine));
        Some(Hosting { volume: handle.to_owned(), table, only_on, new: None })
    }

    /// Longhorn as a ready store shows it, which nothing keeps current: for tests of the layers above.
    pub fn fixed(client: Client, namespace: &str, cluster: ClusterCache, store: Store) -> Self {
        let (namespace, store) = (namespace.to_owned(), Cache::fixed(store));
        Self { client, namespace, cluster, store, tables: Mutex::default() }
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

    fn stale(&self) -> Vec<&'static str> {
        self.store.stale()
    }

    fn watches(&self) -> Vec<Watched> {
        self.store.watches().to_vec()
    }

    fn gates(&self) -> Gates {
        version::gates(&self.store.read())
    }

    fn volume(&self, handle: &str) -> Option<VolumeView> {
        view::volume(&self.store.read(), handle)
    }

    fn backups(&self, handle: &str) -> Vec<BackupView> {
        let store = self.store.read();
        store.backups_of(handle).filter_map(|b| view::backup(&store, b)).collect()
    }

    fn snapshot(&self, name: &str) -> Option<SnapshotView> {
        self.store.read().snapshots.get(name).map(view::snapshot)
    }

    fn can_host(&self, handle: &str, node: &str) -> Result<(), String> {
        let store = self.store.read();
        let volume = store.volumes.get(handle).ok_or_else(|| format!("Longhorn has no volume {handle}"))?;
        if volume.spec.data_engine != "v2" && host::image_of(&store, &volume.spec.image).is_none() {
            return Err(format!("engine image {} is unknown", volume.spec.image));
        }
        self.hosting_in(&store, handle).map_or(Ok(()), |hosting| hosting.check(node))
    }

    fn hosting(&self, handle: &str) -> Option<Hosting> {
        let store = self.store.read();
        let spec = &store.volumes.get(handle)?.spec;
        // an image that our watch has not shown yet says nothing about nodes, nor does an empty list of nodes
        let known = spec.data_engine == "v2" || host::image_of(&store, &spec.image).is_some();
        if !known || store.nodes.is_empty() {
            return None;
        }
        self.hosting_in(&store, handle)
    }

    fn hosting_of_new(&self, claim: &str, bytes: u64, parameters: &BTreeMap<String, String>) -> Option<Hosting> {
        let store = self.store.read();
        if store.nodes.is_empty() {
            return None;
        }
        let parameter = |name: &str| parameters.get(name).map_or("", String::as_str);
        let setting = |name: &str| store.settings.get(name).map_or("", |s| s.value.as_str());
        let engine = host::data_engine(parameter("dataEngine"));
        let image = setting("default-engine-image");
        if engine != "v2" && host::image_of(&store, image).is_none() {
            return None;
        }
        let locality =
            Some(parameter("dataLocality")).filter(|l| !l.is_empty()).unwrap_or(setting("default-data-locality"));
        // tags narrow down the disks in ways that are not looked at here
        let tagged = ["diskSelector", "nodeSelector"].iter().any(|tags| !parameter(tags).is_empty());
        let has_room =
            |(name, node): (&String, &wire::Node)| (host::room(&store, node, engine) >= bytes).then(|| name.clone());
        let room_on = (!tagged).then(|| store.nodes.iter().filter_map(has_room).collect());
        let new = Some(NewVolume { bytes, room_on, must_be_local: locality == "strict-local" });
        Some(Hosting { volume: claim.to_owned(), table: self.table(&store, image, engine), only_on: None, new })
    }

    fn busy(&self) -> Vec<String> {
        let store = self.store.read();
        let busy = store.backups.values().filter(|b| view::in_flight(b)).filter_map(Store::volume_of);
        busy.collect::<BTreeSet<_>>().into_iter().collect()
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

    fn guards(&self, node: &str) -> bool {
        host::is_guarded(&self.store.read(), node)
    }

    fn allows_snapshot_deletion(&self, handle: &str) -> bool {
        let annotation = |v: &wire::Volume| v.metadata.annotations.as_ref()?.get(ALLOW_SNAPSHOT_DELETION).cloned();
        self.store.read().volumes.get(handle).and_then(annotation).is_some_and(|value| value == "true")
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
        Box::pin(async move { ticket::withdraw(&self.api(), &handle, &ticket::id(&handle, &node)).await })
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

/// Our pre-stages that nobody has adopted, of a Longhorn that nobody watches: (volume, ticket, node).
pub async fn prestages(client: &Client, namespace: &str) -> Result<Vec<(String, String, String)>, StorageError> {
    ticket::list(&Api::namespaced(client.clone(), namespace)).await
}

/// Takes the request of this id back, if it still is ours. `false`: adopted or gone.
pub async fn withdraw(client: &Client, namespace: &str, volume: &str, ticket: &str) -> Result<bool, StorageError> {
    ticket::withdraw(&Api::namespaced(client.clone(), namespace), volume, ticket).await
}

/// Turns an API error into ours.
fn api_error(what: String, source: kube::Error) -> StorageError {
    match &source {
        kube::Error::Api(status) if status.is_conflict() => StorageError::Stale { what },
        _ => StorageError::Api { what, source },
    }
}
