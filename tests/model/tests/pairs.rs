//! The search by pairs is the search of the whole world, only sooner.

use handoff_model::{
    explore::{self, Bounds},
    model::{Config, Model},
    pairs, rules,
    suite::MOVE,
    world::Budget,
};

/// More than any of these worlds has.
const BOUNDS: Bounds = Bounds { states: 1_500_000 };

fn two(budget: Budget) -> Config {
    Config { volumes: 2, budget, ..Config::default() }
}

#[test]
fn whole_worlds_have_the_same_states_steps_deep_and_the_same_ends() {
    let worlds = [
        Config { bare: 1, waits: true, deployment: true, ..two(MOVE) },
        two(Budget { moves: 0, failures: 2, ..MOVE }),
        two(Budget { moves: 0, failures: 2, crashes: 1, deletions: 1, abandons: 1, ..MOVE }),
        Config { running: 0, ..two(Budget { moves: 0, failures: 1, refusals: 1, ..MOVE }) },
    ];
    for config in worlds {
        let (whole, pairs) = (explore::explore(&Model::new(config), BOUNDS), pairs::explore(config, BOUNDS));
        println!("whole: {whole}\npairs: {pairs}");
        assert!(pairs::fits(&config) && whole.complete && pairs.complete);
        assert!(whole.broken.is_none() && pairs.broken.is_none());
        assert_eq!((whole.states, &whole.layers, whole.ends > 0), (pairs.stands_for, &pairs.layers, pairs.ends > 0));
        assert_eq!(whole.outcomes, pairs.outcomes);
    }
}

#[test]
fn worlds_too_large_to_finish_begin_alike() {
    let everything = Budget {
        moves: 2,
        unseen: 1,
        scales: 1,
        deletions: 1,
        abandons: 1,
        failures: 1,
        refusals: 1,
        crashes: 1,
        ..MOVE
    };
    let worlds = [
        two(MOVE),
        Config { waits: true, ..two(everything) },
        Config { nodes: 3, deployment: true, running: 2, backups: 2, ..two(everything) },
    ];
    for config in worlds {
        let bounds = Bounds { states: 100_000 };
        let (whole, pairs) = (explore::explore(&Model::new(config), bounds), pairs::explore(config, bounds));
        assert!(whole.broken.is_none() && pairs.broken.is_none(), "{whole}\n{pairs}");
        // the last layers were not looked at to the end
        let depth = whole.layers.len().min(pairs.layers.len()) - 1;
        println!("{depth} deep: {:?}", &pairs.layers[..depth]);
        assert!(depth >= 4);
        assert_eq!(whole.layers[..depth], pairs.layers[..depth]);
    }
}

#[test]
fn a_broken_rule_is_told_as_it_happens_to_both_volumes() {
    let mutant = handoff_model::mutants::all().into_iter().find(|m| m.name == "reset without probe");
    let Some(mutant) = mutant else { panic!("no mutant of this name") };
    let config = Config { volumes: 2, ..mutant.config };
    let (whole, pairs) = (explore::explore(&Model::new(config), BOUNDS), pairs::explore(config, BOUNDS));
    let (Some((rule, story)), Some((same, as_long))) = (whole.broken, pairs.broken) else { panic!("nobody noticed") };
    println!("{as_long}");
    assert_eq!((rule.rule, same.rule, story.len()), (rules::COMPLETE, rules::COMPLETE, as_long.len()));
}
