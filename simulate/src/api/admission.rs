//! Calls of our webhook, for what `deploy/kustomize/webhooks.yaml` has rules for. Each call goes to one of the replicas
//! that serve; where none does, or none answers in time, the request goes on: `failurePolicy: Ignore`.

use super::{
    refusal::Refusal,
    resource::{Resource, Target},
};
use crate::json::{elements, is_deleting, text};
use axum::{
    Router,
    body::{Body, to_bytes},
    http::Request,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tower::ServiceExt;

/// Namespaces whose pods are storage, or us.
const OF_STORAGE: [&str; 2] = ["longhorn-system", "handoff-system"];
/// Answers are a few hundred bytes.
const LONGEST_ANSWER: usize = 1 << 20;

/// The webhook, as the API server sees it: the replicas behind its Service.
#[derive(Default)]
pub struct Admission {
    serving: Mutex<Serving>,
}

#[derive(Default)]
struct Serving {
    replicas: Vec<(String, Router)>,
    calls: usize,
}

/// A review: what to ask, where, and for how long.
struct Review {
    path: &'static str,
    timeout: Duration,
    request: Value,
}

impl Admission {
    fn serving(&self) -> MutexGuard<'_, Serving> {
        self.serving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A replica serves from now on.
    pub fn add(&self, name: &str, webhook: Router) {
        self.serving().replicas.push((name.to_owned(), webhook));
    }

    /// A replica serves no more.
    pub fn remove(&self, name: &str) {
        self.serving().replicas.retain(|(other, _)| other != name);
    }

    /// A pod that is about to be made, as it is to be made.
    pub async fn create_pod(&self, target: &Target, pod: Value) -> Value {
        let ours = !OF_STORAGE.contains(&target.namespace.as_str()) && has_claims(&pod);
        if !ours || !text(&pod, "/spec/nodeName").is_empty() {
            return pod;
        }
        let request = request(target, "CREATE", &pod, &Value::Null);
        let review = Review { path: "/mutate/pods", timeout: Duration::from_secs(2), request };
        let Some(answer) = self.ask(review).await else { return pod };
        let patch = BASE64_STANDARD.decode(text(&answer, "/patch")).ok();
        let steps = patch.and_then(|patch| serde_json::from_slice::<json_patch::Patch>(&patch).ok());
        let mut patched = pod.clone();
        match steps.map(|steps| json_patch::patch(&mut patched, &steps)) {
            Some(Ok(())) => patched,
            _ => pod,
        }
    }

    /// Whether an eviction may go on to the disruption budgets.
    pub async fn evict(&self, target: &Target, eviction: &Value) -> Result<(), Refusal> {
        let storage = OF_STORAGE.contains(&target.namespace.as_str());
        let (path, seconds) = if storage { ("/validate/storage-evictions", 2) } else { ("/validate/evictions", 5) };
        let request = request(target, "CREATE", eviction, &Value::Null);
        self.judge(Review { path, timeout: Duration::from_secs(seconds), request }).await
    }

    /// Tells of a binding.
    pub async fn bind(&self, target: &Target, binding: &Value) -> Result<(), Refusal> {
        if OF_STORAGE.contains(&target.namespace.as_str()) {
            return Ok(());
        }
        let request = request(target, "CREATE", binding, &Value::Null);
        self.judge(Review { path: "/validate/bindings", timeout: Duration::from_secs(2), request }).await
    }

    /// Whether an object may be deleted.
    pub async fn delete(&self, target: &Target, object: &Value) -> Result<(), Refusal> {
        let storage = OF_STORAGE.contains(&target.namespace.as_str());
        let path = match (target.resource.group, target.resource.plural) {
            ("", "pods") if !storage && has_claims(object) && !is_deleting(object) => "/validate/pods-delete",
            ("longhorn.io", "snapshots") => "/validate/snapshots",
            _ => return Ok(()),
        };
        if path == "/validate/pods-delete" && text(object, "/spec/nodeName").is_empty() {
            return Ok(());
        }
        let request = request(target, "DELETE", &Value::Null, object);
        self.judge(Review { path, timeout: Duration::from_secs(2), request }).await
    }

    async fn judge(&self, review: Review) -> Result<(), Refusal> {
        let Some(answer) = self.ask(review).await else { return Ok(()) };
        if answer["allowed"] != json!(false) {
            return Ok(());
        }
        let code = answer.pointer("/status/code").and_then(Value::as_u64).and_then(|c| u16::try_from(c).ok());
        Err(Refusal::new(code.unwrap_or(403), "TooManyRequests", text(&answer, "/status/message")))
    }

    /// The answer of a replica. `None`: there is none, in time.
    async fn ask(&self, review: Review) -> Option<Value> {
        let router = {
            let mut serving = self.serving();
            serving.calls += 1;
            let turn = serving.calls % serving.replicas.len().max(1);
            serving.replicas.get(turn).map(|(_, router)| router.clone())
        }?;
        let body = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": review.request});
        let request = Request::post(review.path).header("content-type", "application/json");
        let request = request.body(Body::from(body.to_string())).ok()?;
        let answered = async {
            let response = router.oneshot(request).await.ok().filter(|r| r.status().is_success())?;
            let body = to_bytes(response.into_body(), LONGEST_ANSWER).await.ok()?;
            let mut answer = serde_json::from_slice::<Value>(&body).ok()?;
            Some(answer["response"].take())
        };
        tokio::time::timeout(review.timeout, answered).await.ok()?
    }
}

fn has_claims(pod: &Value) -> bool {
    elements(pod, "/spec/volumes").any(|v| v.get("persistentVolumeClaim").is_some() || v.get("ephemeral").is_some())
}

fn request(target: &Target, operation: &str, object: &Value, before: &Value) -> Value {
    let Resource { group, version, plural, kind, .. } = target.resource;
    json!({
        "uid": format!("{operation}-{plural}-{}", target.name),
        "kind": {"group": group, "version": version, "kind": kind},
        "resource": {"group": group, "version": version, "resource": plural},
        "subResource": target.subresource, "name": target.name, "namespace": target.namespace,
        "operation": operation, "userInfo": {"username": "simulated", "groups": ["system:authenticated"]},
        "object": object, "oldObject": before, "dryRun": false,
    })
}
