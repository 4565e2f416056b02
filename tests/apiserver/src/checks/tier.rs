//! The marks by which a scheduler knows the pods that concern Handoff.

use super::outage::scheduled;
use crate::{
    bench::{Bench, SOON},
    http::{Read, eventually},
    scheduler,
    world::{Volume, core, pod},
};
use anyhow::{Context, Result};
use serde_json::{Value, json};

const MARKER: &str = "volumehandoff.io/volume";
const SECOND: &str = "handoff-scheduler";

/// How much of the marker a pod's first container asks for, and may take.
fn marks(pod: &Value) -> [&str; 2] {
    let resources = &pod["spec"]["containers"][0]["resources"];
    ["requests", "limits"].map(|part| resources[part][MARKER].as_str().unwrap_or_default())
}

/// The extender is asked for marked pods only.
fn managed(text: &str) -> String {
    text.replace(
        "  nodeCacheCapable: true",
        &format!("  managedResources: [{{name: {MARKER}, ignoredByScheduler: true}}]\n  nodeCacheCapable: true"),
    )
}

pub async fn run(bench: &mut Bench) -> Result<()> {
    let ns = "tier";
    bench.world.namespace(ns).await?;
    let volume = Volume::new(ns, "data");
    bench.world.volume(&volume, "", &["node-b"]).await?;
    bench.restart(&[&format!("--scheduler-name={SECOND}"), &format!("--scheduler-marker={MARKER}")]).await?;
    let dry = format!("{}?dryRun=All", core(ns, "pods", ""));
    let marked = eventually(SOON, async || {
        let made = bench.admin.create(&dry, &pod(ns, "ours", &[&volume.claim])).await?;
        Ok((marks(&made) == ["1", "1"]).then_some(made))
    });
    let marked = marked.await?.context("no pod is ever marked")?;
    let resources = &marked["spec"]["containers"][0]["resources"];
    let given = marked.text("/spec/schedulerName");
    bench.report.check("a pod of ours asks for one of the marker", marks(&marked) == ["1", "1"], resources);
    bench.report.check("and is given to the second scheduler", given == SECOND, given);
    let mut theirs = pod(ns, "theirs", &[&volume.claim]);
    theirs["spec"]["schedulerName"] = json!("batch");
    let made = bench.admin.create(&dry, &theirs).await?;
    let kept = made.text("/spec/schedulerName");
    bench.report.check("one that names a scheduler keeps it", kept == "batch" && marks(&made) == ["1", "1"], kept);
    let mut scratch = pod(ns, "foreign", &[]);
    scratch["spec"]["volumes"] = json!([{"name": "all", "persistentVolumeClaim": {"claimName": "of-another-driver"}}]);
    let mut off = pod(ns, "off", &[&volume.claim]);
    off["metadata"]["annotations"] = json!({"volumehandoff.io/mode": "disabled"});
    for (who, new) in [("a pod without volumes of ours", scratch), ("a pod that is opted out", off)] {
        let made = bench.admin.create(&dry, &new).await?;
        let bare = marks(&made) == ["", ""] && made.text("/spec/schedulerName") == "default-scheduler";
        bench.report.check(&format!("{who} has no mark"), bare, made.text("/spec/schedulerName"));
    }
    scheduling(bench, ns, &volume).await?;
    bench.restart(&[]).await
}

/// With the marker in the extender's `managedResources`, a real kube-scheduler asks for marked pods only.
async fn scheduling(bench: &mut Bench, ns: &str, volume: &Volume) -> Result<()> {
    bench.restart(&[&format!("--scheduler-marker={MARKER}")]).await?;
    bench.led().await?;
    let files = scheduler::write_files(bench).await?;
    let _scheduler =
        scheduler::start(bench, "scheduler-marker", &files, "scheduler-config.yaml", |text| managed(&text)).await?;
    let asked = async |bench: &Bench| bench.replicas.calls(&["hook=\"filter\""]).await;
    let before = asked(bench).await?;
    bench.admin.create(&core(ns, "pods", ""), &pod(ns, "plain", &[])).await?;
    let node = scheduled(bench, ns, "plain").await?;
    let calls = asked(bench).await? - before;
    let saw = format!("{calls} calls, bound to {}", node.as_deref().unwrap_or("nothing"));
    bench.report.check("the scheduler does not ask for a pod without the mark", node.is_some() && calls == 0, saw);
    bench.admin.create(&core(ns, "pods", ""), &pod(ns, "marked", &[&volume.claim])).await?;
    let node = scheduled(bench, ns, "marked").await?;
    let calls = asked(bench).await? - before;
    let saw = format!("{calls} calls, bound to {}", node.as_deref().unwrap_or("nothing"));
    let held = node.as_deref() == Some("node-b") && calls > 0;
    bench.report.check("it asks for one with the mark, which no node has, and binds it", held, saw);
    Ok(())
}
