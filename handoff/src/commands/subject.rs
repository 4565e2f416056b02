//! `pod/NAME`, `pvc NAME`, …: what a command is about, and which volumes belong to it.

use super::{connection::Cluster, look};
use anyhow::{Context, bail};
use handoff_coordinator::api::VolumeHandoff;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use kube::{Api, ResourceExt, api::ListParams};
use std::fmt;

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A pod.
    Pod,
    /// A `PersistentVolumeClaim`.
    Claim,
    /// A `PersistentVolume`, or the `VolumeHandoff` of that name.
    Volume,
    /// A node.
    Node,
}

/// An object as named on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// What it is.
    pub kind: Kind,
    /// Its name.
    pub name: String,
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Pod => "pod",
            Kind::Claim => "claim",
            Kind::Volume => "volume",
            Kind::Node => "node",
        };
        write!(f, "{kind} {}", self.name)
    }
}

impl Object {
    /// From `KIND/NAME` or `KIND NAME`, with the short names of kubectl.
    pub fn parse(words: &[String]) -> anyhow::Result<Self> {
        let (kind, name) = match words {
            [one] => one.split_once('/').unwrap_or_default(),
            [kind, name] => (kind.as_str(), name.as_str()),
            _ => ("", ""),
        };
        let kind = match kind {
            "pod" | "pods" | "po" => Kind::Pod,
            "pvc" | "pvcs" | "persistentvolumeclaim" | "persistentvolumeclaims" => Kind::Claim,
            "pv" | "persistentvolume" | "persistentvolumes" | "vho" | "volumehandoff" | "volumehandoffs" => {
                Kind::Volume
            }
            "node" | "nodes" | "no" => Kind::Node,
            _ => bail!("{:?}: say pod/NAME, pvc/NAME, pv/NAME or node/NAME", words.join(" ")),
        };
        if name.is_empty() {
            bail!("{:?} has no name", words.join(" "));
        }
        Ok(Self { kind, name: name.to_owned() })
    }
}

/// A volume by all its names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// Namespace of the claim.
    pub namespace: String,
    /// The claim.
    pub claim: String,
    /// The `PersistentVolume`; none yet for a claim that waits for its pod.
    pub volume: Option<String>,
    /// Its CSI driver and handle.
    pub csi: Option<(String, String)>,
}

/// The claims of a pod, those of ephemeral volumes too.
pub fn claims_of(pod: &Pod) -> Vec<String> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let claims = volumes.filter_map(|volume| match (&volume.persistent_volume_claim, &volume.ephemeral) {
        (Some(claim), _) => Some(claim.claim_name.clone()),
        (None, Some(_)) => Some(format!("{}-{}", pod.name_any(), volume.name)),
        (None, None) => None,
    });
    claims.collect()
}

/// The pod of this name, which must be there.
pub async fn pod(cluster: &Cluster, name: &str) -> anyhow::Result<Pod> {
    let pod = Api::<Pod>::namespaced(cluster.client.clone(), &cluster.namespace).get_opt(name).await;
    pod.context("cannot read pods")?.with_context(|| format!("there is no pod {}/{name}", cluster.namespace))
}

/// The node of this name, which must be there.
pub async fn node(cluster: &Cluster, name: &str) -> anyhow::Result<Node> {
    let node = Api::<Node>::all(cluster.client.clone()).get_opt(name).await.context("cannot read nodes")?;
    node.with_context(|| format!("there is no node {name}"))
}

/// The pods on a node.
pub async fn pods_on(cluster: &Cluster, node: &str) -> anyhow::Result<Vec<Pod>> {
    let params = ListParams::default().fields(&format!("spec.nodeName={node}"));
    let pods = Api::<Pod>::all(cluster.client.clone()).list(&params).await.context("cannot list pods")?;
    let is_there = |pod: &Pod| pod.spec.as_ref().is_some_and(|s| s.node_name.as_deref() == Some(node));
    Ok(pods.items.into_iter().filter(is_there).collect())
}

/// The volume of a claim.
pub async fn of_claim(cluster: &Cluster, name: &str) -> anyhow::Result<Subject> {
    let api = Api::<PersistentVolumeClaim>::namespaced(cluster.client.clone(), &cluster.namespace);
    let claim = api.get_opt(name).await.context("cannot read claims")?;
    let claim = claim.with_context(|| format!("there is no claim {}/{name}", cluster.namespace))?;
    match claim.spec.and_then(|s| s.volume_name) {
        Some(volume) => of_volume(cluster, &volume).await,
        None => Ok(Subject { namespace: cluster.namespace.clone(), claim: name.to_owned(), ..Subject::default() }),
    }
}

/// The volume of this name.
pub async fn of_volume(cluster: &Cluster, name: &str) -> anyhow::Result<Subject> {
    let volume = Api::<PersistentVolume>::all(cluster.client.clone()).get_opt(name).await;
    let volume = volume.context("cannot read volumes")?.with_context(|| format!("there is no volume {name}"))?;
    let spec = volume.spec.unwrap_or_default();
    let claim = spec.claim_ref.unwrap_or_default();
    Ok(Subject {
        namespace: claim.namespace.unwrap_or_default(),
        claim: claim.name.unwrap_or_default(),
        volume: Some(name.to_owned()),
        csi: spec.csi.map(|csi| (csi.driver, csi.volume_handle)),
    })
}

/// The handoffs that belong to an object. A pod that is gone is found by what the handoffs say of it.
pub async fn handoffs_of(cluster: &Cluster, object: &Object) -> anyhow::Result<Vec<VolumeHandoff>> {
    // volumes and nodes have no namespace
    let namespace = matches!(object.kind, Kind::Pod | Kind::Claim).then_some(cluster.namespace.as_str());
    let mut handoffs = look::handoffs(cluster, namespace).await?;
    let mut claims = Vec::new();
    if object.kind == Kind::Pod {
        let api = Api::<Pod>::namespaced(cluster.client.clone(), &cluster.namespace);
        claims =
            api.get_opt(&object.name).await.context("cannot read pods")?.as_ref().map(claims_of).unwrap_or_default();
    }
    handoffs.retain(|h| match object.kind {
        Kind::Pod => h.spec.pod.name == object.name || claims.contains(&h.spec.volume.claim),
        Kind::Claim => h.spec.volume.claim == object.name,
        Kind::Volume => h.name_any() == object.name,
        Kind::Node => {
            let status = h.status.as_ref();
            h.spec.from == object.name || status.is_some_and(|s| s.to.as_deref() == Some(&object.name))
        }
    });
    Ok(handoffs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_named_as_for_kubectl() {
        let parse = |words: &[&str]| Object::parse(&words.iter().map(ToString::to_string).collect::<Vec<_>>());
        for (words, kind) in [
            (&["pod/a"][..], Kind::Pod),
            (&["po", "a"], Kind::Pod),
            (&["pvc/a"], Kind::Claim),
            (&["persistentvolumeclaims", "a"], Kind::Claim),
            (&["pv/a"], Kind::Volume),
            (&["vho/a"], Kind::Volume),
            (&["node", "a"], Kind::Node),
        ] {
            assert_eq!(parse(words).unwrap(), Object { kind, name: "a".into() }, "{words:?}");
        }
        for words in [&["a"][..], &["svc/a"], &["pod/"], &["pod", ""]] {
            assert!(parse(words).is_err(), "{words:?}");
        }
    }
}
