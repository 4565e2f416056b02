//! Watches everything that takes part in a move and turns what changes into steps, with the local time at which it was
//! received.

use crate::{
    backup::Backup,
    cluster::{
        ATTACHMENT, Cluster, HANDOFF, Kind, LH_ATTACHMENT, LH_BACKUP, LH_ENGINE, LH_VOLUME, NODE, POD, Read,
        is_not_found,
    },
    timeline::{Step, Timeline},
    workload::{LABELS, NAMESPACE_NAME, Running},
};
use anyhow::{Context, Result, bail};
use futures::{StreamExt, TryStreamExt};
use handoff_coordinator::api::VolumeHandoff;
use jiff::Timestamp;
use kube::{
    api::ListParams,
    runtime::{WatchStreamExt, watcher},
};
use serde_json::Value;
use std::time::{Duration, Instant};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

/// The mark of our pre-stages.
pub const PRESTAGE_MARK: &str = "volumehandoff.io";
/// First lists of all watches.
const SYNC: Duration = Duration::from_secs(30);
const DRIVER: &str = "driver.longhorn.io";

/// Something that was seen.
enum Seen {
    /// The first list of a watch is in.
    Synced,
    /// An object, new, changed or gone.
    Object { kind: &'static Kind, at: Instant, gone: bool, object: Box<Value> },
}

/// What the move is about.
#[derive(Clone)]
struct Subject {
    workload: Running,
    backup: Option<Backup>,
    longhorn: String,
}

/// Watches one move.
pub struct Observer {
    begin: watch::Sender<Option<(Instant, Timestamp)>>,
    timeline: watch::Receiver<Timeline>,
    steps: watch::Sender<Timeline>,
    _tasks: JoinSet<()>,
}

impl Observer {
    /// Starts the watches, and returns when all are synced. With `live`, steps are printed as they come.
    pub async fn start(cluster: &Cluster, workload: &Running, backup: Option<&Backup>, live: bool) -> Result<Self> {
        let subject =
            Subject { workload: workload.clone(), backup: backup.cloned(), longhorn: cluster.longhorn.clone() };
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        let mut watches = watches(cluster, workload);
        if cluster
            .api(&HANDOFF, NAMESPACE_NAME)
            .list_metadata(&ListParams::default())
            .await
            .is_err_and(|e| is_not_found(&e))
        {
            watches.retain(|(kind, _, _)| *kind != &HANDOFF); // Handoff was never installed here
        }
        let count = watches.len();
        for (kind, namespace, config) in watches {
            tasks.spawn(follow(cluster.clone(), kind, namespace, config, sender.clone()));
        }
        await_sync(&mut receiver, count).await?;
        let (begin, origin) = watch::channel(None);
        let (steps, timeline) = watch::channel(Timeline::default());
        tasks.spawn(derive(subject, receiver, origin, steps.clone(), live));
        Ok(Self { begin, timeline, steps, _tasks: tasks })
    }

    /// The move begins now.
    pub fn begin(&self) {
        self.begin.send_replace(Some((Instant::now(), Timestamp::now())));
    }

    /// Seconds since the move began.
    pub fn elapsed(&self) -> f64 {
        self.begin.borrow().map_or(0.0, |(start, _)| start.elapsed().as_secs_f64())
    }

    /// Adds a step that was seen elsewhere.
    pub fn add(&self, step: Step, note: &str) {
        let at = self.elapsed();
        self.steps.send_if_modified(|timeline| timeline.add(step, at, note.to_owned()));
    }

    /// Waits until a step was seen, no longer than this after the move began; whether it was.
    pub async fn wait_for(&self, step: Step, limit: Duration) -> bool {
        let mut timeline = self.timeline.clone();
        let left = limit.saturating_sub(Duration::from_secs_f64(self.elapsed()));
        let seen = tokio::time::timeout(left, timeline.wait_for(|t| t.has(step))).await;
        seen.is_ok_and(|seen| seen.is_ok())
    }

