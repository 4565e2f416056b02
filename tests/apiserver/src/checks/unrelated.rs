//! What does not concern Handoff never leaves the API server.

use crate::{
    bench::{Bench, WEBHOOKS, bind},
    world::{core, pod},
};
use anyhow::Result;
use serde_json::json;

/// Pods of each kind.
const PODS: usize = 20;

pub async fn run(bench: &mut Bench) -> Result<()> {
    let ns = "unrelated";
    bench.world.namespace(ns).await?;
    // the namespaces that are left out, and one that is not
    for (namespace, claims) in [(ns, &[][..]), ("kube-system", &["any"][..])] {
        let ours = bench.replicas.calls(&[]).await?;
        let theirs = bench.requests().await?;
        for n in 0..PODS {
            let name = format!("p{n}");
            let path = core(namespace, "pods", &name);
            bench.admin.create(&core(namespace, "pods", ""), &pod(namespace, &name, claims)).await?;
            if namespace == "kube-system" {
                bind(&bench.admin, namespace, &name, "node-c").await?.ok()?;
                bench.world.ready(namespace, &name).await?;
            }
            bench.admin.merge(&path, &json!({"metadata": {"labels": {"x": "y"}}})).await?;
            bench.admin.delete(&path, &json!({"gracePeriodSeconds": 0})).await?.ok()?;
        }
        let after = bench.requests().await?.into_iter();
        let calls = WEBHOOKS.into_iter().zip(after.zip(theirs).map(|(after, before)| after - before));
        let called = calls.filter(|(_, calls)| *calls > 0).collect::<Vec<_>>();
        let ours = bench.replicas.calls(&[]).await? - ours;
        let what = if claims.is_empty() { "pods without claims" } else { "pods in kube-system" };
        let saw = format!("{PODS} pods created, changed and deleted: {ours} calls here, by the API server {called:?}");
        bench.report.check(&format!("{what} cause no call"), ours == 0 && called.is_empty(), saw);
    }
    bound(bench, ns).await
}

/// A Binding says nothing of the pod but its name: it is reviewed whatever the pod is, and that is all.
async fn bound(bench: &mut Bench, ns: &str) -> Result<()> {
    let before = bench.requests().await?;
    for n in 0..PODS {
        let name = format!("bound-{n}");
        bench.admin.create(&core(ns, "pods", ""), &pod(ns, &name, &[])).await?;
        bind(&bench.admin, ns, &name, "node-c").await?.ok()?;
        bench.admin.delete(&core(ns, "pods", &name), &json!({"gracePeriodSeconds": 0})).await?.ok()?;
    }
    let after = bench.requests().await?.into_iter();
    let calls = WEBHOOKS.into_iter().zip(after.zip(before).map(|(after, before)| after - before));
    let called = calls.filter(|(_, calls)| *calls > 0).collect::<Vec<_>>();
    let saw = format!("{PODS} pods created, bound and deleted: by the API server {called:?}");
    let one_each = called == [("bindings", PODS as u64)];
    bench.report.check("pods without claims: one call for each binding, no other", one_each, saw);
    Ok(())
}
