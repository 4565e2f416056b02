//! The kubelets of the fake nodes: pods that are bound become ready, pods that are deleted go.

use crate::{
    control_plane::{ControlPlane, NODES, User},
    http::{Api, Read},
    world::{World, core},
};
use anyhow::Result;
use serde_json::json;
use std::time::Duration;
use tokio::task::JoinHandle;

/// A pod with this annotation is left alone.
pub const MANUAL: &str = "test/manual";

/// All kubelets. Dropping it stops them.
pub struct Kubelets(JoinHandle<()>);

impl Kubelets {
    /// Starts them.
    pub fn start(plane: &ControlPlane) -> Result<Self> {
        let world = World { admin: plane.api(User::Admin)? };
        let nodes = NODES.map(|n| plane.api(User::Node(n)).map(|api| (n, api)));
        let nodes = nodes.into_iter().collect::<Result<Vec<_>>>()?;
        Ok(Self(tokio::spawn(async move {
            loop {
                // whatever went wrong is looked at again
                let _ = look(&world, &nodes).await;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        })))
    }
}

impl Drop for Kubelets {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn look(world: &World, nodes: &[(&str, Api)]) -> Result<()> {
    let pods = world.admin.get("/api/v1/pods?fieldSelector=spec.nodeName!=").await?.ok()?;
    for pod in pods.items("/items") {
        if pod["metadata"]["annotations"][MANUAL].is_string() {
            continue;
        }
        let (namespace, name) = (pod.text("/metadata/namespace"), pod.text("/metadata/name"));
        if pod.has("/metadata/deletionTimestamp") {
            let Some((_, kubelet)) = nodes.iter().find(|(n, _)| *n == pod.text("/spec/nodeName")) else { continue };
            leave(kubelet, namespace, name, pod.text("/metadata/uid")).await?;
        } else if pod.text("/status/phase") == "Pending" {
            world.ready(namespace, name).await?;
        }
    }
    Ok(())
}

/// The kubelet's last word on a pod.
pub async fn leave(kubelet: &Api, namespace: &str, name: &str, uid: &str) -> Result<()> {
    let options = json!({"gracePeriodSeconds": 0, "preconditions": {"uid": uid}});
    kubelet.delete(&core(namespace, "pods", name), &options).await?.ok().map(drop)
}
