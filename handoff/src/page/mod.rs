//! The page of moves, on the operations port: what is owed now, and the moves that are still on record as timelines. It
//! reads the caches and changes nothing. It shows names, times and states, and no text of others (messages of the storage
//! manager, annotations), which may hold what is nobody's business.

mod html;
mod timeline;
pub mod view;

use crate::observe::Missing;
use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderName, HeaderValue, header},
    middleware::{Next, from_fn},
    response::{Html, IntoResponse, Redirect, Response},
    routing::get,
};
use handoff_coordinator::Coordinator;
use jiff::Timestamp;
use std::sync::Arc;
use view::{Replica, View};

/// Looks up what the page shows now.
pub type Source = Arc<dyn Fn() -> View + Send + Sync>;

/// What the page shows of a coordinator; `name` is this replica's pod.
pub fn of(coordinator: Arc<Coordinator>, name: String, missing: Missing) -> Source {
    Arc::new(move || {
        let now = Timestamp::now();
        let replica = Replica { name: name.clone(), leads: coordinator.leads(), missing: missing() };
        let handoffs = coordinator.handoffs();
        View::of(replica, handoffs.iter().map(AsRef::as_ref), &coordinator.open_holds(now), now)
    })
}

const CSS: &str = include_str!("moves.css");
const SCRIPT: &str = include_str!("moves.js");

/// Nothing but our own style and script; no frames, no forms, no base.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

static HEADERS: [(HeaderName, &str); 6] = [
    (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// `/moves`, what it needs, and `/` which leads there. Names are relative, so that it also works behind a path.
pub fn router(source: Source) -> Router {
    Router::new()
        .route("/", get(|| async { Redirect::temporary("moves") }))
        .route("/moves", get(page))
        .route("/moves.css", get(|| async { typed("text/css; charset=utf-8", CSS) }))
        .route("/moves.js", get(|| async { typed("text/javascript; charset=utf-8", SCRIPT) }))
        .layer(from_fn(with_headers))
        .with_state(source)
}

async fn page(State(source): State<Source>) -> Html<String> {
    Html(html::page(&source()).into_string())
}

fn typed(kind: &'static str, text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

async fn with_headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    for (name, value) in &HEADERS {
        response.headers_mut().insert(name.clone(), HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests;
