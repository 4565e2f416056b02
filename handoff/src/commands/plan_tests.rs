//! A cluster with two nodes, a `StatefulSet`'s pod with a backup in flight, and what may be in the way.

use super::super::{
    blockers::Obstacle,
    fake::Api as Fake,
    tests::{at, handoff},
};
use super::*;
use serde_json::{Value, json};

const LONGHORN: &str = "/apis/longhorn.io/v1beta2/namespaces/longhorn-system";

/// Nodes a and b; pod `shop/db-0` on a, with volume one, whose replicas are on both, and backup b1 at 50 %.
pub fn cluster() -> Fake {
    let api = Fake::default();
    let node = |name: &str| {
        json!({"metadata": {"name": name}, "spec": {},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]}})
    };
    api.put_all("/api/v1/nodes", ["a", "b"].map(node));
    let csi = |name: &str| {
        json!({"metadata": {"name": name},
            "spec": {"drivers": [{"name": "driver.longhorn.io", "nodeID": name, "topologyKeys": []}]}})
    };
    api.put_all("/apis/storage.k8s.io/v1/csinodes", ["a", "b"].map(csi));
    api.put_all(
        "/api/v1/persistentvolumes",
        [json!({"metadata": {"name": "one"}, "spec": {
        "accessModes": ["ReadWriteOnce"], "csi": {"driver": "driver.longhorn.io", "volumeHandle": "h-one"},
        "claimRef": {"namespace": "shop", "name": "data-one"}}})],
    );
    api.put("/api/v1/namespaces/shop", json!({"metadata": {"name": "shop"}}));
    api.put(
        "/api/v1/namespaces/shop/persistentvolumeclaims/data-one",
        json!({
        "metadata": {"name": "data-one", "uid": "c"}, "spec": {"volumeName": "one"}}),
    );
    api.put_all("/api/v1/namespaces/shop/pods", [pod("db-0", "a", &json!({}))]);
    api.put_all(&format!("{LONGHORN}/nodes"), ["a", "b"].map(node));
    let manager = |node: &str| {
        json!({"metadata": {"name": format!("im-{node}")}, "spec": {"nodeID": node, "type": "aio", "dataEngine": "v1"},
            "status": {"currentState": "running"}})
    };
    api.put_all(&format!("{LONGHORN}/instancemanagers"), ["a", "b"].map(manager));
    api.put_all(
        &format!("{LONGHORN}/engineimages"),
        [json!({"metadata": {"name": "ei"}, "spec": {"image": "engine:1"},
        "status": {"state": "deployed", "nodeDeploymentMap": {"a": true, "b": true}}})],
    );
    api.put_all(
        &format!("{LONGHORN}/volumes"),
        [json!({"metadata": {"name": "h-one"},
        "spec": {"accessMode": "rwo", "dataEngine": "v1", "image": "engine:1", "nodeID": "a"},
        "status": {"state": "attached", "robustness": "healthy", "currentNodeID": "a"}})],
    );
    api.put_all(&format!("{LONGHORN}/replicas"), ["a", "b"].map(replica));
    api.put_all(
        &format!("{LONGHORN}/snapshots"),
        [json!({"metadata": {"name": "s1"}, "spec": {"volume": "h-one"},
        "status": {"readyToUse": true, "creationTime": "2027-01-15T07:59:00Z"}})],
    );
    api.put_all(
        &format!("{LONGHORN}/backups"),
        [json!({
        "metadata": {"name": "b1", "uid": "u1", "labels": {"backup-volume": "h-one"}, "creationTimestamp": at(-20)},
        "spec": {"snapshotName": "s1"}, "status": {"state": "InProgress", "progress": 50, "volumeName": "h-one"}})],
    );
    let setting = |name: &str, value: &str| json!({"metadata": {"name": name}, "value": value});
    api.put_all(&format!("{LONGHORN}/settings"), [setting("current-longhorn-version", "v1.10.0")]);
    api
}

