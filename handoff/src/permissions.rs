//! What Handoff may do, as `deploy/kustomize/rbac.yaml` grants it, and whether it does. A permission that is missing is
//! named once when that is found, not each time something fails for the want of it.

use crate::args::ServeArgs;
use handoff_certs::Source;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::{Api, Client, api::PostParams};
use std::{collections::BTreeSet, fmt, time::Duration};

/// How often all of them are looked at.
const EVERY: Duration = Duration::from_mins(10);
/// How soon again when the API server does not answer.
const SOON: Duration = Duration::from_secs(10);

/// One verb on one resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Permission {
    /// API group; empty for the core group.
    pub group: String,
    /// Plural, with the subresource behind a slash if there is one.
    pub resource: String,
    /// Verb.
    pub verb: String,
    /// Name of the one object; empty for all.
    name: String,
    /// The namespace; empty for all of them, and for what is in none.
    pub namespace: String,
}

impl Permission {
    /// It is for one object only.
    pub fn is_named(&self) -> bool {
        !self.name.is_empty()
    }

    /// Verb, resource, group and namespace, in short.
    pub fn text(&self) -> String {
        let group = if self.group.is_empty() { String::new() } else { format!(".{}", self.group) };
        let place = if self.namespace.is_empty() { String::new() } else { format!(" in {}", self.namespace) };
        format!("{} {}{group}{place}", self.verb, self.resource)
    }

    /// As an authorizer is asked about it.
    pub fn attributes(&self) -> ResourceAttributes {
        let (resource, subresource) = self.resource.split_once('/').unwrap_or((&self.resource, ""));
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        ResourceAttributes {
            group: Some(self.group.clone()),
            resource: some(resource),
            subresource: some(subresource),
            verb: some(&self.verb),
            name: some(&self.name),
            namespace: some(&self.namespace),
            ..ResourceAttributes::default()
        }
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb, self.resource)?;
        if !self.group.is_empty() {
            write!(f, ".{}", self.group)?;
        }
        if !self.name.is_empty() {
            write!(f, " \"{}\"", self.name)?;
        }
        if !self.namespace.is_empty() {
            write!(f, " in namespace {}", self.namespace)?;
        }
        Ok(())
    }
}

/// Several at once: each verb on each resource of a group.
struct Rule {
    group: &'static str,
    resources: &'static [&'static str],
    verbs: &'static [&'static str],
}

const READ: &[&str] = &["get", "list", "watch"];

