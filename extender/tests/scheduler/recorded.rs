//! The four calls as a real kube-scheduler sent them, with names and with full nodes.

use std::{path::PathBuf, sync::Arc};

use handoff_extender::{Outcome, Verb};
use serde_json::{Value, json};

use crate::support::{Table, fits, post, table, unfit};

fn recorded(call: &str, form: &str) -> Value {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/recorded").join(format!("{call}-{form}.json"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[tokio::test]
async fn filter_and_prioritize() {
    let table = table(&[("node-b", unfit("no engine image")), ("node-c", fits(7))]);
    for form in ["names", "nodes"] {
        let sent = recorded("filter", form);
        let answer = post(&table, "/filter", sent.to_string()).await;
        assert_eq!(answer.observed, [(Verb::Filter, Outcome::Judged { rejected: 1 })], "{form}");
        let answer = answer.json();
        assert_eq!(answer["FailedAndUnresolvableNodes"], json!({"node-b": "no engine image"}));
        let (kept, other) = if form == "names" {
            (answer["NodeNames"].as_array().unwrap(), &answer["Nodes"])
        } else {
            (answer["Nodes"]["items"].as_array().unwrap(), &answer["NodeNames"])
        };
        assert!(other.is_null());
        let asked = if form == "names" { &sent["NodeNames"] } else { &sent["Nodes"]["items"] };
        let name = |node: &&Value| node.as_str().or(node["metadata"]["name"].as_str()).unwrap() != "node-b";
        assert_eq!(kept.iter().collect::<Vec<_>>(), asked.as_array().unwrap().iter().filter(name).collect::<Vec<_>>());
        let scores = post(&table, "/prioritize", recorded("prioritize", form).to_string()).await.json();
        assert!(scores.as_array().unwrap().contains(&json!({"Host": "node-c", "Score": 7})), "{form}: {scores}");
        let pod = format!("{form}/data-db-0");
        assert_eq!(table.asked().iter().filter(|asked| **asked == pod).count(), 2, "{form}");
    }
}

#[tokio::test]
async fn preempt() {
    for form in ["names", "nodes"] {
        let sent = recorded("preempt", form);
        let key = if form == "names" { "NodeNameToMetaVictims" } else { "NodeNameToVictims" };
        let victim = &sent[key]["node-a"]["Pods"][0];
        let uid = victim["UID"].as_str().or(victim["metadata"]["uid"].as_str()).unwrap().to_owned();
        let table = Arc::new(Table { busy: vec![uid.leak()], ..Table::default() });
        let answer = post(&table, "/preempt", sent.to_string()).await.json();
        let kept = answer["NodeNameToMetaVictims"].as_object().unwrap();
        assert_eq!(kept.keys().collect::<Vec<_>>(), ["node-b", "node-c"], "{form}");
        assert!(kept.values().all(|victims| victims["Pods"][0]["UID"].is_string() && victims["NumPDBViolations"] == 0));
    }
}

#[tokio::test]
async fn bind() {
    for form in ["names", "nodes"] {
        let table = Arc::new(Table { bound: Some(Ok(())), ..Table::default() });
        let sent = recorded("bind", form);
        assert_eq!(post(&table, "/bind", sent.to_string()).await.json(), json!({"Error": ""}));
        let text = |key: &str| sent[key].as_str().unwrap().to_owned();
        let bound = format!("bind {form}/{} {} to {}", text("PodName"), text("PodUID"), text("Node"));
        assert_eq!(table.asked(), [bound]);
    }
}
