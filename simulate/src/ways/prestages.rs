//! Pre-stages that nobody adopts in time, that nobody knows of, or that must not be there.

use super::{LEADS, Scene, VOLUME};
use crate::{
    api::resource::{NODES, TICKETS},
    cluster::{STORAGE, attachment_name, key},
    json::{elements, is_ready, text},
    kubernetes::{fall_silent, scale, uncordon},
    longhorn::MARK,
};
use serde_json::{Value, json};
use std::time::Duration;

/// Several looks of the leader at the volume.
const LOOKS: Duration = Duration::from_secs(12);

impl Scene {
    /// The pod is deleted before it starts, and its successor is bound elsewhere.
    pub(super) async fn rebound(&self) {
        self.cluster.longhorn.attachers_go();
        self.send_away_only().await;
        let first = self.open_prestage("").await;
        self.send_away_only().await;
        let second = self.open_prestage(&first).await;
        self.cluster.witness.note(&format!("the pre-stage went from {first} to {second}"));
        let pod = self.pod();
        self.cluster.longhorn.attachers_come_back();
        self.until("the pod to be ready", |scene| {
            (!is_ready(&scene.pod())).then(|| text(&pod, "/spec/nodeName").to_owned())
        })
        .await;
    }

    /// The pod is deleted before it starts, and has no successor for a while.
    pub(super) async fn pod_deleted(&self) {
        self.cluster.longhorn.attachers_go();
        let before = self.send_away_only().await;
        self.open_prestage("").await;
        scale(&self.cluster, VOLUME, 0);
        self.no_pod().await;
        self.until("the pre-stage to be closed", |scene| {
            let handoff = scene.handoff();
            let open = text(&handoff, "/status/prestage/outcome").is_empty();
            (open && !text(&handoff, "/status/prestage/node").is_empty()).then(|| "open".to_owned())
        })
        .await;
        self.none_left().await;
        scale(&self.cluster, VOLUME, 1);
        self.cluster.longhorn.attachers_come_back();
        self.ready_after(&before).await;
    }

    /// The kubelet of the target falls silent before the volume is there: the pre-stage is taken back at its expiry.
    pub(super) async fn target_lost(&self) {
        self.cluster.longhorn.attachers_go();
        let before = self.send_away_only().await;
        let node = self.open_prestage("").await;
        fall_silent(&self.cluster, &node, true);
        self.until("the target to be missed", |scene| {
            let found = scene.cluster.store.get(NODES, &key("", &node));
            found.filter(|node| is_ready(&node.value)).map(|_| "still Ready".to_owned())
        })
        .await;
        self.until("the pre-stage to be withdrawn", |scene| {
            let outcome = text(&scene.handoff(), "/status/prestage/outcome").to_owned();
            (outcome != "Withdrawn").then_some(outcome)
        })
        .await;
        self.none_left().await;
        fall_silent(&self.cluster, &node, false);
        self.cluster.longhorn.attachers_come_back();
        self.ready_after(&before).await;
    }

    async fn none_left(&self) {
        self.until("our requests to go", |scene| scene.prestages().first().cloned()).await;
    }

    /// Waits for a pre-stage where the pod is bound, elsewhere than `besides`.
    async fn open_prestage(&self, besides: &str) -> String {
        self.until("a pre-stage for the pod", |scene| {
            let (pod, there) = (scene.pod(), scene.prestages());
            let node = text(&pod, "/spec/nodeName");
            (node.is_empty() || node == besides || there != [node]).then(|| format!("pod on '{node}', {there:?}"))
        })
        .await;
        text(&self.pod(), "/spec/nodeName").to_owned()
    }

    /// One of ours that was never recorded, and one that is somebody else's.
    pub(super) async fn unrecorded(&mut self) {
        self.kill_all();
        let ours = attachment_name(VOLUME, "n01");
        self.put(&ours, "csi-attacher", "n01", MARK);
        self.put("csi-foreign", "csi-attacher", "n01", "somebody-else");
        self.start_replica(2);
        tokio::time::sleep(LEADS).await;
        self.none_left().await;
        if !self.tickets().any(|id| id == "csi-foreign") {
            self.cluster.witness.breaks("a request that is not ours was taken away");
        }
        self.take_back("csi-foreign");
        self.send_away().await;
    }

    /// Attached by hand where it is.
    pub(super) async fn refused(&self) {
        self.put("by-hand", "longhorn-api", "n00", "");
        self.send_away_only().await;
        self.until("the refusal to be recorded", |scene| {
            let handoff = scene.handoff();
            let told = elements(&handoff, "/status/timeline").any(|s| s["what"] == "PreStageRefused");
            (!told).then(|| text(&handoff, "/status/message").to_owned())
        })
        .await;
        tokio::time::sleep(LOOKS).await;
        if !self.prestages().is_empty() {
            self.cluster.witness.breaks("a pre-stage was placed although that was refused");
        }
        self.take_back("by-hand");
        uncordon(&self.cluster, "n00");
    }

    fn tickets(&self) -> impl Iterator<Item = String> {
        let request = self.cluster.store.get(TICKETS, &key(STORAGE, VOLUME));
        let tickets = request.and_then(|r| r.value.pointer("/spec/attachmentTickets").cloned());
        let ids = tickets.as_ref().and_then(Value::as_object).map(|t| t.keys().cloned().collect::<Vec<_>>());
        ids.unwrap_or_default().into_iter()
    }

    fn put(&self, id: &str, kind: &str, node: &str, by: &str) {
        self.cluster.store.change("e2e", TICKETS, &key(STORAGE, VOLUME), |request| {
            request["spec"]["attachmentTickets"][id] = json!({"id": id, "type": kind, "nodeID": node, "generation": 0,
                "parameters": {"disableFrontend": "false", "lastAttachedBy": by}});
        });
    }

    fn take_back(&self, id: &str) {
        self.cluster.store.change("e2e", TICKETS, &key(STORAGE, VOLUME), |request| {
            if let Some(tickets) = request.pointer_mut("/spec/attachmentTickets").and_then(Value::as_object_mut) {
                tickets.remove(id);
            }
        });
    }
}
