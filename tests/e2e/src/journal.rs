//! What the `VolumeHandoff` of the workload's volume says.

use crate::{
    cluster::{Cluster, HANDOFF, Read, until},
    workload::{NAMESPACE_NAME, Running},
};
use anyhow::Result;
use serde_json::Value;
use std::time::Duration;

/// The handoff of the volume, if there is one.
pub async fn find(cluster: &Cluster, volume: &Running) -> Result<Option<Value>> {
    cluster.find(&HANDOFF, NAMESPACE_NAME, &volume.volume).await
}

/// Waits until the handoff is as wanted, and returns it.
pub async fn when(
    cluster: &Cluster,
    volume: &Running,
    limit: Duration,
    what: &str,
    wanted: impl Fn(&Value) -> bool,
) -> Result<Value> {
    let mut found = Value::Null;
    until(limit, what, async || {
        let Some(handoff) = find(cluster, volume).await? else { return Ok(Some("no handoff".to_owned())) };
        let there = wanted(&handoff);
        let message = handoff.text("/status/message").to_owned();
        found = handoff;
        Ok((!there).then_some(message))
    })
    .await?;
    Ok(found)
}

/// The pre-stage of a handoff: its node and the UID of the pod it is for.
pub fn prestage(handoff: &Value) -> (String, String) {
    (handoff.text("/status/prestage/node").to_owned(), handoff.text("/status/prestage/podUid").to_owned())
}

/// How that pre-stage ended; empty while it is open.
pub fn outcome(handoff: &Value) -> &str {
    handoff.text("/status/prestage/outcome")
}

/// Whether a step is in the timeline of the present move.
pub fn has_step(handoff: &Value, step: &str) -> bool {
    handoff.items("/status/timeline").iter().any(|s| s.text("/what") == step)
}
