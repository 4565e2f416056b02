//! All `VolumeHandoff`s in memory, by volume.

use crate::api::{Checkpoint, VolumeHandoff};
use handoff_cluster::{Cached, ObjectKey};
use hashbrown::HashMap;
use kube::ResourceExt;
use std::sync::Arc;

/// All handoffs. Object names are `PersistentVolume` names, which are unique in the cluster.
#[derive(Debug, Default)]
pub struct Handoffs {
    by_volume: HashMap<String, Arc<VolumeHandoff>>,
}

impl Handoffs {
    /// The handoff of a volume.
    pub fn of_volume(&self, volume: &str) -> Option<Arc<VolumeHandoff>> {
        self.by_volume.get(volume).cloned()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<VolumeHandoff>> {
        self.by_volume.values()
    }

    /// Volumes whose handoff is not finished.
    pub fn unfinished(&self) -> impl Iterator<Item = &str> {
        self.by_volume.iter().filter(|(_, h)| !h.is_finished()).map(|(volume, _)| volume.as_str())
    }

    /// The owed checkpoint that needs a snapshot, and its handoff.
    pub fn needing_snapshot(&self, snapshot: &str) -> Option<(Arc<VolumeHandoff>, Checkpoint)> {
        self.by_volume.values().find_map(|h| {
            let checkpoint = h.owed().find(|c| c.snapshot == snapshot)?.clone();
            Some((h.clone(), checkpoint))
        })
    }
}

impl Cached<Handoffs> for VolumeHandoff {
    type Change = String;
    const WATCH: &'static str = "volumehandoffs";

    fn put(self, store: &mut Handoffs) -> Vec<String> {
        let name = self.name_any();
        store.by_volume.insert(name.clone(), Arc::new(self));
        vec![name]
    }

    fn remove(store: &mut Handoffs, key: &ObjectKey) -> Vec<String> {
        store.by_volume.remove(&key.name).map(|_| key.name.clone()).into_iter().collect()
    }

    fn keys(store: &Handoffs) -> Box<dyn Iterator<Item = ObjectKey> + '_> {
        let key = |h: &Arc<VolumeHandoff>| ObjectKey::new(h.namespace().unwrap_or_default(), h.name_any());
        Box::new(store.by_volume.values().map(key))
    }
}
