//! Preempt and bind.

use std::sync::Arc;

use axum::http::StatusCode;
use handoff_extender::{ExtenderConfig, Outcome, Verb};
use serde_json::{Value, json};
use std::time::Duration;

use crate::support::{Table, post, post_with};

fn busy(uids: &[&'static str]) -> Arc<Table> {
    Arc::new(Table { busy: uids.to_vec(), ..Table::default() })
}

/// Both forms in which the scheduler sends the same candidates: (node, violations, UIDs of victims).
fn both_forms(candidates: &[(&str, i64, &[&str])]) -> [Value; 2] {
    let of = |pod: fn(&str) -> Value| {
        let victims = candidates.iter().map(|(node, violations, uids)| {
            let pods: Vec<Value> = uids.iter().map(|uid| pod(uid)).collect();
            ((*node).to_owned(), json!({"Pods": pods, "NumPDBViolations": violations}))
        });
        Value::Object(victims.collect())
    };
    let full = of(|uid| {
        json!({"metadata": {"name": "p", "namespace": "shop", "uid": uid}, "spec": {"nodeName": "x", "containers": []},
            "status": {"phase": "Running"}})
    });
    let meta = of(|uid| json!({"UID": uid}));
    let preemptor = json!({"metadata": {"name": "db-0", "namespace": "shop", "uid": "u"}, "spec": {"priority": 9}});
    [
        json!({"Pod": preemptor, "NodeNameToVictims": full, "NodeNameToMetaVictims": null}),
        json!({"Pod": preemptor, "NodeNameToVictims": null, "NodeNameToMetaVictims": meta}),
    ]
}

#[tokio::test]
async fn nodes_whose_victims_have_backups_in_flight_are_left_out() {
    let candidates: [(&str, i64, &[&str]); 3] = [("a", 0, &["u1", "u2"]), ("b", 0, &["u3"]), ("c", 2, &["u4", "u5"])];
    for args in both_forms(&candidates) {
        let answer = post(&busy(&["u2", "else"]), "/preempt", args.to_string()).await;
        // In full: always the meta form, with the violations as they came.
        let expected = concat!(
            r#"{"NodeNameToMetaVictims":{"b":{"Pods":[{"UID":"u3"}],"NumPDBViolations":0},"#,
            r#""c":{"Pods":[{"UID":"u4"},{"UID":"u5"}],"NumPDBViolations":2}}}"#
        );
        assert_eq!(answer.text, expected);
        assert_eq!(answer.observed, [(Verb::Preempt, Outcome::Judged { rejected: 1 })]);
    }
}

#[tokio::test]
async fn never_an_empty_answer_to_candidates() {
    let candidates: [(&str, i64, &[&str]); 2] = [("a", 0, &["u1"]), ("b", 1, &["u2"])];
    for args in both_forms(&candidates) {
        let answer = post(&busy(&["u1", "u2"]), "/preempt", args.to_string()).await.json();
        assert_eq!(answer["NodeNameToMetaVictims"].as_object().unwrap().len(), 2, "all have backups in flight");
        let answer = post(&busy(&["u1"]), "/preempt", args.to_string()).await.json();
        let kept: Vec<&String> = answer["NodeNameToMetaVictims"].as_object().unwrap().keys().collect();
        assert_eq!(kept, ["a", "b"], "b would violate a disruption budget that a does not");
        let answer = post(&busy(&[]), "/preempt", args.to_string()).await;
        assert_eq!(answer.observed, [(Verb::Preempt, Outcome::Passed)]);
        assert_eq!(answer.json()["NodeNameToMetaVictims"].as_object().unwrap().len(), 2);
    }
    let nothing = r#"{"Pod":null,"NodeNameToMetaVictims":{}}"#;
    assert_eq!(post(&busy(&[]), "/preempt", nothing).await.text, r#"{"NodeNameToMetaVictims":{}}"#);
}

#[tokio::test]
async fn victims_in_odd_shapes() {
    let body =
        r#"{"NodeNameToMetaVictims":{"a":null,"b":{"Pods":null,"New":1},"c":{"Pods":[{"UID":"x","more":{}},null]}}}"#;
    let answer = post(&busy(&["x"]), "/preempt", body).await;
    let expected = concat!(
        r#"{"NodeNameToMetaVictims":{"a":{"Pods":[],"NumPDBViolations":0},"#,
        r#""b":{"Pods":[],"NumPDBViolations":0}}}"#
    );
    assert_eq!(answer.text, expected);
    let no_uid = r#"{"NodeNameToVictims":{"a":{"Pods":[{"metadata":{"name":"p"}}]}}}"#;
    for body in ["", "null", "{}", r#"{"NodeNameToMetaVictims":[]}"#, no_uid] {
        let answer = post(&busy(&[]), "/preempt", body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{body}");
        assert!(answer.text.starts_with("not ExtenderPreemptionArgs"), "{}", answer.text);
    }
}

const BINDING: &str = r#"{"PodName":"db-0","PodNamespace":"shop","PodUID":"u1","Node":"node-2"}"#;

#[tokio::test]
async fn a_binding_is_passed_on_and_its_failure_is_told() {
    let table = Arc::new(Table { bound: Some(Ok(())), ..Table::default() });
    let answer = post(&table, "/bind", BINDING).await;
    assert_eq!(
        (answer.text.as_str(), &answer.observed[..]),
        (r#"{"Error":""}"#, &[(Verb::Bind, Outcome::Judged { rejected: 0 })][..])
    );
    assert_eq!(table.asked(), ["bind shop/db-0 u1 to node-2"]);

    let table = Arc::new(Table { bound: Some(Err("pods \"db-0\" is taken".to_owned())), ..Table::default() });
    let answer = post(&table, "/bind", BINDING).await;
    assert_eq!(answer.json(), json!({"Error": "pods \"db-0\" is taken"}));
    assert_eq!(answer.observed, [(Verb::Bind, Outcome::Failed)]);
}

#[tokio::test]
async fn a_binding_that_does_not_end_is_an_error_in_time() {
    let config = ExtenderConfig { deadline: Duration::from_millis(50), ..ExtenderConfig::default() };
    let answer = post_with(&Arc::default(), config, "/bind", BINDING).await;
    assert!(answer.json()["Error"].as_str().unwrap().contains("in time"));
    assert_eq!(answer.observed, [(Verb::Bind, Outcome::Late)]);
}

#[tokio::test]
async fn a_binding_without_its_names_binds_nothing() {
    for missing in ["PodName", "PodNamespace", "Node"] {
        let mut body: Value = serde_json::from_str(BINDING).unwrap();
        body[missing] = Value::Null;
        let table = Arc::default();
        assert_eq!(post(&table, "/bind", body.to_string()).await.status, StatusCode::BAD_REQUEST, "{missing}");
        assert!(table.asked().is_empty());
    }
}
