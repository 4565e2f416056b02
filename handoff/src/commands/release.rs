//! `handoff release`: ends holds now. A pod's hold is in the `VolumeHandoff` of its volume, that of a storage pod in a
//! `ConfigMap` of ours; both are changed under their resourceVersion, and the next review goes by what they say.

use super::{
    End,
    connection::{Cluster, ClusterArgs},
    orders::ROUNDS,
    output::{self, OutputArgs, Report, Tone, paint, relative},
    subject::{self, Kind, Object},
};
use anyhow::{Context, bail};
use clap::Args;
use handoff_cluster::settings::LONGEST_HOLD;
use handoff_coordinator::{
    api::{Hold, VolumeHandoff},
    holds,
    policy::after,
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
};
use serde::Serialize;
use serde_json::{Value, json};

/// `handoff release`.
#[derive(Args, Debug)]
pub struct ReleaseArgs {
    /// What is held: `pod/NAME`, `pvc/NAME`, `pv/NAME`, or `node/NAME` for the storage pods of a node.
    #[arg(required = true, num_args = 1..=2, value_name = "OBJECT")]
    pub object: Vec<String>,
    /// Do not ask.
    #[arg(short, long)]
    pub yes: bool,
    /// Say what would be released, and do nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// How it is printed.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Which cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

/// What was released.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Released {
    /// Nothing was written.
    pub dry_run: bool,
    /// One per hold.
    pub holds: Vec<Held>,
    #[serde(skip)]
    now: Timestamp,
}

/// A hold.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Held {
    /// Namespace of the pod.
    pub namespace: String,
    /// The pod that was held.
    pub pod: String,
    /// Where the hold is written down.
    pub recorded_in: String,
    /// Since when.
    pub since: Timestamp,
    /// Until when it would have lasted at most.
    pub until: Timestamp,
}

/// Ends the holds of an object.
pub async fn run(args: ReleaseArgs) -> anyhow::Result<End> {
    let object = Object::parse(&args.object)?;
    let cluster = args.cluster.connect().await?;
    let now = Timestamp::now();
    let found = find(&cluster, &object, now).await?;
    if found.is_empty() {
        bail!("nothing holds {object}");
    }
    if !args.dry_run {
        let pods = found.iter().map(|f| format!("{}/{}", f.held.namespace, f.held.pod)).collect::<Vec<_>>().join(", ");
        let question = format!("End the hold of {pods}? The next eviction is let through.");
        if !output::confirm(&question, args.yes)? {
            bail!("not confirmed, nothing was done");
        }
        for hold in &found {
            release(&cluster, hold, now).await?;
        }
    }
    let holds = found.into_iter().map(|f| f.held).collect();
    output::print(&Released { dry_run: args.dry_run, holds, now }, args.output.output)?;
    Ok(End::Yes)
}

/// A hold and where it is.
struct Found {
    held: Held,
    place: Place,
}

enum Place {
    /// `VolumeHandoff` NAMESPACE/NAME.
    Handoff(String, String),
    /// The entry of a pod UID in our `ConfigMap`.
    Storage(String),
}

async fn find(cluster: &Cluster, object: &Object, now: Timestamp) -> anyhow::Result<Vec<Found>> {
    let mut found = Vec::new();
    if object.kind != Kind::Node {
        let handoffs = subject::handoffs_of(cluster, object).await?;
        found.extend(of_handoffs(&handoffs, now));
    }
    if object.kind == Kind::Node || object.kind == Kind::Pod && may_be_held_as_storage(cluster) {
        let held = storage_holds(cluster).await?;
        let pods = if object.kind == Kind::Node {
            subject::pods_on(cluster, &object.name).await?
        } else {
            let api = cluster.objects::<Pod>(Some(&cluster.namespace));
            api.get_opt(&object.name).await.context("cannot read pods")?.into_iter().collect()
        };
        found.extend(pods.iter().filter_map(|pod| of_storage(pod, &held, now)));
    }
    Ok(found)
}

/// Pods of the namespace may be kept on their node as storage: Longhorn's, or our own. A user of another namespace need not be
/// allowed to see where that is written.
pub fn may_be_held_as_storage(cluster: &Cluster) -> bool {
    [&cluster.longhorn, &cluster.handoff].contains(&&cluster.namespace)
}

