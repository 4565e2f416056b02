//! One move is one trace. Its identity is made from the `VolumeHandoff`'s UID and the start of the move, and the times of
//! its phases come from the journal, so reviews answered by one replica and steps taken by another, before and after a
//! restart, are parts of the same trace without anything being handed on between them.

use crate::{
    api::{VolumeHandoff, VolumeHandoffSpec, VolumeHandoffStatus},
    metrics::{MoveOutcome, trigger_of},
    phases::{self, Phase},
};
use jiff::Timestamp;
use kube::ResourceExt;
use sha2::{Digest, Sha256};

/// A part of a trace that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The trace.
    pub trace: [u8; 16],
    /// This part.
    pub id: [u8; 8],
    /// What it is a part of; `None` for the move itself.
    pub parent: Option<[u8; 8]>,
    /// What was done.
    pub name: String,
    /// Its beginning.
    pub start: Timestamp,
    /// Its end.
    pub end: Timestamp,
    /// What else is known, by OpenTelemetry's names where it has one.
    pub attributes: Vec<(&'static str, String)>,
    /// Why it failed, if it did.
    pub error: Option<String>,
}

/// Takes spans. Must be quick, must not block, and may drop them.
pub trait Traces: Send + Sync + 'static {
    /// Takes one.
    fn send(&self, span: Span);
}

/// The trace of one move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace([u8; 16]);

impl Trace {
    /// Of the move that a handoff records now. `None`: the object was never written.
    pub fn of(handoff: &VolumeHandoff) -> Option<Self> {
        Some(Self::of_move(handoff.metadata.uid.as_deref()?, handoff.spec.triggered_at))
    }

    /// Of the move of the handoff with this UID that started then.
    pub fn of_move(uid: &str, started: Timestamp) -> Self {
        Self(hashed(&[uid.as_bytes(), &started.as_nanosecond().to_be_bytes()]))
    }

    /// As it is written in logs.
    pub fn id(&self) -> String {
        format!("{:032x}", u128::from_be_bytes(self.0))
    }

    /// The span that all others are a part of.
    fn root(&self) -> [u8; 8] {
        hashed(&[&self.0, b"move"])
    }

    /// Something that was done for the move.
    pub fn step(&self, name: &str, start: Timestamp, end: Timestamp) -> Span {
        // the same may be done again
        self.part(name, start, end, &start.as_nanosecond().to_be_bytes())
    }

    fn part(&self, name: &str, start: Timestamp, end: Timestamp, which: &[u8]) -> Span {
        Span {
            trace: self.0,
            id: hashed(&[&self.0, name.as_bytes(), which]),
            parent: Some(self.root()),
            name: name.to_owned(),
            start,
            // clocks of two replicas
            end: end.max(start),
            attributes: Vec::new(),
            error: None,
        }
    }

    fn whole(&self, start: Timestamp, end: Timestamp) -> Span {
        Span { id: self.root(), parent: None, ..self.part("move", start, end, &[]) }
    }
}

/// The first bytes of a hash over parts that cannot run into each other.
fn hashed<const N: usize>(parts: &[&[u8]]) -> [u8; N] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.len().to_be_bytes());
        hash.update(part);
    }
    let hash = hash.finalize();
    let mut id = [0; N];
    id.copy_from_slice(&hash[..N]);
    id
}

impl Span {
    /// With one more attribute.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl Into<String>) -> Self {
        self.attributes.push((key, value.into()));
        self
    }

    /// With the reason why it failed, if it did.
    #[must_use]
    pub fn failed(mut self, error: Option<String>) -> Self {
        self.error = error;
        self
    }
}

/// What has ended between two journals of a handoff, the second one written at `now`: phases, and the move itself. The
/// same two journals give the same spans, so one that is sent twice is one.
pub fn ended(
    handoff: &VolumeHandoff,
    before: &VolumeHandoffStatus,
    after: &VolumeHandoffStatus,
    now: Timestamp,
) -> Vec<Span> {
    let Some(uid) = handoff.metadata.uid.as_deref() else { return Vec::new() };
    let trace = Trace::of_move(uid, handoff.spec.triggered_at);
    let ended = phases::ended(&handoff.spec, before, after);
    // the move itself is the whole
    let parts = ended.phases.into_iter().filter(|(phase, ..)| *phase != Phase::Total);
    let mut spans =
        parts.map(|(phase, since, until)| trace.part(phase.as_str(), since, until, &[])).collect::<Vec<_>>();
    for (backup, since, until) in ended.backups {
        let resume = after.resumes.iter().find(|r| r.backup == backup);
        let span = trace.part(Phase::Resume.as_str(), since, until, backup.as_bytes());
        let span = span.with("handoff.backup", backup);
        spans.push(match resume {
            Some(r) => span.with("handoff.state", r.state.as_str()).with("handoff.attempts", r.attempts.to_string()),
            None => span,
        });
    }
    for (status, outcome) in MoveOutcome::ended(before, after) {
        let Some(started) = status.move_started_at else { continue };
        let ready = status.timeline.iter().find(|s| s.what == "WorkloadReady").map(|s| s.at);
        let end = ready.or(status.finished_at).unwrap_or(now);
        spans.push(described(Trace::of_move(uid, started).whole(started, end), handoff, status, outcome));
    }
    spans
}

