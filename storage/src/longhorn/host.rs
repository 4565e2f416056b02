//! Which nodes can run a volume's data path, which have room for a new replica, and which of Longhorn's own pods must
//! leave a node last.

use super::{
    store::Store,
    wire::{Engine, EngineImage, Node},
};
use crate::model::{HostTable, StorageRole};
use handoff_cluster::Pod;
use hashbrown::HashSet;

/// Which of Longhorn's nodes can run the data path of volumes with this engine image and data engine: what Longhorn's
/// attach API checks, plus what the node needs for the engine to start at all (longhorn-manager `manager/volume.go`
/// Attach; `controller/engine_controller.go`). Cordon, tags and `allowScheduling` bind replica placement only, so they
/// are not looked at. The v2 data engine needs no engine image.
pub fn table(store: &Store, has_driver: impl Fn(&str) -> bool, driver: &str, image: &str, engine: &str) -> HostTable {
    let managers = store.instance_managers.values();
    let managers =
        managers.filter(|m| m.spec.r#type == "aio" && data_engine(&m.spec.data_engine) == engine && m.is_up());
    let managed = managers.map(|m| m.spec.node_id.as_str()).collect::<HashSet<_>>();
    let image = if engine == "v2" { None } else { image_of(store, image) };
    let refusal = |name: &str, node: &Node| {
        if !has_driver(name) {
            return Some(format!("the CSI driver {driver} is not registered on {name}"));
        }
        if let Some(reason) = node.not_ready() {
            return Some(format!("Longhorn node {name} is not ready: {reason}"));
        }
        if let Some(image) = image {
            let state = image.status.state.as_str();
            // Longhorn attaches nothing with it, wherever its files are
            if matches!(state, "incompatible" | "error") {
                return Some(format!("engine image {} is in state {state}", image.spec.image));
            }
            if image.status.node_deployment_map.get(name) != Some(&true) {
                return Some(format!("engine image {} is not deployed on {name}", image.spec.image));
            }
        }
        (!managed.contains(name)).then(|| format!("no Longhorn instance manager runs on {name}"))
    };
    store.nodes.iter().map(|(name, node)| (name.clone(), refusal(name, node))).collect()
}

/// The engine image object of an image.
pub fn image_of<'s>(store: &'s Store, image: &str) -> Option<&'s EngineImage> {
    store.engine_images.values().find(|i| i.spec.image == image)
}

/// Empty means v1 in objects of older versions.
pub fn data_engine(name: &str) -> &str {
    if name.is_empty() { "v1" } else { name }
}

