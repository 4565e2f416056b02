//! Replicas of Handoff: the real ones, at the end of a line that can be cut.

use crate::{
    api::resource::PODS,
    api::{Crash, Line},
    chance::Faults,
    cluster::{Cluster, HANDOFF, STORAGE},
    time::Time,
};
use handoff_cluster::ObjectKey;
use handoff_coordinator::policy::Policy;
use handoff_extender::ExtenderConfig;
use handoff_replica::{Config, Core, Work};
use handoff_webhook::WebhookConfig;
use prometheus_client::registry::Registry;
use serde_json::json;
use std::sync::Arc;
use tokio::{sync::watch, task::JoinSet};

/// What a replica is started with.
#[derive(Clone, Debug, Default)]
pub struct Start {
    /// Bounds.
    pub policy: Policy,
    /// What goes wrong on its line.
    pub faults: Option<Faults>,
    /// When it dies.
    pub crash: Option<Crash>,
}

/// A replica that runs.
pub struct Replica {
    /// Its name.
    pub name: String,
    /// Its line.
    pub line: Arc<Line>,
    /// Its machine's clock.
    pub time: Time,
    cluster: Arc<Cluster>,
}

impl Replica {
    /// Starts one; `node` is where its pod is.
    pub fn start(cluster: &Arc<Cluster>, name: &str, node: &str, start: Start) -> Self {
        let line = Line::new(name, start.faults, start.crash);
        let time = cluster.time.of_another();
        let client = cluster.server.client(&line);
        let config = Config {
            identity: ObjectKey::new(HANDOFF, name),
            longhorn_namespace: STORAGE.to_owned(),
            workers: 8,
            policy: start.policy,
            webhook: WebhookConfig::default(),
            extender: ExtenderConfig::default(),
            clock: time.clock(),
        };
        cluster.add(
            PODS,
            HANDOFF,
            name,
            json!({
                "metadata": {"labels": {"app.kubernetes.io/name": "handoff"}},
                "spec": {"nodeName": node, "containers": [{"name": "handoff"}]},
            }),
        );
        let core = Core::new(config, &client, &mut Registry::default());
        let (webhook, coordinator) = (core.webhook(), core.coordinator.clone());
        let (stop, lead_until) = watch::channel(false);
        let Work { tasks, election, .. } = core.work(lead_until);
        let mut parts = JoinSet::new();
        tasks.into_iter().for_each(|(_, task)| drop(parts.spawn(task)));
        parts.spawn(election);
        let (of, own, until) = (cluster.clone(), name.to_owned(), line.clone());
        tokio::spawn(async move {
            // in the Service once it is ready
            let ready = async {
                while !coordinator.missing().is_empty() {
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            };
            tokio::select! {
                biased;
                () = until.ends() => {}
                () = ready => of.admission().add(&own, webhook),
            }
            until.ends().await;
            of.admission().remove(&own);
            of.witness.note(&format!("{own} is dead"));
            parts.abort_all();
            drop(stop);
        });
        cluster.witness.note(&format!("{name} starts on {node}"));
        Self { name: name.to_owned(), line, time, cluster: cluster.clone() }
    }

    /// Ends it at once, with all that it is about to do.
    pub fn kill(&self) {
        self.line.cut();
        self.cluster.store.remove("kubelet", PODS, &ObjectKey::new(HANDOFF, &self.name));
    }
}
