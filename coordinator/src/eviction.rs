//! What an eviction is answered. Under `Checkpoint` what is in flight is written down and the pod may go; under
//! `FinishIfNear` the answer is 429 while a backup is about to be complete, with a deadline that counts from the first
//! denial and is kept in the `VolumeHandoff`.
//!
//! An eviction that is allowed here can still be refused by a disruption budget, and comes again: the record is then
//! the same, and if the pod never leaves, the backup simply ends.

use crate::{
    api::{Hold, Trigger, VolumeHandoffSpec},
    metrics::{FailedOpen, Held},
    mode::Layers,
    observation::Observation,
    policy::after,
    reason::Reason,
    shell::Coordinator,
    tell::About,
    trace::Trace,
    verdicts::{DeletedPod, EvictionVerdict, PodRef},
};
use futures::future::join_all;
use handoff_cluster::{
    Node, ObjectKey, Pod, Volume, live,
    settings::{EvictionPolicy, LONGEST_HOLD, MaxHold, Mode},
};
use handoff_storage::BackupView;
use jiff::{SignedDuration, Timestamp};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// A look at the API server during a review takes no longer than this.
const LIVE_TIMEOUT: Duration = Duration::from_secs(1);
/// Looks at the API server that reviews may make at the same time; past it, an eviction is allowed unseen.
pub(crate) const LIVE_LOOKS: usize = 8;
/// `kubectl drain` asks again 5 s after a 429, cluster-autoscaler and Karpenter 10 s after it: an eviction that was meant
/// for the pod before arrives this long after its replacement was made, at most.
const MISTAKEN_FOR: SignedDuration = SignedDuration::from_secs(30);
/// A hold that is over is remembered this long, so that the next backup does not begin another one.
const HOLD_REMEMBERED: SignedDuration = SignedDuration::from_mins(10);
/// `KubeVirt`'s word for "not yet, and under way", by which the descheduler knows an eviction in the background.
const IN_BACKGROUND: &str = "Eviction triggered evacuation";

/// One volume of a pod that leaves, with backups in flight.
struct Leaving {
    volume: Arc<Volume>,
    obs: Observation,
    layers: Layers,
    mode: Mode,
}

/// What decides whether a volume's backups are worth a hold.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    policy: EvictionPolicy,
    max_hold: SignedDuration,
    /// The hold of this pod as recorded, over or not.
    held: Option<Hold>,
    /// How long the slowest of its backups still takes; `None` when nothing can be said.
    remaining: Option<SignedDuration>,
}

/// The hold that applies now. `first` is the first denial of the pod, for whichever of its volumes.
fn hold(candidate: &Candidate, first: Option<Timestamp>, now: Timestamp) -> Option<Hold> {
    if candidate.policy != EvictionPolicy::FinishIfNear {
        return None;
    }
    let new = || {
        let since = first.unwrap_or(now);
        let deadline = after(since, candidate.max_hold.min(LONGEST_HOLD));
        candidate.remaining.filter(|left| after(now, *left) <= deadline).map(|_| Hold { since, deadline })
    };
    let hold = candidate.held.or_else(new)?;
    // whatever is recorded: never longer than the longest
    let until = hold.deadline.min(after(hold.since, LONGEST_HOLD));
    (now >= hold.since && now < until).then_some(Hold { deadline: until, ..hold })
}

/// Whether an eviction by name alone is meant for the pod that had this name before. A drain that was told "not yet"
/// asks again by name; if the pod has been replaced on another node meanwhile, it would evict the replacement. A drain
/// of the replacement's own node is never mistaken: that node is cordoned.
fn is_meant_for_the_one_before(
    pod: &Pod,
    before: &VolumeHandoffSpec,
    from_cordoned: bool,
    node_open: bool,
    now: Timestamp,
) -> bool {
    let replaces = before.trigger == Trigger::Eviction
        && before.pod.name == pod.key.name
        && before.pod.uid != pod.uid
        && pod.node.as_deref() != Some(before.from.as_str());
    // creation times are whole seconds
    let young = pod.created.is_some_and(|created| {
        now.duration_since(created) < MISTAKEN_FOR && created + SignedDuration::from_secs(1) >= before.triggered_at
    });
    replaces && young && !pod.terminating && from_cordoned && node_open
}

