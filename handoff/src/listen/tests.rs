use super::{Limits, serve_plain, serve_tls};
use axum::{
    Router,
    body::Bytes,
    routing::{get, post},
};
use handoff_certs::{CertsConfig, Material, Serving, server_config};
use hyper_util::rt::{TokioExecutor, TokioIo};
use jiff::Timestamp;
use prometheus_client::metrics::gauge::Gauge;
use rustls::{ClientConfig, SupportedProtocolVersion, crypto::ring, pki_types::ServerName};
use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinHandle,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Short enough for a test to wait for; the tests only look at what happens, not when.
const SOON: Duration = Duration::from_millis(100);
const GET: &str = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";
const HOLD: &str = "GET /hold HTTP/1.1\r\nhost: x\r\n\r\n";

struct Server {
    address: SocketAddr,
    material: Material,
    stop: watch::Sender<bool>,
    task: JoinHandle<io::Result<()>>,
    /// `/hold` answers once it gets a permit of this.
    release: Arc<Semaphore>,
    /// Requests that have reached `/hold`.
    held: Arc<AtomicUsize>,
    /// Connections that are open.
    open: Gauge,
}

impl Server {
    async fn tls(limits: Limits) -> Self {
        Self::start(limits, true).await
    }

    async fn start(limits: Limits, tls: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let config = CertsConfig::new("ns", "certs", vec!["localhost".to_owned()]);
        let material = Material::create(&config, Timestamp::now()).unwrap();
        let (release, held) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
        let router = router(release.clone(), held.clone());
        let (stop, shutdown) = watch::channel(false);
        let open = limits.open.clone();
        let task = if tls {
            let serving = Serving::default();
            serving.load(&material, Timestamp::now()).unwrap();
            let config = server_config(serving.resolver).unwrap();
            tokio::spawn(serve_tls(listener, config, router, limits, shutdown))
        } else {
            tokio::spawn(serve_plain(listener, router, limits, shutdown))
        };
        Self { address, material, stop, task, release, held, open }
    }

