//! A pod that the cache of no replica shows yet.

use super::{delete::recorded, optout::annotated};
use crate::{
    bench::{Bench, SOON, Workload},
    control_plane::User,
    http::eventually,
    proxy::Proxy,
};
use anyhow::{Context, Result};
use serde_json::json;
use std::time::Duration;

/// How often Handoff has asked the API server for the pod.
fn looks(proxy: &Proxy, workload: &Workload) -> usize {
    proxy.asked(&format!("GET {}", workload.path("")))
}

/// Waits until all that is around the pod is known: an eviction would be recorded.
async fn around(bench: &Bench, workload: &Workload) -> Result<()> {
    let known = eventually(SOON, async || {
        let answer = bench.evict(workload, json!({"dryRun": ["All"]})).await?;
        Ok(answer.warnings.iter().any(|w| w.contains(&workload.backup)).then_some(()))
    });
    known.await?.with_context(|| format!("Handoff does not know of {}", workload.backup))
}

pub async fn run(bench: &mut Bench) -> Result<()> {
    let ns = "lag";
    bench.world.namespace(ns).await?;
    let proxy = Proxy::open(&bench.plane, User::Handoff).await?;
    bench.replicas.api_server = Some(proxy.url.clone());
    bench.restart(&[]).await?;
    bench.led().await?;
    proxy.hold_pods(true);
    let held = while_held(bench, ns, &proxy).await;
    proxy.hold_pods(false);
    bench.replicas.api_server = None;
    bench.restart(&[]).await?;
    held
}

async fn while_held(bench: &mut Bench, ns: &str, proxy: &Proxy) -> Result<()> {
    let evicted = annotated(bench, ns, "evicted", json!({})).await?;
    around(bench, &evicted).await?;
    let before = looks(proxy, &evicted);
    let answer = bench.evict(&evicted, json!({})).await?;
    let looks_made = looks(proxy, &evicted) - before;
    let (held, handoff) = recorded(bench, &evicted, "Eviction").await?;
    bench.report.check(
        "the eviction of a pod that no cache shows is recorded",
        answer.is_ok() && held,
        &handoff["spec"]["trigger"],
    );
    bench.report.check("after one look at the API server", looks_made == 1, format!("{looks_made} looks"));

    let elsewhere = json!({"preconditions": {"uid": "another"}, "dryRun": ["All"]});
    let other = annotated(bench, ns, "other", json!({})).await?;
    around(bench, &other).await?;
    let answer = bench.evict(&other, elsewhere).await?;
    let quiet = answer.status == 409 && answer.warnings.is_empty();
    bench.report.check("another pod's uid: the API server refuses it", quiet, answer.brief());

    let deleted = annotated(bench, ns, "deleted", json!({})).await?;
    around(bench, &deleted).await?;
    let before = looks(proxy, &deleted);
    bench.admin.delete(&deleted.path(""), &json!({})).await?.ok()?;
    let (held, handoff) = recorded(bench, &deleted, "Deletion").await?;
    bench.report.check("a deletion is recorded from its review alone", held, &handoff["spec"]["trigger"]);
    let looks_made = looks(proxy, &deleted) - before;
    bench.report.check("without any look", looks_made == 0, format!("{looks_made} looks"));

    let off = annotated(bench, ns, "off", json!({"volumehandoff.io/mode": "disabled"})).await?;
    bench.admin.delete(&off.path(""), &json!({})).await?.ok()?;
    let none = bench.handoff(&off, Duration::from_millis(500)).await?.is_none();
    bench.report.check("one that is opted out is not", none, "");
    Ok(())
}
