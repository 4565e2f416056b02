//! `kubectl drain --ignore-daemonsets --delete-emptydir-data`: cordons, then evicts all pods at once; each one that is
//! answered 429 is asked for again 5 s later, by name.

use crate::{
    api::{
        Verb,
        resource::{NODES, PODS},
    },
    cluster::{Cluster, key},
    json::{elements, text},
};
use futures::future::join_all;
use handoff_cluster::ObjectKey;
use serde_json::json;
use std::{collections::BTreeMap, time::Duration};

const BY: &str = "drain";
/// From the cordon to the first eviction: it looks at all pods and at their owners.
const LOOKS: Duration = Duration::from_millis(200);
/// After a 429.
const AGAIN: Duration = Duration::from_secs(5);

/// How a drain went.
#[derive(Clone, Debug)]
pub struct Drained {
    /// From the first eviction until the last pod was gone.
    pub took: Duration,
    /// Pod → how often it was refused.
    pub refused: BTreeMap<String, usize>,
}

/// Drains a node, for as long as that takes.
pub async fn drain(cluster: &Cluster, node: &str) -> Drained {
    cordon(cluster, node);
    tokio::time::sleep(LOOKS).await;
    let began = cluster.time.passed();
    let (pods, _) = cluster.store.list(PODS, "");
    let of_daemon = |pod: &serde_json::Value| {
        elements(pod, "/metadata/ownerReferences").any(|owner| text(owner, "/kind") == "DaemonSet")
    };
    let here = pods.iter().filter(|pod| text(&pod.value, "/spec/nodeName") == node && !of_daemon(&pod.value));
    let here = here.map(|pod| (pod.key(), text(&pod.value, "/metadata/uid").to_owned())).collect::<Vec<_>>();
    let refused = join_all(here.into_iter().map(|(pod, uid)| evict(cluster, pod, uid))).await;
    let refused = refused.into_iter().collect();
    Drained { took: cluster.time.passed().saturating_sub(began), refused }
}

/// Closes a node to new pods.
pub fn cordon(cluster: &Cluster, node: &str) {
    cluster.store.change(BY, NODES, &key("", node), |node| node["spec"]["unschedulable"] = json!(true));
}

/// Opens a node again.
pub fn uncordon(cluster: &Cluster, node: &str) {
    cluster.store.change(BY, NODES, &key("", node), |node| node["spec"]["unschedulable"] = json!(false));
}

async fn evict(cluster: &Cluster, pod: ObjectKey, uid: String) -> (String, usize) {
    let mut refused = 0;
    loop {
        let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction",
            "metadata": {"name": pod.name, "namespace": pod.namespace}});
        match cluster.ask(BY, PODS, &pod, "eviction", Verb::Create(eviction)).await {
            Ok(_) => break,
            Err(refusal) if refusal.code == 404 => return (pod.name, refused),
            Err(_) => {
                refused += 1;
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
    cluster.store.until(PODS, &pod, |now| now.is_null() || text(now, "/metadata/uid") != uid).await;
    (pod.name, refused)
}

/// `kubectl delete pod`.
pub async fn delete_pod(cluster: &Cluster, pod: &ObjectKey) {
    // one that is gone already is as good
    let _ = cluster.ask("kubectl", PODS, pod, "", Verb::Delete(json!({}))).await;
}
