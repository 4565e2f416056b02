//! `handoff plan NODE`: what `kubectl drain NODE` would do now.

use super::{
    End,
    blockers::{self, Blocker},
    connection::{Cluster, ClusterArgs},
    estimate::{Estimate, estimate},
    installation,
    look::{self, Look, NodeVerdict},
    output::{self, OutputArgs, Report, Tone, paint, span},
    subject::{self, claims_of},
};
use anyhow::Context;
use clap::Args;
use handoff_cluster::{ObjectKey, settings::EvictionPolicy, settings::MaxHold, settings::Mode, settings::Settings};
use handoff_coordinator::{api::VolumeHandoff, mode::layers, policy::Policy, progress::Progress};
use handoff_storage::StorageManager;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::{
    core::v1::{Node, Pod},
    policy::v1::PodDisruptionBudget,
};
use kube::{Api, ResourceExt, api::ListParams};
use serde::Serialize;

/// Targets shown for a pod.
const TARGETS: usize = 3;

/// `handoff plan`.
#[derive(Args, Debug)]
pub struct PlanArgs {
    /// The node.
    #[arg(value_name = "NODE")]
    pub node: String,
    /// How it is printed.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Which cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

/// What a plan is made from.
pub struct Input {
    /// The node.
    pub node: Node,
    /// The pods on it.
    pub pods: Vec<Pod>,
    /// All disruption budgets.
    pub budgets: Vec<PodDisruptionBudget>,
    /// All handoffs.
    pub handoffs: Vec<VolumeHandoff>,
    /// The bounds Handoff runs with.
    pub policy: Policy,
    /// Longhorn's setting `node-drain-policy`.
    pub drain_policy: String,
    /// Nodes, volumes and Longhorn.
    pub look: Look,
}

/// What a drain would do now.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// The node.
    pub node: String,
    /// It is cordoned already.
    pub cordoned: bool,
    /// Pods that would be evicted; those with volumes of ours first.
    pub pods: Vec<Planned>,
    /// Pods that a drain leaves: of `DaemonSet`s, static ones, finished ones.
    pub stays: usize,
    /// What keeps the drain from ending, or would.
    pub blockers: Vec<Blocker>,
    /// From the eviction to the last pod with volumes of ours ready; none when there is no such pod.
    pub expected: Option<Estimate>,
}

/// A pod that would be evicted.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Planned {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What makes it anew, as in `StatefulSet/db`.
    pub owner: Option<String>,
    /// Its volumes of ours.
    pub volumes: Vec<PlannedVolume>,
    /// The best other nodes for it, as far as its volumes are concerned.
    pub targets: Vec<NodeVerdict>,
    /// How long its move would take, for a pod with volumes of ours.
    pub expected: Option<Estimate>,
}

/// A volume of a pod that would be evicted.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlannedVolume {
    /// The claim.
    pub claim: String,
    /// The `PersistentVolume`.
    pub volume: String,
    /// How much Handoff does for it: `enabled`, `observe` or `disabled`.
    pub mode: String,
    /// Its backups in flight.
    pub backups: Vec<InFlight>,
    /// The eviction would be held for about so many seconds.
    pub hold_seconds: Option<f64>,
}

/// A backup in flight.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InFlight {
    /// Its name.
    pub name: String,
    /// Percent.
    pub progress: u8,
    /// How long it still takes at its mean speed since it was created; none when nothing can be said.
    pub eta_seconds: Option<f64>,
}

/// Says what a drain would do.
pub async fn run(args: PlanArgs) -> anyhow::Result<End> {
    let cluster = args.cluster.connect().await?;
    let input = gather(&cluster, &args.node).await?;
    output::print(&plan(&input, Timestamp::now()), args.output.output)?;
    Ok(End::Yes)
}

