//! `pods/eviction` CREATE for the storage manager's own pods: they leave a node after the volumes have left it, since
//! a volume that is detaching needs them for it.

use std::sync::Arc;

use crate::{
    Serving,
    bounded::bounded,
    eviction::{self, Question},
    verdict::Verdict,
};

pub(crate) async fn judge(serving: &Serving, Question { pod, dry_run }: Question) -> Verdict {
    let admission = Arc::clone(&serving.admission);
    let asked = pod.clone();
    let budget = serving.config.storage_budget;
    eviction::answer(&pod, dry_run, bounded(budget, async move { admission.evict_storage(asked, dry_run).await }).await)
}
