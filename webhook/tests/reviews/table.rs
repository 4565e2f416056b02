//! Every file in `tests/data` with its route, the questions it leads to and the answer.

use std::{collections::BTreeSet, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use handoff_coordinator::verdicts::{EvictionVerdict, PreferredNode};
use handoff_webhook::{Hook, Outcome};
use serde_json::{Value, json};

use crate::support::{ROUTES, Script, data, post, review};

struct Case {
    /// In `tests/data`, without `.json`.
    file: &'static str,
    route: &'static str,
    script: Script,
    asked: &'static [&'static str],
    observed: (Hook, Outcome),
    wanted: Wanted,
}

enum Wanted {
    Allowed,
    Warned(&'static str),
    Denied(u16, &'static str, &'static str),
    /// The patch, in full.
    Patched(Value),
}

use Wanted::{Allowed, Denied, Patched, Warned};

fn plain() -> Script {
    Script::default()
}

fn evicts(eviction: EvictionVerdict) -> Script {
    Script { eviction, ..Script::default() }
}

fn prefers(nodes: &[(&str, i32)]) -> Script {
    let preferred = nodes.iter().map(|&(name, weight)| PreferredNode { name: name.to_owned(), weight }).collect();
    Script { preferred, ..Script::default() }
}

fn term(node: &str, weight: i32) -> Value {
    json!({"weight": weight, "preference": {"matchFields": [
        {"key": "metadata.name", "operator": "In", "values": [node]}]}})
}

fn case(
    file: &'static str,
    route: &'static str,
    script: Script,
    asked: &'static [&'static str],
    observed: (Hook, Outcome),
    wanted: Wanted,
) -> Case {
    Case { file, route, script, asked, observed, wanted }
}

fn creations() -> Vec<Case> {
    let route = "/mutate/pods";
    let hook = |outcome| (Hook::PodCreate, outcome);
    let terms = "/spec/affinity/nodeAffinity/preferredDuringSchedulingIgnoredDuringExecution/-";
    vec![
        case(
            "pod-create-statefulset",
            route,
            prefers(&[("node-2", 50), ("node-3", 10)]),
            &["create shop/data-db-0"],
            hook(Outcome::Patched),
            Patched(json!([{"op": "add", "path": "/spec/affinity", "value": {"nodeAffinity": {
                "preferredDuringSchedulingIgnoredDuringExecution": [term("node-2", 50), term("node-3", 10)]}}}])),
        ),
        case("pod-create-statefulset", route, plain(), &["create shop/data-db-0"], hook(Outcome::Allowed), Allowed),
        case(
            "pod-create-replicaset-generate-name",
            route,
            prefers(&[("node-2", 50), ("node-3", 10)]),
            &["create shop/wiki +1"],
            hook(Outcome::Patched),
            Patched(json!([{"op": "add", "path": terms, "value": term("node-2", 50)},
                {"op": "add", "path": terms, "value": term("node-3", 10)}])),
        ),
        case("pod-create-daemonset", route, prefers(&[("node-2", 50)]), &[], hook(Outcome::Skipped), Allowed),
        case("pod-create-mirror", route, prefers(&[("node-2", 50)]), &[], hook(Outcome::Skipped), Allowed),
        case("pod-create-without-claims", route, prefers(&[("node-2", 50)]), &[], hook(Outcome::Skipped), Allowed),
    ]
}

