//! Accept loops: an axum router behind TLS or in the clear, with every resource a peer can take bounded, and a shutdown
//! that finishes what has begun.

#[cfg(test)]
mod rotation;
#[cfg(test)]
mod tests;

use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use prometheus_client::metrics::gauge::Gauge;
use rustls::ServerConfig;
use std::{any::Any, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite, BufReader},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tower_http::{catch_panic::CatchPanicLayer, limit::RequestBodyLimitLayer, timeout::TimeoutLayer};

/// Rest after a failed accept: out of file descriptors, most likely, which only time mends.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// An HTTP/2 peer that does not answer a ping within [`PING_LIMIT`] is gone.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_LIMIT: Duration = Duration::from_secs(10);
const STREAMS: u32 = 128;
/// Read from a socket at a time. rustls itself asks for 4 kB, which is 50 calls of the system for a list of 5,000 nodes.
const READ: usize = 32 << 10;

/// What peers of one listener may take.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Open connections. One that comes when all are taken makes the idle ones close, and waits for a place.
    pub connections: usize,
    /// Time for the TLS handshake.
    pub handshake: Duration,
    /// Time for the head of the next request to be complete. It runs while a connection is idle too, so it must be more
    /// than the 90 s after which Go clients (apiserver, scheduler) close idle connections: the side that sends requests
    /// has to close first, or a request meets a connection that is just being closed and is lost.
    pub idle: Duration,
    /// Time from the head of a request to the head of its response, its body included; then 503.
    pub request: Duration,
    /// Size of a request's body in bytes; 413 beyond.
    pub body: usize,
    /// Age at which a connection is closed as soon as it is idle. Nothing a peer does keeps a place for longer than
    /// this and [`Self::grace`].
    pub age: Duration,
    /// Time for requests in flight to end once a connection is to close, or the listener to stop. Not less than
    /// [`Self::request`], or requests are cut that would have ended.
    pub grace: Duration,
    /// Where the connections that are open now are counted.
    pub open: Gauge,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 256,
            handshake: Duration::from_secs(5),
            idle: Duration::from_mins(2),
            request: Duration::from_secs(10),
            body: 16 << 20,
            age: Duration::from_hours(1),
            grace: Duration::from_secs(10),
            open: Gauge::default(),
        }
    }
}

/// Serves `router` over TLS until `shutdown` turns true or its sender is dropped. Then nothing more is accepted, what
/// is in flight may end within [`Limits::grace`], and what has not ended is cut.
///
/// HTTP/2 or HTTP/1.1, as the peer chooses by ALPN. Fails only if the listener is unusable from the start; a failed
/// accept is logged and tried again.
pub async fn serve_tls(
    listener: TcpListener,
    config: Arc<ServerConfig>,
    router: Router,
    limits: Limits,
    shutdown: watch::Receiver<bool>,
) -> io::Result<()> {
    serve(listener, Some(TlsAcceptor::from(config)), router, limits, shutdown).await
}

/// As [`serve_tls`], but HTTP/1.1 in the clear: for health and metrics.
pub async fn serve_plain(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    shutdown: watch::Receiver<bool>,
) -> io::Result<()> {
    serve(listener, None, router, limits, shutdown).await
}

async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    router: Router,
    limits: Limits,
    mut shutdown: watch::Receiver<bool>,
) -> io::Result<()> {
    let address = listener.local_addr()?;
    let places = Arc::new(Semaphore::new(limits.connections));
    let host = Arc::new(Host { tls, service: TowerToHyperService::new(guarded(router, &limits)), limits });
    let leave = watch::Sender::new(());
    let mut open = JoinSet::new();
    loop {
        let (stream, peer) = tokio::select! {
            biased;
            _ = shutdown.wait_for(|stop| *stop) => break,
            Some(_) = open.join_next() => continue,
            accepted = accept(&listener) => accepted,
        };
        let place = tokio::select! {
            biased;
            _ = shutdown.wait_for(|stop| *stop) => break,
            place = claim(&places, &leave, address) => place,
        };
        let (host, leave, counted) = (host.clone(), leave.subscribe(), Counted::new(&host.limits.open));
        open.spawn(async move {
            host.receive(stream, peer, leave).await;
            drop((place, counted));
        });
    }
    drop(listener);
    leave.send_replace(());
    if timeout(host.limits.grace, async { while open.join_next().await.is_some() {} }).await.is_err() {
        tracing::warn!(%address, connections = open.len(), "cutting connections that did not end in time");
    }
    Ok(())
}

