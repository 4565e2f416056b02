//! What the scheduler gets for what it sends.

use std::sync::Arc;

use axum::http::StatusCode;
use handoff_extender::{ExtenderConfig, Outcome, Verb};
use serde_json::{Value, json};

use crate::support::{Table, data, fits, patient, post, post_with, table, unfit};

fn names(names: &[&str]) -> String {
    json!({"Pod": {"metadata": {"namespace": "shop", "name": "db-0"}, "spec": {"volumes": [
        {"name": "data", "persistentVolumeClaim": {"claimName": "data-db-0"}}]}},
        "Nodes": null, "NodeNames": names})
    .to_string()
}

#[tokio::test]
async fn filter_by_name() {
    let table = table(&[("node-2", unfit("the instance manager on node-2 is not running"))]);
    let answer = post(&table, "/filter", data("args-node-names")).await;
    // In full and in order: no key is missing, no key is new.
    let expected = concat!(
        r#"{"Nodes":null,"NodeNames":["node-1","node-3"],"FailedNodes":null,"FailedAndUnresolvableNodes":"#,
        r#"{"node-2":"the instance manager on node-2 is not running"},"Error":""}"#
    );
    assert_eq!(answer.text, expected);
    assert_eq!(answer.observed, [(Verb::Filter, Outcome::Judged { rejected: 1 })]);
    assert_eq!(table.asked(), ["shop/data-db-0,db-0-scratch"]);
}

