//! How Handoff is installed here: the bounds it runs with, read from its Deployment, and whether it works.

use super::connection::Cluster;
use anyhow::Context;
use handoff_coordinator::policy::Policy;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::{apps::v1::Deployment, coordination::v1::Lease};
use kube::Api;
use std::str::FromStr;

/// Name of the Deployment and of the lease.
pub const NAME: &str = "handoff";
/// A lease that was renewed no longer ago than this is held. It lasts 6 s; the rest is for clocks that differ.
const LEASE_FRESH: SignedDuration = SignedDuration::from_secs(15);

/// The bounds Handoff runs with: those that its Deployment sets, otherwise the defaults.
pub async fn policy(cluster: &Cluster) -> anyhow::Result<Policy> {
    Ok(policy_of(deployment(cluster).await?.as_ref()))
}

/// The Deployment, if there is one.
pub async fn deployment(cluster: &Cluster) -> anyhow::Result<Option<Deployment>> {
    let api = Api::<Deployment>::namespaced(cluster.client.clone(), &cluster.handoff);
    api.get_opt(NAME).await.context("cannot read Handoff's Deployment")
}

fn policy_of(deployment: Option<&Deployment>) -> Policy {
    let default = Policy::default();
    let Some(deployment) = deployment else { return default };
    Policy {
        mode: set(deployment, "mode", "HANDOFF_MODE").unwrap_or(default.mode),
        eviction_policy: set(deployment, "eviction-policy", "HANDOFF_EVICTION_POLICY")
            .unwrap_or(default.eviction_policy),
        eviction_hold: set(deployment, "eviction-hold", "HANDOFF_EVICTION_HOLD").unwrap_or(default.eviction_hold),
        storage_hold: set(deployment, "storage-hold", "HANDOFF_STORAGE_HOLD").unwrap_or(default.storage_hold),
        ..default
    }
}

/// What the Deployment sets, by flag or else by variable.
fn set<T: FromStr>(deployment: &Deployment, flag: &str, variable: &str) -> Option<T> {
    let spec = deployment.spec.template.spec.as_ref()?;
    let container = spec.containers.iter().find(|c| c.name == NAME).or_else(|| spec.containers.first())?;
    let args = container.args.iter().flatten().map(String::as_str).collect::<Vec<_>>();
    let name = format!("--{flag}");
    let by_flag = args.iter().enumerate().find_map(|(i, arg)| match arg.strip_prefix(&name) {
        Some("") => args.get(i + 1).copied(),
        Some(rest) => rest.strip_prefix('='),
        None => None,
    });
    let by_variable = || container.env.iter().flatten().find(|e| e.name == variable)?.value.as_deref();
    by_flag.or_else(by_variable)?.parse().ok()
}

/// Who leads, if the lease of this name is held now.
pub async fn leader(cluster: &Cluster, name: &str, now: Timestamp) -> anyhow::Result<Option<String>> {
    let api = Api::<Lease>::namespaced(cluster.client.clone(), &cluster.handoff);
    let lease = api.get_opt(name).await.with_context(|| format!("cannot read Lease {name}"))?;
    Ok(leader_of(lease.as_ref(), now))
}

/// Who leads by this lease.
pub fn leader_of(lease: Option<&Lease>, now: Timestamp) -> Option<String> {
    let spec = lease?.spec.as_ref()?;
    let renewed = spec.renew_time.as_ref()?.0;
    let holder = spec.holder_identity.clone().filter(|holder| !holder.is_empty());
    holder.filter(|_| now.duration_since(renewed) < LEASE_FRESH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use handoff_coordinator::verdicts::settings::{EvictionPolicy, Mode};
    use serde_json::json;

    fn deployment(args: &[&str], env: &[(&str, &str)]) -> Deployment {
        let env = env.iter().map(|(name, value)| json!({"name": name, "value": value})).collect::<Vec<_>>();
        serde_json::from_value(json!({"metadata": {"name": "handoff"}, "spec": {
            "selector": {}, "template": {"spec": {"containers": [{"name": "handoff", "args": args, "env": env}]}}}}))
        .unwrap()
    }

    #[test]
    fn the_bounds_are_those_of_the_deployment() {
        assert_eq!(policy_of(None), Policy::default());
        assert_eq!(policy_of(Some(&deployment(&["serve"], &[]))), Policy::default());
        let set = policy_of(Some(&deployment(
            &["serve", "--mode", "observe", "--eviction-hold=90s"],
            &[("HANDOFF_EVICTION_POLICY", "FinishIfNear"), ("HANDOFF_MODE", "disabled")],
        )));
        assert_eq!(
            (set.mode, set.eviction_policy),
            (Mode::Observe, EvictionPolicy::FinishIfNear),
            "a flag comes first"
        );
        assert_eq!(set.eviction_hold, SignedDuration::from_secs(90));
    }

    #[test]
    fn a_lease_that_is_not_renewed_is_held_by_nobody() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let lease = |holder: &str, ago: i64| {
            let renewed = (now - SignedDuration::from_secs(ago)).to_string();
            let renewed = renewed.replace('Z', ".000000Z");
            serde_json::from_value::<Lease>(json!({"spec": {"holderIdentity": holder, "renewTime": renewed}})).unwrap()
        };
        assert_eq!(leader_of(Some(&lease("handoff-1", 3)), now).as_deref(), Some("handoff-1"));
        assert_eq!(leader_of(Some(&lease("handoff-1", 16)), now), None);
        assert_eq!(leader_of(Some(&lease("", 3)), now), None, "given back");
        assert_eq!(leader_of(None, now), None);
    }
}
