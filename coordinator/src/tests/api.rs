//! An API server in this process: objects by path, resourceVersions, merge patches, and whatever can go wrong.

use axum::{
    Json, Router,
    body::Bytes,
    extract::State,
    http::{Method, StatusCode, Uri},
};
use kube::Client;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

#[derive(Clone, Default)]
pub struct Api(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    objects: BTreeMap<String, Value>,
    version: u64,
    /// One line per request: method and path.
    asked: Vec<String>,
    /// Every write is refused.
    refuses: bool,
    /// No request is ever answered.
    hangs: bool,
}

impl Api {
    pub fn client(&self) -> Client {
        Client::new(Router::new().fallback(serve).with_state(self.clone()), "default")
    }

    pub fn put(&self, path: &str, object: Value) {
        self.0.lock().unwrap().store(path, object);
    }

    pub fn get(&self, path: &str) -> Option<Value> {
        self.0.lock().unwrap().objects.get(path).cloned()
    }

    pub fn refuse(&self, refuses: bool) {
        self.0.lock().unwrap().refuses = refuses;
    }

    pub fn hang(&self) {
        self.0.lock().unwrap().hangs = true;
    }

    /// The objects whose path has this in it.
    pub fn objects(&self, part: &str) -> Vec<Value> {
        let inner = self.0.lock().unwrap();
        inner.objects.iter().filter(|(path, _)| path.contains(part)).map(|(_, object)| object.clone()).collect()
    }

    /// Every request so far.
    pub fn asked(&self) -> Vec<String> {
        self.0.lock().unwrap().asked.clone()
    }

    /// Every write so far that was no Event.
    pub fn writes(&self) -> Vec<String> {
        let mut asked = self.asked();
        asked.retain(|line| !line.starts_with("GET") && !line.ends_with("/events"));
        asked
    }

    /// The reasons of the Events, once there are as many as wanted.
    pub async fn events(&self, wanted: usize) -> Vec<String> {
        for _ in 0..500 {
            let reasons = self.0.lock().unwrap().events();
            if reasons.len() >= wanted {
                return reasons;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        Vec::new()
    }
}

impl Inner {
    fn events(&self) -> Vec<String> {
        let events = self.objects.iter().filter(|(path, _)| path.contains("/events/"));
        events.map(|(_, event)| event["reason"].as_str().unwrap().to_owned()).collect()
    }

    fn store(&mut self, path: &str, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = json!(format!("uid-{}", self.version));
        }
        if let Some((_, rest)) = path.split_once("/namespaces/") {
            object["metadata"]["namespace"] = json!(rest.split('/').next().unwrap());
        }
        self.objects.insert(path.to_owned(), object.clone());
        object
    }

    fn answer(&mut self, method: &Method, path: &str, body: &[u8]) -> (StatusCode, Json<Value>) {
        if *method == Method::GET {
            let found = self.objects.get(path).cloned();
            return found.map_or_else(|| refuse(StatusCode::NOT_FOUND), |object| (StatusCode::OK, Json(object)));
        }
        if self.refuses {
            return refuse(StatusCode::FORBIDDEN);
        }
        let body: Value = serde_json::from_slice(body).unwrap();
        if *method == Method::POST {
            let name = body["metadata"]["name"].as_str().unwrap_or("generated").to_owned();
            let path = format!("{path}/{name}-{}", self.version);
            let path = if path.contains("/events/") { path } else { path.rsplit_once('-').unwrap().0.to_owned() };
            if self.objects.contains_key(&path) {
                return refuse(StatusCode::CONFLICT);
            }
            return (StatusCode::CREATED, Json(self.store(&path, body)));
        }
        let Some(mut object) = self.objects.get(path).cloned() else { return refuse(StatusCode::NOT_FOUND) };
        let wanted = &body["metadata"]["resourceVersion"];
        if !wanted.is_null() && *wanted != object["metadata"]["resourceVersion"] {
            return refuse(StatusCode::CONFLICT);
        }
        json_patch::merge(&mut object, &body);
        (StatusCode::OK, Json(self.store(path, object)))
    }
}

async fn serve(State(api): State<Api>, method: Method, uri: Uri, body: Bytes) -> (StatusCode, Json<Value>) {
    let hangs = {
        let mut inner = api.0.lock().unwrap();
        inner.asked.push(format!("{method} {}", uri.path()));
        inner.hangs
    };
    if hangs {
        std::future::pending::<()>().await;
    }
    api.0.lock().unwrap().answer(&method, uri.path(), &body)
}

fn refuse(code: StatusCode) -> (StatusCode, Json<Value>) {
    let reason = match code {
        StatusCode::NOT_FOUND => "NotFound",
        StatusCode::CONFLICT => "Conflict",
        _ => "Forbidden",
    };
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "reason": reason, "message": reason, "code": code.as_u16(),
    });
    (code, Json(status))
}
