//! A client's line to the API server, and what can happen on it: faults, and the death of the client at a given write.

use super::{
    patch::Content,
    refusal::Refusal,
    resource::{EVENTS, LEASES, Target},
    serve::{Server, Verb},
    watch::{self, Wanted},
};
use crate::chance::{Fault, Faults};
use axum::{
    body::Body,
    http::{Method, Request, Response, header::CONTENT_TYPE},
};
use kube::Client;
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;
use tower::service_fn;

/// How long the API server takes for an answer.
const LATENCY: Duration = Duration::from_millis(2);

/// The client dies at one of its writes. Renewals of the lease do not count: they come by the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crash {
    /// Which write, from 1.
    pub at: usize,
    /// When.
    pub moment: Moment,
}

/// On which side of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// It is never done.
    Before,
    /// It is done, and the client never learns of it.
    After,
}

/// A client's line.
pub struct Line {
    /// Who is on it.
    pub name: String,
    faults: Option<Faults>,
    crash: Option<Crash>,
    writes: AtomicUsize,
    asked: Mutex<HashMap<String, u64>>,
    /// Until when nobody answers.
    away: Mutex<Option<Instant>>,
    cut: tokio::sync::watch::Sender<bool>,
}

impl Line {
    /// A line with these faults, which is cut at `crash`.
    pub fn new(name: &str, faults: Option<Faults>, crash: Option<Crash>) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            faults,
            crash,
            writes: AtomicUsize::new(0),
            asked: Mutex::default(),
            away: Mutex::default(),
            cut: tokio::sync::watch::Sender::new(false),
        })
    }

    /// Nothing goes through any more, and nothing is answered.
    pub fn cut(&self) {
        self.cut.send_replace(true);
    }

    /// Waits until the line is cut.
    pub async fn ends(&self) {
        let mut cut = self.cut.subscribe();
        // the sender is ours: there is no error
        let _ = cut.wait_for(|cut| *cut).await;
    }

    /// For so long every request is refused. Watches that are open go on.
    pub fn away(&self, time: Duration) {
        *self.away.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + time);
    }

    fn is_away(&self) -> bool {
        let away = *self.away.lock().unwrap_or_else(PoisonError::into_inner);
        away.is_some_and(|until| Instant::now() < until)
    }

    /// Writes so far, without those of the lease.
    pub fn writes(&self) -> usize {
        self.writes.load(Ordering::Relaxed)
    }

    fn fault(&self, method: &Method, path: &str) -> Fault {
        let Some(faults) = &self.faults else { return Fault::None };
        let request = format!("{} {method} {path}", self.name);
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let count = asked.entry(request.clone()).or_default();
        *count += 1;
        faults.of(&request, *count, *method != Method::GET)
    }

    /// The number of a write that counts.
    fn count(&self, method: &Method, target: &Target) -> Option<usize> {
        let counts = *method != Method::GET && target.resource != LEASES && target.resource != EVENTS;
        counts.then(|| self.writes.fetch_add(1, Ordering::Relaxed) + 1)
    }

    fn dies(&self, write: Option<usize>, moment: Moment) -> bool {
        self.crash.is_some_and(|crash| Some(crash.at) == write && crash.moment == moment)
    }
}

impl Server {
    /// A client at the other end of `line`.
    pub fn client(self: &Arc<Self>, line: &Arc<Line>) -> Client {
        let (server, line) = (self.clone(), line.clone());
        let service = service_fn(move |request: Request<kube::client::Body>| {
            let (server, line) = (server.clone(), line.clone());
            async move {
                let response = tokio::select! {
                    biased;
                    () = line.ends() => std::future::pending().await,
                    response = server.answer(&line, request) => response,
                };
                Ok::<_, Infallible>(response)
            }
        });
        Client::new(service, "default")
    }

