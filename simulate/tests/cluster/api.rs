//! The API server, by a real client.

use futures::{StreamExt, TryStreamExt};
use handoff_simulate::{
    api::{
        Follow, Line, Verb,
        resource::{BUDGETS, CLAIMS, CONFIG_MAPS, HANDOFFS, NODES, PODS},
    },
    chance::Chance,
    cluster::{Cluster, Timing, WORKLOADS, key},
    longhorn::Release,
    run,
};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams},
};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

fn cluster() -> Arc<Cluster> {
    Cluster::new(Release::of("1.10.0"), Timing::default(), Chance::new(1))
}

fn maps(cluster: &Arc<Cluster>) -> Api<ConfigMap> {
    Api::namespaced(cluster.server.client(&Line::new("handoff-0", None, None)), WORKLOADS)
}

fn map(name: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name}, "data": {"n": "0"}})).unwrap()
}

fn code(error: kube::Error) -> u16 {
    match error {
        kube::Error::Api(status) => status.code,
        other => panic!("{other}"),
    }
}

#[test]
fn a_write_under_an_old_version_is_refused_and_one_that_changes_nothing_makes_no_version() {
    run(async {
        let api = maps(&cluster());
        let made = api.create(&PostParams::default(), &map("m")).await.unwrap();
        assert_eq!(code(api.create(&PostParams::default(), &map("m")).await.unwrap_err()), 409);
        let under = |version: &Option<String>, n: &str| {
            Patch::Merge(json!({"metadata": {"resourceVersion": version}, "data": {"n": n}}))
        };
        let first = made.metadata.resource_version;
        let changed = api.patch("m", &PatchParams::default(), &under(&first, "1")).await.unwrap();
        assert_ne!(changed.metadata.resource_version, first);
        let stale = api.patch("m", &PatchParams::default(), &under(&first, "2")).await;
        assert_eq!(code(stale.unwrap_err()), 409);
        let second = changed.metadata.resource_version;
        let same = api.patch("m", &PatchParams::default(), &under(&second, "1")).await.unwrap();
        assert_eq!(same.metadata.resource_version, second);
        assert_eq!(code(api.get("other").await.unwrap_err()), 404);
        api.delete("m", &DeleteParams::default()).await.unwrap();
        assert!(api.get_opt("m").await.unwrap().is_none());
    })
    .unwrap();
}

#[test]
fn a_watch_goes_on_from_a_version_and_one_that_is_forgotten_is_gone() {
    run(async {
        let cluster = cluster();
        let api = maps(&cluster);
        api.create(&PostParams::default(), &map("a")).await.unwrap();
        let version = api.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
        api.create(&PostParams::default(), &map("b")).await.unwrap();
        api.delete("a", &DeleteParams::default()).await.unwrap();
        let watched = api.watch(&WatchParams::default().timeout(40), &version).await.unwrap();
        let events = watched.try_collect::<Vec<_>>().await.unwrap();
        let told = events.iter().map(|event| match event {
            WatchEvent::Added(m) => format!("+{}", m.metadata.name.as_ref().unwrap()),
            WatchEvent::Deleted(m) => format!("-{}", m.metadata.name.as_ref().unwrap()),
            WatchEvent::Bookmark(_) => "bookmark".to_owned(),
            other => panic!("{other:?}"),
        });
        assert_eq!(told.collect::<Vec<_>>(), ["+b", "-a", "bookmark"]);
        cluster.store.compact();
        let gone = api.watch(&WatchParams::default().timeout(40), &version).await;
        let refused = match gone {
            Err(error) => code(error),
            Ok(stream) => match Box::pin(stream).next().await {
                Some(Ok(WatchEvent::Error(status))) => status.code,
                other => panic!("{other:?}"),
            },
        };
        assert_eq!(refused, 410);
    })
    .unwrap();
}

