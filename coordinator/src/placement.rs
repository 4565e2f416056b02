//! Answers for the extender, from memory. What a judge says depends on the caches alone, so `handoff explain` says the
//! same without a running replica.

use crate::{
    binder,
    mode::{enabled, layers},
    score::{Facts, Score, points, score},
    shell::Coordinator,
    verdicts::{Admission, NodeJudge, Placement, PodRef},
};
use futures::future::BoxFuture;
use handoff_cluster::{
    ClusterCache, Index, Moment, ObjectKey, Pod, Volume,
    settings::{Mode, Settings},
};
use handoff_storage::{Hosting, StorageManager};
use hashbrown::HashMap;
use std::{
    collections::HashSet,
    sync::{Arc, OnceLock},
};

impl Coordinator {
    /// Caches that are not complete, or whose picture may be out of date; no node is refused while there are any.
    pub(crate) fn blind(&self) -> Vec<&'static str> {
        [self.missing(), self.cluster.stale(), self.storage.stale()].concat()
    }

    fn judge_of(&self, pod: &PodRef, settings: &Settings, claims: &[String]) -> Option<Judge<'_>> {
        let claims = enabled(&self.cluster.read(), &pod.namespace, settings, claims, self.policy.mode);
        let wanted = Wanted::of(&self.cluster.read(), self.storage.driver(), &pod.namespace, &claims);
        if wanted.is_empty() {
            return None;
        }
        let blind = self.blind();
        if !blind.is_empty() {
            tracing::debug!(namespace = pod.namespace, ?claims, ?blind, "nothing is said about nodes");
            self.metrics.failed("Judge");
            return None;
        }
        let arriving = Box::new(|| self.arriving());
        Some(Judge::new(&self.cluster, &*self.storage, &wanted, arriving))
    }

    /// The annotations of a pod that the cache shows.
    fn settings_of(&self, pod: &PodRef) -> Settings {
        self.cached(pod).map(|found| found.settings.clone()).unwrap_or_default()
    }

    /// Whether one of `nodes` can take the pod now; `None`: nothing can be said.
    pub(crate) fn able(&self, pod: &PodRef, claims: &[String], nodes: &[String]) -> Option<String> {
        let judge = self.judge_of(pod, &self.settings_of(pod), claims)?;
        nodes.iter().find(|node| judge.fits(node).is_ok()).cloned()
    }

    /// Those of `nodes` that cannot take the pod.
    pub(crate) fn unable(&self, pod: &PodRef, claims: &[String], nodes: &[String]) -> Vec<String> {
        let Some(judge) = self.judge_of(pod, &self.settings_of(pod), claims) else { return Vec::new() };
        nodes.iter().filter(|node| judge.fits(node).is_err()).cloned().collect()
    }
}

impl Placement for Coordinator {
    fn judge(&self, pod: &PodRef, settings: &Settings, claims: &[String]) -> Option<Box<dyn NodeJudge + '_>> {
        self.judge_of(pod, settings, claims).map(|judge| Box::new(judge) as _)
    }

    fn rejected(&self, pod: PodRef, claims: Vec<String>, nodes: Vec<String>) {
        self.remember_rejection(pod, claims, nodes);
    }

    fn busy_pods(&self) -> HashSet<String> {
        let handles = self.storage.busy();
        let index = self.cluster.read();
        let mut busy = HashSet::new();
        for volume in handles.iter().filter_map(|handle| index.volume_of_handle(self.storage.driver(), handle)) {
            let Some(claim) = &volume.claim else { continue };
            let enabled =
                |pod: &&Arc<Pod>| layers(&index, &pod.settings, claim).mode(self.policy.mode) == Mode::Enabled;
            busy.extend(index.pods_of_volume(&volume).iter().filter(enabled).map(|pod| pod.uid.clone()));
        }
        busy
    }

    fn bind_pod(&self, pod: PodRef, node: String) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            Admission::bind(self, pod.clone(), node.clone(), false).await;
            binder::bind(&self.client, &pod, &node).await
        })
    }
}

/// What a pod's claims ask of a node.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    volumes: Vec<Arc<Volume>>,
    new: Vec<NewClaim>,
}

