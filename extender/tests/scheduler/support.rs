//! A [`Placement`] by table, an [`Observe`] that remembers, and the way to post arguments.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
};

use axum::{
    body::{Body, to_bytes},
    http::{Request, StatusCode},
};
use handoff_coordinator::verdicts::{NodeFitness, NodeJudge, Placement};
use handoff_extender::{ExtenderConfig, Observe, Outcome, Verb, router};
use serde_json::Value;
use tower::ServiceExt;

/// Judges by name: what is in the table is judged so, everything else fits with score 0.
#[derive(Default)]
pub struct Table {
    pub nodes: Vec<(&'static str, NodeFitness)>,
    /// Nothing of ours: `judge` answers `None`.
    pub foreign: bool,
    pub asked: Mutex<Vec<String>>,
}

impl Placement for Table {
    fn judge(&self, namespace: &str, claims: &[String]) -> Option<Box<dyn NodeJudge + '_>> {
        self.asked.lock().unwrap().push(format!("{namespace}/{}", claims.join(",")));
        (!self.foreign).then(|| Box::new(Judge(&self.nodes)) as _)
    }
}

struct Judge<'t>(&'t [(&'static str, NodeFitness)]);

impl NodeJudge for Judge<'_> {
    fn node(&self, node: &str) -> NodeFitness {
        assert_ne!(node, "panic", "scripted");
        let known = self.0.iter().find(|(name, _)| *name == node);
        known.map_or(NodeFitness::Fits { score: 0 }, |(_, fitness)| fitness.clone())
    }
}

pub fn fits(score: i64) -> NodeFitness {
    NodeFitness::Fits { score }
}

pub fn unfit(reason: &str) -> NodeFitness {
    NodeFitness::Unfit { reason: reason.to_owned() }
}

pub fn table(nodes: &[(&'static str, NodeFitness)]) -> Arc<Table> {
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

pub async fn post_with(table: &Arc<Table>, config: ExtenderConfig, path: &str, body: impl Into<Body>) -> Answer {
    let observed = Arc::new(Observed::default());
    let app = router(Arc::clone(table) as _, config, Arc::clone(&observed) as _);
    let request = Request::post(path).header("content-type", "application/json").body(body.into()).unwrap();
    let response = app.oneshot(request).await.unwrap();
    let status = response.status();
    let text = String::from_utf8(to_bytes(response.into_body(), usize::MAX).await.unwrap().to_vec()).unwrap();
    let observed = observed.0.lock().unwrap().clone();
    Answer { status, text, observed }
}

pub async fn post(table: &Arc<Table>, path: &str, body: impl Into<Body>) -> Answer {
    post_with(table, ExtenderConfig::default(), path, body).await
}
