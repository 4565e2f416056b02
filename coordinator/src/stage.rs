//! For tests: a coordinator over caches that stand still, a storage manager by table, and an API server that knows one
//! pod and writes down what is done to it.

use crate::{
    Coordinator, Parts, clock::Clock, holds::Holds, lease::Leadership, metrics::Metrics, policy::Policy, queue::Queue,
    verdicts::PodRef,
};
use axum::{
    Json, Router,
    body::Bytes,
    extract::State,
    http::{Method, StatusCode, Uri},
};
use futures::{FutureExt, future::BoxFuture};
use handoff_cluster::{Cache, Claim, Index, Node, ObjectKey, Pod, StorageClass, Volume, settings::Settings};
use handoff_storage::{
    AttachRequest, BackupView, Gates, HostTable, Hosting, NewVolume, PreStageGate, ReplicaView, SnapshotView,
    StorageError, StorageManager, StorageRole, VolumeState, VolumeView,
};
use jiff::Timestamp;
use kube::Client;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

pub const DRIVER: &str = "driver.example.net";

/// What is said of nodes and volumes.
#[derive(Default)]
pub struct Storage {
    /// Node → why it hosts nothing, if so.
    pub table: Mutex<HostTable>,
    pub volumes: BTreeMap<String, VolumeView>,
    pub busy: Vec<String>,
    pub missing: Mutex<Vec<&'static str>>,
    pub stale: Vec<&'static str>,
    /// Nodes with room for new volumes, and whether these must be local.
    pub room: (Vec<&'static str>, bool),
}

impl Storage {
    pub fn set(&self, node: &str, refusal: Option<&str>) {
        self.table.lock().unwrap().insert(node.to_owned(), refusal.map(ToOwned::to_owned));
    }

    fn hosting_for(&self, volume: &str, new: Option<NewVolume>) -> Hosting {
        let table = Arc::new(self.table.lock().unwrap().clone());
        Hosting { volume: volume.to_owned(), table, only_on: None, new }
    }
}

pub struct Shared(pub Arc<Storage>);

impl StorageManager for Shared {
    fn driver(&self) -> &'static str {
        DRIVER
    }
    fn missing(&self) -> Vec<&'static str> {
        self.0.missing.lock().unwrap().clone()
    }
    fn stale(&self) -> Vec<&'static str> {
        self.0.stale.clone()
    }
    fn gates(&self) -> Gates {
        Gates { version: "1".to_owned(), prestage: PreStageGate::Useful }
    }
    fn volume(&self, handle: &str) -> Option<VolumeView> {
        self.0.volumes.get(handle).cloned()
    }
    fn backups(&self, _: &str) -> Vec<BackupView> {
        Vec::new()
    }
    fn snapshot(&self, _: &str) -> Option<SnapshotView> {
        None
    }
    fn can_host(&self, handle: &str, node: &str) -> Result<(), String> {
        self.0.hosting_for(handle, None).check(node)
    }
    fn hosting(&self, handle: &str) -> Option<Hosting> {
        self.0.volumes.contains_key(handle).then(|| self.0.hosting_for(handle, None))
    }
    fn hosting_of_new(&self, claim: &str, bytes: u64, _: &BTreeMap<String, String>) -> Option<Hosting> {
        let (room, must_be_local) = &self.0.room;
        let room_on = Some(room.iter().map(ToString::to_string).collect());
        Some(self.0.hosting_for(claim, Some(NewVolume { bytes, room_on, must_be_local: *must_be_local })))
    }
    fn busy(&self) -> Vec<String> {
        self.0.busy.clone()
    }
    fn may_prestage(&self, handle: &str, node: &str) -> Result<(), String> {
        self.can_host(handle, node)
    }
    fn prestages(&self) -> Vec<(String, String)> {
        Vec::new()
    }
    fn role_of(&self, _: &Pod) -> Option<StorageRole> {
        None
    }
    fn place_prestage(&self, _: &str, _: &str, _: &str) -> BoxFuture<'_, Result<(), StorageError>> {
        std::future::ready(Ok(())).boxed()
    }
    fn withdraw_prestage(&self, _: &str, _: &str) -> BoxFuture<'_, Result<bool, StorageError>> {
        std::future::ready(Ok(false)).boxed()
    }
    fn probe(&self, _: &str, _: Timestamp) -> BoxFuture<'_, Result<(), StorageError>> {
        std::future::ready(Ok(())).boxed()
    }
    fn reset(&self, _: &str, _: &str, _: &str) -> BoxFuture<'_, Result<(), StorageError>> {
        std::future::ready(Ok(())).boxed()
    }
}

/// The API server.
#[derive(Clone, Default)]
pub struct Server(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    pod: Value,
    bind_status: u16,
    writes: Vec<Value>,
    patch_status: Vec<u16>,
}

impl Server {
    /// What was written, oldest first.
    pub fn writes(&self) -> Vec<Value> {
        self.0.lock().unwrap().writes.clone()
    }

    pub fn set_pod(&self, pod: Value) {
        self.0.lock().unwrap().pod = pod;
    }

