//! The shell around the decision: observe, decide, write, act. Only the leader gets past [`Coordinator::reconcile`]'s first line.

use crate::{
    api::{Hold, Trigger, VolumeHandoff, VolumeHandoffStatus},
    asked::Asked,
    checkpoint::{self, Start},
    clock::Clock,
    decide::{Action, Decision, decide},
    detect,
    eviction::LIVE_LOOKS,
    handoffs::Handoffs,
    holds::Holds,
    lease::Leadership,
    metrics::{FailedOpen, Metrics},
    observation::Observation,
    pace::{self, Pacer},
    patch::difference,
    phases::Phase,
    policy::Policy,
    progress::Progress,
    queue::Queue,
    reason::Reason,
    tell::{About, Teller},
    trace::{self, Trace, Traces},
    wake::Rejections,
};
use handoff_cluster::{Cache, ClusterCache, ObjectKey, Pod, Volume, settings::Mode};
use handoff_storage::{BackupView, StorageError, StorageManager};
use hashbrown::HashMap;
use jiff::Timestamp;
use k8s_openapi::api::storage::v1::VolumeAttachment;
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use serde_json::json;
use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Notify, Semaphore},
    time::Instant,
};

/// How soon a volume is looked at again after a write of ours failed.
const RETRY: Duration = Duration::from_secs(1);
/// A look at a volume, and all that is written then: a connection that died silently would keep a worker for 15 minutes.
/// What was not done is found missing at the next look.
const LOOK: Duration = Duration::from_secs(20);
/// How long a replica leads before it takes back what nobody knows of: its caches are up to date by then.
const REAP_FIRST: Duration = Duration::from_secs(5);
/// How often after that.
const REAP_EVERY: Duration = Duration::from_mins(1);
/// How long a binding that was announced to our webhook counts although the pod is not bound yet.
const BINDING_TTL: Duration = Duration::from_secs(30);

/// A binding under way: pod UID, node, and the volumes that will be wanted there.
struct Binding {
    uid: String,
    node: String,
    volumes: Vec<String>,
    at: Instant,
}

/// Everything the coordinator works with.
pub struct Coordinator {
    pub(crate) client: Client,
    pub(crate) cluster: ClusterCache,
    pub(crate) storage: Arc<dyn StorageManager>,
    pub(crate) handoffs: Cache<Handoffs>,
    pub(crate) policy: Policy,
    pub(crate) metrics: Metrics,
    pub(crate) queue: Arc<Queue>,
    pub(crate) identity: ObjectKey,
    pub(crate) clock: Clock,
    pub(crate) holds: Holds,
    pub(crate) progress: Progress,
    pacer: Pacer,
    asked: Asked,
    /// Looks at the API server that reviews may make.
    pub(crate) live: Semaphore,
    pub(crate) leadership: Leadership,
    pub(crate) traces: OnceLock<Arc<dyn Traces>>,
    teller: Arc<Teller>,
    /// What we wrote last, per volume, until the cache shows it.
    written: Mutex<HashMap<String, VolumeHandoff>>,
    bindings: Mutex<HashMap<String, Binding>>,
    pub(crate) rejections: Mutex<Rejections>,
    pub(crate) hosts_news: Arc<Notify>,
    /// What was said of volumes in mode `observe`, so that it is said once: backup UIDs.
    observed: Mutex<HashMap<String, Timestamp>>,
}

/// What a [`Coordinator`] is made of.
pub struct Parts {
    /// API client.
    pub client: Client,
    /// The Kubernetes side.
    pub cluster: ClusterCache,
    /// The storage side.
    pub storage: Arc<dyn StorageManager>,
    /// The handoffs.
    pub handoffs: Cache<Handoffs>,
    /// When storage pods were first told to stay.
    pub holds: Holds,
    /// Bounds.
    pub policy: Policy,
    /// Figures.
    pub metrics: Metrics,
    /// Volumes to look at, by `PersistentVolume` name; the caches add to it.
    pub queue: Arc<Queue>,
    /// Told when nodes, or which volumes they can take, are not as before.
    pub hosts_news: Arc<Notify>,
    /// Whether we lead.
    pub leadership: Leadership,
    /// Our own pod.
    pub identity: ObjectKey,
    /// The time of day.
    pub clock: Clock,
}