impl Coordinator {
    /// What the eviction of a pod is answered.
    pub(crate) async fn judge_eviction(&self, asked: &PodRef, dry_run: bool, now: Timestamp) -> EvictionVerdict {
        let began = self.clock.now();
        let Some(pod) = self.find(asked).await else { return EvictionVerdict::Allow { note: None } };
        if let Some(message) = self.has_moved(asked, &pod, now).await {
            return EvictionVerdict::Gone { message };
        }
        let (leaving, mut notes) = self.leaving(&pod);
        let (watched, leaving): (Vec<_>, Vec<_>) = leaving.into_iter().partition(|l| l.mode == Mode::Observe);
        let holds = self.holds(&pod, &leaving, now);
        let written = leaving.iter().zip(&holds).map(|(l, (hold, record))| async {
            let written = self.record(&pod, l, Trigger::Eviction, *record, dry_run).await;
            // not written down, not held: nobody would know when it began
            (if written.is_ok() { *hold } else { None }, written.unwrap_or_else(|failed| failed))
        });
        let mut until = None;
        for (hold, note) in join_all(written).await {
            until = until.max(hold.map(|h| h.deadline));
            notes.push(note);
        }
        notes.extend(self.would_do(&pod, &watched, dry_run, now));
        if !dry_run {
            let volumes = leaving.iter().map(|l| l.volume.name.as_str());
            self.trace_review("review eviction", volumes, &pod, began, until.is_some());
        }
        let Some(until) = until else {
            let over = |(hold, record): &(Option<Hold>, Option<Hold>)| hold.is_none() && record.is_some();
            if !dry_run && holds.iter().any(over) {
                self.metrics.hold_expired(Held::Pod);
            }
            return EvictionVerdict::Allow { note: (!notes.is_empty()).then(|| notes.join("; ")) };
        };
        let message = self.hold_message(&pod, &leaving, until, now);
        if !dry_run {
            self.metrics.held(Held::Pod);
            self.tell_of_hold(&pod, &leaving, &holds, &message, now);
        }
        EvictionVerdict::Hold { message }
    }

    /// Writes down what is in flight on the volumes of a pod that is deleted. One that the cache does not know yet is
    /// taken as the review shows it.
    pub(crate) async fn note_deletion(&self, deleted: DeletedPod, dry_run: bool, now: Timestamp) {
        let Some(pod) = self.cached(&deleted.pod).or_else(|| as_reviewed(deleted)) else { return };
        let (leaving, warnings) = self.leaving(&pod);
        for warning in warnings {
            tracing::warn!(pod = %pod.key, warning);
        }
        let (watched, leaving): (Vec<_>, Vec<_>) = leaving.into_iter().partition(|l| l.mode == Mode::Observe);
        join_all(leaving.iter().map(|l| self.record(&pod, l, Trigger::Deletion, None, dry_run))).await;
        self.would_do(&pod, &watched, dry_run, now);
    }

    pub(crate) fn cached(&self, asked: &PodRef) -> Option<Arc<Pod>> {
        let found = self.cluster.read().pod(&ObjectKey::new(&asked.namespace, &asked.name))?;
        asked.uid.as_ref().is_none_or(|uid| *uid == found.uid).then_some(found)
    }

    /// The pod; one that the cache does not know (yet, or under this UID) is looked up live, once. `None`: there is no
    /// such pod, or nothing could be learnt in time, and the API server is to decide.
    async fn find(&self, asked: &PodRef) -> Option<Arc<Pod>> {
        if let Some(pod) = self.cached(asked) {
            return Some(pod);
        }
        let key = ObjectKey::new(&asked.namespace, &asked.name);
        let Ok(_permit) = self.live.try_acquire() else {
            tracing::warn!(pod = %key, "too many evictions of unknown pods at a time: allowed unseen");
            self.metrics.failed_open(FailedOpen::Unseen);
            return None;
        };
        let pod = match tokio::time::timeout(LIVE_TIMEOUT, live::pod(&self.client, &key)).await {
            Ok(Ok(pod)) => pod?,
            Ok(Err(error)) => {
                tracing::warn!(pod = %key, %error, "eviction of an unknown pod: allowed unseen");
                self.metrics.failed_open(FailedOpen::Unseen);
                return None;
            }
            Err(_) => {
                tracing::warn!(pod = %key, "eviction of an unknown pod, and no answer in time: allowed unseen");
                self.metrics.failed_open(FailedOpen::Unseen);
                return None;
            }
        };
        asked.uid.as_ref().is_none_or(|uid| *uid == pod.uid).then(|| Arc::new(pod))
    }

