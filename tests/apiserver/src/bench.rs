//! Everything a check needs: a control plane with Handoff installed as users install it, and replicas of it.

use crate::{
    args::Paths,
    control_plane::{ControlPlane, NODES, User},
    http::{Answer, Api, Read, eventually},
    kubelet::Kubelets,
    metrics,
    replicas::Replicas,
    report::Report,
    world::{Volume, World, core, handoff, longhorn, pod},
};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::{path::PathBuf, time::Duration};

/// How long anything is waited for that is not measured.
pub const SOON: Duration = Duration::from_secs(10);

/// Our webhooks, without `.volumehandoff.io`.
pub const WEBHOOKS: [&str; 6] = ["pods", "evictions", "storage-evictions", "pods-delete", "bindings", "snapshots"];

/// Our mutating webhooks.
pub const MUTATING: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/handoff";
/// Our validating webhooks.
pub const VALIDATING: &str = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/handoff";

/// A pod with a volume whose backup is in flight.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Its volume.
    pub volume: Volume,
    /// Namespace.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// UID of the pod.
    pub uid: String,
    /// Name of backup and snapshot.
    pub backup: String,
}

impl Workload {
    /// Path of the pod, or of one of its subresources.
    pub fn path(&self, subresource: &str) -> String {
        let pod = core(&self.namespace, "pods", &self.pod);
        if subresource.is_empty() { pod } else { format!("{pod}/{subresource}") }
    }

    /// An Eviction of the pod.
    pub fn eviction(&self, options: &Value) -> Value {
        json!({"apiVersion": "policy/v1", "kind": "Eviction",
            "metadata": {"name": self.pod, "namespace": self.namespace}, "deleteOptions": options})
    }
}

/// Everything a check needs.
pub struct Bench {
    /// The control plane.
    pub plane: ControlPlane,
    /// The administrator's way.
    pub admin: Api,
    /// Makes objects.
    pub world: World,
    /// Handoff.
    pub replicas: Replicas,
    /// What was found.
    pub report: Report,
    /// Handoff's manifests.
    pub deploy: PathBuf,
    /// cert-manager's programs and definitions.
    pub cert_manager: Option<PathBuf>,
    /// Names of Handoff's pods, which its replicas here bear.
    pub names: Vec<String>,
    kubelets: Option<Kubelets>,
}

impl Bench {
    /// Starts the control plane, installs Longhorn's definitions and Handoff, and starts Handoff.
    pub async fn start(paths: &Paths) -> Result<Self> {
        let plane = ControlPlane::start(paths).await?;
        let admin = plane.api(User::Admin)?;
        let world = World { admin: admin.clone() };
        world.namespace("longhorn-system").await?;
        let crds = paths.longhorn_crds.display().to_string();
        plane.kubectl_ok(&["apply", "--server-side", "-f", &crds]).await.context("Longhorn's definitions")?;
        let kustomization = paths.deploy.join("kustomize").display().to_string();
        plane.kubectl_ok(&["apply", "-k", &kustomization]).await.context("Handoff's manifests")?;
        let replicas = Replicas::new(paths).await?;
        point_webhooks(&admin, replicas.webhook.port).await?;
        let made = eventually(SOON, async || Ok(world.base().await.ok()));
        if made.await?.is_none() {
            bail!("cannot make the world: {:#}", world.base().await.err().context("it was made after all")?);
        }
        let names = own_pods(&admin).await?;
        let kubelets = Some(Kubelets::start(&plane)?);
        let (deploy, cert_manager) = (paths.deploy.clone(), paths.cert_manager.clone());
        let report = Report::default();
        let mut bench = Self { plane, admin, world, replicas, report, deploy, cert_manager, names, kubelets };
        bench.start_replicas(&[]).await?;
        Ok(bench)
    }

    /// Stops the kubelets: they look at every pod ten times a second.
    pub fn without_kubelets(&mut self) {
        self.kubelets = None;
    }

    /// Starts as many replicas as the deployment has, and waits until the API server asks them.
    pub async fn start_replicas(&mut self, flags: &[&str]) -> Result<()> {
        let names = self.names.clone();
        self.replicas.start(&self.plane, &names, flags).await?;
        self.asked().await
    }

