//! `pods/binding` and the legacy collection `bindings`: the target is asked for at once.

use crate::{
    bench::{Bench, SOON},
    control_plane::User,
    http::{Read, eventually},
    report::figure,
    world::{core, longhorn, pod},
};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::time::Instant;

/// Its place in [`crate::bench::WEBHOOKS`].
const BINDINGS: usize = 4;

/// The ticket of ours for a node.
pub(super) fn prestage<'a>(attachment: &'a Value, node: &str) -> Option<&'a Value> {
    let tickets = attachment["spec"]["attachmentTickets"].as_object()?;
    tickets.values().find(|t| t.text("/nodeID") == node && t.text("/parameters/lastAttachedBy") == "volumehandoff.io")
}

pub async fn run(bench: &mut Bench) -> Result<()> {
    let ns = "binding";
    bench.world.namespace(ns).await?;
    bench.led().await?;
    let scheduler = bench.plane.api(User::Scheduler)?;
    for (name, legacy) in [("subresource", false), ("collection", true)] {
        let workload = bench.workload(ns, name).await?;
        bench.evict(&workload, json!({})).await?.ok()?;
        bench.gone(&workload).await?;
        let made = bench.admin.create(&core(ns, "pods", ""), &pod(ns, name, &[&workload.volume.claim])).await?;
        let (reviews, asked) = (bench.replicas.calls(&["hook=\"binding\""]).await?, bench.requests().await?[BINDINGS]);
        let uid = made.text("/metadata/uid");
        let binding = json!({"apiVersion": "v1", "kind": "Binding",
            "metadata": {"name": name, "namespace": ns, "uid": uid},
            "target": {"apiVersion": "v1", "kind": "Node", "name": "node-b"}});
        let path = if legacy { core(ns, "bindings", "") } else { core(ns, "pods", &format!("{name}/binding")) };
        let started = Instant::now();
        let answer = scheduler.post(&path, &binding).await?;
        let attachment = longhorn("volumeattachments", &workload.volume.handle);
        let ticket = eventually(SOON, async || {
            let attachment = bench.admin.get(&attachment).await?.ok()?;
            Ok(prestage(&attachment, "node-b").cloned())
        });
        let ticket = ticket.await?;
        let took = started.elapsed();
        let claim = format!("{name}: bound, and Longhorn is asked for the volume on its node");
        bench.report.check(&claim, answer.is_ok() && ticket.is_some(), ticket.unwrap_or_default());
        let reviews = bench.replicas.calls(&["hook=\"binding\""]).await? - reviews;
        let asked = bench.requests().await?[BINDINGS] - asked;
        let saw = format!("{reviews} reviews here, {asked} calls of the API server");
        bench.report.check(&format!("{name}: by a review of the binding"), reviews == 1 && asked == 1, saw);
        let bound = answer.took.as_secs_f64() * 1e3;
        figure(
            "binding",
            format!("{bound:.0} ms; seen in Longhorn {:.0} ms after it was sent", took.as_secs_f64() * 1e3),
        );
        let handoff = bench.handoff(&workload, SOON).await?.context("no VolumeHandoff")?;
        bench.report.check(
            &format!("{name}: the journal says so"),
            handoff.text("/status/to") == "node-b",
            handoff.text("/status/message"),
        );
    }
    Ok(())
}