    /// What was seen so far.
    pub fn timeline(&self) -> Timeline {
        self.timeline.borrow().clone()
    }
}

fn watches(cluster: &Cluster, workload: &Running) -> Vec<(&'static Kind, String, watcher::Config)> {
    let all = watcher::Config::default;
    let of_volume = || all().labels(&format!("longhornvolume={}", workload.handle));
    let longhorn = &cluster.longhorn;
    vec![
        (&POD, NAMESPACE_NAME.to_owned(), all().labels(LABELS)),
        (&POD, longhorn.clone(), all().labels("longhorn.io/component=instance-manager")),
        (&NODE, String::new(), all()),
        (&ATTACHMENT, String::new(), all()),
        (&HANDOFF, NAMESPACE_NAME.to_owned(), all()),
        (&LH_VOLUME, longhorn.clone(), all().fields(&format!("metadata.name={}", workload.handle))),
        (&LH_ENGINE, longhorn.clone(), of_volume()),
        (&LH_ATTACHMENT, longhorn.clone(), of_volume()),
        (&LH_BACKUP, longhorn.clone(), all().labels(&format!("backup-volume={}", workload.handle))),
    ]
}

async fn follow(
    cluster: Cluster,
    kind: &'static Kind,
    namespace: String,
    config: watcher::Config,
    to: mpsc::UnboundedSender<Seen>,
) {
    let mut stream = watcher(cluster.api(kind, &namespace), config).default_backoff().boxed();
    loop {
        let event = match stream.try_next().await {
            Ok(Some(event)) => event,
            Ok(None) => return,
            Err(error) => {
                eprintln!("  (a watch was interrupted: {error})");
                continue;
            }
        };
        let at = Instant::now();
        let seen = match event {
            watcher::Event::Init => continue,
            watcher::Event::InitDone => Seen::Synced,
            watcher::Event::Apply(object) | watcher::Event::InitApply(object) => object_seen(kind, at, false, &object),
            watcher::Event::Delete(object) => object_seen(kind, at, true, &object),
        };
        if to.send(seen).is_err() {
            return;
        }
    }
}

fn object_seen(kind: &'static Kind, at: Instant, gone: bool, object: &impl serde::Serialize) -> Seen {
    let object = serde_json::to_value(object).unwrap_or_default();
    Seen::Object { kind, at, gone, object: Box::new(object) }
}

async fn await_sync(seen: &mut mpsc::UnboundedReceiver<Seen>, count: usize) -> Result<()> {
    let synced = async {
        let mut missing = count;
        while missing > 0 {
            match seen.recv().await {
                Some(Seen::Synced) => missing -= 1,
                Some(Seen::Object { .. }) => {}
                None => bail!("the watches ended"),
            }
        }
        Ok(())
    };
    tokio::time::timeout(SYNC, synced).await.context("the watches did not sync")?
}

/// Turns what is seen after the move began into steps.
async fn derive(
    subject: Subject,
    mut seen: mpsc::UnboundedReceiver<Seen>,
    origin: watch::Receiver<Option<(Instant, Timestamp)>>,
    steps: watch::Sender<Timeline>,
    live: bool,
) {
    while let Some(seen) = seen.recv().await {
        let Seen::Object { kind, at, gone, object } = seen else { continue };
        let Some((start, since)) = *origin.borrow() else { continue };
        let at = at.saturating_duration_since(start).as_secs_f64();
        let so_far = steps.borrow().clone();
        for (step, note) in subject.steps(kind, gone, &object, since, &so_far) {
            let new = steps.send_if_modified(|timeline| timeline.add(step, at, note.clone()));
            if new && live {
                println!("  {at:6.1} s  {}{}", step.label(), suffix(&note));
            }
        }
    }
}

/// A note as it stands behind a label.
pub fn suffix(note: &str) -> String {
    if note.is_empty() { String::new() } else { format!(" ({note})") }
}

type Steps = Vec<(Step, String)>;

impl Subject {
    /// The steps that an object in this state shows. Most repeat what is known; the timeline keeps the first.
    fn steps(&self, kind: &Kind, gone: bool, object: &Value, since: Timestamp, so_far: &Timeline) -> Steps {
        let plain = |steps: Vec<(Step, bool)>| {
            let seen = steps.into_iter().filter(|(_, seen)| *seen);
            seen.map(|(step, _)| (step, String::new())).collect::<Steps>()
        };
        match kind {
            k if k == &POD && object.text("/metadata/namespace") == self.longhorn => {
                plain(self.of_storage_pod(gone, object))
            }
            k if k == &POD => self.of_pod(gone, object),
            k if k == &NODE => plain(self.of_node(object)),
            k if k == &ATTACHMENT => plain(self.of_attachment(gone, object)),
            k if k == &LH_VOLUME => self.of_volume(object, so_far),
            k if k == &LH_ENGINE => plain(self.of_engine(object, so_far)),
            k if k == &LH_ATTACHMENT => self.of_tickets(object),
            k if k == &LH_BACKUP => self.of_backup(object, so_far),
            k if k == &HANDOFF => self.of_handoff(object, since),
            _ => Steps::new(),
        }
    }

    fn of_storage_pod(&self, gone: bool, pod: &Value) -> Vec<(Step, bool)> {
        let left = pod.text("/spec/nodeName") == self.workload.node;
        vec![(Step::StorageLeft, left && (gone || pod.has("/metadata/deletionTimestamp")))]
    }