/// Pod UID and first denial, as our replicas share them.
pub async fn storage_holds(cluster: &Cluster) -> anyhow::Result<Vec<(String, Timestamp)>> {
    let api = Api::<ConfigMap>::namespaced(cluster.client.clone(), &cluster.handoff);
    let map = api.get_opt(holds::NAME).await.with_context(|| format!("cannot read ConfigMap {}", holds::NAME))?;
    Ok(map.iter().flat_map(holds::first_denials).collect())
}

fn of_handoffs(handoffs: &[VolumeHandoff], now: Timestamp) -> Vec<Found> {
    let is_held = |h: &&VolumeHandoff| h.spec.hold.is_some_and(|hold| now < hold.deadline);
    let pods = handoffs.iter().filter(is_held).map(|h| (h.spec.pod.uid.as_str(), h.spec.hold)).collect::<Vec<_>>();
    // the pod's other volumes too: or one of them would begin a hold of its own
    let meant = handoffs.iter().filter_map(|h| {
        let (_, hold) = pods.iter().find(|(uid, _)| *uid == h.spec.pod.uid)?;
        let Hold { since, deadline } = h.spec.hold.or(*hold)?;
        let (namespace, name) = (h.namespace().unwrap_or_default(), h.name_any());
        Some(Found {
            held: Held {
                namespace: namespace.clone(),
                pod: h.spec.pod.name.clone(),
                recorded_in: format!("VolumeHandoff {namespace}/{name}"),
                since,
                until: deadline,
            },
            place: Place::Handoff(namespace, name),
        })
    });
    meant.collect()
}

fn of_storage(pod: &Pod, held: &[(String, Timestamp)], now: Timestamp) -> Option<Found> {
    let uid = pod.uid()?;
    // the bound of the installation may be less, never more
    let since = held.iter().find(|(held, _)| *held == uid).map(|(_, since)| *since)?;
    let until = after(since, LONGEST_HOLD);
    (now < until).then(|| Found {
        held: Held {
            namespace: pod.namespace().unwrap_or_default(),
            pod: pod.name_any(),
            recorded_in: format!("ConfigMap {}", holds::NAME),
            since,
            until,
        },
        place: Place::Storage(uid),
    })
}

async fn release(cluster: &Cluster, found: &Found, now: Timestamp) -> anyhow::Result<()> {
    for _ in 0..ROUNDS {
        let (written, what) = match &found.place {
            Place::Handoff(namespace, name) => {
                let api = Api::<VolumeHandoff>::namespaced(cluster.client.clone(), namespace);
                let handoff = api.get(name).await.with_context(|| format!("cannot read VolumeHandoff {name}"))?;
                let patch = end_hold(&handoff, found.held.since, now);
                let written = api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop);
                (written, format!("VolumeHandoff {namespace}/{name}"))
            }
            Place::Storage(uid) => {
                let api = Api::<ConfigMap>::namespaced(cluster.client.clone(), &cluster.handoff);
                let map = api.get(holds::NAME).await.context("cannot read the ConfigMap of holds")?;
                let patch = json!({
                    "metadata": {"resourceVersion": map.resource_version()},
                    "data": {uid: holds::released(now).to_string()},
                });
                let written = api.patch(holds::NAME, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop);
                (written, format!("ConfigMap {}", holds::NAME))
            }
        };
        match written {
            Ok(()) => return Ok(()),
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(error).with_context(|| format!("cannot write {what}")),
        }
    }
    bail!("{} kept changing under us; nothing was released", found.held.recorded_in)
}

/// The merge patch after which the hold is over. It stays written down: a hold that nobody remembers would begin anew.
fn end_hold(handoff: &VolumeHandoff, since: Timestamp, now: Timestamp) -> Value {
    let since = handoff.spec.hold.map_or(since, |hold| hold.since).min(now);
    let deadline = handoff.spec.hold.map_or(now, |hold| hold.deadline.min(now));
    json!({
        "metadata": {"resourceVersion": handoff.resource_version()},
        "spec": {"hold": {"since": since, "deadline": deadline}},
    })
}

