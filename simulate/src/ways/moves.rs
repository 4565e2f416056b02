//! Moves of the pod, and what Handoff goes through meanwhile.

use super::{LEADS, Scene, VOLUME, WORKERS};
use crate::{
    api::{
        Verb,
        resource::{NODES, PODS},
    },
    cluster::{WORKLOADS, key},
    history::drain_node,
    json::text,
    kubernetes::{cordon, delete_pod, scale, uncordon},
};
use serde_json::json;
use std::time::Duration;

/// From one replica's end to the next one's, and from an end to a start.
const BETWEEN: Duration = Duration::from_secs(3);
/// How long there is no pod.
const SCALED: Duration = Duration::from_secs(10);
/// Longer than any hold, lease or pre-stage.
const AWAY: Duration = Duration::from_mins(5);

impl Scene {
    /// Drains a node, and opens it again.
    pub(super) async fn drain(&self, node: &str) {
        drain_node(&self.cluster, node).await;
        uncordon(&self.cluster, node);
    }

    /// Kubernetes deletes what does not tolerate the taint.
    pub(super) async fn taint(&self) {
        let pod = self.pod();
        let node = key("", text(&pod, "/spec/nodeName"));
        let taint = json!([{"key": "maintenance", "effect": "NoExecute"}]);
        self.cluster.store.change("e2e", NODES, &node, |node| node["spec"]["taints"] = taint);
        delete_pod(&self.cluster, &key(WORKLOADS, text(&pod, "/metadata/name"))).await;
        self.ready_after(&pod).await;
        self.cluster.store.change("e2e", NODES, &node, |node| node["spec"]["taints"] = json!([]));
    }

    /// Not a person but the controller deletes the pod.
    pub(super) async fn rollout_restart(&self) {
        let pod = self.pod();
        cordon(&self.cluster, text(&pod, "/spec/nodeName"));
        let of = key(WORKLOADS, text(&pod, "/metadata/name"));
        // one that is gone already is as good
        let _ = self.cluster.ask("controller of db", PODS, &of, "", Verb::Delete(json!({}))).await;
        self.ready_after(&pod).await;
    }

    pub(super) async fn scale_to_zero_and_back(&self) {
        let before = self.pod();
        scale(&self.cluster, VOLUME, 0);
        self.no_pod().await;
        tokio::time::sleep(SCALED).await;
        cordon(&self.cluster, text(&before, "/spec/nodeName"));
        scale(&self.cluster, VOLUME, 1);
        self.ready_after(&before).await;
    }

    pub(super) async fn no_pod(&self) {
        self.until("the pod to go", |scene| {
            let (pods, _) = scene.cluster.store.list(PODS, WORKLOADS);
            pods.first().map(|pod| pod.key().name)
        })
        .await;
    }

    pub(super) async fn drain_without_handoff(&mut self) {
        self.kill_all();
        let before = self.pod();
        cordon(&self.cluster, text(&before, "/spec/nodeName"));
        // storage stays where it is, as for all moves without Handoff
        self.send_away().await;
        self.open_all();
        self.start_replica(2);
        tokio::time::sleep(LEADS).await;
    }

    pub(super) async fn drain_while_handoff_restarts(&mut self) {
        let cluster = self.cluster.clone();
        let drain = tokio::spawn(async move { drain_node(&cluster, "n00").await.is_some() });
        for number in 2..4 {
            tokio::time::sleep(BETWEEN).await;
            self.replicas.remove(0).kill();
            self.start_replica(number);
        }
        // that it ends is one of the things that must hold: `drain_node` looks
        let _ = drain.await;
        self.open_all();
    }

    pub(super) async fn drain_while_the_api_is_away(&self) {
        self.replicas.iter().for_each(|replica| replica.line.away(AWAY));
        self.drain("n00").await;
        tokio::time::sleep(AWAY).await;
    }

    pub(super) async fn there_and_back(&self) {
        self.send_away().await;
        self.open_all();
        WORKERS.iter().filter(|node| **node != "n00").for_each(|node| cordon(&self.cluster, node));
        self.send_away().await;
    }

    pub(super) async fn onward(&self) {
        self.send_away().await;
        self.send_away().await;
    }

    pub(super) async fn three_drains(&self) {
        for node in WORKERS {
            self.drain(node).await;
            // as on the real cluster: a replica that went with its node is rebuilt first
            tokio::time::sleep(Duration::from_secs(40)).await;
        }
    }

    pub(super) fn kill_all(&mut self) {
        self.replicas.drain(..).for_each(|replica| replica.kill());
    }
}
