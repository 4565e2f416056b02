//! Chance from a seed. What happens to a request depends on the seed and on the request alone, not on what else was drawn
//! before: two runs that work on volumes in another order meet the same faults.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

/// Draws from a seed.
#[derive(Clone, Copy, Debug)]
pub struct Chance {
    seed: u64,
}

impl Chance {
    /// That of a seed.
    pub fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// A number below `bound`, always the same for the same `what`.
    pub fn below(self, bound: u64, what: impl Hash) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.seed, what).hash(&mut hasher);
        hasher.finish() % bound.max(1)
    }

    /// A time between these two.
    pub fn between(self, least: Duration, most: Duration, what: impl Hash) -> Duration {
        let span = most.saturating_sub(least).as_micros();
        least + Duration::from_micros(self.below(u64::try_from(span).unwrap_or(u64::MAX), what))
    }

    /// Happens `per_mille` times in a thousand.
    pub fn happens(self, per_mille: u64, what: impl Hash) -> bool {
        self.below(1000, what) < per_mille
    }
}

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// 409, and nothing is done.
    Conflict,
    /// 503, and nothing is done.
    Unavailable,
    /// It is done, and the answer is lost.
    AnswerLost,
    /// It takes this long.
    Slow(Duration),
    /// A watch ends after this.
    Dropped(Duration),
}

/// How often what happens, in a thousand requests.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    /// From what.
    pub chance: Chance,
    /// 409s of writes.
    pub conflicts: u64,
    /// 503s.
    pub unavailable: u64,
    /// Lost answers to writes.
    pub lost: u64,
    /// Answers that take up to 6 s.
    pub slow: u64,
    /// Watches that end within 20 s.
    pub dropped: u64,
}

impl Faults {
    /// Some of everything.
    pub fn some(chance: Chance) -> Self {
        Self { chance, conflicts: 60, unavailable: 40, lost: 40, slow: 30, dropped: 250 }
    }

    /// What happens to the `count`-th request of this text.
    pub fn of(&self, request: &str, count: u64, writes: bool) -> Fault {
        let drawn = self.chance.below(1000, (request, count));
        let wait = |most: u64| {
            self.chance.between(Duration::from_millis(20), Duration::from_secs(most), (request, count, "wait"))
        };
        let kinds: [(u64, Fault); 4] = if writes {
            [
                (self.conflicts, Fault::Conflict),
                (self.unavailable, Fault::Unavailable),
                (self.lost, Fault::AnswerLost),
                (self.slow, Fault::Slow(wait(6))),
            ]
        } else {
            [
                (self.unavailable, Fault::Unavailable),
                (self.slow, Fault::Slow(wait(6))),
                (self.dropped, Fault::Dropped(wait(20))),
                (0, Fault::None),
            ]
        };
        let mut left = drawn;
        for (per_mille, fault) in kinds {
            if left < per_mille {
                return fault;
            }
            left -= per_mille;
        }
        Fault::None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_draws_the_same_in_any_order() {
        let of = |seed: u64, path: &str| {
            let faults = Faults::some(Chance::new(seed));
            (1..400).map(|count| faults.of(path, count, true)).collect::<Vec<_>>()
        };
        let (first, second) = (of(7, "a"), of(7, "b"));
        assert_eq!((second, first.clone()), (of(7, "b"), of(7, "a")));
        assert_ne!(first, of(8, "a"));
        for wanted in [Fault::None, Fault::Conflict, Fault::Unavailable, Fault::AnswerLost] {
            assert!(first.contains(&wanted), "{wanted:?}");
        }
    }
}
