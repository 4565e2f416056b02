//! Bodies of requests. What serves them is the program's own wiring over caches that hold a few objects.

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::RawQuery,
    http::{Request, StatusCode, Uri},
};
use clap::Parser;
use handoff::ServeArgs;
use handoff_coordinator::clock::Clock;
use handoff_replica::Core;
use kube::Client;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::runtime::Runtime;
use tower::ServiceExt;

const REVIEWS: [&str; 6] = [
    "/mutate/pods",
    "/validate/pods-delete",
    "/validate/evictions",
    "/validate/storage-evictions",
    "/validate/bindings",
    "/validate/snapshots",
];
const VERBS: [&str; 4] = ["/filter", "/prioritize", "/preempt", "/bind"];
/// What a refusal may say at most, in bytes: 256 characters and what stands around them.
const LONGEST_REFUSAL: usize = 1200;

/// Both scheduler tiers are on: what marks a pod reads its containers.
const FLAGS: [&str; 9] = [
    "serve",
    "--pod-name",
    "fuzz-0",
    "--namespace",
    "handoff-system",
    "--scheduler-name",
    "handoff-scheduler",
    "--scheduler-marker",
    "volumehandoff.io/volume",
];

thread_local! {
    static SERVED: Option<Served> = Served::start().ok();
}

struct Served {
    runtime: Runtime,
    webhook: Router,
    extender: Router,
}

impl Served {
    fn start() -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let args = ServeArgs::try_parse_from(FLAGS)?;
        let (webhook, extender) = runtime.block_on(async {
            let client = Client::new(Router::new().fallback(collection), "default");
            let core = Core::new(args.replica(args.policy()?, Clock::default()), &client, &mut Registry::default());
            let routers = (core.webhook(), core.extender());
            core.tasks.into_iter().for_each(|(_, task)| drop(tokio::spawn(task)));
            while !core.coordinator.missing().is_empty() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            anyhow::Ok(routers)
        })?;
        Ok(Self { runtime, webhook, extender })
    }

    fn post(&self, router: &Router, path: &str, body: &[u8]) -> Option<(StatusCode, Vec<u8>)> {
        let request = Request::post(path).header("content-type", "application/json").body(Body::from(body.to_vec()));
        self.runtime.block_on(async {
            let response = router.clone().oneshot(request.ok()?).await.ok()?;
            let status = response.status();
            Some((status, to_bytes(response.into_body(), usize::MAX).await.ok()?.to_vec()))
        })
    }
}

/// The answer to a body on one path, of the webhook or of the extender. `None`: there was none.
pub fn serve(path: &str, body: &[u8]) -> Option<(StatusCode, Vec<u8>)> {
    SERVED.with(|served| {
        let served = served.as_ref()?;
        let router = if VERBS.contains(&path) { &served.extender } else { &served.webhook };
        served.post(router, path, body)
    })
}

/// A review on each route: answered with its own uid, or refused in one bounded line.
///
/// # Panics
/// If that is not so.
pub fn webhook(data: &[u8]) {
    SERVED.with(|served| {
        let Some(served) = served else { return };
        for path in REVIEWS {
            let Some((status, answer)) = served.post(&served.webhook, path, data) else { continue };
            if status == StatusCode::OK {
                let asked: Value = serde_json::from_slice(data).unwrap_or_default();
                let answer: Value = serde_json::from_slice(&answer).unwrap_or_default();
                let uid = &answer["response"]["uid"];
                assert!(uid.as_str().is_some_and(|uid| !uid.is_empty()), "{path}: an answer without uid");
                // what serde_json reads into a `Value` it reads into our types the same, but for keys that come twice
                assert!(asked.is_null() || asked["request"]["uid"] == *uid || has_twice(data), "{path}: another uid");
                assert!(answer["response"]["allowed"].is_boolean(), "{path}: neither allowed nor denied");
            } else {
                refused(path, status, &answer);
            }
        }
    });
}

