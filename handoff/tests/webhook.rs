//! The webhook behind the listener that serves it: requests over the limits get an error and leave nothing behind.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "served/holds.rs"]
mod holds;
mod served;

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use handoff::listen::Limits;
use handoff_certs::server_config;
use handoff_webhook::{WebhookConfig, router};
use holds::Holds;
use serde_json::{Value, json};
use served::{Stream, answer};

struct Server(served::Server);

impl Server {
    async fn start(limits: Limits) -> Self {
        let webhook = router(Arc::new(Holds), WebhookConfig::default(), Arc::new(()));
        Self(served::Server::start(|serving| server_config(serving.resolver), webhook, limits).await)
    }

    async fn connect(&self) -> Stream {
        self.0.connect().await
    }

    /// An eviction's review on a connection of its own: whether it is held, as it must be.
    async fn holds(&self) -> bool {
        let body = eviction("").to_string();
        let mut stream = self.connect().await;
        send(&mut stream, body.len(), body.as_bytes()).await;
        let (status, text) = answer(&mut stream).await.unwrap();
        status == 200 && serde_json::from_str::<Value>(&text).unwrap()["response"]["status"]["code"] == 429
    }
}

fn eviction(padding: &str) -> Value {
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "u", "operation": "CREATE", "subResource": "eviction", "name": "db-0", "namespace": "shop",
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "object": {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "db-0", "x": padding}}}})
}

async fn send(stream: &mut Stream, length: usize, body: &[u8]) {
    served::send(stream, "/validate/evictions", length, body).await.unwrap();
}

#[tokio::test]
async fn what_goes_over_the_limits_is_an_error_and_leaves_nothing_behind() {
    const PLACES: usize = 6;
    let request = Duration::from_millis(300);
    let server = Server::start(Limits { connections: PLACES, request, body: 64 << 10, ..Limits::default() }).await;
    assert!(server.holds().await);
    // more than there is room for if anything of the one before stayed
    for _ in 0..3 {
        // as many as there are places, each with a body that never comes
        let stalled = join_all((0..PLACES).map(|_| async {
            let mut stream = server.connect().await;
            send(&mut stream, 60 << 10, b"{").await;
            (answer(&mut stream).await.unwrap().0, stream)
        }))
        .await;
        assert!(stalled.iter().all(|(status, _)| *status == 503), "time");
        // their connections are still open, and make room
        assert!(server.holds().await, "connections");
        let mut stream = server.connect().await;
        send(&mut stream, (64 << 10) + 1, b"{").await;
        assert_eq!(answer(&mut stream).await.unwrap().0, 413, "size");
        let large = eviction(&"x".repeat(63 << 10)).to_string();
        let mut stream = server.connect().await;
        send(&mut stream, large.len(), large.as_bytes()).await;
        assert_eq!(answer(&mut stream).await.unwrap().0, 200, "the largest one that is allowed");
    }
    assert!(server.holds().await);
}
