//! Longhorn's csi-attacher, away for a while: nothing is attached or detached by Kubernetes then, so that a pre-stage is
//! not adopted until it is back.

use crate::cluster::{Cluster, DEPLOYMENT, POD, until};
use anyhow::Result;
use serde_json::{Value, json};
use std::time::Duration;

const NAME: &str = "csi-attacher";
/// On the Deployment while it is away: how many replicas it had.
const HAD: &str = "handoff-e2e/replicas";
const LIMIT: Duration = Duration::from_mins(2);

/// Takes it away.
pub async fn away(cluster: &Cluster) -> Result<()> {
    let found = cluster.get(&DEPLOYMENT, &cluster.longhorn, NAME).await?;
    let replicas = found.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(0);
    if replicas == 0 {
        return Ok(());
    }
    let patch = json!({"metadata": {"annotations": {HAD: replicas.to_string()}}, "spec": {"replicas": 0}});
    cluster.merge(&DEPLOYMENT, &cluster.longhorn, NAME, &patch).await?;
    until(LIMIT, "csi-attacher to end", async || {
        let left = cluster.list(&POD, &cluster.longhorn, &format!("app={NAME}")).await?.len();
        Ok((left > 0).then(|| format!("{left} pods are there")))
    })
    .await
}

/// Brings it back, if we took it away.
pub async fn back(cluster: &Cluster) -> Result<()> {
    let Some(found) = cluster.find(&DEPLOYMENT, &cluster.longhorn, NAME).await? else { return Ok(()) };
    let had = found.pointer("/metadata/annotations").and_then(|a| a.get(HAD)).and_then(Value::as_str);
    let Some(replicas) = had.and_then(|had| had.parse::<i64>().ok()) else { return Ok(()) };
    let patch = json!({"metadata": {"annotations": {HAD: null}}, "spec": {"replicas": replicas}});
    cluster.merge(&DEPLOYMENT, &cluster.longhorn, NAME, &patch).await?;
    until(LIMIT, "csi-attacher to run", async || {
        let found = cluster.get(&DEPLOYMENT, &cluster.longhorn, NAME).await?;
        let ready = found.pointer("/status/readyReplicas").and_then(Value::as_i64).unwrap_or(0);
        Ok((ready < replicas).then(|| format!("{ready} of {replicas} are ready")))
    })
    .await
}
