//! Pods, claims and volumes as they are kept: a cluster has a hundred thousand of them, and each of our records holds
//! a dozen strings. Here, what many share is kept once, and the rest of a record is one text. A record is put together
//! again when it is asked for.
//!
//! Tables find records by hash and compare the text, so no key is kept twice.

use crate::{
    settings::Settings,
    slim::{Claim, ObjectKey, Pod, Volume},
};
use hashbrown::{DefaultHashBuilder, HashSet, HashTable, hash_table::Entry};
use jiff::Timestamp;
use std::{
    hash::{BuildHasher, Hash},
    sync::Arc,
};

/// Between the parts of a text; no Kubernetes name, UID or volume handle holds it.
const SEPARATOR: char = '\0';

fn join<'a>(parts: impl IntoIterator<Item = &'a str>) -> Box<str> {
    let mut text = String::new();
    for (at, part) in parts.into_iter().enumerate() {
        if at > 0 {
            text.push(SEPARATOR);
        }
        text.push_str(part);
    }
    text.into_boxed_str()
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// Values of which there are few, each kept once as long as something refers to it.
#[derive(Debug)]
struct Shared<T: ?Sized> {
    values: HashSet<Arc<T>>,
    /// Unused values are looked for when there are this many.
    sweep_at: usize,
}

impl<T: ?Sized> Default for Shared<T> {
    fn default() -> Self {
        Self { values: HashSet::default(), sweep_at: 1024 }
    }
}

impl<T: ?Sized + Eq + Hash> Shared<T> {
    /// The value that is kept already, or the one that `make` makes of this one.
    fn get(&mut self, value: &T, make: impl FnOnce(&T) -> Arc<T>) -> Arc<T> {
        if let Some(known) = self.values.get(value) {
            return known.clone();
        }
        if self.values.len() >= self.sweep_at {
            self.values.retain(|value| Arc::strong_count(value) > 1);
            self.sweep_at = 1024.max(2 * self.values.len());
        }
        let value = make(value);
        self.values.insert(value.clone());
        value
    }
}

/// What the pods of one set have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Set {
    namespace: Box<str>,
    owner_kind: Option<Box<str>>,
    labels: Vec<(Box<str>, Box<str>)>,
}

impl Set {
    fn of(pod: &Pod) -> Self {
        let labels = pod.labels.iter();
        Self {
            namespace: pod.key.namespace.as_str().into(),
            owner_kind: pod.owner_kind.as_deref().map(Into::into),
            labels: labels.map(|(key, value)| (key.as_str().into(), value.as_str().into())).collect(),
        }
    }
}

#[derive(Debug)]
struct CompactPod {
    set: Arc<Set>,
    node: Option<Arc<str>>,
    /// Name, UID, claims.
    text: Box<str>,
    settings: Settings,
    /// In seconds, as Kubernetes has it; a number that is no time is none.
    created: i64,
    terminating: bool,
    finished: bool,
    ready: bool,
}

impl CompactPod {
    fn name(&self) -> &str {
        self.text.split(SEPARATOR).next().unwrap_or_default()
    }

    fn is(&self, key: &ObjectKey) -> bool {
        self.name() == key.name && *self.set.namespace == *key.namespace
    }

    fn claims(&self) -> impl Iterator<Item = &str> {
        self.text.split(SEPARATOR).skip(2)
    }

    fn key(&self) -> ObjectKey {
        ObjectKey::new(&*self.set.namespace, self.name())
    }

    fn expand(&self) -> Pod {
        let mut parts = self.text.split(SEPARATOR);
        let mut part = || parts.next().unwrap_or_default();
        Pod {
            key: ObjectKey::new(&*self.set.namespace, part()),
            uid: part().to_owned(),
            node: self.node.as_deref().map(Into::into),
            terminating: self.terminating,
            finished: self.finished,
            ready: self.ready,
            created: Timestamp::from_second(self.created).ok(),
            claims: self.claims().map(Into::into).collect(),
            owner_kind: self.set.owner_kind.as_deref().map(Into::into),
            labels: self.set.labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect(),
            settings: self.settings.clone(),
        }
    }
}

