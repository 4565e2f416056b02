//! Longhorn's CSI attachers: two pods, of which one leads. When that one goes, nothing is attached or detached until its
//! lease has lapsed (seen: 20 s of a 46 s move).

use crate::{
    api::resource::{BUDGETS, PODS},
    cluster::{Cluster, STORAGE, key},
    json::is_deleting,
};
use serde_json::json;
use std::{sync::Arc, time::Duration};

const APP: &str = "csi-attacher";
/// From the end of the leader until the other one leads.
const LAPSES: Duration = Duration::from_secs(20);
/// From the end of a pod until there is another one.
const REPLACED: Duration = Duration::from_millis(200);

/// Makes the attachers, on these nodes; the first one leads.
pub fn start(cluster: &Arc<Cluster>, nodes: &[String]) {
    cluster.add(
        BUDGETS,
        STORAGE,
        APP,
        json!({
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": APP}}}}),
    );
    for (number, node) in nodes.iter().take(2).enumerate() {
        tokio::spawn(keep(cluster.clone(), number, node.clone()));
    }
}

/// Keeps one of the two pods there for ever.
async fn keep(cluster: Arc<Cluster>, number: usize, first: String) {
    let mut generation = 0;
    loop {
        let name = format!("{APP}-{number}-{generation:04}");
        let mut pod = json!({"metadata": {"labels": {"app": APP}}, "spec": {"containers": [{"name": APP}]}});
        if generation == 0 {
            pod["spec"]["nodeName"] = json!(first);
        }
        cluster.add(PODS, STORAGE, &name, pod);
        let ends = |pod: &serde_json::Value| pod.is_null() || is_deleting(pod);
        cluster.store.until(PODS, &key(STORAGE, &name), ends).await;
        if cluster.longhorn.attacher.borrow().as_ref() == Some(&number) {
            cluster.witness.note("the attacher that leads goes: nothing is attached for a while");
            cluster.longhorn.attacher.send_replace(None);
            let cluster = cluster.clone();
            tokio::spawn(async move {
                tokio::time::sleep(LAPSES).await;
                cluster.longhorn.attacher.send_replace(Some(1 - number));
            });
        }
        generation += 1;
        tokio::time::sleep(REPLACED).await;
    }
}
