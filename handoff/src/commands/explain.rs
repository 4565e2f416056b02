//! `handoff explain`: one page about a pod, a volume or a node, for 3 a.m.: what holds it, what is owed, what happens
//! next, and what that is read from.

use super::{
    End,
    connection::{Cluster, ClusterArgs},
    explain_node, installation,
    look::{self, Look, NodeVerdict},
    output::{self, OutputArgs, Report, Tone, paint, relative},
    release::{may_be_held_as_storage, storage_holds},
    subject::{self, Kind, Object, Subject},
};
use anyhow::Context;
use clap::Args;
use handoff_cluster::settings::Settings;
use handoff_coordinator::{
    api::{Checkpoint, Phase, Resume, ResumeState, VolumeHandoff, VolumeHandoffStatus, is_done},
    mode::enabled,
    progress::Progress,
};
use handoff_storage::{BackupState, BackupView, StorageManager, VolumeView, longhorn::DRIVER};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt};
use serde::Serialize;

/// `handoff explain`.
#[derive(Args, Debug)]
pub struct ExplainArgs {
    /// `pod/NAME`, `pvc/NAME`, `pv/NAME` or `node/NAME`.
    #[arg(required = true, num_args = 1..=2, value_name = "OBJECT")]
    pub object: Vec<String>,
    /// How it is printed.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Which cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

/// One page.
#[derive(Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// What it is about, in sentences.
    pub about: Vec<String>,
    /// Its volumes.
    pub volumes: Vec<Explained>,
    /// Every node as the scheduler would be told now, for a pod.
    pub nodes: Vec<NodeVerdict>,
}

/// One volume.
#[derive(Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explained {
    /// `NAMESPACE/CLAIM`.
    pub claim: String,
    /// The `PersistentVolume`.
    pub volume: Option<String>,
    /// What holds its pod, since when and until when.
    pub held: Vec<String>,
    /// What is owed.
    pub owed: Vec<String>,
    /// What happens next.
    pub next: Vec<String>,
    /// What that is read from.
    pub evidence: Vec<Evidence>,
    /// The steps of the move, in seconds after its beginning.
    pub steps: Vec<Step>,
}

/// An object and what it says.
#[derive(Debug, PartialEq, Serialize)]
pub struct Evidence {
    /// The object.
    pub object: String,
    /// What it says.
    pub says: String,
}

/// A step of a move.
#[derive(Debug, PartialEq, Serialize)]
pub struct Step {
    /// Seconds after the trigger.
    pub second: f64,
    /// What happened.
    pub what: String,
}

/// Explains one object.
pub async fn run(args: ExplainArgs) -> anyhow::Result<End> {
    let object = Object::parse(&args.object)?;
    let cluster = args.cluster.connect().await?;
    let page = match object.kind {
        Kind::Node => explain_node::explain(&cluster, &object.name, Timestamp::now()).await?,
        _ => explain(&cluster, &object, Timestamp::now()).await?,
    };
    output::print(&page, args.output.output)?;
    Ok(End::Yes)
}

async fn explain(cluster: &Cluster, object: &Object, now: Timestamp) -> anyhow::Result<Explanation> {
    let mut page = Explanation::default();
    let (mut subjects, mut claims, mut settings) = (Vec::new(), Vec::new(), Settings::default());
    match object.kind {
        Kind::Pod => {
            let pod = subject::pod(cluster, &object.name).await?;
            claims = subject::claims_of(&pod);
            settings = Settings::of(Some(pod.annotations()));
            page.about.push(of_pod(&pod));
            for claim in &claims {
                subjects.push(subject::of_claim(cluster, claim).await?);
            }
            if let Some(held) = held_storage(cluster, &pod, now).await? {
                page.about.push(held);
                return Ok(page);
            }
            if claims.is_empty() {
                page.about.push("It uses no persistent volume: Handoff has no part in it.".to_owned());
                return Ok(page);
            }
        }
        Kind::Claim => subjects.push(subject::of_claim(cluster, &object.name).await?),
        Kind::Volume | Kind::Node => subjects.push(subject::of_volume(cluster, &object.name).await?),
    }
    let look = Look::at(cluster).await?;
    for subject in subjects {
        page.volumes.push(explained(cluster, &look, subject, now).await?);
    }
    if !claims.is_empty() {
        let mode = installation::policy(cluster).await?.mode;
        let asked = enabled(&look.cluster.read(), &cluster.namespace, &settings, &claims, mode);
        page.nodes = look.judge(&cluster.namespace, &asked);
        if page.nodes.is_empty() && !look.judge(&cluster.namespace, &claims).is_empty() {
            let is_told = "The scheduler is told nothing about nodes: Handoff is not enabled for these claims.";
            page.about.push(is_told.to_owned());
        }
    }
    Ok(page)
}

