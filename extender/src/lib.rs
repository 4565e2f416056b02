//! The scheduler extender: which nodes can take a pod's volumes, and which of them take them soonest.
//!
//! The scheduler calls one extender after the other, for one pod after the other, so every millisecond here is one
//! that all pending pods wait. Answers come from memory through [`Placement`]; bodies are read without copying and
//! answers written by hand, see the module `wire`.
//!
//! Panics are the business of the listener that serves the router, as is the size of bodies.

use std::sync::Arc;

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use handoff_coordinator::verdicts::Placement;

mod filter;
mod node_list;
mod observe;
mod prioritize;
mod wire;

pub use observe::{Observe, Outcome, Verb};

use observe::Timer;

/// How the extender uses its runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtenderConfig {
    /// Bodies longer than this are judged on the blocking pool, so that the milliseconds that thousands of full Node
    /// objects take are not taken from the reviews that share the runtime. Lists of names stay below it.
    pub blocking_above: usize,
}

impl Default for ExtenderConfig {
    fn default() -> Self {
        Self { blocking_above: 1 << 20 }
    }
}

#[derive(Clone)]
struct Serving {
    placement: Arc<dyn Placement>,
    config: ExtenderConfig,
    observe: Arc<dyn Observe>,
}

/// An answer and what it was, before both are reported.
struct Answered {
    body: Vec<u8>,
    outcome: Outcome,
}

type Answer = fn(&dyn Placement, &[u8]) -> Result<Answered, wire::Malformed>;

/// The extender's routes: `/filter` and `/prioritize`, with node names (`nodeCacheCapable: true`) or full nodes.
pub fn router(placement: Arc<dyn Placement>, config: ExtenderConfig, observe: Arc<dyn Observe>) -> Router {
    Router::new()
        .route("/filter", post(filter_nodes))
        .route("/prioritize", post(prioritize_nodes))
        // 1,000 full nodes are 5 MB; axum's own limit is 2 MB, which would turn the extender off on large clusters.
        .layer(DefaultBodyLimit::disable())
        .with_state(Serving { placement, config, observe })
}

async fn filter_nodes(State(serving): State<Serving>, body: Bytes) -> Response {
    serve(serving, body, Verb::Filter, filter::answer).await
}

async fn prioritize_nodes(State(serving): State<Serving>, body: Bytes) -> Response {
    serve(serving, body, Verb::Prioritize, prioritize::answer).await
}

async fn serve(serving: Serving, body: Bytes, verb: Verb, answer: Answer) -> Response {
    let timer = Timer::start(Arc::clone(&serving.observe), verb);
    let answered = if body.len() > serving.config.blocking_above {
        let placement = Arc::clone(&serving.placement);
        match tokio::task::spawn_blocking(move || answer(&*placement, &body)).await {
            Ok(answered) => answered,
            Err(failed) => {
                tracing::error!(verb = verb.as_str(), error = %failed, "no answer to the scheduler");
                timer.stop(Outcome::Failed);
                return StatusCode::INTERNAL_SERVER_ERROR.into_response();
            }
        }
    } else {
        answer(&*serving.placement, &body)
    };
    match answered {
        Ok(Answered { body, outcome }) => {
            timer.stop(outcome);
            ([(header::CONTENT_TYPE, "application/json")], body).into_response()
        }
        // Any status but 200 is an error to the scheduler, the same as the text `Error` in an answer, which only
        // `filter` has: an extender marked `ignorable` is skipped, else the pod is tried again. Neither way can a
        // body that we do not understand pass for "no node fits". The scheduler reads no text, so it is logged.
        Err(malformed) => {
            tracing::warn!(verb = verb.as_str(), error = %malformed, "malformed arguments from the scheduler");
            timer.stop(Outcome::Malformed);
            (StatusCode::BAD_REQUEST, malformed.line()).into_response()
        }
    }
}
