//! Pods CREATE: a new pod learns which nodes its volumes are close to, and a scheduler that asks us learns of the pod.

use handoff_coordinator::verdicts::NewPod;

use crate::{
    Serving, affinity,
    observe::Outcome,
    patch::Patch,
    pod::Pod,
    review::{Request, Subject},
    tier,
    verdict::Verdict,
};

pub(crate) fn is_ours(subject: &Subject<'_>) -> bool {
    matches!(subject, Subject { group: "", resource: "pods", subresource: "", operation: "CREATE" })
}

pub(crate) fn judge(serving: &Serving, request: &Request<'_, Pod<'_>>) -> Verdict {
    let Some(pod) = &request.object else { return Verdict::misrouted("a CREATE without its object") };
    // Nobody schedules these three, so a preference would only be noise in them.
    if pod.is_assigned() || pod.is_mirror() || pod.is_of_daemon_set() {
        return Verdict::skipped();
    }
    let (claims, templates) = (pod.claims(), pod.templates());
    if claims.is_empty() && templates.is_empty() {
        return Verdict::skipped();
    }
    let plan = serving.admission.create(&NewPod {
        namespace: request.namespace(),
        settings: pod.settings(),
        claims: &claims,
        templates: &templates,
    });
    let mut patch = Patch::default();
    let spec = pod.spec.as_ref();
    let added = affinity::add(&mut patch, spec.and_then(|spec| spec.affinity.as_ref()), &plan.nodes);
    let added = added.and_then(|()| match spec.filter(|_| plan.ours) {
        Some(spec) => tier::add(&mut patch, &serving.config.tier, spec),
        None => Ok(()),
    });
    let verdict = match added.map(|()| patch.finish()) {
        Ok(Some(patch)) => {
            tracing::debug!(namespace = request.namespace(), ?claims, ?plan, "new pod");
            Verdict::patched(patch)
        }
        Ok(None) => Verdict::allowed(Outcome::Allowed),
        Err(error) => {
            tracing::warn!(%error, "nothing is added to a pod: the patch could not be written");
            Verdict::allowed(Outcome::Failed)
        }
    };
    plan.warnings.iter().fold(verdict, |verdict, warning| verdict.warn(warning))
}
