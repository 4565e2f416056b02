//! `handoff explain`: one page about a pod or a volume, for 3 a.m.

use crate::{args::ExplainArgs, nodes};
use anyhow::{Context, bail};
use handoff_coordinator::api::{ResumeState, VolumeHandoff, VolumeHandoffStatus};
use handoff_storage::longhorn::DRIVER;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DynamicObject, ListParams},
};

/// A claim and its volume.
struct Subject {
    claim: String,
    namespace: String,
    volume: String,
    handle: Option<String>,
}

/// Explains one object.
pub async fn run(args: ExplainArgs) -> anyhow::Result<()> {
    let client = Client::try_default().await.context("no cluster: is KUBECONFIG set?")?;
    let mut claims = Vec::new();
    let subjects = match args.object.split_once('/') {
        Some(("pod" | "pods" | "po", name)) => {
            claims = claims_of_pod(&client, &args.namespace, name).await?;
            of_claims(&client, &args.namespace, &claims).await?
        }
        Some(("pvc" | "persistentvolumeclaim", name)) => vec![of_claim(&client, &args.namespace, name).await?],
        Some(("pv" | "persistentvolume", name)) => vec![of_volume(&client, name).await?],
        _ => bail!("cannot explain {:?}: say pod/NAME, pvc/NAME or pv/NAME", args.object),
    };
    if subjects.is_empty() && claims.is_empty() {
        println!("{} uses no persistent volume: Handoff has no part in it.", args.object);
    }
    for subject in subjects {
        explain(&client, &args.longhorn_namespace, &subject).await?;
    }
    if !claims.is_empty() {
        nodes::print(&client, &args.longhorn_namespace, &args.namespace, &claims).await?;
    }
    Ok(())
}

/// Prints a line on the pod; returns the names of its claims.
async fn claims_of_pod(client: &Client, namespace: &str, name: &str) -> anyhow::Result<Vec<String>> {
    let pod = Api::<Pod>::namespaced(client.clone(), namespace).get_opt(name).await?;
    let pod = pod.with_context(|| format!("there is no pod {namespace}/{name}"))?;
    let spec = pod.spec.unwrap_or_default();
    let phase = pod.status.and_then(|s| s.phase).unwrap_or_default();
    let leaving = if pod.metadata.deletion_timestamp.is_some() { ", terminating" } else { "" };
    println!("pod {namespace}/{name}: {phase}{leaving}, on {}", spec.node_name.as_deref().unwrap_or("no node yet"));
    let claims = spec.volumes.unwrap_or_default().into_iter().filter_map(|volume| {
        match (volume.persistent_volume_claim, volume.ephemeral) {
            (Some(claim), _) => Some(claim.claim_name),
            (None, Some(_)) => Some(format!("{name}-{}", volume.name)),
            (None, None) => None,
        }
    });
    Ok(claims.collect())
}

/// Those of a pod's claims that have a volume; a line on each of the others.
async fn of_claims(client: &Client, namespace: &str, claims: &[String]) -> anyhow::Result<Vec<Subject>> {
    let mut subjects = Vec::new();
    for claim in claims {
        match volume_of_claim(client, namespace, claim).await? {
            Some(volume) => subjects.push(of_volume(client, &volume).await?),
            None => println!("\nclaim {namespace}/{claim}: it has no volume yet"),
        }
    }
    Ok(subjects)
}

async fn of_claim(client: &Client, namespace: &str, name: &str) -> anyhow::Result<Subject> {
    let volume = volume_of_claim(client, namespace, name).await?;
    let volume = volume.with_context(|| format!("claim {namespace}/{name} is not bound to a volume yet"))?;
    of_volume(client, &volume).await
}

async fn volume_of_claim(client: &Client, namespace: &str, name: &str) -> anyhow::Result<Option<String>> {
    let claim = Api::<PersistentVolumeClaim>::namespaced(client.clone(), namespace).get_opt(name).await?;
    let claim = claim.with_context(|| format!("there is no claim {namespace}/{name}"))?;
    Ok(claim.spec.and_then(|s| s.volume_name))
}

async fn of_volume(client: &Client, name: &str) -> anyhow::Result<Subject> {
    let volume = Api::<PersistentVolume>::all(client.clone()).get_opt(name).await?;
    let spec = volume.with_context(|| format!("there is no volume {name}"))?.spec.unwrap_or_default();
    let claim = spec.claim_ref.unwrap_or_default();
    Ok(Subject {
        claim: claim.name.unwrap_or_default(),
        namespace: claim.namespace.unwrap_or_default(),
        volume: name.to_owned(),
        handle: spec.csi.filter(|c| c.driver == DRIVER).map(|c| c.volume_handle),
    })
}

