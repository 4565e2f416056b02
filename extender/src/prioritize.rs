//! Prioritize: how well each of the nodes suits the pod's volumes.

use axum::body::Bytes;
use handoff_coordinator::verdicts::Placement;

use crate::{
    Answered, Deadline,
    args::{Args, NodeList},
    node_list,
    observe::Outcome,
    wire::{Malformed, Members, Text},
};

/// The scheduler multiplies scores by the extender's weight and by ten, and checks no bounds.
const SCORES: std::ops::RangeInclusive<i64> = 0..=10;

/// Bytes around a name in the answer.
const SCORE_ENTRY: usize = 24;
/// The clock is read once in so many nodes.
const STRIDE: usize = 64;

/// `HostPriorityList` for `ExtenderArgs`. A node that nothing is known of gets 0. Past the deadline there are no scores:
/// some nodes with and some without would be worse than none.
pub(crate) fn answer(placement: &dyn Placement, body: &Bytes, deadline: Deadline) -> Result<Answered, Malformed> {
    let args = Args::parse(body)?;
    let claims = args.claims();
    let judge = if claims.is_empty() { None } else { placement.judge(&args.pod_ref(), &args.settings(), &claims) };
    let scores = Scores { judge: judge.as_deref(), deadline };
    let (list, late) = match (&args.node_names, &args.nodes) {
        (Some(names), _) => scores.of(names.iter())?,
        (None, nodes) => {
            let names = nodes.iter().flat_map(NodeList::items).filter_map(|node| node_list::name(node));
            scores.of(names)?
        }
    };
    let outcome = match (judge.is_some(), late) {
        (_, true) => Outcome::Late,
        (true, false) => Outcome::Judged { rejected: 0 },
        (false, false) => Outcome::Passed,
    };
    Ok(Answered { answer: list.close("]").into(), outcome })
}

struct Scores<'j> {
    judge: Option<&'j dyn handoff_coordinator::verdicts::NodeJudge>,
    deadline: Deadline,
}

impl Scores<'_> {
    /// The list so far, and whether it is incomplete because the deadline passed.
    fn of<'a, N: std::borrow::Borrow<Text<'a>>>(
        &self,
        names: impl Iterator<Item = N>,
    ) -> serde_json::Result<(Members, bool)> {
        let mut list = Members::open("[", names.size_hint().0 * SCORE_ENTRY * 2);
        for (seen, name) in names.enumerate() {
            if seen.is_multiple_of(STRIDE) && self.judge.is_some() && self.deadline.passed() {
                return Ok((list, true));
            }
            let name = name.borrow();
            let score = self.judge.map_or(0, |judge| judge.score(name));
            list.score(name, score.clamp(*SCORES.start(), *SCORES.end()))?;
        }
        Ok((list, false))
    }
}
