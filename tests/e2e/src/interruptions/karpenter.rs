//! Karpenter, as it is: its controller with the provider that has no cloud, and a node that it takes for its own.

use super::{contracts, nodes, passage::Scene};
use crate::{
    backup,
    bench::Bench,
    cluster::{CSI_NODE, Cluster, EVENT, NODE, NODE_CLAIM, Read, until},
    report::Claim,
    settle,
    workload::{NAMESPACE_NAME, kubectl, running},
};
use anyhow::{Context, Result, bail};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tempfile::NamedTempFile;
use tokio::process::{Child, Command};

/// The directory of its program, `karpenter`, and of its definitions, `crds`; `tests/run contracts` fills it and sets this.
pub const KARPENTER: &str = "HANDOFF_KARPENTER";

const LIMIT: Duration = Duration::from_mins(3);
/// Its queue of evictions asks again after at most 10 s.
const ASKS_AGAIN: SignedDuration = SignedDuration::from_secs(12);
/// On all that it looks after: node and claim end only when it says so.
const FINALIZER: &str = "karpenter.sh/termination";
/// It puts this on a node that it has taken for its own.
const REGISTERED: &str = "karpenter.sh/registered";
/// Says which provider's node it is.
const CLASS: &str = "karpenter.kwok.sh/kwoknodeclass";
const TAINT: &str = "karpenter.sh/disrupted";
const NAME: &str = "handoff-e2e";

/// Its definitions, and nothing that an earlier run left.
pub async fn install(bench: &Bench) -> Result<()> {
    remove(bench).await?;
    let crds = definitions(&directory()?)?;
    kubectl(&["apply", "--server-side", "--filename", &crds]).await?;
    kubectl(&["wait", "--for=condition=Established", "--timeout=60s", "--filename", &crds]).await.map(drop)
}

/// Has Karpenter take the workload's node for its own, before any backup is in flight.
pub async fn adopt(bench: &Bench) -> Result<()> {
    let workload = settle::settle(bench).await?;
    give(&bench.cluster, &workload.node).await?;
    let mut karpenter = Karpenter::start(&directory()?)?;
    karpenter.takes_the_node(&bench.cluster).await?;
    karpenter.stop().await
}

/// Karpenter is told to give the node up. It does not cordon: it sets a taint, and evicts with the pod's UID.
pub async fn ends_the_node(scene: &Scene<'_>) -> Result<Vec<Claim>> {
    let (bench, cluster, volume) = (scene.bench, &scene.bench.cluster, scene.workload);
    contracts::hold_evictions(scene).await?;
    let karpenter = Karpenter::start(&directory()?)?;
    kubectl(&["delete", "nodeclaim", NAME, "--wait=false"]).await?;
    let in_time = contracts::ends_in_time(scene, ASKS_AGAIN).await?;
    scene.ready().await?;
    let tainted = cluster.get(&NODE, "", &volume.node).await?;
    let tainted = tainted.items("/spec/taints").iter().any(|t| t.text("/key") == TAINT);
    karpenter.stop().await?;

    // Its taint keeps the node's own storage pods away, which the upload may need.
    without_taint(cluster, &volume.node).await?;
    let after = running(cluster).await?;
    let evicted = evicted(cluster, &volume.pod).await?;
    // The node goes when the backup no longer needs it.
    backup::finish(cluster, scene.backup).await?;
    take_back(bench).await?;
    Ok(vec![
        Claim::new("Karpenter set its taint", tainted, TAINT),
        in_time,
        Claim::new("Karpenter says that it evicted the pod", evicted.is_some(), evicted.unwrap_or_default()),
        Claim::new("another pod runs in its place", after.uid != volume.uid, after.pod),
    ])
}

fn directory() -> Result<PathBuf> {
    std::env::var_os(KARPENTER).map(PathBuf::from).with_context(|| format!("{KARPENTER} is not set"))
}

fn definitions(dir: &Path) -> Result<String> {
    dir.join("crds").into_os_string().into_string().ok().context("the path of the definitions is not text")
}

