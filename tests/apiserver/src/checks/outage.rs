//! Every replica killed: the cluster works as without Handoff, and nothing waits longer than it is configured to.

use super::storage;
use crate::{
    bench::{Bench, MUTATING, SOON, VALIDATING, Workload, bind},
    http::{Answer, Read, eventually},
    report::figure,
    scheduler,
    world::{Volume, core, pod},
};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// What the API server itself takes on a busy machine, on top of waiting for a webhook.
const OWN: Duration = Duration::from_secs(3);

/// `timeoutSeconds` of a webhook.
async fn timeout(bench: &Bench, webhook: &str) -> Result<Duration> {
    let name = format!("{webhook}.volumehandoff.io");
    for configuration in [MUTATING, VALIDATING] {
        let object = bench.admin.get(configuration).await?.ok()?;
        if let Some(found) = object.items("/webhooks").iter().find(|w| w.text("/name") == name) {
            return Ok(Duration::from_secs(found["timeoutSeconds"].as_u64().context("no timeoutSeconds")?));
        }
    }
    anyhow::bail!("there is no webhook {name}")
}

/// One call: it must succeed, within the time that its webhook may take.
async fn bounded(bench: &mut Bench, how: &str, what: &str, webhook: &str, answer: Answer) -> Result<()> {
    let limit = timeout(bench, webhook).await?;
    let saw = format!("{}; at most {} s for the webhook", answer.brief(), limit.as_secs());
    bench.report.check(&format!("{how}: {what}"), answer.is_ok() && answer.took < limit + OWN, saw);
    Ok(())
}

pub async fn run(bench: &mut Bench) -> Result<()> {
    let ns = "outage";
    bench.world.namespace(ns).await?;
    bench.led().await?;
    let files = scheduler::write_files(bench).await?;
    // the tier that depends on us most
    let _scheduler = scheduler::start(bench, "scheduler-outage", &files, "scheduler-config.yaml", |text| text).await?;
    let mut ready = Vec::new();
    for n in 0..4 {
        ready.push(bench.workload(ns, &format!("p{n}")).await?);
    }
    bench.replicas.kill().await?;
    let [a, b, c, d] = ready.try_into().map_err(|_| anyhow::anyhow!("four workloads"))?;
    bench.replicas.webhook.set_silent(false);
    hooks(bench, "nobody listens", ns, [&a, &b]).await?;
    bench.replicas.webhook.set_silent(true);
    bench.replicas.extender.set_silent(true);
    hooks(bench, "nobody answers", ns, [&c, &d]).await?;
    own_pods(bench).await?;
    drain(bench, ns).await?;
    bench.replicas.webhook.set_silent(false);
    bench.replicas.extender.set_silent(false);
    // and back: what was asked meanwhile is known again
    let began = Instant::now();
    bench.start_replicas(&[]).await?;
    figure("started again and asked after", format!("{:.1} s", began.elapsed().as_secs_f64()));
    Ok(())
}

async fn hooks(bench: &mut Bench, how: &str, ns: &str, [one, two]: [&Workload; 2]) -> Result<()> {
    let answer = bench.admin.delete(&one.path(""), &json!({})).await?;
    bounded(bench, how, "a pod is deleted", "pods-delete", answer).await?;
    let answer = bench.evict(two, json!({})).await?;
    bounded(bench, how, "a pod is evicted", "evictions", answer).await?;
    bench.gone(one).await?;
    let mut new = pod(ns, &one.pod, &[&one.volume.claim]);
    new["spec"]["affinity"] = Value::Null;
    let answer = bench.admin.post(&core(ns, "pods", ""), &new).await?;
    let began = Instant::now();
    bounded(bench, how, "a pod is created", "pods", answer).await?;
    let bound = scheduled(bench, ns, &one.pod).await?;
    let took =
        format!("bound to {} after {:.1} s", bound.as_deref().unwrap_or("no node"), began.elapsed().as_secs_f64());
    bench.report.check(
        &format!("{how}: a pod is scheduled through filter, prioritize and binding"),
        bound.is_some(),
        took,
    );
    // one that no scheduler takes
    let name = format!("{}-by-hand", one.pod);
    let mut by_hand = pod(ns, &name, &[]);
    by_hand["spec"]["schedulerName"] = json!("nobody");
    bench.admin.create(&core(ns, "pods", ""), &by_hand).await?;
    let answer = bind(&bench.admin, ns, &name, "node-a").await?;
    bounded(bench, how, "a pod is bound", "bindings", answer).await?;
    let name = format!("instance-manager-{}", one.pod);
    let labels = json!({"longhorn.io/component": "instance-manager"});
    storage::storage_pod(bench, &name, labels).await?;
    let answer = storage::evict(bench, "longhorn-system", &name, false).await?;
    bounded(bench, how, "a pod of the storage manager is evicted", "storage-evictions", answer).await?;
    let answer = bench.admin.delete(&crate::world::longhorn("snapshots", &two.backup), &json!({})).await?;
    bounded(bench, how, "a snapshot is deleted", "snapshots", answer).await
}

