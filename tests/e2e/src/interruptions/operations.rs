//! Handoff's own operation in the middle of a move: cut off from the API server, and replaced by another version.

use super::{contracts, passage::Scene, pods};
use crate::{
    backup,
    bench::Bench,
    cluster::{Cluster, DEPLOYMENT, HANDOFF, LEASE, POD, Read, until},
    drain::Drain,
    handoff, journal,
    metrics::Reviews,
    report::Claim,
    settle,
    timeline::Step,
    workload::{LABELS, NAMESPACE_NAME, kubectl},
};
use anyhow::{Context, Result};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_mins(2);
/// How long the API server is out of reach.
const AWAY: Duration = Duration::from_mins(5);
/// `kubectl drain` asks again every 5 s.
const ASKED_AGAIN: SignedDuration = SignedDuration::from_secs(12);
/// Name of the image for the next version: the same program.
const NEXT: &str = "handoff:e2e-next";

/// All that Handoff's replicas send to the API server is dropped, for five minutes, with an eviction on hold.
pub async fn api_away(scene: &Scene<'_>) -> Result<Vec<Claim>> {
    let (bench, cluster, volume) = (scene.bench, &scene.bench.cluster, scene.workload);
    let lab = bench.lab.as_ref().context("cutting a pod off needs --lab")?;
    contracts::hold_evictions(scene).await?;
    settle::mark(cluster, &volume.node).await?;
    let drain = Drain::start(&volume.node, Some(LABELS))?;
    let deadline = contracts::held(scene).await?;

    let before = replicas(cluster).await?;
    for (_, ip, node, _) in &before {
        lab.cut_off(node, ip).await?;
    }
    let cut = Instant::now();
    println!("  {:6.1} s  Handoff cut off from the API server", scene.observer.elapsed());
    let mut reviews = Reviews::start(cluster, "pod-create").await?;
    let evicted = scene.observer.wait_for(Step::Evicted, LIMIT).await;
    let late = Timestamp::now().duration_since(deadline);
    let found = format!("{:.1} s after its deadline", late.as_secs_f64());
    let mut claims = vec![
        Claim::new("the eviction was held", true, format!("until {deadline:.0}")),
        Claim::new("the hold ended by its deadline all the same", evicted && late < ASKED_AGAIN, found),
    ];
    let (code, seconds, complaint) = drain.wait(super::nodes::DRAIN).await?;
    let found = format!("after {seconds:.1} s {complaint}");
    claims.push(Claim::new("the drain ended by itself", code == Some(0), found.trim()));
    scene.ready().await?;
    reviews.read().await?;
    let answered = reviews.added.count();
    claims.push(Claim::new("reviews were answered meanwhile", answered > 0, format!("{answered} of pods created")));
    let ready = ready_replicas(cluster).await?;
    claims.push(Claim::new("its replicas stayed ready", ready == 2, format!("{ready} of 2")));

    tokio::time::sleep(AWAY.saturating_sub(cut.elapsed())).await;
    let restored = Timestamp::now();
    api_back(bench).await?;
    let began = Instant::now();
    println!("  {:6.1} s  and back", scene.observer.elapsed());
    bench.link_slow().await?;
    let led = until(LIMIT, "a replica to lead again", async || {
        let lease = cluster.get(&LEASE, handoff::NAMESPACE, handoff::NAME).await?;
        let renewed = lease.text("/spec/renewTime").parse::<Timestamp>().is_ok_and(|at| at > restored);
        Ok((!renewed).then(|| "the lease is not renewed".to_owned()))
    })
    .await;
    let found = format!("{:.1} s after the API server was back", began.elapsed().as_secs_f64());
    claims.push(Claim::new("a replica leads again", led.is_ok(), found));
    let end = backup::finish(cluster, scene.backup).await?;
    let found = format!("{} {:.0} s after the API server was back", end.word, began.elapsed().as_secs_f64());
    claims.push(Claim::new("what was owed is taken up without a restart", end.word == "Completed", found));
    let after = replicas(cluster).await?;
    let restarts = |all: &[Replica]| all.iter().map(|(name, _, _, count)| (name.clone(), *count)).collect::<Vec<_>>();
    let found = format!("{:?}", restarts(&after));
    claims.push(Claim::new("no replica was restarted", restarts(&before) == restarts(&after), found));
    Ok(claims)
}

/// Name, address, node and restarts of a replica.
type Replica = (String, String, String, i64);

async fn replicas(cluster: &Cluster) -> Result<Vec<Replica>> {
    let pods = cluster.list(&POD, handoff::NAMESPACE, handoff::PODS).await?;
    let of = |p: &Value| {
        let restarts = p.pointer("/status/containerStatuses/0/restartCount").and_then(Value::as_i64).unwrap_or(0);
        (p.name().to_owned(), p.text("/status/podIP").to_owned(), p.text("/spec/nodeName").to_owned(), restarts)
    };
    let mut all = pods.iter().map(of).collect::<Vec<_>>();
    all.sort();
    Ok(all)
}

