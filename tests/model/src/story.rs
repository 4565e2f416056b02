//! A path through the model as a story: what happened, and what it changed.

use crate::{
    model::Model,
    step::Step,
    world::{Journal, MAX_BACKUPS, NODE_NAMES, Node, Resumed, World},
};
use std::fmt;

/// A path, told line by line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Story {
    lines: Vec<String>,
}

fn name(node: Node) -> &'static str {
    NODE_NAMES[usize::from(node)]
}

fn maybe(node: Option<Node>) -> &'static str {
    node.map_or("nowhere", name)
}

impl Story {
    /// The beginning.
    pub fn of(model: &Model, w: &World) -> Self {
        let config = &model.config;
        let kind = if config.deployment { "Deployment" } else { "StatefulSet" };
        let waits = if config.waits { "a detach waits for the upload" } else { "a move cuts the upload" };
        let at = maybe(w.volumes[0].storage.at);
        let lines = vec![format!(
            "a {kind} with {} volume(s) runs on {at} of {} nodes; {} backup(s) upload; Longhorn: {waits}",
            config.volumes, config.nodes, config.running
        )];
        Self { lines }
    }

    /// One more step; `after` is missing when the step itself broke a rule.
    pub fn tell(&mut self, step: Step, before: &World, after: Option<&World>) {
        let changes = after.map(|after| changes(before, after)).unwrap_or_default();
        let tail = if changes.is_empty() { String::new() } else { format!(": {}", changes.join(", ")) };
        self.lines.push(format!("{step}{tail}"));
    }

    /// Number of steps.
    pub fn len(&self) -> usize {
        self.lines.len().saturating_sub(1)
    }

    /// No step at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn changes(before: &World, after: &World) -> Vec<String> {
    let mut out = Vec::new();
    for (v, (was, is)) in before.volumes.iter().zip(&after.volumes).enumerate() {
        let requests = was.storage.tickets.iter().zip(&is.storage.tickets).zip(NODE_NAMES);
        for ((was, is), node) in requests.filter(|((was, is), _)| was != is) {
            out.push(format!("request for v{v} on {node} {was:?}→{is:?}"));
        }
        if was.storage.at != is.storage.at {
            out.push(format!("v{v} {}→{}", maybe(was.storage.at), maybe(is.storage.at)));
        }
        for b in 0..MAX_BACKUPS {
            let (was, is) = (was.storage.backups[b].cr, is.storage.backups[b].cr);
            if was != is {
                out.push(format!("backup v{v}/b{b} {was:?}→{is:?}"));
            }
        }
        match (was.handoff, is.handoff) {
            (Some(_), None) => out.push(format!("handoff of v{v} deleted")),
            (was, Some(is)) => {
                if was.is_none_or(|h| {
                    h.checkpoints.map(|c| c.is_some()) != is.checkpoints.map(|c| c.is_some()) || h.pod != is.pod
                }) {
                    let owed = (0..MAX_BACKUPS).filter(|b| is.checkpoints[*b].is_some()).map(|b| format!("b{b}"));
                    let owed = owed.collect::<Vec<_>>().join("+");
                    out.push(format!("handoff of v{v} leaves {} with [{owed}]", name(is.from)));
                }
                journal(&was.map(|h| h.journal).unwrap_or_default(), &is.journal, &mut out);
            }
            (None, None) => {}
        }
    }
    for (p, (was, is)) in before.replicas.iter().zip(&after.replicas).enumerate() {
        if let Some(plan) = is.plan.as_ref().filter(|_| was.plan.is_none()) {
            let acts = plan.acts.iter().flatten().map(|a| format!("{a:?}")).collect::<Vec<_>>().join(", ");
            out.push(format!("replica {p} is about to write and do [{acts}]"));
        }
    }
    out
}

fn journal(was: &Journal, is: &Journal, out: &mut Vec<String>) {
    if was.staged.map(|s| (s.node, s.outcome)) != is.staged.map(|s| (s.node, s.outcome)) {
        out.push(match is.staged.map(|s| (name(s.node), s.outcome)) {
            None => "journal: no pre-stage".to_owned(),
            Some((node, None)) => format!("journal: pre-stage on {node}"),
            Some((node, Some(true))) => format!("journal: pre-stage on {node} adopted"),
            Some((node, Some(false))) => format!("journal: pre-stage on {node} withdrawn"),
        });
    }
    let plain = |r: Option<(Resumed, u8)>| {
        r.map(|(r, attempts)| {
            let state = format!("{r:?}");
            (state.split([' ', '{']).next().unwrap_or_default().to_owned(), attempts)
        })
    };
    for b in 0..MAX_BACKUPS {
        let (was, is) = (plain(was.resumes[b]), plain(is.resumes[b]));
        if let (false, Some((state, attempts))) = (was == is, is) {
            out.push(format!("journal: b{b} {state} (attempts {attempts})"));
        }
    }
    if was.finished.is_none() && is.finished.is_some() {
        out.push("journal: finished".to_owned());
    }
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, line) in self.lines.iter().enumerate() {
            writeln!(f, "  {i:>3}. {line}")?;
        }
        Ok(())
    }
}
