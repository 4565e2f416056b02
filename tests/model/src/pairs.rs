//! Two volumes of one pod, searched as pairs: every state of both once, but what a volume does in given surroundings is
//! worked out once and not for every state of the other.
//!
//! The two share the pods, the nodes, our replicas, what may still go wrong, and time; a step is one of a single volume,
//! or one in which both take part. So each is looked at in the world of one volume, by the same code, and the pairs are
//! made of numbers. Which of two volumes that are alike is the first makes no difference: a pair is visited in one order
//! only. Why that is the same as the search of the whole: `docs/model.md`.

use crate::{
    explore::{Bounds, Report, Seen, index32, insert, outcomes},
    model::{Config, Model, Shell, Violation},
    rules,
    step::Step,
    story::Story,
    world::{MAX_NODES, Va, Volume, World},
};
use hashbrown::{DefaultHashBuilder, HashMap};
use indexmap::IndexSet;
use std::{hash::Hash, time::Instant};

/// What the search rests on; looked at in every step in which both take part.
pub const SHARED: &str = "what a step makes of what two volumes share does not depend on either";

/// All of the world that is one volume's own.
type Own = (Volume, [(Va, u8); MAX_NODES]);
/// A volume in its surroundings, as a number.
type Node = u32;
/// Two volumes in the same surroundings, the lower number first.
type Pair = (Node, Node);
/// What a step makes of a volume.
type To = Result<Node, Violation>;

/// Things that are spoken of by number.
type Numbered<T> = IndexSet<T, DefaultHashBuilder>;

fn number<T: Eq + Hash>(all: &mut Numbered<T>, item: T) -> u32 {
    index32(all.insert_full(item).0)
}

/// All that can happen to a volume in its surroundings.
struct Moves {
    alone: Vec<(Step, To)>,
    both: Vec<(Step, To)>,
    /// Time that passes, unless it waits.
    time: Option<To>,
}

struct Nodes {
    model: Model,
    shared: Numbered<World>,
    owns: Numbered<Own>,
    /// By their surroundings and what is their own.
    places: Numbered<(u32, u32)>,
    moves: Vec<Option<Moves>>,
    /// Whether all is well with it, for those that were looked at.
    safe: Vec<bool>,
}

struct Search {
    nodes: Nodes,
    /// The world of both, for stories.
    model: Model,
    /// Each pair, with where it was first reached from.
    pairs: Seen<Pair, u32>,
    /// The volumes begin alike: whatever happens to them can happen with their parts exchanged.
    alike: bool,
    /// Where the steps that happen by themselves lead to, and where those of each pair begin.
    fair: Vec<u32>,
    fair_from: Vec<usize>,
}

/// Whether this search can tell all of this world: two volumes; decisions are carried out at once; every replica sees
/// what is there; the shell keeps to one volume at a time.
pub fn fits(config: &Config) -> bool {
    let budget = &config.budget;
    let whole = budget.slow == 0 && budget.stalls == 0 && budget.rivals == 0;
    config.volumes == 2 && whole && config.shell == Shell::default()
}

/// Searches a world in the way that fits.
pub fn explore(config: Config, bounds: Bounds) -> Report {
    if fits(&config) { explore_pairs(config, bounds) } else { crate::explore::explore(&Model::new(config), bounds) }
}