const fn rule(group: &'static str, resources: &'static [&'static str], verbs: &'static [&'static str]) -> Rule {
    Rule { group, resources, verbs }
}

/// In the whole cluster.
const EVERYWHERE: &[Rule] = &[
    rule("", &["pods", "persistentvolumeclaims", "persistentvolumes", "nodes", "namespaces"], READ),
    rule("", &["pods"], &["patch"]),
    rule("storage.k8s.io", &["csinodes", "storageclasses", "volumeattachments"], READ),
    rule("storage.k8s.io", &["volumeattachments"], &["patch", "delete"]),
    rule("", &["events"], &["create", "patch"]),
    rule("events.k8s.io", &["events"], &["create", "patch"]),
    rule("volumehandoff.io", &["volumehandoffs"], READ),
    rule("volumehandoff.io", &["volumehandoffs"], &["create", "update", "patch", "delete"]),
    rule("volumehandoff.io", &["volumehandoffs/status"], &["get", "update", "patch"]),
];

/// In Longhorn's namespace.
const LONGHORN: &[Rule] = &[
    rule(
        "longhorn.io",
        &[
            "volumes",
            "engines",
            "replicas",
            "volumeattachments",
            "backups",
            "snapshots",
            "nodes",
            "instancemanagers",
            "engineimages",
            "backuptargets",
            "settings",
        ],
        READ,
    ),
    rule("longhorn.io", &["volumeattachments", "backups", "backups/status"], &["patch"]),
];

/// What is needed whatever makes the certificates.
pub fn always(own: &str, longhorn: &str) -> BTreeSet<Permission> {
    let mut all = BTreeSet::new();
    EVERYWHERE.iter().for_each(|r| add(&mut all, r, "", ""));
    LONGHORN.iter().for_each(|r| add(&mut all, r, longhorn, ""));
    add(&mut all, &rule("", &["configmaps"], &["create"]), own, "");
    add(&mut all, &rule("", &["configmaps"], &["get", "list", "watch", "patch"]), own, "handoff-holds");
    add(&mut all, &rule("coordination.k8s.io", &["leases"], &["create"]), own, "");
    add(&mut all, &rule("coordination.k8s.io", &["leases"], &["get", "update"]), own, "handoff");
    all
}

/// All that is needed with these flags.
pub fn needed(args: &ServeArgs) -> BTreeSet<Permission> {
    let own = args.namespace.as_str();
    let mut all = always(own, &args.longhorn_namespace);
    let configurations = &["validatingwebhookconfigurations", "mutatingwebhookconfigurations"];
    let mut certificates = |group, resources, verbs, namespace: &str, name: &str| {
        add(&mut all, &rule(group, resources, verbs), namespace, name);
    };
    let webhooks = args.webhook_configuration.as_str();
    certificates("admissionregistration.k8s.io", configurations, &["get"], "", webhooks);
    match args.certificates {
        Source::Own => {
            certificates("admissionregistration.k8s.io", configurations, &["patch"], "", webhooks);
            certificates("", &["secrets"], &["create"], own, "");
            for secret in [&args.certs_secret, &format!("{}-scheduler", args.certs_secret)] {
                certificates("", &["secrets"], &["get", "update"], own, secret);
            }
        }
        Source::CertManager => certificates("", &["secrets"], &["get"], own, &args.certs_secret),
        Source::Files(_) => {}
    }
    all
}

fn add(all: &mut BTreeSet<Permission>, rule: &Rule, namespace: &str, name: &str) {
    for (resource, verb) in rule.resources.iter().flat_map(|r| rule.verbs.iter().map(move |v| (r, v))) {
        all.insert(Permission {
            group: rule.group.to_owned(),
            resource: (*resource).to_owned(),
            verb: (*verb).to_owned(),
            name: name.to_owned(),
            namespace: namespace.to_owned(),
        });
    }
}

/// Names what is missing once, and once more when it is back.
pub async fn watch(client: Client, needed: BTreeSet<Permission>) {
    let mut named = BTreeSet::new();
    loop {
        let missing = match missing(&client, &needed).await {
            Ok(missing) => missing,
            Err(error) => {
                tracing::info!(%error, "cannot ask for our permissions yet");
                tokio::time::sleep(SOON).await;
                continue;
            }
        };
        for permission in missing.difference(&named) {
            tracing::error!(
                "missing permission: {permission}; deploy/kustomize/rbac.yaml grants it, and says what it is for"
            );
        }
        for permission in named.difference(&missing) {
            tracing::info!("granted now: {permission}");
        }
        tracing::info!(needed = needed.len(), missing = missing.len(), "permissions looked at");
        named = missing;
        tokio::time::sleep(EVERY).await;
    }
}

/// Those that the API server does not grant us.
async fn missing(client: &Client, needed: &BTreeSet<Permission>) -> Result<BTreeSet<Permission>, kube::Error> {
    let api: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let mut missing = BTreeSet::new();
    for permission in needed {
        let answer = api.create(&PostParams::default(), &review(permission)).await?;
        if !answer.status.is_some_and(|status| status.allowed) {
            missing.insert(permission.clone());
        }
    }
    Ok(missing)
}

fn review(permission: &Permission) -> SelfSubjectAccessReview {
    SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(permission.attributes()),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Role {
        kind: String,
        metadata: Metadata,
        #[serde(default)]
        rules: Vec<Granted>,
    }

    #[derive(Debug, Deserialize)]
    struct Metadata {
        #[serde(default)]
        namespace: String,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Granted {
        api_groups: Vec<String>,
        resources: Vec<String>,
        #[serde(default)]
        resource_names: Vec<String>,
        verbs: Vec<String>,
    }

    fn granted(yaml: &str) -> BTreeSet<Permission> {
        let mut all = BTreeSet::new();
        for document in yaml.split("\n---\n") {
            let role: Role = serde_saphyr::from_str(document).unwrap();
            if !matches!(role.kind.as_str(), "Role" | "ClusterRole") {
                continue;
            }
            for granted in role.rules {
                let names =
                    if granted.resource_names.is_empty() { vec![String::new()] } else { granted.resource_names };
                for (group, resource) in
                    granted.api_groups.iter().flat_map(|g| granted.resources.iter().map(move |r| (g, r)))
                {
                    for (verb, name) in granted.verbs.iter().flat_map(|v| names.iter().map(move |n| (v, n))) {
                        all.insert(Permission {
                            group: group.clone(),
                            resource: resource.clone(),
                            verb: verb.clone(),
                            name: name.clone(),
                            namespace: role.metadata.namespace.clone(),
                        });
                    }
                }
            }
        }
        all
    }

    fn args(more: &[&str]) -> ServeArgs {
        ServeArgs::parse_from([&["serve", "--pod-name=p", "--namespace=handoff-system"], more].concat())
    }

    #[test]
    fn exactly_what_is_needed_is_granted() {
        let granted = granted(include_str!("../../deploy/kustomize/rbac.yaml"));
        let needed = needed(&args(&[]));
        let texts = |of: BTreeSet<&Permission>| of.into_iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(texts(needed.difference(&granted).collect()), Vec::<String>::new(), "needed, but not granted");
        assert_eq!(texts(granted.difference(&needed).collect()), Vec::<String>::new(), "granted, but not needed");
    }

    #[test]
    fn with_certificates_of_cert_manager_its_component_grants_what_differs() {
        let granted = granted(include_str!("../../deploy/components/cert-manager/rbac.yaml"));
        let of_certificates = |p: &&Permission| p.resource == "secrets" || p.group == "admissionregistration.k8s.io";
        let needed = needed(&args(&["--certificates=cert-manager"]));
        assert_eq!(needed.iter().filter(of_certificates).cloned().collect::<BTreeSet<_>>(), granted);
    }

    #[test]
    fn a_permission_is_named_so_that_it_can_be_granted() {
        let of = |group: &str, resource: &str, verb: &str, name: &str, namespace: &str| {
            let [group, resource, verb, name, namespace] = [group, resource, verb, name, namespace].map(str::to_owned);
            Permission { group, resource, verb, name, namespace }
        };
        assert_eq!(of("", "pods", "list", "", "").to_string(), "list pods");
        let status = of("longhorn.io", "backups/status", "patch", "", "longhorn-system");
        assert_eq!(status.to_string(), "patch backups/status.longhorn.io in namespace longhorn-system");
        let attributes = review(&status).spec.resource_attributes.unwrap();
        assert_eq!(
            (attributes.resource.as_deref(), attributes.subresource.as_deref()),
            (Some("backups"), Some("status"))
        );
        let lease = of("coordination.k8s.io", "leases", "get", "handoff", "n");
        assert_eq!(lease.to_string(), "get leases.coordination.k8s.io \"handoff\" in namespace n");
    }
}
