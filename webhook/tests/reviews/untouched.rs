//! What we do not know in a pod comes out as it went in.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use handoff_coordinator::verdicts::PreferredNode;
use serde_json::{Map, Value, json};

use handoff_webhook::{SchedulerTier, WebhookConfig};

use crate::support::{Script, post_with, review};

const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

fn prefers_node_2() -> Arc<Script> {
    let preferred = vec![PreferredNode { name: "node-2".to_owned(), weight: 50 }];
    Arc::new(Script { preferred, ours: true, ..Script::default() })
}

const MARKER: &str = "volumehandoff.io/volume";

fn all_tiers() -> WebhookConfig {
    let tier = SchedulerTier { scheduler_name: Some("handoff-scheduler".to_owned()), marker: Some(MARKER.to_owned()) };
    WebhookConfig { tier, ..WebhookConfig::default() }
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
    admitted_with(WebhookConfig::default(), review).await
}

async fn admitted_with(config: WebhookConfig, review: &Value) -> Option<Value> {
    let answer = post_with(&prefers_node_2(), config, "/mutate/pods", review.to_string()).await;
    let response = answer.response(review);
    assert_eq!(response["allowed"], true);
    let patch = STANDARD.decode(response.get("patch")?.as_str().unwrap()).unwrap();
    for operation in serde_json::from_slice::<Vec<Value>>(&patch).unwrap() {
        assert_eq!(operation["op"], "add");
        let at = operation["path"].as_str().unwrap();
        let ours = ["/spec/affinity", "/spec/schedulerName", "/spec/containers/0/resources"];
        assert!(ours.iter().any(|prefix| at.starts_with(prefix)), "{at}");
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
async fn invented_fields_survive_the_marks_of_a_scheduler_tier_too() {
    for file in ["pod-create-statefulset", "pod-create-replicaset-generate-name"] {
        let mut review = review(file);
        invent(&mut review);
        let before = review["request"]["object"].clone();
        let mut after = admitted_with(all_tiers(), &review).await.expect(file);
        assert_eq!(after["spec"]["schedulerName"], "handoff-scheduler", "{file}");
        assert_eq!(after["spec"]["containers"][0]["resources"]["requests"][MARKER], "1", "{file}");
        assert_eq!(after["spec"]["containers"][0]["resources"]["limits"][MARKER], "1", "{file}");
        // everything of ours taken out again, byte for byte what it was
        let old = |pointer: &str| before.pointer(pointer).cloned();
        for (parent, key) in [("/spec", "affinity"), ("/spec", "schedulerName"), ("/spec/containers/0", "resources")] {
            let fields = after.pointer_mut(parent).and_then(Value::as_object_mut).unwrap();
            let (mine, theirs) = (fields.remove(key).unwrap(), old(&format!("{parent}/{key}")));
            if let Some(theirs) = theirs {
                assert!(key == "schedulerName" || contains(&mine, &theirs), "{file}: {theirs} is not in {mine}");
                fields.insert(key.to_owned(), theirs);
            }
        }
        assert_eq!(after.to_string(), before.to_string(), "{file}");
    }
}

/// Whether all of `part` is in `whole`; lists may have grown at their end.
fn contains(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            part.iter().all(|(key, value)| whole.get(key).is_some_and(|found| contains(found, value)))
        }
        (Value::Array(whole), Value::Array(part)) => {
            whole.len() >= part.len() && whole.iter().zip(part).all(|(whole, part)| contains(whole, part))
        }
        _ => whole == part,
    }
}

#[tokio::test]
async fn a_second_call_changes_nothing() {
    for config in [WebhookConfig::default(), all_tiers()] {
        for file in ["pod-create-statefulset", "pod-create-replicaset-generate-name"] {
            let mut review = review(file);
            review["request"]["object"] = admitted_with(config.clone(), &review).await.expect(file);
            assert_eq!(admitted_with(config.clone(), &review).await, None, "{file}");
        }
    }
}

#[tokio::test]
async fn pods_that_nobody_schedules_get_no_marks() {
    let mut bound = review("pod-create-statefulset");
    bound["request"]["object"]["spec"]["nodeName"] = json!("node-1");
    // its annotation alone says so
    let mut mirror = review("pod-create-mirror");
    mirror["request"]["object"]["spec"].as_object_mut().unwrap().remove("nodeName").unwrap();
    let known = ["pod-create-daemonset", "pod-create-mirror", "pod-create-without-claims"].map(review);
    for review in known.into_iter().chain([bound, mirror]) {
        assert_eq!(admitted_with(all_tiers(), &review).await, None, "{review}");
    }
}

#[tokio::test]
async fn pods_whose_volumes_are_not_ours_get_no_marks() {
    let review = review("pod-create-statefulset");
    let answer = post_with(&Arc::default(), all_tiers(), "/mutate/pods", review.to_string()).await;
    assert_eq!(answer.response(&review), json!({"uid": review["request"]["uid"], "allowed": true}));
}

#[tokio::test]
async fn a_pod_without_a_name_is_known_by_its_templates() {
    let mut review = review("pod-create-replicaset-generate-name");
    let template = json!({"spec": {"storageClassName": "fast"}});
    review["request"]["object"]["spec"]["volumes"] =
        json!([{"name": "s", "ephemeral": {"volumeClaimTemplate": template}}]);
    let script = prefers_node_2();
    post_with(&script, all_tiers(), "/mutate/pods", review.to_string()).await.response(&review);
    assert_eq!(script.asked(), ["create shop/ +1"]);
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
