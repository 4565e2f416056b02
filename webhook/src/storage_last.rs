//! `pods/eviction` CREATE for the storage manager's own pods: they leave a node after the volumes have left it, since
//! a volume that is detaching needs them for it.

use handoff_coordinator::verdicts::Admission;

use crate::{eviction::Question, observe::Outcome, verdict::Verdict};

pub(crate) fn judge(admission: &dyn Admission, Question { pod, dry_run }: &Question) -> Verdict {
    match admission.storage_needed(pod, *dry_run) {
        Some(message) => {
            tracing::info!(namespace = %pod.namespace, name = %pod.name, dry_run, %message, "storage pod's eviction held");
            Verdict::held(message)
        }
        None => Verdict::allowed(Outcome::Allowed),
    }
}