/// Reads what a plan is made from.
pub async fn gather(cluster: &Cluster, name: &str) -> anyhow::Result<Input> {
    let node = subject::node(cluster, name).await?;
    let pods = subject::pods_on(cluster, name).await?;
    let budgets = Api::<PodDisruptionBudget>::all(cluster.client.clone()).list(&ListParams::default()).await;
    let settings = cluster.longhorn_objects("Setting", "settings");
    let setting = settings.get_opt("node-drain-policy").await.context("cannot read Longhorn's settings")?;
    let drain_policy = setting.and_then(|s| s.data.get("value")?.as_str().map(ToOwned::to_owned));
    Ok(Input {
        node,
        pods,
        budgets: budgets.context("cannot list PodDisruptionBudgets")?.items,
        handoffs: look::handoffs(cluster, None).await?,
        policy: installation::policy(cluster).await?,
        // Longhorn's default
        drain_policy: drain_policy.unwrap_or_else(|| "block-if-contains-last-replica".to_owned()),
        look: Look::at(cluster).await?,
    })
}

/// What a drain would do now.
pub fn plan(input: &Input, now: Timestamp) -> Plan {
    let name = input.node.name_any();
    let (leaving, stays): (Vec<_>, Vec<_>) = input.pods.iter().partition(|pod| leaves(pod));
    let mut pods = leaving.iter().map(|pod| planned(input, &name, pod, now)).collect::<Vec<_>>();
    pods.sort_by_key(|p| (p.volumes.is_empty(), p.namespace.clone(), p.name.clone()));
    let expected = pods.iter().filter_map(|p| p.expected.clone()).max_by(|a, b| a.seconds.total_cmp(&b.seconds));
    let blockers = blockers::find(input, &leaving, &pods);
    let cordoned = input.node.spec.as_ref().is_some_and(|s| s.unschedulable == Some(true));
    Plan { node: name, cordoned, pods, stays: stays.len(), blockers, expected }
}

/// A drain evicts it.
fn leaves(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default();
    let daemon = pod.owner_references().iter().any(|o| o.controller == Some(true) && o.kind == "DaemonSet");
    let mirror = pod.annotations().contains_key("kubernetes.io/config.mirror");
    !daemon && !mirror && !matches!(phase, "Succeeded" | "Failed")
}

fn planned(input: &Input, node: &str, pod: &Pod, now: Timestamp) -> Planned {
    let (namespace, claims) = (pod.namespace().unwrap_or_default(), claims_of(pod));
    let settings = Settings::of(Some(pod.annotations()));
    let volumes = claims.iter().filter_map(|claim| planned_volume(input, &settings, &namespace, claim, now));
    let volumes = volumes.collect::<Vec<_>>();
    let mut targets = Vec::new();
    if !volumes.is_empty() {
        let index = input.look.cluster.read();
        let open = |n: &str| index.node(n).is_some_and(|n| n.ready && !n.is_emptied() && !n.tainted);
        let closed = index.nodes().filter(|n| !open(&n.name)).map(|n| n.name.clone()).collect::<Vec<_>>();
        drop(index);
        targets = input.look.judge(&namespace, &claims);
        targets.retain(|t| t.node != node && !closed.contains(&t.node));
    }
    let expected = (!volumes.is_empty()).then(|| {
        let names = volumes.iter().map(|v| v.volume.clone()).collect::<Vec<_>>();
        let mut expected = estimate(&input.handoffs, &names);
        let hold = volumes.iter().filter_map(|v| v.hold_seconds).fold(0.0, f64::max);
        if hold > 0.0 {
            expected.seconds += hold;
            expected.source = format!("{}, and {hold:.0} s of hold", expected.source);
        }
        expected
    });
    let owner = pod.owner_references().iter().find(|o| o.controller == Some(true));
    let owner = owner.map(|o| format!("{}/{}", o.kind, o.name));
    Planned { namespace, name: pod.name_any(), owner, volumes, targets, expected }
}