/// The node that a pod is bound to.
pub async fn scheduled(bench: &Bench, ns: &str, pod: &str) -> Result<Option<String>> {
    let path = core(ns, "pods", pod);
    eventually(Duration::from_mins(1), async || {
        let found = bench.admin.find(&path).await?.unwrap_or_default();
        Ok(Some(found.text("/spec/nodeName").to_owned()).filter(|n| !n.is_empty()))
    })
    .await
}

/// Handoff's own pods come up without Handoff.
async fn own_pods(bench: &mut Bench) -> Result<()> {
    let pods = core("handoff-system", "pods", "");
    let began = Instant::now();
    let answer = bench.admin.delete(&pods, &json!({"gracePeriodSeconds": 0})).await?;
    answer.ok().context("deleting Handoff's pods")?;
    let old = bench.names.clone();
    let back = eventually(Duration::from_mins(1), async || {
        let list = bench.admin.get(&pods).await?.ok()?;
        let new = list.items("/items").iter().filter(|p| p.has("/spec/nodeName")).map(|p| p.text("/metadata/name"));
        let new = new.filter(|n| !old.iter().any(|o| o == n)).map(str::to_owned).collect::<Vec<_>>();
        Ok((new.len() == old.len()).then_some(new))
    });
    let back = back.await?;
    let saw = format!(
        "{} after {:.1} s",
        back.as_ref().map_or("none".to_owned(), |n| n.join(", ")),
        began.elapsed().as_secs_f64()
    );
    bench.report.check("nobody answers: Handoff's own pods are created and scheduled", back.is_some(), saw);
    bench.names = back.context("no pods of Handoff")?;
    Ok(())
}

/// A whole node, by kubectl, with pods whose reviews nobody answers.
async fn drain(bench: &mut Bench, ns: &str) -> Result<()> {
    for name in ["d0", "d1", "d2"] {
        let volume = Volume::new(ns, &format!("data-{name}"));
        bench.world.volume(&volume, "node-c", &["node-c", "node-b"]).await?;
        bench.world.running(&pod(ns, name, &[&volume.claim]), "node-c").await?;
    }
    let began = Instant::now();
    let arguments = ["drain", "node-c", "--force", "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=100s"];
    let output = bench.plane.kubectl(&arguments).await?;
    let text = String::from_utf8_lossy(&output.stderr);
    let last = text.lines().last().unwrap_or_default();
    let saw = format!("{:.1} s, {} {last}", began.elapsed().as_secs_f64(), output.status);
    bench.report.check("nobody answers: kubectl drain ends by itself", output.status.success(), saw);
    let empty = eventually(SOON, async || {
        let left = bench.admin.get(&format!("{}?fieldSelector=spec.nodeName%3Dnode-c", core(ns, "pods", ""))).await?;
        Ok(left.ok()?.items("/items").is_empty().then_some(()))
    });
    bench.report.check("and its pods are gone", empty.await?.is_some(), "");
    bench.plane.kubectl_ok(&["uncordon", "node-c"]).await
}