#[derive(Clone, Debug)]
struct NewClaim {
    name: String,
    bytes: u64,
    parameters: std::collections::BTreeMap<String, String>,
}

impl Wanted {
    /// What the claims of a pod ask of a node, as far as they are on `driver` and of one node at a time.
    pub fn of(index: &Index, driver: &str, namespace: &str, claims: &[String]) -> Self {
        let mut wanted = Self::default();
        for name in claims {
            let key = ObjectKey::new(namespace, name);
            let Some(claim) = index.claim(&key) else { continue };
            if claim.volume.is_some() {
                let volume = index.volume_of_claim(&key);
                wanted.volumes.extend(volume.filter(|v| v.driver == driver && !v.shared));
                continue;
            }
            // a claim with the class "" gets no volume made for it
            let class = match claim.class.as_deref() {
                Some(class) => index.class(class),
                None => index.default_class(),
            };
            if let Some(class) = class.filter(|c| c.provisioner == driver && c.waits_for_pod) {
                let (bytes, parameters) = (claim.requested_bytes.unwrap_or_default(), class.parameters.clone());
                wanted.new.push(NewClaim { name: name.clone(), bytes, parameters });
            }
        }
        wanted
    }

    /// Nothing is on our driver.
    pub fn is_empty(&self) -> bool {
        self.volumes.is_empty() && self.new.is_empty()
    }
}

/// Volumes per node that are on their way there although no attachment is seen yet.
pub type Arriving<'a> = Box<dyn Fn() -> HashMap<String, usize> + Send + 'a>;

/// Judges nodes for one pod.
pub struct Judge<'a> {
    cluster: &'a ClusterCache,
    hosting: Vec<Hosting>,
    volumes: usize,
    new: usize,
    /// Node → how many of the volumes have a good replica there.
    local: HashMap<String, usize>,
    /// Node → how many of them are pre-staged there.
    staged: HashMap<String, usize>,
    most_staged: usize,
    count_arriving: Arriving<'a>,
    /// What scores are made of besides, taken when the first is asked for: one picture for all nodes.
    picture: OnceLock<Picture>,
}

struct Picture {
    now: Moment,
    arriving: HashMap<String, usize>,
}

fn of(counts: &HashMap<String, usize>, node: &str) -> usize {
    counts.get(node).copied().unwrap_or_default()
}

fn count(nodes: impl Iterator<Item = String>) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    nodes.for_each(|node| *counts.entry(node).or_default() += 1);
    counts
}

impl<'a> Judge<'a> {
    /// Looks up everything that does not depend on the node.
    pub fn new(
        cluster: &'a ClusterCache,
        storage: &dyn StorageManager,
        wanted: &Wanted,
        count_arriving: Arriving<'a>,
    ) -> Self {
        let hosting = wanted.volumes.iter().filter_map(|v| storage.hosting(&v.handle));
        let new = wanted.new.iter().filter_map(|c| storage.hosting_of_new(&c.name, c.bytes, &c.parameters));
        let views = wanted.volumes.iter().filter_map(|v| storage.volume(&v.handle)).collect::<Vec<_>>();
        let local = views.iter().flat_map(|view| {
            let good = view.replicas.iter().filter(|r| !r.failed).map(|r| r.node.clone());
            // two replicas of one volume on a node are one volume
            good.collect::<HashSet<_>>()
        });
        let staged = views.iter().flat_map(|v| v.requests.iter().filter(|r| r.ours).map(|r| r.node.clone()));
        let staged = count(staged);
        Self {
            cluster,
            hosting: hosting.chain(new).collect(),
            volumes: wanted.volumes.len(),
            new: wanted.new.len(),
            local: count(local),
            most_staged: staged.values().copied().max().unwrap_or_default(),
            staged,
            count_arriving,
            picture: OnceLock::new(),
        }
    }

    /// What is known of a node.
    pub fn facts(&self, node: &str) -> Facts {
        // two statements: counting what arrives takes the index's lock as well
        let picture = self.picture.get_or_init(|| {
            let arriving = (self.count_arriving)();
            Picture { now: self.cluster.read().now(), arriving }
        });
        Facts {
            volumes: self.volumes,
            staged: of(&self.staged, node),
            most_staged: self.most_staged,
            local: of(&self.local, node),
            new: self.new,
            with_room: self.hosting.iter().filter(|h| h.has_room(node) == Some(true)).count(),
            attaching: picture.now.attaching(node) + of(&picture.arriving, node),
            leaving: picture.now.is_leaving(node),
        }
    }

