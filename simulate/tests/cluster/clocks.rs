//! Clocks that someone sets.

use handoff_simulate::{
    api::resource::BACKUPS,
    chance::Chance,
    cluster::{STORAGE, key},
    history::{drain_node, wait_until_over},
    json::text,
    kubernetes::{Controller, uncordon},
    longhorn::{Release, start_backup},
    replica::{Replica, Start},
    run,
    world::{Plan, Planned, backup},
};
use jiff::SignedDuration;
use std::time::Duration;

/// A backup that is complete although it ended in `Error`; the leader's clock jumps this long after its probe.
fn jumps_after_the_probe(wait: Duration, by: SignedDuration) -> (Vec<String>, String) {
    run(async {
        let mut plan = Plan::new(Release::of("1.10.0"), 3, Chance::new(1));
        plan.workloads.push(Planned::new("db", Controller::StatefulSet, "n00", "n01"));
        let cluster = plan.build();
        let replica = Replica::start(&cluster, "handoff-0", "n02", Start::default());
        tokio::time::sleep(Duration::from_secs(15)).await;
        let mut upload = backup("db", "backup", 16, Duration::from_millis(400));
        upload.end_is_missed = true;
        start_backup(&cluster, upload.clone());
        tokio::time::sleep(Duration::from_millis(6500)).await;
        let of = cluster.clone();
        tokio::spawn(async move {
            let asked = |backup: &serde_json::Value| !text(backup, "/spec/syncRequestedAt").is_empty();
            of.store.until(BACKUPS, &key(STORAGE, "backup"), asked).await;
            tokio::time::sleep(wait).await;
            of.witness.note("the clock jumps");
            replica.time.set_ahead(by);
        });
        drain_node(&cluster, "n00").await;
        uncordon(&cluster, "n00");
        wait_until_over(&cluster, &plan, &[upload]).await;
        (cluster.witness.broken(), cluster.witness.story())
    })
    .unwrap()
}

#[test]
fn a_clock_that_is_set_forward_during_a_probe_does_not_make_silence_an_answer() {
    for wait in [0, 50, 150].map(Duration::from_millis) {
        let (broken, story) = jumps_after_the_probe(wait, SignedDuration::from_secs(5));
        assert!(broken.is_empty(), "{story}\n{broken:#?}");
        assert!(story.contains("the clock jumps"), "{story}");
    }
}

#[test]
fn a_clock_that_is_set_back_during_a_probe_only_costs_time() {
    let (broken, story) = jumps_after_the_probe(Duration::ZERO, SignedDuration::from_secs(-30));
    assert!(broken.is_empty(), "{story}\n{broken:#?}");
}
