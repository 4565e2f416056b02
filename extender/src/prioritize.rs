//! Prioritize: how well each of the nodes suits the pod's volumes.

use handoff_coordinator::verdicts::{NodeFitness, Placement};

use crate::{
    Answered, node_list,
    observe::Outcome,
    wire::{Args, Malformed, Members, NodeList, Text},
};

/// The scheduler multiplies scores by the extender's weight and by ten, and checks no bounds.
const SCORES: std::ops::RangeInclusive<i64> = 0..=10;

/// Bytes around a name in the answer.
const SCORE_ENTRY: usize = 24;

/// `HostPriorityList` for `ExtenderArgs`. A node that could not take the pod has passed a filter of ours only if the
/// world has changed in between; it gets 0, the same as one that we know nothing of.
pub(crate) fn answer(placement: &dyn Placement, body: &[u8]) -> Result<Answered, Malformed> {
    let args = Args::parse(body)?;
    let claims = args.claims();
    let judge = if claims.is_empty() { None } else { placement.judge(args.namespace(), &claims) };
    let outcome = if judge.is_some() { Outcome::Judged { rejected: 0 } } else { Outcome::Passed };
    let score = |name: &Text<'_>| match judge.as_ref().map(|judge| judge.node(name)) {
        Some(NodeFitness::Fits { score }) => score.clamp(*SCORES.start(), *SCORES.end()),
        Some(NodeFitness::Unfit { .. }) | None => 0,
    };

    let list = match (&args.node_names, &args.nodes) {
        (Some(names), _) => {
            let mut list = Members::open("[", names.iter().map(|name| name.len() + SCORE_ENTRY).sum());
            for name in names {
                list.score(name, score(name))?;
            }
            list
        }
        (None, nodes) => {
            let mut list = Members::open("[", 0);
            for name in nodes.iter().flat_map(NodeList::items).filter_map(|node| node_list::name(node)) {
                list.score(&name, score(&name))?;
            }
            list
        }
    };
    Ok(Answered { body: list.close("]"), outcome })
}
