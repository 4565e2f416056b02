//! The questions that the serving side (webhook, extender) asks. They are answered from memory; the only write
//! behind them is the checkpoint of an eviction or a deletion, one object of ours. Traits, so that the HTTP layers
//! are tested without a cluster.

use futures::future::BoxFuture;
pub use handoff_cluster::settings::{self, Settings};
use std::collections::HashSet;

/// A pod as a review names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodRef {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub name: String,
    /// UID, when the review carries one (`preconditions.uid` of an eviction, `oldObject.metadata.uid` of a deletion).
    pub uid: Option<String>,
}

/// A pod that is being deleted, as its review shows it: the cache may not know it yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeletedPod {
    /// Which one.
    pub pod: PodRef,
    /// The node it is on.
    pub node: Option<String>,
    /// Its annotations of ours.
    pub settings: Settings,
    /// Its claims.
    pub claims: Vec<String>,
}

/// What happens to an eviction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EvictionVerdict {
    /// Let it through. The text becomes an admission warning, if there is one.
    Allow {
        /// One line for the person who drains, e.g. which backups are checkpointed.
        note: Option<String>,
    },
    /// Answer 429: not yet.
    Hold {
        /// Why, until when, and what ends it; shown by `kubectl drain`.
        message: String,
    },
    /// Answer 404: this pod has been moved already.
    Gone {
        /// Where it went.
        message: String,
    },
}

/// A node that a new pod should prefer, with a weight of 1–100.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreferredNode {
    /// Node name (the value of the label `kubernetes.io/hostname` is not used: names are matched by `metadata.name`).
    pub name: String,
    /// Weight 1–100 of `preferredDuringSchedulingIgnoredDuringExecution`.
    pub weight: i32,
}

/// A pod that is about to be created.
#[derive(Clone, Debug)]
pub struct NewPod<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its annotations of ours.
    pub settings: Settings,
    /// The claims it names.
    pub claims: &'a [String],
    /// Claims that will be made for it (ephemeral volumes). When the pod has a name they are in `claims` too.
    pub templates: &'a [ClaimTemplate],
}

/// A claim that will be made from a pod's own template.
#[derive(Clone, Debug, Default)]
pub struct ClaimTemplate {
    /// Storage class; `None` is the default class.
    pub class: Option<String>,
    /// Annotations of ours in the template.
    pub settings: Settings,
}

/// What a new pod is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodPlan {
    /// Nodes to prefer; empty when there is nothing to say.
    pub nodes: Vec<PreferredNode>,
    /// It has volumes that Handoff cares for: a scheduler tier, where one is on, is to see it.
    pub ours: bool,
    /// For whoever creates the pod.
    pub warnings: Vec<String>,
}

/// What happens to the deletion of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotVerdict {
    /// Let it through. The text becomes an admission warning, if there is one.
    Allow {
        /// What is lost by it.
        note: Option<String>,
    },
    /// Answer 409: an owed backup needs it.
    Needed {
        /// Which handoff needs it, until when, and how to delete it all the same.
        message: String,
    },
}

/// Asked by the webhook.
pub trait Admission: Send + Sync + 'static {
    /// A pod is to be created: what it is given. From memory.
    fn create(&self, pod: &NewPod<'_>) -> PodPlan;
    /// A pod is to be evicted. `dry_run`: decide, but write nothing.
    fn evict(&self, pod: PodRef, dry_run: bool) -> BoxFuture<'_, EvictionVerdict>;
    /// A pod of the storage manager, or one of ours, is to be evicted (storage leaves last).
    fn evict_storage(&self, pod: PodRef, dry_run: bool) -> BoxFuture<'_, EvictionVerdict>;
    /// A pod is being deleted in another way: checkpoint what is in flight. Nobody waits for it.
    fn delete(&self, pod: DeletedPod, dry_run: bool) -> BoxFuture<'_, ()>;
    /// A pod is being bound to `node`: its volumes will be wanted there.
    fn bind(&self, pod: PodRef, node: String, dry_run: bool) -> BoxFuture<'_, ()>;
    /// A snapshot of the storage manager is to be deleted. From memory.
    fn delete_snapshot(&self, namespace: &str, name: &str) -> SnapshotVerdict;
}

/// Asked by the extender.
pub trait Placement: Send + Sync + 'static {
    /// Everything needed to judge nodes for one pod with these annotations and claims, looked up once per call. `None`:
    /// none of the claims are on a driver of ours and opted in, or too little is known at the moment: every node passes
    /// with score 0.
    fn judge(&self, pod: &PodRef, settings: &Settings, claims: &[String]) -> Option<Box<dyn NodeJudge + '_>>;
    /// The scheduler was told that none of `nodes` can take the pod. It is woken when one of them can.
    fn rejected(&self, pod: PodRef, claims: Vec<String>, nodes: Vec<String>);
    /// UIDs of the pods that use a volume with a backup in flight and are opted in.
    fn busy_pods(&self) -> HashSet<String>;
    /// Asks for the pod's volumes on `node`, then binds the pod; a pod that is bound to it already is bound. The error
    /// is for the scheduler's log.
    fn bind_pod(&self, pod: PodRef, node: String) -> BoxFuture<'_, Result<(), String>>;
}

/// Judges nodes by name for one pod.
pub trait NodeJudge: Send {
    /// Whether the pod's volumes can be attached on `node`. The reason if not is shown in the pod's FailedScheduling
    /// event, e.g. `no Longhorn instance manager runs on node-2`. A node that nothing is known of fits (fail-open).
    fn fits(&self, node: &str) -> Result<(), String>;
    /// How well `node` suits them, 0–10, the scheduler's extender scale: higher is better. What does not fit has 0.
    fn score(&self, node: &str) -> i64;
}
