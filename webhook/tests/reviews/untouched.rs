//! What we do not know in a pod comes out as it went in.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use handoff_coordinator::verdicts::PreferredNode;
use serde_json::{Map, Value, json};

use crate::support::{Script, post, review};

const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

fn prefers_node_2() -> Arc<Script> {
    let preferred = vec![PreferredNode { name: "node-2".to_owned(), weight: 50 }];
    Arc::new(Script { preferred, ..Script::default() })
}

/// Adds an invented field to each object at every level.
fn invent(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.values_mut().for_each(invent);
            fields.insert("inventedByATest".to_owned(), json!({"n": [null, 1.5, "\u{e9}\"\\"], "deep": {"er": true}}));
        }
        Value::Array(items) => items.iter_mut().for_each(invent),
        _ => {}
    }
}

/// Posts the review and applies the patch to its object, as the API server does.
async fn admitted(review: &Value) -> Option<Value> {
    let response = post(&prefers_node_2(), "/mutate/pods", review.to_string()).await.response(review);
    assert_eq!(response["allowed"], true);
    let patch = STANDARD.decode(response.get("patch")?.as_str().unwrap()).unwrap();
    for operation in serde_json::from_slice::<Vec<Value>>(&patch).unwrap() {
        assert_eq!(operation["op"], "add");
        assert!(operation["path"].as_str().unwrap().starts_with("/spec/affinity"));
    }
    let patch: json_patch::Patch = serde_json::from_slice(&patch).unwrap();
    let mut object = review["request"]["object"].clone();
    json_patch::patch(&mut object, &patch).unwrap();
    Some(object)
}

#[tokio::test]
async fn invented_fields_survive_at_every_level() {
    for file in ["pod-create-statefulset", "pod-create-replicaset-generate-name"] {
        let mut review = review(file);
        // What becomes of the envelope is not ours to say, but it must not disturb either.
        invent(&mut review);
        let mut after = admitted(&review).await.expect(file);
        let before = &review["request"]["object"];
        let terms = after["spec"]["affinity"]["nodeAffinity"][PREFERRED].as_array_mut().unwrap();
        assert_eq!(terms.pop().unwrap()["weight"], 50);
        if before["spec"].get("affinity").is_none() {
            after["spec"].as_object_mut().map(|spec| spec.remove("affinity")).unwrap();
        }
        assert_eq!(&after, before, "{file}");
    }
}

#[tokio::test]
async fn a_second_call_changes_nothing() {
    for file in ["pod-create-statefulset", "pod-create-replicaset-generate-name"] {
        let mut review = review(file);
        review["request"]["object"] = admitted(&review).await.expect(file);
        assert_eq!(admitted(&review).await, None, "{file}");
    }
}

#[tokio::test]
async fn every_way_of_having_no_affinity() {
    let wanted = json!([{"weight": 50, "preference": {"matchFields": [
        {"key": "metadata.name", "operator": "In", "values": ["node-2"]}]}}]);
    let nothing = || Value::Object(Map::new());
    for affinity in [
        Value::Null,
        nothing(),
        json!({"nodeAffinity": null}),
        json!({"nodeAffinity": nothing()}),
        json!({"nodeAffinity": {PREFERRED: null}}),
        json!({"nodeAffinity": {PREFERRED: []}}),
    ] {
        let mut review = review("pod-create-statefulset");
        review["request"]["object"]["spec"]["affinity"] = affinity.clone();
        let after = admitted(&review).await.unwrap();
        assert_eq!(after["spec"]["affinity"]["nodeAffinity"][PREFERRED], wanted, "{affinity}");
    }
}