/// What is to be said of a pod that Handoff keeps on its node as storage. Others cannot be: whoever may not look there is
/// not asked to.
async fn held_storage(cluster: &Cluster, pod: &Pod, now: Timestamp) -> anyhow::Result<Option<String>> {
    if !may_be_held_as_storage(cluster) {
        return Ok(None);
    }
    let held = storage_holds(cluster).await?;
    let bound = installation::policy(cluster).await?.storage_hold;
    Ok(explain_node::of_hold(pod, &held, bound, now))
}

/// One sentence on a pod.
pub fn of_pod(pod: &Pod) -> String {
    let status = pod.status.as_ref();
    let phase = status.and_then(|s| s.phase.as_deref()).unwrap_or("Unknown");
    let leaving = if pod.metadata.deletion_timestamp.is_some() { ", terminating" } else { "" };
    let on = pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).unwrap_or("no node yet");
    format!("Pod {}/{} is {phase}{leaving}, on {on}.", pod.namespace().unwrap_or_default(), pod.name_any())
}

async fn explained(cluster: &Cluster, look: &Look, subject: Subject, now: Timestamp) -> anyhow::Result<Explained> {
    let ours = subject.csi.as_ref().filter(|(driver, _)| driver == DRIVER).map(|(_, handle)| handle.clone());
    let (view, backups) = match &ours {
        Some(handle) => (look.storage.volume(handle), look.storage.backups(handle)),
        None => (None, Vec::new()),
    };
    let mut handoff = None;
    if let (Some(volume), Some(_)) = (&subject.volume, &ours) {
        let api: Api<VolumeHandoff> = Api::namespaced(cluster.client.clone(), &subject.namespace);
        handoff = api.get_opt(volume).await.context("cannot read VolumeHandoffs: is Handoff installed?")?;
    }
    Ok(explain_volume(&subject, handoff.as_ref(), view.as_ref(), &backups, now))
}

/// What is to be said of a volume: from what Handoff wrote down, and what Longhorn's objects show.
pub fn explain_volume(
    subject: &Subject,
    handoff: Option<&VolumeHandoff>,
    view: Option<&VolumeView>,
    backups: &[BackupView],
    now: Timestamp,
) -> Explained {
    let claim = format!("{}/{}", subject.namespace, subject.claim);
    let mut page = Explained { claim, volume: subject.volume.clone(), ..Explained::default() };
    match &subject.csi {
        _ if subject.volume.is_none() => {
            page.next.push("The claim has no volume yet; one is made when its pod is scheduled.".to_owned());
            return page;
        }
        Some((driver, _)) if driver == DRIVER => {}
        _ => {
            page.held.push("Not a Longhorn volume: Handoff leaves it alone.".to_owned());
            return page;
        }
    }
    match view {
        Some(view) => page.evidence.push(of_view(subject, view)),
        None => page.held.push("Longhorn does not know the volume.".to_owned()),
    }
    for backup in backups.iter().filter(|b| b.state != BackupState::Completed) {
        page.evidence.push(of_backup(backup));
    }
    if let Some(handoff) = handoff {
        page.take(handoff, backups, now);
        return page;
    }
    page.held.push("Nothing holds it.".to_owned());
    page.owed.push("Nothing is owed: no move has interrupted a backup of it in the last hour.".to_owned());
    let in_flight = backups.iter().filter(|b| b.in_flight()).map(|b| b.name.as_str()).collect::<Vec<_>>();
    if !in_flight.is_empty() {
        let names = in_flight.join(", ");
        page.next.push(format!("If its pod moves now, backup {names} is recorded and made complete afterwards."));
    }
    page
}