/// All pods, and which of them mount a claim.
#[derive(Debug, Default)]
pub(crate) struct Pods {
    hasher: DefaultHashBuilder,
    table: HashTable<CompactPod>,
    /// Hash of a claim's key, hash of the key of a pod that mounts it.
    of_claim: HashTable<(u64, u64)>,
    sets: Shared<Set>,
    nodes: Shared<str>,
}

impl Pods {
    fn hash(&self, namespace: &str, name: &str) -> u64 {
        self.hasher.hash_one((namespace, name))
    }

    pub fn get(&self, key: &ObjectKey) -> Option<Arc<Pod>> {
        let hash = self.hash(&key.namespace, &key.name);
        self.table.find(hash, |pod| pod.is(key)).map(|pod| Arc::new(pod.expand()))
    }

    /// Puts a pod in the place of the one of the same key.
    pub fn insert(&mut self, pod: Pod) {
        self.remove(&pod.key);
        let hash = self.hash(&pod.key.namespace, &pod.key.name);
        for claim in &pod.claims {
            let link = (self.hash(&pod.key.namespace, claim), hash);
            self.of_claim.insert_unique(link.0, link, |(claim, _)| *claim);
        }
        let set = Set::of(&pod);
        let compact = CompactPod {
            set: self.sets.get(&set, |set| Arc::new(set.clone())),
            node: pod.node.as_deref().map(|node| self.nodes.get(node, |text| text.into())),
            text: join([pod.key.name.as_str(), &pod.uid].into_iter().chain(pod.claims.iter().map(String::as_str))),
            settings: pod.settings,
            created: pod.created.map_or(i64::MIN, Timestamp::as_second),
            terminating: pod.terminating,
            finished: pod.finished,
            ready: pod.ready,
        };
        let hasher = &self.hasher;
        let rehash = |pod: &CompactPod| hasher.hash_one((&*pod.set.namespace, pod.name()));
        self.table.insert_unique(hash, compact, rehash);
    }

    pub fn remove(&mut self, key: &ObjectKey) -> Option<Pod> {
        let hash = self.hash(&key.namespace, &key.name);
        let (pod, _) = self.table.find_entry(hash, |pod| pod.is(key)).ok()?.remove();
        for claim in pod.claims() {
            let link = (self.hash(&key.namespace, claim), hash);
            if let Ok(entry) = self.of_claim.find_entry(link.0, |other| *other == link) {
                entry.remove();
            }
        }
        Some(pod.expand())
    }

    pub fn of_claim(&self, claim: &ObjectKey) -> Vec<Arc<Pod>> {
        let hash = self.hash(&claim.namespace, &claim.name);
        let mounts = |pod: &&CompactPod| {
            *pod.set.namespace == *claim.namespace && pod.claims().any(|mounted| mounted == claim.name)
        };
        let mut found: Vec<&CompactPod> = Vec::new();
        for (_, pod_hash) in self.of_claim.iter_hash(hash).filter(|(of, _)| *of == hash) {
            // pods whose hashes are the same come up once for each of them
            for pod in self.table.iter_hash(*pod_hash).filter(mounts) {
                if !found.iter().any(|other| std::ptr::eq(*other, pod)) {
                    found.push(pod);
                }
            }
        }
        found.into_iter().map(|pod| Arc::new(pod.expand())).collect()
    }

    pub fn values(&self) -> impl Iterator<Item = Arc<Pod>> {
        self.table.iter().map(|pod| Arc::new(pod.expand()))
    }

    pub fn keys(&self) -> impl Iterator<Item = ObjectKey> {
        self.table.iter().map(CompactPod::key)
    }

    #[cfg(test)]
    pub fn has_links(&self) -> bool {
        !self.of_claim.is_empty()
    }
}

