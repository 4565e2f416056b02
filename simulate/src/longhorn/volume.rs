//! A volume: goes where its attach requests say (longhorn-manager `volume_attachment_controller.go`,
//! `volume_controller.go`).

use super::Session;
use crate::{
    api::resource::{ENGINES, INSTANCE_MANAGERS, LONGHORN_VOLUMES, REPLICAS, TICKETS},
    cluster::{Cluster, STORAGE, key},
    json::{entries, text},
};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::time::Instant;

const BY: &str = "longhorn";

/// Name of a volume's engine.
pub fn engine_name(volume: &str) -> String {
    format!("{volume}-e-0")
}

/// Name of the replica of a volume on a node.
pub fn replica_name(volume: &str, node: &str) -> String {
    format!("{volume}-r-{node}")
}

/// Name of the instance manager of a node.
pub fn manager_name(node: &str) -> String {
    format!("instance-manager-{node}")
}

/// Makes a volume that is attached to `node`, with replicas on these nodes, and keeps it going.
pub fn start(cluster: &Arc<Cluster>, volume: &str, node: &str, replicas: &[String], special: &Value) {
    let owners = json!({"longhornvolume": volume});
    let mut object = json!({
        "metadata": {"labels": owners},
        "spec": {"nodeID": node, "accessMode": "rwo", "dataEngine": "v1", "image": "engine:1", "size": "1073741824"},
        "status": {"state": "attached", "robustness": "healthy", "currentNodeID": node, "ownerID": node},
    });
    json_patch::merge(&mut object, special);
    cluster.add(LONGHORN_VOLUMES, STORAGE, volume, object);
    cluster.add(
        ENGINES,
        STORAGE,
        &engine_name(volume),
        json!({
            "metadata": {"labels": owners}, "spec": {"volumeName": volume, "nodeID": node, "active": true},
            "status": {"currentState": "running", "endpoint": format!("/dev/longhorn/{volume}")},
        }),
    );
    for on in replicas {
        cluster.add(
            REPLICAS,
            STORAGE,
            &replica_name(volume, on),
            json!({
                "metadata": {"labels": owners},
                "spec": {"volumeName": volume, "nodeID": on, "failedAt": "", "active": true},
                "status": {"currentState": "running"},
            }),
        );
    }
    let id = crate::cluster::attachment_name(volume, node);
    cluster.add(
        TICKETS,
        STORAGE,
        volume,
        json!({
            "metadata": {"labels": owners},
            "spec": {"volume": volume, "attachmentTickets": {&id: {"id": id, "type": "csi-attacher", "nodeID": node,
                "generation": 0, "parameters": {"disableFrontend": "false", "lastAttachedBy": ""}}}},
            "status": {"attachmentTicketStatuses": {&id: {"id": id, "satisfied": true, "generation": 0}}},
        }),
    );
    cluster.longhorn.count_engine(node, true);
    let session = cluster.longhorn.session(volume);
    session.send_replace(Some(Session { node: node.to_owned(), number: 0 }));
    let volume = Volume {
        cluster: cluster.clone(),
        name: volume.to_owned(),
        replicas: replicas.to_vec(),
        at: Some(node.to_owned()),
        number: 0,
        device_due: None,
    };
    tokio::spawn(volume.run());
}

struct Volume {
    cluster: Arc<Cluster>,
    name: String,
    /// Nodes of its replicas.
    replicas: Vec<String>,
    /// Where it is attached.
    at: Option<String>,
    number: u64,
    /// When the device is announced.
    device_due: Option<Instant>,
}

impl Volume {
    async fn run(mut self) {
        let mut news = self.cluster.store.news_of(TICKETS, &key(STORAGE, &self.name));
        loop {
            self.cluster.longhorn.managed().await;
            news.mark_unchanged();
            let tickets = self.tickets();
            match self.at.clone() {
                Some(node) if must_leave(&tickets, &node) => {
                    self.detach(&node).await;
                    continue;
                }
                Some(node) => self.say_satisfied(&node),
                None => {
                    if let Some(node) = first(&tickets) {
                        self.attach(&node).await;
                        continue;
                    }
                }
            }
            let due = self.device_due;
            tokio::select! {
                biased;
                changed = news.changed() => if changed.is_err() { return },
                () = async { tokio::time::sleep_until(due.unwrap_or_else(Instant::now)).await }, if due.is_some() => {
                    self.device_due = None;
                    let device = format!("/dev/longhorn/{}", self.name);
                    self.engine(|engine| engine["status"]["endpoint"] = json!(device));
                }
            }
        }
    }

    fn tickets(&self) -> Value {
        let tickets = self.cluster.store.get(TICKETS, &key(STORAGE, &self.name));
        tickets.map_or(Value::Null, |t| t.value["spec"]["attachmentTickets"].clone())
    }

    fn change(&self, change: impl FnOnce(&mut Value)) {
        self.cluster.store.change(BY, LONGHORN_VOLUMES, &key(STORAGE, &self.name), change);
    }

    fn engine(&self, change: impl FnOnce(&mut Value)) {
        self.cluster.store.change(BY, ENGINES, &key(STORAGE, &engine_name(&self.name)), change);
    }

    fn replicas(&self, change: impl Fn(&mut Value)) {
        for node in &self.replicas {
            self.cluster.store.change(BY, REPLICAS, &key(STORAGE, &replica_name(&self.name, node)), |replica| {
                if text(replica, "/spec/failedAt").is_empty() {
                    change(replica);
                }
            });
        }
    }

