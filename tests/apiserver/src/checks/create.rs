//! Pods CREATE: preferred affinity to good nodes is added, and nothing else is touched.

use crate::{
    bench::{Bench, SOON},
    http::{Read, eventually},
    world::{Volume, core, pod},
};
use anyhow::{Context, Result};
use serde_json::{Value, json};

const PREFERRED: &str = "/spec/affinity/nodeAffinity/preferredDuringSchedulingIgnoredDuringExecution";

/// Names of the nodes that our terms name.
fn preferred(pod: &Value) -> Vec<&str> {
    let ours = pod.items(PREFERRED).iter().filter(|t| t.text("/preference/matchFields/0/key") == "metadata.name");
    ours.map(|t| t.text("/preference/matchFields/0/values/0")).collect()
}

/// A pod with a bit of everything that a patch could spoil.
fn rich(namespace: &str, claim: &str) -> Value {
    let mut pod = pod(namespace, "rich", &[claim]);
    pod["metadata"]["annotations"] = json!({"a.b/c_d": "\"quoted\" \\ ~1 and ünicode"});
    pod["spec"]["affinity"] = json!({
        "nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 7, "preference": {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]}}]},
        "podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "podAffinityTerm":
            {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "rich"}}}}]},
    });
    pod["spec"]["tolerations"] = json!([{"key": "x", "operator": "Exists", "effect": "NoExecute"}]);
    pod["spec"]["initContainers"] = json!([{"name": "init", "image": "none.invalid/none:1", "restartPolicy": "Always",
        "resources": {"limits": {"cpu": "100m"}}}]);
    pod["spec"]["volumes"].as_array_mut().into_iter().for_each(|v| {
        v.push(json!({"name": "all", "projected": {"sources": [{"downwardAPI": {"items": []}}]}}));
    });
    pod
}

pub async fn run(bench: &mut Bench) -> Result<()> {
    let ns = "create";
    bench.world.namespace(ns).await?;
    let volume = Volume::new(ns, "data");
    bench.world.volume(&volume, "node-a", &["node-a", "node-b"]).await?;
    let pods = core(ns, "pods", "");
    let dry = format!("{pods}?dryRun=All");

    let with = eventually(SOON, async || {
        let made = bench.admin.create(&dry, &rich(ns, &volume.claim)).await?;
        Ok((preferred(&made).len() == 2).then_some(made))
    });
    let mut with = with.await?.context("no preferred node is ever added")?;
    let nodes = preferred(&with).join(", ");
    bench.report.check("a pod prefers the nodes with good replicas", nodes == "node-a, node-b", &nodes);
    // the same pod in a namespace that is none of ours: what Kubernetes makes of it alone
    let mut alone = rich("kube-system", &volume.claim);
    alone["metadata"]["namespace"] = json!("kube-system");
    let without = bench.admin.create("/api/v1/namespaces/kube-system/pods?dryRun=All", &alone).await?;
    let terms = with.pointer_mut(PREFERRED).and_then(Value::as_array_mut).context("no terms")?;
    terms.retain(|t| t.text("/preference/matchFields/0/key") != "metadata.name");
    let same = with["spec"] == without["spec"] && with["metadata"]["annotations"] == without["metadata"]["annotations"];
    bench.report.check(
        "all else in the pod is as without Handoff",
        same,
        format!("{} against {}", with["spec"], without["spec"])
            .chars()
            .take(if same { 0 } else { 4000 })
            .collect::<String>(),
    );

    let made = bench.admin.create(&pods, &pod(ns, "plain", &[&volume.claim])).await?;
    let nodes = preferred(&made).join(", ");
    bench.report.check("a pod without any affinity gets it", nodes == "node-a, node-b", nodes);

    let mut generated = pod(ns, "", &[&volume.claim]);
    generated["metadata"] = json!({"generateName": "web-"});
    let made = bench.admin.create(&dry, &generated).await?;
    bench.report.check("a pod with generateName gets it", preferred(&made).len() == 2, made.text("/metadata/name"));

    let scratch = Volume::new(ns, "eph-scratch");
    bench.world.volume(&scratch, "node-b", &["node-b"]).await?;
    let mut ephemeral = pod(ns, "eph", &[]);
    ephemeral["spec"]["volumes"] = json!([{"name": "scratch", "ephemeral": {"volumeClaimTemplate": {"spec":
        {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}}}]);
    let found = eventually(SOON, async || {
        let made = bench.admin.create(&dry, &ephemeral).await?;
        let nodes = preferred(&made).join(", ");
        Ok((nodes == "node-b").then_some(nodes))
    });
    let found = found.await?;
    bench.report.check("an ephemeral volume's claim counts", found.is_some(), found.unwrap_or_default());

    let (before, asked) = (bench.replicas.calls(&["hook=\"pod-create\""]).await?, bench.requests().await?);
    let mut daemon = pod(ns, "daemon", &[&volume.claim]);
    daemon["metadata"]["ownerReferences"] =
        json!([{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "d", "uid": "1", "controller": true}]);
    let made = bench.admin.create(&dry, &daemon).await?;
    let after = (bench.replicas.calls(&["hook=\"pod-create\""]).await?, bench.requests().await?);
    let calls = format!("{} of ours, {} of the API server's", after.0 - before, after.1[0] - asked[0]);
    let none = after == (before, asked) && !made.has("/spec/affinity/nodeAffinity");
    bench.report.check("a DaemonSet's pod makes no call", none, calls);

    let mut bound = pod(ns, "bound", &[&volume.claim]);
    bound["spec"]["nodeName"] = json!("node-c");
    let made = bench.admin.create(&dry, &bound).await?;
    bench.report.check("a pod that is bound already is left alone", !made.has("/spec/affinity"), "");
    let mut mirror = pod(ns, "mirror", &[&volume.claim]);
    mirror["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"});
    mirror["spec"]["nodeName"] = json!("node-c");
    let made = bench.admin.create(&dry, &mirror).await?;
    bench.report.check("a mirror pod is left alone", !made.has("/spec/affinity"), "");
    Ok(())
}
