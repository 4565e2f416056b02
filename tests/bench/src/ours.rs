//! The program as it serves: its own wiring, caches filled through its own watches from an API server in this process.

use crate::{
    api, typed,
    world::{World, claim_name, full_node, namespace, node_name, pod_name},
};
use anyhow::Context;
use axum::Router;
use clap::Parser;
use handoff::ServeArgs;
use handoff_coordinator::clock::Clock;
use handoff_replica::Core;
use kube::Client;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use std::{str::FromStr, time::Duration};

/// The size of the cluster that requests are about.
pub const WORLD: (usize, usize, usize) = (2000, 500, 5000);
/// Full nodes in one call of the extender.
const FULL_NODES: usize = 1000;
/// Bytes of each of them when all nodes of the cluster are in one call.
const LARGE_NODE: usize = 10_000;

const CREATE: &str = include_str!("../../../webhook/tests/recorded/create-statefulset-pod.json");
const DELETE: &str = include_str!("../../../webhook/tests/recorded/delete-kubectl.json");
const EVICT: &str = include_str!("../../../webhook/tests/recorded/evict-kubectl-drain.json");
const BIND: &str = include_str!("../../../webhook/tests/recorded/bind-kube-scheduler.json");
const ARGS: &str = include_str!("../../../extender/tests/data/args-node-names.json");

/// The flags with their defaults, as `handoff serve` has them.
pub fn args() -> anyhow::Result<ServeArgs> {
    ServeArgs::try_parse_from(["serve", "--pod-name", "bench-0", "--namespace", "handoff-system"])
        .context("the defaults are not valid")
}

/// The webhook and the extender over filled caches; the comparator is below `/typed`.
pub async fn router() -> anyhow::Result<Router> {
    let (pods, volumes, nodes) = WORLD;
    let client = Client::new(api::router(World::new(pods, volumes, nodes)), "default");
    let args = args()?;
    let core = Core::new(args.replica(args.policy()?, Clock::default()), &client, &mut Registry::default());
    let (webhook, extender, coordinator) = (core.webhook(), core.extender(), core.coordinator.clone());
    for (_, task) in core.tasks {
        tokio::spawn(task);
    }
    while !coordinator.missing().is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(webhook.merge(extender).nest("/typed", typed::router(coordinator)))
}

/// What a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Work {
    /// A new pod with a volume of ours: look-up, and a patch.
    Create,
    /// A deletion of a pod whose volume is of another driver.
    Delete,
    /// An eviction of a pod with a volume of ours and no backup in flight.
    Evict,
    /// A binding of a pod with a volume of ours.
    Bind,
    /// 5,000 node names, one in fifty of them unfit.
    FilterNames,
    /// Scores for 5,000 node names.
    Prioritize,
    /// 1,000 full nodes.
    FilterNodes,
    /// 5,000 full nodes of 10 kB each.
    FilterAllNodes,
}

impl Work {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Create,
        Self::Delete,
        Self::Evict,
        Self::Bind,
        Self::FilterNames,
        Self::Prioritize,
        Self::FilterNodes,
        Self::FilterAllNodes,
    ];

    /// The route.
    pub fn path(self) -> &'static str {
        match self {
            Self::Create => "/mutate/pods",
            Self::Delete => "/validate/pods-delete",
            Self::Evict => "/validate/evictions",
            Self::Bind => "/validate/bindings",
            Self::FilterNames | Self::FilterNodes | Self::FilterAllNodes => "/filter",
            Self::Prioritize => "/prioritize",
        }
    }

    /// The body, as the API server or the scheduler sends it.
    pub fn body(self) -> anyhow::Result<Vec<u8>> {
        let value = match self {
            Self::Create => create()?,
            Self::Delete => {
                // the last volume is of another driver
                let at = WORLD.1 - 1;
                let mut review = named(DELETE, at)?;
                rename(&mut review["request"]["oldObject"], at);
                review
            }
            Self::Evict => {
                let mut review = named(EVICT, 1)?;
                review["request"]["object"]["metadata"] = json!({"name": pod_name(1), "namespace": namespace(1)});
                review
            }
            Self::Bind => {
                let mut review = named(BIND, 1)?;
                let object = &mut review["request"]["object"];
                // without its UID: in these caches the pod has another one
                object["metadata"] = json!({"name": pod_name(1), "namespace": namespace(1)});
                object["target"]["name"] = json!(node_name(0));
                review
            }
            Self::FilterNames | Self::Prioritize => {
                filter(json!((0..WORLD.2).map(node_name).collect::<Vec<_>>()), Value::Null)?
            }
            Self::FilterNodes => filter(Value::Null, full_nodes(&full_node(), FULL_NODES)?)?,
            Self::FilterAllNodes => {
                let mut node = full_node();
                // a node that has pulled more images
                let images = node["status"]["images"].as_array().context("the node has no images")?.clone();
                for image in images.into_iter().cycle() {
                    if node.to_string().len() >= LARGE_NODE {
                        break;
                    }
                    node["status"]["images"].as_array_mut().context("the node has no images")?.push(image);
                }
                filter(Value::Null, full_nodes(&node, WORLD.2)?)?
            }
        };
        Ok(value.to_string().into_bytes())
    }
}

