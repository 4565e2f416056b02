//! Handoff's own objects: Deployment, lease, disruption budget, agents, and what is owed.

use super::Check;
use crate::commands::{connection::Cluster, installation, look::handoffs};
use handoff_coordinator::{api::VolumeHandoff, now::Owed};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment},
    coordination::v1::Lease,
    policy::v1::PodDisruptionBudget,
};
use kube::Api;

/// A backup that is owed for longer than this is worth a look.
const LONG: SignedDuration = SignedDuration::from_hours(1);

/// All of them.
pub async fn look(cluster: &Cluster, agents: &str, now: Timestamp) -> Vec<Check> {
    let (client, own) = (&cluster.client, cluster.handoff.as_str());
    let deployment = Api::<Deployment>::namespaced(client.clone(), own).get_opt(installation::NAME).await;
    let lease = Api::<Lease>::namespaced(client.clone(), own).get_opt(installation::NAME).await;
    let budget = Api::<PodDisruptionBudget>::namespaced(client.clone(), own).get_opt(installation::NAME).await;
    let agent = Api::<DaemonSet>::namespaced(client.clone(), agents).get_opt("handoff-agent").await;
    let mut checks = vec![
        deployment.map_or_else(|e| Check::unknown("replicas", &e), |d| replicas(own, d.as_ref())),
        lease.map_or_else(|e| Check::unknown("lease", &e), |l| leads(l.as_ref(), now)),
        budget.map_or_else(|e| Check::unknown("disruption budget", &e), |b| guarded(b.as_ref())),
        agent.map_or_else(|e| Check::unknown("agents", &e), |a| agents_run(agents, a.as_ref())),
    ];
    checks.extend(handoffs(cluster, None).await.ok().map(|handoffs| owed(&handoffs, now)));
    checks
}

fn replicas(namespace: &str, deployment: Option<&Deployment>) -> Check {
    const NAME: &str = "replicas";
    let Some(deployment) = deployment else {
        let says = format!("there is no Deployment {namespace}/{}", installation::NAME);
        return Check::required(NAME, false, says, "kubectl apply -k deploy/kustomize, or say --handoff-namespace");
    };
    let wanted = deployment.spec.replicas.unwrap_or(1);
    let ready = deployment.status.as_ref().and_then(|s| s.ready_replicas).unwrap_or(0);
    let says = format!("{ready} of {wanted} are ready");
    let fix = format!(
        "kubectl -n {namespace} describe pods; a replica is ready when its caches are complete and it has a certificate"
    );
    if ready == 0 {
        return Check::required(NAME, false, says, fix);
    }
    let fix = if wanted < 2 { "run two, so that one answers while the other moves".to_owned() } else { fix };
    Check::advised(NAME, ready >= wanted && wanted >= 2, says, fix)
}

fn leads(lease: Option<&Lease>, now: Timestamp) -> Check {
    let leader = installation::leader_of(lease, now);
    let says = match (&leader, lease) {
        (Some(leader), _) => format!("held by {leader}"),
        (None, None) => "there is no lease yet".to_owned(),
        (None, Some(_)) => "held by nobody: it was not renewed in time".to_owned(),
    };
    let fix = "without a leader nothing moves on: look at the log of the replicas, and at the clock of this machine";
    Check::required("lease", leader.is_some(), says, fix)
}

fn guarded(budget: Option<&PodDisruptionBudget>) -> Check {
    let spec = budget.and_then(|b| b.spec.as_ref());
    let lets_sick_go = spec.is_some_and(|s| s.unhealthy_pod_eviction_policy.as_deref() == Some("AlwaysAllow"));
    let says = match spec {
        None => "there is none: a drain may take all replicas at once",
        Some(_) if lets_sick_go => "one replica stays, and one that is not ready keeps no node from being drained",
        Some(_) => "a replica that is not ready may keep a node from being drained",
    };
    Check::advised("disruption budget", lets_sick_go, says, "apply deploy/kustomize/pdb.yaml")
}

fn agents_run(namespace: &str, agents: Option<&DaemonSet>) -> Check {
    const NAME: &str = "agents";
    let fix = "optional: without an agent on the node that is left, a move waits for the kubelet's next report; apply deploy/kustomize/agent.yaml";
    let Some(status) = agents.and_then(|a| a.status.as_ref()) else {
        return Check::advised(NAME, false, format!("there is no DaemonSet {namespace}/handoff-agent"), fix);
    };
    let (ready, wanted) = (status.number_ready, status.desired_number_scheduled);
    Check::advised(NAME, ready >= wanted, format!("{ready} of {wanted} are ready"), fix)
}

fn owed(handoffs: &[VolumeHandoff], now: Timestamp) -> Check {
    let Owed { backups, since } = handoff_coordinator::now::owed(handoffs.iter());
    let age = since.map(|at| now.duration_since(at));
    let says = match age {
        None => "none".to_owned(),
        Some(age) => format!("{backups}, the oldest for {}", crate::commands::output::span(age)),
    };
    Check::advised(
        "owed backups",
        age.is_none_or(|age| age < LONG),
        says,
        "handoff status says what they wait for; handoff resume tries now, handoff abandon ends it",
    )
}

#[cfg(test)]
mod tests {
    use super::{super::State, *};
    use crate::commands::tests::{at, handoff};
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    fn of<T: DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn replicas_that_answer() {
        for (wanted, ready, state) in [
            (2, 2, State::Ok),
            (2, 1, State::Warning),
            (2, 0, State::Failed),
            (1, 1, State::Warning),
            (3, 3, State::Ok),
        ] {
            let deployment = of(json!({"spec": {"replicas": wanted, "selector": {}, "template": {}},
                "status": {"readyReplicas": ready}}));
            assert_eq!(replicas("ns", Some(&deployment)).state, state, "{ready} of {wanted}");
        }
        assert_eq!(replicas("ns", None).state, State::Failed);
    }

    #[test]
    fn somebody_leads() {
        let lease = of(json!({"spec": {"holderIdentity": "handoff-1", "renewTime": "2027-01-15T08:00:00.000000Z"}}));
        assert_eq!(leads(Some(&lease), at(3)).state, State::Ok);
        assert_eq!(leads(Some(&lease), at(60)).state, State::Failed);
        assert_eq!(leads(None, at(0)).state, State::Failed);
    }

    #[test]
    fn budget_and_agents() {
        let budget = |policy: &str| of(json!({"spec": {"unhealthyPodEvictionPolicy": policy}}));
        assert_eq!(guarded(Some(&budget("AlwaysAllow"))).state, State::Ok);
        assert_eq!(guarded(Some(&budget("IfHealthyBudget"))).state, State::Warning);
        assert_eq!(guarded(None).state, State::Warning);
        let agents = |ready: i32| {
            of(json!({"spec": {"selector": {}, "template": {}}, "status": {"numberReady": ready,
                "desiredNumberScheduled": 3, "currentNumberScheduled": 3, "numberMisscheduled": 0}}))
        };
        assert_eq!(agents_run("ns", Some(&agents(3))).state, State::Ok);
        assert_eq!(agents_run("ns", Some(&agents(2))).state, State::Warning);
        assert_eq!(agents_run("ns", None).state, State::Warning);
    }

    #[test]
    fn what_is_owed_for_long_is_worth_a_look() {
        let handoffs = [handoff("one"), handoff("two")];
        let check = owed(&handoffs, at(65));
        assert_eq!((check.state, check.says.as_str()), (State::Ok, "2, the oldest for 1m 5s"));
        assert_eq!(owed(&handoffs, at(3600)).state, State::Warning);
        assert_eq!(owed(&[], at(3600)).says, "none");
    }
}
