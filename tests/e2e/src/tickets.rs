//! Attach requests ("attachment tickets") of one volume: read, counted over time, and put there as others would.

use crate::{
    cluster::{Cluster, LH_ATTACHMENT, Read},
    observer::PRESTAGE_MARK,
};
use anyhow::Result;
use futures::{StreamExt, TryStreamExt};
use kube::runtime::{WatchStreamExt, watcher};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use tokio::task::JoinSet;

const DRIVER: &str = "driver.longhorn.io";

/// The id of the CSI driver's ticket for a node, which is that of a pre-stage too.
pub fn id(handle: &str, node: &str) -> String {
    format!("csi-{:x}", Sha256::digest(format!("{handle}{DRIVER}{node}")))
}

/// All tickets of a volume.
pub async fn all(cluster: &Cluster, handle: &str) -> Result<Vec<Value>> {
    Ok(tickets(&cluster.get(&LH_ATTACHMENT, &cluster.longhorn, handle).await?))
}

/// Those of one of Longhorn's attachments.
pub fn tickets(attachment: &Value) -> Vec<Value> {
    let all = attachment.pointer("/spec/attachmentTickets").and_then(Value::as_object);
    all.into_iter().flat_map(|tickets| tickets.values()).cloned().collect()
}

/// A pre-stage: it carries Handoff's mark.
pub fn is_ours(ticket: &Value) -> bool {
    ticket.text("/parameters/lastAttachedBy") == PRESTAGE_MARK
}

/// Nodes of our pre-stages of a volume.
pub async fn ours(cluster: &Cluster, handle: &str) -> Result<Vec<String>> {
    let all = all(cluster, handle).await?;
    Ok(all.iter().filter(|t| is_ours(t)).map(|t| t.text("/nodeID").to_owned()).collect())
}

/// Adds or replaces a ticket.
pub async fn put(cluster: &Cluster, handle: &str, ticket: &Value) -> Result<()> {
    let patch = json!({"spec": {"attachmentTickets": {ticket.text("/id"): ticket}}});
    cluster.merge(&LH_ATTACHMENT, &cluster.longhorn, handle, &patch).await
}

/// Removes a ticket; one that is not there is no error.
pub async fn remove(cluster: &Cluster, handle: &str, id: &str) -> Result<()> {
    let patch = json!({"spec": {"attachmentTickets": {id: null}}});
    cluster.merge(&LH_ATTACHMENT, &cluster.longhorn, handle, &patch).await
}

/// A ticket as somebody would have left it.
pub fn ticket(id: &str, kind: &str, node: &str, by: &str) -> Value {
    json!({"id": id, "type": kind, "nodeID": node, "generation": 0,
        "parameters": {"disableFrontend": "false", "lastAttachedBy": by}})
}

/// Counts our pre-stages of a volume at each change of its attach requests.
pub struct Census {
    most: Arc<AtomicUsize>,
    _task: JoinSet<()>,
}

impl Census {
    /// Starts counting.
    pub fn start(cluster: &Cluster, handle: &str) -> Self {
        let (most, mut task) = (Arc::new(AtomicUsize::new(0)), JoinSet::new());
        let config = watcher::Config::default().fields(&format!("metadata.name={handle}"));
        let mut stream =
            watcher(cluster.api(&LH_ATTACHMENT, &cluster.longhorn), config).default_backoff().applied_objects().boxed();
        let seen = most.clone();
        task.spawn(async move {
            loop {
                match stream.try_next().await {
                    Ok(Some(object)) => {
                        let object = serde_json::to_value(object).unwrap_or_default();
                        seen.fetch_max(tickets(&object).iter().filter(|t| is_ours(t)).count(), Ordering::Relaxed);
                    }
                    Ok(None) => return,
                    Err(error) => eprintln!("  (a watch was interrupted: {error})"),
                }
            }
        });
        Self { most, _task: task }
    }

    /// The most there were at a time.
    pub fn most(&self) -> usize {
        self.most.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_equal_those_of_longhorn() {
        assert_eq!(id("vol1", "node-a"), "csi-e78afbe9522ee037c0ee8ab6927b42acbe8c3a3ef306a556d2448bc5aa05acb5");
    }

    #[test]
    fn ours_are_known_by_their_mark() {
        let attachment = json!({"spec": {"attachmentTickets": {
            "a": ticket("a", "csi-attacher", "n1", PRESTAGE_MARK), "b": ticket("b", "csi-attacher", "n2", "")}}});
        let found = tickets(&attachment);
        assert_eq!(found.len(), 2);
        assert_eq!(found.iter().filter(|t| is_ours(t)).map(|t| t.text("/nodeID")).collect::<Vec<_>>(), ["n1"]);
    }
}
