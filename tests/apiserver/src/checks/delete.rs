//! Pods DELETE and DELETECOLLECTION: recorded, never refused.

use crate::{
    bench::{Bench, SOON, Workload},
    control_plane::User,
    http::{Read, eventually},
    kubelet::{MANUAL, leave},
    world::core,
};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// The kubelets leave it to the check.
pub async fn by_hand(bench: &Bench, workload: &Workload) -> Result<()> {
    bench.admin.merge(&workload.path(""), &json!({"metadata": {"annotations": {MANUAL: ""}}})).await.map(drop)
}

/// Whether the record is the workload's, made by `trigger`.
pub fn records(handoff: &Value, workload: &Workload, trigger: &str) -> bool {
    let checkpoints = handoff.items("/spec/checkpoints");
    handoff.text("/spec/trigger") == trigger
        && handoff.text("/spec/from") == "node-a"
        && handoff.text("/spec/pod/uid") == workload.uid
        && handoff.text("/metadata/ownerReferences/0/name") == workload.volume.claim
        && checkpoints.len() == 1
        && checkpoints[0].text("/backup") == workload.backup
        && checkpoints[0]["progress"] == 40
}

/// The workload's record once it is made by `trigger`: the replica that leads may see the pod leave before the one that
/// was asked has written its review down. After [`SOON`] whatever there is.
pub async fn recorded(bench: &Bench, workload: &Workload, trigger: &str) -> Result<(bool, Value)> {
    let held = eventually(SOON, async || {
        let found = bench.admin.find(&workload.volume.handoff()).await?;
        Ok(found.filter(|handoff| records(handoff, workload, trigger)))
    });
    match held.await? {
        Some(handoff) => Ok((true, handoff)),
        None => Ok((false, bench.handoff(workload, Duration::ZERO).await?.unwrap_or_default())),
    }
}

pub async fn run(bench: &mut Bench) -> Result<()> {
    let ns = "delete";
    bench.world.namespace(ns).await?;

    let dry = bench.workload(ns, "dry").await?;
    bench.admin.delete(&dry.path(""), &json!({"dryRun": ["All"]})).await?.ok()?;
    let none = bench.handoff(&dry, Duration::from_millis(300)).await?.is_none();
    let stays = !bench.admin.get(&dry.path("")).await?.ok()?.has("/metadata/deletionTimestamp");
    bench.report.check("a dry run records nothing", none && stays, "");

    let one = bench.workload(ns, "one").await?;
    by_hand(bench, &one).await?;
    let began = Instant::now();
    let answer = bench.admin.delete(&one.path(""), &json!({})).await?;
    let (held, handoff) = recorded(bench, &one, "Deletion").await?;
    let seen = began.elapsed().as_secs_f64() * 1e3;
    let text = format!("{}, seen {seen:.0} ms after it was sent: {}", answer.brief(), handoff["spec"]["trigger"]);
    bench.report.check("a deletion is allowed and recorded", answer.is_ok() && held, text);
    let before = bench.replicas.calls(&["hook=\"pod-delete\""]).await?;
    bench.admin.delete(&one.path(""), &json!({})).await?.ok()?;
    leave(&bench.plane.api(User::Node("node-a"))?, ns, &one.pod, &one.uid).await?;
    bench.gone(&one).await?;
    let calls = bench.replicas.calls(&["hook=\"pod-delete\""]).await? - before;
    bench.report.check("a second deletion and the kubelet's last make no call", calls == 0, format!("{calls} calls"));
    let again = bench.handoff(&one, Duration::ZERO).await?.context("the record is gone")?;
    let same = again["spec"] == handoff["spec"];
    bench.report.check("and leave the record as it is", same, "");

    let many = [bench.workload(ns, "many-0").await?, bench.workload(ns, "many-1").await?];
    for workload in &many {
        bench.admin.merge(&workload.path(""), &json!({"metadata": {"labels": {"of": "many"}}})).await?;
    }
    let collection = format!("{}?labelSelector=of%3Dmany", core(ns, "pods", ""));
    bench.admin.delete(&collection, &json!({})).await?.ok()?;
    for workload in &many {
        let (held, handoff) = recorded(bench, workload, "Deletion").await?;
        bench.report.check("DELETECOLLECTION is recorded pod by pod", held, &handoff["spec"]["trigger"]);
    }

    let force = bench.workload(ns, "force").await?;
    bench.admin.delete(&force.path(""), &json!({"gracePeriodSeconds": 0})).await?.ok()?;
    let (held, handoff) = recorded(bench, &force, "Deletion").await?;
    bench.report.check("a forced deletion too", held, &handoff["spec"]["trigger"]);

    let plain = bench.plain(ns, "plain").await?;
    bench.admin.delete(&plain.path(""), &json!({})).await?.ok()?;
    let none = bench.handoff(&plain, Duration::from_millis(300)).await?.is_none();
    bench.report.check("no backup in flight, nothing recorded", none, "");
    Ok(())
}
