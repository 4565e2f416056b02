//! Waking pods that we rejected. The scheduler looks again at a pod that an extender rejected when something happens to
//! pods, nodes, claims or volumes, but it does not watch the storage manager's objects: without us such a pod would wait
//! for the flush of its queue, up to 5 minutes. One annotation on the pod is an event of the pod, so it is tried at once.
//!
//! Each replica remembers what it rejected itself. A replica that starts takes every pod that waits for a node which
//! cannot take it as rejected: so a rejection survives the replica that made it. Before the write the pod is read, and
//! written under its resourceVersion, so that of several replicas one wakes it.

use crate::{shell::Coordinator, verdicts::PodRef};
use handoff_cluster::ObjectKey;
use hashbrown::HashMap;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::json;
use std::{sync::PoisonError, time::Duration};

/// When the pod was last woken.
pub const RESCHEDULED_AT: &str = "volumehandoff.io/rescheduled-at";

/// A rejection is forgotten after this: the scheduler's own flush is long over, and asked us anew.
const EXPIRY: SignedDuration = SignedDuration::from_mins(10);
/// A pod that no cache shows is forgotten after this.
const UNSEEN_EXPIRY: SignedDuration = SignedDuration::from_mins(1);
/// The same pod is not woken more often than this, should a node come and go.
const PAUSE: SignedDuration = SignedDuration::from_secs(5);
/// Bounds of what is remembered; beyond them the oldest is forgotten.
const MAX_PODS: usize = 2_000;
const MAX_NODES: usize = 100_000;
/// Changes come in bursts: one look for all that come within this.
const BURST: Duration = Duration::from_millis(100);
/// A look without any news, for what became due by time.
const IDLE: Duration = Duration::from_secs(10);

/// A pod that none of the nodes could take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The pod.
    pub pod: PodRef,
    /// Its claims.
    pub claims: Vec<String>,
    /// The nodes; none: it was woken for one of them already.
    pub nodes: Vec<String>,
    /// When.
    pub at: Timestamp,
    /// When it was last woken.
    pub woken_at: Option<Timestamp>,
}

/// What is to be done about a rejection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Now {
    /// The pod is bound, going or gone.
    Forget,
    /// No node can take it yet, or nothing is known.
    Wait,
    /// This node can take it.
    Wake(String),
}

/// How the caches show a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Not (yet).
    No,
    /// Waiting for a node.
    Waiting,
    /// Bound, going, or another one of the same name.
    Settled,
}

impl Rejection {
    /// What is to be done, given how the pod is seen and which of its nodes can take it.
    fn now(&self, now: Timestamp, seen: Seen, able: impl FnOnce() -> Option<String>) -> Now {
        let age = now.duration_since(self.at);
        if seen == Seen::Settled || age >= EXPIRY || (seen == Seen::No && age >= UNSEEN_EXPIRY) {
            return Now::Forget;
        }
        let rests = self.woken_at.is_some_and(|at| now.duration_since(at) < PAUSE);
        if self.nodes.is_empty() || rests { Now::Wait } else { able().map_or(Now::Wait, Now::Wake) }
    }
}

/// All rejections that may still matter.
#[derive(Debug, Default)]
pub struct Rejections {
    pods: HashMap<ObjectKey, Rejection>,
}

impl Rejections {
    /// Remembers a rejection; a newer one of the same pod replaces it.
    pub fn note(&mut self, pod: PodRef, claims: Vec<String>, mut nodes: Vec<String>, now: Timestamp) {
        nodes.truncate(MAX_NODES);
        let key = ObjectKey::new(&pod.namespace, &pod.name);
        let woken_at = self.pods.remove(&key).filter(|old| old.pod.uid == pod.uid).and_then(|old| old.woken_at);
        while self.pods.len() >= MAX_PODS || self.nodes() + nodes.len() > MAX_NODES {
            let oldest = self.pods.iter().min_by_key(|(_, rejection)| rejection.at).map(|(key, _)| key.clone());
            let Some(oldest) = oldest else { break };
            self.pods.remove(&oldest);
        }
        self.pods.insert(key, Rejection { pod, claims, nodes, at: now, woken_at });
    }

    fn nodes(&self) -> usize {
        self.pods.values().map(|rejection| rejection.nodes.len()).sum()
    }

    /// Copies, to look at without holding this.
    fn all(&self) -> Vec<Rejection> {
        self.pods.values().cloned().collect()
    }

