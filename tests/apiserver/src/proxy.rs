//! A way to kube-apiserver on which events of pods can be kept back, as if a watch lagged behind.

use crate::control_plane::{ControlPlane, User};
use anyhow::{Context, Result};
use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{Method, StatusCode, header},
    response::Response,
};
use futures::StreamExt;
use kube::Client;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

/// The collection whose watches can be kept back.
const PODS: &str = "/api/v1/pods";
/// Longest body of a request.
const BODY: usize = 16 << 20;

#[derive(Clone)]
struct Way {
    client: Client,
    held: watch::Receiver<bool>,
    asked: Arc<Mutex<Vec<String>>>,
}

/// The way. Dropping it closes it.
pub struct Proxy {
    /// Its address, in the clear.
    pub url: String,
    held: watch::Sender<bool>,
    asked: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Opens it for `user`: whoever comes this way is this user.
    pub async fn open(plane: &ControlPlane, user: User) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("no port for a proxy")?;
        let url = format!("http://{}", listener.local_addr().context("no port for a proxy")?);
        let (held, receiver) = watch::channel(false);
        let asked = Arc::new(Mutex::default());
        let way = Way { client: plane.client(user)?, held: receiver, asked: Arc::clone(&asked) };
        let router = Router::new().fallback(pass).with_state(way);
        let task = tokio::spawn(async move {
            // it ends with the task
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { url, held, asked, task })
    }

    /// From now on, events of pods are kept back, or no more.
    pub fn hold_pods(&self, hold: bool) {
        self.held.send_replace(hold);
    }

    /// How often this was asked for (`GET /api/v1/…`).
    pub fn asked(&self, request: &str) -> usize {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).iter().filter(|line| *line == request).count()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(State(way): State<Way>, request: Request) -> Result<Response, StatusCode> {
    let (head, body) = request.into_parts();
    let path = head.uri.path().to_owned();
    let is_watch = path == PODS && head.uri.query().is_some_and(|query| query.contains("watch="));
    way.asked.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{} {path}", head.method));
    let body = axum::body::to_bytes(body, BODY).await.map_err(|_| StatusCode::PAYLOAD_TOO_LARGE)?;
    let to = head.uri.path_and_query().map_or(path.as_str(), |to| to.as_str());
    let mut onward = axum::http::Request::builder().method(head.method.clone()).uri(to);
    for name in [header::CONTENT_TYPE, header::ACCEPT] {
        if let Some(value) = head.headers.get(&name) {
            onward = onward.header(name, value);
        }
    }
    let body = if head.method == Method::GET { kube::client::Body::empty() } else { body.to_vec().into() };
    let onward = onward.body(body).map_err(|_| StatusCode::BAD_REQUEST)?;
    let (head, body) = way.client.send(onward).await.map_err(|_| StatusCode::BAD_GATEWAY)?.into_parts();
    let body = if is_watch {
        let parts = Body::new(body).into_data_stream().then(move |part| {
            let mut kept_back = way.held.clone();
            async move {
                // a sender that is gone keeps nothing back
                let _ = kept_back.wait_for(|kept_back| !kept_back).await;
                part
            }
        });
        Body::from_stream(parts)
    } else {
        Body::new(body)
    };
    let mut answer = Response::builder().status(head.status);
    if let Some(kind) = head.headers.get(header::CONTENT_TYPE) {
        answer = answer.header(header::CONTENT_TYPE, kind);
    }
    answer.body(body).map_err(|_| StatusCode::BAD_GATEWAY)
}
