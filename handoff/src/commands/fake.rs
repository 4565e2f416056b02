//! An API server in this process: objects by path, lists of them, merge and JSON patches under resourceVersions, watches
//! that never say anything, and what can go wrong.

use super::connection::Cluster;
use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, Method, StatusCode, Uri, header::CONTENT_TYPE},
    response::Response,
};
use kube::Client;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

#[derive(Clone, Default)]
pub struct Api(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    objects: BTreeMap<String, Value>,
    version: u64,
    asked: BTreeSet<String>,
    writes: Vec<String>,
    conflicts: usize,
    forbidden: BTreeSet<String>,
    texts: BTreeMap<String, String>,
}

impl Api {
    pub fn client(&self) -> Client {
        Client::new(Router::new().fallback(serve).with_state(self.clone()), "default")
    }

    /// The cluster behind it, with the default names.
    pub fn cluster(&self, namespace: &str) -> Cluster {
        Cluster {
            client: self.client(),
            namespace: namespace.to_owned(),
            named: Some(namespace.to_owned()),
            longhorn: "longhorn-system".to_owned(),
            handoff: "handoff-system".to_owned(),
        }
    }

    pub fn put(&self, path: &str, object: Value) {
        self.0.lock().unwrap().store(path, object);
    }

    /// Each object under `collection`, by its name.
    pub fn put_all(&self, collection: &str, objects: impl IntoIterator<Item = Value>) {
        for object in objects {
            let name = object["metadata"]["name"].as_str().unwrap().to_owned();
            self.put(&format!("{collection}/{name}"), object);
        }
    }

    /// What a GET of this path is answered as text.
    pub fn put_text(&self, path: &str, text: &str) {
        self.0.lock().unwrap().texts.insert(path.to_owned(), text.to_owned());
    }

    pub fn get(&self, path: &str) -> Option<Value> {
        self.0.lock().unwrap().objects.get(path).cloned()
    }

    /// The next so many patches meet somebody who was quicker.
    pub fn conflict(&self, times: usize) {
        self.0.lock().unwrap().conflicts = times;
    }

    /// Whatever is asked of this path, the answer is 403.
    pub fn forbid(&self, path: &str) {
        self.0.lock().unwrap().forbidden.insert(path.to_owned());
    }

    /// Method and path of everything that was asked.
    pub fn asked(&self) -> BTreeSet<String> {
        self.0.lock().unwrap().asked.clone()
    }

    /// Every write that was done, oldest first: method and path.
    pub fn writes(&self) -> Vec<String> {
        self.0.lock().unwrap().writes.clone()
    }
}

impl Inner {
    fn store(&mut self, path: &str, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        if let Some((_, rest)) = path.split_once("/namespaces/") {
            let mut parts = rest.split('/');
            if let (Some(namespace), Some(_)) = (parts.next(), parts.next()) {
                object["metadata"]["namespace"] = json!(namespace);
            }
        }
        self.objects.insert(path.to_owned(), object.clone());
        object
    }

