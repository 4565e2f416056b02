//! A kubelet that falls silent, and the node lifecycle controller that misses it. What runs on the node goes on.

use crate::{
    api::resource::NODES,
    cluster::{Cluster, key},
};
use serde_json::json;
use std::{sync::Arc, time::Duration};

const BY: &str = "node-lifecycle-controller";
/// From the last that was heard of a kubelet until its node counts as lost.
const MISSED: Duration = Duration::from_secs(50);

/// The kubelet of a node is not heard of any more, or is again.
pub fn fall_silent(cluster: &Arc<Cluster>, node: &str, silent: bool) {
    cluster.silent.send_modify(|all| {
        if silent {
            all.insert(node.to_owned());
        } else {
            all.remove(node);
        }
    });
    let (cluster, node) = (cluster.clone(), node.to_owned());
    tokio::spawn(async move {
        if silent {
            tokio::time::sleep(MISSED).await;
        }
        if cluster.silent.borrow().contains(&node) == silent {
            let ready = json!([{"type": "Ready", "status": if silent { "Unknown" } else { "True" }}]);
            cluster.store.change(BY, NODES, &key("", &node), |node| node["status"]["conditions"] = ready);
        }
    });
}
