//! Prioritize: how well each of the nodes suits the pod's volumes.

use axum::body::Bytes;
use handoff_coordinator::verdicts::{NodeJudge, Placement};

use crate::{
    Answered, Deadline,
    args::{Args, NodeList},
    node_list,
    observe::Outcome,
    wire::{Malformed, Members, Text},
};

/// The scheduler multiplies scores by the extender's weight and by ten, and checks no bounds.
const SCORES: std::ops::RangeInclusive<i64> = 0..=10;

/// Bytes of an entry besides the node's name.
const SCORED_ENTRY: usize = r#"{"Host":"","Score":10},"#.len();

/// The clock is read once in so many nodes.
const STRIDE: usize = 64;

/// `HostPriorityList` for `ExtenderArgs`: how much better each node is than the worst of them. A node that is not in the
/// list has 0 to the scheduler, and only differences decide, so the many nodes that are no better than the worst are
/// left out: the scheduler, which schedules nobody else meanwhile, has a few entries to read in place of thousands.
///
/// Past the deadline there are no scores: some nodes with and some without would be worse than none.
pub(crate) fn answer(placement: &dyn Placement, body: &Bytes, deadline: Deadline) -> Result<Answered, Malformed> {
    let args = Args::parse(body)?;
    let claims = args.claims();
    let judge = if claims.is_empty() { None } else { placement.judge(&args.pod_ref(), &args.settings(), &claims) };
    let Some(judge) = judge else {
        return Ok(Answered { answer: b"[]".to_vec().into(), outcome: Outcome::Passed });
    };
    let scored = match (&args.node_names, &args.nodes) {
        (Some(names), _) => scores(&*judge, deadline, names.iter()),
        (None, nodes) => {
            let names = nodes.iter().flat_map(NodeList::items).filter_map(|node| node_list::name(node));
            scores(&*judge, deadline, names)
        }
    };
    let Some(scored) = scored else {
        return Ok(Answered { answer: Vec::new().into(), outcome: Outcome::Late });
    };
    Ok(Answered { answer: scored?.into(), outcome: Outcome::Judged { rejected: 0 } })
}

/// The list; `None`: the deadline passed before all nodes were looked at.
fn scores<'a, N: std::borrow::Borrow<Text<'a>>>(
    judge: &dyn NodeJudge,
    deadline: Deadline,
    names: impl Iterator<Item = N>,
) -> Option<serde_json::Result<Vec<u8>>> {
    let mut scored = Vec::with_capacity(names.size_hint().0);
    for (seen, name) in names.enumerate() {
        if seen.is_multiple_of(STRIDE) && deadline.passed() {
            return None;
        }
        let text: &Text<'a> = name.borrow();
        let score = judge.score(text).clamp(*SCORES.start(), *SCORES.end());
        scored.push((name, score));
    }
    let worst = scored.iter().map(|(_, score)| *score).min().unwrap_or_default();
    let better = || scored.iter().filter(|(_, score)| *score > worst);
    let room = better().map(|(name, _)| name.borrow().len() + SCORED_ENTRY).sum();
    let mut list = Members::open("[", room);
    Some(better().try_for_each(|(name, score)| list.score(name.borrow(), score - worst)).map(|()| list.close("]")))
}
