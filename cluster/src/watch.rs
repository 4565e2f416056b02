//! The watches that keep a store current, ours ([`Index`]) and those of the crates above. Each one reports when it
//! is synced; a cache is ready only when all of its watches are. Errors are logged and retried with back-off.

use crate::{
    class::{WireClass, WireNamespace},
    index::{Change, Index},
    slim::{ObjectKey, WireAttachment, WireClaim, WireCsiNode, WireNode, WirePod, WireVolume},
};
use futures::{StreamExt, TryStreamExt, future::BoxFuture};
use hashbrown::{DefaultHashBuilder, HashSet};
use kube::{
    Api, Client, Resource, ResourceExt,
    runtime::{WatchStreamExt, watcher},
};
use serde::de::DeserializeOwned;
use std::{
    fmt::Debug,
    hash::BuildHasher,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, atomic::AtomicBool, atomic::Ordering},
    time::Duration,
};
use tokio::time::Instant;

/// Called for everything that changes, from the watch tasks; must be quick and must not block.
pub type OnChange<C> = Arc<dyn Fn(C) + Send + Sync>;

/// A named task that runs as long as the process.
pub type Task = (&'static str, BoxFuture<'static, ()>);

/// A kind as it comes off the wire, and how a store `S` takes it in.
pub trait Cached<S>: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static {
    /// What a caller is told of a change.
    type Change: Send;
    /// Name of the watch: the kind's plural.
    const WATCH: &'static str;
    /// The object is there, new or changed.
    fn put(self, store: &mut S) -> Vec<Self::Change>;
    /// The object is gone.
    fn remove(store: &mut S, key: &ObjectKey) -> Vec<Self::Change>;
    /// All keys of this kind in the store, one by one: there may be a hundred thousand.
    fn keys(store: &S) -> Box<dyn Iterator<Item = ObjectKey> + '_>;
}

/// One watch: its name, and whether its first list is in.
#[derive(Clone, Debug)]
pub struct Watched {
    /// What is watched, e.g. `pods`.
    pub name: &'static str,
    synced: Arc<AtomicBool>,
    outage: Arc<Mutex<Outage>>,
    heard: Arc<Mutex<Option<Instant>>>,
}

impl Watched {
    /// Whether the first list is in.
    pub fn is_synced(&self) -> bool {
        self.synced.load(Ordering::Acquire)
    }

    /// How long ago the watch brought something last. Kinds of which nothing changes are old and as they should be.
    pub fn age(&self) -> Option<Duration> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).map(|at| at.elapsed())
    }

    fn hears(&self) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Whether what was seen may no longer be so: the watch has failed for a while, and goes on failing.
    pub fn is_stale(&self) -> bool {
        self.outage().is_long(Instant::now())
    }

    fn outage(&self) -> MutexGuard<'_, Outage> {
        self.outage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A watch that fails this long without a break is blind.
const BLIND_AFTER: Duration = Duration::from_secs(30);
/// Retries back off to 30 s. Without a failure for longer than that the watch works again: one that was resumed says
/// nothing until something changes.
const OVER_AFTER: Duration = Duration::from_secs(75);

/// Failures of a watch that follow one another.
#[derive(Debug, Default)]
struct Outage {
    first_and_last: Option<(Instant, Instant)>,
}

impl Outage {
    fn failed(&mut self, now: Instant) {
        let first = self.first_and_last.filter(|(_, last)| now - *last < OVER_AFTER).map_or(now, |(first, _)| first);
        self.first_and_last = Some((first, now));
    }

    fn over(&mut self) {
        self.first_and_last = None;
    }

    fn is_long(&self, now: Instant) -> bool {
        self.first_and_last.is_some_and(|(first, last)| last - first >= BLIND_AFTER && now - last < OVER_AFTER)
    }
}

/// A store that watches keep current.
pub struct Cache<S> {
    store: Arc<RwLock<S>>,
    watches: Vec<Watched>,
}

impl<S> Clone for Cache<S> {
    fn clone(&self) -> Self {
        Self { store: self.store.clone(), watches: self.watches.clone() }
    }
}

impl<S: Default + Send + Sync + 'static> Default for Cache<S> {
    fn default() -> Self {
        Self::fixed(S::default())
    }
}

