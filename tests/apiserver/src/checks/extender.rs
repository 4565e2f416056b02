//! The extender asked by a real kube-scheduler over mTLS.

use super::{binding::prestage, outage::scheduled};
use crate::{
    bench::{Bench, SOON},
    control_plane::{NODES, User},
    http::{Read, eventually},
    kubelet::MANUAL,
    mtls, scheduler,
    world::{Volume, core, longhorn, pod},
};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::{
    path::Path,
    time::{Duration, Instant},
};

/// Here the webhook leaves pods alone, so that what is seen is the extender's doing.
const NS: &str = "kube-system";

/// A claim whose volume is on `node` and has its only replica there, and a pod for it.
async fn waiting(bench: &Bench, ns: &str, name: &str, replica: &str) -> Result<Value> {
    let volume = Volume::new(ns, &format!("data-{name}"));
    bench.world.volume(&volume, "", &[replica]).await?;
    bench
        .world
        .admin
        .merge(
            &longhorn("volumeattachments", &volume.handle),
            &json!({"spec": {"attachmentTickets": {"csi-test": null}}}),
        )
        .await?;
    Ok(pod(ns, name, &[&volume.claim]))
}

/// The message of the pod's condition `PodScheduled`, once it is False.
async fn rejected(bench: &Bench, ns: &str, name: &str) -> Result<String> {
    let path = core(ns, "pods", name);
    let message = eventually(SOON, async || {
        let pod = bench.admin.find(&path).await?.unwrap_or_default();
        let condition = pod.items("/status/conditions").iter().find(|c| c.text("/type") == "PodScheduled");
        Ok(condition.filter(|c| c.text("/status") == "False").map(|c| c.text("/message").to_owned()))
    });
    Ok(message.await?.unwrap_or_default())
}

async fn all_managers(bench: &Bench, state: &str) -> Result<()> {
    for node in NODES {
        bench.world.instance_manager(node, state).await?;
    }
    Ok(())
}

pub async fn run(bench: &mut Bench) -> Result<()> {
    bench.led().await?;
    let files = scheduler::write_files(bench).await?;
    certificates(bench, &files).await?;
    webhook_only(bench).await?;
    let scheduler = scheduler::start(bench, "scheduler-extender", &files, "scheduler-config.yaml", |text| text).await?;
    filter(bench).await?;
    prioritize(bench).await?;
    second(bench, &files).await?;
    drop(scheduler);
    nodes_mode(bench, &files).await?;
    let _scheduler = scheduler::start(bench, "scheduler-verbs", &files, "scheduler-config.yaml", all_verbs).await?;
    bind(bench).await?;
    preempt(bench).await
}

/// The configuration with the two verbs that are optional.
fn all_verbs(text: String) -> String {
    let mut text = text;
    for verb in ["preempt", "bind"] {
        let named = format!("{verb}Verb: {verb}");
        let is_on = |line: &str| line.trim_start().starts_with(&named);
        if !text.lines().any(is_on) {
            text =
                text.replace("  prioritizeVerb: prioritize\n", &format!("  prioritizeVerb: prioritize\n  {named}\n"));
        }
    }
    text
}

/// Tier 1: no extender anywhere.
async fn webhook_only(bench: &mut Bench) -> Result<()> {
    let ns = "tiers";
    bench.world.namespace(ns).await?;
    let _scheduler = scheduler::plain(bench, "scheduler-plain", "").await?;
    let calls = bench.replicas.calls(&["hook=\"filter\""]).await?;
    let mut found = Vec::new();
    for node in NODES {
        let name = format!("webhook-{node}");
        let new = waiting(bench, ns, &name, node).await?;
        bench.admin.create(&core(ns, "pods", ""), &new).await?;
        found.push(scheduled(bench, ns, &name).await?.unwrap_or_default());
    }
    let calls = bench.replicas.calls(&["hook=\"filter\""]).await? - calls;
    let held = found == NODES && calls == 0;
    bench.report.check("webhook only: pods are scheduled to the nodes of their replicas", held, found.join(", "));
    Ok(())
}

