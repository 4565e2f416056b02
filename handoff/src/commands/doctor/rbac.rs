//! What Handoff's account may do, asked of the API server's own authorizer.

use super::{Check, State};
use crate::commands::{connection::Cluster, installation};
use futures::{StreamExt, stream};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::{Api, api::PostParams};

/// Questions asked at the same time.
const AT_ONCE: usize = 16;

/// Where a right counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In the whole cluster.
    Everywhere,
    /// In Longhorn's namespace.
    Longhorn,
    /// In Handoff's namespace.
    Own,
}

/// Rights: place, group, resources, verbs.
type Right = (Place, &'static str, &'static [&'static str], &'static [&'static str]);

const LOOK: &[&str] = &["get", "list", "watch"];

/// What is needed whatever makes the certificates; as in deploy/kustomize/rbac.yaml.
const RIGHTS: &[Right] = &[
    (Place::Everywhere, "", &["pods", "persistentvolumeclaims", "persistentvolumes", "nodes", "namespaces"], LOOK),
    (Place::Everywhere, "", &["pods"], &["patch"]),
    (Place::Everywhere, "storage.k8s.io", &["csinodes", "storageclasses", "volumeattachments"], LOOK),
    (Place::Everywhere, "storage.k8s.io", &["volumeattachments"], &["patch", "delete"]),
    (Place::Everywhere, "events.k8s.io", &["events"], &["create", "patch"]),
    (Place::Everywhere, "volumehandoff.io", &["volumehandoffs"], LOOK),
    (Place::Everywhere, "volumehandoff.io", &["volumehandoffs"], &["create", "update", "patch", "delete"]),
    (Place::Everywhere, "volumehandoff.io", &["volumehandoffs/status"], &["get", "update", "patch"]),
    (
        Place::Longhorn,
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
            "settings",
        ],
        LOOK,
    ),
    (Place::Longhorn, "longhorn.io", &["volumeattachments", "backups", "backups/status"], &["patch"]),
    (Place::Own, "", &["configmaps"], &["create"]),
    (Place::Own, "coordination.k8s.io", &["leases"], &["create"]),
];

/// One question.
#[derive(Clone, Debug)]
struct Question {
    namespace: Option<String>,
    group: &'static str,
    resource: &'static str,
    verb: &'static str,
}

/// Asks for each right.
pub async fn look(cluster: &Cluster) -> Vec<Check> {
    const NAME: &str = "permissions";
    let deployment = installation::deployment(cluster).await.ok().flatten();
    let account = deployment.and_then(|d| d.spec.template.spec?.service_account_name);
    let account = account.unwrap_or_else(|| installation::NAME.to_owned());
    let api = Api::<SubjectAccessReview>::all(cluster.client.clone());
    let asked = stream::iter(questions(cluster)).map(|question| {
        let (api, review) = (api.clone(), review(&cluster.handoff, &account, &question));
        async move { (question, api.create(&PostParams::default(), &review).await) }
    });
    let answers = asked.buffer_unordered(AT_ONCE).collect::<Vec<_>>().await;
    let total = answers.len();
    let mut denied = Vec::new();
    for (question, answer) in answers {
        match answer {
            Ok(review) if review.status.as_ref().is_some_and(|s| s.allowed) => {}
            Ok(_) => denied.push(question.text()),
            Err(error) => return vec![Check::unknown(NAME, &error)],
        }
    }
    denied.sort();
    let says = if denied.is_empty() {
        format!("{account} may do all {total} things it needs")
    } else {
        format!("{account} may not {}", denied.join(", "))
    };
    let state = if denied.is_empty() { State::Ok } else { State::Failed };
    vec![Check::new(NAME, state, says, "apply deploy/kustomize/rbac.yaml")]
}

fn questions(cluster: &Cluster) -> Vec<Question> {
    let of = |(place, group, resources, verbs): &Right| {
        let namespace = match place {
            Place::Everywhere => None,
            Place::Longhorn => Some(cluster.longhorn.clone()),
            Place::Own => Some(cluster.handoff.clone()),
        };
        let (group, verbs) = (*group, *verbs);
        let each = resources.iter().flat_map(move |&resource| {
            let namespace = namespace.clone();
            verbs.iter().map(move |&verb| Question { namespace: namespace.clone(), group, resource, verb })
        });
        each.collect::<Vec<_>>()
    };
    RIGHTS.iter().flat_map(of).collect()
}

fn review(namespace: &str, account: &str, question: &Question) -> SubjectAccessReview {
    let (resource, subresource) = match question.resource.split_once('/') {
        Some((resource, subresource)) => (resource, Some(subresource.to_owned())),
        None => (question.resource, None),
    };
    let groups = ["system:serviceaccounts", &format!("system:serviceaccounts:{namespace}"), "system:authenticated"];
    SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(format!("system:serviceaccount:{namespace}:{account}")),
            groups: Some(groups.map(ToOwned::to_owned).to_vec()),
            resource_attributes: Some(ResourceAttributes {
                namespace: question.namespace.clone(),
                group: Some(question.group.to_owned()),
                resource: Some(resource.to_owned()),
                subresource,
                verb: Some(question.verb.to_owned()),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    }
}

impl Question {
    fn text(&self) -> String {
        let group = if self.group.is_empty() { String::new() } else { format!(".{}", self.group) };
        let place = self.namespace.as_ref().map(|n| format!(" in {n}")).unwrap_or_default();
        format!("{} {}{group}{place}", self.verb, self.resource)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::fake::Api as Fake;
    use serde_json::Value;
    use std::collections::BTreeSet;

    /// Place, group, resource and verb of each right in a manifest, those on named objects aside.
    fn granted() -> BTreeSet<(String, String, String, String)> {
        let text = include_str!("../../../../deploy/kustomize/rbac.yaml");
        let mut granted = BTreeSet::new();
        for document in text.split("\n---\n") {
            let role: Value = serde_saphyr::from_str(document).unwrap();
            if role["metadata"]["name"] != "handoff" {
                continue;
            }
            let place = role["metadata"]["namespace"].as_str().unwrap_or_default();
            for rule in role["rules"].as_array().into_iter().flatten().filter(|r| r.get("resourceNames").is_none()) {
                let list = |key: &str| rule[key].as_array().unwrap().iter().map(|v| v.as_str().unwrap().to_owned());
                for group in list("apiGroups") {
                    for resource in list("resources") {
                        for verb in list("verbs") {
                            granted.insert((place.to_owned(), group.clone(), resource.clone(), verb));
                        }
                    }
                }
            }
        }
        granted
    }

    #[tokio::test]
    async fn the_rights_are_those_that_are_deployed() {
        let asked = questions(&Fake::default().cluster("x"))
            .into_iter()
            .map(|q| (q.namespace.unwrap_or_default(), q.group.to_owned(), q.resource.to_owned(), q.verb.to_owned()));
        let mut granted = granted();
        // Events are written through events.k8s.io; the same right in the old group is for old API servers
        granted.retain(|(_, group, resource, _)| !(group.is_empty() && resource == "events"));
        assert_eq!(asked.collect::<BTreeSet<_>>(), granted);
    }

    #[tokio::test]
    async fn what_is_denied_is_named() {
        let api = Fake::default();
        let check = &look(&api.cluster("x")).await[0];
        assert_eq!(check.state, State::Ok, "{}", check.says);
        api.forbid("deny:patch backups");
        let check = &look(&api.cluster("x")).await[0];
        assert_eq!(check.state, State::Failed);
        assert_eq!(
            check.says,
            "handoff may not patch backups.longhorn.io in longhorn-system, \
             patch backups/status.longhorn.io in longhorn-system"
        );
        api.forbid("/apis/authorization.k8s.io/v1/subjectaccessreviews");
        assert_eq!(look(&api.cluster("x")).await[0].state, State::Unknown);
    }
}
