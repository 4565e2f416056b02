//! Filter: which of the nodes can take the pod's volumes.

use std::ops::Range;

use axum::body::Bytes;
use handoff_coordinator::verdicts::{NodeJudge, Placement};

use crate::{
    Answered, Deadline,
    answer::Answer,
    args::{Args, NodeList},
    node_list,
    observe::Outcome,
    wire::{Malformed, Members, Text},
};

/// Bytes that a short reason and its node's name take; only a first guess at the answer's size.
const FAILED_ENTRY: usize = 96;
/// What is between two strings of a list.
const BETWEEN: &str = r#"",""#;
/// The clock is read once in so many nodes.
const STRIDE: usize = 64;

/// Sorts nodes into those that pass and those that do not.
struct Sieve<'j> {
    judge: Option<Box<dyn NodeJudge + 'j>>,
    deadline: Deadline,
    /// The rejections go to `FailedAndUnresolvableNodes`: from `FailedNodes` the scheduler would try to make room by
    /// preemption, i.e. evict pods that have nothing to do with it. Without an entry the pod's event has no reason.
    failed: Members,
    seen: usize,
    rejected: usize,
    late: bool,
}

impl Sieve<'_> {
    fn passes(&mut self, name: &Text<'_>) -> serde_json::Result<bool> {
        if self.seen.is_multiple_of(STRIDE) && self.judge.is_some() && self.deadline.passed() {
            // an answer that comes too late is none: what was not judged by now passes
            self.judge = None;
            self.late = true;
        }
        self.seen += 1;
        match self.judge.as_ref().map(|judge| judge.fits(name)) {
            Some(Err(reason)) => {
                self.failed.entry(name, &reason)?;
                self.rejected += 1;
                Ok(false)
            }
            Some(Ok(())) | None => Ok(true),
        }
    }
}

/// `ExtenderFilterResult` for `ExtenderArgs`, in the order of the question. The list that was not asked about stays
/// null: with `nodeCacheCapable` the scheduler looks at `NodeNames`, without it at `Nodes` only.
pub(crate) fn answer(placement: &dyn Placement, body: &Bytes, deadline: Deadline) -> Result<Answered, Malformed> {
    let args = Args::parse(body)?;
    let claims = args.claims();
    let judge = if claims.is_empty() { None } else { placement.judge(&args.pod_ref(), &args.settings(), &claims) };
    let judged = judge.is_some();
    let failed = Members::open("{", FAILED_ENTRY);
    let mut sieve = Sieve { judge, deadline, failed, seen: 0, rejected: 0, late: false };

    let names = args.node_names.as_deref();
    let room = names.unwrap_or_default().iter().map(|name| name.len() + 3).sum::<usize>();
    let mut out = Answer::with_capacity(room + FAILED_ENTRY);
    out.text().extend_from_slice(br#"{"Nodes":"#);
    match &args.nodes {
        Some(list) => passing_nodes(list, body, &mut sieve, judged, &mut out)?,
        None => out.text().extend_from_slice(b"null"),
    }
    out.text().extend_from_slice(br#","NodeNames":"#);
    match names {
        Some(list) => passing_names(list, body, &mut sieve, out.text())?,
        None => out.text().extend_from_slice(b"null"),
    }
    out.text().extend_from_slice(br#","FailedNodes":null,"FailedAndUnresolvableNodes":"#);
    let Sieve { failed, rejected, seen, late, .. } = sieve;
    out.text().append(&mut failed.close("}"));
    out.text().extend_from_slice(br#","Error":""}"#);

    if rejected > 0 {
        tracing::debug!(namespace = args.namespace(), ?claims, rejected, of = seen, "nodes rejected");
    }
    if rejected > 0 && rejected == seen {
        placement.rejected(args.pod_ref(), claims, asked_about(&args));
    }
    let outcome = match (judged, late) {
        (_, true) => Outcome::Late,
        (true, false) => Outcome::Judged { rejected },
        (false, false) => Outcome::Passed,
    };
    Ok(Answered { answer: out, outcome })
}

/// Where in the body this part of it starts.
fn place(part: &str, body: &Bytes) -> usize {
    part.as_ptr().addr() - body.as_ptr().addr()
}

/// The names that pass. Neighbours are copied as one piece, with the quotes and the comma between them.
fn passing_names(list: &[Text<'_>], body: &Bytes, sieve: &mut Sieve<'_>, out: &mut Vec<u8>) -> serde_json::Result<()> {
    let mut names = Members::after(std::mem::take(out), "[");
    let mut run: Option<Range<usize>> = None;
    for name in list {
        if !sieve.passes(name)? {
            continue;
        }
        let next = name.as_it_came().map(|text| {
            let start = place(text, body);
            start..start + text.len()
        });
        match (&mut run, next) {
            // between two strings of a list so close to each other there is a comma
            (Some(run), Some(next)) if run.end + BETWEEN.len() == next.start => run.end = next.end,
            (_, next) => {
                names.piece(body, std::mem::replace(&mut run, next.clone()));
                if next.is_none() {
                    names.string(name)?;
                }
            }
        }
    }
    names.piece(body, run);
    *out = names.close("]");
    Ok(())
}

/// The nodes that pass, as slices of the question: neighbours stay one slice, with the comma between them.
fn passing_nodes(
    list: &NodeList<'_>,
    body: &Bytes,
    sieve: &mut Sieve<'_>,
    judged: bool,
    out: &mut Answer,
) -> serde_json::Result<()> {
    out.text().extend_from_slice(br#"{"metadata":{},"items":["#);
    let mut run: Option<Range<usize>> = None;
    let mut first = true;
    for node in list.items() {
        // A node whose name we cannot read is one that we know nothing of, so it passes.
        let passes = if judged { node_list::name(node).map_or(Ok(true), |name| sieve.passes(&name))? } else { true };
        if passes {
            let start = place(node.get(), body);
            run.get_or_insert(start..start).end = start + node.get().len();
        } else if let Some(run) = run.take() {
            comma(&mut first, out);
            out.slice(body.slice(run));
        }
    }
    if let Some(run) = run {
        comma(&mut first, out);
        out.slice(body.slice(run));
    }
    out.text().extend_from_slice(b"]}");
    Ok(())
}

fn comma(first: &mut bool, out: &mut Answer) {
    if !std::mem::replace(first, false) {
        out.text().push(b',');
    }
}

fn asked_about(args: &Args<'_>) -> Vec<String> {
    let by_name = args.node_names.iter().flatten().map(|name| name.to_string());
    let nodes = args.nodes.iter().flat_map(NodeList::items).filter_map(|node| node_list::name(node));
    by_name.chain(nodes.map(|name| name.to_string())).collect()
}
