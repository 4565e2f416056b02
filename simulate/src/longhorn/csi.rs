//! `ControllerPublish` and `ControllerUnpublish` of Longhorn's CSI plugin (`csi/controller_server.go`). Neither looks
//! before its first tick of 2 s.

use super::change_tickets;
use crate::{
    api::resource::{ENGINES, LONGHORN_VOLUMES, TICKETS},
    cluster::{Cluster, STORAGE, attachment_name, key},
    json::{flag, text},
};
use serde_json::json;
use std::time::Duration;

const BY: &str = "longhorn-csi";
const TICK: Duration = Duration::from_secs(2);
const TICKS: usize = 45;

/// Asks for the volume on the node and waits until it is there.
pub async fn publish(cluster: &Cluster, volume: &str, node: &str) -> Result<(), String> {
    let of = key(STORAGE, volume);
    let state = cluster.store.get(LONGHORN_VOLUMES, &of).ok_or("the volume is unknown")?;
    let leaving = text(&state.value, "/spec/nodeID").is_empty() && text(&state.value, "/status/state") != "detached";
    if leaving || text(&state.value, "/status/robustness") == "faulted" {
        return Err(format!("Aborted: volume {volume} is not ready for workloads"));
    }
    let id = attachment_name(volume, node);
    let ticket = json!({"id": id, "type": "csi-attacher", "nodeID": node, "generation": 0,
        "parameters": {"disableFrontend": "false", "lastAttachedBy": ""}});
    change_tickets(cluster, BY, volume, |tickets| {
        let generation = tickets.get(&id).map(|before| before["generation"].clone());
        let mut ticket = ticket;
        ticket["generation"] = generation.unwrap_or(json!(0));
        tickets.insert(id.clone(), ticket);
    });
    for _ in 0..TICKS {
        tokio::time::sleep(TICK).await;
        if is_there(cluster, volume, node, &id) {
            return Ok(());
        }
    }
    Err(format!("DeadlineExceeded: volume {volume} is not attached to node {node}"))
}

fn is_there(cluster: &Cluster, volume: &str, node: &str, id: &str) -> bool {
    let of = key(STORAGE, volume);
    let satisfied = cluster.store.get(TICKETS, &of).is_some_and(|tickets| {
        let (ticket, status) =
            (&tickets.value["spec"]["attachmentTickets"][id], &tickets.value["status"]["attachmentTicketStatuses"][id]);
        flag(status, "/satisfied") && status["generation"] == ticket["generation"]
    });
    let attached = cluster.store.get(LONGHORN_VOLUMES, &of).is_some_and(|volume| {
        text(&volume.value, "/status/state") == "attached" && text(&volume.value, "/spec/nodeID") == node
    });
    satisfied && attached && has_device(cluster, volume, node)
}

fn has_device(cluster: &Cluster, volume: &str, node: &str) -> bool {
    cluster.store.get(ENGINES, &key(STORAGE, &super::volume::engine_name(volume))).is_some_and(|engine| {
        text(&engine.value, "/spec/nodeID") == node && !text(&engine.value, "/status/endpoint").is_empty()
    })
}

/// Takes the request for the node back; the releases that wait do so until the engine has left the node.
pub async fn unpublish(cluster: &Cluster, volume: &str, node: &str) -> Result<(), String> {
    let id = attachment_name(volume, node);
    change_tickets(cluster, BY, volume, |tickets| drop(tickets.remove(&id)));
    for _ in 0..TICKS {
        tokio::time::sleep(TICK).await;
        let attached = cluster.store.get(LONGHORN_VOLUMES, &key(STORAGE, volume)).is_some_and(|volume| {
            text(&volume.value, "/status/state") == "attached" && text(&volume.value, "/status/currentNodeID") == node
        });
        if !(cluster.longhorn.release.waits && attached && has_device(cluster, volume, node)) {
            return Ok(());
        }
    }
    Err(format!("DeadlineExceeded: failed to detach volume {volume} from node {node}"))
}
