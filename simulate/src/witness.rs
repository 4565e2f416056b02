//! Who looks on: holds everything that is done against the invariants of docs/design.md, and keeps the story.

use crate::{
    api::{
        Onlooker, Refusal, Write,
        resource::{
            ATTACHMENTS, BACKUPS, CONFIG_MAPS, EVENTS, HANDOFFS, LEASES, LONGHORN_VOLUMES, NODES, PODS, Resource,
            TICKETS,
        },
    },
    json::{entries, is_ready, text},
    longhorn::{MARK, Target},
    time::Time,
};
use handoff_cluster::ObjectKey;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// No pod is held longer than this (invariant 5), and the second or so that a review takes.
const LONGEST_HOLD: Duration = Duration::from_millis(101_500);
/// A pre-stage expires after 120 s; its withdrawal may meet a leader that is being replaced, or that nobody answers for
/// a minute.
const LONGEST_PRESTAGE: Duration = Duration::from_secs(200);
/// Replicas of Handoff write under names that begin like this.
pub const REPLICA: &str = "handoff-";

/// Who looks on.
pub struct Witness {
    time: Time,
    target: Target,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    story: Vec<String>,
    broken: Vec<String>,
    /// Pod UID → its first denial.
    held: BTreeMap<String, Duration>,
    /// How much longer things may take because clocks are wrong.
    tolerance: Duration,
    /// Volume → node and pod that have it mounted.
    mounted: BTreeMap<String, BTreeSet<(String, String)>>,
    /// (volume, node) → since when a ticket of ours is there.
    prestages: BTreeMap<(String, String), Duration>,
    /// Backup → how often its record in the target was looked at.
    looks: BTreeMap<String, usize>,
    /// Backups that were reset although nobody had looked, until a run overwrites their record or somebody has.
    unseen: BTreeSet<String>,
    /// Pod → when it was last seen to become ready.
    ready: BTreeMap<String, Duration>,
    /// Backup → when it was first complete.
    completed: BTreeMap<String, Duration>,
}