fn evictions() -> Vec<Case> {
    let route = "/validate/evictions";
    let hook = |outcome| (Hook::Eviction, outcome);
    let allow = |note: Option<&str>| evicts(EvictionVerdict::Allow { note: note.map(str::to_owned) });
    let holds = || evicts(EvictionVerdict::Hold { message: "backup-1 finishes in 12 s".to_owned() });
    let gone = || evicts(EvictionVerdict::Gone { message: "db-0 runs on node-2".to_owned() });
    let held = || Denied(429, "TooManyRequests", "backup-1 finishes in 12 s");
    let checkpointed = "backup-1 is checkpointed";
    let asked: &[_] = &["evict shop/db-0"];
    let dry: &[_] = &["evict shop/db-0 dry run"];
    vec![
        case("eviction-kubectl-drain", route, allow(None), asked, hook(Outcome::Allowed), Allowed),
        case(
            "eviction-kubectl-drain",
            route,
            allow(Some(checkpointed)),
            asked,
            hook(Outcome::Allowed),
            Warned(checkpointed),
        ),
        case("eviction-kubectl-drain", route, holds(), asked, hook(Outcome::Held), held()),
        case(
            "eviction-kubectl-drain",
            route,
            gone(),
            asked,
            hook(Outcome::Gone),
            Denied(404, "NotFound", "db-0 runs on node-2"),
        ),
        case("eviction-kubectl-drain-dry-run", route, holds(), dry, hook(Outcome::Held), held()),
        case("eviction-dry-run-in-request", route, allow(None), dry, hook(Outcome::Allowed), Allowed),
        case("eviction-v1beta1", route, holds(), asked, hook(Outcome::Held), held()),
        case(
            "eviction-karpenter-uid",
            route,
            allow(None),
            &["evict shop/db-0 uid c55a"],
            hook(Outcome::Allowed),
            Allowed,
        ),
        case("eviction-descheduler", route, holds(), asked, hook(Outcome::Held), held()),
    ]
}

fn storage_evictions() -> Vec<Case> {
    let route = "/validate/storage-evictions";
    let hook = |outcome| (Hook::StorageEviction, outcome);
    let asked: &[_] = &["storage longhorn-system/instance-manager-5f3a9e1c0b7d"];
    let needed = Script { storage: Some("pvc-4d2a leaves node-1 first".to_owned()), ..Script::default() };
    vec![
        case("eviction-instance-manager", route, plain(), asked, hook(Outcome::Allowed), Allowed),
        case(
            "eviction-instance-manager",
            route,
            needed,
            asked,
            hook(Outcome::Held),
            Denied(429, "TooManyRequests", "pvc-4d2a leaves node-1 first"),
        ),
        case(
            "eviction-kubectl-drain-dry-run",
            route,
            plain(),
            &["storage shop/db-0 dry run"],
            hook(Outcome::Allowed),
            Allowed,
        ),
    ]
}

fn deletions() -> Vec<Case> {
    let route = "/validate/pods-delete";
    let hook = |outcome| (Hook::PodDelete, outcome);
    let asked: &[_] = &["delete shop/db-0 uid c55a with data-db-0 on node-1"];
    let dry: &[_] = &["delete shop/db-0 uid c55a dry run with data-db-0 on node-1"];
    let allowed = |file, asked| case(file, route, plain(), asked, hook(Outcome::Allowed), Allowed);
    let skipped = |file| case(file, route, plain(), &[], hook(Outcome::Skipped), Allowed);
    vec![
        allowed("pod-delete-kubectl", asked),
        allowed("pod-delete-collection", asked),
        allowed("pod-delete-preemption", asked),
        allowed("pod-delete-dry-run", dry),
        skipped("pod-delete-kubelet-final"),
        skipped("pod-delete-force-second-call"),
        skipped("pod-delete-daemonset"),
    ]
}

fn bindings() -> Vec<Case> {
    let hook = (Hook::Binding, Outcome::Allowed);
    let asked: &[_] = &["bind shop/db-0 uid e0f7 to node-2"];
    ["binding-scheduler", "binding-legacy-collection"]
        .map(|file| case(file, "/validate/bindings", plain(), asked, hook, Allowed))
        .into()
}

/// A snapshot that is needed, with an annotation of its own.
#[tokio::test]
async fn a_snapshot_is_given_up_by_its_own_annotation() {
    let needed = || Arc::new(Script { snapshot: Some("backup-1 is resumed from it".to_owned()), ..Script::default() });
    for (value, allowed) in [("true", true), ("false", false), ("yes", false)] {
        let mut review = review("snapshot-delete");
        let annotations = json!({"volumehandoff.io/allow-snapshot-deletion": value, "other": "x"});
        review["request"]["oldObject"]["metadata"]["annotations"] = annotations;
        let response = post(&needed(), "/validate/snapshots", review.to_string()).await.response(&review);
        assert_eq!(response["allowed"], allowed, "{value}");
        let said = if allowed { &response["warnings"][0] } else { &response["status"]["message"] };
        assert!(said.as_str().unwrap().contains("backup-1 is resumed from it"), "{value}: {said}");
        assert_eq!(said.as_str().unwrap().contains("must be true or false"), value == "yes", "{said}");
    }
}

