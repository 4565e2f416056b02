//! The backup target: blocks stay once they are there, and a backup is complete once its record says so (backupstore
//! `deltablock.go`).

use crate::{
    api::resource::BACKUP_TARGETS,
    cluster::{Cluster, STORAGE, key},
};
use serde_json::json;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::watch, time::interval};

/// Bytes of a block.
pub const BLOCK: u64 = 2 << 20;

/// How often Longhorn looks at the target: its default.
const POLL: Duration = Duration::from_mins(5);

/// What there is of a backup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Blocks it consists of.
    pub blocks: u64,
    /// Those that are there.
    pub there: u64,
    /// All blocks that were ever sent.
    pub sent: u64,
    /// It can be restored.
    pub complete: bool,
    /// How often it was begun anew when it was complete: each time it could not be restored for a while.
    pub spoilt: u32,
}

/// The target.
#[derive(Clone)]
pub struct Target {
    records: Arc<Mutex<BTreeMap<String, Record>>>,
    reachable: Arc<watch::Sender<bool>>,
}

impl Default for Target {
    fn default() -> Self {
        Self { records: Arc::default(), reachable: Arc::new(watch::Sender::new(true)) }
    }
}

impl Target {
    fn records(&self) -> MutexGuard<'_, BTreeMap<String, Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It takes connections from now on, or refuses them.
    pub fn set_reachable(&self, reachable: bool) {
        self.reachable.send_replace(reachable);
    }

    /// It takes connections.
    pub fn is_reachable(&self) -> bool {
        *self.reachable.borrow()
    }

    /// Waits until it refuses connections.
    pub async fn refuses(&self) {
        // the sender is ours: there is no error
        let _ = self.reachable.subscribe().wait_for(|reachable| !reachable).await;
    }

    /// What there is of a backup.
    pub fn record(&self, backup: &str) -> Record {
        self.records().get(backup).copied().unwrap_or_default()
    }

    /// A run begins: the record is written anew. Returns how many blocks are missing.
    pub fn begin(&self, backup: &str, blocks: u64, full: bool) -> u64 {
        let mut records = self.records();
        let record = records.entry(backup.to_owned()).or_default();
        record.spoilt += u32::from(record.complete);
        record.complete = false;
        record.blocks = blocks;
        // a full backup sends everything again
        if full { blocks } else { blocks - record.there.min(blocks) }
    }

    /// A run of which so many blocks were sent is over.
    pub fn end(&self, backup: &str, sent: u64, complete: bool) {
        let mut records = self.records();
        let record = records.entry(backup.to_owned()).or_default();
        record.sent += sent;
        record.there = (record.there + sent).min(record.blocks);
        record.complete = complete;
    }
}

/// Makes Longhorn's object of the target, and keeps in it what Longhorn sees (`backup_target_controller.go`).
pub fn start(cluster: &Arc<Cluster>) {
    cluster.add(
        BACKUP_TARGETS,
        STORAGE,
        "default",
        json!({"spec": {"backupTargetURL": "s3://backups@region/", "pollInterval": "5m0s"}, "status": {"available": true}}),
    );
    tokio::spawn(keep(cluster.clone()));
}

async fn keep(cluster: Arc<Cluster>) {
    let mut polls = interval(POLL);
    loop {
        polls.tick().await;
        cluster.longhorn.managed().await;
        let available = cluster.longhorn.target.is_reachable();
        cluster.store.change("longhorn", BACKUP_TARGETS, &key(STORAGE, "default"), |target| {
            target["status"]["available"] = json!(available);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_not_sent_again_unless_the_backup_is_full() {
        let target = Target::default();
        assert_eq!(target.begin("b", 50, false), 50);
        target.end("b", 20, false);
        assert_eq!(target.begin("b", 50, false), 30);
        target.end("b", 30, true);
        assert_eq!(target.record("b"), Record { blocks: 50, there: 50, sent: 50, complete: true, spoilt: 0 });
        assert_eq!(target.begin("b", 50, true), 50);
        assert_eq!((target.record("b").complete, target.record("b").spoilt), (false, 1));
    }
}