async fn ready_replicas(cluster: &Cluster) -> Result<usize> {
    let pods = cluster.list(&POD, handoff::NAMESPACE, handoff::PODS).await?;
    Ok(pods.iter().filter(|p| p.condition("Ready") == "True").count())
}

/// The API server is within reach again.
pub async fn api_back(bench: &Bench) -> Result<()> {
    let Some(lab) = &bench.lab else { return Ok(()) };
    for node in &bench.nodes {
        lab.let_through(node).await?;
    }
    Ok(())
}

const CRD: &str = "customresourcedefinition/volumehandoffs.volumehandoff.io";
const SCHEMA: &str = "/spec/versions/0/schema/openAPIV3Schema/properties";

/// In the middle of a move: a definition with fields that the running version does not know, and another image.
pub async fn upgrade(scene: &Scene<'_>) -> Result<Vec<Claim>> {
    let (bench, cluster, volume) = (scene.bench, &scene.bench.cluster, scene.workload);
    let lab = bench.lab.as_ref().context("a second image needs --lab")?;
    let image = cluster.get(&DEPLOYMENT, handoff::NAMESPACE, handoff::NAME).await?;
    let image = image.text("/spec/template/spec/containers/0/image").to_owned();
    for node in &bench.nodes {
        lab.tag_image(node, &image, NEXT).await?;
    }
    let add = |part: &str| json!({"op": "add", "path": format!("{SCHEMA}/{part}/properties/future"), "value": {"type": "string"}});
    let steps = json!([add("spec"), add("status")]).to_string();
    kubectl(&["patch", CRD, "--type=json", "--patch", &steps]).await?;

    pods::cordon(bench, &volume.node).await?;
    kubectl(&["delete", "pod", "-n", NAMESPACE_NAME, &volume.pod, "--wait=false"]).await?;
    journal::when(cluster, volume, LIMIT, "the handoff", |_| true).await?;
    let known_later = until(Duration::from_secs(20), "the new fields to be stored", async || {
        // the API server takes a moment to see a changed definition, and drops what it does not know
        let (spec, status) = (json!({"spec": {"future": "kept"}}), json!({"status": {"future": "kept"}}));
        cluster.merge(&HANDOFF, NAMESPACE_NAME, &volume.volume, &spec).await?;
        cluster.merge_status(&HANDOFF, NAMESPACE_NAME, &volume.volume, &status).await?;
        let now = journal::find(cluster, volume).await?.unwrap_or_default();
        Ok((!(now.has("/spec/future") && now.has("/status/future"))).then(|| "not stored".to_owned()))
    })
    .await;
    let when = scene.observer.timeline().has(Step::Ready);
    let mut claims = vec![Claim::new("the new version came in the middle of the move", !when, "")];
    let all = format!("*={NEXT}");
    kubectl(&["set", "image", "-n", handoff::NAMESPACE, "deployment/handoff", &all]).await?;
    kubectl(&["set", "image", "-n", "handoff-agent", "daemonset/handoff-agent", &all]).await?;
    let rolled =
        kubectl(&["rollout", "status", "-n", handoff::NAMESPACE, "deployment/handoff", "--timeout=180s"]).await;
    claims.push(Claim::new(
        "the new version took over",
        rolled.is_ok(),
        rolled.err().map(|e| e.to_string()).unwrap_or_default(),
    ));
    scene.ready().await?;
    let end = backup::finish(cluster, scene.backup).await?;
    claims.push(Claim::new("what the old version owed, the new one made complete", end.word == "Completed", end.word));
    let pods = cluster.list(&POD, handoff::NAMESPACE, handoff::PODS).await?;
    let images = pods.iter().map(|p| p.text("/spec/containers/0/image").to_owned()).collect::<Vec<_>>();
    let only = images.len() == 2 && images.iter().all(|image| image == NEXT);
    claims.push(Claim::new("only the new version runs", only, images.join(", ")));
    let now = journal::find(cluster, volume).await?.unwrap_or_default();
    for part in ["spec", "status"] {
        let value = now.text(&format!("/{part}/future")).to_owned();
        let kept = known_later.is_ok() && value == "kept";
        claims.push(Claim::new(&format!("a field of {part} that it does not know is kept"), kept, value));
    }
    Ok(claims)
}

/// The definition and the image as installed.
pub async fn downgrade(bench: &Bench) -> Result<()> {
    for part in ["spec", "status"] {
        let steps = json!([{"op": "remove", "path": format!("{SCHEMA}/{part}/properties/future")}]).to_string();
        // it may be gone already
        let _ = kubectl(&["patch", CRD, "--type=json", "--patch", &steps]).await;
    }
    bench.with_handoff().await
}