/// A claim for the node, as if Karpenter had launched it. The rest of taking it over is left to Karpenter.
async fn give(cluster: &Cluster, name: &str) -> Result<()> {
    let node = cluster.get(&NODE, "", name).await?;
    let id = node.text("/spec/providerID").to_owned();
    if id.is_empty() {
        bail!("node {name} has no providerID, by which Karpenter would know it");
    }
    let claim = json!({
        "apiVersion": "karpenter.sh/v1", "kind": "NodeClaim",
        "metadata": {"name": NAME, "labels": {CLASS: "default"}},
        "spec": {
            "expireAfter": "Never",
            "nodeClassRef": {"group": "karpenter.kwok.sh", "kind": "KWOKNodeClass", "name": "default"},
            "requirements": [{"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]}],
        },
    });
    cluster.create(&NODE_CLAIM, claim).await?;
    let launched = json!({"type": "Launched", "status": "True", "reason": "Launched", "message": "",
        "observedGeneration": 1, "lastTransitionTime": Timestamp::now().to_string()});
    cluster.merge_status(&NODE_CLAIM, "", NAME, &json!({"status": {"providerID": id, "conditions": [launched]}})).await
}

/// Its controller, as a process of ours.
struct Karpenter {
    child: Child,
    log: NamedTempFile,
}

impl Karpenter {
    fn start(dir: &Path) -> Result<Self> {
        let log = NamedTempFile::new().context("a file for Karpenter's log")?;
        let child = Command::new(dir.join("karpenter"))
            .env("DISABLE_LEADER_ELECTION", "true")
            .env("SYSTEM_NAMESPACE", "kube-system")
            // any port that is free: nobody asks
            .env("METRICS_PORT", "0")
            .env("HEALTH_PROBE_PORT", "0")
            .stdin(Stdio::null())
            .stdout(log.reopen().context("Karpenter's log")?)
            .stderr(log.reopen().context("Karpenter's log")?)
            .kill_on_drop(true)
            .spawn()
            .context("cannot run karpenter")?;
        Ok(Self { child, log })
    }

    /// Waits until it has put its finalizer on the node.
    async fn takes_the_node(&mut self, cluster: &Cluster) -> Result<()> {
        until(LIMIT, "Karpenter to take the node", async || {
            if let Some(status) = self.child.try_wait().context("cannot look at karpenter")? {
                bail!("karpenter ended, {status}: {}", self.last_words());
            }
            let claim = cluster.get(&NODE_CLAIM, "", NAME).await?;
            let condition = claim.condition("Registered").to_owned();
            Ok((condition != "True").then(|| format!("Registered is '{condition}'; {}", self.last_words())))
        })
        .await
    }

    /// The end of its log.
    fn last_words(&self) -> String {
        let log = std::fs::read_to_string(self.log.path()).unwrap_or_default();
        let from = log.lines().count().saturating_sub(3);
        log.lines().skip(from).collect::<Vec<_>>().join(" / ")
    }

    async fn stop(mut self) -> Result<()> {
        self.child.kill().await.context("cannot end karpenter")
    }
}

/// What Karpenter's Event says about the pod. It has none of its own for a refusal.
async fn evicted(cluster: &Cluster, pod: &str) -> Result<Option<String>> {
    let events = cluster.list(&EVENT, NAMESPACE_NAME, "").await?;
    let of = |e: &&Value| e.text("/reason") == "Evicted" && e.text("/involvedObject/name") == pod;
    let from = |e: &&Value| [e.text("/source/component"), e.text("/reportingComponent")].contains(&"karpenter");
    Ok(events.iter().find(|e| of(e) && from(e)).map(|e| e.text("/message").to_owned()))
}

async fn without_taint(cluster: &Cluster, name: &str) -> Result<()> {
    let Some(node) = cluster.find(&NODE, "", name).await? else { return Ok(()) };
    let rest: Vec<_> = node.items("/spec/taints").iter().filter(|t| t.text("/key") != TAINT).cloned().collect();
    cluster.merge(&NODE, "", name, &json!({"spec": {"taints": rest}})).await
}

/// Nodes that Karpenter took are everybody's again. One that it deleted cannot be kept: it goes, and its kubelet, started
/// anew, registers it before Kubernetes takes its pods for lost.
pub async fn take_back(bench: &Bench) -> Result<()> {
    let cluster = &bench.cluster;
    for name in &bench.nodes {
        let found = cluster.find(&NODE, "", name).await?;
        let is_going = found.as_ref().is_none_or(|node| node.has("/metadata/deletionTimestamp"));
        if let Some(node) = found {
            if !is_going && !is_karpenters(&node) {
                continue;
            }
            without_taint(cluster, name).await?;
            let labels = json!({REGISTERED: null, CLASS: null});
            let plain = json!({"metadata": {"finalizers": null, "ownerReferences": null, "labels": labels}});
            cluster.merge(&NODE, "", name, &plain).await?;
        }
        if is_going {
            register_anew(bench, name).await?;
        }
    }
    nodes::all_ready(bench).await
}

fn is_karpenters(node: &Value) -> bool {
    let labelled = node.pointer("/metadata/labels").is_some_and(|labels| labels.get(REGISTERED).is_some());
    labelled || node.items("/metadata/finalizers").contains(&json!(FINALIZER))
}

async fn register_anew(bench: &Bench, name: &str) -> Result<()> {
    let (cluster, lab) = (&bench.cluster, bench.lab.as_ref().context("starting a kubelet needs --lab")?);
    // the second is the first's dependant: left over, it would be removed under the new kubelet
    for kind in [&NODE, &CSI_NODE] {
        until(LIMIT, &format!("what was {name} to go"), async || {
            Ok(cluster.find(kind, "", name).await?.map(|_| "still there".to_owned()))
        })
        .await?;
    }
    lab.kubelet_runs(name, false).await?;
    lab.kubelet_runs(name, true).await?;
    until(LIMIT, &format!("{name} to be there again, with its CSI driver"), async || {
        let node = cluster.find(&CSI_NODE, "", name).await?;
        Ok(node.is_none_or(|n| n.items("/spec/drivers").is_empty()).then(|| "no driver".to_owned()))
    })
    .await
}

/// As if Karpenter had never been there.
pub async fn remove(bench: &Bench) -> Result<()> {
    take_back(bench).await?;
    let claims = kubectl(&["get", "crd", "nodeclaims.karpenter.sh", "--ignore-not-found", "-o", "name"]).await?;
    if !claims.trim().is_empty() {
        for claim in bench.cluster.list(&NODE_CLAIM, "", "").await? {
            let plain = json!({"metadata": {"finalizers": null}});
            bench.cluster.merge(&NODE_CLAIM, "", claim.name(), &plain).await?;
            bench.cluster.remove(&NODE_CLAIM, "", claim.name(), LIMIT).await?;
        }
    }
    kubectl(&["delete", "--ignore-not-found", "--filename", &definitions(&directory()?)?]).await.map(drop)
}