    /// All objects of a collection, that of one namespace or of all.
    fn list(&self, path: &str) -> Value {
        let (head, plural) = path.rsplit_once('/').unwrap_or(("", path));
        let is_in = |key: &str| {
            let Some((collection, _)) = key.rsplit_once('/') else { return false };
            let in_namespace = collection.strip_prefix(head).and_then(|rest| rest.strip_prefix("/namespaces/"));
            let of_any = in_namespace.and_then(|rest| rest.split_once('/')).is_some_and(|(_, rest)| rest == plural);
            collection == path || of_any
        };
        let items = self.objects.iter().filter(|(key, _)| is_in(key)).map(|(_, object)| object.clone());
        json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": self.version.to_string()},
            "items": items.collect::<Vec<_>>()})
    }

    fn answer(&mut self, method: &Method, path: &str, kind: &str, body: &[u8]) -> (StatusCode, Value) {
        if self.forbidden.contains(path) {
            return refuse(StatusCode::FORBIDDEN);
        }
        if *method == Method::GET {
            if let Some(object) = self.objects.get(path) {
                return (StatusCode::OK, object.clone());
            }
            // a name follows a plural; collections are words of letters only
            let last = path.rsplit('/').next().unwrap_or_default();
            let is_collection = COLLECTIONS.contains(&last);
            return if is_collection { (StatusCode::OK, self.list(path)) } else { refuse(StatusCode::NOT_FOUND) };
        }
        if path.ends_with("/subjectaccessreviews") || path.ends_with("/selfsubjectaccessreviews") {
            let mut review: Value = serde_json::from_slice(body).unwrap();
            let asked = &review["spec"]["resourceAttributes"];
            let word = |key: &str| asked[key].as_str().unwrap_or_default().to_owned();
            let denied = format!("deny:{} {}", word("verb"), word("resource"));
            review["status"] = json!({"allowed": !self.forbidden.contains(&denied)});
            return (StatusCode::CREATED, review);
        }
        let body: Value = if body.is_empty() { json!({}) } else { serde_json::from_slice(body).unwrap() };
        self.writes.push(format!("{method} {path}"));
        let Some(mut object) = self.objects.get(path).cloned() else {
            self.writes.pop();
            return refuse(StatusCode::NOT_FOUND);
        };
        let wanted =
            body.pointer("/metadata/resourceVersion").or_else(|| body.pointer("/preconditions/resourceVersion"));
        let stale = wanted.is_some_and(|v| !v.is_null() && *v != object["metadata"]["resourceVersion"]);
        if stale || self.conflicts > 0 {
            self.conflicts = self.conflicts.saturating_sub(1);
            self.writes.pop();
            return refuse(StatusCode::CONFLICT);
        }
        if *method == Method::DELETE {
            self.objects.remove(path);
            return (StatusCode::OK, json!({"kind": "Status", "apiVersion": "v1", "status": "Success"}));
        }
        if kind.contains("json-patch") {
            let steps: json_patch::Patch = serde_json::from_value(body).unwrap();
            if json_patch::patch(&mut object, &steps).is_err() {
                self.writes.pop();
                return refuse(StatusCode::UNPROCESSABLE_ENTITY);
            }
        } else {
            json_patch::merge(&mut object, &body);
        }
        (StatusCode::OK, self.store(path, object))
    }
}

const COLLECTIONS: [&str; 32] = [
    "pods",
    "nodes",
    "namespaces",
    "persistentvolumes",
    "persistentvolumeclaims",
    "events",
    "configmaps",
    "secrets",
    "volumehandoffs",
    "csinodes",
    "volumeattachments",
    "storageclasses",
    "poddisruptionbudgets",
    "deployments",
    "daemonsets",
    "volumes",
    "engines",
    "replicas",
    "backups",
    "snapshots",
    "instancemanagers",
    "engineimages",
    "settings",
    "backuptargets",
    "leases",
    "mutatingwebhookconfigurations",
    "validatingwebhookconfigurations",
    "customresourcedefinitions",
    "priorityclasses",
    "services",
    "replicasets",
    "recurringjobs",
];

async fn serve(State(api): State<Api>, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    if uri.query().is_some_and(|query| query.contains("watch=true")) {
        let silence = futures::stream::pending::<Result<Bytes, std::io::Error>>();
        return Response::new(Body::from_stream(silence));
    }
    let mut inner = api.0.lock().unwrap();
    inner.asked.insert(format!("{method} {}", uri.path()));
    if let Some(text) = inner.texts.get(uri.path()) {
        return Response::new(Body::from(text.clone()));
    }
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let (status, answer) = inner.answer(&method, uri.path(), kind, &body);
    let response = Response::builder().status(status).header(CONTENT_TYPE, "application/json");
    response.body(Body::from(answer.to_string())).unwrap()
}

fn refuse(code: StatusCode) -> (StatusCode, Value) {
    let reason = match code {
        StatusCode::NOT_FOUND => "NotFound",
        StatusCode::CONFLICT => "Conflict",
        StatusCode::UNPROCESSABLE_ENTITY => "Invalid",
        _ => "Forbidden",
    };
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "reason": reason, "message": reason, "code": code.as_u16(),
    });
    (code, status)
}
