//! Which nodes can take a pod, and how well each suits it: what the extender tells the scheduler, by the same code over
//! caches filled for this one look.

use anyhow::bail;
use comfy_table::{Table, presets};
use handoff_cluster::ClusterCache;
use handoff_coordinator::{
    placement::{Judge, Wanted},
    score::Score,
};
use handoff_storage::{StorageManager, longhorn::Longhorn};
use hashbrown::HashMap;
use kube::Client;
use std::{sync::Arc, time::Duration};
use tokio::{task::JoinSet, time::Instant};

/// How long the first lists may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Prints a line per node for a pod with these claims; nothing when none of them is ours.
pub async fn print(client: &Client, longhorn: &str, namespace: &str, claims: &[String]) -> anyhow::Result<()> {
    let (cluster, tasks) = ClusterCache::of_nodes_and_volumes(client);
    let (storage, more) = Longhorn::new(client.clone(), longhorn, cluster.clone(), &(Arc::new(drop) as _));
    // they end with this function
    let mut watches = JoinSet::new();
    tasks.into_iter().chain(more).for_each(|(_, task)| drop(watches.spawn(task)));
    let until = Instant::now() + PATIENCE;
    loop {
        let missing = [cluster.missing(), storage.missing()].concat();
        if missing.is_empty() {
            break;
        }
        if Instant::now() >= until {
            bail!("no list of {}: is it allowed?", missing.join(", "));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let wanted = Wanted::of(&cluster.read(), storage.driver(), namespace, claims);
    if wanted.is_empty() {
        return Ok(());
    }
    let mut nodes = cluster.read().nodes().map(|n| n.name.clone()).collect::<Vec<_>>();
    nodes.sort();
    // bindings under way are known to the replicas only
    let judge = Judge::new(&cluster, &storage, &wanted, Box::new(HashMap::new as fn() -> _));
    let verdicts = nodes.into_iter().map(|node| {
        let verdict = judge.explain(&node);
        (node, verdict)
    });
    println!("\nnodes, as the scheduler would be told now:\n{}", table(verdicts.collect()));
    Ok(())
}

/// The best first, what cannot take the pod last.
fn table(mut verdicts: Vec<(String, Result<Score, String>)>) -> Table {
    verdicts.sort_by_key(|(_, verdict)| std::cmp::Reverse(verdict.as_ref().map_or(-1, |score| score.points)));
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["NODE", "SCORE", "WHY"]);
    for (node, verdict) in verdicts {
        let (score, why) = match verdict {
            Ok(Score { points, why }) => {
                (points.to_string(), why.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
            }
            Err(reason) => ("-".to_owned(), reason),
        };
        table.add_row([node, score, why]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use handoff_coordinator::score::Why;

    #[test]
    fn the_best_node_comes_first_and_each_has_its_reason() {
        let verdicts = vec![
            ("a".to_owned(), Err("no Longhorn instance manager runs on a".to_owned())),
            ("b".to_owned(), Ok(Score { points: 0, why: vec![Why::Leaving] })),
            ("c".to_owned(), Ok(Score { points: 8, why: vec![Why::Local { local: 1, of: 1 }, Why::Attaching(2)] })),
        ];
        let text = table(verdicts).to_string();
        let lines = text.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>();
        assert_eq!(
            lines,
            [
                "NODE SCORE WHY",
                "c 8 good replica of 1 of 1, 2 being attached",
                "b 0 the node is cordoned, not ready or about to go",
                "a - no Longhorn instance manager runs on a",
            ]
        );
    }
}
