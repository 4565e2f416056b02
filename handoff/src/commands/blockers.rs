//! What keeps a drain from ending.

use super::{
    output::{Tone, paint},
    plan::{Input, Planned},
};
use handoff_coordinator::api::{Phase, VolumeHandoff};
use handoff_storage::StorageManager;
use k8s_openapi::{
    api::core::v1::Pod, api::policy::v1::PodDisruptionBudget, apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use kube::ResourceExt;
use serde::Serialize;
use std::collections::BTreeMap;

/// What kind of obstacle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Obstacle {
    /// A disruption budget allows no disruption.
    DisruptionBudget,
    /// Two budgets select one pod: the eviction API refuses that.
    TwoBudgets,
    /// Nothing makes the pod anew.
    Unmanaged,
    /// The only good replica of a volume is on the node.
    LastReplica,
    /// No other node can take the pod's volumes.
    NoTarget,
    /// A volume is on the move to or from the node.
    Moving,
}

/// An obstacle and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Blocker {
    /// What kind.
    pub kind: Obstacle,
    /// The object.
    pub object: String,
    /// What it does.
    pub reason: String,
    /// What to do.
    pub fix: String,
    /// It goes away by itself.
    pub passes: bool,
}

impl Blocker {
    /// For people.
    pub fn text(&self) -> String {
        let tone = if self.passes { Tone::Doubtful } else { Tone::Bad };
        let Self { kind, object, reason, fix, .. } = self;
        format!("{} {object}: {reason}\n  → {fix}", paint(tone, &format!("{kind:?}")))
    }
}

/// All obstacles to a drain that evicts `leaving`.
pub fn find(input: &Input, leaving: &[&Pod], planned: &[Planned]) -> Vec<Blocker> {
    let mut found = Vec::new();
    for pod in leaving {
        found.extend(budgets(input, pod));
        found.extend(unmanaged(pod));
    }
    found.extend(planned.iter().filter_map(no_target));
    found.extend(last_replicas(input));
    found.extend(input.handoffs.iter().filter_map(|h| moving(h, &input.node.name_any())));
    found.dedup();
    found
}

fn name_of(pod: &Pod) -> String {
    format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any())
}

fn budgets(input: &Input, pod: &Pod) -> Vec<Blocker> {
    let of_pod = input.budgets.iter().filter(|b| b.namespace() == pod.namespace());
    let of_pod = of_pod.filter(|b| b.spec.as_ref().is_some_and(|s| selects(s.selector.as_ref(), pod.labels())));
    let of_pod = of_pod.collect::<Vec<_>>();
    if of_pod.len() > 1 {
        let names = of_pod.iter().map(|b| b.name_any()).collect::<Vec<_>>().join(", ");
        return vec![Blocker {
            kind: Obstacle::TwoBudgets,
            object: format!("pod {}", name_of(pod)),
            reason: format!("the budgets {names} all select it, and the eviction API refuses that"),
            fix: "change their selectors so that one of them is left".to_owned(),
            passes: false,
        }];
    }
    of_pod.into_iter().filter_map(|budget| budget_of(input, budget, pod)).collect()
}

fn budget_of(input: &Input, budget: &PodDisruptionBudget, pod: &Pod) -> Option<Blocker> {
    // an instance manager's own budget goes when the volumes have left; what stays is a last replica, told of elsewhere
    let of_longhorn = pod.labels().get("longhorn.io/component").is_some_and(|c| c == "instance-manager");
    let (spec, status) = (budget.spec.as_ref()?, budget.status.as_ref()?);
    let conditions = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
    let ready = conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True");
    let [healthy, desired, expected] =
        [status.current_healthy, status.desired_healthy, status.expected_pods].map(Option::unwrap_or_default);
    let healthy_enough = healthy >= desired && desired > 0;
    let sick_may_go = spec.unhealthy_pod_eviction_policy.as_deref() == Some("AlwaysAllow") || healthy_enough;
    if of_longhorn || status.disruptions_allowed.unwrap_or_default() > 0 || (!ready && sick_may_go) {
        return None;
    }
    // with all of them healthy it still allows none: it never will
    let never = healthy >= expected && expected > 0;
    let node = input.node.name_any();
    Some(Blocker {
        kind: Obstacle::DisruptionBudget,
        object: format!("PodDisruptionBudget {}/{}", budget.namespace().unwrap_or_default(), budget.name_any()),
        reason: format!(
            "it allows no disruption now: {healthy} of {expected} pods are healthy and {desired} must be; pod {} stays on {node}",
            pod.name_any()
        ),
        fix: if never {
            "let it allow one disruption (maxUnavailable: 1), or run one more replica".to_owned()
        } else {
            "wait until its other pods are ready".to_owned()
        },
        passes: !never,
    })
}

