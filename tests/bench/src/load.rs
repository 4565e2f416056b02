//! Requests over TLS from a thread of their own to a server that has one thread, in one process.

use crate::{
    client::{self, Connection},
    ours::{self, Work},
};
use anyhow::{Context, ensure};
use futures::future::try_join_all;
use handoff::listen::{self, Limits};
use rustls::ClientConfig;
use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};
use tokio::{net::TcpListener, runtime, sync::watch};

/// Which handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum By {
    /// The program's.
    Us,
    /// The typed one.
    Typed,
}

impl By {
    /// Both, in the order they take turns.
    pub const BOTH: [Self; 2] = [Self::Us, Self::Typed];

    /// The path of `work`.
    pub fn path(self, work: Work) -> String {
        let prefix = match self {
            Self::Us => "",
            Self::Typed => "/typed",
        };
        format!("{prefix}{}", work.path())
    }
}

/// Times of single requests at one connection, in milliseconds.
#[derive(Clone, Debug)]
pub struct Times(Vec<f64>);

impl Times {
    /// The value that this share of the requests stays below.
    pub fn quantile(&self, share: f64) -> f64 {
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let at = (share * (self.0.len() - 1) as f64).round() as usize;
        self.0[at]
    }
}

/// A running server and the way to call it.
pub struct Bench {
    address: SocketAddr,
    tls: Arc<ClientConfig>,
    client: runtime::Runtime,
    stop: watch::Sender<bool>,
    server: Option<thread::JoinHandle<anyhow::Result<()>>>,
}

impl Bench {
    /// Fills the caches and listens.
    pub fn start() -> anyhow::Result<Self> {
        let (server_tls, tls) = client::tls()?;
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot listen")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let (stop, until) = watch::channel(false);
        let server = thread::spawn(move || {
            let server = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
            server.block_on(async {
                let router = ours::router().await?;
                let limits = Limits { body: 64 << 20, ..Limits::default() };
                let listener = TcpListener::from_std(listener)?;
                // on the worker, like the connections, and not on the thread that waits here
                tokio::spawn(listen::serve_tls(listener, server_tls, router, limits, until)).await??;
                anyhow::Ok(())
            })
        });
        let client = runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { address, tls, client, stop, server: Some(server) })
    }

    /// Ends the server.
    pub fn stop(mut self) -> anyhow::Result<()> {
        self.stop.send_replace(true);
        let server = self.server.take().context("stopped twice")?;
        server.join().map_err(|_| anyhow::anyhow!("the server panicked"))?
    }

    /// The answer to one request.
    pub fn answer(&self, work: Work, by: By) -> anyhow::Result<Vec<u8>> {
        let request = client::request(&by.path(work), &work.body()?);
        self.client.block_on(async {
            let mut connection = Connection::open(self.address, &self.tls).await?;
            Ok(connection.call(&request).await?.to_vec())
        })
    }

    /// Requests per second over `connections` that are kept open, for `time`.
    pub fn rate(&self, work: Work, by: By, connections: usize, time: Duration) -> anyhow::Result<f64> {
        let request = client::request(&by.path(work), &work.body()?);
        self.client.block_on(async {
            let open = (0..connections).map(|_| Connection::open(self.address, &self.tls));
            let mut open = try_join_all(open).await?;
            let (start, until) = (Instant::now(), Instant::now() + time);
            let counts = open.iter_mut().map(async |connection| {
                let mut count = 0_u32;
                while Instant::now() < until {
                    connection.call(&request).await?;
                    count += 1;
                }
                anyhow::Ok(count)
            });
            let count: u32 = try_join_all(counts).await?.into_iter().sum();
            Ok(f64::from(count) / start.elapsed().as_secs_f64())
        })
    }

    /// Times of `count` requests, one after the other on one connection.
    pub fn times(&self, work: Work, by: By, count: usize) -> anyhow::Result<Times> {
        ensure!(count > 0, "no requests, no times");
        let request = client::request(&by.path(work), &work.body()?);
        self.client.block_on(async {
            let mut connection = Connection::open(self.address, &self.tls).await?;
            for _ in 0..count / 10 {
                connection.call(&request).await?;
            }
            let mut times = Vec::with_capacity(count);
            for _ in 0..count {
                let start = Instant::now();
                connection.call(&request).await?;
                times.push(start.elapsed().as_secs_f64() * 1e3);
            }
            times.sort_by(f64::total_cmp);
            Ok(Times(times))
        })
    }
}