    /// What bindings are answered; 0: they are taken.
    pub fn refuse_bindings(&self, status: u16) {
        self.0.lock().unwrap().bind_status = status;
    }

    /// What the next patches are answered.
    pub fn refuse_patches(&self, statuses: &[u16]) {
        self.0.lock().unwrap().patch_status = statuses.to_vec();
    }

    pub fn client(&self) -> Client {
        Client::new(Router::new().fallback(serve).with_state(self.clone()), "default")
    }
}

fn refused(status: u16, message: &str) -> (StatusCode, Json<Value>) {
    let body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": status, "message": message});
    (StatusCode::from_u16(status).unwrap(), Json(body))
}

async fn serve(State(server): State<Server>, method: Method, uri: Uri, body: Bytes) -> (StatusCode, Json<Value>) {
    let mut inner = server.0.lock().unwrap();
    let body = serde_json::from_slice::<Value>(&body).unwrap_or_default();
    match (method.as_str(), uri.path()) {
        ("POST", "/api/v1/namespaces/shop/pods/db-0/binding") => {
            inner.writes.push(body);
            match inner.bind_status {
                0 => (StatusCode::CREATED, Json(json!({"kind": "Status", "status": "Success"}))),
                status => refused(status, "pod db-0 is already assigned to node \"x\""),
            }
        }
        ("GET", "/api/v1/namespaces/shop/pods/db-0") if inner.pod.is_object() => {
            (StatusCode::OK, Json(inner.pod.clone()))
        }
        ("PATCH", "/api/v1/namespaces/shop/pods/db-0") => {
            inner.writes.push(body.clone());
            if !inner.patch_status.is_empty() {
                let status = inner.patch_status.remove(0);
                return refused(status, "scripted");
            }
            inner.pod["metadata"]["annotations"] = body["metadata"]["annotations"].clone();
            (StatusCode::OK, Json(inner.pod.clone()))
        }
        (_, path) => refused(404, path),
    }
}

pub fn volume_view(replicas: &[&str], staged: &[&str]) -> VolumeView {
    let request = |node: &&str| AttachRequest {
        id: (*node).to_owned(),
        node: (*node).to_owned(),
        workload: true,
        ours: true,
        satisfied: false,
    };
    let replica = |node: &&str| ReplicaView { node: (*node).to_owned(), running: true, failed: false };
    VolumeView {
        state: VolumeState::Detached,
        current_node: None,
        wanted_node: None,
        engine_running: false,
        serving: false,
        requests: staged.iter().map(request).collect(),
        requests_version: "1".into(),
        replicas: replicas.iter().map(replica).collect(),
    }
}

pub fn node(name: &str) -> Node {
    Node { name: name.into(), cordoned: false, ready: true, tainted: false, leaving: false }
}

pub fn volume(index: &mut Index, name: &str) {
    let claim = ObjectKey::new("shop", format!("claim-{name}"));
    index.put_claim(Claim {
        key: claim.clone(),
        uid: "u".into(),
        volume: Some(name.into()),
        class: None,
        requested_bytes: None,
        settings: Settings::default(),
    });
    index.put_volume(Volume {
        name: name.into(),
        driver: DRIVER.into(),
        handle: name.into(),
        claim: Some(claim),
        shared: false,
    });
}

/// A claim whose volume is made once its pod has a node.
pub fn new_claim(index: &mut Index, name: &str, provisioner: &str) {
    index.put_class(StorageClass {
        name: "late".into(),
        provisioner: provisioner.into(),
        waits_for_pod: true,
        is_default: false,
        parameters: BTreeMap::new(),
        settings: Settings::default(),
    });
    index.put_claim(Claim {
        key: ObjectKey::new("shop", name),
        uid: "u".into(),
        volume: None,
        class: Some("late".into()),
        requested_bytes: Some(10 << 30),
        settings: Settings::default(),
    });
}

/// Pod `shop/db-0` with the claim of volume `data`.
pub fn pod(node: Option<&str>) -> Pod {
    Pod {
        key: ObjectKey::new("shop", "db-0"),
        uid: "u1".into(),
        node: node.map(Into::into),
        terminating: false,
        finished: false,
        ready: false,
        created: None,
        claims: vec!["claim-data".into()],
        owner_kind: None,
        labels: BTreeMap::new(),
        settings: Settings::default(),
    }
}

pub fn db_0() -> PodRef {
    PodRef { namespace: "shop".into(), name: "db-0".into(), uid: Some("u1".into()) }
}

pub fn coordinator(server: &Server, storage: &Arc<Storage>, index: Index) -> Arc<Coordinator> {
    Arc::new(Coordinator::new(Parts {
        client: server.client(),
        cluster: Cache::fixed(index),
        storage: Arc::new(Shared(storage.clone())),
        handoffs: Cache::default(),
        holds: Holds::new(&server.client(), "handoff-system").0,
        policy: Policy::default(),
        metrics: Metrics::new(&mut Registry::default()),
        queue: Arc::new(Queue::default()),
        hosts_news: Arc::default(),
        leadership: Leadership::default(),
        identity: ObjectKey::new("handoff-system", "handoff-0"),
        clock: Clock::default(),
    }))
}
