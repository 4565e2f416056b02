//! Pre-stages that nobody adopts in time, or that must not be there at all. The pod is on its way to another node, and
//! what asks for the volume there on behalf of Kubernetes, the csi-attacher, is away.

use super::{passage::Scene, pods};
use crate::{
    attacher,
    cluster::{ATTACHMENT, Cluster, EVENT, LEASE, NODE, POD, Read, STATEFULSET, until},
    handoff, journal,
    report::Claim,
    settle, tickets,
    workload::{self, LABELS, NAMESPACE_NAME, Running, kubectl},
};
use anyhow::{Context, Result, bail};
use jiff::{SignedDuration, Timestamp};
use kube::api::PostParams;
use serde_json::{Value, json};
use std::{
    hash::{BuildHasher, Hasher, RandomState},
    time::Duration,
};

const LIMIT: Duration = Duration::from_mins(2);
/// The API server takes a node that is silent for dead after 50 s.
const MISSED: Duration = Duration::from_mins(3);
/// Pre-stages that nobody knows of are looked for each minute.
const REAPED: Duration = Duration::from_secs(100);
/// A decision that was due is carried out within this.
const CARRIED_OUT: SignedDuration = SignedDuration::from_secs(10);
/// So slow that the upload outlasts what is done meanwhile.
const CRAWL: &str = "1mbit";
/// How often the leader is killed around the placing.
const KILLS: usize = 3;
/// Within this time after the pod's deletion, in milliseconds.
const KILL_WITHIN_MILLIS: u64 = 1_500;

/// Deletes the workload's pod, which has to go elsewhere.
async fn send_away(scene: &Scene<'_>, from: &str) -> Result<()> {
    pods::cordon(scene.bench, from).await?;
    let all = scene.bench.cluster.list(&POD, NAMESPACE_NAME, LABELS).await?;
    let pod = all.iter().find(|p| !p.has("/metadata/deletionTimestamp")).context("the workload has no pod")?;
    kubectl(&["delete", "pod", "-n", NAMESPACE_NAME, pod.name(), "--wait=false"]).await.map(drop)
}

/// Waits for a pre-stage that is open, for a pod that is bound, and asked for at the storage manager. Returns its node.
async fn open(scene: &Scene<'_>, besides: &str) -> Result<String> {
    let (cluster, workload) = (&scene.bench.cluster, scene.workload);
    let handoff = journal::when(cluster, workload, LIMIT, "a pre-stage for the new pod", |handoff| {
        let (node, pod) = journal::prestage(handoff);
        !node.is_empty() && !pod.is_empty() && node != besides && journal::outcome(handoff).is_empty()
    })
    .await?;
    let (node, _) = journal::prestage(&handoff);
    until(LIMIT, "the attach request of the pre-stage", async || {
        let ours = tickets::ours(cluster, &workload.handle).await?;
        Ok((ours != [node.as_str()]).then(|| format!("wanted on {node}, asked for on '{}'", ours.join(", "))))
    })
    .await?;
    println!("  pre-stage on {node}");
    Ok(node)
}

/// Nothing is attached, and the upload that goes on meanwhile does not end.
async fn pause(scene: &Scene<'_>) -> Result<()> {
    scene.bench.link(CRAWL).await?;
    attacher::away(&scene.bench.cluster).await
}

/// Nobody adopts: the pod bound, the pre-stage there.
async fn unadopted(scene: &Scene<'_>) -> Result<String> {
    pause(scene).await?;
    send_away(scene, &scene.workload.node).await?;
    open(scene, "").await
}

/// The attacher is back, and the pod comes up.
async fn arrive(scene: &Scene<'_>) -> Result<Claim> {
    attacher::back(&scene.bench.cluster).await?;
    scene.ready().await?;
    scene.bench.link_slow().await?;
    let handoff = journal::find(&scene.bench.cluster, scene.workload).await?.unwrap_or_default();
    let (node, outcome) = (journal::prestage(&handoff).0, journal::outcome(&handoff).to_owned());
    let found = if node.is_empty() { "none was needed".to_owned() } else { format!("pre-stage on {node}: {outcome}") };
    let ended = node.is_empty() || matches!(&*outcome, "Adopted" | "Withdrawn");
    Ok(Claim::new("in the end it was adopted or withdrawn", ended, found))
}

fn never_two(census: &tickets::Census) -> Claim {
    let most = census.most();
    Claim::new("there was never more than one pre-stage", most == 1, format!("at most {most} at a time"))
}

/// The pod is deleted before its start, and its successor bound elsewhere.
pub async fn rebound(scene: &Scene<'_>) -> Result<Vec<Claim>> {
    let census = tickets::Census::start(&scene.bench.cluster, &scene.workload.handle);
    let first = unadopted(scene).await?;
    send_away(scene, &first).await?;
    let second = open(scene, &first).await?;
    let moved = Claim::new("the pre-stage followed the pod", second != first, format!("{first} → {second}"));
    let end = arrive(scene).await?;
    Ok(vec![moved, end, never_two(&census)])
}

