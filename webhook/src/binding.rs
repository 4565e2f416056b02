//! `pods/binding` CREATE: the scheduler has decided, resources on the node are reserved, and the API server has not
//! yet told anyone. The earliest moment to ask for the volumes on that node. Always allowed.

use std::sync::Arc;

use handoff_coordinator::verdicts::PodRef;
use serde::Deserialize;

use crate::{
    Serving,
    bounded::{Missing, bounded},
    observe::Outcome,
    review::{Request, Subject, Text, owned, text},
    verdict::Verdict,
};

#[derive(Deserialize)]
pub(crate) struct Binding<'a> {
    #[serde(borrow)]
    metadata: Option<Metadata<'a>>,
    #[serde(borrow)]
    target: Option<Target<'a>>,
}

#[derive(Deserialize)]
struct Metadata<'a> {
    #[serde(borrow)]
    name: Option<Text<'a>>,
    #[serde(borrow)]
    namespace: Option<Text<'a>>,
    #[serde(borrow)]
    uid: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct Target<'a> {
    #[serde(borrow)]
    kind: Option<Text<'a>>,
    #[serde(borrow)]
    name: Option<Text<'a>>,
}

pub(crate) struct Question {
    pod: PodRef,
    node: String,
    dry_run: bool,
}

/// A scheduler may also post to the collection `bindings`, which is older than subresources.
pub(crate) fn is_ours(subject: &Subject<'_>) -> bool {
    subject.group.is_empty()
        && subject.operation == "CREATE"
        && matches!((subject.resource, subject.subresource), ("pods", "binding") | ("bindings", ""))
}

pub(crate) fn ask(request: &Request<'_, Binding<'_>>) -> Result<Question, Verdict> {
    let Some(binding) = &request.object else { return Err(Verdict::misrouted("a binding without its object")) };
    let metadata = binding.metadata.as_ref();
    let name = match request.name() {
        "" => text(metadata.and_then(|meta| meta.name.as_ref())),
        name => name,
    };
    let namespace = match request.namespace() {
        "" => text(metadata.and_then(|meta| meta.namespace.as_ref())),
        namespace => namespace,
    };
    let target = binding.target.as_ref();
    let node = text(target.and_then(|target| target.name.as_ref()));
    let kind = text(target.and_then(|target| target.kind.as_ref()));
    if name.is_empty() || node.is_empty() || !matches!(kind, "" | "Node") {
        return Err(Verdict::misrouted("a binding of no pod or to no node"));
    }
    let uid = owned(metadata.and_then(|meta| meta.uid.as_ref()));
    let pod = PodRef { namespace: namespace.to_owned(), name: name.to_owned(), uid };
    Ok(Question { pod, node: node.to_owned(), dry_run: request.dry_run() })
}

pub(crate) async fn judge(serving: &Serving, Question { pod, node, dry_run }: Question) -> Verdict {
    let admission = Arc::clone(&serving.admission);
    let (asked, target) = (pod.clone(), node.clone());
    let budget = serving.config.bind_budget;
    let PodRef { namespace, name, .. } = &pod;
    match bounded(budget, async move { admission.bind(asked, target, dry_run).await }).await {
        Ok(()) => Verdict::allowed(Outcome::Allowed),
        Err(missing) => {
            match missing {
                // Expected when the API is slow: the work goes on, only the scheduler is not kept waiting for it.
                Missing::TimedOut => tracing::debug!(%namespace, %name, %node, ?budget, "binding goes ahead of us"),
                Missing::Panicked => tracing::warn!(%namespace, %name, %node, "binding allowed without pre-stage"),
            }
            missing.fail_open()
        }
    }
}