fn explore_pairs(config: Config, bounds: Bounds) -> Report {
    let begun = Instant::now();
    let mut search = Search::new(config);
    let (mut next, mut steps, mut broken, mut layer_end) = (0, 0, None, 1);
    let mut layers = vec![search.stands_for(0, 1)];
    let mut found = Vec::new();
    'all: while next < search.pairs.len() && search.pairs.len() < bounds.states {
        if next == layer_end {
            layers.push(search.stands_for(layer_end, search.pairs.len()));
            layer_end = search.pairs.len();
        }
        search.nodes.successors(search.pairs.keys()[next], &mut found);
        search.fair_from.push(search.fair.len());
        for (step, result) in found.drain(..) {
            steps += 1;
            match result {
                Ok(pair) => {
                    let to = insert(&mut search.pairs, pair, index32(next));
                    if step.is_fair() {
                        search.fair.push(to);
                    }
                }
                Err(violation) => {
                    broken = Some((violation, search.story(next, true)));
                    break 'all;
                }
            }
        }
        next += 1;
    }
    search.fair_from.push(search.fair.len());
    let complete = next == search.pairs.len();
    let (ends, stuck) = if broken.is_none() && complete { search.backwards() } else { (0, None) };
    if let Some(stuck) = stuck {
        let violation = Violation::of(rules::SAFE_END, "none is reachable from the last state, whatever happens next");
        broken = Some((violation, search.story(stuck, false)));
    }
    Report {
        name: config.name,
        states: search.pairs.len(),
        stands_for: search.stands_for(0, search.pairs.len()),
        depth: layers.len() - 1,
        layers,
        steps,
        ends,
        complete,
        kinds: HashMap::new(),
        outcomes: outcomes(search.nodes.owns.iter().map(|(volume, _)| volume)),
        took: begun.elapsed(),
        broken,
    }
}

fn ordered(a: Node, b: Node) -> Pair {
    (a.min(b), a.max(b))
}

/// What a volume shares, and what is its own.
fn split(mut w: World, v: usize) -> (World, Own) {
    let own = (w.volumes[v], w.kube.vas[v]);
    for v in 0..w.volumes.len() {
        (w.volumes[v], w.kube.vas[v]) = Own::default();
    }
    (w, own)
}

impl Nodes {
    fn node(&mut self, w: World, v: usize) -> Node {
        let (shared, own) = split(w, v);
        let parts = (number(&mut self.shared, shared), number(&mut self.owns, own));
        number(&mut self.places, parts)
    }

    /// The pair that a world of two volumes is, if it was seen before.
    fn pair_of(&self, w: &World) -> Option<Pair> {
        let node = |v| {
            let (shared, own) = split(w.clone(), v);
            let parts = (self.shared.get_index_of(&shared)?, self.owns.get_index_of(&own)?);
            self.places.get_index_of(&(index32(parts.0), index32(parts.1))).map(index32)
        };
        Some(ordered(node(0)?, node(1)?))
    }

    /// Works out what can happen to a volume, unless that is known.
    fn look_at(&mut self, node: Node) {
        let at = node as usize;
        if self.moves.len() <= at {
            self.moves.resize_with(at + 1, || None);
            self.safe.resize(at + 1, false);
        }
        if self.moves[at].is_some() {
            return;
        }
        let (shared, own) = self.places[at];
        let mut w = self.shared[shared as usize].clone();
        (w.volumes[0], w.kube.vas[0]) = self.owns[own as usize];
        let (events, waits) = self.model.events(&w);
        let mut moves = Moves { alone: Vec::new(), both: Vec::new(), time: None };
        for (step, result) in events {
            let to = result.map(|next| self.node(next, 0));
            let which = if step.volume().is_some() { &mut moves.alone } else { &mut moves.both };
            which.push((step, to));
        }
        if !waits {
            moves.time = Some(self.model.take(&w, Step::Tick).map(|next| self.node(next, 0)));
        }
        self.safe[at] = self.model.is_safe_end(&w);
        self.moves[at] = Some(moves);
    }

    /// Everything that may follow a pair.
    fn successors(&mut self, (a, b): Pair, out: &mut Vec<(Step, Result<Pair, Violation>)>) {
        self.look_at(a);
        self.look_at(b);
        let Self { places, moves, .. } = self;
        let (Some(of_a), Some(of_b)) = (&moves[a as usize], &moves[b as usize]) else { return };
        for (moves, this, other) in [(of_a, a, b), (of_b, b, a)] {
            for (step, to) in &moves.alone {
                out.push((*step, to.clone().map(|to| ordered(to, beside(places, this, to, other)))));
            }
            // two that are the same do the same
            if a == b {
                break;
            }
        }
        for (step, to) in &of_a.both {
            let same = of_b.both.iter().find(|(s, _)| s == step).map(|(_, to)| to);
            match (step, same) {
                (_, Some(also)) => out.push((*step, together(places, to, also))),
                (Step::Reap(_), None) => out.push((*step, together(places, to, &Ok(b)))),
                // one of the two is not ready for it
                _ => {}
            }
        }
        for (step, to) in of_b.both.iter().filter(|(step, _)| matches!(step, Step::Reap(_))) {
            if !of_a.both.iter().any(|(s, _)| s == step) {
                out.push((*step, together(places, &Ok(a), to)));
            }
        }
        if let (Some(to), Some(also)) = (&of_a.time, &of_b.time) {
            let later = together(places, to, also);
            if later != Ok((a, b)) {
                out.push((Step::Tick, later));
            }
        }
    }
}