fn planned_volume(
    input: &Input,
    pod: &Settings,
    namespace: &str,
    claim: &str,
    now: Timestamp,
) -> Option<PlannedVolume> {
    let (key, storage) = (ObjectKey::new(namespace, claim), &input.look.storage);
    let index = input.look.cluster.read();
    let volume = index.volume_of_claim(&key).filter(|v| v.driver == storage.driver())?;
    let layers = layers(&index, pod, &key);
    drop(index);
    let mode = layers.mode(input.policy.mode);
    let progress = Progress::default();
    let backups = storage.backups(&volume.handle);
    let in_flight = backups.iter().filter(|b| b.in_flight()).map(|backup| {
        let left = progress.remaining(backup, now).map(|left| left.as_secs_f64());
        InFlight { name: backup.name.clone(), progress: backup.progress, eta_seconds: left }
    });
    let in_flight = in_flight.collect::<Vec<_>>();
    let policy = layers.resolve(|given| &given.eviction_policy, input.policy.eviction_policy);
    let longest = layers.resolve(|given| &given.max_hold, MaxHold(input.policy.eviction_hold)).0;
    // held only if every backup is near enough
    let slowest = in_flight.iter().map(|b| b.eta_seconds).collect::<Option<Vec<_>>>();
    let slowest = slowest.and_then(|etas| etas.into_iter().max_by(f64::total_cmp));
    let waits = mode == Mode::Enabled && policy == EvictionPolicy::FinishIfNear;
    let hold_seconds = slowest.filter(|s| waits && *s <= longest.as_secs_f64());
    Some(PlannedVolume {
        claim: claim.to_owned(),
        volume: volume.name.clone(),
        mode: mode.to_string(),
        backups: in_flight,
        hold_seconds,
    })
}

impl Report for Plan {
    fn text(&self) -> String {
        let cordoned = if self.cordoned { "cordoned" } else { "not cordoned" };
        let mut parts = vec![format!(
            "Node {} is {cordoned}. A drain would evict {} pod(s), {} of them with volumes of ours, and leave {}.",
            self.node,
            self.pods.len(),
            self.pods.iter().filter(|p| !p.volumes.is_empty()).count(),
            self.stays
        )];
        let with_volumes = self.pods.iter().filter(|p| !p.volumes.is_empty()).collect::<Vec<_>>();
        if !with_volumes.is_empty() {
            let rows = with_volumes.iter().map(|pod| {
                let target = pod.targets.iter().filter(|t| t.score.is_some()).take(TARGETS);
                let targets = target.map(|t| format!("{} ({})", t.node, t.score.unwrap_or_default()));
                let targets = targets.collect::<Vec<_>>().join(", ");
                let expected = pod.expected.as_ref().map(|e| format!("{:.0}s", e.seconds)).unwrap_or_default();
                let pieces = pod.volumes.iter().map(PlannedVolume::text).collect::<Vec<_>>().join("; ");
                let targets = if targets.is_empty() { "none".to_owned() } else { targets };
                [format!("{}/{}", pod.namespace, pod.name), pieces, targets, expected]
            });
            let table = output::table(["POD", "BACKUPS IN FLIGHT", "TARGETS (SCORE)", "READY AFTER"], rows);
            parts.push(format!(
                "{}\n{table}\nTargets are as Handoff would score them now; kube-scheduler also looks at CPU, memory and the pod's own rules.",
                paint(Tone::Heading, "Pods with volumes")
            ));
        }
        if let Some(expected) = &self.expected {
            parts.push(format!(
                "Expected: the last of them is ready after about {:.0} s ({}).",
                expected.seconds, expected.source
            ));
        }
        if self.blockers.is_empty() {
            parts.push(paint(Tone::Good, "Nothing keeps the drain from ending."));
        } else {
            let lines = self.blockers.iter().map(Blocker::text).collect::<Vec<_>>().join("\n");
            parts.push(format!("{}\n{lines}", paint(Tone::Heading, "What keeps the drain from ending")));
        }
        parts.join("\n\n")
    }
}

impl PlannedVolume {
    fn text(&self) -> String {
        let mode = if self.mode == "enabled" { String::new() } else { format!(" [{}]", self.mode) };
        let hold = self.hold_seconds.map(|s| format!(", held for about {s:.0} s")).unwrap_or_default();
        let backups = self.backups.iter().map(|b| {
            let eta = b.eta_seconds.map(|s| format!(", about {} to go", span(SignedDuration::from_secs_f64(s))));
            format!("{} at {} %{}", b.name, b.progress, eta.unwrap_or_default())
        });
        let backups = backups.collect::<Vec<_>>().join(", ");
        let backups = if backups.is_empty() { "none".to_owned() } else { backups };
        format!("{}{mode}: {backups}{hold}", self.claim)
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
pub mod tests;