#[tokio::test]
async fn names_are_given_back_in_order_however_they_are_written() {
    let table = table(&[("x", unfit("no")), ("", unfit("nameless"))]);
    for (list, left) in [
        (r#""a","b","c""#, r#""a","b","c""#),
        (r#""a","x","b","","c""#, r#""a","b","c""#),
        (r#""x","a","b","x""#, r#""a","b""#),
        (r#""a","b" , "c","d""#, r#""a","b","c","d""#),
        (r#""a","b\u002d1","c","\"","x","d","e""#, r#""a","b-1","c","\"","d","e""#),
        (r#""x","""#, ""),
    ] {
        let body = names(&["@"]).replace(r#""@""#, list);
        let answer = post(&table, "/filter", body).await;
        assert!(answer.text.contains(&format!(r#""NodeNames":[{left}],"FailedNodes""#)), "{list}: {}", answer.text);
    }
}

#[tokio::test]
async fn what_the_pod_asks_for_travels_with_the_question() {
    let table = table(&[]);
    let mut args: Value = serde_json::from_str(&names(&["node-1"])).unwrap();
    args["Pod"]["metadata"]["annotations"] = json!({"volumehandoff.io/mode": "disabled"});
    for verb in ["/filter", "/prioritize"] {
        post(&table, verb, args.to_string()).await.json();
    }
    assert_eq!(table.asked(), ["shop/data-db-0 disabled", "shop/data-db-0 disabled"]);
}

#[tokio::test]
async fn filter_of_full_nodes_gives_them_back_byte_for_byte() {
    let body = data("args-full-nodes");
    let table = table(&[("node-2", unfit("no engine image"))]);
    let answer = post(&table, "/filter", body.clone()).await;
    let mut wanted: Value = serde_json::from_str(&body).unwrap();
    wanted["Nodes"]["items"].as_array_mut().unwrap().remove(1);
    let answered = answer.json();
    assert_eq!(answered["Nodes"], json!({"metadata": {}, "items": wanted["Nodes"]["items"]}));
    assert_eq!(answered["NodeNames"], Value::Null);
    assert_eq!(answered["FailedNodes"], Value::Null);
    assert_eq!(answered["FailedAndUnresolvableNodes"], json!({"node-2": "no engine image"}));
    assert_eq!(answered["Error"], "");
    // The text of a node, with its white space and the spelling of its numbers.
    let first = body.find("{\n        \"metadata\": {\n          \"name\": \"node-1\"").unwrap();
    let second = body.find("{\n        \"metadata\": {\n          \"name\": \"node-2\"").unwrap();
    assert!(answer.text.contains(body[first..second].trim_end().trim_end_matches(',')));
    assert!(body[first..second].contains("12345678901234567890"));
}

#[tokio::test]
async fn both_forms_reject_all_nodes_only_with_a_reason_for_each() {
    let all = ["node-1", "node-2", "node-3"].map(|node| (node, unfit("restore in progress")));
    let table = table(&all);
    for file in ["args-node-names", "args-full-nodes"] {
        let answer = post(&table, "/filter", data(file)).await.json();
        let left = if file == "args-node-names" { &answer["NodeNames"] } else { &answer["Nodes"]["items"] };
        assert_eq!(left, &json!([]), "{file}");
        assert_eq!(answer["FailedAndUnresolvableNodes"].as_object().unwrap().len(), 3, "{file}");
        let remembered = "rejected shop/db-0 e0f7a3d9-51d0-4f4c-a8ab-0b7a2f0a7e11 data-db-0,db-0-scratch \
                          on node-1,node-2,node-3";
        assert_eq!(table.asked().last().unwrap(), remembered, "{file}");
    }
}

#[tokio::test]
async fn what_is_not_ours_passes() {
    let all: Vec<_> = ["node-1", "node-2", "node-3"].map(|node| (node, unfit("never said"))).into();
    let foreign = Arc::new(Table { nodes: all.clone(), foreign: true, ..Table::default() });
    let without_claims = table(&all);
    for (table, file) in
        [(&foreign, "args-node-names"), (&foreign, "args-full-nodes"), (&without_claims, "args-without-claims")]
    {
        let sent: Value = serde_json::from_str(&data(file)).unwrap();
        let answer = post(table, "/filter", data(file)).await;
        assert_eq!(answer.observed, [(Verb::Filter, Outcome::Passed)]);
        let answer = answer.json();
        assert_eq!(answer["NodeNames"], sent["NodeNames"], "{file}");
        assert_eq!(answer["Nodes"], sent["Nodes"], "{file}");
        assert_eq!(answer["FailedAndUnresolvableNodes"], json!({}), "{file}");
        let scores = post(table, "/prioritize", data(file)).await;
        assert_eq!(scores.observed, [(Verb::Prioritize, Outcome::Passed)]);
        assert_eq!(scores.json(), json!([]), "{file}");
    }
    assert!(without_claims.asked().is_empty(), "a pod without claims is no question");
}

#[tokio::test]
async fn prioritize_says_how_much_better_nodes_are_than_the_worst() {
    let score = |host: &str, score: i64| json!({"Host": host, "Score": score});
    for file in ["args-node-names", "args-full-nodes"] {
        let table = table(&[("node-1", fits(10)), ("node-2", unfit("gone meanwhile"))]);
        let answer = post(&table, "/prioritize", data(file)).await;
        assert_eq!(answer.text, r#"[{"Host":"node-1","Score":10}]"#, "{file}");
        assert_eq!(answer.observed, [(Verb::Prioritize, Outcome::Judged { rejected: 0 })]);
        for (scores, wanted) in [
            ([5, 9, 5], json!([score("node-2", 4)])),
            ([9, 5, 6], json!([score("node-1", 4), score("node-3", 1)])),
            ([5, 5, 5], json!([])),
            // within the scale, whatever the judge says
            ([99, -1, 7], json!([score("node-1", 10), score("node-3", 7)])),
        ] {
            let nodes = ["node-1", "node-2", "node-3"].into_iter().zip(scores.map(fits)).collect::<Vec<_>>();
            let answer = post(&crate::support::table(&nodes), "/prioritize", data(file)).await;
            assert_eq!(answer.json(), wanted, "{file}: {scores:?}");
        }
    }
}

#[tokio::test]
async fn keys_in_other_cases_are_read() {
    let table = table(&[("node-1", unfit("x"))]);
    for keys in [["pod", "nodeNames", "nodes"], ["pod", "nodenames", "nodes"], ["POD", "NODENAMES", "NODES"]] {
        let body = names(&["node-1", "node-2"])
            .replace("\"Pod\"", &format!("{:?}", keys[0]))
            .replace("\"NodeNames\"", &format!("{:?}", keys[1]))
            .replace("\"Nodes\"", &format!("{:?}", keys[2]));
        assert_eq!(post(&table, "/filter", body).await.json()["NodeNames"], json!(["node-2"]), "{keys:?}");
    }
    let body = data("args-full-nodes").replace("\"Nodes\"", "\"nodes\"").replace("\"items\"", "\"Items\"");
    assert_eq!(post(&table, "/filter", body).await.json()["Nodes"]["items"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn null_and_absent_are_the_same() {
    for pod in ["null", "{}", r#"{"metadata":null,"spec":null}"#, r#"{"spec":{"volumes":null}}"#] {
        for list in [r#""NodeNames":["a"]"#, r#""NodeNames":["a"],"Nodes":null,"New":{"x":[]}"#] {
            let body = format!(r#"{{"Pod":{pod},{list}}}"#);
            assert_eq!(post(&table(&[]), "/filter", body.clone()).await.json()["NodeNames"], json!(["a"]), "{body}");
        }
    }
    let body = r#"{"Nodes":{"metadata":{},"items":null}}"#;
    assert_eq!(post(&table(&[]), "/filter", body).await.json()["Nodes"]["items"], json!([]));
    assert_eq!(post(&table(&[]), "/prioritize", r#"{"NodeNames":[]}"#).await.text, "[]");
}

#[tokio::test]
async fn a_node_without_a_name_passes() {
    let body = json!({"Pod": {"spec": {"volumes": [{"persistentVolumeClaim": {"claimName": "data"}}]}},
        "Nodes": {"items": [{"spec": {}}, null, 7, {"metadata": {"name": "node-1"}}]}});
    let answer = post(&table(&[("node-1", unfit("x"))]), "/filter", body.to_string()).await.json();
    assert_eq!(answer["Nodes"]["items"], json!([{"spec": {}}, null, 7]));
}

#[tokio::test]
async fn names_and_reasons_with_escapes_stay_json() {
    let body = names(&["a\"b", "c\\d", "tab\there", "ünï"]);
    let table = table(&[("c\\d", unfit("say \"no\"\n\u{1}")), ("ünï", unfit("ü"))]);
    let answer = post(&table, "/filter", body.clone()).await.json();
    assert_eq!(answer["NodeNames"], json!(["a\"b", "tab\there"]));
    assert_eq!(answer["FailedAndUnresolvableNodes"], json!({"c\\d": "say \"no\"\n\u{1}", "ünï": "ü"}));
    let table = crate::support::table(&[("a\"b", fits(3))]);
    assert_eq!(post(&table, "/prioritize", body).await.json(), json!([{"Host": "a\"b", "Score": 3}]));
}

#[tokio::test]
async fn five_thousand_names() {
    let all: Vec<String> = (0..5000).map(|n| format!("worker-{n:04}.example.net")).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let table = table(&[("worker-0000.example.net", unfit("x")), ("worker-4999.example.net", fits(10))]);
    let answer = post(&table, "/filter", names(&all)).await.json();
    assert_eq!(answer["NodeNames"], json!(all[1..]));
    let scores = post(&table, "/prioritize", names(&all)).await.json();
    assert_eq!(scores, json!([{"Host": all[4999], "Score": 10}]));
}

#[tokio::test]
async fn large_lists_of_full_nodes_have_no_size_wall() {
    let sent: Value = serde_json::from_str(&data("args-full-nodes")).unwrap();
    let items: Vec<Value> = (0..1000)
        .map(|n| {
            let mut node = sent["Nodes"]["items"][0].clone();
            node["metadata"]["name"] = json!(format!("node-{n}"));
            node["metadata"]["annotations"]["large"] = json!("x".repeat(4500));
            node
        })
        .collect();
    let body = json!({"Pod": sent["Pod"], "Nodes": {"metadata": {}, "items": items}}).to_string();
    assert!(body.len() > 5_000_000);
    let table = table(&[("node-500", unfit("x"))]);
    let answer = post(&table, "/filter", body).await.json();
    assert_eq!(answer["Nodes"]["items"].as_array().unwrap().len(), 999);
}

#[tokio::test]
async fn malformed_arguments_are_an_error_and_never_a_rejection() {
    let long = format!(r#"{{"NodeNames":"{}"}}"#, "x".repeat(5000));
    for path in ["/filter", "/prioritize"] {
        let no_nodes = r#"{"Pod":{},"Nodes":null,"NodeNames":null}"#;
        for body in ["", "{", "[]", "null", "{}", no_nodes, r#"{"NodeNames":[1]}"#, &long] {
            let answer = post(&table(&[]), path, body.to_owned()).await;
            assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{body}");
            assert!(answer.text.starts_with("not ExtenderArgs") && answer.text.lines().count() == 1, "{}", answer.text);
            assert!(answer.text.len() <= 300);
            assert_eq!(answer.observed[0].1, Outcome::Malformed);
        }
    }
}

#[tokio::test]
async fn the_blocking_pool_gives_the_same_answers() {
    let config = ExtenderConfig { blocking_above: 0, ..patient() };
    let table = table(&[("node-2", unfit("x")), ("node-1", fits(3))]);
    for path in ["/filter", "/prioritize"] {
        for file in ["args-node-names", "args-full-nodes"] {
            let there = post_with(&table, config, path, data(file)).await.text;
            assert_eq!(there, post(&table, path, data(file)).await.text);
        }
    }
    let answer = post_with(&table, config, "/filter", names(&["panic"])).await;
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(answer.observed, [(Verb::Filter, Outcome::Failed)]);
}