impl<S: Send + Sync + 'static> Cache<S> {
    /// A cache over a ready store that nothing keeps current yet; also for tests of the layers above.
    pub fn fixed(store: S) -> Self {
        Self { store: Arc::new(RwLock::new(store)), watches: Vec::new() }
    }

    /// Adds the watch of one kind; the returned task does the work.
    pub fn watch<K: Cached<S>>(&mut self, api: Api<K>, on_change: OnChange<K::Change>) -> Task {
        self.start(api, watching(), on_change)
    }

    /// Like [`Cache::watch`], of the one object with this name.
    pub fn watch_one<K: Cached<S>>(&mut self, api: Api<K>, name: &str, on_change: OnChange<K::Change>) -> Task {
        self.start(api, watching().fields(&format!("metadata.name={name}")), on_change)
    }

    fn start<K: Cached<S>>(&mut self, api: Api<K>, config: watcher::Config, on_change: OnChange<K::Change>) -> Task {
        let watched = Watched { name: K::WATCH, synced: Arc::default(), outage: Arc::default(), heard: Arc::default() };
        self.watches.push(watched.clone());
        (K::WATCH, Box::pin(follow(api, config, self.store.clone(), watched, on_change)))
    }

    /// The store. Keep the guard short; never across an await.
    pub fn read(&self) -> RwLockReadGuard<'_, S> {
        self.store.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The watches.
    pub fn watches(&self) -> &[Watched] {
        &self.watches
    }

    /// Names of the watches whose first list is not in yet; empty when ready.
    pub fn missing(&self) -> Vec<&'static str> {
        self.watches.iter().filter(|w| !w.is_synced()).map(|w| w.name).collect()
    }
}

impl<S: Send + Sync + 'static> Cache<S> {
    /// Names of the watches whose picture may be out of date; see [`Watched::is_stale`].
    pub fn stale(&self) -> Vec<&'static str> {
        self.watches.iter().filter(|w| w.is_stale()).map(|w| w.name).collect()
    }
}

/// The API server ends each watch after a minute. Where it does not, the connection has died silently: then it is missed
/// 5 s later, not when TCP gives it up.
fn watching() -> watcher::Config {
    watcher::Config::default().timeout(60)
}

async fn follow<S, K: Cached<S>>(
    api: Api<K>,
    config: watcher::Config,
    store: Arc<RwLock<S>>,
    watched: Watched,
    notify: OnChange<K::Change>,
) {
    let stream = watcher(api, config).default_backoff();
    let mut stream = stream.modify(|object| object.meta_mut().managed_fields = None).boxed();
    let mut listed = Listed::default();
    loop {
        let event = match stream.try_next().await {
            Ok(Some(event)) => {
                watched.outage().over();
                watched.hears();
                event
            }
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(watch = watched.name, %error, "watch interrupted, retrying");
                watched.outage().failed(Instant::now());
                continue;
            }
        };
        let complete = matches!(event, watcher::Event::InitDone);
        let changes = {
            let mut store = store.write().unwrap_or_else(PoisonError::into_inner);
            take_in(event, &mut store, &mut listed)
        };
        if complete {
            watched.synced.store(true, Ordering::Release);
        }
        changes.into_iter().for_each(|change| notify(change));
    }
}

fn take_in<S, K: Cached<S>>(event: watcher::Event<K>, store: &mut S, listed: &mut Listed) -> Vec<K::Change> {
    match event {
        watcher::Event::Apply(object) => object.put(store),
        watcher::Event::Delete(object) => K::remove(store, &object_key(&object)),
        watcher::Event::Init => {
            *listed = Listed::default();
            Vec::new()
        }
        watcher::Event::InitApply(object) => {
            listed.insert(&object_key(&object));
            object.put(store)
        }
        watcher::Event::InitDone => {
            let listed = std::mem::take(listed);
            let gone = K::keys(store).filter(|key| !listed.contains(key)).collect::<Vec<_>>();
            gone.iter().flat_map(|key| K::remove(store, key)).collect()
        }
    }
}

/// What a list has held so far, by the hashes of the keys: the keys of a large cluster are 20 MB. Of 150,000 keys two
/// have the same hash once in a billion lists; an object that is gone then stays until the next list.
#[derive(Default)]
struct Listed {
    hasher: DefaultHashBuilder,
    hashes: HashSet<u64>,
}

impl Listed {
    fn insert(&mut self, key: &ObjectKey) {
        self.hashes.insert(self.hasher.hash_one(key));
    }

    fn contains(&self, key: &ObjectKey) -> bool {
        self.hashes.contains(&self.hasher.hash_one(key))
    }
}

fn object_key<K: ResourceExt>(object: &K) -> ObjectKey {
    ObjectKey::new(object.namespace().unwrap_or_default(), object.name_any())
}

/// The cache of the Kubernetes side.
pub type ClusterCache = Cache<Index>;

impl ClusterCache {
    /// A cache of all that [`Index`] holds, and the tasks that keep it current.
    pub fn of_cluster(client: &Client, on_change: &OnChange<Change>) -> (Self, Vec<Task>) {
        let mut cache = Self::default();
        let tasks = vec![
            cache.watch::<WirePod>(Api::all(client.clone()), on_change.clone()),
            cache.watch::<WireClaim>(Api::all(client.clone()), on_change.clone()),
            cache.watch::<WireVolume>(Api::all(client.clone()), on_change.clone()),
            cache.watch::<WireNode>(Api::all(client.clone()), on_change.clone()),
            cache.watch::<WireCsiNode>(Api::all(client.clone()), on_change.clone()),
            cache.watch::<WireAttachment>(Api::all(client.clone()), on_change.clone()),
            cache.watch::<WireClass>(Api::all(client.clone()), on_change.clone()),
            cache.watch::<WireNamespace>(Api::all(client.clone()), on_change.clone()),
        ];
        (cache, tasks)
    }