#[derive(Debug)]
struct CompactClaim {
    namespace: Arc<str>,
    class: Option<Arc<str>>,
    /// Name, UID, volume.
    text: Box<str>,
    requested_bytes: Option<u64>,
    settings: Settings,
}

impl CompactClaim {
    fn name(&self) -> &str {
        self.text.split(SEPARATOR).next().unwrap_or_default()
    }

    fn is(&self, key: &ObjectKey) -> bool {
        self.name() == key.name && *self.namespace == *key.namespace
    }

    fn expand(&self) -> Claim {
        let mut parts = self.text.split(SEPARATOR);
        let mut part = || parts.next().unwrap_or_default();
        Claim {
            key: ObjectKey::new(&*self.namespace, part()),
            uid: part().to_owned(),
            volume: some(part()),
            class: self.class.as_deref().map(Into::into),
            requested_bytes: self.requested_bytes,
            settings: self.settings.clone(),
        }
    }
}

/// All claims.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    hasher: DefaultHashBuilder,
    table: HashTable<CompactClaim>,
    names: Shared<str>,
}

impl Claims {
    fn hash(&self, key: &ObjectKey) -> u64 {
        self.hasher.hash_one((key.namespace.as_str(), key.name.as_str()))
    }

    fn find(&self, key: &ObjectKey) -> Option<&CompactClaim> {
        self.table.find(self.hash(key), |claim| claim.is(key))
    }

    pub fn get(&self, key: &ObjectKey) -> Option<Arc<Claim>> {
        self.find(key).map(|claim| Arc::new(claim.expand()))
    }

    /// Name of the volume of a claim.
    pub fn volume_of(&self, key: &ObjectKey) -> Option<&str> {
        self.find(key)?.text.split(SEPARATOR).nth(2).filter(|name| !name.is_empty())
    }

    /// Puts a claim in the place of the one of the same key.
    pub fn insert(&mut self, claim: Claim) {
        let compact = CompactClaim {
            namespace: self.names.get(&claim.key.namespace, |text| text.into()),
            class: claim.class.as_deref().map(|class| self.names.get(class, |text| text.into())),
            text: join([claim.key.name.as_str(), &claim.uid, claim.volume.as_deref().unwrap_or_default()]),
            requested_bytes: claim.requested_bytes,
            settings: claim.settings,
        };
        let (hash, hasher) = (self.hash(&claim.key), &self.hasher);
        let rehash = |claim: &CompactClaim| hasher.hash_one((&*claim.namespace, claim.name()));
        match self.table.entry(hash, |other| other.is(&claim.key), rehash) {
            Entry::Occupied(mut entry) => *entry.get_mut() = compact,
            Entry::Vacant(entry) => drop(entry.insert(compact)),
        }
    }

    pub fn remove(&mut self, key: &ObjectKey) -> Option<Claim> {
        let hash = self.hash(key);
        let (claim, _) = self.table.find_entry(hash, |claim| claim.is(key)).ok()?.remove();
        Some(claim.expand())
    }

    pub fn values(&self) -> impl Iterator<Item = Claim> {
        self.table.iter().map(CompactClaim::expand)
    }

    pub fn keys(&self) -> impl Iterator<Item = ObjectKey> {
        self.table.iter().map(|claim| ObjectKey::new(&*claim.namespace, claim.name()))
    }
}

#[derive(Debug)]
struct CompactVolume {
    driver: Arc<str>,
    claim_namespace: Option<Arc<str>>,
    /// Name, handle, name of the claim.
    text: Box<str>,
    shared: bool,
}

impl CompactVolume {
    fn name(&self) -> &str {
        self.text.split(SEPARATOR).next().unwrap_or_default()
    }

    fn handle(&self) -> &str {
        self.text.split(SEPARATOR).nth(1).unwrap_or_default()
    }

