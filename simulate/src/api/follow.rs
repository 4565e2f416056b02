//! Following a resource from inside, as a controller's informer does.

use super::{
    resource::Resource,
    store::{Change, Store},
};
use std::sync::Arc;
use tokio::sync::watch;

/// All objects of a resource, and then every change.
pub struct Follow {
    store: Arc<Store>,
    resource: Resource,
    version: Option<u64>,
    news: watch::Receiver<u64>,
}

impl Follow {
    /// Of this resource.
    pub fn new(store: &Arc<Store>, resource: Resource) -> Self {
        Self { store: store.clone(), resource, version: None, news: store.news(resource) }
    }

    /// The next changes, at least one; the first ones are all objects there are.
    pub async fn next(&mut self) -> Vec<Change> {
        loop {
            self.news.mark_unchanged();
            let changes = self.version.and_then(|version| self.store.since(self.resource, version).ok());
            let changes = changes.unwrap_or_else(|| {
                let (objects, version) = self.store.list(self.resource, "");
                self.version = Some(version);
                objects.into_iter().map(|object| Change { version, what: "ADDED", object }).collect()
            });
            if let Some(last) = changes.last() {
                self.version = Some(last.version);
                return changes;
            }
            if self.news.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }
}