fn replica(node: &str) -> Value {
    json!({"metadata": {"name": format!("r-{node}")},
        "spec": {"volumeName": "h-one", "nodeID": node, "active": true, "dataEngine": "v1", "image": "engine:1"},
        "status": {"currentState": "running"}})
}

fn pod(name: &str, node: &str, change: &Value) -> Value {
    let mut pod = json!({
        "metadata": {"name": name, "uid": name, "labels": {"app": "db"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db", "uid": "s", "controller": true}]},
        "spec": {"nodeName": node, "containers": [],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data-one"}}]},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    });
    json_patch::merge(&mut pod, change);
    pod
}

async fn plan_of(api: &Fake, node: &str) -> Plan {
    plan(&gather(&api.cluster("shop"), node).await.unwrap(), at(0))
}

fn kinds(plan: &Plan) -> Vec<Obstacle> {
    plan.blockers.iter().map(|b| b.kind).collect()
}

#[tokio::test]
async fn pods_backups_targets_and_seconds() {
    let api = cluster();
    let daemon = json!({"spec": {"volumes": null}, "metadata": {"ownerReferences": [
        {"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "log", "uid": "s", "controller": true}]}});
    let mirror = json!({"metadata": {"annotations": {"kubernetes.io/config.mirror": "x"}}});
    let others = [pod("log", "a", &daemon), pod("static", "a", &mirror), pod("elsewhere", "b", &json!({}))];
    api.put_all("/api/v1/namespaces/kube-system/pods", others);
    let plan = plan_of(&api, "a").await;
    assert_eq!((plan.pods.len(), plan.stays, kinds(&plan)), (1, 2, vec![]));
    let pod = &plan.pods[0];
    assert_eq!((pod.name.as_str(), pod.owner.as_deref()), ("db-0", Some("StatefulSet/db")));
    let volume = &pod.volumes[0];
    assert_eq!((volume.volume.as_str(), volume.mode.as_str(), volume.hold_seconds), ("one", "enabled", None));
    // half of it took 20 s
    let b1 = InFlight { name: "b1".into(), progress: 50, eta_seconds: Some(20.0) };
    assert_eq!(volume.backups, [b1]);
    let targets = pod.targets.iter().map(|t| (t.node.as_str(), t.score)).collect::<Vec<_>>();
    assert_eq!(targets, [("b", Some(9))], "as the scheduler is told; not the node itself");
    assert!(pod.expected.as_ref().unwrap().source.contains("measurement"));
    let text = plan.text();
    assert!(text.contains("data-one: b1 at 50 %, about 20s to go") && text.contains("b (9)"), "{text}");
}

#[tokio::test]
async fn a_hold_is_foreseen_and_counts() {
    let api = cluster();
    let path = "/api/v1/namespaces/shop/persistentvolumeclaims/data-one";
    let mut claim = api.get(path).unwrap();
    claim["metadata"]["annotations"] = json!({"volumehandoff.io/eviction-policy": "FinishIfNear",
        "volumehandoff.io/max-hold": "30s"});
    api.put(path, claim.clone());
    let mut moved = handoff("one");
    moved.status.as_mut().unwrap().duration = "10.0s".into();
    moved.status.as_mut().unwrap().phase = Some(handoff_coordinator::api::Phase::Complete);
    api.put("/apis/volumehandoff.io/v1alpha1/namespaces/shop/volumehandoffs/one", json!(moved));
    let plan = plan_of(&api, "a").await;
    assert_eq!(plan.pods[0].volumes[0].hold_seconds, Some(20.0));
    assert!((plan.expected.unwrap().seconds - 30.0).abs() < 1e-9);
    // farther away than may be waited for
    claim["metadata"]["annotations"]["volumehandoff.io/max-hold"] = json!("10s");
    api.put(path, claim);
    assert_eq!(plan_of(&api, "a").await.pods[0].volumes[0].hold_seconds, None);
}

fn budget(name: &str, healthy: i64, expected: i64, allowed: i64) -> Value {
    json!({"metadata": {"name": name}, "spec": {"selector": {"matchLabels": {"app": "db"}}, "minAvailable": 1},
        "status": {"currentHealthy": healthy, "desiredHealthy": 1, "expectedPods": expected,
            "disruptionsAllowed": allowed}})
}

const BUDGETS: &str = "/apis/policy/v1/namespaces/shop/poddisruptionbudgets";

#[tokio::test]
async fn budgets_that_allow_nothing() {
    let api = cluster();
    api.put_all(BUDGETS, [budget("db", 1, 1, 1)]);
    assert_eq!(kinds(&plan_of(&api, "a").await), []);
    api.put_all(BUDGETS, [budget("db", 1, 1, 0)]);
    let plan = plan_of(&api, "a").await;
    assert_eq!((kinds(&plan), plan.blockers[0].passes), (vec![Obstacle::DisruptionBudget], false), "it never will");
    api.put_all(BUDGETS, [budget("db", 1, 2, 0)]);
    let plan = plan_of(&api, "a").await;
    assert_eq!((kinds(&plan), plan.blockers[0].passes), (vec![Obstacle::DisruptionBudget], true), "one is not ready");
    // a pod that is not ready may go if the budget does not need it
    let sick = json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}});
    api.put_all("/api/v1/namespaces/shop/pods", [pod("db-0", "a", &sick)]);
    assert_eq!(kinds(&plan_of(&api, "a").await), []);
    api.put_all(BUDGETS, [budget("second", 1, 1, 1)]);
    assert_eq!(kinds(&plan_of(&api, "a").await), [Obstacle::TwoBudgets]);
}

#[tokio::test]
async fn what_else_is_in_the_way() {
    let api = cluster();
    let free = json!({"metadata": {"ownerReferences": null}, "spec": {"volumes": null}});
    api.put_all("/api/v1/namespaces/shop/pods", [pod("by-hand", "a", &free)]);
    assert_eq!(kinds(&plan_of(&api, "a").await), [Obstacle::Unmanaged]);

    let api = cluster();
    let cordoned = json!({"metadata": {"name": "b"}, "spec": {"unschedulable": true},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    api.put("/api/v1/nodes/b", cordoned);
    let plan = plan_of(&api, "a").await;
    assert_eq!(kinds(&plan), [Obstacle::NoTarget]);
    assert!(plan.blockers[0].reason.contains("cordoned"), "{}", plan.blockers[0].reason);

    let api = cluster();
    let mut failed = replica("b");
    failed["spec"]["failedAt"] = json!("2027-01-15T07:00:00Z");
    api.put(&format!("{LONGHORN}/replicas/r-b"), failed);
    let plan = plan_of(&api, "a").await;
    assert_eq!((kinds(&plan), plan.blockers[0].passes), (vec![Obstacle::LastReplica], false));
    assert_eq!(kinds(&plan_of(&api, "b").await), [], "nothing good is on b");
    for (policy, wanted) in [("always-allow", vec![]), ("block-for-eviction", vec![Obstacle::LastReplica])] {
        let setting = json!({"metadata": {"name": "node-drain-policy"}, "value": policy});
        api.put(&format!("{LONGHORN}/settings/node-drain-policy"), setting);
        let plan = plan_of(&api, "a").await;
        assert_eq!(kinds(&plan), wanted, "{policy}");
        assert!(plan.blockers.iter().all(|b| b.passes), "{policy}: Longhorn makes another replica by itself");
    }

    let api = cluster();
    api.put("/apis/volumehandoff.io/v1alpha1/namespaces/shop/volumehandoffs/one", json!(handoff("one")));
    let plan = plan_of(&api, "b").await;
    assert_eq!((kinds(&plan), plan.blockers[0].passes), (vec![Obstacle::Moving], true));
}

#[tokio::test]
async fn a_node_that_is_not_there() {
    let error = gather(&cluster().cluster("shop"), "z").await.map(|_| ()).unwrap_err();
    assert_eq!(error.to_string(), "there is no node z");
}