/// The pod is deleted before its start, and has no successor for a while.
pub async fn pod_deleted(scene: &Scene<'_>) -> Result<Vec<Claim>> {
    let cluster = &scene.bench.cluster;
    let census = tickets::Census::start(cluster, &scene.workload.handle);
    let node = unadopted(scene).await?;
    let scale = async |replicas: u8| {
        cluster.merge(&STATEFULSET, NAMESPACE_NAME, "db", &json!({"spec": {"replicas": replicas}})).await
    };
    scale(0).await?;
    // the deletion of that pod begins a new page of the journal, without a pre-stage
    let closed = journal::when(cluster, scene.workload, LIMIT, "the pre-stage to be closed", |handoff| {
        journal::prestage(handoff).0.is_empty() || !journal::outcome(handoff).is_empty()
    })
    .await;
    let gone = none_left(scene).await;
    let mut claims = vec![
        Claim::new("the record says that none is open", closed.is_ok(), node),
        Claim::new("its attach request is gone", gone.is_ok(), gone.err().map(|e| e.to_string()).unwrap_or_default()),
    ];
    scale(1).await?;
    claims.push(arrive(scene).await?);
    claims.push(never_two(&census));
    Ok(claims)
}

async fn none_left(scene: &Scene<'_>) -> Result<()> {
    until(Duration::from_secs(10), "our attach requests to go", async || {
        let ours = tickets::ours(&scene.bench.cluster, &scene.workload.handle).await?;
        Ok((!ours.is_empty()).then(|| format!("still on {}", ours.join(", "))))
    })
    .await
}

/// The target's kubelet falls silent before the volume is there. The pre-stage is taken back at its expiry, and the pod
/// comes up once its node is back.
pub async fn target_lost(scene: &Scene<'_>) -> Result<Vec<Claim>> {
    let (bench, cluster) = (scene.bench, &scene.bench.cluster);
    let lab = bench.lab.as_ref().context("stopping a kubelet needs --lab")?;
    let census = tickets::Census::start(cluster, &scene.workload.handle);
    let node = unadopted(scene).await?;
    lab.kubelet_runs(&node, false).await?;
    until(MISSED, "the target to be missed", async || {
        let ready = cluster.get(&NODE, "", &node).await?.condition("Ready") == "True";
        Ok(ready.then(|| "still Ready".to_owned()))
    })
    .await?;
    let handoff = journal::when(cluster, scene.workload, MISSED, "the pre-stage to be withdrawn", |handoff| {
        !journal::outcome(handoff).is_empty()
    })
    .await?;
    let gone = none_left(scene).await;
    let late = time(&handoff, "/status/prestage/expiresAt").map(|at| Timestamp::now().duration_since(at));
    let mut claims = vec![
        Claim::new("it is recorded as withdrawn", journal::outcome(&handoff) == "Withdrawn", node.clone()),
        Claim::new("its attach request is gone", gone.is_ok(), gone.err().map(|e| e.to_string()).unwrap_or_default()),
        Claim::new(
            "not later than its expiry",
            late.is_some_and(|late| late < CARRIED_OUT),
            late.map(|late| format!("{:.1} s after it", late.as_secs_f64())).unwrap_or_default(),
        ),
    ];
    lab.kubelet_runs(&node, true).await?;
    claims.push(arrive(scene).await?);
    claims.push(never_two(&census));
    Ok(claims)
}

fn time(object: &Value, pointer: &str) -> Option<Timestamp> {
    object.text(pointer).parse().ok()
}

/// The leader is killed around the moment at which it records and places a pre-stage, several times.
pub async fn leader_killed(scene: &Scene<'_>) -> Result<Vec<Claim>> {
    let (bench, cluster) = (scene.bench, &scene.bench.cluster);
    let lab = bench.lab.as_ref().context("killing a process needs --lab")?;
    let census = tickets::Census::start(cluster, &scene.workload.handle);
    pause(scene).await?;
    let mut claims = Vec::new();
    for turn in 1..=KILLS {
        led(scene).await?;
        send_away(scene, &scene.workload.node).await?;
        let wait = RandomState::new().build_hasher().finish() % KILL_WITHIN_MILLIS;
        tokio::time::sleep(Duration::from_millis(wait)).await;
        let killed = handoff::kill_leader(cluster, lab).await;
        let what = format!("turn {turn}: the leader was killed {wait} ms after the pod was told to go");
        claims.push(Claim::new(&what, killed.is_ok(), killed.unwrap_or_else(|e| format!("{e:#}"))));
        led(scene).await?;
        let settled = agreed(scene).await;
        let found = settled.as_ref().map_or_else(|e| format!("{e:#}"), |node| format!("on {node}"));
        claims.push(Claim::new("record and attach request agree on one pre-stage", settled.is_ok(), found));
    }
    claims.push(arrive(scene).await?);
    claims.push(never_two(&census));
    Ok(claims)
}

