//! Every state of the small worlds, once.

use handoff_model::{explore::Bounds, pairs::explore, suite};
use std::{
    collections::BTreeSet,
    sync::{Mutex, atomic::AtomicUsize, atomic::Ordering},
};

/// More than any of the small worlds has.
const BOUNDS: Bounds = Bounds { states: 12_000_000 };

#[test]
fn every_state_of_the_small_worlds_keeps_the_rules_and_can_end_well() {
    let (worlds, next) = (suite::small(), AtomicUsize::new(0));
    let (seen, broken) = (Mutex::new(BTreeSet::new()), Mutex::new(Vec::new()));
    let work = || {
        while let Some(config) = worlds.get(next.fetch_add(1, Ordering::Relaxed)) {
            let report = explore(*config, BOUNDS);
            println!("{report}");
            seen.lock().unwrap().extend(report.kinds.keys().cloned().chain(report.outcomes.iter().cloned()));
            if report.broken.is_some() || !report.complete || report.ends == 0 {
                broken.lock().unwrap().push(report.to_string());
            }
        }
    };
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        (0..workers).for_each(|_| drop(scope.spawn(work)));
    });
    assert_eq!(*broken.lock().unwrap(), [""; 0]);
    // a model in which nothing happens would keep all rules too
    let seen = seen.lock().unwrap();
    let wanted = [
        "Answer",
        "Retry",
        "ReplicaLeaves",
        "UploadFails",
        "Crash",
        "Lead",
        "Decide",
        "Write",
        "Act",
        "Stall",
        "Tick",
        "pre-stage adopted",
        "pre-stage withdrawn",
        "completed by the probe",
        "completed after a reset",
        "superseded",
        "unrecoverable",
        "abandoned",
        "reset twice",
    ];
    let missing = wanted.into_iter().filter(|w| !seen.contains(*w)).collect::<Vec<_>>();
    assert_eq!(missing, [""; 0], "never happened: {seen:?}");
}
