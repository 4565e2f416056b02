//! Calls to the API server as plain JSON, with all that a client sees: status, warnings, time.

use anyhow::{Context, Result, bail};
use axum::http::{Method, Request, header};
use futures::{AsyncBufReadExt, Stream};
use kube::{Client, client::Body};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// An answer of the API server.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Texts of the `Warning` headers.
    pub warnings: Vec<String>,
    /// `Retry-After`.
    pub retry_after: Option<String>,
    /// The object or the Status.
    pub body: Value,
    /// From the call to the complete answer.
    pub took: Duration,
}

impl Answer {
    /// 2xx.
    pub fn is_ok(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The object; an error if it is a refusal.
    pub fn ok(self) -> Result<Value> {
        if !self.is_ok() {
            bail!("{}: {}", self.status, self.message());
        }
        Ok(self.body)
    }

    /// The Status' message.
    pub fn message(&self) -> &str {
        self.body.text("/message")
    }

    /// Status, message and time, for people.
    pub fn brief(&self) -> String {
        let text = if self.is_ok() { "" } else { self.message() };
        format!("{} in {:.0} ms {text}", self.status, self.took.as_secs_f64() * 1e3)
    }
}

/// Reads from JSON without ceremony: what is absent or of another type is empty.
pub trait Read {
    /// The text at a JSON pointer.
    fn text(&self, pointer: &str) -> &str;
    /// The list at a JSON pointer.
    fn items(&self, pointer: &str) -> &[Value];
    /// Whether something but null is there.
    fn has(&self, pointer: &str) -> bool;
}

impl Read for Value {
    fn text(&self, pointer: &str) -> &str {
        self.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    fn items(&self, pointer: &str) -> &[Value] {
        self.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
    }

    fn has(&self, pointer: &str) -> bool {
        self.pointer(pointer).is_some_and(|v| !v.is_null())
    }
}

/// One user's way to the API server.
#[derive(Clone)]
pub struct Api {
    client: Client,
}

impl Api {
    /// A client that tries nothing twice.
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    async fn call(&self, method: Method, path: &str, kind: &str, body: Option<&Value>) -> Result<Answer> {
        let started = Instant::now();
        let bytes = body.map(Value::to_string).unwrap_or_default().into_bytes();
        let request = Request::builder().method(method.clone()).uri(path).header(header::CONTENT_TYPE, kind);
        let request = request.body(Body::from(bytes)).context("bad request")?;
        let response = self.client.send(request).await.with_context(|| format!("no answer to {method} {path}"))?;
        let status = response.status().as_u16();
        let headers = response.headers();
        let text = |v: &header::HeaderValue| v.to_str().unwrap_or_default().to_owned();
        let warnings = headers.get_all(header::WARNING).iter().map(text).collect();
        let retry_after = headers.get(header::RETRY_AFTER).map(text);
        let body = response.into_body().collect_bytes().await.with_context(|| format!("no body of {method} {path}"))?;
        let body = serde_json::from_slice(&body).unwrap_or_else(|_| json!(String::from_utf8_lossy(&body)));
        Ok(Answer { status, warnings, retry_after, body, took: started.elapsed() })
    }

    /// GET.
    pub async fn get(&self, path: &str) -> Result<Answer> {
        self.call(Method::GET, path, "application/json", None).await
    }

    /// GET of an object that may be absent.
    pub async fn find(&self, path: &str) -> Result<Option<Value>> {
        let answer = self.get(path).await?;
        if answer.status == 404 { Ok(None) } else { answer.ok().map(Some) }
    }

    /// The lines of a watch, as they come.
    pub async fn watch(&self, path: &str) -> Result<impl Stream<Item = std::io::Result<String>> + use<>> {
        let request = Request::get(path).body(Vec::new()).context("bad request")?;
        let stream = self.client.request_stream(request).await.with_context(|| format!("no watch of {path}"))?;
        Ok(Box::pin(stream).lines())
    }

    /// POST.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Answer> {
        self.call(Method::POST, path, "application/json", Some(body)).await
    }

    /// POST that must succeed.
    pub async fn create(&self, path: &str, body: &Value) -> Result<Value> {
        self.post(path, body).await?.ok().with_context(|| format!("cannot create in {path}"))
    }

    /// Merge patch that must succeed.
    pub async fn merge(&self, path: &str, change: &Value) -> Result<Value> {
        let answer = self.call(Method::PATCH, path, "application/merge-patch+json", Some(change)).await?;
        answer.ok().with_context(|| format!("cannot patch {path}"))
    }

    /// JSON patch that must succeed.
    pub async fn patch(&self, path: &str, change: &Value) -> Result<Value> {
        let answer = self.call(Method::PATCH, path, "application/json-patch+json", Some(change)).await?;
        answer.ok().with_context(|| format!("cannot patch {path}"))
    }

    /// DELETE with `DeleteOptions`.
    pub async fn delete(&self, path: &str, options: &Value) -> Result<Answer> {
        self.call(Method::DELETE, path, "application/json", Some(options)).await
    }
}

/// Looks every 20 ms until `look` finds something. `None` after `limit`.
pub async fn eventually<T>(limit: Duration, mut look: impl AsyncFnMut() -> Result<Option<T>>) -> Result<Option<T>> {
    let started = Instant::now();
    loop {
        if let Some(found) = look().await? {
            return Ok(Some(found));
        }
        if started.elapsed() > limit {
            return Ok(None);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
