//! Bounded: some seeds, each step of one move, both kinds of Longhorn; and proof that these tests can fail.

use handoff_coordinator::policy::Policy;
use handoff_simulate::{
    api::{Crash, Moment},
    crash::{Death, Heir},
    history::{Outcome, Setting, history},
    longhorn::Release,
};
use jiff::SignedDuration;
use std::time::Duration;

const RELEASES: [&str; 2] = ["1.10.0", "1.8.0"];

fn setting(version: &str, policy: Policy) -> Setting {
    Setting { release: Release::of(version), policy, faults: true }
}

#[test]
fn whatever_goes_wrong_the_invariants_hold() {
    for version in RELEASES {
        for seed in 0..20 {
            let outcome = history(seed, &setting(version, Policy::default())).unwrap();
            assert!(outcome.broken.is_empty(), "Longhorn {version}:\n{outcome}");
            assert!(outcome.moves > 0, "{outcome}");
        }
    }
}

/// A replica dies before and after each of its writes.
fn dies_at_every_step(heir: Heir) {
    for version in RELEASES {
        for complete_after_all in [false, true] {
            let release = Release::of(version);
            let whole = Death { release, complete_after_all, target_away: Duration::ZERO, crash: None, heir };
            let writes = whole.run().unwrap();
            assert!(writes.outcome.broken.is_empty(), "{}", writes.outcome);
            assert!(writes.writes > 5, "{} writes\n{}", writes.writes, writes.outcome);
            for at in 1..=writes.writes {
                for moment in [Moment::Before, Moment::After] {
                    let crash = Some(Crash { at, moment });
                    let died = Death { crash, ..whole.clone() }.run().unwrap();
                    assert!(died.outcome.broken.is_empty(), "Longhorn {version}, {crash:?}\n{}", died.outcome);
                }
            }
        }
    }
}

#[test]
fn a_replica_that_dies_at_any_step_leaves_the_rest_to_the_standby() {
    dies_at_every_step(Heir::Standby);
}

#[test]
fn a_replica_that_dies_at_any_step_leaves_the_rest_to_the_next_one() {
    dies_at_every_step(Heir::New);
}

/// Some history breaks this with this policy, and nothing at all with the right one.
fn is_caught(policy: &Policy, what: &str) {
    let run = |seed, policy: &Policy| history(seed, &setting("1.10.0", policy.clone())).unwrap();
    let mut breaking = (0..40).map(|seed| run(seed, policy));
    let breaks = |outcome: &Outcome| outcome.broken.iter().any(|broken| broken.contains(what));
    let caught = breaking.find(breaks).unwrap_or_else(|| panic!("no history in which {what}"));
    let right = run(caught.seed, &Policy::default());
    assert!(right.broken.is_empty(), "{right}");
}

#[test]
fn a_probe_that_is_not_waited_for_is_caught() {
    let policy = Policy { probe_wait: SignedDuration::ZERO, ..Policy::default() };
    is_caught(&policy, "was reset although its upload is complete (invariant 2)");
}

#[test]
fn a_hold_that_never_expires_is_caught() {
    let policy = Policy { storage_hold: SignedDuration::from_hours(9), ..Policy::default() };
    is_caught(&policy, "is still held after");
}

#[test]
fn a_pre_stage_that_never_expires_is_caught() {
    let policy = Policy { prestage_expiry: SignedDuration::from_hours(9), ..Policy::default() };
    is_caught(&policy, "outlived its expiry (invariant 3)");
}