impl Coordinator {
    /// Puts the parts together.
    pub fn new(parts: Parts) -> Self {
        Self {
            teller: Arc::new(Teller::new(parts.client.clone(), &parts.identity.name)),
            identity: parts.identity,
            clock: parts.clock,
            client: parts.client,
            cluster: parts.cluster,
            storage: parts.storage,
            handoffs: parts.handoffs,
            policy: parts.policy,
            metrics: parts.metrics,
            queue: parts.queue,
            leadership: parts.leadership,
            traces: OnceLock::new(),
            holds: parts.holds,
            progress: Progress::default(),
            pacer: Pacer::default(),
            asked: Asked::default(),
            live: Semaphore::new(LIVE_LOOKS),
            written: Mutex::default(),
            bindings: Mutex::default(),
            rejections: Mutex::default(),
            hosts_news: parts.hosts_news,
            observed: Mutex::default(),
        }
    }

    /// Counts something that was let through without us.
    pub fn count_failed_open(&self, why: FailedOpen) {
        self.metrics.failed_open(why);
    }

    /// Sends what is done for each move to `traces` from now on. Only the first call counts.
    pub fn send_traces_to(&self, traces: Arc<dyn Traces>) {
        let _ = self.traces.set(traces);
    }

    /// Names of the caches that are not complete yet; empty when ready.
    pub fn missing(&self) -> Vec<&'static str> {
        [self.cluster.missing(), self.storage.missing(), self.handoffs.missing()].concat()
    }

    /// Queues every volume of our driver: after leadership was won, all of them may need something.
    pub fn look_at_all(&self) {
        let gates = self.storage.gates();
        tracing::info!(storage = gates.version, prestage = ?gates.prestage, "leading: looking at all volumes");
        let index = self.cluster.read();
        index.volumes_of_driver(self.storage.driver()).for_each(|v| self.queue.add(&v.name));
    }

    /// Notes that this replica begins to lead, or ends.
    pub fn leading(&self, leads: bool) {
        if leads {
            self.metrics.leads();
        }
    }

    /// Works on the queue for ever.
    pub async fn work(&self) {
        loop {
            let volume = self.queue.next().await;
            let looked = async { if self.missing().is_empty() { self.reconcile(&volume).await } else { Some(RETRY) } };
            let again = tokio::time::timeout(LOOK, looked).await.unwrap_or_else(|_| {
                tracing::warn!(volume, "the API server does not answer, looking again");
                Some(RETRY)
            });
            self.queue.done(&volume, again);
        }
    }

    /// Withdraws pre-stages that carry our mark but that no handoff knows of (left by a crash): soon after leadership was
    /// won, and then every minute.
    pub async fn reap(&self) {
        let mut due = Instant::now() + REAP_FIRST;
        loop {
            tokio::time::sleep(REAP_FIRST).await;
            let now = Instant::now();
            if !self.leadership.is_held() || !self.missing().is_empty() {
                due = now + REAP_FIRST;
            } else if now >= due {
                self.reap_once().await;
                due = now + REAP_EVERY;
            }
        }
    }

    async fn reap_once(&self) {
        for (handle, node) in self.storage.prestages() {
            let volume = self.cluster.read().volume_of_handle(self.storage.driver(), &handle);
            // with what we wrote a moment ago and the cache does not show yet
            let handoff = volume.as_ref().and_then(|v| self.current(&v.name));
            let known = handoff.as_ref().and_then(|h| h.status.as_ref()?.prestage.clone());
            let paused = volume.zip(handoff).is_some_and(|(v, h)| {
                let obs = self.observe(&v);
                self.mode_now(&v, &obs, Some(&h)) != Mode::Enabled
            });
            if !paused && known.is_some_and(|p| p.node == node && p.outcome.is_none()) {
                continue;
            }
            match self.storage.withdraw_prestage(&handle, &node).await {
                Ok(withdrawn) => tracing::warn!(handle, node, withdrawn, "pre-stage that no handoff knows of"),
                Err(error) => tracing::error!(handle, node, %error, "cannot withdraw a pre-stage nobody knows of"),
            }
        }
    }

    /// Looks at one volume and does what is due. Returns when to look again.
    pub(crate) async fn reconcile(&self, volume: &str) -> Option<Duration> {
        let volume = self.cluster.read().volume(volume)?;
        if volume.driver != self.storage.driver() || volume.shared {
            return None;
        }
        // every replica answers reviews, so every replica knows how fast a backup gets on
        self.progress.note(&self.storage.backups(&volume.handle), self.clock.now());
        if !self.leadership.is_held() {
            return None;
        }
        let mut obs = self.observe(&volume);
        let mut handoff = self.current(&volume.name);
        match self.mode_now(&volume, &obs, handoff.as_ref()) {
            Mode::Enabled => {}
            // what is owed stays written down and goes on when the volume is opted in again
            Mode::Disabled => return None,
            Mode::Observe => {
                self.observe_only(&volume, handoff.as_ref(), &obs);
                return None;
            }
        }
        if let Some(found) = self.detect(&volume, handoff.as_ref(), &obs).await {
            handoff = Some(found);
        }
        let now = self.clock.now();
        let due = detect::next_due(handoff.as_ref(), &obs, &self.policy, now);
        let due = due.map(|at| at.duration_since(now).unsigned_abs());
        let Some(handoff) = handoff else { return due };
        obs.unstaged = handoff.is_unstaged();
        if obs.workload().is_none() && !handoff.is_finished() {
            obs.candidates = self.candidates(&volume, &obs);
        }
        let journal = handoff.journal();
        let mut decision = decide(&handoff.spec, &journal, &obs, &self.policy, now);
        if self.must_wait(&handoff, &journal, &decision, &obs, now) {
            obs.resumes_full = true;
            decision = decide(&handoff.spec, &journal, &obs, &self.policy, now);
        }
        if let Err(error) = self.write_journal(&handoff, &journal, &decision).await {
            tracing::info!(volume = volume.name, %error, "journal not written, looking again");
            return Some(RETRY);
        }
        let wake = decision.wake_at.map(|at| at.duration_since(now).max(jiff::SignedDuration::ZERO).unsigned_abs());
        let mut again = wake.into_iter().chain(due).min();
        for action in &decision.actions {
            if !self.leadership.is_held() {
                tracing::warn!(volume = volume.name, ?action, "leadership lost, action left to the next holder");
                return None;
            }
            let began = self.clock.now();
            let done = self.act(&handoff, &obs, action).await;
            self.trace_action(&handoff, action, began, done.as_ref().err());
            if let Err(error) = done {
                again = Some(RETRY);
                if let StorageError::Stale { .. } = error {
                    tracing::info!(volume = volume.name, ?action, %error, "decided on an older state");
                    continue;
                }
                tracing::warn!(volume = volume.name, ?action, %error, "action failed, trying again");
                self.metrics.failed(action.name());
            }
        }
        again
    }

    /// Whether the decision is to begin a resume for which there is no room now.
    fn must_wait(
        &self,
        handoff: &VolumeHandoff,
        journal: &VolumeHandoffStatus,
        decision: &Decision,
        obs: &Observation,
        now: Timestamp,
    ) -> bool {
        let Some(ask) = pace::ask(handoff, journal, &decision.status, obs) else { return false };
        let all = self.handoffs.read().unfinished().map(str::to_owned).collect::<Vec<_>>();
        let all = all.iter().filter_map(|volume| self.current(volume)).collect::<Vec<_>>();
        let running = pace::running(all.iter(), &*self.storage, now);
        !self.pacer.may_begin(&handoff.name_any(), ask, &running, &self.policy, now)
    }

    /// Everything the caches show of a volume.
    pub(crate) fn observe(&self, volume: &Volume) -> Observation {
        let mut obs = Observation {
            volume: self.storage.volume(&volume.handle),
            backups: self.storage.backups(&volume.handle),
            ..Observation::default()
        };
        {
            let index = self.cluster.read();
            obs.pods = index.pods_of_volume(volume);
            obs.attachments = index.attachments_of(&volume.name);
            obs.cordoned = index.emptied().cloned().collect();
        }
        self.apply_bindings(&mut obs);
        for backup in &obs.backups {
            if let Some(left) = self.asked.left(backup, self.policy.probe_wait) {
                obs.answer_due.insert(backup.name.clone(), left);
            }
            if let Some(snapshot) = self.storage.snapshot(&backup.snapshot) {
                obs.snapshots.insert(backup.snapshot.clone(), snapshot);
            }
        }
        for node in obs.pods.iter().filter(|p| p.stays()).filter_map(|p| p.node.as_ref()) {
            if let Err(why) = self.storage.may_prestage(&volume.handle, node) {
                obs.refusals.insert(node.clone(), why);
            }
        }
        obs
    }

    /// See [`Observation::candidates`].
    fn candidates(&self, volume: &Volume, obs: &Observation) -> Vec<String> {
        let good = |n: &str| obs.volume.iter().flat_map(|v| &v.replicas).any(|r| r.node == n && !r.failed);
        let index = self.cluster.read();
        let open = index.nodes().filter(|n| !n.tainted && !index.is_leaving(&n.name)).map(|n| n.name.clone());
        let mut nodes = open.collect::<Vec<_>>();
        drop(index);
        nodes.retain(|n| self.storage.may_prestage(&volume.handle, n).is_ok());
        nodes.sort_by_key(|n| (!good(n), n.clone()));
        nodes
    }

    /// A pod whose binding passed our webhook counts as bound before its watch event arrives.
    fn apply_bindings(&self, obs: &mut Observation) {
        let mut bindings = self.bindings.lock().unwrap_or_else(PoisonError::into_inner);
        bindings.retain(|_, b| b.at.elapsed() < BINDING_TTL);
        for pod in obs.pods.iter_mut().filter(|p| p.node.is_none()) {
            if let Some(binding) = bindings.get(&pod.key.to_string()).filter(|b| b.uid.is_empty() || b.uid == pod.uid) {
                *pod = Arc::new(Pod { node: Some(binding.node.clone()), ..Pod::clone(pod) });
            }
        }
    }

    /// Remembers a binding under way and looks at the pod's volumes at once.
    pub(crate) fn announce_binding(&self, pod: &str, uid: Option<String>, node: String, volumes: &[Arc<Volume>]) {
        let names = volumes.iter().map(|v| v.name.clone()).collect();
        let binding = Binding { uid: uid.unwrap_or_default(), node, volumes: names, at: Instant::now() };
        self.bindings.lock().unwrap_or_else(PoisonError::into_inner).insert(pod.to_owned(), binding);
        volumes.iter().for_each(|v| self.queue.add(&v.name));
    }

    /// Volumes per node whose pod is being bound there and that have no attachment there yet.
    pub(crate) fn arriving(&self) -> HashMap<String, usize> {
        let mut arriving = HashMap::new();
        let index = self.cluster.read();
        let mut bindings = self.bindings.lock().unwrap_or_else(PoisonError::into_inner);
        bindings.retain(|_, b| b.at.elapsed() < BINDING_TTL);
        for Binding { node, volumes, .. } in bindings.values() {
            let there = |volume: &str| index.attachments_of(volume).iter().any(|a| a.node == *node);
            *arriving.entry(node.clone()).or_default() += volumes.iter().filter(|v| !there(v)).count();
        }
        arriving
    }

    /// The handoff as the cache shows it, or as we wrote it if the cache lags behind.
    pub(crate) fn current(&self, volume: &str) -> Option<VolumeHandoff> {
        let cached = self.handoffs.read().of_volume(volume);
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(ours) = written.get(volume) else { return cached.map(|h| VolumeHandoff::clone(&h)) };
        // resourceVersions of one kind are ordered numbers (Kubernetes 1.35, KEP-5504)
        let version = |h: &VolumeHandoff| h.resource_version().and_then(|v| v.parse::<u64>().ok()).unwrap_or(0);
        match cached {
            Some(cached) if version(&cached) >= version(ours) => {
                written.remove(volume);
                Some(VolumeHandoff::clone(&cached))
            }
            _ => Some(ours.clone()),
        }
    }

    pub(crate) fn remember(&self, handoff: VolumeHandoff) {
        let volume = handoff.name_any();
        self.written.lock().unwrap_or_else(PoisonError::into_inner).insert(volume, handoff);
    }

    /// Starts a handoff for a move that no review announced.
    async fn detect(
        &self,
        volume: &Volume,
        handoff: Option<&VolumeHandoff>,
        obs: &Observation,
    ) -> Option<VolumeHandoff> {
        let (pod, trigger, backups) = detect::find_unannounced(handoff, obs, &self.policy, self.clock.now())?;
        match self.checkpoint(volume, &pod, trigger, None, &backups, obs).await {
            Ok(written) => written,
            Err(error) => {
                tracing::error!(volume = volume.name, %error, "cannot record a move that was not announced");
                self.metrics.failed("Checkpoint");
                None
            }
        }
    }

    /// Says what would be recorded of a move that no review announced.
    fn observe_only(&self, volume: &Volume, handoff: Option<&VolumeHandoff>, obs: &Observation) {
        let now = self.clock.now();
        let Some((pod, trigger, backups)) = detect::find_unannounced(handoff, obs, &self.policy, now) else { return };
        for backup in backups {
            {
                let mut observed = self.observed.lock().unwrap_or_else(PoisonError::into_inner);
                observed.retain(|_, at| now.duration_since(*at) < self.policy.lost_max_age);
                if observed.insert(backup.uid.clone(), now).is_some() {
                    continue;
                }
            }
            let note = format!("handoff (observe): would make backup {} complete under its own name", backup.name);
            tracing::info!(pod = %pod.key, volume = volume.name, ?trigger, note);
            self.tell_later(About::of(&pod, volume), Reason::WouldResume, note);
        }
    }

    /// An Event that nobody waits for.
    pub(crate) fn tell_later(&self, about: About, reason: Reason, note: String) {
        let teller = self.teller.clone();
        tokio::spawn(async move { teller.tell_about(about, reason, &note).await });
    }

    /// Records in-flight backups of a volume whose pod leaves. Returns the object if something was written.
    pub(crate) async fn checkpoint(
        &self,
        volume: &Volume,
        pod: &Pod,
        trigger: Trigger,
        hold: Option<Hold>,
        backups: &[&BackupView],
        obs: &Observation,
    ) -> Result<Option<VolumeHandoff>, checkpoint::CheckpointError> {
        let claim_uid = volume.claim.as_ref().and_then(|c| self.cluster.read().claim(c)).map(|c| c.uid.clone());
        let start = Start { volume, claim_uid, pod, trigger, hold, now: self.clock.now() };
        let (began, at) = (Instant::now(), start.now);
        let written = checkpoint::write(&self.client, self.current(&volume.name), &start, backups, obs).await?;
        if let Some(handoff) = &written {
            self.metrics.phase(Phase::Checkpoint, began.elapsed());
            let names = handoff.owed().map(|c| c.backup.as_str()).collect::<Vec<_>>();
            let trace = Trace::of(handoff);
            let trace_id = trace.map(|trace| trace.id());
            tracing::info!(volume = volume.name, pod = %pod.key, ?trigger, owed = ?names, trace_id, "checkpointed");
            if let Some((trace, traces)) = trace.zip(self.traces.get()) {
                let span = trace.step(Phase::Checkpoint.as_str(), at, self.clock.now());
                traces.send(span.with("handoff.trigger", trigger.as_str()).with("handoff.owed", names.join(" ")));
            }
            self.remember(handoff.clone());
            self.queue.add(&volume.name);
        }
        Ok(written)
    }

    async fn write_journal(
        &self,
        handoff: &VolumeHandoff,
        before: &VolumeHandoffStatus,
        decision: &Decision,
    ) -> Result<(), kube::Error> {
        // an action outside is done only by whoever knows the present journal: if that needs no change, writing it as it
        // is still fails when another leader has written meanwhile
        if decision.status == *before && !decision.actions.iter().any(Action::is_outward) {
            return Ok(());
        }
        let patch = json!({
            "metadata": {"resourceVersion": handoff.resource_version()},
            "status": difference(&json!(before), &json!(decision.status)),
        });
        let api = self.handoff_api(handoff);
        match api.patch_status(&handoff.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(written) => {
                self.remember(written);
                let now = self.clock.now();
                self.metrics.journal(&handoff.spec, before, &decision.status, now);
                if let Some(traces) = self.traces.get() {
                    let ended = trace::ended(handoff, before, &decision.status, now);
                    ended.into_iter().for_each(|span| traces.send(span));
                }
                let trace_id = Trace::of(handoff).map(|trace| trace.id());
                let status = &decision.status;
                let phase = status.phase.map(|p| format!("{p:?}"));
                let step = status.timeline.last().map(|s| s.what.as_str());
                let (handoff, to, backups) = (handoff.name_any(), &status.to, &status.backups_safe);
                tracing::info!(handoff, phase, to, backups, step, trace_id, "{}", status.message);
                Ok(())
            }
            Err(error) => {
                // whatever we remember is not what the API server has
                self.written.lock().unwrap_or_else(PoisonError::into_inner).remove(&handoff.name_any());
                Err(error)
            }
        }
    }

    fn handoff_api(&self, handoff: &VolumeHandoff) -> Api<VolumeHandoff> {
        Api::namespaced(self.client.clone(), &handoff.namespace().unwrap_or_default())
    }

    /// Something that was done outside for the present move.
    fn trace_action(&self, handoff: &VolumeHandoff, action: &Action, began: Timestamp, failed: Option<&StorageError>) {
        let Some((trace, traces)) = Trace::of(handoff).filter(|_| action.is_outward()).zip(self.traces.get()) else {
            return;
        };
        let span = trace.step(action.name(), began, self.clock.now());
        traces.send(span.failed(failed.map(ToString::to_string)));
    }

    async fn act(&self, handoff: &VolumeHandoff, obs: &Observation, action: &Action) -> Result<(), StorageError> {
        let handle = &handoff.spec.volume.handle;
        match action {
            Action::PlacePreStage { node, version } => self.storage.place_prestage(handle, node, version).await,
            Action::WithdrawPreStage { node } => self.storage.withdraw_prestage(handle, node).await.map(drop),
            Action::Probe { backup } => self.storage.probe(backup, self.clock.now()).await,
            Action::Reset { backup, resource_version, node } => {
                self.storage.reset(backup, resource_version, node).await
            }
            Action::ReleaseAttachment { attachment, node } => self.release_attachment(attachment, node).await,
            Action::WakeAttacher { attachment } => self.wake_attacher(attachment).await,
            Action::Tell { reason, note } => {
                self.teller.tell(handoff, obs, *reason, note).await;
                Ok(())
            }
            Action::Forget => self.forget(handoff).await,
        }
    }

    /// Deletes a `VolumeAttachment` if it still is what was judged: for this node, and not deleted already.
    async fn release_attachment(&self, attachment: &str, node: &str) -> Result<(), StorageError> {
        let api: Api<VolumeAttachment> = Api::all(self.client.clone());
        let failed = |source| StorageError::Api { what: format!("VolumeAttachment {attachment}"), source };
        let found = api.get_opt(attachment).await.map_err(failed)?;
        let judged = |a: &VolumeAttachment| a.spec.node_name == node && a.metadata.deletion_timestamp.is_none();
        let Some(found) = found.filter(judged) else { return Ok(()) };
        let preconditions = Preconditions { uid: found.uid(), resource_version: found.resource_version() };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        match api.delete(attachment, &params).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(source) => Err(failed(source)),
        }
    }

    /// external-attacher takes any change of the object as a reason to try again at once.
    async fn wake_attacher(&self, attachment: &str) -> Result<(), StorageError> {
        let api: Api<VolumeAttachment> = Api::all(self.client.clone());
        let patch = json!({"metadata": {"annotations": {"volumehandoff.io/woken-at": self.clock.now().to_string()}}});
        let sent = api.patch_metadata(attachment, &PatchParams::default(), &Patch::Merge(patch)).await;
        sent.map(drop).map_err(|source| StorageError::Api { what: format!("VolumeAttachment {attachment}"), source })
    }

    async fn forget(&self, handoff: &VolumeHandoff) -> Result<(), StorageError> {
        let name = handoff.name_any();
        let preconditions = Preconditions { uid: handoff.uid(), resource_version: handoff.resource_version() };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        let deleted = self.handoff_api(handoff).delete(&name, &params).await;
        self.written.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
        match deleted {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            Err(source) => Err(StorageError::Api { what: format!("VolumeHandoff {name}"), source }),
        }
    }
}