    /// SIGKILLs all replicas and starts them anew with other flags.
    pub async fn restart(&mut self, flags: &[&str]) -> Result<()> {
        self.replicas.kill().await?;
        self.start_replicas(flags).await
    }

    /// Waits until both webhook configurations have a `caBundle` and an eviction's review arrives.
    async fn asked(&self) -> Result<()> {
        let before = self.replicas.calls(&["hook=\"eviction\""]).await?;
        let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "nobody"}});
        let asked = eventually(SOON, async || {
            self.admin.post(&core("default", "pods", "nobody/eviction"), &eviction).await?;
            let asked = self.replicas.calls(&["hook=\"eviction\""]).await? > before;
            let configured = self.admin.get(MUTATING).await?.ok()?;
            Ok((asked && configured.has("/webhooks/0/clientConfig/caBundle")).then_some(()))
        });
        asked.await?.context("the API server does not ask Handoff")
    }

    /// Waits until a replica leads.
    pub async fn led(&self) -> Result<()> {
        let lease = "/apis/coordination.k8s.io/v1/namespaces/handoff-system/leases/handoff";
        let led = eventually(Duration::from_secs(20), async || {
            let lease = self.admin.find(lease).await?.unwrap_or_default();
            let holder = lease.text("/spec/holderIdentity");
            // a holder that was killed is named until its lease lapses
            Ok((self.names.iter().any(|n| n == holder) && self.replicas.leads().await?).then_some(()))
        });
        led.await?.context("no replica leads")
    }

    /// A pod on node-a with a volume that has replicas on node-a and node-b. Known to Handoff when this returns.
    pub async fn plain(&self, namespace: &str, name: &str) -> Result<Workload> {
        let volume = Volume::new(namespace, &format!("data-{name}"));
        self.world.volume(&volume, "node-a", &["node-a", "node-b"]).await?;
        let made = self.world.running(&pod(namespace, name, &[&volume.claim]), "node-a").await?;
        let uid = made.text("/metadata/uid").to_owned();
        let backup = format!("b-{namespace}-{name}");
        Ok(Workload { volume, namespace: namespace.to_owned(), pod: name.to_owned(), uid, backup })
    }

    /// As [`Self::plain`], with a backup in flight at 40 %.
    pub async fn workload(&self, namespace: &str, name: &str) -> Result<Workload> {
        let workload = self.plain(namespace, name).await?;
        self.world.backup(&workload.volume, &workload.backup, 40).await?;
        self.known(&workload).await?;
        Ok(workload)
    }

    /// Waits until every replica knows that the workload's backup is in flight: a dry run says so.
    pub async fn known(&self, workload: &Workload) -> Result<()> {
        let mut seen = 0;
        let known = eventually(SOON, async || {
            let answer = self.evict(workload, json!({"dryRun": ["All"]})).await?;
            let named = answer.warnings.iter().any(|w| w.contains(&workload.backup)) || answer.status == 429;
            seen = if named { seen + 1 } else { 0 };
            Ok((seen > self.replicas.count()).then_some(()))
        });
        known.await?.with_context(|| format!("Handoff does not know of {}", workload.backup))
    }

    /// Evicts the workload's pod.
    pub async fn evict(&self, workload: &Workload, options: Value) -> Result<Answer> {
        self.admin.post(&workload.path("eviction"), &workload.eviction(&options)).await
    }

    /// The workload's `VolumeHandoff`, if there is one within `limit`.
    pub async fn handoff(&self, workload: &Workload, limit: Duration) -> Result<Option<Value>> {
        eventually(limit, async || self.admin.find(&workload.volume.handoff()).await).await
    }

    /// The pod's kubelet removes it. It must be terminating.
    pub async fn gone(&self, workload: &Workload) -> Result<()> {
        let gone = eventually(SOON, async || {
            let found = self.admin.find(&workload.path("")).await?;
            Ok(found.is_none_or(|p| p.text("/metadata/uid") != workload.uid).then_some(()))
        });
        gone.await?.context("the pod does not go")
    }

    /// Calls that the API server has made to our webhooks, in the order of [`WEBHOOKS`].
    pub async fn requests(&self) -> Result<[u64; WEBHOOKS.len()]> {
        let page = self.admin.get("/metrics").await?.ok()?;
        let page = page.as_str().unwrap_or_default();
        let metric = "apiserver_admission_webhook_request_total";
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // it counts calls
        Ok(WEBHOOKS.map(|w| metrics::sum(page, metric, &[&format!("name=\"{w}.volumehandoff.io\"")]) as u64))
    }

    /// Removes what a group of checks has left: the next one looks at its own volumes only.
    pub async fn clear(&self) -> Result<()> {
        let kinds = ["volumes", "engines", "replicas", "volumeattachments", "snapshots", "backups"];
        let mut collections = kinds.map(|kind| longhorn(kind, "")).to_vec();
        collections.push("/api/v1/persistentvolumes".to_owned());
        let namespaces = self.admin.get("/api/v1/namespaces").await?.ok()?;
        let names = namespaces.items("/items").iter().map(|n| n.text("/metadata/name"));
        for name in names.filter(|n| !n.starts_with("handoff-")) {
            collections.extend(["pods", "persistentvolumeclaims"].map(|kind| core(name, kind, "")));
            collections.push(handoff(name, "").trim_end_matches('/').to_owned());
        }
        // what is owed goes first: nothing is held or kept then
        collections.sort_by_key(|c| !(c.ends_with("/backups") || c.ends_with("/volumehandoffs")));
        for collection in collections {
            let done = eventually(SOON, async || {
                let answer = self.admin.delete(&collection, &json!({"gracePeriodSeconds": 0})).await?;
                Ok(answer.is_ok().then_some(()))
            });
            done.await?.with_context(|| format!("cannot clear {collection}"))?;
        }
        Ok(())
    }
}

