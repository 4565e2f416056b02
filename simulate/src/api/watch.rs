//! Watches: changes from a version on, line by line, with bookmarks, until the time is up.

use super::{
    refusal::Refusal,
    resource::Resource,
    store::{Change, Store},
};
use axum::body::{Body, Bytes};
use futures::stream;
use serde_json::json;
use std::{convert::Infallible, sync::Arc, time::Duration};
use tokio::{sync::watch, time::Instant};

/// How often a watch of which nothing changes says up to which version it is.
const BOOKMARK_EVERY: Duration = Duration::from_secs(30);
/// A watch whose client names no time ends after this.
const LONGEST: Duration = Duration::from_mins(5);

/// What a watch is asked for.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Only this namespace, if not empty.
    pub namespace: String,
    /// Only the object of this name, if not empty.
    pub name: String,
    /// What changed after this version.
    pub version: u64,
    /// How long.
    pub lasts: Option<Duration>,
    /// Bookmarks are welcome.
    pub bookmarks: bool,
}

struct Watching {
    store: Arc<Store>,
    resource: Resource,
    wanted: Wanted,
    news: watch::Receiver<u64>,
    ends: Instant,
    bookmark: Instant,
}

/// The body of the answer. A version that is not remembered is refused at once.
pub fn body(store: &Arc<Store>, resource: Resource, wanted: Wanted) -> Result<Body, Refusal> {
    let news = store.news(resource);
    store.since(resource, wanted.version)?;
    let now = Instant::now();
    let ends = now + wanted.lasts.unwrap_or(LONGEST);
    let watching = Watching { store: store.clone(), resource, wanted, news, ends, bookmark: now + BOOKMARK_EVERY };
    let lines = stream::unfold(watching, |mut watching| async move {
        let lines = watching.next().await?;
        Some((Ok::<_, Infallible>(Bytes::from(lines)), watching))
    });
    Ok(Body::from_stream(lines))
}

impl Watching {
    /// The next lines; `None` when the time is up.
    async fn next(&mut self) -> Option<String> {
        loop {
            self.news.mark_unchanged();
            let changes = match self.store.since(self.resource, self.wanted.version) {
                Ok(changes) => changes,
                Err(gone) => {
                    // said once, and then the watch ends
                    self.ends = Instant::now();
                    self.wanted.version = u64::MAX;
                    return Some(format!("{}\n", json!({"type": "ERROR", "object": gone.status()})));
                }
            };
            if let Some(last) = changes.last() {
                self.wanted.version = last.version;
            }
            let lines = changes.iter().filter(|change| self.is_wanted(change)).map(line).collect::<String>();
            if !lines.is_empty() {
                return Some(lines);
            }
            let due = if self.wanted.bookmarks { self.ends.min(self.bookmark) } else { self.ends };
            tokio::select! {
                biased;
                told = self.news.changed() => told.ok()?,
                () = tokio::time::sleep_until(due) => {
                    if due == self.ends {
                        return None;
                    }
                    self.bookmark = Instant::now() + BOOKMARK_EVERY;
                    return Some(self.bookmark_line());
                }
            }
        }
    }

    fn is_wanted(&self, change: &Change) -> bool {
        let key = change.object.key();
        let Wanted { namespace, name, .. } = &self.wanted;
        (namespace.is_empty() || *namespace == key.namespace) && (name.is_empty() || *name == key.name)
    }

    fn bookmark_line(&self) -> String {
        let object = json!({"apiVersion": self.resource.api_version(), "kind": self.resource.kind,
            "metadata": {"resourceVersion": self.wanted.version.max(self.store.version()).to_string(),
                "creationTimestamp": null}, "spec": {}});
        format!("{}\n", json!({"type": "BOOKMARK", "object": object}))
    }
}

fn line(change: &Change) -> String {
    format!("{{\"type\":\"{}\",\"object\":{}}}\n", change.what, change.object.json())
}