    fn expand(&self) -> Volume {
        let mut parts = self.text.split(SEPARATOR);
        let mut part = || parts.next().unwrap_or_default();
        Volume {
            name: part().to_owned(),
            handle: part().to_owned(),
            claim: self.claim_namespace.as_deref().map(|namespace| ObjectKey::new(namespace, part())),
            driver: self.driver.as_ref().into(),
            shared: self.shared,
        }
    }
}

/// All volumes, and which of them have a handle.
#[derive(Debug, Default)]
pub(crate) struct Volumes {
    hasher: DefaultHashBuilder,
    table: HashTable<CompactVolume>,
    /// Hash of driver and handle, hash of the name of a volume that has them.
    of_handle: HashTable<(u64, u64)>,
    names: Shared<str>,
}

impl Volumes {
    fn find(&self, name: &str) -> Option<&CompactVolume> {
        self.table.find(self.hasher.hash_one(name), |volume| volume.name() == name)
    }

    pub fn get(&self, name: &str) -> Option<Arc<Volume>> {
        self.find(name).map(|volume| Arc::new(volume.expand()))
    }

    pub fn of_handle(&self, driver: &str, handle: &str) -> Option<Arc<Volume>> {
        let hash = self.hasher.hash_one((driver, handle));
        let links = self.of_handle.iter_hash(hash).filter(|(of, _)| *of == hash);
        let mut volumes = links.flat_map(|(_, name)| self.table.iter_hash(*name));
        let found = volumes.find(|volume| *volume.driver == *driver && volume.handle() == handle)?;
        Some(Arc::new(found.expand()))
    }

    pub fn of_driver(&self, driver: &str) -> impl Iterator<Item = Arc<Volume>> {
        self.table.iter().filter(move |volume| *volume.driver == *driver).map(|volume| Arc::new(volume.expand()))
    }

    /// Puts a volume in the place of the one of the same name.
    pub fn insert(&mut self, volume: &Volume) {
        self.remove(&volume.name);
        let hash = self.hasher.hash_one(volume.name.as_str());
        let link = (self.hasher.hash_one((volume.driver.as_str(), volume.handle.as_str())), hash);
        self.of_handle.insert_unique(link.0, link, |(handle, _)| *handle);
        let claim = volume.claim.as_ref();
        let compact = CompactVolume {
            driver: self.names.get(&volume.driver, |text| text.into()),
            claim_namespace: claim.map(|claim| self.names.get(&claim.namespace, |text| text.into())),
            text: join([volume.name.as_str(), &volume.handle, claim.map_or("", |claim| claim.name.as_str())]),
            shared: volume.shared,
        };
        let hasher = &self.hasher;
        self.table.insert_unique(hash, compact, |volume| hasher.hash_one(volume.name()));
    }

    pub fn remove(&mut self, name: &str) -> Option<Volume> {
        let hash = self.hasher.hash_one(name);
        let (volume, _) = self.table.find_entry(hash, |volume| volume.name() == name).ok()?.remove();
        let link = (self.hasher.hash_one((&*volume.driver, volume.handle())), hash);
        if let Ok(entry) = self.of_handle.find_entry(link.0, |other| *other == link) {
            entry.remove();
        }
        Some(volume.expand())
    }

