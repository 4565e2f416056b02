//! One long random history, faults included, in a world too large to search.

use crate::{
    model::{Model, Successor, Violation},
    rules,
    story::Story,
    world::{Budget, World},
};

/// Steps that a history may take to end well once nothing goes wrong any more.
const CLOSING: usize = 5_000;

/// Takes the steps that are chosen, then lets things run their course until all is well.
///
/// # Errors
/// The rule that broke, and the story up to there.
pub fn live(model: &Model, choices: &[u16]) -> Result<(), (Violation, Story)> {
    let mut world = model.initial();
    let mut story = Story::of(model, &world);
    for choice in choices {
        let steps = model.successors(&world);
        if !steps.is_empty() {
            let chosen = usize::from(*choice) % steps.len();
            world = follow(&world, steps, chosen, &mut story)?;
        }
    }
    world.left = Budget::default();
    let mut dice = Dice(choices.iter().fold(1, |seed, c| seed.wrapping_mul(31).wrapping_add(u64::from(*c) + 1)));
    for _ in 0..CLOSING {
        if model.is_safe_end(&world) {
            return Ok(());
        }
        let mut steps = model.successors(&world);
        steps.retain(|(step, _)| step.is_fair());
        if steps.is_empty() {
            break;
        }
        let chosen = dice.below(steps.len());
        world = follow(&world, steps, chosen, &mut story)?;
    }
    Err((Violation::of(rules::SAFE_END, "nothing went wrong any more, and it did not end well"), story))
}

fn follow(world: &World, steps: Vec<Successor>, chosen: usize, story: &mut Story) -> Result<World, (Violation, Story)> {
    for (i, (step, result)) in steps.into_iter().enumerate() {
        match result {
            Ok(next) if i == chosen => {
                story.tell(step, world, Some(&next));
                return Ok(next);
            }
            Ok(_) => {}
            // a rule that the next step can break is broken, whatever step was chosen
            Err(violation) => {
                story.tell(step, world, None);
                return Err((violation, std::mem::take(story)));
            }
        }
    }
    Ok(world.clone())
}

/// Fair enough: every step that stays possible is taken sooner or later.
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap_or_default() % sides.max(1)
    }
}