/// Waits until a replica renews the lease.
async fn led(scene: &Scene<'_>) -> Result<()> {
    let cluster = &scene.bench.cluster;
    until(LIMIT, "a replica to lead", async || {
        let lease = cluster.get(&LEASE, handoff::NAMESPACE, handoff::NAME).await?;
        let renewed = time(&lease, "/spec/renewTime").map(|at| Timestamp::now().duration_since(at));
        let fresh = renewed.is_some_and(|age| age < SignedDuration::from_secs(2));
        Ok((!fresh).then(|| "the lease is not renewed".to_owned()))
    })
    .await
}

/// Waits until the pod that is bound now has a pre-stage, in the record and at the storage manager, and no other is there.
async fn agreed(scene: &Scene<'_>) -> Result<String> {
    let (cluster, volume) = (&scene.bench.cluster, scene.workload);
    let mut there = String::new();
    until(LIMIT, "record and attach request to agree", async || {
        let pods = cluster.list(&POD, NAMESPACE_NAME, LABELS).await?;
        let [pod] = pods.as_slice() else { return Ok(Some(format!("{} pods", pods.len()))) };
        let handoff = journal::find(cluster, volume).await?.unwrap_or_default();
        let (node, uid) = journal::prestage(&handoff);
        let ours = tickets::ours(cluster, &volume.handle).await?;
        let bound = pod.text("/spec/nodeName");
        let all = !bound.is_empty() && bound == node && uid == pod.text("/metadata/uid") && ours == [node.as_str()];
        there.clone_from(&node);
        Ok((!all).then(|| format!("bound to '{bound}', recorded on '{node}', asked for on '{}'", ours.join(", "))))
    })
    .await?;
    Ok(there)
}

/// With no replica running, a pre-stage that no handoff knows of (as a crashed version would leave it), and beside it an
/// attach request that merely looks like one. At its start Handoff takes back the first and leaves the second alone.
pub async fn unrecorded(scene: &Scene<'_>) -> Result<Vec<Claim>> {
    let (bench, cluster, volume) = (scene.bench, &scene.bench.cluster, scene.workload);
    let other = bench.nodes.iter().find(|node| **node != volume.node).context("there is one node only")?;
    handoff::scale(cluster, 0).await?;
    let ours =
        tickets::ticket(&tickets::id(&volume.handle, other), "csi-attacher", other, crate::observer::PRESTAGE_MARK);
    let foreign = tickets::ticket("csi-handoff-e2e", "csi-attacher", other, "somebody-else");
    for ticket in [&ours, &foreign] {
        tickets::put(cluster, &volume.handle, ticket).await?;
    }
    handoff::scale(cluster, 2).await?;
    let began = std::time::Instant::now();
    let taken = until(REAPED, "the pre-stage of nobody to go", async || {
        let left = tickets::ours(cluster, &volume.handle).await?;
        Ok((!left.is_empty()).then(|| format!("still on {}", left.join(", "))))
    })
    .await;
    let found =
        taken.map_or_else(|e| e.to_string(), |()| format!("{:.1} s after the start", began.elapsed().as_secs_f64()));
    let left = tickets::ours(cluster, &volume.handle).await?;
    let mut claims = vec![Claim::new("a pre-stage that nobody knows of is taken back", left.is_empty(), found)];
    let now = tickets::all(cluster, &volume.handle).await?;
    let untouched = now.contains(&foreign);
    claims.push(Claim::new("an attach request that is not ours is left alone", untouched, ""));
    let stays = workload::running(cluster).await?;
    claims.push(Claim::new("the pod was not disturbed", stays.uid == volume.uid, stays.node));
    tickets::remove(cluster, &volume.handle, "csi-handoff-e2e").await?;
    claims.extend(pods::delete(scene).await?);
    Ok(claims)
}

/// Attached by hand where it is, as in Longhorn's own user interface: nothing may be pre-staged until that is over.
pub async fn refused(scene: &Scene<'_>) -> Result<Vec<Claim>> {
    let (cluster, volume) = (&scene.bench.cluster, scene.workload);
    let by_hand = tickets::ticket("handoff-e2e-by-hand", "longhorn-api", &volume.node, "");
    tickets::put(cluster, &volume.handle, &by_hand).await?;
    send_away(scene, &volume.node).await?;
    let mut claims = refusal(scene, "longhorn-api holds it on").await?;
    tickets::remove(cluster, &volume.handle, "handoff-e2e-by-hand").await?;
    scene.ready().await?;
    claims.push(Claim::new("once that is over, the pod comes up", true, ""));
    Ok(claims)
}

