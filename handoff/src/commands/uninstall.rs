//! `handoff uninstall`: withdraws what Handoff has put into the cluster at run time, so that deleting the manifests or the
//! release afterwards leaves nothing behind and breaks no move. The order matters: first nobody asks us any more, then
//! nobody of us acts any more, then what was written goes.

use super::{
    End,
    connection::{Cluster, ClusterArgs},
    installation, look,
    output::{self, OutputArgs, Progress, Report, Tone, paint},
};
use anyhow::{Context, bail};
use clap::Args;
use handoff_coordinator::{api::VolumeHandoff, holds};
use handoff_storage::longhorn;
use jiff::Timestamp;
use k8s_openapi::api::{
    admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration},
    apps::v1::Deployment,
    coordination::v1::Lease,
    core::v1::{ConfigMap, Secret},
};
use kube::{
    Api, Resource, ResourceExt,
    api::{DeleteParams, Patch, PatchParams},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;
use std::{fmt::Debug, time::Duration};
use tokio::time::Instant;

/// How long our replicas are given to end.
const PATIENCE: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(500);
/// Ours, and the second scheduler, where there is one: Deployments, each with a lease of its name.
const DEPLOYMENTS: [&str; 2] = [installation::NAME, "handoff-scheduler"];

/// `handoff uninstall`.
#[derive(Args, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
pub struct UninstallArgs {
    /// Do not ask.
    #[arg(short, long)]
    pub yes: bool,
    /// Also while backups are owed: they stay as Longhorn left them, and nobody makes them complete.
    #[arg(long)]
    pub force: bool,
    /// Keep the `VolumeHandoffs`, also while backups are owed: the next installation takes them up.
    #[arg(long, conflicts_with = "force")]
    pub keep_handoffs: bool,
    /// Say what would be withdrawn, and do nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Name of our webhook configurations, mutating and validating.
    #[arg(long, env = "HANDOFF_WEBHOOK_CONFIGURATION", default_value = "handoff")]
    pub webhook_configuration: String,
    /// Name of the Secret with the certificates.
    #[arg(long, env = "HANDOFF_CERTS_SECRET", default_value = "handoff-certs")]
    pub certs_secret: String,
    /// How it is printed.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Which cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

/// What is withdrawn.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Uninstalled {
    /// What stands in the way of it: backups that are owed.
    pub owed: Vec<String>,
    /// Refused because of them.
    pub refused: bool,
    /// They are left to the next installation.
    pub kept: bool,
    /// Nothing was done.
    pub dry_run: bool,
    /// What is withdrawn, in this order.
    pub steps: Vec<Step>,
}

/// One thing that is withdrawn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "what", rename_all = "camelCase")]
pub enum Step {
    /// The API server asks us no more.
    MutatingWebhooks {
        /// Name of the configuration.
        name: String,
    },
    /// The API server asks us no more.
    ValidatingWebhooks {
        /// Name of the configuration.
        name: String,
    },
    /// The replicas of a Deployment end.
    Replicas {
        /// Its name.
        name: String,
        /// So many were wanted.
        count: i32,
    },
    /// An attach request of ours that nobody has taken over.
    PreStage {
        /// Longhorn's volume.
        volume: String,
        /// The request.
        ticket: String,
        /// Its node.
        node: String,
    },
    /// Who leads the replicas of a Deployment.
    Lease {
        /// Its name.
        name: String,
    },
    /// Since when storage pods are held.
    Holds,
    /// Certificates that we have made.
    Secret {
        /// Its name.
        name: String,
    },
    /// What was written down of a volume.
    Handoff {
        /// Namespace.
        namespace: String,
        /// Name.
        name: String,
    },
}

impl Step {
    fn text(&self) -> String {
        match self {
            Self::MutatingWebhooks { name } => format!("MutatingWebhookConfiguration {name}"),
            Self::ValidatingWebhooks { name } => format!("ValidatingWebhookConfiguration {name}"),
            Self::Replicas { name, count } => format!("{count} replica(s) of Deployment {name}"),
            Self::PreStage { volume, node, .. } => format!("pre-stage of Longhorn volume {volume} on {node}"),
            Self::Lease { name } => format!("Lease {name}"),
            Self::Holds => format!("ConfigMap {}", holds::NAME),
            Self::Secret { name } => format!("Secret {name}"),
            Self::Handoff { namespace, name } => format!("VolumeHandoff {namespace}/{name}"),
        }
    }
}

/// Withdraws what is ours.
pub async fn run(args: UninstallArgs) -> anyhow::Result<End> {
    let cluster = args.cluster.connect().await?;
    let handoffs = look::handoffs(&cluster, None).await;
    // without the definition there is nothing of it
    let handoffs = if crd_is_gone(&handoffs) { Vec::new() } else { handoffs? };
    let owed = handoffs.iter().flat_map(owed_by).collect::<Vec<_>>();
    let refused = !owed.is_empty() && !args.force && !args.keep_handoffs;
    let handoffs = if args.keep_handoffs { Vec::new() } else { handoffs };
    let steps = find(&cluster, &args.webhook_configuration, &args.certs_secret, &handoffs).await?;
    let report = Uninstalled { owed, refused, kept: args.keep_handoffs, dry_run: args.dry_run, steps };
    if !refused && !args.dry_run && !report.steps.is_empty() {
        let list = report.steps.iter().map(|s| format!("  {}", s.text())).collect::<Vec<_>>().join("\n");
        if !output::confirm(&format!("Withdraw from namespace {}:\n{list}\n?", cluster.handoff), args.yes)? {
            bail!("not confirmed, nothing was done");
        }
        withdraw(&cluster, &report.steps).await?;
    }
    output::print(&report, args.output.output)?;
    Ok(if refused { End::No } else { End::Yes })
}

fn crd_is_gone(handoffs: &anyhow::Result<Vec<VolumeHandoff>>) -> bool {
    let error = handoffs.as_ref().err().and_then(|e| e.downcast_ref::<kube::Error>());
    matches!(error, Some(kube::Error::Api(status)) if status.code == 404)
}

fn owed_by(handoff: &VolumeHandoff) -> Vec<String> {
    let name = format!("{}/{}", handoff.namespace().unwrap_or_default(), handoff.name_any());
    handoff.owed().map(|c| format!("backup {} of {name}", c.backup)).collect()
}

/// What there is to withdraw.
async fn find(
    cluster: &Cluster,
    webhooks: &str,
    secret: &str,
    handoffs: &[VolumeHandoff],
) -> anyhow::Result<Vec<Step>> {
    let (client, own) = (&cluster.client, cluster.handoff.as_str());
    let mut steps = Vec::new();
    let name = webhooks.to_owned();
    if get::<MutatingWebhookConfiguration>(&Api::all(client.clone()), webhooks).await?.is_some() {
        steps.push(Step::MutatingWebhooks { name: name.clone() });
    }
    if get::<ValidatingWebhookConfiguration>(&Api::all(client.clone()), webhooks).await?.is_some() {
        steps.push(Step::ValidatingWebhooks { name });
    }
    for name in DEPLOYMENTS {
        let deployment = get::<Deployment>(&Api::namespaced(client.clone(), own), name).await?;
        let count = deployment.map(|d| d.spec.replicas.unwrap_or(1)).filter(|count| *count > 0);
        steps.extend(count.map(|count| Step::Replicas { name: name.to_owned(), count }));
    }
    steps.extend(prestages(cluster).await?);
    for name in DEPLOYMENTS {
        if get::<Lease>(&Api::namespaced(client.clone(), own), name).await?.is_some() {
            steps.push(Step::Lease { name: name.to_owned() });
        }
    }
    if get::<ConfigMap>(&Api::namespaced(client.clone(), own), holds::NAME).await?.is_some() {
        steps.push(Step::Holds);
    }
    for name in [secret.to_owned(), format!("{secret}-scheduler")] {
        let found = get::<Secret>(&Api::namespaced(client.clone(), own), &name).await?;
        // one of cert-manager's would be made anew
        let ours = |s: &Secret| s.labels().get("app.kubernetes.io/managed-by").is_some_and(|by| by == "handoff");
        steps.extend(found.filter(ours).map(|_| Step::Secret { name }));
    }
    steps.extend(
        handoffs.iter().map(|h| Step::Handoff { namespace: h.namespace().unwrap_or_default(), name: h.name_any() }),
    );
    Ok(steps)
}

async fn get<K>(api: &Api<K>, name: &str) -> anyhow::Result<Option<K>>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    api.get_opt(name).await.with_context(|| format!("cannot read {} {name}", K::kind(&())))
}

