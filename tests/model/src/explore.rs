//! Exhaustive search, breadth first: every state within the bounds once, the shortest way to a broken rule, and
//! backwards from the safe ends to see that every state can reach one.
//!
//! Not a general model checker on purpose: those at hand check "eventually" only along paths without cycles, and here
//! time, retries and back-off are cycles.

use crate::{
    model::{Model, Violation},
    rules,
    step::Step,
    story::Story,
    world::{Resumed, Volume, World},
};
use hashbrown::{DefaultHashBuilder, HashMap};
use indexmap::IndexMap;
use std::{
    collections::BTreeSet,
    fmt,
    hash::Hash,
    time::{Duration, Instant},
};

/// Bounds of a search.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Most states to visit.
    pub states: usize,
}

/// How a search ended.
#[derive(Debug)]
pub struct Report {
    /// Name of the configuration.
    pub name: &'static str,
    /// States visited.
    pub states: usize,
    /// States they stand for: more where what differs only in the order of the volumes is visited once.
    pub stands_for: usize,
    /// States by the length of the shortest way to them, as far as they were looked at.
    pub layers: Vec<usize>,
    /// Steps taken.
    pub steps: usize,
    /// Steps of the longest shortest path.
    pub depth: usize,
    /// States that are safe ends.
    pub ends: usize,
    /// Whether all states within the bounds were visited.
    pub complete: bool,
    /// How often each kind of step was taken.
    pub kinds: HashMap<String, usize>,
    /// What became of pre-stages and backups in any of the states.
    pub outcomes: BTreeSet<String>,
    /// How long it took.
    pub took: Duration,
    /// The broken rule and the shortest way there.
    pub broken: Option<(Violation, Story)>,
}

/// What was seen, in the order in which it was first seen, with where it was reached from.
pub(crate) type Seen<S, F> = IndexMap<S, F, DefaultHashBuilder>;

/// The number of `state`. `from` counts if it is new.
pub(crate) fn insert<S: Eq + Hash, F>(seen: &mut Seen<S, F>, state: S, from: F) -> u32 {
    let entry = seen.entry(state);
    let index = index32(entry.index());
    entry.or_insert(from);
    index
}

struct Search<'a> {
    model: &'a Model,
    /// Each state, with where it was first reached from and by which of the steps possible there.
    states: Seen<World, (u32, u16)>,
    /// Steps that happen by themselves, as (to, from).
    fair: Vec<(u32, u32)>,
    kinds: HashMap<String, usize>,
}

/// Visits everything.
pub fn explore(model: &Model, bounds: Bounds) -> Report {
    let begun = Instant::now();
    let mut search = Search { model, states: Seen::default(), fair: Vec::new(), kinds: HashMap::new() };
    insert(&mut search.states, model.initial(), (0, 0));
    let (mut next, mut steps, mut broken, mut layers, mut layer_end) = (0, 0, None, vec![1], 1);
    let mut counts: HashMap<std::mem::Discriminant<Step>, (Step, usize)> = HashMap::new();
    'all: while next < search.states.len() && search.states.len() < bounds.states {
        if next == layer_end {
            layers.push(search.states.len() - layer_end);
            layer_end = search.states.len();
        }
        let successors = model.successors(&search.states.keys()[next]);
        for (ordinal, (step, result)) in successors.into_iter().enumerate() {
            steps += 1;
            counts.entry(std::mem::discriminant(&step)).or_insert((step, 0)).1 += 1;
            let at = (index32(next), u16::try_from(ordinal).unwrap_or(u16::MAX));
            match result {
                Ok(world) => {
                    let to = insert(&mut search.states, world, at);
                    if step.is_fair() {
                        search.fair.push((to, index32(next)));
                    }
                }
                Err(violation) => {
                    broken = Some((violation, search.story(next, Some(ordinal))));
                    break 'all;
                }
            }
        }
        next += 1;
    }
    let complete = next == search.states.len();
    search.kinds = counts.into_values().map(|(step, n)| (step.kind(), n)).collect();
    let (ends, stuck) = if broken.is_none() && complete { search.backwards() } else { (0, None) };
    if let Some(stuck) = stuck {
        let violation = Violation::of(rules::SAFE_END, "none is reachable from the last state, whatever happens next");
        broken = Some((violation, search.story(stuck, None)));
    }
    Report {
        name: model.config.name,
        states: search.states.len(),
        stands_for: search.states.len(),
        depth: layers.len() - 1,
        layers,
        steps,
        ends,
        complete,
        kinds: search.kinds,
        outcomes: outcomes(search.states.keys().flat_map(|w| &w.volumes)),
        took: begun.elapsed(),
        broken,
    }
}

