//! Binds a pod in the scheduler's stead. Whoever is second finds the pod bound; to the same node, that is as good.

use crate::verdicts::PodRef;
use k8s_openapi::api::core::v1::{Binding, ObjectReference, Pod};
use kube::{Api, Client, api::PostParams, core::ObjectMeta};
use serde::de::IgnoredAny;

/// Binds `pod` to `node`. The error is one line.
pub async fn bind(client: &Client, pod: &PodRef, node: &str) -> Result<(), String> {
    let PodRef { namespace, name, uid } = pod;
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    // with the UID, a pod that was deleted and made anew under its name meanwhile is not bound
    let metadata = ObjectMeta {
        name: Some(name.clone()),
        namespace: Some(namespace.clone()),
        uid: uid.clone(),
        ..ObjectMeta::default()
    };
    let target =
        ObjectReference { kind: Some("Node".to_owned()), name: Some(node.to_owned()), ..ObjectReference::default() };
    let binding = Binding { metadata, target };
    let sent = api.create_subresource::<_, IgnoredAny>("binding", name, &PostParams::default(), &binding).await;
    match sent {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 409 => match api.get_opt(name).await {
            Ok(Some(found)) if is_bound(&found, uid.as_deref(), node) => Ok(()),
            _ => Err(status.message),
        },
        Err(error) => Err(error.to_string()),
    }
}

fn is_bound(pod: &Pod, uid: Option<&str>, node: &str) -> bool {
    let on = pod.spec.as_ref().and_then(|s| s.node_name.as_deref());
    on == Some(node) && uid.is_none_or(|uid| pod.metadata.uid.as_deref() == Some(uid))
}

#[cfg(test)]
mod tests {
    use crate::{
        stage::{Server, Storage, coordinator, db_0, pod, volume, volume_view},
        verdicts::Placement,
    };
    use handoff_cluster::Index;
    use serde_json::json;
    use std::{collections::BTreeMap, sync::Arc, time::Duration};

    fn waiting() -> Index {
        let mut index = Index::default();
        volume(&mut index, "data");
        index.put_pod(pod(None));
        index
    }

    #[tokio::test]
    async fn the_volume_is_asked_for_before_the_pod_is_bound() {
        let server = Server::default();
        let storage =
            Storage { volumes: BTreeMap::from([("data".to_owned(), volume_view(&[], &[]))]), ..Storage::default() };
        let coordinator = coordinator(&server, &Arc::new(storage), waiting());
        assert_eq!(coordinator.bind_pod(db_0(), "node-2".into()).await, Ok(()));
        let binding = &server.writes()[0];
        assert_eq!(binding["metadata"], json!({"name": "db-0", "namespace": "shop", "uid": "u1"}));
        assert_eq!(binding["target"], json!({"kind": "Node", "name": "node-2"}));
        assert_eq!(coordinator.arriving()["node-2"], 1);
        let queued = tokio::time::timeout(Duration::from_secs(5), coordinator.queue.next()).await;
        assert_eq!(queued.unwrap(), "data");
    }

    #[tokio::test]
    async fn a_pod_that_is_there_already_is_bound_and_any_other_refusal_is_an_error() {
        let server = Server::default();
        let coordinator = coordinator(&server, &Arc::default(), waiting());
        server.refuse_bindings(409);
        let bound = |uid: &str, node: &str| {
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "db-0", "uid": uid},
                "spec": {"nodeName": node, "containers": []}})
        };
        for (found, wanted) in [
            (bound("u1", "node-2"), true),
            (bound("u1", "node-3"), false),
            (bound("anew", "node-2"), false),
            (json!(null), false),
        ] {
            server.set_pod(found.clone());
            let bound = coordinator.bind_pod(db_0(), "node-2".into()).await;
            assert_eq!(bound.is_ok(), wanted, "{found}");
            assert!(bound.is_ok() || bound.unwrap_err().contains("already assigned"));
        }
        server.set_pod(bound("u1", "node-2"));
        server.refuse_bindings(403);
        assert!(coordinator.bind_pod(db_0(), "node-2".into()).await.is_err(), "no right to bind");
    }
}
