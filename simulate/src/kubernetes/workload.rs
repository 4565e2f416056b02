//! Controllers of workloads with one pod each.

use crate::{
    api::{Verb, resource::PODS},
    cluster::{Cluster, WORKLOADS, key},
    json::{is_deleting, text},
};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

/// How often a pod that could not be made is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// Which kind of controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Controller {
    /// The next pod is made when the one before is gone, under the same name.
    StatefulSet,
    /// The next pod is made as soon as the one before is asked to go.
    Deployment,
}

/// A workload of one pod with one claim.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Its name.
    pub name: String,
    /// What keeps it going.
    pub controller: Controller,
    /// The claim of its pod.
    pub claim: String,
}

impl Workload {
    /// Keeps the pod there for ever. `first`: the node of the first one.
    pub fn start(&self, cluster: &Arc<Cluster>, first: &str) {
        tokio::spawn(run(self.clone(), cluster.clone(), first.to_owned()));
    }

    fn pod(&self, generation: usize) -> Value {
        let name = match self.controller {
            Controller::StatefulSet => format!("{}-0", self.name),
            Controller::Deployment => format!("{}-{generation:04}", self.name),
        };
        let kind = match self.controller {
            Controller::StatefulSet => "StatefulSet",
            Controller::Deployment => "ReplicaSet",
        };
        json!({
            "metadata": {"name": name, "namespace": WORKLOADS, "labels": {"app": self.name}, "ownerReferences": [
                {"apiVersion": "apps/v1", "kind": kind, "name": self.name, "uid": self.name, "controller": true}]},
            "spec": {
                "containers": [{"name": "main"}],
                "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": self.claim}}],
            },
            "status": {"phase": "Pending"},
        })
    }
}

/// `kubectl scale`: no pod, or one again.
pub fn scale(cluster: &Cluster, workload: &str, replicas: usize) {
    cluster.scaled_to_zero.send_modify(|scaled| {
        if replicas == 0 {
            scaled.insert(workload.to_owned());
        } else {
            scaled.remove(workload);
        }
    });
}

/// Waits until the workload is scaled to zero, or is not.
async fn is_scaled(workload: &str, cluster: &Cluster, to_zero: bool) {
    // the sender is the cluster's own: there is no error
    let _ = cluster.scaled_to_zero.subscribe().wait_for(|scaled| scaled.contains(workload) == to_zero).await;
}

async fn run(workload: Workload, cluster: Arc<Cluster>, first: String) {
    let by = format!("controller of {}", workload.name);
    let mut generation = 0;
    loop {
        is_scaled(&workload.name, &cluster, false).await;
        let mut pod = workload.pod(generation);
        if generation == 0 {
            pod["spec"]["nodeName"] = json!(first);
        }
        let of = key(WORKLOADS, text(&pod, "/metadata/name"));
        let collection = key(WORKLOADS, "");
        while cluster.ask(&by, PODS, &collection, "", Verb::Create(pod.clone())).await.is_err() {
            tokio::time::sleep(AGAIN).await;
        }
        let early = workload.controller == Controller::Deployment;
        let ended = || cluster.store.until(PODS, &of, |now| now.is_null() || early && is_deleting(now));
        tokio::select! {
            biased;
            _ = ended() => {}
            () = is_scaled(&workload.name, &cluster, true) => {
                // one that is gone already is as good
                let _ = cluster.ask(&by, PODS, &of, "", Verb::Delete(json!({}))).await;
                ended().await;
            }
        }
        generation += 1;
        cluster.takes(cluster.timing.recreate, (&workload.name, generation)).await;
    }
}
