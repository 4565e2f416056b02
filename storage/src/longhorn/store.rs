//! Longhorn's objects in memory, found by volume.

use super::wire::{
    Attachment, Backup, BackupTarget, Engine, EngineImage, InstanceManager, Node, Replica, Setting, Snapshot, Volume,
};
use handoff_cluster::{Cached, ObjectKey, put_json};
use hashbrown::{HashMap, HashSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// What is known of one Longhorn installation. Keys are names: everything is in one namespace.
#[derive(Debug, Default)]
pub struct Store {
    /// Volumes.
    pub volumes: HashMap<String, Volume>,
    /// Engines.
    pub engines: HashMap<String, Engine>,
    /// Replicas.
    pub replicas: HashMap<String, Replica>,
    /// Attach requests, by volume name.
    pub attachments: HashMap<String, Attachment>,
    /// Backups.
    pub backups: HashMap<String, Backup>,
    /// Snapshots.
    pub snapshots: HashMap<String, Snapshot>,
    /// Nodes.
    pub nodes: HashMap<String, Node>,
    /// Instance managers.
    pub instance_managers: HashMap<String, InstanceManager>,
    /// Engine images.
    pub engine_images: HashMap<String, EngineImage>,
    /// Backup targets.
    pub backup_targets: HashMap<String, BackupTarget>,
    /// Settings.
    pub settings: HashMap<String, Setting>,
    backups_of: Names,
    engines_of: Names,
    replicas_of: Names,
    hosts_version: u64,
}

/// What an event touched, as far as others care.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum StorageChange {
    /// Something around the volume with this CSI handle.
    Volume(String),
    /// Which nodes can host volumes.
    Hosts,
}

/// Volume name → names of its parts.
type Names = HashMap<String, HashSet<String>>;

/// Label on a backup that names its volume.
pub const BACKUP_VOLUME: &str = "backup-volume";
/// Label on a backup that names its target (since 1.8).
pub const BACKUP_TARGET: &str = "backup-target";

impl Store {
    /// Backups of a volume.
    pub fn backups_of(&self, volume: &str) -> impl Iterator<Item = &Backup> {
        named(&self.backups_of, volume).filter_map(|name| self.backups.get(name))
    }

    /// The volume of a backup.
    pub fn volume_of(backup: &Backup) -> Option<String> {
        backup.metadata.labels.as_ref()?.get(BACKUP_VOLUME).cloned()
    }

    /// Engines of a volume.
    pub fn engines_of(&self, volume: &str) -> impl Iterator<Item = &Engine> {
        named(&self.engines_of, volume).filter_map(|name| self.engines.get(name))
    }

    /// Replicas of a volume.
    pub fn replicas_of(&self, volume: &str) -> impl Iterator<Item = &Replica> {
        named(&self.replicas_of, volume).filter_map(|name| self.replicas.get(name))
    }

    /// Takes in an object of the kind with this plural, e.g. `volumes`, as a watch would: for tests of the layers
    /// above. `None`: no such kind is kept.
    pub fn put_json(&mut self, plural: &str, json: &[u8]) -> Option<serde_json::Result<Vec<StorageChange>>> {
        Some(match plural {
            "volumes" => put_json::<_, Volume>(self, json),
            "engines" => put_json::<_, Engine>(self, json),
            "replicas" => put_json::<_, Replica>(self, json),
            "volumeattachments" => put_json::<_, Attachment>(self, json),
            "backups" => put_json::<_, Backup>(self, json),
            "snapshots" => put_json::<_, Snapshot>(self, json),
            "nodes" => put_json::<_, Node>(self, json),
            "instancemanagers" => put_json::<_, InstanceManager>(self, json),
            "engineimages" => put_json::<_, EngineImage>(self, json),
            "backuptargets" => put_json::<_, BackupTarget>(self, json),
            "settings" => put_json::<_, Setting>(self, json),
            _ => return None,
        })
    }
}

impl Store {
    /// Changes whenever a node's ability to host a volume may have changed.
    pub fn hosts_version(&self) -> u64 {
        self.hosts_version
    }

    fn hosts_changed(&mut self) -> Vec<StorageChange> {
        self.hosts_version += 1;
        vec![StorageChange::Hosts]
    }
}

fn named<'a>(names: &'a Names, volume: &str) -> impl Iterator<Item = &'a String> {
    names.get(volume).into_iter().flatten()
}

fn unlink(names: &mut Names, volume: &str, part: &str) {
    if let Some(parts) = names.get_mut(volume) {
        parts.remove(part);
        if parts.is_empty() {
            names.remove(volume);
        }
    }
}