impl Witness {
    /// Sees nothing yet.
    pub fn new(time: Time, target: Target) -> Arc<Self> {
        Arc::new(Self { time, target, seen: Mutex::default() })
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What happened, one line each.
    pub fn story(&self) -> String {
        self.seen().story.join("\n")
    }

    /// Invariants that did not hold.
    pub fn broken(&self) -> Vec<String> {
        self.seen().broken.clone()
    }

    /// The clocks of replicas may differ by this much: what one of them has written down ends later for another.
    pub fn tolerate(&self, difference: Duration) {
        self.seen().tolerance = difference;
    }

    /// Something that a run has to say.
    pub fn note(&self, what: &str) {
        let at = self.time.passed().as_secs_f64();
        self.seen().story.push(format!("{at:9.3} {what}"));
    }

    /// An invariant does not hold.
    pub fn breaks(&self, what: &str) {
        self.note(&format!("BROKEN: {what}"));
        self.seen().broken.push(what.to_owned());
    }

    /// When the pod became ready last.
    pub fn ready_at(&self, pod: &str) -> Option<Duration> {
        self.seen().ready.get(pod).copied()
    }

    /// When the backup was first complete.
    pub fn completed_at(&self, backup: &str) -> Option<Duration> {
        self.seen().completed.get(backup).copied()
    }

    /// A pod has a volume mounted from now on.
    pub fn mounted(&self, volume: &str, node: &str, pod: &str) {
        let others = {
            let mut seen = self.seen();
            let mounts = seen.mounted.entry(volume.to_owned()).or_default();
            mounts.insert((node.to_owned(), pod.to_owned()));
            mounts.iter().any(|(other, _)| other != node)
        };
        self.note(&format!("kubelet {node}: {pod} has {volume}"));
        if others {
            self.breaks(&format!("two writers: {volume} is mounted on {node} and elsewhere (invariant 6)"));
        }
    }

    /// It has it no more.
    pub fn unmounted(&self, volume: &str, node: &str, pod: &str) {
        if let Some(mounts) = self.seen().mounted.get_mut(volume) {
            mounts.remove(&(node.to_owned(), pod.to_owned()));
        }
        self.note(&format!("kubelet {node}: {pod} has left {volume}"));
    }

    /// Longhorn begins to detach a volume.
    pub fn detaches(&self, volume: &str, node: &str) {
        let used = self.seen().mounted.get(volume).is_some_and(|m| m.iter().any(|(on, _)| on == node));
        if used {
            self.breaks(&format!("{volume} is taken off {node} under a pod that has it mounted (invariant 6)"));
        }
    }

    /// Longhorn has looked at the record of a backup.
    pub fn looked(&self, backup: &str) {
        *self.seen().looks.entry(backup.to_owned()).or_default() += 1;
    }

    /// A run of a backup begins to write its record anew. Until then a reset has spoilt nothing: a run that does not reach
    /// the target leaves the record as it is.
    pub fn begins(&self, backup: &str) {
        if self.seen().unseen.remove(backup) {
            self.breaks(&format!(
                "backup {backup} was run anew and nobody had looked whether it is complete (invariant 2)"
            ));
        }
    }

    /// What is to be so when a history is over, whatever was done to it.
    pub fn at_the_end(&self) {
        let left = self.seen().prestages.keys().cloned().collect::<Vec<_>>();
        for (volume, node) in left {
            self.breaks(&format!("a pre-stage of {volume} on {node} is left (invariant 3)"));
        }
    }

    fn tickets(&self, write: &Write<'_>) {
        let (before, after) = (tickets_of(write.before), tickets_of(write.after));
        let volume = write.key.name.clone();
        let ours = |t: &BTreeMap<String, Value>| {
            let ours = t.values().filter(|t| text(t, "/parameters/lastAttachedBy") == MARK);
            ours.map(|t| text(t, "/nodeID").to_owned()).collect::<BTreeSet<_>>()
        };
        let (was, is) = (ours(&before), ours(&after));
        let now = self.time.passed();
        let mut broken = Vec::new();
        {
            let mut seen = self.seen();
            for node in was.difference(&is) {
                let since = seen.prestages.remove(&(volume.clone(), node.clone())).unwrap_or(now);
                if now.saturating_sub(since) > LONGEST_PRESTAGE + seen.tolerance {
                    broken.push(format!("the pre-stage of {volume} on {node} outlived its expiry (invariant 3)"));
                }
            }
            for node in is.difference(&was) {
                seen.prestages.insert((volume.clone(), node.clone()), now);
            }
        }
        if is.len() > 1 && is != was {
            broken.push(format!("{volume} has {} pre-stages of ours (invariant 3)", is.len()));
        }
        if write.by.starts_with(REPLICA) {
            for (id, ticket) in &before {
                let foreign = text(ticket, "/parameters/lastAttachedBy") != MARK;
                if foreign && after.get(id) != Some(ticket) {
                    broken.push(format!("{} changed the request {id} of {volume} (invariant 4)", write.by));
                }
            }
            for (id, ticket) in &after {
                if !before.contains_key(id) && text(ticket, "/parameters/lastAttachedBy") != MARK {
                    broken.push(format!("{} added a request without its mark to {volume} (invariant 4)", write.by));
                }
            }
        }
        broken.iter().for_each(|what| self.breaks(what));
    }

    fn backup(&self, write: &Write<'_>) {
        let (Some(before), Some(after)) = (write.before, write.after) else {
            return self.breaks(&format!("{} made or deleted backup {} (invariant 4)", write.by, write.key.name));
        };
        let name = &write.key.name;
        let reset = text(after, "/status/state").is_empty() && !text(before, "/status/state").is_empty();
        if reset && self.target.record(name).complete && self.target.is_reachable() {
            self.breaks(&format!("backup {name} was reset although its upload is complete (invariant 2)"));
        }
        if reset {
            let mut seen = self.seen();
            match seen.looks.remove(name) {
                Some(_) => seen.unseen.remove(name),
                None => seen.unseen.insert(name.clone()),
            };
        }
        let mut same = after.clone();
        same["metadata"]["resourceVersion"] = before["metadata"]["resourceVersion"].clone();
        same["spec"]["syncRequestedAt"] = before["spec"]["syncRequestedAt"].clone();
        if reset {
            same["status"] = before["status"].clone();
        }
        if same != *before {
            self.breaks(&format!(
                "{} changed backup {name} in another way than to ask or to reset (invariant 4)",
                write.by
            ));
        }
    }

    /// Only what a replica may do.
    fn of_replica(&self, write: &Write<'_>) {
        let allowed = [LEASES, EVENTS, CONFIG_MAPS, HANDOFFS, TICKETS, BACKUPS, ATTACHMENTS, PODS];
        if !allowed.contains(&write.resource) {
            self.breaks(&format!("{} wrote {} {} (invariant 4)", write.by, write.resource.plural, write.key));
        }
        if write.resource == BACKUPS {
            self.backup(write);
        }
        if write.resource == PODS || write.resource == ATTACHMENTS {
            let parts = |value: Option<&Value>| value.map(|v| (v["spec"].clone(), v["status"].clone()));
            if write.after.is_some() && parts(write.before) != parts(write.after) {
                self.breaks(&format!("{} changed {} {} (invariant 4)", write.by, write.resource.plural, write.key));
            }
        }
    }
}

impl Onlooker for Witness {
    fn wrote(&self, write: &Write<'_>) {
        if let Some(line) = line(write) {
            self.note(&line);
        }
        if write.resource == TICKETS {
            self.tickets(write);
        }
        if write.by.starts_with(REPLICA) {
            self.of_replica(write);
        }
        if write.resource == PODS && write.after.is_some_and(is_ready) && !write.before.is_some_and(is_ready) {
            self.seen().ready.insert(write.key.name.clone(), self.time.passed());
        }
        if write.resource == BACKUPS && write.after.is_some_and(|b| text(b, "/status/state") == "Completed") {
            self.seen().completed.entry(write.key.name.clone()).or_insert(self.time.passed());
        }
    }

