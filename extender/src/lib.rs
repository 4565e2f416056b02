//! The scheduler extender: which nodes can take a pod's volumes, which of them take them soonest, which pods should
//! not be evicted to make room, and the binding itself.
//!
//! The scheduler calls one extender after the other, for one pod after the other, so every millisecond here is one
//! that all pending pods wait. Answers come from memory through [`Placement`]; bodies are read without copying and
//! answers written by hand, see the module `wire`. A call that takes too long is answered so that nothing is held up.
//!
//! Panics are the business of the listener that serves the router, as are connections.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Request, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use handoff_coordinator::verdicts::Placement;

mod answer;
mod args;
mod bind;
mod body;
mod config;
mod filter;
mod node_list;
mod observe;
mod preempt;
mod prioritize;
mod quick;
mod wire;

pub use config::ExtenderConfig;
pub use observe::{Observe, Outcome, Verb};

use answer::Answer;
use body::{Bodies, Refused};
use observe::Timer;

#[derive(Clone)]
struct Serving {
    placement: Arc<dyn Placement>,
    config: ExtenderConfig,
    bodies: Bodies,
    observe: Arc<dyn Observe>,
}

/// When an answer is of no use any more.
#[derive(Clone, Copy)]
pub(crate) struct Deadline(Instant);

impl Deadline {
    fn after(wait: Duration) -> Self {
        Self(Instant::now() + wait)
    }

    fn passed(self) -> bool {
        Instant::now() >= self.0
    }
}

/// An answer and what it was, before both are reported.
struct Answered {
    answer: Answer,
    outcome: Outcome,
}

type Judgement = fn(&dyn Placement, &Bytes, Deadline) -> Result<Answered, wire::Malformed>;

/// The extender's routes: `/filter`, `/prioritize` and `/preempt`, with node names (`nodeCacheCapable: true`) or full
/// nodes, and `/bind`. Which of them are used is up to the scheduler's configuration.
pub fn router(placement: Arc<dyn Placement>, config: ExtenderConfig, observe: Arc<dyn Observe>) -> Router {
    let bodies = Bodies::new(&config);
    let judge = |verb: Verb, judgement: Judgement| {
        post(move |State(serving): State<Serving>, request: Request| judge(serving, request, verb, judgement))
    };
    Router::new()
        .route("/filter", judge(Verb::Filter, filter::answer))
        .route("/prioritize", judge(Verb::Prioritize, prioritize::answer))
        .route("/preempt", judge(Verb::Preempt, preempt::answer))
        .route("/bind", post(bind_pod))
        // bodies are bounded by `ExtenderConfig`; axum's own 2 MB would turn the extender off on large clusters
        .layer(DefaultBodyLimit::disable())
        .with_state(Serving { placement, config, bodies, observe })
}

async fn judge(serving: Serving, request: Request, verb: Verb, judgement: Judgement) -> Response {
    let deadline = Deadline::after(serving.config.deadline);
    let (timer, body) = match begin(&serving, request, verb, deadline).await {
        Ok(begun) => begun,
        Err(refused) => return refused,
    };
    if body.len() <= serving.config.blocking_above {
        return respond(timer, judgement(&*serving.placement, &body, deadline));
    }
    match tokio::task::spawn_blocking(move || judgement(&*serving.placement, &body, deadline)).await {
        Ok(answered) => respond(timer, answered),
        Err(failed) => {
            tracing::error!(verb = verb.as_str(), error = %failed, "no answer to the scheduler");
            timer.stop(Outcome::Failed);
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn bind_pod(State(serving): State<Serving>, request: Request) -> Response {
    let deadline = Deadline::after(serving.config.deadline);
    match begin(&serving, request, Verb::Bind, deadline).await {
        Ok((timer, body)) => respond(timer, bind::answer(&*serving.placement, &body, deadline).await),
        Err(refused) => refused,
    }
}

/// Reads the body. Without one there is nothing to answer: any status but 200 is an error to the scheduler, which goes
/// on without an extender that is `ignorable`.
async fn begin(
    serving: &Serving,
    request: Request,
    verb: Verb,
    Deadline(deadline): Deadline,
) -> Result<(Timer, Bytes), Response> {
    let timer = Timer::start(Arc::clone(&serving.observe), verb);
    let read = tokio::time::timeout_at(deadline.into(), serving.bodies.read(request.into_body())).await;
    let (status, outcome) = match read {
        Ok(Ok(body)) => return Ok((timer.again(), body)),
        Ok(Err(Refused::TooLarge)) => {
            let bytes = serving.config.body;
            tracing::warn!(verb = verb.as_str(), bytes, "a body of the scheduler is longer than is allowed");
            (StatusCode::PAYLOAD_TOO_LARGE, Outcome::TooLarge)
        }
        Ok(Err(Refused::Broken(error))) => {
            tracing::debug!(verb = verb.as_str(), %error, "body cut off");
            (StatusCode::BAD_REQUEST, Outcome::Malformed)
        }
        Err(_) => {
            tracing::warn!(verb = verb.as_str(), "body not complete, or no room for it, in time");
            (StatusCode::SERVICE_UNAVAILABLE, Outcome::Late)
        }
    };
    timer.stop(outcome);
    Err(status.into_response())
}

fn respond(timer: Timer, answered: Result<Answered, wire::Malformed>) -> Response {
    let verb = timer.verb();
    match answered {
        Ok(Answered { outcome: Outcome::Late, .. }) if verb == Verb::Prioritize => {
            timer.stop(Outcome::Late);
            StatusCode::SERVICE_UNAVAILABLE.into_response()
        }
        Ok(Answered { answer, outcome }) => {
            timer.stop(outcome);
            let (length, body) = answer.into_body();
            let headers = [
                (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
                (header::CONTENT_LENGTH, length.into()),
            ];
            (headers, body).into_response()
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
