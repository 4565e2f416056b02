//! A TCP front on 127.0.0.1 that takes the place of a Service: connections go to a replica that accepts them, in turn.

use anyhow::{Context, Result};
use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

#[derive(Debug, Default)]
struct State {
    replicas: Mutex<Vec<u16>>,
    turn: AtomicUsize,
    silent: AtomicBool,
}

/// The front. Dropping it closes it.
#[derive(Debug)]
pub struct Front {
    /// Its port.
    pub port: u16,
    state: Arc<State>,
    task: JoinHandle<()>,
}

impl Front {
    /// Opens it without any replica behind.
    pub async fn open() -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("no port for a front")?;
        let port = listener.local_addr().context("no port for a front")?.port();
        let state = Arc::new(State::default());
        let task = tokio::spawn(accept(listener, state.clone()));
        Ok(Self { port, state, task })
    }

    /// The ports connections go to.
    pub fn set_replicas(&self, ports: Vec<u16>) {
        *self.state.replicas.lock().unwrap_or_else(PoisonError::into_inner) = ports;
    }

    /// Connections are accepted and then nothing is ever heard of them: a node that is lost, a network that drops.
    pub fn set_silent(&self, silent: bool) {
        self.state.silent.store(silent, Ordering::Relaxed);
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(pass(stream, state.clone()));
    }
}

async fn pass(mut stream: TcpStream, state: Arc<State>) {
    if state.silent.load(Ordering::Relaxed) {
        // held open until the peer gives up
        let mut nothing = tokio::io::sink();
        let _ = tokio::io::copy(&mut stream, &mut nothing).await;
        return;
    }
    let ports = state.replicas.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let first = state.turn.fetch_add(1, Ordering::Relaxed);
    for at in 0..ports.len() {
        let port = ports[(first + at) % ports.len()];
        if let Ok(mut replica) = TcpStream::connect(("127.0.0.1", port)).await {
            let _ = stream.set_nodelay(true);
            let _ = replica.set_nodelay(true);
            let _ = copy_bidirectional(&mut stream, &mut replica).await;
            return;
        }
    }
}