/// Whom the extender's port lets in.
async fn certificates(bench: &mut Bench, files: &Path) -> Result<()> {
    let port = bench.replicas.extender.port;
    let ours = mtls::call(port, files, mtls::Client::Of(files)).await;
    bench.report.check("the scheduler's certificate: answered", matches!(ours, Ok(200)), format!("{ours:?}"));
    for (who, client) in
        [("no certificate", mtls::Client::None), ("a certificate of another CA", mtls::Client::Stranger)]
    {
        let answer = mtls::call(port, files, client).await;
        let text = answer.as_ref().err().map(|e| format!("{e:#}")).unwrap_or_default();
        bench.report.check(
            &format!("{who}: refused in the handshake"),
            answer.is_err() && text.contains("alert"),
            format!("{text} {}", answer.unwrap_or_default()),
        );
    }
    Ok(())
}

async fn filter(bench: &mut Bench) -> Result<()> {
    let pods = core(NS, "pods", "");
    let before = bench.replicas.calls(&["hook=\"filter\""]).await?;
    all_managers(bench, "error").await?;
    let new = waiting(bench, NS, "filtered", "node-a").await?;
    bench.admin.create(&pods, &new).await?;
    let message = rejected(bench, NS, "filtered").await?;
    let calls = bench.replicas.calls(&["hook=\"filter\""]).await? - before;
    let why = message.contains("instance manager");
    bench.report.check(
        "filter: no node can take the volume, and the event says why",
        why && calls > 0,
        format!("{calls} calls, {message}"),
    );
    // quiet: what wakes the pod then is not its own first attempts
    tokio::time::sleep(Duration::from_secs(3)).await;
    let began = Instant::now();
    bench.world.instance_manager("node-b", "running").await?;
    let node = scheduled(bench, NS, "filtered").await?;
    let took = began.elapsed();
    let saw = format!(
        "{} after {:.2} s; by itself the scheduler looks again after 5 min",
        node.as_deref().unwrap_or("nowhere"),
        took.as_secs_f64()
    );
    bench.report.check(
        "the pod is woken when a node becomes able, and goes there",
        node.as_deref() == Some("node-b"),
        saw,
    );
    let woken = bench.admin.get(&core(NS, "pods", "filtered")).await?.ok()?;
    let said = woken["metadata"]["annotations"]["volumehandoff.io/rescheduled-at"].clone();
    bench.report.check("and it is by the annotation", said.is_string(), said);
    all_managers(bench, "error").await?;
    opted_out(bench).await?;
    all_managers(bench, "running").await
}

/// No node could take these pods' volumes; Handoff is not to say so.
async fn opted_out(bench: &mut Bench) -> Result<()> {
    for (mode, on_claim) in [("disabled", false), ("observe", false), ("disabled", true)] {
        let place = if on_claim { "claim" } else { "pod" };
        let name = format!("{mode}-on-{place}");
        let mut new = waiting(bench, NS, &name, "node-a").await?;
        let annotations = json!({"volumehandoff.io/mode": mode});
        if on_claim {
            let claim = core(NS, "persistentvolumeclaims", &format!("data-{name}"));
            bench.admin.merge(&claim, &json!({"metadata": {"annotations": annotations}})).await?;
        } else {
            new["metadata"]["annotations"] = annotations;
        }
        bench.admin.create(&core(NS, "pods", ""), &new).await?;
        let node = scheduled(bench, NS, &name).await?;
        let saw = node.as_deref().unwrap_or("nowhere");
        bench.report.check(&format!("{mode} on the {place}: filter refuses no node"), node.is_some(), saw);
    }
    Ok(())
}

async fn prioritize(bench: &mut Bench) -> Result<()> {
    let before = bench.replicas.calls(&["hook=\"prioritize\""]).await?;
    let mut found = Vec::new();
    for node in NODES {
        let name = format!("prioritized-{node}");
        let new = waiting(bench, NS, &name, node).await?;
        bench.admin.create(&core(NS, "pods", ""), &new).await?;
        found.push(scheduled(bench, NS, &name).await?.unwrap_or_default());
    }
    let calls = bench.replicas.calls(&["hook=\"prioritize\""]).await? - before;
    let held = found == NODES && calls >= 3;
    bench.report.check(
        "prioritize: pods go to the nodes of their replicas",
        held,
        format!("{} in {calls} calls", found.join(", ")),
    );
    Ok(())
}