    async fn tcp(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn connect(&self, alpn: &[u8]) -> io::Result<TlsStream<TcpStream>> {
        self.connect_by(alpn, rustls::DEFAULT_VERSIONS).await
    }

    async fn connect_by(
        &self,
        alpn: &[u8],
        versions: &[&'static SupportedProtocolVersion],
    ) -> io::Result<TlsStream<TcpStream>> {
        let roots = self.material.trusted(Timestamp::now()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_protocol_versions(versions).unwrap();
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![alpn.to_vec()];
        let stream = TcpStream::connect(self.address).await?;
        TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), stream).await
    }

    async fn http1(&self) -> TlsStream<TcpStream> {
        self.connect(b"http/1.1").await.unwrap()
    }

    async fn until_held(&self, requests: usize) {
        while self.held.load(Ordering::SeqCst) < requests {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn until_open(&self, connections: i64) {
        while self.open.get() != connections {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// A new connection is served, and nothing is left of any that was there before.
    async fn lives(&self) {
        assert_eq!(ask(&mut self.http1().await, GET).await, (200, "hello".to_owned()));
        self.until_open(0).await;
    }
}

fn router(release: Arc<Semaphore>, held: Arc<AtomicUsize>) -> Router {
    let wait = async move || {
        held.fetch_add(1, Ordering::SeqCst);
        release.acquire().await.unwrap().forget();
        "released"
    };
    Router::new()
        .route("/", get(async || "hello"))
        .route("/size", post(async |body: Bytes| body.len().to_string()))
        .route("/panic", get(async || -> String { panic!("on purpose") }))
        .route("/hold", get(wait))
}

async fn ask(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), request: &str) -> (u16, String) {
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    answer(stream).await
}

/// Status and body of one response with a content length.
async fn answer(stream: &mut (impl AsyncRead + Unpin)) -> (u16, String) {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a response").into());
    }
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let lower = head.to_lowercase();
    let length = lower.split("content-length: ").nth(1).map_or("0", |rest| rest.split("\r\n").next().unwrap());
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body).await.unwrap();
    (status, String::from_utf8(body).unwrap())
}

/// Waits for the peer to close. A reset counts.
async fn closed(stream: &mut (impl AsyncRead + Unpin)) {
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
}

fn upload(bytes: usize) -> String {
    format!("POST /size HTTP/1.1\r\nhost: x\r\ncontent-length: {bytes}\r\n\r\n")
}

#[tokio::test]
async fn http1_and_http2_by_alpn() {
    let server = Server::tls(Limits::default()).await;
    let mut stream = server.http1().await;
    assert_eq!(ask(&mut stream, GET).await, (200, "hello".to_owned()));
    assert_eq!(ask(&mut stream, GET).await, (200, "hello".to_owned()), "on the same connection");

    let stream = TokioIo::new(server.connect(b"h2").await.unwrap());
    let (mut send, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    let uri = "https://localhost/";
    let request = hyper::Request::get(uri).body(axum::body::Body::empty()).unwrap();
    let response = send.send_request(request).await.unwrap();
    assert_eq!((response.status().as_u16(), response.version()), (200, hyper::Version::HTTP_2));
}

#[tokio::test]
async fn tls_1_2_and_1_3() {
    let server = Server::tls(Limits::default()).await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let mut stream = server.connect_by(b"http/1.1", &[version]).await.unwrap();
        assert_eq!(stream.get_ref().1.protocol_version(), Some(version.version));
        assert_eq!(ask(&mut stream, GET).await.0, 200);
    }
    server.lives().await;
}

/// A `ClientHello` of TLS 1.0 or 1.1 as such a client sends it: one suite, and the two extensions without which it would be
/// refused for another reason.
fn old_hello(minor: u8) -> Vec<u8> {
    let extensions = [
        [0, 10, 0, 4, 0, 2, 0, 23].as_slice(), // supported_groups: secp256r1
        &[0, 11, 0, 2, 1, 0],                  // ec_point_formats: uncompressed
        &[0, 13, 0, 4, 0, 2, 4, 3],            // signature_algorithms: ecdsa_secp256r1_sha256
    ]
    .concat();
    let mut hello = vec![3, minor];
    hello.extend([7; 32]); // random
    hello.extend([0, 0, 2, 0xc0, 0x2b, 1, 0]); // no session, TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, no compression
    hello.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
    hello.extend(extensions);
    let mut message = vec![1, 0];
    message.extend(u16::try_from(hello.len()).unwrap().to_be_bytes());
    message.extend(hello);
    let mut record = vec![22, 3, 1];
    record.extend(u16::try_from(message.len()).unwrap().to_be_bytes());
    record.extend(message);
    record
}

#[tokio::test]
async fn older_tls_is_refused() {
    const ALERT: u8 = 21;
    const PROTOCOL_VERSION: u8 = 70;
    let server = Server::tls(Limits::default()).await;
    let answer = async |minor| {
        let mut stream = server.tcp().await;
        stream.write_all(&old_hello(minor)).await.unwrap();
        let mut answer = [0; 7];
        stream.read_exact(&mut answer).await.unwrap();
        answer
    };
    for minor in [1, 2] {
        let answer = answer(minor).await;
        assert_eq!((answer[0], answer[6]), (ALERT, PROTOCOL_VERSION), "TLS 1.{}", minor - 1);
    }
    assert_eq!(answer(3).await[0], 22, "the same as TLS 1.2 is answered");
    server.lives().await;
}

#[tokio::test]
async fn in_the_clear() {
    let server = Server::start(Limits::default(), false).await;
    assert_eq!(ask(&mut server.tcp().await, GET).await, (200, "hello".to_owned()));
}

#[tokio::test]
async fn garbage_instead_of_tls_is_hung_up_on() {
    let server = Server::tls(Limits::default()).await;
    let mut stream = server.tcp().await;
    stream.write_all(GET.as_bytes()).await.unwrap();
    closed(&mut stream).await;
    server.lives().await;
}

#[tokio::test]
async fn a_handshake_that_stalls_is_ended() {
    let server = Server::tls(Limits { handshake: SOON, ..Limits::default() }).await;
    let mut stream = server.tcp().await;
    stream.write_all(&[22, 3, 1, 2, 0, 1]).await.unwrap();
    closed(&mut stream).await;
    server.lives().await;
}

#[tokio::test]
async fn a_head_that_stalls_is_ended() {
    let server = Server::tls(Limits { idle: SOON, ..Limits::default() }).await;
    let mut stream = server.http1().await;
    stream.write_all(&GET.as_bytes()[..20]).await.unwrap();
    stream.flush().await.unwrap();
    closed(&mut stream).await;
    server.lives().await;
}

#[tokio::test]
async fn a_head_without_end_is_ended() {
    let server = Server::tls(Limits::default()).await;
    let mut stream = server.http1().await;
    let _ = stream.write_all(b"GET / HTTP/1.1\r\n").await;
    let line = [b"x: ".as_slice(), &[b'y'; 4000], b"\r\n"].concat();
    // it hangs up, or answers 431 and hangs up, long before this is through
    for _ in 0..1000 {
        if stream.write_all(&line).await.is_err() || stream.flush().await.is_err() {
            break;
        }
    }
    closed(&mut stream).await;
    server.lives().await;
}

/// Everything a client can do wrong, many times over, leaves nothing behind.
#[tokio::test]
async fn misuse_costs_nothing_lasting() {
    let limits = Limits { connections: 8, handshake: SOON, idle: SOON, request: SOON, body: 4, ..Limits::default() };
    let server = Server::tls(limits).await;
    for _ in 0..3 {
        let misuse = [GET.as_bytes(), &[22, 3, 1, 2, 0, 1], &[22; 64], &old_hello(1), b""];
        let mut silent = Vec::new();
        for bytes in misuse {
            let mut stream = server.tcp().await;
            stream.write_all(bytes).await.unwrap();
            silent.push(stream);
        }
        drop(server.tcp().await);
        drop(server.http1().await);
        assert_eq!(ask(&mut server.http1().await, HOLD).await.0, 503);
        assert_eq!(ask(&mut server.http1().await, &upload(5)).await.0, 413);
        assert_eq!(ask(&mut server.http1().await, "nonsense\r\n\r\n").await.0, 400);
        for mut stream in silent {
            closed(&mut stream).await;
        }
    }
    server.until_open(0).await;
    server.release.add_permits(1);
    assert_eq!(ask(&mut server.http1().await, HOLD).await.0, 200, "a request that was given up holds nothing");
}

#[tokio::test]
async fn an_http2_preface_that_never_comes_is_ended_by_age() {
    let server = Server::tls(Limits { age: SOON, grace: SOON, ..Limits::default() }).await;
    closed(&mut server.connect(b"h2").await.unwrap()).await;
    server.until_open(0).await;
}

#[tokio::test]
async fn a_request_that_takes_too_long_gets_503() {
    let server = Server::tls(Limits { request: SOON, ..Limits::default() }).await;
    assert_eq!(ask(&mut server.http1().await, HOLD).await.0, 503);
    let mut stream = server.http1().await;
    assert_eq!(ask(&mut stream, &upload(10)).await.0, 503, "a body that never comes");
}

#[tokio::test]
async fn a_body_too_large_gets_413() {
    let server = Server::tls(Limits { body: 3 << 20, ..Limits::default() }).await;
    let mut stream = server.http1().await;
    stream.write_all(upload(3 << 20).as_bytes()).await.unwrap();
    stream.write_all(&vec![b'x'; 3 << 20]).await.unwrap();
    assert_eq!(ask(&mut stream, "").await, (200, (3 << 20).to_string()), "as large as allowed");

    let mut stream = server.http1().await;
    assert_eq!(ask(&mut stream, &upload((3 << 20) + 1)).await.0, 413, "as announced");

    let server = Server::tls(Limits { body: 4, ..Limits::default() }).await;
    let chunked = "POST /size HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    assert_eq!(ask(&mut server.http1().await, chunked).await.0, 413, "as found");
}

#[tokio::test]
async fn a_panic_ends_its_request_and_nothing_else() {
    let server = Server::tls(Limits::default()).await;
    let mut stream = server.http1().await;
    let request = "GET /panic HTTP/1.1\r\nhost: x\r\n\r\n";
    assert_eq!(ask(&mut stream, request).await.0, 500);
    assert_eq!(ask(&mut stream, GET).await.0, 200);
    drop(stream);
    server.lives().await;
}

#[tokio::test]
async fn a_connection_too_many_waits_while_the_others_are_busy() {
    let server = Server::tls(Limits { connections: 1, ..Limits::default() }).await;
    let mut busy = server.http1().await;
    busy.write_all(HOLD.as_bytes()).await.unwrap();
    busy.flush().await.unwrap();
    server.until_held(1).await;
    let waiting = async { ask(&mut server.http1().await, HOLD).await };
    let first = async {
        tokio::time::sleep(SOON).await;
        assert_eq!(server.held.load(Ordering::SeqCst), 1, "the second has not been let in");
        assert_eq!(server.open.get(), 1);
        server.release.add_permits(2);
        answer(&mut busy).await
    };
    let (second, first) = tokio::join!(waiting, first);
    assert_eq!((first.0, second.0), (200, 200));
}

#[tokio::test]
async fn idle_connections_make_room() {
    let server = Server::tls(Limits { connections: 1, ..Limits::default() }).await;
    let mut idle = server.http1().await;
    assert_eq!(ask(&mut idle, GET).await.0, 200);
    server.lives().await;
    closed(&mut idle).await;
}

#[tokio::test]
async fn an_old_connection_is_closed_once_idle() {
    let server = Server::tls(Limits { age: SOON, ..Limits::default() }).await;
    closed(&mut server.http1().await).await;
}

#[tokio::test]
async fn a_drain_finishes_what_is_in_flight() {
    let server = Server::tls(Limits::default()).await;
    let mut idle = server.http1().await;
    assert_eq!(ask(&mut idle, GET).await.0, 200);
    let mut busy = server.http1().await;
    busy.write_all(HOLD.as_bytes()).await.unwrap();
    busy.flush().await.unwrap();
    server.until_held(1).await;

    server.stop.send(true).unwrap();
    closed(&mut idle).await;
    while TcpStream::connect(server.address).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(!server.task.is_finished(), "one request is in flight");
    server.release.add_permits(1);
    assert_eq!(answer(&mut busy).await, (200, "released".to_owned()));
    closed(&mut busy).await;
    server.task.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_drain_ends_when_a_request_does_not() {
    let server = Server::tls(Limits { grace: SOON, ..Limits::default() }).await;
    let mut busy = server.http1().await;
    busy.write_all(HOLD.as_bytes()).await.unwrap();
    busy.flush().await.unwrap();
    server.until_held(1).await;
    server.stop.send(true).unwrap();
    server.task.await.unwrap().unwrap();
    closed(&mut busy).await;
}

#[tokio::test]
async fn a_dropped_sender_stops_the_listener() {
    let server = Server::tls(Limits::default()).await;
    drop(server.stop);
    server.task.await.unwrap().unwrap();
}