async fn explain(client: &Client, longhorn: &str, subject: &Subject) -> anyhow::Result<()> {
    println!("\nclaim {}/{} → volume {}", subject.namespace, subject.claim, subject.volume);
    let Some(handle) = &subject.handle else {
        println!("  not a Longhorn volume: Handoff leaves it alone");
        return Ok(());
    };
    volume_lines(client, longhorn, handle).await?;
    let api: Api<VolumeHandoff> = Api::namespaced(client.clone(), &subject.namespace);
    match api.get_opt(&subject.volume).await.context("cannot read VolumeHandoffs: is Handoff installed?")? {
        Some(handoff) => handoff_lines(&handoff),
        None => println!("  no handoff: nothing is held and nothing is owed"),
    }
    Ok(())
}

/// What Longhorn says of the volume and its unfinished backups.
async fn volume_lines(client: &Client, namespace: &str, handle: &str) -> anyhow::Result<()> {
    let text = |o: &DynamicObject, path: &str| o.data.pointer(path).map(plain).unwrap_or_default();
    let volumes: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &kind("Volume", "volumes"));
    let Some(volume) = volumes.get_opt(handle).await.context("cannot read Longhorn's volumes")? else {
        println!("  Longhorn does not know volume {handle}");
        return Ok(());
    };
    let (state, node) = (text(&volume, "/status/state"), text(&volume, "/status/currentNodeID"));
    let on = if node.is_empty() { String::new() } else { format!(" on {node}") };
    println!("  Longhorn: {state}{on}, {}", text(&volume, "/status/robustness"));
    let backups: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &kind("Backup", "backups"));
    let of_volume = ListParams::default().labels(&format!("backup-volume={handle}"));
    for backup in backups.list(&of_volume).await.context("cannot read Longhorn's backups")? {
        let state = text(&backup, "/status/state");
        if state != "Completed" {
            let state = if state.is_empty() { "New" } else { &state };
            let (progress, error) = (text(&backup, "/status/progress"), text(&backup, "/status/error"));
            println!("  backup {}: {state} at {progress} % {error}", backup.name_any());
        }
    }
    Ok(())
}

fn plain(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned)
}

fn kind(kind: &str, plural: &str) -> ApiResource {
    ApiResource {
        group: "longhorn.io".to_owned(),
        version: "v1beta2".to_owned(),
        api_version: "longhorn.io/v1beta2".to_owned(),
        kind: kind.to_owned(),
        plural: plural.to_owned(),
    }
}

fn handoff_lines(handoff: &VolumeHandoff) {
    let VolumeHandoffStatus { phase, message, to, prestage, resumes, timeline, duration, .. } = handoff.journal();
    let spec = &handoff.spec;
    let phase = phase.map_or_else(|| "not looked at yet".to_owned(), |p| format!("{p:?}"));
    println!("  handoff: {phase} – {message}");
    println!(
        "    {} of pod {} at {:.0}: {} → {}{}",
        format!("{:?}", spec.trigger).to_lowercase(),
        spec.pod.name,
        spec.triggered_at,
        spec.from,
        to.as_deref().unwrap_or("?"),
        if duration.is_empty() { String::new() } else { format!(", workload ready after {duration}") },
    );
    if let Some(hold) = spec.hold {
        println!("    eviction first denied at {:.0}, held until {:.0} at most", hold.since, hold.deadline);
    }
    if let Some(p) = prestage {
        let end = p.outcome.map_or_else(|| format!("open until {:.0}", p.expires_at), |o| format!("{o:?}"));
        println!("    pre-stage on {}: {end}", p.node);
    }
    println!("    backups:");
    for checkpoint in &spec.checkpoints {
        let resume = resumes.iter().find(|r| r.backup == checkpoint.backup);
        let state = resume.map_or("Waiting".to_owned(), |r| format!("{:?}", r.state));
        let tries = resume.map_or(0, |r| r.attempts);
        let reason = resume.map(|r| r.reason.as_str()).unwrap_or_default();
        let next = resume.filter(|r| r.state == ResumeState::Waiting).and_then(|r| r.next_try_at);
        let next = next.map(|at| format!(", next try at {at:.0}")).unwrap_or_default();
        println!(
            "      {} from snapshot {} (was at {} %): {state}, resumed {tries} time(s){next} {reason}",
            checkpoint.backup, checkpoint.snapshot, checkpoint.progress
        );
    }
    println!("    steps:");
    for step in timeline {
        println!("      +{:6.1} s  {}", step.at.duration_since(spec.triggered_at).as_secs_f64(), step.what);
    }
}