/// Whole nodes travel, not names.
async fn nodes_mode(bench: &mut Bench, files: &Path) -> Result<()> {
    let (names, nodes) = ("nodeCacheCapable: true", "nodeCacheCapable: false");
    let shipped = std::fs::read_to_string(files.join("scheduler-config.yaml")).context("no configuration")?;
    ensure!(shipped.contains(names), "the configuration does not say {names}");
    let edit = |text: String| text.replace(names, nodes);
    let _scheduler = scheduler::start(bench, "scheduler-nodes", files, "scheduler-config.yaml", edit).await?;
    let pods = core(NS, "pods", "");
    let before = bench.replicas.calls(&["hook=\"filter\""]).await?;
    all_managers(bench, "error").await?;
    bench.world.instance_manager("node-b", "running").await?;
    let new = waiting(bench, NS, "whole-nodes", "node-a").await?;
    bench.admin.create(&pods, &new).await?;
    let node = scheduled(bench, NS, "whole-nodes").await?;
    let calls = bench.replicas.calls(&["hook=\"filter\""]).await? - before;
    let saw = format!("{calls} calls, bound to {}", node.as_deref().unwrap_or("nothing"));
    let held = calls > 0 && node.as_deref() == Some("node-b");
    bench.report.check("whole nodes: the pod goes to the only node that can take its volume", held, saw);
    all_managers(bench, "error").await?;
    let new = waiting(bench, NS, "no-whole-node", "node-a").await?;
    bench.admin.create(&pods, &new).await?;
    let message = rejected(bench, NS, "no-whole-node").await?;
    let why = message.contains("instance manager");
    bench.report.check("whole nodes: no node can take the volume, and the event says why", why, message);
    // the next scheduler finds no pod that waits
    all_managers(bench, "running").await?;
    let node = scheduled(bench, NS, "no-whole-node").await?;
    let saw = node.as_deref().unwrap_or("nowhere");
    bench.report.check("whole nodes: and goes where it can once it can", node.is_some(), saw);
    Ok(())
}

/// Tier 2: a scheduler of its own, with the rights that its manifests give it, beside the cluster's.
async fn second(bench: &mut Bench, files: &Path) -> Result<()> {
    let manifests = bench.deploy.join("scheduler/second");
    bench.plane.kubectl_ok(&["apply", "-k", &manifests.display().to_string()]).await?;
    std::fs::copy(manifests.join("scheduler-config.yaml"), files.join("second.yaml"))?;
    let kubeconfig = bench.plane.kubeconfig(User::SecondScheduler)?;
    let directory = files.display().to_string();
    let _scheduler = scheduler::start(bench, "scheduler-second", files, "second.yaml", |text| {
        // in a pod these two are mounted
        format!("clientConnection: {{kubeconfig: {kubeconfig}}}\n{}", text.replace("/etc/handoff", &directory))
    })
    .await?;
    let before = bench.replicas.calls(&["hook=\"filter\""]).await?;
    let mut new = waiting(bench, NS, "second", "node-c").await?;
    new["spec"]["schedulerName"] = json!("handoff-scheduler");
    bench.admin.create(&core(NS, "pods", ""), &new).await?;
    let node = scheduled(bench, NS, "second").await?;
    let calls = bench.replicas.calls(&["hook=\"filter\""]).await? - before;
    let saw = format!("{calls} calls, bound to {}", node.as_deref().unwrap_or("nothing"));
    bench.report.check(
        "second scheduler: it asks, and binds the pod",
        calls > 0 && node.as_deref() == Some("node-c"),
        saw,
    );
    Ok(())
}

