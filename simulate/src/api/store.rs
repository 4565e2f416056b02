//! The objects: versions, watches, finalizers, and collection of what belongs to something that is gone.

use super::{
    refusal::Refusal,
    resource::{PODS, Resource},
};
use crate::json::{is_deleting, text};
use handoff_cluster::ObjectKey;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};
use tokio::sync::watch;

/// So many changes of a resource are remembered; a watch from before them is answered 410 Gone.
const REMEMBERED: usize = 4096;

/// An object as stored.
#[derive(Debug)]
pub struct Object {
    /// Its content.
    pub value: Value,
    written: OnceLock<String>,
}

impl Object {
    fn new(value: Value) -> Arc<Self> {
        Arc::new(Self { value, written: OnceLock::new() })
    }

    /// Its content as JSON, made once.
    pub fn json(&self) -> &str {
        self.written.get_or_init(|| self.value.to_string())
    }

    /// Its key.
    pub fn key(&self) -> ObjectKey {
        ObjectKey::new(text(&self.value, "/metadata/namespace"), text(&self.value, "/metadata/name"))
    }

    /// Its UID.
    pub fn uid(&self) -> &str {
        text(&self.value, "/metadata/uid")
    }
}

/// One change, as a watch tells it.
#[derive(Clone, Debug)]
pub struct Change {
    /// The version it made.
    pub version: u64,
    /// `ADDED`, `MODIFIED` or `DELETED`.
    pub what: &'static str,
    /// The object after it; what it was, if it is gone.
    pub object: Arc<Object>,
}

/// A write that took effect, for whoever looks on.
#[derive(Debug)]
pub struct Write<'w> {
    /// Who did it.
    pub by: &'w str,
    /// What of.
    pub resource: Resource,
    /// Which one.
    pub key: &'w ObjectKey,
    /// What was there before.
    pub before: Option<&'w Value>,
    /// What is there now.
    pub after: Option<&'w Value>,
}

