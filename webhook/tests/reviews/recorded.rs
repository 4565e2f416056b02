//! Reviews as kube-apiserver 1.36.2 sent them, in `tests/recorded`: what is understood of each.

use crate::support::{Script, post};
use handoff_coordinator::verdicts::PreferredNode;
use serde_json::Value;
use std::{path::PathBuf, sync::Arc};

const RECORDED: [(&str, &str, &[&str]); 14] = [
    ("create-statefulset-pod", "/mutate/pods", &["create rec/data-db-0"]),
    ("create-replicaset-pod", "/mutate/pods", &["create rec/shared +1"]),
    ("evict-kubectl-drain", "/validate/evictions", &["evict rec/web-6cf4cdbfbf-mflh2"]),
    ("evict-kubectl-drain-dry-run", "/validate/evictions", &["evict rec/db-0 dry run"]),
    ("evict-with-uid", "/validate/evictions", &["evict rec/db-0 uid 95e5"]),
    ("evict-v1beta1", "/validate/evictions", &["evict rec/db-0"]),
    ("delete-kubectl", "/validate/pods-delete", &["delete rec/db-0 uid"]),
    ("delete-kubectl-force", "/validate/pods-delete", &["delete rec/web-6cf4cdbfbf-545jd uid"]),
    ("delete-statefulset-controller", "/validate/pods-delete", &["delete rec/db-0 uid"]),
    ("delete-collection", "/validate/pods-delete", &["delete rec/web-6cf4cdbfbf-mflh2 uid"]),
    ("delete-kubelet-final", "/validate/pods-delete", &[]),
    ("bind-kube-scheduler", "/validate/bindings", &["bind rec/db-0 uid"]),
    ("bind-legacy", "/validate/bindings", &["bind rec/nope to lab-worker"]),
    ("delete-snapshot", "/validate/snapshots", &["snapshot longhorn-system/44b676a3"]),
];

fn read(name: &str) -> Vec<u8> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/recorded");
    std::fs::read(folder.join(name).with_extension("json")).expect(name)
}

#[tokio::test]
async fn every_recorded_review_is_understood() {
    for (name, route, wanted) in RECORDED {
        let script = Arc::new(Script::default());
        let body = read(name);
        let review: Value = serde_json::from_slice(&body).unwrap();
        let response = post(&script, route, body).await.response(&review);
        assert_eq!(response["allowed"], true, "{name}");
        let asked = script.asked();
        assert_eq!(asked.len(), wanted.len(), "{name}: {asked:?}");
        for (asked, wanted) in asked.iter().zip(wanted) {
            assert!(asked.starts_with(wanted), "{name}: asked {asked:?}, wanted {wanted:?}");
        }
    }
}

#[tokio::test]
async fn a_recorded_pod_gets_its_affinity() {
    let preferred = vec![PreferredNode { name: "node-2".to_owned(), weight: 100 }];
    let script = Arc::new(Script { preferred, ..Script::default() });
    for name in ["create-statefulset-pod", "create-replicaset-pod"] {
        let body = read(name);
        let review: Value = serde_json::from_slice(&body).unwrap();
        let response = post(&script, "/mutate/pods", body).await.response(&review);
        assert_eq!(response["patchType"], "JSONPatch", "{name}");
    }
}