    /// As [`Self::of_cluster`], without pods: enough to judge nodes, and far less to fetch.
    pub fn of_nodes_and_volumes(client: &Client) -> (Self, Vec<Task>) {
        let mut cache = Self::default();
        let on_change: OnChange<Change> = Arc::new(drop);
        let tasks = vec![
            cache.watch::<WireClaim>(Api::all(client.clone()), on_change.clone()),
            cache.watch::<WireVolume>(Api::all(client.clone()), on_change.clone()),
            cache.watch::<WireNode>(Api::all(client.clone()), on_change.clone()),
            cache.watch::<WireCsiNode>(Api::all(client.clone()), on_change.clone()),
            cache.watch::<WireAttachment>(Api::all(client.clone()), on_change.clone()),
            cache.watch::<WireClass>(Api::all(client.clone()), on_change.clone()),
            cache.watch::<WireNamespace>(Api::all(client.clone()), on_change),
        ];
        (cache, tasks)
    }
}

/// The kinds of the index differ only in names.
macro_rules! cached {
    ($wire:ty, $watch:literal, $slim:expr, $put:ident, $remove:ident, $keys:ident) => {
        impl Cached<Index> for $wire {
            type Change = Change;
            const WATCH: &'static str = $watch;
            fn put(self, index: &mut Index) -> Vec<Change> {
                let key = object_key(&self);
                match $slim(self) {
                    Some(slim) => index.$put(slim),
                    None => index.$remove(&key),
                }
            }
            fn remove(index: &mut Index, key: &ObjectKey) -> Vec<Change> {
                index.$remove(key)
            }
            fn keys(index: &Index) -> Box<dyn Iterator<Item = ObjectKey> + '_> {
                Box::new(index.$keys().into_iter())
            }
        }
    };
}

cached!(WirePod, "pods", |w| Some(crate::Pod::from(w)), put_pod, remove_pod, pod_keys);
cached!(WireClaim, "persistentvolumeclaims", |w| Some(crate::Claim::from(w)), put_claim, remove_claim, claim_keys);
cached!(WireVolume, "persistentvolumes", WireVolume::slim, put_volume, remove_volume, volume_keys);
cached!(WireNode, "nodes", |w| Some(crate::Node::from(w)), put_node, remove_node, node_keys);
cached!(WireCsiNode, "csinodes", |w| Some(crate::CsiNode::from(w)), put_csi_node, remove_csi_node, csi_node_keys);
cached!(WireAttachment, "volumeattachments", WireAttachment::slim, put_attachment, remove_attachment, attachment_keys);
cached!(WireClass, "storageclasses", |w| Some(crate::StorageClass::from(w)), put_class, remove_class, class_keys);
cached!(WireNamespace, "namespaces", WireNamespace::slim, put_namespace, remove_namespace, namespace_keys);

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_a_new_list_no_longer_holds_is_gone() {
        let node = |name: &str| -> WireNode { serde_json::from_value(json!({"metadata": {"name": name}})).unwrap() };
        let (mut index, mut listed) = (Index::default(), Listed::default());
        for event in [
            watcher::Event::Init,
            watcher::Event::InitApply(node("a")),
            watcher::Event::InitApply(node("b")),
            watcher::Event::InitDone,
            watcher::Event::Init,
            watcher::Event::InitApply(node("b")),
        ] {
            take_in(event, &mut index, &mut listed);
        }
        assert!(index.node("a").is_some(), "kept until the new list is complete");
        assert_eq!(take_in(watcher::Event::<WireNode>::InitDone, &mut index, &mut listed), [Change::Node("a".into())]);
        assert!(index.node("a").is_none() && index.node("b").is_some());
    }

    #[test]
    fn a_watch_is_stale_while_failures_go_on() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut outage = Outage::default();
        assert!(!outage.is_long(at(0)));
        for seconds in [0, 1, 3, 7, 15, 29] {
            outage.failed(at(seconds));
            assert!(!outage.is_long(at(seconds)), "{seconds}");
        }
        outage.failed(at(31));
        assert!(outage.is_long(at(31)) && outage.is_long(at(105)));
        assert!(!outage.is_long(at(106)), "no failure for longer than the longest back-off: it works again");
        outage.failed(at(200));
        assert!(!outage.is_long(at(200)), "another outage");
        outage.failed(at(231));
        assert!(outage.is_long(at(231)));
        outage.over();
        assert!(!outage.is_long(at(231)));
    }
}