/// Size in bytes of the largest new replica that fits on one of the node's disks (longhorn-manager
/// `scheduler/replica_scheduler.go` `IsSchedulableToDisk`, which is asked with the settings
/// `storage-over-provisioning-percentage` and `storage-minimal-available-percentage`).
pub fn room(store: &Store, node: &Node, engine: &str) -> u64 {
    if !node.spec.allow_scheduling || node.spec.eviction_requested {
        return 0;
    }
    let percent = |setting: &str, default: i128| {
        store.settings.get(setting).and_then(|s| s.value.parse::<i128>().ok()).unwrap_or(default)
    };
    let (provisioning, minimal) =
        (percent("storage-over-provisioning-percentage", 100), percent("storage-minimal-available-percentage", 25));
    let wanted = if engine == "v2" { "block" } else { "filesystem" };
    let rooms = node.spec.disks.iter().filter_map(|(id, disk)| {
        let kind = if disk.disk_type.is_empty() { "filesystem" } else { &disk.disk_type };
        let status = node.status.disk_status.get(id)?;
        let schedulable = status.conditions.iter().all(|c| c.r#type != "Schedulable" || c.status == "True");
        if kind != wanted || !disk.allow_scheduling || disk.eviction_requested || !schedulable {
            return None;
        }
        let (maximum, available) = (i128::from(status.storage_maximum), i128::from(status.storage_available));
        if available <= maximum * minimal / 100 {
            return None;
        }
        let provisioned = (maximum - i128::from(disk.storage_reserved)) * provisioning / 100;
        u64::try_from(provisioned - i128::from(status.storage_scheduled)).ok()
    });
    rooms.max().unwrap_or(0)
}

/// Labels: longhorn-manager `types/types.go` (`longhorn.io/component`), `csi/deployment_util.go` (`app`).
pub fn role_of(pod: &Pod) -> Option<StorageRole> {
    if pod.labels.get("longhorn.io/component").is_some_and(|c| c == "instance-manager") {
        return Some(StorageRole::InstanceManager);
    }
    let app = pod.labels.get("app")?;
    matches!(app.as_str(), "csi-attacher" | "csi-provisioner" | "csi-resizer" | "csi-snapshotter")
        .then_some(StorageRole::CsiController)
}

/// Longhorn keeps a budget over the instance manager of a node as long as an engine runs there, whatever else (setting
/// `node-drain-policy`, longhorn-manager `controller/instance_manager_controller.go` `canDeleteInstanceManagerPDB`); not
/// if people have told it to let everything go.
pub fn is_guarded(store: &Store, node: &str) -> bool {
    let lets_go = store.settings.get("node-drain-policy").is_some_and(|s| s.value == "always-allow");
    let runs = |e: &Engine| e.spec.node_id == node && e.status.current_state == "running";
    !lets_go && store.engines.values().any(runs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::longhorn::wire::{InstanceManager, Setting};
    use handoff_cluster::Cached;
    use serde_json::{Value, from_value, json};

    fn node(name: &str, ready: &str) -> Value {
        json!({"metadata": {"name": name}, "status": {"conditions": [
            {"type": "Ready", "status": ready, "reason": "ManagerPodMissing"}]}})
    }

    fn manager(node: &str, engine: &str, state: &str) -> Value {
        json!({"metadata": {"name": format!("im-{node}-{engine}")}, "status": {"currentState": state},
            "spec": {"nodeID": node, "type": "aio", "dataEngine": engine}})
    }

    fn store(nodes: &[Value], managers: &[Value]) -> Store {
        let mut store = Store::default();
        for value in nodes {
            from_value::<Node>(value.clone()).unwrap().put(&mut store);
        }
        for value in managers {
            from_value::<InstanceManager>(value.clone()).unwrap().put(&mut store);
        }
        let image = json!({"metadata": {"name": "ei"}, "spec": {"image": "engine:1"}, "status": {"state": "deployed",
            "nodeDeploymentMap": {"a": true, "b": true, "c": false, "d": true, "e": true}}});
        from_value::<EngineImage>(image).unwrap().put(&mut store);
        store
    }

    #[test]
    fn each_refusal_has_its_reason() {
        let nodes = ["a", "c", "d", "e"].map(|n| node(n, "True"));
        let managers = [("a", "running"), ("b", "running"), ("c", "running"), ("d", "error"), ("e", "starting")]
            .map(|(n, s)| manager(n, "", s));
        let mut store = store(&nodes, &managers);
        from_value::<Node>(node("b", "False")).unwrap().put(&mut store);
        let table = table(&store, |n| n != "e", "driver.longhorn.io", "engine:1", "v1");
        let reason = |node: &str| table[node].as_deref();
        assert_eq!(reason("a"), None);
        assert_eq!(reason("b"), Some("Longhorn node b is not ready: ManagerPodMissing"));
        assert_eq!(reason("c"), Some("engine image engine:1 is not deployed on c"));
        assert_eq!(reason("d"), Some("no Longhorn instance manager runs on d"));
        assert_eq!(reason("e"), Some("the CSI driver driver.longhorn.io is not registered on e"));
        assert!(!table.contains_key("f"));
    }

    #[test]
    fn the_v2_data_engine_needs_its_own_instance_manager_and_no_image() {
        let store = store(
            &["a", "c"].map(|n| node(n, "True")),
            &[manager("a", "v1", "running"), manager("c", "v2", "running")],
        );
        let table = table(&store, |_| true, "d", "", "v2");
        assert_eq!(table["a"].as_deref(), Some("no Longhorn instance manager runs on a"));
        assert_eq!(table["c"], None);
    }

    #[test]
    fn news_about_hosts_is_a_new_version_and_free_space_is_not() {
        let mut store = store(&[node("a", "True")], &[manager("a", "", "running")]);
        let mut last = store.hosts_version();
        let mut put = |value: Value, news: bool| {
            from_value::<Node>(value).unwrap().put(&mut store);
            assert_eq!(store.hosts_version() != last, news);
            last = store.hosts_version();
        };
        put(node("a", "True"), false);
        let mut full = node("a", "True");
        full["status"]["diskStatus"] = json!({"d": {"storageAvailable": 1}});
        put(full, false);
        put(node("a", "False"), true);
        put(node("z", "True"), true);
    }

    #[test]
    fn a_node_where_an_engine_runs_is_guarded_by_longhorn_unless_people_said_otherwise() {
        let mut store = Store::default();
        assert!(!is_guarded(&store, "a"));
        for (state, wanted) in [("running", true), ("stopped", false), ("running", true)] {
            let engine = json!({"metadata": {"name": "e"}, "spec": {"nodeID": "a", "volumeName": "v"},
                "status": {"currentState": state}});
            from_value::<Engine>(engine).unwrap().put(&mut store);
            assert_eq!((is_guarded(&store, "a"), is_guarded(&store, "b")), (wanted, false), "{state}");
        }
        for (policy, wanted) in [("block-if-contains-last-replica", true), ("always-allow", false)] {
            let setting = json!({"metadata": {"name": "node-drain-policy"}, "value": policy});
            from_value::<Setting>(setting).unwrap().put(&mut store);
            assert_eq!(is_guarded(&store, "a"), wanted, "{policy}");
        }
    }

    fn with_disks(spec: &Value, status: &Value) -> Node {
        let disk = json!({"diskType": "filesystem", "allowScheduling": true, "storageReserved": 30});
        let state = json!({"storageMaximum": 100, "storageAvailable": 60, "storageScheduled": 20,
            "conditions": [{"type": "Schedulable", "status": "True"}]});
        let merged = |mut base: Value, over: &Value| {
            base.as_object_mut().unwrap().extend(over.as_object().unwrap().clone());
            base
        };
        from_value(
            json!({"metadata": {"name": "a"}, "spec": {"allowScheduling": true, "disks": {"d": merged(disk, spec)}},
            "status": {"diskStatus": {"d": merged(state, status)}}}),
        )
        .unwrap()
    }

    #[test]
    fn room_for_a_new_replica() {
        let none = json!({});
        let mut store = Store::default();
        for (spec, status, wanted) in [
            (&none, &none, 50),
            (&json!({"allowScheduling": false}), &none, 0),
            (&json!({"evictionRequested": true}), &none, 0),
            (&json!({"diskType": "block"}), &none, 0),
            (&json!({"storageReserved": 90}), &none, 0),
            (&none, &json!({"storageAvailable": 25}), 0),
            (&none, &json!({"storageAvailable": 26}), 50),
            (&none, &json!({"storageScheduled": 70}), 0),
            (&none, &json!({"conditions": [{"type": "Schedulable", "status": "False"}]}), 0),
        ] {
            assert_eq!(room(&store, &with_disks(spec, status), "v1"), wanted, "{spec} {status}");
        }
        for (name, value) in
            [("storage-over-provisioning-percentage", "200"), ("storage-minimal-available-percentage", "0")]
        {
            let setting = json!({"metadata": {"name": name}, "value": value});
            from_value::<Setting>(setting).unwrap().put(&mut store);
        }
        assert_eq!(room(&store, &with_disks(&none, &json!({"storageAvailable": 1})), "v1"), 120);
        let mut closed = with_disks(&none, &none);
        closed.spec.allow_scheduling = false;
        assert_eq!(room(&store, &closed, "v1"), 0);
    }
}