/// Drops what nobody asks for: labels and owners take more room than all the rest, on hundreds of thousands of objects.
fn trim(metadata: &mut ObjectMeta) {
    metadata.owner_references = None;
    if let Some(labels) = &mut metadata.labels {
        labels.retain(|label, _| [BACKUP_VOLUME, BACKUP_TARGET].contains(&label.as_str()));
    }
    metadata.labels.take_if(|labels| labels.is_empty());
}

/// How a kind is kept: in which map, for which volume it is news, and in which names of that volume it is listed.
/// A change is told as the name of the volume it belongs to. Kinds that say which nodes can host volumes end in
/// `hosts` and what of an object decides that.
macro_rules! cached {
    ($kind:ty, $watch:literal, $map:ident, hosts $decides:expr) => {
        impl Cached<Store> for $kind {
            type Change = StorageChange;
            const WATCH: &'static str = $watch;
            fn put(mut self, store: &mut Store) -> Vec<StorageChange> {
                trim(&mut self.metadata);
                let name = self.metadata.name.clone().unwrap_or_default();
                let same = store.$map.get(&name).is_some_and(|old| $decides(old) == $decides(&self));
                store.$map.insert(name, self);
                if same { Vec::new() } else { store.hosts_changed() }
            }
            fn remove(store: &mut Store, key: &ObjectKey) -> Vec<StorageChange> {
                let gone = store.$map.remove(&key.name);
                gone.map(|_| store.hosts_changed()).unwrap_or_default()
            }
            keys!($kind, $map);
        }
    };
    ($kind:ty, $watch:literal, $map:ident, $volume:expr $(, $names:ident)?) => {
        impl Cached<Store> for $kind {
            type Change = StorageChange;
            const WATCH: &'static str = $watch;
            fn put(mut self, store: &mut Store) -> Vec<StorageChange> {
                trim(&mut self.metadata);
                let name = self.metadata.name.clone().unwrap_or_default();
                let volume: Option<String> = $volume(&self);
                $(if let Some(volume) = &volume {
                    store.$names.entry(volume.clone()).or_default().insert(name.clone());
                })?
                store.$map.insert(name, self);
                volume.map(StorageChange::Volume).into_iter().collect()
            }
            fn remove(store: &mut Store, key: &ObjectKey) -> Vec<StorageChange> {
                let Some(old) = store.$map.remove(&key.name) else { return Vec::new() };
                let volume: Option<String> = $volume(&old);
                $(if let Some(volume) = &volume {
                    unlink(&mut store.$names, volume, &key.name);
                })?
                volume.map(StorageChange::Volume).into_iter().collect()
            }
            keys!($kind, $map);
        }
    };
}

macro_rules! keys {
    ($kind:ty, $map:ident) => {
        fn keys(store: &Store) -> Box<dyn Iterator<Item = ObjectKey> + '_> {
            let key = |o: &$kind| {
                ObjectKey::new(
                    o.metadata.namespace.clone().unwrap_or_default(),
                    o.metadata.name.clone().unwrap_or_default(),
                )
            };
            Box::new(store.$map.values().map(key))
        }
    };
}

cached!(Volume, "volumes.longhorn.io", volumes, |v: &Volume| v.metadata.name.clone());
cached!(Engine, "engines.longhorn.io", engines, |e: &Engine| Some(e.spec.volume_name.clone()), engines_of);
cached!(Replica, "replicas.longhorn.io", replicas, |r: &Replica| Some(r.spec.volume_name.clone()), replicas_of);
cached!(Attachment, "volumeattachments.longhorn.io", attachments, |a: &Attachment| a.metadata.name.clone());
cached!(Backup, "backups.longhorn.io", backups, Store::volume_of, backups_of);
cached!(Snapshot, "snapshots.longhorn.io", snapshots, |_: &Snapshot| None);
// many volumes share one: whoever waits for it looks again by itself
cached!(BackupTarget, "backuptargets.longhorn.io", backup_targets, |_: &BackupTarget| None);
cached!(Setting, "settings.longhorn.io", settings, |_: &Setting| None);
// free space changes all the time and is looked up when it is needed
cached!(Node, "nodes.longhorn.io", nodes, hosts |n: &Node| n.not_ready().map(ToOwned::to_owned));
cached!(
    InstanceManager,
    "instancemanagers.longhorn.io",
    instance_managers,
    hosts | m: &InstanceManager | (m.spec.clone(), m.is_up())
);
cached!(
    EngineImage,
    "engineimages.longhorn.io",
    engine_images,
    hosts | i: &EngineImage | (i.spec.clone(), i.status.clone())
);