#[test]
fn who_follows_learns_after_versions_were_forgotten_what_is_gone_and_what_is_another_one() {
    run(async {
        let cluster = cluster();
        let made = |name: &str| cluster.add(CONFIG_MAPS, WORKLOADS, name, json!({}));
        let mut follow = Follow::new(&cluster.store, CONFIG_MAPS);
        let mut told = async || {
            let changes = follow.next().await;
            changes.iter().map(|change| format!("{} {}", change.what, change.object.key().name)).collect::<Vec<_>>()
        };
        ["gone", "other", "same", "changed"].into_iter().for_each(made);
        assert_eq!(told().await, ["ADDED changed", "ADDED gone", "ADDED other", "ADDED same"]);
        for name in ["gone", "other"] {
            cluster.store.remove("someone", CONFIG_MAPS, &key(WORKLOADS, name));
        }
        made("other");
        cluster.store.change("someone", CONFIG_MAPS, &key(WORKLOADS, "changed"), |map| map["data"] = json!({"n": "1"}));
        cluster.store.compact();
        assert_eq!(told().await, ["DELETED gone", "DELETED other", "MODIFIED changed", "ADDED other"]);
        made("new");
        assert_eq!(told().await, ["ADDED new"]);
    })
    .unwrap();
}

#[test]
fn what_belongs_to_something_that_is_gone_goes_too_and_a_finalizer_keeps_it_there() {
    run(async {
        let cluster = cluster();
        cluster.add(CLAIMS, WORKLOADS, "data", json!({"metadata": {"finalizers": ["x/y"]}}));
        let of = key(WORKLOADS, "data");
        let uid = cluster.store.get(CLAIMS, &of).unwrap().value["metadata"]["uid"].clone();
        cluster.add(HANDOFFS, WORKLOADS, "pv", json!({"metadata": {"ownerReferences": [{"uid": uid}]}}));
        cluster.ask("kubectl", CLAIMS, &of, "", Verb::Delete(Value::Null)).await.unwrap();
        assert!(cluster.store.get(CLAIMS, &of).unwrap().value["metadata"]["deletionTimestamp"].is_string());
        assert!(cluster.store.get(HANDOFFS, &key(WORKLOADS, "pv")).is_some());
        cluster.store.change("controller", CLAIMS, &of, |claim| claim["metadata"]["finalizers"] = json!([]));
        assert!(cluster.store.get(CLAIMS, &of).is_none());
        assert!(cluster.store.get(HANDOFFS, &key(WORKLOADS, "pv")).is_none());
    })
    .unwrap();
}

#[test]
fn an_eviction_goes_on_without_a_webhook_and_not_against_a_budget() {
    run(async {
        let cluster = cluster();
        cluster.add(NODES, "", "n", json!({}));
        let ready = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
        for name in ["a", "b"] {
            let pod = json!({"metadata": {"labels": {"app": "x"}}, "spec": {"nodeName": "n"}, "status": ready});
            cluster.add(PODS, WORKLOADS, name, pod);
        }
        let budget = json!({"spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "x"}}}});
        cluster.add(BUDGETS, WORKLOADS, "x", budget);
        let evict = async |pod: &str| {
            let eviction = json!({"metadata": {"name": pod, "namespace": WORKLOADS}});
            cluster.ask("drain", PODS, &key(WORKLOADS, pod), "eviction", Verb::Create(eviction)).await
        };
        assert!(evict("a").await.is_ok());
        assert_eq!(evict("b").await.unwrap_err().code, 429);
        assert_eq!(evict("c").await.unwrap_err().code, 404);
        let pods: Api<Pod> = Api::namespaced(cluster.server.client(&Line::new("kubectl", None, None)), WORKLOADS);
        let left = pods.get("a").await.unwrap();
        assert!(left.metadata.deletion_timestamp.is_some(), "its kubelet has still to end it");
    })
    .unwrap();
}

#[test]
fn a_line_that_is_cut_answers_nothing() {
    run(async {
        let cluster = cluster();
        let line = Line::new("handoff-0", None, None);
        let api: Api<ConfigMap> = Api::namespaced(cluster.server.client(&line), WORKLOADS);
        api.create(&PostParams::default(), &map("m")).await.unwrap();
        line.cut();
        let asked = tokio::time::timeout(Duration::from_hours(1), api.get("m")).await;
        assert!(asked.is_err());
        assert!(cluster.store.get(CONFIG_MAPS, &key(WORKLOADS, "m")).is_some());
    })
    .unwrap();
}
