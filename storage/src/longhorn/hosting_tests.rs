//! What is said of nodes, and when nothing is.

use super::{DRIVER, Longhorn, Store};
use crate::{Hosting, StorageManager};
use axum::Router;
use handoff_cluster::{Cache, CsiNode, Index};
use kube::Client;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Nodes a, b and c with instance managers and the engine image; a volume on a with replicas on a and b.
fn objects() -> Vec<(&'static str, Value)> {
    let mut objects = vec![
        ("volumes", volume(&json!({}))),
        ("engineimages", image("deployed")),
        ("settings", setting("default-engine-image", "engine:1")),
    ];
    for (node, available) in [("a", 50), ("b", 100), ("c", 100)] {
        objects.push((
            "nodes",
            json!({"metadata": {"name": node},
            "spec": {"allowScheduling": true, "disks": {"d": {"diskType": "filesystem", "allowScheduling": true}}},
            "status": {"conditions": [{"type": "Ready", "status": "True"}], "diskStatus": {"d": {
                "storageMaximum": available, "storageAvailable": available, "storageScheduled": 0}}}}),
        ));
        objects.push(("instancemanagers", manager(node, "running")));
    }
    for node in ["a", "b"] {
        objects.push((
            "replicas",
            json!({"metadata": {"name": format!("r-{node}")},
            "spec": {"volumeName": "v", "nodeID": node, "active": true}, "status": {"currentState": "running"}}),
        ));
    }
    objects
}

