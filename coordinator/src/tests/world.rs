//! Pod db-0 on node a with volume pv, whose backup b-1 is in flight; node b beside it; and replicas of Handoff that share
//! one API server.

use super::api::Api;
use crate::{
    Coordinator, Parts,
    api::VolumeHandoff,
    clock::Clock,
    handoffs::Handoffs,
    holds::Holds,
    lease::Leadership,
    metrics::Metrics,
    policy::Policy,
    verdicts::{DeletedPod, PodRef},
};
use futures::future::BoxFuture;
use handoff_cluster::{
    Cache, Cached, Claim, ClusterCache, Index, Node, ObjectKey, Pod, StorageClass, Volume, settings::Settings,
};
use handoff_storage::{
    AttachRequest, BackupState, BackupView, Gates, Hosting, PreStageGate, ReplicaView, SnapshotView, StorageError,
    StorageManager, StorageRole, VolumeState, VolumeView,
};
use jiff::{SignedDuration, Timestamp};
use prometheus_client::registry::Registry;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

pub const HANDOFF: &str = "/apis/volumehandoff.io/v1alpha1/namespaces/shop/volumehandoffs/pv";
pub const POD: &str = "/api/v1/namespaces/shop/pods/db-0";
pub const HOLDS: &str = "/api/v1/namespaces/handoff-system/configmaps/handoff-holds";
pub const MANAGER: &str = "instance-manager-a";

pub fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