    /// The pod is done with, unless it was rejected again meanwhile.
    fn forget(&mut self, seen: &Rejection) {
        let key = ObjectKey::new(&seen.pod.namespace, &seen.pod.name);
        if self.pods.get(&key).is_some_and(|r| r.at == seen.at) {
            self.pods.remove(&key);
        }
    }

    /// The pod is being woken: not again before the scheduler has rejected it again.
    fn woken(&mut self, seen: &Rejection, now: Timestamp) {
        let key = ObjectKey::new(&seen.pod.namespace, &seen.pod.name);
        if let Some(rejection) = self.pods.get_mut(&key).filter(|r| r.at == seen.at) {
            rejection.nodes = Vec::new();
            rejection.woken_at = Some(now);
        }
    }

    /// Waking did not work: it is due again after the pause.
    fn failed(&mut self, seen: &Rejection) {
        let key = ObjectKey::new(&seen.pod.namespace, &seen.pod.name);
        if let Some(rejection) = self.pods.get_mut(&key).filter(|r| r.at == seen.at) {
            rejection.nodes.clone_from(&seen.nodes);
        }
    }
}

impl Coordinator {
    fn rejections(&self) -> std::sync::MutexGuard<'_, Rejections> {
        self.rejections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// See [`crate::verdicts::Placement::rejected`].
    pub(crate) fn remember_rejection(&self, pod: PodRef, claims: Vec<String>, nodes: Vec<String>) {
        self.rejections().note(pod, claims, nodes, self.clock.now());
        // the world may have changed between the judgement and now
        self.hosts_news.notify_one();
    }

    /// Wakes rejected pods for ever.
    pub async fn wake(&self) {
        while !self.missing().is_empty() {
            tokio::time::sleep(BURST).await;
        }
        self.take_up_waiting();
        loop {
            // news that comes before this line is kept
            let _ = tokio::time::timeout(IDLE, self.hosts_news.notified()).await;
            tokio::time::sleep(BURST).await;
            self.wake_able().await;
        }
    }

    /// Takes every pod that waits for a node as rejected by the nodes that cannot take it.
    pub(crate) fn take_up_waiting(&self) {
        let index = self.cluster.read();
        let waiting = index.pods().filter(|p| p.node.is_none() && p.stays() && !p.claims.is_empty());
        let waiting = waiting.take(MAX_PODS).collect::<Vec<_>>();
        let nodes = index.nodes().map(|n| n.name.clone()).collect::<Vec<_>>();
        drop(index);
        for pod in waiting {
            let of =
                PodRef { namespace: pod.key.namespace.clone(), name: pod.key.name.clone(), uid: Some(pod.uid.clone()) };
            let unable = self.unable(&of, &pod.claims, &nodes);
            // what was rejected by ourselves meanwhile says more: a node may have become able since
            if !unable.is_empty() && !self.rejections().pods.contains_key(&pod.key) {
                self.rejections().note(of, pod.claims.clone(), unable, self.clock.now());
            }
        }
    }

    /// Looks at all rejections once.
    pub(crate) async fn wake_able(&self) {
        let all = self.rejections().all();
        for rejection in all {
            let now = self.clock.now();
            let able = || self.able(&rejection.pod, &rejection.claims, &rejection.nodes);
            match rejection.now(now, self.seen(&rejection.pod), able) {
                Now::Forget => self.rejections().forget(&rejection),
                Now::Wait => {}
                Now::Wake(node) => {
                    self.rejections().woken(&rejection, now);
                    if let Err(error) = self.wake_pod(&rejection, &node, now).await {
                        let pod = &rejection.pod;
                        tracing::warn!(namespace = pod.namespace, pod = pod.name, node, %error, "pod not woken");
                        self.metrics.failed("Wake");
                        self.rejections().failed(&rejection);
                    }
                }
            }
        }
    }

    fn seen(&self, pod: &PodRef) -> Seen {
        match self.cluster.read().pod(&ObjectKey::new(&pod.namespace, &pod.name)) {
            None => Seen::No,
            Some(found) if pod.uid.as_ref().is_some_and(|uid| *uid != found.uid) => Seen::Settled,
            Some(found) if found.node.is_some() || !found.stays() => Seen::Settled,
            Some(_) => Seen::Waiting,
        }
    }