fn of_view(subject: &Subject, view: &VolumeView) -> Evidence {
    let handle = subject.csi.as_ref().map(|(_, handle)| handle.as_str()).unwrap_or_default();
    let on = view.current_node.as_ref().map(|n| format!(" on {n}")).unwrap_or_default();
    let asked = view.requests.iter().filter(|r| r.workload).map(|r| {
        let ours = if r.ours { " (our pre-stage)" } else { "" };
        format!("{}{ours}", r.node)
    });
    let asked = asked.collect::<Vec<_>>().join(", ");
    let asked = if asked.is_empty() { "nobody asks for it".to_owned() } else { format!("asked for on {asked}") };
    let good = view.replicas.iter().filter(|r| !r.failed).map(|r| r.node.as_str()).collect::<Vec<_>>().join(", ");
    let good = if good.is_empty() { "none".to_owned() } else { good };
    Evidence {
        object: format!("volumes.longhorn.io {handle}"),
        says: format!("{:?}{on}, {asked}, good replicas on: {good}", view.state),
    }
}

fn of_backup(backup: &BackupView) -> Evidence {
    let error = backup.error.as_ref().map(|e| format!(": {e}")).unwrap_or_default();
    Evidence {
        object: format!("backups.longhorn.io {}", backup.name),
        says: format!("{:?} at {} %{error}", backup.state, backup.progress),
    }
}

impl Explained {
    fn take(&mut self, handoff: &VolumeHandoff, backups: &[BackupView], now: Timestamp) {
        let spec = &handoff.spec;
        let VolumeHandoffStatus { phase, message, to, prestage, resumes, timeline, duration, conditions, .. } =
            handoff.journal();
        let object = format!("VolumeHandoff {}/{}", handoff.namespace().unwrap_or_default(), handoff.name_any());
        let mut note = |says: String| self.evidence.push(Evidence { object: object.clone(), says });
        note(format!(
            "{:?} of pod {} at {:.0}, from {} to {}; phase {}: {message}",
            spec.trigger,
            spec.pod.name,
            spec.triggered_at,
            spec.from,
            to.as_deref().unwrap_or("?"),
            phase.map_or_else(|| "none yet".to_owned(), |p| format!("{p:?}")),
        ));
        for condition in conditions.iter().filter(|c| c.kind == "BackupsSafe" || c.kind == "WorkloadReady") {
            let (kind, status, reason) = (&condition.kind, &condition.status, &condition.reason);
            note(format!("{kind}={status} ({reason}) since {:.0}", condition.last_transition_time));
        }
        if let Some(prestage) = &prestage {
            let end = match prestage.outcome {
                Some(outcome) => format!("{outcome:?}").to_lowercase(),
                None => format!("open, withdrawn {} if nobody takes it over", relative(prestage.expires_at, now)),
            };
            note(format!("pre-stage on {}: {end}", prestage.node));
        }
        match spec.hold {
            Some(hold) if now < hold.deadline => {
                self.held.push(format!(
                    "The eviction of pod {} is held since {:.0} ({}), until {:.0} at most; less if its backup is complete before. To end it now: handoff release pv/{}",
                    spec.pod.name,
                    hold.since,
                    relative(hold.since, now),
                    hold.deadline,
                    spec.volume.volume,
                ));
            }
            Some(hold) => {
                self.held.push(format!("Nothing holds it any more; its hold ended {}.", relative(hold.deadline, now)));
            }
            None => self.held.push("Nothing holds it.".to_owned()),
        }
        for checkpoint in &spec.checkpoints {
            let resume = resumes.iter().find(|r| r.backup == checkpoint.backup);
            let seen = backups.iter().find(|b| b.name == checkpoint.backup);
            self.owed.push(of_checkpoint(checkpoint, resume, seen, now));
            let open = !is_done(&resumes, &checkpoint.backup);
            self.next.extend(open.then(|| what_next(checkpoint, resume, seen, phase, now)));
        }
        if !duration.is_empty() {
            self.next.insert(0, format!("Nothing more for the pod: it was ready after {duration}."));
        } else if phase.is_some_and(|p| matches!(p, Phase::Moving | Phase::Attached)) {
            self.next.insert(0, format!("The pod: {message}."));
        }
        let step = |s: &handoff_coordinator::api::Step| Step {
            second: s.at.duration_since(spec.triggered_at).as_secs_f64(),
            what: s.what.clone(),
        };
        self.steps = timeline.iter().map(step).collect();
    }
}

