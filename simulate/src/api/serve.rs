//! What requests do.

use super::{
    admission::Admission,
    patch::{self, Content},
    refusal::Refusal,
    resource::{BUDGETS, PODS, Resource, Target},
    store::{Object, Onlooker, Store},
};
use crate::json::{entries, is_deleting, is_ready, text};
use handoff_cluster::ObjectKey;
use serde_json::{Value, json};
use std::sync::Arc;

/// The rules of whoever owns a resource: looks at each object that is about to be written, and may change it.
pub type Guard = fn(Resource, &Value, &mut Value) -> Result<(), Refusal>;

/// The API server.
pub struct Server {
    /// The objects.
    pub store: Arc<Store>,
    /// The webhook.
    pub admission: Admission,
    onlooker: Arc<dyn Onlooker>,
    guard: Guard,
}

/// What is done to the objects of a path.
#[derive(Clone, Debug, PartialEq)]
pub enum Verb {
    /// Look at one.
    Get,
    /// Make one.
    Create(Value),
    /// Change one.
    Change(Content, Value),
    /// Delete one; with options.
    Delete(Value),
}

impl Server {
    /// One over these objects.
    pub fn new(store: Arc<Store>, onlooker: Arc<dyn Onlooker>, guard: Guard) -> Arc<Self> {
        Arc::new(Self { store, admission: Admission::default(), onlooker, guard })
    }

    /// Does what `by` asks for.
    pub async fn ask(&self, by: &str, target: &Target, verb: Verb) -> Result<Arc<Object>, Refusal> {
        let key = ObjectKey::new(&target.namespace, &target.name);
        match (verb, target.subresource.as_str()) {
            (Verb::Get, _) => {
                self.store.get(target.resource, &key).ok_or_else(|| Refusal::not_found(target.resource, &key))
            }
            (Verb::Create(pod), "binding") => self.bind(by, target, &key, &pod).await,
            (Verb::Create(eviction), "eviction") => self.evict(by, target, &key, &eviction).await,
            (Verb::Create(object), "") => self.create(by, target, object).await,
            (Verb::Change(content, body), "" | "status") => self.store.try_change(by, target.resource, &key, |value| {
                let before = value.clone();
                patch::apply(target, content, value, body)?;
                (self.guard)(target.resource, &before, value)
            }),
            (Verb::Delete(options), "") => self.delete(by, target, &key, &options).await,
            (_, other) => Err(Refusal::new(405, "MethodNotAllowed", format!("not here: {other}"))),
        }
    }

    async fn create(&self, by: &str, target: &Target, mut object: Value) -> Result<Arc<Object>, Refusal> {
        if !target.namespace.is_empty() {
            object["metadata"]["namespace"] = json!(target.namespace);
        }
        if target.resource == PODS {
            object = self.admission.create_pod(target, object).await;
        }
        if target.resource.has_status && target.resource != PODS {
            drop(object.as_object_mut().and_then(|fields| fields.remove("status")));
        }
        (self.guard)(target.resource, &Value::Null, &mut object)?;
        self.store.create(by, target.resource, object)
    }

    async fn delete(
        &self,
        by: &str,
        target: &Target,
        key: &ObjectKey,
        options: &Value,
    ) -> Result<Arc<Object>, Refusal> {
        let resource = target.resource;
        let found = self.store.get(resource, key).ok_or_else(|| Refusal::not_found(resource, key))?;
        self.admission.delete(target, &found.value).await?;
        let found = self.store.get(resource, key).ok_or_else(|| Refusal::not_found(resource, key))?;
        let kept = |field: &str| {
            let wanted = text(options, &format!("/preconditions/{field}"));
            wanted.is_empty() || wanted == text(&found.value, &format!("/metadata/{field}"))
        };
        if !kept("uid") || !kept("resourceVersion") {
            return Err(Refusal::conflict());
        }
        self.store.delete(by, resource, key)
    }

    async fn bind(&self, by: &str, target: &Target, key: &ObjectKey, binding: &Value) -> Result<Arc<Object>, Refusal> {
        self.admission.bind(target, binding).await?;
        let node = text(binding, "/target/name").to_owned();
        self.store.try_change(by, PODS, key, |pod| {
            let uid = text(binding, "/metadata/uid");
            if is_deleting(pod) || !uid.is_empty() && uid != text(pod, "/metadata/uid") {
                return Err(Refusal::conflict());
            }
            if !text(pod, "/spec/nodeName").is_empty() {
                return Err(Refusal::new(409, "Conflict", format!("pod {} is already assigned to a node", key.name)));
            }
            pod["spec"]["nodeName"] = json!(node);
            Ok(())
        })
    }

    /// Admission first, then the disruption budgets, then the deletion.
    async fn evict(
        &self,
        by: &str,
        target: &Target,
        key: &ObjectKey,
        eviction: &Value,
    ) -> Result<Arc<Object>, Refusal> {
        let pod = self.store.get(PODS, key).ok_or_else(|| Refusal::not_found(PODS, key))?;
        let uid = text(&pod.value, "/metadata/uid");
        if let Err(refusal) = self.admission.evict(target, eviction).await {
            self.onlooker.refused(key, uid, &refusal);
            return Err(refusal);
        }
        let pod = self.store.get(PODS, key).ok_or_else(|| Refusal::not_found(PODS, key))?;
        let wanted = text(eviction, "/deleteOptions/preconditions/uid");
        if !wanted.is_empty() && wanted != text(&pod.value, "/metadata/uid") {
            return Err(Refusal::conflict());
        }
        if is_deleting(&pod.value) {
            return Ok(pod);
        }
        if let Some(budget) = self.budget_against(&pod.value) {
            return Err(Refusal::disruption(&budget));
        }
        self.store.delete(by, PODS, key)
    }

    /// The budget that would be overdrawn if the pod went, if any.
    fn budget_against(&self, pod: &Value) -> Option<String> {
        let namespace = text(pod, "/metadata/namespace");
        let (budgets, _) = self.store.list(BUDGETS, namespace);
        let budget = budgets.iter().find(|budget| {
            let selects = |pod: &Value| {
                let mut labels = entries(&budget.value, "/spec/selector/matchLabels").peekable();
                labels.peek().is_some() && labels.all(|(key, wanted)| pod["metadata"]["labels"][key] == *wanted)
            };
            if !selects(pod) {
                return false;
            }
            let (pods, _) = self.store.list(PODS, namespace);
            let healthy = pods.iter().filter(|p| selects(&p.value) && is_ready(&p.value) && !is_deleting(&p.value));
            let least = budget.value.pointer("/spec/minAvailable").and_then(Value::as_u64).unwrap_or(0);
            is_ready(pod) && (healthy.count() as u64) <= least
        });
        budget.map(|budget| budget.key().name)
    }
}