/// Annotations of ours.
pub fn settings(pairs: &[(&str, &'static str)]) -> Settings {
    Settings::read(|key| pairs.iter().find(|(k, _)| *k == key).map(|(_, v)| *v))
}

#[derive(Clone)]
pub struct World {
    pub api: Api,
    pub pod: Pod,
    pub known: bool,
    pub claim: Settings,
    pub class: Settings,
    pub namespace: Settings,
    pub cordoned: Vec<&'static str>,
    pub tainted: Vec<&'static str>,
    pub going: Vec<&'static str>,
    pub policy: Policy,
    pub storage: Arc<Storage>,
    pub leads: bool,
}

pub struct Storage {
    pub backups: Mutex<Vec<BackupView>>,
    pub allows_snapshot_deletion: Mutex<bool>,
    pub guards: Mutex<bool>,
    /// What the pod of the storage manager is.
    pub role: Mutex<StorageRole>,
}

/// A backup that began 100 s before [`at`]`(0)`: at 90 % it still takes 11 s, as long as nothing more is known.
pub fn backup(progress: u8, state: BackupState) -> BackupView {
    BackupView {
        name: "b-1".into(),
        uid: "uid-b-1".into(),
        resource_version: "1".into(),
        state,
        progress,
        snapshot: "s-1".into(),
        target: "default".into(),
        target_unavailable: None,
        mode: "incremental".into(),
        recurring_job: None,
        replica_address: None,
        error: None,
        ended_at: None,
        asked_at: None,
        created: Some(at(-100)),
        uploaded_bytes: None,
    }
}

impl Default for World {
    fn default() -> Self {
        let pod = Pod {
            key: ObjectKey::new("shop", "db-0"),
            uid: "old".into(),
            node: Some("a".into()),
            terminating: false,
            finished: false,
            ready: true,
            created: Some(at(-900)),
            claims: vec!["data".into()],
            owner_kind: Some("StatefulSet".into()),
            labels: BTreeMap::default(),
            settings: Settings::default(),
        };
        let backups = Mutex::new(vec![backup(90, BackupState::Running)]);
        Self {
            api: Api::default(),
            pod,
            known: true,
            claim: Settings::default(),
            class: Settings::default(),
            namespace: Settings::default(),
            cordoned: vec![],
            tainted: vec![],
            going: vec![],
            policy: Policy::default(),
            storage: Arc::new(Storage {
                backups,
                allows_snapshot_deletion: Mutex::default(),
                guards: Mutex::default(),
                role: Mutex::new(StorageRole::InstanceManager),
            }),
            leads: false,
        }
    }
}

impl World {
    /// A replica whose caches have just seen all there is; each call is another replica, or the same after a restart.
    pub fn replica(&self) -> Coordinator {
        let mut index = Index::default();
        index.put_volume(Volume {
            name: "pv".into(),
            driver: "d".into(),
            handle: "v".into(),
            claim: Some(ObjectKey::new("shop", "data")),
            shared: false,
        });
        // not ours: another driver's, and one that several nodes may use
        for (name, driver, shared) in [("foreign", "other", false), ("shared", "d", true)] {
            index.put_volume(Volume {
                name: name.into(),
                driver: driver.into(),
                handle: format!("v-{name}"),
                claim: Some(ObjectKey::new("shop", name)),
                shared,
            });
        }
        let bound = [("data", "pv"), ("foreign", "foreign"), ("shared", "shared")].map(|(c, v)| (c, Some(v)));
        for (name, volume) in bound.into_iter().chain([("pending", None)]) {
            index.put_claim(Claim {
                key: ObjectKey::new("shop", name),
                uid: format!("uid-{name}"),
                volume: volume.map(Into::into),
                class: Some("fast".into()),
                requested_bytes: None,
                settings: self.claim.clone(),
            });
        }
        index.put_class(StorageClass {
            name: "fast".into(),
            provisioner: "d".into(),
            waits_for_pod: true,
            is_default: true,
            parameters: BTreeMap::new(),
            settings: self.class.clone(),
        });
        index.put_namespace(handoff_cluster::Namespace { name: "shop".into(), settings: self.namespace.clone() });
        for name in ["a", "b"] {
            let is = |nodes: &[&str]| nodes.contains(&name);
            index.put_node(Node {
                name: name.into(),
                cordoned: is(&self.cordoned),
                ready: true,
                tainted: is(&self.tainted),
                leaving: is(&self.going),
            });
        }
        if self.known {
            index.put_pod(self.pod.clone());
        }
        index.put_pod(Pod {
            key: ObjectKey::new("storage", MANAGER),
            uid: "uid-manager".into(),
            claims: vec![],
            settings: Settings::default(),
            ..self.pod.clone()
        });
        let mut handoffs = Handoffs::default();
        if let Some(handoff) = self.api.get(HANDOFF) {
            serde_json::from_value::<VolumeHandoff>(handoff).unwrap().put(&mut handoffs);
        }
        let client = self.api.client();
        Coordinator::new(Parts {
            client: client.clone(),
            cluster: ClusterCache::fixed(index),
            storage: self.storage.clone(),
            handoffs: Cache::fixed(handoffs),
            holds: Holds::new(&client, "handoff-system").0,
            policy: self.policy.clone(),
            metrics: Metrics::new(&mut Registry::default()),
            queue: Arc::default(),
            hosts_news: Arc::default(),
            leadership: if self.leads { Leadership::held() } else { Leadership::default() },
            identity: ObjectKey::new("handoff-system", "handoff-0"),
            clock: Clock::default(),
        })
    }

    pub fn set_backup(&self, progress: u8, state: BackupState) {
        *self.storage.backups.lock().unwrap() = vec![backup(progress, state)];
    }
}

/// Pod db-0, as a review names it.
pub fn asked() -> PodRef {
    PodRef { namespace: "shop".into(), name: "db-0".into(), uid: None }
}

/// Pod db-0, as the review of its deletion shows it.
pub fn deleted() -> DeletedPod {
    DeletedPod {
        pod: PodRef { uid: Some("old".into()), ..asked() },
        node: Some("a".into()),
        settings: Settings::default(),
        claims: vec!["data".into()],
    }
}

/// The instance manager on a.
pub fn manager() -> PodRef {
    PodRef { namespace: "storage".into(), name: MANAGER.into(), uid: None }
}

impl StorageManager for Storage {
    fn driver(&self) -> &'static str {
        "d"
    }

    fn missing(&self) -> Vec<&'static str> {
        Vec::new()
    }

    fn stale(&self) -> Vec<&'static str> {
        Vec::new()
    }

    fn gates(&self) -> Gates {
        Gates { version: "v1".into(), prestage: PreStageGate::Useful }
    }

    /// Between nodes, with good replicas on a and b.
    fn volume(&self, handle: &str) -> Option<VolumeView> {
        if handle != "v" {
            return None;
        }
        let request = AttachRequest { id: "x".into(), node: "b".into(), workload: true, ours: false, satisfied: false };
        Some(VolumeView {
            state: VolumeState::Detaching,
            current_node: Some("a".into()),
            wanted_node: None,
            engine_running: false,
            serving: false,
            requests: vec![request],
            requests_version: "1".into(),
            replicas: ["a", "b"].map(|n| ReplicaView { node: n.into(), running: true, failed: false }).to_vec(),
        })
    }

    fn backups(&self, _: &str) -> Vec<BackupView> {
        self.backups.lock().unwrap().clone()
    }

    fn snapshot(&self, _: &str) -> Option<SnapshotView> {
        Some(SnapshotView { created: Some(at(-110)), unusable: None })
    }

    fn can_host(&self, _: &str, _: &str) -> Result<(), String> {
        Ok(())
    }

    fn hosting(&self, _: &str) -> Option<Hosting> {
        None
    }

    fn hosting_of_new(&self, _: &str, _: u64, _: &BTreeMap<String, String>) -> Option<Hosting> {
        None
    }

    fn busy(&self) -> Vec<String> {
        Vec::new()
    }

    fn may_prestage(&self, _: &str, _: &str) -> Result<(), String> {
        Ok(())
    }

    fn prestages(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    fn role_of(&self, pod: &Pod) -> Option<StorageRole> {
        (pod.key.name == MANAGER).then(|| *self.role.lock().unwrap())
    }

    fn guards(&self, node: &str) -> bool {
        node == "a" && *self.guards.lock().unwrap()
    }

    fn allows_snapshot_deletion(&self, _: &str) -> bool {
        *self.allows_snapshot_deletion.lock().unwrap()
    }

    fn place_prestage(&self, _: &str, _: &str, _: &str) -> BoxFuture<'_, Result<(), StorageError>> {
        Box::pin(async { Ok(()) })
    }

    fn withdraw_prestage(&self, _: &str, _: &str) -> BoxFuture<'_, Result<bool, StorageError>> {
        Box::pin(async { Ok(true) })
    }

    fn probe(&self, _: &str, _: Timestamp) -> BoxFuture<'_, Result<(), StorageError>> {
        Box::pin(async { Ok(()) })
    }

    fn reset(&self, _: &str, _: &str, _: &str) -> BoxFuture<'_, Result<(), StorageError>> {
        Box::pin(async { Ok(()) })
    }
}

/// A minute.
pub const MINUTE: SignedDuration = SignedDuration::from_mins(1);
