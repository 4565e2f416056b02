//! Between the numbers of the model and the types the coordinator works with. All times come from the ages in the
//! model, counted back from one fixed moment, so that the same state always gives the same input.

use crate::{
    cluster::REPLICA_NODES,
    model::Config,
    world::{
        Act, Backup, Cr, Handoff, Journal, Kube, MAX_ACTS, MAX_BACKUPS, NODE_NAMES, Node, Page, Resumed, STEPS, Staged,
        Storage, Ticket, Va,
    },
};
use handoff_cluster::{Attachment, ObjectKey, Pod, settings::Settings};
use handoff_coordinator::{
    api::{
        Checkpoint, Order, OrderKind, PodIdentity, PreStage, PreStageOutcome, Resume, ResumeState, Step, Trigger,
        VolumeHandoff, VolumeHandoffSpec, VolumeHandoffStatus, VolumeIdentity,
    },
    decide::Action,
    observation::Observation,
    policy::Policy,
};
use handoff_storage::{AttachRequest, BackupState, BackupView, ReplicaView, SnapshotView, VolumeState, VolumeView};
use jiff::{SignedDuration, Timestamp};
use std::sync::Arc;

/// Length of a tick: longer than Longhorn's answer to a probe, its polls and its whole seconds.
pub const TICK: SignedDuration = SignedDuration::from_secs(3);
/// Ticks after which the times of the journal and the spec no longer matter.
pub const SETTLE: u8 = 1;
/// Ticks until a pre-stage expires.
pub const EXPIRY: u8 = 2;
/// Ticks until a reset that shows no effect is tried again.
const AGAIN: u8 = 2;
/// Ticks a finished handoff is kept.
const RETENTION: u8 = 1;
/// How often a backup is made to run again.
pub const ATTEMPTS: u32 = 2;
/// Ticks a cache may lag.
pub const MAX_LAG: u8 = 1;
/// Ticks after which the age of a checkpoint no longer matters: the longest lag of a cache is over.
pub const RECORDED: u8 = MAX_LAG + 1;

/// Bounds that fit the model's clock.
pub fn policy() -> Policy {
    Policy {
        prestage_expiry: TICK * i32::from(EXPIRY),
        probe_wait: SignedDuration::from_millis(2_500),
        resume_attempts: ATTEMPTS,
        resume_backoff: TICK,
        resume_backoff_max: TICK,
        settle_wait: TICK * i32::from(SETTLE),
        retention: TICK * i32::from(RETENTION),
        cache_lag: TICK * i32::from(RECORDED),
        ..Policy::default()
    }
}

/// The moment at which every decision of the model is made.
pub fn now() -> Timestamp {
    Timestamp::constant(1_800_000_000, 0)
}

fn ago(ticks: u8) -> Timestamp {
    now() - TICK * i32::from(ticks)
}

fn ticks_since(at: Timestamp, cap: u8) -> u8 {
    let (passed, tick) = (now().duration_since(at).as_millis(), TICK.as_millis());
    u8::try_from((passed + tick - 1).max(0) / tick).unwrap_or(u8::MAX).min(cap)
}

/// Ticks until a moment.
pub fn ticks_until(at: Timestamp) -> u8 {
    let (left, tick) = (at.duration_since(now()).as_millis(), TICK.as_millis());
    u8::try_from((left + tick - 1).max(0) / tick).unwrap_or(u8::MAX)
}

/// Runs differ by a millisecond each, far less than any deadline: their order survives the capping of ages.
fn run(number: u8) -> SignedDuration {
    SignedDuration::from_millis(i64::from(number))
}

/// When a run ended. A run that is reset has ended a tick ago at least, so that one age stands for all of these.
fn end_of(number: u8, age: u8) -> Timestamp {
    ago(age.min(1)) + run(number) - SignedDuration::from_millis(100)
}

fn node(n: Node) -> String {
    NODE_NAMES[usize::from(n)].to_owned()
}

fn node_of(name: &str) -> Node {
    (0..).zip(NODE_NAMES).find(|(_, n)| *n == name).map_or(0, |(i, _)| i)
}

/// Name of a backup.
pub fn backup_name(b: usize) -> String {
    format!("b{b}")
}

/// Index of a backup.
pub fn backup_of(name: &str) -> usize {
    name.trim_start_matches('b').parse().unwrap_or(0)
}

/// Name and UID of a pod.
pub fn uid(pod: u8) -> String {
    format!("p{pod}")
}

fn pod_of(uid: &str) -> Option<u8> {
    uid.trim_start_matches('p').parse().ok()
}

fn long_ago(seconds: i64) -> Timestamp {
    now() - SignedDuration::from_secs(100_000 - seconds)
}

