//! One replica of Handoff, without listeners and certificates: caches → coordinator → the routers of webhook and
//! extender, and the tasks that make it work. `handoff serve` puts listeners around it, `handoff simulate` a simulated
//! cluster.

mod caches;
mod reviews;

pub use caches::Caches;
pub use reviews::Reviews;

use axum::Router;
use handoff_cluster::{ObjectKey, Task};
use handoff_coordinator::{
    Coordinator, Parts, clock::Clock, holds::Holds, lease::Elector, metrics::Metrics, policy::Policy,
};
use handoff_extender::ExtenderConfig;
use handoff_webhook::WebhookConfig;
use kube::Client;
use prometheus_client::registry::Registry;
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;

/// Name of the leader lease.
const LEASE: &str = "handoff";
/// How often a new leader looks whether its caches are complete.
const COMPLETE_YET: Duration = Duration::from_millis(100);

/// What a replica is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// Our own pod: its namespace has the lease, its name is the identity in it.
    pub identity: ObjectKey,
    /// Namespace of Longhorn.
    pub longhorn_namespace: String,
    /// Volumes that are worked on at the same time.
    pub workers: u16,
    /// Bounds.
    pub policy: Policy,
    /// What the webhook does.
    pub webhook: WebhookConfig,
    /// Bounds of the extender.
    pub extender: ExtenderConfig,
    /// The time of day.
    pub clock: Clock,
}

/// The coordinator and everything around it.
pub struct Core {
    /// Answers from memory.
    pub coordinator: Arc<Coordinator>,
    /// Times of reviews and calls.
    pub reviews: Arc<Reviews>,
    /// What keeps the caches current.
    pub tasks: Vec<Task>,
    elector: Elector,
    config: Config,
}

/// What runs as long as the replica does.
pub struct Work {
    /// Tasks that never end.
    pub tasks: Vec<Task>,
    /// Competes for the lease until it is told to stop, then gives it back.
    pub election: futures::future::BoxFuture<'static, ()>,
    /// Told each time the lease is won or lost.
    pub leading: watch::Receiver<bool>,
}

impl Core {
    /// Empty, until the tasks have run for a while.
    pub fn new(config: Config, client: &Client, registry: &mut Registry) -> Self {
        let metrics = Metrics::new(registry);
        let reviews = Arc::new(Reviews::new(registry));
        let caches = Caches::new(client, &config.longhorn_namespace);
        let ObjectKey { namespace, name } = &config.identity;
        let (holds, holds_task) = Holds::new(client, namespace);
        let elector = Elector::new(client.clone(), namespace, LEASE, name, config.clock.clone());
        let coordinator = Arc::new(Coordinator::new(Parts {
            client: client.clone(),
            cluster: caches.cluster,
            storage: Arc::new(caches.storage),
            handoffs: caches.handoffs,
            holds,
            policy: config.policy.clone(),
            metrics,
            queue: caches.queue,
            hosts_news: caches.hosts_news,
            leadership: elector.leadership(),
            identity: config.identity.clone(),
            clock: config.clock.clone(),
        }));
        let tasks = caches.tasks.into_iter().chain([holds_task]).collect();
        Self { coordinator, reviews, tasks, elector, config }
    }

    /// The webhook's routes.
    pub fn webhook(&self) -> Router {
        handoff_webhook::router(self.coordinator.clone(), self.config.webhook.clone(), self.reviews.clone())
    }

    /// The extender's routes.
    pub fn extender(&self) -> Router {
        handoff_extender::router(self.coordinator.clone(), self.config.extender, self.reviews.clone())
    }

    /// All that has to run. `lead_until` ends the competition for the lease.
    pub fn work(self, lead_until: watch::Receiver<bool>) -> Work {
        let Self { coordinator, elector, mut tasks, config, .. } = self;
        for _ in 0..config.workers {
            let coordinator = coordinator.clone();
            tasks.push(("worker", Box::pin(async move { coordinator.work().await })));
        }
        let reaper = coordinator.clone();
        tasks.push(("reaper", Box::pin(async move { reaper.reap().await })));
        let waker = coordinator.clone();
        tasks.push(("waker", Box::pin(async move { waker.wake().await })));
        let (leading_now, leading) = watch::channel(false);
        tasks.push(("new leader", Box::pin(look_when_leading(coordinator, leading.clone()))));
        Work { tasks, election: Box::pin(elector.run(lead_until, leading_now)), leading }
    }
}

async fn look_when_leading(coordinator: Arc<Coordinator>, mut leading: watch::Receiver<bool>) {
    while leading.changed().await.is_ok() {
        let leads = *leading.borrow_and_update();
        coordinator.leading(leads);
        while leads && !coordinator.missing().is_empty() {
            tokio::time::sleep(COMPLETE_YET).await;
        }
        if leads {
            coordinator.look_at_all();
        }
    }
}