    async fn wake_pod(&self, rejection: &Rejection, node: &str, now: Timestamp) -> Result<(), kube::Error> {
        let PodRef { namespace, name, uid } = &rejection.pod;
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let Some(pod) = api.get_metadata_opt(name).await? else { return Ok(()) };
        let another = uid.as_ref().is_some_and(|uid| pod.metadata.uid.as_ref() != Some(uid));
        let woken = pod.annotations().get(RESCHEDULED_AT).and_then(|at| at.parse::<Timestamp>().ok());
        if another || woken.is_some_and(|at| at > rejection.at) {
            return Ok(());
        }
        let patch = json!({"metadata": {
            "resourceVersion": pod.resource_version(),
            "annotations": {RESCHEDULED_AT: now.to_string()},
        }});
        match api.patch_metadata(name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(_) => {
                tracing::info!(namespace, pod = name, node, "a node can take the pod now: woken");
                Ok(())
            }
            // another change of the pod is an event of the pod as well, or it is gone
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        stage::{self, Server, Storage, coordinator, db_0, node, volume, volume_view},
        verdicts::Placement,
    };
    use handoff_cluster::Index;
    use proptest::prelude::*;
    use std::{collections::BTreeMap, sync::Arc};

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + seconds).unwrap()
    }

    fn pod(name: &str) -> PodRef {
        PodRef { namespace: "shop".into(), name: name.into(), uid: Some(format!("uid-{name}")) }
    }

    fn one(nodes: &[&str]) -> Rejection {
        let mut rejections = Rejections::default();
        rejections.note(pod("db-0"), vec!["data".into()], nodes.iter().map(ToString::to_string).collect(), at(0));
        rejections.all().remove(0)
    }

    #[test]
    fn a_pod_is_woken_for_a_node_that_can_take_it_now() {
        let rejection = one(&["a", "b"]);
        assert_eq!(rejection.now(at(1), Seen::Waiting, || None), Now::Wait);
        assert_eq!(rejection.now(at(1), Seen::Waiting, || Some("b".into())), Now::Wake("b".into()));
        assert_eq!(rejection.now(at(1), Seen::No, || Some("b".into())), Now::Wake("b".into()), "the cache lags behind");
    }

    #[test]
    fn what_is_over_is_forgotten() {
        let rejection = one(&["a"]);
        let able = || Some("a".to_owned());
        assert_eq!(rejection.now(at(1), Seen::Settled, able), Now::Forget);
        assert_eq!(rejection.now(at(60), Seen::No, able), Now::Forget);
        assert_eq!(rejection.now(at(60), Seen::Waiting, || None), Now::Wait);
        assert_eq!(rejection.now(at(600), Seen::Waiting, able), Now::Forget);
    }

    #[test]
    fn once_per_rejection_and_not_too_often() {
        let mut rejections = Rejections::default();
        let able = || Some("a".to_owned());
        rejections.note(pod("db-0"), Vec::new(), vec!["a".into()], at(0));
        let first = rejections.all().remove(0);
        rejections.woken(&first, at(1));
        assert_eq!(rejections.all()[0].now(at(100), Seen::Waiting, able), Now::Wait, "not rejected since");
        rejections.note(pod("db-0"), Vec::new(), vec!["a".into()], at(2));
        assert_eq!(rejections.all()[0].now(at(3), Seen::Waiting, able), Now::Wait, "too soon");
        assert_eq!(rejections.all()[0].now(at(6), Seen::Waiting, able), Now::Wake("a".into()));
        rejections.forget(&first);
        assert!(!rejections.pods.is_empty(), "rejected again since it was looked at");
        let again = rejections.all().remove(0);
        rejections.woken(&again, at(6));
        rejections.failed(&again);
        assert_eq!(rejections.all()[0].now(at(8), Seen::Waiting, able), Now::Wait);
        assert_eq!(rejections.all()[0].now(at(11), Seen::Waiting, able), Now::Wake("a".into()), "tried again");
        let mut anew = pod("db-0");
        anew.uid = Some("another".into());
        rejections.note(anew, Vec::new(), vec!["a".into()], at(12));
        assert_eq!(rejections.all()[0].now(at(12), Seen::Waiting, able), Now::Wake("a".into()), "another pod");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 20, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn memory_is_bounded_and_the_newest_stay(sizes in proptest::collection::vec(0_usize..60_000, 1..8)) {
            let mut rejections = Rejections::default();
            for (n, size) in sizes.iter().enumerate() {
                let nodes = vec![String::new(); *size];
                rejections.note(pod(&format!("p{n}")), Vec::new(), nodes, at(i64::try_from(n).unwrap()));
                prop_assert!(rejections.nodes() <= MAX_NODES);
                let newest = ObjectKey::new("shop", format!("p{n}"));
                prop_assert!(rejections.pods.contains_key(&newest));
            }
        }
    }

    #[test]
    fn the_number_of_pods_is_bounded() {
        let mut rejections = Rejections::default();
        for n in 0..=MAX_PODS {
            rejections.note(pod(&format!("p{n}")), Vec::new(), Vec::new(), at(i64::try_from(n).unwrap()));
        }
        assert_eq!(rejections.pods.len(), MAX_PODS);
        assert!(!rejections.pods.contains_key(&ObjectKey::new("shop", "p0")));
    }

    fn waiting() -> Index {
        let mut index = Index::default();
        volume(&mut index, "data");
        ["a", "b"].iter().for_each(|name| drop(index.put_node(node(name))));
        index.put_pod(stage::pod(None));
        index
    }

    fn storage() -> Arc<Storage> {
        let storage =
            Storage { volumes: BTreeMap::from([("data".to_owned(), volume_view(&[], &[]))]), ..Storage::default() };
        ["a", "b"].iter().for_each(|node| storage.set(node, Some("no Longhorn instance manager runs here")));
        Arc::new(storage)
    }

    fn server() -> Server {
        let server = Server::default();
        server.set_pod(json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
            "metadata": {"name": "db-0", "namespace": "shop", "uid": "u1", "resourceVersion": "7"}}));
        server
    }

    fn reject(coordinator: &Coordinator) {
        coordinator.rejected(db_0(), vec!["claim-data".into()], vec!["a".into(), "b".into()]);
    }

    /// Waits for a write; a test that gets none runs into the limit of the test runner's patience.
    async fn written(server: &Server, writes: usize) {
        while server.writes().len() < writes {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn a_rejected_pod_is_woken_once_when_its_node_becomes_able() {
        let (server, storage) = (server(), storage());
        let coordinator = coordinator(&server, &storage, waiting());
        reject(&coordinator);
        coordinator.wake_able().await;
        assert_eq!(server.writes(), [json!(null); 0], "nothing has changed");

        let waker = tokio::spawn({
            let coordinator = coordinator.clone();
            async move { coordinator.wake().await }
        });
        storage.set("b", None);
        coordinator.hosts_news.notify_one();
        written(&server, 1).await;
        let patch = &server.writes()[0];
        assert_eq!(patch["metadata"]["resourceVersion"], "7");
        let keys = |object: &serde_json::Value| object.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(patch), ["metadata"]);
        assert_eq!(keys(&patch["metadata"]), ["annotations", "resourceVersion"]);
        assert_eq!(keys(&patch["metadata"]["annotations"]), [RESCHEDULED_AT]);
        assert!(patch["metadata"]["annotations"][RESCHEDULED_AT].as_str().unwrap().parse::<Timestamp>().is_ok());
        waker.abort();

        storage.set("a", None);
        coordinator.wake_able().await;
        coordinator.wake_able().await;
        assert_eq!(server.writes().len(), 1, "once, until the scheduler has rejected it again");
    }

    #[tokio::test]
    async fn of_two_replicas_one_wakes_the_pod() {
        let (server, storage) = (server(), storage());
        let replicas = [(); 2].map(|()| coordinator(&server, &storage, waiting()));
        replicas.iter().for_each(|replica| reject(replica));
        storage.set("a", None);
        replicas[0].wake_able().await;
        replicas[1].wake_able().await;
        assert_eq!(server.writes().len(), 1, "the second finds it woken");
    }

    #[tokio::test]
    async fn a_pod_that_has_changed_meanwhile_needs_no_waking_and_a_failure_is_made_good() {
        let (server, storage) = (server(), storage());
        let coordinator = coordinator(&server, &storage, waiting());
        storage.set("a", None);
        server.refuse_patches(&[409]);
        reject(&coordinator);
        coordinator.wake_able().await;
        assert!(coordinator.rejections().all()[0].nodes.is_empty());
        let anew = crate::stage::coordinator(&server, &storage, waiting());
        server.refuse_patches(&[500]);
        reject(&anew);
        anew.wake_able().await;
        assert_eq!(anew.rejections().all()[0].nodes, ["a", "b"], "still to be done");
    }

    #[tokio::test]
    async fn a_replica_that_starts_takes_up_what_waits() {
        let (server, storage) = (server(), storage());
        let coordinator = coordinator(&server, &storage, waiting());
        coordinator.take_up_waiting();
        coordinator.wake_able().await;
        assert!(server.writes().is_empty());
        storage.set("b", None);
        coordinator.wake_able().await;
        assert_eq!(server.writes().len(), 1);
        let none = crate::stage::coordinator(&server, &storage, waiting());
        storage.set("a", None);
        none.take_up_waiting();
        assert!(none.rejections().pods.is_empty(), "every node can take it: it waits for something else");
    }
}
