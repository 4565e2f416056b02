//! `handoff agent` on a node, as far as the API server sees it: it says of a volume that leaves the node that it is
//! unstaged there.

use crate::{
    api::resource::HANDOFFS,
    cluster::{Cluster, WORKLOADS, key},
    json::text,
};
use serde_json::json;
use std::{sync::Arc, time::Duration};

/// How often it looks.
const LOOK: Duration = Duration::from_millis(100);

/// A volume was staged on the node until now. Only a departure that was known before is told of: the agent has to have
/// seen the volume staged in it.
pub fn sees_unstaged(cluster: &Arc<Cluster>, node: &str, volume: &str) {
    let of = key(WORKLOADS, volume);
    let Some(handoff) = cluster.store.get(HANDOFFS, &of) else { return };
    if text(&handoff.value, "/spec/from") != node {
        return;
    }
    let departure = text(&handoff.value, "/spec/triggeredAt").to_owned();
    let (cluster, by) = (cluster.clone(), format!("agent {node}"));
    tokio::spawn(async move {
        tokio::time::sleep(LOOK).await;
        cluster.store.change(&by, HANDOFFS, &of, |handoff| {
            handoff["metadata"]["annotations"]["volumehandoff.io/unstaged"] = json!(departure);
        });
    });
}
