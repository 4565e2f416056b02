//! Longhorn, by the rules that were read in its source and seen on the real one.

mod backup;
mod controllers;
pub mod csi;
mod manager;
mod target;
mod volume;

pub use target::{BLOCK, Record, Target, start as start_target};

use crate::{
    api::{
        Refusal,
        resource::{Resource, TICKETS},
    },
    cluster::Cluster,
    json::{entries, text},
};
use handoff_storage::{PreStageGate, longhorn::gates_of};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::watch;

/// Our mark on tickets, as the coordinator writes it.
pub const MARK: &str = "volumehandoff.io";

/// A release of Longhorn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// As its setting says, such as `v1.10.0`.
    pub version: String,
    /// `ControllerUnpublish` waits until the engine has left the node (longhorn/longhorn#10171).
    pub waits: bool,
}

impl Release {
    /// The release of this version, such as `1.8.0`, if it is one that Handoff knows.
    pub fn known(version: &str) -> Option<Self> {
        let release = Self::of(version);
        (gates_of(&release.version).prestage != PreStageGate::Off).then_some(release)
    }

    /// The release of this version, such as `1.8.0`.
    pub fn of(version: &str) -> Self {
        let version = version.trim_start_matches('v');
        let waits = matches!(version, "1.7.0" | "1.7.1" | "1.7.2" | "1.8.0");
        Self { version: format!("v{version}"), waits }
    }
}

/// An engine that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Where.
    pub node: String,
    /// Which time it runs: every attach makes another one.
    pub number: u64,
}

/// What Longhorn knows and does not write into objects.
pub struct Longhorn {
    /// The release.
    pub release: Release,
    /// The backup target.
    pub target: Target,
    sessions: Mutex<BTreeMap<String, Arc<watch::Sender<Option<Session>>>>>,
    /// Node → engines that run, start or stop there.
    engines: watch::Sender<BTreeMap<String, usize>>,
    /// Which of the attachers leads, if one does.
    attacher: watch::Sender<Option<usize>>,
    /// The pods of longhorn-manager run.
    managers: watch::Sender<bool>,
}

impl Longhorn {
    /// Before anything was made.
    pub fn new(release: Release) -> Self {
        let engines = watch::Sender::new(BTreeMap::new());
        let attacher = watch::Sender::new(Some(0));
        let managers = watch::Sender::new(true);
        Self { release, target: Target::default(), sessions: Mutex::default(), engines, attacher, managers }
    }

    /// The engine of a volume.
    fn session(&self, volume: &str) -> Arc<watch::Sender<Option<Session>>> {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.entry(volume.to_owned()).or_insert_with(|| Arc::new(watch::Sender::new(None))).clone()
    }

    /// No attacher leads from now on.
    pub fn attachers_go(&self) {
        self.attacher.send_replace(None);
    }

    /// The first attacher leads again.
    pub fn attachers_come_back(&self) {
        self.attacher.send_replace(Some(0));
    }

    /// Waits until an attacher leads.
    pub async fn attacher_leads(&self) {
        // the sender is ours: there is no error
        let _ = self.attacher.subscribe().wait_for(Option::is_some).await;
    }

    /// All pods of longhorn-manager end, or are there again. Engines and replicas live elsewhere and go on.
    pub fn managers_run(&self, run: bool) {
        self.managers.send_replace(run);
    }

    /// Waits until managers run.
    async fn managed(&self) {
        // the sender is ours: there is no error
        let _ = self.managers.subscribe().wait_for(|run| *run).await;
    }

    fn count_engine(&self, node: &str, up: bool) {
        self.engines.send_modify(|engines| {
            let count = engines.entry(node.to_owned()).or_default();
            *count = if up { *count + 1 } else { count.saturating_sub(1) };
        });
    }
}

pub use backup::{Upload, start as start_backup};
pub use controllers::start as start_controllers;
pub use manager::start as start_manager;
pub use volume::{replica_name, start as start_volume};

/// Longhorn's admission of attach requests (longhorn-manager `webhook/resources/volumeattachment`): the key of a ticket
/// is its id, and a ticket that is not as before has another generation.
pub fn guard(resource: Resource, before: &Value, after: &mut Value) -> Result<(), Refusal> {
    if resource != TICKETS {
        return Ok(());
    }
    if entries(after, "/spec/attachmentTickets").any(|(id, ticket)| text(ticket, "/id") != id) {
        return Err(Refusal::invalid("inconsistent attachment ticket ID"));
    }
    let old = before.pointer("/spec/attachmentTickets").cloned().unwrap_or_default();
    let statuses = before.pointer("/status/attachmentTicketStatuses").cloned().unwrap_or_default();
    let tickets = after.pointer_mut("/spec/attachmentTickets").and_then(Value::as_object_mut);
    for (id, ticket) in tickets.into_iter().flatten() {
        let generation = match (old.get(id), statuses.get(id)) {
            (Some(known), _) if *known == *ticket => continue,
            (Some(known), _) => known["generation"].as_i64().unwrap_or(0) + 1,
            (None, Some(status)) => status["generation"].as_i64().unwrap_or(0) + 1,
            (None, None) => 0,
        };
        ticket["generation"] = json!(generation);
    }
    Ok(())
}

/// Changes the attach requests of a volume as Longhorn's own parts do, through its own admission.
fn change_tickets(cluster: &Cluster, by: &str, volume: &str, change: impl FnOnce(&mut serde_json::Map<String, Value>)) {
    let key = crate::cluster::key(crate::cluster::STORAGE, volume);
    // a volume that is gone has no requests
    let _ = cluster.store.try_change(by, TICKETS, &key, |object| {
        let before = object.clone();
        if let Some(tickets) = object.pointer_mut("/spec/attachmentTickets").and_then(Value::as_object_mut) {
            change(tickets);
        }
        guard(TICKETS, &before, object)
    });
}
