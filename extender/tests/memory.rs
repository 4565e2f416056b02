//! How much memory a call with thousands of full nodes takes, counted by the allocator. One test, so that nothing else
//! is counted.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{collections::HashSet, convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes, HttpBody},
    http::{Request, StatusCode},
    response::Response,
};
use futures::{FutureExt, StreamExt, future::BoxFuture, future::join_all, stream};
use handoff_coordinator::verdicts::{NodeJudge, Placement, PodRef, Settings};
use handoff_extender::{ExtenderConfig, router};
use peak_alloc::PeakAlloc;
use tower::ServiceExt;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

const NODES: usize = 5_000;
const NODE: usize = 10_000;
const MIB: usize = 1 << 20;

/// Rejects every tenth node.
struct EveryTenth;

impl Placement for EveryTenth {
    fn judge(&self, _: &PodRef, _: &Settings, _: &[String]) -> Option<Box<dyn NodeJudge + '_>> {
        Some(Box::new(Self))
    }

    fn rejected(&self, _: PodRef, _: Vec<String>, _: Vec<String>) {}

    fn busy_pods(&self) -> HashSet<String> {
        HashSet::new()
    }

    fn bind_pod(&self, _: PodRef, _: String) -> BoxFuture<'_, Result<(), String>> {
        std::future::ready(Ok(())).boxed()
    }
}

impl NodeJudge for EveryTenth {
    fn fits(&self, node: &str) -> Result<(), String> {
        if node.ends_with('0') { Err("on purpose".to_owned()) } else { Ok(()) }
    }

    fn score(&self, _: &str) -> i64 {
        0
    }
}

fn node(n: usize) -> String {
    let head = format!(r#"{{"metadata":{{"name":"node-{n:04}","annotations":{{"x":""#);
    let padding = NODE - head.len() - 4;
    format!("{head}{}\"}}}}}}", "x".repeat(padding))
}

const HEAD: &str = concat!(
    r#"{"Pod":{"metadata":{"name":"p","namespace":"shop"},"spec":{"volumes":[{"persistentVolumeClaim":"#,
    r#"{"claimName":"data"}}]}},"NodeNames":null,"Nodes":{"metadata":{},"items":["#
);

/// `ExtenderArgs` in pieces that exist one at a time, as they come off the network.
fn question() -> (usize, Body) {
    let length = HEAD.len() + NODES * (NODE + 1) - 1 + 3;
    let nodes = (0..NODES).map(|n| if n == 0 { node(n) } else { format!(",{}", node(n)) });
    let pieces = std::iter::once(HEAD.to_owned()).chain(nodes).chain(["]}}".to_owned()]);
    (length, Body::from_stream(stream::iter(pieces.map(|piece| Ok::<_, Infallible>(Bytes::from(piece))))))
}

/// As hyper gives it: with the length that the head of the request stated.
struct Sized(Body, u64);

impl HttpBody for Sized {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, axum::Error>>> {
        std::pin::Pin::new(&mut self.0).poll_frame(cx)
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.1)
    }
}

async fn ask(app: &Router) -> Response {
    let (length, body) = question();
    let body = Body::new(Sized(body, length.try_into().unwrap()));
    app.clone().oneshot(Request::post("/filter").body(body).unwrap()).await.unwrap()
}

/// Reads an answer and keeps nothing of it; its length.
async fn read(response: Response) -> usize {
    assert_eq!(response.status(), StatusCode::OK);
    let mut pieces = response.into_body().into_data_stream();
    let mut length = 0;
    while let Some(piece) = pieces.next().await {
        length += piece.unwrap().len();
    }
    length
}

#[tokio::test]
async fn fifty_megabytes_of_nodes_are_held_once_however_many_ask() {
    // nobody is late here, however slow the machine is
    let config = ExtenderConfig { deadline: Duration::from_hours(1), ..ExtenderConfig::default() };
    let app = router(Arc::new(EveryTenth), config, Arc::new(()));
    let (body, _) = question();
    assert!(body > 50_000_000);
    let before = HEAP.current_usage();
    HEAP.reset_peak_usage();
    let length = read(ask(&app).await).await;
    let nodes = NODES * 9 / 10 * NODE;
    assert!(length > nodes && length < nodes + MIB, "nine of ten nodes, and a reason for the others: {length}");
    let taken = HEAP.peak_usage() - before;
    assert!(taken < body + 2 * MIB, "one call took {taken} bytes for a body of {body}");

    // there is room for one at a time
    HEAP.reset_peak_usage();
    let lengths = join_all((0..4).map(|_| async { read(ask(&app).await).await })).await;
    assert_eq!(lengths, [length; 4]);
    let taken = HEAP.peak_usage() - before;
    assert!(taken < config.large_bodies + 4 * MIB, "four calls took {taken} bytes");
    let left = HEAP.current_usage().saturating_sub(before);
    assert!(left < MIB, "{left} bytes are left of them");
}