/// A list of so many nodes like this one.
fn full_nodes(node: &Value, count: usize) -> anyhow::Result<Value> {
    let node = node.to_string();
    let nodes = (0..count).map(|at| Value::from_str(&node.replace("@NODE@", &node_name(at))));
    Ok(json!({"metadata": {}, "items": nodes.collect::<Result<Vec<_>, _>>()?}))
}

/// A recorded review, about the pod of the volume `at`.
fn named(recorded: &str, at: usize) -> anyhow::Result<Value> {
    let mut review: Value = serde_json::from_str(recorded)?;
    review["request"]["name"] = json!(pod_name(at));
    review["request"]["namespace"] = json!(namespace(at));
    Ok(review)
}

fn rename(pod: &mut Value, at: usize) {
    pod["metadata"]["name"] = json!(pod_name(at));
    pod["metadata"]["namespace"] = json!(namespace(at));
    for volume in pod["spec"]["volumes"].as_array_mut().into_iter().flatten() {
        if volume.get("persistentVolumeClaim").is_some() {
            volume["persistentVolumeClaim"]["claimName"] = json!(claim_name(at));
        }
    }
}

/// The recorded pod with a sidecar, environment and probes, as pods in production have: 6.9 kB.
fn create() -> anyhow::Result<Value> {
    let mut review = named(CREATE, 1)?;
    let pod = &mut review["request"]["object"];
    rename(pod, 1);
    let environment: Vec<Value> = (0..12)
        .map(|at| json!({"name": format!("DATABASE_SETTING_{at}"), "value": format!("value-{at}.example.com:5432")}))
        .collect();
    let probe = json!({"httpGet": {"path": "/healthz", "port": 8080, "scheme": "HTTP"}, "initialDelaySeconds": 5,
        "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3});
    let resources = json!({"limits": {"cpu": "2", "memory": "4Gi"}, "requests": {"cpu": "500m", "memory": "1Gi"}});
    let security = json!({"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
        "capabilities": {"drop": ["ALL"]}, "runAsNonRoot": true, "runAsUser": 1000});
    let containers = pod["spec"]["containers"].as_array_mut().context("the recorded pod has containers")?;
    let main = &mut containers[0];
    main["env"] = json!(environment);
    main["readinessProbe"] = probe.clone();
    main["livenessProbe"] = probe.clone();
    main["resources"] = resources.clone();
    main["securityContext"] = security.clone();
    let mut sidecar = main.clone();
    sidecar["name"] = json!("exporter");
    sidecar["ports"] = json!([{"name": "metrics", "containerPort": 9187, "protocol": "TCP"}]);
    containers.push(sidecar);
    Ok(review)
}

fn filter(names: Value, nodes: Value) -> anyhow::Result<Value> {
    let mut args: Value = serde_json::from_str(ARGS)?;
    rename(&mut args["Pod"], 1);
    args["NodeNames"] = names;
    args["Nodes"] = nodes;
    Ok(args)
}
