//! When the storage manager's pods (and ours) were first told "not yet". Reviews go to all replicas in turn, so this is
//! shared: one `ConfigMap` of ours, pod UID → first denial, watched by every replica. Without it a hold could last twice
//! its bound when another replica answers, or after a restart.

use handoff_cluster::{Cache, Cached, ObjectKey, Task, Watched, settings::LONGEST_HOLD};
use hashbrown::HashMap;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use serde_json::{Map, Value, json};
use std::sync::{Arc, Mutex, PoisonError};

/// Name of the `ConfigMap`.
pub const NAME: &str = "handoff-holds";
/// Rounds before giving up on a contended object. Only other replicas contend: each writes one patch at a time.
const ROUNDS: usize = 8;
/// A denial is forgotten this long after its hold is over.
const KEEP_AFTER: SignedDuration = SignedDuration::from_mins(10);

/// First denials as the cache shows them.
#[derive(Debug, Default)]
pub struct Denied {
    /// The object, if there is one.
    object: Option<ObjectKey>,
    since: HashMap<String, Timestamp>,
}

impl Cached<Denied> for ConfigMap {
    type Change = ();
    const WATCH: &'static str = "configmaps";

    fn put(self, store: &mut Denied) -> Vec<()> {
        if self.metadata.name.as_deref() == Some(NAME) {
            store.since = first_denials(&self).collect();
            store.object = Some(ObjectKey::new(self.metadata.namespace.unwrap_or_default(), NAME));
        }
        Vec::new()
    }

    fn remove(store: &mut Denied, key: &ObjectKey) -> Vec<()> {
        if key.name == NAME {
            *store = Denied::default();
        }
        Vec::new()
    }

    fn keys(store: &Denied) -> Box<dyn Iterator<Item = ObjectKey> + '_> {
        Box::new(store.object.iter().cloned())
    }
}

/// Why a first denial could not be written down.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HoldError {
    /// The API server refused or did not answer.
    #[error("ConfigMap {NAME}: {0}")]
    Api(#[from] kube::Error),
    /// Others kept changing it.
    #[error("ConfigMap {NAME} kept changing under us")]
    Busy,
}

/// First denials, shared by all replicas.
pub struct Holds {
    api: Api<ConfigMap>,
    cache: Cache<Denied>,
    /// What we wrote or read, until the cache shows it.
    ours: Mutex<HashMap<String, Timestamp>>,
    /// Pods that are to be written down. A drain evicts all pods of a node at once.
    waiting: Mutex<HashMap<String, Timestamp>>,
    /// Held by the one that writes, for all that wait.
    turn: tokio::sync::Mutex<()>,
}

impl Holds {
    /// The holds in our own namespace, and the task that keeps them current.
    pub fn new(client: &Client, namespace: &str) -> (Self, Task) {
        let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
        let mut cache = Cache::<Denied>::default();
        let task = cache.watch_one(api.clone(), NAME, Arc::new(|()| {}));
        (
            Self { api, cache, ours: Mutex::default(), waiting: Mutex::default(), turn: tokio::sync::Mutex::default() },
            task,
        )
    }

    /// All first denials, by pod UID, from memory: those of all replicas, and our own until the cache shows them.
    pub(crate) fn all(&self) -> HashMap<String, Timestamp> {
        let mut all = lock(&self.ours).clone();
        all.extend(self.cache.read().since.iter().map(|(uid, since)| (uid.clone(), *since)));
        all
    }

    /// How the watch of the shared denials stands.
    pub(crate) fn watches(&self) -> &[Watched] {
        self.cache.watches()
    }

    /// When the pod was first denied, from memory.
    pub(crate) fn known(&self, uid: &str) -> Option<Timestamp> {
        let shared = self.cache.read().since.get(uid).copied();
        shared.or_else(|| lock(&self.ours).get(uid).copied())
    }

    /// When the pod was first denied; if it never was, that is now, and is written down. Whoever comes second reads
    /// what the first one wrote. Pods that come while another one is written are written together.
    pub(crate) async fn begin(&self, uid: &str, hold: SignedDuration, now: Timestamp) -> Result<Timestamp, HoldError> {
        lock(&self.waiting).insert(uid.to_owned(), now);
        let _turn = self.turn.lock().await;
        if let Some(since) = self.known(uid) {
            return Ok(since);
        }
        let mut all = lock(&self.waiting).clone();
        // whoever was let go after the write took too long is of no interest any more
        all.retain(|_, since| !is_old(*since, hold, now));
        all.insert(uid.to_owned(), now);
        let written = self.write(all, hold, now).await?;
        let since = written.get(uid).copied().unwrap_or(now);
        lock(&self.waiting).retain(|uid, _| !written.contains_key(uid));
        let mut ours = lock(&self.ours);
        ours.retain(|_, since| !is_old(*since, hold, now));
        ours.extend(written);
        Ok(since)
    }

