//! Answers for the extender, from memory.

use crate::{
    shell::Coordinator,
    verdicts::{NodeFitness, NodeJudge, Placement},
};
use handoff_cluster::Volume;
use std::sync::Arc;

impl Placement for Coordinator {
    fn judge(&self, namespace: &str, claims: &[String]) -> Option<Box<dyn NodeJudge + '_>> {
        let volumes = self.volumes(namespace, claims);
        if volumes.is_empty() {
            return None;
        }
        let views = volumes.iter().filter_map(|v| self.storage.volume(&v.handle)).collect::<Vec<_>>();
        let replicas = views.iter().flat_map(|v| v.replicas.iter().filter(|r| !r.failed).map(|r| r.node.clone()));
        let staged = views.iter().flat_map(|v| v.requests.iter().filter(|r| r.ours).map(|r| r.node.clone()));
        Some(Box::new(Judge { replicas: replicas.collect(), staged: staged.collect(), volumes, coordinator: self }))
    }
}

struct Judge<'a> {
    coordinator: &'a Coordinator,
    volumes: Vec<Arc<Volume>>,
    replicas: Vec<String>,
    staged: Vec<String>,
}

impl NodeJudge for Judge<'_> {
    fn node(&self, node: &str) -> NodeFitness {
        // a volume that the storage manager does not know says nothing about a node (fail-open)
        let known = self.volumes.iter().filter(|v| self.coordinator.storage.volume(&v.handle).is_some());
        for volume in known {
            if let Err(reason) = self.coordinator.storage.can_host(&volume.handle, node) {
                return NodeFitness::Unfit { reason };
            }
        }
        let at = |nodes: &[String]| nodes.iter().any(|n| n == node);
        let score = if at(&self.staged) {
            10
        } else if at(&self.replicas) {
            5
        } else {
            0
        };
        NodeFitness::Fits { score }
    }
}
