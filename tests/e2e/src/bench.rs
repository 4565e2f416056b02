//! What every command works with, how it starts (leftovers of an aborted run removed) and how it leaves.

use crate::{
    args::Common,
    cluster::{Cluster, LH_BACKUP_TARGET, LH_NODE, NODE, Read, until},
    handoff,
    lab::Lab,
    settle,
    workload::{self, NAMESPACE_NAME},
};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// Whether a pod waits for its backup on this version of Longhorn (longhorn/longhorn#10171).
pub fn waits(version: &str) -> bool {
    ["1.7.0", "1.7.1", "1.7.2", "1.8.0"].contains(&version.trim_start_matches('v'))
}

/// What every command works with.
pub struct Bench {
    /// The cluster.
    pub cluster: Cluster,
    /// The lab, if it is one.
    pub lab: Option<Lab>,
    /// The common arguments.
    pub common: Common,
    /// Longhorn's version, as in `v1.10.0`.
    pub longhorn: String,
    /// Nodes that carry storage.
    pub nodes: Vec<String>,
    /// Fresh random data under each backup, in MiB.
    pub data: u32,
}

impl Bench {
    /// Connects, checks that the cluster can serve, and removes what an aborted run left.
    pub async fn open(common: Common, data: u32) -> Result<Self> {
        let cluster = Cluster::connect(&common.longhorn_namespace).await?;
        let longhorn = cluster.setting("current-longhorn-version").await.context("is Longhorn installed?")?;
        eprintln!("Longhorn {longhorn}");
        let nodes = storage_nodes(&cluster).await?;
        if nodes.len() < 2 {
            bail!("a move needs two worker nodes with storage; there is: {}", nodes.join(", "));
        }
        let target = cluster.get(&LH_BACKUP_TARGET, &cluster.longhorn, "default").await?;
        if !target.pointer("/status/available").and_then(Value::as_bool).unwrap_or(false) {
            bail!("Longhorn's default backup target is not available; set one first");
        }
        let lab = common.lab.clone().map(Lab::new);
        if lab.is_none() {
            eprintln!("no --lab: the link is used as it is, and uploads are not counted");
        }
        let data = common.data.unwrap_or(data);
        let bench = Self { cluster, lab, common, longhorn, nodes, data };
        settle::uncordon(&bench).await?;
        bench.link_slow().await?;
        workload::remove_leftovers(&bench.cluster).await?;
        Ok(bench)
    }

    /// The link to the backup target as slow as asked for.
    pub async fn link_slow(&self) -> Result<()> {
        self.link(&self.common.link).await
    }

    /// The link to the backup target at full speed.
    pub async fn link_open(&self) -> Result<()> {
        self.link("off").await
    }

    /// The link to the backup target at another speed.
    pub async fn link(&self, rate: &str) -> Result<()> {
        match &self.lab {
            Some(lab) => lab.link(rate).await,
            None => Ok(()),
        }
    }

    /// Installs Handoff from the kustomization, unless it is there already, and waits until it serves.
    pub async fn with_handoff(&self) -> Result<()> {
        if !self.common.installed {
            handoff::install(&self.cluster, &self.common.deploy).await?;
        }
        handoff::serves(&self.cluster).await
    }

    /// The cluster as it would be had Handoff never been there.
    pub async fn without_handoff(&self) -> Result<()> {
        handoff::withdraw(&self.cluster).await
    }

    /// Whether a pod waits for its backup on this Longhorn.
    pub fn pod_waits_for_backup(&self) -> bool {
        waits(&self.longhorn)
    }

    /// Nodes uncordoned, link open, workload and data removed.
    pub async fn leave(&self) -> Result<()> {
        settle::uncordon(self).await?;
        self.link_open().await?;
        if self.common.keep {
            eprintln!("kept: namespace {NAMESPACE_NAME}");
            return Ok(());
        }
        workload::remove_leftovers(&self.cluster).await
    }
}

/// Nodes that Longhorn uses and that take pods: no taint keeps them away.
async fn storage_nodes(cluster: &Cluster) -> Result<Vec<String>> {
    let storage = cluster.list(&LH_NODE, &cluster.longhorn, "").await?;
    let mut nodes = Vec::new();
    for node in cluster.list(&NODE, "", "").await? {
        let keeps_away =
            |t: &Value| t.text("/effect") == "NoSchedule" && t.text("/key") != "node.kubernetes.io/unschedulable";
        let tainted = node.items("/spec/taints").iter().any(keeps_away);
        if !tainted && storage.iter().any(|s| s.name() == node.name()) {
            nodes.push(node.name().to_owned());
        }
    }
    Ok(nodes)
}

/// Runs until done, or until the user or a supervisor asks to stop.
pub async fn until_interrupted<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let mut term = signal(SignalKind::terminate()).context("cannot listen for signals")?;
    tokio::select! {
        result = work => result,
        _ = tokio::signal::ctrl_c() => bail!("interrupted"),
        _ = term.recv() => bail!("asked to stop"),
    }
}

/// How long a cluster may take to come to rest: a stranded volume waits for back-offs of up to five minutes.
pub const REST: Duration = Duration::from_mins(12);

/// Waits with the time a cluster may take to come to rest.
pub async fn rest(what: &str, missing: impl AsyncFnMut() -> Result<Option<String>>) -> Result<()> {
    until(REST, what, missing).await
}
