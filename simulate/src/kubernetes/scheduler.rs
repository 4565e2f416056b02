//! A scheduler: pods go to the open node that they prefer most, and among equals to the one with the fewest pods.

use crate::{
    api::{
        Follow, Verb,
        resource::{NODES, PODS},
    },
    cluster::Cluster,
    json::{elements, flag, is_deleting, is_ready, text},
};
use handoff_cluster::ObjectKey;
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

const BY: &str = "scheduler";
/// How often a pod that no node can take is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// Runs for ever.
pub async fn run(cluster: Arc<Cluster>) {
    let mut pods = Follow::new(&cluster.store, PODS);
    let mut on_node: BTreeMap<ObjectKey, String> = BTreeMap::new();
    let mut load: BTreeMap<String, i64> = BTreeMap::new();
    loop {
        for change in pods.next().await {
            let (pod, of) = (&change.object.value, change.object.key());
            let node = text(pod, "/spec/nodeName").to_owned();
            if let Some(before) = on_node.remove(&of) {
                *load.entry(before).or_default() -= 1;
            }
            if change.what != "DELETED" && !node.is_empty() {
                *load.entry(node.clone()).or_default() += 1;
                on_node.insert(of.clone(), node);
            } else if change.what == "ADDED" && !is_deleting(pod) {
                tokio::spawn(place(cluster.clone(), of, pod.clone(), load.clone()));
            }
        }
    }
}

async fn place(cluster: Arc<Cluster>, of: ObjectKey, pod: Value, load: BTreeMap<String, i64>) {
    let uid = text(&pod, "/metadata/uid");
    cluster.takes(cluster.timing.schedule, ("schedule", uid)).await;
    loop {
        let waits = |now: &Value| text(now, "/metadata/uid") == uid && text(now, "/spec/nodeName").is_empty();
        if !cluster.store.get(PODS, &of).is_some_and(|now| waits(&now.value)) {
            return;
        }
        if let Some(node) = best(&cluster, &pod, &load) {
            let binding = json!({"metadata": {"name": of.name, "uid": uid}, "target": {"kind": "Node", "name": node}});
            if cluster.ask(BY, PODS, &of, "binding", Verb::Create(binding)).await.is_ok() {
                return;
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
}

fn best(cluster: &Cluster, pod: &Value, load: &BTreeMap<String, i64>) -> Option<String> {
    let (nodes, _) = cluster.store.list(NODES, "");
    let open = nodes.iter().filter(|node| is_ready(&node.value) && !flag(&node.value, "/spec/unschedulable"));
    let open = open.filter(|node| elements(&node.value, "/spec/taints").next().is_none());
    let named = open.map(|node| node.key().name);
    named.max_by_key(|node| {
        let pods = load.get(node).copied().unwrap_or(0);
        (preference(pod, node), -pods, cluster.chance.below(1 << 20, (node, text(pod, "/metadata/uid"))))
    })
}

/// The weights of the terms that a node fulfils.
fn preference(pod: &Value, node: &str) -> i64 {
    let terms = elements(pod, "/spec/affinity/nodeAffinity/preferredDuringSchedulingIgnoredDuringExecution");
    let fulfilled = terms.filter(|term| {
        elements(term, "/preference/matchFields")
            .any(|field| elements(field, "/values").any(|value| *value == json!(node)))
    });
    fulfilled.filter_map(|term| term["weight"].as_i64()).sum()
}