async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// A place for one connection. If there is none, all idle connections are told to go: their peers can come again,
/// while who waits here may be the API server.
async fn claim(
    places: &Arc<Semaphore>,
    leave: &watch::Sender<()>,
    address: SocketAddr,
) -> Option<OwnedSemaphorePermit> {
    if let Ok(place) = places.clone().try_acquire_owned() {
        return Some(place);
    }
    tracing::warn!(%address, "too many connections, closing idle ones");
    leave.send_replace(());
    places.clone().acquire_owned().await.ok()
}

/// One open connection, however it ends.
struct Counted(Gauge);

impl Counted {
    fn new(open: &Gauge) -> Self {
        open.inc();
        Self(open.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// What all connections of one listener share.
struct Host {
    tls: Option<TlsAcceptor>,
    service: TowerToHyperService<Router>,
    limits: Limits,
}

#[derive(Clone, Copy)]
enum Version {
    Http1,
    Http2,
}

impl Host {
    async fn receive(&self, stream: TcpStream, peer: SocketAddr, leave: watch::Receiver<()>) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%peer, %error, "cannot switch off Nagle's algorithm");
        }
        let Some(tls) = &self.tls else {
            return self.converse(stream, Version::Http1, peer, leave).await;
        };
        match timeout(self.limits.handshake, tls.accept(BufReader::with_capacity(READ, stream))).await {
            Ok(Ok(stream)) => {
                let version = match stream.get_ref().1.alpn_protocol() {
                    Some(b"h2") => Version::Http2,
                    _ => Version::Http1,
                };
                self.converse(stream, version, peer, leave).await;
            }
            // a TLS error may be the API server not trusting us, which someone has to know of; anything else is
            // a port scan or a probe that only connects
            Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
                tracing::warn!(%peer, %error, "TLS handshake failed");
            }
            Ok(Err(error)) => tracing::debug!(%peer, %error, "connection lost in the TLS handshake"),
            Err(_) => tracing::debug!(%peer, "TLS handshake took too long"),
        }
    }

    /// Serves requests until the peer closes, an error, the connection's age, or `leave`.
    async fn converse<S>(&self, stream: S, version: Version, peer: SocketAddr, mut leave: watch::Receiver<()>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let http = self.http(version);
        let mut connection = pin!(http.serve_connection(TokioIo::new(stream), self.service.clone()));
        let ended = tokio::select! {
            biased;
            ended = connection.as_mut() => Some(ended),
            _ = leave.changed() => None,
            () = sleep(self.limits.age) => None,
        };
        let ended = if let Some(ended) = ended {
            ended
        } else {
            connection.as_mut().graceful_shutdown();
            timeout(self.limits.grace, connection).await.unwrap_or_else(|elapsed| Err(elapsed.into()))
        };
        if let Err(error) = ended {
            tracing::debug!(%peer, %error, "connection ended");
        }
    }

    fn http(&self, version: Version) -> Builder<TokioExecutor> {
        let http = Builder::new(TokioExecutor::new());
        let mut http = match version {
            Version::Http1 => http.http1_only(),
            Version::Http2 => http.http2_only(),
        };
        http.http1().timer(TokioTimer::new()).header_read_timeout(self.limits.idle);
        http.http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_LIMIT)
            .max_concurrent_streams(STREAMS);
        http
    }
}

/// The limits that are per request. The outermost layer is added last.
fn guarded(router: Router, limits: &Limits) -> Router {
    router
        .layer(DefaultBodyLimit::disable())
        .layer(RequestBodyLimitLayer::new(limits.body))
        .layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, limits.request))
        .layer(CatchPanicLayer::custom(panicked))
}

fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let text = panic.downcast::<String>().map(|text| *text);
    let text = text.or_else(|panic| panic.downcast::<&str>().map(|text| (*text).to_owned()));
    let text = text.unwrap_or_else(|_| "no text".to_owned());
    tracing::error!(panic = text, "a request handler panicked; its request ends with 500");
    StatusCode::INTERNAL_SERVER_ERROR.into_response()
}
