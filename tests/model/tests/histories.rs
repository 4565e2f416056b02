//! Long random histories in worlds too large to search. What fails shrinks to a story that can be read.

use handoff_model::{
    history,
    model::{Config, Model},
    mutants, rules,
    step::Watch,
    world::Budget,
};
use proptest::{
    prelude::*,
    test_runner::{Config as Cases, TestError, TestRunner},
};

/// Everything that can go wrong, more than once.
const EVERYTHING: Budget = Budget {
    moves: 4,
    unseen: 2,
    scales: 1,
    deletions: 1,
    abandons: 1,
    failures: 2,
    refusals: 1,
    crashes: 3,
    rivals: 2,
    stalls: 2,
    slow: 6,
};

fn choices() -> impl Strategy<Value = Vec<u16>> {
    prop::collection::vec(any::<u16>(), 0..400)
}

fn told(model: &Model, choices: &[u16]) -> Result<(), TestCaseError> {
    let lived = history::live(model, choices);
    lived.map_err(|(broken, story)| TestCaseError::fail(format!("{}\n  {}\n{story}", broken.rule, broken.detail)))
}

fn worlds() -> Vec<Model> {
    let watches = &[Watch::Storage, Watch::Kube, Watch::Handoffs][..];
    let large = Config { nodes: 3, volumes: 2, backups: 2, watches, budget: EVERYTHING, ..Config::default() };
    vec![
        Model::new(large),
        Model::new(Config { deployment: true, ..large }),
        Model::new(Config { waits: true, ..large }),
        Model::new(Config { waits: true, deployment: true, running: 2, ..large }),
        Model::new(Config { same_job: true, running: 2, ..large }),
    ]
}

#[test]
fn whatever_happens_the_rules_hold_and_it_ends_well() {
    let models = worlds();
    let mut runner = TestRunner::new(Cases { cases: 100, ..Cases::default() });
    runner.run(&(0..models.len(), choices()), |(world, choices)| told(&models[world], &choices)).unwrap();
}

#[test]
fn a_failure_shrinks_to_a_story() {
    let mutant = mutants::all().into_iter().find(|m| m.name == "reset without probe").expect("a mutant of this name");
    let model = Model::new(Config { budget: EVERYTHING, nodes: 3, ..mutant.config });
    let mut runner = TestRunner::new_with_rng(
        Cases { cases: 500, failure_persistence: None, ..Cases::default() },
        proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha),
    );
    let longest = std::cell::Cell::new(0);
    let result = runner.run(&choices(), |choices| {
        let lived = told(&model, &choices);
        if lived.is_err() {
            longest.set(longest.get().max(choices.len()));
        }
        lived
    });
    let Err(TestError::Fail(reason, shrunk)) = result else { panic!("nobody noticed") };
    println!("{reason}");
    assert!(reason.message().starts_with(rules::COMPLETE));
    assert!(shrunk.len() < longest.get(), "as long as it was found: {}", shrunk.len());
}
