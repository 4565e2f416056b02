//! One look at a cluster: the caches that `handoff serve` works on, filled once. What is said about nodes then comes
//! from the very code that tells the scheduler.

use super::{connection::Cluster, output::Progress};
use anyhow::{Context, bail};
use handoff_cluster::ClusterCache;
use handoff_coordinator::{
    api::VolumeHandoff,
    placement::{Judge, Wanted},
    score::Score,
};
use handoff_storage::{StorageManager, longhorn::Longhorn};
use hashbrown::HashMap;
use kube::api::ListParams;
use serde::Serialize;
use std::{sync::Arc, time::Duration};
use tokio::{task::JoinSet, time::Instant};

/// How long the first lists may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// The caches, as they are filled once.
pub struct Look {
    /// Nodes, volumes, claims, classes and namespaces; no pods.
    pub cluster: ClusterCache,
    /// Longhorn.
    pub storage: Longhorn,
    /// They end with this.
    _watches: JoinSet<()>,
}

impl Look {
    /// Fills the caches.
    pub async fn at(cluster: &Cluster) -> anyhow::Result<Self> {
        let client = &cluster.client;
        let (index, tasks) = ClusterCache::of_nodes_and_volumes(client);
        let (storage, more) = Longhorn::new(client.clone(), &cluster.longhorn, index.clone(), &(Arc::new(drop) as _));
        let mut watches = JoinSet::new();
        tasks.into_iter().chain(more).for_each(|(_, task)| drop(watches.spawn(task)));
        let until = Instant::now() + PATIENCE;
        let mut progress = Progress::default();
        loop {
            let missing = [index.missing(), storage.missing()].concat();
            if missing.is_empty() {
                break;
            }
            if Instant::now() >= until {
                bail!("no list of {}: is it allowed?", missing.join(", "));
            }
            progress.say(&format!("waiting for {}", missing.join(", ")));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(Self { cluster: index, storage, _watches: watches })
    }

    /// Every node as the scheduler would be told now for a pod with these claims, if Handoff is enabled for them, the
    /// best first; empty when none of the claims is ours.
    pub fn judge(&self, namespace: &str, claims: &[String]) -> Vec<NodeVerdict> {
        let wanted = Wanted::of(&self.cluster.read(), self.storage.driver(), namespace, claims);
        if wanted.is_empty() {
            return Vec::new();
        }
        // bindings under way are known to the replicas only
        let judge = Judge::new(&self.cluster, &self.storage, &wanted, Box::new(HashMap::new as fn() -> _));
        let nodes = self.cluster.read().nodes().map(|n| n.name.clone()).collect::<Vec<_>>();
        let mut verdicts = nodes.iter().map(|node| NodeVerdict::of(node, judge.explain(node))).collect::<Vec<_>>();
        verdicts.sort_by(|a, b| b.score.cmp(&a.score).then_with(|| a.node.cmp(&b.node)));
        verdicts
    }
}

/// What the scheduler is told of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeVerdict {
    /// The node.
    pub node: String,
    /// 0–10; none: it cannot take the pod.
    pub score: Option<i64>,
    /// Why.
    pub why: String,
}

impl NodeVerdict {
    fn of(node: &str, verdict: Result<Score, String>) -> Self {
        let (score, why) = match verdict {
            Ok(Score { points, why }) => {
                (Some(points), why.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
            }
            Err(reason) => (None, reason),
        };
        Self { node: node.to_owned(), score, why }
    }
}

/// All handoffs, or those of a namespace.
pub async fn handoffs(cluster: &Cluster, namespace: Option<&str>) -> anyhow::Result<Vec<VolumeHandoff>> {
    let list = cluster.objects::<VolumeHandoff>(namespace).list(&ListParams::default()).await;
    Ok(list.context("cannot list VolumeHandoffs: is Handoff installed?")?.items)
}

#[cfg(test)]
mod tests {
    use super::*;
    use handoff_coordinator::score::Why;

    #[test]
    fn each_verdict_has_its_reason() {
        let refused = NodeVerdict::of("a", Err("no Longhorn instance manager runs on a".to_owned()));
        assert_eq!((refused.score, refused.why.as_str()), (None, "no Longhorn instance manager runs on a"));
        let why = vec![Why::Local { local: 1, of: 1 }, Why::Attaching(2)];
        let taken = NodeVerdict::of("c", Ok(Score { points: 8, why }));
        assert_eq!((taken.score, taken.why.as_str()), (Some(8), "good replica of 1 of 1, 2 being attached"));
    }
}
