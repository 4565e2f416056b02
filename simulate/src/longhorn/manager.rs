//! The instance manager of a node, and its disruption budget: on a cordoned node it is lifted as soon as no engine runs
//! there and no volume has its last good replica there (node-drain-policy block-if-contains-last-replica).

use super::volume::{manager_name, replica_name};
use crate::{
    api::resource::{BUDGETS, INSTANCE_MANAGERS, LONGHORN_VOLUMES, NODES, PODS, REPLICAS},
    cluster::{Cluster, STORAGE, key},
    json::{flag, text},
};
use serde_json::{Value, json};
use std::{collections::BTreeSet, sync::Arc, time::Duration};

const BY: &str = "longhorn";
/// How often budgets are looked at, at most.
const LOOK: Duration = Duration::from_millis(250);
/// How often that of a cordoned node is looked at, at least.
const RESYNC: Duration = Duration::from_secs(5);
/// From an open node without instance manager to one that runs.
const START: Duration = Duration::from_secs(3);
/// Rebuilding a replica whose instance manager is back.
const REBUILD: Duration = Duration::from_secs(30);

/// Makes the instance manager of a node, and keeps it going.
pub fn start(cluster: &Arc<Cluster>, node: &str) {
    let name = manager_name(node);
    cluster.add(
        INSTANCE_MANAGERS,
        STORAGE,
        &name,
        json!({
        "spec": {"nodeID": node, "type": "aio", "dataEngine": "v1"}, "status": {"currentState": "running"}}),
    );
    cluster.add(BUDGETS, STORAGE, &name, budget(&name));
    cluster.add(PODS, STORAGE, &name, pod(&name, node));
    tokio::spawn(keep_budget(cluster.clone(), node.to_owned()));
    tokio::spawn(keep_going(cluster.clone(), node.to_owned()));
}

fn budget(name: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": STORAGE},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"longhorn.io/instance-manager": name}}}})
}

fn pod(name: &str, node: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": STORAGE, "labels": {"longhorn.io/component": "instance-manager",
            "longhorn.io/instance-manager": name, "longhorn.io/node": node}},
        "spec": {"nodeName": node, "containers": [{"name": "instance-manager"}]},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    })
}

async fn keep_budget(cluster: Arc<Cluster>, node: String) {
    let (name, mut engines) = (manager_name(&node), cluster.longhorn.engines.subscribe());
    let mut nodes = cluster.store.news_of(NODES, &key("", &node));
    loop {
        nodes.mark_unchanged();
        let cordoned = is_cordoned(&cluster, &node);
        let idle = engines.borrow_and_update().get(&node).copied().unwrap_or(0) == 0;
        if cordoned && idle && !has_last_replica(&cluster, &node) {
            let _ = cluster.store.delete(BY, BUDGETS, &key(STORAGE, &name));
        } else if cluster.store.get(BUDGETS, &key(STORAGE, &name)).is_none() {
            let _ = cluster.store.create(BY, BUDGETS, budget(&name));
        }
        tokio::time::sleep(LOOK).await;
        tokio::select! {
            biased;
            _ = engines.changed() => {}
            () = tokio::time::sleep(RESYNC), if cordoned => {}
            _ = nodes.changed() => {}
        }
    }
}

fn is_cordoned(cluster: &Cluster, node: &str) -> bool {
    cluster.store.get(NODES, &key("", node)).is_some_and(|node| flag(&node.value, "/spec/unschedulable"))
}

/// Whether a volume has its only good replica on the node.
fn has_last_replica(cluster: &Cluster, node: &str) -> bool {
    let (replicas, _) = cluster.store.list(REPLICAS, STORAGE);
    let good = replicas.iter().map(|r| &r.value).filter(|r| text(r, "/spec/failedAt").is_empty());
    let (here, elsewhere): (Vec<_>, Vec<_>) = good.partition(|r| text(r, "/spec/nodeID") == node);
    let elsewhere = elsewhere.into_iter().map(|r| text(r, "/spec/volumeName")).collect::<BTreeSet<_>>();
    here.into_iter().any(|r| !elsewhere.contains(text(r, "/spec/volumeName")))
}

/// When the pod goes, what runs in it ends: replicas of volumes that are attached fail, and the others stay as they are.
/// A new one is made as soon as the node is open.
async fn keep_going(cluster: Arc<Cluster>, node: String) {
    let name = manager_name(&node);
    let of = key(STORAGE, &name);
    let set = |state: &str| {
        cluster.store.change(BY, INSTANCE_MANAGERS, &of, |manager| manager["status"]["currentState"] = json!(state));
    };
    loop {
        cluster.store.until(PODS, &of, Value::is_null).await;
        set("stopped");
        for volume in volumes_with_replica_on(&cluster, &node) {
            cluster.store.change(BY, REPLICAS, &key(STORAGE, &replica_name(&volume, &node)), |replica| {
                if text(replica, "/status/currentState") == "running" {
                    replica["spec"]["failedAt"] = json!(cluster.time.stamp());
                    replica["status"]["currentState"] = json!("stopped");
                }
            });
        }
        cluster.store.until(NODES, &key("", &node), |node| !flag(node, "/spec/unschedulable")).await;
        tokio::time::sleep(START).await;
        cluster.add(PODS, STORAGE, &name, pod(&name, &node));
        set("running");
        tokio::spawn(rebuild(cluster.clone(), node.clone()));
    }
}

fn volumes_with_replica_on(cluster: &Cluster, node: &str) -> Vec<String> {
    let (replicas, _) = cluster.store.list(REPLICAS, STORAGE);
    let here = replicas.iter().filter(|r| text(&r.value, "/spec/nodeID") == node);
    here.map(|r| text(&r.value, "/spec/volumeName").to_owned()).collect()
}

async fn rebuild(cluster: Arc<Cluster>, node: String) {
    tokio::time::sleep(REBUILD).await;
    for volume in volumes_with_replica_on(&cluster, &node) {
        let state = cluster.store.get(LONGHORN_VOLUMES, &key(STORAGE, &volume));
        let attached = state.is_some_and(|volume| text(&volume.value, "/status/state") == "attached");
        cluster.store.change(BY, REPLICAS, &key(STORAGE, &replica_name(&volume, &node)), |replica| {
            if !text(replica, "/spec/failedAt").is_empty() {
                replica["spec"]["failedAt"] = json!("");
                replica["status"]["currentState"] = json!(if attached { "running" } else { "stopped" });
            }
        });
    }
}