/// Attach requests that carry our mark.
async fn prestages(cluster: &Cluster) -> anyhow::Result<Vec<Step>> {
    let found = longhorn::prestages(&cluster.client, &cluster.longhorn).await;
    let found = found.context("cannot list Longhorn's attach requests")?;
    Ok(found.into_iter().map(|(volume, ticket, node)| Step::PreStage { volume, ticket, node }).collect())
}

async fn withdraw(cluster: &Cluster, steps: &[Step]) -> anyhow::Result<()> {
    let (client, own) = (&cluster.client, cluster.handoff.as_str());
    let mut progress = Progress::default();
    for step in steps {
        progress.say(&format!("withdrawing {}", step.text()));
        let done = match step {
            Step::MutatingWebhooks { name } => {
                delete(&Api::<MutatingWebhookConfiguration>::all(client.clone()), name).await
            }
            Step::ValidatingWebhooks { name } => {
                delete(&Api::<ValidatingWebhookConfiguration>::all(client.clone()), name).await
            }
            Step::Replicas { name, .. } => end_replicas(cluster, name, &mut progress).await,
            Step::PreStage { volume, ticket, .. } => withdraw_prestage(cluster, volume, ticket).await,
            Step::Lease { name } => delete(&Api::<Lease>::namespaced(client.clone(), own), name).await,
            Step::Holds => delete(&Api::<ConfigMap>::namespaced(client.clone(), own), holds::NAME).await,
            Step::Secret { name } => delete(&Api::<Secret>::namespaced(client.clone(), own), name).await,
            Step::Handoff { namespace, name } => {
                delete(&Api::<VolumeHandoff>::namespaced(client.clone(), namespace), name).await
            }
        };
        done.with_context(|| format!("cannot withdraw {}; what came before is withdrawn, say it again", step.text()))?;
    }
    Ok(())
}

