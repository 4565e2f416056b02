//! Pods DELETE: the last moment before SIGTERM at which an in-flight backup can be checkpointed. Always allowed, and
//! allowed at once: a denied deletion leaves pods behind that nobody deletes a second time, a slow one holds up whoever
//! deletes. The checkpoint is written meanwhile; the lease holder would write it from the watch, too.

use std::sync::Arc;

use handoff_coordinator::verdicts::{DeletedPod, PodRef};

use crate::{
    Serving,
    bounded::detached,
    observe::Outcome,
    pod::Pod,
    review::{Request, Subject, owned, text},
    verdict::Verdict,
};

/// Every kubelet is in this group. Its deletion is the last one: containers are stopped and volumes unmounted.
const NODES: &str = "system:nodes";

pub(crate) struct Question {
    pod: DeletedPod,
    dry_run: bool,
}

pub(crate) fn is_ours(subject: &Subject<'_>) -> bool {
    matches!(subject, Subject { group: "", resource: "pods", subresource: "", operation: "DELETE" })
}

pub(crate) fn ask(request: &Request<'_, Pod<'_>>) -> Result<Question, Verdict> {
    let Some(pod) = &request.old_object else { return Err(Verdict::misrouted("a DELETE without its object")) };
    // One deletion makes up to two reviews, and the kubelet's makes two more. Only the first one is news.
    if request.by_group(NODES) || pod.is_terminating() || pod.is_of_daemon_set() || !pod.has_claims() {
        return Err(Verdict::skipped());
    }
    // A collection's deletion is reviewed pod by pod, with the name in the object only.
    let name = if pod.name().is_empty() { request.name() } else { pod.name() };
    if name.is_empty() {
        return Err(Verdict::misrouted("a pod without a name"));
    }
    let metadata = pod.metadata.as_ref();
    let namespace = match request.namespace() {
        "" => text(metadata.and_then(|meta| meta.namespace.as_ref())),
        namespace => namespace,
    };
    let uid = owned(metadata.and_then(|meta| meta.uid.as_ref()));
    let deleted = DeletedPod {
        pod: PodRef { namespace: namespace.to_owned(), name: name.to_owned(), uid },
        node: pod.node(),
        settings: pod.settings(),
        claims: pod.claims(),
    };
    Ok(Question { pod: deleted, dry_run: request.dry_run() })
}

pub(crate) fn judge(serving: &Serving, Question { pod, dry_run }: Question) -> Verdict {
    let admission = Arc::clone(&serving.admission);
    match detached(async move { admission.delete(pod, dry_run).await }) {
        Ok(()) => Verdict::allowed(Outcome::Allowed),
        Err(missing) => missing.fail_open(),
    }
}