fn of_checkpoint(
    checkpoint: &Checkpoint,
    resume: Option<&Resume>,
    seen: Option<&BackupView>,
    now: Timestamp,
) -> String {
    let Checkpoint { backup, progress, recorded_at, .. } = checkpoint;
    let state = resume.map_or(ResumeState::Waiting, |r| r.state);
    let tries = resume.map_or(0, |r| r.attempts);
    let since = relative(*recorded_at, now);
    let reason =
        resume.map(|r| r.reason.as_str()).filter(|r| !r.is_empty()).map(|r| format!(": {r}")).unwrap_or_default();
    match state {
        ResumeState::Completed => format!("Backup {backup} is complete, after {tries} resume(s)."),
        ResumeState::Superseded | ResumeState::Unrecoverable | ResumeState::Abandoned => {
            format!("Backup {backup} is no longer owed, {state:?}{reason}.")
        }
        ResumeState::Waiting | ResumeState::Probing | ResumeState::Running => {
            let now_at = seen.filter(|b| b.in_flight()).map(|b| format!(", is at {} % now", b.progress));
            format!(
                "Backup {backup} is owed since {since}: it was at {progress} % when the move began, was made to run again {tries} time(s){}{reason}.",
                now_at.unwrap_or_default()
            )
        }
    }
}

fn what_next(
    checkpoint: &Checkpoint,
    resume: Option<&Resume>,
    seen: Option<&BackupView>,
    phase: Option<Phase>,
    now: Timestamp,
) -> String {
    let name = &checkpoint.backup;
    if let Some(backup) = seen.filter(|b| b.in_flight()) {
        let left = Progress::default().remaining(backup, now);
        let left = left.map(|left| format!(", in about {} if it goes on as it did", output::span(left)));
        return format!("Backup {name} uploads and ends by itself{}.", left.unwrap_or_default());
    }
    let Some(resume) = resume else { return format!("Backup {name} has not been looked at yet: does a replica lead?") };
    match (resume.state, resume.next_try_at) {
        (ResumeState::Probing, _) => format!("Longhorn is asked whether backup {name} is complete after all."),
        (ResumeState::Running, _) => format!("Backup {name} was made to run again; Longhorn is to begin."),
        (_, Some(at)) if at > now => {
            format!("Backup {name} is tried again {}. At once: handoff resume", relative(at, now))
        }
        _ if matches!(phase, Some(Phase::Moving | Phase::Attached)) => {
            format!("Backup {name} is made to run again once the volume is settled and the pod is ready.")
        }
        _ => format!("Backup {name} is made to run again when its turn comes: oldest snapshot first, one at a time."),
    }
}

impl Report for Explanation {
    fn text(&self) -> String {
        let mut parts = Vec::new();
        if !self.about.is_empty() {
            parts.push(self.about.join("\n"));
        }
        parts.extend(self.volumes.iter().map(Explained::text));
        if !self.nodes.is_empty() {
            let rows = self.nodes.iter().map(|n| {
                let score = n.score.map_or_else(|| "-".to_owned(), |s| s.to_string());
                [n.node.clone(), score, n.why.clone()]
            });
            let table = output::table(["NODE", "SCORE", "WHY"], rows);
            parts.push(format!("{}\n{table}", paint(Tone::Heading, "Nodes, as the scheduler would be told now")));
        }
        parts.join("\n\n")
    }
}

impl Explained {
    fn text(&self) -> String {
        let volume = self.volume.as_ref().map(|v| format!(" → volume {v}")).unwrap_or_default();
        let mut lines = vec![paint(Tone::Heading, &format!("Claim {}{volume}", self.claim))];
        let evidence = self.evidence.iter().map(|e| format!("{}: {}", e.object, e.says)).collect::<Vec<_>>();
        let steps = self.steps.iter().map(|s| format!("+{:6.1} s  {}", s.second, s.what)).collect::<Vec<_>>();
        for (what, sentences) in [
            ("held", &self.held),
            ("owed", &self.owed),
            ("next", &self.next),
            ("evidence", &evidence),
            ("steps", &steps),
        ] {
            let first = std::iter::once(what).chain(std::iter::repeat(""));
            lines.extend(first.zip(sentences).map(|(what, sentence)| format!("  {what:<9} {sentence}")));
        }
        lines.join("\n")
    }
}

/// The handoffs that a node has part in.
pub async fn handoffs_at(cluster: &Cluster, node: &str) -> anyhow::Result<Vec<VolumeHandoff>> {
    let mut handoffs = look::handoffs(cluster, None).await?;
    handoffs.retain(|h| {
        !h.is_finished() && (h.spec.from == node || h.status.as_ref().is_some_and(|s| s.to.as_deref() == Some(node)))
    });
    Ok(handoffs)
}

#[cfg(test)]
#[path = "explain_tests.rs"]
mod tests;