/// Whether a selector takes in these labels; an empty one takes in everything, none at all nothing.
fn selects(selector: Option<&LabelSelector>, labels: &BTreeMap<String, String>) -> bool {
    let Some(selector) = selector else { return false };
    let equal = selector.match_labels.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    let holds = selector.match_expressions.iter().flatten().all(|e| {
        let value = labels.get(&e.key);
        let is_in = value.is_some_and(|v| e.values.iter().flatten().any(|w| w == v));
        match e.operator.as_str() {
            "In" => is_in,
            "NotIn" => !is_in,
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            _ => false,
        }
    });
    equal && holds
}

fn unmanaged(pod: &Pod) -> Option<Blocker> {
    let owned = pod.owner_references().iter().any(|o| o.controller == Some(true));
    (!owned).then(|| Blocker {
        kind: Obstacle::Unmanaged,
        object: format!("pod {}", name_of(pod)),
        reason: "nothing makes it anew, and kubectl drain refuses to evict it".to_owned(),
        fix: "delete it, or drain with --force, which does the same".to_owned(),
        passes: false,
    })
}

fn no_target(pod: &Planned) -> Option<Blocker> {
    if pod.volumes.is_empty() || pod.targets.iter().any(|t| t.score.is_some()) {
        return None;
    }
    let why = pod.targets.iter().map(|t| t.why.clone()).collect::<Vec<_>>().join("; ");
    let why = if why.is_empty() { "every other node is cordoned, tainted or not ready".to_owned() } else { why };
    Some(Blocker {
        kind: Obstacle::NoTarget,
        object: format!("pod {}/{}", pod.namespace, pod.name),
        reason: format!("no other node can take its volumes: {why}"),
        fix: "make another node able to take it before draining".to_owned(),
        passes: false,
    })
}

/// Volumes whose only good replica is on the node, as far as Longhorn's drain policy cares.
fn last_replicas(input: &Input) -> Vec<Blocker> {
    let (node, storage) = (input.node.name_any(), &input.look.storage);
    if !matches!(
        input.drain_policy.as_str(),
        "block-if-contains-last-replica" | "block-for-eviction-if-contains-last-replica" | "block-for-eviction"
    ) {
        return Vec::new();
    }
    let index = input.look.cluster.read();
    let volumes = index.volumes_of_driver(storage.driver()).collect::<Vec<_>>();
    drop(index);
    let evicts = input.drain_policy != "block-if-contains-last-replica";
    let mut found = Vec::new();
    for volume in volumes {
        let Some(view) = storage.volume(&volume.handle) else { continue };
        let good = view.replicas.iter().filter(|r| !r.failed).map(|r| r.node.as_str()).collect::<Vec<_>>();
        if good.is_empty() || good.iter().any(|n| *n != node) {
            continue;
        }
        let claim = volume.claim.as_ref().map(ToString::to_string).unwrap_or_default();
        found.push(Blocker {
            kind: Obstacle::LastReplica,
            object: format!("volume {} ({claim})", volume.name),
            reason: format!(
                "its only good replica is on {node}, and Longhorn's node-drain-policy is {}: the instance manager stays, \
                 and the drain does not end. Its pod moves all the same",
                input.drain_policy
            ),
            fix: if evicts {
                "wait until Longhorn has made a replica elsewhere, which it does by itself".to_owned()
            } else {
                format!("give the volume one replica more (numberOfReplicas of volumes.longhorn.io {}) and wait until it is there", volume.handle)
            },
            passes: evicts,
        });
    }
    found.sort_by(|a, b| a.object.cmp(&b.object));
    found
}

fn moving(handoff: &VolumeHandoff, node: &str) -> Option<Blocker> {
    let status = handoff.status.as_ref()?;
    let on_the_way = matches!(status.phase, Some(Phase::Moving | Phase::Attached));
    let here = handoff.spec.from == node || status.to.as_deref() == Some(node);
    (on_the_way && here && !handoff.is_finished()).then(|| Blocker {
        kind: Obstacle::Moving,
        object: format!("volume {}", handoff.name_any()),
        reason: format!("it is on the move: {}", status.message),
        fix: "wait until its pod is ready: handoff status --watch".to_owned(),
        passes: true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn selectors_select_as_the_api_says() {
        let labels = BTreeMap::from([("app".to_owned(), "db".to_owned())]);
        for (selector, wanted) in [
            (json!({}), true),
            (json!({"matchLabels": {"app": "db"}}), true),
            (json!({"matchLabels": {"app": "web"}}), false),
            (json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["web", "db"]}]}), true),
            (json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["db"]}]}), false),
            (json!({"matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["db"]}]}), true),
            (json!({"matchExpressions": [{"key": "app", "operator": "Exists"}]}), true),
            (json!({"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}), false),
            (json!({"matchLabels": {"app": "db"}, "matchExpressions": [{"key": "x", "operator": "Exists"}]}), false),
        ] {
            let parsed = serde_json::from_value::<LabelSelector>(selector.clone()).unwrap();
            assert_eq!(selects(Some(&parsed), &labels), wanted, "{selector}");
        }
        assert!(!selects(None, &labels));
    }
}
