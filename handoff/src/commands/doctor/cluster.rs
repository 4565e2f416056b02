//! Kubernetes itself: the version, our definition in it, nodes and kubelets.

use super::{Check, State};
use crate::commands::connection::Cluster;
use anyhow::Context;
use axum::http::Request;
use futures::{StreamExt, stream};
use handoff_coordinator::api::VolumeHandoff;
use jiff::SignedDuration;
use k8s_openapi::{
    api::{apps::v1::Deployment, core::v1::Node},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{Api, CustomResourceExt, ResourceExt, api::ListParams};
use serde_json::Value;

/// The oldest minor version of Kubernetes 1 that is supported.
const OLDEST_MINOR: u32 = 30;
/// Kubelets asked at the same time, and in all.
const AT_ONCE: usize = 8;
const MOST_KUBELETS: usize = 50;
/// A kubelet that reports less often costs each move more than a second on average.
const FAST_REPORT: SignedDuration = SignedDuration::from_secs(2);

/// The API server and what it knows of us. An error if it does not answer at all.
pub async fn api(cluster: &Cluster) -> anyhow::Result<Vec<Check>> {
    let client = &cluster.client;
    let version = client.apiserver_version().await.context("the API server does not answer")?;
    let definitions = Api::<CustomResourceDefinition>::all(client.clone());
    let ours = VolumeHandoff::crd();
    let found = definitions.get_opt(&ours.name_any()).await;
    let snapshots = definitions.get_opt("volumesnapshots.snapshot.storage.k8s.io").await;
    let controllers = Api::<Deployment>::all(client.clone()).list(&ListParams::default()).await;
    Ok(vec![
        version_check(&version.major, &version.minor),
        match found {
            Ok(found) => definition(found.as_ref(), &ours),
            Err(error) => Check::unknown("VolumeHandoff", &error),
        },
        match (snapshots, controllers) {
            (Ok(definition), Ok(list)) => snapshot_controller(definition.is_some(), &list.items),
            (Err(error), _) | (_, Err(error)) => Check::unknown("snapshot controller", &error),
        },
    ])
}

fn version_check(major: &str, minor: &str) -> Check {
    // managed clouds say `31+`
    let number = |text: &str| text.trim_end_matches('+').parse::<u32>().unwrap_or(0);
    let new = number(major) == 1 && number(minor) >= OLDEST_MINOR;
    let says = format!("Kubernetes {major}.{minor}");
    Check::required("API server", new, says, format!("use Kubernetes 1.{OLDEST_MINOR} or newer"))
}

fn definition(found: Option<&CustomResourceDefinition>, ours: &CustomResourceDefinition) -> Check {
    const NAME: &str = "VolumeHandoff";
    const FIX: &str = "handoff crd | kubectl apply --server-side -f -";
    let Some(found) = found else {
        return Check::required(NAME, false, "the CustomResourceDefinition is missing", FIX);
    };
    let schema = |crd: &CustomResourceDefinition| {
        let version = crd.spec.versions.iter().find(|v| v.name == "v1alpha1" && v.served);
        version.and_then(|v| serde_json::to_value(v.schema.as_ref()?).ok())
    };
    let (Some(theirs), Some(ours)) = (schema(found), schema(ours)) else {
        return Check::required(NAME, false, "the CustomResourceDefinition does not serve v1alpha1", FIX);
    };
    match difference(&ours, &theirs, "") {
        None => Check::required(NAME, true, "the CustomResourceDefinition is that of this version", FIX),
        Some(at) => {
            let says = format!("the CustomResourceDefinition is not that of this version: it differs at {at}");
            Check::required(NAME, false, says, FIX)
        }
    }
}

/// Where `theirs` is not what `ours` says. An API server may add what it has defaults for, never a property.
fn difference(ours: &Value, theirs: &Value, at: &str) -> Option<String> {
    match (ours, theirs) {
        (Value::Object(ours), Value::Object(theirs)) => {
            let missing = ours.iter().find_map(|(key, value)| match theirs.get(key) {
                Some(other) => difference(value, other, &format!("{at}/{key}")),
                None => Some(format!("{at}/{key}")),
            });
            let added = || theirs.keys().find(|key| at.ends_with("/properties") && !ours.contains_key(*key));
            missing.or_else(|| added().map(|key| format!("{at}/{key}")))
        }
        (Value::Array(ours), Value::Array(theirs)) if ours.len() == theirs.len() => {
            let mut pairs = ours.iter().zip(theirs).enumerate();
            pairs.find_map(|(i, (a, b))| difference(a, b, &format!("{at}/{i}")))
        }
        _ => (ours != theirs).then(|| at.to_owned()),
    }
}

fn snapshot_controller(definitions: bool, deployments: &[Deployment]) -> Check {
    const NAME: &str = "snapshot controller";
    let ready = deployments.iter().any(|d| {
        let replicas = d.status.as_ref().and_then(|s| s.ready_replicas).unwrap_or(0);
        d.name_any().contains("snapshot-controller") && replicas > 0
    });
    if !definitions {
        return Check::required(NAME, true, "no CSI snapshots here: backups are made by Longhorn's own means", "");
    }
    let fix = "install external-snapshotter's snapshot-controller; without it VolumeSnapshots, and the backups made \
               through them, stay as they are. Longhorn's own backups do not need it";
    let says = if ready { "it runs" } else { "VolumeSnapshots are defined, and no snapshot-controller is seen to run" };
    Check::advised(NAME, ready, says, fix)
}

/// Nodes and how often their kubelets report.
pub async fn nodes(cluster: &Cluster) -> Vec<Check> {
    let list = Api::<Node>::all(cluster.client.clone()).list(&ListParams::default()).await;
    let nodes = match list {
        Ok(list) => list.items,
        Err(error) => return vec![Check::unknown("nodes", &error)],
    };
    let mut names = nodes.iter().map(ResourceExt::name_any).collect::<Vec<_>>();
    names.sort();
    names.truncate(MOST_KUBELETS);
    let asked = stream::iter(names).map(|name| async move {
        let path = format!("/api/v1/nodes/{name}/proxy/configz");
        let answer = match Request::get(path).body(Vec::new()) {
            Ok(request) => cluster.client.request::<Value>(request).await,
            Err(error) => Err(kube::Error::HttpError(error)),
        };
        (name, answer)
    });
    let answers = asked.buffer_unordered(AT_ONCE).collect::<Vec<_>>().await;
    vec![open_nodes(&nodes), kubelets(answers)]
}

fn open_nodes(nodes: &[Node]) -> Check {
    let open = nodes.iter().filter(|n| {
        let spec = n.spec.as_ref();
        let closed = spec.is_some_and(|s| {
            let tainted = s.taints.iter().flatten().any(|t| t.effect != "PreferNoSchedule");
            s.unschedulable == Some(true) || tainted
        });
        let conditions = n.status.iter().flat_map(|s| s.conditions.iter().flatten());
        !closed && conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True")
    });
    let open = open.count();
    let says = format!("{open} of {} are ready and open to pods", nodes.len());
    Check::advised(
        "nodes",
        open >= 2,
        says,
        "a pod can move only where there is another node that is ready, not cordoned and not tainted",
    )
}

fn kubelets(answers: Vec<(String, Result<Value, kube::Error>)>) -> Check {
    const NAME: &str = "kubelets";
    let (mut slow, mut fast, mut failed) = (Vec::new(), 0, None);
    for (node, answer) in answers {
        match answer {
            Ok(config) => {
                let every = config.pointer("/kubeletconfig/nodeStatusUpdateFrequency").and_then(Value::as_str);
                let every = every.and_then(|text| text.parse::<SignedDuration>().ok());
                if every.is_some_and(|every| every <= FAST_REPORT) {
                    fast += 1;
                } else {
                    slow.push(format!("{node} ({})", every.map_or("unknown".to_owned(), |e| format!("{e:#}"))));
                }
            }
            Err(error) => failed = Some(error),
        }
    }
    if let (Some(error), 0, true) = (&failed, fast, slow.is_empty()) {
        return Check::unknown(NAME, error);
    }
    slow.sort();
    let says = if slow.is_empty() {
        format!("{fast} report every {FAST_REPORT:#} or more often")
    } else {
        format!("these report their volumes seldom, and a move waits for that: {}", slow.join(", "))
    };
    let fix = "set nodeStatusUpdateFrequency: 1s and nodeStatusReportFrequency: 5m in /var/lib/kubelet/config.yaml, \
               and restart the kubelet";
    Check::new(NAME, if slow.is_empty() { State::Ok } else { State::Warning }, says, fix)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn versions() {
        for (minor, state) in [("30", State::Ok), ("36+", State::Ok), ("29", State::Failed), ("x", State::Failed)] {
            assert_eq!(version_check("1", minor).state, state, "{minor}");
        }
    }

    #[test]
    fn the_definition_is_ours_or_the_difference_is_named() {
        let ours = VolumeHandoff::crd();
        assert_eq!(definition(Some(&ours), &ours).state, State::Ok);
        assert_eq!(definition(None, &ours).state, State::Failed);
        let changed = |pointer: &str, key: &str, value: Option<Value>| {
            let mut crd = serde_json::to_value(&ours).unwrap();
            let object = crd.pointer_mut(pointer).unwrap().as_object_mut().unwrap();
            match value {
                Some(value) => drop(object.insert(key.to_owned(), value)),
                None => drop(object.remove(key).unwrap()),
            }
            definition(Some(&serde_json::from_value(crd).unwrap()), &ours)
        };
        let spec = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties";
        let old = changed(spec, "hold", None);
        assert!(old.says.ends_with("/properties/spec/properties/hold"), "{}", old.says);
        let newer = changed(spec, "later", Some(json!({"type": "string"})));
        assert!(newer.says.ends_with("/properties/spec/properties/later"), "{}", newer.says);
        assert_eq!(changed("/spec/versions/0", "served", Some(json!(false))).state, State::Failed);
        // what an API server adds by itself
        assert_eq!(changed("/spec/names", "listKind", Some(json!("VolumeHandoffList"))).state, State::Ok);
    }

    #[test]
    fn snapshots_of_csi_need_their_controller() {
        let deployment = |name: &str, ready: i32| {
            serde_json::from_value::<Deployment>(json!({"metadata": {"name": name},
                "status": {"readyReplicas": ready}}))
            .unwrap()
        };
        assert_eq!(snapshot_controller(false, &[]).state, State::Ok);
        assert_eq!(snapshot_controller(true, &[deployment("snapshot-controller", 1)]).state, State::Ok);
        assert_eq!(snapshot_controller(true, &[deployment("snapshot-controller", 0)]).state, State::Warning);
        assert_eq!(snapshot_controller(true, &[deployment("other", 1)]).state, State::Warning);
    }

    #[test]
    fn how_often_kubelets_report() {
        let of = |every: &[(&str, &str)]| {
            kubelets(
                every
                    .iter()
                    .map(|(node, every)| {
                        let config = json!({"kubeletconfig": {"nodeStatusUpdateFrequency": every}});
                        ((*node).to_owned(), Ok(config))
                    })
                    .collect(),
            )
        };
        assert_eq!(of(&[("a", "1s"), ("b", "2s")]).state, State::Ok);
        let slow = of(&[("a", "1s"), ("c", "10s"), ("b", "1m0s")]);
        assert_eq!(slow.state, State::Warning);
        assert!(slow.says.ends_with("b (1m), c (10s)"), "{}", slow.says);
        let forbidden = kube::Error::Api(Box::new(kube::core::Status { code: 403, ..Default::default() }));
        assert_eq!(kubelets(vec![("a".into(), Err(forbidden))]).state, State::Unknown);
    }

    #[test]
    fn a_pod_needs_another_node() {
        let node = |change: Value| {
            let mut node = json!({"metadata": {"name": "n"}, "spec": {},
                "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
            json_patch::merge(&mut node, &change);
            serde_json::from_value::<Node>(node).unwrap()
        };
        let plain = || node(json!({}));
        assert_eq!(open_nodes(&[plain(), plain()]).state, State::Ok);
        for closed in [
            json!({"spec": {"unschedulable": true}}),
            json!({"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}}),
            json!({"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}),
        ] {
            assert_eq!(open_nodes(&[plain(), node(closed.clone())]).state, State::Warning, "{closed}");
        }
    }
}
