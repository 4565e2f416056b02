//! One node drained after the other, many pods each time, until so many moves were made; then nothing of ours is left.

use super::{Weathered, fleet, weather};
use crate::{
    args::StormArgs,
    bench::{Bench, rest},
    cluster::{ATTACHMENT, Cluster, HANDOFF, Read},
    handoff,
    report::Claim,
    workload::{self, NAMESPACE_NAME},
};
use anyhow::{Context, Result};

/// `storm --moves`: whether every claim held.
pub async fn run(bench: &Bench, args: &StormArgs, wanted: usize) -> Result<bool> {
    println!("{} volumes, drained until {wanted} pods have moved, link {}", args.volumes, bench.common.link);
    bench.with_handoff().await.context("installing Handoff")?;
    workload::remove_leftovers(&bench.cluster).await?;
    let mut fleet = fleet::launch(bench, args).await.context("launching the fleet")?;
    let (mut moved, mut claims) = (0, Vec::new());
    while moved < wanted {
        let Weathered { story, drain, claims: found } = weather(bench, args, &fleet, true).await?;
        let before = moved;
        moved += fleet.pods.len();
        println!("  moves {} to {moved}, off {}: {}; drain {:.1} s", before + 1, fleet.node, story.arrivals(), drain.1);
        let broken = found.iter().any(|claim| !claim.holds);
        claims.extend(found);
        if broken {
            break;
        }
        fleet = fleet::muster(bench).await?;
    }
    claims.push(Claim::new("as many pods moved as were wanted", moved >= wanted, format!("{moved} of {wanted}")));
    claims.extend(nothing_left(&bench.cluster).await?);
    Ok(super::verdict(&claims))
}

/// Attachments are those of the running pods, each where its pod is; nothing asks for any other, and no handoff waits.
async fn nothing_left(cluster: &Cluster) -> Result<Vec<Claim>> {
    let said = rest("every handoff to be complete", async || {
        let handoffs = cluster.list(&HANDOFF, NAMESPACE_NAME, "").await?;
        let busy = handoffs.iter().find(|h| h.text("/status/phase") != "Complete");
        Ok(busy.map(|h| format!("{}: {} {}", h.name(), h.text("/status/phase"), h.text("/status/message"))))
    })
    .await;
    let pods = fleet::running(cluster).await?;
    let attachments = cluster.list(&ATTACHMENT, "", "").await?;
    let kubernetes = attachments.iter().filter_map(|a| {
        let (volume, node) = (a.text("/spec/source/persistentVolumeName"), a.text("/spec/nodeName"));
        let known = pods.iter().any(|p| p.volume == volume && p.node == node);
        (!known).then(|| format!("{volume} → {node}"))
    });
    let requests = handoff::attach_requests(cluster).await?;
    let longhorn = requests.iter().filter_map(|request| {
        let known = pods.iter().any(|p| p.handle == request.volume && p.node == request.node);
        (request.ours || !known).then(|| request.to_string())
    });
    let claim = |text: &str, left: Vec<String>| Claim::new(text, left.is_empty(), left.join(", "));
    Ok(vec![
        claim("all handoffs are complete", said.err().map(|e| format!("{e:#}")).into_iter().collect()),
        claim("no VolumeAttachment is left but those of the pods", kubernetes.collect()),
        claim("no attach request is left but those of the pods", longhorn.collect()),
    ])
}
