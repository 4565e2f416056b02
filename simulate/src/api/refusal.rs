//! What the API server answers when it does not do what it is asked.

use super::resource::Resource;
use handoff_cluster::ObjectKey;
use serde_json::{Value, json};

/// A refusal, in the form of a `Status`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code} {reason}: {message}")]
pub struct Refusal {
    /// HTTP status.
    pub code: u16,
    /// For machines.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

impl Refusal {
    /// Any refusal.
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into() }
    }

    /// 404.
    pub fn not_found(resource: Resource, key: &ObjectKey) -> Self {
        Self::new(404, "NotFound", format!("{} \"{}\" not found", resource.plural, key.name))
    }

    /// 409: it is there already.
    pub fn exists(resource: Resource, key: &ObjectKey) -> Self {
        Self::new(409, "AlreadyExists", format!("{} \"{}\" already exists", resource.plural, key.name))
    }

    /// 409: it is not as it was.
    pub fn conflict() -> Self {
        Self::new(409, "Conflict", "the object has been modified; please apply your changes to the latest version")
    }

    /// 410: the version is not remembered any more.
    pub fn gone() -> Self {
        Self::new(410, "Expired", "too old resource version")
    }

    /// 422.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(422, "Invalid", message)
    }

    /// 429 of a disruption budget.
    pub fn disruption(budget: &str) -> Self {
        let why = format!("Cannot evict pod as it would violate the pod's disruption budget. ({budget})");
        Self::new(429, "TooManyRequests", why)
    }

    /// As the API server writes it.
    pub fn status(&self) -> Value {
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": self.code,
            "reason": self.reason, "message": self.message})
    }
}