/// Arguments on each verb: answered with nodes that were asked about, or refused in one bounded line.
///
/// # Panics
/// If that is not so.
pub fn extender(data: &[u8]) {
    SERVED.with(|served| {
        let Some(served) = served else { return };
        for path in VERBS {
            let Some((status, answer)) = served.post(&served.extender, path, data) else { continue };
            // a verb that this version does not have
            if status == StatusCode::NOT_FOUND {
                continue;
            }
            if status != StatusCode::OK {
                refused(path, status, &answer);
                continue;
            }
            let parsed = serde_json::from_slice::<Value>(&answer);
            assert!(parsed.is_ok(), "{path}: an answer that is not JSON");
            let (answer, asked) =
                (parsed.unwrap_or_default(), serde_json::from_slice::<Value>(data).unwrap_or_default());
            if let ("/filter", Some(passed), Some(names)) =
                (path, answer["NodeNames"].as_array(), asked["NodeNames"].as_array())
            {
                assert!(passed.iter().all(|name| names.contains(name)), "a node that was not asked about");
                let failed = answer["FailedAndUnresolvableNodes"].as_object().map_or(0, serde_json::Map::len);
                assert!(passed.len() + failed <= names.len(), "more nodes than were asked about");
                assert!(names.is_empty() || passed.len() + failed > 0, "nodes got lost");
            }
        }
    });
}

fn refused(path: &str, status: StatusCode, text: &[u8]) {
    assert!(status.is_client_error(), "{path}: {status}");
    assert!(text.len() <= LONGEST_REFUSAL, "{path}: a refusal of {} bytes", text.len());
}

/// A key that comes twice is an error to our types and none to `Value`, or the other way round in nested texts.
fn has_twice(data: &[u8]) -> bool {
    data.windows(5).filter(|part| part == b"\"uid\"").count() > 1
}

/// An API server with one object of each kind under the names of the recorded reviews, and endless watches.
async fn collection(uri: Uri, RawQuery(query): RawQuery) -> Result<String, StatusCode> {
    if query.is_some_and(|query| query.contains("watch=true")) {
        return std::future::pending().await;
    }
    let meta = |name: &str| json!({"name": name, "namespace": "rec", "uid": "u", "resourceVersion": "7"});
    let items = match uri.path().rsplit('/').next().unwrap_or_default() {
        "pods" => json!([{"metadata": meta("db-0"), "spec": {"nodeName": "node-1", "volumes": [
            {"name": "data", "persistentVolumeClaim": {"claimName": "data-db-0"}}]}, "status": {"phase": "Running"}}]),
        "persistentvolumeclaims" => json!([{"metadata": meta("data-db-0"), "spec": {"volumeName": "pv"}}]),
        "persistentvolumes" => json!([{"metadata": {"name": "pv"}, "spec": {
            "csi": {"driver": "driver.longhorn.io", "volumeHandle": "pv"}, "accessModes": ["ReadWriteOnce"],
            "claimRef": {"namespace": "rec", "name": "data-db-0"}}}]),
        "nodes" if uri.path().starts_with("/api/v1") => json!([
            {"metadata": {"name": "node-1"}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}},
            {"metadata": {"name": "node-2"}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}]),
        "nodes" => json!([{"metadata": meta("node-1")}, {"metadata": meta("node-2")}]),
        "csinodes" => json!([{"metadata": {"name": "node-1"}, "spec": {"drivers": [{"name": "driver.longhorn.io"}]}}]),
        "volumes" => json!([{"metadata": meta("pv"), "spec": {"nodeID": "node-1", "accessMode": "rwo", "image": "i"},
            "status": {"state": "attached", "robustness": "healthy", "currentNodeID": "node-1"}}]),
        "replicas" => json!([{"metadata": meta("pv-r"), "spec": {"volumeName": "pv", "nodeID": "node-1",
            "active": true}, "status": {"currentState": "running"}}]),
        "instancemanagers" => json!([{"metadata": meta("im"), "spec": {"nodeID": "node-1", "type": "aio",
            "dataEngine": "v1"}, "status": {"currentState": "running"}}]),
        "engineimages" => json!([{"metadata": meta("ei"), "spec": {"image": "i"},
            "status": {"state": "deployed", "nodeDeploymentMap": {"node-1": true}}}]),
        "backups" => json!([{"metadata": {"name": "b", "uid": "b", "labels": {"backup-volume": "pv"}},
            "spec": {"snapshotName": "s"}, "status": {"state": "InProgress", "progress": 23}}]),
        _ => json!([]),
    };
    Ok(json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "7"}, "items": items}).to_string())
}
