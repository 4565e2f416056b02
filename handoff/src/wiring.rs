//! What answers, without listeners and certificates: caches → coordinator → the routers of webhook and extender.

use crate::{args::ServeArgs, observe::figures::Reviews};
use axum::Router;
use handoff_cluster::{Cache, Change, ClusterCache, ObjectKey, OnChange, Task};
use handoff_coordinator::{
    Coordinator, Parts, api::VolumeHandoff, handoffs::Handoffs, holds::Holds, lease::Elector, metrics::Metrics,
    policy::Policy, queue::Queue,
};
use handoff_extender::ExtenderConfig;
use handoff_storage::longhorn::{DRIVER, Longhorn, StorageChange};
use handoff_webhook::WebhookConfig;
use kube::{Api, Client};
use prometheus_client::registry::Registry;
use std::sync::Arc;
use tokio::sync::Notify;

/// The coordinator and everything around it.
pub struct Core {
    /// Answers from memory.
    pub coordinator: Arc<Coordinator>,
    /// Competes for the lease.
    pub elector: Elector,
    /// Times of reviews and calls.
    pub reviews: Arc<Reviews>,
    extender: ExtenderConfig,
    /// What keeps the caches current.
    pub tasks: Vec<Task>,
    config: WebhookConfig,
}

impl Core {
    /// Empty, until the tasks have run for a while.
    pub fn new(args: &ServeArgs, policy: Policy, client: &Client, registry: &mut Registry) -> Self {
        let metrics = Metrics::new(registry);
        let reviews = Arc::new(Reviews::new(registry));
        let caches = Caches::new(client, &args.longhorn_namespace);
        let (holds, holds_task) = Holds::new(client, &args.namespace);
        let elector = Elector::new(client.clone(), &args.namespace, "handoff", &args.pod_name);
        let coordinator = Arc::new(Coordinator::new(Parts {
            client: client.clone(),
            cluster: caches.cluster,
            storage: Arc::new(caches.storage),
            handoffs: caches.handoffs,
            holds,
            policy,
            metrics,
            queue: caches.queue,
            hosts_news: caches.hosts_news,
            leadership: elector.leadership(),
            identity: ObjectKey::new(&args.namespace, &args.pod_name),
        }));
        let tasks = caches.tasks.into_iter().chain([holds_task]).collect();
        Self { coordinator, elector, reviews, extender: args.extender(), config: args.webhook(), tasks }
    }

    /// The webhook's routes.
    pub fn webhook(&self) -> Router {
        handoff_webhook::router(self.coordinator.clone(), self.config.clone(), self.reviews.clone())
    }

    /// The extender's routes.
    pub fn extender(&self) -> Router {
        handoff_extender::router(self.coordinator.clone(), self.extender, self.reviews.clone())
    }
}

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
