//! Filter: which of the nodes can take the pod's volumes.

use handoff_coordinator::verdicts::{NodeFitness, NodeJudge, Placement};

use crate::{
    Answered, node_list,
    observe::Outcome,
    wire::{Args, Malformed, Members, Text},
};

/// Bytes that a short reason and its node's name take; only a first guess at the answer's size.
const FAILED_ENTRY: usize = 96;

/// Sorts nodes into those that pass and those that do not.
struct Sieve<'j> {
    judge: Option<Box<dyn NodeJudge + 'j>>,
    /// The rejections go to `FailedAndUnresolvableNodes`: from `FailedNodes` the scheduler would try to make room by
    /// preemption, i.e. evict pods that have nothing to do with it. Without an entry the pod's event has no reason.
    failed: Members,
    rejected: usize,
}

impl Sieve<'_> {
    fn passes(&mut self, name: &Text<'_>) -> serde_json::Result<bool> {
        match self.judge.as_ref().map(|judge| judge.node(name)) {
            Some(NodeFitness::Unfit { reason }) => {
                self.failed.entry(name, &reason)?;
                self.rejected += 1;
                Ok(false)
            }
            Some(NodeFitness::Fits { .. }) | None => Ok(true),
        }
    }
}

/// `ExtenderFilterResult` for `ExtenderArgs`, in the order of the question. The list that was not asked about stays
/// null: with `nodeCacheCapable` the scheduler looks at `NodeNames`, without it at `Nodes` only.
pub(crate) fn answer(placement: &dyn Placement, body: &[u8]) -> Result<Answered, Malformed> {
    let args = Args::parse(body)?;
    let claims = args.claims();
    let judge = if claims.is_empty() { None } else { placement.judge(args.namespace(), &claims) };
    let judged = judge.is_some();
    let mut sieve = Sieve { judge, failed: Members::open("{", FAILED_ENTRY), rejected: 0 };

    let mut out = Vec::with_capacity(body.len() + FAILED_ENTRY);
    out.extend_from_slice(br#"{"Nodes":"#);
    match &args.nodes {
        Some(list) => {
            let mut items = Members::open(r#"{"metadata":{},"items":["#, body.len());
            for node in list.items() {
                // A node whose name we cannot read is one that we know nothing of, so it passes.
                let passes =
                    if judged { node_list::name(node).map_or(Ok(true), |name| sieve.passes(&name))? } else { true };
                if passes {
                    items.raw(node);
                }
            }
            out.append(&mut items.close("]}"));
        }
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(br#","NodeNames":"#);
    match &args.node_names {
        Some(list) => {
            let mut names = Members::open("[", body.len());
            for name in list {
                if sieve.passes(name)? {
                    names.string(name)?;
                }
            }
            out.append(&mut names.close("]"));
        }
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(br#","FailedNodes":null,"FailedAndUnresolvableNodes":"#);
    let Sieve { failed, rejected, .. } = sieve;
    out.append(&mut failed.close("}"));
    out.extend_from_slice(br#","Error":""}"#);

    if rejected > 0 {
        tracing::debug!(namespace = args.namespace(), ?claims, rejected, "nodes rejected");
    }
    let outcome = if judged { Outcome::Judged { rejected } } else { Outcome::Passed };
    Ok(Answered { body: out, outcome })
}
