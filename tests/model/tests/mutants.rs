//! Each deliberate mistake is caught, by a rule that speaks of it, and told as a story.

#![expect(clippy::expect_used, reason = "a test helper")]

use handoff_model::{
    explore::{Bounds, explore},
    model::{Config, Model},
    mutants,
};

fn caught(name: &str) {
    let mutant = mutants::all().into_iter().find(|m| m.name == name).expect("a mutant of this name");
    let bounds = Bounds { states: 1_500_000 };
    let report = explore(&Model::new(mutant.config), bounds);
    println!("MUTANT {name}\n{report}");
    let (violation, story) = report.broken.expect("nobody noticed");
    assert!(mutant.rules.contains(&violation.rule), "{}: {}", violation.rule, violation.detail);
    if mutant.config.volumes == 2 {
        let alone = explore(&Model::new(Config { volumes: 1, ..mutant.config }), bounds);
        assert!(alone.complete && alone.broken.is_none(), "one volume is enough to tell: {alone}");
    }
    assert!(!story.is_empty() && story.to_string().lines().count() == story.len() + 1);
}

macro_rules! mutants {
    ($($test:ident: $name:literal,)*) => {
        $(#[test]
        fn $test() {
            caught($name);
        })*

        #[test]
        fn none_is_left_out() {
            let tested = [$($name),*];
            assert_eq!(mutants::all().iter().map(|m| m.name).collect::<Vec<_>>(), tested);
        }
    };
}

mutants! {
    reset_without_probe: "reset without probe",
    silence_counts: "silence before the request arrived counts as an answer",
    complete_is_lost: "a complete backup is taken for a lost one",
    resume_before_stable: "resume before stable",
    no_expiry: "pre-stage without expiry",
    never_withdrawn: "pre-stage that is never withdrawn",
    two_prestages: "two pre-stages",
    refusal_ignored: "pre-stage where it is refused",
    finish_while_owed: "finish while owed",
    drop_final_state: "drop final state",
    lost_is_given_up: "a lost backup is given up",
    no_reason: "given up without a reason",
    never_woken: "never woken",
    never_reset: "never reset",
    again_and_again: "resumed again and again on the same look",
    absent_is_deleted: "a backup that is not seen yet counts as deleted",
    forget_on_second_move: "forget on second move",
    reset_without_version: "reset without resourceVersion",
    act_before_journal: "act before journal write",
    withdraw_foreign: "withdraw of a request that is not ours",
    place_over_foreign: "pre-stage over a request that is not ours",
    forget_of_all_volumes: "forget the handoffs of all volumes of the pod",
    record_of_one_volume: "record the first volume of the pod only",
}