    /// Writes down those of `wanted` that nobody has written down yet. Returns since when each is held.
    async fn write(&self, mut wanted: Denials, hold: SignedDuration, now: Timestamp) -> Result<Denials, HoldError> {
        for _ in 0..ROUNDS {
            let sent = match self.api.get_opt(NAME).await? {
                Some(map) => {
                    let known = wanted.iter_mut().filter_map(|(uid, at)| Some((at, since_in(&map, uid)?)));
                    if known.map(|(at, since)| *at = since).count() == wanted.len() {
                        return Ok(wanted);
                    }
                    let patch = adding(&map, &wanted, hold, now);
                    self.api.patch(NAME, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
                }
                None => self.api.create(&PostParams::default(), &new_map(&wanted)).await.map(drop),
            };
            match sent {
                Ok(()) => return Ok(wanted),
                // another replica was quicker: look what it says now
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(HoldError::Busy)
    }
}

/// Pod UID → first denial.
type Denials = HashMap<String, Timestamp>;

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A first denial so long ago that the hold is over whatever its bound, and yet is remembered, so that it does not begin
/// anew: what `handoff release` writes down.
pub fn released(now: Timestamp) -> Timestamp {
    now - LONGEST_HOLD
}

/// Pod UID and first denial, as written down; what cannot be read is left out.
pub fn first_denials(map: &ConfigMap) -> impl Iterator<Item = (String, Timestamp)> {
    map.data.iter().flatten().filter_map(|(uid, at)| Some((uid.clone(), at.parse().ok()?)))
}

fn is_old(since: Timestamp, hold: SignedDuration, now: Timestamp) -> bool {
    now.duration_since(since) >= hold + KEEP_AFTER
}

fn since_in(map: &ConfigMap, uid: &str) -> Option<Timestamp> {
    map.data.as_ref()?.get(uid)?.parse().ok()
}

fn new_map(denials: &Denials) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() },
        data: Some(denials.iter().map(|(uid, since)| (uid.clone(), since.to_string())).collect()),
        ..ConfigMap::default()
    }
}

/// Adds these and takes out the old ones and those that cannot be read, if nobody changed the object meanwhile.
fn adding(map: &ConfigMap, denials: &Denials, hold: SignedDuration, now: Timestamp) -> Value {
    let kept = |at: &String| at.parse().is_ok_and(|since| !is_old(since, hold, now));
    let gone = map.data.iter().flatten().filter(|(_, at)| !kept(at)).map(|(uid, _)| (uid.clone(), Value::Null));
    let mut data = gone.collect::<Map<String, Value>>();
    data.extend(denials.iter().map(|(uid, since)| (uid.clone(), json!(since.to_string()))));
    json!({"metadata": {"resourceVersion": map.metadata.resource_version}, "data": data})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_denial_is_added_and_old_ones_go() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let hold = SignedDuration::from_secs(100);
        let one = |uid: &str, at: Timestamp| Denials::from([(uid.to_owned(), at)]);
        let mut map = new_map(&one("recent", now - SignedDuration::from_mins(11)));
        map.metadata.resource_version = Some("7".into());
        let data = map.data.as_mut().unwrap();
        data.insert("old".into(), (now - SignedDuration::from_mins(12)).to_string());
        data.insert("broken".into(), "yesterday".into());
        assert_eq!(
            adding(&map, &one("new", now), hold, now),
            json!({"metadata": {"resourceVersion": "7"},
                "data": {"old": null, "broken": null, "new": now.to_string()}})
        );
        assert_eq!(since_in(&map, "recent"), Some(now - SignedDuration::from_mins(11)));
        assert_eq!((since_in(&map, "broken"), since_in(&map, "new")), (None, None));
    }

    #[test]
    fn a_released_hold_is_over_for_whatever_bound_and_is_not_begun_anew() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let since = released(now);
        for bound in [1, 60, 100].map(SignedDuration::from_secs) {
            assert!(since + bound <= now, "over");
            assert!(!is_old(since, bound, now + SignedDuration::from_mins(8)), "remembered");
        }
    }

    #[test]
    fn the_cache_shows_what_the_object_says() {
        let mut store = Denied::default();
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        new_map(&Denials::from([("u".into(), now)])).put(&mut store);
        assert_eq!(store.since.get("u"), Some(&now));
        let mut other = new_map(&Denials::from([("v".into(), now)]));
        other.metadata.name = Some("another".into());
        other.put(&mut store);
        assert_eq!(store.since.len(), 1);
        <ConfigMap as Cached<Denied>>::remove(&mut store, &ObjectKey::new("ns", NAME));
        assert!(store.since.is_empty());
    }
}