async fn delete<K>(api: &Api<K>, name: &str) -> anyhow::Result<()>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    match api.delete(name, &DeleteParams::default()).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Scales a Deployment to zero, and waits until no replica is left that could act.
async fn end_replicas(cluster: &Cluster, name: &str, progress: &mut Progress) -> anyhow::Result<()> {
    let api = Api::<Deployment>::namespaced(cluster.client.clone(), &cluster.handoff);
    let patch = json!({"spec": {"replicas": 0}});
    api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
    let until = Instant::now() + PATIENCE;
    loop {
        let deployment = api.get(name).await?;
        let seen = deployment.status.as_ref().and_then(|s| s.observed_generation) >= deployment.metadata.generation;
        let left = deployment.status.as_ref().and_then(|s| s.replicas).unwrap_or(0);
        let leader = installation::leader(cluster, name, Timestamp::now()).await?;
        if seen && left == 0 && leader.is_none() {
            return Ok(());
        }
        if Instant::now() >= until {
            bail!("{left} replica(s) of {name} are still there, {} leads", leader.as_deref().unwrap_or("none of them"));
        }
        progress.say(&format!("waiting for the replicas of {name} to end"));
        tokio::time::sleep(POLL).await;
    }
}

/// Takes a request back, if it still carries our mark. One that is adopted or gone is none of ours any more.
async fn withdraw_prestage(cluster: &Cluster, volume: &str, ticket: &str) -> anyhow::Result<()> {
    longhorn::withdraw(&cluster.client, &cluster.longhorn, volume, ticket).await?;
    Ok(())
}