    async fn detach(&mut self, node: &str) {
        let timing = self.cluster.timing;
        self.device_due = None;
        self.cluster.witness.detaches(&self.name, node);
        self.change(|volume| {
            volume["spec"]["nodeID"] = json!("");
            volume["status"]["state"] = json!("detaching");
        });
        self.cluster.takes(timing.stop_engine, ("stop", &self.name, self.number)).await;
        self.cluster.longhorn.session(&self.name).send_replace(None);
        self.engine(|engine| {
            engine["spec"]["nodeID"] = json!("");
            engine["status"] = json!({"currentState": "stopped", "endpoint": ""});
        });
        self.cluster.takes(timing.detach, ("detach", &self.name, self.number)).await;
        self.replicas(|replica| replica["status"]["currentState"] = json!("stopped"));
        self.cluster.longhorn.count_engine(node, false);
        self.at = None;
        self.change(|volume| {
            volume["status"]["state"] = json!("detached");
            volume["status"]["robustness"] = json!("unknown");
            volume["status"]["currentNodeID"] = json!("");
        });
        self.say_satisfied("");
    }

    /// Waits, if need be for ever, for the instance manager of every replica that has not failed: one that was taken off a
    /// cordoned node neither starts its replicas nor fails them.
    async fn attach(&mut self, node: &str) {
        self.number += 1;
        let timing = self.cluster.timing;
        self.cluster.longhorn.count_engine(node, true);
        self.change(|volume| {
            volume["spec"]["nodeID"] = json!(node);
            volume["status"]["state"] = json!("attaching");
            volume["status"]["ownerID"] = json!(node);
        });
        self.engine(|engine| engine["spec"]["nodeID"] = json!(node));
        for on in std::iter::once(node).chain(self.replicas.iter().map(String::as_str)) {
            let replica = self.cluster.store.get(REPLICAS, &key(STORAGE, &replica_name(&self.name, on)));
            let failed = replica.is_some_and(|r| !text(&r.value, "/spec/failedAt").is_empty());
            if !failed {
                let up = |manager: &Value| text(manager, "/status/currentState") == "running";
                self.cluster.store.until(INSTANCE_MANAGERS, &key(STORAGE, &manager_name(on)), up).await;
            }
        }
        self.cluster.takes(timing.attach, ("attach", &self.name, self.number)).await;
        self.replicas(|replica| replica["status"]["currentState"] = json!("running"));
        self.engine(|engine| engine["status"]["currentState"] = json!("running"));
        let session = Session { node: node.to_owned(), number: self.number };
        self.cluster.longhorn.session(&self.name).send_replace(Some(session));
        self.at = Some(node.to_owned());
        self.change(|volume| {
            volume["status"]["state"] = json!("attached");
            volume["status"]["robustness"] = json!("healthy");
            volume["status"]["currentNodeID"] = json!(node);
        });
        self.device_due = Some(Instant::now() + timing.device);
    }

    /// Says of each request whether the volume is where it asks for it.
    fn say_satisfied(&self, node: &str) {
        self.cluster.store.change(BY, TICKETS, &key(STORAGE, &self.name), |object| {
            let tickets = entries(object, "/spec/attachmentTickets");
            let statuses = tickets.map(|(id, ticket)| {
                let here = !node.is_empty() && text(ticket, "/nodeID") == node;
                (id.clone(), json!({"id": id, "satisfied": here, "generation": ticket["generation"]}))
            });
            let statuses = statuses.collect::<serde_json::Map<_, _>>();
            object["status"]["attachmentTicketStatuses"] = Value::Object(statuses);
        });
    }
}

fn is_workload(ticket: &Value) -> bool {
    text(ticket, "/type") == "csi-attacher"
}

/// A backup's request gives way to one of a workload elsewhere.
fn gives_way(ticket: &Value) -> bool {
    matches!(text(ticket, "/type"), "backup-controller" | "snapshot-controller")
}

fn must_leave(tickets: &Value, node: &str) -> bool {
    let all = || tickets.as_object().into_iter().flatten().map(|(_, ticket)| ticket);
    let mut here = all().filter(|t| text(t, "/nodeID") == node).peekable();
    let elsewhere = all().any(|t| is_workload(t) && text(t, "/nodeID") != node);
    here.peek().is_none() || elsewhere && here.all(gives_way)
}

/// The node of the request that comes first: by priority, then by id.
fn first(tickets: &Value) -> Option<String> {
    let all = tickets.as_object().into_iter().flatten();
    let first = all.min_by_key(|(id, ticket)| (!is_workload(ticket), *id));
    first.map(|(_, ticket)| text(ticket, "/nodeID").to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_keeps_a_volume_until_a_workload_wants_it_elsewhere() {
        let csi = |node: &str| json!({"type": "csi-attacher", "nodeID": node});
        let backup = |node: &str| json!({"type": "backup-controller", "nodeID": node});
        assert!(!must_leave(&json!({"x": csi("a"), "y": csi("b")}), "a"), "in use here");
        assert!(!must_leave(&json!({"y": backup("a")}), "a"));
        assert!(must_leave(&json!({"x": csi("b"), "y": backup("a")}), "a"));
        assert!(!must_leave(&json!({"x": backup("b"), "y": backup("a")}), "a"));
        assert!(must_leave(&json!({}), "a"));
    }

    #[test]
    fn workloads_come_first_and_then_the_smaller_id() {
        let tickets = json!({"b": {"type": "csi-attacher", "nodeID": "n1"}, "c": {"type": "csi-attacher", "nodeID": "n2"},
            "a": {"type": "backup-controller", "nodeID": "n3"}});
        assert_eq!(first(&tickets).as_deref(), Some("n1"));
        assert_eq!(first(&json!({"a": {"type": "backup-controller", "nodeID": "n3"}})).as_deref(), Some("n3"));
        assert_eq!(first(&json!({})), None);
    }
}
