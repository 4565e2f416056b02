//! `handoff explain node/NAME`: which storage pods are held there and until when, and which volumes are on their way.

use super::{
    connection::Cluster,
    explain::{Explained, Explanation, explain_volume, handoffs_at},
    installation,
    look::Look,
    output::relative,
    release::storage_holds,
    subject::{self, Subject},
};
use handoff_coordinator::{api::VolumeHandoff, policy::after};
use handoff_storage::StorageManager;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt;

/// Explains a node.
pub async fn explain(cluster: &Cluster, name: &str, now: Timestamp) -> anyhow::Result<Explanation> {
    let node = subject::node(cluster, name).await?;
    let pods = subject::pods_on(cluster, name).await?;
    let held = storage_holds(cluster).await?;
    let bound = installation::policy(cluster).await?.storage_hold;
    let handoffs = handoffs_at(cluster, name).await?;
    let look = Look::at(cluster).await?;
    let mut page = Explanation { about: about(&node, &pods, &held, bound, now), ..Explanation::default() };
    let arriving = look.cluster.read().attaching(name);
    if arriving > 0 {
        page.about.push(format!("{arriving} volume(s) are being attached to it now."));
    }
    page.volumes = handoffs.iter().map(|h| volume(&look, h, now)).collect();
    if page.volumes.is_empty() {
        page.about.push("No volume is on its way from it or to it, and nothing is owed for one.".to_owned());
    }
    Ok(page)
}

fn volume(look: &Look, handoff: &VolumeHandoff, now: Timestamp) -> Explained {
    let of = &handoff.spec.volume;
    let subject = Subject {
        namespace: handoff.namespace().unwrap_or_default(),
        claim: of.claim.clone(),
        volume: Some(of.volume.clone()),
        csi: Some((of.driver.clone(), of.handle.clone())),
    };
    let (view, backups) = (look.storage.volume(&of.handle), look.storage.backups(&of.handle));
    explain_volume(&subject, Some(handoff), view.as_ref(), &backups, now)
}

/// The node in sentences, and a sentence on each pod that is held.
fn about(
    node: &Node,
    pods: &[Pod],
    held: &[(String, Timestamp)],
    bound: SignedDuration,
    now: Timestamp,
) -> Vec<String> {
    let name = node.name_any();
    let spec = node.spec.clone().unwrap_or_default();
    let conditions = node.status.iter().flat_map(|s| s.conditions.iter().flatten());
    let ready = conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True");
    let cordon = spec.taints.iter().flatten().find(|t| t.key == "node.kubernetes.io/unschedulable");
    let since = cordon.and_then(|t| t.time_added.as_ref()).map(|at| format!(" since {}", relative(at.0, now)));
    let cordoned = match spec.unschedulable {
        Some(true) => format!("cordoned{}", since.unwrap_or_default()),
        _ => "not cordoned".to_owned(),
    };
    let ready = if ready { "ready" } else { "not ready" };
    let mut about = vec![format!("Node {name} is {ready} and {cordoned}; {} pods are on it.", pods.len())];
    for pod in pods {
        about.extend(of_hold(pod, held, bound, now));
    }
    about
}

/// A sentence on a storage pod, or one of ours, whose eviction was denied.
pub fn of_hold(pod: &Pod, held: &[(String, Timestamp)], bound: SignedDuration, now: Timestamp) -> Option<String> {
    let since = held.iter().find(|(uid, _)| Some(uid) == pod.uid().as_ref()).map(|(_, since)| *since)?;
    let until = after(since, bound);
    let of = format!("pod {}/{}", pod.namespace().unwrap_or_default(), pod.name_any());
    let node = pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).unwrap_or_default();
    Some(if now < until {
        format!(
            "Storage leaves last: the eviction of {of} was first denied {}, and is held until {until:.0} at most; \
             less if the volumes that left the node are up before. To end it now: handoff release node/{node}",
            relative(since, now)
        )
    } else {
        format!("{of} is not held any more: its hold ended {}.", relative(until, now))
    })
}

#[cfg(test)]
mod tests {
    use super::super::{fake::Api as Fake, tests};
    use super::*;
    use serde_json::json;

    #[tokio::test]
    async fn who_is_held_on_a_node_and_what_is_on_its_way() {
        let at = tests::at;
        let api = Fake::default();
        api.put_all(
            "/api/v1/nodes",
            [json!({"metadata": {"name": "a"},
            "spec": {"unschedulable": true,
                "taints": [{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule", "timeAdded": at(0)}]},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]}})],
        );
        let pod = |name: &str, node: &str| json!({"metadata": {"name": name, "uid": name}, "spec": {"nodeName": node, "containers": []}});
        let pods = [pod("im-a", "a"), pod("im-b", "b"), pod("csi", "a"), pod("other", "a")];
        api.put_all("/api/v1/namespaces/longhorn-system/pods", pods);
        api.put(
            "/api/v1/namespaces/handoff-system/configmaps/handoff-holds",
            json!({
            "metadata": {"name": "handoff-holds"},
            "data": {"im-a": at(10).to_string(), "im-b": at(10).to_string(), "csi": at(-200).to_string()}}),
        );
        api.put("/apis/volumehandoff.io/v1alpha1/namespaces/shop/volumehandoffs/one", json!(tests::handoff("one")));
        let page = explain(&api.cluster("shop"), "a", at(20)).await.unwrap();
        assert_eq!(page.about[0], "Node a is ready and cordoned since 20s ago; 3 pods are on it.");
        let about = page.about[1..].join("\n");
        assert!(about.contains("longhorn-system/im-a was first denied 10s ago"), "{about}");
        assert!(about.contains("longhorn-system/csi is not held any more"), "{about}");
        assert!(!about.contains("im-b") && !about.contains("other"), "{about}");
        assert_eq!(page.volumes[0].claim, "shop/data-one");
        let page = explain(&api.cluster("shop"), "c", at(20)).await;
        assert!(page.unwrap_err().to_string().contains("no node c"));
    }
}