fn snapshot_time(b: usize) -> Timestamp {
    long_ago(1_000 + 100 * i64::try_from(b).unwrap_or_default())
}

fn backup_time(b: usize) -> Timestamp {
    snapshot_time(b) + SignedDuration::from_secs(10)
}

/// The spec of a handoff.
pub fn spec(config: &Config, h: &Handoff) -> VolumeHandoffSpec {
    let recorded = (0..MAX_BACKUPS).filter_map(|b| Some((b, h.checkpoints[b]?)));
    VolumeHandoffSpec {
        volume: VolumeIdentity { driver: "d".into(), handle: "v".into(), volume: "v".into(), claim: "c".into() },
        pod: PodIdentity { name: "db-0".into(), uid: uid(h.pod), mode: None },
        from: node(h.from),
        trigger: Trigger::Eviction,
        triggered_at: ago(h.age),
        hold: None,
        checkpoints: recorded
            .map(|(b, age)| Checkpoint {
                backup: backup_name(b),
                uid: format!("uid-{b}"),
                snapshot: format!("s{b}"),
                snapshot_created_at: Some(snapshot_time(b)),
                target: "default".into(),
                mode: "incremental".into(),
                recurring_job: config.same_job.then(|| "job".to_owned()),
                progress: 30,
                replica_address: None,
                recorded_at: ago(age),
                order: (h.abandoned & (1 << b) != 0).then(|| Order { what: OrderKind::Abandon, at: long_ago(0) }),
            })
            .collect(),
    }
}

/// The journal of a handoff.
pub fn status(config: &Config, h: &Handoff) -> VolumeHandoffStatus {
    let j = &h.journal;
    let step =
        |(i, what): (usize, &&str)| Step { what: (*what).to_owned(), at: ago(j.ages.get(i).copied().unwrap_or(0)) };
    VolumeHandoffStatus {
        move_started_at: match j.page {
            Page::Empty => None,
            Page::Current => Some(ago(h.age)),
            Page::Earlier => Some(long_ago(0)),
        },
        prestage: j.staged.map(|s| PreStage {
            node: node(s.node),
            pod_uid: s.pod.map(uid).unwrap_or_default(),
            placed_at: ago(s.age),
            expires_at: ago(s.age) + policy().prestage_expiry,
            outcome: s
                .outcome
                .map(|adopted| if adopted { PreStageOutcome::Adopted } else { PreStageOutcome::Withdrawn }),
        }),
        resumes: (0..MAX_BACKUPS).filter_map(|b| j.resumes[b].map(|r| resume(config, b, r))).collect(),
        timeline: STEPS.iter().enumerate().filter(|(i, _)| j.seen & (1 << i) != 0).map(step).collect(),
        finished_at: j.finished.map(ago),
        ..VolumeHandoffStatus::default()
    }
}

fn resume(config: &Config, b: usize, (state, attempts): (Resumed, u8)) -> Resume {
    let mut resume = Resume {
        backup: backup_name(b),
        state: ResumeState::Waiting,
        attempts: u32::from(attempts),
        probed_at: None,
        started_at: None,
        cut_at: None,
        ended_at: None,
        next_try_at: None,
        order_at: None,
        reason: "for a reason".to_owned(),
        uploaded_bytes: None,
    };
    match state {
        Resumed::Waiting { next } => resume.next_try_at = (next > 0).then(|| now() + TICK * i32::from(next)),
        Resumed::Probing { age } => (resume.state, resume.probed_at) = (ResumeState::Probing, Some(ago(age))),
        Resumed::Running { age, of_run } => {
            let at = ago(age) + run(of_run) + SignedDuration::from_micros(500);
            (resume.state, resume.started_at, resume.cut_at) =
                (ResumeState::Running, Some(at), Some(end_of(of_run, 1) - config.clock_behind));
        }
        Resumed::Completed => resume.state = ResumeState::Completed,
        Resumed::Superseded => resume.state = ResumeState::Superseded,
        Resumed::Unrecoverable => resume.state = ResumeState::Unrecoverable,
        Resumed::Abandoned => resume.state = ResumeState::Abandoned,
    }
    resume
}

/// The object.
pub fn object(config: &Config, h: &Handoff) -> VolumeHandoff {
    let mut object = VolumeHandoff::new("v", spec(config, h));
    object.status = Some(status(config, h));
    object
}

