//! The extender behind the listener that serves it: TLS, client certificates, limits, one after the other and together.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{collections::HashSet, io, net::SocketAddr, sync::Arc, time::Duration};

use futures::{FutureExt, future::BoxFuture, future::join_all};
use handoff::listen::{Limits, serve_tls};
use handoff_certs::{CertsConfig, Identity, Material, Serving, server_config_mtls};
use handoff_coordinator::verdicts::{NodeJudge, Placement, PodRef, Settings};
use handoff_extender::{ExtenderConfig, router};
use jiff::Timestamp;
use rustls::{ClientConfig, crypto::ring, pki_types::ServerName};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

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

struct Server {
    address: SocketAddr,
    config: CertsConfig,
    material: Material,
    _stop: watch::Sender<bool>,
}

impl Server {
    async fn start(config: ExtenderConfig, limits: Limits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let names = CertsConfig::new("ns", "certs", vec!["localhost".to_owned()]);
        let material = Material::create(&names, Timestamp::now()).unwrap();
        let serving = Serving::default();
        serving.load(&material, Timestamp::now()).unwrap();
        let tls = server_config_mtls(serving.resolver, serving.roots).unwrap();
        let (stop, shutdown) = watch::channel(false);
        let extender = router(Arc::new(Second), config, Arc::new(()));
        tokio::spawn(serve_tls(listener, tls, extender, limits, shutdown));
        Self { address, config: names, material, _stop: stop }
    }

    async fn connect_as(&self, client: Option<&Identity>) -> io::Result<TlsStream<TcpStream>> {
        let roots = self.material.trusted(Timestamp::now()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
        let config = match client {
            Some(client) => {
                let key = rustls::pki_types::pem::PemObject::from_pem_slice(client.key_pem().as_bytes()).unwrap();
                builder.with_client_auth_cert(client.chain(), key).unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        let stream = TcpStream::connect(self.address).await?;
        TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), stream).await
    }

    async fn connect(&self) -> TlsStream<TcpStream> {
        let client = self.material.client(&self.config, Timestamp::now()).unwrap();
        self.connect_as(Some(&client)).await.unwrap()
    }

    async fn ask(&self, body: &str) -> (u16, String) {
        ask(&mut self.connect().await, body).await.unwrap()
    }
}

fn head(length: usize) -> String {
    format!("POST /filter HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n")
}

async fn ask(stream: &mut TlsStream<TcpStream>, body: &str) -> io::Result<(u16, String)> {
    stream.write_all(head(body.len()).as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.flush().await?;
    answer(stream).await
}

async fn answer(stream: &mut TlsStream<TcpStream>) -> io::Result<(u16, String)> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        head.push(stream.read_u8().await?.into());
    }
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let lower = head.to_lowercase();
    let length = lower.split("content-length: ").nth(1).map_or("0", |rest| rest.split("\r\n").next().unwrap());
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body).await?;
    Ok((status, String::from_utf8(body).unwrap()))
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

    let other = Material::create(&server.config, Timestamp::now()).unwrap();
    let wrong = other.client(&server.config, Timestamp::now()).unwrap();
    for client in [None, Some(&wrong), Some(server.material.server())] {
        // with TLS 1.3 the client may learn of it only when it reads
        let answered = match server.connect_as(client).await {
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
        stream.write_all(head(60 << 10).as_bytes()).await.unwrap();
        stream.write_all(b"{").await.unwrap();
        stream.flush().await.unwrap();
        (answer(&mut stream).await.unwrap().0, stream)
    }))
    .await;
    assert!(stalled.iter().all(|(status, _)| *status == 503));
    // their connections are still open, and make room
    assert_eq!(server.ask(QUESTION).await.0, 200);
    let mut stream = server.connect().await;
    stream.write_all(head((64 << 10) + 1).as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    assert_eq!(answer(&mut stream).await.unwrap().0, 413);
    let mut stream = server.connect().await;
    stream.write_all(head(2 << 20).as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    assert_eq!(answer(&mut stream).await.unwrap().0, 413, "by the listener already");
    let large = format!(r#"{{"NodeNames":["node-1"],"x":"{}"}}"#, "x".repeat(60 << 10));
    assert_eq!(server.ask(&large).await.0, 200, "there is room for the largest one again");
}
