//! An API server in this process: objects by path, resourceVersions, 404, 409 and 422 as the real one gives them.

use axum::{
    Json, Router,
    body::Bytes,
    extract::State,
    http::{Method, StatusCode, Uri},
};
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::Client;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};
use tokio::sync::Barrier;

pub const SECRETS: &str = "/api/v1/namespaces/handoff-system/secrets";
pub const MUTATING: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
pub const VALIDATING: &str = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";

#[derive(Clone, Default)]
pub struct Api(Arc<Mutex<Inner>>);

/// The API as one client sees it: what that client asks is noted under its name.
#[derive(Clone)]
struct Door(Api, &'static str);

#[derive(Default)]
struct Inner {
    objects: BTreeMap<String, Value>,
    version: u64,
    /// One line per write that was tried: method, path, status.
    writes: Vec<String>,
    /// Who wrote, in the same order.
    writers: Vec<&'static str>,
    /// Method and path of everything that was asked.
    asked: BTreeSet<(String, String)>,
    meet: Option<(Method, Arc<Barrier>)>,
    /// Changes an object after it was read, once.
    meddle: Option<(String, Value)>,
    /// Paths that may not be written.
    forbidden: BTreeSet<String>,
}

type Answer = (StatusCode, Json<Value>);

impl Api {
    pub fn client(&self) -> Client {
        self.client_of("someone")
    }

    pub fn client_of(&self, name: &'static str) -> Client {
        Client::new(Router::new().fallback(serve).with_state(Door(self.clone(), name)), "default")
    }

    pub fn put(&self, path: &str, object: Value) {
        self.0.lock().unwrap().store(path, object);
    }

    pub fn remove(&self, path: &str) {
        self.0.lock().unwrap().objects.remove(path);
    }

    pub fn get(&self, path: &str) -> Value {
        self.0.lock().unwrap().objects[path].clone()
    }

    pub fn secret(&self, name: &str) -> Secret {
        serde_json::from_value(self.get(&format!("{SECRETS}/{name}"))).unwrap()
    }

    /// Names of all Secrets.
    pub fn secrets(&self) -> Vec<String> {
        let inner = self.0.lock().unwrap();
        let names = inner.objects.keys().filter_map(|path| path.strip_prefix(SECRETS)?.strip_prefix('/'));
        names.map(str::to_owned).collect()
    }

    pub fn set_entry(&self, name: &str, key: &str, value: &str) {
        let mut secret = self.secret(name);
        secret.data.as_mut().unwrap().insert(key.to_owned(), ByteString(value.into()));
        self.put(&format!("{SECRETS}/{name}"), serde_json::to_value(secret).unwrap());
    }

    pub fn writes(&self) -> Vec<String> {
        self.0.lock().unwrap().writes.clone()
    }

    pub fn writers(&self) -> Vec<&'static str> {
        self.0.lock().unwrap().writers.clone()
    }

    pub fn asked(&self) -> BTreeSet<(String, String)> {
        self.0.lock().unwrap().asked.clone()
    }

    /// Lets the next requests of this method go on only when as many have come.
    pub fn meet(&self, method: Method, requests: usize) {
        self.0.lock().unwrap().meet = Some((method, Arc::new(Barrier::new(requests))));
    }

    /// Answers writes to this path with 403, or no longer.
    pub fn forbid(&self, path: &str, forbid: bool) {
        let forbidden = &mut self.0.lock().unwrap().forbidden;
        if forbid {
            forbidden.insert(path.to_owned())
        } else {
            forbidden.remove(path)
        };
    }

    /// Puts `object` in place right after `path` was read next.
    pub fn meddle(&self, path: &str, object: Value) {
        self.0.lock().unwrap().meddle = Some((path.to_owned(), object));
    }
}

impl Inner {
    fn store(&mut self, path: &str, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.objects.insert(path.to_owned(), object.clone());
        object
    }

    fn read(&mut self, path: &str) -> Answer {
        let found = self.objects.get(path).cloned();
        if let Some((_, object)) = self.meddle.take_if(|(meddled, _)| meddled == path) {
            self.store(path, object);
        }
        found.map_or_else(|| refuse(StatusCode::NOT_FOUND, "NotFound"), |object| (StatusCode::OK, Json(object)))
    }

    fn write(&mut self, method: &Method, path: &str, body: &[u8]) -> Answer {
        if self.forbidden.contains(path) {
            return refuse(StatusCode::FORBIDDEN, "Forbidden");
        }
        let body: Value = serde_json::from_slice(body).unwrap();
        if *method == Method::POST {
            let path = format!("{path}/{}", body["metadata"]["name"].as_str().unwrap());
            if self.objects.contains_key(&path) {
                return refuse(StatusCode::CONFLICT, "AlreadyExists");
            }
            return (StatusCode::CREATED, Json(self.store(&path, body)));
        }
        let Some(mut object) = self.objects.get(path).cloned() else {
            return refuse(StatusCode::NOT_FOUND, "NotFound");
        };
        if *method == Method::PUT {
            if body["metadata"]["resourceVersion"] != object["metadata"]["resourceVersion"] {
                return refuse(StatusCode::CONFLICT, "Conflict");
            }
            return (StatusCode::OK, Json(self.store(path, body)));
        }
        let operations: json_patch::Patch = serde_json::from_value(body).unwrap();
        if json_patch::patch(&mut object, &operations).is_err() {
            return refuse(StatusCode::UNPROCESSABLE_ENTITY, "Invalid");
        }
        (StatusCode::OK, Json(self.store(path, object)))
    }
}

async fn serve(State(Door(api, name)): State<Door>, method: Method, uri: Uri, body: Bytes) -> Answer {
    let meet = api.0.lock().unwrap().meet.clone();
    if let Some((at, barrier)) = meet
        && at == method
    {
        barrier.wait().await;
        api.0.lock().unwrap().meet = None;
    }
    let mut inner = api.0.lock().unwrap();
    inner.asked.insert((method.to_string(), uri.path().to_owned()));
    if method == Method::GET {
        return inner.read(uri.path());
    }
    let answer = inner.write(&method, uri.path(), &body);
    inner.writers.push(name);
    inner.writes.push(format!("{method} {} {}", uri.path(), answer.0.as_u16()));
    answer
}

fn refuse(code: StatusCode, reason: &str) -> Answer {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "reason": reason, "message": reason, "code": code.as_u16(),
    });
    (code, Json(status))
}
