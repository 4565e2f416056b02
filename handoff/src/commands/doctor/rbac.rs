//! What Handoff's account may do, asked of the API server's own authorizer.

use super::{Check, State};
use crate::{
    commands::{connection::Cluster, installation},
    permissions::{self, Permission},
};
use futures::{StreamExt, stream};
use k8s_openapi::api::authorization::v1::{SubjectAccessReview, SubjectAccessReviewSpec};
use kube::{Api, api::PostParams};

/// Questions asked at the same time.
const AT_ONCE: usize = 16;

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

/// What is needed whatever makes the certificates, on objects of any name. Events are written through events.k8s.io; the
/// same right in the old group is for old API servers.
fn questions(cluster: &Cluster) -> impl Iterator<Item = Permission> + use<> {
    let old_events = |p: &Permission| p.group.is_empty() && p.resource == "events";
    let always = permissions::always(&cluster.handoff, &cluster.longhorn).into_iter();
    always.filter(move |p| !p.is_named() && !old_events(p))
}

fn review(namespace: &str, account: &str, question: &Permission) -> SubjectAccessReview {
    let groups = ["system:serviceaccounts", &format!("system:serviceaccounts:{namespace}"), "system:authenticated"];
    SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(format!("system:serviceaccount:{namespace}:{account}")),
            groups: Some(groups.map(ToOwned::to_owned).to_vec()),
            resource_attributes: Some(question.attributes()),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
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
        let asked = questions(&Fake::default().cluster("x")).map(|q| (q.namespace, q.group, q.resource, q.verb));
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
