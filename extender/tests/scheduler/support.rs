//! A [`Placement`] by table, an [`Observe`] that remembers, and the way to post arguments.

use std::{
    collections::HashSet,
    future::{pending, ready},
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{Request, StatusCode},
    response::Response,
};
use futures::{FutureExt, future::BoxFuture};
use handoff_coordinator::verdicts::{NodeJudge, Placement, PodRef, Settings};
use handoff_extender::{ExtenderConfig, Observe, Outcome, Verb, router};
use serde_json::Value;
use tower::ServiceExt;

/// What is said of a node.
#[derive(Clone)]
pub enum Fitness {
    Fits(i64),
    Unfit(String),
}

/// Judges by name: what is in the table is judged so, everything else fits with score 0.
#[derive(Default)]
pub struct Table {
    pub nodes: Vec<(&'static str, Fitness)>,
    /// Nothing of ours: `judge` answers `None`.
    pub foreign: bool,
    /// UIDs of pods with a backup in flight.
    pub busy: Vec<&'static str>,
    /// What becomes of a binding; `None`: it never ends.
    pub bound: Option<Result<(), String>>,
    /// Each question as one line.
    pub asked: Mutex<Vec<String>>,
}

impl Table {
    fn note(&self, question: String) {
        self.asked.lock().unwrap().push(question);
    }

    /// The questions so far.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl Placement for Table {
    fn judge(&self, pod: &PodRef, settings: &Settings, claims: &[String]) -> Option<Box<dyn NodeJudge + '_>> {
        let mode = settings.mode.value().map(|mode| format!(" {mode}")).unwrap_or_default();
        self.note(format!("{}/{}{mode}", pod.namespace, claims.join(",")));
        (!self.foreign).then(|| Box::new(Judge(&self.nodes)) as _)
    }

    fn rejected(&self, pod: PodRef, claims: Vec<String>, nodes: Vec<String>) {
        let PodRef { namespace, name, uid } = pod;
        let uid = uid.unwrap_or_default();
        self.note(format!("rejected {namespace}/{name} {uid} {} on {}", claims.join(","), nodes.join(",")));
    }

    fn busy_pods(&self) -> HashSet<String> {
        self.busy.iter().map(ToString::to_string).collect()
    }

    fn bind_pod(&self, pod: PodRef, node: String) -> BoxFuture<'_, Result<(), String>> {
        self.note(format!("bind {}/{} {} to {node}", pod.namespace, pod.name, pod.uid.unwrap_or_default()));
        match self.bound.clone() {
            Some(bound) => ready(bound).boxed(),
            None => pending().boxed(),
        }
    }
}

struct Judge<'t>(&'t [(&'static str, Fitness)]);

impl Judge<'_> {
    fn of(&self, node: &str) -> Option<&Fitness> {
        assert_ne!(node, "panic", "scripted");
        self.0.iter().find(|(name, _)| *name == node).map(|(_, fitness)| fitness)
    }
}

impl NodeJudge for Judge<'_> {
    fn fits(&self, node: &str) -> Result<(), String> {
        match self.of(node) {
            Some(Fitness::Unfit(reason)) => Err(reason.clone()),
            Some(Fitness::Fits(_)) | None => Ok(()),
        }
    }

    fn score(&self, node: &str) -> i64 {
        match self.of(node) {
            Some(Fitness::Fits(score)) => *score,
            Some(Fitness::Unfit(_)) | None => 0,
        }
    }
}

pub fn fits(score: i64) -> Fitness {
    Fitness::Fits(score)
}

pub fn unfit(reason: &str) -> Fitness {
    Fitness::Unfit(reason.to_owned())
}

pub fn table(nodes: &[(&'static str, Fitness)]) -> Arc<Table> {
    Arc::new(Table { nodes: nodes.to_vec(), ..Table::default() })
}

#[derive(Default)]
struct Observed(Mutex<Vec<(Verb, Outcome)>>);

impl Observe for Observed {
    fn call(&self, verb: Verb, outcome: Outcome, seconds: f64) {
        assert!(seconds >= 0.0 && seconds.is_finite());
        self.0.lock().unwrap().push((verb, outcome));
    }
}

/// What came back.
pub struct Answer {
    pub status: StatusCode,
    pub text: String,
    pub observed: Vec<(Verb, Outcome)>,
}

impl Answer {
    pub fn json(&self) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{}", self.text);
        serde_json::from_str(&self.text).unwrap()
    }
}

pub fn data(file: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(file).with_extension("json");
    std::fs::read_to_string(path).unwrap()
}

/// The router over a table.
pub fn router_with(table: &Arc<Table>, config: ExtenderConfig, observe: Arc<dyn Observe>) -> Router {
    router(Arc::clone(table) as _, config, observe)
}

/// The head of the answer; its body is not read yet.
pub async fn call(app: &Router, path: &str, body: impl Into<Body>) -> Response {
    let request = Request::post(path).header("content-type", "application/json").body(body.into()).unwrap();
    app.clone().oneshot(request).await.unwrap()
}

/// Status and body of the answer.
pub async fn send(app: &Router, path: &str, body: impl Into<Body>) -> (StatusCode, String) {
    let response = call(app, path, body).await;
    let status = response.status();
    let stated = response.headers().get("content-length").map(|length| length.to_str().unwrap().parse().unwrap());
    let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    assert_eq!(stated.unwrap_or(body.len()), body.len());
    (status, String::from_utf8(body.to_vec()).unwrap())
}

pub async fn post_with(table: &Arc<Table>, config: ExtenderConfig, path: &str, body: impl Into<Body>) -> Answer {
    let observed = Arc::new(Observed::default());
    let app = router_with(table, config, Arc::clone(&observed) as _);
    let (status, text) = send(&app, path, body).await;
    let observed = observed.0.lock().unwrap().clone();
    Answer { status, text, observed }
}

/// The defaults, but nobody is late, however slow the machine is.
pub fn patient() -> ExtenderConfig {
    ExtenderConfig { deadline: Duration::from_hours(1), ..ExtenderConfig::default() }
}

pub async fn post(table: &Arc<Table>, path: &str, body: impl Into<Body>) -> Answer {
    post_with(table, patient(), path, body).await
}