/// A merged spec in numbers; the journal of `before` stays.
pub fn handoff_of(spec: &VolumeHandoffSpec, before: Option<&Handoff>) -> Handoff {
    let mut checkpoints = [None; MAX_BACKUPS];
    for c in &spec.checkpoints {
        checkpoints[backup_of(&c.backup)] = Some(ticks_since(c.recorded_at, RECORDED));
    }
    let abandoned = spec.checkpoints.iter().filter(|c| c.abandoned_at().is_some());
    let abandoned = abandoned.fold(0, |bits, c| bits | 1 << backup_of(&c.backup));
    let mut journal = before.map(|h| h.journal).unwrap_or_default();
    let same_move = before.is_some_and(|h| spec.triggered_at == ago(h.age) && spec.pod.uid == uid(h.pod));
    if !same_move && journal.page == Page::Current {
        journal.page = Page::Earlier;
    }
    Handoff {
        pod: pod_of(&spec.pod.uid).unwrap_or_default(),
        from: node_of(&spec.from),
        age: ticks_since(spec.triggered_at, SETTLE),
        checkpoints,
        abandoned,
        journal,
    }
}

/// A decided journal in numbers. `seen` is what was observed of the backups.
pub fn journal_of(status: &VolumeHandoffStatus, spec: &VolumeHandoffSpec, seen: &[Backup; MAX_BACKUPS]) -> Journal {
    let mut journal = Journal {
        page: match status.move_started_at {
            None => Page::Empty,
            Some(at) if at == spec.triggered_at => Page::Current,
            Some(_) => Page::Earlier,
        },
        finished: status.finished_at.map(|at| ticks_since(at, RETENTION)),
        ..Journal::default()
    };
    journal.staged = status.prestage.as_ref().map(|p| Staged {
        node: node_of(&p.node),
        pod: pod_of(&p.pod_uid),
        age: if p.outcome.is_some() { 0 } else { ticks_since(p.placed_at, EXPIRY) },
        outcome: p.outcome.map(|o| o == PreStageOutcome::Adopted),
    });
    for r in &status.resumes {
        let b = backup_of(&r.backup);
        journal.resumes[b] = Some((resumed(r, &seen[b]), u8::try_from(r.attempts).unwrap_or(u8::MAX)));
    }
    for (i, what) in STEPS.iter().enumerate() {
        if let Some(step) = status.timeline.iter().find(|s| s.what == *what) {
            journal.seen |= 1 << i;
            if let Some(age) = journal.ages.get_mut(i) {
                *age = ticks_since(step.at, SETTLE);
            }
        }
    }
    journal
}

fn resumed(r: &Resume, seen: &Backup) -> Resumed {
    match r.state {
        ResumeState::Waiting => Resumed::Waiting { next: r.next_try_at.map_or(0, ticks_until) },
        ResumeState::Probing => Resumed::Probing { age: r.probed_at.map_or(0, |at| ticks_since(at, 1)) },
        ResumeState::Running => {
            let started = r.started_at.unwrap_or_else(now);
            if started == now() {
                return Resumed::Running { age: 0, of_run: seen.runs };
            }
            let age = ticks_since(started, u8::MAX);
            let of_run = started.duration_since(ago(age)).as_millis();
            Resumed::Running { age: age.min(AGAIN), of_run: u8::try_from(of_run).unwrap_or_default() }
        }
        ResumeState::Completed => Resumed::Completed,
        ResumeState::Superseded => Resumed::Superseded,
        ResumeState::Unrecoverable => Resumed::Unrecoverable,
        ResumeState::Abandoned => Resumed::Abandoned,
    }
}

/// Actions in numbers.
pub fn acts_of(actions: &[Action]) -> [Option<Act>; MAX_ACTS] {
    let acts = actions.iter().filter_map(|action| match action {
        Action::PlacePreStage { node, .. } => Some(Act::Place(node_of(node))),
        Action::WithdrawPreStage { node } => Some(Act::Withdraw(node_of(node))),
        Action::WakeAttacher { attachment } => Some(Act::Wake(node_of(attachment.trim_start_matches("va-")))),
        Action::Probe { backup } => Some(Act::Probe(u8::try_from(backup_of(backup)).unwrap_or_default())),
        Action::Reset { backup, node, .. } => {
            Some(Act::Reset(u8::try_from(backup_of(backup)).unwrap_or_default(), node_of(node)))
        }
        // agents are not modelled: nothing is ever seen unstaged
        Action::Tell { .. } | Action::ReleaseAttachment { .. } => None,
        Action::Forget => Some(Act::Forget),
    });
    let mut out = [None; MAX_ACTS];
    out.iter_mut().zip(acts).for_each(|(slot, act)| *slot = Some(act));
    out
}

