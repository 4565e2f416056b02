//! Every answer of ours is there before whoever asked stops waiting: the flags' defaults against the manifests.

use crate::ServeArgs;
use clap::Parser;
use serde_json::Value;
use std::{collections::BTreeMap, path::PathBuf, time::Duration};

fn deployed(file: &str) -> Vec<Value> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(file);
    serde_saphyr::from_multiple(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn args() -> ServeArgs {
    ServeArgs::try_parse_from(["serve", "--pod-name", "p", "--namespace", "n"]).unwrap()
}

#[test]
fn reviews_are_answered_before_the_api_server_stops_waiting() {
    let mut waits = BTreeMap::new();
    for configuration in deployed("kustomize/webhooks.yaml") {
        for webhook in configuration["webhooks"].as_array().into_iter().flatten() {
            let path = webhook["clientConfig"]["service"]["path"].as_str().unwrap().to_owned();
            let seconds = webhook["timeoutSeconds"].as_u64().unwrap();
            assert_eq!(waits.insert(path, Duration::from_secs(seconds)), None, "{webhook}");
        }
    }
    let config = args().webhook();
    let budgets = [
        ("/validate/evictions", config.evict_budget),
        ("/validate/storage-evictions", config.storage_budget),
        ("/validate/bindings", config.bind_budget),
        // from memory
        ("/mutate/pods", Duration::ZERO),
        ("/validate/pods-delete", Duration::ZERO),
        ("/validate/snapshots", Duration::ZERO),
    ];
    for (path, budget) in budgets {
        assert!(budget < waits.remove(path).unwrap(), "{path}: {budget:?}");
    }
    assert_eq!(waits, BTreeMap::new(), "reviews without a budget");
}

#[test]
fn the_extender_answers_before_the_scheduler_stops_waiting() {
    for file in ["scheduler/scheduler-config.yaml", "scheduler/second/scheduler-config.yaml"] {
        let configurations = deployed(file);
        let extenders = configurations.iter().flat_map(|c| c["extenders"].as_array().into_iter().flatten());
        let waits = extenders.map(|extender| extender["httpTimeout"].as_str().unwrap()).collect::<Vec<_>>();
        assert_eq!(waits.len(), 1, "{file}");
        let wait = waits[0].parse::<jiff::SignedDuration>().unwrap().unsigned_abs();
        assert!(args().extender().deadline < wait, "{file}: {wait:?}");
    }
}