/// The webhooks as users have them, but for what a cluster network would do: the Service is an address of ours.
/// Rules, conditions and time-outs stay as the manifest has them, and the certificate is checked for the Service's name.
pub async fn point_webhooks(admin: &Api, port: u16) -> Result<()> {
    let services = core("handoff-system", "services", "");
    admin.delete(&format!("{services}/handoff-webhook"), &json!({})).await?.ok()?;
    let service = json!({"metadata": {"name": "handoff-webhook"},
        "spec": {"type": "ExternalName", "externalName": "127.0.0.1"}});
    admin.create(&services, &service).await?;
    for configuration in [MUTATING, VALIDATING] {
        let object = admin.get(configuration).await?.ok()?;
        let all = 0..object.items("/webhooks").len();
        let steps = all
            .map(|at| json!({"op": "add", "path": format!("/webhooks/{at}/clientConfig/service/port"), "value": port}));
        admin.patch(configuration, &steps.collect()).await?;
    }
    Ok(())
}

/// The pods that the deployment's controllers have made, bound to nodes.
async fn own_pods(admin: &Api) -> Result<Vec<String>> {
    let pods = core("handoff-system", "pods", "");
    let wanted = admin.get("/apis/apps/v1/namespaces/handoff-system/deployments/handoff").await?.ok()?;
    let wanted = wanted["spec"]["replicas"].as_u64().and_then(|n| usize::try_from(n).ok()).unwrap_or(1);
    let made = eventually(Duration::from_secs(30), async || {
        let list = admin.get(&pods).await?.ok()?;
        Ok((list.items("/items").len() == wanted).then_some(list))
    });
    let made = made.await?.context("the controllers make no pods of Handoff")?;
    let mut names = Vec::new();
    for (pod, node) in made.items("/items").iter().zip(NODES.iter().cycle()) {
        let name = pod.text("/metadata/name").to_owned();
        bind(admin, "handoff-system", &name, node).await?.ok()?;
        names.push(name);
    }
    Ok(names)
}

/// Binds a pod as a scheduler does.
pub async fn bind(api: &Api, namespace: &str, pod: &str, node: &str) -> Result<Answer> {
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod, "namespace": namespace},
        "target": {"apiVersion": "v1", "kind": "Node", "name": node}});
    api.post(&core(namespace, "pods", &format!("{pod}/binding")), &binding).await
}