/// What a replica with these caches sees of volume `v`.
pub fn observation(config: &Config, v: usize, storage: &Storage, kube: &Kube, unfinished: bool) -> Observation {
    let pods = kube.pods().map(|p| {
        Arc::new(Pod {
            key: ObjectKey::new("ns", "db-0"),
            uid: uid(p.uid),
            node: p.node.map(node),
            terminating: p.terminating,
            finished: false,
            ready: p.ready,
            created: Some(long_ago(i64::from(p.uid))),
            claims: vec!["c".into()],
            owner_kind: None,
            labels: std::collections::BTreeMap::default(),
            settings: Settings::default(),
        })
    });
    let existing = || (0..config.backups).filter(|b| storage.backups[*b].cr.exists());
    let cordoned = (0..config.nodes).filter(|n| kube.is_cordoned(*n));
    let snapshots = existing().filter(|b| !storage.backups[*b].no_snapshot);
    let snapshot = |b: usize| (format!("s{b}"), SnapshotView { created: Some(snapshot_time(b)), unusable: None });
    let mut obs = Observation {
        pods: pods.collect(),
        volume: Some(volume(config, storage)),
        backups: existing().map(|b| backup(config, b, &storage.backups[b])).collect(),
        snapshots: snapshots.map(snapshot).collect(),
        attachments: (0..config.nodes).filter_map(|n| attachment(kube, v, n)).collect(),
        cordoned: cordoned.map(node).collect(),
        ..Observation::default()
    };
    if storage.refused {
        let bound = kube.pods().filter(|p| p.runs()).filter_map(|p| p.node);
        obs.refusals = bound.map(|n| (node(n), "it is being expanded".to_owned())).collect();
    } else if unfinished && obs.workload().is_none() {
        let mut open = (0..config.nodes).filter(|n| !kube.is_cordoned(*n)).collect::<Vec<_>>();
        open.sort_by_key(|n| (!REPLICA_NODES.contains(n) || storage.down & (1 << n) != 0, *n));
        obs.candidates = open.into_iter().map(node).collect();
    }
    obs
}

fn volume(config: &Config, storage: &Storage) -> VolumeView {
    let settled = storage.at.is_some() && storage.at == storage.wanted;
    let asked = (0..config.nodes).filter(|n| storage.tickets[usize::from(*n)] != Ticket::None);
    VolumeView {
        state: match (storage.at, storage.wanted) {
            (Some(_), Some(_)) => VolumeState::Attached,
            (Some(_), None) => VolumeState::Detaching,
            (None, Some(_)) => VolumeState::Attaching,
            (None, None) => VolumeState::Detached,
        },
        current_node: storage.at.map(node),
        wanted_node: storage.wanted.map(node),
        engine_running: settled,
        serving: settled,
        requests: asked
            .map(|n| AttachRequest {
                id: format!("csi-{}", node(n)),
                node: node(n),
                workload: true,
                ours: storage.tickets[usize::from(n)] == Ticket::Ours,
                satisfied: storage.settled_on(n),
            })
            .collect(),
        requests_version: "1".into(),
        replicas: REPLICA_NODES
            .map(|n| {
                let down = storage.down & (1 << n) != 0;
                ReplicaView { node: node(n), running: !down && storage.at.is_some(), failed: down }
            })
            .to_vec(),
    }
}

fn backup(config: &Config, b: usize, backup: &Backup) -> BackupView {
    let state = match backup.cr {
        Cr::NotYet | Cr::Queued | Cr::Gone => BackupState::Queued,
        Cr::Running => BackupState::Running,
        Cr::Completed => BackupState::Completed,
        Cr::Lost => BackupState::Lost,
        Cr::Deleting => BackupState::Deleting,
    };
    let over = matches!(backup.cr, Cr::Completed | Cr::Lost);
    BackupView {
        name: backup_name(b),
        uid: format!("uid-{b}"),
        resource_version: "1".into(),
        state,
        progress: 30,
        snapshot: format!("s{b}"),
        target: "default".into(),
        target_unavailable: None,
        mode: "incremental".into(),
        recurring_job: config.same_job.then(|| "job".to_owned()),
        replica_address: None,
        error: (backup.cr == Cr::Lost).then(|| "connection refused".to_owned()),
        ended_at: over.then(|| end_of(backup.runs, backup.ended) - config.clock_behind),
        asked_at: backup.asked.map(ago),
        created: Some(backup_time(b)),
        uploaded_bytes: None,
    }
}

fn attachment(kube: &Kube, v: usize, n: Node) -> Option<Arc<Attachment>> {
    let (va, younger_than) = kube.vas[v][usize::from(n)];
    // made after the begin of that many backups
    let created = snapshot_time(usize::from(younger_than)) - SignedDuration::from_secs(40);
    (va != Va::None).then(|| {
        Arc::new(Attachment {
            name: format!("va-{}", node(n)),
            node: node(n),
            volume: "v".into(),
            attached: va == Va::Attached,
            deleting: va == Va::Deleting,
            attach_error: (va == Va::Failed).then(|| "aborted".to_owned()),
            created: Some(created),
        })
    })
}
