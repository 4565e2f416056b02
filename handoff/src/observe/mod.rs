//! The operations port: plain pages for kubelets and Prometheus, and the page of moves for people.

pub mod figures;
#[cfg(test)]
mod table;

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use prometheus_client::{encoding::text::encode, registry::Registry};
use std::sync::Arc;

/// The format of `prometheus-client`; told, so that a scraper does not take it for its predecessor.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Names of what is not ready yet.
pub type Missing = Arc<dyn Fn() -> Vec<&'static str> + Send + Sync>;

/// What the pages show.
#[derive(Clone)]
pub struct Pages {
    /// All figures.
    pub registry: Arc<Registry>,
    /// What is not ready yet.
    pub missing: Missing,
}

/// The plain pages: /healthz, /readyz, /metrics.
pub fn router(pages: Pages) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(pages)
}

async fn ready(State(pages): State<Pages>) -> (StatusCode, String) {
    let missing = (pages.missing)();
    if missing.is_empty() {
        return (StatusCode::OK, "ready\n".to_owned());
    }
    (StatusCode::SERVICE_UNAVAILABLE, format!("waiting for: {}\n", missing.join(", ")))
}

async fn metrics(State(pages): State<Pages>) -> Response {
    let mut text = String::new();
    match encode(&mut text, &pages.registry) {
        Ok(()) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(error) => {
            (StatusCode::INTERNAL_SERVER_ERROR, format!("cannot write the figures: {error}\n")).into_response()
        }
    }
}
