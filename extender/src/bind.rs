//! Bind: the target is certain, so the volumes are asked for there before the pod is bound. Whatever goes wrong is an
//! error to the scheduler, which then (the extender being `ignorable`) binds the pod itself.

use std::time::Instant;

use axum::body::Bytes;
use handoff_coordinator::verdicts::{Placement, PodRef};

use crate::{
    Answered, Deadline,
    observe::Outcome,
    wire::{Malformed, Text, go_struct, text},
};

const NAME: &str = "ExtenderBindingArgs";

go_struct! {
    /// `ExtenderBindingArgs`.
    BindingArgs {
        pod_name: Text<'a> = "PodName",
        pod_namespace: Text<'a> = "PodNamespace",
        pod_uid: Text<'a> = "PodUID",
        node: Text<'a> = "Node",
    }
}

impl BindingArgs<'_> {
    fn target(&self) -> Result<(PodRef, String), Malformed> {
        let given = |field: &Option<Text<'_>>| text(field.as_ref()).to_owned();
        let pod = PodRef {
            namespace: given(&self.pod_namespace),
            name: given(&self.pod_name),
            uid: Some(given(&self.pod_uid)).filter(|uid| !uid.is_empty()),
        };
        let node = given(&self.node);
        if pod.namespace.is_empty() || pod.name.is_empty() || node.is_empty() {
            return Err(Malformed::Missing(NAME, "PodNamespace, PodName or Node is"));
        }
        Ok((pod, node))
    }
}

/// `ExtenderBindingResult` for `ExtenderBindingArgs`.
pub(crate) async fn answer(
    placement: &dyn Placement,
    body: &Bytes,
    Deadline(deadline): Deadline,
) -> Result<Answered, Malformed> {
    let args: BindingArgs<'_> = serde_json::from_slice(body).map_err(|error| Malformed::Json(NAME, error))?;
    let (pod, node) = args.target()?;
    let left = deadline.saturating_duration_since(Instant::now());
    let (outcome, error) = match tokio::time::timeout(left, placement.bind_pod(pod, node)).await {
        Ok(Ok(())) => (Outcome::Judged { rejected: 0 }, String::new()),
        Ok(Err(error)) => (Outcome::Failed, error),
        Err(_) => (Outcome::Late, "the API server did not take the binding in time".to_owned()),
    };
    if !error.is_empty() {
        tracing::warn!(pod = text(args.pod_name.as_ref()), error, "not bound by us, left to the scheduler");
    }
    let mut out = br#"{"Error":"#.to_vec();
    serde_json::to_writer(&mut out, &error)?;
    out.push(b'}');
    Ok(Answered { answer: out.into(), outcome })
}
