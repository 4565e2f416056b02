//! Pods CREATE: a new pod learns which nodes its volumes are close to.

use handoff_coordinator::verdicts::Admission;

use crate::{
    affinity,
    observe::Outcome,
    pod::Pod,
    review::{Request, Subject},
    verdict::Verdict,
};

pub(crate) fn is_ours(subject: &Subject<'_>) -> bool {
    matches!(subject, Subject { group: "", resource: "pods", subresource: "", operation: "CREATE" })
}

pub(crate) fn judge(admission: &dyn Admission, request: &Request<'_, Pod<'_>>) -> Verdict {
    let Some(pod) = &request.object else { return Verdict::misrouted("a CREATE without its object") };
    // Nobody schedules these three, so a preference would only be noise in them.
    if pod.is_assigned() || pod.is_mirror() || pod.is_of_daemon_set() {
        return Verdict::skipped();
    }
    let claims = pod.claims();
    if claims.is_empty() {
        return Verdict::skipped();
    }
    let nodes = admission.prefer(request.namespace(), &claims);
    match affinity::patch(pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref()), &nodes) {
        Ok(Some(patch)) => {
            tracing::debug!(namespace = request.namespace(), ?claims, ?nodes, "new pod prefers nodes");
            Verdict::patched(patch)
        }
        Ok(None) => Verdict::allowed(Outcome::Allowed),
        Err(error) => {
            tracing::warn!(%error, "no preference: the patch could not be written");
            Verdict::allowed(Outcome::Failed)
        }
    }
}
