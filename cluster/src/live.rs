//! Single objects straight from the API server, for the rare question that the cache cannot answer yet.

use crate::slim::{Node, ObjectKey, Pod, WireNode, WirePod};
use kube::{Api, Client};

/// The pod of this key, as it is now.
pub async fn pod(client: &Client, key: &ObjectKey) -> Result<Option<Pod>, kube::Error> {
    let api = Api::<WirePod>::namespaced(client.clone(), &key.namespace);
    Ok(api.get_opt(&key.name).await?.map(Pod::from))
}

/// The node of this name, as it is now.
pub async fn node(client: &Client, name: &str) -> Result<Option<Node>, kube::Error> {
    Ok(Api::<WireNode>::all(client.clone()).get_opt(name).await?.map(Node::from))
}