/// The other volume, when one went from `this` to `to`.
fn beside(places: &mut Numbered<(u32, u32)>, this: Node, to: Node, other: Node) -> Node {
    let (was, is) = (places[this as usize].0, places[to as usize].0);
    if was == is {
        other
    } else {
        {
            let own = places[other as usize].1;
            number(places, (is, own))
        }
    }
}

/// A step in which both take part.
fn together(places: &Numbered<(u32, u32)>, a: &To, b: &To) -> Result<Pair, Violation> {
    let (a, b) = (a.clone()?, b.clone()?);
    if places[a as usize].0 != places[b as usize].0 {
        return Err(Violation::of(SHARED, "the two volumes disagree on it"));
    }
    Ok(ordered(a, b))
}

impl Search {
    fn new(config: Config) -> Self {
        let nodes = Nodes {
            model: Model::new(Config { volumes: 1, ..config }),
            shared: Numbered::default(),
            owns: Numbered::default(),
            places: Numbered::default(),
            moves: Vec::new(),
            safe: Vec::new(),
        };
        let mut search = Self {
            nodes,
            model: Model::new(config),
            pairs: Seen::default(),
            alike: false,
            fair: Vec::new(),
            fair_from: Vec::new(),
        };
        let initial = search.model.initial();
        let first = ordered(search.nodes.node(initial.clone(), 0), search.nodes.node(initial, 1));
        search.alike = first.0 == first.1;
        insert(&mut search.pairs, first, 0);
        search
    }

    /// States of both volumes that these pairs stand for; of volumes that begin as different ones at least.
    fn stands_for(&self, first: usize, end: usize) -> usize {
        self.pairs.as_slice()[first..end].keys().map(|(a, b)| if a == b || !self.alike { 1 } else { 2 }).sum()
    }

    /// Number of safe ends, and the first pair that cannot reach one by steps that happen by themselves.
    fn backwards(&self) -> (usize, Option<usize>) {
        let safe = |node: Node| self.nodes.safe[node as usize];
        let mut reaches = self.pairs.keys().map(|(a, b)| safe(*a) && safe(*b)).collect::<Vec<_>>();
        let ends = reaches.iter().filter(|r| **r).count();
        // most steps lead to a later pair: from the last to the first, until nothing is new
        let mut news = true;
        while std::mem::replace(&mut news, false) {
            for at in (0..self.pairs.len()).rev() {
                let to = &self.fair[self.fair_from[at]..self.fair_from[at + 1]];
                if !reaches[at] && to.iter().any(|to| reaches[*to as usize]) {
                    (reaches[at], news) = (true, true);
                }
            }
        }
        (ends, reaches.iter().position(|r| !r))
    }

    /// The way to a pair as the world of both volumes goes it, and one step further if that breaks a rule.
    fn story(&self, pair: usize, further: bool) -> Story {
        let mut way = vec![pair];
        while let Some(at) = way.last().copied().filter(|at| *at != 0) {
            way.push(self.pairs[at] as usize);
        }
        let mut world = self.model.initial();
        let mut story = Story::of(&self.model, &world);
        for at in way.into_iter().rev().skip(1) {
            let wanted = Some(self.pairs.keys()[at]);
            let leads_there = |next: &World| self.nodes.pair_of(next) == wanted;
            let mut steps = self.model.successors(&world).into_iter();
            let Some((step, next)) = steps.find_map(|(step, next)| Some((step, next.ok().filter(leads_there)?))) else {
                return story;
            };
            story.tell(step, &world, Some(&next));
            world = next;
        }
        let breaks = self.model.successors(&world).into_iter().find(|(_, next)| further && next.is_err());
        if let Some((step, _)) = breaks {
            story.tell(step, &world, None);
        }
        story
    }
}