    /// The pod's volumes that Handoff cares for and that have backups in flight; and what is wrong with annotations.
    fn leaving(&self, pod: &Pod) -> (Vec<Leaving>, Vec<String>) {
        let (mut leaving, mut warnings) = (Vec::new(), Vec::new());
        for volume in self.volumes(&pod.key.namespace, &pod.claims) {
            let layers = self.layers(&pod.settings, &volume);
            for warning in layers.warnings() {
                if !warnings.contains(&warning) {
                    warnings.push(warning);
                }
            }
            let mode = layers.mode(self.policy.mode);
            if mode == Mode::Disabled {
                continue;
            }
            // most pods leave without a backup in flight: the whole picture is put together for the others only
            if !self.storage.backups(&volume.handle).iter().any(BackupView::in_flight) {
                continue;
            }
            let obs = self.observe(&volume);
            if obs.in_flight().next().is_some() {
                leaving.push(Leaving { volume, obs, layers, mode });
            }
        }
        (leaving, warnings)
    }

    /// For each volume: the hold that applies now, and the one to record.
    fn holds(&self, pod: &Pod, leaving: &[Leaving], now: Timestamp) -> Vec<(Option<Hold>, Option<Hold>)> {
        let candidates = leaving.iter().map(|l| self.candidate(pod, l, now)).collect::<Vec<_>>();
        let first = candidates.iter().filter_map(|c| c.held).map(|h| h.since).min();
        // a pod that is on no node or on its way out has nothing to wait for
        let may = pod.stays() && pod.node.is_some();
        let of = |c: &Candidate| if may { hold(c, first, now) } else { None };
        candidates.iter().map(|c| (of(c), c.held.or(of(c)))).collect()
    }

    fn candidate(&self, pod: &Pod, leaving: &Leaving, now: Timestamp) -> Candidate {
        let layers = &leaving.layers;
        let recorded = self.current(&leaving.volume.name).filter(|h| h.spec.pod.uid == pod.uid);
        let held = recorded.and_then(|h| h.spec.hold).filter(|h| now < after(h.deadline, HOLD_REMEMBERED));
        Candidate {
            policy: layers.resolve(|given| &given.eviction_policy, self.policy.eviction_policy),
            max_hold: layers.resolve(|given| &given.max_hold, MaxHold(self.policy.eviction_hold)).0,
            held,
            remaining: self.remaining(&leaving.obs, now),
        }
    }

    /// How long the slowest backup in flight still takes; `None` when that cannot be said of one of them.
    fn remaining(&self, obs: &Observation, now: Timestamp) -> Option<SignedDuration> {
        let left = obs.in_flight().map(|b| self.progress.remaining(b, now)).collect::<Option<Vec<_>>>()?;
        left.into_iter().max()
    }

    /// Writes a checkpoint. The sentence is for the person who drains.
    async fn record(
        &self,
        pod: &Pod,
        leaving: &Leaving,
        trigger: Trigger,
        hold: Option<Hold>,
        dry_run: bool,
    ) -> Result<String, String> {
        let Leaving { volume, obs, .. } = leaving;
        let backups = obs.in_flight().collect::<Vec<_>>();
        if !dry_run && let Err(error) = self.checkpoint(volume, pod, trigger, hold, &backups, obs).await {
            // the move goes on: the lease holder sees the pod leave and records it from there
            tracing::error!(volume = volume.name, pod = %pod.key, %error, "cannot checkpoint");
            self.metrics.failed("Checkpoint");
            self.metrics.failed_open(FailedOpen::NotRecorded);
            return Err(format!("handoff: could not checkpoint {} yet", volume.name));
        }
        Ok(format!("handoff: backup {} goes on after the move", names(&backups)))
    }

    /// What would be done if the mode were not `observe`: one sentence per volume, and an Event on pod and claim.
    fn would_do(&self, pod: &Pod, watched: &[Leaving], dry_run: bool, now: Timestamp) -> Vec<String> {
        let holds = self.holds(pod, watched, now);
        let sentences = watched.iter().zip(holds).map(|(l, (hold, _))| {
            let backups = names(&l.obs.in_flight().collect::<Vec<_>>());
            let mut note = format!("handoff (observe): would have backup {backups} go on after the move");
            if let Some(hold) = hold {
                note = format!(
                    "handoff (observe): would hold this until backup {backups} is complete, at most until {:.0}",
                    hold.deadline
                );
            }
            tracing::info!(pod = %pod.key, volume = l.volume.name, note, dry_run);
            if !dry_run {
                self.tell_later(About::of(pod, &l.volume), Reason::WouldCheckpoint, note.clone());
            }
            note
        });
        sentences.collect()
    }