async fn bind(bench: &mut Bench) -> Result<()> {
    let before = bench.replicas.calls(&["hook=\"bind\""]).await?;
    let new = waiting(bench, NS, "refused", "node-b").await?;
    bench.admin.create(&core(NS, "pods", ""), &new).await?;
    let node = scheduled(bench, NS, "refused").await?;
    let calls = bench.replicas.calls(&["hook=\"bind\""]).await? - before;
    let saw = format!("{calls} calls, bound to {}", node.as_deref().unwrap_or("nothing"));
    let held = calls > 0 && node.as_deref() == Some("node-b");
    bench.report.check("bind: without the right to bind, the scheduler binds the pod itself", held, saw);
    let rights = bench.deploy.join("scheduler/bind").display().to_string();
    bench.plane.kubectl_ok(&["apply", "-k", &rights]).await?;
    let before = bench.replicas.calls(&["hook=\"bind\""]).await?;
    let new = waiting(bench, NS, "bound", "node-c").await?;
    bench.admin.create(&core(NS, "pods", ""), &new).await?;
    let node = scheduled(bench, NS, "bound").await?;
    let calls = bench.replicas.calls(&["hook=\"bind\""]).await? - before;
    let saw = format!("{calls} calls, bound to {}", node.as_deref().unwrap_or("nothing"));
    bench.report.check("bind: Handoff binds the pod", calls == 1 && node.as_deref() == Some("node-c"), saw);
    asked_for(bench).await
}

/// A pod that has left its node while a backup ran; no review of the binding comes from this namespace.
async fn asked_for(bench: &mut Bench) -> Result<()> {
    let volume = Volume::new(NS, "data-moved");
    bench.world.volume(&volume, "node-a", &["node-a", "node-b"]).await?;
    bench.world.backup(&volume, "b-moved", 40).await?;
    let mut moved = pod(NS, "moved", &[&volume.claim]);
    moved["metadata"]["annotations"] = json!({MANUAL: ""});
    bench.world.running(&moved, "node-a").await?;
    let path = core(NS, "pods", "moved");
    bench.admin.delete(&path, &json!({})).await?.ok()?;
    let recorded = eventually(SOON, async || bench.admin.find(&volume.handoff()).await);
    recorded.await?.context("the move is not recorded")?;
    bench.admin.delete(&path, &json!({"gracePeriodSeconds": 0})).await?.ok()?;
    let mut next = pod(NS, "moved", &[&volume.claim]);
    next["spec"]["nodeSelector"] = json!({"kubernetes.io/hostname": "node-b"});
    bench.admin.create(&core(NS, "pods", ""), &next).await?;
    let node = scheduled(bench, NS, "moved").await?;
    let attachment = longhorn("volumeattachments", &volume.handle);
    let ticket = eventually(SOON, async || {
        let attachment = bench.admin.get(&attachment).await?.ok()?;
        Ok(prestage(&attachment, "node-b").cloned())
    });
    let ticket = ticket.await?;
    let held = node.as_deref() == Some("node-b") && ticket.is_some();
    bench.report.check("bind: Longhorn is asked for the volume on its node", held, ticket.unwrap_or_default());
    Ok(())
}

/// Every node is full. The scheduler alone would take the pod of the lowest priority, which is just being backed up.
async fn preempt(bench: &mut Bench) -> Result<()> {
    let ns = "preempt";
    bench.world.namespace(ns).await?;
    for (name, value) in [("middle", 10), ("high", 1000)] {
        let class = json!({"metadata": {"name": name}, "value": value});
        bench.world.create("/apis/scheduling.k8s.io/v1/priorityclasses", class).await?;
    }
    let full = json!({"requests": {"cpu": "60"}});
    for node in NODES {
        let volume = Volume::new(ns, &format!("data-{node}"));
        bench.world.volume(&volume, node, &[node]).await?;
        let mut victim = pod(ns, node, &[&volume.claim]);
        victim["spec"]["containers"][0]["resources"] = full.clone();
        if node == "node-a" {
            bench.world.backup(&volume, "b-preempt", 40).await?;
        } else {
            victim["spec"]["priorityClassName"] = json!("middle");
        }
        bench.world.running(&victim, node).await?;
    }
    let before = bench.replicas.calls(&["hook=\"preempt\""]).await?;
    let mut new = waiting(bench, ns, "important", "node-a").await?;
    new["spec"]["priorityClassName"] = json!("high");
    new["spec"]["containers"][0]["resources"] = full;
    bench.admin.create(&core(ns, "pods", ""), &new).await?;
    let node = scheduled(bench, ns, "important").await?;
    let calls = bench.replicas.calls(&["hook=\"preempt\""]).await? - before;
    let saw = format!("{calls} calls, room was made on {}", node.as_deref().unwrap_or("no node"));
    let spared = calls > 0 && node.as_deref().is_some_and(|n| n != "node-a");
    bench.report.check("preempt: a pod that is being backed up is spared", spared, saw);
    Ok(())
}
