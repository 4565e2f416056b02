//! The extender behind the listener that serves it: TLS, client certificates, limits, one after the other and together.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod served;

use std::{collections::HashSet, io, sync::Arc, time::Duration};

use futures::{FutureExt, future::BoxFuture, future::join_all};
use handoff::listen::Limits;
use handoff_certs::{Material, server_config_mtls};
use handoff_coordinator::verdicts::{NodeJudge, Placement, PodRef, Settings};
use handoff_extender::{ExtenderConfig, router};
use jiff::Timestamp;
use served::{Stream, answer};

/// Refuses `node-2`.
struct Second;

impl Placement for Second {
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

impl NodeJudge for Second {
    fn fits(&self, node: &str) -> Result<(), String> {
        if node == "node-2" { Err("on purpose".to_owned()) } else { Ok(()) }
    }

    fn score(&self, _: &str) -> i64 {
        0
    }
}

struct Server(served::Server);

impl Server {
    async fn start(config: ExtenderConfig, limits: Limits) -> Self {
        let extender = router(Arc::new(Second), config, Arc::new(()));
        let tls = |serving: handoff_certs::Serving| server_config_mtls(serving.resolver, serving.roots);
        Self(served::Server::start(tls, extender, limits).await)
    }

    async fn connect(&self) -> Stream {
        self.0.connect().await
    }

    async fn ask(&self, body: &str) -> (u16, String) {
        ask(&mut self.connect().await, body).await.unwrap()
    }
}

async fn send(stream: &mut Stream, length: usize, body: &[u8]) -> io::Result<()> {
    served::send(stream, "/filter", length, body).await
}

async fn ask(stream: &mut Stream, body: &str) -> io::Result<(u16, String)> {
    send(stream, body.len(), body.as_bytes()).await?;
    answer(stream).await
}

const QUESTION: &str = concat!(
    r#"{"Pod":{"spec":{"volumes":[{"persistentVolumeClaim":{"claimName":"c"}}]}},"#,
    r#""Nodes":null,"NodeNames":["node-1","node-2"]}"#
);

#[tokio::test]
async fn a_client_without_our_certificate_gets_no_answer() {
    let server = Server::start(ExtenderConfig::default(), Limits::default()).await;
    let (status, text) = server.ask(QUESTION).await;
    assert_eq!(status, 200);
    assert!(text.contains(r#""NodeNames":["node-1"]"#) && text.contains(r#"{"node-2":"on purpose"}"#), "{text}");

    let other = Material::create(&server.0.config, Timestamp::now()).unwrap();
    let wrong = other.client(&server.0.config, Timestamp::now()).unwrap();
    for client in [None, Some(&wrong), Some(server.0.material.server())] {
        // with TLS 1.3 the client may learn of it only when it reads
        let answered = match server.0.connect_as(client).await {
            Ok(mut stream) => ask(&mut stream, QUESTION).await,
            Err(refused) => Err(refused),
        };
        answered.expect_err("refused");
    }
    assert_eq!(server.ask(QUESTION).await.0, 200);
}

#[tokio::test]
async fn what_goes_over_the_limits_is_an_error_and_leaves_nothing_behind() {
    let config = ExtenderConfig {
        deadline: Duration::from_secs(3),
        body: 64 << 10,
        blocking_above: 1 << 10,
        large_bodies: 64 << 10,
        small_bodies: 4 << 10,
    };
    let limits = Limits { connections: 12, body: 1 << 20, ..Limits::default() };
    let server = Server::start(config, limits).await;
    // as many as there are places, each with a body that never comes: more than there is room for in memory
    let stalled = join_all((0..12).map(|_| async {
        let mut stream = server.connect().await;
        send(&mut stream, 60 << 10, b"{").await.unwrap();
        (answer(&mut stream).await.unwrap().0, stream)
    }))
    .await;
    assert!(stalled.iter().all(|(status, _)| *status == 503));
    // their connections are still open, and make room
    assert_eq!(server.ask(QUESTION).await.0, 200);
    let mut stream = server.connect().await;
    send(&mut stream, (64 << 10) + 1, b"").await.unwrap();
    assert_eq!(answer(&mut stream).await.unwrap().0, 413);
    let mut stream = server.connect().await;
    send(&mut stream, 2 << 20, b"").await.unwrap();
    assert_eq!(answer(&mut stream).await.unwrap().0, 413, "by the listener already");
    let large = format!(r#"{{"NodeNames":["node-1"],"x":"{}"}}"#, "x".repeat(60 << 10));
    assert_eq!(server.ask(&large).await.0, 200, "there is room for the largest one again");
}
