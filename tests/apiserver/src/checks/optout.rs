//! Opt-out and observe mode: the annotation nearest to the pod counts.

use crate::{
    bench::{Bench, SOON, Workload},
    http::{Read, eventually},
    world::{Volume, core, pod},
};
use anyhow::Result;
use serde_json::{Value, json};
use std::time::Duration;

const MODE: &str = "volumehandoff.io/mode";
const SIDE_EFFECT: Duration = Duration::from_millis(500);

/// A workload whose pod has annotations from the beginning.
pub async fn annotated(bench: &Bench, ns: &str, name: &str, annotations: Value) -> Result<Workload> {
    let volume = Volume::new(ns, &format!("data-{name}"));
    bench.world.volume(&volume, "node-a", &["node-a", "node-b"]).await?;
    let mut pod = pod(ns, name, &[&volume.claim]);
    pod["metadata"]["annotations"] = annotations;
    let made = bench.world.running(&pod, "node-a").await?;
    let uid = made.text("/metadata/uid").to_owned();
    let backup = format!("b-{ns}-{name}");
    bench.world.backup(&volume, &backup, 40).await?;
    Ok(Workload { volume, namespace: ns.to_owned(), pod: name.to_owned(), uid, backup })
}

/// Whether a pod of this claim would be given preferred nodes.
async fn steered(bench: &Bench, ns: &str, claim: &str, annotations: &Value) -> Result<bool> {
    let mut new = pod(ns, "new", &[claim]);
    new["metadata"]["annotations"] = annotations.clone();
    let made = bench.admin.create(&format!("{}?dryRun=All", core(ns, "pods", "")), &new).await?;
    Ok(made.has("/spec/affinity"))
}

pub async fn run(bench: &mut Bench) -> Result<()> {
    bench.world.namespace("optout").await?;
    let off = json!({"metadata": {"annotations": {MODE: "disabled"}}});
    bench
        .world
        .create("/api/v1/namespaces", json!({"metadata": {"name": "optout-ns", "annotations": {MODE: "disabled"}}}))
        .await?;

    let on_pod = annotated(bench, "optout", "pod", json!({MODE: "disabled"})).await?;
    let on_claim = bench.workload("optout", "claim").await?;
    bench.admin.merge(&core("optout", "persistentvolumeclaims", &on_claim.volume.claim), &off).await?;
    let on_namespace = annotated(bench, "optout-ns", "ns", json!({})).await?;
    let back_in = annotated(bench, "optout-ns", "back", json!({MODE: "enabled"})).await?;
    bench.known(&back_in).await?;
    for (place, workload) in [("the pod", &on_pod), ("the claim", &on_claim), ("the namespace", &on_namespace)] {
        let quiet = eventually(SOON, async || {
            let answer = bench.evict(workload, json!({"dryRun": ["All"]})).await?;
            let annotations = if place == "the pod" { json!({MODE: "disabled"}) } else { json!({}) };
            let steered = steered(bench, &workload.namespace, &workload.volume.claim, &annotations).await?;
            Ok((answer.warnings.is_empty() && !steered).then_some(()))
        });
        let quiet = quiet.await?.is_some();
        let answer = bench.evict(workload, json!({})).await?;
        let none = bench.handoff(workload, SIDE_EFFECT).await?.is_none();
        let claim = format!("disabled on {place}: no affinity, no record");
        bench.report.check(&claim, quiet && answer.is_ok() && none, answer.brief());
    }
    let answer = bench.evict(&back_in, json!({})).await?;
    let recorded = bench.handoff(&back_in, SOON).await?.is_some();
    bench.report.check("enabled on the pod counts before the namespace", answer.is_ok() && recorded, answer.brief());

    let class = "/apis/storage.k8s.io/v1/storageclasses/longhorn";
    let on_class = bench.workload("optout", "class").await?;
    bench.admin.merge(class, &off).await?;
    let quiet = eventually(SOON, async || {
        let answer = bench.evict(&on_class, json!({"dryRun": ["All"]})).await?;
        Ok(answer.warnings.is_empty().then_some(()))
    });
    let quiet = quiet.await?.is_some();
    let answer = bench.evict(&on_class, json!({})).await?;
    let none = bench.handoff(&on_class, SIDE_EFFECT).await?.is_none();
    bench.report.check("disabled on the storage class: no record", quiet && answer.is_ok() && none, answer.brief());
    bench.admin.merge(class, &json!({"metadata": {"annotations": {MODE: null}}})).await?;

    observe(bench).await
}

async fn observe(bench: &mut Bench) -> Result<()> {
    let annotations = json!({MODE: "observe"});
    let workload = annotated(bench, "optout", "observe", annotations.clone()).await?;
    let told = eventually(SOON, async || {
        let answer = bench.evict(&workload, json!({"dryRun": ["All"]})).await?;
        Ok(answer.warnings.iter().any(|w| w.contains(&workload.backup)).then_some(()))
    });
    let told = told.await?.is_some();
    let answer = bench.evict(&workload, json!({})).await?;
    let none = bench.handoff(&workload, SIDE_EFFECT).await?.is_none();
    let saw = format!("{}, warnings {:?}", answer.brief(), answer.warnings);
    bench.report.check(
        "observe: an eviction says what would be done, and nothing is",
        told && answer.is_ok() && none,
        saw,
    );
    let other = Volume::new("optout", "data-observe");
    let steered = steered(bench, "optout", &other.claim, &annotations).await?;
    bench.report.check("observe: a new pod is left as it is", !steered, "");
    Ok(())
}
