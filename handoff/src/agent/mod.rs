//! `handoff agent`: one per node. It looks whether a volume that leaves the node is unstaged yet, and says so on the
//! `VolumeHandoff`. Kubernetes itself learns that only at the kubelet's next status report, every 10 s by default; with
//! the proof, Handoff lets the old attachment go at once. Without an agent moves are as they were.

pub mod mounts;

use crate::{args::AgentArgs, logs, serve};
use anyhow::{Context, bail};
use futures::TryStreamExt;
use handoff_coordinator::api::{UNSTAGED, VolumeHandoff};
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams},
    runtime::{WatchStreamExt, watcher},
};
use mounts::{proves_by_unmount, source_at, staging_path};
use serde_json::json;
use std::{collections::HashMap, pin::pin, time::Duration};
use tokio::time::{MissedTickBehavior, interval};

/// How often the mount table is read while a volume is leaving this node.
const LOOK: Duration = Duration::from_millis(100);
/// How long the API server may take to answer.
const ANSWER: Duration = Duration::from_secs(5);

/// A volume that leaves this node.
struct Leaving {
    path: String,
    namespace: String,
    /// `spec.triggeredAt`: which move this is about.
    moved_at: String,
    /// It was seen staged during this move, by a device whose unmount proves that it is unstaged.
    staged: bool,
}

/// Runs until it is ended.
pub async fn run(args: AgentArgs) -> anyhow::Result<()> {
    logs::start(args.log_format, &args.log)?;
    if !args.plugins.starts_with('/') {
        bail!("bad configuration: plugins must be an absolute path, it is {:?}", args.plugins);
    }
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::try_from(serve::cluster().await?).context("cannot make an API client")?;
    let mut leaving = HashMap::new();
    let mut changes =
        pin!(watcher(Api::<VolumeHandoff>::all(client.clone()), watcher::Config::default()).default_backoff());
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut ended = pin!(serve::termination());
    tracing::info!(node = args.node, plugins = args.plugins, "watching volumes that leave this node");
    loop {
        tokio::select! {
            () = &mut ended => return Ok(()),
            change = changes.try_next() => match change {
                Ok(Some(change)) => follow(&mut leaving, change, &args),
                Ok(None) => bail!("the watch of VolumeHandoffs ended"),
                Err(error) => tracing::warn!(%error, "watch of VolumeHandoffs interrupted"),
            },
            _ = look.tick(), if !leaving.is_empty() => {
                let table = std::fs::read_to_string("/proc/self/mountinfo").context("cannot read our mount table")?;
                for (volume, namespace, moved_at) in unstaged(&mut leaving, &table) {
                    tell(&client, &namespace, &volume, &moved_at).await;
                }
            }
        }
    }
}

fn follow(leaving: &mut HashMap<String, Leaving>, change: watcher::Event<VolumeHandoff>, args: &AgentArgs) {
    match change {
        watcher::Event::Apply(handoff) | watcher::Event::InitApply(handoff) => note(leaving, &handoff, args),
        watcher::Event::Delete(handoff) => drop(leaving.remove(&handoff.name_any())),
        watcher::Event::Init | watcher::Event::InitDone => {}
    }
}

/// Takes in a handoff: one of a volume that is leaving this node is looked at until it has left.
fn note(leaving: &mut HashMap<String, Leaving>, handoff: &VolumeHandoff, args: &AgentArgs) {
    let (name, moved_at) = (handoff.name_any(), handoff.spec.triggered_at.to_string());
    let told = handoff.annotations().get(UNSTAGED) == Some(&moved_at);
    if handoff.spec.from != args.node || told || handoff.workload_is_ready() {
        leaving.remove(&name);
    } else if leaving.get(&name).is_none_or(|known| known.moved_at != moved_at) {
        let path = staging_path(&args.plugins, &handoff.spec.volume.driver, &handoff.spec.volume.handle);
        let namespace = handoff.namespace().unwrap_or_default();
        leaving.insert(name, Leaving { path, namespace, moved_at, staged: false });
    }
}

