//! Objects as watches bring them.

use axum::Router;
use handoff_cluster::{Cache, Index, ObjectKey};
use handoff_storage::{
    StorageManager,
    longhorn::{DRIVER, Longhorn, Store},
};
use kube::Client;
use tokio::runtime::Runtime;

const KUBERNETES: [&str; 8] = [
    "pods",
    "persistentvolumeclaims",
    "persistentvolumes",
    "nodes",
    "csinodes",
    "volumeattachments",
    "storageclasses",
    "namespaces",
];
const LONGHORN: [&str; 11] = [
    "volumes",
    "engines",
    "replicas",
    "volumeattachments",
    "backups",
    "snapshots",
    "nodes",
    "instancemanagers",
    "engineimages",
    "backuptargets",
    "settings",
];

thread_local! {
    static RUNTIME: Option<Runtime> = tokio::runtime::Builder::new_current_thread().build().ok();
}

/// Lines of JSON, each taken in as an object of every kind; then everything is looked up that can be.
///
/// # Panics
/// If that is not so.
pub fn caches(data: &[u8]) {
    let mut index = Index::default();
    let mut store = Store::default();
    for line in data.split(|byte| *byte == b'\n').take(16) {
        for plural in KUBERNETES {
            assert!(index.put_json(plural, line).is_some(), "{plural} are not kept");
        }
        for plural in LONGHORN {
            assert!(store.put_json(plural, line).is_some(), "{plural} are not kept");
        }
    }
    let names = store.volumes.keys().cloned().collect::<Vec<_>>();
    look_up(&index, &names);
    // the client belongs to a runtime, and is not called
    let guard = RUNTIME.with(|runtime| runtime.as_ref().map(|runtime| runtime.handle().clone()));
    let Some(guard) = guard else { return };
    let _entered = guard.enter();
    let client = Client::new(Router::new(), "default");
    let longhorn = Longhorn::fixed(client, "longhorn-system", Cache::fixed(index), store);
    longhorn.gates();
    longhorn.prestages();
    for name in &names {
        longhorn.volume(name);
        longhorn.backups(name);
        longhorn.snapshot(name);
        let able = longhorn.can_host(name, name);
        assert!(able.is_ok() || longhorn.may_prestage(name, name).is_err(), "a pre-stage where nothing can run");
    }
}

fn look_up(index: &Index, names: &[String]) {
    for volume in index.volumes_of_driver(DRIVER) {
        let found = index.volume_of_handle(DRIVER, &volume.handle);
        assert!(found.is_some_and(|found| found.handle == volume.handle), "a volume is not found by its handle");
        for pod in index.pods_of_volume(&volume) {
            let claim = volume.claim.as_ref().map(|claim| claim.name.as_str());
            assert!(pod.claims.iter().any(|name| Some(name.as_str()) == claim), "a pod that does not mount it");
        }
        index.attachments_of(&volume.name);
    }
    for name in names {
        let key = ObjectKey::new("", name);
        if let Some(pod) = index.pod(&key) {
            assert_eq!(pod.key, key);
        }
    }
}
