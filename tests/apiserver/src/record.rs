//! Extender calls of a real kube-scheduler, written down as they came.

use crate::{
    args::Paths,
    bench::{Bench, bind},
    checks::outage::scheduled,
    control_plane::User,
    http::{Api, Read},
    record_reviews,
    world::{Volume, core, pod},
};
use anyhow::{Context, Result};
use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path as Verb, State},
    routing::post,
};
use serde_json::{Value, json};
use std::{path::Path, sync::Arc};
use tokio::net::TcpListener;

/// An extender that agrees with everything.
struct Recorder {
    directory: std::path::PathBuf,
    mode: &'static str,
    admin: Api,
}

/// Records both modes.
pub async fn run(paths: &Paths, directory: &Path) -> Result<bool> {
    std::fs::create_dir_all(directory).context("cannot make the directory")?;
    let mut bench = Bench::start(paths).await?;
    let class = json!({"metadata": {"name": "high"}, "value": 1000});
    bench.world.create("/apis/scheduling.k8s.io/v1/priorityclasses", class).await?;
    for mode in ["names", "nodes"] {
        record(&bench, directory, mode).await?;
    }
    record_reviews::run(&mut bench, directory).await?;
    Ok(true)
}

/// One pod on each node, and one that is more important: every verb is asked for it.
async fn record(bench: &Bench, directory: &Path, mode: &'static str) -> Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("no port")?;
    let port = listener.local_addr().context("no port")?.port();
    let recorder = Arc::new(Recorder { directory: directory.to_owned(), mode, admin: bench.admin.clone() });
    let router = Router::new().route("/{verb}", post(answer)).with_state(recorder);
    let server = tokio::spawn(async move { axum::serve(listener, router).await });
    let configuration = json!({
        "apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "KubeSchedulerConfiguration",
        "clientConnection": {"kubeconfig": bench.plane.kubeconfig(User::Scheduler)?},
        "leaderElection": {"leaderElect": false},
        "extenders": [{"urlPrefix": format!("http://127.0.0.1:{port}"), "filterVerb": "filter",
            "prioritizeVerb": "prioritize", "preemptVerb": "preempt", "bindVerb": "bind", "weight": 1,
            "nodeCacheCapable": mode == "names"}],
    });
    let path = bench.plane.path(&format!("record-{mode}.json"));
    std::fs::write(&path, configuration.to_string()).context("cannot write a configuration")?;
    bench.world.namespace(mode).await?;
    for node in crate::control_plane::NODES {
        let mut low = pod(mode, &format!("low-{node}"), &[]);
        low["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "60"}});
        bench.world.running(&low, node).await?;
    }
    let name = format!("scheduler-record-{mode}");
    let _scheduler = bench.plane.scheduler(&name, &path).await?;
    let volume = Volume::new(mode, "data-db-0");
    bench.world.volume(&volume, "", &["node-a", "node-b"]).await?;
    let mut first = pod(mode, "db-0", &[&volume.claim]);
    first["metadata"]["annotations"] = json!({"shop.example/owner": "anna"});
    bench.admin.create(&core(mode, "pods", ""), &first).await?;
    let node = scheduled(bench, mode, "db-0").await?.context("db-0 is not scheduled")?;
    println!("{mode}: db-0 on {node}");
    let other = Volume::new(mode, "data-db-1");
    bench.world.volume(&other, "", &["node-b"]).await?;
    let mut important = pod(mode, "db-1", &[&other.claim]);
    important["spec"]["priorityClassName"] = json!("high");
    important["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "60"}});
    bench.admin.create(&core(mode, "pods", ""), &important).await?;
    let node = scheduled(bench, mode, "db-1").await?.context("db-1 is not scheduled")?;
    println!("{mode}: db-1 on {node}");
    server.abort();
    // the next mode finds the nodes empty
    bench.admin.delete(&core(mode, "pods", ""), &json!({"gracePeriodSeconds": 0})).await?.ok().map(drop)
}

async fn answer(State(recorder): State<Arc<Recorder>>, Verb(verb): Verb<String>, body: Bytes) -> Json<Value> {
    let file = recorder.directory.join(format!("{verb}-{}.json", recorder.mode));
    let arguments: Value = serde_json::from_slice(&body).unwrap_or_default();
    // the first call of each kind; pods of the manifests are scheduled too
    let ours = matches!(arguments.text("/Pod/metadata/name"), "" | "db-0" | "db-1");
    if ours && !file.exists() && std::fs::write(&file, &body).is_ok() {
        println!("recorded {} ({} bytes)", file.display(), body.len());
    }
    Json(match verb.as_str() {
        "filter" => json!({"NodeNames": arguments["NodeNames"], "Nodes": arguments["Nodes"]}),
        "preempt" => json!({"NodeNameToMetaVictims": victims(&arguments)}),
        "bind" => {
            json!({"Error": bound(&recorder.admin, &arguments).await.err().map(|e| format!("{e:#}")).unwrap_or_default()})
        }
        _ => json!([]),
    })
}

async fn bound(admin: &Api, arguments: &Value) -> Result<()> {
    let [namespace, name, node] = ["/PodNamespace", "/PodName", "/Node"].map(|p| arguments.text(p));
    bind(admin, namespace, name, node).await?.ok().map(drop)
}

/// The victims that were asked about, by UID.
fn victims(arguments: &Value) -> Value {
    let meta = &arguments["NodeNameToMetaVictims"];
    if meta.is_object() {
        return meta.clone();
    }
    let full = arguments["NodeNameToVictims"].as_object().into_iter().flatten();
    let nodes = full.map(|(node, victims)| {
        let pods = victims.items("/Pods").iter().map(|p| json!({"UID": p.text("/metadata/uid")}));
        (node.clone(), json!({"Pods": pods.collect::<Vec<_>>(), "NumPDBViolations": victims["NumPDBViolations"]}))
    });
    Value::Object(nodes.collect())
}