#[tokio::test]
async fn whoever_creates_a_pod_is_told_with_and_without_a_patch() {
    for nodes in [&[("node-2", 50)][..], &[]] {
        let warnings = (0..9).map(|n| format!("warning {n}")).collect();
        let script = Arc::new(Script { warnings, ..prefers(nodes) });
        let review = review("pod-create-statefulset");
        let response = post(&script, "/mutate/pods", review.to_string()).await.response(&review);
        assert_eq!(response["warnings"], json!(["warning 0", "warning 1", "warning 2", "warning 3"]));
        assert_eq!(response.get("patch").is_some(), !nodes.is_empty());
    }
}

fn snapshots() -> Vec<Case> {
    let route = "/validate/snapshots";
    let hook = |outcome| (Hook::Snapshot, outcome);
    let asked: &[_] = &["snapshot longhorn-system/snapshot-9f1c2b3a"];
    let needed = || Script { snapshot: Some("backup-1 is resumed from it".to_owned()), ..Script::default() };
    let denied = || Denied(409, "Conflict", "backup-1 is resumed from it");
    vec![
        case("snapshot-delete", route, plain(), asked, hook(Outcome::Allowed), Allowed),
        case("snapshot-delete", route, needed(), asked, hook(Outcome::Denied), denied()),
        case("snapshot-delete-collection", route, needed(), asked, hook(Outcome::Denied), denied()),
    ]
}

fn cases() -> Vec<Case> {
    [creations(), evictions(), storage_evictions(), deletions(), bindings(), snapshots()]
        .into_iter()
        .flatten()
        .collect()
}

#[tokio::test]
async fn every_review_gets_its_answer() {
    for Case { file, route, script, asked, observed, wanted } in cases() {
        let review = review(file);
        let script = Arc::new(script);
        let answer = post(&script, route, review.to_string()).await;
        let response = answer.response(&review);
        assert_eq!(script.asked(), asked, "{file}");
        assert_eq!(answer.observed, [observed], "{file}");
        let bare = json!({"uid": review["request"]["uid"], "allowed": true});
        let expected = match wanted {
            Allowed => bare,
            Warned(text) => with(bare, "warnings", json!([text])),
            // Nothing else may be in a denial: `details.retryAfterSeconds` would make clients retry by themselves.
            Denied(code, reason, message) => with(
                with(bare, "allowed", json!(false)),
                "status",
                json!({"status": "Failure", "code": code, "reason": reason, "message": message}),
            ),
            Patched(patch) => {
                let sent = STANDARD.decode(response["patch"].as_str().expect(file)).unwrap();
                assert_eq!(serde_json::from_slice::<Value>(&sent).unwrap(), patch, "{file}");
                with(with(bare, "patchType", json!("JSONPatch")), "patch", response["patch"].clone())
            }
        };
        assert_eq!(response, expected, "{file}");
    }
}

fn with(mut object: Value, key: &str, value: Value) -> Value {
    object[key] = value;
    object
}

#[test]
fn every_file_is_in_the_table() {
    let files: BTreeSet<String> = data().into_iter().map(|(file, _)| file).collect();
    let table: BTreeSet<String> = cases().into_iter().map(|case| case.file.to_owned()).collect();
    assert_eq!(files, table);
}

#[tokio::test]
async fn a_review_on_another_route_is_allowed_unseen() {
    let own: BTreeSet<(&str, &str)> = cases().iter().map(|case| (case.file, case.route)).collect();
    for (file, body) in data() {
        for route in ROUTES {
            let evictions = file.starts_with("eviction") && route.ends_with("evictions");
            if evictions || own.contains(&(file.as_str(), route)) {
                continue;
            }
            let script = Arc::new(Script { snapshot: Some("x".to_owned()), ..prefers(&[("node-2", 50)]) });
            let answer = post(&script, route, body.clone()).await;
            let response = answer.response(&review(&file));
            assert_eq!(response["allowed"], true, "{file} {route}");
            assert_eq!(response["warnings"].as_array().unwrap().len(), 1, "{file} {route}");
            assert_eq!(answer.observed[0].1, Outcome::Misrouted, "{file} {route}");
            assert!(script.asked().is_empty(), "{file} {route}");
        }
    }
}
