//! A coordinator that holds every eviction, and has nothing to say of anything else.

use futures::{FutureExt, future::BoxFuture};
use handoff_coordinator::verdicts::{Admission, DeletedPod, EvictionVerdict, NewPod, PodPlan, PodRef, SnapshotVerdict};

pub struct Holds;

impl Admission for Holds {
    fn create(&self, _: &NewPod<'_>) -> PodPlan {
        PodPlan::default()
    }

    fn evict(&self, _: PodRef, _: bool) -> BoxFuture<'_, EvictionVerdict> {
        std::future::ready(EvictionVerdict::Hold { message: "not yet".to_owned() }).boxed()
    }

    fn evict_storage(&self, pod: PodRef, dry_run: bool) -> BoxFuture<'_, EvictionVerdict> {
        self.evict(pod, dry_run)
    }

    fn delete(&self, _: DeletedPod, _: bool) -> BoxFuture<'_, ()> {
        std::future::ready(()).boxed()
    }

    fn bind(&self, _: PodRef, _: String, _: bool) -> BoxFuture<'_, ()> {
        std::future::ready(()).boxed()
    }

    fn delete_snapshot(&self, _: &str, _: &str) -> SnapshotVerdict {
        SnapshotVerdict::Allow { note: None }
    }
}
