//! Handoff in the cluster: put there, taken away, its leader killed, its traces looked for.

use crate::{
    cluster::{Cluster, DEPLOYMENT, Kind, LEASE, LH_ATTACHMENT, MUTATING, POD, Read, VALIDATING, until},
    lab::Lab,
    tickets,
    workload::kubectl,
};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::{fmt, path::Path, time::Duration};

/// Its namespace.
pub const NAMESPACE: &str = "handoff-system";
/// Deployment, lease and webhook configurations have this name.
pub const NAME: &str = "handoff";
/// Pods of the Deployment.
pub const PODS: &str = "app.kubernetes.io/name=handoff";
const START: Duration = Duration::from_mins(3);

/// Installs it as a user would.
pub async fn install(cluster: &Cluster, kustomization: &Path) -> Result<()> {
    let path = kustomization.to_str().context("the path of the kustomization is not UTF-8")?;
    kubectl(&["apply", "-k", path]).await?;
    // an earlier withdrawal set it to 0, and `apply` may find nothing changed
    cluster.merge(&DEPLOYMENT, NAMESPACE, NAME, &json!({"spec": {"replicas": 2}})).await
}

/// Waits until both replicas serve and the API server knows their CA.
pub async fn serves(cluster: &Cluster) -> Result<()> {
    until(START, "Handoff to serve", async || {
        let deployment = cluster.get(&DEPLOYMENT, NAMESPACE, NAME).await?;
        let count = |pointer| deployment.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
        let (ready, current) = (count("/status/readyReplicas"), count("/status/updatedReplicas"));
        if ready < 2 || current < 2 || count("/status/replicas") > 2 {
            return Ok(Some(format!("{ready} of 2 replicas are ready")));
        }
        for kind in [&MUTATING, &VALIDATING] {
            if !trusted(cluster, kind).await? {
                return Ok(Some("a webhook configuration has no caBundle".to_owned()));
            }
        }
        Ok(None)
    })
    .await?;
    kubectl(&["rollout", "status", "-n", "handoff-agent", "daemonset/handoff-agent", "--timeout=180s"]).await?;
    // the API server takes a moment to see a changed configuration
    tokio::time::sleep(Duration::from_secs(2)).await;
    Ok(())
}

async fn trusted(cluster: &Cluster, kind: &Kind) -> Result<bool> {
    let configuration = cluster.get(kind, "", NAME).await?;
    Ok(configuration.items("/webhooks").iter().all(|hook| !hook.text("/clientConfig/caBundle").is_empty()))
}

/// Takes it out of the way: no webhook, no replica. Its objects stay.
pub async fn withdraw(cluster: &Cluster) -> Result<()> {
    cluster.delete(&MUTATING, "", NAME).await?;
    cluster.delete(&VALIDATING, "", NAME).await?;
    if cluster.find(&DEPLOYMENT, NAMESPACE, NAME).await?.is_some() {
        cluster.merge(&DEPLOYMENT, NAMESPACE, NAME, &json!({"spec": {"replicas": 0}})).await?;
    }
    until(START, "Handoff to end", async || {
        let left = cluster.list(&POD, NAMESPACE, PODS).await?.len();
        Ok((left > 0).then(|| format!("{left} replicas are still there")))
    })
    .await
}

/// As many replicas as said, and waits until it is so. The webhooks stay registered.
pub async fn scale(cluster: &Cluster, replicas: i64) -> Result<()> {
    cluster.merge(&DEPLOYMENT, NAMESPACE, NAME, &json!({"spec": {"replicas": replicas}})).await?;
    until(START, "Handoff to be scaled", async || {
        let deployment = cluster.get(&DEPLOYMENT, NAMESPACE, NAME).await?;
        let ready = deployment.pointer("/status/readyReplicas").and_then(Value::as_i64).unwrap_or(0);
        let pods = cluster.list(&POD, NAMESPACE, PODS).await?.len();
        let done = ready == replicas && i64::try_from(pods) == Ok(replicas);
        Ok((!done).then(|| format!("{ready} of {replicas} are ready, {pods} pods are there")))
    })
    .await
}

/// One request for an attachment at Longhorn.
pub struct AttachRequest {
    /// Longhorn's volume.
    pub volume: String,
    /// Where.
    pub node: String,
    /// It carries Handoff's mark: a pre-stage.
    pub ours: bool,
}

impl fmt::Display for AttachRequest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} → {}", self.volume, self.node)
    }
}

/// All requests for attachments that are in the cluster.
pub async fn attach_requests(cluster: &Cluster) -> Result<Vec<AttachRequest>> {
    let attachments = cluster.list(&LH_ATTACHMENT, &cluster.longhorn, "").await?;
    let requests = attachments.iter().flat_map(|attachment| {
        tickets::tickets(attachment).into_iter().map(|ticket| AttachRequest {
            volume: attachment.name().to_owned(),
            node: ticket.text("/nodeID").to_owned(),
            ours: tickets::is_ours(&ticket),
        })
    });
    Ok(requests.collect())
}

/// Pre-stages that are in the cluster.
pub async fn prestages(cluster: &Cluster) -> Result<Vec<String>> {
    Ok(attach_requests(cluster).await?.iter().filter(|r| r.ours).map(ToString::to_string).collect())
}

/// Deletes every replica that is there, one after the other: the next one when as many are ready as before. Returns
/// their names.
pub async fn restart(cluster: &Cluster) -> Result<Vec<String>> {
    let pods = cluster.list(&POD, NAMESPACE, PODS).await?;
    let old: Vec<String> = pods.iter().map(|pod| pod.name().to_owned()).collect();
    for name in &old {
        cluster.delete(&POD, NAMESPACE, name).await?;
        until(START, &format!("{name} to be replaced"), async || {
            let pods = cluster.list(&POD, NAMESPACE, PODS).await?;
            let there = pods.iter().any(|pod| pod.name() == name);
            let serves = |pod: &&Value| pod.condition("Ready") == "True" && !pod.has("/metadata/deletionTimestamp");
            let ready = pods.iter().filter(serves).count();
            let missing =
                format!("{ready} of {} are ready, {name} is {}", old.len(), if there { "there" } else { "gone" });
            Ok((there || ready < old.len()).then_some(missing))
        })
        .await?;
    }
    Ok(old)
}

/// Ends the process of the replica that leads, without warning. Returns the pod's name.
pub async fn kill_leader(cluster: &Cluster, lab: &Lab) -> Result<String> {
    let lease = cluster.get(&LEASE, NAMESPACE, NAME).await?;
    let leader = lease.text("/spec/holderIdentity").to_owned();
    let pod = cluster.find(&POD, NAMESPACE, &leader).await?;
    let Some(pod) = pod else { bail!("the leader '{leader}' has left by itself") };
    lab.kill_container(&pod).await?;
    Ok(leader)
}