/// A volume that can run beside its only replica only. The scheduler knows from the `PersistentVolume`; a pod bound
/// elsewhere all the same is refused there, and runs again where its replica is.
pub async fn strict_local(scene: &Scene<'_>) -> Result<Vec<Claim>> {
    let (bench, cluster, volume) = (scene.bench, &scene.bench.cluster, scene.workload);
    let other = bench.nodes.iter().find(|node| **node != volume.node).context("there is one node only")?;
    send_away(scene, &volume.node).await?;
    let (pod, told) = unschedulable(cluster, volume).await?;
    let mut claims = vec![Claim::new("the scheduler finds no node for it", true, told)];
    let attachments = async || attachments(scene).await;
    until(LIMIT, "the old attachment to go", async || Ok(attachments().await?.first().cloned())).await?;
    attacher::away(cluster).await?;
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod},
        "target": {"apiVersion": "v1", "kind": "Node", "name": other}});
    let bound = cluster.api(&POD, NAMESPACE_NAME);
    let _: Value = bound
        .create_subresource("binding", &pod, &PostParams::default(), &binding)
        .await
        .context("binding the pod by hand")?;
    claims.extend(refusal(scene, "is strict-local and has no replica on").await?);
    settle::uncordon(bench).await?;
    for other in bench.nodes.iter().filter(|node| **node != volume.node) {
        pods::cordon(bench, other).await?;
    }
    kubectl(&["delete", "pod", "-n", NAMESPACE_NAME, &pod, "--wait=false"]).await?;
    // Kubernetes keeps what was never attached, and Longhorn would serve the two requests in the order of their ids
    for attachment in attachments().await? {
        cluster.delete(&ATTACHMENT, "", &attachment).await?;
    }
    attacher::back(cluster).await?;
    scene.ready().await?;
    Ok(claims)
}

/// Names of the attachments of the scene's volume.
async fn attachments(scene: &Scene<'_>) -> Result<Vec<String>> {
    let all = scene.bench.cluster.list(&ATTACHMENT, "", "").await?;
    let of_volume = |a: &&Value| a.text("/spec/source/persistentVolumeName") == scene.workload.volume;
    Ok(all.iter().filter(of_volume).map(|a| a.name().to_owned()).collect())
}

/// Waits until the scheduler has said that it finds no node for the workload's new pod; its name, and what was said.
async fn unschedulable(cluster: &Cluster, volume: &Running) -> Result<(String, String)> {
    let mut found = (String::new(), String::new());
    until(LIMIT, "the scheduler to find no node", async || {
        let pods = cluster.list(&POD, NAMESPACE_NAME, LABELS).await?;
        let Some(pod) = pods.iter().find(|p| p.text("/metadata/uid") != volume.uid) else {
            return Ok(Some("no new pod".to_owned()));
        };
        let scheduled = pod.items("/status/conditions").iter().find(|c| c.text("/type") == "PodScheduled");
        let told = scheduled.map_or("", |c| c.text("/message"));
        found = (pod.name().to_owned(), told.to_owned());
        let no_node = scheduled.is_some_and(|c| c.text("/reason") == "Unschedulable");
        Ok((!no_node).then(|| format!("'{told}'")))
    })
    .await?;
    Ok(found)
}

/// The refusal is recorded and told with its reason, and nothing of ours is placed.
async fn refusal(scene: &Scene<'_>, reason: &str) -> Result<Vec<Claim>> {
    let (cluster, volume) = (&scene.bench.cluster, scene.workload);
    let census = tickets::Census::start(cluster, &volume.handle);
    journal::when(cluster, volume, LIMIT, "the refusal to be recorded", |h| journal::has_step(h, "PreStageRefused"))
        .await?;
    let mut said = String::new();
    let told = until(Duration::from_secs(20), "an Event that says why", async || {
        let events = cluster.list(&EVENT, NAMESPACE_NAME, "").await?;
        let ours = events.iter().find(|e| e.text("/reason") == "PreStageRefused");
        said = ours.map(|e| e.text("/message").to_owned()).unwrap_or_default();
        Ok((!said.contains(reason)).then(|| format!("'{said}'")))
    })
    .await;
    if let Err(error) = &told {
        eprintln!("  {error:#}");
    }
    // several looks of the leader at the volume
    tokio::time::sleep(Duration::from_secs(12)).await;
    let placed = census.most();
    if placed > 0 {
        bail!("a pre-stage was placed although that was refused");
    }
    Ok(vec![
        Claim::new("the refusal is told with its reason", told.is_ok(), said),
        Claim::new("nothing was placed", true, ""),
    ])
}
