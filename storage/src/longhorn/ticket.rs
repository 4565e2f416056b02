//! Attach requests ("attachment tickets") of a volume, and ours among them.
//!
//! A pre-stage is byte for byte the ticket that Longhorn's CSI plugin would create for the node, marked in
//! `parameters.lastAttachedBy`. When CSI asks for the volume itself it overwrites the ticket and thereby the mark:
//! that is the adoption. Nothing in Longhorn removes a stale CSI ticket, so whoever places one must withdraw it.

use super::{
    DRIVER, api_error,
    store::Store,
    wire::{Attachment, Ticket},
};
use crate::StorageError;
use kube::{
    Api, ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::json;
use sha2::{Digest, Sha256};

/// Our mark.
pub const MARK: &str = "volumehandoff.io";
/// Type of the tickets that CSI creates.
pub const CSI_TYPE: &str = "csi-attacher";

/// The id of CSI's ticket for a node: equals the name of the Kubernetes `VolumeAttachment`.
pub fn id(handle: &str, node: &str) -> String {
    format!("csi-{:x}", Sha256::digest(format!("{handle}{DRIVER}{node}")))
}

/// Whether a ticket carries our mark.
pub fn is_ours(ticket: &Ticket) -> bool {
    ticket.parameters.get("lastAttachedBy").is_some_and(|by| by == MARK)
}

/// All pre-stages that were not adopted: (volume, node).
pub fn ours(store: &Store) -> Vec<(String, String)> {
    let tickets = store.attachments.iter().flat_map(|(volume, attachment)| {
        let ours = attachment.spec.attachment_tickets.values().filter(|t| is_ours(t));
        ours.map(move |t| (volume.clone(), t.node_id.clone()))
    });
    tickets.collect()
}

/// Ticket types that no workload ticket interrupts (longhorn-manager `controller/volume_attachment_controller.go`).
const BLOCKING: [&str; 6] = [
    "volume-restore-controller",
    "volume-expansion-controller",
    "volume-eviction-controller",
    "volume-clone-controller",
    "longhorn-api",
    "bim-ds-controller",
];

/// Longhorn validates nothing about a ticket, so every rule is ours. Returns the reason not to place one.
pub fn may_prestage(store: &Store, volume: &str) -> Result<(), String> {
    let view = store.volumes.get(volume).ok_or_else(|| format!("Longhorn has no volume {volume}"))?;
    let (spec, status) = (&view.spec, &view.status);
    let refusals = [
        (!matches!(spec.access_mode.as_str(), "rwo" | "rwop"), "it is shared between nodes (RWX)"),
        (spec.migratable, "it is migratable"),
        (!spec.migration_node_id.is_empty(), "it is migrating"),
        (spec.disable_frontend, "it is in maintenance mode"),
        (spec.standby, "it is a standby volume"),
        (spec.data_engine == "v2", "pre-staging was never verified on the v2 data engine"),
        (status.restore_required, "it is being restored"),
        (status.expansion_required, "it is being expanded"),
        (status.robustness == "faulted", "it is faulted"),
        (!matches!(status.clone_status.state.as_str(), "" | "completed"), "it is being cloned"),
    ];
    if let Some((_, why)) = refusals.into_iter().find(|(refused, _)| *refused) {
        return Err(format!("volume {volume}: {why}"));
    }
    let attachment =
        store.attachments.get(volume).ok_or_else(|| format!("volume {volume} has no attachment object"))?;
    let mut tickets = attachment.spec.attachment_tickets.values();
    match tickets.find(|t| BLOCKING.contains(&t.r#type.as_str())) {
        Some(ticket) => Err(format!("volume {volume}: {} holds it on {}", ticket.r#type, ticket.node_id)),
        None => Ok(()),
    }
}

/// The merge patch that adds our ticket and nothing else; `None` when there is a ticket for the node already.
/// It carries the resourceVersion that was decided on, so that it can never overwrite a ticket of CSI that arrived
/// meanwhile, nor add a second one of ours beside one that another leader placed.
pub fn place(store: &Store, volume: &str, node: &str, version: &str) -> Option<serde_json::Value> {
    let attachment = store.attachments.get(volume)?;
    let id = id(volume, node);
    if attachment.spec.attachment_tickets.contains_key(&id) {
        return None;
    }
    let ticket = json!({
        "id": id, "type": CSI_TYPE, "nodeID": node, "generation": 0,
        "parameters": {"disableFrontend": "false", "lastAttachedBy": MARK},
    });
    Some(json!({
        "metadata": {"resourceVersion": version},
        "spec": {"attachmentTickets": {id: ticket}},
    }))
}

pub async fn send(api: &Api<Attachment>, volume: &str, patch: serde_json::Value) -> Result<(), StorageError> {
    let sent = api.patch(volume, &PatchParams::default(), &Patch::Merge(patch)).await;
    sent.map(drop).map_err(|e| api_error(format!("pre-stage of volume {volume}"), e))
}

/// All pre-stages that were not adopted, asked for at the API server: (volume, ticket, node). Without Longhorn's
/// definitions there are none.
pub async fn list(api: &Api<Attachment>) -> Result<Vec<(String, String, String)>, StorageError> {
    let list = match api.list(&ListParams::default()).await {
        Ok(list) => list,
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(Vec::new()),
        Err(source) => return Err(api_error("list of attach requests".to_owned(), source)),
    };
    let of = |object: Attachment| {
        let volume = object.name_any();
        let ours = object.spec.attachment_tickets.into_iter().filter(|(_, ticket)| is_ours(ticket));
        ours.map(|(id, ticket)| (volume.clone(), id, ticket.node_id)).collect::<Vec<_>>()
    };
    Ok(list.items.into_iter().flat_map(of).collect())
}

/// Removes the ticket of this id in one step with the check that it still is ours. `false`: adopted or gone.
pub async fn withdraw(api: &Api<Attachment>, volume: &str, id: &str) -> Result<bool, StorageError> {
    let path = format!("/spec/attachmentTickets/{}", id.replace('~', "~0").replace('/', "~1"));
    let steps = json!([
        {"op": "test", "path": format!("{path}/parameters/lastAttachedBy"), "value": MARK},
        {"op": "remove", "path": path},
    ]);
    let steps: json_patch::Patch = serde_json::from_value(steps)
        .map_err(|e| StorageError::Refused(format!("cannot build the withdrawal of {volume}: {e}")))?;
    match api.patch(volume, &PatchParams::default(), &Patch::Json::<()>(steps)).await {
        Ok(_) => Ok(true),
        // a failed `test`, or a path that is not there
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 422) => Ok(false),
        Err(source) => Err(api_error(format!("withdrawal of the pre-stage of volume {volume}"), source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::from_value;

    #[test]
    fn ids_equal_those_of_longhorn() {
        assert_eq!(id("vol1", "node-a"), "csi-e78afbe9522ee037c0ee8ab6927b42acbe8c3a3ef306a556d2448bc5aa05acb5");
        assert_eq!(
            id("pvc-7f2c2a1e-0000-4000-8000-000000000001", "worker-1"),
            "csi-2f2c44a46bb30a69b730bbc5bd8dc3ecf0e64e74947c500c0dbafcc0cb274d18"
        );
    }

    fn store(volume: serde_json::Value, tickets: &serde_json::Value) -> Store {
        let mut store = Store::default();
        store.volumes.insert("v".into(), from_value(volume).unwrap());
        let attachment =
            json!({"metadata": {"name": "v", "resourceVersion": "7"}, "spec": {"attachmentTickets": tickets}});
        store.attachments.insert("v".into(), from_value(attachment).unwrap());
        store
    }

    #[test]
    fn a_plain_volume_may_be_prestaged_and_the_others_say_why_not() {
        let csi =
            json!({"x": {"type": "csi-attacher", "nodeID": "a"}, "b": {"type": "backup-controller", "nodeID": "a"}});
        let plain = json!({"spec": {"accessMode": "rwo"}, "status": {"robustness": "healthy"}});
        assert_eq!(may_prestage(&store(plain.clone(), &csi), "v"), Ok(()));
        for (volume, why) in [
            (json!({"spec": {"accessMode": "rwx"}}), "RWX"),
            (json!({"spec": {"accessMode": "rwo", "migratable": true}}), "migratable"),
            (json!({"spec": {"accessMode": "rwo"}, "status": {"restoreRequired": true}}), "restored"),
            (json!({"spec": {"accessMode": "rwo"}, "status": {"expansionRequired": true}}), "expanded"),
            (json!({"spec": {"accessMode": "rwo"}, "status": {"robustness": "faulted"}}), "faulted"),
            (json!({"spec": {"accessMode": "rwo", "disableFrontend": true}}), "maintenance"),
            (json!({"spec": {"accessMode": "rwo"}, "status": {"cloneStatus": {"state": "initiated"}}}), "cloned"),
        ] {
            let refusal = may_prestage(&store(volume, &csi), "v").unwrap_err();
            assert!(refusal.contains(why), "{refusal}");
        }
        let blocked = store(plain, &json!({"e": {"type": "volume-eviction-controller", "nodeID": "a"}}));
        assert!(may_prestage(&blocked, "v").unwrap_err().contains("volume-eviction-controller holds it on a"));
    }

    #[test]
    fn a_ticket_that_is_there_is_left_alone() {
        let plain = json!({"spec": {"accessMode": "rwo"}});
        let empty = store(plain.clone(), &json!({}));
        let patch = place(&empty, "v", "b", "6").unwrap();
        assert_eq!(patch["metadata"]["resourceVersion"], "6", "the version that was decided on, not the one seen now");
        assert_eq!(patch["spec"]["attachmentTickets"][id("v", "b")]["parameters"]["lastAttachedBy"], MARK);
        let there = store(
            plain,
            &json!({id("v", "b"): {"id": id("v", "b"), "type": CSI_TYPE, "nodeID": "b", "parameters": {}}}),
        );
        assert_eq!(place(&there, "v", "b", "7"), None);
        assert!(ours(&there).is_empty());
    }
}