/// Volumes that were staged before and are not any more: name, namespace, move. What was never seen staged (a raw block
/// device, an agent that started late) proves nothing.
fn unstaged(leaving: &mut HashMap<String, Leaving>, mountinfo: &str) -> Vec<(String, String, String)> {
    let mut gone = Vec::new();
    for (volume, entry) in leaving {
        match source_at(mountinfo, &entry.path) {
            Some(source) => entry.staged = proves_by_unmount(source),
            None if entry.staged => gone.push((volume.clone(), entry.namespace.clone(), entry.moved_at.clone())),
            None => {}
        }
    }
    gone
}

/// Writes it down. What fails is tried again at the next look; the watch shows what succeeded.
async fn tell(client: &Client, namespace: &str, volume: &str, moved_at: &str) {
    let api: Api<VolumeHandoff> = Api::namespaced(client.clone(), namespace);
    let patch = Patch::Merge(json!({"metadata": {"annotations": {UNSTAGED: moved_at}}}));
    let params = PatchParams::default();
    match tokio::time::timeout(ANSWER, api.patch_metadata(volume, &params, &patch)).await {
        Ok(Ok(_)) => tracing::info!(volume, "unstaged"),
        Ok(Err(error)) => tracing::warn!(volume, %error, "cannot say that it is unstaged"),
        Err(_) => tracing::warn!(volume, "cannot say that it is unstaged: the API server does not answer"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use handoff_coordinator::api::VolumeHandoffSpec;

    const DEVICE: &str = "/dev/longhorn/pvc-1";

    fn args() -> AgentArgs {
        use clap::Parser;
        AgentArgs::try_parse_from(["agent", "--node", "a"]).unwrap()
    }

    fn handoff(from: &str) -> VolumeHandoff {
        let spec = serde_json::json!({
            "volume": {"driver": "driver.longhorn.io", "handle": "pvc-1", "volume": "pv", "claim": "c"},
            "pod": {"name": "db-0", "uid": "u"}, "from": from, "trigger": "Eviction",
            "triggeredAt": "2026-01-01T00:00:00Z", "checkpoints": [],
        });
        let spec: VolumeHandoffSpec = serde_json::from_value(spec).unwrap();
        let mut handoff = VolumeHandoff::new("pv", spec);
        handoff.metadata.namespace = Some("ns".into());
        handoff
    }

    fn table(source: &str) -> String {
        let path = staging_path(&args().plugins, "driver.longhorn.io", "pvc-1");
        format!("10 1 7:0 / {path} rw shared:1 - ext4 {source} rw\n")
    }

    #[test]
    fn it_is_said_once_staged_then_gone() {
        let mut leaving = HashMap::new();
        note(&mut leaving, &handoff("a"), &args());
        assert!(unstaged(&mut leaving, "").is_empty(), "never seen staged: proves nothing");
        assert!(unstaged(&mut leaving, &table(DEVICE)).is_empty(), "staged");
        note(&mut leaving, &handoff("a"), &args());
        let said = unstaged(&mut leaving, "");
        assert_eq!(said, [("pv".to_owned(), "ns".to_owned(), "2026-01-01T00:00:00Z".to_owned())]);
        let mut told = handoff("a");
        told.metadata.annotations = Some([(UNSTAGED.to_owned(), "2026-01-01T00:00:00Z".to_owned())].into());
        assert!(told.is_unstaged());
        note(&mut leaving, &told, &args());
        assert!(leaving.is_empty(), "told: nothing left to look at");
    }

    #[test]
    fn other_nodes_encrypted_volumes_and_new_moves_start_without_proof() {
        let mut leaving = HashMap::new();
        note(&mut leaving, &handoff("b"), &args());
        assert!(leaving.is_empty());
        note(&mut leaving, &handoff("a"), &args());
        unstaged(&mut leaving, &table("/dev/mapper/pvc-1"));
        assert!(unstaged(&mut leaving, "").is_empty(), "encrypted");
        unstaged(&mut leaving, &table(DEVICE));
        let mut next = handoff("a");
        next.spec.triggered_at = "2026-01-02T00:00:00Z".parse().unwrap();
        note(&mut leaving, &next, &args());
        assert!(unstaged(&mut leaving, "").is_empty(), "another move");
        next.spec.from = "b".into();
        note(&mut leaving, &next, &args());
        assert!(leaving.is_empty());
    }
}