/// What became of pre-stages and backups.
pub fn outcomes<'a>(volumes: impl Iterator<Item = &'a Volume>) -> BTreeSet<String> {
    let mut out = BTreeSet::new();
    let journals = volumes.filter_map(|v| v.handoff).map(|h| h.journal);
    for journal in journals {
        out.extend(
            journal
                .staged
                .and_then(|s| s.outcome)
                .map(|adopted| if adopted { "pre-stage adopted" } else { "pre-stage withdrawn" }),
        );
        for (state, attempts) in journal.resumes.iter().flatten() {
            out.extend(match (state, attempts) {
                (Resumed::Completed, 0) => Some("completed by the probe"),
                (Resumed::Completed, _) => Some("completed after a reset"),
                (Resumed::Superseded, _) => Some("superseded"),
                (Resumed::Unrecoverable, _) => Some("unrecoverable"),
                (Resumed::Abandoned, _) => Some("abandoned"),
                (Resumed::Running { .. }, 2..) => Some("reset twice"),
                _ => None,
            });
        }
    }
    out.into_iter().map(str::to_owned).collect()
}

pub(crate) fn index32(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

impl Search<'_> {
    /// Number of safe ends, and the first state that cannot reach one by steps that happen by themselves.
    fn backwards(&mut self) -> (usize, Option<usize>) {
        self.fair.sort_unstable();
        let mut reaches = vec![false; self.states.len()];
        let mut open = Vec::new();
        for (i, world) in self.states.keys().enumerate() {
            if self.model.is_safe_end(world) {
                reaches[i] = true;
                open.push(index32(i));
            }
        }
        let ends = open.len();
        while let Some(to) = open.pop() {
            let first = self.fair.partition_point(|(t, _)| *t < to);
            for (_, from) in self.fair[first..].iter().take_while(|(t, _)| *t == to) {
                if !std::mem::replace(&mut reaches[*from as usize], true) {
                    open.push(*from);
                }
            }
        }
        (ends, reaches.iter().position(|r| !r))
    }

    /// The way to a state, and one step further.
    fn story(&self, state: usize, further: Option<usize>) -> Story {
        let mut way = further.map(|ordinal| (state, ordinal)).into_iter().collect::<Vec<_>>();
        let mut at = state;
        while at != 0 {
            let (from, ordinal) = self.states[at];
            at = from as usize;
            way.push((at, usize::from(ordinal)));
        }
        let mut story = Story::of(self.model, &self.states.keys()[0]);
        for (at, ordinal) in way.into_iter().rev() {
            let before = &self.states.keys()[at];
            if let Some((step, after)) = self.model.successors(before).into_iter().nth(ordinal) {
                story.tell(step, before, after.ok().as_ref());
            }
        }
        story
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, states, stands_for, steps, depth, ends, complete, took, .. } = self;
        let all = if *complete { "all" } else { "NOT all" };
        let pairs = if states == stands_for { String::new() } else { format!(" that stand for {stands_for}") };
        write!(
            f,
            "{name}: {states} states{pairs} ({all}), {steps} steps, depth {depth}, {ends} safe ends, {:.1} s",
            took.as_secs_f64()
        )?;
        if let Some((violation, story)) = &self.broken {
            write!(f, "\nBROKEN: {}\n  {}\n{story}", violation.rule, violation.detail)?;
        }
        Ok(())
    }
}
