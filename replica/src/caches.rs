//! The caches and what is queued when they change.

use handoff_cluster::{Cache, Change, ClusterCache, OnChange, Task};
use handoff_coordinator::{api::VolumeHandoff, handoffs::Handoffs, queue::Queue};
use handoff_storage::longhorn::{DRIVER, Longhorn, StorageChange};
use kube::{Api, Client};
use std::sync::Arc;
use tokio::sync::Notify;

/// The caches and the tasks that keep them current. Whatever changes, the volume concerned is queued.
pub struct Caches {
    /// Volumes to look at.
    pub queue: Arc<Queue>,
    /// The Kubernetes side.
    pub cluster: ClusterCache,
    /// The storage side.
    pub storage: Longhorn,
    /// Our own objects.
    pub handoffs: Cache<Handoffs>,
    /// Told when nodes, or which volumes they can take, are not as before.
    pub hosts_news: Arc<Notify>,
    /// What keeps the above current.
    pub tasks: Vec<Task>,
}

impl Caches {
    /// Empty caches of what `client` reaches; they fill as the tasks run.
    pub fn new(client: &Client, longhorn_namespace: &str) -> Self {
        let queue = Arc::new(Queue::default());
        let mut handoffs = Cache::<Handoffs>::default();
        let add = queue.clone();
        let by_name: OnChange<String> = Arc::new(move |volume| add.add(&volume));
        let mut tasks = vec![handoffs.watch::<VolumeHandoff>(Api::all(client.clone()), by_name)];
        let hosts_news = Arc::new(Notify::new());
        // a cordon or a readiness matters to whatever is under way, and to pods that wait for a node
        let (add, active, news) = (queue.clone(), handoffs.clone(), hosts_news.clone());
        let on_hosts = Arc::new(move || {
            active.read().unfinished().for_each(|volume| add.add(volume));
            news.notify_one();
        });
        let (add, hosts) = (queue.clone(), on_hosts.clone());
        let on_cluster: OnChange<Change> = Arc::new(move |change| match change {
            Change::Volume(volume) => add.add(&volume),
            Change::Node(_) => hosts(),
        });
        let (cluster, cluster_tasks) = ClusterCache::of_cluster(client, &on_cluster);
        let (add, index) = (queue.clone(), cluster.clone());
        let on_storage: OnChange<StorageChange> = Arc::new(move |change| match change {
            StorageChange::Volume(handle) => {
                let volume = index.read().volume_of_handle(DRIVER, &handle);
                volume.iter().for_each(|v| add.add(&v.name));
            }
            StorageChange::Hosts => on_hosts(),
        });
        let (storage, storage_tasks) = Longhorn::new(client.clone(), longhorn_namespace, cluster.clone(), &on_storage);
        tasks.extend(cluster_tasks);
        tasks.extend(storage_tasks);
        Self { queue, cluster, storage, handoffs, hosts_news, tasks }
    }
}
