//! Bounded: some seeds, each step of one move, both kinds of Longhorn; and proof that these tests can fail.

use handoff_coordinator::policy::Policy;
use handoff_simulate::{
    api::{Crash, Moment},
    crash::{Death, Heir},
    history::{Setting, history},
    longhorn::Release,
};
use jiff::SignedDuration;

const RELEASES: [&str; 2] = ["1.10.0", "1.8.0"];

fn setting(version: &str, policy: Policy) -> Setting {
    Setting { release: Release::of(version), policy, faults: true }
}

#[test]
fn whatever_goes_wrong_the_invariants_hold() {
    for version in RELEASES {
        for seed in 0..40 {
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
            let whole = Death { release: Release::of(version), complete_after_all, crash: None, heir };
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

/// The first history in which this policy breaks something, of some.
fn caught(policy: &Policy) -> Vec<String> {
    let outcomes = (0..40).map(|seed| history(seed, &setting("1.10.0", policy.clone())).unwrap());
    outcomes.map(|outcome| outcome.broken).find(|broken| !broken.is_empty()).unwrap_or_default()
}

#[test]
fn a_probe_that_is_not_waited_for_is_caught() {
    let broken = caught(&Policy { probe_wait: SignedDuration::ZERO, ..Policy::default() });
    assert!(broken.iter().any(|what| what.contains("invariant 2")), "{broken:?}");
}

#[test]
fn a_hold_that_never_expires_is_caught() {
    let broken = caught(&Policy { storage_hold: SignedDuration::from_hours(9), ..Policy::default() });
    assert!(broken.iter().any(|what| what.contains("invariant 5")), "{broken:?}");
}

#[test]
fn a_pre_stage_that_never_expires_is_caught() {
    let broken = caught(&Policy { prestage_expiry: SignedDuration::from_hours(9), ..Policy::default() });
    assert!(broken.iter().any(|what| what.contains("invariant 3")), "{broken:?}");
}