    async fn answer(self: &Arc<Self>, line: &Arc<Line>, request: Request<kube::client::Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let fault = line.fault(&parts.method, parts.uri.path());
        tokio::time::sleep(if let Fault::Slow(wait) = fault { wait } else { LATENCY }).await;
        if fault == Fault::Unavailable || line.is_away() {
            return refuse(&Refusal::new(503, "ServiceUnavailable", "simulated: the API server is overloaded"));
        }
        if fault == Fault::Conflict {
            return refuse(&Refusal::conflict());
        }
        let Some(target) = Target::parse(parts.uri.path()) else {
            return refuse(&Refusal::new(404, "NotFound", "the server could not find the requested resource"));
        };
        let query = query(parts.uri.query().unwrap_or_default());
        if parts.method == Method::GET && target.name.is_empty() {
            return self.collection(&target, &query, fault);
        }
        let kind = parts.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default().to_owned();
        let Ok(body) = body.collect_bytes().await else {
            return refuse(&Refusal::new(400, "BadRequest", "no body"));
        };
        let body = serde_json::from_slice::<Value>(&body).unwrap_or_default();
        let verb = match parts.method.as_str() {
            "GET" => Ok(Verb::Get),
            "POST" => Ok(Verb::Create(body)),
            "PUT" => Ok(Verb::Change(Content::Whole, body)),
            "PATCH" => Content::of_patch(&kind).map(|content| Verb::Change(content, body)),
            "DELETE" => Ok(Verb::Delete(body)),
            other => Err(Refusal::new(405, "MethodNotAllowed", other)),
        };
        let write = line.count(&parts.method, &target);
        if line.dies(write, Moment::Before) {
            line.cut();
            return std::future::pending().await;
        }
        let done = match verb {
            Ok(verb) => self.ask(&line.name, &target, verb).await,
            Err(refusal) => Err(refusal),
        };
        if line.dies(write, Moment::After) {
            line.cut();
            return std::future::pending().await;
        }
        if fault == Fault::AnswerLost {
            return refuse(&Refusal::new(504, "Timeout", "simulated: done, but the answer is lost"));
        }
        match done {
            Ok(object) => respond(200, Body::from(object.json().to_owned())),
            Err(refusal) => refuse(&refusal),
        }
    }

    fn collection(self: &Arc<Self>, target: &Target, query: &HashMap<&str, &str>, fault: Fault) -> Response<Body> {
        let value = |key: &str| query.get(key).copied().unwrap_or_default();
        let name = value("fieldSelector").strip_prefix("metadata.name%3D").unwrap_or_default();
        let name = if name.is_empty() { value("fieldSelector").trim_start_matches("metadata.name=") } else { name };
        if value("watch") == "true" {
            let named = value("timeoutSeconds").parse().ok().map(Duration::from_secs);
            let wanted = Wanted {
                namespace: target.namespace.clone(),
                name: name.to_owned(),
                version: value("resourceVersion").parse().unwrap_or_else(|_| self.store.version()),
                lasts: if let Fault::Dropped(after) = fault { Some(after) } else { named },
                bookmarks: value("allowWatchBookmarks") == "true",
            };
            return match watch::body(&self.store, target.resource, wanted) {
                Ok(body) => respond(200, body),
                Err(refusal) => refuse(&refusal),
            };
        }
        let (mut objects, version) = self.store.list(target.resource, &target.namespace);
        objects.retain(|object| name.is_empty() || object.key().name == name);
        let items = objects.iter().map(|object| object.json()).collect::<Vec<_>>().join(",");
        let head = json!({"resourceVersion": version.to_string()});
        let kind = format!("{}List", target.resource.kind);
        let api_version = target.resource.api_version();
        let list = format!(r#"{{"kind":"{kind}","apiVersion":"{api_version}","metadata":{head},"items":[{items}]}}"#);
        respond(200, Body::from(list))
    }
}

fn query(text: &str) -> HashMap<&str, &str> {
    text.split('&').filter_map(|part| part.split_once('=')).collect()
}

fn respond(code: u16, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = axum::http::StatusCode::from_u16(code).unwrap_or_default();
    response.headers_mut().insert(CONTENT_TYPE, axum::http::HeaderValue::from_static("application/json"));
    response
}

fn refuse(refusal: &Refusal) -> Response<Body> {
    respond(refusal.code, Body::from(refusal.status().to_string()))
}
