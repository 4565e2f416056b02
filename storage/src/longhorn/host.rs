//! Can a node run a volume's data path, and which of Longhorn's own pods must leave a node last.

use super::store::Store;
use crate::model::StorageRole;
use handoff_cluster::Pod;

/// What Longhorn's attach API checks, plus what the node needs for the engine to start at all
/// (longhorn-manager `manager/volume.go` Attach; `controller/engine_controller.go`). Cordon, tags and
/// `allowScheduling` bind replica placement only, so they are not looked at.
pub fn can_host(store: &Store, volume: &str, node: &str) -> Result<(), String> {
    let view = store.volumes.get(volume).ok_or_else(|| format!("Longhorn has no volume {volume}"))?;
    let on = store.nodes.get(node).ok_or_else(|| format!("Longhorn does not manage node {node}"))?;
    if let Some(ready) = on.status.conditions.iter().find(|c| c.r#type == "Ready" && c.status != "True") {
        return Err(format!("Longhorn node {node} is not ready: {}", ready.reason));
    }
    let image = store.engine_images.values().find(|i| i.spec.image == view.spec.image);
    match image {
        None => return Err(format!("engine image {} is unknown", view.spec.image)),
        Some(i) if i.status.node_deployment_map.get(node) != Some(&true) => {
            return Err(format!("engine image {} is not deployed on {node}", view.spec.image));
        }
        Some(_) => {}
    }
    let engine = data_engine(&view.spec.data_engine);
    let manager = store.instance_managers.values().find(|m| {
        m.spec.node_id == node
            && m.spec.r#type == "aio"
            && data_engine(&m.spec.data_engine) == engine
            && is_up(&m.status.current_state)
    });
    if manager.is_none() {
        return Err(format!("no Longhorn instance manager runs on {node}"));
    }
    if view.spec.data_locality == "strict-local" && !store.replicas_of(volume).any(|r| r.spec.node_id == node) {
        return Err(format!("volume {volume} is strict-local and has no replica on {node}"));
    }
    Ok(())
}

fn is_up(state: &str) -> bool {
    matches!(state, "running" | "starting")
}

/// Empty means v1 in objects of older versions.
fn data_engine(name: &str) -> &str {
    if name.is_empty() { "v1" } else { name }
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
