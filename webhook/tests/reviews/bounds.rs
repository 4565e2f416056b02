//! Budgets, failures below, malformed bodies.

use std::{sync::Arc, time::Duration};

use axum::http::StatusCode;
use handoff_coordinator::verdicts::EvictionVerdict;
use handoff_webhook::{Hook, Outcome, WebhookConfig};
use serde_json::{Value, json};

use crate::support::{ROUTES, Script, post, post_with, review};

const ASYNCHRONOUS: [(&str, &str, Hook); 3] = [
    ("eviction-kubectl-drain", "/validate/evictions", Hook::Eviction),
    ("eviction-instance-manager", "/validate/storage-evictions", Hook::StorageEviction),
    ("binding-scheduler", "/validate/bindings", Hook::Binding),
];

fn hold() -> Script {
    let message = "not yet".to_owned();
    Script { storage: Some(message.clone()), eviction: EvictionVerdict::Hold { message }, ..Script::default() }
}

/// Waits until the work behind an answer is done.
async fn done(script: &Script) -> bool {
    for _ in 0..500 {
        if *script.done.lock().unwrap() == 1 {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    false
}

#[tokio::test]
async fn a_late_verdict_lets_the_request_through_and_is_still_worked_out() {
    let short = Duration::from_millis(5);
    let config =
        WebhookConfig { evict_budget: short, storage_budget: short, bind_budget: short, ..WebhookConfig::default() };
    for (file, route, hook) in ASYNCHRONOUS {
        let script = Arc::new(Script { takes: Duration::from_millis(100), ..hold() });
        let review = review(file);
        let answer = post_with(&script, config.clone(), route, review.to_string()).await;
        assert_eq!(answer.response(&review)["allowed"], true, "{file}");
        assert_eq!(answer.observed, [(hook, Outcome::TimedOut)], "{file}");
        assert_eq!(*script.done.lock().unwrap(), 0, "{file}: answered before the work was done");
        assert!(done(&script).await, "{file}: the work went on");
    }
}

#[tokio::test]
async fn a_deletion_waits_for_nothing() {
    let review = review("pod-delete-kubectl");
    // the work cannot end before the answer is there: it is not even awaited
    let script = Arc::new(Script { takes: Duration::from_millis(50), ..hold() });
    let answer = post(&script, "/validate/pods-delete", review.to_string()).await;
    assert_eq!(answer.response(&review)["allowed"], true);
    assert_eq!(answer.observed, [(Hook::PodDelete, Outcome::Allowed)]);
    assert!(done(&script).await, "the checkpoint is written all the same");
    let panics = Arc::new(Script { panics: true, ..hold() });
    let answer = post(&panics, "/validate/pods-delete", review.to_string()).await;
    assert_eq!(answer.response(&review)["allowed"], true);
}

#[tokio::test]
async fn both_reviews_of_one_deletion_are_allowed() {
    for file in ["pod-delete-kubectl", "pod-delete-kubectl", "pod-delete-force-second-call", "pod-delete-kubelet-final"]
    {
        let review = review(file);
        let answer = post(&Arc::default(), "/validate/pods-delete", review.to_string()).await;
        assert_eq!(answer.response(&review)["allowed"], true, "{file}");
    }
}

#[tokio::test]
async fn a_verdict_within_its_budget_counts() {
    let script = Arc::new(Script { takes: Duration::from_millis(20), ..hold() });
    let review = review("eviction-kubectl-drain");
    let answer = post(&script, "/validate/evictions", review.to_string()).await;
    assert_eq!(answer.response(&review)["status"]["code"], 429);
}

#[tokio::test]
async fn a_panic_below_lets_the_request_through() {
    for (file, route, hook) in ASYNCHRONOUS {
        let script = Arc::new(Script { panics: true, ..hold() });
        let review = review(file);
        let answer = post(&script, route, review.to_string()).await;
        assert_eq!(answer.response(&review)["allowed"], true, "{file}");
        assert_eq!(answer.observed, [(hook, Outcome::Failed)], "{file}");
    }
}

#[tokio::test]
async fn a_long_note_becomes_one_bounded_warning() {
    let note = Some("first line\nsecond line ".repeat(40));
    let script = Arc::new(Script { eviction: EvictionVerdict::Allow { note }, ..Script::default() });
    let review = review("eviction-kubectl-drain");
    let response = post(&script, "/validate/evictions", review.to_string()).await.response(&review);
    let [warning] = response["warnings"].as_array().unwrap().as_slice() else { panic!("{response}") };
    assert!(warning.as_str().unwrap().starts_with("first line second line first line"));
    assert_eq!(warning.as_str().unwrap().chars().count(), 256);
}

#[tokio::test]
async fn a_malformed_body_is_a_bad_request_in_one_line() {
    let long = format!(r#"{{"request":{{"uid":{{"{}":1}}}}}}"#, "x".repeat(5000));
    let quoted = format!(r#"{{"request":{{"uid":"u","dryRun":"{}"}}}}"#, "x".repeat(5000));
    let bodies =
        ["", "no json", "{", "[]", "null", "{}", r#"{"request":{}}"#, r#"{"request":{"uid":""}}"#, &long, &quoted];
    for route in ROUTES {
        for body in bodies {
            let answer = post(&Arc::default(), route, body.to_owned()).await;
            assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{route} {body}");
            assert!(answer.text.starts_with("not an AdmissionReview"), "{}", answer.text);
            assert_eq!(answer.text.lines().count(), 1);
            assert!(answer.text.len() <= 300, "{}", answer.text);
            assert_eq!(answer.observed[0].1, Outcome::Malformed);
        }
    }
}

#[tokio::test]
async fn an_object_of_another_type_is_malformed_only_on_its_own_route() {
    let mut create = review("pod-create-statefulset");
    create["request"]["object"]["spec"]["volumes"] = json!({"not": "a list"});
    let answer = post(&Arc::default(), "/mutate/pods", create.to_string()).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    create["request"]["resource"]["resource"] = json!("widgets");
    let answer = post(&Arc::default(), "/mutate/pods", create.to_string()).await;
    assert_eq!(answer.response(&create)["allowed"], true);
    assert_eq!(answer.observed[0].1, Outcome::Misrouted);
}

#[tokio::test]
async fn a_review_without_its_object_is_allowed() {
    for (file, route) in [
        ("pod-create-statefulset", "/mutate/pods"),
        ("pod-delete-kubectl", "/validate/pods-delete"),
        ("binding-scheduler", "/validate/bindings"),
    ] {
        let mut review = review(file);
        review["request"]["object"] = Value::Null;
        review["request"]["oldObject"] = Value::Null;
        let answer = post(&Arc::default(), route, review.to_string()).await;
        assert_eq!(answer.response(&review)["allowed"], true, "{file}");
        assert_eq!(answer.observed[0].1, Outcome::Misrouted, "{file}");
    }
}

#[tokio::test]
async fn names_come_from_the_object_where_the_request_has_none() {
    for (file, route, asked) in [
        ("eviction-kubectl-drain", "/validate/evictions", "evict shop/db-0"),
        ("binding-scheduler", "/validate/bindings", "bind shop/db-0 uid e0f7 to node-2"),
        ("snapshot-delete", "/validate/snapshots", "snapshot longhorn-system/snapshot-9f1c2b3a"),
    ] {
        let mut review = review(file);
        review["request"]["name"] = json!("");
        review["request"]["namespace"] = Value::Null;
        let script = Arc::default();
        post(&script, route, review.to_string()).await.response(&review);
        assert_eq!(script.asked(), [asked]);
    }
}

#[tokio::test]
async fn a_binding_to_something_else_than_a_node_is_allowed_unseen() {
    for target in [json!({"kind": "Shelf", "name": "node-2"}), json!({"kind": "Node", "name": ""}), json!(null)] {
        let mut review = review("binding-scheduler");
        review["request"]["object"]["target"] = target;
        let script = Arc::default();
        let answer = post(&script, "/validate/bindings", review.to_string()).await;
        assert_eq!(answer.response(&review)["allowed"], true);
        assert!(script.asked().is_empty());
    }
}

#[tokio::test]
async fn a_body_larger_than_axums_own_limit_is_read() {
    let mut review = review("pod-create-statefulset");
    review["request"]["object"]["metadata"]["annotations"] = json!({"large": "x".repeat(3 << 20)});
    let answer = post(&Arc::default(), "/mutate/pods", review.to_string()).await;
    assert_eq!(answer.response(&review)["allowed"], true);
}