impl Report for Uninstalled {
    fn text(&self) -> String {
        let mut lines = Vec::new();
        if self.refused {
            lines.push(paint(Tone::Bad, &format!("Refused: {} is owed.", self.owed.join(", "))));
            lines
                .push("Wait for it (handoff status --watch), abandon it (handoff abandon), or say --force.".to_owned());
            return lines.join("\n");
        }
        if self.steps.is_empty() {
            lines.push("There is nothing of ours to withdraw.".to_owned());
        }
        let what = if self.dry_run { "would withdraw" } else { "withdrawn" };
        lines.extend(self.steps.iter().map(|s| format!("{what}: {}", s.text())));
        let left = if self.kept { "left to the next installation" } else { "no longer owed by anybody" };
        lines.extend(self.owed.iter().map(|owed| format!("{}: {owed}", paint(Tone::Doubtful, left))));
        if !self.dry_run {
            lines.push("Now remove the rest: kubectl delete -k deploy/kustomize, or helm uninstall.".to_owned());
        }
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::super::{fake::Api as Fake, rights, tests::handoff};
    use super::*;
    use handoff_coordinator::api::GROUP;

    const OWN: &str = "/api/v1/namespaces/handoff-system";
    const WEBHOOKS: &str = "/apis/admissionregistration.k8s.io/v1";
    const TICKETS: &str = "/apis/longhorn.io/v1beta2/namespaces/longhorn-system/volumeattachments";
    const HANDOFF: &str = "/apis/volumehandoff.io/v1alpha1/namespaces/shop/volumehandoffs/one";

    fn installed() -> Fake {
        let api = Fake::default();
        for kind in ["mutatingwebhookconfigurations", "validatingwebhookconfigurations"] {
            api.put_all(&format!("{WEBHOOKS}/{kind}"), ["handoff", "other"].map(|n| json!({"metadata": {"name": n}})));
        }
        for name in DEPLOYMENTS {
            api.put(
                &format!("/apis/apps/v1/namespaces/handoff-system/deployments/{name}"),
                json!({"metadata": {"name": name, "generation": 1}, "status": {"observedGeneration": 1},
                    "spec": {"replicas": 2, "selector": {}, "template": {}}}),
            );
            api.put(
                &format!("/apis/coordination.k8s.io/v1/namespaces/handoff-system/leases/{name}"),
                json!({"metadata": {"name": name}, "spec": {"holderIdentity": ""}}),
            );
        }
        let ticket = |by: &str| json!({"nodeID": "b", "type": "csi-attacher", "parameters": {"lastAttachedBy": by}});
        api.put_all(TICKETS, [
            json!({"metadata": {"name": "v1"}, "spec": {"attachmentTickets": {"ours": ticket(GROUP), "csi": ticket("")}}}),
            json!({"metadata": {"name": "v2"}, "spec": {"attachmentTickets": {"csi": ticket("")}}}),
        ]);
        api.put(&format!("{OWN}/configmaps/handoff-holds"), json!({"metadata": {"name": "handoff-holds"}}));
        let secret =
            |name: &str, by: &str| json!({"metadata": {"name": name, "labels": {"app.kubernetes.io/managed-by": by}}});
        api.put_all(
            &format!("{OWN}/secrets"),
            [
                secret("handoff-certs", "handoff"),
                secret("handoff-certs-scheduler", "cert-manager"),
                secret("other", "handoff"),
            ],
        );
        api.put(HANDOFF, json!(handoff("one")));
        api
    }

    #[tokio::test]
    async fn what_is_ours_goes_in_the_right_order_and_nothing_else() {
        let api = installed();
        let cluster = api.cluster("shop");
        let steps = find(&cluster, "handoff", "handoff-certs", &[handoff("one")]).await.unwrap();
        assert_eq!(api.writes(), Vec::<String>::new(), "looking changes nothing");
        withdraw(&cluster, &steps).await.unwrap();
        let writes = api.writes();
        let short = writes.iter().map(|w| w.rsplit('/').take(2).collect::<Vec<_>>().join(" of ")).collect::<Vec<_>>();
        assert_eq!(
            short,
            [
                "handoff of mutatingwebhookconfigurations",
                "handoff of validatingwebhookconfigurations",
                "handoff of deployments",
                "handoff-scheduler of deployments",
                "v1 of volumeattachments",
                "handoff of leases",
                "handoff-scheduler of leases",
                "handoff-holds of configmaps",
                "handoff-certs of secrets",
                "one of volumehandoffs",
            ]
        );
        let tickets = api.get(&format!("{TICKETS}/v1")).unwrap()["spec"]["attachmentTickets"].clone();
        assert_eq!(tickets.as_object().unwrap().keys().collect::<Vec<_>>(), ["csi"]);
        assert!(find(&cluster, "handoff", "handoff-certs", &[]).await.unwrap().is_empty(), "nothing is left");
        // again: what is gone already is no error
        withdraw(&cluster, &steps[..2]).await.unwrap();
        withdraw(&cluster, &steps[5..]).await.unwrap();
    }

    #[tokio::test]
    async fn the_charts_hook_may_do_just_that() {
        let api = installed();
        let cluster = api.cluster("shop");
        let handoffs = look::handoffs(&cluster, None).await.unwrap();
        withdraw(&cluster, &find(&cluster, "handoff", "handoff-certs", &handoffs).await.unwrap()).await.unwrap();
        // Secrets of cert-manager stay; in an installation without it both are ours
        delete(&Api::<Secret>::namespaced(cluster.client, "handoff-system"), "handoff-certs-scheduler").await.unwrap();
        let template = include_str!("../../../deploy/helm/handoff/templates/uninstall.yaml");
        assert_eq!(rights::compare(template, &api.asked()), (Vec::new(), Vec::new()));
    }

    #[tokio::test]
    async fn a_request_that_csi_has_taken_over_meanwhile_stays() {
        let api = installed();
        let mut adopted = api.get(&format!("{TICKETS}/v1")).unwrap();
        adopted["spec"]["attachmentTickets"]["ours"]["parameters"]["lastAttachedBy"] = json!("");
        api.put(&format!("{TICKETS}/v1"), adopted.clone());
        withdraw_prestage(&api.cluster("shop"), "v1", "ours").await.unwrap();
        assert_eq!(api.get(&format!("{TICKETS}/v1")).unwrap()["spec"], adopted["spec"]);
    }

    #[tokio::test]
    async fn a_step_that_fails_says_where_it_stopped() {
        let api = installed();
        let cluster = api.cluster("shop");
        let steps = find(&cluster, "handoff", "handoff-certs", &[]).await.unwrap();
        api.forbid("/apis/coordination.k8s.io/v1/namespaces/handoff-system/leases/handoff");
        let error = format!("{:#}", withdraw(&cluster, &steps[4..]).await.unwrap_err());
        assert!(error.contains("cannot withdraw Lease handoff") && error.contains("Forbidden"), "{error}");
        assert_eq!(api.writes().len(), 1, "the pre-stage, which came before");
    }

    #[test]
    fn what_is_owed_is_named() {
        assert_eq!(owed_by(&handoff("one")), ["backup b1 of shop/one"]);
        let steps = vec![Step::Lease { name: "handoff".into() }];
        let mut report =
            Uninstalled { owed: owed_by(&handoff("one")), refused: true, kept: false, dry_run: false, steps };
        let text = report.text();
        assert!(text.contains("backup b1 of shop/one is owed") && text.contains("--force"), "{text}");
        assert!(!text.contains("withdrawn"), "{text}");
        (report.refused, report.kept) = (false, true);
        let text = report.text();
        assert!(text.contains("left to the next installation") && text.contains("backup b1 of shop/one"), "{text}");
    }
}