    /// The verdict with its reasons: why the node does not fit, or its score.
    pub fn explain(&self, node: &str) -> Result<Score, String> {
        self.fits(node).map(|()| score(&self.facts(node)))
    }
}

impl NodeJudge for Judge<'_> {
    fn fits(&self, node: &str) -> Result<(), String> {
        self.hosting.iter().try_for_each(|hosting| hosting.check(node))
    }

    fn score(&self, node: &str) -> i64 {
        if self.fits(node).is_ok() { points(&self.facts(node)) } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::{DRIVER, Server, Storage, coordinator, db_0, new_claim, node, pod, volume, volume_view};
    use handoff_cluster::{Attachment, Node, settings::MODE};

    fn storage(volumes: &[(&str, &[&str], &[&str])]) -> Storage {
        let views = volumes.iter().map(|(name, replicas, staged)| ((*name).to_owned(), volume_view(replicas, staged)));
        let storage = Storage { volumes: views.collect(), ..Storage::default() };
        ["a", "b", "c"].iter().for_each(|node| storage.set(node, None));
        storage
    }

    fn index() -> Index {
        let mut index = Index::default();
        ["a", "b", "c"].iter().for_each(|name| drop(index.put_node(node(name))));
        volume(&mut index, "data");
        index
    }

    fn claims(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| format!("claim-{name}")).collect()
    }

    fn scores(coordinator: &Coordinator, names: &[&str]) -> [i64; 3] {
        let judge = Placement::judge(coordinator, &db_0(), &Settings::default(), &claims(names)).unwrap();
        ["a", "b", "c"].map(|node| judge.score(node))
    }

    #[tokio::test]
    async fn a_node_that_cannot_host_the_volume_is_refused_with_the_reason() {
        let storage = Arc::new(storage(&[("data", &["a"], &[])]));
        storage.set("b", Some("no Longhorn instance manager runs on b"));
        let coordinator = coordinator(&Server::default(), &storage, index());
        let judge = Placement::judge(&*coordinator, &db_0(), &Settings::default(), &claims(&["data"])).unwrap();
        assert_eq!(judge.fits("b"), Err("no Longhorn instance manager runs on b".to_owned()));
        assert_eq!(judge.fits("d"), Err("Longhorn does not manage node d".to_owned()));
        assert_eq!(["a", "b", "c"].map(|n| judge.score(n)), [9, 0, 5]);
    }

    #[tokio::test]
    async fn nobody_is_refused_while_too_little_is_known() {
        let judged = |storage: Storage| {
            storage.set("a", Some("down"));
            let storage = Arc::new(storage);
            let coordinator = coordinator(&Server::default(), &storage, index());
            let judge = Placement::judge(&*coordinator, &db_0(), &Settings::default(), &claims(&["data"]));
            judge.map(|judge| judge.fits("a").is_err())
        };
        assert_eq!(judged(storage(&[("data", &[], &[])])), Some(true));
        assert_eq!(judged(storage(&[])), Some(false), "the storage manager does not know the volume");
        let known = || storage(&[("data", &[], &[])]);
        assert_eq!(judged(Storage { missing: vec!["nodes.longhorn.io"].into(), ..known() }), None, "not synced");
        assert_eq!(judged(Storage { stale: vec!["nodes.longhorn.io"], ..known() }), None, "out of date");
    }

    #[tokio::test]
    async fn what_is_not_ours_is_no_question() {
        let mut index = index();
        new_claim(&mut index, "claim-foreign", "other.example.net");
        let coordinator = coordinator(&Server::default(), &Arc::new(storage(&[("data", &[], &[])])), index);
        assert!(
            Placement::judge(&*coordinator, &db_0(), &Settings::default(), &claims(&["foreign", "unknown"])).is_none()
        );
        assert!(Placement::judge(&*coordinator, &db_0(), &Settings::default(), &[]).is_none());
    }

    #[tokio::test]
    async fn several_volumes_of_a_pod() {
        let mut index = index();
        volume(&mut index, "logs");
        let views = storage(&[("data", &["a", "b"], &[]), ("logs", &["b"], &[])]);
        let coordinator = coordinator(&Server::default(), &Arc::new(views), index);
        assert_eq!(scores(&coordinator, &["data", "logs"]), [7, 9, 5]);
    }

    #[tokio::test]
    async fn the_node_with_our_prestage_is_the_best_unless_it_is_about_to_go() {
        let views = Arc::new(storage(&[("data", &["a", "b"], &["c"])]));
        assert_eq!(scores(&coordinator(&Server::default(), &views, index()), &["data"]), [9, 9, 10]);
        for gone in [
            Node { cordoned: true, ..node("c") },
            Node { ready: false, ..node("c") },
            Node { leaving: true, ..node("c") },
        ] {
            let mut index = index();
            index.put_node(gone);
            assert_eq!(scores(&coordinator(&Server::default(), &views, index), &["data"]), [9, 9, 0]);
        }
    }

    #[tokio::test]
    async fn a_node_that_is_sent_many_volumes_falls_behind() {
        let views = Arc::new(storage(&[("data", &["a"], &[]), ("other", &["a"], &[])]));
        let mut index = index();
        volume(&mut index, "other");
        for n in 0..9 {
            index.put_attachment(Attachment {
                name: format!("csi-{n}"),
                node: "a".into(),
                volume: format!("other-{n}"),
                attached: false,
                deleting: false,
                attach_error: None,
                created: None,
            });
        }
        index.put_pod(Pod { key: ObjectKey::new("shop", "db-1"), claims: claims(&["other"]), ..pod(None) });
        let coordinator = coordinator(&Server::default(), &views, index);
        assert_eq!(scores(&coordinator, &["data"]), [4, 5, 5]);
        let other = PodRef { name: "db-1".into(), ..db_0() };
        Admission::bind(&*coordinator, other, "b".into(), false).await;
        assert_eq!(scores(&coordinator, &["data"]), [4, 4, 5], "a binding counts before its attachment is seen");
    }

    #[tokio::test]
    async fn claims_whose_volume_is_made_later_need_room() {
        let judged = |must_be_local| {
            let mut index = index();
            new_claim(&mut index, "claim-new", DRIVER);
            let storage = Storage { room: (vec!["b"], must_be_local), ..storage(&[]) };
            storage.set("c", Some("down"));
            coordinator(&Server::default(), &Arc::new(storage), index)
        };
        assert_eq!(scores(&judged(false), &["new"]), [5, 9, 0]);
        let strict = judged(true);
        let judge = Placement::judge(&*strict, &db_0(), &Settings::default(), &claims(&["new"])).unwrap();
        assert_eq!(judge.fits("a"), Err("no disk of a has room for the 10240 MiB of claim claim-new".to_owned()));
        assert_eq!((judge.fits("b"), judge.score("b")), (Ok(()), 9));
    }

    #[tokio::test]
    async fn pods_with_a_backup_in_flight() {
        let mut index = index();
        volume(&mut index, "idle");
        index.put_pod(pod(Some("a")));
        index.put_pod(Pod {
            key: ObjectKey::new("shop", "db-1"),
            uid: "u2".into(),
            claims: claims(&["idle"]),
            ..pod(None)
        });
        let storage = Storage { busy: vec!["data".into(), "elsewhere".into()], ..storage(&[]) };
        let coordinator = coordinator(&Server::default(), &Arc::new(storage), index);
        assert_eq!(coordinator.busy_pods(), HashSet::from(["u1".to_owned()]));
        let mut index = Index::default();
        volume(&mut index, "data");
        let settings = Settings::read(|key| (key == MODE).then_some("disabled"));
        index.put_pod(Pod { settings, ..pod(Some("a")) });
        let storage = Arc::new(Storage { busy: vec!["data".into()], ..Storage::default() });
        let opted_out = crate::stage::coordinator(&Server::default(), &storage, index);
        assert!(opted_out.busy_pods().is_empty(), "nobody cares for its backups");
    }
}