    fn refused(&self, pod: &ObjectKey, uid: &str, refusal: &Refusal) {
        let now = self.time.passed();
        let (first, tolerance) = {
            let mut seen = self.seen();
            (*seen.held.entry(uid.to_owned()).or_insert(now), seen.tolerance)
        };
        self.note(&format!("eviction of {pod} refused: {}", refusal.message));
        if now.saturating_sub(first) > LONGEST_HOLD + tolerance {
            let held = now.saturating_sub(first).as_secs();
            self.breaks(&format!("{pod} is still held after {held} s (invariant 5)"));
        }
    }
}

fn tickets_of(value: Option<&Value>) -> BTreeMap<String, Value> {
    let tickets = value.into_iter().flat_map(|v| entries(v, "/spec/attachmentTickets"));
    tickets.map(|(id, ticket)| (id.clone(), ticket.clone())).collect()
}

/// What a write is in the story. Renewals, reports and Events are left out.
fn line(write: &Write<'_>) -> Option<String> {
    let Write { by, resource, key, before, after } = write;
    if [LEASES, EVENTS, NODES].contains(resource) {
        return None;
    }
    let what = match (before, after) {
        (None, _) => "made".to_owned(),
        (_, None) => "removed".to_owned(),
        (Some(before), Some(after)) => {
            let mut changes = String::new();
            if *resource == TICKETS {
                changed_requests(&tickets_of(Some(before)), &tickets_of(Some(after)), &mut changes);
            } else {
                changed(before, after, "", &mut changes);
            }
            if changes.is_empty() {
                return None;
            }
            changes
        }
    };
    Some(format!("{by}: {} {}: {what}", named(*resource), key.name))
}

fn named(resource: Resource) -> &'static str {
    if resource == TICKETS {
        "requests of"
    } else if resource == LONGHORN_VOLUMES {
        "volume"
    } else {
        resource.kind
    }
}

/// Requests that came, went, or are somebody else's now: `+n01 (ours)`.
fn changed_requests(before: &BTreeMap<String, Value>, after: &BTreeMap<String, Value>, out: &mut String) {
    let whose = |ticket: &Value| match (text(ticket, "/type"), text(ticket, "/parameters/lastAttachedBy")) {
        (_, MARK) => "ours",
        ("csi-attacher", _) => "CSI's",
        _ => "a backup's",
    };
    let mut say = |sign: &str, ticket: &Value| {
        let space = if out.is_empty() { "" } else { ", " };
        let _ = write!(out, "{space}{sign}{} ({})", text(ticket, "/nodeID"), whose(ticket));
    };
    for (_, ticket) in before.iter().filter(|(id, _)| !after.contains_key(*id)) {
        say("-", ticket);
    }
    for (id, ticket) in after {
        let known = before.get(id).map(|known| (text(known, "/nodeID"), whose(known)));
        if known != Some((text(ticket, "/nodeID"), whose(ticket))) {
            say("+", ticket);
        }
    }
}

/// The leaves that are different, shortened; those that say nothing to a reader are left out.
fn changed(before: &Value, after: &Value, path: &str, out: &mut String) {
    if let (Value::Object(b), Value::Object(a)) = (before, after) {
        for key in b.keys().chain(a.keys().filter(|key| !b.contains_key(*key))) {
            let dull = matches!(
                key.as_str(),
                "resourceVersion" | "timeline" | "conditions" | "message" | "attachmentTicketStatuses"
            );
            if !dull {
                let name = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                changed(b.get(key).unwrap_or(&Value::Null), a.get(key).unwrap_or(&Value::Null), &name, out);
            }
        }
    } else if before != after {
        let text = after.to_string();
        let short = text.char_indices().nth(60).map_or(text.as_str(), |(end, _)| &text[..end]);
        let path = path.trim_start_matches("metadata.").trim_start_matches("status.").trim_start_matches("spec.");
        let _ = write!(out, "{}{path}={short}", if out.is_empty() { "" } else { ", " });
    }
}