    fn of_pod(&self, gone: bool, pod: &Value) -> Steps {
        let phase = pod.text("/status/phase");
        let node = pod.text("/spec/nodeName");
        let steps = if pod.text("/metadata/uid") == self.workload.uid {
            vec![
                (Step::Evicted, gone || pod.has("/metadata/deletionTimestamp"), ""),
                (Step::Ended, gone || matches!(phase, "Succeeded" | "Failed"), ""),
                (Step::Gone, gone, ""),
            ]
        } else {
            let sandbox = pod.condition("PodReadyToStartContainers") == "True";
            vec![
                (Step::Recreated, true, pod.name()),
                (Step::Bound, !node.is_empty(), node),
                (Step::Staged, sandbox || phase == "Running", ""),
                (Step::Running, phase == "Running", node),
                (Step::Ready, pod.condition("Ready") == "True", node),
            ]
        };
        steps.into_iter().filter(|(_, seen, _)| *seen).map(|(step, _, note)| (step, note.to_owned())).collect()
    }

    fn of_node(&self, node: &Value) -> Vec<(Step, bool)> {
        let in_use = format!("kubernetes.io/csi/{DRIVER}^{}", self.workload.handle);
        let uses = node.items("/status/volumesInUse").iter().any(|v| v.as_str() == Some(&in_use));
        if node.name() == self.workload.node {
            let cordoned = node.pointer("/spec/unschedulable") == Some(&Value::Bool(true));
            vec![(Step::Cordoned, cordoned), (Step::Released, !uses)]
        } else {
            vec![(Step::Expected, uses)]
        }
    }

    fn of_attachment(&self, gone: bool, attachment: &Value) -> Vec<(Step, bool)> {
        if attachment.text("/spec/source/persistentVolumeName") != self.workload.volume {
            return Vec::new();
        }
        if attachment.text("/spec/nodeName") == self.workload.node {
            vec![(Step::DetachAsked, gone || attachment.has("/metadata/deletionTimestamp")), (Step::Detachment, gone)]
        } else {
            let attached = attachment.pointer("/status/attached") == Some(&Value::Bool(true));
            vec![(Step::AttachAsked, !gone), (Step::Attachment, !gone && attached)]
        }
    }

    fn of_volume(&self, volume: &Value, so_far: &Timeline) -> Steps {
        let node = volume.text("/status/currentNodeID");
        let moved = so_far.has(Step::Detaching) || so_far.has(Step::Detached);
        let step = match volume.text("/status/state") {
            "detaching" => Step::Detaching,
            "detached" => Step::Detached,
            "attaching" if moved => Step::Attaching,
            "attached" if moved && node != self.workload.node => Step::Attached,
            _ => return Steps::new(),
        };
        let told = if step == Step::Attached { node } else { "" };
        vec![(step, told.to_owned())]
    }

    fn of_engine(&self, engine: &Value, so_far: &Timeline) -> Vec<(Step, bool)> {
        let node = engine.text("/spec/nodeID");
        let elsewhere = !node.is_empty() && node != self.workload.node && so_far.has(Step::Detached);
        vec![(Step::Endpoint, elsewhere && !engine.text("/status/endpoint").is_empty())]
    }

    fn of_tickets(&self, attachment: &Value) -> Steps {
        let tickets = attachment.pointer("/spec/attachmentTickets").and_then(Value::as_object);
        let workload = tickets.into_iter().flat_map(|t| t.values()).filter(|t| t.text("/type") == "csi-attacher");
        let elsewhere = workload.filter(|t| t.text("/nodeID") != self.workload.node);
        elsewhere
            .map(|ticket| {
                let ours = ticket.text("/parameters/lastAttachedBy") == PRESTAGE_MARK;
                (if ours { Step::PreStaged } else { Step::Requested }, ticket.text("/nodeID").to_owned())
            })
            .collect()
    }

    fn of_backup(&self, backup: &Value, so_far: &Timeline) -> Steps {
        if self.backup.as_ref().is_none_or(|ours| backup.text("/metadata/uid") != ours.uid) {
            return Steps::new();
        }
        let progress = backup.pointer("/status/progress").and_then(Value::as_i64).unwrap_or(0);
        let lost = so_far.has(Step::BackupLost);
        let step = match backup.text("/status/state") {
            "Error" | "Unknown" => Step::BackupLost,
            "InProgress" if lost => Step::Resumed,
            "Completed" => Step::Completed,
            _ => return Steps::new(),
        };
        vec![(step, if step == Step::Completed { String::new() } else { format!("at {progress} %") })]
    }

    fn of_handoff(&self, object: &Value, since: Timestamp) -> Steps {
        let Ok(handoff) = serde_json::from_value::<VolumeHandoff>(object.clone()) else { return Steps::new() };
        let of_this_move = handoff.spec.volume.volume == self.workload.volume && handoff.spec.triggered_at >= since;
        let ours = handoff.spec.checkpoints.into_iter().find(|c| self.backup.as_ref().is_some_and(|b| b.uid == c.uid));
        let checkpoint = ours.filter(|_| of_this_move);
        checkpoint.map(|c| (Step::Checkpointed, format!("at {} %", c.progress))).into_iter().collect()
    }
}
