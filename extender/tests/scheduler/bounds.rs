//! Calls that take too much: too long, too large, never complete.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::StatusCode,
};
use futures::{StreamExt, stream};
use handoff_extender::{ExtenderConfig, Outcome, Verb};
use serde_json::{Value, json};

use crate::support::{data, fits, post_with, router_with, send, table, unfit};

/// So short that it has passed when the first node is looked at.
fn at_once() -> ExtenderConfig {
    ExtenderConfig { deadline: Duration::from_nanos(1), ..ExtenderConfig::default() }
}

#[tokio::test]
async fn past_the_deadline_filter_lets_every_node_pass() {
    let all = ["node-1", "node-2", "node-3"].map(|node| (node, unfit("never said")));
    let table = table(&all);
    for file in ["args-node-names", "args-full-nodes"] {
        let sent: Value = serde_json::from_str(&data(file)).unwrap();
        let answer = post_with(&table, at_once(), "/filter", data(file)).await;
        assert_eq!(answer.observed, [(Verb::Filter, Outcome::Late)]);
        let answer = answer.json();
        assert_eq!((&answer["NodeNames"], &answer["Nodes"]), (&sent["NodeNames"], &sent["Nodes"]), "{file}");
        assert_eq!(answer["FailedAndUnresolvableNodes"], json!({}));
    }
    assert!(table.asked().iter().all(|asked| !asked.starts_with("rejected")));
}

#[tokio::test]
async fn past_the_deadline_there_are_no_scores() {
    let table = table(&[("node-1", fits(10))]);
    let answer = post_with(&table, at_once(), "/prioritize", data("args-node-names")).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.observed, [(Verb::Prioritize, Outcome::Late)]);
}

#[tokio::test]
async fn what_was_refused_keeps_nothing() {
    let config = ExtenderConfig {
        deadline: Duration::from_millis(100),
        body: 64 << 10,
        blocking_above: 1 << 10,
        large_bodies: 64 << 10,
        small_bodies: 16 << 10,
    };
    let table = table(&[]);
    let app = router_with(&table, config, Arc::new(()));
    let large = json!({"NodeNames": ["x".repeat(60 << 10)]}).to_string();
    // more of each kind than there would be room for if any of it stayed
    for _ in 0..4 {
        let too_large = send(&app, "/filter", "x".repeat(65 << 10)).await;
        assert_eq!(too_large.0, StatusCode::PAYLOAD_TOO_LARGE);
        let endless = stream::repeat(Ok::<_, Infallible>(Bytes::from_static(&[b' '; 1 << 10])));
        assert_eq!(send(&app, "/filter", Body::from_stream(endless)).await.0, StatusCode::PAYLOAD_TOO_LARGE);
        let never = stream::iter([Ok::<_, Infallible>(Bytes::from_static(b"{"))]).chain(stream::pending());
        assert_eq!(send(&app, "/filter", Body::from_stream(never)).await.0, StatusCode::SERVICE_UNAVAILABLE);
        let broken = stream::iter([Ok(Bytes::from_static(b"{")), Err(std::io::Error::other("reset"))]);
        assert_eq!(send(&app, "/filter", Body::from_stream(broken)).await.0, StatusCode::BAD_REQUEST);
        assert_eq!(send(&app, "/filter", large.clone()).await.0, StatusCode::OK);
    }
}

#[tokio::test]
async fn a_call_that_finds_no_room_in_time_is_an_error_and_names_still_get_through() {
    let config = ExtenderConfig {
        deadline: Duration::from_millis(200),
        body: 64 << 10,
        blocking_above: 1 << 10,
        large_bodies: 64 << 10,
        small_bodies: 16 << 10,
    };
    let app = router_with(&table(&[]), config, Arc::new(()));
    let large = json!({"Nodes": {"items": [{"metadata": {"name": "a", "x": "x".repeat(60 << 10)}}]}}).to_string();
    // an answer that nobody reads keeps its question
    let unread = crate::support::call(&app, "/filter", large.clone()).await;
    assert_eq!(send(&app, "/filter", large.clone()).await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(send(&app, "/filter", r#"{"NodeNames":["a"]}"#).await.0, StatusCode::OK);
    drop(unread);
    assert_eq!(send(&app, "/filter", large).await.0, StatusCode::OK);
}