    /// The review of an eviction, in the traces of the moves that it is about.
    pub(crate) fn trace_review<'v>(
        &self,
        name: &str,
        volumes: impl Iterator<Item = &'v str>,
        pod: &Pod,
        began: Timestamp,
        held: bool,
    ) {
        let Some(traces) = self.traces.get() else { return };
        let end = self.clock.now();
        for trace in volumes.filter_map(|volume| Trace::of(&self.current(volume)?)) {
            let span = trace.step(name, began, end).with("k8s.pod.name", pod.key.name.clone());
            traces.send(span.with("handoff.verdict", if held { "held" } else { "allowed" }));
        }
    }

    /// An Event with the first denial; the ones after it say the same.
    fn tell_of_hold(
        &self,
        pod: &Pod,
        leaving: &[Leaving],
        holds: &[(Option<Hold>, Option<Hold>)],
        message: &str,
        now: Timestamp,
    ) {
        let begins = |hold: &Option<Hold>| hold.is_some_and(|h| h.since == now);
        for (l, _) in leaving.iter().zip(holds).filter(|(_, (hold, _))| begins(hold)) {
            let about = match self.current(&l.volume.name) {
                Some(handoff) => About::handoff(&handoff, Some(pod)),
                None => About::of(pod, &l.volume),
            };
            self.tell_later(about, Reason::EvictionHeld, message.to_owned());
        }
    }

    fn hold_message(&self, pod: &Pod, leaving: &[Leaving], until: Timestamp, now: Timestamp) -> String {
        let waits = leaving.iter().flat_map(|l| l.obs.in_flight().map(move |b| (l, b))).map(|(l, backup)| {
            let left = self.progress.remaining(backup, now).map(|left| format!(", about {} s to go", left.as_secs()));
            format!(
                "backup {} is at {} %{} (VolumeHandoff {}/{})",
                backup.name,
                backup.progress,
                left.unwrap_or_default(),
                pod.key.namespace,
                l.volume.name
            )
        });
        let waits = waits.collect::<Vec<_>>().join(", ");
        let background = if pod.settings.evict_in_background { format!("{IN_BACKGROUND}: ") } else { String::new() };
        format!("{background}{waits}; held until it is complete, until {until:.0} at most")
    }

    /// Where the pod that the eviction is meant for has gone, if it has.
    async fn has_moved(&self, asked: &PodRef, pod: &Pod, now: Timestamp) -> Option<String> {
        // who names a UID is answered by the API server
        if asked.uid.is_some() {
            return None;
        }
        let volumes = self.volumes(&pod.key.namespace, &pod.claims);
        let mut before = volumes.iter().filter_map(|v| self.handoffs.read().of_volume(&v.name).map(|h| (v, h)));
        let (volume, handoff) = before.find(|(_, handoff)| {
            let index = self.cluster.read();
            let cordoned = index.node(&handoff.spec.from).is_some_and(|n| n.cordoned);
            let open = pod.node.as_deref().is_none_or(|n| index.node(n).is_some_and(|n| is_open(&n)));
            is_meant_for_the_one_before(pod, &handoff.spec, cordoned, open, now)
        })?;
        if self.mode(&pod.settings, volume) != Mode::Enabled {
            return None;
        }
        // the cache may lag behind a cordon of that node by some milliseconds, and a drain that is told "gone" does not
        // come back
        if let Some(node) = &pod.node {
            let _permit = self.live.try_acquire().ok()?;
            let seen = tokio::time::timeout(LIVE_TIMEOUT, live::node(&self.client, node)).await.ok()?.ok()??;
            if !is_open(&seen) {
                return None;
            }
        }
        let to = pod.node.as_deref().unwrap_or("another node");
        let (from, uid) = (&handoff.spec.from, &handoff.spec.pod.uid);
        Some(format!("pod {} ({uid}) has left {from}; the pod of this name is its replacement on {to}", pod.key))
    }
}

/// A pod that only its review shows. `None` without a UID: the record would be of any pod of this name.
fn as_reviewed(deleted: DeletedPod) -> Option<Arc<Pod>> {
    let DeletedPod { pod: PodRef { namespace, name, uid }, node, settings, claims } = deleted;
    Some(Arc::new(Pod {
        key: ObjectKey::new(namespace, name),
        uid: uid?,
        node,
        terminating: false,
        finished: false,
        ready: false,
        created: None,
        claims,
        owner_kind: None,
        labels: BTreeMap::new(),
        settings,
    }))
}

/// Nobody is emptying the node.
fn is_open(node: &Node) -> bool {
    !node.is_emptied() && !node.tainted
}

fn names(backups: &[&BackupView]) -> String {
    backups.iter().map(|b| format!("{} ({} %)", b.name, b.progress)).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
#[path = "eviction_tests.rs"]
mod tests;
