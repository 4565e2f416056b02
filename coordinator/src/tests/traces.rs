//! One move is one trace, whichever replicas had a part in it.

use super::world::{World, asked, at, manager};
use crate::{
    Coordinator,
    trace::{Span, Traces},
};
use std::sync::{Arc, Mutex};

/// Keeps what is sent.
#[derive(Default)]
struct Kept(Mutex<Vec<Span>>);

impl Traces for Kept {
    fn send(&self, span: Span) {
        self.0.lock().unwrap().push(span);
    }
}

fn traced(world: &World, kept: &Arc<Kept>) -> Coordinator {
    let replica = world.replica();
    replica.send_traces_to(kept.clone());
    replica
}

#[tokio::test]
async fn reviews_and_steps_of_several_replicas_are_one_trace() {
    let kept = Arc::new(Kept::default());
    let mut world = World::default();
    // one replica is asked about the pod, another about storage; a third one leads, and so does a fourth after it
    traced(&world, &kept).judge_eviction(&asked(), false, at(0)).await;
    world.known = false;
    traced(&world, &kept).hold_storage(&manager(), false, at(1)).await;
    world.leads = true;
    traced(&world, &kept).reconcile("pv").await;
    traced(&world, &kept).reconcile("pv").await;
    let spans = kept.0.lock().unwrap().clone();
    let names = spans.iter().map(|s| s.name.as_str()).collect::<Vec<_>>();
    for name in ["checkpoint", "review eviction", "review storage eviction"] {
        assert!(names.contains(&name), "{name} in {names:?}");
    }
    assert!(spans.iter().all(|s| s.trace == spans[0].trace && s.parent == spans[0].parent), "{spans:?}");
    assert!(spans.iter().all(|s| s.error.is_none() && s.end >= s.start), "{spans:?}");
}

#[tokio::test]
async fn a_dry_run_and_a_pod_without_a_backup_leave_no_trace() {
    let kept = Arc::new(Kept::default());
    let world = World::default();
    traced(&world, &kept).judge_eviction(&asked(), true, at(0)).await;
    world.storage.backups.lock().unwrap().clear();
    traced(&world, &kept).judge_eviction(&asked(), false, at(0)).await;
    assert_eq!(*kept.0.lock().unwrap(), []);
}
