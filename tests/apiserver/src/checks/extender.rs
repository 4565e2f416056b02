//! The extender asked by a real kube-scheduler over mTLS.

use super::outage::scheduled;
use crate::{
    bench::{Bench, SOON},
    control_plane::NODES,
    http::{Read, eventually},
    mtls, scheduler,
    world::{Volume, core, longhorn, pod},
};
use anyhow::Result;
use serde_json::{Value, json};
use std::path::Path;

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
    let _scheduler =
        scheduler::start(bench, "scheduler-extender", &files, "scheduler-config.yaml", |text| text).await?;
    filter(bench).await?;
    prioritize(bench).await
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
    all_managers(bench, "running").await
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
