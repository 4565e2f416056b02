//! An API server that only lists and watches, over objects made on demand: enough for the caches of `handoff serve`
//! to fill, without holding a cluster's objects in memory.

use crate::world::World;
use axum::{
    Router,
    body::{Body, Bytes},
    extract::{RawQuery, State},
    http::{Uri, header},
    response::{IntoResponse, Response},
    routing::get,
};
use futures::stream;
use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::sync::watch;

/// What a watch ends with when its resourceVersion is too old: the client lists anew.
const EXPIRED: &str = concat!(
    r#"{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","#,
    r#""message":"too old resource version","reason":"Expired","code":410}}"#,
    "\n"
);

#[derive(Clone)]
struct Server {
    world: Arc<World>,
    expire: Arc<watch::Sender<()>>,
    watches: Arc<AtomicUsize>,
}

/// Serves every collection of `world`; collections it does not have are empty. `GET /expire` ends all watches, so that
/// everything is listed anew; `GET /watches` says how many watches have been opened so far.
pub fn router(world: World) -> Router {
    let server = Server { world: Arc::new(world), expire: Arc::new(watch::Sender::new(())), watches: Arc::default() };
    Router::new().route("/expire", get(expire)).route("/watches", get(watches)).fallback(collection).with_state(server)
}

async fn expire(State(server): State<Server>) -> &'static str {
    server.expire.send_replace(());
    "expired\n"
}

async fn watches(State(server): State<Server>) -> String {
    server.watches.load(Ordering::Relaxed).to_string()
}

async fn collection(State(server): State<Server>, uri: Uri, RawQuery(query): RawQuery) -> Response {
    let query = query.unwrap_or_default();
    let value = |key: &str| query.split('&').find_map(|part| part.strip_prefix(key)?.strip_prefix('='));
    let body = if value("watch") == Some("true") {
        server.watches.fetch_add(1, Ordering::Relaxed);
        let mut expire = server.expire.subscribe();
        let last = async move {
            // an error would mean that the server is gone, which ends the watch just the same
            let _ = expire.changed().await;
            Ok::<_, Infallible>(Bytes::from_static(EXPIRED.as_bytes()))
        };
        Body::from_stream(stream::once(last))
    } else {
        let number = |key| value(key).and_then(|text| text.parse().ok());
        let page = page(&server.world, uri.path(), number("continue").unwrap_or(0), number("limit"));
        Body::from(page)
    };
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

fn page(world: &World, path: &str, from: usize, limit: Option<usize>) -> String {
    let (count, object) = world.collection(path);
    let to = limit.map_or(count, |limit| count.min(from + limit));
    let next = if to < count { to.to_string() } else { String::new() };
    let mut page = format!(
        r#"{{"kind":"List","apiVersion":"v1","metadata":{{"resourceVersion":"1000","continue":"{next}"}},"items":["#
    );
    for at in from..to {
        if at > from {
            page.push(',');
        }
        page.push_str(&object(world, at));
    }
    page.push_str("]}");
    page
}
