//! A scripted [`Admission`], an [`Observe`] that remembers, and the way to post a review.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    body::{Body, to_bytes},
    http::{Request, StatusCode},
};
use futures::future::BoxFuture;
use handoff_coordinator::verdicts::{
    Admission, DeletedPod, EvictionVerdict, NewPod, PodPlan, PodRef, PreferredNode, SnapshotVerdict,
};
use handoff_webhook::{Hook, Observe, Outcome, WebhookConfig, router};
use serde_json::Value;
use tower::ServiceExt;

pub const ROUTES: [&str; 6] = [
    "/mutate/pods",
    "/validate/pods-delete",
    "/validate/evictions",
    "/validate/storage-evictions",
    "/validate/bindings",
    "/validate/snapshots",
];

/// Answers as scripted and records each question.
pub struct Script {
    pub eviction: EvictionVerdict,
    pub preferred: Vec<PreferredNode>,
    /// Whether a new pod's volumes are ours.
    pub ours: bool,
    pub warnings: Vec<String>,
    pub snapshot: Option<String>,
    pub storage: Option<String>,
    /// How long the three asynchronous answers take.
    pub takes: Duration,
    pub panics: bool,
    pub asked: Mutex<Vec<String>>,
    pub done: Mutex<usize>,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            eviction: EvictionVerdict::Allow { note: None },
            preferred: Vec::new(),
            ours: false,
            warnings: Vec::new(),
            snapshot: None,
            storage: None,
            takes: Duration::ZERO,
            panics: false,
            asked: Mutex::default(),
            done: Mutex::default(),
        }
    }
}

impl Script {
    fn ask(&self, question: String) {
        self.asked.lock().unwrap().push(question);
    }

    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    async fn work(&self) {
        assert!(!self.panics, "scripted");
        if !self.takes.is_zero() {
            tokio::time::sleep(self.takes).await;
        }
        *self.done.lock().unwrap() += 1;
    }
}

fn show(pod: &PodRef, dry_run: bool) -> String {
    let PodRef { namespace, name, uid } = pod;
    let uid = uid.as_deref().map_or(String::new(), |uid| format!(" uid {}", &uid[..4]));
    format!("{namespace}/{name}{uid}{}", if dry_run { " dry run" } else { "" })
}

impl Admission for Script {
    fn evict(&self, pod: PodRef, dry_run: bool) -> BoxFuture<'_, EvictionVerdict> {
        self.ask(format!("evict {}", show(&pod, dry_run)));
        Box::pin(async {
            self.work().await;
            self.eviction.clone()
        })
    }

    fn delete(&self, deleted: DeletedPod, dry_run: bool) -> BoxFuture<'_, ()> {
        let DeletedPod { pod, node, claims, .. } = deleted;
        let (node, claims) = (node.unwrap_or_default(), claims.join(","));
        self.ask(format!("delete {} with {claims} on {node}", show(&pod, dry_run)));
        Box::pin(self.work())
    }

    fn bind(&self, pod: PodRef, node: String, dry_run: bool) -> BoxFuture<'_, ()> {
        self.ask(format!("bind {} to {node}", show(&pod, dry_run)));
        Box::pin(self.work())
    }

    fn create(&self, pod: &NewPod<'_>) -> PodPlan {
        let templates = if pod.templates.is_empty() { String::new() } else { format!(" +{}", pod.templates.len()) };
        self.ask(format!("create {}/{}{templates}", pod.namespace, pod.claims.join(",")));
        PodPlan { nodes: self.preferred.clone(), ours: self.ours, warnings: self.warnings.clone() }
    }

    fn delete_snapshot(&self, namespace: &str, name: &str) -> SnapshotVerdict {
        self.ask(format!("snapshot {namespace}/{name}"));
        match &self.snapshot {
            Some(message) => SnapshotVerdict::Needed { message: message.clone() },
            None => SnapshotVerdict::Allow { note: None },
        }
    }

    fn evict_storage(&self, pod: PodRef, dry_run: bool) -> BoxFuture<'_, EvictionVerdict> {
        self.ask(format!("storage {}", show(&pod, dry_run)));
        Box::pin(async {
            self.work().await;
            match &self.storage {
                Some(message) => EvictionVerdict::Hold { message: message.clone() },
                None => EvictionVerdict::Allow { note: None },
            }
        })
    }
}

#[derive(Default)]
pub struct Observed(Mutex<Vec<(Hook, Outcome)>>);

impl Observe for Observed {
    fn review(&self, hook: Hook, outcome: Outcome, seconds: f64) {
        assert!(seconds >= 0.0 && seconds.is_finite());
        self.0.lock().unwrap().push((hook, outcome));
    }
}

/// What came back.
pub struct Answer {
    pub status: StatusCode,
    pub text: String,
    pub observed: Vec<(Hook, Outcome)>,
}

impl Answer {
    pub fn json(&self) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{}", self.text);
        serde_json::from_str(&self.text).unwrap()
    }

    /// `response` of a complete and valid answer to `review`.
    pub fn response(&self, review: &Value) -> Value {
        let mut answer = self.json();
        for part in ["apiVersion", "kind"] {
            assert_eq!(answer[part], review[part]);
        }
        let response = answer["response"].take();
        assert_eq!(response["uid"], review["request"]["uid"]);
        let allowed = response["allowed"].as_bool().expect("allowed is true or false");
        assert_eq!(response.get("status").is_some(), !allowed, "a denial and only a denial has a status");
        assert_eq!(response.get("patch").is_some(), response.get("patchType").is_some());
        for warning in response["warnings"].as_array().into_iter().flatten() {
            let warning = warning.as_str().unwrap();
            assert!(warning.chars().count() <= 256 && !warning.contains(char::is_control), "{warning}");
        }
        response
    }
}

pub fn data() -> Vec<(String, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let mut files: Vec<(String, Vec<u8>)> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), std::fs::read(path).unwrap()))
        .collect();
    files.sort();
    files
}

pub fn review(name: &str) -> Value {
    let (_, body) = data().into_iter().find(|(file, _)| file == name).expect(name);
    serde_json::from_slice(&body).unwrap()
}

pub async fn post_with(script: &Arc<Script>, config: WebhookConfig, route: &str, body: impl Into<Body>) -> Answer {
    let observed = Arc::new(Observed::default());
    let app = router(Arc::clone(script) as _, config, Arc::clone(&observed) as _);
    let request = Request::post(format!("{route}?timeout=10s"))
        .header("content-type", "application/json")
        .body(body.into())
        .unwrap();
    let response = app.oneshot(request).await.unwrap();
    let status = response.status();
    let text = String::from_utf8(to_bytes(response.into_body(), usize::MAX).await.unwrap().to_vec()).unwrap();
    let observed = observed.0.lock().unwrap().clone();
    Answer { status, text, observed }
}

pub async fn post(script: &Arc<Script>, route: &str, body: impl Into<Body>) -> Answer {
    post_with(script, WebhookConfig::default(), route, body).await
}