    pub fn keys(&self) -> impl Iterator<Item = ObjectKey> {
        self.table.iter().map(|volume| ObjectKey::new("", volume.name()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn pod() -> impl Strategy<Value = Pod> {
        let name = || proptest::sample::select(vec!["a", "b", "c"]).prop_map(str::to_owned);
        let maybe = |text: &'static str| proptest::option::of(Just(text.to_owned()));
        let claims = proptest::collection::vec(name(), 0..3);
        let label = proptest::sample::select(vec!["app", "tier"]).prop_map(str::to_owned);
        let labels = proptest::collection::btree_map(label, name(), 0..3);
        let state = (any::<bool>(), any::<bool>(), any::<bool>(), proptest::option::of(0_i64..2_000_000_000));
        (name(), name(), maybe("node-1"), maybe("StatefulSet"), claims, labels, state).prop_map(
            |(namespace, name, node, owner_kind, claims, labels, (terminating, finished, ready, created))| Pod {
                uid: format!("{namespace}-{name}"),
                key: ObjectKey { namespace, name },
                node,
                terminating,
                finished,
                ready,
                created: created.and_then(|at| Timestamp::from_second(at).ok()),
                claims,
                owner_kind,
                labels,
                settings: Settings::default(),
            },
        )
    }

    proptest! {
        #[test]
        fn pods_come_back_as_they_were_put_in(steps in proptest::collection::vec((any::<bool>(), pod()), 0..40)) {
            let (mut pods, mut plain) = (Pods::default(), BTreeMap::new());
            for (put, pod) in steps {
                if put {
                    pods.insert(pod.clone());
                    plain.insert(pod.key.clone(), pod);
                } else {
                    prop_assert_eq!(pods.remove(&pod.key), plain.remove(&pod.key));
                }
            }
            for namespace in ["a", "b", "c"] {
                for name in ["a", "b", "c"] {
                    let key = ObjectKey::new(namespace, name);
                    let kept = pods.get(&key);
                    prop_assert_eq!(kept.as_deref(), plain.get(&key));
                    let mut found = pods.of_claim(&key).iter().map(|pod| pod.key.clone()).collect::<Vec<_>>();
                    found.sort();
                    let mounts = |pod: &&Pod| pod.key.namespace == namespace && pod.claims.iter().any(|c| c == name);
                    let wanted = plain.values().filter(mounts).map(|pod| pod.key.clone()).collect::<Vec<_>>();
                    prop_assert_eq!(found, wanted);
                }
            }
            let mut keys = pods.keys().collect::<Vec<_>>();
            keys.sort();
            prop_assert_eq!(keys, plain.keys().cloned().collect::<Vec<_>>());
            prop_assert_eq!(pods.has_links(), plain.values().any(|pod| !pod.claims.is_empty()));
        }
    }

    #[test]
    fn a_claim_and_a_volume_come_back_as_they_were_put_in() {
        let key = ObjectKey::new("ns", "c");
        let claim = Claim {
            key: key.clone(),
            uid: "u".into(),
            volume: None,
            class: Some("fast".into()),
            requested_bytes: Some(7),
            settings: Settings::default(),
        };
        let mut claims = Claims::default();
        claims.insert(claim.clone());
        assert_eq!((claims.get(&key).as_deref(), claims.volume_of(&key)), (Some(&claim), None));
        let bound = Claim { volume: Some("pv".into()), ..claim };
        claims.insert(bound.clone());
        assert_eq!((claims.volume_of(&key), claims.keys().count()), (Some("pv"), 1));
        assert_eq!(claims.remove(&key), Some(bound));

        let volume =
            Volume { name: "pv".into(), driver: "d".into(), handle: "h".into(), claim: Some(key), shared: true };
        let mut volumes = Volumes::default();
        volumes.insert(&volume);
        let unclaimed = Volume { handle: "h2".into(), claim: None, ..volume.clone() };
        volumes.insert(&unclaimed);
        assert_eq!(volumes.of_handle("d", "h"), None, "it has another handle now");
        assert_eq!(volumes.of_handle("d", "h2").as_deref(), Some(&unclaimed));
        assert_eq!(volumes.of_driver("d").count(), 1);
        assert_eq!(volumes.remove("pv"), Some(unclaimed));
        assert!(volumes.of_handle.is_empty() && volumes.keys().next().is_none());
    }

    #[test]
    fn what_nobody_refers_to_is_forgotten() {
        let mut shared = Shared::<str>::default();
        let kept = shared.get("kept", |text| text.into());
        for at in 0..5000 {
            shared.get(&at.to_string(), |text| text.into());
        }
        assert!(shared.values.len() <= 1024, "{}", shared.values.len());
        assert!(Arc::ptr_eq(&kept, &shared.get("kept", |text| text.into())));
    }
}