/// Looks on.
pub trait Onlooker: Send + Sync {
    /// A write took effect. Called from under the store's lock: it must not write itself.
    fn wrote(&self, write: &Write<'_>);
    /// A webhook has refused something.
    fn refused(&self, pod: &ObjectKey, uid: &str, refusal: &Refusal);
}

/// Says what time it is, in whole seconds as Kubernetes writes it.
pub type Stamp = Box<dyn Fn() -> String + Send + Sync>;

/// All objects.
pub struct Store {
    inner: Mutex<Inner>,
    stamp: Stamp,
    onlooker: Arc<dyn Onlooker>,
}

#[derive(Default)]
struct Inner {
    version: u64,
    collections: BTreeMap<Resource, Collection>,
    /// UID of an owner → what belongs to it.
    owned: HashMap<String, Vec<(Resource, ObjectKey)>>,
}

struct Collection {
    objects: BTreeMap<ObjectKey, Arc<Object>>,
    log: VecDeque<Change>,
    /// The last version of which nothing is remembered any more.
    forgotten: u64,
    news: watch::Sender<u64>,
    topics: HashMap<ObjectKey, watch::Sender<u64>>,
}

impl Default for Collection {
    fn default() -> Self {
        Self {
            objects: BTreeMap::new(),
            log: VecDeque::new(),
            forgotten: 0,
            news: watch::Sender::new(0),
            topics: HashMap::new(),
        }
    }
}

impl Store {
    /// An empty one.
    pub fn new(stamp: Stamp, onlooker: Arc<dyn Onlooker>) -> Self {
        Self { inner: Mutex::default(), stamp, onlooker }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The version of the last write.
    pub fn version(&self) -> u64 {
        self.inner().version
    }

    /// One object.
    pub fn get(&self, resource: Resource, key: &ObjectKey) -> Option<Arc<Object>> {
        self.inner().collections.get(&resource)?.objects.get(key).cloned()
    }

    /// All objects of a resource in a namespace, or in all if that is empty; and the version this is of.
    pub fn list(&self, resource: Resource, namespace: &str) -> (Vec<Arc<Object>>, u64) {
        let inner = self.inner();
        let objects = inner.collections.get(&resource).into_iter().flat_map(|c| c.objects.iter());
        let found = objects.filter(|(key, _)| namespace.is_empty() || key.namespace == namespace);
        (found.map(|(_, object)| object.clone()).collect(), inner.version)
    }

    /// What changed after `version`; 410 if that is not remembered any more.
    pub fn since(&self, resource: Resource, version: u64) -> Result<Vec<Change>, Refusal> {
        let mut inner = self.inner();
        let collection = inner.collections.entry(resource).or_default();
        if version < collection.forgotten {
            return Err(Refusal::gone());
        }
        let start = collection.log.partition_point(|change| change.version <= version);
        Ok(collection.log.range(start..).cloned().collect())
    }

    /// Forgets all changes so far: whoever watches from before them has to list again.
    pub fn compact(&self) {
        let mut inner = self.inner();
        let version = inner.version;
        for collection in inner.collections.values_mut() {
            collection.log.clear();
            collection.forgotten = version;
        }
    }

    /// Told whenever something of the resource changes.
    pub fn news(&self, resource: Resource) -> watch::Receiver<u64> {
        self.inner().collections.entry(resource).or_default().news.subscribe()
    }

    /// Told whenever this object changes.
    pub fn news_of(&self, resource: Resource, key: &ObjectKey) -> watch::Receiver<u64> {
        let mut inner = self.inner();
        let collection = inner.collections.entry(resource).or_default();
        collection.topics.entry(key.clone()).or_insert_with(|| watch::Sender::new(0)).subscribe()
    }

    /// Waits until what there is of an object (null if there is none) is as wanted.
    pub async fn until(&self, resource: Resource, key: &ObjectKey, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut news = self.news_of(resource, key);
        loop {
            news.mark_unchanged();
            let now = self.get(resource, key).map_or(Value::Null, |object| object.value.clone());
            if wanted(&now) {
                return now;
            }
            if news.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// Adds an object.
    pub fn create(&self, by: &str, resource: Resource, mut value: Value) -> Result<Arc<Object>, Refusal> {
        let mut inner = self.inner();
        let generated = text(&value, "/metadata/generateName").to_owned();
        if text(&value, "/metadata/name").is_empty() {
            if generated.is_empty() {
                return Err(Refusal::invalid("an object without a name"));
            }
            value["metadata"]["name"] = json!(format!("{generated}{:05x}", inner.version));
        }
        let key = ObjectKey::new(text(&value, "/metadata/namespace"), text(&value, "/metadata/name"));
        if inner.collections.entry(resource).or_default().objects.contains_key(&key) {
            return Err(Refusal::exists(resource, &key));
        }
        value["apiVersion"] = json!(resource.api_version());
        value["kind"] = json!(resource.kind);
        value["metadata"]["uid"] = json!(format!("{}-{}", resource.plural, inner.version + 1));
        value["metadata"]["creationTimestamp"] = json!((self.stamp)());
        let object = inner.put(&self.onlooker, by, resource, &key, value);
        for owner in object.value.pointer("/metadata/ownerReferences").and_then(Value::as_array).into_iter().flatten() {
            let belongs = inner.owned.entry(text(owner, "/uid").to_owned()).or_default();
            belongs.push((resource, key.clone()));
        }
        Ok(object)
    }

    /// Changes an object. Nothing is written if nothing is different. `None`: there is no such object.
    pub fn change(
        &self,
        by: &str,
        resource: Resource,
        key: &ObjectKey,
        change: impl FnOnce(&mut Value),
    ) -> Option<Arc<Object>> {
        let changed = self.try_change(by, resource, key, |value| {
            change(value);
            Ok(())
        });
        changed.ok()
    }

    /// As [`Self::change`], by someone who may turn out not to want it.
    pub fn try_change(
        &self,
        by: &str,
        resource: Resource,
        key: &ObjectKey,
        change: impl FnOnce(&mut Value) -> Result<(), Refusal>,
    ) -> Result<Arc<Object>, Refusal> {
        let mut inner = self.inner();
        let found = inner.collections.get(&resource).and_then(|c| c.objects.get(key)).cloned();
        let before = found.ok_or_else(|| Refusal::not_found(resource, key))?;
        let mut value = before.value.clone();
        change(&mut value)?;
        for fixed in ["uid", "name", "namespace", "creationTimestamp", "deletionTimestamp", "resourceVersion"] {
            match before.value["metadata"].get(fixed) {
                Some(as_before) => value["metadata"][fixed] = as_before.clone(),
                None => drop(value["metadata"].as_object_mut().and_then(|meta| meta.remove(fixed))),
            }
        }
        if value == before.value {
            return Ok(before);
        }
        if is_deleting(&value) && !is_kept(resource, &value) {
            return Ok(inner.remove(&self.onlooker, by, resource, key, value));
        }
        Ok(inner.put(&self.onlooker, by, resource, key, value))
    }

    /// Asks for an object to go: at once, or as soon as its finalizers and, for a pod on a node, its kubelet let it.
    pub fn delete(&self, by: &str, resource: Resource, key: &ObjectKey) -> Result<Arc<Object>, Refusal> {
        let mut inner = self.inner();
        let found = inner.collections.get(&resource).and_then(|c| c.objects.get(key)).cloned();
        let before = found.ok_or_else(|| Refusal::not_found(resource, key))?;
        let mut value = before.value.clone();
        if !is_kept(resource, &value) {
            return Ok(inner.remove(&self.onlooker, by, resource, key, value));
        }
        if is_deleting(&value) {
            return Ok(before);
        }
        value["metadata"]["deletionTimestamp"] = json!((self.stamp)());
        Ok(inner.put(&self.onlooker, by, resource, key, value))
    }

    /// Takes an object away, whatever keeps it: what a kubelet does when a pod has ended.
    pub fn remove(&self, by: &str, resource: Resource, key: &ObjectKey) {
        let mut inner = self.inner();
        let found = inner.collections.get(&resource).and_then(|c| c.objects.get(key)).cloned();
        if let Some(object) = found {
            inner.remove(&self.onlooker, by, resource, key, object.value.clone());
        }
    }
}

/// Whether something is still to be done before the object goes.
fn is_kept(resource: Resource, value: &Value) -> bool {
    let finalizers = value.pointer("/metadata/finalizers").and_then(Value::as_array);
    let on_a_node = resource == PODS && !text(value, "/spec/nodeName").is_empty();
    on_a_node || finalizers.is_some_and(|all| !all.is_empty())
}

impl Inner {
    /// The object under a new version.
    fn next_version(&mut self, mut value: Value) -> Arc<Object> {
        self.version += 1;
        value["metadata"]["resourceVersion"] = json!(self.version.to_string());
        Object::new(value)
    }

    fn put(
        &mut self,
        onlooker: &Arc<dyn Onlooker>,
        by: &str,
        resource: Resource,
        key: &ObjectKey,
        value: Value,
    ) -> Arc<Object> {
        let object = self.next_version(value);
        let collection = self.collections.entry(resource).or_default();
        let before = collection.objects.insert(key.clone(), object.clone());
        let what = if before.is_some() { "MODIFIED" } else { "ADDED" };
        let before = before.as_ref().map(|o| &o.value);
        onlooker.wrote(&Write { by, resource, key, before, after: Some(&object.value) });
        collection.tell(Change { version: self.version, what, object: object.clone() }, key);
        object
    }

    fn remove(
        &mut self,
        onlooker: &Arc<dyn Onlooker>,
        by: &str,
        resource: Resource,
        key: &ObjectKey,
        value: Value,
    ) -> Arc<Object> {
        let object = self.next_version(value);
        let collection = self.collections.entry(resource).or_default();
        collection.objects.remove(key);
        onlooker.wrote(&Write { by, resource, key, before: Some(&object.value), after: None });
        collection.tell(Change { version: self.version, what: "DELETED", object: object.clone() }, key);
        for (resource, key) in self.owned.remove(object.uid()).unwrap_or_default() {
            let belongs = self.collections.get(&resource).and_then(|c| c.objects.get(&key)).cloned();
            if let Some(belongs) = belongs {
                self.remove(onlooker, "garbage-collector", resource, &key, belongs.value.clone());
            }
        }
        object
    }
}

impl Collection {
    fn tell(&mut self, change: Change, key: &ObjectKey) {
        let version = change.version;
        self.log.push_back(change);
        if self.log.len() > REMEMBERED
            && let Some(oldest) = self.log.pop_front()
        {
            self.forgotten = oldest.version;
        }
        self.news.send_replace(version);
        if let Some(topic) = self.topics.get(key) {
            topic.send_replace(version);
        }
    }
}