impl Report for Released {
    fn text(&self) -> String {
        let lines = self.holds.iter().map(|held| {
            let Held { namespace, pod, recorded_in, since, until } = held;
            let what = if self.dry_run { "would release".to_owned() } else { paint(Tone::Good, "released") };
            format!(
                "{what} pod {namespace}/{pod}: held since {}, would have been until {until:.0} at most ({recorded_in})",
                relative(*since, self.now)
            )
        });
        lines.collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::super::{
        fake::Api as Fake,
        tests::{at, handoff},
    };
    use super::*;

    const HOLDS: &str = "/api/v1/namespaces/handoff-system/configmaps/handoff-holds";

    fn held(volume: &str, since: i64, deadline: i64) -> VolumeHandoff {
        let mut handoff = handoff(volume);
        handoff.spec.hold = Some(Hold { since: at(since), deadline: at(deadline) });
        handoff
    }

    fn path(volume: &str) -> String {
        format!("/apis/volumehandoff.io/v1alpha1/namespaces/shop/volumehandoffs/{volume}")
    }

    fn api() -> Fake {
        let api = Fake::default();
        api.put(&path("one"), json!(held("one", 0, 60)));
        api.put(&path("two"), json!(handoff("two")));
        let manager = json!({"metadata": {"name": "im-a", "uid": "im-1"}, "spec": {"nodeName": "a", "containers": []}});
        api.put("/api/v1/namespaces/longhorn-system/pods/im-a", manager);
        api.put(
            HOLDS,
            json!({"metadata": {"name": "handoff-holds"},
            "data": {"im-1": at(10).to_string(), "gone": at(10).to_string()}}),
        );
        api
    }

    fn object(kind: Kind, name: &str) -> Object {
        Object { kind, name: name.into() }
    }

    #[tokio::test]
    async fn a_pods_hold_ends_now_for_all_of_its_volumes_and_stays_remembered() {
        let api = api();
        api.conflict(1);
        let cluster = api.cluster("shop");
        let found = find(&cluster, &object(Kind::Pod, "db-0"), at(20)).await.unwrap();
        assert_eq!(found.len(), 2, "both volumes of the pod");
        for hold in &found {
            release(&cluster, hold, at(20)).await.unwrap();
        }
        for volume in ["one", "two"] {
            let hold = &api.get(&path(volume)).unwrap()["spec"]["hold"];
            assert_eq!(*hold, json!({"since": at(0), "deadline": at(20)}), "{volume}");
        }
        assert!(find(&cluster, &object(Kind::Pod, "db-0"), at(20)).await.unwrap().is_empty(), "nothing is held");
    }

    #[tokio::test]
    async fn a_storage_pods_hold_is_found_by_its_node_and_ends_now() {
        let api = api();
        let cluster = api.cluster("longhorn-system");
        for meant in [object(Kind::Node, "a"), object(Kind::Pod, "im-a")] {
            let found = find(&cluster, &meant, at(20)).await.unwrap();
            assert_eq!(found.len(), 1, "{meant}");
            assert_eq!((found[0].held.pod.as_str(), found[0].held.until), ("im-a", at(110)));
        }
        assert!(find(&cluster, &object(Kind::Node, "b"), at(20)).await.unwrap().is_empty());
        let found = find(&cluster, &object(Kind::Node, "a"), at(20)).await.unwrap();
        release(&cluster, &found[0], at(20)).await.unwrap();
        let data = api.get(HOLDS).unwrap()["data"].clone();
        assert_eq!(data["im-1"], holds::released(at(20)).to_string());
        assert_eq!(data["gone"], at(10).to_string(), "the others are left alone");
        assert!(find(&cluster, &object(Kind::Node, "a"), at(20)).await.unwrap().is_empty());
    }

    #[test]
    fn a_hold_is_never_made_longer() {
        let patch = end_hold(&held("one", 0, 60), at(0), at(90));
        assert_eq!(patch["spec"]["hold"], json!({"since": at(0), "deadline": at(60)}));
        assert_eq!(patch["metadata"]["resourceVersion"], "1");
    }
}
