//! `pods/eviction` CREATE: the one request that may be told "not yet".
//!
//! The review carries the Eviction, not the pod. It comes before the disruption budgets, so an eviction that is
//! allowed here can still be refused there, and comes again.

use std::sync::Arc;

use handoff_coordinator::verdicts::{EvictionVerdict, PodRef};
use serde::Deserialize;

use crate::{
    Serving,
    bounded::{Missing, bounded},
    observe::Outcome,
    review::{Request, Subject, Text, owned, text},
    verdict::Verdict,
};

/// `policy/v1` and `policy/v1beta1` have the same form.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Eviction<'a> {
    #[serde(borrow)]
    metadata: Option<Metadata<'a>>,
    #[serde(borrow)]
    delete_options: Option<DeleteOptions<'a>>,
}

#[derive(Deserialize)]
struct Metadata<'a> {
    #[serde(borrow)]
    name: Option<Text<'a>>,
    #[serde(borrow)]
    namespace: Option<Text<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DeleteOptions<'a> {
    #[serde(borrow)]
    preconditions: Option<Preconditions<'a>>,
    #[serde(borrow)]
    dry_run: Option<Vec<Text<'a>>>,
}

#[derive(Deserialize)]
struct Preconditions<'a> {
    #[serde(borrow)]
    uid: Option<Text<'a>>,
}

pub(crate) struct Question {
    pub(crate) pod: PodRef,
    pub(crate) dry_run: bool,
}

pub(crate) fn is_ours(subject: &Subject<'_>) -> bool {
    matches!(subject, Subject { group: "", resource: "pods", subresource: "eviction", operation: "CREATE" })
}

pub(crate) fn ask(request: &Request<'_, Eviction<'_>>) -> Result<Question, Verdict> {
    let object = request.object.as_ref();
    let metadata = object.and_then(|eviction| eviction.metadata.as_ref());
    let options = object.and_then(|eviction| eviction.delete_options.as_ref());
    let name = match request.name() {
        "" => text(metadata.and_then(|meta| meta.name.as_ref())),
        name => name,
    };
    if name.is_empty() {
        return Err(Verdict::misrouted("an eviction without a pod's name"));
    }
    let namespace = match request.namespace() {
        "" => text(metadata.and_then(|meta| meta.namespace.as_ref())),
        namespace => namespace,
    };
    let uid = owned(options.and_then(|o| o.preconditions.as_ref()).and_then(|p| p.uid.as_ref()));
    // `kubectl drain --dry-run=server` says so in the body only; the review's own flag is false then.
    let in_body = options.and_then(|o| o.dry_run.as_deref()).unwrap_or_default().iter().any(|part| &**part == "All");
    let pod = PodRef { namespace: namespace.to_owned(), name: name.to_owned(), uid };
    Ok(Question { pod, dry_run: request.dry_run() || in_body })
}

pub(crate) async fn judge(serving: &Serving, Question { pod, dry_run }: Question) -> Verdict {
    let admission = Arc::clone(&serving.admission);
    let asked = pod.clone();
    let budget = serving.config.evict_budget;
    answer(&pod, dry_run, bounded(budget, async move { admission.evict(asked, dry_run).await }).await)
}

/// The answer that a verdict makes, or none within its budget.
pub(crate) fn answer(pod: &PodRef, dry_run: bool, verdict: Result<EvictionVerdict, Missing>) -> Verdict {
    let PodRef { namespace, name, .. } = pod;
    match verdict {
        Ok(EvictionVerdict::Allow { note: None }) => Verdict::allowed(Outcome::Allowed),
        Ok(EvictionVerdict::Allow { note: Some(note) }) => Verdict::allowed(Outcome::Allowed).warn(&note),
        Ok(EvictionVerdict::Hold { message }) => {
            tracing::info!(%namespace, %name, dry_run, %message, "eviction held");
            Verdict::held(message)
        }
        Ok(EvictionVerdict::Gone { message }) => {
            tracing::info!(%namespace, %name, dry_run, %message, "eviction of a pod that has moved");
            Verdict::gone(message)
        }
        Err(missing) => {
            tracing::warn!(%namespace, %name, ?missing, "eviction allowed without a verdict");
            missing.fail_open()
        }
    }
}
