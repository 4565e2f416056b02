//! The parts of Kubernetes that a move goes through, each a task that takes the time the real one takes.

mod agent;
mod attach;
mod attacher;
mod drain;
mod kubelet;
mod node;
mod scheduler;
mod workload;

pub use drain::{Drained, cordon, delete_pod, drain, uncordon};
pub use node::fall_silent;
pub use workload::{Controller, Workload, scale};

use crate::cluster::Cluster;
use std::sync::Arc;

/// Starts what runs once in a cluster, and the kubelets of these nodes, with or without Handoff's agent beside them.
pub fn start(cluster: &Arc<Cluster>, nodes: &[String], agents: bool) {
    tokio::spawn(attach::run(cluster.clone()));
    tokio::spawn(attacher::run(cluster.clone()));
    tokio::spawn(scheduler::run(cluster.clone()));
    for node in nodes {
        kubelet::start(cluster, node, agents);
    }
}