fn described(span: Span, handoff: &VolumeHandoff, status: &VolumeHandoffStatus, outcome: MoveOutcome) -> Span {
    let VolumeHandoffSpec { volume, pod, .. } = &handoff.spec;
    span.with("k8s.namespace.name", handoff.namespace().unwrap_or_default())
        .with("k8s.pod.name", pod.name.clone())
        .with("k8s.persistentvolumeclaim.name", volume.claim.clone())
        .with("k8s.persistentvolume.name", volume.volume.clone())
        .with("handoff.from", status.from.clone())
        .with("handoff.to", status.to.clone().unwrap_or_default())
        .with("handoff.trigger", trigger_of(&handoff.spec, status).as_str())
        .with("handoff.outcome", outcome.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::Trigger,
        decide::tests::{Story, at, backup, pod, request, volume},
    };
    use handoff_cluster::Pod;
    use handoff_storage::{BackupState, VolumeState};
    use std::{collections::BTreeMap, sync::Arc};

    struct Traced {
        story: Story,
        spans: Vec<Span>,
    }

    impl Traced {
        fn see(&mut self, seconds: f64) {
            let before = self.story.journal().clone();
            self.story.decide(seconds);
            let mut handoff = VolumeHandoff::new("pv", self.story.spec().clone());
            handoff.metadata.uid = Some("uid".into());
            handoff.metadata.namespace = Some("shop".into());
            self.spans.extend(ended(&handoff, &before, self.story.journal(), at(seconds)));
        }
    }

    fn moved() -> Traced {
        let mut traced = Traced { story: Story::begin(&["b1"]), spans: Vec::new() };
        traced.see(0.1);
        traced.story.obs.pods = vec![Arc::new(Pod { terminating: true, ..pod("old", Some("a")) })];
        traced.see(1.0);
        traced.story.obs.pods = vec![Arc::new(pod("new", Some("b")))];
        traced.story.obs.volume = Some(volume(VolumeState::Detached, None, vec![request("b", false, false)]));
        traced.story.obs.backups = vec![backup("b1", BackupState::Lost, Some(2.0))];
        traced.see(3.0);
        traced.story.obs.pods = vec![Arc::new(Pod { ready: true, ..pod("new", Some("b")) })];
        traced.story.obs.volume = Some(volume(VolumeState::Attached, Some("b"), vec![request("b", false, true)]));
        traced.see(9.0);
        traced.story.obs.backups = vec![backup("b1", BackupState::Completed, Some(20.0))];
        traced.see(20.0);
        traced.see(21.0);
        traced
    }

    #[test]
    fn a_move_is_one_trace_with_each_phase_once() {
        let Traced { spans, .. } = moved();
        let names = spans.iter().map(|s| s.name.as_str()).collect::<Vec<_>>();
        let count = |name: &str| names.iter().filter(|n| **n == name).count();
        for name in ["detach", "attach", "ready", "resume", "move"] {
            assert_eq!(count(name), 1, "{name} in {names:?}");
        }
        let root = spans.iter().find(|s| s.parent.is_none()).unwrap();
        assert!(spans.iter().all(|s| s.trace == root.trace && (s.parent == Some(root.id) || s.id == root.id)));
        assert_eq!((root.start, root.end), (at(0.0), at(9.0)));
        let attributes = root.attributes.iter().cloned().collect::<BTreeMap<_, _>>();
        assert_eq!((&*attributes["handoff.to"], &*attributes["handoff.outcome"]), ("b", "ready"));
        let ids = spans.iter().map(|s| s.id).collect::<std::collections::BTreeSet<_>>();
        assert_eq!(ids.len(), spans.len());
    }

    #[test]
    fn after_a_restart_the_same_journals_give_the_same_spans() {
        assert_eq!(moved().spans, moved().spans);
    }

    #[test]
    fn the_next_move_is_another_trace_and_the_one_before_ends_there() {
        let mut traced = Traced { story: Story::begin(&["b1"]), spans: Vec::new() };
        traced.see(0.1);
        traced.story.trigger_again(Trigger::Deletion, 8.0);
        traced.see(8.5);
        let [old] = &traced.spans[..] else { panic!("{:?}", traced.spans) };
        assert_eq!((old.start, old.end, old.parent), (at(0.0), at(8.5), None));
        assert!(old.attributes.contains(&("handoff.outcome", "replaced".into())));
        assert_ne!(old.trace, Trace::of_move("uid", at(8.0)).0);
        assert_eq!(old.trace, Trace::of_move("uid", at(0.0)).0);
    }

    #[test]
    fn identities_are_of_handoff_and_move() {
        let trace = |uid, seconds| Trace::of_move(uid, at(seconds));
        assert_eq!(trace("a", 0.0), trace("a", 0.0));
        assert_ne!(trace("a", 0.0), trace("b", 0.0));
        assert_ne!(trace("a", 0.0), trace("a", 1.0));
        assert_eq!(trace("a", 0.0).id().len(), 32);
        let step = |seconds| trace("a", 0.0).step("Probe", at(seconds), at(seconds));
        assert_ne!(step(1.0).id, step(2.0).id, "done twice");
    }
}