fn volume(spec: &Value) -> Value {
    let mut volume = json!({"metadata": {"name": "v"}, "spec": {"image": "engine:1", "nodeID": "a"}});
    volume["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    volume
}

fn image(state: &str) -> Value {
    json!({"metadata": {"name": "ei"}, "spec": {"image": "engine:1"},
        "status": {"state": state, "nodeDeploymentMap": {"a": true, "b": true, "c": true}}})
}

fn manager(node: &str, state: &str) -> Value {
    json!({"metadata": {"name": format!("im-{node}")}, "spec": {"nodeID": node, "type": "aio"},
        "status": {"currentState": state}})
}

fn setting(name: &str, value: &str) -> Value {
    json!({"metadata": {"name": name}, "value": value})
}

/// With these objects besides, which come last.
fn longhorn(changes: &[(&'static str, Value)]) -> Longhorn {
    of(objects().into_iter().chain(changes.iter().cloned()))
}

fn of(objects: impl Iterator<Item = (&'static str, Value)>) -> Longhorn {
    let (mut index, mut store) = (Index::default(), Store::default());
    for name in ["a", "b", "c"] {
        index.put_csi_node(CsiNode { name: name.into(), drivers: vec![DRIVER.into()] });
    }
    for (plural, object) in objects {
        store.put_json(plural, object.to_string().as_bytes()).unwrap().unwrap();
    }
    Longhorn::fixed(Client::new(Router::new(), "default"), "longhorn-system", Cache::fixed(index), store)
}

/// For each of the three nodes: it fits, or why not.
fn verdicts(hosting: Option<&Hosting>) -> Option<[String; 3]> {
    let hosting = hosting?;
    Some(["a", "b", "c"].map(|node| hosting.check(node).err().unwrap_or_default()))
}

#[tokio::test]
async fn which_nodes_a_volume_fits() {
    let yes = String::new;
    let strict = || "volume v is strict-local and has no replica on c".to_owned();
    for (change, wanted) in [
        (vec![], Some([yes(), yes(), yes()])),
        (vec![("volumes", volume(&json!({"dataLocality": "best-effort"})))], Some([yes(), yes(), yes()])),
        (vec![("volumes", volume(&json!({"dataLocality": "strict-local"})))], Some([yes(), yes(), strict()])),
        (vec![("instancemanagers", manager("a", "starting"))], Some([yes(), yes(), yes()])),
        (
            vec![("instancemanagers", manager("a", "stopped"))],
            Some(["no Longhorn instance manager runs on a".into(), yes(), yes()]),
        ),
        (vec![("engineimages", image("deploying"))], Some([yes(), yes(), yes()])),
        (
            vec![("engineimages", image("incompatible"))],
            Some(["a", "b", "c"].map(|_| "engine image engine:1 is in state incompatible".to_owned())),
        ),
        (
            vec![("engineimages", image("error"))],
            Some(["a", "b", "c"].map(|_| "engine image engine:1 is in state error".into())),
        ),
        // an image that no object tells of says nothing about nodes
        (vec![("volumes", volume(&json!({"image": "engine:2"})))], None),
        // v2 needs none, but an instance manager of its own
        (
            vec![("volumes", volume(&json!({"image": "", "dataEngine": "v2"})))],
            Some(["a", "b", "c"].map(|node| format!("no Longhorn instance manager runs on {node}"))),
        ),
    ] {
        let hosting = longhorn(&change).hosting("v");
        assert_eq!(verdicts(hosting.as_ref()), wanted, "{change:?}");
        assert!(hosting.is_none_or(|h| h.new.is_none() && h.has_room("a").is_none()), "{change:?}");
    }
    assert!(longhorn(&[]).hosting("unknown").is_none());
    let only_on = longhorn(&[("volumes", volume(&json!({"dataLocality": "strict-local"})))]).hosting("v").unwrap();
    assert_eq!(only_on.only_on, Some(["a".to_owned(), "b".to_owned()].into()));
    assert_eq!(longhorn(&[]).hosting("v").unwrap().only_on, None);
}

#[tokio::test]
async fn an_empty_list_of_nodes_says_nothing() {
    let without_nodes = || of(objects().into_iter().filter(|(plural, _)| *plural != "nodes"));
    assert!(without_nodes().hosting("v").is_none());
    assert!(without_nodes().hosting_of_new("claim", 1, &BTreeMap::new()).is_none());
}

#[tokio::test]
async fn which_nodes_a_volume_that_is_not_made_yet_fits() {
    let no = |node: &str| format!("no disk of {node} has room for the 0 MiB of claim claim");
    let all = || Some(["", "", ""].map(str::to_owned));
    // a has 50 bytes, the others 100
    for (settings, parameters, bytes, wanted, room) in [
        (&[][..], &[][..], 80, all(), Some([false, true, true])),
        (&[], &[], 200, all(), Some([false, false, false])),
        (
            &[],
            &[("dataLocality", "strict-local")],
            80,
            Some([no("a"), String::new(), String::new()]),
            Some([false, true, true]),
        ),
        // the class says nothing: the setting counts
        (
            &[("default-data-locality", "strict-local")],
            &[],
            80,
            Some([no("a"), String::new(), String::new()]),
            Some([false, true, true]),
        ),
        (
            &[("default-data-locality", "strict-local")],
            &[("dataLocality", "")],
            80,
            Some([no("a"), String::new(), String::new()]),
            Some([false, true, true]),
        ),
        (
            &[("default-data-locality", "strict-local")],
            &[("dataLocality", "disabled")],
            80,
            all(),
            Some([false, true, true]),
        ),
        // tags narrow the disks down: nothing is known of room, and nobody is refused for it
        (&[], &[("diskSelector", "ssd"), ("dataLocality", "strict-local")], 80, all(), None),
        (&[], &[("nodeSelector", "fast")], 80, all(), None),
        (&[], &[("nodeSelector", "")], 40, all(), Some([true, true, true])),
        // which image it will get is not known
        (&[("default-engine-image", "engine:2")], &[], 80, None, None),
    ] {
        let changes = settings.iter().map(|(name, value)| ("settings", setting(name, value))).collect::<Vec<_>>();
        let parameters = parameters.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let hosting = longhorn(&changes).hosting_of_new("claim", bytes, &parameters);
        let case = format!("{settings:?} {parameters:?} {bytes}");
        assert_eq!(verdicts(hosting.as_ref()), wanted, "{case}");
        let Some(hosting) = hosting else { continue };
        assert_eq!(hosting.only_on, None, "{case}");
        assert_eq!(["a", "b", "c"].map(|n| hosting.has_room(n)), room.map_or([None; 3], |r| r.map(Some)), "{case}");
    }
}
