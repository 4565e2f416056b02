//! Following a resource from inside, as a controller's informer does.

use super::{
    resource::Resource,
    store::{Change, Object, Store},
};
use handoff_cluster::ObjectKey;
use std::{collections::BTreeMap, sync::Arc};
use tokio::sync::watch;

/// All objects of a resource, and then every change.
pub struct Follow {
    store: Arc<Store>,
    resource: Resource,
    version: Option<u64>,
    /// As told so far.
    known: BTreeMap<ObjectKey, Arc<Object>>,
    news: watch::Receiver<u64>,
}

impl Follow {
    /// Of this resource.
    pub fn new(store: &Arc<Store>, resource: Resource) -> Self {
        Self { store: store.clone(), resource, version: None, known: BTreeMap::new(), news: store.news(resource) }
    }

    /// The next changes, at least one; the first ones are all objects there are.
    pub async fn next(&mut self) -> Vec<Change> {
        loop {
            self.news.mark_unchanged();
            let changes = self.version.and_then(|version| self.store.since(self.resource, version).ok());
            let changes = changes.unwrap_or_else(|| self.list());
            if let Some(last) = changes.last() {
                self.version = Some(last.version);
                changes.iter().for_each(|change| self.learn(change));
                return changes;
            }
            if self.news.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// What has become different while nothing was told: what is gone is told too, or it would be there for ever.
    fn list(&mut self) -> Vec<Change> {
        let (objects, version) = self.store.list(self.resource, "");
        self.version = Some(version);
        let is = objects.into_iter().map(|object| (object.key(), object)).collect::<BTreeMap<_, _>>();
        let gone = |key: &ObjectKey, was: &Object| is.get(key).is_none_or(|now| now.uid() != was.uid());
        let gone = self.known.iter().filter(|(key, was)| gone(key, was));
        let mut changes =
            gone.map(|(_, was)| Change { version, what: "DELETED", object: was.clone() }).collect::<Vec<_>>();
        changes.extend(is.into_iter().filter_map(|(key, object)| {
            let what = match self.known.get(&key) {
                Some(was) if Arc::ptr_eq(was, &object) => return None,
                Some(was) if was.uid() == object.uid() => "MODIFIED",
                _ => "ADDED",
            };
            Some(Change { version, what, object })
        }));
        changes
    }

    fn learn(&mut self, change: &Change) {
        if change.what == "DELETED" {
            self.known.remove(&change.object.key());
        } else {
            self.known.insert(change.object.key(), change.object.clone());
        }
    }
}
